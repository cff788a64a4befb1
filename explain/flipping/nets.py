"""The runs of a study opened: what each network says of images in 0..1, the images, and the right answers."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from console import UserError
from datasets import Dataset
from datasets.view import shape_of
from deepcluster.views import Frames
from explain.flipping.exact import FlipLogits, Screen, count_flips, flip_naive, take_apart
from explain.subject import find_pictures, trainer_of
from machine.device import full_precision
from runs import Run
from supervised import trained
from supervised.models import ClassNet

SPLITS = ("train", "test")
TOLERANCE = 1e-4  # of a logit: as far as the fast way may be from the naive one
DIGIT = 28
NAIVE_BATCH = 196  # flipped images of 28 x 28 pixels in a batch; of larger ones fewer
CHECKED = 2  # images whose flips are all computed in both ways before a study
SAMPLED = 32  # images on which the error of a quick look is measured
OFF = 1e-3  # by which a value may leave 0..1 for rounding


@dataclass(frozen=True)
class Asked:
    """The images of a study: what every network of it is asked about."""

    split: str  # in words, for a person
    ids: list[str]
    shape: tuple[int, int]  # pixels down and across
    word: str  # for a class: digit, class, cluster
    names: list[str] | None  # of the logits; None: clusters
    load: Callable[[np.ndarray], Tensor]  # rows -> (B, C, *shape) in 0..1, on the device


@dataclass(frozen=True)
class Net:
    """A network of a study."""

    letter: str
    run: Run
    epoch: int
    model: nn.Module
    seen: Callable[[Tensor], Tensor]  # images in 0..1 -> what the model sees of them
    fast: FlipLogits | None  # None: its layers are not known, so each flipped image is computed as a whole
    device: torch.device
    screen: Screen | None = None  # which images need a look; None: all

    def logits(self, images: Tensor) -> Tensor:
        """Of images in 0..1."""
        return self.model(self.seen(images))

    @property
    def name(self) -> str:
        """The run's folder."""
        return self.run.path.resolve().name

    @property
    def title(self) -> str:
        """For pictures."""
        return f"{self.letter}: {self.name}"

    def batch(self, pixels: int) -> int:
        """Images of so many pixels asked about at a time."""
        if self.fast is not None:
            return self.fast.together(self.device)
        return 1 if pixels > 64 * 64 else 8


def open_net(run: Run, letter: str, patch: int, device: torch.device) -> Net:
    """The newest kept network of a run.

    Raises:
        UserError: if nothing is kept.
    """
    trainer = trainer_of(run)
    model = trainer.network(run).to(device)
    model = trainer.for_inference(model).eval()
    fast = fast_way(model, run.meta.view.size, patch)
    return Net(letter, run, run.checkpoints()[-1], model, trainer.from_photograph, fast, device)


def fast_way(model: nn.Module, size: int, patch: int) -> FlipLogits | None:
    """The network by windows; None if its layers are not of the kind that `exact` knows."""
    if not isinstance(model, ClassNet):
        return None
    parts = take_apart([*model.features, *model.classifier])
    return None if parts is None else FlipLogits(parts, (model.arguments["channels"], size, size), patch)


def measure_error(net: Net, asked: Asked, patch: int) -> float | None:
    """The largest difference of a logit between the fast and the naive way, over all flips of the first images."""
    if net.fast is None:
        return None
    with torch.inference_mode(), full_precision():
        images = asked.load(np.arange(min(CHECKED, len(asked.ids))))
        return float((net.fast(images) - flip_naive(net.logits, images, patch, naive_batch(images))).abs().max())


def make_screen(net: Net, asked: Asked) -> Screen | None:
    """A quick look at each image that spares most the exact one; None where that would take as long or longer.

    It pays where the processor has matrix instructions for bfloat16 (AMX) and most of the time are convolutions: those
    after the first.
    """
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # not in torch 2.11
    if net.fast is None or len(net.fast.parts.stages) < 2 or net.device.type != "cpu" or not known.get("amx_bf16"):
        return None
    rough = fast_way(copy.deepcopy(net.model).bfloat16(), net.run.meta.view.size, net.fast.patch)
    assert rough is not None
    rows = np.linspace(0, len(asked.ids) - 1, min(SAMPLED, len(asked.ids))).astype(int)
    with torch.inference_mode(), full_precision():
        return Screen(rough, net.fast, asked.load(rows))


