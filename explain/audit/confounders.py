"""What else could the clusters be? How far they follow what is known of a photograph and is not the coin.

A cluster of coins from one hoard, taken by one photographer on one ground, looks like a discovery and is none. So
before any claim about symbols: the names of the files, folders, camera and day, brightness and sharpness, ground, the
place of the coin, what the painter knows, and the columns of an own table are each held against the clusters (AMI,
beside the same fact dealt out anew), and of each cluster it is told what most of its images share beyond chance.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import hypergeom, random_table
from scipy.stats import t as student
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from console import progress
from explain.audit.facts import KINDS, NO_PREFIX, Values, gather
from explain.audit.findings import SHARED, UNKNOWN, Asked, Finding, Measured, Sample, holm, join_words
from machine.seeds import derive_seed

PART = "confounders"
AMI, WITHIN, HELD = (
    "AMI with the clusters",
    "AMI with the clusters, among images of one label",
    "clusters held together by more than a design",
)
LEVEL = 0.01  # of p, corrected for all that was asked: a set in which nothing is tied is called so 99 times in 100
PERMUTATIONS = 9999  # so that a fact among a hundred can still reach LEVEL
CELLS = 1 << 22  # of tables that are drawn at once
FAINT = 0.05  # AMI below which the clusters hardly follow a fact, however sure that is
FOLDS = 20  # of the jackknife
FIFTHS = ("lowest", "second", "middle", "fourth", "highest")
FEWEST, MOST_OF = 4, 2 / 3  # images of a cluster that share something, and their share, for a sentence
TOLD = 2  # sentences of a cluster, at most
SHUFFLES = 20  # of the clusters, to count how many share something by chance

AGREEMENT = "these are the labels, so this is agreement"


def measure(sample: Sample, asked: Asked) -> Measured:
    """How far the clusters follow each fact, and what holds single clusters together; of all images of the run.

    AMI stands beside the mean of 9,999 times that the fact is dealt out anew among the images; p is how often chance
    alone reaches the value, corrected by Holm's method for the number of facts. Where labels are known the same is
    measured among images of one label, since what belongs to a type follows clusters that know the type. The interval
    is a jackknife's over 20 groups of images.

    A cluster gets a sentence where at least 4 and two thirds of its images share a value and an urn would not give so
    many (hypergeometric tail, corrected by Holm's method for all clusters x values): the two surest, no two about the
    same thing.

    Raises:
        UserError: if asked.table will not do, naming it and the column or line.
    """
    subject = sample.subject
    facts, missing = gather(subject, asked.table)
    assignment = subject.clusters.assignment
    if len(np.unique(assignment[assignment >= 0])) < 2:
        return Measured([], missing=[*missing, f"All images are in one {subject.group}: there is nothing to follow."])
    classes, unusable = _usable(facts, assignment)
    if not classes:
        return Measured([], missing=[*missing, *unusable])
    labels = None if subject.run.labels is None else _Classes.of(subject.run.labels)
    findings = _follow(classes, assignment, labels, subject.group, asked.seed)
    told = {name: own for name, own in classes.items() if labels is None or not own.divides_as(labels, assignment)}
    findings += _hold_together(told, assignment, asked.seed)  # the gallery counts the labels of each cluster anyway
    return Measured(findings, missing=[*missing, *unusable])


def conclude(measured: Measured) -> list[str]:
    """What the figures say, in sentences: which facts the clusters follow, and how many clusters share something."""
    rows = [one for one in measured.findings if one.measure == AMI and AGREEMENT not in one.verdict]
    if not rows:
        return []
    followed = [one for one in rows if one.p < LEVEL and one.value >= FAINT]
    within = {one.of for one in measured.findings if one.measure == WITHIN and one.p < LEVEL and one.value >= FAINT}
    if followed:
        names = [f"{one.of} ({one.value:.2f})" for one in followed]
        said = [f"Of {len(rows)} facts that are no design the clusters follow {join_words(names)}: AMI, 0 is chance."]
        both = [one.of for one in followed if one.of in within]
        if both:
            said.append(f"Among images of one label they still follow {join_words(both)}.")
    else:
        strongest = max(rows, key=lambda one: one.value)
        said = [
            f"The clusters follow none of {len(rows)} facts that are no design: the strongest is {strongest.of} (AMI "
            f"{strongest.value:.2f}, 0 is chance)."
        ]
    for one in measured.findings:
        if one.measure == HELD:
            said.append(f"{one.verdict} By chance it would be {one.control_value:.0%} of them.")
    return said


def classes_of(values: Values) -> list[str]:
    """Texts as they are; numbers in five classes of about as many images each, called by their bounds; '' if unknown.

    Five: enough to tell dark from usual from bright, few enough that already 200 images fill each class with 40, and
    that a cluster in one class by chance is rare. Up to five different numbers are a class each.
    """
    if isinstance(values, list):
        return values
    known = np.isfinite(values)
    distinct = np.unique(values[known])
    if len(distinct) <= len(FIFTHS):
        return [f"{value:.3g}" if ok else "" for value, ok in zip(values, known, strict=True)]
    edges = np.quantile(values[known], np.arange(1, len(FIFTHS)) / len(FIFTHS))
    number = np.searchsorted(edges, values, side="left")  # equal numbers are in one class
    names = {}
    for one in np.unique(number[known]).tolist():
        own = values[known & (number == one)]
        about_a_fifth = abs(len(own) / known.sum() - 1 / len(FIFTHS)) < 1 / 20  # not so where many numbers are equal
        names[one] = f"{own.min():.3g} to {own.max():.3g}" + f", the {FIFTHS[one]} fifth" * bool(about_a_fifth)
    return [names[one] if ok else "" for one, ok in zip(number.tolist(), known, strict=True)]


@dataclass(frozen=True)
class _Classes:
    """A fact of N images: the number of each one's class, -1 where it is not known, and what classes are called."""

    codes: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, texts: list[str]) -> "_Classes":
        names = sorted(set(texts) - {""})
        number = {name: i for i, name in enumerate(names)}
        return cls(np.array([number.get(text, -1) for text in texts], np.int64), names)

    def divides_as(self, other: "_Classes", assignment: np.ndarray) -> bool:
        """Whether the clustered images are divided in the same way, whatever the classes are called."""
        pairs = np.unique(np.stack([self.codes, other.codes])[:, assignment >= 0], axis=1)
        return all(len(np.unique(side)) == pairs.shape[1] for side in pairs)


