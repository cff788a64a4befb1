"""Checkpoints: tensors and plain containers in a file of torch's. The one reader of them, and the writer.

Nothing that is read can run code: torch.load(weights_only=True). Torch is imported with the first that is read or
written: who looks at tables alone need not wait for it.
"""

import errno
import os
import warnings
from pathlib import Path
from typing import Any

from console import disk_sentence
from machine.files import write_atomic
from machine.reading import Damaged, Special, open_regular, shown

MEND = "restore a copy; a run goes on from what is left without it"


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    import torch

    def write(file: Any) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer hides the disk's own error
            free = os.statvfs(path.parent)
            if free.f_bavail * free.f_frsize < 1 << 20:
                raise OSError(errno.ENOSPC, "no space left", str(path)) from None
            raise error

    write_atomic(path, write)


def load_tensors(path: Path, mend: str = MEND) -> dict[Any, Any]:
    """Read a checkpoint: a dict.

    Raises:
        Damaged: if the file is damaged, or holds more than tensors and plain containers.
        FileNotFoundError: if it is not there.
    """
    import torch

    try:
        with open_regular(path), warnings.catch_warnings():  # no pipe and no device
            warnings.simplefilter("ignore")  # about a damaged file; what is wrong we say ourselves
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Special as error:
        raise Damaged(path, error, mend) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError) or disk_sentence(error) is not None:
            raise
        raise Damaged(path, error.strerror, mend) from None  # torch seeks to where a cut file has nothing
    except Exception as error:  # damaged bytes make torch's readers raise nearly anything
        reason = shown(str(error).split("\n")[0][:120] or type(error).__name__)[1:-1]
        raise Damaged(path, f"or not a checkpoint: {reason}", mend) from None
    if not isinstance(content, dict):
        raise Damaged(path, "or not a checkpoint: no table in it", mend)
    return content


def read_weights(path: Path, mend: str = MEND) -> dict[str, Any]:
    """A kept checkpoint of a run: {"epoch": number, "model": arguments, "state": name -> tensor}.

    Raises:
        Damaged: if it is none.
        FileNotFoundError: if it is not there.
    """
    content = load_tensors(path, mend)
    epoch, model, state = (content.get(name) for name in ("epoch", "model", "state"))
    if type(epoch) is not int or not isinstance(model, dict) or not isinstance(state, dict) or not is_state(state):
        raise Damaged(path, "or not a checkpoint: it lacks epoch, model or state", mend)
    if any(value.is_floating_point() and not value.isfinite().all() for value in state.values()):
        raise Damaged(path, "its weights are not finite", mend)
    return content


def is_state(value: Any) -> bool:
    """Whether this is a state_dict: name -> dense tensor."""
    import torch

    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(one, torch.Tensor) and one.layout == torch.strided and not one.is_quantized
        for name, one in value.items()
    )


def check_progress(saved: dict[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """The last finished epoch and the log's rows up to it, that a latest.pt holds.

    Raises:
        ValueError: if they are none.
    """
    epoch, log = saved["epoch"], saved["log"]
    if type(epoch) is not int or not isinstance(log, list):
        raise ValueError("epoch or log is of another kind")
    for row in log:
        if not isinstance(row, dict) or not all(
            isinstance(name, str) and isinstance(cell, int | float | None) for name, cell in row.items()
        ):
            raise ValueError("a row of the log is no row")
    if not log or [row.get("epoch") for row in log] != list(range(1, epoch + 1)):
        raise ValueError(f"its log does not tell of epochs 1 to {epoch}")
    return epoch, log
