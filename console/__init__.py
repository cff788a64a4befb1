"""What every command shares: one sentence and exit code 2 for bad input, what comes next, and progress."""

import difflib
import errno
import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

from console.errors import UserError
from console.group import group_name, hush

__all__ = [
    "UserError",
    "bar_settings",
    "command",
    "disk_sentence",
    "duration",
    "fail",
    "megabytes",
    "nearest",
    "next_step",
    "plain",
    "progress",
]

Item = TypeVar("Item")
NEAR, VERY_NEAR = 0.6, 0.7  # likeness from which a word is taken for a mistyped one, if it begins alike; if not
GRACE = 3  # seconds in which torchrun ends the others of a group whose first process has said what is wrong


def plain(text: str) -> str:
    """A stranger's text (a file's name, a note) in one line, without anything that a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class _Output(io.TextIOBase):
    """stdout or stderr that can always be written to.

    Control characters are shown instead of obeyed, names that are no text too, and a reader that has gone
    (`... | head -1`) stops no work.
    """

    def __init__(self, stream: Any, obeyed: str):
        self._stream = stream
        if hasattr(stream, "reconfigure"):  # a notebook's or a test's may have no encoding
            stream.reconfigure(errors="backslashreplace")
        # C0 and C1 controls, but those that our own output needs
        codes = [*range(32), *range(127, 160)]
        self._shown = {code: f"\\x{code:02x}" for code in codes if chr(code) not in obeyed}

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text.translate(self._shown)))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except BrokenPipeError:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:  # encoding, fileno, isatty, buffer
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self._stream.encoding or "utf-8")  # a StringIO has none


def _guard_output() -> None:
    """Make stdout and stderr writable whatever the caller did to them (`>&-`, `| head`, a locale)."""
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        name = ("stdin", "stdout", "stderr")[number]
        if getattr(sys, name) is None:  # closed: the next file that is opened would be taken for it
            setattr(sys, name, open(os.devnull, mode))
    if not isinstance(sys.stdout, _Output):
        sys.stdout = _Output(sys.stdout, "\n\t\r")
    if not isinstance(sys.stderr, _Output):
        sys.stderr = _Output(sys.stderr, "\n\t\r\x1b")  # progress bars move the cursor


def command(main: Callable[[], None]) -> None:
    """Run `main`; turn a UserError or a failing disk into one sentence on stderr and exit code 2."""
    _guard_output()
    try:
        hush(mute=False)
        main()
        sys.stdout.flush()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        if not group_name():
            print("\nstopped; the same command continues where it was", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        sentence = disk_sentence(error)
        if sentence is None:
            raise
        fail(sentence)


def next_step(*words: object) -> None:
    """End a command with the one to type next, unless a script does that itself (it sets DEEPCLUSTER_GOES_ON)."""
    if "DEEPCLUSTER_GOES_ON" in os.environ:
        return
    print(f"Next: {shlex.join(map(str, words))}")


def nearest(word: str, words: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """The likest of `words` as the end of a sentence (": did you mean ...?"); nothing where none is like it.

    A word of which `word` is the beginning is meant, if there is no other. Of those that begin otherwise only a very
    near one is: --results is no mistyped --preset.
    """
    typed, names = word.lower(), [name for name in words if name]
    lower = {name.lower(): name for name in reversed(names)}
    longer = [name for name in lower if len(typed) > 1 and name.startswith(typed)]
    near = [
        name
        for name in difflib.get_close_matches(typed, lower, 3, NEAR)
        if name[0] == typed[:1] or difflib.SequenceMatcher(None, name, typed).ratio() >= VERY_NEAR
    ]
    found = longer if len(longer) == 1 else near
    return f": did you mean {shown(lower[found[0]])}?" if found else ""


def duration(seconds: float) -> str:
    """For a person: 40 seconds, 4 minutes, 3.5 hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def megabytes(count: float) -> str:
    """For a person: 300 kB, 3 MB, 1.2 GB."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{round(count / 1e6)} MB" if count >= 1e6 else f"{-(-int(count) // 1000)} kB"


def fail(sentence: str) -> NoReturn:
    if group_name():
        time.sleep(GRACE)
    print(f"{group_name() + ': ' if group_name() else ''}error: {plain(sentence)}", file=sys.stderr)
    sys.exit(2)


def disk_sentence(error: OSError) -> str | None:
    """The sentence for the ways in which a disk refuses us; None for an error that is ours."""
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes | os.PathLike) else "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left while writing {where}: free some space and run the same command again, it continues"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for {where}: choose another place or change its permissions"
    if error.errno in (errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT):
        return f"{where} does not answer: mount the drive again and run the same command, it continues"
    if error.errno == errno.EEXIST:
        return f"{where}: a file or a broken link is in the way: move it, or choose another name"
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return f"{where}: {os.strerror(error.errno).lower()}: choose another name"
    return None


def bar_settings() -> dict[str, Any]:
    """How our tqdm bars look: often redrawn in a terminal, seldom in a log."""
    return {"mininterval": 0.5 if sys.stderr.isatty() else 10, "dynamic_ncols": True, "disable": bool(group_name())}


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "images") -> Iterator[Item]:
    """Iterate with a progress bar on stderr that shows count, rate and time left; silent for short work."""
    return iter(tqdm(items, desc=plain(what), total=total, unit=f" {unit}", delay=1, leave=False, **bar_settings()))
