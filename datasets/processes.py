"""One function for each of many things, in processes: most of looking for coins holds Python's lock."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import cv2

HERE = 32  # things that are done in this process; for more, others are started, which takes two seconds

Given = TypeVar("Given")
Found = TypeVar("Found")


def map_processes(
    function: Callable[[Given], Found], things: Iterable[Given], count: int, workers: int | None = None
) -> Iterator[Found]:
    """`function` of each thing, in order, as they become ready.

    Args:
        function: as all it is given and gives, it must go through pickle.
        things: taken as they are needed.
        count: how many there are.
        workers: processes; None: one a core.
    """
    if count <= HERE:
        return map(function, things)
    from joblib import Parallel, delayed  # its processes also start from notebooks and from unguarded scripts

    pool = Parallel(n_jobs=workers or -1, return_as="generator", batch_size=8)
    return pool(delayed(_on_one_thread)(function, thing) for thing in things)


def _on_one_thread(function: Callable[[Given], Found], thing: Given) -> Found:
    cv2.setNumThreads(1)
    return function(thing)
