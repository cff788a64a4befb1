"""What has been drawn of an epoch, and where its pictures are.

A picture is drawn again if it is not recorded, or gone, or empty: `Paths.missing` decides.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from datasets.view import PHOTOGRAPH
from explain.attribution.registry import METHODS, Asked, in_order, parse, summary_method
from explain.choice import Choice
from explain.own import Values, kept_columns
from explain.rendering import SUFFIX
from explain.scores import Scores
from explain.subject import Subject
from machine.files import write_atomic
from machine.reading import Damaged, read_npz, whole_number

SPECIAL = {"rows", "methods", "empty", "heat"}  # arrays of a piece; the others are numbers that methods measured
HASHED = re.compile("-[0-9a-f]{10}$")  # a name that another one's hash could make
PIECES = ".pieces"  # folder of an epoch's record
MAXIMUM = "activation_maximum.png"  # in a cluster's folder: what `maximise` made


def number_column(key: str, name: str) -> str:
    """What a number that a method measures is called in tables: `occlusion.worst`."""
    return f"{key}.{name}"


class Record:
    """What has been drawn of an epoch: the union of its pieces, each a file in `folder` or that of a shard in it.

    Args:
        folder: of the pieces.
        count: of the run's images.
        shard: name of the shard whose pieces are added; "": of no shard.
    """

    def __init__(self, folder: Path, count: int, shard: str = ""):
        self.folder = folder / shard
        self.done: dict[str, np.ndarray] = {}  # key of a method -> (N,) bool
        self.empty: dict[str, np.ndarray] = {}  # key of a method -> (N,) bool: the map is degenerate
        self.heat: dict[int, np.ndarray] = {}  # image -> small Grad-CAM in 0..1, for its cluster's mean
        self.numbers: dict[str, np.ndarray] = {}  # number_column -> (N,) float64, NaN: not measured
        self._count, self._pieces = count, 0
        for path in [*sorted(folder.glob("*.npz")), *sorted(folder.glob("*-of-*/*.npz"))]:
            number = whole_number(path.stem)
            if number is None:  # a copy, as a mounted Drive makes them
                continue
            try:
                self._take(read_piece(path, count))
            except Damaged:
                path.unlink(missing_ok=True)  # its images are drawn again
                continue
            if path.parent == self.folder:
                self._pieces = number + 1

    def add(self, piece: dict[str, np.ndarray]) -> None:
        """Keep a piece: `rows` (B,), `methods`, `empty` (B, methods), `heat` (B, h, w), numbers measured (B,)."""
        path, arrays = self.folder / f"{self._pieces:06d}.npz", dict[str, Any](piece)
        write_atomic(path, lambda file: np.savez(file, **arrays))
        self._pieces += 1
        self._take(piece)

    def drawn(self) -> list[Asked]:
        """The methods of which there are pictures, in the order of pages and tables."""
        return in_order(self.done)

    def measured(self) -> list[tuple[Asked, str, np.ndarray]]:
        """Of each number that the drawn methods measure: method, its name, (N,) values."""
        columns = [
            (one, name, number_column(one.key, name))
            for one in self.drawn()
            if one.name in METHODS
            for name in one.method.columns
        ]
        return [(one, name, self.numbers[column]) for one, name, column in columns if column in self.numbers]

    def _take(self, piece: dict[str, np.ndarray]) -> None:
        rows = piece["rows"]
        for column, key in enumerate(piece["methods"].tolist()):
            for table in (self.done, self.empty):
                table.setdefault(key, np.zeros(self._count, bool))
            self.done[key][rows] = True
            self.empty[key][rows] = piece["empty"][:, column]
        for name in piece.keys() - SPECIAL:
            self.numbers.setdefault(name, np.full(self._count, np.nan))[rows] = piece[name]
        if "heat" in piece:
            self.heat |= dict(zip(rows.tolist(), piece["heat"], strict=True))


def read_piece(path: Path, count: int) -> dict[str, np.ndarray]:
    """A piece of a record of `count` images, as `Record.add` takes it.

    Raises:
        Damaged: if it is none.
    """
    piece = read_npz(path, {"rows": ("iu", (None,)), "methods": ("U", (None,)), "empty": ("b", (None, None))}, "", True)
    rows, methods = piece["rows"], piece["methods"]
    heat = piece.get("heat")
    numbers = [values for name, values in piece.items() if name not in SPECIAL]
    if (
        (len(rows) and not 0 <= rows.min() <= rows.max() < count)
        or piece["empty"].shape != (len(rows), len(methods))
        or (heat is not None and (heat.ndim != 3 or len(heat) != len(rows) or heat.dtype.kind != "f"))
        or any((values.shape, values.dtype.kind) != (rows.shape, "f") for values in numbers)
        or not all(is_method(key) for key in methods.tolist())
    ):
        raise Damaged(path, "not of these images and methods", "")
    return piece


def is_method(key: str) -> bool:
    """Whether `key` is that of a method, and so of a picture's file."""
    try:
        return parse(key).key == key
    except ValueError:
        return False


