"""Each cluster in figures, as the overview and its own page show it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from explain.record import MAXIMUM, Explanation, is_there


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

    @property
    def facts(self) -> list[str]:
        """In words, for its card."""
        found = [f"{self.size} image{'' if self.size == 1 else 's'}"]
        if self.jaccard_previous is not None:
            found.append(f"overlap {self.jaccard_previous:.2f}")
        if self.purity is not None:
            found.append(f"{self.purity:.0%} {self.label}")
        return found


def make_cards(explanation: Explanation, rows: Sequence[int]) -> list[Card]:
    """A card for each cluster with images; `rows` are those with pictures."""
    run, clusters, epoch = explanation.subject.run, explanation.subject.clusters, explanation.subject.epoch
    shown = Counter(clusters.assignment[list(rows)].tolist())
    before = None
    if clusters.digest is None and run.has_clusters(epoch - 1):
        before = run.clusters(epoch - 1).assignment
    warm = {int(clusters.assignment[row]) for row in explanation.record.heat}
    found = []
    for number in np.unique(clusters.assignment[clusters.assignment >= 0]).tolist():
        members = np.flatnonzero(clusters.assignment == number)
        label, purity = None, None
        if run.labels is not None:
            [(label, count)] = Counter(run.labels[i] for i in members).most_common(1)
            purity = count / len(members)
        overlap = None if before is None else best_jaccard(members, before)
        name = clusters.names.get(number, "")
        home = explanation.folder / str(number)
        pictures = (number in warm, is_there(home / MAXIMUM), is_there(home / "_sheet.jpg"))
        found.append(Card(number, name, len(members), shown[number], overlap, purity, label, *pictures))
    return found


def best_jaccard(members: np.ndarray, before: np.ndarray) -> float:
    """Clusterwise stability (Hennig 2007): the largest overlap with a cluster of `before`, intersection over union."""
    overlap = np.bincount(before[members])
    sizes = np.bincount(before, minlength=len(overlap))[: len(overlap)]
    return float((overlap / (len(members) + sizes - overlap)).max())
