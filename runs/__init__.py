"""The run directory: what training leaves behind and everything later reads. Layout in docs/design.md."""

import machine  # noqa: F401  before torch
from runs.directory import Clusters, Run, begin, find_begun, open_run, refuse_differences
from runs.meta import Meta, Source, View, make_stamp

__all__ = [
    "Clusters",
    "Meta",
    "Run",
    "Source",
    "View",
    "begin",
    "find_begun",
    "make_stamp",
    "open_run",
    "refuse_differences",
]
