"""What the audit found: rows of audit.csv, and curves to draw.

Each part of the audit is a module with `measure(sample: Sample, asked: Asked) -> Measured`, and
`conclude(measured: Measured) -> list[str]`: what that says, in sentences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from scipy.special import ndtri, stdtrit  # quantiles of the normal and of Student's: scipy.stats loads for a second

from explain.attribution import Asked as Method
from explain.scores import Scores
from explain.subject import Subject
from machine.files import harmless, write_csv
from machine.reading import Damaged, read_json, typed

SHARED = "share of the cluster's images"  # the measure of what ties a single cluster together
TAUGHT_OTHERS = "{} of a network taught other clusters"  # a measure, by likeness
DECIDES = "rank correlation, absolute maps"  # the likeness that the gallery repeats
FOLDER, TABLE, SAID = "audit", "audit.csv", "said.json"  # in an epoch's results
ENOUGH = 8  # values for an interval: of fewer a bootstrap knows nothing
BOOTSTRAPS = 1000
INTERVAL = (0.025, 0.975)
UNKNOWN = float("nan")
LEVEL = 0.05  # of chance, over all verdicts of an audit together
FLIPS = 9999  # of signs, for a p
BETTER, TOO_FEW = "better than every control", "too few images to tell"  # verdicts
BY_LUCK = "better than every control, though among so many verdicts that may be luck"


@dataclass(frozen=True)
class Asked:
    """What an audit was asked for."""

    methods: tuple[Method, ...]  # whose maps are measured
    images: int  # of the sample, at most
    seed: int
    table: Path | None = None  # columns of an own table: image, mint, weight, ...
    against: tuple[Path, ...] = ()  # other runs on the same images
    shuffled: int = 12  # epochs at most in which a network learns shuffled clusters; 0: none does


@dataclass(frozen=True)
class Sample:
    """The images that maps are measured on, drawn evenly from those that are there."""

    subject: Subject
    scores: Scores  # of all images of the run
    rows: np.ndarray  # (n,) of the run, ascending; each has a cluster
    folder: Path | None = None  # of the audit; a part that keeps nothing to go on from needs none


@dataclass(frozen=True)
class Finding:
    """One figure beside what it is held against: a row of audit.csv."""

    part: str  # of the audit
    measure: str  # "AMI with the clusters", "deletion", ...
    of: str  # the method, fact, claim or cluster ("cluster 7") it is about; "" of the run
    value: float
    low: float = UNKNOWN  # 95 % interval
    high: float = UNKNOWN
    n: int = 0  # images, pairs or clusters that it is a figure of
    control: str = ""  # what it is held against, in words
    control_value: float = UNKNOWN
    p: float = UNKNOWN  # of chance alone
    verdict: str = ""  # what that says, in words; "" if nothing by itself


@dataclass(frozen=True)
class Figure:
    """Lines in one pair of axes."""

    title: str
    across: str  # what is along the axes
    up: str
    lines: dict[str, tuple[list[float], list[float]]]  # name -> x, y


@dataclass(frozen=True)
class Measured:
    """Of one part."""

    findings: list[Finding]
    figures: dict[str, Figure] = field(default_factory=dict)  # name of the file, without its ending
    missing: list[str] = field(default_factory=list)  # what could not be measured, and why: sentences
    seconds: float = 0.0  # that measuring took


@dataclass(frozen=True)
class Said:
    """What the gallery repeats of an audit: said.json."""

    parts: dict[str, list[str]]  # title -> what the part concludes
    groups: dict[str, list[str]]  # number of a cluster -> what ties it together besides the coin
    methods: dict[str, list[str]]  # title -> verdicts beside the controls


def what_is_said(findings: Sequence[Finding], concluded: dict[str, list[str]]) -> Said:
    """Of each cluster and method the verdicts about it alone."""
    groups: dict[str, list[str]] = {}
    methods: dict[str, list[str]] = {}
    for one in findings:
        kind, _, number = one.of.rpartition(" ")
        if one.measure == SHARED and kind and number.isdecimal() and one.verdict:  # an own column may be "find 7"
            groups.setdefault(number, []).append(one.verdict)
        elif one.verdict and (
            one.part in ("localisation", "faithfulness") or one.measure == TAUGHT_OTHERS.format(DECIDES)
        ):
            methods.setdefault(one.of, []).append(f"{one.measure}: {one.verdict}")
    return Said(concluded, groups, methods)


def read_said(folder: Path) -> Said | None:
    """Of the audit in `folder`; None where there is none."""
    path = folder / SAID
    try:
        found: Said = typed(Said, read_json(path, ""), path, "")
    except (FileNotFoundError, Damaged):
        return None
    return found


def join_words(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def write_findings(folder: Path, findings: Sequence[Finding]) -> None:
    """audit.csv."""
    rows = [{name: _cell(value) for name, value in asdict(one).items()} for one in findings]
    write_csv(folder / TABLE, rows, [one.name for one in fields(Finding)])


def _cell(value: str | float | int) -> str | int:
    if isinstance(value, str):
        return harmless(value)  # an own column's name may be what a spreadsheet computes
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if np.isfinite(value) else ""


def mean_of(values: Sequence[float] | np.ndarray, seed: int) -> tuple[float, float, float, int]:
    """Mean of the finite values, its 95 % interval, and their number.

    The interval is a percentile bootstrap's, widened by the root of n / (n - 1) and by Student's quantile over the
    normal's, without which it is too narrow for few values (Hesterberg 2015, section 3.2). Of fewer than ENOUGH there
    is none.
    """
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    count = len(known)
    if not count:
        return UNKNOWN, UNKNOWN, UNKNOWN, 0
    mean = float(known.mean())
    if count < ENOUGH:
        return mean, UNKNOWN, UNKNOWN, count
    draws = np.random.default_rng(seed).integers(0, count, (BOOTSTRAPS, count))
    low, high = np.quantile(known[draws].mean(1), INTERVAL)
    wider = np.sqrt(count / (count - 1)) * stdtrit(count - 1, INTERVAL[1]) / ndtri(INTERVAL[1])
    return mean, float(mean - wider * (mean - low)), float(mean + wider * (high - mean)), count


def share_of(successes: Sequence[float] | np.ndarray) -> tuple[float, float, float, int]:
    """Share of ones among values 0 and 1, its 95 % interval (Wilson 1927), and their number; NaN is left out."""
    known = np.asarray(successes, np.float64)
    known = known[np.isfinite(known)]
    count = len(known)
    if not count:
        return UNKNOWN, UNKNOWN, UNKNOWN, 0
    share, z = float(known.mean()), ndtri(INTERVAL[1])
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return share, float(max(0, middle - half)), float(min(1, middle + half)), count


def p_of_sign(differences: np.ndarray, seed: int) -> float:
    """How often a mean at least so large comes of differences whose signs are chance (one-sided)."""
    known = differences[np.isfinite(differences)]
    if len(known) < ENOUGH:
        return UNKNOWN
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (FLIPS, len(known)))
    return float((1 + ((signs * known).mean(1) >= known.mean() - 1e-12).sum()) / (1 + FLIPS))


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


@dataclass(frozen=True)
class Beside:
    """What a figure is held against: the control that decides, and what it says."""

    name: str
    value: float
    verdict: str
    better: bool | None  # than every control; None: cannot be told
    p: float = UNKNOWN  # of the control that is hardest to tell from it: how often chance alone is as far above it


def compare_with(
    values: np.ndarray, controls: Mapping[str, np.ndarray], seed: int, higher_is_better: bool = True
) -> Beside:
    """A method's values (n,) against each control's on the same images: paired differences, bootstrapped.

    It is better than a control if the 95 % interval of the mean difference, over images on which both are known, lies
    above 0 (below, where lower is better). To be better than every control is one test (an intersection of tests, each
    at its own level, its p the largest of theirs); the control that is named is the strongest of those it is worse
    than, else of those it is not better than, else of all.
    """
    sign = 1 if higher_is_better else -1
    means = {name: float(np.nanmean(one)) for name, one in controls.items() if np.isfinite(one).any()}
    if not means:
        return Beside("", UNKNOWN, "", None)
    sides = {name: mean_of(sign * (values - controls[name]), seed) for name in means}  # mean, low, high, n
    if not all(np.isfinite(low) for _, low, _, _ in sides.values()):
        strongest = max(means, key=lambda name: sign * means[name])
        return Beside(strongest, means[strongest], TOO_FEW, None)
    worse = [name for name, (_, _, high, _) in sides.items() if high < 0]
    level = [name for name, (_, low, _, _) in sides.items() if low <= 0]
    named = max(worse or level or means, key=lambda name: sign * means[name])
    verdict = f"worse than {named}" if worse else f"no better than {named}" if level else BETTER
    p = max(p_of_sign(sign * (values - controls[name]), seed) for name in means)
    return Beside(named, means[named], verdict, not level, p)


@dataclass(frozen=True)
class Luck:
    """How many verdicts "better than every control" chance alone would give, and how many there are."""

    tests: int
    by_chance: float  # at most so many come out better where no method is
    better: int  # by themselves
    sure: int  # corrected for all


def correct_for_number(findings: Sequence[Finding]) -> tuple[list[Finding], Luck]:
    """The same with every p corrected for the number of them (Holm), and BETTER only where that leaves it.

    Args:
        findings: whose p, where there is one, is of `compare_with`.
    """
    tested = [i for i, one in enumerate(findings) if np.isfinite(one.p)]
    corrected = list(findings)
    for i, p in zip(tested, holm([findings[i].p for i in tested]), strict=True):
        lucky = findings[i].verdict == BETTER and p > LEVEL
        corrected[i] = replace(findings[i], p=p, verdict=BY_LUCK if lucky else findings[i].verdict)
    better, sure = (sum(one.verdict == BETTER for one in of) for of in (findings, corrected))
    return corrected, Luck(len(tested), len(tested) * INTERVAL[0], better, sure)


def say_luck(luck: Luck) -> str:
    """In a sentence; "" where nothing was held against controls."""
    if not luck.tests:
        return ""
    return (
        f"Of {luck.tests} times that a method was held against every control it came out better {luck.better} times; "
        f"chance alone gives at most {luck.by_chance:.1f}. Corrected for their number (Holm, {LEVEL:.0%} for all "
        f"together) {luck.sure} are left, and only those are called {BETTER}."
    )
