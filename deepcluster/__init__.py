"""Images without labels -> clusters, and the network that learnt them. From Python: `cluster`, `open_run`."""

from typing import TYPE_CHECKING, Any

import machine  # noqa: F401  before torch

if TYPE_CHECKING:
    from pathlib import Path

    from deepcluster.trained import TrainedRun

__all__ = ["cluster", "open_run"]


def open_run(path: "str | Path") -> "TrainedRun":
    """The run in directory `path`: its tables, features and network.

    Raises:
        UserError: if it is no deepcluster run.
    """
    from deepcluster.trained import TrainedRun

    return TrainedRun(path)


def cluster(data: "str | Path", exp: "str | Path" = "exp", **settings: Any) -> "TrainedRun":
    """Train on `data` (a folder, a zip, "painted" or "mnist") into the run directory `exp`; called again, continue.

    Args:
        data: as DATA of `python -m deepcluster train`.
        exp: run directory.
        settings: its options, such as k=50, epochs=20, sobel=True, size=128.

    Raises:
        UserError: if an option, the data or the directory will not do; in one sentence.
    """
    from deepcluster.__main__ import build_parser
    from deepcluster.launch import train_command

    arguments = ["train", str(data), "--exp", str(exp)]
    for name, value in settings.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            if value or name != "tensorboard":  # the one switch that is off unless named
                arguments.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            arguments += [f"--{option}", str(value)]
    train_command(build_parser().parse_args(arguments))
    return open_run(exp)
