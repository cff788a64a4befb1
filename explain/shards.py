"""One epoch drawn or audited by several calls, each its shard: by hand (`--shard 3/8`) or as torchrun starts them.

They need not know of each other: what each has drawn lies in results/, in pieces of its own. Shards share the lock that
any other writer takes for itself alone; who gets it for itself when it is done was the last, and makes the gallery.
(What an audit measures takes another time each: there a shard also takes what none of the others has begun.)
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from console import UserError
from console.group import started
from machine.files import Held, locked, waiting_for

BUSY = "another explain is writing here: wait for it or choose --results"


@dataclass(frozen=True)
class Shard:
    """One of `count` shards, numbered from 1."""

    number: int
    count: int

    @property
    def name(self) -> str:
        """Of its folder of pieces."""
        return f"{self.number}-of-{self.count}"

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Which of `rows` are this shard's: every so manieth, so that all have images of every cluster."""
        return rows[self.number - 1 :: self.count]


def shard_of(asked: tuple[int, int] | None) -> Shard | None:
    """The shard that `--shard` or torchrun asks for; None: everything.

    Raises:
        UserError: if both do.
    """
    number, count = started()
    if count == 1:
        return None if asked is None else Shard(*asked)
    if asked is not None:
        raise UserError("--shard: torchrun shares the images already: leave one of the two out")
    return Shard(number + 1, count)


@contextmanager
def drawing(results: Path, pieces: Path, shard: Shard) -> Iterator[None]:
    """Draw a shard, while others draw theirs; `pieces` is the epoch's folder of them.

    Raises:
        UserError: if another kind of writer is in `results`, or somebody draws this shard, or shards of another count.
    """
    with ExitStack() as held:
        with starting(results):
            held.enter_context(locked(results, BUSY, shared=True))
            for other in sorted(pieces.glob("*-of-*")):
                if other.is_dir() and not other.name.endswith(f"-of-{shard.count}"):
                    with locked(other, f"another explain draws this shard, not one of {shard.count}: wait for it"):
                        pass  # nobody does
            own = pieces / shard.name
            own.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(own, "another explain draws this shard: wait for it"))
        yield


@contextmanager
def starting(results: Path) -> Iterator[None]:
    """One shard at a time: the first writes what all share (results.json, scores), the others then find it.

    A shard that begins while the last one of others makes the gallery waits for it here.
    """
    with waiting_for(results / ".begin.lock"):
        yield


@contextmanager
def last(results: Path) -> Iterator[bool]:
    """Whether no other shard is at work; if so, nobody else writes in `results` meanwhile."""
    with starting(results), ExitStack() as held:
        try:
            held.enter_context(locked(results, BUSY))
            alone = True
        except Held:
            alone = False
        yield alone
