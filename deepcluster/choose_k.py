"""How many clusters: several k tried on the features of a short pilot training."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score

from console import progress
from deepcluster.clustering import kmeans, reduced
from deepcluster.config import Config
from deepcluster.train import cluster, embed, start, train_epoch
from deepcluster.views import Frames
from machine import stream

CANDIDATES = (5, 8, 12, 16, 24, 32, 50, 80, 120, 200, 400)
PILOT_EPOCHS = 3
SILHOUETTE_IMAGES = 2000


def choose_k(
    frames: Frames, config: Config, device: torch.device, initial: dict[str, torch.Tensor] | None
) -> tuple[int, list[dict[str, float]]]:
    """Recommend the k whose silhouette and stability, each scaled to 0..1 over the candidates, have the largest sum.

    Silhouette (Rousseeuw 1987) is taken on at most 2,000 images, stability as AMI between two seeds' k-means.
    Returns: k, and a row (k, silhouette, stability) per candidate.
    """
    pilot = replace(config, epochs=PILOT_EPOCHS, final_clustering=None, clustering="kmeans")
    state = start(pilot, device, initial)
    embedding = embed(state.model, frames, pilot, "pilot embedding")
    for epoch in range(1, PILOT_EPOCHS + 1):
        clusters, k = cluster(reduced(embedding.features, pilot.pca, pilot.whiten), pilot, epoch)
        train_epoch(state, frames, clusters.assignment, embedding.features, k, epoch, pilot)
        embedding = embed(state.model, frames, pilot, f"pilot embedding {epoch}")
    return recommend(reduced(embedding.features, pilot.pca, pilot.whiten), config.seed)


def recommend(x: np.ndarray, seed: int) -> tuple[int, list[dict[str, float]]]:
    """As choose_k, for reduced features x (N, d)."""
    candidates = [k for k in CANDIDATES if k <= max(2, len(x) // 8)] or [2]
    rows = []
    for k in progress(candidates, "trying k", unit="values"):
        one, other = (kmeans(x, k, stream(seed, k, f"choose-{repeat}"), tries=5) for repeat in range(2))
        sample = min(len(x), SILHOUETTE_IMAGES)
        rows.append(
            {
                "k": k,
                "silhouette": float(silhouette_score(x, one, sample_size=sample, random_state=seed % 2**32)),
                "stability": float(adjusted_mutual_info_score(one, other)),
            }
        )
    score = sum(_unit(np.array([row[name] for row in rows])) for name in ("silhouette", "stability"))
    return int(rows[int(np.argmax(score))]["k"]), rows


def _unit(values: np.ndarray) -> np.ndarray:
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)
