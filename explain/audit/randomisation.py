"""Whether an explanation depends on what was learnt: the same method on the network before its training."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch

from explain.attribution import Asked, attribute
from explain.choice import target_weights
from explain.record import Explanation
from explain.subject import Subject
from machine.files import write_json
from machine.reading import Between, Damaged, read_json, typed

SAMPLE = 32  # images


def random_weights_correlation(explanation: Explanation) -> dict[str, float]:
    """Rank correlation with the maps of the untrained network, by the key of each method that is drawn by default.

    Measured once on a few images, and kept for each method and target beside the epoch's pieces, also for later calls
    that ask for other methods.
    """
    subject, choice = explanation.subject, explanation.choice
    path = explanation.folder / ".random-weights.json"
    try:
        kept = typed(dict[str, dict[str, Annotated[float, Between(-1.001, 1.001)]]], read_json(path, ""), path, "")
    except (FileNotFoundError, Damaged):
        kept = {}  # not measured yet, or damaged, or of an older version
    known = kept.get(choice.target, {})
    wanted = [asked for asked in choice.maps if asked.method.default]
    missing = [asked for asked in wanted if asked.key not in known]
    sample = np.random.default_rng(subject.seed).permutation(explanation.rows)[:SAMPLE]
    if missing and len(sample):
        weights = target_weights(subject, choice.target, sample, explanation.scores)
        known |= against_random_weights(subject, sample, weights, missing)
        write_json(path, kept | {choice.target: known})
    return {asked.key: known[asked.key] for asked in explanation.record.drawn() if asked.key in known}


def against_random_weights(
    subject: Subject, rows: np.ndarray, weights: torch.Tensor, methods: Sequence[Asked]
) -> dict[str, float]:
    """Rank correlation of each method's maps with those of the same network before any training.

    Adebayo et al. 2018 (section 3, with all layers randomised at once): a map that hardly changes cannot tell what the
    network learnt. Spearman's correlation over pixels of the absolute maps (maximum over channels), mean over the
    images whose two maps both say something; 1: the same, 0: unrelated. A method with no such image is left out.

    Args:
        subject: whose network is explained.
        rows: (B,) images of the run.
        weights: (B, K) of the logits that are explained.
        methods: to measure.
    """
    images = subject.images(rows)
    learnt, unlearnt = (attribute(model, images, weights, methods) for model in (subject.model, subject.untrained))
    found = {}
    for asked in methods:
        pairs = [
            (a.abs().amax(0).flatten(), b.abs().amax(0).flatten())
            for a, b in zip(learnt[asked.key], unlearnt[asked.key], strict=True)
        ]
        values = [_spearman(a, b) for a, b in pairs if a.max() > a.min() and b.max() > b.min()]
        if values:
            found[asked.key] = float(np.mean(values))
    return found


def _spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a.cpu().numpy(), b.cpu().numpy()).statistic)
