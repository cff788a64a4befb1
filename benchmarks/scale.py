"""What each stage takes at any number of images, and by arithmetic at many: memory, seconds, bytes, files, open files.

Each stage is the command that a user gives, in a process of its own that is watched through /proc (Linux). CPU is
the time of one core, which other jobs on the machine do not change as they do the clock's. The ratio is CPU seconds
per image at the largest number, against the smallest: 1 is linear, below it a start that is shared by more.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import runs
from benchmarks.setting import CHECKOUT, Ratio, conditions
from console import UserError
from console.options import add_machine, positive
from datasets.mnist import SPLITS, load_mnist
from datasets.view import PHOTOGRAPH
from deepcluster.launch import PACKAGES
from machine.device import use_device

FIRST = "check (coins: paints first)"
EVERY = 0.05  # seconds between two looks
MANY = 70_000
SETS = ("coins", "digits")
LAST_WORDS = 15  # lines of a stage that failed which are shown


@dataclass(frozen=True)
class Taken:
    """What a stage took of one number of images."""

    stage: str
    images: int
    seconds: float
    worked: float  # seconds of one core, of the process and of those that it started and waited for
    peak: float  # MiB, VmHWM of the process itself: with pixels that are mapped from disk
    own: float  # MiB, the most RssAnon of the process and those that it starts, together
    opened: int  # files open at once in the process, at most
    size: int  # bytes that it left on disk
    files: int


@dataclass
class Watch:
    """What /proc says of a process and of those that it starts, while it runs."""

    pid: int
    peak: float = 0.0
    own: float = 0.0
    opened: int = 0
    done: bool = False

    def look(self) -> None:
        try:
            self.peak = max(self.peak, status_of(self.pid)["VmHWM"])
            self.own = max(self.own, sum(status_of(pid).get("RssAnon", 0.0) for pid in family(self.pid)))
            self.opened = max(self.opened, len(os.listdir(f"/proc/{self.pid}/fd")))
        except (OSError, KeyError):  # it has ended, or is about to
            pass

    def until_done(self) -> None:
        while not self.done:
            self.look()
            time.sleep(EVERY)


def status_of(pid: int) -> dict[str, float]:
    """The sizes that /proc/PID/status has, in MiB; {} where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines if line.endswith(" kB")]
    return {name.rstrip(":"): int(amount) / 1024 for name, amount, _ in words}


