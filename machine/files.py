"""Files that are whole or not there: written beside themselves and renamed into place; and the tables in them.

After a kill at any instant each file is one that was complete at some time.
"""

import csv
import errno
import fcntl
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from console import UserError

# What a mounted Drive answers while its connection hiccups; worth another try after so many seconds each.
HICCUPS = {errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EREMOTEIO}
WAITS = (1, 2, 4, 8, 16)


def write_atomic(path: Path, content: bytes | Callable[[Any], object], durable: bool = True) -> None:
    """Put `content` in the place of `path`, whole.

    A mounted Drive that hiccups is tried again, so a callable may be called more than once.

    Args:
        path: the file; its folder exists.
        content: bytes, or a function that writes them to an open binary file.
        durable: wait until it is on the disk. Pictures, which are many and can be made again, do not.
    """
    for wait in (*WAITS, None):
        try:
            _replace(path, content, durable)
            return
        except OSError as error:
            if error.errno not in HICCUPS or wait is None:
                raise
            time.sleep(wait)


def _replace(path: Path, content: bytes | Callable[[Any], object], durable: bool) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        if error.filename is None or str(error.filename) == str(scratch):
            error.filename = str(path)
        raise
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


@contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder for writing.

    Raises:
        UserError: with `refusal`, if another process holds it.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: {refusal}") from None
        except OSError:  # a mounted Drive has no locks; there is one writer there
            pass
        yield


@contextmanager
def waiting_for(lock: Path) -> Iterator[None]:
    """Hold a lock file, after whoever holds it now."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a mounted Drive has no locks; there is one writer there
            pass
        yield


def write_json(path: Path, content: object) -> None:
    """Indented, ASCII alone."""
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """A table with a header; None, and what a row lacks, become empty cells. What is not UTF-8 keeps its bytes."""
    text = io.StringIO(newline="")
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header, every cell as text."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        return list(csv.DictReader(file, restval=""))
