"""How many clusters: several k tried on the features of a short pilot training."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score

from console import progress
from datasets import Dataset
from deepcluster.clustering import Clustering, kmeans
from deepcluster.config import Config
from deepcluster.descriptors import facts_of
from deepcluster.epoch import train_epoch
from deepcluster.features import embed_together
from deepcluster.train import cluster, reduce_together, start
from deepcluster.views import Frames
from machine.processes import decided
from machine.seeds import derive_seed

CANDIDATES = (5, 8, 12, 16, 24, 32, 50, 80, 120, 200, 400)
PILOT_EPOCHS = 3
SILHOUETTE_IMAGES = 2000


def choose_k(
    dataset: Dataset, config: Config, device: torch.device, initial: dict[str, torch.Tensor] | None
) -> tuple[int, list[dict[str, float]]]:
    """Recommend the k whose silhouette and agreement of seeds, each scaled to 0..1 over the candidates, sum highest.

    Silhouette (Rousseeuw 1987) is taken on at most 2,000 images, the agreement as AMI between two seeds' k-means. The
    sum of squares is for the eye: its elbow.

    Returns:
        k, and a row (k, silhouette, seed_agreement, objective) per candidate.
    """
    pilot = replace(config, epochs=PILOT_EPOCHS, final_clustering=None, clustering="kmeans")
    state, frames, facts = start(pilot, device, initial), Frames(dataset.pixels, device), facts_of(dataset, config)
    embedding = embed_together(state.model, frames, pilot, "pilot embedding")
    for epoch in range(1, PILOT_EPOCHS + 1):
        x = reduce_together(embedding, pilot, facts)
        found = decided(partial(cluster, x, pilot, epoch, device))
        train_epoch(state, frames, found.assignment, embedding.features, found.k, epoch, pilot)
        embedding = embed_together(state.model, frames, pilot, f"pilot embedding {epoch}")
    x = reduce_together(embedding, pilot, facts)
    return decided(lambda: recommend(x, config.seed, device))


def recommend(x: np.ndarray, seed: int, device: torch.device | None = None) -> tuple[int, list[dict[str, float]]]:
    """As choose_k, for reduced features x (N, d)."""
    candidates = [k for k in CANDIDATES if k <= max(2, len(x) // 8)] or [2]
    rows = []
    for k in progress(candidates, "trying k", unit="values"):
        one, other = (kmeans(x, k, derive_seed(seed, k, f"choose-{repeat}"), device, tries=5) for repeat in range(2))
        sample = min(len(x), SILHOUETTE_IMAGES)
        rows.append(
            {
                "k": k,
                "silhouette": float(silhouette_score(x, one, sample_size=sample, random_state=seed % 2**32)),
                "seed_agreement": float(adjusted_mutual_info_score(one, other)),
                "objective": Clustering.of(x, one, k).objective,
            }
        )
    score = sum(_scaled(np.array([row[name] for row in rows])) for name in ("silhouette", "seed_agreement"))
    return int(rows[int(np.argmax(score))]["k"]), rows


def _scaled(values: np.ndarray) -> np.ndarray:
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)
