"""What the experiments of a sheet found, and how far they found the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score

from console import UserError, progress
from machine.files import write_csv
from machine.reading import Damaged, Shape, finite_number, read_csv, read_json, read_npz
from runs.directory import open_run
from runs.sheet.plan import Experiment
from runs.sheet.work import EXP, FEATURES, RESULTS, audit_of, finished_epoch

SAMPLE = 2000  # images for the silhouette
SHOWN = 12  # clusters that are set beside their like
CHOOSING = ("settled", "head_agreement", "with the others")  # what a recommendation rests on
LOGGED = ("head_agreement", "smallest", "median", "largest", "empty", "ami", "objective")


@dataclass(frozen=True)
class Outcome:
    """Of one experiment."""

    experiment: Experiment
    epoch: int
    clusters: dict[str, int]  # image -> its cluster
    figures: dict[str, float]  # name -> value; what is not known is left out
    baseline: tuple[str, float] | None  # the strongest, and its AMI
    audit: dict[str, list[str]]


@dataclass(frozen=True)
class Matched:
    """A cluster of the reference, and its like in every other experiment."""

    cluster: int
    size: int
    others: list[tuple[str, int | None, float]]  # experiment, its cluster, intersection over union


@dataclass(frozen=True)
class Comparison:
    outcomes: list[Outcome]
    pairs: np.ndarray  # (E, E) AMI between the clusters of two, of the images that both have
    best: int  # which is recommended
    reasons: list[str]
    matched: list[Matched]

    @property
    def names(self) -> list[str]:
        return [one.experiment.name for one in self.outcomes]


def gather(experiments: Sequence[Experiment], folder: Path) -> Comparison:
    """Read what the experiments left, and compare them all; writes sheet.csv and pairs.csv."""
    outcomes = [_outcome(one, folder / one.name) for one in progress(list(experiments), "comparing", unit="runs")]
    pairs = np.array([[agreement(one, other) for other in outcomes] for one in outcomes])
    for at, one in enumerate(outcomes):
        others = np.delete(pairs[at], at)
        if len(others) and np.isfinite(others).any():
            one.figures["with the others"] = float(np.nanmean(others))
    best, reasons = recommend(outcomes)
    comparison = Comparison(outcomes, pairs, best, reasons, match(outcomes, best))
    write_csv(
        folder / "sheet.csv",
        [
            {"name": one.experiment.name, "data": one.experiment.data, **one.experiment.settings, "epoch": one.epoch}
            | {name: f"{value:.6g}" for name, value in one.figures.items()}
            | ({} if one.baseline is None else {"baseline": one.baseline[0], "baseline_ami": f"{one.baseline[1]:.4f}"})
            for one in outcomes
        ],
    )
    rows = zip(comparison.names, pairs, strict=True)
    write_csv(
        folder / "pairs.csv",
        [
            {"": name} | {other: f"{value:.4f}" for other, value in zip(comparison.names, row, strict=True)}
            for name, row in rows
        ],
    )
    return comparison


def agreement(one: Outcome, other: Outcome) -> float:
    """AMI between the clusters of two experiments, of the images that both have; NaN with fewer than two."""
    both = sorted(one.clusters.keys() & other.clusters.keys())
    if len(both) < 2:
        return float("nan")
    return float(adjusted_mutual_info_score([one.clusters[i] for i in both], [other.clusters[i] for i in both]))


def recommend(outcomes: Sequence[Outcome]) -> tuple[int, list[str]]:
    """The experiment with the best mean rank in CHOOSING, and why; labels are not asked.

    These figures compare between different k; the silhouette, of each network's own features, does not. Ranks are of
    those alone that all experiments have; the first of equals, which are named.
    """
    known = [name for name in CHOOSING if all(np.isfinite(one.figures.get(name, np.nan)) for one in outcomes)]
    if len(outcomes) == 1 or not known:
        return 0, ["There is nothing to choose between."]
    values = np.array([[one.figures[name] for name in known] for one in outcomes])
    ranks = np.array([[(values[:, j] > values[i, j]).sum() + 1 for j in range(len(known))] for i in range(len(values))])
    mean = ranks.mean(1)
    best = int(np.argmin(mean))
    reasons = [
        f"{WORDS[name]} {values[best, j]:.2f}: {_ordinal(int(ranks[best, j]))} of {len(outcomes)} "
        f"({values[:, j].min():.2f} to {values[:, j].max():.2f})."
        for j, name in enumerate(known)
    ]
    equal = [outcomes[i].experiment.name for i in np.flatnonzero(mean == mean[best]).tolist() if i != best]
    if equal:
        reasons.append(f"As good by these figures: {', '.join(equal)}.")
    return best, reasons


WORDS = {
    "settled": "It has settled, AMI with the epoch before",
    "head_agreement": "The network's own answer is the cluster, share",
    "with the others": "The other experiments find the same, mean AMI",
}


def match(outcomes: Sequence[Outcome], reference: int) -> list[Matched]:
    """The reference's largest clusters and, by the best one-to-one matching of all, their like in each other one."""
    home = outcomes[reference]
    members = _members(home.clusters)
    order = sorted(members, key=lambda cluster: (-len(members[cluster]), cluster))[:SHOWN]
    likes: dict[int, list[tuple[str, int | None, float]]] = {cluster: [] for cluster in order}
    for at, other in enumerate(outcomes):
        if at == reference:
            continue
        theirs = _members(other.clusters)
        mine, numbers = list(members), list(theirs)
        overlap = np.array([[_overlap(members[a], theirs[b]) for b in numbers] for a in mine])
        rows, columns = linear_sum_assignment(-overlap)
        found = {mine[i]: (numbers[j], float(overlap[i, j])) for i, j in zip(rows, columns, strict=True)}
        for cluster in order:
            number, value = found.get(cluster, (None, 0.0))
            likes[cluster].append((other.experiment.name, number if value else None, value))
    return [Matched(cluster, len(members[cluster]), likes[cluster]) for cluster in order]


