"""What the flips say: shares, rates, maps and confusion per class, votes; the study's findings, held against ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.stats import spearmanr

from explain.flipping.study import Changes
from supervised.evaluate import accuracy_interval, vote

STUDY_NAME = "the study, net A, training images"
STUDY = (0.031, 0.956, 0.013)  # wrong, robust, changed
REGION = 5  # pixels of a side of what we call a region
TOLD = 12  # classes of which a finding tells the hottest region
SHARE, TIMES, FEW = (
    0.5,
    2.0,
    5,
)  # a hot one: this share of the changed images, so many times the mean region, so many images
ALIKE = 0.648  # rank correlation of ten values that chance exceeds in 5 % of cases (two-sided)
LOWER = 0.75  # of the height: where the lower edge begins


@dataclass(frozen=True)
class Study:
    """One network's, or vote's, flips of images whose right answers are known."""

    title: str  # A: exp-a
    letter: str
    changes: Changes
    right: np.ndarray  # (N,) the right answers
    classes: int
    grid: tuple[int, int]  # blocks down and across

    @cached_property
    def is_right(self) -> np.ndarray:
        """(N,) bool, of the images as they are."""
        return self.changes.answers == self.right

    @cached_property
    def counts(self) -> np.ndarray:
        """(M,) bool, the changes of images that were right."""
        return self.is_right[self.changes.image]

    @cached_property
    def is_changed(self) -> np.ndarray:
        """(N,) bool: right, but changed by at least one flip."""
        found = np.zeros(len(self.right), bool)
        found[self.changes.image[self.counts]] = True
        return found

    @property
    def shares(self) -> tuple[float, float, float]:
        """Wrong from the outset; right and robust; right, but changed by at least one flip."""
        wrong, changed = float((~self.is_right).mean()), float(self.is_changed.mean())
        return wrong, 1 - wrong - changed, changed

    @cached_property
    def per_class(self) -> np.ndarray:
        """(classes, 2) int: of each class's images, those that are right, and those of them that a flip changes."""
        rows = [np.bincount(self.right[which], minlength=self.classes) for which in (self.is_right, self.is_changed)]
        return np.stack(rows, 1)

    @property
    def rates(self) -> np.ndarray:
        """(classes,) instability: the share of a class's right images that a flip changes; NaN where none is right."""
        right, changed = self.per_class.T
        return np.where(right > 0, changed / np.maximum(right, 1), np.nan)

    def intervals(self) -> list[tuple[float, float]]:
        """95 % of each rate."""
        return [accuracy_interval(int(c), int(n)) if n else (np.nan, np.nan) for n, c in self.per_class]

    @cached_property
    def hits(self) -> np.ndarray:
        """(classes, down, across) int: how many of a class's right images this flip changes."""
        found = np.zeros((self.classes, int(np.prod(self.grid))), np.int64)
        np.add.at(found, (self.right[self.changes.image[self.counts]], self.changes.flip[self.counts]), 1)
        return found.reshape(self.classes, *self.grid)

    def heat(self) -> np.ndarray:
        """(classes, down, across): the share of a class's right images that this flip changes."""
        return self.hits / np.maximum(self.per_class[:, :1, None], 1)

    def heat_of_all(self) -> np.ndarray:
        """(down, across): the same of all right images."""
        return self.hits.sum(0) / max(1, int(self.is_right.sum()))

    @cached_property
    def confusion(self) -> np.ndarray:
        """(classes, classes) int: flips of right images of a class (row) to another (column)."""
        found = np.zeros((self.classes, self.classes), np.int64)
        np.add.at(found, (self.right[self.changes.image[self.counts]], self.changes.becomes[self.counts]), 1)
        return found

    def commonest(self) -> np.ndarray:
        """(classes, down, across): what this flip makes of a class's images most often; -1 where it changes none."""
        found = np.full((self.classes, int(np.prod(self.grid))), -1)
        own = self.right[self.changes.image]
        for number in range(self.classes):
            mine = self.counts & (own == number)
            counted = np.zeros((found.shape[1], self.classes), np.int64)
            np.add.at(counted, (self.changes.flip[mine], self.changes.becomes[mine]), 1)
            found[number] = np.where(counted.any(1), counted.argmax(1), -1)
        return found.reshape(self.classes, *self.grid)


# --- votes ---


def vote_studies(studies: Sequence[Study], precision: np.ndarray | None) -> list[Study]:
    """The flip study of votes of at least three networks: majority, by precision, by 1 - instability.

    A flip is put to all of them, and the vote is taken again. Where no network changes, no vote does.

    Args:
        studies: of the same images.
        precision: (M, classes) on validation images, if known.
    """
    answers = np.stack([study.changes.answers for study in studies])  # (M, N)
    blocks = int(np.prod(studies[0].grid))
    keys = [study.changes.image.astype(np.int64) * blocks + study.changes.flip for study in studies]
    every = np.unique(np.concatenate(keys))
    image, flip = every // blocks, every % blocks
    flipped = answers[:, image]  # (M, U)
    for row, (study, key) in enumerate(zip(studies, keys, strict=True)):
        flipped[row, np.searchsorted(every, key)] = study.changes.becomes
    steady = np.stack([1 - np.nan_to_num(study.rates, nan=1.0) for study in studies])
    weights = {"majority": np.ones_like(steady), "by precision": precision, "by 1 - instability": steady}
    found = []
    for name, weight in weights.items():
        if weight is None:
            continue
        before, after = vote(answers, weight), vote(flipped, weight)
        moved = after != before[image]
        changes = Changes(
            before.astype(np.int16),
            image[moved].astype(np.int32),
            flip[moved].astype(np.int32),
            after[moved].astype(np.int16),
            np.zeros(int(moved.sum()), np.float32),
        )
        first = studies[0]
        found.append(Study(f"vote, {name}", name, changes, first.right, first.classes, first.grid))
    return found


