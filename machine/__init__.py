"""The machine a run is made on: device, threads, memory allocator, and chance that comes from the seed alone."""

import ctypes
import os
from contextlib import AbstractContextManager

import numpy as np
import torch

from console import UserError


def prepare(name: str, threads: int | None = None) -> torch.device:
    """Choose the device ("auto", "cpu", "cuda", "cuda:1") and make this process fit to train on it.

    The same seed gives the same bits at the same number of threads; None takes what torch chose.
    Raises: UserError if the device is not there.
    """
    _keep_memory()
    count = threads or torch.get_num_threads()
    torch.set_num_threads(count)
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


def autocast(device: torch.device) -> AbstractContextManager:
    """bf16 on CUDA, where it pays; float32 on the CPU, where bf16 was seen 8 to 28 times slower."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")


def stream(seed: int, epoch: int, purpose: str) -> int:
    """The seed of one use of chance in one epoch.

    Every random number derives from (seed, epoch, purpose), so there is no generator state to save or to forget.
    """
    words = [seed, epoch, *purpose.encode()]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint32)[0] >> 1)


def _keep_memory() -> None:
    """Tell glibc to keep freed tensors' memory: giving it back costs 300,000 page faults a training step."""
    libc = ctypes.CDLL(None)
    if os.name == "posix" and hasattr(libc, "mallopt"):
        trim_threshold, mmap_threshold, top_pad = -1, -3, -2
        libc.mallopt(mmap_threshold, 2**31 - 1)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 64 << 20)
