"""What every map is held against: heat that knows nothing, or nothing of what was learnt. All in the network's view."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from datasets.view import REACH
from explain.attribution import Asked, attribute
from explain.attribution.registry import PHOTOGRAPH
from explain.subject import Subject
from machine.seeds import derive_seed

BATCH, BATCH_OF_MANY_PASSES = 32, 8  # images
UNIFORM = "the same everywhere"
ANOTHERS = ", another image's map"  # after the title of a method: its map of an image of another cluster
UNTRAINED = ", untrained"  # after the title of a method, on the network before its training
BLOB = 0.5  # sigma of the blob in the middle, in half sides of the square, or radii of the coin
SMOOTH = 1 / 12  # sigma of random heat, of the view's shorter side: about as coarse as a CAM


def heats(subject: Subject, rows: np.ndarray, methods: Sequence[Asked], seed: int) -> dict[str, np.ndarray]:
    """Heat of each method for the own cluster's logit, of each on the untrained network, and of each of CONTROLS.

    Args:
        subject: whose images and networks.
        rows: (B,) of the run; each has a cluster.
        methods: whose maps; the photograph itself is passed over.
        seed: of what is random, which of one image is the same in any batch.

    Returns:
        Title -> (B, H, W) float32 from 0, in the view; unscaled, and all zero where a map is.
    """
    asked = [one for one in methods if one.name != PHOTOGRAPH]
    size = BATCH_OF_MANY_PASSES if any(one.method.passes == "many" for one in asked) else BATCH
    parts = []
    for begin in range(0, len(rows), size):
        some = rows[begin : begin + size]
        images = subject.images(some)
        targets = own_targets(subject, some)
        found = heats_of(subject.model, images, targets, asked)
        before = heats_of(subject.untrained, images, targets, asked)
        found |= {title + UNTRAINED: heat for title, heat in before.items()}
        found |= {title: control(subject, some, images, seed) for title, control in CONTROLS.items()}
        parts.append(found)
    return {title: np.concatenate([part[title] for part in parts]) for title in parts[0]} if parts else {}


def own_targets(subject: Subject, rows: np.ndarray) -> Tensor:
    """(B,) the logit of each image's own cluster."""
    return torch.as_tensor(subject.clusters.column_of(subject.clusters.assignment[rows]), device=subject.device)


def partners_of(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B,) for each image the place of another one, of another cluster where there is one."""
    found = np.empty(len(clusters), np.int64)
    for i, own in enumerate(clusters.tolist()):
        others = np.flatnonzero(clusters != own)
        if not len(others):
            others = np.delete(np.arange(len(clusters)), i) if len(clusters) > 1 else np.array([i])
        found[i] = rng.choice(others)
    return found


def heats_of(
    model: torch.nn.Module, images: Tensor, targets: Tensor, methods: Sequence[Asked]
) -> dict[str, np.ndarray]:
    """Title of each method -> (B, H, W) float32 heat of a network's maps."""
    maps = attribute(model, images, targets, methods)
    return {one.title: heat_of(one, maps[one.key].detach().float().cpu().numpy()) for one in methods}


def heat_of(asked: Asked, maps: np.ndarray) -> np.ndarray:
    """What speaks for the score, of a method's maps.

    The size of signed maps; of changes by hiding a place the falls, since there the place was needed; of others what
    is above 0.

    Args:
        asked: the method.
        maps: (B, C, H, W).

    Returns:
        (B, H, W) from 0, summed over channels.
    """
    kind = asked.method.kind
    signed = np.abs(maps) if kind == "signed" else np.maximum(-maps if kind == "change" else maps, 0)
    return signed.sum(1)


def random_heat(subject: Subject, rows: np.ndarray, images: Tensor, seed: int) -> np.ndarray:
    """Smooth noise in 0..1, of each image another."""
    height, width = images.shape[2:]
    found = np.empty((len(rows), height, width), np.float32)
    for heat, row in zip(found, rows.tolist(), strict=True):
        noise = np.random.default_rng(derive_seed(seed, row, "random heat")).normal(size=(height, width))
        smooth = _smooth(noise, SMOOTH * min(height, width), goes_around(subject))
        heat[:] = (smooth - smooth.min()) / max(float(np.ptp(smooth)), 1e-12)
    return found


def uniform_heat(subject: Subject, rows: np.ndarray, images: Tensor, seed: int) -> np.ndarray:
    """The same everywhere."""
    return np.ones((len(rows), *images.shape[2:]), np.float32)


def central_heat(subject: Subject, rows: np.ndarray, images: Tensor, seed: int) -> np.ndarray:
    """A Gaussian about the middle of what is drawn; of an unrolled coin about its centre, the first row."""
    height, width = images.shape[2:]
    if goes_around(subject):
        away = np.repeat(np.arange(height)[:, None] * (REACH / height), width, 1)
    else:
        down, across = ((np.arange(length) + 0.5) * 2 / length - 1 for length in (height, width))
        away = np.hypot(down[:, None], across[None])
    blob = np.exp(-((away / BLOB) ** 2) / 2).astype(np.float32)
    return np.repeat(blob[None], len(rows), 0)


def edge_heat(subject: Subject, rows: np.ndarray, images: Tensor, seed: int) -> np.ndarray:
    """Strength of the edges of what the network sees (Sobel, of its grey; of a relief of its height)."""
    return np.stack([edges_of(picture, goes_around(subject)) for picture in subject.photographs(images)])


EDGES = "edges of the photograph"
CONTROLS: dict[str, Callable[[Subject, np.ndarray, Tensor, int], np.ndarray]] = {
    "random heat": random_heat,
    UNIFORM: uniform_heat,
    "a blob in the middle": central_heat,
    EDGES: edge_heat,
}


def goes_around(subject: Subject) -> bool:
    """Whether the left and right edge of the view meet."""
    return bool(subject.model.goes_around)


def edges_of(picture: np.ndarray, around: bool = False) -> np.ndarray:
    """(H, W) float32 strength of the edges of a picture (H, W, 3) uint8; `around`: its left and right edge meet."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if around:
        grey = np.concatenate([grey[:, -1:], grey, grey[:, :1]], 1)
    edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return edges[:, 1:-1] if around else edges


def _smooth(values: np.ndarray, sigma: float, around: bool) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(values, sigma, mode=("reflect", "wrap" if around else "reflect"))
