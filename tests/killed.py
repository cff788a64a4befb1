"""Commands killed at their renames, then given again: the end must be that of the undisturbed one.

    python tests/killed.py HOME COMMANDS KILLS [SEED]

HOME is the folder that test_hostile makes (exp/, data/, edits.csv, cache/), COMMANDS some of `commands_of` with commas,
KILLS how many instants of each, drawn from the seed; 0: all. A rename is what makes a file or a folder there, so before
and after it are the instants that can differ. A kill is os._exit in a process that was forked for it: nothing is
cleaned up. The last line printed is a JSON table of what was seen.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from datasets.decoding import decode  # noqa: F401  what the forked would each load anew
from deepcluster.launch import train_command  # noqa: F401

KILLED = 99
TIMES = ("seconds", "begun", "created", "date", "when")  # what a value is called that is another each time
NOTHING = (".lock", ".received", "log.txt")  # files that are no result: the last is what commands of a sheet said
MEASURED = "milliseconds"  # in what is said of one
SHEET = """
[all]
data = "{data}"
size = 64
epochs = 1
batch = 16
view = "photograph"
[explain]
per-cluster = 1
methods = "grad_cam"
[[run]]
name = "few"
k = 3
"""


def commands_of(at: Path, data: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Of each command the words, and what of HOME must be there."""
    exp, results = str(at / "exp"), str(at / "results")
    settings = ["--size", "64", "--k", "3", "--epochs", "2", "--save-every", "1", "--batch", "16"]
    mlp = ["--model", "mlp", "--epochs", "2"]
    draw = ["--run", exp, "--data", str(data), "--results", results, "--methods", "grad_cam"]
    return {
        "train": (["deepcluster", "train", str(data), "--exp", exp, *settings], []),
        "supervised": (["supervised", "train", str(data), "--exp", str(at / "s"), *mlp], []),
        "prepare": (["datasets", "prepare", str(data), "--size", "64"], []),
        "explain": (["explain", "draw", *draw, "--per-cluster", "1"], ["exp"]),
        "apply": (["explain", "apply", "--run", exp, "--edits", str(at / "edits.csv")], ["exp", "edits.csv"]),
        "audit": (["explain", "audit", *draw, "--images", "4"], ["exp", "results"]),
        "sheet": (["runs", "sheet", str(at / "sheet.toml"), "--out", str(at / "out")], []),
        "split": (["datasets", "split", str(data / "train"), str(at / "coins")], []),
        "paint": (["datasets", "paint", str(at / "painted"), "--count", "16"], []),
        "export": (["explain", "export", *draw[:4], "--out", str(at / "export")], ["exp"]),
        "predict": (["deepcluster", "predict", *draw[:2], "--images", str(data), "--out", str(at / "n.csv")], ["exp"]),
    }  # fmt: skip


def main() -> None:
    home, names, kills = Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
    rng = random.Random(int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    torch.set_num_threads(1)
    table = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DEEPCLUSTER_CACHE"] = str(Path(scratch) / "at" / "cache")
        for name in names:
            table[name] = attack(name, home, Path(scratch) / "at", kills, rng)
    print(json.dumps(table))


def attack(name: str, home: Path, at: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill one command at instants of its own."""
    words, needed = commands_of(at, home / "data")[name]

    def fresh() -> None:
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir()
        for one in [*needed, *([] if name == "prepare" else ["cache"])]:
            (shutil.copytree if (home / one).is_dir() else shutil.copy)(home / one, at / one)
        (at / "sheet.toml").write_text(SHEET.format(data=home / "data"))

    fresh()
    code, renames, said = call(words, at)
    assert code == 0, said
    whole = contents(at)
    instants = [(number, after) for number in range(1, renames + 1) for after in (False, True)]
    chosen = instants if not kills else sorted(rng.sample(instants, min(kills, len(instants))))
    unlike, killed = [], 0
    for number, after in chosen:
        fresh()
        code, _, said = call(words, at, number, after)
        if code == 0:  # done before: how often some files are written depends on the clock
            continue
        assert code == KILLED, said
        killed += 1
        code, _, said = call(words, at)
        found = contents(at)
        if code == 2 and "already there" in said and found == whole:
            code = 0  # what is made once was whole
        other = sorted(path for path in {*whole, *found} if whole.get(path) != found.get(path))
        if code or other:
            unlike.append(f"{'after' if after else 'before'} rename {number}: {code} {other[:5]} {said[-300:]}")
    return {"renames": renames, "kills": killed, "unlike": unlike}


def call(words: list[str], at: Path, kill_at: int = 0, after: bool = False) -> tuple[int, int, str]:
    """`python -m WORDS`, in a process forked for it: exit code, renames, what it said."""
    said = at.with_name("said")
    counted = at.with_name("counted")
    counted.write_text("0")
    child = os.fork()
    if not child:
        code = 1
        try:
            count_renames(counted, kill_at, after)
            with said.open("w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                code = _run(words)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), int(counted.read_text()), said.read_text()


def count_renames(counted: Path, kill_at: int, after: bool) -> None:
    """Count what renames in this process, and end it before or after the `kill_at`-th."""
    seen, one_at_a_time = 0, threading.Lock()  # pictures are written by threads

    def watched(rename: Callable[..., None]) -> Callable[..., None]:
        def act(*arguments: Any, **named: Any) -> None:
            nonlocal seen
            with one_at_a_time:
                seen += 1
                if seen == kill_at and not after:
                    os._exit(KILLED)
                rename(*arguments, **named)
                counted.write_text(str(seen))
                if seen == kill_at:
                    os._exit(KILLED)

        return act

    os.replace, os.rename = watched(os.replace), watched(os.rename)


def _run(words: list[str]) -> int:
    from console import command

    sys.argv = words
    try:
        command(import_module(f"{words[0]}.__main__").main)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def contents(home: Path) -> dict[str, str]:
    """Every file that a user sees and every entry of a cache, by what is in it; times are left out, and locks."""
    found = {}
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        if path.is_file() and path.suffix not in (".lock", ".tmp") and path.name not in NOTHING:
            found[name] = hashlib.sha256(repr(_timeless(path)).encode()).hexdigest()
    return found


def _timeless(path: Path) -> Any:
    if path.suffix == ".csv":
        with path.open(newline="", errors="surrogateescape") as file:
            return [_without_times(row) for row in csv.DictReader(file)]
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text()))
    if path.suffix == ".pt":
        return _without_times(torch.load(io.BytesIO(path.read_bytes()), weights_only=True))
    content = path.read_bytes()
    if path.suffix == ".html":
        took = rb"\(\d+\.\d s\)|milliseconds.*?</table>|<td>\d+</td>(?=<td class=.words)"  # the last: a sheet's seconds
        return re.sub(took, b"", content, flags=re.DOTALL)
    return re.sub(rb"/(Creation|Mod)Date ?\(.*?\)", b"", content) if path.suffix == ".pdf" else content


def _without_times(value: Any) -> Any:
    """None in the place of a row or an object that is about a time."""
    if isinstance(value, dict):
        if any(isinstance(one, str) and MEASURED in one for one in value.values()):
            return None
        return {key: _without_times(one) for key, one in value.items() if not str(key).startswith(TIMES)}
    if isinstance(value, list | tuple):
        return [_without_times(one) for one in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


if __name__ == "__main__":
    main()
