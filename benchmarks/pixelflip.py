"""How much faster all flips of an image are by windows than as whole images: `python -m benchmarks pixelflip`.

For each network, in one call and in turns, the best of several rounds of both ways; the naive one with the best of
several batch sizes. Of a recipe, whose weights are random, the logits under every flip are timed: their time does not
depend on weights. Of a run what a study does is timed, on its own test images: finding the flips that change an answer,
for which most images of some networks need no look at each flip.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import runs
from benchmarks.setting import conditions
from console import UserError
from console.options import add_machine, positive
from deepcluster.launch import PACKAGES
from explain.flipping.exact import FlipLogits, Logits, flip_naive
from explain.flipping.nets import Where, fast_way, make_screen, open_asked, open_net
from explain.flipping.study import Changes, find_changes, map_batches
from machine.device import full_precision, synchronise, use_device
from supervised.models import build
from supervised.recipes import RECIPES
from supervised.trained import for_inference

BATCHES = {"cpu": (49, 98, 196, 392, 784), "cuda": (784,)}
GOALS = {"cnn101": 8.0, "mlp": 50.0}
SIDE = 28
SHORTEST = 0.03  # seconds of a measurement
OF_A_RUN, OF_MAPS, ASKED_NAIVELY = 2048, 128, 8  # test images of a run, of one with maps, and as whole images


@dataclass(frozen=True)
class Task:
    """A network, and the way by windows that is timed."""

    name: str
    recipe: str
    logits: Logits
    fast: FlipLogits
    quick: Callable[[Tensor], object]  # of a batch
    batch: int
    images: Tensor


def random_network(name: str, device: torch.device) -> nn.Module:
    """The network of a recipe with random weights and batch norms that do something."""
    model = build({"name": name}, seed=1)
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.get_buffer("running_mean").normal_(generator=generator)
            layer.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
    return for_inference(model.eval().to(device))


def time_call(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call in a few: processor time on a CPU with one thread (others may be at work there), else time."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    synchronise(device)
    begin, calls = clock(), 0
    while not calls or clock() - begin < SHORTEST:
        run()
        synchronise(device)
        calls += 1
    return (clock() - begin) / calls


def digits(count: int, device: torch.device) -> Tensor:
    """Random images, mostly black: (count, 1, 28, 28)."""
    generator = torch.Generator().manual_seed(0)
    ink = torch.rand(count, 1, SIDE, SIDE, generator=generator) < 0.2
    return (ink * torch.rand(count, 1, SIDE, SIDE, generator=generator)).to(device)


def task_of_recipe(name: str, device: torch.device) -> Task:
    """The logits under every flip, by a network with random weights."""
    model = random_network(name, device)
    fast = fast_way(model, SIDE, 1)
    if fast is None:
        raise UserError(f"--models {name}: has layers that are not computed by windows: name another")
    size = fast.batch(device)
    images = digits(size * torch.get_num_threads() if device.type == "cpu" else size, device)
    return Task(name, name, model, fast, fast, size, images)


def task_of_run(path: Path, device: torch.device, mnist: Path | None) -> Task:
    """The flips that change an answer of a trained network."""
    run = runs.open_run(path)
    if run.meta.kind != "supervised":
        raise UserError(f"{path}: a {run.meta.kind} run: name supervised ones")
    net = open_net(run, "A", 1, device)
    if net.fast is None:
        raise UserError(f"{path}: its network has layers that are not computed by windows: name another run")
    count = OF_A_RUN if not net.fast.parts.stages else OF_MAPS * torch.get_num_threads()
    asked, _ = open_asked(run, net.epoch, Where("test", count, None, device, None, mnist))
    logits, fast, screen = net.logits, net.fast, make_screen(net, asked)

    def quick(images: Tensor) -> Changes:
        return find_changes(logits, fast, images, 1, screen)

    images = asked.load(np.arange(len(asked.ids)))
    return Task(net.name, run.meta.model["name"], logits, fast, quick, net.batch(SIDE * SIDE), images)


@torch.inference_mode()
def measure(task: Task, rounds: int, device: torch.device) -> tuple[float, float, int, float]:
    """Seconds an image by windows and naively, the naive way's best batch, and the largest difference of a logit.

    Raises:
        AssertionError: if the two ways find other changes.
    """
    size, images = task.batch, task.images
    few, one = images[:ASKED_NAIVELY], images[:1]
    with full_precision():
        error = float((task.fast(few) - flip_naive(task.logits, few)).abs().max())
        naive, found = find_changes(task.logits, None, few, 1), task.quick(few)
        if isinstance(found, Changes):
            assert all(np.array_equal(getattr(naive, n), getattr(found, n)) for n in ("image", "flip", "becomes"))
        quick: list[float] = []
        slow: dict[int, list[float]] = {batch: [] for batch in BATCHES[device.type]}
        for _ in range(rounds):
            quick.append(time_call(lambda: map_batches(task.quick, images.split(size)), device) / len(images))
            for batch, seconds in slow.items():
                seconds.append(time_call(lambda batch=batch: flip_naive(task.logits, one, 1, batch), device))  # type: ignore[misc]
    best = min(slow, key=lambda batch: min(slow[batch]))
    return min(quick), min(slow[best]), best, error


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", nargs="*", choices=list(RECIPES), default=["mlp", "small_conv", "simple_conv", "cnn101"],
        help="recipes, with random weights"
    )  # fmt: skip
    parser.add_argument("--runs", nargs="+", type=Path, default=[], metavar="DIR", help="supervised runs of digits")
    parser.add_argument("--mnist-dir", type=Path, metavar="DIR", help="folder with the MNIST files (or set MNIST_DIR)")
    parser.add_argument("--rounds", type=positive, default=5, help="of which the best counts (5)")
    parser.add_argument("--threads", type=positive, help="(as torch chooses)")
    add_machine(parser)


def run(options: argparse.Namespace) -> None:
    """`python -m benchmarks pixelflip`."""
    device = use_device(options.device, options.threads)
    print("all 784 flips of a digit, milliseconds an image; of a run: the flips that change an answer")
    print(conditions(runs.make_stamp(device, ("benchmarks", "explain", "supervised", *PACKAGES))))
    print(f"{'network':<20}{'windows':>10}{'naive':>10}{'batch':>7}{'ratio':>8}{'goal':>6}{'logits differ by':>19}")
    for make in [
        *(lambda name=name: task_of_recipe(name, device) for name in options.models),
        *(lambda path=path: task_of_run(path, device, options.mnist_dir) for path in options.runs),
    ]:
        task = make()
        quick, slow, batch, error = measure(task, options.rounds, device)
        goal = f"{GOALS[task.recipe]:g}" if task.recipe in GOALS else ""
        times = f"{1e3 * quick:>10.3f}{1e3 * slow:>10.2f}{batch:>7}{slow / quick:>8.1f}"
        print(f"{task.name:<20}{times}{goal:>6}{error:>19.1e}", flush=True)
