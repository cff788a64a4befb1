"""Curves and histograms of a training, redrawn as it goes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from deepcluster.agreement import read_baselines
from runs import Run
from runs.figures import new_figure, save_figure
from runs.tables import AGREEMENT, HEAD, LOG, SIZES

BOUNDED = (HEAD, AGREEMENT)  # plots whose quantities end at 1
PANELS = 4  # plots of curves.png


def draw(run: Run, log: Sequence[Mapping[str, Any]]) -> None:
    """figures/curves.png and figures/sizes.png of the epochs so far."""
    from deepcluster.baselines import BASELINES

    epochs = [row["epoch"] for row in log]
    panels: dict[str, list[Any]] = {}
    colours: dict[str, Any] = {}  # of the curves
    for column in LOG:
        if column.panel is not None and column.name in log[-1]:
            panels.setdefault(column.panel, []).append(column)
    if len(panels) > PANELS:  # with labels their agreement says more than the sizes, which have a picture of their own
        panels.pop(SIZES)
    figure = new_figure(10, 6.5)
    baselines = read_baselines(run) or {}
    for axis, (title, columns) in zip(figure.subplots(2, 2).flat, panels.items(), strict=False):
        for column in columns:
            values = [float(row.get(column.name, "nan")) for row in log]
            (curve,) = axis.plot(epochs, values, marker=".", label=column.meaning)
            colours[column.name] = curve.get_color()
        if title == AGREEMENT:
            for name, measured in baselines.items():
                if name in BASELINES:
                    known = BASELINES[name]
                    style = {"color": colours.get("ami"), "linestyle": known.line, "linewidth": 1}
                    axis.axhline(measured["ami"], label=f"AMI: {known.name}", **style)
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, framealpha=0.85, edgecolor="none", ncols=2 if len(columns) == 3 else 1, loc="best")
        if title in BOUNDED:
            axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1.3)  # the legend stands above 1
    save_figure(run, "curves.png", figure)
    draw_sizes(run, epochs[-1], int(log[-1]["k"]))


def draw_sizes(run: Run, epoch: int, k: int) -> None:
    """figures/sizes.png: images in each of an epoch's k clusters, the largest first."""
    sizes = np.sort(np.bincount(run.clusters(epoch).assignment, minlength=k))[::-1]
    figure = new_figure(8, 3.6)
    axis = figure.subplots()
    axis.bar(range(1, k + 1), sizes, width=0.85)
    axis.axhline(sizes.sum() / k, color="black", linewidth=0.8, linestyle="--", label="equal sizes")
    axis.set(title=f"Cluster sizes, epoch {epoch}", xlabel="clusters, largest first", ylabel="images")
    axis.legend(frameon=False)
    save_figure(run, "sizes.png", figure)


def draw_k(run: Run, rows: Sequence[Mapping[str, float]], recommended: int) -> None:
    """figures/k.png: silhouette and agreement of two seeds over k, and the elbow of the sum of squares."""
    figure = new_figure(11, 4)
    ks = [row["k"] for row in rows]
    scores, elbow = figure.subplots(1, 2)
    scores.plot(ks, [row["silhouette"] for row in rows], marker="o", label="silhouette")
    scores.plot(ks, [row["seed_agreement"] for row in rows], marker="s", label="AMI between two seeds")
    scores.set(title="How many clusters", ylabel="score, at most 1")
    elbow.plot(ks, [row["objective"] for row in rows], marker="o", label="k-means")
    elbow.set(title="Elbow", ylabel="sum of squared distances to the centroids")
    for axis in (scores, elbow):
        axis.axvline(recommended, color="black", linestyle="--", linewidth=0.8, label=f"recommended: {recommended}")
        axis.set(xlabel="number of clusters k", xscale="log")
        axis.set_xticks(ks, [str(int(k)) for k in ks], rotation=45)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    save_figure(run, "k.png", figure)