def family(pid: int) -> list[int]:
    """A process and all that it has started and these have."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=positive, nargs="+", default=[300, 1500], metavar="N", help="how many (300 1500)"
    )
    parser.add_argument(
        "--of", choices=SETS, default="coins", help="painted coins, or MNIST's digits as files in one folder (coins)"
    )
    parser.add_argument("--size", type=positive, default=64, metavar="PX", help="--size of the training (64)")
    parser.add_argument("--per-cluster", type=positive, default=4, metavar="N", help="explained of each cluster (4)")
    parser.add_argument("--many", type=positive, default=MANY, metavar="N", help=f"told by arithmetic ({MANY})")
    add_machine(parser)


def run(options: argparse.Namespace) -> None:
    """`python -m benchmarks scale`."""
    if not Path("/proc/self/status").exists():
        raise UserError("scale: needs /proc, which Linux alone has")
    print(conditions(runs.make_stamp(use_device(options.device), ("benchmarks", *PACKAGES))))
    taken: list[Taken] = []
    for images in sorted(set(options.images)):
        with tempfile.TemporaryDirectory() as scratch:
            for one in measure(images, Path(scratch), options):
                print("\n".join(table([one])[0 if one.stage == FIRST else 2 :]), flush=True)
                taken.append(one)
    counts = sorted(set(options.images))
    if len(counts) > 1:
        print(f"\nby arithmetic (the line through {counts[0]} and {counts[-1]} images):")
        print("\n".join(table([at_many(taken, stage, options.many) for stage in stages_of(taken)])))
        first, last = ([one for one in taken if one.images == count] for count in (counts[0], counts[-1]))
        for small, large in zip(first, last, strict=True):
            value = (large.worked / large.images) / (small.worked / small.images)
            print(Ratio(f"{counts[0]} images", value, f"{small.stage}, CPU seconds an image"))


def measure(images: int, scratch: Path, options: argparse.Namespace) -> Iterator[Taken]:
    """All stages on so many images, in a new cache."""
    data, exp, results = f"painted:{images}", scratch / "exp", scratch / "results"
    view, net, device = [], [], ["--device", options.device]
    if options.of == "digits":
        data, view, net = str(scratch / "digits"), ["--view", PHOTOGRAPH], ["--arch", "alexnet_fine"]
        write_digits(Path(data), images)
    train = ["deepcluster", "train", data, "--exp", exp, "--size", options.size, "--epochs", 2, *view, *net, *device]
    every = ["explain", "draw", "--run", exp, "--results", results, *device]
    explain = [*every, "--per-cluster", options.per_cluster]
    stages: list[tuple[str, Sequence[object]]] = [
        (FIRST, ["datasets", "check", data, "--sheet", scratch / "sheet.jpg"]),
        ("prepare", ["datasets", "prepare", data, "--size", options.size, *view]),
        ("train, 2 epochs", train),
        (f"explain, {options.per_cluster} a cluster", explain),
        ("gallery alone, again", explain),
        ("map: t-SNE", [*explain, "--map", "tsne"]),
        ("explain, all", every),
    ]
    for stage, words in stages:
        yield watch(stage, images, words, scratch)


def write_digits(folder: Path, count: int) -> None:
    """The first `count` of MNIST's 70,000 digits as PNG files in one folder.

    Raises:
        UserError: if there are not so many, or MNIST is not found.
    """
    digits = np.concatenate([load_mnist(split)[0] for split in SPLITS])
    if count > len(digits):
        raise UserError(f"--images {count}: MNIST has {len(digits)} digits")
    folder.mkdir()
    for number, digit in enumerate(digits[:count]):
        Image.fromarray(digit).save(folder / f"{number:05d}.png")


def watch(stage: str, images: int, words: Sequence[object], scratch: Path) -> Taken:
    """Run `python -m WORDS` and measure it.

    Raises:
        UserError: with the end of what it said, if it fails.
    """
    before = on_disk(scratch)
    path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "DEEPCLUSTER_CACHE": str(scratch / "cache")}
    begin = time.perf_counter()
    with open(scratch.with_name(scratch.name + ".said"), "w+") as said:
        os.unlink(said.name)
        child = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)], env=environment, stdout=said, stderr=said, cwd=scratch
        )
        watched = Watch(child.pid)
        looking = threading.Thread(target=watched.until_done)
        looking.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
            code = child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            watched.done = True
            looking.join()
            if child.returncode is None:
                child.kill()
        seconds = time.perf_counter() - begin
        if code:
            said.seek(0)
            lines = said.read().splitlines()[-LAST_WORDS:]
            raise UserError(f"scale: {stage} with {images} images ended with {code}: {' / '.join(lines)}")
    after = on_disk(scratch)
    return Taken(
        stage, images, seconds, used.ru_utime + used.ru_stime, watched.peak, watched.own, watched.opened,
        after[0] - before[0], after[1] - before[1],
    )  # fmt: skip


def on_disk(folder: Path) -> tuple[int, int]:
    """Bytes and files below a folder."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()]
    return sum(sizes), len(sizes)


def stages_of(taken: Sequence[Taken]) -> list[str]:
    return list(dict.fromkeys(one.stage for one in taken))


def at_many(taken: Sequence[Taken], stage: str, images: int) -> Taken:
    """The line through the smallest and the largest number, at `images`; what falls with N stays at its largest."""
    of_stage = sorted((one for one in taken if one.stage == stage), key=lambda one: one.images)
    small, large = of_stage[0], of_stage[-1]

    def line(name: str) -> float:
        low, high = float(getattr(small, name)), float(getattr(large, name))
        return max(low, high, low + (high - low) / (large.images - small.images) * (images - small.images))

    return Taken(
        stage, images, line("seconds"), line("worked"), line("peak"), line("own"), round(line("opened")),
        round(line("size")), round(line("files")),
    )  # fmt: skip


def table(taken: Sequence[Taken]) -> list[str]:
    """Lines of Markdown."""
    heads = (
        "images",
        "seconds",
        "CPU s",
        "CPU ms an image",
        "peak MiB",
        "own MiB",
        "open files",
        "MB on disk",
        "files",
    )
    lines = ["| stage | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for one in taken:
        cells = [
            f"{one.images:,}", f"{one.seconds:,.1f}", f"{one.worked:,.1f}", f"{1000 * one.worked / one.images:,.1f}",
            f"{one.peak:,.0f}", f"{one.own:,.0f}", str(one.opened), f"{one.size / 1e6:,.1f}", f"{one.files:,}",
        ]  # fmt: skip
        lines.append(f"| {one.stage} | " + " | ".join(cells) + " |")
    return lines
