"""A run opened again: its network, what the network sees, its images. What `explain` asks this trainer for."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datasets import SOURCES, Dataset, Pixels, open_dataset
from machine.seeds import derive_seed
from runs import Run
from runs.directory import checkpoint_of, load_weights
from runs.received import choose_images
from supervised.data import number_classes, stack_images, training_source
from supervised.models import DIGITS, ClassNet, build, check_arguments


class Frames(Protocol):
    """Decoded images, and the device that the network's view of them goes to."""

    @property
    def pixels(self) -> Pixels: ...

    @property
    def device(self) -> torch.device: ...


def group(run: Run) -> str:
    """What one logit stands for, in a word."""
    return "digit" if class_names(run) == DIGITS["classes"] else "label"


def class_names(run: Run) -> list[str]:
    """The names of the logits, from 0 on."""
    return run.meta.model.get("classes", DIGITS["classes"])


def given_names(run: Run) -> dict[int, str]:
    """The classes that are called otherwise than their number."""
    return {j: name for j, name in enumerate(class_names(run)) if name != str(j)}


def network(run: Run, epoch: int | None = None) -> ClassNet:
    """The network of an epoch (default: the kept one, the best), in eval mode on the CPU.

    Raises:
        UserError: if no weights were kept, or they do not fit.
    """
    saved = checkpoint_of(run, epoch)
    model = build(check_arguments(saved["model"], run.path))
    load_weights(run, model, saved["state"])
    return model.eval()


def untrained(run: Run, trained: ClassNet, draw: int = 0) -> ClassNet:
    """The network before its training, in eval mode on the CPU: the very weights that it started from.

    `draw`: from 1 on with other random weights.
    """
    return build(trained.arguments, derive_seed(run.meta.seed, draw, "weights")).eval()


def for_inference(model: ClassNet) -> ClassNet:
    """The same function, faster, without gradients of its parameters."""
    return model.requires_grad_(False).to(memory_format=torch.channels_last)


def view(run: Run, frames: Frames, rows: np.ndarray) -> Tensor:
    """Images `rows` of the frames as the network sees them: (B, channels, size, size) float32 in 0..1."""
    return stack_images(frames.pixels, rows, frames.device)


def photograph(images: Tensor) -> Tensor:
    """What `view` gave, for the eye: (B, channels, H, W) in 0..1."""
    return images


def from_photograph(images: Tensor) -> Tensor:
    """(B, channels, H, W) in 0..1 as the network sees them: the inverse of `photograph`."""
    return images


def clustered(run: Run, features: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Features (N, D) of the dataset's images as points of which near ones are alike, (N, D): their directions."""
    x = features - features.mean(0)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def taught(
    run: Run, frames: Frames, labels: np.ndarray, k: int, epochs: int, seed: int, kept: Path, stop_after: int | None
) -> None:
    """Nothing: the run's images are the test set's, and others were learnt."""


def training_images(
    run: Run, workers: int | None = None, mnist_dir: Path | None = None, data: str | None = None
) -> Dataset:
    """The images that the run was trained on, those held back for validation included.

    Args:
        run: whose.
        workers: threads that decode.
        mnist_dir: folder of MNIST's files.
        data: where the run's images, which are the test set's, are now, if they were moved; the training images lie
            beside them.

    Raises:
        UserError: if they are not there any more.
    """
    source = training_source(choose_images(run, data, SOURCES))
    return open_dataset(source, run.meta.view.decoded_side, run.meta.config["limit"], workers, mnist_dir)


def class_index(run: Run, dataset: Dataset) -> np.ndarray:
    """(N,) int64, the logit that stands for each image's label.

    Raises:
        UserError: if the dataset has no labels, or labels that the run does not know.
    """
    return number_classes(dataset, class_names(run))
