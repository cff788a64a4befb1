"""The tables of a run, each column told once: what it is called, means and how it is computed.

`log.csv` has a row per finished epoch, `clusters.csv` a row per image of the newest. Console, curves, gallery and tests
iterate `LOG` and `CLUSTERS`; a column added here is written, shown and drawn. Both trainers write the same tables; a
column that one of them does not know is left out of its log.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Cell = str | int | float | None


@dataclass(frozen=True)
class EpochFacts:
    """What an epoch's row of log.csv is computed from; None and {}: not known to this trainer."""

    epoch: int
    loss: float | None = None  # mean over the epoch
    loss_last_quarter: float | None = None  # mean over its last quarter
    k: int | None = None  # clusters, empty ones included
    assignment: np.ndarray | None = None  # (N,)
    previous: np.ndarray | None = None  # (N,) of the epoch before
    predicted: np.ndarray | None = None  # (N,) by the head
    objective: float | None = None
    agreement: Mapping[str, float] = field(default_factory=dict)  # with the labels, by measure
    accuracy: float | None = None  # on the training images
    validation: Mapping[str, float] = field(default_factory=dict)  # loss and accuracy
    learning_rate: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)  # by phase; "": all


@dataclass(frozen=True)
class LogColumn:
    """A column of log.csv."""

    name: str
    meaning: str  # a few words, as the legend of a curve or a tooltip says it
    value: Callable[[EpochFacts], Cell]  # None: this trainer does not know it
    digits: int = 6
    panel: str | None = None  # the plot of figures/curves.png that shows it
    shown: bool = False  # by `runs show`
    gallery: str | None = None  # how the gallery's overview says it, {} being the number
    formerly: str | None = None  # its name in schema 1


def _sizes(facts: EpochFacts) -> np.ndarray | None:
    return None if facts.assignment is None else np.bincount(facts.assignment, minlength=facts.k or 0)


def _size(of: Callable[[np.ndarray], Any]) -> Callable[[EpochFacts], Cell]:
    def value(facts: EpochFacts) -> Cell:
        sizes = _sizes(facts)
        return None if sizes is None else of(sizes)

    return value


def _nmi_previous(facts: EpochFacts) -> float | None:
    from sklearn.metrics import normalized_mutual_info_score

    if facts.assignment is None or facts.previous is None:
        return None
    return float(normalized_mutual_info_score(facts.previous, facts.assignment))


def _head_agreement(facts: EpochFacts) -> float | None:
    if facts.assignment is None or facts.predicted is None:
        return None
    return float((facts.predicted == facts.assignment).mean())


def _measure(name: str) -> Callable[[EpochFacts], Cell]:
    return lambda facts: facts.agreement.get(name)


def _validation(name: str) -> Callable[[EpochFacts], Cell]:
    return lambda facts: facts.validation.get(name)


def _seconds(phase: str) -> Callable[[EpochFacts], Cell]:
    return lambda facts: facts.seconds.get(phase)


LOSS, OBJECTIVE, SIZES, AGREEMENT = "Loss", "Objective", "Cluster sizes", "Agreement with the labels"
HEAD = "The epoch before, and the head"
ACCURACY = "Accuracy"

LOG: tuple[LogColumn, ...] = (
    LogColumn("epoch", "number of the epoch, from 1", lambda f: f.epoch, shown=True),
    LogColumn("k", "clusters, empty ones included", lambda f: f.k),
    LogColumn("loss", "training, mean of the epoch", lambda f: f.loss, panel=LOSS, shown=True),
    LogColumn(
        "loss_last_quarter", "training, last quarter", lambda f: f.loss_last_quarter, panel=LOSS, formerly="late_loss"
    ),
    LogColumn("accuracy", "training", lambda f: f.accuracy, panel=ACCURACY),
    LogColumn("validation_loss", "validation", _validation("loss"), panel=LOSS),
    LogColumn("validation_accuracy", "validation", _validation("accuracy"), panel=ACCURACY, shown=True),
    LogColumn("objective", "sum of squared distances to the centroids", lambda f: f.objective, panel=OBJECTIVE),
    LogColumn(
        "nmi_previous", "NMI with the epoch before", _nmi_previous,
        panel=HEAD, shown=True, gallery="NMI with the epoch before {:.2f}", formerly="stability",
    ),
    LogColumn(
        "head_agreement", "images that the head puts into their cluster", _head_agreement,
        panel=HEAD, shown=True, gallery="the network agrees with {:.0%} of the clusters", formerly="head_share",
    ),
    LogColumn("smallest", "smallest", _size(lambda s: int(s.min())), panel=SIZES, shown=True),
    LogColumn("median", "median", _size(lambda s: float(np.median(s))), panel=SIZES),
    LogColumn("largest", "largest", _size(lambda s: int(s.max())), panel=SIZES, shown=True),
    LogColumn("empty", "clusters without an image", _size(lambda s: int((s == 0).sum())), shown=True),
    LogColumn("nmi", "NMI", _measure("nmi")),
    LogColumn("ari", "ARI", _measure("ari"), panel=AGREEMENT),
    LogColumn("ami", "AMI", _measure("ami"), panel=AGREEMENT, shown=True, gallery="AMI with the labels {:.2f}"),
    LogColumn("matched_accuracy", "accuracy, best matching", _measure("accuracy"), formerly="accuracy"),
    LogColumn("purity", "purity", _measure("purity"), panel=AGREEMENT, shown=True, gallery="purity {:.2f}"),
    LogColumn("lr", "learning rate at the start", lambda f: f.learning_rate, digits=12),
    LogColumn("seconds_cluster", "clustering", _seconds("cluster"), digits=3),
    LogColumn("seconds_train", "training", _seconds("train"), digits=3),
    LogColumn("seconds_embed", "embedding", _seconds("embed"), digits=3),
    LogColumn("seconds", "all", _seconds(""), digits=2),
)  # fmt: skip


