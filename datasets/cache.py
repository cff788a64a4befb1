"""Decoded pixels on local disk: decoded once, in parallel, then memory-mapped by every run and epoch.

A cache entry is a folder of shards, each the pixels of 1,024 images or of a 256th of all, end to end. Shards are
renamed into place one by one, so an interrupted decoding continues, and the folder itself is renamed when it is whole.
"""

import errno
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np

from console import UserError, progress
from datasets.decoding import MOST_BYTES, BadImage
from machine.files import cache_root, waiting_for, write_atomic
from machine.reading import Damaged, open_regular, read_json, typed

SHARD = 1024  # images in a file, at least
MOST_SHARDS = 256  # files of an entry, which are open as long as it is used
REFUSALS = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "no space left") | dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS), "no permission"
)
Result = TypeVar("Result")

VERSION = 2  # raise when decoding.py gives other pixels for the same file


@dataclass(frozen=True)
class Shard:
    """What is said of a shard, beside its pixels."""

    images: list  # [index, height, width] of each usable one
    skipped: list  # [index, reason] of each other one


def made_once(home: Path, make: Callable[[Path], None]) -> Path:
    """The folder `home` of the cache, whole: as it is, or made now, by one process at a time.

    Args:
        home: the folder.
        make: fills the empty folder that it is given, which then takes the place of `home`.
    """
    if home.is_dir():
        return home
    with _turn(home):
        if not home.is_dir():
            partial = home.with_name(home.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir()
            try:
                make(partial)
                os.rename(partial, home)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return home


@contextmanager
def _turn(home: Path) -> Iterator[None]:
    """Hold an entry of the cache, after whoever makes it now.

    Raises:
        UserError: naming the cache, if there is no space for it, or no permission.
    """
    root = cache_root()
    try:
        for folder in (home.parent, root / "locks"):
            folder.mkdir(parents=True, exist_ok=True)
        with waiting_for(root / "locks" / f"{home.parent.name}-{home.name}.lock"):
            yield
    except OSError as error:
        elsewhere = error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(root)
        if elsewhere or error.errno not in REFUSALS:
            raise
        raise UserError(
            f"{REFUSALS[error.errno]} for the cache {root}: set DEEPCLUSTER_CACHE to another folder, or mend this one, "
            "and run the same command again, it continues"
        ) from None


class Pixels:
    """N decoded images, memory-mapped; `pixels[i]` is a read-only (H, W, 3) uint8 array.

    `alike` says whether all have one shape.
    """

    def __init__(self, shards: Sequence[np.ndarray], shard: np.ndarray, offset: np.ndarray, shape: np.ndarray):
        self._shards, self._shard, self._offset = shards, shard, offset
        self.shape = shape  # (N, 2): height, width

    @classmethod
    def of(cls, images: Sequence[np.ndarray]) -> "Pixels":
        """Images (H, W, 3) uint8 that are in memory."""
        shape = np.array([image.shape[:2] for image in images], np.int64).reshape(-1, 2)
        return cls(
            [image.reshape(-1) for image in images], np.arange(len(images)), np.zeros(len(images), np.int64), shape
        )

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: int) -> np.ndarray:
        height, width = (int(side) for side in self.shape[index])
        start = int(self._offset[index])
        return self._shards[self._shard[index]][start : start + height * width * 3].reshape(height, width, 3)

    def stack(self, rows: np.ndarray) -> np.ndarray:
        """Images `rows`, which are of one shape: (B, H, W, 3) uint8. Rows that follow each other are read as one."""
        height, width = (int(side) for side in self.shape[rows[0]])
        size = height * width * 3
        found = np.empty((len(rows), size), np.uint8)
        follows = (np.diff(self._shard[rows]) == 0) & (np.diff(self._offset[rows]) == size)
        starts = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(rows)]
        for begin, end in pairwise(starts):
            first = rows[begin]
            start = int(self._offset[first])
            piece = self._shards[self._shard[first]][start : start + (end - begin) * size]
            found[begin:end] = piece.reshape(end - begin, size)
        return found.reshape(-1, height, width, 3)

    @property
    def alike(self) -> bool:
        return bool((self.shape == self.shape[0]).all())

    def take(self, indices: Sequence[int] | np.ndarray) -> "Pixels":
        chosen = np.asarray(indices, dtype=np.int64)
        return Pixels(self._shards, self._shard[chosen], self._offset[chosen], self.shape[chosen])


