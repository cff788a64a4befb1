"""Each cluster in figures, as the overview and its own page show it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from explain.record import MAXIMUM, Explanation, is_there
from explain.scores import nearest_clusters

NEIGHBOURS = 3
MOSTLY = 0.5  # share of empty maps above which a cluster's heat says nothing


@dataclass(frozen=True)
class Card:
    """A cluster as the overview shows it."""

    number: int
    name: str
    size: int
    shown: int  # images with pictures
    jaccard_previous: float | None  # largest overlap with a cluster of the epoch before
    purity: float | None
    label: str | None  # the most frequent one
    mean_heat: bool
    maximum: bool  # whether `maximise` made its picture
    pictured: bool  # whether there is a mean and a sheet: not if its images were gone before it was explained
    doubtful: int  # images that the network would put elsewhere
    heats: int  # summary maps that were drawn
    empty: int  # of them, those that are zero everywhere
    nearest: list[int]  # other clusters with images, the nearest first
    rivals: list[
        tuple[int, int]
    ]  # second choices of the network for its images: cluster, images; the most frequent first

    @property
    def facts(self) -> list[str]:
        """In words, for its card."""
        return [f"{self.size} image{'' if self.size == 1 else 's'}"]

    @property
    def doubtful_share(self) -> float:
        return self.doubtful / self.size

    @property
    def empty_share(self) -> float:
        return self.empty / self.heats if self.heats else 0.0

    @property
    def silent(self) -> bool:
        """Whether its summary map says nothing for most of its images."""
        return self.heats > 0 and self.empty_share > MOSTLY

    @property
    def trouble(self) -> float:
        """What "worst first" sorts by: the share of doubtful images and that of empty maps, added."""
        return self.doubtful_share + self.empty_share


def make_cards(explanation: Explanation, rows: Sequence[int], doubts: Mapping[str, np.ndarray]) -> list[Card]:
    """A card for each cluster with images; `rows` are those with pictures, `doubts` as of `doubts_of`."""
    run, clusters, epoch = explanation.subject.run, explanation.subject.clusters, explanation.subject.epoch
    scores, record = explanation.scores, explanation.record
    shown = Counter(clusters.assignment[list(rows)].tolist())
    before = None
    if clusters.digest is None and run.has_clusters(epoch - 1):
        before = run.clusters(epoch - 1).assignment
    warm = {int(clusters.assignment[row]) for row in record.heat}
    none = np.zeros(len(run.ids), bool)
    done, empty = record.done.get(explanation.heat_key, none), record.empty.get(explanation.heat_key, none)
    doubtful = doubts["wrong" if explanation.subject.class_names is not None else "disagrees"]
    near = nearest_clusters(scores.centres, NEIGHBOURS)
    found = []
    for number in np.unique(clusters.assignment[clusters.assignment >= 0]).tolist():
        members = np.flatnonzero(clusters.assignment == number)
        label, purity = None, None
        if run.labels is not None:
            [(label, count)] = Counter(run.labels[i] for i in members).most_common(1)
            purity = count / len(members)
        rivals = Counter(scores.rival[members][scores.rival[members] >= 0].tolist())
        found.append(
            Card(
                number=number,
                name=clusters.names.get(number, ""),
                size=len(members),
                shown=shown[number],
                jaccard_previous=None if before is None else best_jaccard(members, before),
                purity=purity,
                label=label,
                mean_heat=number in warm,
                maximum=is_there(explanation.folder / str(number) / MAXIMUM),
                pictured=is_there(explanation.folder / str(number) / "_sheet.jpg"),
                doubtful=int(doubtful[members].sum()),
                heats=int(done[members].sum()),
                empty=int((done & empty)[members].sum()),
                nearest=[clusters.numbers[column] for column in near[int(clusters.column_of(number))]],
                rivals=rivals.most_common(NEIGHBOURS),
            )
        )
    return found


def best_jaccard(members: np.ndarray, before: np.ndarray) -> float:
    """Clusterwise stability (Hennig 2007): the largest overlap with a cluster of `before`, intersection over union."""
    overlap = np.bincount(before[members])
    sizes = np.bincount(before, minlength=len(overlap))[: len(overlap)]
    return float((overlap / (len(members) + sizes - overlap)).max())
