"""Curves and histograms of a training, redrawn as it goes, and again by `python -m deepcluster figures`."""

import argparse
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import runs
from console import UserError
from deepcluster.agreement import read_baselines
from deepcluster.flow import draw_flow
from machine.reading import Damaged, finite_number, read_csv, shown, whole_number
from runs import Run
from runs.figures import KINDS, new_figure, save_figure
from runs.tables import AGREEMENT, HEAD, LOG, LOSS, OBJECTIVE, SIZES

BOUNDED = (HEAD, AGREEMENT)  # plots whose quantities end at 1
PANELS = 4  # plots of curves.png
UNITS = {
    LOSS: "cross-entropy (nats)",
    OBJECTIVE: "squared distance (no unit)",
    SIZES: "images",
    HEAD: "0 to 1",
    AGREEMENT: "1: the same division",
}
WORDS = {  # below the curves, where they are drawn
    HEAD: "NMI, normalised mutual information: 1 if two clusterings are the same. Head: what the network has learnt to "
    "say; 1 if it puts each image into its cluster.",
    AGREEMENT: "AMI and ARI: like NMI, and of pairs of images, corrected for chance: 0 is chance. Purity: images whose "
    "label is their cluster's commonest; it grows with k. Lines: AMI of baselines on the same images.",
}
K_COLUMNS = {"k", "silhouette", "seed_agreement", "objective"}
MOST_BARS = 1000  # clusters that a log may name, be there fewer images
NUMBERED = 120  # clusters whose numbers are written below their sizes; of more, some


