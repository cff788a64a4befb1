import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from deepcluster import clustering
from deepcluster.agreement import agreement
from deepcluster.choose_k import recommend
from deepcluster.clustering import (
    CLUSTERINGS,
    Constraints,
    centroids,
    constrained_kmeans,
    distance_to_centroid,
    kmeans,
    partition,
    power_iteration,
)
from deepcluster.features import pca_whiten


def blobs(count=60, groups=3, dimension=5, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (groups, dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    truth = np.arange(count) % groups
    points = centres[truth] + rng.normal(0, 0.02, (count, dimension))
    return np.ascontiguousarray(points, dtype=np.float32), truth


def naive_reduction(features, dimension, power):
    """From the definition: numpy's SVD of the centred data."""
    x = features - features.mean(0)
    _, s, v = np.linalg.svd(x, full_matrices=False)
    v = v[:dimension]
    v = v * np.sign(v[np.arange(len(v)), np.abs(v).argmax(1)])[:, None]
    y = x @ v.T * ((s[:dimension] ** 2 / (len(x) - 1)) + 1e-12) ** power
    return y / np.linalg.norm(y, axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])  # more images than features, and fewer (the Gram matrix)
@pytest.mark.parametrize("power", [-0.5, -0.25, 0.0])
def test_reduction_equals_the_svd(shape, power):
    features = np.random.default_rng(1).normal(0, 1, shape) * np.linspace(3, 0.5, shape[1])
    ours = pca_whiten(torch.from_numpy(features), 6, power)
    np.testing.assert_allclose(ours, naive_reduction(features, 6, power), atol=1e-5)
    assert ours.flags["C_CONTIGUOUS"]


def test_whitened_components_have_equal_variance():
    features = torch.randn(500, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [9.0, 5, 3, 2, 1, 1, 0.5, 0.1]
    )
    y = pca_whiten(features, 8, -0.5)
    spread = y.std(0)
    assert spread.max() / spread.min() < 1.3


def test_dimension_is_at_most_images_less_one():
    assert pca_whiten(torch.randn(10, 50), 256, -0.5).shape == (10, 9)


def test_four_points_by_hand():
    points = np.array([[0, 0], [0, 1], [10, 0], [10, 1]], np.float32)
    found = kmeans(points, 2, 0)
    assert found[0] == found[1] != found[2] == found[3]
    np.testing.assert_allclose(centroids(points, found, 2)[found[0]], [0, 0.5])
    np.testing.assert_allclose(distance_to_centroid(points, found, 2), 0.5)
    clustering = partition(points, "kmeans", 2, 0)
    assert clustering.objective == pytest.approx(4 * 0.25)
    assert clustering.k == 2


@pytest.mark.parametrize("name", CLUSTERINGS)
def test_each_algorithm_finds_blobs_and_repeats_itself(name):
    points, truth = blobs()
    k = 12 if name == "kmeans" else 3  # enough that no blob is without a first centroid
    (one, found), (two, _) = (CLUSTERINGS[name](points, k, 5, None) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.max() < found
    assert one.dtype == np.int64
    if name == "pic":  # it finds its own number: finer is allowed, mixed is not
        assert agreement([str(t) for t in truth], one)["purity"] == 1
        assert found == one.max() + 1 < len(points) / 2
        assert np.bincount(one).min() >= 2
    elif name == "kmeans":
        assert agreement([str(t) for t in truth], one)["purity"] == 1
        assert adjusted_rand_score(truth, kmeans(points, 3, 5, tries=20)) == 1
    else:
        assert adjusted_rand_score(truth, one) == 1


def test_kmeans_uses_the_seed():
    points = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    assert (kmeans(points, 10, 1) != kmeans(points, 10, 2)).any()


def test_large_sets_are_merged_from_micro_clusters(monkeypatch):
    monkeypatch.setattr(clustering, "MICRO_CLUSTERS_ABOVE", 2500)
    points, truth = blobs(count=3000)
    assert adjusted_rand_score(truth, clustering.agglomerative(points, 3, 0)) == 1


@pytest.mark.parametrize(
    ("k", "together"), [(5, "0 1 2 3 4"), (4, "01 2 3 4"), (3, "01 23 4"), (2, "01 234"), (1, "01234")]
)
def test_an_ensemble_by_hand(k, together, monkeypatch):
    votes = iter([[0, 0, 1, 1, 1], [0, 0, 1, 1, 2], [0, 0, 0, 1, 2], [3, 3, 1, 1, 2]])
    monkeypatch.setattr(clustering, "ENSEMBLE", 4)
    monkeypatch.setattr(clustering, "kmeans", lambda *_: np.array(next(votes)))
    # apart: 0 and 1 never, 2 and 3 once in four, 4 and 2, 4 and 3 three times; of the rest 0 and 2 alone were together
    found = clustering.ensemble(np.zeros((5, 2), np.float32), k, 0)
    assert {"".join(map(str, np.flatnonzero(found == number))) for number in found} == {*together.split()}
    assert {*found.tolist()} == {*range(k)}  # also where points were never apart, or two merges are alike


def test_ensembles_agree_more_than_what_they_are_made_of():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 16))[np.arange(600) % 20] + rng.normal(0, 0.9, (600, 16))
    points = np.ascontiguousarray(points, np.float32)
    of_one, of_ten = (
        adjusted_rand_score(find(points, 20, 1), find(points, 20, 2)) for find in (kmeans, clustering.ensemble)
    )
    assert of_ten > of_one + 0.1


