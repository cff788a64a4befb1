"""What strangers, bad disks and sync programs do to our files, made from a seed, in a process that may crash.

    python tests/hostile.py pickles|tensors|zips COUNT [SEED]
    python tests/hostile.py runs COUNT SEED FOLDER     (with exp/, results/, sup/, data/, as test_hostile makes it)

Each case must end within its time in what was asked for or in one sentence (UserError, or a disk's own); the last line
printed is a JSON table of what was seen. A signal ends the process, and the line before names the case.
"""

import contextlib
import faulthandler
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from console import UserError, disk_sentence

sys.path.insert(0, str(Path(__file__).parent))

MEMORY = 12 << 30  # of address space
ABSURD: list[Any] = [
    None, True, -1, 0, 1, 7, 2**31, 2**64 + 1, 10**30, -(10**12), 0.5, float("nan"), float("inf"), 1e300, "", "x", "64",
    "two", "²", "~nobody", "../../x", "=1+1", "\x1b[2J", "a" * 300, [], [1], ["x"], {}, {"x": 1}, [[[[]]]],
]  # fmt: skip


class TooSlow(BaseException):
    """Not an Exception: our own catch-alls must not swallow it."""


def main() -> None:
    kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    faulthandler.enable()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    unclean: list[str] = []
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as scratch:
        attack, most = ATTACKS[kind]
        cases = attack(rng, Path(scratch))
        for number in range(count):
            name, act = next(cases)
            begun = time.monotonic()
            signal.alarm(most)
            try:
                seen[_outcome(act)] += 1
            except TooSlow as error:
                where = traceback.extract_tb(error.__traceback__)
                unclean.append(f"{number} {name}: over {most} s at {[f'{one.filename}:{one.lineno}' for one in where]}")
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)
                ours = [
                    f"{Path(one.filename).name}:{one.lineno}" for one in where if "site-packages" not in one.filename
                ]
                unclean.append(f"{number} {name}: {type(error).__name__}: {str(error)[:100]} at {' '.join(ours[-3:])}")
            finally:
                signal.alarm(0)
            seconds = time.monotonic() - begun
            slowest = max(slowest, (seconds, name))
            if seconds > most and not (unclean and unclean[-1].startswith(f"{number} ")):
                unclean.append(f"{number} {name}: over {most} s, and what said so was swallowed")
    table = {
        "kind": kind,
        "seed": seed,
        "tried": count,
        **seen,
        "slowest": f"{slowest[0]:.2f} s, {slowest[1]}",
        "unclean": unclean,
    }
    print(json.dumps(table))


def _too_slow(*_: object) -> None:
    raise TooSlow


def _outcome(act: Callable[[], object]) -> str:
    try:
        act()
    except UserError as error:
        if not str(error).strip() or "Traceback" in str(error):
            raise
        return "refused"
    except OSError as error:
        if disk_sentence(error) is None:
            raise
        return "refused"
    except SystemExit as error:
        return "refused" if error.code else "used"
    return "used"


Cases = Iterator[tuple[str, Callable[[], object]]]


def mutate(raw: bytes, rng: random.Random, pieces: list[bytes]) -> bytes:
    """A few bytes changed, cut out, doubled, put in; or a part of another file put in."""
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(7)
        if what == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[at : at + rng.choice([1, 2, 8, 64])]
        elif what == 2:
            data[at:at] = data[at : at + rng.choice([1, 2, 8, 64])]
        elif what == 3:
            data[at:at] = rng.randbytes(rng.choice([1, 2, 4, 8]))
        elif what == 4:
            data[at : at + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\xff" * 8, b"\0\0\0\x80"])
        elif what == 5:
            other = rng.choice(pieces)
            begin = rng.randrange(max(1, len(other)))
            data[at:at] = other[begin : begin + rng.choice([4, 32, 256])]
        else:
            del data[at:]
    return bytes(data[: 1 << 20])


def pickles(rng: random.Random, scratch: Path) -> Cases:
    """Cluster logs of the original: good ones and hostile ones, mutated."""
    from test_deepcluster_original import HOSTILE

    from deepcluster.original_log import read_clusters

    lists = [[0, 3, 4], [], [1, 2, 5]]
    pairs = [(f"a/{i:02d}.jpg", i % 3) for i in range(6)]
    arrays = [[np.array(members, np.int64) for members in lists]]
    contents = [[lists], [lists, (lists, pairs, 8)], (lists, pairs, 8), pairs, arrays, [[[np.int64(3)], [np.int32(1)]]]]
    seeds = [pickle.dumps(content, protocol) for content in contents for protocol in range(6)]
    for content, _ in HOSTILE.values():
        raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol=4)
        seeds += [raw] * (len(raw) < 5000)
    path = scratch / "clusters"
    while True:
        path.write_bytes(mutate(rng.choice(seeds), rng, seeds))
        yield "pickle", lambda: _silently(lambda: read_clusters(path, rng.choice([1, 2, 9]), rng.choice([None, 1, 9])))


