"""The expert's edits of another run -> the clusters that a training starts from, and what its clusterings must keep.

An edit says more than where one coin is: a coin that was moved must be with its new cluster's most typical coin and may
not be with its former cluster's. Clusters keep their numbers from epoch to epoch here, so both are said by number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from console import UserError
from deepcluster.clustering import Clustering, Constraints, constrained_kmeans
from machine.files import harmless, spared
from machine.reading import read_csv, whole_number
from runs import Run
from runs.edits import Edited, edit_clusters, read_edits

START_FILE = "start.csv"  # in the run: what each cluster was in the run that was edited


@dataclass(frozen=True)
class Expert:
    """What the edits say of N images."""

    start: np.ndarray  # (N,) int64 cluster, 0 .. k - 1; -1: in none, or unknown to the run that was edited
    k: int
    constraints: Constraints
    table: list[dict[str, object]]  # START_FILE: a row for each cluster
    digest: str  # of the edits


def read_expert(run: Run, path: Path) -> tuple[Edited, str]:
    """The clusters of `run` with the edits at `path` done, and the digest of these.

    Raises:
        UserError: if the edits are another run's.
    """
    edits = read_edits(path)
    return edit_clusters(run, edits), sha256(repr(edits).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def follow(edited: Edited, digest: str, ids: Sequence[str]) -> Expert:
    """What the edits say of the images `ids`, some of which the run that was edited may not know.

    Raises:
        UserError: if they leave these images fewer than two clusters.
    """
    row_of = {name: row for row, name in enumerate(edited.run.ids)}
    rows = np.array([row_of.get(name, -1) for name in ids], np.int64)
    known = rows >= 0
    final = np.where(known, edited.final[rows], -1)
    numbers = np.unique(final[final >= 0])
    if len(numbers) < 2:
        raise UserError(
            f"--edits: leave {len(numbers)} clusters with images of this training, and at least 2 are needed: name the "
            "images that the run of --init was trained on"
        )
    start = np.where(final >= 0, np.searchsorted(numbers, final), -1)

    fixed = np.where(known & np.isin(rows, pinned_images(edited)), start, -1)
    became = {row: edited.became(int(edited.before[row])) for row in edited.wrong if edited.after[row] < 0}
    former = {row: cluster for row, cluster in became.items() if cluster is not None and cluster in numbers}
    barred = [
        (image, int(np.searchsorted(numbers, former[row]))) for image, row in enumerate(rows.tolist()) if row in former
    ]
    sizes = np.bincount(start[start >= 0], minlength=len(numbers))
    table: list[dict[str, object]] = [
        {"cluster": j, "name": harmless(edited.name_of(number)), "was": number, "images": int(sizes[j])}
        for j, number in enumerate(numbers.tolist())
    ]
    constraints = Constraints(fixed, np.array(barred, np.int64).reshape(-1, 2))
    return Expert(start, len(numbers), constraints, table, digest)


def pinned_images(edited: Edited) -> list[int]:
    """The images whose cluster is certain: those that were moved, and the most typical one of each cluster touched.

    A cluster is touched if an image was moved into it or out of it or does not belong to it, or if it was merged.
    """
    start = edited.start
    moved = np.flatnonzero(edited.moved)
    touched = {*edited.after[moved].tolist(), *start.assignment[moved].tolist(), *edited.before[moved].tolist()}
    touched |= {*edited.into, *edited.into.values()} | {int(edited.before[image]) for image in edited.wrong}
    touched |= {number for number, logits in start.logits.items() if len(logits) > 1}
    distance = edited.run.clusters(edited.epoch).distance
    typical = []
    for cluster in sorted(touched):
        stayed = np.flatnonzero((start.assignment == cluster) & (edited.after == cluster) & ~edited.moved)
        typical += [int(stayed[distance[stayed].argmin()])] if len(stayed) else []
    return sorted({*moved.tolist(), *typical})


def given_names(run: Run) -> dict[int, str]:
    """What the expert called the clusters that a run started from; empty of one that started otherwise."""
    path = run.path / START_FILE
    rows = read_csv(path) if path.exists() else []
    numbered = [(whole_number(row.get("cluster", "")), spared(row.get("name", ""))) for row in rows]
    return {number: name for number, name in numbered if number is not None and name}


def cluster_with(expert: Expert, x: np.ndarray, previous: np.ndarray | None) -> Clustering:
    """An epoch's clusters of x (N, d): the expert's own in the first (`previous` None), later k-means from the last.

    In the first, images that the expert put into no cluster go to the nearest that is open to them.
    """
    if previous is None:
        as_edited = Constraints(expert.start, expert.constraints.barred)
        assignment = constrained_kmeans(x, expert.start, expert.k, as_edited, iterations=1)
    else:
        assignment = constrained_kmeans(x, previous, expert.k, expert.constraints)
    return Clustering.of(x, assignment, expert.k)