def test_large_ensembles_vote_on_micro_clusters(monkeypatch):
    monkeypatch.setattr(clustering, "ENSEMBLE_AT_MOST", 2500)
    points, truth = blobs(count=3000)
    assert adjusted_rand_score(truth, clustering.ensemble(points, 3, 0)) == 1


def test_an_empty_cluster_has_no_centroid():
    points = np.zeros((2, 3), np.float32)
    assert np.isnan(centroids(points, np.array([0, 2]), 3)[1]).all()
    np.testing.assert_allclose(distance_to_centroid(points, np.array([0, 2]), 3), 0)


def test_pic_has_no_cluster_of_one():
    points, _ = blobs()
    points = np.concatenate([points, -3 * np.ones((1, 5), np.float32)])
    assert np.bincount(power_iteration(points)).min() >= 2


def papers_power_iteration(x, neighbours=5, sigma=0.2, alpha=0.001):
    """Caron et al. 2018, appendix, in float64: v <- L1(alpha (G + G^T) v + (1 - alpha) v), steepest ascent."""
    n = len(x)
    distance = ((x[:, None].astype(np.float64) - x[None]) ** 2).sum(2)
    np.fill_diagonal(distance, np.inf)
    graph = np.zeros((n, n))
    for i in range(n):
        nearest = np.argsort(distance[i])[:neighbours]
        graph[i, nearest] = np.exp(-distance[i, nearest] / sigma**2)
    graph = graph + graph.T
    v = np.full(n, 1 / n)
    for _ in range(200):
        v = alpha * graph @ v + (1 - alpha) * v
        v /= np.abs(v).sum()
    summit = np.arange(n)
    for i in range(n):
        slope = graph[i] * (v - v[i])
        if slope.max() > 0:
            summit[i] = slope.argmax()
    while not np.array_equal(summit[summit], summit):
        summit = summit[summit]
    return summit


@pytest.mark.parametrize("seed", range(5))
def test_pic_finds_nearly_the_papers_clusters(seed):
    points, _ = blobs(count=120, groups=6, dimension=16, seed=seed)
    rng = np.random.default_rng(seed)
    points += rng.normal(0, 0.05, points.shape).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    ours, papers = power_iteration(points), papers_power_iteration(points)
    assert normalized_mutual_info_score(ours, papers) > 0.8


