"""Options that several commands share, and what their values may be."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_machine(parser: Any, workers: bool = True) -> None:
    """--device, --workers where images are decoded, --mnist-dir; to a parser or a group of one."""
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu or cuda")
    if workers:
        help = "threads that decode images (default: one a core)"
        parser.add_argument("--workers", type=positive, metavar="N", help=help)
    parser.add_argument("--mnist-dir", type=Path, metavar="DIR", help="folder with the MNIST files (or set MNIST_DIR)")


def number(kind: Callable[[str], Any], wanted: str, accepts: Callable[[Any], bool]) -> Callable[[str], Any]:
    """An argparse type; text that is none, or is not accepted, is refused as not being `wanted`."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return convert


positive = number(int, "a whole number from 1", lambda n: n >= 1)
natural = number(int, "a whole number from 0", lambda n: n >= 0)
above_zero = number(float, "a number above 0", lambda x: 0 < x < float("inf"))
not_negative = number(float, "a number from 0", lambda x: 0 <= x < float("inf"))