class Paths:
    """Where the pictures of an epoch are."""

    def __init__(self, folder: Path, names: Sequence[str], assignment: np.ndarray, kind: str):
        self.folder, self.names, self.assignment, self.suffix = folder, names, assignment, SUFFIX[kind]

    def file(self, row: int, key: str) -> str:
        """Relative to the epoch's folder."""
        return f"{self.assignment[row]}/{self.names[row]}-{key}{self.suffix}"

    def of(self, row: int, key: str) -> Path:
        return self.folder / self.file(row, key)

    def missing(self, done: Mapping[str, np.ndarray], keys: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Of each key which pictures of `rows` are to be drawn: not recorded in `done`, or its file gone or empty.

        Returns:
            Key -> (len(rows),) bool.
        """
        there = {cluster: _files(self.folder / str(cluster)) for cluster in np.unique(self.assignment[rows])}

        def lacks(key: str, row: int) -> bool:
            return not done[key][row] or self.of(row, key).name not in there[self.assignment[row]]

        return {key: np.array([key not in done or lacks(key, row) for row in rows.tolist()], bool) for key in keys}


@dataclass(frozen=True)
class Explanation:
    """An epoch that is being explained: what, how, where, and how far."""

    subject: Subject
    choice: Choice
    folder: Path  # results/<epoch>
    scores: Scores
    rows: np.ndarray  # the images asked for, cluster by cluster, the most typical first
    shard: str = ""  # name of the shard that they are, if they are one

    @cached_property
    def record(self) -> Record:
        return Record(self.folder / PIECES, len(self.subject.run.ids), self.shard)

    @property
    def heat_key(self) -> str:
        """Of the method whose heat stands for an image: in its cluster's mean, in the counts of empty maps."""
        return summary_method(self.subject.view != PHOTOGRAPH)

    @cached_property
    def own(self) -> dict[str, Values]:
        """The columns of the user's own table, as `own.kept_columns` gives them."""
        return kept_columns(self.subject.run)

    @cached_property
    def paths(self) -> Paths:
        names = file_names(self.subject.run.ids)
        return Paths(self.folder, names, self.subject.clusters.assignment, self.choice.format)

    def undrawn(self) -> dict[str, np.ndarray]:
        """Of each method asked for which of `rows` have no picture yet: key -> (len(rows),) bool."""
        return self.paths.missing(self.record.done, self.choice.keys, self.rows)

    def drawn_rows(self) -> np.ndarray:
        """The images with any picture, of this call or an earlier one, in the order of `rows`."""
        done = list(self.record.done.values())
        rows = np.flatnonzero(np.any(done, axis=0)) if done else np.zeros(0, np.int64)
        return rows[np.lexsort((self.scores.rank[rows], self.subject.clusters.assignment[rows]))]


def file_names(ids: Sequence[str]) -> list[str]:
    """A safe, unique file name (without suffix) for each id: letters, digits, - and . of any script; folders become _.

    Names that would meet, also where large and small letters are the same, carry a piece of their id's hash.
    """
    plain = []
    for name in ids:
        stem = name.rsplit(".", 1)[0] if "." in name.rsplit("/", 1)[-1][1:] else name
        plain.append(safe_name(stem) or "image")
    seen = Counter(name.casefold() for name in plain)
    return [
        safe
        if seen[safe.casefold()] == 1 and not HASHED.search(safe)
        else f"{safe}-{sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
        for safe, name in zip(plain, ids, strict=True)
    ]


def safe_name(text: str) -> str:
    """Part of a file's name, up to 120 bytes: letters, digits, - and . of any script, else _; perhaps ''."""
    safe = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text))
    return safe.strip("._-").encode()[:120].decode(errors="ignore")


def is_there(path: Path) -> bool:
    """Whether a picture is there, with something in it."""
    return path.exists() and path.stat().st_size > 0


def _files(folder: Path) -> set[str]:
    """Names of the files with something in them."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.stat().st_size > 0}
