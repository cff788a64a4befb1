"""Label randomisation: maps of a network that learnt shuffled clusters by heart (Adebayo et al. 2018, section 4).

Its twin learns the true clusters of the same images, from the same random weights, in the same batches and as long:
how alike its maps are to those of the audited network is what another training gives anyway, and the control.
"""

from hashlib import sha256
from pathlib import Path

import numpy as np
from torch import as_tensor

from explain.attribution.registry import PHOTOGRAPH
from explain.audit.controls import partners_of
from explain.audit.findings import (
    DECIDES,
    ENOUGH,
    TAUGHT_OTHERS,
    Asked,
    Finding,
    Measured,
    Sample,
    join_words,
    mean_of,
    share_of,
)
from explain.audit.randomisation import LEAST, OF_ANOTHER, likenesses, maps_of
from explain.subject import MergedLogits, Subject
from machine.seeds import derive_seed

PART = "shuffling"
LEARNT, EACH = 100, 10  # images to learn, so many of a cluster
BY_HEART = 0.95  # share of the shuffled clusters from which they count as learnt
KNOWN = "share of the images whose cluster it learnt"
OWN, SHUFFLED, TRUE = "the audited network", "shuffled clusters", "the true clusters"
TAUGHT_TRUE, OF_TWO = "{}: taught " + TRUE, "{}: " + OF_ANOTHER
ASKS, IN_PART = "asks what was learnt", "asks in part what was learnt"  # verdicts
HARDLY, UNDECIDED = "hardly asks what was learnt", "undecided"
LEFT_OUT = "A network taught shuffled clusters: left out (--shuffled 0)."
OTHER_IMAGES = "A network taught shuffled clusters: this run learnt other images than those that are explained."
NOT_TWO = "A network taught shuffled clusters: that takes two clusters of two images."


def measure(sample: Sample, asked: Asked) -> Measured:
    """Likeness of each method's maps to those of a network that learnt shuffled clusters, and to those of its twin."""
    subject = sample.subject
    methods = [one for one in asked.methods if one.name != PHOTOGRAPH]
    if not asked.shuffled:
        return Measured([], missing=[LEFT_OUT])
    rng = np.random.default_rng(derive_seed(asked.seed, 0, PART))
    rows = draw_rows(subject, rng)
    own = subject.clusters.column_of(subject.clusters.assignment[rows])
    if len(np.unique(own)) < 2:
        return Measured([], missing=[NOT_TWO])
    shuffled = rng.permutation(own)
    folder = sample.folder
    assert folder is not None
    first = teach(subject, rows, shuffled, asked, folder)
    if first is None:
        return Measured([], missing=[OTHER_IMAGES])
    twin = teach(subject, rows, own, asked, folder, len(first[1]))
    assert twin is not None
    told = {OWN: (subject.model, own), SHUFFLED: (first[0], shuffled), TRUE: (twin[0], own)}
    maps = {
        what: maps_of(subject, model, rows, as_tensor(targets, device=subject.device), methods)
        for what, (model, targets) in told.items()
    }
    for path in folder.glob(".by-heart-*.pt"):
        path.unlink()
    chance = float(np.bincount(own).max() / len(own))
    found = []
    for what, shares in ((SHUFFLED, first[1]), (TRUE, twin[1])):
        value, low, high, _ = share_of(np.arange(len(rows)) < round(shares[-1] * len(rows)))
        found.append(Finding(PART, KNOWN, what, value, low, high, len(rows), "the largest cluster", chance))
    moved = np.flatnonzero(shuffled != own)  # the others were taught the truth
    partner = partners_of(own, rng)[moved]
    for one in methods:
        mine = maps[OWN][one.key]
        like = {what: likenesses(one, mine[moved], maps[what][one.key][moved]) for what in (SHUFFLED, TRUE)}
        for what, floor in likenesses(one, mine[moved], mine[partner]).items():
            values, ceiling = like[SHUFFLED][what], like[TRUE][what]
            verdict = judge(values, ceiling, floor, first[1][-1], asked.seed)
            control = mean_of(ceiling, asked.seed)
            title = TAUGHT_OTHERS.format(what)
            beside = f"taught {TRUE}", control[0]
            found.append(Finding(PART, title, one.title, *mean_of(values, asked.seed), *beside, verdict=verdict))
            found.append(Finding(PART, title, TAUGHT_TRUE.format(one.title), *control))
            found.append(Finding(PART, title, OF_TWO.format(one.title), *mean_of(floor, asked.seed)))
    return Measured(found)


