"""Curves and histograms of a training, redrawn as it goes."""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from runs import Run


def draw(run: Run, log: list[dict[str, Any]], labelled: bool) -> None:
    """figures/curves.png and figures/sizes.png of the epochs so far."""
    epochs = [row["epoch"] for row in log]
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    panels = [
        (axes[0, 0], "Training loss", ["loss", "late_loss"], ["mean", "last quarter"]),
        (
            axes[0, 1],
            "Stability and the head's share",
            ["stability", "head_share"],
            ["NMI to the epoch before", "head agrees"],
        ),
        (axes[1, 0], "k-means objective", ["objective"], ["sum of squared distances"]),
    ]
    if labelled:
        panels.append((axes[1, 1], "Agreement with the labels", ["ami", "ari", "purity"], ["AMI", "ARI", "purity"]))
    else:
        panels.append(
            (axes[1, 1], "Cluster sizes", ["smallest", "median", "largest"], ["smallest", "median", "largest"])
        )
    baselines = run.json("baselines.json")
    for axis, title, columns, names in panels:
        for column, name in zip(columns, names, strict=True):
            values = [float("nan") if row[column] in (None, "") else float(row[column]) for row in log]
            axis.plot(epochs, values, marker=".", label=name)
        if "ami" in columns and baselines is not None:
            for name, style in (("pixels", ":"), ("untrained", "--")):
                label = f"AMI of k-means on {'the pixels' if name == 'pixels' else 'the untrained network'}"
                axis.axhline(baselines[name]["ami"], color="tab:blue", linestyle=style, linewidth=1, label=label)
        axis.set_title(title)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, framealpha=0.85, edgecolor="none", ncols=2 if len(columns) == 3 else 1, loc="best")
        if title.startswith(("Stability", "Agreement")):
            axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1.3)  # the legend stands above 1
    run.write_figure("curves.png", lambda file: figure.savefig(file, format="png", dpi=110))

    k = int(log[-1]["k"])
    sizes = np.sort(np.bincount(run.clusters(int(log[-1]["epoch"])).assignment, minlength=k))[::-1]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.bar(range(1, k + 1), sizes, width=0.85)
    axis.axhline(sizes.sum() / k, color="black", linewidth=0.8, linestyle="--", label="equal sizes")
    axis.set(title=f"Cluster sizes, epoch {epochs[-1]}", xlabel="clusters, largest first", ylabel="images")
    axis.legend(frameon=False)
    run.write_figure("sizes.png", lambda file: figure.savefig(file, format="png", dpi=110))


def draw_k(run: Run, rows: list[dict[str, float]], recommended: int) -> None:
    """figures/k.png: silhouette and stability over k."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    ks = [row["k"] for row in rows]
    axis.plot(ks, [row["silhouette"] for row in rows], marker="o", label="silhouette")
    axis.plot(ks, [row["stability"] for row in rows], marker="s", label="stability (AMI between two seeds)")
    axis.axvline(recommended, color="black", linestyle="--", linewidth=0.8, label=f"recommended: {recommended}")
    axis.set(title="How many clusters", xlabel="k", xscale="log")
    axis.set_xticks(ks, [str(int(k)) for k in ks])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    run.write_figure("k.png", lambda file: figure.savefig(file, format="png", dpi=110))
