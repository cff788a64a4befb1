"""An expert's table beside the clusters: agreement, purity, confusion, doubtful labels, and what merging would gain."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import dendrogram, fcluster, linkage

import runs
from console import UserError
from deepcluster.agreement import agreement, feature_baseline, pixel_baseline
from deepcluster.clustering import centroids, reduced
from deepcluster.launch import open_images, run_config
from deepcluster.models import build, trained_model
from deepcluster.train import embed, model_arguments
from deepcluster.views import Frames
from machine import prepare, stream
from runs import Run

PURE = 0.6  # a cluster of which this share has one label may cast doubt on another label in it


def compare_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster compare`: prints, and writes the same as tables into --out."""
    run = runs.open_run(options.run)
    config = run_config(run)
    out: Path = options.out or run.path / "compare"
    rows, labels = join(run, read_labels(options.labels), options.labels)
    table = runs.read_csv(run.path / "clusters.csv") if run.epochs() else []
    if not table:
        raise UserError(f"{run.path}: no finished epoch to compare yet: let the training finish")
    assignment = np.array([int(table[i]["cluster"]) for i in rows])
    out.mkdir(parents=True, exist_ok=True)
    print(f"{len(rows)} of {len(run.ids)} images have a type in {options.labels}; {len(set(labels))} types\n")

    device = prepare(options.device, run.meta["threads"])
    dataset = open_images(run, options.data, options.workers, options.mnist_dir)
    if dataset.ids != run.ids:
        raise UserError(f"{options.data}: not the images of this run: name the folder that it was trained on")
    frames = Frames(dataset.take(np.array(rows)).pixels, device)
    k, seed = max(2, len(set(assignment.tolist()))), stream(config.seed, 0, "baseline")
    untrained = embed(
        build(model_arguments(config), stream(config.seed, 0, "weights")).to(device), frames, config, "baseline"
    )
    figures = [
        ("this run", agreement(labels, assignment)),
        ("k-means on the pixels", agreement(labels, pixel_baseline(frames, min(k, len(rows)), seed))),
        (
            "k-means on the untrained network",
            agreement(labels, feature_baseline(untrained.features, min(k, len(rows)), seed, config.pca, config.whiten)),
        ),
    ]
    print("agreement                           AMI    NMI    ARI  accuracy  purity")
    for name, values in figures:
        cells = "  ".join(f"{values[m]:5.3f}" for m in ("ami", "nmi", "ari", "accuracy", "purity"))
        print(f"  {name:<33}{cells}")
    runs.write_csv(out / "agreement.csv", [{"what": name, **values} for name, values in figures])

    purities = purity_table(labels, assignment)
    runs.write_csv(out / "purity.csv", purities)
    print("\ncluster  images  purity  most common types")
    for row in purities:
        print(f"{row['cluster']:>7}  {row['images']:>6}  {row['purity']:>6}  {row['types']}")

    names, counts = confusion(labels, assignment)
    found = sorted(set(assignment.tolist()))
    runs.write_csv(
        out / "confusion.csv",
        [{"type": name, **{str(c): int(counts[i, j]) for j, c in enumerate(found)}} for i, name in enumerate(names)],
    )
    print(f"\nconfusion of types and clusters: {out}/confusion.csv; the largest cells:")
    for i, j in zip(*np.unravel_index(np.argsort(-counts, axis=None, kind="stable")[:10], counts.shape), strict=True):
        if counts[i, j]:
            print(f"  {counts[i, j]:>5}  {names[i]}  in cluster {found[j]}")

    doubts = doubtful(labels, assignment, [table[i] for i in rows])
    runs.write_csv(out / "doubtful.csv", doubts, ["image", "type", "suggested", "cluster", "purity", "probability"])
    print(
        f"\n{len(doubts)} labels look wrong (in a cluster of mostly another type), the most doubtful first: {out}/doubtful.csv"
    )
    for row in doubts[:10]:
        print(f"  {row['image']!r}: {row['type']}, but cluster {row['cluster']} is {row['purity']} {row['suggested']}")

    if len(found) > 2:
        trained = embed(trained_model(run).to(device), frames, config, "embedding")
        merges = merging(reduced(trained.features, config.pca, config.whiten), labels, assignment)
        runs.write_csv(out / "merging.csv", merges["rows"])
        draw_dendrogram(out / "dendrogram.png", merges["tree"], found)
        best = max(merges["rows"], key=lambda row: row["ami"])
        print("\nmerging clusters along the dendrogram (average linkage of centroids):  clusters  AMI    purity")
        shown = {len(found), best["clusters"], *(n for n in (40, 30, 20, 15, 10, 5) if n < len(found))}
        for row in merges["rows"]:
            if row["clusters"] in shown:
                mark = "  <- best AMI" if row is best else ""
                print(f"{'':<72}{row['clusters']:>8}  {row['ami']:.3f}  {row['purity']:.3f}{mark}")
    print(f"\nTables and dendrogram: {out}/")


