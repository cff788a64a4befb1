"""How good trained networks are: on other test sets, as an ensemble, in a table of all runs."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import runs
from console import UserError
from datasets import SOURCES, open_dataset
from machine.device import use_device
from machine.reading import Share
from runs import Run
from runs.received import choose_images
from supervised.data import Split, load_split
from supervised.learners import compute_logits
from supervised.recipes import DATA, RECIPES
from supervised.trained import class_names, network

RESULT = "result.json"  # of a run directory


@dataclass(frozen=True)
class Result:
    """result.json: how a training ended."""

    model: str
    epochs_asked: int
    epochs_used: int
    best_epoch: int
    validation_loss: float
    validation_accuracy: Share
    validation_reliability: list[Share]  # of each class, `measure_reliability`
    test_loss: float
    test_accuracy: Share
    seconds: float


@dataclass(frozen=True)
class NamedSplit:
    """Labelled images, and what they are in words."""

    name: str
    split: Split


@dataclass(frozen=True)
class ResultRow:
    """One model on one set of data: every cell of the table of results, in words, in the order of its columns."""

    model: str
    data: str
    runs: str
    test_accuracy: str
    test_loss: str
    epochs: str
    published_accuracy: str
    published_loss: str


def test_command(options: argparse.Namespace) -> None:
    """`python -m supervised test`."""
    run, device = open_finished(options.run), use_device(options.device)
    test = open_test(options, run, device)
    right = count_right(compute_logits(network(run).to(device), test.split.images).argmax(1), test.split)
    print(f"{run.path} on {test.name}: {accuracy_in_words(right, len(test.split))}")


def ensemble_command(options: argparse.Namespace) -> None:
    """`python -m supervised ensemble`: each net alone, majority vote, vote weighted by reliability."""
    if len(options.runs) < 2:
        raise UserError("ensemble: name at least two run directories")
    found = [open_finished(path) for path in options.runs]
    for run in found[1:]:
        if class_names(run) != class_names(found[0]) or run.meta.view.size != found[0].meta.view.size:
            raise UserError(
                f"{run.path}: tells other classes, or sees another size, than {found[0].path}: they cannot vote"
            )
    device = use_device(options.device)
    test = open_test(options, found[0], device)
    answers, weights = [], []
    for run in found:
        answers.append(compute_logits(network(run).to(device), test.split.images).argmax(1).cpu())
        weights.append(read_result(run).validation_reliability)
        print(f"{run.path!s:<42}{accuracy_in_words(count_right(answers[-1], test.split), len(test.split))}")
    equal = np.ones((len(found), len(class_names(found[0]))))
    for name, weight in (("majority vote", equal), ("vote weighted by each net's reliability", np.array(weights))):
        voted = torch.from_numpy(vote(torch.stack(answers).numpy(), weight))
        print(f"{name:<42}{accuracy_in_words(count_right(voted, test.split), len(test.split))}")


def compare_command(options: argparse.Namespace) -> None:
    """`python -m supervised compare`: a row for each model, mean and spread over its runs."""
    rows = tabulate_results([open_finished(path) for path in options.runs])
    print("\n".join(markdown_table(rows)))


def vote(answers: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The class with the most votes, each worth its net's weight for that class; among equals the first class.

    Args:
        answers: (M, N) class that each of M nets says.
        weight: (M, K) worth of a net's vote for a class.

    Returns:
        (N,) classes.
    """
    votes = np.eye(weight.shape[1])[answers] * weight[:, None]  # (M, N, K)
    return votes.sum(0).argmax(1)


def measure_reliability(logits: Tensor, targets: Tensor) -> list[float]:
    """For each class, how often the net is right when it says so (precision); a class it never says: 0."""
    from sklearn.metrics import precision_score  # a second to import, which a training that begins need not wait for

    count = logits.shape[1]
    found = precision_score(
        targets.cpu(), logits.argmax(1).cpu(), labels=np.arange(count), average=None, zero_division=0
    )
    return [float(value) for value in found]


