"""Whether an explanation depends on what was learnt."""

from collections.abc import Sequence

import numpy as np
import torch

from explain.attribution import attribute
from explain.subject import Subject

SAMPLE = 32


def against_random_weights(
    subject: Subject, rows: np.ndarray, weights: torch.Tensor, methods: Sequence[str]
) -> dict[str, float]:
    """Rank correlation of each method's maps with those of the same network before any training.

    Adebayo et al. 2018 (section 3, with all layers randomised at once): a map that hardly changes cannot tell what the
    network learnt. Spearman's correlation over pixels of the absolute maps (maximum over channels), mean over the images
    whose two maps both say something; 1: the same, 0: unrelated. A method with no such image is left out.

    Args:
        rows: (B,) images of the run.
        weights: (B, K) of the logits that are explained.
    """
    images = subject.images(rows)
    learnt, unlearnt = (attribute(model, images, weights, methods) for model in (subject.model, subject.untrained()))
    found = {}
    for method in methods:
        pairs = [
            (a.abs().amax(0).flatten(), b.abs().amax(0).flatten())
            for a, b in zip(learnt[method], unlearnt[method], strict=True)
        ]
        values = [_spearman(a, b) for a, b in pairs if a.max() > a.min() and b.max() > b.min()]
        if values:
            found[method] = float(np.mean(values))
    return found


def _spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a.cpu().numpy(), b.cpu().numpy()).statistic)
