"""What is explained: a run directory -> the network of an epoch, its images, and the cluster of each.

`TRAINERS` is the one table from a run's kind to the module that opens it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from console import UserError, progress
from datasets import SOURCES, Dataset, check_drawn, decoded_side, look, open_dataset
from datasets.places import Place, place_at
from datasets.view import COLOURLESS, PHOTOGRAPH, Window, neutral, to_photograph
from deepcluster.views import Frames
from explain.assignment import ExplainedClusters, clusters_of, merge_logits
from machine.device import full_precision
from runs import Run
from runs.received import choose_images, tell_changes

SHOWN = 160  # pixels, side of the photographs that maps of another view are drawn back onto
LOOKED_AT = 128  # images in a batch of the pass over all

TRAINERS = {"deepcluster": "deepcluster.trained", "supervised": "supervised.trained"}


class Network(Protocol):
    """What explaining asks of a trained network; logit j is cluster j."""

    @property
    def cam_layer(self) -> nn.Module: ...

    def maps(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> the output of `cam_layer`."""

    def from_maps(self, maps: Tensor) -> Tensor:
        """From there to the (B, K) logits."""

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D) features."""

    def classify(self, embedding: Tensor) -> Tensor:
        """From there to the (B, K) logits."""


class Trainer(Protocol):
    """What a trainer's `trained` module offers of its runs."""

    def group(self, run: Run) -> str:
        """What one logit stands for: "cluster" or "digit"."""

    def class_names(self, run: Run) -> list[str] | None:
        """What logit j should say, where that is known: then a prediction can be wrong."""

    def given_names(self, run: Run) -> dict[int, str]:
        """What logits are called, those that have another name than their number."""

    def network(self, run: Run, epoch: int | None = None) -> Any:
        """The network of an epoch, in eval mode on the CPU."""

    def untrained(self, run: Run, trained: Any, draw: int = 0) -> Any:
        """The same network before its training; `draw`: from 1 on with other random weights."""

    def taught(
        self,
        run: Run,
        frames: Frames,
        labels: np.ndarray,
        k: int,
        epochs: int,
        seed: int,
        kept: Path,
        stop_after: int | None,
    ) -> tuple[Any, list[float]] | None:
        """Another network, taught labels (N,) in 0..k - 1 of the N images until it knows them by heart.

        And what share of them it knows after each epoch. At most `epochs`, or just `stop_after`; `kept` is a file for
        what it takes to go on after a stop. None: of such a run there is none.
        """

    def for_inference(self, model: Any) -> Any:
        """The same function, faster."""

    def view(self, run: Run, frames: Frames, rows: np.ndarray) -> Tensor:
        """Images as the network sees them, (B, C, H, W)."""

    def photograph(self, images: Tensor) -> Tensor:
        """What `view` gave, for the eye: (B, 1 or 3, H, W) in 0..1."""

    def from_photograph(self, images: Tensor) -> Tensor:
        """The inverse of `photograph`."""

    def clustered(self, run: Run, features: np.ndarray, dataset: Dataset) -> np.ndarray:
        """Features (N, D) of all images of the dataset as points of which near ones are alike, (N, d)."""


def trainer_of(run: Run) -> Any:
    """The `trained` module (a Trainer) of a run.

    Raises:
        UserError: if the run is of a kind that this version does not know.
    """
    if run.meta.kind not in TRAINERS:
        raise UserError(f"{run.path}: a run of an unknown kind ({run.meta.kind}): update this program")
    return import_module(TRAINERS[run.meta.kind])


def pixels_for_network(trainer: Any, shown: Tensor) -> Tensor:
    """What the network sees of a picture for the eye: `trainer.photograph` backwards.

    A view stretches and shifts each channel; how, two values show.

    Args:
        trainer: a Trainer.
        shown: (B, C, H, W) in 0..1, C the channels of the network's view.

    Returns:
        (B, C, H, W).
    """
    zero = torch.zeros_like(shown[:1, :, :1, :1])
    black, white = trainer.photograph(zero), trainer.photograph(zero + 1)
    return (shown - black) / (white - black)


def neutral_pixel(trainer: Any, view: str, images: Tensor) -> Tensor:
    """What the network sees where there is nothing to see, (1, C, 1, 1); `images` (B, C, H, W) are some of its view."""
    shown = torch.tensor(neutral(view)[: images.shape[1]]).view(1, -1, 1, 1).to(images)
    return pixels_for_network(trainer, shown)


class MergedLogits(nn.Module):
    """A network whose outputs are clusters, some of them merged of several logits: (B, K) -> (B, len(groups)).

    `neutral` (1, C, 1, 1) is what it sees where there is nothing to see; None: not known.
    """

    def __init__(self, model: Any, groups: list[tuple[int, ...]], neutral: Tensor | None = None):
        super().__init__()
        self.model, self.groups, self.neutral = model, groups, neutral

    @property
    def goes_around(self) -> bool:
        """Whether the left and right edge of its images meet."""
        return getattr(self.model, "goes_around", False)

    @property
    def cam_layer(self) -> nn.Module:
        return self.model.cam_layer

    def maps(self, images: Tensor) -> Tensor:
        return self.model.maps(images)

    def from_maps(self, maps: Tensor) -> Tensor:
        return merge_logits(self.model.from_maps(maps), self.groups)

    def embed(self, images: Tensor) -> Tensor:
        return self.model.embed(images)

    def classify(self, embedding: Tensor) -> Tensor:
        return merge_logits(self.model.classify(embedding), self.groups)

    def forward(self, images: Tensor) -> Tensor:
        return self.from_maps(self.maps(images))