def _usable(facts: dict[str, Values], assignment: np.ndarray) -> tuple[dict[str, _Classes], list[str]]:
    """Facts that clusters could follow, in classes; and sentences on the others."""
    kept: dict[str, _Classes] = {}
    alike, unique, twice = [], [], []
    for name, values in facts.items():
        own = _Classes.of(classes_of(values))
        known = (own.codes >= 0) & (assignment >= 0)
        sizes = np.bincount(own.codes[known])
        same = next((other for other, there in kept.items() if own.divides_as(there, assignment)), None)
        if not known.any():
            continue  # said where it was looked for
        if (sizes > 0).sum() < 2:
            alike.append(name)
        elif sizes.max() < 2:
            unique.append(name)
        elif same is not None:
            twice.append(f"{name} (as {same})")
        else:
            kept[name] = own
    said = (
        ("The same for all images", alike),
        ("Different for every image", unique),
        ("Told once, being the same division of the images", twice),
    )
    return kept, [f"{what}: {', '.join(names)}." for what, names in said if names]


# --- the clusters as a whole --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Association:
    """AMI of a fact and the clusters."""

    ami: float
    low: float  # 95 % interval, of a jackknife
    high: float
    chance: float  # its mean where the fact is dealt out anew
    p: float
    n: int


def _follow(
    classes: dict[str, _Classes], assignment: np.ndarray, labels: _Classes | None, group: str, seed: int
) -> list[Finding]:
    """How far the clusters follow each fact, the most first; where labels are known, among images of one as well."""
    draws = max(PERMUTATIONS, round(2 * len(classes) / LEVEL))
    overall: dict[str, Association | None] = {}
    within: dict[str, Association] = {}
    for name, own in progress(list(classes.items()), "dealing out facts", unit="facts"):
        known = (own.codes >= 0) & (assignment >= 0)
        one = np.zeros(len(known), np.int64)
        fact_seed = derive_seed(seed, 0, f"{PART} {name}")
        overall[name] = associate(own.codes[known], assignment[known], one[known], fact_seed, draws, jackknife=True)
        if labels is not None:
            known &= labels.codes >= 0
            found = associate(own.codes[known], assignment[known], labels.codes[known], fact_seed, draws)
            within |= {name: found} if found is not None else {}
    measured = {name: one for name, one in overall.items() if one is not None}
    p = dict(zip(measured, holm([one.p for one in measured.values()]), strict=True))
    p_within = dict(zip(within, holm([one.p for one in within.values()]), strict=True))
    findings = []
    for name in sorted(measured, key=lambda name: -measured[name].ami):
        verdict = _verdict(measured[name].ami, p[name], group)
        if labels is not None and p[name] < LEVEL:
            verdict += _beside_labels(classes[name].divides_as(labels, assignment), p_within.get(name))
        findings.append(_row(AMI, name, measured[name], p[name], verdict + ".", draws))
        if name in within:
            said = _verdict(within[name].ami, p_within[name], group) + "."
            findings.append(_row(WITHIN, name, within[name], p_within[name], said, draws))
    return findings


