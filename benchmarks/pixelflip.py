"""How much faster all flips of an image are by windows than as whole images: `python -m benchmarks.pixelflip`.

For each recipe, in one call and in turns, the best of several rounds of both ways; the naive one with the best of
several batch sizes. The weights are random: no way's time depends on them.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from console import Parser, command
from console.options import add_machine, positive
from explain.flipping.exact import flip_naive
from explain.flipping.nets import fast_way
from explain.flipping.study import map_batches
from machine.device import device_name, full_precision, synchronise, use_device
from supervised.models import build
from supervised.recipes import RECIPES
from supervised.trained import for_inference

BATCHES = {"cpu": (49, 98, 196, 392, 784), "cuda": (784,)}
GOALS = {"cnn101": 8.0, "mlp": 50.0}
SIDE = 28
SHORTEST = 0.03  # seconds of a measurement


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


@torch.inference_mode()
def measure(name: str, rounds: int, device: torch.device) -> tuple[float, float, int, float]:
    """Seconds an image by windows and naively, the naive way's best batch, and the largest difference of a logit."""
    model = random_network(name, device)
    fast = fast_way(model, SIDE, 1)
    assert fast is not None
    size = fast.batch(device)
    images = digits(size * torch.get_num_threads() if device.type == "cpu" else size, device)
    one = images[:1]
    with full_precision():
        error = float((fast(images[:size])[:1] - flip_naive(model, one)).abs().max())
        quick: list[float] = []
        slow: dict[int, list[float]] = {batch: [] for batch in BATCHES[device.type]}
        for _ in range(rounds):
            quick.append(time_call(lambda: map_batches(fast, images.split(size)), device) / len(images))
            for batch, seconds in slow.items():
                seconds.append(time_call(lambda batch=batch: flip_naive(model, one, 1, batch), device))  # type: ignore[misc]
    best = min(slow, key=lambda batch: min(slow[batch]))
    return min(quick), min(slow[best]), best, error


def build_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks.pixelflip", description="Flips by windows against whole flipped images.")
    parser.add_argument(
        "--models", nargs="+", choices=list(RECIPES), default=["mlp", "small_conv", "simple_conv", "cnn101"]
    )
    parser.add_argument("--rounds", type=positive, default=5, help="of which the best counts (5)")
    parser.add_argument("--threads", type=positive, help="(as torch chooses)")
    add_machine(parser)
    return parser


def main() -> None:
    options = build_parser().parse_args()
    device = use_device(options.device, options.threads)
    print(f"{device_name(device)}, {torch.get_num_threads()} threads; all 784 flips of a digit, milliseconds an image")
    print(f"{'network':<14}{'windows':>10}{'naive':>10}{'batch':>7}{'ratio':>8}{'goal':>6}{'logits differ by':>19}")
    for name in options.models:
        quick, slow, batch, error = measure(name, options.rounds, device)
        goal = f"{GOALS[name]:g}" if name in GOALS else ""
        print(
            f"{name:<14}{1e3 * quick:>10.3f}{1e3 * slow:>10.2f}{batch:>7}{slow / quick:>8.1f}{goal:>6}{error:>19.1e}",
            flush=True,
        )


if __name__ == "__main__":
    command(main)
