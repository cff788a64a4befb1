"""Two machines that share a training, and what may happen to one: network namespaces stand for them (Linux, root).

Each has a network card of its own, joined by a cable, and a cache of its own; run directory and images are shared, as
on a shared file system, and so are the cores, whose seconds therefore say little. Every end is held against the
undisturbed one's, file by file.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import runs
from benchmarks.setting import CHECKOUT, conditions, photographs
from console import UserError
from console.options import positive
from datasets.painted import painted_folder
from deepcluster.launch import PACKAGES
from machine.device import use_device
from machine.processes import SILENCE

NAMES = tuple(f"machine-{letter}-{os.getpid()}" for letter in "ab")
ADDRESSES = ("10.213.7.1", "10.213.7.2")
CARD, PORT = "cable", 29500
STILL, MOVES = 0.4, 0.1  # seconds, in turn, of the slow machine
PATIENCE = 3 * SILENCE  # seconds in which both machines must have ended after their cable was pulled
COMPARED = ("clusters.csv", "images.csv", "clusters/epoch_0001.npz", "clusters/epoch_0003.npz")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="DIR", help="folder of photographs (default: the painted coins)")
    parser.add_argument("--limit", type=positive, default=60, metavar="N", help="number of images (60)")
    parser.add_argument("--pulls", type=positive, default=5, metavar="N", help="times that the cable is pulled (5)")


def run(options: argparse.Namespace) -> None:
    """`python -m benchmarks machines`."""
    print(conditions(runs.make_stamp(use_device("cpu"), ("benchmarks", *PACKAGES))))
    data = photographs(options.data) if options.data else painted_folder(max(16, options.limit)) / "images"
    with tempfile.TemporaryDirectory() as scratch, two_machines():
        home = Path(scratch)
        train = ["train", str(data), "--limit", str(options.limit), "--device", "cpu", "--view", "photograph"]
        train += "--size 64 --k 4 --epochs 3 --batch 20".split()
        print("| what happens | seconds | exit codes | the end | said |\n|---|---|---|---|---|")
        begin = time.perf_counter()
        whole = Pair(home, "whole", train)
        tell("nothing", begin, whole, whole.ended(), whole.end(), "")
        lost(home, train, whole)
        for number in range(options.pulls):
            pulled(home, train, whole, number)
        slow(home, train, whole)
        full(home, train, whole)


def lost(home: Path, train: list[str], whole: "Pair") -> None:
    """Every process of one machine is killed in the second epoch; then the command is given again on both."""
    begin = time.perf_counter()
    pair = Pair(home, "lost", train)
    pair.wait_for("clusters/epoch_0002.npz")
    send(1, signal.SIGKILL)
    codes = pair.ended()
    tell("one machine dies in epoch 2", begin, pair, codes, pair.end(), pair.sentence(0))
    tell_again("... and both begin again", home, "lost", train, whole)


def pulled(home: Path, train: list[str], whole: "Pair", number: int) -> None:
    """The cable is pulled in the second epoch, each time a little later: nobody tells either machine of the other."""
    begin = time.perf_counter()
    name = f"pulled-{number}"
    pair = Pair(home, name, train)
    pair.wait_for("clusters/epoch_0002.npz")
    time.sleep(number)
    in_namespace(NAMES[1], "ip", "link", "set", CARD, "down")
    try:
        out = time.perf_counter()
        codes = pair.ended(PATIENCE)
        seconds = f"{time.perf_counter() - out:.0f} s" if None not in codes else f"not all in {PATIENCE} s"
    finally:
        in_namespace(NAMES[1], "ip", "link", "set", CARD, "up")
    said = f"{seconds} later: {pair.sentence(0)}; {pair.sentence(1)}"
    tell("the cable is out in epoch 2", begin, pair, codes, pair.end(), said)
    if not number:
        tell_again("... is in again, both begin again", home, name, train, whole)


def slow(home: Path, train: list[str], whole: "Pair") -> None:
    """One machine stands still most of the time."""
    begin = time.perf_counter()
    pair = Pair(home, "slow", train)
    while any(process.poll() is None for process in pair.processes):
        send(1, signal.SIGSTOP)
        time.sleep(STILL)
        send(1, signal.SIGCONT)
        time.sleep(MOVES)
    tell(f"one stands still {STILL / (STILL + MOVES):.0%} of the time", begin, pair, pair.ended(), pair.end(whole), "")


def full(home: Path, train: list[str], whole: "Pair") -> None:
    """The disk of one machine's cache is full; then it is enlarged and the command given again."""
    disk = home / "full-cache-1"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        begin = time.perf_counter()
        pair = Pair(home, "full", train)
        codes = pair.ended()
        tell("one machine's disk is full", begin, pair, codes, pair.end(), pair.sentence(1))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        tell_again("... is enlarged, both begin again", home, "full", train, whole)
    finally:
        subprocess.run(["umount", disk], check=True)


