"""Maps under random weights and under slight changes of the photograph, on runs that see coins and photographs."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import runs
from deepcluster import cluster
from explain.attribution import parse_all
from explain.audit import faithfulness, randomisation, stability
from explain.audit.controls import heats, own_targets
from explain.audit.findings import Asked, Sample
from explain.audit.randomisation import (
    against_random_weights,
    cascade,
    likeness_by_depth,
    likenesses,
    maps_of,
    structural_similarity,
)
from explain.audit.stability import CHANGES, EDGES, drawn, look_at, moved_by
from explain.choice import target_weights
from explain.scores import score_images
from explain.subject import Subject, find_pictures

CPU = torch.device("cpu")
METHODS = parse_all(["grad_cam", "guided_backprop"])


def sample_of(data, folder, **settings):
    cluster(data, folder / "exp", k=2, epochs=1, batch=8, size=64, **settings)
    run = runs.open_run(folder / "exp")
    subject = Subject(run, 1, find_pictures(run, None, None, None, CPU), None, CPU)
    rows = subject.pictures.present
    return Sample(subject, score_images(subject, folder, "pca"), rows[subject.clusters.assignment[rows] >= 0])


@pytest.fixture(scope="module")
def unrolled(struck, tmp_path_factory):
    return sample_of(struck, tmp_path_factory.mktemp("unrolled"))


@pytest.fixture(scope="module")
def photographs(struck, tmp_path_factory):
    return sample_of(struck, tmp_path_factory.mktemp("photographs"), view="photograph")


# --- random weights -----------------------------------------------------------------------------------------------


def test_weights_become_random_from_the_head_down(unrolled):
    trained, untrained = unrolled.subject.model, unrolled.subject.untrained
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    first = untrained.state_dict()
    names, changed = [], []
    for name, model in cascade(trained, untrained):
        names.append(name)
        state = model.state_dict()
        changed.append({key for key in state if not torch.equal(state[key], before[key])})
    assert names == ["head", "dense 1", *(f"convolution {i}" for i in (4, 3, 2, 1))]
    assert changed[0] == {"model.head.weight", "model.head.bias"}
    assert all(less < more for less, more in pairwise(changed))
    assert all(torch.equal(value, first[key]) for key, value in state.items())
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())


def test_likeness_under_random_weights(unrolled, monkeypatch):
    monkeypatch.setattr(randomisation, "DRAWS", 1)  # those that the training started from, as the gallery has them
    asked = Asked(METHODS, 24, 0)
    found = randomisation.measure(unrolled, asked)
    by = {(one.of, one.measure): one for one in found.findings}
    subject, rows = unrolled.subject, unrolled.rows  # 24: all of them
    weights = target_weights(subject, "own", rows, unrolled.scores)
    gallery = against_random_weights(subject, rows, weights, METHODS)
    for one in METHODS:
        everywhere = by[one.title, "rank correlation, absolute maps, random weights everywhere"]
        assert everywhere.value == pytest.approx(gallery[one.key], abs=1e-4)
        assert everywhere.low <= everywhere.value <= everywhere.high
        assert everywhere.control == "maps of two images"
    head = by["Guided Backprop", "rank correlation, absolute maps, random weights in the head alone"]
    assert head.value > 0.8  # Adebayo et al. 2018: it hardly asks the head
    assert head.verdict.startswith("more alike than maps of two images, by 0.")
    assert (head.value, head.low) != (everywhere.value, everywhere.low)
    lines = found.figures["sanity-rank"].lines
    assert set(lines) == {
        "Grad-CAM, absolute maps",
        *(f"Guided Backprop, {one} maps" for one in ("absolute", "signed")),
    }
    across, up = lines["Guided Backprop, absolute maps"]
    assert across == list(range(7))  # trained, head, neck, four convolutions
    assert up[0] == 1
    assert up[1] == head.value
    assert up[-1] == everywhere.value
    assert not found.missing


def test_random_weights_are_drawn_several_times(unrolled, monkeypatch):
    monkeypatch.setattr(randomisation, "DRAWS", 3)
    subject, rows, (method,) = unrolled.subject, unrolled.rows[:3], parse_all(["guided_backprop"])
    own = own_targets(subject, rows)
    learnt = maps_of(subject, subject.model, rows, own, [method])
    like, depths = likeness_by_depth(subject, rows, [method], learnt)
    ranks = like["Guided Backprop", "rank correlation, absolute maps"]
    assert ranks.shape == (3, 6, 3)
    assert depths[0] == "trained"
    assert len(depths) == 7
    everywhere = maps_of(subject, subject.with_random_weights(2), rows, own, [method])
    by_hand = likenesses(method, learnt[method.key], everywhere[method.key])["rank correlation, absolute maps"]
    np.testing.assert_allclose(ranks[2, -1], by_hand, atol=1e-5)
    assert len({float(one) for one in ranks[:, -1, 0]}) == 3  # no two draws alike
    found = randomisation.measure(replace(unrolled, rows=rows), Asked([method], 3, 0))
    by = {one.measure: one for one in found.findings}
    head = "rank correlation, absolute maps, random weights in the head alone"
    assert by[head].value == pytest.approx(ranks[:, 0].mean(), abs=1e-5)
    spread = by[f"{head}: standard deviation between draws"]
    assert (spread.value, spread.n) == (pytest.approx(ranks[:, 0].mean(1).std(ddof=1), abs=1e-5), 3)


def test_structural_similarity_by_hand():
    a = np.random.default_rng(0).random((20, 30))
    assert structural_similarity(a, a) == pytest.approx(1)
    low, high = np.full((20, 30), 0.2), np.full((20, 30), 0.6)
    assert structural_similarity(low, high) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))
    board = np.indices((40, 40)).sum(0) % 2.0  # a chess board: mean 1/2 and variance 1/4 under any window
    assert structural_similarity(board, 1 - board) == pytest.approx((-0.5 + 9e-4) / (0.5 + 9e-4), abs=0.01)
    assert structural_similarity(board, board / 2 + 1 / 4) == pytest.approx((0.25 + 9e-4) / (0.3125 + 9e-4), abs=0.01)


def test_maps_that_say_nothing_are_like_none():
    maps = np.zeros((3, 3, 8, 8), np.float32)
    maps[1:] = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    (guided,) = parse_all(["guided_backprop"])
    found = likenesses(guided, maps, np.concatenate([maps[:2], -maps[2:]]))
    assert len(found) == 4
    for what, values in found.items():
        assert np.isnan(values[0])
        assert values[1] == pytest.approx(1)
        assert (values[2] < -0.5) if "signed" in what else (values[2] > 0.99)


# --- slight changes of the photograph -----------------------------------------------------------------------------


def test_a_photograph_is_seen_as_in_the_run(unrolled, photographs):
    for sample in (unrolled, photographs):
        subject = sample.subject
        place, images = look_at(subject, np.array(subject.pictures.dataset.decoded[5]))
        torch.testing.assert_close(images, subject.images(np.array([5])))
        assert (place is None) == (sample is photographs)


def test_maps_are_laid_back_onto_the_photograph(unrolled):
    """What was cut off the coin's design stays in its place once the change is taken back, and not before."""
    dataset = unrolled.subject.pictures.dataset
    rng = np.random.default_rng(0)
    pixels = np.array(dataset.decoded[4])
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    coin = dataset.places[4].mask(pixels.shape)
    moved = {}
    for change in CHANGES:
        after = cv2.cvtColor(change.change(pixels, rng), cv2.COLOR_RGB2GRAY).astype(np.float32)
        assert after.shape == grey.shape
        assert (after != grey).mean() > 0.3
        moved[change.title] = moved_by(grey, after, change.moved(grey.shape), coin)
        if "turned" in change.title or "cut" in change.title:
            assert moved[change.title] < 0.6 * moved_by(grey, after, np.eye(2, 3), coin)
    closer, _ = look_at(unrolled.subject, CHANGES[3].change(pixels, rng))
    assert closer.radius == pytest.approx(dataset.places[4].radius / (1 - 2 * stability.CUT), rel=0.01)
    assert moved_by(grey, grey, np.eye(2, 3), coin) == pytest.approx(0)
    assert np.isnan(moved_by(grey, np.zeros_like(grey), np.eye(2, 3), coin))


