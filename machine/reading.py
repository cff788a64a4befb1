"""What is read may be half, damaged or a stranger's: one reader for JSON, CSV and npz, and one check of types.

Each says in one sentence which file will not do and why (`Damaged`), takes regular files only, and believes no number
in a file before it has compared it with the file. Checkpoints have `runs.tensors`, which needs torch.
"""

import csv
import dataclasses
import io
import json
import math
import os
import stat
import types
import typing
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from console import UserError, disk_sentence, plain

MOST_JSON = 64 << 20  # bytes
MOST_CELL = 1 << 20  # characters of a table's cell
MOST_SHOWN = 60  # characters of a stranger's value in a sentence

Shape = tuple[int | None, ...]


class Damaged(UserError):
    """A file that is not what it should be: PATH: REASON: what to do."""

    def __init__(self, path: Path, reason: object, mend: str):
        super().__init__(f"{path}: damaged ({plain(str(reason))}): {mend}")


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both allowed; of a text or list: of its length. In Annotated[int, Between(1, 9)]."""

    least: float
    most: float


# No image, network or machine of ours is larger; a file that says so would cost all of the memory before it failed.
MOST_SIDE, MOST_DECODED, MOST_THREADS, MOST_SEED = 4096, 1 << 20, 1024, 2**64 - 1
Count = Annotated[int, Between(0, 1 << 40)]
Share = Annotated[float, Between(0, 1)]
Side = Annotated[int, Between(1, MOST_SIDE)]  # of an image, in pixels
Seed = Annotated[int, Between(0, MOST_SEED)]


class Special(OSError):
    """A pipe, device or socket where a file is asked for: reading it might never end."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to read, never waiting for a writer.

    Raises:
        OSError: if it is not there; Special, if it is none whose end can be known.
    """
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(opened).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(21, "Is a directory", str(path))
        if not stat.S_ISREG(mode):
            raise Special("not a regular file")
        return os.fdopen(opened, "rb")
    except BaseException:
        os.close(opened)
        raise


def shown(value: object) -> str:
    """A value out of a file for a sentence: short, in one line, without anything that a terminal would obey."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**20:
        return "a number of more than 20 digits"
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


# --- JSON ---------------------------------------------------------------------------------------------------------


def read_json(path: Path, mend: str) -> Any:
    """What a JSON file holds.

    Args:
        path: the file.
        mend: what the user is to do if it is damaged.

    Raises:
        Damaged: if it is not JSON, or larger than any of ours.
        FileNotFoundError: if it is not there.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(MOST_JSON + 1)
        if len(raw) > MOST_JSON:
            raise ValueError(f"more than {MOST_JSON >> 20} MB")
        return json.loads(raw)
    except Special as error:
        raise Damaged(path, error, mend) from None
    except RecursionError:
        raise Damaged(path, "brackets in brackets without end", mend) from None
    except ValueError as error:
        raise Damaged(path, str(error)[:120], mend) from None


def typed(kind: Any, content: Any, path: Path, mend: str, where: str = "") -> Any:
    """`content` as `kind`, checked: a dataclass, field by field (defaults fill in), or any type of a field.

    Understood are bool, int, float (finite), str, None, Any, list, dict, unions, dataclasses, and bounds given by
    Annotated[..., Between(...)].

    Raises:
        Damaged: naming what is missing, or of another type, or out of bounds.
    """
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        complaint = _complaint(content, kind)
        if complaint is not None:
            raise Damaged(path, f"{where or 'it'} is {complaint}", mend)
        return content
    if not isinstance(content, dict):
        raise Damaged(path, f"{where or 'it'} is not a table", mend)
    hints = typing.get_type_hints(kind, include_extras=True)
    values = {}
    for one in dataclasses.fields(kind):
        name = f"{where}.{one.name}" if where else one.name
        if one.name in content:
            values[one.name] = typed(hints[one.name], content[one.name], path, mend, name)
        elif one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING:
            raise Damaged(path, f"it has no {name}", mend)
    return kind(**values)


def _complaint(value: Any, hint: Any) -> str | None:
    """What is wrong with a value that should be of type `hint`; None: nothing."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return None
    if origin is Annotated:
        wrong = _complaint(value, arguments[0])
        bounds = arguments[1]
        if wrong is not None or value is None:
            return wrong
        measured = value if isinstance(value, int | float) else len(value)
        if bounds.least <= measured <= bounds.most:
            return None
        what = shown(value) if isinstance(value, int | float) else f"of length {measured}"
        return f"{what}, not {bounds.least:g} to {bounds.most:g}"
    if origin in (types.UnionType, typing.Union):
        wrongs = [_complaint(value, one) for one in arguments]
        return None if None in wrongs else wrongs[0]
    if origin is list:
        if not isinstance(value, list):
            return shown(value)
        parts = (_complaint(one, arguments[0]) for one in value)
        return next((f"a list with {wrong}" for wrong in parts if wrong), None)
    if origin is dict:
        if not isinstance(value, dict):
            return shown(value)
        wrongs = [_complaint(one, kind) for pair in value.items() for one, kind in zip(pair, arguments, strict=True)]
        return next((f"a table with {wrong}" for wrong in wrongs if wrong), None)
    if hint is float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    elif hint is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    elif hint is None or hint is type(None):
        good = value is None
    else:
        good = isinstance(value, hint)
    return None if good else shown(value)