def fingerprint(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def decode_all(
    key: str,
    names: Sequence[str],
    load: Callable[[int], np.ndarray],
    what: str,
    workers: int | None = None,
) -> tuple[Pixels, list[int], list[tuple[str, str]]]:
    """The pixels of `load(0) .. load(len(names) - 1)`, from the cache entry `key` or made now.

    Args:
        key: identifies content and size; equal keys must mean equal pixels.
        names: of the images, for what is said of those that cannot be used.
        load: index -> (H, W, 3) uint8; raises BadImage. Called from several threads.
        what: is done, for the progress bar.
        workers: threads; None: one a core.

    Returns:
        Pixels of the M usable images, their indices among `names`, and (name, reason) of the others.
    """
    home = cache_root() / "pixels" / f"v{VERSION}-{key}"
    parts = _whole(home, len(names))
    if parts is None:
        with _turn(home):  # two runs begun at once: the second waits for the first's pixels
            parts = _whole(home, len(names))
            if parts is None:
                shutil.rmtree(home, ignore_errors=True)  # damaged, if it is there: decoded again
                _build(home, names, load, what, workers)
                parts = _whole(home, len(names)) or []
    shards, shard, offset, shape, kept, skipped = [], [], [], [], [], []
    for number, part in enumerate(parts):
        path = home / f"{number:05d}.bin"
        shards.append(np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8))
        start = 0
        for index, height, width in part.images:
            kept.append(index)
            shard.append(number)
            offset.append(start)
            shape.append((height, width))
            start += height * width * 3
        skipped += [(names[index], reason) for index, reason in part.skipped]
    pixels = Pixels(
        shards, np.array(shard, np.int64), np.array(offset, np.int64), np.array(shape, np.int64).reshape(-1, 2)
    )
    return pixels, kept, skipped


def shard_size(images: int) -> int:
    """How many of so many images are in a file."""
    return max(SHARD, -(-images // MOST_SHARDS))


def _whole(home: Path, images: int) -> list[Shard] | None:
    """What the shards of an entry of so many images hold, or None if it is not there or damaged."""
    found: list[Shard] = []
    seen: list[int] = []
    try:
        for number in range(-(-images // shard_size(images))):
            path = home / f"{number:05d}.json"
            part: Shard = typed(Shard, read_json(path, ""), path, "")
            rows = np.array(part.images or np.zeros((0, 3), np.int64))
            if rows.shape[1:] != (3,) or rows.dtype.kind != "i" or (rows < 0).any():
                return None
            if path.with_suffix(".bin").stat().st_size != int((rows[:, 1] * rows[:, 2] * 3).sum()):
                return None
            seen += [*rows[:, 0].tolist(), *(index for index, _ in part.skipped)]
            found.append(part)
        return found if sorted(seen) == list(range(images)) else None
    except (OSError, Damaged, ValueError, TypeError):
        return None


def _build(home: Path, names: Sequence[str], load: Callable[[int], np.ndarray], what: str, workers: int | None) -> None:
    partial = home.with_name(home.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    done = next(n for n in count() if not (partial / f"{n:05d}.json").exists())
    size = shard_size(len(names))
    starts = range(done * size, len(names), size)

    def load_or_reason(index: int) -> np.ndarray | str:
        try:
            return load(index)
        except BadImage as bad:
            return str(bad)

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        todo = range(done * size, len(names))
        results = progress(_bounded_map(pool, load_or_reason, todo), what, total=len(todo))
        for start in starts:
            images, skipped = [], []
            scratch = partial / f"{start // size:05d}.tmp"
            with scratch.open("wb") as file:
                for index in range(start, min(start + size, len(names))):
                    result = next(results)
                    if isinstance(result, str):
                        skipped.append((index, result))
                    else:
                        file.write(np.ascontiguousarray(result).tobytes())
                        images.append((index, *result.shape[:2]))
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, partial / f"{start // size:05d}.bin")
            vouching = json.dumps({"images": images, "skipped": skipped}).encode()
            write_atomic(partial / f"{start // size:05d}.json", vouching)  # written last: it vouches for the .bin
    os.rename(partial, home)


def _bounded_map(
    pool: ThreadPoolExecutor, function: Callable[[int], Result], items: Sequence[int], ahead: int = 256
) -> Iterator[Result]:
    """`pool.map` in order that holds only `ahead` results: 70,000 decoded coins would not fit in memory."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) == ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def content_digests(root: Path, names: Sequence[str], workers: int | None = None) -> list[str]:
    """SHA-256 of each file, in the order of `names`; unreadable files, and what is no file, have an empty digest.

    Files whose size and modification time have not changed since the last call are not read again.
    """
    memory = cache_root() / "digests" / (fingerprint([str(root)]) + ".json")
    known: dict[str, list] = {}
    try:
        known = typed(dict[str, list], read_json(memory, ""), memory, "")
    except (FileNotFoundError, Damaged):  # a note we can do without
        known = {}

    def digest(name: str) -> tuple[str, list]:
        path = root / name
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            before = known.get(name, [])
            if before[:2] == stamp and len(before) == 3 and isinstance(before[2], str) and before[2]:
                return name, before
            sha = hashlib.sha256()
            with open_regular(path) as file:
                if status.st_size > MOST_BYTES:
                    return name, [0, 0, ""]
                while block := file.read(1 << 20):
                    sha.update(block)
            return name, [*stamp, sha.hexdigest()]
        except OSError:
            return name, [0, 0, ""]

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        fresh = dict(progress(pool.map(digest, names), "reading", total=len(names)))
    if fresh != known:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(memory, json.dumps(fresh).encode())
    return [fresh[name][2] for name in names]