def test_heat_of_a_view_comes_back_to_its_place(unrolled):
    """The same side of the coin is hot before and after the photograph is turned against the clock."""
    subject = unrolled.subject
    pixels = np.array(subject.pictures.dataset.decoded[7])
    (turned, *_) = CHANGES
    changed = turned.change(pixels, np.random.default_rng(0))
    matrix = turned.moved(pixels.shape[:2])
    place = subject.pictures.dataset.places[7]
    after, _ = look_at(subject, changed)
    turns = np.arange(128) * 2 * np.pi / 128
    strip, rolled = (np.tile(np.sin(turns + shift), (32, 1)) for shift in (0, np.radians(stability.TURN)))
    coin = place.mask(pixels.shape)
    before = drawn(subject, strip, pixels, place)
    same = moved_by(before, drawn(subject, rolled, changed, after), matrix, coin)
    other = moved_by(before, drawn(subject, rolled, changed, after), np.eye(2, 3), coin)
    away = moved_by(before, drawn(subject, -rolled, changed, after), matrix, coin)
    assert same < other < away
    assert same < 0.01


@pytest.mark.parametrize("name", ["unrolled", "photographs"])
def test_stability_of_a_run(name, request, monkeypatch):
    sample = request.getfixturevalue(name)
    monkeypatch.setattr(stability, "FEW", 3)
    asked = Asked(METHODS, 24, 0)
    found = stability.measure(sample, asked)
    titles = [one.title for one in METHODS]
    for change in CHANGES:
        told = {
            one.of: one for one in found.findings if one.measure.startswith("map moves") and change.title in one.measure
        }
        assert set(told) == {*titles, EDGES}
        for one in told.values():
            assert one.n <= 3
            if one.n:
                assert 0 <= one.value <= 2
                assert one.control_value < 0.6
                assert one.verdict.endswith("its edges" if one.of != EDGES else "the photograph")
    empty = {one.of: one for one in found.findings if one.measure == "empty maps"}
    maps = heats(sample.subject, sample.rows, METHODS, 0)
    for title in titles:
        assert empty[title].n == len(sample.rows)
        assert empty[title].value == np.mean([heat.min() == heat.max() for heat in maps[title]])
    loses = next(one for one in found.findings if one.measure.startswith("maps of a logit"))
    assert loses.value == (sample.scores.margin < 0).mean()
    timed = [one for one in found.findings if one.measure.startswith("milliseconds")]
    assert [one.of for one in timed] == titles
    again = stability.measure(sample, asked).findings
    assert [one for one in again if not one.measure.startswith("milli")] == [
        one for one in found.findings if one not in timed
    ]


def test_faithfulness_of_a_run(photographs, monkeypatch):
    monkeypatch.setattr(faithfulness, "FEW", 2)
    monkeypatch.setattr(faithfulness, "STEPS", 4)
    found = faithfulness.measure(photographs, Asked(METHODS, 24, 0))
    assert len(found.findings) == 2 * 11
    for one in found.findings:  # an image that says nothing as it is shown bit by bit has no SIC and no AIC
        assert one.n == 2 if one.measure not in (faithfulness.SIC, faithfulness.AIC) else one.n <= 2
        assert one.verdict or one.n < 2


def test_no_image_is_a_sentence(unrolled):
    nothing = Sample(SimpleNamespace(clusters=SimpleNamespace(numbers=[0, 1])), None, np.zeros(0, np.int64))
    for part in (faithfulness, randomisation, stability):
        found = part.measure(nothing, Asked(METHODS, 0, 0))
        assert not found.findings
        assert "no image" in found.missing[0]