def _outcome(one: Experiment, home: Path) -> Outcome:
    """Of an experiment that is finished.

    Raises:
        UserError: if what it left is not there any more, or damaged.
    """
    epoch = finished_epoch(home)
    if epoch is None:
        raise UserError(f"{home / RESULTS}: no explanations.csv: remove {home} and call again")
    try:
        return _read_outcome(one, home, epoch)
    except Damaged:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: it is gone: remove {home} and call again") from None
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{home}: its tables are damaged ({str(error)[:80]}): remove it and call again") from None


def _read_outcome(one: Experiment, home: Path, epoch: int) -> Outcome:
    rows = read_csv(home / EXP / "clusters.csv")
    clusters = {row["image"]: int(row["cluster"]) for row in rows}
    log = read_csv(home / EXP / "log.csv")
    figures = {name: value for name in LOGGED if (value := finite_number(log[-1].get(name, ""))) is not None}
    run = open_run(home / EXP)
    if len(log) > 1 and run.has_clusters(len(log)) and run.has_clusters(len(log) - 1):
        last, before = (run.clusters(epoch).assignment for epoch in (len(log), len(log) - 1))
        figures["settled"] = float(adjusted_mutual_info_score(before, last))
    figures["seconds"] = sum(finite_number(row.get("seconds", "")) or _phases(row) for row in log)
    maps = read_csv(home / RESULTS / str(epoch) / "explanations.csv")
    empty = [row["grad_cam.peak"] for row in maps if row.get("grad_cam.peak")]
    if empty:
        figures["empty maps"] = float(np.mean([float(peak) <= 0 for peak in empty]))
    features = _features(home)
    if features is not None and len(features) == len(rows):
        separation = silhouette(features, np.array([int(row["cluster"]) for row in rows]))
        if separation is not None:
            figures["silhouette"] = separation
    return Outcome(one, epoch, clusters, figures, _baseline(home), audit_of(home, epoch))


def silhouette(features: np.ndarray, codes: np.ndarray) -> float | None:
    """Mean silhouette of features (N, d) in clusters (N,), of SAMPLE images at most; None where there is none.

    There is none of one cluster, of clusters of one image each, and of features that are not finite.
    """
    drawn = np.random.default_rng(0).permutation(len(codes))[:SAMPLE]
    features, codes = features[drawn], codes[drawn]
    if not 1 < len(np.unique(codes)) < len(codes) or not np.isfinite(features).all():
        return None
    return float(silhouette_score(features, codes))


def _phases(row: dict[str, str]) -> float:
    return sum(finite_number(value) or 0 for name, value in row.items() if name.startswith("seconds_"))


def _features(home: Path) -> np.ndarray | None:
    """What was clustered, (N, d), in the order of clusters.csv."""
    kinds: dict[str, tuple[str, Shape]] = {"features": ("f", (None, None))}
    try:
        return np.asarray(read_npz(home / FEATURES, kinds, "", others=True)["features"])
    except (FileNotFoundError, Damaged):
        return None


def _baseline(home: Path) -> tuple[str, float] | None:
    """The strongest of baselines.json."""
    try:
        found: dict[str, Any] = read_json(home / EXP / "baselines.json", "")
        values = {str(name): float(one["ami"]) for name, one in found.items()}
    except (FileNotFoundError, Damaged, KeyError, TypeError, ValueError, AttributeError):
        return None
    return max(values.items(), key=lambda pair: pair[1]) if values else None


def _members(clusters: dict[str, int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for image, cluster in clusters.items():
        found.setdefault(cluster, set()).add(image)
    return found


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def _ordinal(rank: int) -> str:
    return {1: "the highest", 2: "the second"}.get(rank, f"number {rank}")