def log_row(facts: EpochFacts) -> dict[str, Cell]:
    """The epoch's row of log.csv, without the columns that are not known."""
    row: dict[str, Cell] = {}
    for column in LOG:
        value = column.value(facts)
        if value is not None:
            row[column.name] = round(value, column.digits) if isinstance(value, float) else value
    return row


def current_names(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a log, of schema 1 or later, under today's names; what schema 1 left empty was not known."""
    former = {column.formerly: column.name for column in LOG if column.formerly}
    telling = former.keys() - {column.name for column in LOG}  # names that only schema 1 has
    if not any(telling & row.keys() for row in rows):
        return [dict(row) for row in rows]
    return [{former.get(name, name): value for name, value in row.items() if value not in (None, "")} for row in rows]


@dataclass(frozen=True)
class ClusterColumn:
    """A column of clusters.csv; `value` formats row i of the facts."""

    name: str
    meaning: str
    value: Callable[["ImageFacts", int], Cell]


@dataclass(frozen=True)
class ImageFacts:
    """What clusters.csv is made of: N images of the newest epoch."""

    ids: Sequence[str]
    assignment: np.ndarray  # (N,)
    distance: np.ndarray  # (N,) to the own centroid; of a supervised run 1 - probability
    predicted: np.ndarray  # (N,) the logit that the network likes best
    probability: np.ndarray  # (N,) of it, softmax
    rank: np.ndarray  # (N,) within the cluster by distance, 1 is nearest


CLUSTERS: tuple[ClusterColumn, ...] = (
    ClusterColumn("image", "id of the image", lambda f, i: f.ids[i]),
    ClusterColumn("cluster", "its cluster", lambda f, i: int(f.assignment[i])),
    ClusterColumn("distance", "to the cluster's centroid", lambda f, i: f"{f.distance[i]:.6f}"),
    ClusterColumn("rank", "in its cluster, 1 is the most typical", lambda f, i: int(f.rank[i])),
    ClusterColumn("predicted", "cluster that the network would choose", lambda f, i: int(f.predicted[i])),
    ClusterColumn("probability", "of that cluster, by the network", lambda f, i: f"{f.probability[i]:.6f}"),
)


def cluster_rows(
    ids: Sequence[str], assignment: np.ndarray, distance: np.ndarray, predicted: np.ndarray, probability: np.ndarray
) -> list[dict[str, Cell]]:
    """The rows of clusters.csv, in the order of the images."""
    facts = ImageFacts(ids, assignment, distance, predicted, probability, rank_within(assignment, distance))
    return [{column.name: column.value(facts, i) for column in CLUSTERS} for i in range(len(ids))]


def rank_within(assignment: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(N,) rank of each image in its cluster by distance, 1 is the nearest; equal ones in the order of the images."""
    rank = np.empty(len(assignment), np.int64)
    order = np.lexsort((np.arange(len(assignment)), distance, assignment))
    sorted_clusters = assignment[order]
    starts = np.flatnonzero(np.diff(sorted_clusters, prepend=sorted_clusters[:1] - 1))
    sizes = np.diff(np.append(starts, len(order)))
    rank[order] = np.arange(len(order)) - np.repeat(starts, sizes) + 1
    return rank
