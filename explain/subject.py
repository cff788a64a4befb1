"""Extract: a run directory -> the network of an epoch, its images, and the cluster of each."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import runs
from console import UserError, progress
from datasets import open_dataset
from deepcluster.models import ClusterNet, folded, trained_model
from deepcluster.models import build as build_clusters
from deepcluster.views import MEAN, STD, Frames, fixed_view
from machine import autocast
from runs import Run
from supervised import predict as supervised
from supervised.models import DigitNet
from supervised.models import build as build_digits

LOOKED_AT = 128  # images in a batch of the first look


@dataclass(frozen=True)
class Assignment:
    """Which cluster each of the run's N images is explained in."""

    cluster: np.ndarray  # (N,) number, -1: none
    distance: np.ndarray  # (N,) to the own centroid, NaN: unknown
    logits: dict[int, tuple[int, ...]]  # cluster -> its logits: one, or several if it was merged
    names: dict[int, str]  # given by the expert
    digest: str | None  # of the table it came from; None: the run's own

    @property
    def columns(self) -> list[int]:
        """Cluster numbers in the order of a Grouped network's outputs."""
        return sorted(self.logits)


class Grouped(nn.Module):
    """A network whose outputs are clusters merged of several logits: (B, K) -> (B, len(groups)).

    The log-sum-exp of logits is the logit of "one of them".
    """

    def __init__(self, model: ClusterNet | DigitNet, groups: Sequence[tuple[int, ...]]):
        super().__init__()
        self.model, self.groups = model, groups

    @property
    def cam_layer(self) -> nn.Module:
        return self.model.cam_layer

    def maps(self, images: Tensor) -> Tensor:
        return self.model.maps(images)

    def from_maps(self, maps: Tensor) -> Tensor:
        return grouped(self.model.from_maps(maps), self.groups)

    def forward(self, images: Tensor) -> Tensor:
        return self.from_maps(self.maps(images))


def grouped(logits: Tensor, groups: Sequence[tuple[int, ...]]) -> Tensor:
    """(N, K) logits -> (N, len(groups))."""
    if all(len(group) == 1 for group in groups):
        return logits[:, [group[0] for group in groups]]
    return torch.stack([logits[:, list(group)].logsumexp(1) for group in groups], 1)