# --- the findings of the study ---


@dataclass(frozen=True)
class Finding:
    """What the study found, and whether we do."""

    claim: str
    holds: bool | None  # None: cannot be told
    measured: str


def list_findings(studies: Sequence[Study], names: Sequence[str], is_digits: bool) -> list[Finding]:
    """The study's findings for each network, and for each other one beside the first."""
    found = []
    for study in studies:
        found += digit_findings(study, names) if is_digits else []
        found.append(hot_regions(study, names))
    for other in studies[1:]:
        found += [maps_alike(studies[0], other), bars_differ(studies[0], other)]
    return found


def digit_findings(study: Study, names: Sequence[str]) -> list[Finding]:
    """About 0 and 1, 8 and 9, and the 4 that becomes a 9."""
    rates, changed = study.rates, study.per_class[:, 1]
    order = np.argsort(np.nan_to_num(rates, nan=-1.0), kind="stable")
    told = ", ".join(f"{names[i]} {rates[i]:.2%}" for i in order[::-1])
    known = bool(changed.sum())
    least, most = {int(i) for i in order[:2]}, {int(i) for i in order[-2:]}
    own = study.right[study.changes.image]
    row = study.changes.flip // study.grid[1]
    low = study.counts & (own == 4) & (row >= LOWER * study.grid[0])
    to = np.bincount(study.changes.becomes[low], minlength=study.classes)
    lower = f"{int(low.sum())} flips of a 4 in the lower quarter change it, {int(to[9])} of them to 9"
    return [
        Finding(f"{study.letter}: 0 and 1 change least", least == {0, 1} if known else None, told),
        Finding(f"{study.letter}: 8 and 9 change most", most == {8, 9} if known else None, told),
        Finding(f"{study.letter}: 4 becomes 9 at the lower edge", int(to.argmax()) == 9 if low.any() else None, lower),
    ]


def hot_regions(study: Study, names: Sequence[str]) -> Finding:
    """Nearly every class that changes has a hot region of 5 x 5 flips: it alone changes half of its changed images.

    It must be twice as many as in the mean region, and five at least.
    """
    hot, told = 0, []
    own = study.right[study.changes.image]
    changing = np.unique(own[study.counts])
    for number in changing:
        mine = study.counts & (own == number)
        images, row = np.unique(study.changes.image[mine], return_inverse=True)
        marks = np.zeros((len(images), study.grid[0] * study.grid[1]), np.float32)
        marks[row, study.changes.flip[mine]] = 1
        near = uniform_filter(marks.reshape(-1, *study.grid), (0, REGION, REGION), mode="constant") > 1e-6
        shared = near.sum(0)  # images that a flip in the region about this one changes
        most, mean = int(shared.max()), float(shared.mean())
        is_hot = most >= max(FEW, SHARE * len(marks), TIMES * mean)
        hot += bool(is_hot)
        told.append(f"{names[number]} {most} of {len(marks)} (mean {mean:.1f})")
    told = told[:TOLD] + ([f"and {len(told) - TOLD} more"] if len(told) > TOLD else [])
    measured = f"{hot} of {len(changing)} that change; images changed in the hottest region: {', '.join(told)}"
    if not study.counts.any():
        return Finding(f"{study.letter}: nearly every class has a hot region", None, measured)
    return Finding(f"{study.letter}: nearly every class has a hot region", hot >= 0.9 * len(changing), measured)


def maps_alike(first: Study, other: Study) -> Finding:
    """The maps of one class in two networks are more alike than those of different classes."""
    table = map_correlations(first, other)
    claim = f"{first.letter} and {other.letter}: their heat maps are alike"
    same = np.diag(table)
    different = table[~np.eye(len(table), dtype=bool)]
    if np.isnan(same).all() or np.isnan(different).all():
        return Finding(claim, None, "too few flips for a rank correlation")
    a, b = float(np.nanmean(same)), float(np.nanmean(different))
    rows = np.array([same[i] > np.nanmean(np.delete(table[i], i)) for i in range(len(table))])
    told = ", ".join(f"{value:.2f}" for value in same)
    measured = (
        f"mean rank correlation of the same class {a:.2f} ({told}), of different classes {b:.2f}; higher in "
        f"{int(rows.sum())} of {len(rows)} classes"
    )
    return Finding(claim, bool(a > b and rows.mean() >= 0.8), measured)


def map_correlations(first: Study, other: Study) -> np.ndarray:
    """(classes, classes) rank correlation of the maps of both, in means over 3 x 3 flips; NaN: an empty map."""
    smooth = [
        uniform_filter(study.heat(), (0, 3, 3), mode="constant").reshape(study.classes, -1) for study in (first, other)
    ]
    found = np.full((first.classes, other.classes), np.nan)
    for i, a in enumerate(smooth[0]):
        for j, b in enumerate(smooth[1]):
            if np.ptp(a) > 0 and np.ptp(b) > 0:
                found[i, j] = spearmanr(a, b).statistic
    return found


def bars_differ(first: Study, other: Study) -> Finding:
    """The rates per class do not come in the same order."""
    claim = f"{first.letter} and {other.letter}: their bars per class differ"
    known = ~(np.isnan(first.rates) | np.isnan(other.rates))
    if known.sum() < 3 or np.ptp(first.rates[known]) == 0 or np.ptp(other.rates[known]) == 0:
        return Finding(claim, None, "too few flips for a rank correlation")
    value = float(spearmanr(first.rates[known], other.rates[known]).statistic)
    return Finding(
        claim, value < ALIKE, f"rank correlation of the {int(known.sum())} rates {value:.2f} (alike from {ALIKE:g})"
    )
