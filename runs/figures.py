"""Figures that are drawn without a display, and put into a run."""

from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from runs.directory import Run

DPI = 110
# Kinds of files, and what each is told to leave out, so that the same figure is the same bytes.
KINDS: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(run: Run, name: str, figure: Figure) -> None:
    """Put the figure into the run's figures/, as the kind that its name ends with."""
    kind = name.rsplit(".", 1)[-1]
    with matplotlib.rc_context({"svg.hashsalt": "deepcluster", "pdf.fonttype": 42}):
        run.write_figure(name, lambda file: figure.savefig(file, format=kind, dpi=DPI, metadata=KINDS[kind]))
