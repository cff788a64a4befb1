"""Of several processes that torchrun starts only the first speaks: all that need not torch to know this."""

import os
import sys

from console.errors import UserError

MOST_PROCESSES = 4096  # of one group
_name = ""  # of a process whose group has another one to speak for it


def started() -> tuple[int, int]:
    """Which process of how many this is, counted from 0, by torchrun's RANK and WORLD_SIZE; by hand (0, 1).

    Raises:
        UserError: if the two make no sense.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return 0, 1
    number, count = os.environ["RANK"], os.environ["WORLD_SIZE"]
    if not (number.isdecimal() and count.isdecimal() and 0 <= int(number) < int(count) <= MOST_PROCESSES):
        raise UserError(f"RANK={number} of WORLD_SIZE={count}: not one of a group: start it by torchrun, or unset both")
    return int(number), int(count)


def refuse_many(command: str) -> None:
    """Refuse to run a command in several processes that would all do the same and write the same files.

    Raises:
        UserError: if torchrun started several.
    """
    if started()[1] > 1:
        raise UserError(f"{command}: the work of one process: call it without torchrun")


def hush(mute: bool = True) -> None:
    """Leave speaking to the first process, if this is another one: no bars, errors late and with a name, no output.

    Args:
        mute: False leaves the output, of a process that has yet to join the others, or never does.
    """
    global _name
    number, count = started()
    if number == 0:
        return
    _name = f"process {number + 1} of {count}"
    if mute:
        sys.stdout = open(os.devnull, "w")


def group_name() -> str:
    """What this process is called where another one speaks for its group, after `hush`; else nothing."""
    return _name
