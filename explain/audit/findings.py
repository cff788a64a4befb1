"""What the audit found: rows of audit.csv, and curves to draw.

Each part of the audit is a module with `measure(sample: Sample, asked: Asked) -> Measured`, and
`conclude(measured: Measured) -> list[str]`: what that says, in sentences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np

from explain.attribution import Asked as Method
from explain.scores import Scores
from explain.subject import Subject
from machine.files import write_csv
from machine.reading import Damaged, read_json, typed

FOLDER, TABLE, SAID = "audit", "audit.csv", "said.json"  # in an epoch's results
BOOTSTRAPS = 1000
INTERVAL = (0.025, 0.975)
UNKNOWN = float("nan")
BETTER = "better than every control"  # a verdict


@dataclass(frozen=True)
class Asked:
    """What an audit was asked for."""

    methods: tuple[Method, ...]  # whose maps are measured
    images: int  # of the sample, at most
    seed: int
    table: Path | None = None  # columns of an own table: image, mint, weight, ...


@dataclass(frozen=True)
class Sample:
    """The images that maps are measured on, drawn evenly from those that are there."""

    subject: Subject
    scores: Scores  # of all images of the run
    rows: np.ndarray  # (n,) of the run, ascending; each has a cluster


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
        if one.part == "confounders" and kind and number.isdecimal() and one.verdict:
            groups.setdefault(number, []).append(one.verdict)
        elif one.part in ("localisation", "faithfulness") and one.verdict:
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
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if np.isfinite(value) else ""


def mean_of(values: Sequence[float] | np.ndarray, seed: int) -> tuple[float, float, float, int]:
    """Mean of the finite values, its 95 % interval (percentile bootstrap over them), and their number."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return UNKNOWN, UNKNOWN, UNKNOWN, 0
    draws = np.random.default_rng(seed).integers(0, len(known), (BOOTSTRAPS, len(known)))
    low, high = np.quantile(known[draws].mean(1), INTERVAL)
    return float(known.mean()), float(low), float(high), len(known)


@dataclass(frozen=True)
class Beside:
    """What a figure is held against: the control that comes nearest, and what that says."""

    name: str
    value: float
    verdict: str
    better: bool | None  # than every control; None: cannot be told


def compare_with(
    values: np.ndarray, controls: Mapping[str, np.ndarray], seed: int, higher_is_better: bool = True
) -> Beside:
    """A method's values (n,) against each control's on the same images: paired differences, bootstrapped.

    It is better than a control if the 95 % interval of the mean difference, over images on which both are known, lies
    above 0 (below, where lower is better).
    """
    sign = 1 if higher_is_better else -1
    means = {name: mean_of(sign * one, seed)[0] for name, one in controls.items()}
    known = {name: mean for name, mean in means.items() if np.isfinite(mean)}
    if not known:
        return Beside("", UNKNOWN, "", None)
    best = max(known, key=known.__getitem__)
    beaten, beating = [], []
    for name in known:
        _, low, high, n = mean_of(sign * (values - controls[name]), seed)
        if n and low > 0:
            beaten.append(name)
        elif n and high < 0:
            beating.append(name)
    if len(beaten) == len(known):
        verdict = BETTER
    elif best in beating:
        verdict = f"worse than {best}"
    else:
        verdict = f"no better than {best}"
    return Beside(best, sign * known[best], verdict, len(beaten) == len(known))
