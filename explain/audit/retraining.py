"""Whether other trainings on the same images, with other seeds, give the same clusters the same reasons.

Each run explains its own clusters; of an image the maps of two runs are laid on each other. Two maps are alike whatever
was learnt where a method lights up the middle, the coin's edges, or what any network of this kind sees: so beside it
stand the other run's map of another image, the image's edges, and the maps of the networks before their trainings.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

import runs
from console import UserError, progress
from explain.attribution import Asked as Method
from explain.attribution.registry import PHOTOGRAPH
from explain.audit.controls import BATCH, BATCH_OF_MANY_PASSES, UNTRAINED, edge_heat, heats_of, own_targets, partners_of
from explain.audit.findings import Asked, Finding, Measured, Sample, compare_with, join_words, mean_of
from explain.audit.randomisation import rank_correlation
from explain.subject import Subject
from machine.seeds import derive_seed

PART = "retraining"
CLUSTERS, MAPS = "AMI with the clusters of another training", "maps of another training (rank correlation)"
OF_ANOTHER, OF_UNTRAINED = "its map of an image of another cluster", "the same before the trainings"
OF_EDGES = "the edges of the image"
ALONE = (
    "Other trainings: whether their clusters and maps agree, since that needs runs on the same images with other "
    "seeds: name them with --against."
)


def open_others(subject: Subject, asked: Asked) -> list[Subject]:
    """The newest epoch of each run of --against, on the very same images.

    Raises:
        UserError: naming a run that has other images, sees them otherwise, or is the same run.
    """
    found: list[Subject] = []
    for path in asked.against:
        run, first = runs.open_run(path), subject.run
        if run.identity == first.identity:
            raise UserError(f"--against {path}: is the very run that is audited: name one of another seed")
        if any(run.identity == other.run.identity for other in found):
            raise UserError(f"--against {path}: is named twice, or a copy of another: name each run once")
        if run.meta.kind != first.meta.kind or run.ids != first.ids or run.meta.dataset.key != first.meta.dataset.key:
            raise UserError(f"--against {path}: was made from other images than {first.path}: name a run on the same")
        if run.meta.view != first.meta.view:
            raise UserError(
                f"--against {path}: sees another view, version of it or size than {first.path}: name a run alike"
            )
        if not run.checkpoints():
            raise UserError(f"--against {path}: no epoch is finished yet: let the training go on")
        found.append(Subject(run, run.checkpoints()[-1], subject.pictures, None, subject.device))
    return found


def measure(sample: Sample, asked: Asked) -> Measured:
    """Agreement of clusters over all images, and of maps over those of the sample, of every pair of the runs."""
    from sklearn.metrics import adjusted_mutual_info_score

    subject = sample.subject
    others = open_others(subject, asked)
    if not others:
        return Measured([], missing=[ALONE])
    methods = [one for one in asked.methods if one.name != PHOTOGRAPH]
    found = []
    for other in others:
        both = (subject.clusters.assignment >= 0) & (other.clusters.assignment >= 0)
        ami = adjusted_mutual_info_score(subject.clusters.assignment[both], other.clusters.assignment[both])
        name = other.run.path.resolve().name
        found.append(Finding(PART, CLUSTERS, name, float(ami), n=int(both.sum()), control="chance", control_value=0.0))
    trainings = [_heats(one, sample.rows, methods) for one in (subject, *others)]
    edges = edge_heat(subject, sample.rows, subject.images(sample.rows), asked.seed)
    rng = np.random.default_rng(derive_seed(asked.seed, 0, PART))
    elsewhere = partners_of(subject.clusters.assignment[sample.rows], rng)
    for one in methods:
        maps = [heats[one.title] for heats in trainings]
        pairs = list(combinations(maps, 2))
        values = _mean_of_pairs([_alike(a, b) for a, b in pairs])
        before = combinations([heats[one.title + UNTRAINED] for heats in trainings], 2)
        controls = {
            OF_ANOTHER: _mean_of_pairs([_alike(a, b[elsewhere]) for a, b in pairs]),
            OF_UNTRAINED: _mean_of_pairs([_alike(a, b) for a, b in before]),
            OF_EDGES: _mean_of_pairs([_alike(heat, edges) for heat in maps]),
        }
        beside = compare_with(values, controls, asked.seed)
        found.append(
            Finding(
                PART, MAPS, one.title, *mean_of(values, asked.seed), beside.name, beside.value, beside.p, beside.verdict
            )
        )
        for name, control in controls.items():
            found.append(Finding(PART, MAPS, f"{one.title}: {name}", *mean_of(control, asked.seed)))
    return Measured(found)


def _heats(subject: Subject, rows: np.ndarray, methods: Sequence[Method]) -> dict[str, np.ndarray]:
    """Title of each method -> (B, H, W) heat for each image's own cluster in this training; and before it."""
    size = BATCH_OF_MANY_PASSES if any(one.method.passes == "many" for one in methods) else BATCH
    parts = []
    for begin in progress(range(0, len(rows), size), f"maps of {subject.run.path.resolve().name}", unit="batches"):
        some = rows[begin : begin + size]
        images, targets = subject.images(some), own_targets(subject, some)
        before = heats_of(subject.untrained, images, targets, methods)
        found = {title + UNTRAINED: heat for title, heat in before.items()}
        parts.append(found | heats_of(subject.model, images, targets, methods))
    return {title: np.concatenate([part[title] for part in parts]) for title in parts[0]}


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B,) rank correlation of each image's two maps, NaN where one says nothing."""
    return np.array([rank_correlation(x, y) for x, y in zip(a, b, strict=True)])


def _mean_of_pairs(values: list[np.ndarray]) -> np.ndarray:
    """(B,) mean over the pairs in which both maps say something; NaN where none does."""
    every = np.array(values)
    known = np.isfinite(every)
    return np.where(known, every, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)


def conclude(measured: Measured) -> list[str]:
    """How alike clusters and maps of several trainings are."""
    said = []
    amis = [one for one in measured.findings if one.measure == CLUSTERS]
    if amis:
        told = join_words([f"{one.value:.2f} ({one.of})" for one in amis])
        said.append(f"The clusters agree with those of other trainings: AMI {told}.")
    maps = [one for one in measured.findings if one.measure == MAPS and np.isfinite(one.value)]
    each = [f"{one.of} {one.value:.2f} ({one.control} {one.control_value:.2f})" for one in maps if one.control]
    if each:
        said.append(f"Maps agree (in brackets the control that comes nearest): {join_words(each)}.")
    return said
