"""What the network would say if a part of the image were hidden: occlusion, and `cover` for a single patch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from console import UserError, progress
from explain.attribution.targets import as_weights, frozen
from machine.device import full_precision

COVERED = {"cpu": 64, "cuda": 512}  # covered images in memory at a time
BLUR = 0.1  # sigma of the fill `blur`, as a fraction of the shorter side
WINDOW, STRIDE = (0.2,), 0.25
FILLS = ("grey", "mean", "blur")
SCORES = ("probability", "logit")


def occlusion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    window: float | Sequence[float] = WINDOW,
    stride: float = STRIDE,
    fill: str | float | Tensor = "grey",
    score: str = "probability",
) -> Tensor:
    """The change of the score when a patch slides over the image (Zeiler & Fergus 2014, section 4.2).

    A pixel's value is the mean over all covers that hide it of (score with the cover - score without). Where it is
    negative the cover hid support, where it is positive an obstacle. This is captum's `Occlusion` with the other sign.

    Args:
        model: any torch module from images to (B, K) logits.
        images: (B, C, H, W).
        targets: (B,) logit numbers, or (B, K) weights; with the score `probability` of a margin: the difference of two
            probabilities.
        window: the patch's sides as fractions of the image's, over 0 to 1; several: the mean of their maps, which
        favours
            no scale.
        stride: below 1 a fraction of the window, from 1 on whole pixels. Every cover has the full size: the last of a
        row
            ends at the edge, a smaller step after the one before it if need be.
        fill: `grey`: mid grey for the eye, which a model tells as `neutral` (1, C, 1, 1), since a method sees only what
        a
            trainer made of the pixels; a model that does not tell gets the image's mean. `mean`: of each image and
            channel. `blur`: the image itself, blurred by a Gaussian of a tenth of the side. A number or a tensor that
            broadcasts to `images` is taken as it is.
        score: `probability` (softmax over all logits) or `logit`.

    Returns:
        (B, 1, H, W), in probability or logits.

    Raises:
        UserError: if the window is over the image or under a pixel, or a stride would leave pixels out.
    """
    return measured_occlusion(model, images, targets, window, stride, fill, score)[0]


def measured_occlusion(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    window: float | Sequence[float] = WINDOW,
    stride: float = STRIDE,
    fill: str | float | Tensor = "grey",
    score: str = "probability",
) -> tuple[Tensor, dict[str, Tensor]]:
    """`occlusion`, and of each image its score `uncovered`, under the `worst` and under the `best` cover, (B,) each."""
    if score not in SCORES:
        raise UserError(f"occlusion: the score is {' or '.join(SCORES)}, not {score!r}")
    height, width = images.shape[2:]
    sizes = [window] if isinstance(window, int | float) else list(window)
    grids = [Grid.over(height, width, size, stride) for size in sizes]
    with frozen(model), torch.no_grad(), full_precision():
        logits = model(images)
        weights = as_weights(targets, logits)
        uncovered = score_of(logits, weights, score)
        covers = torch.cat([grid.covers() for grid in grids]).to(images.device)
        scores = score_covered(model, images, filling(fill, model, images), covers, weights, score)
    changes = scores - uncovered[:, None]  # (B, P)
    maps, done = torch.zeros(len(images), height, width).to(changes), 0
    for grid in grids:
        count = len(grid.tops) * len(grid.lefts)
        maps += grid.spread(changes[:, done : done + count]) / len(grids)
        done += count
    return maps[:, None], {"uncovered": uncovered, "worst": scores.amin(1), "best": scores.amax(1)}


def check_occlusion(side: int, window: Sequence[float] = WINDOW, stride: float = STRIDE, **_: Any) -> None:
    """Refuse a window or stride that images of `side` x `side` pixels do not allow.

    Raises:
        UserError: saying which.
    """
    for size in window:
        Grid.over(side, side, size, stride)


class Grid:
    """The places of a patch of one size on an image.

    Args:
        shape: height and width of the image.
        patch: of the patch.
        step: pixels from one place to the next, down and across.
    """

    def __init__(self, shape: tuple[int, int], patch: tuple[int, int], step: tuple[int, int]):
        self.shape, self.patch = shape, patch
        self.tops, self.lefts = (_starts(*sides) for sides in zip(shape, patch, step, strict=True))

    @classmethod
    def over(cls, height: int, width: int, window: float, stride: float) -> "Grid":
        """Of a window and a stride as `occlusion` takes them."""
        if not 0 < window <= 1:
            raise UserError(f"occlusion: a window of {window:g} of the image: give a fraction over 0 to 1")
        patch = round(window * height), round(window * width)
        if min(patch) < 1:
            side = min(height, width)
            raise UserError(
                f"occlusion: a window of {window:g} is under a pixel of a side of {side} pixels: use {1 / side:.3f} or "
                "more"
            )
        if stride <= 0 or (stride >= 1 and stride != int(stride)):
            raise UserError(
                f"occlusion: a stride of {stride:g}: give a fraction of the window below 1, or whole pixels from 1 on"
            )
        step = tuple(int(stride) if stride >= 1 else max(1, round(stride * side)) for side in patch)
        if any(one > side for one, side in zip(step, patch, strict=True)):
            raise UserError(
                f"occlusion: a stride of {int(stride)} pixels leaves gaps between windows of {min(patch)}: use at most "
                "that"
            )
        return cls((height, width), patch, (step[0], step[1]))

    def covers(self) -> Tensor:
        """(P, 4) int64: top, left, height, width of each place, row by row."""
        return torch.tensor([(top, left, *self.patch) for top in self.tops for left in self.lefts])

    def spread(self, values: Tensor) -> Tensor:
        """(B, P) values of the places -> (B, H, W): of each pixel the mean over the places that hide it."""
        down, across = (
            torch.tensor([[start <= at < start + long for at in range(side)] for start in starts]).to(values)
            for starts, long, side in zip((self.tops, self.lefts), self.patch, self.shape, strict=True)
        )  # (places, H), (places, W)
        grid = values.unflatten(1, (len(self.tops), len(self.lefts)))
        return torch.einsum("hy,bhw,wx->byx", down, grid, across) / (down.sum(0)[:, None] * across.sum(0))


def _starts(side: int, patch: int, step: int) -> list[int]:
    return sorted({*range(0, side - patch + 1, step), side - patch})


def score_of(logits: Tensor, weights: Tensor, score: str) -> Tensor:
    """(B, K) logits and weights -> (B,) weighted sum of probabilities or of logits."""
    return ((logits.softmax(1) if score == "probability" else logits) * weights).sum(1)


def score_covered(
    model: nn.Module, images: Tensor, filled: Tensor, covers: Tensor, weights: Tensor, score: str
) -> Tensor:
    """The score of every image under every cover, a few covered images in memory at a time.

    Args:
        model: from images to (B, K) logits, in eval mode.
        images: (B, C, H, W).
        filled: what shows where a cover lies, broadcasts to `images`.
        covers: (P, 4) top, left, height, width.
        weights: (B, K) of the logits.
        score: `probability` or `logit`.

    Returns:
        (B, P).
    """
    filled = filled.expand_as(images)
    down, across = (torch.arange(side, device=images.device) for side in images.shape[2:])
    total, many = len(images) * len(covers), COVERED.get(images.device.type, 64)
    found = []
    for begin in progress(range(0, total, many), "covering", unit="batches"):
        index = torch.arange(begin, min(begin + many, total), device=images.device)
        which, place = index // len(covers), index % len(covers)
        top, left, height, width = (part[:, None] for part in covers[place].unbind(1))
        rows = (down >= top) & (down < top + height)  # (n, H)
        columns = (across >= left) & (across < left + width)  # (n, W)
        hidden = (rows[:, :, None] & columns[:, None, :])[:, None]  # (n, 1, H, W)
        found.append(score_of(model(torch.where(hidden, filled[which], images[which])), weights[which], score))
    return torch.cat(found).view(len(images), len(covers))


def filling(fill: str | float | Tensor, model: nn.Module, images: Tensor) -> Tensor:
    """What shows where a cover lies, as `occlusion` tells; broadcasts to `images`."""
    if isinstance(fill, Tensor):
        return fill.to(images)
    if isinstance(fill, int | float):
        return torch.full((1, 1, 1, 1), float(fill)).to(images)
    if fill not in FILLS:
        raise UserError(f"occlusion: the fill is {', '.join(FILLS)} or a number, not {fill!r}")
    neutral = getattr(model, "neutral", None)
    if fill == "grey" and neutral is not None:
        return neutral.to(images)
    return blurred(images) if fill == "blur" else images.mean((2, 3), keepdim=True)


def blurred(images: Tensor) -> Tensor:
    """(B, C, H, W) under a Gaussian of BLUR of the shorter side."""
    from torchvision.transforms.functional import gaussian_blur

    side = min(images.shape[2:])
    if side < 3:
        return images.mean((2, 3), keepdim=True)
    return gaussian_blur(images, [2 * max(1, round(2 * BLUR * side)) + 1] * 2, [BLUR * side] * 2)


def cover(image: Any, position: tuple[float, float], fraction: float, fill: Any = "grey") -> Any:
    """A copy of an image in which a patch is hidden.

    Args:
        image: a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W) or (B, C, H, W).
        position: how far down and across the patch lies, 0 to 1 each: (0, 0) in the top left corner, (1, 1) in the
        bottom
            right one, (.5, .5) in the middle. It always lies within the image.
        fraction: its sides as fractions of the image's, over 0 to 1.
        fill: `grey` (128 of bytes, .5 of numbers), `mean` of each channel, `blur`, or a value that broadcasts.

    Returns:
        The same kind of image.

    Raises:
        UserError: if position, fraction or fill are none.
    """
    if isinstance(image, Image.Image):
        mode = image.mode if image.mode in ("L", "RGB") else "RGB"
        return Image.fromarray(cover(np.asarray(image.convert(mode)), position, fraction, fill))
    if isinstance(image, np.ndarray):
        channels = image if image.ndim == 3 else image[:, :, None]
        covered = cover(torch.from_numpy(np.array(channels)).permute(2, 0, 1), position, fraction, fill)
        return covered.permute(1, 2, 0).numpy().reshape(image.shape)
    if not all(0 <= place <= 1 for place in position):
        raise UserError(f"cover: the position {tuple(position)} is not within 0 to 1, down and across")
    height, width = image.shape[-2:]
    grid = Grid.over(height, width, fraction, 1)
    top, left = (
        round(place * (side - long)) for place, side, long in zip(position, (height, width), grid.patch, strict=True)
    )
    whole = image.reshape(-1, *image.shape[-3:])
    if isinstance(fill, str) and fill == "grey":
        filled = torch.tensor(0.5 if image.is_floating_point() else 128.0)
    elif isinstance(fill, str):
        filled = filling(fill, nn.Identity(), whole.float())
    else:
        filled = torch.as_tensor(fill, dtype=torch.float32)
    filled = filled.expand(whole.shape) if image.is_floating_point() else filled.round().expand(whole.shape)
    place = (slice(None), slice(None), slice(top, top + grid.patch[0]), slice(left, left + grid.patch[1]))
    covered = whole.clone()
    covered[place] = filled[place].to(whole.dtype)
    return covered.view(image.shape)
