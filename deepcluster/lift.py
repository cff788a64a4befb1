"""Whether clusters follow a label once something else is held fixed: lift, conditional AMI, nearest neighbours.

Metal, size and photographer follow the type of a coin, so clusters that know those agree with its label and still see
no design. So coins are compared within a *stratum*, in which such a thing is the same for all (a metal, a folder).

Each figure comes with what it would be if the labels said nothing: they are dealt out anew within each stratum, many
times (a permutation test).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 999
INTERVAL = (0.025, 0.975)
NEIGHBOURS = 5
NEARER = 0.01  # weight of a vote that decides a tie for the nearer neighbours
CHUNK = 1 << 23  # distances held at once
NUMBERED = re.compile(r"(.*\d)\D+\d+$")  # train_12_3: the third of train_12


@dataclass(frozen=True)
class Estimate:
    """A figure beside its distribution under labels that say nothing."""

    value: float
    low: float  # 2.5 % of that distribution
    high: float  # 97.5 %
    p: float  # how often chance alone reaches the value

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def lift(labels: np.ndarray, assignment: np.ndarray, strata: np.ndarray) -> float:
    """Of pairs within one stratum: how much likelier two of one label share a cluster than two of different labels.

    1 is blind. Infinite if none of different labels do, NaN if there are no pairs to compare.

    Args:
        labels: (N,) of anything that sorts, as the two others.
        assignment: (N,) clusters.
        strata: (N,) what is held fixed.
    """
    return _lift(_Counts.of(labels, assignment, strata))


def conditional_ami(labels: np.ndarray, assignment: np.ndarray, strata: np.ndarray) -> float:
    """Mutual information of labels and clusters given the stratum, adjusted for chance: 0 is chance, 1 at most.

    (I - E) / (mean of H(labels | stratum) and H(clusters | stratum) - E), where E is the mean of I over all ways of
    dealing out the labels within each stratum. With one stratum this is the AMI (Vinh, Epps & Bailey 2010). NaN if
    there is nothing to tell apart.
    """
    counts = _Counts.of(labels, assignment, strata)
    return _conditional_ami(counts, _expected_information(counts))


def neighbour_accuracy(
    features: np.ndarray, labels: np.ndarray, families: np.ndarray | None = None, count: int = NEIGHBOURS
) -> float:
    """Share of images whose label most of their nearest others have (leave-one-out), by Euclidean distance.

    Args:
        features: (N, d).
        labels: (N,).
        families: (N,) images of one family do not vote for each other: they may be alike for what made them (one
            photograph). None: all may.
        count: of neighbours. Of as many votes, those of the nearer ones win.
    """
    codes = np.unique(labels, return_inverse=True)[1]
    return _vote(nearest(features, families, count), codes)


def base_rate(labels: np.ndarray, strata: np.ndarray) -> float:
    """Share of images that have the commonest label of their stratum: what a guess reaches that knows the stratum."""
    from sklearn.metrics.cluster import contingency_matrix

    return float(contingency_matrix(strata, labels).max(1).sum() / len(labels))


def nearest(features: np.ndarray, families: np.ndarray | None, count: int) -> np.ndarray:
    """The `count` nearest other images of each, nearest first: (N, count) int64; -1 where there are no more."""
    x = features.astype(np.float64)
    n, square = len(x), (x**2).sum(1)
    count = min(count, n)
    own = np.arange(n) if families is None else np.unique(families, return_inverse=True)[1]
    found = np.empty((n, count), np.int64)
    for begin in range(0, n, max(1, CHUNK // n)):
        rows = slice(begin, begin + max(1, CHUNK // n))
        distance = square[rows, None] + square - 2 * x[rows] @ x.T
        distance[own[rows, None] == own] = np.inf
        order = np.argsort(distance, 1, kind="stable")[:, :count]
        found[rows] = np.where(np.isinf(np.take_along_axis(distance, order, 1)), -1, order)
    return found


def family_of(image: str, pattern: str | None = None) -> str:
    """What tells that images come from one photograph: folder and name up to the last but one number.

    `10c/train_12_3.jpg` is of the family `10c/train_12`; a name without a number after another is its own family.

    Args:
        image: id of the image.
        pattern: regular expression, looked for in the id: its first group, or all that it matches, is the family.
    """
    if pattern is not None:
        match = re.search(pattern, image)
        return image if match is None else (match[1] or "" if match.re.groups else match[0])
    stem = re.sub(r"\.[^./]*$", "", image)
    folder, _, name = stem.rpartition("/")
    numbered = NUMBERED.match(name)
    return image if numbered is None else f"{folder}/{numbered[1]}"


def estimate_lift(
    labels: np.ndarray, assignment: np.ndarray, strata: np.ndarray, seed: int, permutations: int = PERMUTATIONS
) -> Estimate:
    """`lift`, beside what it is for labels that say nothing."""
    counts = _Counts.of(labels, assignment, strata)
    return _estimate(_lift, counts, seed, permutations)


def estimate_ami(
    labels: np.ndarray, assignment: np.ndarray, strata: np.ndarray, seed: int, permutations: int = PERMUTATIONS
) -> Estimate:
    """`conditional_ami`, beside what it is for labels that say nothing."""
    counts = _Counts.of(labels, assignment, strata)
    expected = _expected_information(counts)
    return _estimate(lambda dealt: _conditional_ami(dealt, expected), counts, seed, permutations)


def estimate_accuracy(
    features: np.ndarray,
    labels: np.ndarray,
    strata: np.ndarray,
    families: np.ndarray | None,
    seed: int,
    permutations: int = PERMUTATIONS,
) -> Estimate:
    """`neighbour_accuracy` of the 5 nearest, beside what it is for labels that say nothing."""
    near = nearest(features, families, NEIGHBOURS)
    counts = _Counts.of(labels, np.zeros(len(labels)), strata)
    return _estimate(lambda dealt: _vote(near, dealt.labels), counts, seed, permutations)


@dataclass(frozen=True)
class _Counts:
    """N images by label, cluster and stratum, each numbered from 0."""

    labels: np.ndarray
    assignment: np.ndarray
    strata: np.ndarray

    @classmethod
    def of(cls, labels: np.ndarray, assignment: np.ndarray, strata: np.ndarray) -> "_Counts":
        return cls(*(np.unique(values, return_inverse=True)[1] for values in (labels, assignment, strata)))

    def cells(self, label: bool, cluster: bool) -> np.ndarray:
        """Sizes of the cells that are not empty: by stratum, and within it by label, cluster or both."""
        code = self.strata.astype(np.int64)
        for values, wanted in ((self.labels, label), (self.assignment, cluster)):
            if wanted:
                code = code * (int(values.max()) + 1) + values
        return np.unique(code, return_counts=True)[1]

    def dealt(self, rng: np.random.Generator) -> "_Counts":
        """The labels dealt out anew within each stratum."""
        places = np.argsort(self.strata, kind="stable")
        labels = np.empty_like(self.labels)
        labels[places] = self.labels[np.lexsort((rng.random(len(labels)), self.strata))]
        return _Counts(labels, self.assignment, self.strata)


def _estimate(figure: Callable[[_Counts], float], counts: _Counts, seed: int, permutations: int) -> Estimate:
    rng = np.random.default_rng(seed)
    value = figure(counts)
    chance = np.array([figure(counts.dealt(rng)) for _ in range(permutations)])
    chance = chance[~np.isnan(chance)]
    if np.isnan(value) or not len(chance):
        return Estimate(value, np.nan, np.nan, np.nan)
    low, high = (float(np.quantile(chance, share, method="inverted_cdf")) for share in INTERVAL)
    return Estimate(value, low, high, float((1 + (chance >= value).sum()) / (1 + len(chance))))


def _lift(counts: _Counts) -> float:
    alike, together, both = (_pairs(counts.cells(*kinds)) for kinds in ((True, False), (False, True), (True, True)))
    different = _pairs(counts.cells(False, False)) - alike
    if not alike or not different or not together:
        return np.nan
    apart = (together - both) / different
    return float(both / alike / apart) if apart else np.inf


def _pairs(sizes: np.ndarray) -> int:
    """Pairs within the cells: n choose 2, summed."""
    return int((sizes * (sizes - 1) // 2).sum())


def _conditional_ami(counts: _Counts, expected: float) -> float:
    stratum = _n_log_n(counts.cells(False, False))
    label, cluster = _n_log_n(counts.cells(True, False)), _n_log_n(counts.cells(False, True))
    n = len(counts.labels)
    information = (_n_log_n(counts.cells(True, True)) + stratum - label - cluster) / n
    room = (2 * stratum - label - cluster) / 2 / n - expected
    return float((information - expected) / room) if room > 1e-12 else np.nan


def _n_log_n(sizes: np.ndarray) -> float:
    return float((sizes * np.log(sizes)).sum())


def _expected_information(counts: _Counts) -> float:
    """Mean over all ways of dealing out the labels, of the mutual information given the stratum, in nats."""
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    total = 0.0
    for stratum in range(int(counts.strata.max()) + 1):
        own = counts.strata == stratum
        size = int(own.sum())
        table = contingency_matrix(counts.labels[own], counts.assignment[own], sparse=True)
        if min(table.shape) > 1:
            total += size * expected_mutual_information(table, size)
    return total / len(counts.labels)


def _vote(near: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that have the label most of their `near` (N, count) have; labels are numbered from 0."""
    votes = np.zeros((len(labels), int(labels.max()) + 1))
    rows = np.arange(len(labels))
    for place in range(near.shape[1]):
        there = near[:, place] >= 0
        weight = 1 + NEARER * (near.shape[1] - place)
        votes[rows[there], labels[near[there, place]]] += weight
    return float(((votes.argmax(1) == labels) & (votes.max(1) > 0)).mean())
