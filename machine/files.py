"""Files that are whole or not there: written beside themselves and renamed into place; locks; and the tables in them.

After a kill at any instant each file is one that was complete at some time. Folders may come from a stranger: no link
in them makes us write elsewhere.
"""

import csv
import errno
import fcntl
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from console import UserError, plain
from machine.reading import read_csv

__all__ = [
    "cache_root",
    "harmless",
    "home_path",
    "locked",
    "read_csv",
    "refuse_existing",
    "refuse_links",
    "spared",
    "sweep",
    "taken",
    "waiting_for",
    "whole_folder",
    "write_atomic",
    "write_csv",
    "write_json",
]

# What a mounted Drive answers while its connection hiccups; worth another try after so many seconds each.
HICCUPS = {errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EREMOTEIO}
WAITS = (1, 2, 4, 8, 16)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet computes
DEEPEST = 3  # folders in a run directory or results/ that are ours: epoch, cluster, pieces
UNFINISHED = ".partial"  # how a folder's name ends that is not whole yet
ABANDONED = 3600  # seconds after which a scratch file is nobody's any more


def home_path(text: str | Path) -> Path:
    """A path as a user writes it, `~` and `~name` resolved.

    Raises:
        UserError: if it is empty, or nobody's home is known by that name.
    """
    if not str(text):
        raise UserError("an empty name where a folder or file is asked for: name one (`.` is this folder)")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{plain(str(text))}: there is no such user's home: write the whole path") from None


def cache_root() -> Path:
    """`$DEEPCLUSTER_CACHE`, else `deepcluster-explain` in the user's cache folder.

    Raises:
        UserError: if neither is known.
    """
    chosen = os.environ.get("DEEPCLUSTER_CACHE")
    if chosen:
        return home_path(chosen)
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        raise UserError("no home folder is known for the cache: set DEEPCLUSTER_CACHE to a folder") from None
    return home_path(home) / "deepcluster-explain"


def write_atomic(path: Path, content: bytes | Callable[[Any], object], durable: bool = True) -> None:
    """Put `content` in the place of `path`, whole.

    A mounted Drive that hiccups is tried again, so a callable may be called more than once.

    Args:
        path: the file; its folder exists. A link there is replaced, not followed.
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
        with _open_new(scratch) as file:
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


def _open_new(path: Path) -> Any:
    """Open a file that was not there; a link or a leftover of that name goes, its target is left alone."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        opened = os.open(path, flags, 0o666)
    except FileExistsError:
        path.unlink()
        opened = os.open(path, flags, 0o666)
    return os.fdopen(opened, "w+b")


def _open_lock(path: Path) -> Any:
    """Open a lock file, made if it is not there, its content left alone."""
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b", 0)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path}: a link to another file: remove it (nothing was written)") from None
        raise


class Held(UserError):
    """A folder in which another process writes."""


@contextmanager
def locked(folder: Path, refusal: str, shared: bool = False) -> Iterator[None]:
    """Hold a folder for writing, alone or `shared` with others who do; what a killed writer left half written goes.

    Raises:
        Held: with `refusal`, if another process holds it.
        UserError: if a link in it leads elsewhere.
    """
    refuse_links(folder)
    with _open_lock(folder / ".lock") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(f"{folder}: {refusal}") from None
        except OSError:  # a mounted Drive has no locks; there is one writer there
            pass
        sweep(folder)
        yield


@contextmanager
def taken(lock: Path) -> Iterator[bool]:
    """Hold a lock file if nobody else does; whether it is held."""
    with _open_lock(lock) as file:
        mine = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mine = False
        except OSError:  # a mounted Drive has no locks; there is one writer there
            pass
        yield mine


@contextmanager
def waiting_for(lock: Path) -> Iterator[None]:
    """Hold a lock file, after whoever holds it now."""
    with _open_lock(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a mounted Drive has no locks; there is one writer there
            pass
        yield


def refuse_links(folder: Path) -> None:
    """Refuse a run directory or results/ in which a link stands for a folder: what is written would land elsewhere.

    The folder itself may be a link, which is its owner's own.

    Raises:
        UserError: naming the link.
    """
    for home, folders, _ in _walk(folder):
        for name in folders:
            if (Path(home) / name).is_symlink():
                raise UserError(
                    f"{Path(home) / name}: a link to another folder, into which would be written: put the folder "
                    "itself in its place, or remove the link"
                )


def sweep(folder: Path) -> None:
    """Remove the scratch files that a killed writer left, an hour after it wrote last."""
    for home, _, files in _walk(folder):
        for name in files:
            if name.startswith(".") and name.endswith(".tmp"):
                path = Path(home) / name
                try:
                    if time.time() - path.lstat().st_mtime > ABANDONED:
                        path.unlink()
                except OSError:  # another's, or gone by now
                    continue


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, as deep as our folders are, through no link but `folder` itself."""
    top = len(folder.parts)
    for home, folders, files in os.walk(folder):
        yield home, folders, files
        if len(Path(home).parts) - top >= DEEPEST:
            folders.clear()


def refuse_existing(out: Path) -> None:
    """Refuse a new folder's name that something has.

    Raises:
        UserError: saying so.
    """
    if os.path.lexists(out):
        raise UserError(f"{out}: already there: name a new folder")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into that becomes the new folder `out` if all goes well; what killed writers left of it goes.

    Raises:
        UserError: if there is something called `out`.
    """
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for path in out.parent.iterdir():
        name, _, number = path.name.removesuffix(UNFINISHED).rpartition(".")
        if path.name.endswith(UNFINISHED) and name == out.name and number.isdecimal() and not _runs(int(number)):
            shutil.rmtree(path, ignore_errors=True)
    unfinished = out.with_name(f"{out.name}.{os.getpid()}{UNFINISHED}")
    unfinished.mkdir()
    try:
        yield unfinished
        os.rename(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _runs(pid: int) -> bool:
    """Whether a process of this machine has this number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_json(path: Path, content: object) -> None:
    """Indented, ASCII alone."""
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """A table with a header; None, and what a row lacks, become empty cells. What is not UTF-8 keeps its bytes."""
    columns = columns or list(dict.fromkeys(key for row in rows for key in row))
    # with this end of line csv puts cells with a lone carriage return into quotes, too, which would else end a line
    line = io.StringIO(newline="")
    writer = csv.DictWriter(line, columns, lineterminator="\r\n")
    text = io.StringIO(newline="")
    for row in [{name: name for name in columns}, *rows]:
        line.seek(0)
        line.truncate()
        writer.writerow(row)
        text.write(line.getvalue()[:-2] + "\n")
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def harmless(text: str) -> str:
    """A stranger's words for a table that people open: a spreadsheet computes nothing, a terminal obeys nothing.

    Words alone: ids must stay exact. Once, when they are written: each call adds a `'` that `spared` takes off again.
    """
    shown = plain(text)
    return f"'{shown}" if _computed(shown) else shown


def spared(text: str) -> str:
    """What `harmless` was given, but for what a terminal would obey."""
    return text[1:] if text.startswith("'") and _computed(text) else text


def _computed(text: str) -> bool:
    """Whether a spreadsheet would compute a cell, or would but for the `'` before it, which may be the text's own."""
    return text.lstrip("'").startswith(FORMULA)