@dataclass(frozen=True)
class Where:
    """Which images of a run, and how they are read."""

    split: str  # "train" or "test"
    limit: int | None  # as many images, drawn evenly from all
    data: str | None  # where the run's images are now, if they were moved
    device: torch.device  # where they go
    workers: int | None  # threads that decode
    mnist: Path | None  # folder of MNIST's files


def open_asked(run: Run, epoch: int, where: Where) -> tuple[Asked, np.ndarray]:
    """The images of a study of `run`, and the right answer to each, (N,).

    Args:
        run: a supervised run, whose training images (split "train") or test images are labelled; or a deepcluster run,
            whose right answer is the cluster that its head has learnt.
        epoch: whose clusters.
        where: which of them.

    Raises:
        UserError: if the images are gone, or a deepcluster run is asked for a test set.
    """
    trainer = trainer_of(run)
    dataset: Dataset
    if run.meta.kind == "supervised" and where.split == "train":
        dataset = trained.training_images(run, where.workers, where.mnist, where.data)
        position, ids = np.arange(len(dataset)), dataset.ids
        right, words = trained.class_index(run, dataset), "training images"
    else:
        pictures = find_pictures(run, where.data, where.workers, where.mnist, where.device)
        dataset = pictures.dataset
        position, ids = pictures.position[pictures.present], [run.ids[i] for i in pictures.present]
        if run.meta.kind == "supervised":
            right, words = trained.class_index(run, dataset)[position], "test images"
        elif where.split == "test":
            raise UserError(f"{run.path}: a deepcluster run has no test images: leave --split out")
        else:
            right, words = run.clusters(epoch).assignment[pictures.present], "images"
    rows = np.arange(len(ids))
    if where.limit is not None and where.limit < len(ids):
        rows = np.sort(np.random.default_rng(0).permutation(len(ids))[: where.limit])
        words = f"{where.limit} of {len(ids)} {words}"
    else:
        words = f"all {len(ids)} {words}"
    frames, chosen = Frames(dataset.pixels, where.device), position[rows]

    def load(some: np.ndarray) -> Tensor:
        return in_range(trainer.photograph(trainer.view(run, frames, chosen[some])), run)

    names = trainer.class_names(run)
    shape = shape_of(run.meta.view.name, run.meta.view.size)
    asked = Asked(words, [ids[i] for i in rows], shape, trainer.group(run), names, load)
    return asked, np.asarray(right, np.int64)[rows]


def naive_batch(images: Tensor) -> int:
    """Flipped images at a time."""
    return max(1, NAIVE_BATCH * DIGIT**2 // (images.shape[2] * images.shape[3]))


def in_range(images: Tensor, run: Run) -> Tensor:
    """Images in 0..1, what rounding added cut off.

    Raises:
        UserError: if they are not.
    """
    low, high = float(images.min()), float(images.max())
    if not (low >= -OFF and high <= 1 + OFF):
        raise UserError(
            f"{run.path}: its images are not in [0, 1] but reach from {low:g} to {high:g}, where a flip is not "
            "defined: rescale them"
        )
    return images.clamp(0, 1)


def check_alike(runs: list[Run]) -> None:
    """Refuse runs that cannot be asked about the same images.

    Raises:
        UserError: naming the first that differs.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.meta.kind != first.meta.kind or run.meta.dataset.key != first.meta.dataset.key:
            raise UserError(
                f"{run.path}: made from other images ({run.meta.dataset.name}) than {first.path} "
                f"({first.meta.dataset.name}): name runs on the same data"
            )
        if run.meta.view != first.meta.view or trainer_of(run).class_names(run) != trainer_of(first).class_names(first):
            raise UserError(
                f"{run.path}: sees another size or version of the view than {first.path}, or tells other classes: "
                "name runs alike"
            )
        if run.identity == first.identity:
            raise UserError(f"{run.path}: is the same run as {first.path}: name another one")


def flips_of(asked: Asked, patch: int) -> tuple[int, int]:
    """Blocks down and across.

    Raises:
        UserError: if the block is larger than the image.
    """
    if patch > min(asked.shape):
        raise UserError(f"--patch {patch}: the images have {min(asked.shape)} pixels on a side: choose a smaller block")
    return count_flips(*asked.shape, patch)