def _row(measured: str, fact: str, found: Association, p: float, verdict: str, draws: int) -> Finding:
    control = f"the fact dealt out anew {draws} times, mean; p corrected for all facts (Holm)"
    return Finding(PART, measured, fact, found.ami, found.low, found.high, found.n, control, found.chance, p, verdict)


def _verdict(ami: float, p: float, group: str) -> str:
    if p >= LEVEL:
        return "No more than chance"
    return f"The {group}s follow it" if ami >= FAINT else "More than chance, but hardly"


def _beside_labels(same: bool, p_within: float | None) -> str:
    if same:
        return f": {AGREEMENT}"
    if p_within is None:
        return "; it is the same for all images of one label, so the two cannot be told apart"
    if p_within < LEVEL:
        return ", also among images of one label: not for the label's sake alone"
    return "; not so among images of one label: it may only go with the label"


def associate(
    values: np.ndarray, clusters: np.ndarray, strata: np.ndarray, seed: int, draws: int, jackknife: bool = False
) -> Association | None:
    """AMI within strata (deepcluster.lift.conditional_ami), beside `draws` tables of the same margins.

    None if there is nothing to tell apart.
    """
    tables = _tables(values, clusters, strata)
    n = len(values)
    scale = _scale(tables, n)
    if scale is None:
        return None
    rng = np.random.default_rng(seed)
    n_log_n = _n_log_n(n)
    value, chance = 0.0, np.zeros(draws)
    for table in tables:
        value += float(n_log_n[table].sum())
        if min(table.shape) < 2:
            chance += float(n_log_n[table].sum())
            continue
        dealt = random_table(table.sum(1), table.sum(0), seed=rng)
        step = max(1, CELLS // table.size)
        for begin in range(0, draws, step):
            some = dealt.rvs(min(step, draws - begin))
            chance[begin : begin + step] += n_log_n[some].reshape(len(some), -1).sum(1)
    ami, by_chance = scale(value), scale(chance)
    p = (1 + (by_chance >= ami - 1e-9).sum()) / (1 + draws)
    low, high = _jackknife(values, clusters, strata, ami, rng) if jackknife else (UNKNOWN, UNKNOWN)
    return Association(float(ami), low, high, float(by_chance.mean()), float(p), n)


def _tables(values: np.ndarray, clusters: np.ndarray, strata: np.ndarray) -> list[np.ndarray]:
    """(classes, clusters) counts of each stratum, of what occurs in it."""
    return [contingency_matrix(values[own], clusters[own]) for own in (strata == one for one in np.unique(strata))]


def _n_log_n(most: int) -> np.ndarray:
    counts = np.arange(most + 1, dtype=np.float64)
    return counts * np.log(np.maximum(counts, 1))


def _scale(tables: list[np.ndarray], n: int) -> Callable[[Any], Any] | None:
    """The sum of n log n over cells -> AMI, which depends on the margins else; None where they leave no room for it."""
    n_log_n = _n_log_n(n)
    rows, columns, whole = (sum(float(n_log_n[table.sum(axis)].sum()) for table in tables) for axis in (1, 0, None))
    expected = 0.0
    for table in tables:
        if min(table.shape) > 1:
            size = int(table.sum())
            expected += size * expected_mutual_information(table, size) / n
    room = (2 * whole - rows - columns) / 2 / n - expected
    if min(whole - rows, whole - columns) < 1e-9 or room <= 1e-12:
        return None
    return lambda cells: ((cells + whole - rows - columns) / n - expected) / room


def _jackknife(
    values: np.ndarray, clusters: np.ndarray, strata: np.ndarray, ami: float, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % interval of an AMI, from its values without each of FOLDS groups of images.

    A bootstrap would draw images twice, which agree with themselves.
    """
    fold = rng.permutation(len(values)) % FOLDS
    without = []
    for one in range(FOLDS):
        tables = _tables(*(part[fold != one] for part in (values, clusters, strata)))
        left = int((fold != one).sum())
        scale = _scale(tables, left)
        if scale is not None:
            without.append(scale(sum(float(_n_log_n(left)[table].sum()) for table in tables)))
    if len(without) < FOLDS:
        return UNKNOWN, UNKNOWN
    error = np.sqrt((FOLDS - 1) * np.var(without)) * student.ppf(0.975, FOLDS - 1)
    return float(ami - error), float(min(1, ami + error))


# --- single clusters ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shared:
    """What more images of a cluster share than chance would give."""

    cluster: int
    fact: str
    value: str
    count: int  # of the cluster's images share it
    size: int  # of the cluster, where the fact is known
    of_all: float  # share of all images that have the value
    p: float  # corrected

    @property
    def sentence(self) -> str:
        kind = KINDS.get(self.fact)
        many = f"All {self.size}" if self.count == self.size else f"{self.count} of {self.size}"
        if self.value == NO_PREFIX:
            says = "have no prefix"
        elif kind is None:
            says = f"share {self.value} as {self.fact}"
        else:
            says = kind.says.format(self.value)
        return f"{many} {says} (of all images {self.of_all:.0%})"


def _hold_together(classes: dict[str, _Classes], assignment: np.ndarray, seed: int) -> list[Finding]:
    """Of the run how many clusters share something, and of each of these what."""
    numbers, sizes = np.unique(assignment[assignment >= 0], return_counts=True)
    tested = int((sizes >= FEWEST).sum())
    if not tested or not classes:
        return []
    shared = _shared(classes, assignment)
    rng = np.random.default_rng(derive_seed(seed, 0, f"{PART} clusters"))
    rows = np.flatnonzero(assignment >= 0)
    by_chance = []
    for _ in range(SHUFFLES):
        dealt = assignment.copy()
        dealt[rows] = assignment[rng.permutation(rows)]
        by_chance.append(len({one.cluster for one in _shared(classes, dealt)}) / tested)
    held = len({one.cluster for one in shared})
    findings = [
        Finding(
            PART, HELD, "", held / tested, n=tested, control=f"clusters dealt out anew {SHUFFLES} times, mean",
            control_value=float(np.mean(by_chance)),
            verdict=f"In {held} of {tested} clusters most images share something other than a design.",
        )
    ]  # fmt: skip
    for number in numbers.tolist():
        abouts: set[str] = set()
        for one in (one for one in shared if one.cluster == number):
            about = KINDS[one.fact].about if one.fact in KINDS else one.fact
            if about in abouts or len(abouts) == TOLD:
                continue
            abouts.add(about)
            findings.append(
                Finding(
                    PART, SHARED, f"cluster {number}", one.count / one.size, n=one.size,
                    control=f"share of all images ({one.fact}); p corrected for all clusters and values (Holm)",
                    control_value=one.of_all, p=one.p, verdict=one.sentence,
                )
            )  # fmt: skip
    return findings


def _shared(classes: dict[str, _Classes], assignment: np.ndarray) -> list[_Shared]:
    """What at least FEWEST and MOST_OF of a cluster's images share beyond chance, the surest first."""
    tests, found, log_p = 0, [], []
    for name, own in classes.items():
        known = (own.codes >= 0) & (assignment >= 0)
        kinds, values = np.unique(own.codes[known], return_inverse=True)
        numbers, clusters = np.unique(assignment[known], return_inverse=True)
        table = np.bincount(values * len(numbers) + clusters, minlength=len(kinds) * len(numbers))
        table = table.reshape(len(kinds), len(numbers))
        of_value, of_cluster, n = table.sum(1), table.sum(0), int(known.sum())
        tests += int((of_value >= FEWEST).sum() * (of_cluster >= FEWEST).sum())  # no others can share anything
        for value, column in np.argwhere((table >= FEWEST) & (table >= MOST_OF * of_cluster)).tolist():
            count, size, total = int(table[value, column]), int(of_cluster[column]), int(of_value[value])
            log_p.append(float(hypergeom.logsf(count - 1, n, total, size)))
            found.append(
                _Shared(int(numbers[column]), name, own.names[int(kinds[value])], count, size, total / n, UNKNOWN)
            )
    corrected = holm(np.maximum(np.exp(log_p), 1e-300).tolist(), tests)
    order = np.argsort(log_p, kind="stable").tolist()
    return [replace(found[i], p=corrected[i]) for i in order if corrected[i] < LEVEL]