def tensors(rng: random.Random, scratch: Path) -> Cases:
    """Checkpoints, in both file formats of torch."""
    from runs.tensors import load_tensors, read_weights

    content = {"epoch": 1, "model": {"arch": "alexnet", "k": 3}, "state": {"w": torch.rand(20, 30), "b": torch.ones(3)}}
    seeds = []
    for modern in (True, False):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=modern)
        seeds.append(buffer.getvalue())
    path = scratch / "checkpoint.pt"
    while True:
        path.write_bytes(mutate(rng.choice(seeds), rng, seeds))
        yield "tensors", lambda: (load_tensors(path), read_weights(path))


def zips(rng: random.Random, scratch: Path) -> Cases:
    """Zips of photographs, and of what should not be in one."""
    from datasets.folder import unpack

    os.environ["DEEPCLUSTER_CACHE"] = str(scratch / "cache")
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        for names in (
            ["a/1.jpg", "a/2.jpg", "b/3.jpg"],
            ["a", "a/1.jpg"],
            ["../x.jpg", "C:/x.jpg"],
            ["scan 12:30.jpg"],
        ):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", method) as archive:
                for name in names:
                    archive.writestr(name, rng.randbytes(200) + b"x" * 300)
            seeds.append(buffer.getvalue())
    path = scratch / "photographs.zip"
    while True:
        path.write_bytes(mutate(rng.choice(seeds), rng, seeds))

        def act() -> None:
            _silently(lambda: unpack(path))
            outside = {one.name for one in scratch.iterdir()} - {"cache", "photographs.zip"}
            assert not outside, outside

        yield "zip", act


# --- run directories and results ----------------------------------------------------------------------------------


def run_directories(rng: random.Random, scratch: Path) -> Cases:
    """One file of a run directory or of its results changed as its format is, then a command called on it."""
    source = Path(sys.argv[4])
    os.environ["DEEPCLUSTER_CACHE"] = str(source / "cache")
    data = str(source / "data")
    at = Path(scratch / "here")
    exp, sup, results = (str(at / name) for name in ("exp", "sup", "results"))
    train = ["train", data, "--size", "64", "--k", "3", "--epochs", "2", "--save-every", "1", "--batch", "16"]
    draw = ["draw", "--run", exp, "--data", data, "--results", results, "--methods", "grad_cam", "--per-cluster", "1"]
    commands: dict[str, list[list[str]]] = {
        "exp": [
            ["runs", "show", exp],
            ["explain", *draw],
            ["explain", *draw, "--epoch", "all"],
            ["explain", "apply", "--run", exp, "--edits", str(at / "edits.csv")],
            ["explain", *draw, "--assignments", str(at / "table.csv")],
            ["deepcluster", "predict", "--run", exp, "--images", data, "--out", str(at / "out.csv")],
            ["deepcluster", "features", "--run", exp, "--data", data, "--out", str(at / "out.npz")],
            ["deepcluster", *train, "--exp", exp],
            ["deepcluster", "compare", "--run", exp, "--data", data, "--labels", str(at / "labels.csv")],
            ["explain", "maximise", *draw[1:7], "--style", "plain", "--steps", "1"],
        ],
        "sup": [
            ["runs", "show", sup],
            ["supervised", "test", "--run", sup, "--test", f"{data}/test"],
            ["supervised", "compare", sup, sup],
            ["supervised", "train", data, "--exp", sup, "--model", "mlp", "--epochs", "2"],
            ["explain", "pixelflip", "--run", sup, "--limit", "2", "--results", results],
        ],
    }  # fmt: skip
    while True:
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(source, at, symlinks=True, ignore=shutil.ignore_patterns("data", "cache"))
        command = rng.choice(commands[rng.choice(["exp", "exp", "exp", "sup"])])
        touched = [at / "sup"] if sup in command else [at / "exp", at / "exp", at / "results"]
        home = rng.choice(touched)
        files = [path for path in sorted(home.rglob("*")) if path.is_file() and path.suffix in FORMATS]
        files += [at / "edits.csv", at / "table.csv", at / "labels.csv"] if rng.random() < 0.2 else []
        path = rng.choice(files)
        change = rng.choice([FORMATS[path.suffix], FORMATS[path.suffix], change_any])
        told = change(path, rng)
        name = f"{' '.join(command[:2])}: {path.relative_to(at)} {told}"
        yield name, lambda command=command: _silently(lambda: _call(command))


def _call(command: list[str]) -> None:
    from importlib import import_module

    sys.argv = command
    import_module(f"{command[0]}.__main__").main()


