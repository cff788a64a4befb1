"""One function for each of many things, in processes: most of looking for coins holds Python's lock."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import chdir
from time import perf_counter
from typing import TypeVar

import cv2

from console import UserError

HERE = 3.0  # seconds of work that are done in this process; for more, others are started, which takes two

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

    Raises:
        UserError: if one of them was killed.
    """
    things, took = iter(things), list[float]()
    # the quickest tells: the first has libraries to load, and any may have had to wait
    while len(took) < count and (min(took) if len(took) > 2 else 0) * (count - len(took)) < HERE:
        begun = perf_counter()
        found = function(next(things))
        took.append(perf_counter() - begun)
        yield found
    if len(took) == count:
        return
    from joblib import Parallel, delayed  # its processes also start from notebooks and from unguarded scripts

    pool = Parallel(n_jobs=workers or -1, return_as="generator", batch_size=8)
    here = os.getcwd()
    try:
        yield from pool(delayed(_on_one_thread)(function, thing, here) for thing in things)
    except BrokenProcessPool:
        raise UserError(
            "a process that worked on the images was killed, perhaps since memory ran out: close other programs, or "
            "ask for fewer of them where there is --workers, and give the same command again"
        ) from None


def _on_one_thread(function: Callable[[Given], Found], thing: Given, here: str) -> Found:
    """In a process that joblib may have kept from another call, so perhaps of another working directory."""
    cv2.setNumThreads(1)
    with chdir(here):
        return function(thing)
