"""Agreement of an assignment with labels, and the baselines that stand beside every such figure."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
)
from sklearn.metrics.cluster import contingency_matrix

from deepcluster.clustering import kmeans, reduced
from deepcluster.views import Frames

MEASURES = ("nmi", "ari", "ami", "accuracy", "purity")
PIXEL_SIDE = 32


def agreement(labels: Sequence[str], assignment: np.ndarray) -> dict[str, float]:
    """NMI, ARI, AMI, accuracy under the best one-to-one matching of clusters and labels, and purity; each at most 1.

    Images whose label is '' (unknown) do not count.
    """
    known = [i for i, label in enumerate(labels) if label]
    labels, assignment = [labels[i] for i in known], assignment[known]
    table = contingency_matrix(labels, assignment)  # (labels, clusters)
    matched = table[linear_sum_assignment(-table)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(labels, assignment)),
        "ari": float(adjusted_rand_score(labels, assignment)),
        "ami": float(adjusted_mutual_info_score(labels, assignment)),
        "accuracy": float(matched / table.sum()),
        "purity": float(table.max(0).sum() / table.sum()),
    }


def pixel_baseline(frames: Frames, k: int, seed: int) -> np.ndarray:
    """k-means on the raw pixels (the central square at 32 x 32, RGB): (N,) assignment."""
    rows = []
    for i in range(len(frames.shape)):
        image = frames.batch(np.array([i]))[0]
        side = min(image.shape[2:])
        top, left = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
        square = image[:, :, top : top + side, left : left + side]
        rows.append(torch.nn.functional.interpolate(square, (PIXEL_SIDE, PIXEL_SIDE), mode="area").flatten().cpu())
    return kmeans(np.ascontiguousarray(torch.stack(rows).numpy() / 255), k, seed)


def feature_baseline(features: torch.Tensor, k: int, seed: int, pca: int, power: float) -> np.ndarray:
    """k-means on an untrained network's features, reduced as in training: (N,) assignment."""
    return kmeans(reduced(features, pca, power), k, seed)