@dataclass(frozen=True)
class Pictures:
    """The run's images where they are now."""

    dataset: Dataset
    frames: Frames
    position: np.ndarray  # (N,) of the run's image i among the frames, -1: not there any more

    @property
    def present(self) -> np.ndarray:
        """The run's images that are there."""
        return np.flatnonzero(self.position >= 0)


class Subject:
    """What is explained: one epoch of a run, and the images that are still there.

    `model(images(rows))` are the logits of the clusters `clusters.numbers`, batch norms fused.
    """

    def __init__(self, run: Run, epoch: int, pictures: Pictures, assignments: Path | None, device: torch.device):
        self.run, self.epoch, self.pictures, self.device = run, epoch, pictures, device
        self.trainer: Trainer = trainer_of(run)
        self.view: str = run.meta.view.name
        self.size: int = run.meta.view.size if self.view == PHOTOGRAPH else SHOWN  # pixels, side of what is drawn
        self.seed: int = run.meta.seed
        self._net = self.trainer.network(run, epoch).to(device)
        self._one = self.images(pictures.present[:1])  # (1, C, H, W)
        with torch.inference_mode():
            k = self._net(self._one).shape[1]
        self.class_names = self.trainer.class_names(run)
        self.clusters: ExplainedClusters = clusters_of(run, epoch, k, self.trainer.given_names(run), assignments)
        self.model = self._merged(self._net)

    @property
    def group(self) -> str:
        """The word for a cluster."""
        return self.trainer.group(self.run)

    @cached_property
    def untrained(self) -> MergedLogits:
        """The same network before any training."""
        return self.with_random_weights(0)

    def with_random_weights(self, draw: int) -> MergedLogits:
        """The same network with random weights: 0 those that its training started from, from 1 on others."""
        return self._merged(self.trainer.untrained(self.run, self._net, draw).to(self.device))

    def taught(
        self, rows: np.ndarray, labels: np.ndarray, epochs: int, seed: int, kept: Path, stop_after: int | None = None
    ) -> tuple[MergedLogits, list[float]] | None:
        """A network that learnt columns `labels` (n,) of `model` for images `rows`: as Trainer has it."""
        k = len(self.clusters.numbers)
        frames = Frames(self.pictures.frames.pixels.take(self.pictures.position[rows]), self.device)
        found = self.trainer.taught(self.run, frames, labels, k, epochs, seed, kept, stop_after)
        if found is None:
            return None
        net = self.trainer.for_inference(found[0])
        return MergedLogits(net, [(j,) for j in range(k)], self.model.neutral), found[1]

    def _merged(self, net: Any) -> MergedLogits:
        nothing = neutral_pixel(self.trainer, self.view, self._one)
        return MergedLogits(self.trainer.for_inference(net), self.clusters.groups, nothing)

    def images(self, rows: np.ndarray) -> Tensor:
        """The view of images `rows` of the run that the network sees: (B, C, H, W)."""
        return self.trainer.view(self.run, self.pictures.frames, self.pictures.position[rows])

    def seen(self, pictures: Tensor) -> Tensor:
        """What the network sees of pictures (B, C, H, W) in 0..1, of its view's channels; `photographs` backwards."""
        return pixels_for_network(self.trainer, pictures)

    def drawn_on(self, rows: np.ndarray, images: Tensor | None = None) -> np.ndarray:
        """What maps of images `rows` are drawn on: the square of each photograph about its coin.

        Of the view of a photograph that is what the network sees, `images(rows)`. (B, size, size, 3) uint8.
        """
        if self.view == PHOTOGRAPH:
            return self.photographs(self.images(rows) if images is None else images)
        decoded, position = self.pictures.dataset.decoded, self.pictures.position
        return np.stack([self.cut(row, decoded[position[row]], self.size) for row in rows.tolist()])

    def cut(self, row: int, picture: np.ndarray, side: int) -> np.ndarray:
        """What `drawn_on` shows of a picture (H, W) or (H, W, C) of image `row`, a mask say, `side` pixels on a side.

        The picture may be a larger or smaller copy of the decoded photograph.
        """
        position = int(self.pictures.position[row])
        decoded = int(self.pictures.dataset.decoded.shape[position].min())
        return self._window(position).times(min(picture.shape[:2]) / decoded).cut(picture, side)

    def draw_back(self, rows: np.ndarray, maps: np.ndarray) -> np.ndarray:
        """Maps (B, C, H, W) of the view of images `rows`, on the photographs that `drawn_on` gives."""
        if self.view == PHOTOGRAPH:
            return maps
        places, seen = self.pictures.dataset.find_places(), self.run.meta.view.size
        back = [
            to_photograph(one.transpose(1, 2, 0), self.view, places[i], self._window(i), seen, self.size)
            for i, one in zip(self.pictures.position[rows].tolist(), maps, strict=True)
        ]
        return np.stack(back).reshape(len(maps), self.size, self.size, -1).transpose(0, 3, 1, 2)

    def _window(self, position: int) -> Window:
        dataset = self.pictures.dataset
        shape = [int(length) for length in dataset.decoded.shape[position]]
        return self.window(shape, None if self.view == PHOTOGRAPH else dataset.find_places()[position])

    def window(self, shape: Sequence[int], place: Place | None) -> Window:
        """The square that maps are drawn on, of a decoded photograph of this (H, W, ...) shape.

        `place` is that of its coin; None in the view of a photograph, which looks for none.
        """
        if place is not None:
            return Window.about(place, shape)
        seen = self.run.meta.view
        return Window.central(shape, seen.size / decoded_side(seen.size) if seen.center_crop else 1)

    def photographs(self, images: Tensor) -> np.ndarray:
        """What `images` gave, for the eye: (B, H, W, 3) uint8; of a relief its height alone, in grey."""
        shown = self.trainer.photograph(images)
        if self.view in COLOURLESS:
            shown = shown[:, :1]
        pixels = (shown * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return pixels.repeat(3 // pixels.shape[3], 3)

    def coins(self, images: Tensor) -> np.ndarray:
        """As `photographs`, unrolled ones rolled up again: (B, size, size, 3) uint8."""
        shown = self.photographs(images)
        if self.view != "unrolled":
            return shown
        middle, window = (self.size - 1) / 2, Window(0, 0, self.size)
        place = place_at(middle, middle, self.size / 2)
        seen = self.run.meta.view.size
        rolled = [to_photograph(one.astype(np.float32), self.view, place, window, seen, self.size) for one in shown]
        return np.stack(rolled).round().clip(0, 255).astype(np.uint8)

    def is_wrong(self, row: int) -> bool:
        """Whether image `row` is labelled and in the cluster of another label; never where clusters have no meaning."""
        if self.class_names is None or self.run.labels is None or self.clusters.assignment[row] < 0:
            return False
        return self.run.labels[row] != self.class_names[self.clusters.assignment[row]]

    def predict_all(self, model: MergedLogits | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Features (M, D) and the logits (M, clusters) of the M images that are there, float32; `model`: if another."""
        model = model or self.model
        features, logits = [], []
        rows = self.pictures.present
        with torch.inference_mode(), full_precision():
            for begin in progress(range(0, len(rows), LOOKED_AT), "looking", unit="batches"):
                feature = model.embed(self.images(rows[begin : begin + LOOKED_AT]))
                features.append(feature.cpu())
                logits.append(model.classify(feature).cpu())
        return torch.cat(features).numpy(), torch.cat(logits).numpy()

    def clustered(self, features: np.ndarray) -> np.ndarray:
        """What `predict_all` found, (M, D), as it is clustered: (M, d), where near ones are alike."""
        at = self.pictures.position[self.pictures.present]
        if len(at) < 3:
            return features
        by_frame = np.empty_like(features)
        by_frame[at] = features
        return self.trainer.clustered(self.run, by_frame, self.pictures.dataset)[at]


def find_pictures(
    run: Run, data: str | None, workers: int | None, mnist_dir: Path | None, device: torch.device
) -> Pictures:
    """The run's images as its network sees them, from `data` if they were moved.

    Raises:
        UserError: if none is there, or this program draws the view otherwise.
    """
    seen = run.meta.view
    check_drawn(seen.name, seen.drawn)
    dataset, position = find_photographs(run, data, workers, mnist_dir)
    dataset = look(dataset, seen.name, seen.size, workers)
    return Pictures(dataset, Frames(dataset.pixels, device), position)


def find_photographs(
    run: Run, data: str | None, workers: int | None, mnist_dir: Path | None
) -> tuple[Dataset, np.ndarray]:
    """The run's images as they are, and where each is among them, (N,), -1: gone.

    Raises:
        UserError: if none is there.
    """
    source, seen = choose_images(run, data, SOURCES), run.meta.view
    dataset = open_dataset(source, seen.decoded_side, None, workers, mnist_dir, seen.decode_at_most)
    where = {name: i for i, name in enumerate(dataset.ids)}
    position = np.array([where.get(name, -1) for name in run.ids], np.int64)
    if (position < 0).all():
        raise UserError(
            f"{source}: none of the run's {len(run.ids)} images is there (the first: {run.ids[0]}): name their folder "
            "with --data"
        )
    tell_changes(run, dataset.ids, dataset.key)
    if len(dataset) > (position >= 0).sum():  # --limit, or newer images: leave the others alone
        used = np.flatnonzero(np.isin(np.arange(len(dataset)), position))
        dataset = dataset.take(used)
        position = np.where(position >= 0, np.searchsorted(used, position), -1)
    return dataset, position


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
