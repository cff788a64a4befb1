"""Judge trained networks: other test sets, ensembles, a table of all runs."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import runs
from console import UserError
from datasets import open_dataset
from datasets.mnist import load_mnist
from machine import prepare
from runs import Run
from supervised.models import CLASSES, PUBLISHED
from supervised.predict import trained_model, view
from supervised.train import Split, as_split, logits_of


@dataclass(frozen=True)
class TestSet:
    """Another test set: its name in words, and its images."""

    __test__ = False  # not pytest's
    name: str
    split: Split


def test_command(options: argparse.Namespace) -> None:
    """`python -m supervised test`."""
    run, device = finished_run(options.run), prepare(options.device)
    model = trained_model(run, run.checkpoints()[-1]).to(device)
    test = open_test(options, device)
    right = logits_of(model, test.split.images).argmax(1) == test.split.digits
    print(f"{run.path} on {test.name}: {in_words(int(right.sum()), len(right))}")


def ensemble_command(options: argparse.Namespace) -> None:
    """`python -m supervised ensemble`: each net alone, majority vote, vote weighted by reliability."""
    if len(options.runs) < 2:
        raise UserError("ensemble: name at least two run directories")
    device = prepare(options.device)
    test = open_test(options, device)
    votes, weights = [], []
    for path in options.runs:
        run = finished_run(path)
        logits = logits_of(trained_model(run, run.checkpoints()[-1]).to(device), test.split.images)
        votes.append(logits.argmax(1).cpu().numpy())
        weights.append(run.json("result.json")["validation_reliability"])
        print(f"{path!s:<42}{in_words(_hits(votes[-1], test.split), len(test.split))}")
    equal = [[1.0] * CLASSES] * len(votes)
    for name, weight in (("majority vote", equal), ("vote weighted by each net's reliability", weights)):
        said = vote(np.stack(votes), np.array(weight))
        print(f"{name:<42}{in_words(_hits(said, test.split), len(test.split))}")


def vote(said: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The digit with the most votes, each worth its net's weight for that digit; among equals the smaller digit.

    Args:
        said: (M, N) digit that each of M nets says.
        weight: (M, 10) worth of a net's vote for a digit.
    """
    count = np.zeros((said.shape[1], weight.shape[1]))
    for net in range(len(said)):
        np.add.at(count, (np.arange(said.shape[1]), said[net]), weight[net][said[net]])
    return count.argmax(1)


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of successes (Wilson 1927)."""
    z, share = 1.959964, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return float(middle - half), float(middle + half)


def in_words(right: int, count: int) -> str:
    low, high = wilson(right, count)
    return f"accuracy {right / count:.4f} (95 % interval {low:.4f} to {high:.4f}, {count - right} of {count} wrong)"


def open_test(options: argparse.Namespace, device: torch.device) -> TestSet:
    """MNIST's test set, or a folder with a class sub-folder for each digit; turned and shifted if asked for."""
    if options.test in ("mnist", "mnist:test"):
        split, name = as_split(*load_mnist("test", options.mnist_dir), device), "MNIST's test set"
    else:
        dataset = open_dataset(options.test, 28)
        if dataset.labels is None or not all(label.isdigit() and int(label) < CLASSES for label in dataset.labels):
            raise UserError(f"--test {options.test}: needs one sub-folder for each digit, called 0 to 9")
        if not dataset.pixels.square:
            raise UserError(f"--test {options.test}: its images are not square: cut them to squares first")
        images = view(dataset.pixels, np.arange(len(dataset)), device)
        split, name = Split(images, torch.tensor([int(label) for label in dataset.labels], device=device)), dataset.name
    if options.rotate or options.shift:
        split = Split(moved(split.images, options.rotate, options.shift), split.digits)
        name += f", turned by {options.rotate:g} degrees and shifted by {options.shift} pixels"
    return TestSet(name, split)


def moved(images: Tensor, degrees: float, pixels: int) -> Tensor:
    """All images turned counter-clockwise about their middle, then shifted right and down; outside is black."""
    if degrees:
        angle = torch.deg2rad(torch.tensor(degrees))
        c, s = torch.cos(angle), torch.sin(angle)
        affine = torch.stack([torch.stack([c, -s, c * 0]), torch.stack([s, c, c * 0])]).expand(len(images), 2, 3)
        grid = functional.affine_grid(affine.to(images.device), list(images.shape), align_corners=False)
        images = functional.grid_sample(images, grid, align_corners=False)
    if pixels:
        side = images.shape[-1]
        images = nn.functional.pad(images, (pixels, 0, pixels, 0))[..., :side, :side]
    return images


def compare_command(options: argparse.Namespace) -> None:
    """`python -m supervised compare`: a row for each model, mean and spread over its runs."""
    print("\n".join(comparison([finished_run(path) for path in options.runs])))


def comparison(found: list[Run]) -> list[str]:
    """A table in Markdown; beside each model what was published for it."""
    lines = ["| model | runs | test accuracy | test loss | epochs | published accuracy | published loss |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    results = [run.json("result.json") for run in found]
    for model in dict.fromkeys(result["model"] for result in results):
        same = [result for result in results if result["model"] == model]
        digits = {"test_accuracy": 4, "test_loss": 4, "epochs_used": 0}
        measured = [spread([result[name] for result in same], places) for name, places in digits.items()]
        loss, accuracy = PUBLISHED.get(model, (None, None))
        published = [f"{value:.4f}" if value is not None else "" for value in (accuracy, loss)]
        lines.append("| " + " | ".join([model, str(len(same)), *measured, *published]) + " |")
    return lines


def spread(values: Sequence[float], places: int) -> str:
    """Mean and standard deviation; of a single value, that value."""
    middle = f"{np.mean(values):.{places}f}"
    return f"{middle} ± {np.std(values, ddof=1):.{places}f}" if len(values) > 1 else middle


def finished_run(path: Path) -> Run:
    run = runs.open_run(path)
    if run.meta.get("kind") != "supervised":
        raise UserError(f"{path}: not a supervised run but {run.meta.get('kind')}")
    if not run.checkpoints() or run.json("result.json") is None:
        raise UserError(f"{path}: its training has not ended: run the same `supervised train` again, it continues")
    return run


def _hits(said: np.ndarray, split: Split) -> int:
    return int((said == split.digits.cpu().numpy()).sum())
