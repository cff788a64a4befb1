"""python -m benchmarks training | agreement | invariance | explain | scale | machines | hand | pixelflip"""

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from console import UserError, command
from console.parser import Parser


@dataclass(frozen=True)
class Benchmark:
    """A command. Its module offers `add_options(parser)` and `run(options)`."""

    module: str
    purpose: str
    passes_on: bool = False  # options that it does not know are in `options.rest`, instead of refused


COMMANDS = {
    "training": Benchmark("benchmarks.training", "seconds of an epoch, against the way of the original program"),
    "agreement": Benchmark(
        "benchmarks.agreement", "agreement with labels over k and seeds, against its baselines", passes_on=True
    ),
    "invariance": Benchmark(
        "benchmarks.invariance", "how often another photograph of a painted coin moves it to another cluster"
    ),
    "explain": Benchmark("benchmarks.explain", "images a second, pictures included, against other libraries"),
    "scale": Benchmark("benchmarks.scale", "memory, time and bytes of every stage at any number of images"),
    "machines": Benchmark("benchmarks.machines", "two machines that train together, and what may happen to one"),
    "hand": Benchmark("benchmarks.hand", "clicks and keys that correcting a gallery takes, against slower ways"),
    "pixelflip": Benchmark("benchmarks.pixelflip", "all flips of a digit, against whole flipped images"),
}


def build_parser(wanted: str | None) -> Parser:
    """The parser of all commands; only the module of the `wanted` one is imported, for its options."""
    parser = Parser(prog="python -m benchmarks", description="Measure this project against a reference, in one run.")
    commands = parser.commands()
    for name, benchmark in COMMANDS.items():
        sub = commands.add_parser(
            name, help=benchmark.purpose, description=benchmark.purpose, passes_on=benchmark.passes_on
        )
        if name == wanted:
            load(benchmark).add_options(sub)
    return parser


def load(benchmark: Benchmark) -> Any:
    """The benchmark's module.

    Raises:
        UserError: if a library that it compares with is not installed.
    """
    try:
        return import_module(benchmark.module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed: benchmarks need the developers' tools, which `bash scripts/test.sh` adds"
        ) from None


def main() -> None:
    options, options.rest = build_parser(next(iter(sys.argv[1:]), None)).parse_known_args()
    load(COMMANDS[options.command]).run(options)


if __name__ == "__main__":
    command(main)