def read_labels(path: Path) -> list[tuple[str, str]]:
    """(image, type) of a CSV with those columns; without such names the first two columns."""
    if not path.is_file():
        raise UserError(f"{path}: no such file: --labels names a CSV with the columns image and type")
    try:
        table = runs.read_csv(path)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text table: save it as CSV (UTF-8)") from None
    columns = [name for name in (table[0] if table else {}) if name]
    if len(columns) < 2:
        raise UserError(f"{path}: needs a header and two columns, image and type, separated by commas")
    image = "image" if "image" in columns else columns[0]
    label = next((name for name in ("type", "label") if name in columns), columns[1])
    return [(row[image], row[label] or "") for row in table if row[image] and row[label]]


def join(run: Run, table: list[tuple[str, str]], path: Path) -> tuple[list[int], list[str]]:
    """Match by id, else by file name, with or without its ending, where that is unique.

    Returns: indices of the matched images, ascending, and their types.
    """
    index: dict[str, int] = {}
    for keys in (run.ids, [i.rsplit("/", 1)[-1] for i in run.ids], [_stem(i) for i in run.ids]):
        counts = Counter(keys)
        for position, key in enumerate(keys):
            if counts[key] == 1:
                index.setdefault(key, position)
    found = {index[image]: label for image, label in table if image in index}
    missing = [image for image, _ in table if image not in index]
    if not found:
        raise UserError(
            f"{path}: none of its images is in the run (the first: {missing[0] if missing else 'none'}): write ids as in images.csv"
        )
    if missing:
        print(f"{len(missing)} rows name no image of the run, or not a unique one (the first: {missing[0]!r})")
    rows = sorted(found)
    return rows, [found[i] for i in rows]


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def purity_table(labels: list[str], assignment: np.ndarray) -> list[dict[str, Any]]:
    """A row per cluster: images, share of its most common type, and its three most common types; purest first."""
    rows = []
    for cluster in np.unique(assignment):
        counts = Counter(label for label, own in zip(labels, assignment, strict=True) if own == cluster)
        types = ", ".join(f"{label} {count}" for label, count in counts.most_common(3))
        purity = counts.most_common(1)[0][1] / counts.total()
        rows.append({"cluster": int(cluster), "images": counts.total(), "purity": f"{purity:.3f}", "types": types})
    return sorted(rows, key=lambda row: (-float(row["purity"]), -row["images"]))


def confusion(labels: list[str], assignment: np.ndarray) -> tuple[list[str], np.ndarray]:
    """(types, clusters) counts; columns are the clusters that occur, ascending."""
    names, row = np.unique(labels, return_inverse=True)
    columns, column = np.unique(assignment, return_inverse=True)
    counts = np.zeros((len(names), len(columns)), np.int64)
    np.add.at(counts, (row, column), 1)
    return [str(name) for name in names], counts


def doubtful(labels: list[str], assignment: np.ndarray, table: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Images whose type is not that of their nearly pure cluster and of which the head is sure; most doubtful first."""
    rows = []
    for cluster in np.unique(assignment):
        members = np.flatnonzero(assignment == cluster)
        common, count = Counter(labels[i] for i in members).most_common(1)[0]
        purity = count / len(members)
        if purity < PURE or len(members) < 4:
            continue
        for i in members:
            if labels[i] != common and int(table[i]["predicted"]) == cluster:
                row = table[i]
                rows.append(
                    {
                        "image": row["image"], "type": labels[i], "suggested": common, "cluster": int(cluster),
                        "purity": f"{purity:.3f}", "probability": row["probability"],
                    }
                )  # fmt: skip
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
    figure = Figure(figsize=(max(6, 0.2 * len(clusters) + 2), 4), layout="constrained")
    FigureCanvasAgg(figure)
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
    runs.directory.atomic(path, lambda file: figure.savefig(file, format="png", dpi=110))
