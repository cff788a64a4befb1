"""index.html of a sheet: the experiments beside each other, which find the same, and which to take."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from console.pages import templates_in
from machine.files import write_atomic
from runs.figures import DPI, new_figure
from runs.sheet.compare import Comparison
from runs.sheet.plan import Sheet
from runs.sheet.work import RESULTS

TEMPLATES = Path(__file__).parent.parent / "templates"
STRIP = "_typical.jpg"  # of a cluster's folder: its most typical images in a row
COLUMNS = (  # of the table: figure, its head, how it is written, what it means
    ("ami", "AMI", "{:.3f}", "with the labels, where these are known; 0 is chance"),
    ("settled", "settled", "{:.2f}", "AMI with the epoch before; 1: nothing moves any more"),
    ("head_agreement", "head agrees", "{:.2f}", "share of images whose cluster is the network's own answer"),
    (
        "silhouette",
        "silhouette",
        "{:.3f}",
        "how far clusters lie apart, each in its own network",
    ),
    ("with the others", "with the others", "{:.2f}", "mean AMI with the clusters of the other experiments"),
    ("smallest", "smallest", "{:.0f}", "images of the smallest cluster"),
    ("median", "median", "{:.0f}", "images of the median cluster"),
    ("largest", "largest", "{:.0f}", "images of the largest cluster"),
    ("empty", "empty", "{:.0f}", "clusters without an image"),
    ("empty maps", "empty maps", "{:.0%}", "share of Grad-CAMs that are zero everywhere"),
    ("seconds", "seconds", "{:.0f}", "of training"),
)


def write_page(sheet: Sheet, comparison: Comparison, failed: dict[str, str], folder: Path) -> None:
    """The page and its pictures."""
    outcomes = comparison.outcomes
    varied = varied_settings([one.experiment.settings | {"data": one.experiment.data} for one in outcomes])
    rows = []
    for at, one in enumerate(outcomes):
        settings = one.experiment.settings | {"data": one.experiment.data}
        rows.append(
            {
                "name": one.experiment.name,
                "link": f"{one.experiment.name}/{RESULTS}/index.html",
                "settings": [settings.get(name, "default") for name in varied],
                "cells": [
                    form.format(one.figures[name]) if name in one.figures else "" for name, _, form, _ in COLUMNS
                ],
                "baseline": "" if one.baseline is None else f"{one.baseline[0]} {one.baseline[1]:.2f}",
                "best": at == comparison.best,
            }
        )
    pictures = [("pairs.png", "AMI between the clusters of every two experiments", draw_pairs(comparison))]
    if len({one.experiment.settings.get("k") for one in outcomes}) > 1:
        pictures.append(("over_k.png", "Over the number of clusters", draw_over_k(comparison)))
    html = templates_in(TEMPLATES).get_template("sheet.html").render(
        sheet=sheet,
        head=COLUMNS,
        varied=varied,
        rows=rows,
        best=comparison.names[comparison.best],
        reasons=comparison.reasons,
        labelled=any("ami" in one.figures for one in outcomes),
        failed=failed,
        pictures=[_embed(figure, folder, name, caption) for name, caption, figure in pictures],
        matched=comparison.matched,
        strip=lambda name, cluster: _strip(comparison, name, cluster),
        audits=[(one.experiment.name, one.epoch, one.audit) for one in outcomes if one.audit],
        results=RESULTS,
    )  # fmt: skip
    write_atomic(folder / "index.html", html.encode("utf-8", "replace"), durable=False)


def tell(comparison: Comparison) -> None:
    """The recommendation on the console."""
    print(f"{comparison.names[comparison.best]} is recommended:")
    for reason in comparison.reasons:
        print(f"  {reason}")


def varied_settings(settings: Sequence[dict[str, Any]]) -> list[str]:
    """The options in which experiments differ, in the order in which they come."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({str(one.get(name)) for one in settings}) > 1] or ["data"]


def draw_pairs(comparison: Comparison) -> Figure:
    """The matrix of AMI between experiments."""
    names, count = comparison.names, len(comparison.names)
    figure = new_figure(2.2 + 0.62 * count, 1.6 + 0.5 * count)
    axis = figure.subplots()
    drawn = axis.imshow(comparison.pairs, vmin=0, vmax=1, cmap="inferno")
    for i, row in enumerate(comparison.pairs):
        for j, value in enumerate(row):
            if np.isfinite(value):
                colour = "black" if value > 0.6 else "white"
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    axis.set_xticks(range(count), names, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(count), names, fontsize=8)
    figure.colorbar(drawn, ax=axis, label="AMI", shrink=0.8)
    return figure


def draw_over_k(comparison: Comparison) -> Figure:
    """Silhouette, the elbow of the sum of squares and, where known, AMI over k; a point is an experiment."""
    shown = [("silhouette", "silhouette"), ("objective", "sum of squares (elbow)"), ("ami", "AMI with the labels")]
    shown = [pair for pair in shown if any(pair[0] in one.figures for one in comparison.outcomes)]
    figure = new_figure(3.6 * max(1, len(shown)), 3.2)
    axes = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axis, (name, title) in zip(axes, shown, strict=True):
        points = []
        for one in comparison.outcomes:
            if name in one.figures and isinstance(one.experiment.settings.get("k"), int):
                points.append((one.experiment.settings["k"], one.figures[name], one.experiment.name))
        for k, value, text in points:
            axis.plot([k], [value], "o", color="#b5432a")
            axis.annotate(text, (k, value), xytext=(4, 3), textcoords="offset points", fontsize=8)
        axis.set(xlabel="k", title=title)
        axis.margins(0.15)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
    return figure


def _strip(comparison: Comparison, name: str, cluster: int | None) -> str | None:
    """Where a cluster's most typical images are, from the page."""
    if cluster is None:
        return None
    epoch = next(one.epoch for one in comparison.outcomes if one.experiment.name == name)
    return f"{name}/{RESULTS}/{epoch}/{cluster}/{STRIP}"


def _embed(figure: Figure, folder: Path, name: str, caption: str) -> dict[str, str]:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    write_atomic(folder / name, buffer.getvalue(), durable=False)
    return {"name": name, "caption": caption, "data": base64.b64encode(buffer.getvalue()).decode()}
