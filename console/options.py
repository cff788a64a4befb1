"""Options that several commands share, and what their values may be."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_machine(parser: Any) -> None:
    """--device; to a parser or a group of one."""
    parser.add_argument("--device", type=device, default="auto", help="auto (a GPU where there is one), cpu or cuda")


def add_reading(parser: Any) -> None:
    """--workers and --mnist-dir, of what reads images; to a parser or a group of one."""
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="threads that decode images (default: one a core)"
    )
    parser.add_argument("--mnist-dir", type=Path, metavar="DIR", help="folder with the MNIST files (or set MNIST_DIR)")


def add_run(parser: Any) -> None:
    """--run, an existing run directory; --exp names the same folder."""
    parser.add_argument("--run", "--exp", dest="run", type=Path, required=True, metavar="DIR", help="run directory")


def add_exp(parser: Any, default: str) -> None:
    """--exp, the run directory to write; --run names the same folder."""
    parser.add_argument(
        "--exp", "--run", dest="exp", type=Path, default=Path(default), metavar="DIR", help=f"run directory ({default})"
    )


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


def device(text: str) -> str:
    """The name of a device; whether it is there, only torch can tell."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        meant = ": did you mean cuda?" if text.lower() in ("gpu", "nvidia", "cuda") else ""
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda, cuda:1{meant}")
    return text


positive = number(int, "a whole number from 1", lambda n: n >= 1)
natural = number(int, "a whole number from 0", lambda n: n >= 0)
side = number(int, "a number of pixels from 1 to 4096", lambda n: 1 <= n <= 4096)  # as machine.reading.MOST_SIDE
decoded = number(int, "a number of pixels from 1 to 1048576", lambda n: 1 <= n <= 1 << 20)
seed = number(int, "a whole number from 0, below 2**64", lambda n: 0 <= n < 2**64)
# as `Factor` in deepcluster.config, and below what a float of torch holds
above_zero = number(float, "a number above 0, up to a billion", lambda x: 0 < x <= 1e9)
finite = number(float, "a number, up to a billion", lambda x: abs(x) <= 1e9)
not_negative = number(float, "a number from 0, up to a billion", lambda x: 0 <= x <= 1e9)