def accuracy_interval(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share of successes (Wilson 1927)."""
    from scipy.stats import binomtest  # as above

    interval = binomtest(right, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def accuracy_in_words(right: int, count: int) -> str:
    """The accuracy with its interval, and how many are wrong."""
    low, high = accuracy_interval(right, count)
    return f"accuracy {right / count:.4f} (95 % interval {low:.4f} to {high:.4f}, {count - right} of {count} wrong)"


def count_right(answers: Tensor, split: Split) -> int:
    """Of the classes `answers` (N,)."""
    return int((answers.cpu() == split.targets.cpu()).sum())


def open_test(options: argparse.Namespace, run: Run, device: torch.device) -> NamedSplit:
    """The run's own test set, or `--test`: another source with the same classes; turned and shifted if asked for.

    Raises:
        UserError: if it is not there, or its labels are not among the run's classes.
    """
    source = options.test or choose_images(run, None, SOURCES)
    dataset = open_dataset(source, run.meta.view.decoded_side, None, options.workers, options.mnist_dir)
    split, name = load_split(dataset, class_names(run), device), options.test or run.meta.dataset.source
    if options.rotate or options.shift:
        split = Split(transform_images(split.images, options.rotate, options.shift), split.targets)
        name += f", turned by {options.rotate:g} degrees and shifted by {options.shift} pixels"
    return NamedSplit(name, split)


def transform_images(images: Tensor, degrees: float, pixels: int) -> Tensor:
    """Turn all images counter-clockwise about their middle, then shift them right and down; outside is black."""
    if degrees:
        angle = torch.deg2rad(torch.tensor(degrees))
        c, s = torch.cos(angle), torch.sin(angle)
        affine = torch.stack([torch.stack([c, -s, c * 0]), torch.stack([s, c, c * 0])]).expand(len(images), 2, 3)
        grid = functional.affine_grid(affine.to(images.device), list(images.shape), align_corners=False)
        images = functional.grid_sample(images, grid, align_corners=False)
    if pixels:
        side = images.shape[-1]
        images = functional.pad(images, (pixels, 0, pixels, 0))[..., :side, :side]
    return images


def tabulate_results(found: Sequence[Run]) -> list[ResultRow]:
    """A row for each model and data, with mean and spread over its runs; beside them what was published for it."""
    same: dict[tuple[str, str], list[Result]] = {}
    for run in found:
        result = read_result(run)
        same.setdefault((result.model, run.meta.dataset.name), []).append(result)
    rows = []
    for (model, data), results in same.items():
        published = RECIPES[model].published if model in RECIPES and data == DATA else None
        loss, accuracy = ("", "") if published is None else (f"{value:.4f}" for value in published)

        def measured(name: str, places: int, results: list[Result] = results) -> str:
            return describe_spread([getattr(result, name) for result in results], places)

        rows.append(
            ResultRow(
                model=model,
                data=data,
                runs=str(len(results)),
                test_accuracy=measured("test_accuracy", 4),
                test_loss=measured("test_loss", 4),
                epochs=measured("epochs_used", 0),
                published_accuracy=accuracy,
                published_loss=loss,
            )
        )
    return rows


def table_cells(rows: Sequence[ResultRow]) -> tuple[list[str], list[list[str]]]:
    """Head and body of the table of results."""
    return [name.replace("_", " ") for name in ResultRow.__dataclass_fields__], [
        list(vars(row).values()) for row in rows
    ]


def markdown_table(rows: Sequence[ResultRow]) -> list[str]:
    """The lines of the table of results."""
    head, body = table_cells(rows)
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body)]


def describe_spread(values: Sequence[float], places: int) -> str:
    """Mean and standard deviation; of a single value, that value."""
    middle = f"{np.mean(values):.{places}f}"
    return f"{middle} ± {np.std(values, ddof=1):.{places}f}" if len(values) > 1 else middle


def read_result(run: Run) -> Result:
    """result.json of a finished run.

    Raises:
        UserError: if it is damaged.
    """
    result: Result = run.read_json(RESULT, Result)
    if len(result.validation_reliability) != len(class_names(run)):
        raise UserError(f"{run.path / RESULT}: damaged (it tells of other classes than run.json): restore a copy")
    return result


def is_finished(run: Run) -> bool:
    """Whether its training has ended."""
    return bool(run.checkpoints()) and (run.path / RESULT).exists()


def open_finished(path: Path) -> Run:
    """A supervised run whose training has ended.

    Raises:
        UserError: if it is none.
    """
    run = runs.open_run(path)
    if run.meta.kind != "supervised":
        raise UserError(f"{path}: not a supervised run but {run.meta.kind}")
    if not is_finished(run):
        raise UserError(f"{path}: its training has not ended: run the same `supervised train` again, it continues")
    read_result(run)  # not when half of a table or a page is made
    return run
