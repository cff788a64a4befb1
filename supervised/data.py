"""Two sets of labelled images, to train on and to test on, and how they become tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from console import UserError
from datasets import SOURCES, Dataset, Pixels, open_dataset

TRAIN, TEST = "train", "test"
CHANNELS = 1  # images are grey
STACKED = 4096  # images made grey at a time


@dataclass(frozen=True)
class LabelledData:
    """Images to train on and to test on, and their classes, in the order of the logits."""

    name: str
    training: Dataset
    test: Dataset
    classes: list[str]


@dataclass(frozen=True)
class Split:
    """Images (N, channels, size, size) float32 in 0..1 and their classes' numbers (N,), on the device."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> "Split":
        return Split(self.images[rows], self.targets[rows])


def open_labelled(
    data: str, size: int, limit: int | None = None, workers: int | None = None, mnist_dir: Path | None = None
) -> LabelledData:
    """The training and the test images of `data`.

    Args:
        data: a name of datasets.SOURCES that knows `NAME:train` and `NAME:test`, or a folder with the sub-folders
            train/ and test/, each with a sub-folder for each class.
        size: pixels of a side.
        limit: training images used, drawn evenly from all; the test images are all used.
        workers: threads that decode.
        mnist_dir: where MNIST's files are.

    Raises:
        UserError: if there is no such data, it has no labels or fewer than two classes, or less images than `limit`.
    """
    training = open_dataset(_part(data, TRAIN), size, None, workers, mnist_dir)
    test = open_dataset(_part(data, TEST), size, None, workers, mnist_dir)
    if training.labels is None:
        raise UserError(f"{_part(data, TRAIN)}: no labels: put the images into a sub-folder for each class")
    classes = sort_classes(training.labels)  # of all: a few images need not show each class
    if limit is not None:
        if limit > len(training):
            raise UserError(f"--limit {limit}: {data} has {len(training)} training images")
        training = open_dataset(_part(data, TRAIN), size, limit, workers, mnist_dir)
    number_classes(test, classes)
    generated = data in SOURCES
    return LabelledData(data if generated else Path(data).expanduser().resolve().name, training, test, classes)


def _part(data: str, part: str) -> str:
    """The source of the training or the test images."""
    if data in SOURCES:
        return f"{data}:{part}"
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise UserError(f"{data}: no such folder: name one with the sub-folders {TRAIN}/ and {TEST}/, or mnist")
    if not (folder / part).is_dir():
        raise UserError(
            f"{data}: no sub-folder {part}/: it needs {TRAIN}/ and {TEST}/, each with a sub-folder for each class"
        )
    return str(folder / part)


def training_source(test_source: str) -> str:
    """Where the training images are that go with a run's images, which are the test set's."""
    if test_source.endswith(f":{TEST}"):
        return f"{test_source.removesuffix(TEST)}{TRAIN}"
    return str(Path(test_source).parent / TRAIN)


def sort_classes(labels: Sequence[str]) -> list[str]:
    """Each label once, numbers first and by their value: 2 before 10 before a."""
    return sorted(set(labels), key=lambda label: (not label.isdecimal(), int(label) if label.isdecimal() else 0, label))


def number_classes(dataset: Dataset, classes: Sequence[str]) -> np.ndarray:
    """(N,) int64, the number among `classes` of each image's label.

    Raises:
        UserError: if there are no labels, or others.
    """
    number = {label: i for i, label in enumerate(classes)}
    labels = dataset.labels or []
    if not labels or not number.keys() >= set(labels):
        raise UserError(f"{dataset.source}: needs a sub-folder for each class and no other: {', '.join(classes)}")
    return np.array([number[label] for label in labels], np.int64)


def load_split(dataset: Dataset, classes: Sequence[str], device: torch.device) -> Split:
    """All images of a dataset with their classes' numbers, on the device."""
    targets = torch.from_numpy(number_classes(dataset, classes))
    return Split(stack_images(dataset.pixels, np.arange(len(dataset)), device), targets.to(device))


def stack_images(pixels: Pixels, rows: np.ndarray, device: torch.device) -> Tensor:
    """Images `rows` as the network sees them: mean of the colours, central square; (B, 1, size, size) in 0..1."""
    size = int(pixels.shape[rows].min())
    images = torch.empty(len(rows), CHANNELS, size, size, device=device)
    for begin in range(0, len(rows), STACKED):
        some = rows[begin : begin + STACKED]
        if (pixels.shape[some] == size).all():
            colours = pixels.stack(some)
        else:
            colours = np.stack([_central_square(pixels[row], size) for row in some])
        total = colours[..., 0].astype(np.uint16) + colours[..., 1] + colours[..., 2]
        images[begin : begin + len(some), 0] = torch.from_numpy(total).to(device).float() / (3 * 255)
    return images


def _central_square(image: np.ndarray, size: int) -> np.ndarray:
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]
