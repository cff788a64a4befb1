"""What every command shares: one sentence and exit code 2 for bad input, and progress with the time left."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


class UserError(Exception):
    """Something only the user can mend. The message is one sentence: what is wrong, where, and what to do."""


def command(main: Callable[[], None]) -> None:
    """Run `main`; turn a UserError or a failing disk into one sentence on stderr and exit code 2."""
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("\nstopped; the same command continues where it was", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sentence = disk_sentence(error)
        if sentence is None:
            raise
        fail(sentence)


class Parser(argparse.ArgumentParser):
    """argparse, whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (`{self.prog} --help` explains the options)")


def fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


def disk_sentence(error: OSError) -> str | None:
    """The sentence for the ways in which a disk refuses us; None for an error that is ours."""
    where = error.filename if error.filename is not None else "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left while writing {where}: free some space and run the same command again, it continues"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for {where}: choose another place or change its permissions"
    if error.errno in (errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT):
        return f"{where} does not answer: mount the drive again and run the same command, it continues"
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
        return f"{where}: {os.strerror(error.errno).lower()}: choose another name"
    return None


def bar_settings() -> dict[str, Any]:
    """How our tqdm bars look: often redrawn in a terminal, seldom in a log."""
    return {"mininterval": 0.5 if sys.stderr.isatty() else 10, "dynamic_ncols": True}


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "images") -> Iterator[Item]:
    """Iterate with a progress bar on stderr that shows count, rate and time left; silent for short work."""
    return iter(tqdm(items, desc=what, total=total, unit=f" {unit}", delay=1, leave=False, **bar_settings()))
