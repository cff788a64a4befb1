"""What the benchmarks share: their photographs, what a figure was measured with, and how a ratio is told."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from console import UserError
from console.options import add_machine, positive
from console.parser import commit_of
from datasets.painted import painted_folder
from runs.meta import Stamp

CHECKOUT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Ratio:
    """The result of a benchmark; above 1 ours is better."""

    reference: str  # what ours is compared with
    value: float  # NaN: there is none
    of: str = ""  # what is compared, where it is not the benchmark's one figure

    def __str__(self) -> str:
        what = f"{self.reference}, {self.of}" if self.of else self.reference
        return f"ratio to {what}: " + ("none" if math.isnan(self.value) else f"{self.value:.2f}")


def add_photographs(parser: Any, limit: int, batch: int) -> None:
    """The options of a benchmark on photographs: which, how many, how large, and where."""
    parser.add_argument("--data", metavar="DIR", help="folder of photographs (default: the painted coins)")
    parser.add_argument("--limit", type=positive, default=limit, metavar="N", help=f"number of images ({limit})")
    parser.add_argument("--size", type=positive, default=224, metavar="PX", help="side of the view (224)")
    parser.add_argument("--batch", type=positive, default=batch, metavar="N", help=f"images in a batch ({batch})")
    add_machine(parser)


def photographs(data: str | None) -> Path:
    """The folder of `--data`, or the painted coins.

    Raises:
        UserError: if it is not there.
    """
    root = Path(data) if data is not None else painted_folder() / "images"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: --data names a folder of photographs")
    return root


def conditions(stamp: Stamp) -> str:
    """What a figure was measured with: machine, threads, torch, and our own code."""
    threads = f"{stamp.threads} thread{'s' if stamp.threads > 1 else ''}"
    where = f"{stamp.device}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, {threads}"
    commit = commit_of(CHECKOUT)
    from_commit = f"commit {commit}" if commit else "no commit"
    return f"{where}; torch {stamp.versions['torch']}; {from_commit}, code {stamp.versions['code']}"