class Subject:
    """What is explained: one epoch of a run, and the images that are still there.

    `model(images(rows))` are the logits of the clusters `assignment.columns`, batch norms folded.
    """

    def __init__(self, run: Run, epoch: int, pictures: "Pictures", assignments: Path | None, device: torch.device):
        self.run, self.epoch, self.pictures, self.device = run, epoch, pictures, device
        self.supervised = run.meta["kind"] == "supervised"
        self.size: int = run.meta["view"]["size"]
        self.seed: int = run.meta["config"]["seed"]
        self._net = (supervised.trained_model if self.supervised else trained_model)(run, epoch).to(device)
        k = self._net(self.images(pictures.present[:1])).shape[1]
        self.assignment = (
            own_assignment(run, epoch, k) if assignments is None else read_assignments(assignments, run, epoch, k)
        )
        self.groups = [self.assignment.logits[cluster] for cluster in self.assignment.columns]
        self.model = Grouped(self._folded(self._net), self.groups)

    @cached_property
    def names(self) -> list[str]:
        """A file name, without suffix, for each of the run's images."""
        return file_names(self.run.ids)

    def untrained(self) -> Grouped:
        """The same network before any training."""
        net: DigitNet | ClusterNet
        if self.supervised:
            net = build_digits(**self._net.arguments, seed=self.seed).eval()
        else:
            net = build_clusters(self._net.arguments, self.seed).eval()
        return Grouped(self._folded(net.to(self.device)), self.groups)

    def images(self, rows: np.ndarray) -> Tensor:
        """The view of images `rows` of the run that the network sees: (B, C, H, W)."""
        at = self.pictures.position[rows]
        if self.supervised:
            return supervised.view(self.pictures.frames.pixels, at, self.device)
        return fixed_view(self.pictures.frames, at, self.size, self.run.meta["view"]["center_crop"])

    def photographs(self, images: Tensor) -> np.ndarray:
        """What `images` gave, for the eye: (B, H, W, 3) uint8."""
        if not self.supervised:
            mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
            images = images * std + mean
        pixels = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return pixels.repeat(3 // pixels.shape[3], 3)

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        """Features (M, D) and the logits (M, columns) of the M images that are there, float32."""
        features, logits = [], []
        rows = self.pictures.present
        with torch.inference_mode(), autocast(self.device):
            for begin in progress(range(0, len(rows), LOOKED_AT), "looking", unit="batches"):
                feature = self.model.model.embed(self.images(rows[begin : begin + LOOKED_AT]))
                features.append(feature.float().cpu())
                logits.append(self.model.model.classify(feature).float().cpu())
        return torch.cat(features).numpy(), grouped(torch.cat(logits), self.groups).numpy()

    def _folded(self, net: ClusterNet | DigitNet) -> ClusterNet | DigitNet:
        """For inference: batch norms folded into the convolutions before them, where that can be."""
        if isinstance(net, ClusterNet):
            return folded(net)
        return net.requires_grad_(False).to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Pictures:
    """The run's images where they are now."""

    frames: Frames
    position: np.ndarray  # (N,) of the run's image i among the frames, -1: not there any more

    @property
    def present(self) -> np.ndarray:
        return np.flatnonzero(self.position >= 0)


def find_pictures(
    run: Run, data: str | None, workers: int | None, mnist_dir: Path | None, device: torch.device
) -> Pictures:
    """The run's images, from `data` if they were moved. Raises: UserError if none is there."""
    source = data or run.meta["dataset"]["source"]
    dataset = open_dataset(source, run.meta["view"]["decoded_side"], None, workers, mnist_dir)
    where = {name: i for i, name in enumerate(dataset.ids)}
    position = np.array([where.get(name, -1) for name in run.ids], np.int64)
    if (position < 0).all():
        raise UserError(
            f"{source}: none of the run's {len(run.ids)} images is there (the first: {run.ids[0]}): name their folder with --data"
        )
    if len(dataset) > (position >= 0).sum():  # --limit, or newer images: leave the others alone
        used = np.flatnonzero(np.isin(np.arange(len(dataset)), position))
        dataset = dataset.take(used)
        position = np.where(position >= 0, np.searchsorted(used, position), -1)
    return Pictures(Frames(dataset.pixels, device), position)


def file_names(ids: Sequence[str]) -> list[str]:
    """A safe, unique file name (without suffix) for each id: letters, digits, - and . of any script; folders become _.

    Names that would meet, also where large and small letters are the same, carry a piece of their id's hash.
    """
    plain = []
    for name in ids:
        stem = unicodedata.normalize("NFC", name.rsplit(".", 1)[0] if "." in name.rsplit("/", 1)[-1][1:] else name)
        safe = re.sub(r"[^\w.-]+", "_", stem).strip("._-").encode()[:120].decode(errors="ignore")
        plain.append(safe or "image")
    seen = Counter(name.casefold() for name in plain)
    return [
        safe
        if seen[safe.casefold()] == 1
        else f"{safe}-{sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
        for safe, name in zip(plain, ids, strict=True)
    ]


def own_assignment(run: Run, epoch: int, k: int) -> Assignment:
    clusters = run.clusters(epoch)
    return Assignment(clusters.assignment.astype(np.int64), clusters.distance, {j: (j,) for j in range(k)}, {}, None)


def read_assignments(path: Path, run: Run, epoch: int, k: int) -> Assignment:
    """A table with the columns image and cluster, and perhaps logits ("3+7") and name, as `explain apply` writes it.

    An empty cluster means none. Images that the table leaves out have none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"--assignments {path}: no such file") from None
    rows = runs.read_csv(path)
    if not rows or not {"image", "cluster"} <= rows[0].keys():
        raise UserError(f"--assignments {path}: needs the columns image and cluster")
    index = {name: i for i, name in enumerate(run.ids)}
    own = own_assignment(run, epoch, k)
    cluster = np.full(len(run.ids), -1, np.int64)
    logits: dict[int, tuple[int, ...]] = {}
    names: dict[int, str] = {}
    for line, row in enumerate(rows, 2):
        if row["image"] not in index:
            raise UserError(f"--assignments {path}, line {line}: {row['image']!r} is not an image of {run.path}")
        if not row["cluster"].strip():
            continue
        number = _number(path, line, row["cluster"], k)
        cluster[index[row["image"]]] = number
        members = tuple(_number(path, line, part, k) for part in re.split(r"[+ ]+", (row.get("logits") or row["cluster"]).strip()))  # fmt: skip
        if logits.setdefault(number, members) != members:
            raise UserError(f"--assignments {path}, line {line}: cluster {number} has other logits than above")
        if row.get("name"):
            names[number] = row["name"]
    if not logits:
        raise UserError(f"--assignments {path}: puts no image into a cluster")
    taken = {j for members in logits.values() for j in members}
    logits |= {j: (j,) for j in range(k) if j not in taken and j not in logits}
    distance = np.where(cluster == own.cluster, own.distance, np.nan)
    return Assignment(cluster, distance, logits, names, sha256(content).hexdigest()[:16])


def _number(path: Path, line: int, text: str, k: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < k:
        raise UserError(f"--assignments {path}, line {line}: {text!r} is not a cluster of this epoch: 0 to {k - 1}")
    return number


def epochs_to_explain(run: Run, wanted: str) -> list[int]:
    """`latest`, `all` or a number -> epochs whose weights were kept."""
    kept = run.checkpoints()
    if not kept:
        raise UserError(f"{run.path}: no epoch is finished yet: let the training go on, then explain")
    if wanted == "latest":
        return kept[-1:]
    if wanted == "all":
        return kept
    if int(wanted) not in kept:
        raise UserError(f"--epoch {wanted}: this run kept the weights of epochs {', '.join(map(str, kept))}")
    return [int(wanted)]


def identity(run: Run) -> dict[str, Any]:
    """What tells one run from another, wherever they lie."""
    sha = sha256()
    for name in ("run.json", "images.csv"):
        sha.update((run.path / name).read_bytes())
    return {"run": sha.hexdigest()[:16], "name": run.path.resolve().name}