def _silently(act: Callable[[], object]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        act()


def change_any(path: Path, rng: random.Random) -> str:
    raw = path.read_bytes()
    what = rng.choice(["empty", "cut", "bytes", "gone", "pipe", "device", "folder", "copy"])
    if what == "empty":
        path.write_bytes(b"")
    elif what == "cut":
        path.write_bytes(raw[: rng.randrange(len(raw) + 1)])
    elif what == "bytes":
        path.write_bytes(mutate(raw, rng, [raw]) if len(raw) < 1 << 20 else raw[: len(raw) // 2] + rng.randbytes(9))
    elif what == "copy":
        shutil.copy(path, path.with_name(f"{path.stem} (1){path.suffix}"))
    else:
        path.unlink()
        if what == "pipe":
            os.mkfifo(path)
        elif what == "device":
            path.symlink_to("/dev/zero")
        elif what == "folder":
            path.mkdir()
    return what


def change_leaf(
    content: Any, rng: random.Random, change_other: Callable[[Any, random.Random], tuple[Any, str]] | None = None
) -> tuple[Any, str]:
    """One value somewhere in nested tables and lists is another one, or gone; `change_other` for what is neither."""
    whole = not isinstance(content, dict | list) or not content
    if whole and change_other is not None and rng.random() < 0.85:
        return change_other(content, rng)
    if whole or rng.random() < 0.15:
        new = rng.choice(ABSURD)
        return new, f"-> {str(new)[:20]!r}"
    key = rng.choice(list(content)) if isinstance(content, dict) else rng.randrange(len(content))
    if rng.random() < 0.2:
        del content[key]
        return content, f"{key} gone"
    content[key], told = change_leaf(content[key], rng, change_other)
    return content, f"{key} {told}"


def change_tensor(value: Any, rng: random.Random) -> tuple[Any, str]:
    if not isinstance(value, torch.Tensor):
        return rng.choice(ABSURD), "no tensor"
    what = rng.choice(["nan", "shape", "empty", "text", "int"])
    new = {"nan": value * float("nan"), "shape": torch.zeros(3, 3), "empty": torch.zeros(0), "text": "x"}
    return new.get(what, torch.zeros(value.shape, dtype=torch.int64)), what


def change_json(path: Path, rng: random.Random) -> str:
    if rng.random() < 0.1:
        path.write_text("[" * 100_000)
        return "deep"
    content, told = change_leaf(json.loads(path.read_text()), rng)
    path.write_text(json.dumps(content))
    return told


def change_csv(path: Path, rng: random.Random) -> str:
    lines = [line.split(",") for line in path.read_text(errors="surrogateescape").split("\n")]
    row = rng.randrange(len(lines))
    what = rng.choice(["row gone", "row twice", "cell", "cell", "cell", "cell", "cell gone", "quote", "huge", "header"])
    if what == "row gone":
        del lines[row]
    elif what == "row twice":
        lines.insert(row, lines[row])
    elif what == "cell gone":
        lines[row].pop()
    elif what == "header":
        del lines[0]
    else:
        column = rng.randrange(len(lines[row]) or 1)
        cell = {"quote": '"', "huge": "9" * 2_000_000}.get(what, str(rng.choice([*ABSURD, "9" * 5000, "\0", "a\rb"])))
        lines[row][column : column + 1] = [cell]
        what = f"{what} {row},{column} {cell[:20]!r}"
    path.write_text("\n".join(map(",".join, lines)), errors="surrogateescape")
    return what


def change_npz(path: Path, rng: random.Random) -> str:
    with np.load(path) as kept:
        arrays = dict(kept)
    name = rng.choice(list(arrays))
    value = arrays[name]
    changes: dict[str, Callable[[], Any]] = {
        "gone": lambda: None,
        "shorter": lambda: value[:-1],
        "longer": lambda: np.concatenate([value, value]),
        "2-D": lambda: value[None],
        "number": lambda: np.array(3),
        "float": lambda: value.astype(np.float64) + 0.5,
        "text": lambda: np.array(["x"] * len(value)),
        "large": lambda: np.full_like(value, 2**30),
        "negative": lambda: np.full_like(value, -1),
        "nan": lambda: np.full(value.shape, np.nan),
        "objects": lambda: np.array([{}] * len(value), dtype=object),
    }
    what = rng.choice(list(changes))
    try:
        arrays[name] = changes[what]()
    except (ValueError, TypeError, OverflowError):
        arrays[name] = np.zeros(1)
    np.savez(path, **{key: one for key, one in arrays.items() if one is not None})
    return f"{name} {what}"


def change_tensors(path: Path, rng: random.Random) -> str:
    content, told = change_leaf(torch.load(path, weights_only=True), rng, change_tensor)
    torch.save(content, path)
    return told


FORMATS: dict[str, Callable[[Path, random.Random], str]] = {
    ".json": change_json,
    ".csv": change_csv,
    ".npz": change_npz,
    ".pt": change_tensors,
    ".png": change_any,
}
ATTACKS: dict[str, tuple[Callable[[random.Random, Path], Cases], int]] = {  # and seconds that a case may take
    "pickles": (pickles, 5),
    "tensors": (tensors, 5),
    "zips": (zips, 5),
    "runs": (run_directories, 60),
}

if __name__ == "__main__":
    main()
