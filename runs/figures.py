"""Figures that are drawn without a display, and put into a run."""

import io
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from runs.directory import Run

DPI = 110
# Kinds of files, and what each is told to leave out, so that the same figure is the same bytes.
KINDS: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


class _AsWritten(Figure):
    """A figure in which words are words: names of folders are no formulas, whatever dollars are in them."""

    def savefig(self, *arguments: Any, **keywords: Any) -> None:
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().savefig(*arguments, **keywords)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    figure = _AsWritten(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def encode_figure(figure: Figure, kind: str) -> bytes:
    """The bytes of a file of a kind of KINDS: the same for the same figure."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "deepcluster", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=KINDS[kind])
    return buffer.getvalue()


def save_figure(run: Run, name: str, figure: Figure) -> None:
    """Put the figure into the run's figures/, as the kind that its name ends with."""
    run.write_figure(name, encode_figure(figure, name.rsplit(".", 1)[-1]))
