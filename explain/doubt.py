"""When an image is to be distrusted in its cluster: one entry of DOUBTS each.

`flags` in explanations.csv, badges, filters, counts and the page *Doubtful first* iterate it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from datasets.view import PHOTOGRAPH
from explain.record import Explanation

UNSURE = 0.5  # probability below which the network hardly knows
FENCE = 1.5  # interquartile ranges above the third quartile: Tukey's fence
FEW = 8  # images in a cluster whose quartiles mean nothing
PURE, FEWEST = 0.6, 4  # share of one label, and images, of a cluster that may cast doubt on another label in it


@dataclass(frozen=True)
class Doubt:
    """A reason to distrust an image's place."""

    flag: str  # in explanations.csv
    title: str  # of its filter and badge
    says: str  # what it means, in a sentence
    holds: Callable[[Explanation], np.ndarray]  # (N,) bool


def disagrees(explanation: Explanation) -> np.ndarray:
    """Whether another cluster's logit is higher than the own cluster's: (N,) bool."""
    return explanation.scores.margin < 0


def _no_coin(explanation: Explanation) -> np.ndarray:
    """Of views that look for the coin: whether none was found, and the whole photograph stands in for it."""
    subject, pictures = explanation.subject, explanation.subject.pictures
    found = np.zeros(len(subject.run.ids), bool)
    if subject.view != PHOTOGRAPH:
        places = pictures.dataset.find_places()
        found[pictures.present] = [not places[i].found for i in pictures.position[pictures.present].tolist()]
    return found


def _wrong(explanation: Explanation) -> np.ndarray:
    return np.array([explanation.subject.is_wrong(row) for row in range(len(explanation.subject.run.ids))], bool)


def _label(explanation: Explanation) -> np.ndarray:
    """Of images that the network would leave where they are: whether nearly all others there have another label."""
    run, assignment = explanation.subject.run, explanation.subject.clusters.assignment
    found = np.zeros(len(run.ids), bool)
    if run.labels is None or explanation.subject.class_names is not None:
        return found
    for number in np.unique(assignment[assignment >= 0]):
        members = [i for i in np.flatnonzero(assignment == number) if run.labels[i]]  # '' is unknown
        if len(members) < FEWEST:
            continue
        labels = [run.labels[i] for i in members]
        common, count = Counter(labels).most_common(1)[0]
        if count >= PURE * len(members):
            found[members] = [label != common for label in labels]
    return found & (explanation.scores.margin >= 0)


def _unsure(explanation: Explanation) -> np.ndarray:
    return (explanation.scores.probability < UNSURE) & ~disagrees(explanation)


def _far(explanation: Explanation) -> np.ndarray:
    """Whether an image lies beyond Tukey's fence of its cluster's distances: (N,) bool."""
    clusters = explanation.subject.clusters
    found = np.zeros(len(clusters.distance), bool)
    for number in np.unique(clusters.assignment[clusters.assignment >= 0]):
        members = np.flatnonzero((clusters.assignment == number) & np.isfinite(clusters.distance))
        if len(members) >= FEW:
            first, third = np.percentile(clusters.distance[members], [25, 75])
            found[members] = clusters.distance[members] > third + FENCE * (third - first)
    return found


def _empty(explanation: Explanation) -> np.ndarray:
    none = np.zeros(len(explanation.subject.run.ids), bool)
    return explanation.record.empty.get(explanation.heat_key, none)


DOUBTS: tuple[Doubt, ...] = (
    Doubt(
        "no-coin", "no coin found",
        "No coin was found in the photograph, so the network was given all of it: its place may be owed to the ground.",
        _no_coin,
    ),
    Doubt("disagrees", "the network disagrees", "The network itself would choose another cluster.", disagrees),
    Doubt("wrong", "wrong prediction", "The network says something else than the label.", _wrong),
    Doubt(
        "label", "label unlike the cluster's",
        "Most images of its cluster have another label, and the network would leave it there: the label may be wrong, "
        "or the cluster may not be about labels.", _label,
    ),
    Doubt("unsure", "probability below .5", "The network gives its own cluster less than an even chance.", _unsure),
    Doubt(
        "far", "far from the centre",
        "Its distance to the centre is unusual in its cluster (beyond the upper quartile by 1.5 interquartile ranges).",
        _far,
    ),
    Doubt(
        "empty", "empty map",
        "Nothing in the last convolution raises this cluster's score: its map is zero, so there is no picture of why.",
        _empty,
    ),
)  # fmt: skip


def doubts_of(explanation: Explanation) -> dict[str, np.ndarray]:
    """Of each of DOUBTS, by its flag, which of the N images it holds for; none that is in no cluster or gone."""
    there = np.zeros(len(explanation.subject.run.ids), bool)
    there[explanation.subject.pictures.present] = True
    there &= explanation.subject.clusters.assignment >= 0
    return {doubt.flag: doubt.holds(explanation) & there for doubt in DOUBTS}


def doubtful_first(explanation: Explanation, doubts: dict[str, np.ndarray]) -> np.ndarray:
    """Images with any doubt: by their gravest (the order of DOUBTS), then the least likely in their cluster."""
    grave = np.argmax([*doubts.values(), np.ones_like(doubts["disagrees"])], axis=0)
    rows = np.flatnonzero(grave < len(doubts))
    probability = np.nan_to_num(explanation.scores.probability[rows], nan=1.0)
    return rows[np.lexsort((rows, probability, grave[rows]))]
