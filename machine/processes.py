"""The processes that share one command, as torchrun starts them: shares, one that decides and writes, gathering.

One process by hand is a group of one: nothing of torch.distributed runs, and no result is another than without. The
processes of a group trust each other: what one decides reaches the others through pickle.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from console import UserError
from console.group import hush, started

LONGEST_WAIT = timedelta(days=2)  # for the first process, which clusters alone; of one that is gone torchrun tells
SILENCE = 120  # seconds after which a machine that does not even acknowledge is lost
LOST = ("gloo", "NCCL", "Store", "Connection")  # in what torch says of a lost process

Found = TypeVar("Found")


@contextmanager
def joined() -> Iterator[None]:
    """Be one of the processes that torchrun started, until they are done; those that are not the first keep silent.

    Raises:
        UserError: if the others cannot be found, or one of them is lost.
    """
    number, count = started()
    if count == 1:
        yield
        return
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        raise UserError("RANK and WORLD_SIZE are set, but not where the first process is: start it by torchrun")
    hush()
    try:
        _join(number, count)
        notice_silence()
        with _left():
            yield
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise UserError(
            f"another of the {count} processes was lost ({str(error).splitlines()[0][:120]}): what it said itself is "
            "the reason; the same command continues"
        ) from None


def _join(number: int, count: int) -> None:
    """Meet the others: gloo between CPUs, NCCL between GPUs.

    torchrun's store outlives a restart: without a name for each attempt a process reads the dead one's address.
    """
    store, _, _ = next(dist.rendezvous("env://", timeout=LONGEST_WAIT))
    attempt = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}-of-{count}", store)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=LONGEST_WAIT, store=attempt, rank=number, world_size=count)


def notice_silence() -> None:
    """Have the system ask whether the others' machines are still there: of one without power nobody would tell.

    A process that waits for another's answer sends nothing, and so would wait for LONGEST_WAIT; gloo does not ask.
    Where there is no /proc it waits so long.
    """
    options = {"TCP_KEEPIDLE": SILENCE // 2, "TCP_KEEPINTVL": SILENCE // 12, "TCP_KEEPCNT": 6}
    options["TCP_USER_TIMEOUT"] = 1000 * SILENCE
    for link in Path("/proc/self/fd").glob("*"):
        try:
            if not os.readlink(link).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(link.name))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    for option, value in options.items():
                        one.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        except OSError:  # closed by now
            continue


@contextmanager
def _left() -> Iterator[None]:
    """Leave the group however its work ends: gloo's threads abort a process that ends under them (exit code -6).

    NCCL is left only when all is well: it waits for the others, and one that was lost never answers.
    """
    try:
        yield
    except BaseException:
        if dist.get_backend() == "gloo":
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def world_size() -> int:
    """How many processes have joined."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the one that decides and writes."""
    return rank() == 0


def device_here(name: str) -> str:
    """The device of this process by the user's `name`: of several on a machine with GPUs each has its own.

    Raises:
        UserError: if there are fewer GPUs than processes, or all are sent to one.
    """
    if started()[1] == 1 or name == "cpu" or not torch.cuda.is_available():
        return name
    if name not in ("auto", "cuda"):
        raise UserError(f"--device {name}: of several processes each has a GPU of its own: leave it out")
    local, here, gpus = _local(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if here > gpus:
        has = f"{gpus} GPU{'s' * (gpus > 1)}"
        raise UserError(f"{here} processes on a machine with {has}: --nproc-per-node {gpus}, or --device cpu")
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def share(total: int, of: int | None = None) -> slice:
    """Which of `total` rows are this process's (or those of process `of`): runs of equal length, in order."""
    one = rank() if of is None else of
    return slice(total * one // world_size(), total * (one + 1) // world_size())


def decided(act: Callable[[], Found]) -> Found:
    """What `act` gives in the first process, told to all of them; so is a UserError of it. The others do not act."""
    if world_size() == 1:
        return act()
    told: list[tuple[Found | None, str | None]] = [(None, None)]
    if is_first():
        try:
            told = [(act(), None)]
        except UserError as error:
            told = [(None, str(error))]
    dist.broadcast_object_list(told, 0)
    found, refusal = told[0]
    if refusal is not None:
        raise UserError(refusal)
    return found  # type: ignore[return-value]


@contextmanager
def first_here_goes_ahead() -> Iterator[None]:
    """Let one process of each machine go first: the others then find in the machine's cache what it made."""
    if world_size() > 1 and _local() > 0:
        _meet()
    yield
    if world_size() > 1 and _local() == 0:
        _meet()


def gathered(rows: Tensor, total: int) -> Tensor:
    """All `total` rows, in every process, of each process's `share`: (n, ...) -> (total, ...)."""
    if world_size() == 1:
        return rows
    whole = rows.new_empty((total, *rows.shape[1:]))
    whole[share(total)] = rows
    for one in range(world_size()):
        dist.broadcast(whole[share(total, one)], one)
    return whole


def told(values: Tensor) -> Tensor:
    """The first process's values, in every process, in place."""
    if world_size() > 1:
        dist.broadcast(values, 0)
    return values


def stacked(values: Tensor) -> Tensor:
    """The values of every process, in order: (...) -> (processes, ...)."""
    every = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(every, values)
    return torch.stack(every)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, in place."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def _local() -> int:
    """Which process of this machine this is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _meet() -> None:
    """Wait until every process has come here."""
    summed(torch.zeros(1))
