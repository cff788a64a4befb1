"""An expert's table beside the clusters: agreement, baselines, lift, purity, confusion, doubtful labels, merging."""

import argparse
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.cluster.hierarchy import dendrogram, fcluster, linkage

from console import UserError
from datasets import Dataset
from datasets.names import match_names
from deepcluster.agreement import agreement, agreement_table
from deepcluster.baselines import BASELINES, Clustered, cluster_baselines, verdict
from deepcluster.clustering import centroids
from deepcluster.descriptors import facts_of
from deepcluster.features import embed
from deepcluster.lift import (
    PERMUTATIONS,
    Estimate,
    base_rate,
    estimate_accuracy,
    estimate_ami,
    estimate_lift,
    family_of,
)
from deepcluster.train import reduce
from deepcluster.trained import TrainedRun, open_images
from deepcluster.views import Frames
from machine.device import use_device
from machine.files import read_csv, write_atomic, write_csv
from machine.seeds import derive_seed
from runs.figures import DPI, new_figure

THIS = "this run"
LISTED = 10  # lines of a table on the console
SAMPLE = 5000  # images that baselines are clustered on, where the run has more
FOLDER = "folder"  # --within: the first folder of an image's id
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

    strata = strata_of(run, found, options.within, options.labels)
    families = families_of(found, options.family)
    device = use_device(options.device, run.run.meta.stamp.threads)
    dataset = open_images(run.run, options.data, options.workers, options.mnist_dir)
    if dataset.ids != run.run.ids:
        raise UserError(f"{options.data}: not the images of this run: name the folder that it was trained on")
    clustered = cluster_again(run, found, dataset, device)
    say_agreement(found, clustered, out)
    say_lift(found, clustered, strata, families, options.within, derive_seed(run.config.seed, 0, "permutations"), out)
    say_purity(found, out)
    say_confusion(found, out)
    say_doubtful(found, out)
    if len(np.unique(found.assignment)) > 2:
        say_merging(found, clustered[THIS].features, out)
    print(f"\nTables and dendrogram: {out}/")


def cluster_again(run: TrainedRun, found: Comparison, dataset: Dataset, device: torch.device) -> dict[str, Clustered]:
    """Features and clusters of the labelled images: of this run, and of each baseline.

    Baselines get as many clusters of the same images as the run has, not of the labelled ones alone; of a run of more
    than 5,000 images those that are labelled and others drawn evenly.
    """
    rows = np.arange(len(dataset))
    if len(rows) > SAMPLE:
        others = np.random.default_rng(0).permutation(np.setdiff1d(rows, found.rows))
        rows = np.sort(np.concatenate([found.rows, others[: max(0, SAMPLE - len(found.rows))]]))
        print(f"Baselines are clustered on {len(rows)} of the images, the labelled ones among them")
    sample, labelled = dataset.take(rows), np.searchsorted(rows, found.rows)
    k = max(2, int(run.frame()["cluster"].nunique()))
    embedding = embed(run.network().to(device), Frames(sample.pixels, device), run.config, "embedding")
    reduced = reduce(embedding.features, run.config, facts_of(sample, run.config))
    clustered = {THIS: Clustered(reduced[labelled], found.assignment)}
    for name, baseline in cluster_baselines(sample, run.config, k, device).items():
        clustered[name] = Clustered(baseline.features[labelled], baseline.assignment[labelled])
    return clustered


def strata_of(run: TrainedRun, found: Comparison, within: str | None, path: Path) -> np.ndarray:
    """(M,) what is held fixed when the labelled images are compared: --within's value, '' without it.

    Raises:
        UserError: if an image has none.
    """
    ids = [run.run.ids[i] for i in found.rows.tolist()]
    if within is None:
        return np.full(len(ids), "")
    if within == FOLDER:
        return np.array([image.split("/")[0] if "/" in image else "" for image in ids])
    known = dict(match_names(run.run.ids, read_labels(path, within)))
    missing = [image for row, image in zip(found.rows.tolist(), ids, strict=True) if row not in known]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of its images have no {within} (the first: {missing[0]}): fill it in, or leave "
            "them out"
        )
    return np.array([known[i] for i in found.rows.tolist()])