def draw_rows(subject: Subject, rng: np.random.Generator) -> np.ndarray:
    """(n,) images to learn: EACH of clusters that have so many, chosen by chance, then of the largest of the others.

    None of a cluster that has a single one.
    """
    there = rng.permutation(subject.pictures.present)
    clusters = subject.clusters.assignment[there]
    numbers, sizes = np.unique(clusters[clusters >= 0], return_counts=True)
    order = np.lexsort((rng.random(len(numbers)), -np.minimum(sizes, EACH)))
    chosen = [there[clusters == number][:EACH] for number in numbers[order][sizes[order] > 1]]
    return np.sort(np.concatenate([*chosen, there[:0]])[:LEARNT])


def teach(
    subject: Subject, rows: np.ndarray, labels: np.ndarray, asked: Asked, folder: Path, stop_after: int | None = None
) -> tuple[MergedLogits, list[float]] | None:
    """A network that learnt these columns, from weights that are not those of the audited one's training."""
    seed = derive_seed(asked.seed, subject.seed, PART)
    known = f"{subject.run.identity} {asked.shuffled} {seed} {rows.tolist()} {labels.tolist()}"
    kept = folder / f".by-heart-{sha256(known.encode()).hexdigest()[:16]}.pt"
    return subject.taught(rows, labels, asked.shuffled, seed, kept, stop_after)


def judge(values: np.ndarray, ceiling: np.ndarray, floor: np.ndarray, learnt: float, seed: int) -> str:
    """What it says of a method how alike maps are (n,) if taught shuffled clusters; if the true ones; of two images."""
    if learnt < BY_HEART:
        return f"{UNDECIDED}: only {learnt:.0%} of the shuffled clusters were learnt"
    _, bites, _, n = mean_of(ceiling - floor, seed)
    if n < ENOUGH:
        return ""
    if not bites > LEAST:
        return f"{UNDECIDED}: taught {TRUE} its maps are hardly more alike than {OF_ANOTHER}"
    less, low, high, _ = mean_of(ceiling - values, seed)
    if low > LEAST:
        more, _, at_most, _ = mean_of(values - floor, seed)
        if at_most < LEAST:
            return f"{ASKS}: no more alike than {OF_ANOTHER}"
        return f"{IN_PART}: by {less:.2f} less alike than if taught {TRUE}, by {more:.2f} more than {OF_ANOTHER}"
    if high < LEAST:
        return f"{HARDLY}: as alike as if taught {TRUE}"
    return f"{UNDECIDED} beside a network taught {TRUE}"


def conclude(measured: Measured) -> list[str]:
    """Whose maps asked for what was learnt, and how much that was."""
    known = {one.of: one.value for one in measured.findings if one.measure == KNOWN}
    if not known:
        return []
    rows = [one for one in measured.findings if one.verdict and one.measure == TAUGHT_OTHERS.format(DECIDES)]
    kinds = {
        ASKS: "ask what was learnt",
        IN_PART: "ask it in part",
        HARDLY: "hardly ask it",
        UNDECIDED: "are undecided",
    }
    said = {}
    for kind, words in kinds.items():
        told = [
            f"{one.of} ({one.value:.2f} if shuffled, {one.control_value:.2f} if true)"
            for one in rows
            if one.verdict.startswith(kind) and np.isfinite(one.value)
        ]
        if told:
            said[kind] = f"Maps of {join_words(told)} {words}."
    learnt = f"A network learnt {known[SHUFFLED]:.0%} of {SHUFFLED} by heart, its twin {known[TRUE]:.0%} of {TRUE}."
    undecided = [said.pop(UNDECIDED)] if UNDECIDED in said else []
    return [*said.values(), learnt, *undecided]  # the first sentence stands above the page
