"""One forward over all images: own and second-best cluster, rank, centres, what is alike, the map of all."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from explain.assignment import ExplainedClusters
from explain.attribution.registry import MAPS
from explain.subject import Subject
from machine.files import write_atomic
from machine.reading import Damaged, Shape, read_npz

COMPONENTS_BEFORE = 50  # of the features, for a map that is not linear
PERPLEXITY, NEIGHBOURS = 30, 15  # of t-SNE, of UMAP
DRAWN, AMONG = 10_000, 10  # images that t-SNE is made of; neighbours of them that each other one is placed among
ALIKE = 6  # most similar images of each
COMPARED = 1024  # images that are held against all others at a time, fewer where there are many
DISTANCES = 2**26  # at a time


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
    alike: np.ndarray  # (N, ALIKE) int64, the most similar images by what is clustered, the nearest first; -1: none
    half: np.ndarray  # (N,) int64, which of two halves of its cluster: 1 is the smaller; 0 also where there are none


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
        "alike": ("i", (count, ALIKE)),
        "half": ("i", (count,)),
    }
    try:
        kept = read_npz(path, kinds, "")
        rival = kept["rival"]
        if np.array_equal(kept["present"], present) and np.isin(rival, [-1, *subject.clusters.numbers]).all():
            return Scores(*(kept[field.name] for field in fields(Scores)))
    except (FileNotFoundError, Damaged):
        pass  # computed, perhaps again
    found = compute_scores(subject, *subject.predict_all(), kind_of_map)
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
    total = np.logaddexp.reduce(logits[:, clusters.whole], axis=1)
    probability[rows] = np.exp(score[rows] - total)
    if len(numbers) > 1:
        others = np.where(clusters.share[own], -np.inf, logits)  # not those that were made by hand of the same
        best = others.argmax(1)
        there = np.isfinite(others[at, best])
        rival[rows[there]] = numbers[best[there]]
        margin[rows[there]] = (score[rows] - others[at, best])[there]
        rival_probability[rows[there]] = np.exp(others[at, best] - total)[there]
    rank = rank_in_cluster(clusters, score)
    centres = centres_of(features[known], own, len(numbers))
    x = subject.clustered(features)
    alike = np.full((count, ALIKE), -1, np.int64)
    near = most_similar(x, ALIKE)
    alike[present] = np.where(near >= 0, present[near], -1)
    half = np.zeros(count, np.int64)
    half[rows] = halves(x[known], own, subject.seed)
    return Scores(score, rival, margin, probability, rival_probability, position, rank, centres, alike, half)


def most_similar(x: np.ndarray, count: int) -> np.ndarray:
    """The `count` nearest others of each of x (M, d), nearest first: (M, count) int64; -1 where there are no more."""
    points = torch.from_numpy(x.astype(np.float32))
    square = (points**2).sum(1)
    found = np.full((len(x), count), -1, np.int64)
    kept = min(count, len(x) - 1)
    together = max(1, min(COMPARED, DISTANCES // max(1, len(x))))
    for begin in range(0, len(x), together):
        part = points[begin : begin + together]
        distance = square - 2 * part @ points.T  # and the part's own squares, which order nothing
        at = torch.arange(len(part))
        distance[at, begin + at] = torch.inf
        found[begin : begin + together, :kept] = distance.topk(kept, largest=False).indices.numpy()
    return found


def halves(x: np.ndarray, column: np.ndarray, seed: int) -> np.ndarray:
    """Each cluster in two by 2-means: (M,) 0 or 1, where 1 is the smaller half; 0 of a cluster of one point.

    Args:
        x: (M, d) what is clustered.
        column: (M,) the cluster of each.
        seed: of where 2-means starts.
    """
    from sklearn.cluster import KMeans

    found = np.zeros(len(x), np.int64)
    for number in np.unique(column):
        members = np.flatnonzero(column == number)
        if len(np.unique(x[members], axis=0)) < 2:
            continue
        side = KMeans(2, n_init=4, random_state=seed % 2**32).fit_predict(x[members])
        found[members] = side == np.bincount(side, minlength=2).argmin()
    return found


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
    """(M, D) features -> (M, 2) by one of MAPS, each axis within -1 .. 1."""
    from sklearn.decomposition import PCA

    if min(features.shape) < 3:
        return np.zeros((len(features), 2))
    seed %= 2**32  # all that scikit-learn takes
    components = 2 if kind == "pca" else min(COMPONENTS_BEFORE, *features.shape)
    found = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(features)
    if kind == "tsne":
        found = _tsne(found, seed)
    elif kind == "umap":
        from umap import UMAP  # the user's own: it is large, and its map no better

        neighbours = min(NEIGHBOURS, len(features) - 1)
        found = UMAP(n_components=2, n_neighbors=neighbours, init="pca", random_state=seed, n_jobs=1).fit_transform(
            found
        )
        found = found - found.mean(0)
    return found / np.maximum(np.abs(found).max(0), 1e-12)


def map_in_words(kind: str, count: int) -> str:
    """By what so many images are placed, as the map's page says it."""
    some = f" of {DRAWN:,} of them, the others placed among these" if kind == "tsne" and count > DRAWN else ""
    return MAPS[kind] + some


def _tsne(x: np.ndarray, seed: int) -> np.ndarray:
    """(M, d) -> (M, 2). Of many images DRAWN, drawn evenly; each other one at the median of the AMONG nearest of them.

    As Kobak & Berens 2019 place new points (doi:10.1038/s41467-019-13056-x): its time grows faster than the images.
    """
    from sklearn.manifold import TSNE
    from sklearn.neighbors import NearestNeighbors

    drawn = np.sort(np.random.default_rng(seed).permutation(len(x))[:DRAWN])
    perplexity = min(PERPLEXITY, (len(drawn) - 1) / 3)
    placed = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(x[drawn])
    found = np.empty((len(x), 2), placed.dtype)
    found[drawn] = placed
    others = np.setdiff1d(np.arange(len(x)), drawn)
    if len(others):
        near = NearestNeighbors(n_neighbors=min(AMONG, len(drawn))).fit(x[drawn]).kneighbors(x[others])[1]
        found[others] = np.median(placed[near], 1)
    return found
