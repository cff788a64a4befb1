"""Reduced features -> clusters: k-means, power iteration clustering or agglomerative clustering.

One entry of CLUSTERINGS each. Free of torch and faiss until one runs, so that `--help` can list them. `device` is where
the run is made; None: the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from console import UserError
from machine.seeds import derive_seed

if TYPE_CHECKING:
    import torch

KMEANS_ITERATIONS = 20
SPLIT = 1 / 1024  # how far the halves of a cluster are moved apart that is split to fill an empty one
POWER_ITERATIONS = 200
PLACED = 2**24  # distances in memory at a time while points are placed
MICRO_CLUSTERS_ABOVE = 20_000  # images; Ward's linkage needs a distance for every pair
ENSEMBLE, ENSEMBLE_AT_MOST = 10, 5_000  # k-means that vote; images, of which every pair has a distance


@dataclass(frozen=True)
class Clustering:
    """What one clustering of N points found."""

    assignment: np.ndarray  # (N,) int64 in 0 .. k - 1
    k: int  # clusters, empty ones included
    distance: np.ndarray  # (N,) Euclidean, to the mean of the own cluster
    objective: float  # sum of the squared distances: what k-means minimises

    @classmethod
    def of(cls, x: np.ndarray, assignment: np.ndarray, k: int) -> Clustering:
        """Of points x (N, d) that were assigned to k clusters."""
        distance = distance_to_centroid(x, assignment, k)
        return cls(assignment, k, distance, float((distance**2).sum()))


def partition(x: np.ndarray, algorithm: str, k: int, seed: int, device: torch.device | None = None) -> Clustering:
    """Cluster reduced features x (N, d) float32 by a key of CLUSTERINGS."""
    return Clustering.of(x, *CLUSTERINGS[algorithm](x, k, seed, device))


def kmeans(x: np.ndarray, k: int, seed: int, device: torch.device | None = None, tries: int = 1) -> np.ndarray:
    """faiss k-means on all points, 20 iterations, the best of `tries`; on the GPU if the run is and faiss can.

    Returns:
        (N,) int64 in 0 .. k - 1.
    """
    faiss = _faiss()
    model = faiss.Kmeans(
        x.shape[1],
        k,
        niter=KMEANS_ITERATIONS,
        nredo=tries,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(x),
    )
    # this one GPU: of Kmeans' own gpu=1 and gpu=True both mean all that are there
    model.index = _where_the_run_is(model.index, device)
    model.train(x)
    return model.index.search(x, 1)[1][:, 0].astype(np.int64)


def kmeans_together(x: np.ndarray, total: int, k: int, seed: int, device: torch.device | None = None) -> Clustering:
    """k-means of points that several processes hold: sums and sizes of clusters are what is sent, never points.

    Lloyd's iterations as faiss's: from the points that it begins with at this seed, as many, and empty clusters filled
    alike. So the centres are those of `kmeans` on all points, but for rounding.

    Args:
        x: (n, d) float32, this process's share of the points, in order.
        total: points of all processes, more than k.
        k: clusters.
        seed: of the beginning.
        device: as for `kmeans`.

    Returns:
        The clustering of all points, in every process.
    """
    import torch

    from machine.processes import gathered, share, summed

    faiss = _faiss()
    index = _where_the_run_is(faiss.IndexFlatL2(x.shape[1]), device)
    order = np.empty(total, np.int32)
    faiss.rand_perm(faiss.swig_ptr(order), total, seed + 1)
    begin = order[:k] - share(total).start
    here = (begin >= 0) & (begin < len(x))
    means = np.zeros((k, x.shape[1]), np.float32)
    means[here] = x[begin[here]]
    means = summed(torch.from_numpy(means)).numpy()

    def placed() -> np.ndarray:
        index.reset()
        index.add(means)
        return index.search(x, 1)[1][:, 0].astype(np.int64)

    def means_of(assignment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sums = np.zeros((k, x.shape[1] + 1))
        np.add.at(sums[:, :-1], assignment, x)
        sums[:, -1] = np.bincount(assignment, minlength=k)
        sums = summed(torch.from_numpy(sums)).numpy()
        sizes = sums[:, -1].astype(np.int64)
        return (sums[:, :-1] / np.maximum(sizes, 1)[:, None]).astype(np.float32), sizes

    for _ in range(KMEANS_ITERATIONS):
        means, sizes = means_of(placed())
        _fill_empty(faiss, means, sizes)
    assignment = placed()
    means, _ = means_of(assignment)
    distance = np.linalg.norm(x.astype(np.float64) - means[assignment], axis=1)
    assignment, distance = (gathered(torch.from_numpy(values), total).numpy() for values in (assignment, distance))
    return Clustering(assignment, k, distance, float((distance**2).sum()))


def _fill_empty(faiss: Any, means: np.ndarray, sizes: np.ndarray) -> None:
    """Give each empty cluster half of another, in place: the larger, the likelier, drawn as faiss draws it."""
    chance, spare = faiss.RandomGenerator(1234), sizes.sum() - len(sizes)
    apart = np.where(np.arange(means.shape[1]) % 2, 1 - SPLIT, 1 + SPLIT).astype(np.float32)
    for empty in np.flatnonzero(sizes == 0).tolist():
        other = 0
        while chance.rand_float() >= (sizes[other] - 1) / spare:
            other = (other + 1) % len(sizes)
        means[empty], means[other] = means[other] * apart, means[other] * (2 - apart)
        sizes[empty] = sizes[other] // 2
        sizes[other] -= sizes[empty]


def _where_the_run_is(index: Any, device: torch.device | None) -> Any:
    """The index, on the GPU if the run is and faiss can."""
    faiss = _faiss()
    if device is None or device.type != "cuda" or getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
        return index
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), device.index or 0, index)


@dataclass(frozen=True)
class Constraints:
    """What a clustering of N points must keep."""

    fixed: np.ndarray  # (N,) int64, the cluster that a point is in; -1: free
    barred: np.ndarray  # (M, 2) int64: a point, a cluster that it is not in


def constrained_kmeans(
    x: np.ndarray, start: np.ndarray, k: int, constraints: Constraints, iterations: int = KMEANS_ITERATIONS
) -> np.ndarray:
    """k-means from the means of given clusters, in which fixed points stay and barred ones keep away.

    Constrained k-means (Basu, Banerjee & Mooney 2002), with clusters that a point may not be in (as the cannot-links of
    COP-KMeans, Wagstaff et al. 2001, once clusters keep their numbers). Each step is exact: every point goes to the
    nearest cluster that is open to it, so the objective never grows, but for a cluster that was left empty: it is begun
    anew with the free point farthest from its own mean.

    Args:
        x: (N, d) points.
        start: (N,) cluster of each, 0 .. k - 1; -1: none yet.
        k: clusters.
        constraints: no point may be barred from every cluster.
        iterations: at most.

    Returns:
        (N,) int64 in 0 .. k - 1.
    """
    points, assignment = x.astype(np.float64), start
    for _ in range(iterations):
        inside = assignment >= 0
        means = centroids(points[inside], assignment[inside], k).astype(np.float64)
        found = _place(points, means, constraints)
        if np.array_equal(found, assignment):
            break
        assignment = found
    return assignment


def _place(points: np.ndarray, means: np.ndarray, constraints: Constraints) -> np.ndarray:
    """The nearest of the means (k, d) that is open to each point (N, d); an empty cluster's are NaN."""
    n, k = len(points), len(means)
    found, away = np.empty(n, np.int64), np.empty(n)
    empty = np.isnan(means).any(1)
    square = np.where(empty, np.inf, (means**2).sum(1))
    point, cluster = constraints.barred.T
    for begin in range(0, n, max(1, PLACED // k)):
        rows = slice(begin, begin + max(1, PLACED // k))
        distance = square - 2 * points[rows] @ np.where(empty[:, None], 0, means).T  # less the points' own squares
        here = (point >= begin) & (point < begin + len(distance))
        distance[point[here] - begin, cluster[here]] = np.inf
        found[rows] = distance.argmin(1)
        away[rows] = distance.min(1) + (points[rows] ** 2).sum(1)
    found = np.where(constraints.fixed >= 0, constraints.fixed, found)
    sizes = np.bincount(found, minlength=k)
    for j in np.flatnonzero(sizes == 0).tolist():
        able = (constraints.fixed < 0) & (sizes[found] > 1)
        able[point[cluster == j]] = False
        if able.any():
            farthest = int(np.where(able, away, -np.inf).argmax())
            sizes[found[farthest]] -= 1
            sizes[j], found[farthest], away[farthest] = 1, j, -np.inf
    return found


def agglomerative(x: np.ndarray, k: int, seed: int, device: torch.device | None = None) -> np.ndarray:
    """Ward's linkage; above 20,000 points on the centroids of k-means micro-clusters, each weighing the same.

    Returns:
        (N,) int64 in 0 .. k - 1.
    """
    from sklearn.cluster import AgglomerativeClustering

    if len(x) <= MICRO_CLUSTERS_ABOVE:
        return AgglomerativeClustering(k).fit_predict(x).astype(np.int64)
    micro = _renumber(kmeans(x, max(4 * k, 2000), seed, device))
    return agglomerative(centroids(x, micro, int(micro.max()) + 1), k, seed, device)[micro]


def ensemble(x: np.ndarray, k: int, seed: int, device: torch.device | None = None) -> np.ndarray:
    """What ten k-means agree on: average linkage by the share of them that put two points apart, cut at k clusters.

    Evidence accumulation (Fred & Jain 2005, doi:10.1109/TPAMI.2005.113). One k-means is an accident of where it began;
    their agreement hardly is. Above 5,000 points it is that on the centroids of k-means micro-clusters, each weighing
    the same.

    Returns:
        (N,) int64 in 0 .. k - 1, none empty while there are k points.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import pdist

    n = len(x)
    if n > ENSEMBLE_AT_MOST:
        micro = _renumber(kmeans(x, max(4 * k, 2000), seed, device))
        return ensemble(centroids(x, micro, int(micro.max()) + 1), k, seed, device)[micro]
    votes = [kmeans(x, k, derive_seed(seed, i, "ensemble"), device) for i in range(ENSEMBLE)]
    merges = linkage(pdist(np.stack(votes, 1), "hamming"), "average")[: n - k, :2].astype(np.int64)  # (n - k, 2)
    made = np.repeat(n + np.arange(len(merges)), 2)  # the cluster that a merge makes, beside each of the two
    joined = coo_array((np.ones(len(made), bool), (merges.ravel(), made)), (2 * n, 2 * n))
    return _renumber(connected_components(joined, directed=False)[1][:n])


def power_iteration(x: np.ndarray, neighbours: int = 5, sigma: float = 0.2, alpha: float = 0.001) -> np.ndarray:
    """Power iteration clustering, which finds its own number of clusters.

    A graph joins each point to its nearest neighbours with weights exp(-distance^2 / sigma^2). A vector is spread
    over it, v <- alpha v0 + (1 - alpha) W v (Lin & Cohen 2010); then each point climbs along the edge of steepest
    ascent, and the points that reach the same summit are a cluster (Caron et al. 2018, appendix). A cluster of one
    joins its nearest neighbour's. A variant: the paper's appendix iterates v <- L1(alpha (G + G^T) v + (1 - alpha) v)
    on the plain weights, here they are normalised to a random walk; in float64 both find nearly the same clusters (a
    test says so).

    Args:
        x: (N, d) features of length 1.
        neighbours: of a point in the graph.
        sigma: scale of the weights, a distance.
        alpha: share of the start vector that comes back at each step.

    Returns:
        (N,) int64, numbered without gaps.
    """
    import scipy.sparse

    faiss, n = _faiss(), len(x)
    reach = min(neighbours, n - 1) + 1
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
    for _ in range(POWER_ITERATIONS):
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
    assignment = _renumber(uphill)
    sizes = np.bincount(assignment)
    other = np.where(nearest[:, 0] == np.arange(n), nearest[:, min(1, reach - 1)], nearest[:, 0])
    alone = sizes[assignment] == 1
    assignment = np.where(alone, assignment[other], assignment)
    return _renumber(assignment)


def _own_k(x: np.ndarray, k: int, seed: int, device: torch.device | None) -> tuple[np.ndarray, int]:
    assignment = power_iteration(x)
    return assignment, int(assignment.max()) + 1


# (x (N, d), k wanted, seed, device) -> (assignment, k found)
CLUSTERINGS: dict[str, Callable[..., tuple[np.ndarray, int]]] = {
    "kmeans": lambda x, k, seed, device: (kmeans(x, k, seed, device), k),
    "ensemble": lambda x, k, seed, device: (ensemble(x, k, seed, device), k),
    "pic": _own_k,
    "agglomerative": lambda x, k, seed, device: (agglomerative(x, k, seed, device), k),
}


def centroids(x: np.ndarray, assignment: np.ndarray, k: int) -> np.ndarray:
    """(k, d) mean of each cluster; an empty cluster's is NaN."""
    sums = np.zeros((k, x.shape[1]))
    np.add.at(sums, assignment, x)
    sizes = np.bincount(assignment, minlength=k)[:, None]
    with np.errstate(invalid="ignore"):
        return (sums / sizes).astype(np.float32)


def distance_to_centroid(x: np.ndarray, assignment: np.ndarray, k: int) -> np.ndarray:
    """(N,) Euclidean distance of each point to the mean of its cluster."""
    return np.linalg.norm(x.astype(np.float64) - centroids(x, assignment, k)[assignment], axis=1)


def _renumber(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _faiss() -> Any:
    """The library, with as many threads as torch: a run records one number."""
    import torch

    try:
        import faiss
    except ModuleNotFoundError:
        raise UserError("faiss is not installed: bash scripts/setup.sh installs it, or pip install faiss-cpu") from None

    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
