"""What else could the clusters be? How far they follow what is known of a photograph and is not the coin.

A cluster of coins from one hoard, taken by one photographer on one ground, looks like a discovery and is none. So
before any claim about symbols: the names of the files, folders, camera and day, brightness and sharpness, ground, the
place of the coin, what the painter knows, and the columns of an own table are each held against the clusters (AMI,
beside the same fact dealt out anew), and of each cluster it is told what most of its images share beyond chance.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from scipy.ndimage import laplace
from scipy.stats import hypergeom, random_table
from scipy.stats import t as student
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

from console import UserError, plain, progress
from datasets import SOURCES
from datasets.headers import read_header
from datasets.names import take_apart
from datasets.places import Place
from deepcluster.compare import match
from deepcluster.lift import family_of
from explain.audit.findings import UNKNOWN, Asked, Finding, Measured, Sample, join_words
from explain.subject import Subject
from machine.reading import finite_number, read_csv, shown
from machine.seeds import derive_seed

PART = "confounders"
AMI, WITHIN, SHARED, HELD = (
    "AMI with the clusters",
    "AMI with the clusters, among images of one label",
    "share of the cluster's images",
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

SIDE = 128  # pixels of the shorter side at which photographs are measured, at most
COLOURED, GREYISH = 8.0, 12.0  # chroma (CIE Lab) from which a pixel, and a ground, has a hue
COLOURFUL = 0.1  # share of such pixels in a picture that has one
DARK, LIGHT = 25.0, 80.0  # L of a ground that is called black and white
EDGE = 0.1  # radii about the coin that are neither coin nor ground: shadows
ENOUGH = 20  # pixels that a ground is judged by, at least
HUES = ((50, "red"), (80, "orange"), (110, "yellow"), (180, "green"), (225, "cyan"), (315, "blue"), (350, "purple"))

NO_PREFIX = "no prefix"
AGREEMENT = "these are the labels, so this is agreement"
Values = list[str] | np.ndarray  # '' and NaN: not known
Found = TypeVar("Found")


@dataclass(frozen=True)
class Kind:
    """Of a fact."""

    about: str  # facts about the same thing are told once of a cluster
    says: str  # what images do that share a value: "share the prefix {}"


KINDS = {
    "prefix of the name": Kind("name", "share the prefix {}"),
    "series of the name": Kind("name", "are of the series {}"),
    "pattern of the name": Kind("name", "have a name like {}"),
    "hundred of the name": Kind("name", "are numbered {}"),
    "family of the name": Kind("name", "are of the family {}, perhaps cut from one photograph"),
    "folder": Kind("name", "lie in the folder {}"),
    "camera": Kind("camera", "were taken with a {}"),
    "day": Kind("camera", "were taken on {}"),
    "size of the picture": Kind("camera", "have a shorter side, in pixels, of {}"),
    "shape of the picture": Kind("camera", "are, width over height, of {}"),
    "brightness": Kind("light", "have a brightness of {}"),
    "contrast": Kind("light", "have a contrast of {}"),
    "sharpness": Kind("light", "have a sharpness of {}"),
    "hue": Kind("light", "are {} on the whole"),
    "ground": Kind("ground", "lie on {} ground"),
    "share of the ground": Kind("place", "are ground to a share of {}"),
    "place across": Kind("place", "have the coin to the right, in shorter sides, by {}"),
    "place down": Kind("place", "have the coin below the middle, in shorter sides, by {}"),
    "radius": Kind("place", "have a coin whose radius, in shorter sides, is {}"),
    "true ground": Kind("ground", "lie on {}"),
    "true light": Kind("light", "are lit from an angle, in degrees, of {}"),
    "true quality": Kind("light", "are of the quality {}"),
    "true wear": Kind("wear", "have a wear of {}"),
}
TRUTH = {"background": "true ground", "light_degrees": "true light", "quality": "true quality", "wear": "true wear"}


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
    facts, missing = _gather(subject, asked.table)
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


def facts_of(subject: Subject, table: Path | None) -> dict[str, Values]:
    """What is known of each of the run's N photographs and is not the coin.

    Args:
        subject: whose images.
        table: CSV with a column `image` (id, file name, or that without its ending) and others. None: none.

    Returns:
        fact -> N texts, or (N,) float64; '' and NaN where it is not known. Keys of KINDS, and columns of the table.

    Raises:
        UserError: if the table will not do, naming it and the column or line.
    """
    return _gather(subject, table)[0]


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
class _Association:
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
    overall: dict[str, _Association | None] = {}
    within: dict[str, _Association] = {}
    for name, own in progress(list(classes.items()), "dealing out facts", unit="facts"):
        known = (own.codes >= 0) & (assignment >= 0)
        one = np.zeros(len(known), np.int64)
        fact_seed = derive_seed(seed, 0, f"{PART} {name}")
        overall[name] = _associate(own.codes[known], assignment[known], one[known], fact_seed, draws, jackknife=True)
        if labels is not None:
            known &= labels.codes >= 0
            found = _associate(own.codes[known], assignment[known], labels.codes[known], fact_seed, draws)
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


def _row(measured: str, fact: str, found: _Association, p: float, verdict: str, draws: int) -> Finding:
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


def _associate(
    values: np.ndarray, clusters: np.ndarray, strata: np.ndarray, seed: int, draws: int, jackknife: bool = False
) -> _Association | None:
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
    return _Association(float(ami), low, high, float(by_chance.mean()), float(p), n)


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


def holm(p: Sequence[float], tests: int | None = None) -> list[float]:
    """p-values corrected for as many tests (default: their number), by Holm's step-down method.

    Of more tests than values, those left out count as not better than the ones given.
    """
    tests = len(p) if tests is None else tests
    corrected = np.empty(len(p))
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, np.float64)[order] * (tests - np.arange(len(p)))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(p) else steps
    return [float(value) for value in corrected]


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


# --- facts --------------------------------------------------------------------------------------------------------


def _gather(subject: Subject, table: Path | None) -> tuple[dict[str, Values], list[str]]:
    """What `facts_of` gives, and sentences on what is not known."""
    own, missing = ({}, []) if table is None else _own_table(subject.run.ids, table)  # what may be refused, first
    facts: dict[str, Values] = {}
    dataset, present = subject.pictures.dataset, subject.pictures.present
    gone = len(subject.run.ids) - len(present)
    if gone:
        missing.append(f"{gone} of the run's images are not there any more: of these the names alone are known.")
    if dataset.root is None:
        missing.append("These images are no files: they have no names, folders, camera or day.")
    else:
        facts |= _of_names(subject.run.ids)
        heads, silent = _of_headers(subject, dataset.root)
        facts |= heads
        missing += silent
    facts |= _of_pixels(subject)
    kind = dataset.source.partition(":")[0]
    if kind in SOURCES and not SOURCES[kind].coins:
        missing.append("These pictures show no coins: ground and place of the coin are not measured.")
    else:
        places = _of_places(subject)
        lost = int(np.isnan(places["radius"][present]).sum())
        if lost:
            missing.append(f"In {lost} of the photographs no coin was found: their ground and place are not known.")
        facts |= places
    if dataset.truth_of is None:
        missing.append("True ground, light, quality and wear are known of painted coins alone.")
    else:
        facts |= _of_truth(subject)
    return facts | own, missing


def _of_names(ids: list[str]) -> dict[str, Values]:
    names = [take_apart(image) for image in ids]
    return {
        "prefix of the name": [plain(name.prefix) or NO_PREFIX for name in names],
        "series of the name": [plain(name.series) for name in names],
        "pattern of the name": [plain(name.pattern) for name in names],
        "hundred of the name": [plain(name.hundred) for name in names],
        "folder": [plain(image.rpartition("/")[0]) for image in ids],
        "family of the name": [plain(family_of(image)) for image in ids],
    }


def _of_headers(subject: Subject, root: Path) -> tuple[dict[str, Values], list[str]]:
    ids = subject.run.ids
    heads = _each(lambda row: read_header(root / ids[row]), subject.pictures.present, len(ids), "reading heads")
    sides = [UNKNOWN if head is None else float(min(head.width, head.height)) for head in heads]
    shapes = [UNKNOWN if head is None else head.width / head.height for head in heads]
    facts: dict[str, Values] = {
        "camera": ["" if head is None else head.camera for head in heads],
        "day": ["" if head is None else head.day for head in heads],
        "size of the picture": np.array(sides),
        "shape of the picture": np.array(shapes),
    }
    silent = [name for name in ("camera", "day") if not any(facts[name])]
    return facts, [f"No file tells its {' or '.join(silent)} (EXIF)."] if silent else []


def _of_pixels(subject: Subject) -> dict[str, Values]:
    decoded, position = subject.pictures.dataset.decoded, subject.pictures.position
    found = _each(
        lambda row: _looks(decoded[position[row]]), subject.pictures.present, len(position), "brightness and colour"
    )
    numbers = np.array([(UNKNOWN,) * 3 if one is None else one[:3] for one in found])
    return {
        "brightness": numbers[:, 0],
        "contrast": numbers[:, 1],
        "sharpness": numbers[:, 2],
        "hue": ["" if one is None else one[3] for one in found],
    }


def _looks(pixels: np.ndarray) -> tuple[float, float, float, str]:
    """Brightness and contrast (mean and deviation of CIE L, 0 to 100), sharpness and hue of a picture (H, W, 3) uint8.

    Sharpness is the deviation of the Laplacian over that of L, at one size for all.
    """
    lab = _lab(_small(pixels))
    light = lab[..., 0]
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    coloured = chroma > COLOURED
    hue = "grey"
    if coloured.mean() >= COLOURFUL:
        hue = HUES[int(np.bincount(_hues(lab[coloured]), chroma[coloured]).argmax())][1]
    deviation = float(light.std())
    return float(light.mean()), deviation, float(laplace(light).std()) / max(deviation, 0.4), hue


def _of_places(subject: Subject) -> dict[str, np.ndarray | list[str]]:
    pictures = subject.pictures
    decoded, position, places = pictures.dataset.decoded, pictures.position, pictures.dataset.find_places()
    numbers = np.full((len(position), 4), UNKNOWN)
    grounds = [""] * len(position)
    seen = _each(
        lambda row: _ground(decoded[position[row]], places[position[row]]), pictures.present, len(position), "grounds"
    )
    for row in pictures.present.tolist():
        place, ground = places[position[row]], seen[row]
        height, width = (int(side) for side in decoded.shape[position[row]])
        if place.found and ground is not None:
            side = min(height, width)
            across, down = place.x - (width - 1) / 2, place.y - (height - 1) / 2
            numbers[row] = across / side, down / side, place.radius / side, ground[1]
            grounds[row] = ground[0]
    return {
        "ground": grounds,
        "share of the ground": numbers[:, 3],
        "place across": numbers[:, 0],
        "place down": numbers[:, 1],
        "radius": numbers[:, 2],
    }


def _ground(pixels: np.ndarray, place: Place) -> tuple[str, float]:
    """Colour of what is not the coin ('' if hardly anything is), and its share of the picture."""
    coin = place.mask(pixels.shape).astype(np.uint8)
    reach = 2 * max(1, round(EDGE * place.radius)) + 1
    about = cv2.dilate(coin, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    outside = pixels[about == 0]
    share = 1 - float(coin.mean())
    if len(outside) < ENOUGH:
        return "", share
    median = np.median(_lab(outside[None])[0], axis=0)
    if np.hypot(median[1], median[2]) >= GREYISH:
        return HUES[int(_hues(median[None])[0])][1], share
    return "black" if median[0] < DARK else "white" if median[0] > LIGHT else "grey", share


def _hues(lab: np.ndarray) -> np.ndarray:
    """(M, 3) CIE Lab -> (M,) rows of HUES."""
    angle = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    return np.searchsorted([end for end, _ in HUES], angle, side="right") % len(HUES)


def _lab(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(pixels, np.float32) / 255, cv2.COLOR_RGB2Lab)


def _small(pixels: np.ndarray) -> np.ndarray:
    """With SIDE pixels on the shorter side, or as it is where it has fewer."""
    scale = SIDE / min(pixels.shape[:2])
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, (0, 0), fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _of_truth(subject: Subject) -> dict[str, Values]:
    truths: list[dict[str, str]] = [{} for _ in subject.run.ids]
    for row in subject.pictures.present.tolist():
        truths[row] = subject.pictures.dataset.truth(int(subject.pictures.position[row])) or {}
    return {name: _column([truth.get(column, "") for truth in truths]) for column, name in TRUTH.items()}


def _column(cells: list[str]) -> Values:
    """Cells as numbers where all that are filled are some, else as texts."""
    numbers = [finite_number(cell) if cell else UNKNOWN for cell in cells]
    if any(number is None for number in numbers) or not any(cells):
        return cells
    return np.array(numbers, np.float64)


def _own_table(ids: list[str], path: Path) -> tuple[dict[str, Values], list[str]]:
    where = f"--table {path}"
    try:
        rows = read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{where}: no such file: name a CSV with a column image and others") from None
    columns = [name for name in (rows[0] if rows else {}) if name.strip() and name != "image"]
    if not rows or "image" not in rows[0] or not columns:
        raise UserError(f"{where}: needs a row of names, image and at least one other, and rows below, with commas")
    found: dict[int, dict[str, str]] = {}
    unknown = []
    for line, (row, (index, _)) in enumerate(
        zip(rows, match(ids, [(row["image"], "") for row in rows]), strict=True), 2
    ):
        if index is None:
            unknown.append(row["image"])
        elif index in found:
            raise UserError(f"{where}, line {line}: names {shown(row['image'])} a second time: keep one of the rows")
        else:
            found[index] = row
    if not found:
        raise UserError(f"{where}: none of its images is in the run (the first: {shown(rows[0]['image'])})")
    missing = []
    if unknown:
        missing.append(
            f"{len(unknown)} rows of {path.name} name no image of the run, or not a unique one (the first: "
            f"{shown(unknown[0])})."
        )
    cells = {name: [found[i][name].strip() if i in found else "" for i in range(len(ids))] for name in columns}
    return {plain(name).strip() + " (own table)": _column(values) for name, values in cells.items()}, missing


def _each(function: Callable[[int], Found], rows: np.ndarray, count: int, what: str) -> list[Found | None]:
    """`function` of each of `rows`, in a list of `count`; None elsewhere."""
    found: list[Found | None] = [None] * count
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for row, one in zip(rows.tolist(), progress(pool.map(function, rows.tolist()), what, len(rows)), strict=True):
            found[row] = one
    return found
