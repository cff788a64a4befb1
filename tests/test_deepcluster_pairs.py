"""Pairs: a coin lies on itself, a turned one is turned back, coins of one die agree; the command, stopped and again."""

import re
import shutil
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from conftest import refused, run_module
from sklearn.metrics import roc_auc_score

from datasets.painted import TYPES, paint, paint_coin
from datasets.places import find_place
from deepcluster.alignment import SIDE, agreement, align, compare_coins, face_of, overlay
from machine.files import read_csv


def struck(type_index: int, die: int, coin: int) -> tuple[np.ndarray, dict]:
    picture, _, facts = paint_coin(TYPES[type_index], np.random.default_rng([coin, 5]), np.random.default_rng(die))
    return picture, facts


def face(picture: np.ndarray):
    return face_of(picture, find_place(picture))


def turned(picture: np.ndarray, degrees: float) -> np.ndarray:
    """Clockwise as seen, about the picture's middle."""
    middle = (picture.shape[1] - 1) / 2, (picture.shape[0] - 1) / 2
    turn = cv2.getRotationMatrix2D(middle, -degrees, 1)
    return cv2.warpAffine(picture, turn, picture.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def test_a_coin_agrees_with_itself():
    picture, _ = struck(4, 7, 1)
    one = compare_coins(picture, picture)
    assert one.score == pytest.approx(1, abs=0.01)
    assert one.rotation == pytest.approx(0, abs=0.01)
    np.testing.assert_allclose(one.to_first, [[1, 0, 0], [0, 1, 0]], atol=0.01)


@pytest.mark.parametrize("degrees", [-120, 37, 90, 179])
def test_a_turned_coin_is_turned_back(degrees):
    picture, _ = struck(4, 7, 1)
    one = compare_coins(picture, turned(picture, degrees))
    assert abs((one.rotation + degrees + 180) % 360 - 180) < 1  # turned back, so the other way around
    assert one.score > 0.9


def test_size_and_place_in_the_picture_do_not_matter():
    picture, _ = struck(4, 7, 1)
    larger = cv2.resize(picture, None, fx=2.3, fy=2.3, interpolation=cv2.INTER_CUBIC)
    larger = cv2.copyMakeBorder(larger, 40, 5, 90, 10, cv2.BORDER_REPLICATE)
    one = compare_coins(picture, larger)
    assert one.score > 0.9
    assert abs(one.rotation) < 1


def test_coins_of_one_die_agree_better_than_those_of_another_die_of_the_same_type():
    """Wheels and crescents, three dies, three coins each, all else as it falls: wear, light, angle, flan, ground."""
    dies = np.repeat([0, 1, 2], 3)
    coins = [struck(8, 40 + die, 10 * die + n) for die, n in zip(dies.tolist(), list(range(3)) * 3, strict=True)]
    faces = [face(picture) for picture, _ in coins]
    i, j = np.triu_indices(len(faces), 1)
    found = {(a, b): align(faces[a], [faces[b]])[0] for a, b in zip(i.tolist(), j.tolist(), strict=True)}
    same = dies[i] == dies[j]
    assert roc_auc_score(same, [one.relief for one in found.values()]) > 0.95
    assert roc_auc_score(same, [one.score for one in found.values()]) > 0.8
    turns = [coins[a][1]["turn_degrees"] - coins[b][1]["turn_degrees"] for a, b in found]
    off = [abs((one.rotation - turn + 180) % 360 - 180) for one, turn in zip(found.values(), turns, strict=True)]
    assert np.median(np.array(off)[same]) < 1


def test_all_at_once_is_one_by_one():
    faces = [face(struck(3, 1, coin)[0]) for coin in range(4)]
    together = align(faces[0], faces[1:])
    for one, other in zip(together, faces[1:], strict=True):
        alone = align(faces[0], [other])[0]
        np.testing.assert_allclose(alone[:-1], one[:-1], rtol=1e-3, atol=1e-3)
    assert align(faces[0], []) == []


def test_where_they_agree_is_where_nothing_was_changed():
    """A field of a struck coin is painted over with another part of it: there, and not elsewhere, they differ."""
    picture, _ = struck(3, 1, 1)
    one = face(picture)
    changed = picture.copy()
    x, y = 104, 60
    changed[y - 22 : y + 22, x - 22 : x + 22] = np.rot90(changed[y - 22 : y + 22, x - 22 : x + 22], 1)
    other = face(changed)
    found = align(one, [other])[0]
    agreed, energy = agreement(one, other, found.to_first)
    assert agreed.shape == energy.shape == (SIDE, SIDE)
    difference = np.abs(one.picture.astype(float) - overlay(other, found.to_first)).mean(2)
    there = (cv2.GaussianBlur(difference, (0, 0), 3) > 12) & (energy > 0.5)
    elsewhere = (cv2.GaussianBlur(difference, (0, 0), 6) < 3) & (energy > 0.5)
    assert there.sum() > 100
    assert agreed[elsewhere].mean() > 0.9
    assert agreed[there].mean() < 0.6


@pytest.mark.parametrize(
    "odd",
    [
        np.full((60, 90, 3), 128, np.uint8),
        np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8),
        np.zeros((9, 11, 3), np.uint8),
    ],
    ids=["flat", "noise", "tiny"],
)
def test_pictures_without_a_coin_are_compared_with_little_success(odd):
    picture, _ = struck(4, 7, 1)
    for one in (compare_coins(picture, odd), compare_coins(odd, picture)):
        assert np.isfinite([*one[:-1]]).all()
        assert np.isfinite(one.to_first).all()
        assert one.score < 0.35


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    paint(root / "coins", 28, seed=2, dies=1)
    quick = ("--size", "64", "--epochs", "1", "--k", "4", "--device", "cpu")
    done = run_module("deepcluster", "train", root / "coins" / "images", "--exp", root / "exp", *quick)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained / "exp", tmp_path / "exp")
    return tmp_path / "exp"


