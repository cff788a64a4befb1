"""When an image is distrusted, where its heat lies, which clusters are near: by numbers that a reader can check."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from datasets.painted import TYPES, paint_coin, read_mask
from datasets.places import place_at
from deepcluster.baselines import BASELINES, beats_baselines, verdict
from explain.doubt import DOUBTS, doubtful_first, doubts_of
from explain.drawing import HEAT_CELLS
from explain.gallery.places import ELSEWHERE, RIM, partition, share_of_parts
from explain.gallery.tree import draw_tree
from explain.scores import centres_of, nearest_clusters


def an_explanation(**changes) -> SimpleNamespace:
    """Twelve images in two clusters: 0 to 9 in cluster 3, 10 in 5, 11 in none; 9 is gone."""
    count = 12
    known = {
        "assignment": np.array([3] * 10 + [5, -1]),
        "margin": np.full(count, 2.0),
        "probability": np.full(count, 0.9),
        "distance": np.arange(count) * 0.01 + 1,
        "labels": None,
        "empty": np.zeros(count, bool),
        "view": "unrolled",
        "unfound": (),
    } | changes
    present = np.delete(np.arange(count), 9)
    position = np.full(count, -1)
    position[present] = np.arange(count - 1)[::-1]  # the folder lists them the other way round
    places = {int(position[row]): place_at(5, 5, 5, confidence=float(row not in known["unfound"])) for row in present}
    dataset = SimpleNamespace(find_places=lambda: [places[i] for i in range(len(places))])
    run = SimpleNamespace(ids=[str(i) for i in range(count)], labels=known["labels"])
    subject = SimpleNamespace(
        run=run,
        clusters=SimpleNamespace(assignment=known["assignment"], distance=known["distance"]),
        view=known["view"],
        pictures=SimpleNamespace(present=present, position=position, dataset=dataset),
        class_names=None,
        is_wrong=lambda row: False,
    )
    scores = SimpleNamespace(margin=known["margin"], probability=known["probability"])
    return SimpleNamespace(
        subject=subject, scores=scores, record=SimpleNamespace(empty={"grad_cam": known["empty"]}), heat_key="grad_cam"
    )


def held(explanation: SimpleNamespace) -> dict[str, list[int]]:
    return {flag: np.flatnonzero(rows).tolist() for flag, rows in doubts_of(explanation).items() if rows.any()}


def test_nothing_is_doubtful_without_a_reason():
    assert held(an_explanation()) == {}


def test_photographs_in_which_no_coin_was_found_are_told_where_a_coin_was_looked_for():
    unfound = (1, 4, 9, 11)  # 9 is gone, 11 in no cluster
    assert held(an_explanation(unfound=unfound)) == {"no-coin": [1, 4]}
    assert held(an_explanation(unfound=unfound, view="photograph")) == {}


def test_a_losing_logit_disagrees_and_only_a_winning_one_can_be_unsure():
    margin, probability = np.full(12, 2.0), np.full(12, 0.9)
    margin[[2, 9, 11]], probability[[2, 4]] = -1, 0.3  # 9 is gone, 11 in no cluster
    assert held(an_explanation(margin=margin, probability=probability)) == {"disagrees": [2], "unsure": [4]}


def test_far_is_beyond_tukeys_fence_of_its_own_cluster():
    distance = np.array([1.0] * 4 + [1.1] * 4 + [9.0, 1.0, 50.0, 60.0])  # the only one of cluster 5 is far from nobody
    assert held(an_explanation(distance=distance)) == {"far": [8]}
    unknown = np.where(np.arange(12) < 8, np.nan, 1.0)
    assert held(an_explanation(distance=unknown)) == {}


def test_a_label_unlike_the_others_counts_where_they_agree_and_the_network_stays():
    labels = ["axe"] * 7 + ["", "wheel", "wheel", "torc", "torc"]
    assert held(an_explanation(labels=labels)) == {"label": [8]}  # 9 is gone, 7 is unknown
    margin = np.full(12, 2.0)
    margin[8] = -1
    assert held(an_explanation(labels=labels, margin=margin)) == {"disagrees": [8]}
    mixed = ["axe", "wheel"] * 5 + ["torc", ""]
    assert held(an_explanation(labels=mixed)) == {}
    unknown = [""] * 8 + ["wheel", "axe", "", ""]
    assert held(an_explanation(labels=unknown)) == {}


def test_the_gravest_reason_comes_first_then_the_least_likely():
    margin, probability, empty = np.full(12, 2.0), np.full(12, 0.9), np.zeros(12, bool)
    margin[[1, 2]], probability[[1, 2, 3, 4]], empty[[5, 2]] = -1, [0.3, 0.2, 0.4, 0.1], True
    explanation = an_explanation(margin=margin, probability=probability, empty=empty)
    assert doubtful_first(explanation, doubts_of(explanation)).tolist() == [2, 1, 4, 3, 5]


def test_each_doubt_is_told_once():
    assert len({doubt.flag for doubt in DOUBTS}) == len({doubt.title for doubt in DOUBTS}) == len(DOUBTS)


def test_parts_of_a_coin_do_not_overlap_and_are_the_picture(tmp_path):
    _, bits, _ = paint_coin(TYPES[0], np.random.default_rng(5))
    Image.fromarray(bits).save(tmp_path / "mask.png")
    masks = read_mask(tmp_path / "mask.png")
    parts = partition(masks)
    assert list(parts) == ["symbols", "cross", "rim", "face beside them", ELSEWHERE]
    assert (np.sum(list(parts.values()), axis=0) == 1).all()
    assert not (parts[ELSEWHERE] & masks["coin"]).any()


def test_the_rim_is_the_outer_part_of_the_radius():
    y, x = np.mgrid[:201, :201]
    radius = np.hypot(x - 100, y - 100)
    none = np.zeros((201, 201), bool)
    parts = partition({"coin": radius < 80, "cross": none, "field0": none})
    inner = radius[parts["face beside them"]].max()
    assert inner == pytest.approx(80 * (1 - RIM), abs=2)
    assert radius[parts["rim"]].min() == pytest.approx(80 * (1 - RIM), abs=2)
    dots = partition({"line": radius < 10, "small": radius < 20})  # the first named has what both cover
    assert dots["line"].sum() == (radius < 10).sum()
    assert not (dots["line"] & dots["small"]).any()
    assert (dots[ELSEWHERE] == (radius >= 20)).all()


def test_where_a_coin_was_found_its_rim_and_face_are_the_parts(tmp_path):
    places = [place_at(31.5, 31.5, 20, confidence=1), place_at(31.5, 31.5, 20)]  # the second photograph shows none
    decoded = np.zeros((2, 64, 64, 3), np.uint8)
    dataset = SimpleNamespace(mask_of=None, mask=lambda _: None, places=places, decoded=decoded)
    y, x = np.mgrid[:HEAT_CELLS, :HEAT_CELLS] - (HEAT_CELLS - 1) / 2
    middle = (np.hypot(x, y) < 0.2 * HEAT_CELLS).astype(np.float32)
    told = SimpleNamespace(
        subject=SimpleNamespace(
            pictures=SimpleNamespace(dataset=dataset, position=np.arange(2)),
            run=SimpleNamespace(ids=["a", "b"]),
            cut=lambda _, mask, side: cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA),
        ),
        record=SimpleNamespace(heat={0: middle, 1: middle}),
        folder=tmp_path,
    )
    for _ in range(2):  # the second time from what was kept
        parts = share_of_parts(told)
        assert [*parts] == ["rim", "face", ELSEWHERE]
        assert [values[0, 0] for values in parts.values()] == pytest.approx([0, 1, 0], abs=0.01)
        area = np.pi * 20**2 / 64**2
        inner = (1 - RIM) ** 2
        covered = [area * (1 - inner), area * inner, 1 - area]
        assert [values[0, 1] for values in parts.values()] == pytest.approx(covered, abs=0.03)
        assert all(np.isnan(values[1]).all() for values in parts.values())


def test_centres_point_away_from_the_mean_of_all_and_the_nearest_come_first():
    features = np.array([[2.0, 1.0], [4.0, 1.0], [1.0, 3.0], [1.0, -1.0]])
    centres = centres_of(features, np.array([0, 0, 1, 3]), 4)
    np.testing.assert_allclose(centres[0], [1, 0], atol=1e-6)  # (3, 1) less (2, 1)
    np.testing.assert_allclose(centres[1], np.array([-1, 2]) / 5**0.5, atol=1e-6)
    assert np.isnan(centres[2]).all()  # without an image
    assert nearest_clusters(centres, 2) == [[1, 3], [0, 3], [], [0, 1]]


def test_the_tree_joins_the_nearest_first():
    angle = np.deg2rad([0, 5, 90, 100])
    centres = np.stack([np.cos(angle), np.sin(angle)], 1)
    clusters = SimpleNamespace(numbers=[2, 4, 6, 8])
    explanation = SimpleNamespace(subject=SimpleNamespace(clusters=clusters), scores=SimpleNamespace(centres=centres))
    tree = draw_tree(explanation)
    assert {frozenset(tree.leaves[:2]), frozenset(tree.leaves[2:])} == {frozenset({2, 4}), frozenset({6, 8})}
    assert tree.path.count("M") == 3
    explanation.scores.centres = centres[:2]
    clusters.numbers = [2, 4]
    assert draw_tree(explanation) is None


@pytest.mark.parametrize(("ami", "better"), [(0.45, True), (0.27, False), (0.26, False), (0.1, False)])
def test_the_verdict_and_its_colour_agree(ami, better):
    baselines = {"pixels": {"ami": 0.23}, "untrained": {"ami": 0.26}, "of another version": {"ami": 0.9}}
    assert beats_baselines(ami, baselines) == better
    assert ("more than any baseline" in verdict(ami, baselines)) == better
    assert not beats_baselines(0.01, {key: {"ami": 0.0} for key in BASELINES})
