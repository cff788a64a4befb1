"""The run directory: what training leaves behind and everything later reads. Layout in docs/design.md."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import machine  # noqa: F401  before torch

if TYPE_CHECKING:
    from runs.directory import Clusters, Run, begin, find_begun, hold, open_run, refuse_differences
    from runs.meta import Meta, Source, View, make_stamp

__all__ = [
    "Clusters",
    "Meta",
    "Run",
    "Source",
    "View",
    "begin",
    "find_begun",
    "hold",
    "make_stamp",
    "open_run",
    "refuse_differences",
]


def __getattr__(name: str) -> Any:
    """The names above, from where they are: `--help` imports none of it, and Ctrl-C before is one line."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "runs.meta" if name in ("Meta", "Source", "View", "make_stamp") else "runs.directory"
    return getattr(import_module(home), name)