def pairs(run, *more):
    return run_module("deepcluster", "pairs", "--run", run, "--nearest", "3", "--pictures", "5", *more)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href") and not value.startswith("data:")]


def test_pairs_are_listed_drawn_and_linked(run):
    done = pairs(run)
    assert done.returncode == 0, done.stderr
    rows = read_csv(run / "pairs" / "pairs.csv")
    assert list(rows[0])[:5] == ["image", "other", "score", "rotation", "same_cluster"]
    clusters = {row["image"]: row["cluster"] for row in read_csv(run / "clusters.csv")}
    assert [row["image"] for row in rows] == [
        image for image in (r["image"] for r in read_csv(run / "images.csv")) for _ in range(3)
    ]
    both = {(row["image"], row["other"]): row for row in rows}
    for (image, other), row in both.items():
        assert image != other
        assert row["same_cluster"] == ("yes" if clusters[image] == clusters[other] else "no")
        if (other, image) in both:
            assert row["score"] == both[other, image]["score"]
            assert float(row["rotation"]) == -float(both[other, image]["rotation"])
    pictures = sorted((run / "pairs" / "pictures").iterdir())
    assert len(pictures) == 5
    first = cv2.imread(str(pictures[0]))
    assert first.shape == (2 * SIDE, 6 * SIDE + 12, 3)
    assert first.std() > 20
    page = (run / "pairs" / "index.html").read_text()
    links = Links()
    links.feed(page)
    assert len([link for link in links.found if link.endswith(".jpg")]) == 10
    assert all((run / "pairs" / link).exists() for link in links.found)
    best = max(rows, key=lambda row: float(row["score"]))
    assert re.search(r"score ([\d.]+)", page)[1] == f"{float(best['score']):.2f}"


def test_a_command_that_was_stopped_goes_on(run):
    assert pairs(run).returncode == 0
    out = run / "pairs"
    table, page = (out / "pairs.csv").read_bytes(), (out / "index.html").read_bytes()
    (piece,) = (out / ".pieces").glob("*.npz")
    pictures = sorted((out / "pictures").iterdir())
    times = [path.stat().st_mtime_ns for path in (piece, *pictures[1:])]
    for gone in (out / "pairs.csv", out / "index.html", pictures[0]):
        gone.unlink()
    assert pairs(run).returncode == 0
    assert ((out / "pairs.csv").read_bytes(), (out / "index.html").read_bytes()) == (table, page)
    assert [path.stat().st_mtime_ns for path in (piece, *pictures[1:])] == times
    assert pictures[0].exists()
    assert run_module("deepcluster", "pairs", "--run", run, "--nearest", "2", "--pictures", "0").returncode == 0
    assert piece.stat().st_mtime_ns != times[0]  # other pairs were asked for
    assert not list((out / "pictures").iterdir())


def test_auc_against_labels(trained, run):
    rows = read_csv(trained / "coins" / "truth.csv")
    labels = trained / "labels.csv"
    labels.write_text("image,type,dot\n" + "".join(f"{r['image']},{r['type']},{r['dot']}\n" for r in rows))
    done = pairs(run, "--labels", labels, "--within", "dot")
    assert done.returncode == 0, done.stderr
    table = {row["what"]: row for row in read_csv(run / "pairs" / "auc.csv")}
    score = table["score of the pair"]
    assert float(score["value"]) > 0.8 > float(score["high"])
    assert float(score["low"]) < 0.5
    assert {"clustered features, cosine", "unrolled spectrum, cosine"} < {*table}
    kinds = [(r["type"], r["dot"]) for r in rows]
    within = [(a, b) for n, a in enumerate(kinds) for b in kinds[:n] if a[1] == b[1]]
    assert int(score["same"]) == sum(a == b for a, b in within)
    assert int(score["same"]) + int(score["different"]) == len(within)
    assert "AUC" in done.stdout


def test_what_cannot_be_measured_is_said(trained, run, tmp_path):
    assert "--labels" in refused(pairs(run, "--within", "folder"))
    assert "no such file" in refused(pairs(run, "--labels", tmp_path / "none.csv"))
    assert "not a run directory" in refused(pairs(tmp_path))
    one = tmp_path / "one.csv"
    one.write_text("image,type\n" + "".join(f"{row['image']},a\n" for row in read_csv(run / "images.csv")[:4]))
    assert "nothing to measure" in refused(pairs(run, "--labels", one))
