"""Features -> assignments: PCA whitening, then k-means, power iteration clustering or agglomerative clustering."""

from collections.abc import Callable

import faiss
import numpy as np
import scipy.linalg
import scipy.sparse
import torch

KMEANS_ITERATIONS = 20
MICRO_CLUSTERS_ABOVE = 20_000  # images; Ward's linkage needs a distance for every pair


def reduced(features: torch.Tensor, dimension: int, power: float) -> np.ndarray:
    """Project on the principal components, scale each by (its variance + 1e-12) ** power, and normalise to length 1.

    power -1/2 whitens (the paper), -1/4 whitens by half, 0 is plain PCA. Eigenvectors of the covariance in float64
    (of the Gram matrix when there are fewer images than features); each has its largest entry positive.

    Args:
        features: (N, D).
        dimension: components wanted; min(dimension, N - 1, D) are kept.
    Returns: (N, d) float32, C-contiguous, rows of length 1 (a row of zeros stays).
    """
    x = features.double()
    x = x - x.mean(0)
    n, d = x.shape
    keep = min(dimension, n - 1, d)
    gram = n < d
    matrix = x @ x.T if gram else x.T @ x
    values, vectors = _largest_eigenpairs(matrix / (n - 1), keep)
    if gram:
        vectors = torch.nn.functional.normalize(x.T @ vectors, dim=0)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    projected = x @ (vectors * torch.sign(largest)) * (values + 1e-12) ** power
    projected[:, values <= 1e-10 * values[0]] = 0  # a direction without variance holds rounding alone
    return torch.nn.functional.normalize(projected, dim=1).float().cpu().contiguous().numpy()


def _largest_eigenpairs(matrix: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest eigenvalues, descending, and their eigenvectors as columns."""
    side = len(matrix)
    if matrix.is_cuda:
        values, vectors = torch.linalg.eigh(matrix)
        values, vectors = values[-count:], vectors[:, -count:]
    else:  # LAPACK can leave the others out: of 4,096 the paper wants 256
        found = scipy.linalg.eigh(matrix.numpy(), subset_by_index=(side - count, side - 1))
        values, vectors = (torch.from_numpy(np.ascontiguousarray(part)) for part in found)
    return values.flip(0).clamp_min(0), vectors.flip(1)


def kmeans(x: np.ndarray, k: int, seed: int, tries: int = 1) -> np.ndarray:
    """faiss k-means on all points, 20 iterations, the best of `tries`; (N, d) float32 -> (N,) int64 in 0..k-1."""
    faiss.omp_set_num_threads(torch.get_num_threads())  # a run records one number of threads
    gpu = bool(getattr(faiss, "get_num_gpus", lambda: 0)())
    model = faiss.Kmeans(
        x.shape[1], k, niter=KMEANS_ITERATIONS, nredo=tries, seed=seed, gpu=gpu,
        min_points_per_centroid=1, max_points_per_centroid=len(x),
    )  # fmt: skip
    model.train(x)
    return model.index.search(x, 1)[1][:, 0].astype(np.int64)


def agglomerative(x: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Ward's linkage; above 20,000 points on the centroids of k-means micro-clusters, each weighing the same."""
    from sklearn.cluster import AgglomerativeClustering

    if len(x) <= MICRO_CLUSTERS_ABOVE:
        return AgglomerativeClustering(k).fit_predict(x).astype(np.int64)
    micro = _compact(kmeans(x, max(4 * k, 2000), seed))
    return agglomerative(centroids(x, micro, int(micro.max()) + 1), k, seed)[micro]


def power_iteration(
    x: np.ndarray, k: int, seed: int, neighbours: int = 5, sigma: float = 0.2, alpha: float = 0.001
) -> np.ndarray:
    """Power iteration clustering, which finds its own number of clusters; k and seed are not used.

    A graph joins each point to its nearest neighbours with weights exp(-distance^2 / sigma^2). A vector is spread
    over it, v <- alpha v0 + (1 - alpha) W v (Lin & Cohen 2010); then each point climbs along the edge of steepest
    ascent, and the points that reach the same summit are a cluster (Caron et al. 2018, appendix). A cluster of one
    joins its nearest neighbour's.
    """
    n = len(x)
    reach = min(neighbours, n - 1) + 1
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x)
    distance, nearest = index.search(x, reach)
    rows = np.repeat(np.arange(n), reach)
    columns, weights = nearest.ravel(), np.exp(-np.clip(distance.ravel(), 0, None).astype(np.float64) / sigma**2)
    apart = rows != columns
    graph = scipy.sparse.coo_array((weights[apart], (rows[apart], columns[apart])), shape=(n, n)).tocsr()
    graph = ((graph + graph.T) / 2).tocsr()
    degree = np.asarray(graph.sum(1)).ravel()
    walk = scipy.sparse.diags_array(1 / np.maximum(degree, 1e-300)) @ graph
    start = np.full(n, 1 / n)
    v = start
    for _ in range(200):
        v = alpha * start + (1 - alpha) * (walk.T @ v)
        v /= v.sum()
    edges = graph.tocoo()
    slope = edges.data * (v[edges.col] - v[edges.row])
    order = np.lexsort((edges.col, slope, edges.row))
    last = np.flatnonzero(np.diff(edges.row[order], append=n))  # the steepest edge of each row
    uphill = np.arange(n)
    best = order[last]
    climbs = slope[best] > 0
    uphill[edges.row[best][climbs]] = edges.col[best][climbs]
    while not np.array_equal(uphill[uphill], uphill):
        uphill = uphill[uphill]
    assignment = _compact(uphill)
    sizes = np.bincount(assignment)
    other = np.where(nearest[:, 0] == np.arange(n), nearest[:, min(1, reach - 1)], nearest[:, 0])
    alone = sizes[assignment] == 1
    assignment = np.where(alone, assignment[other], assignment)
    return _compact(assignment)


CLUSTERINGS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "kmeans": kmeans,
    "pic": power_iteration,
    "agglomerative": agglomerative,
}


def centroids(x: np.ndarray, assignment: np.ndarray, k: int) -> np.ndarray:
    """(k, d) mean of each cluster; an empty cluster's is NaN."""
    sums = np.zeros((k, x.shape[1]))
    np.add.at(sums, assignment, x)
    sizes = np.bincount(assignment, minlength=k)[:, None]
    with np.errstate(invalid="ignore"):
        return (sums / sizes).astype(np.float32)


def own_distance(x: np.ndarray, assignment: np.ndarray, k: int) -> np.ndarray:
    """(N,) Euclidean distance of each point to the mean of its cluster."""
    return np.linalg.norm(x.astype(np.float64) - centroids(x, assignment, k)[assignment], axis=1)


def _compact(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)