def figures_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster figures`."""
    run = runs.open_run(options.run)
    log = run.log()
    if not log:
        raise UserError(f"{run.path}: no finished epoch yet: let the training finish one")
    last = whole_number(log[-1].get("k", ""))
    if last is None or not 0 < last <= max(len(run.ids), MOST_BARS):
        mend = "remove it and run the training again, which writes it"
        raise Damaged(run.path / "log.csv", f"k of the last epoch is {shown(log[-1].get('k'))}", mend)
    with run.hold():
        (run.path / "figures").mkdir(exist_ok=True)
        kinds = tuple(dict.fromkeys(("png", *options.figure)))
        draw(run, log, kinds)
        draw_flow(run, kinds)
        names = ["curves", "sizes", "flow"]
        if (run.path / "k.csv").exists():
            draw_k(run, _read_k(run), int(run.meta.config["k"]), kinds)
            names.append("k")
    print(f"{run.path / 'figures'}: {', '.join(names)}, each as {', '.join(kinds)}")


def _read_k(run: Run) -> list[dict[str, float]]:
    path = run.path / "k.csv"
    rows = []
    for line, row in enumerate(read_csv(path), 2):
        numbers = {name: finite_number(text) for name, text in row.items()}
        if None in numbers.values() or not K_COLUMNS <= numbers.keys():
            raise Damaged(path, f"line {line}: not all are numbers", "restore a copy, or remove it")
        rows.append({name: float(value) for name, value in numbers.items() if value is not None})
    return rows


def draw(run: Run, log: Sequence[Mapping[str, Any]], kinds: Sequence[str] = ("png",)) -> None:
    """figures/curves and figures/sizes of the epochs so far.

    Args:
        run: where they go.
        log: its rows of log.csv.
        kinds: of files, of KINDS.
    """
    assert set(kinds) <= KINDS.keys()
    figure = curves(run, log)
    for kind in kinds:
        save_figure(run, f"curves.{kind}", figure)
    draw_sizes(run, int(log[-1]["epoch"]), int(log[-1]["k"]), kinds)


def curves(run: Run, log: Sequence[Mapping[str, Any]]) -> Figure:
    """The columns of the log that have a panel, over the epochs."""
    from deepcluster.baselines import BASELINES

    epochs = [int(row["epoch"]) for row in log]
    panels: dict[str, list[Any]] = {}
    colours: dict[str, Any] = {}  # of the curves
    for column in LOG:
        if column.panel is not None and column.name in log[-1]:
            panels.setdefault(column.panel, []).append(column)
    if len(panels) > PANELS:  # with labels their agreement says more than the sizes, which have a picture of their own
        panels.pop(SIZES)
    figure = new_figure(10, 8)
    baselines = read_baselines(run) or {}
    for axis, (title, columns) in zip(figure.subplots(2, 2).flat, panels.items(), strict=False):
        for column in columns:
            values = [_value(row, column.name) for row in log]
            (curve,) = axis.plot(epochs, values, marker="." if len(epochs) < 60 else "", label=column.meaning)
            colours[column.name] = curve.get_color()
        if title == AGREEMENT:
            for name, measured in baselines.items():
                if name in BASELINES:
                    known = BASELINES[name]
                    style = {"color": colours.get("ami"), "linestyle": known.line, "linewidth": 1}
                    axis.axhline(measured["ami"], label=f"AMI: {known.name}", **style)
        axis.set(title=title, xlabel="epoch", ylabel=UNITS.get(title, ""))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if title == SIZES:
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(  # below the plot, so that it lies on no curve
            fontsize=7.5, frameon=False, ncols=2 if len(axis.lines) > 3 else 1, columnspacing=1, handlelength=2.5,
            loc="upper left", bbox_to_anchor=(-0.02, -0.17), borderaxespad=0,
        )  # fmt: skip
        if title in BOUNDED:
            axis.set_ylim(min(0.0, axis.dataLim.y0), 1)
    figure.suptitle(_title(run, f"{len(epochs)} epochs, " if len(epochs) > 1 else ""), fontsize=11)
    said = [WORDS[title] for title in panels if title in WORDS]
    figure.supxlabel(fill(" ".join(said), 150, break_on_hyphens=False), fontsize=8, x=0.01, ha="left", color="0.3")
    return figure


def _value(row: Mapping[str, Any], name: str) -> float:
    return float(row[name]) if row.get(name) not in (None, "") else float("nan")


def _title(run: Run, epochs: str = "") -> str:
    """Whose figure it is."""
    meta = run.meta
    return f"{run.path.resolve().name}: {epochs}{meta.dataset.images:,} images of {meta.dataset.name}, seed {meta.seed}"


def draw_sizes(run: Run, epoch: int, k: int, kinds: Sequence[str] = ("png",)) -> None:
    """figures/sizes: images in each of an epoch's k clusters, the largest first, each with its number."""
    counts = np.bincount(run.clusters(epoch).assignment, minlength=k)
    order = np.argsort(-counts, kind="stable")
    figure = new_figure(min(14, max(6, 2 + 0.14 * k)), 3.8)
    axis = figure.subplots()
    axis.bar(range(k), counts[order], width=0.85)
    axis.axhline(
        counts.sum() / k, color="black", linewidth=0.8, linestyle="--", label=f"equal sizes: {counts.sum() / k:.1f}"
    )
    empty = int((counts == 0).sum())
    axis.set(
        title=f"{_title(run)}\nSizes of the {k} clusters of epoch {epoch}" + (f", {empty} of them empty" * bool(empty)),
        xlabel="number of the cluster, largest first",
        ylabel="images",
        xlim=(-0.8, k - 0.2),
    )
    axis.title.set_fontsize(10)
    step = -(-k // NUMBERED)
    axis.set_xticks(range(0, k, step), [str(number) for number in order[::step]], rotation=90, fontsize=7)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)
    for kind in kinds:
        save_figure(run, f"sizes.{kind}", figure)


def draw_k(run: Run, rows: Sequence[Mapping[str, float]], recommended: int, kinds: Sequence[str] = ("png",)) -> None:
    """figures/k: silhouette and agreement of two seeds over k, and the elbow of the sum of squares."""
    figure = new_figure(11, 4.4)
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
    figure.suptitle(_title(run), fontsize=10)
    said = (
        "Silhouette: how much nearer images lie to their own cluster than to the next; higher is better. AMI between "
        "two seeds: whether k-means finds the same clusters from another start; 0 is chance, 1 the same."
    )
    figure.supxlabel(fill(said, 165, break_on_hyphens=False), fontsize=8, x=0.01, ha="left", color="0.3")
    for kind in kinds:
        save_figure(run, f"k.{kind}", figure)
