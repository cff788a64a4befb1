"""Lift, conditional AMI and neighbours: by hand on six coins; what is planted is found, what is shuffled is not."""

from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import adjusted_mutual_info_score

from deepcluster.lift import (
    base_rate,
    conditional_ami,
    estimate_accuracy,
    estimate_ami,
    estimate_lift,
    family_of,
    lift,
    neighbour_accuracy,
)

SEED = 4


def of(text: str) -> np.ndarray:
    return np.array(list(text))


def test_lift_of_six_coins_by_hand():
    """Metal 1 has a, a, b, all in cluster 0: aa shares it, ab and ab do too. Metal 2 has b, b in 0 and c in 1.

    There bb share, bc and bc do not. So 2 of 2 pairs of one label share a cluster, 2 of 4 of different ones.
    """
    labels, clusters = of("aabbbc"), of("000001")
    assert lift(labels, clusters, of("111222")) == pytest.approx((2 / 2) / (2 / 4))
    # all coins: aa and three bb share, 4 of 4; of the 11 pairs of different labels all but the five of c
    assert lift(labels, clusters, of("111111")) == pytest.approx((4 / 4) / (6 / 11))
    assert np.isnan(lift(labels, clusters, labels))  # where no two labels differ


def test_lift_equals_counting_pairs():
    rng = np.random.default_rng(0)
    labels, clusters, strata = rng.integers(0, 3, 60), rng.integers(0, 5, 60), rng.integers(0, 2, 60)
    tally = {True: [0, 0], False: [0, 0]}
    for i, j in combinations(range(60), 2):
        if strata[i] == strata[j]:
            counted = tally[bool(labels[i] == labels[j])]
            counted[0] += clusters[i] == clusters[j]
            counted[1] += 1
    (same, alike), (mixed, different) = tally[True], tally[False]
    assert lift(labels, clusters, strata) == pytest.approx((same / alike) / (mixed / different))


def test_lift_at_its_ends():
    one = of("111111")
    assert lift(of("aaabbb"), of("000111"), one) == np.inf
    assert lift(of("aaabbb"), of("000000"), one) == 1
    assert lift(of("ababab"), of("001122"), one) == 0
    assert np.isnan(lift(of("aaaaaa"), of("000111"), one))
    assert np.isnan(lift(of("abcdef"), of("000111"), one))


def test_conditional_ami_of_one_stratum_is_the_ami():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    clusters = np.where(rng.random(200) < 0.4, labels, rng.integers(0, 7, 200))
    assert_allclose(conditional_ami(labels, clusters, np.zeros(200)), adjusted_mutual_info_score(labels, clusters))


def test_conditional_ami_does_not_count_what_the_stratum_says():
    """Clusters are the metals, each label lives in one metal mostly: agreement without, none within."""
    rng = np.random.default_rng(2)
    metal = rng.integers(0, 2, 2000)
    labels = np.where(rng.random(2000) < 0.9, metal, 1 - metal)
    clusters = 3 * metal + rng.integers(0, 3, 2000)
    assert adjusted_mutual_info_score(labels, clusters) > 0.2
    assert abs(conditional_ami(labels, clusters, metal)) < 0.01
    assert lift(labels, clusters, metal) == pytest.approx(1, abs=0.05)


def test_conditional_ami_of_clusters_that_are_the_labels_is_one():
    labels = of("aabbaabb")
    assert conditional_ami(labels, labels, of("11112222")) == pytest.approx(1)
    assert np.isnan(conditional_ami(labels, of("00000000"), of("aabbaabb")))


def test_permutations_find_what_was_planted_and_not_what_was_shuffled():
    rng = np.random.default_rng(3)
    strata = rng.integers(0, 3, 240)
    labels = rng.integers(0, 2, 240)
    planted = 10 * strata + 2 * rng.integers(0, 4, 240) + np.where(rng.random(240) < 0.8, labels, 1 - labels)
    features = np.stack([planted % 2, strata], 1) + rng.normal(0, 0.05, (240, 2))
    for estimate in (
        estimate_lift(labels, planted, strata, SEED),
        estimate_ami(labels, planted, strata, SEED),
        estimate_accuracy(features, labels, strata, None, SEED),
    ):
        assert estimate.p <= 0.002
        assert estimate.value > estimate.high
    shuffled = rng.permutation(planted)
    hidden = estimate_lift(labels, shuffled, strata, SEED)
    assert hidden.low <= hidden.value <= hidden.high
    assert hidden.p > 0.05
    assert hidden.low < 1 < hidden.high
    chance = estimate_ami(labels, shuffled, strata, SEED)
    assert chance.low < 0 < chance.high


def test_false_alarms_are_as_rare_as_they_say():
    rng = np.random.default_rng(5)
    strata, clusters = rng.integers(0, 2, 80), rng.integers(0, 6, 80)
    p = [estimate_lift(rng.integers(0, 2, 80), clusters, strata, i, permutations=99).p for i in range(200)]
    assert np.mean(np.array(p) <= 0.05) < 0.10
    assert 0.4 < np.mean(p) < 0.6


def test_the_same_seed_gives_the_same_interval():
    labels, clusters, strata = of("aabbab" * 5), of("001100" * 5), of("1" * 30)
    assert estimate_lift(labels, clusters, strata, 1, 50) == estimate_lift(labels, clusters, strata, 1, 50)


def test_nothing_to_compare_is_said_as_nan():
    found = estimate_lift(of("aaaa"), of("0011"), of("1111"), SEED)
    assert np.isnan([found.value, found.low, found.high, found.p]).all()


def test_neighbours_by_hand():
    """On a line: the coin at 9 lies among two a's and has none of its own."""
    x = np.array([[0.0], [1], [2], [9], [10], [11], [12]])
    labels = of("bbbabbb")
    assert neighbour_accuracy(x, labels, None, 1) == pytest.approx(5 / 7)  # wrong: the a, and the b at 10, nearest to 9
    assert neighbour_accuracy(x, labels, None, 3) == pytest.approx(6 / 7)
    assert base_rate(labels, np.zeros(7)) == pytest.approx(6 / 7)
    assert base_rate(of("aabb"), of("1122")) == 1


def test_ties_go_to_the_nearer():
    x, labels = np.array([[0.0], [1], [-1.1], [30]]), of("aabb")
    assert neighbour_accuracy(x[:3], labels[:3], None, 2) == pytest.approx(2 / 3)


def test_coins_of_one_photograph_do_not_vote_for_each_other():
    x = np.array([[0.0], [0.1], [5], [5.1]])
    labels, photographs = of("aabb"), of("1122")
    assert neighbour_accuracy(x, labels, None, 1) == 1
    assert neighbour_accuracy(x, labels, photographs, 1) == 0
    assert neighbour_accuracy(x, labels, of("1111"), 1) == 0  # none is left to vote


@pytest.mark.parametrize(
    ("image", "family"),
    [
        ("10c/train_12_3.jpg", "10c/train_12"),
        ("train_12_30.jpg", "/train_12"),
        ("box 3 - coin 17.png", "/box 3"),
        ("a/coin_0005.jpg", "a/coin_0005.jpg"),
        ("IMG.jpg", "IMG.jpg"),
        ("test/00001", "test/00001"),
    ],
)
def test_family_is_all_but_the_last_of_several_numbers(image, family):
    assert family_of(image) == family


def test_family_by_a_pattern():
    assert family_of("10c/train_12_3.jpg", r"train_(\d+)") == "12"
    assert family_of("10c/train_12_3.jpg", r"train_\d+") == "train_12"
    assert family_of("other.jpg", r"train_(\d+)") == "other.jpg"