def families_of(found: Comparison, pattern: str | None) -> np.ndarray | None:
    """(M,) which photograph each labelled image was cut from, by its name; None if no two are from one.

    Raises:
        UserError: if --family is no regular expression.
    """
    try:
        families = np.array([family_of(image, pattern) for image in found.table["image"]])
    except re.error as error:
        raise UserError(f"--family {pattern!r}: not a regular expression ({error}): quote it") from None
    return families if len(np.unique(families)) < len(families) else None


def say_agreement(found: Comparison, clustered: dict[str, Clustered], out: Path) -> None:
    measured = {name: agreement(found.labels, one.assignment) for name, one in clustered.items()}
    named = [(title_of(name), values) for name, values in measured.items()]
    print("\n".join(agreement_table(named)))
    ours = measured.pop(THIS)
    print(verdict(ours["ami"], measured))
    write_csv(out / "agreement.csv", [{"what": name, **values} for name, values in named])


def say_lift(
    found: Comparison,
    clustered: dict[str, Clustered],
    strata: np.ndarray,
    families: np.ndarray | None,
    within: str | None,
    seed: int,
    out: Path,
) -> None:
    """Whether clusters and features follow the label within a stratum, and whether they follow the photograph."""
    labels = np.array(found.labels)
    base = base_rate(labels, strata)
    both = np.unique(np.stack([strata, labels]), axis=1, return_inverse=True)[1].ravel()
    columns: dict[str, dict[str, Estimate]] = {"lift": {}, "AMI": {}, "5 nearest": {}}
    for name, one in clustered.items():
        columns["lift"][name] = estimate_lift(labels, one.assignment, strata, seed)
        columns["AMI"][name] = estimate_ami(labels, one.assignment, strata, seed)
        columns["5 nearest"][name] = estimate_accuracy(one.features, labels, strata, families, seed)
        if families is not None:
            columns.setdefault("lift of the photograph", {})[name] = estimate_lift(families, one.assignment, both, seed)
    place = "all coins" if within is None else f"coins of one {within}"
    print(f"\nwithin {place}, and in brackets what labels that say nothing give (95 % of {PERMUTATIONS} permutations):")
    width = max(len(title_of(name)) for name in clustered)
    print(" " * (width + 2) + "".join(f"{column:>24}" for column in columns))
    for name in clustered:
        print(f"  {title_of(name):<{width}}" + "".join(f"{column[name]!s:>24}" for column in columns.values()))
    print(
        "lift: of pairs, how much likelier two of one type share a cluster than two of different types; 1 is blind\n"
        f"5 nearest: share whose type most of the 5 nearest have; a guess reaches {base:.2f}"
        + ("" if families is None else " (none of them from the same photograph)")
    )
    if families is not None:
        print(
            f"lift of the photograph: of pairs of one type{'' if within is None else f' and {within}'}, how much "
            "likelier two from one photograph (by their names) share a cluster; 1 is as it should be"
        )
    rows = []
    for column, estimates in columns.items():
        for name, found_here in estimates.items():
            numbers = {key: f"{value:.4f}" for key, value in asdict(found_here).items()}
            guess = f"{base:.4f}" if column == "5 nearest" else ""
            rows.append({"what": title_of(name), "measure": column, "within": within or "", **numbers, "base": guess})
    write_csv(out / "lift.csv", rows)


def title_of(name: str) -> str:
    """How tables call what was clustered."""
    return BASELINES[name].title if name in BASELINES else name


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


def read_labels(path: Path, column: str | None = None) -> list[tuple[str, str]]:
    """(image, type) of a CSV with those columns; without such names the first two columns.

    Args:
        path: of the CSV.
        column: read this one instead of the type.
    """
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
    if column is not None and column not in columns:
        raise UserError(f"{path}: has no column {column!r}: --within takes {FOLDER} or one of {', '.join(columns)}")
    value = column or label
    return [(row[image], row[value]) for row in table if row[image] and row[value]]


def join(run: TrainedRun, table: list[tuple[str, str]], path: Path) -> Comparison:
    """The images of the run that the table names, ascending."""
    clusters = run.frame()
    pairs = match_names(run.run.ids, table)
    found = {row: label for row, label in pairs if row is not None}
    missing = [image for (row, _), (image, _) in zip(pairs, table, strict=True) if row is None]
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