def test_agreement_by_hand():
    labels, found = list("aaabbb"), np.array([5, 5, 1, 1, 1, 1])
    values = agreement(labels, found)
    assert values["purity"] == pytest.approx(5 / 6)
    assert values["accuracy"] == pytest.approx(5 / 6)
    assert agreement(labels, np.array([7, 7, 7, 2, 2, 2]))["ami"] == pytest.approx(1)
    assert agreement([*labels, "", ""], np.array([7, 7, 7, 2, 2, 2, 7, 2]))["ami"] == pytest.approx(1)


def test_recommended_k_is_the_true_one():
    points, _ = blobs(count=240, groups=8, dimension=12)
    k, rows = recommend(points, 0)
    assert k == 8
    assert {"k", "silhouette", "seed_agreement", "objective"} == set(rows[0])


FREE = np.empty((0, 2), np.int64)


def test_constrained_k_means_without_constraints_is_lloyds():
    from sklearn.cluster import KMeans

    x, truth = blobs(300, 4, seed=2)
    x += np.random.default_rng(3).normal(0, 0.4, x.shape).astype(np.float32)
    start = (truth + (np.arange(300) % 7 == 0)) % 4  # a seventh of them wrong
    theirs = KMeans(4, init=centroids(x, start, 4), n_init=1, max_iter=50, tol=0, algorithm="lloyd").fit_predict(x)
    ours = constrained_kmeans(x, start, 4, Constraints(np.full(300, -1), FREE), iterations=50)
    assert ours.tolist() == theirs.tolist()


def test_constraints_hold_and_the_rest_is_nearest():
    x, truth = blobs(200, 5, seed=4)
    x += np.random.default_rng(5).normal(0, 0.3, x.shape).astype(np.float32)
    rng = np.random.default_rng(6)
    fixed = np.full(200, -1)
    fixed[:20] = rng.integers(0, 5, 20)  # wherever
    barred = np.array([[i, j] for i in range(20, 50) for j in {truth[i], rng.integers(0, 5)}])
    found = constrained_kmeans(x, truth, 5, Constraints(fixed, barred), iterations=200)
    assert found[:20].tolist() == fixed[:20].tolist()
    assert not {tuple(pair) for pair in barred.tolist()} & {*zip(range(200), found.tolist(), strict=True)}
    means = centroids(x, found, 5)
    closed = {tuple(pair) for pair in barred.tolist()}
    for i in range(20, 200):  # by trying all
        able = [j for j in range(5) if (i, j) not in closed]
        assert found[i] == min(able, key=lambda j: float(((x[i] - means[j]) ** 2).sum()))


def test_constrained_k_means_by_hand():
    x = np.array([[0.0], [1], [10], [11], [30]], np.float32)
    start = np.array([0, 0, 1, 1, -1])  # 30 is in none
    free = np.full(5, -1)
    assert constrained_kmeans(x, start, 2, Constraints(free, FREE)).tolist() == [0, 0, 1, 1, 1]  # means .5 and 17
    barred = np.array([[4, 1]])  # means .5 and 10.5, then 10.3 and 10.5, then 10.25 and 11
    assert constrained_kmeans(x, start, 2, Constraints(free, barred)).tolist() == [0, 0, 0, 1, 0]
    fixed = np.array([-1, -1, -1, -1, 0])  # 30 with 0 and 1: their mean is then 10.3
    assert constrained_kmeans(x, start, 2, Constraints(fixed, FREE), iterations=1).tolist() == [0, 0, 1, 1, 0]
    # a third cluster without a point takes the one farthest from its mean, unless that is barred from it
    assert constrained_kmeans(x, start, 3, Constraints(free, FREE), iterations=1).tolist() == [0, 0, 1, 1, 2]
    third = constrained_kmeans(x, start, 3, Constraints(free, np.array([[4, 2]])), iterations=1)
    assert third[4] != 2
    assert 2 in third