class Pair:
    """A training by two machines, begun: one process each."""

    def __init__(self, home: Path, name: str, train: list[str]):
        self.exp, self.said = home / name, [home / f"{name}-{i}.txt" for i in range(2)]
        self.processes = []
        for i, machine in enumerate(NAMES):
            torchrun = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(i)]
            torchrun += ["--master-addr", ADDRESSES[0], "--master-port", str(PORT)]
            words = [sys.executable, "-m", "torch.distributed.run", *torchrun, "-m", "deepcluster", *train]
            environment = os.environ | {
                "PYTHONPATH": str(CHECKOUT),
                "DEEPCLUSTER_CACHE": str(home / f"{name}-cache-{i}"),
                "GLOO_SOCKET_IFNAME": CARD,
                "OMP_NUM_THREADS": "1",
            }
            with self.said[i].open("w") as said:
                self.processes.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", machine, *words, "--exp", str(self.exp)],
                        env=environment,
                        cwd=home,
                        stdout=said,
                        stderr=said,
                    )
                )

    def wait_for(self, name: str) -> None:
        while not (self.exp / name).exists():
            if any(process.poll() is not None for process in self.processes):
                raise UserError(f"machines: the training ended early: {self.sentence(0)} {self.sentence(1)}")
            time.sleep(0.02)

    def ended(self, patience: float = 600) -> list[int | None]:
        """Both exit codes, once both have ended; None of one that has not by then."""
        until = time.monotonic() + patience
        while time.monotonic() < until and any(process.poll() is None for process in self.processes):
            time.sleep(0.05)
        return [process.poll() for process in self.processes]

    def end(self, whole: "Pair | None" = None) -> str:
        """How the run directory stands, against the undisturbed one's."""
        epochs = len(list((self.exp / "clusters").glob("epoch_*.npz")))
        if whole is None:
            return f"{epochs} epochs clustered"
        same = [(self.exp / name).exists() and (self.exp / name).read_bytes() == (whole.exp / name).read_bytes()
                for name in COMPARED]  # fmt: skip
        if all(same):
            return "the same bytes"
        return f"{epochs} epochs clustered, {sum(same)} of {len(same)} files the same"

    def sentence(self, machine: int) -> str:
        lines = [line for line in self.said[machine].read_text().splitlines() if "error: " in line]
        return lines[0].partition("error: ")[2] if lines else "(nothing)"


def tell(what: str, begin: float, pair: Pair, codes: list[int | None], end: str, said: str) -> None:
    words = " and ".join("none" if code is None else str(code) for code in codes)
    print(f"| {what} | {time.perf_counter() - begin:.0f} | {words} | {end} | {said} |", flush=True)
    for machine, process in enumerate(pair.processes):
        send(machine, signal.SIGKILL)  # what waits still
        process.wait()


def tell_again(what: str, home: Path, name: str, train: list[str], whole: Pair) -> None:
    """Give the command of a training that was disturbed again, on both, and tell how that ends."""
    begin = time.perf_counter()
    again = Pair(home, name, train)
    tell(what, begin, again, again.ended(), again.end(whole), "")


@contextmanager
def two_machines() -> Iterator[None]:
    """Two network namespaces with a cable between them.

    Raises:
        UserError: if this system has none, or gives this user none.
    """
    if shutil.which("ip") is None:
        raise UserError("machines: needs the command ip (iproute2) for network namespaces")
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", CARD, "netns", NAMES[0], "type", "veth", "peer", "name", CARD, "netns", NAMES[1])
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            in_namespace(name, "ip", "addr", "add", f"{address}/24", "dev", CARD)
            for card in (CARD, "lo"):
                in_namespace(name, "ip", "link", "set", card, "up")
        yield
    finally:
        for machine, name in enumerate(NAMES):
            send(machine, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def send(machine: int, what: int) -> None:
    """Send a signal to all that runs on a machine."""
    found = subprocess.run(["ip", "netns", "pids", NAMES[machine]], capture_output=True, text=True)
    for pid in found.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), what)


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"machines: no network namespaces here ({done.stderr.strip()}): run as root, on Linux")


def in_namespace(name: str, *words: str) -> None:
    ip("netns", "exec", name, *words)
