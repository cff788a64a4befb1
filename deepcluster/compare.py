"""An expert's table beside the clusters: agreement, purity, confusion, doubtful labels, and what merging would gain."""

import argparse
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import dendrogram, fcluster, linkage

from console import UserError
from deepcluster.agreement import agreement, agreement_table
from deepcluster.baselines import BASELINES, measure_baselines
from deepcluster.clustering import centroids
from deepcluster.features import embed, pca_whiten
from deepcluster.trained import TrainedRun, open_images
from deepcluster.views import Frames
from machine.device import use_device
from machine.files import read_csv, write_atomic, write_csv
from runs.figures import DPI, new_figure

LISTED = 10  # lines of a table on the console
PURE = 0.6  # a cluster of which this share has one label may cast doubt on another label in it


@dataclass(frozen=True)
class Comparison:
    """The images that have a type in the expert's table."""

    rows: np.ndarray  # (M,) images of the run
    labels: list[str]  # (M,) their types
    assignment: np.ndarray  # (M,) their clusters
    table: pd.DataFrame  # their rows of clusters.csv


def compare_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster compare`: prints, and writes the same as tables into --out."""
    run = TrainedRun(options.run)
    out: Path = options.out or run.run.path / "compare"
    found = join(run, read_labels(options.labels), options.labels)
    out.mkdir(parents=True, exist_ok=True)
    count, types = len(found.rows), len(set(found.labels))
    print(f"{count} of {len(run.run.ids)} images have a type in {options.labels}; {types} types\n")

    device = use_device(options.device, run.run.meta.stamp.threads)
    dataset = open_images(run.run, options.data, options.workers, options.mnist_dir)
    if dataset.ids != run.run.ids:
        raise UserError(f"{options.data}: not the images of this run: name the folder that it was trained on")
    labelled = replace(dataset.take(found.rows), labels=found.labels)
    say_agreement(found, measure_baselines(labelled, run.config, _clusters_of(found), device), out)
    say_purity(found, out)
    say_confusion(found, out)
    say_doubtful(found, out)
    if len(np.unique(found.assignment)) > 2:
        features = embed(run.network().to(device), Frames(labelled.pixels, device), run.config, "embedding").features
        say_merging(found, pca_whiten(features, run.config.pca, run.config.whiten_power), out)
    print(f"\nTables and dendrogram: {out}/")


def say_agreement(found: Comparison, baselines: dict[str, dict[str, float]], out: Path) -> None:
    named = [("this run", agreement(found.labels, found.assignment))]
    named += [(BASELINES[name].title, values) for name, values in baselines.items()]
    print("\n".join(agreement_table(named)))
    write_csv(out / "agreement.csv", [{"what": name, **values} for name, values in named])


def say_purity(found: Comparison, out: Path) -> None:
    table = purity_table(found.labels, found.assignment)
    write_csv(out / "purity.csv", table)
    print("\ncluster  images  purity  most common types")
    for row in table:
        print(f"{row['cluster']:>7}  {row['images']:>6}  {row['purity']:>6}  {row['types']}")


def say_confusion(found: Comparison, out: Path) -> None:
    table = confusion(found.labels, found.assignment)
    columns = [str(number) for number in table.columns]
    rows = [{"type": label, **dict(zip(columns, counts, strict=True))} for label, *counts in table.itertuples()]
    write_csv(out / "confusion.csv", rows)
    print(f"\nconfusion of types and clusters: {out}/confusion.csv; the largest cells:")
    cells = [(int(row[number]), row["type"], number) for row in rows for number in columns]
    for images, label, number in sorted(cells, key=lambda cell: -cell[0])[:LISTED]:
        if images:
            print(f"  {images:>5}  {label}  in cluster {number}")


def say_doubtful(found: Comparison, out: Path) -> None:
    doubts = doubtful(found)
    write_csv(out / "doubtful.csv", doubts, ["image", "type", "suggested", "cluster", "purity", "probability"])
    print(
        f"\n{len(doubts)} labels look wrong (in a cluster of mostly another type), the most doubtful first: "
        f"{out}/doubtful.csv"
    )
    for row in doubts[:LISTED]:
        print(f"  {row['image']!r}: {row['type']}, but cluster {row['cluster']} is {row['purity']} {row['suggested']}")


def say_merging(found: Comparison, x: np.ndarray, out: Path) -> None:
    numbers = np.unique(found.assignment).tolist()
    merges = merging(x, found.labels, found.assignment)
    write_csv(out / "merging.csv", merges["rows"])
    draw_dendrogram(out / "dendrogram.png", merges["tree"], numbers)
    best = max(merges["rows"], key=lambda row: row["ami"])
    print("\nmerging clusters along the dendrogram (average linkage of centroids):  clusters  AMI    purity")
    shown = {len(numbers), best["clusters"], *(n for n in (40, 30, 20, 15, 10, 5) if n < len(numbers))}
    for row in merges["rows"]:
        if row["clusters"] in shown:
            mark = "  <- best AMI" if row is best else ""
            print(f"{'':<72}{row['clusters']:>8}  {row['ami']:.3f}  {row['purity']:.3f}{mark}")


def _clusters_of(found: Comparison) -> int:
    return max(2, len(np.unique(found.assignment)))


def read_labels(path: Path) -> list[tuple[str, str]]:
    """(image, type) of a CSV with those columns; without such names the first two columns."""
    if not path.is_file():
        raise UserError(f"{path}: no such file: --labels names a CSV with the columns image and type")
    try:
        table = read_csv(path)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text table: save it as CSV (UTF-8)") from None
    columns = [name for name in (table[0] if table else {}) if name]
    if len(columns) < 2:
        raise UserError(f"{path}: needs a header and two columns, image and type, separated by commas")
    image = "image" if "image" in columns else columns[0]
    label = next((name for name in ("type", "label") if name in columns), columns[1])
    return [(row[image], row[label] or "") for row in table if row[image] and row[label]]


def join(run: TrainedRun, table: list[tuple[str, str]], path: Path) -> Comparison:
    """Match by id, else by file name, with or without its ending, where that is unique; images ascending."""
    clusters, ids = run.frame(), run.run.ids
    index: dict[str, int] = {}
    for keys in (ids, [i.rsplit("/", 1)[-1] for i in ids], [_stem(i) for i in ids]):
        counts = Counter(keys)
        for position, key in enumerate(keys):
            if counts[key] == 1:
                index.setdefault(key, position)
    found = {index[image]: label for image, label in table if image in index}
    missing = [image for image, _ in table if image not in index]
    if not found:
        raise UserError(
            f"{path}: none of its images is in the run (the first: {missing[0] if missing else 'none'}): write ids as "
            "in images.csv"
        )
    if len(found) < 2:
        raise UserError(f"{path}: only one of its images is in the run: agreement needs at least 2")
    if missing:
        print(f"{len(missing)} rows name no image of the run, or not a unique one (the first: {missing[0]!r})")
    rows = np.array(sorted(found))
    chosen = clusters.iloc[rows].reset_index(drop=True)
    return Comparison(rows, [found[i] for i in rows.tolist()], chosen["cluster"].to_numpy(), chosen)


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def purity_table(labels: list[str], assignment: np.ndarray) -> list[dict[str, Any]]:
    """A row per cluster: images, share of its most common type, and its three most common types; purest first."""
    rows = []
    for number in np.unique(assignment).tolist():
        counts = Counter(label for label, own in zip(labels, assignment, strict=True) if own == number)
        types = ", ".join(f"{label} {count}" for label, count in counts.most_common(3))
        purity = counts.most_common(1)[0][1] / counts.total()
        rows.append({"cluster": number, "images": counts.total(), "purity": f"{purity:.3f}", "types": types})
    return sorted(rows, key=lambda row: (-float(row["purity"]), -row["images"]))


def confusion(labels: list[str], assignment: np.ndarray) -> pd.DataFrame:
    """Counts of images: types down, the clusters that occur across, both ascending."""
    return pd.crosstab(pd.Series(labels, name="type"), pd.Series(assignment, name="cluster"))


def doubtful(found: Comparison) -> list[dict[str, Any]]:
    """Images whose type is not that of their nearly pure cluster and of which the head is sure; most doubtful first."""
    rows = []
    table = found.table.assign(type=found.labels)
    for number in np.unique(found.assignment).tolist():
        members = table[table["cluster"] == number]
        common, count = Counter(members["type"]).most_common(1)[0]
        purity = count / len(members)
        if purity < PURE or len(members) < 4:
            continue
        others = members[(members["type"] != common) & (members["predicted"] == number)]
        rows += [
            {
                "image": row.image,
                "type": row.type,
                "suggested": common,
                "cluster": number,
                "purity": f"{purity:.3f}",
                "probability": f"{row.probability:.6f}",
            }
            for row in others.itertuples()
        ]
    return sorted(rows, key=lambda row: (-float(row["purity"]) * float(row["probability"]), row["image"]))


def merging(x: np.ndarray, labels: list[str], assignment: np.ndarray) -> dict[str, Any]:
    """Agreement after each merge along the average-linkage tree of the clusters' centroids in features x (N, d)."""
    _, compact = np.unique(assignment, return_inverse=True)
    k = int(compact.max()) + 1
    tree = linkage(centroids(x, compact, k), "average")
    rows = []
    for count in range(k, 1, -1):
        merged = fcluster(tree, count, "maxclust")[compact]
        values = agreement(labels, merged)
        rows.append({"clusters": count, **{name: round(value, 6) for name, value in values.items()}})
    return {"tree": tree, "rows": rows}


def draw_dendrogram(path: Path, tree: np.ndarray, clusters: list[int]) -> None:
    """Average-linkage tree of the clusters' centroids."""
    figure = new_figure(max(6, 0.2 * len(clusters) + 2), 4)
    axis = figure.subplots()
    dendrogram(
        tree,
        labels=[str(c) for c in clusters],
        ax=axis,
        color_threshold=0,
        above_threshold_color="#33618f",
        leaf_font_size=8,
    )
    axis.set(title="Clusters by the distance of their centroids", xlabel="cluster", ylabel="average distance")
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=DPI))
