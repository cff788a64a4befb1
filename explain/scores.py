"""One forward over all images: own and second-best cluster, rank, the clusters' centres, and the map of all images."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from explain.assignment import ExplainedClusters
from explain.subject import Subject
from machine.files import write_atomic
from machine.reading import Damaged, Shape, read_npz

COMPONENTS_BEFORE_TSNE = 50
PERPLEXITY = 30


@dataclass(frozen=True)
class Scores:
    """What tables and pages say of each image. NaN and -1 where nothing is known."""

    score: np.ndarray  # (N,) float64, logit of the own cluster
    rival: np.ndarray  # (N,) int64, the best other cluster
    margin: np.ndarray  # (N,) float64, own logit minus the rival's
    probability: np.ndarray  # (N,) float64 of the own cluster, softmax of all
    rival_probability: np.ndarray  # (N,) float64
    position: np.ndarray  # (N, 2) float64 in -1 .. 1, in the map of all images
    rank: np.ndarray  # (N,) int64 in the own cluster, 1 is the most typical; 0: none
    centres: np.ndarray  # (K, D) float32, mean of the features, centred and of length 1; NaN: without an image


def score_images(subject: Subject, folder: Path, kind_of_map: str) -> Scores:
    """Scores of all images, kept in `folder` for the next call."""
    path = folder / f".scores-{kind_of_map}.npz"
    present = subject.pictures.present
    count = len(subject.run.ids)
    kinds: dict[str, tuple[str, Shape]] = {
        "present": ("iu", (None,)),
        "score": ("f", (count,)),
        "rival": ("i", (count,)),
        "margin": ("f", (count,)),
        "probability": ("f", (count,)),
        "rival_probability": ("f", (count,)),
        "position": ("f", (count, 2)),
        "rank": ("i", (count,)),
        "centres": ("f", (None, None)),
    }
    try:
        kept = read_npz(path, kinds, "")
        rival = kept["rival"]
        if np.array_equal(kept["present"], present) and np.isin(rival, [-1, *subject.clusters.numbers]).all():
            return Scores(*(kept[field.name] for field in fields(Scores)))
    except (FileNotFoundError, Damaged):
        pass  # computed, perhaps again
    features, logits = subject.predict_all()
    found = compute_scores(subject, features, logits, kind_of_map)
    arrays = {field.name: getattr(found, field.name) for field in fields(Scores)}
    write_atomic(path, lambda file: np.savez(file, present=present, **arrays))
    return found


def compute_scores(subject: Subject, features: np.ndarray, logits: np.ndarray, kind_of_map: str) -> Scores:
    """Scores from the features (M, D) and logits (M, clusters) of the images that are there."""
    clusters, present = subject.clusters, subject.pictures.present
    numbers, count = np.array(clusters.numbers), len(subject.run.ids)
    score, margin, probability, rival_probability = np.full((4, count), np.nan)
    rival = np.full(count, -1, np.int64)
    position = np.full((count, 2), np.nan)
    position[present] = project(features, kind_of_map, subject.seed)
    known = clusters.assignment[present] >= 0
    rows, logits = present[known], logits[known].astype(np.float64)
    at, own = np.arange(len(rows)), clusters.column_of(clusters.assignment[rows])
    score[rows] = logits[at, own]
    total = np.logaddexp.reduce(logits, axis=1)
    probability[rows] = np.exp(score[rows] - total)
    if len(numbers) > 1:
        others = logits.copy()
        others[at, own] = -np.inf
        best = others.argmax(1)
        rival[rows] = numbers[best]
        margin[rows] = score[rows] - others[at, best]
        rival_probability[rows] = np.exp(others[at, best] - total)
    rank = rank_in_cluster(clusters, score)
    centres = centres_of(features[known], own, len(numbers))
    return Scores(score, rival, margin, probability, rival_probability, position, rank, centres)


def centres_of(features: np.ndarray, column: np.ndarray, count: int) -> np.ndarray:
    """(M, D) features, the cluster (M,) of each -> (count, D) mean of each less the mean of all, of length 1."""
    sums = np.zeros((count, features.shape[1]))
    np.add.at(sums, column, features - features.mean(0, dtype=np.float64))
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, length, out=np.full_like(sums, np.nan), where=length > 0).astype(np.float32)


def nearest_clusters(centres: np.ndarray, count: int) -> list[list[int]]:
    """Of each cluster its `count` nearest, by the angle between their centres: columns, the nearest first."""
    found = []
    for own, centre in enumerate(centres):
        likeness = np.nan_to_num(centres @ centre, nan=-np.inf)
        likeness[own] = -np.inf
        order = np.argsort(-likeness, kind="stable")[:count]
        found.append([int(column) for column in order if np.isfinite(likeness[column])])
    return found


def rank_in_cluster(clusters: ExplainedClusters, score: np.ndarray) -> np.ndarray:
    """1 is the most typical: nearest to the centroid, then, where no distance is known, the highest score."""
    rank = np.zeros(len(score), np.int64)
    order = np.lexsort((np.arange(len(score)), -np.nan_to_num(score, nan=-np.inf), clusters.distance))
    for number in np.unique(clusters.assignment[clusters.assignment >= 0]):
        members = order[clusters.assignment[order] == number]
        rank[members] = np.arange(1, len(members) + 1)
    return rank


def project(features: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """(M, D) features -> (M, 2) by "pca" or "tsne", each axis within -1 .. 1."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(features.shape) < 3:
        return np.zeros((len(features), 2))
    seed %= 2**32  # all that scikit-learn takes
    components = min(COMPONENTS_BEFORE_TSNE, *features.shape) if kind == "tsne" else 2
    found = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(features)
    if kind == "tsne":
        perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
        found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(found)
    return found / np.maximum(np.abs(found).max(0), 1e-12)
