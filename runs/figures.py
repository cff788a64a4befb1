"""Figures that are drawn without a display, and put into a run."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from runs.directory import Run

DPI = 110


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(run: Run, name: str, figure: Figure) -> None:
    """Put the figure into the run's figures/."""
    run.write_figure(name, lambda file: figure.savefig(file, format="png", dpi=DPI))
