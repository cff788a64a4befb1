"""Device, threads and memory allocator."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from console import UserError


def use_device(name: str, threads: int | None = None) -> torch.device:
    """Choose the device ("auto", "cpu", "cuda", "cuda:1") and make this process fit to train on it.

    The same seed gives the same bits at the same number of threads; None takes what torch chose.

    Raises:
        UserError: if the device is not there.
    """
    _keep_memory()
    torch.set_num_threads(threads or torch.get_num_threads())
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"--device {name}: unknown: use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: not supported: use auto, cpu or cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise UserError(f"--device {name}: there is no such GPU here: use auto or cpu")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return device


def autocast(device: torch.device, wanted: bool = True) -> AbstractContextManager:
    """bf16 on CUDA if `wanted`; float32 on the CPU, where bf16 was seen 8 to 28 times slower."""
    if device.type != "cuda" or not wanted:
        return nullcontext()
    return torch.autocast("cuda", torch.bfloat16)


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 that is float32: no autocast, and no TF32 in the products of a GPU."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def synchronise(device: torch.device) -> None:
    """Wait until `device` has done what it was given; the CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values`, which are on the CPU, on `device`.

    A plain copy waits until a GPU has done all that it was given; one from pinned memory does not, and torch keeps that
    memory until the copy is done.
    """
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def device_name(device: torch.device) -> str:
    """For a person, and for run.json."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def device_in_words(device: torch.device) -> str:
    """After "on": what is computed on, and with how many threads where that matters."""
    if device.type == "cuda":
        return f"the GPU ({device_name(device)})"
    threads = torch.get_num_threads()
    return f"the CPU, {threads} thread{'s' * (threads > 1)}"


def _keep_memory() -> None:
    """Tell glibc to keep freed tensors' memory: giving it back costs 300,000 page faults a training step."""
    libc = ctypes.CDLL(None)
    if os.name == "posix" and hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold, top_pad = -1, -3, -2
        libc.mallopt(mmap_threshold, 2**31 - 1)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 64 << 20)