# --- tables -------------------------------------------------------------------------------------------------------


def read_csv(path: Path, mend: str = "save it as CSV (UTF-8, commas)", separators: str = ",") -> list[dict[str, str]]:
    """The rows of a table with a header, every cell as text; a row's missing cells are '', further ones are left out.

    Args:
        path: the file.
        mend: what the user is to do if it is damaged.
        separators: of columns; the one that the first line has most of, the earlier of several.

    Raises:
        Damaged: naming the line, if it is no such table.
        FileNotFoundError: if it is not there.
    """
    csv.field_size_limit(MOST_CELL)
    reader = None
    try:
        with open_regular(path) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as file:
            head = file.readline(MOST_CELL)
            if "\0" in head:
                raise UnicodeError("letters of two bytes: UTF-16?")
            file.seek(0)
            separator = max(separators, key=head.count)
            reader = csv.DictReader(file, restval="", restkey="", delimiter=separator, strict=True)
            counts = Counter(name for name in reader.fieldnames or () if name)  # "": what a spreadsheet leaves behind
            if counts and max(counts.values()) > 1:
                name = shown(counts.most_common(1)[0][0])
                raise Damaged(path, f"line 1: two columns are called {name}", "give each a name of its own")
            rows = []
            for row in reader:
                row.pop("", None)  # what a spreadsheet leaves behind the last column
                rows.append(row)
            return rows
    except Special as error:
        raise Damaged(path, error, mend) from None
    except (csv.Error, UnicodeError) as error:  # utf-16's byte order mark
        line = 0 if reader is None else reader.line_num
        raise Damaged(path, f"line {line + 1}: {error}", mend) from None


def whole_number(text: str) -> int | None:
    """The number from 0 to 10**15 that a cell holds, or None."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


def finite_number(text: str) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# --- npz ----------------------------------------------------------------------------------------------------------


def read_npz(path: Path, wanted: Mapping[str, tuple[str, Shape]], mend: str, others: bool = False) -> dict[str, Any]:
    """The arrays of an npz without objects; none is believed to be larger than the file.

    Args:
        path: the file.
        wanted: name -> (letters of numpy's kinds that it may have, as in "iu"; its shape, None: any length).
        mend: what the user is to do if it is damaged.
        others: read what else is in it, too, of any kind but objects.

    Raises:
        Damaged: if an array is missing, or of another kind or shape.
        FileNotFoundError: if it is not there.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            sizes = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            names = [*wanted, *(sorted(sizes.keys() - wanted.keys()) if others else ())]
            return {name: _read_array(archive, sizes, name, *wanted.get(name, ("biufSU", None))) for name in names}
    except Special as error:
        raise Damaged(path, error, mend) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError) or disk_sentence(error) is not None:
            raise
        raise Damaged(path, error, mend) from None
    except Exception as error:  # a damaged zip can raise nearly anything
        raise Damaged(path, _reason(error), mend) from None


def _read_array(archive: zipfile.ZipFile, sizes: Mapping[str, Any], name: str, kinds: str, shape: Shape | None) -> Any:
    if name not in sizes:
        raise ValueError(f"it has no {name}")
    with archive.open(sizes[name]) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found, fortran, dtype = read_header(file)
        fits = shape is None or (
            len(found) == len(shape) and all(want in (None, have) for have, want in zip(found, shape, strict=True))
        )
        if dtype.kind not in kinds or not fits:
            raise ValueError(f"{name} is {dtype} of shape {found}"[:120])
        size = math.prod(found) * dtype.itemsize
        if min(found, default=0) < 0 or size > sizes[name].file_size:
            raise ValueError(f"{name} says that it is larger than the file")
        raw = file.read(size)
        if len(raw) < size:
            raise ValueError(f"{name} ends too early")
        file.read(1)  # at its end the checksum is compared
    return np.frombuffer(raw, dtype).reshape(found, order="F" if fortran else "C").copy()


def _reason(error: Exception) -> str:
    text = str(error).split("\n")[0][:120]
    return shown(text)[1:-1] if text else type(error).__name__
