import csv
import hashlib
import shutil
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from datasets import open_dataset
from datasets.painted import BACKGROUNDS, MASK_BITS, SIZE, SYMBOLS, TYPES, paint, paint_coin, read_mask


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    root = tmp_path_factory.mktemp("painted") / "coins"
    paint(root, 60, seed=4)
    return root


def turns_and_mirrors(fields):
    for row in (list(fields), list(fields)[::-1]):
        for turn in range(4):
            yield tuple(row[turn:] + row[:turn])


def test_types_differ_by_more_than_a_turn_or_a_mirror():
    assert len(TYPES) >= 12
    for one, other in combinations(TYPES, 2):
        assert one.dot != other.dot or one.fields not in set(turns_and_mirrors(other.fields)), (one, other)
    assert {symbol for coin in TYPES for symbol in coin.fields} == {*SYMBOLS, ""}
    assert {coin.dot for coin in TYPES} == {True, False}
    weights = [coin.weight for coin in TYPES]
    assert max(weights) >= 4 * min(weights)


def test_same_seed_same_bytes(painted, tmp_path):
    paint(tmp_path / "again", 60, seed=4)
    for path in sorted(painted.rglob("*.*")):
        assert (tmp_path / "again" / path.relative_to(painted)).read_bytes() == path.read_bytes()


def test_pixels_are_the_same_on_every_machine():
    """The first coin's pixels, rounded coarsely: a change of the painter must raise its VERSION."""
    picture, bits, _ = paint_coin(TYPES[5], np.random.default_rng(0))
    assert picture.shape == (SIZE, SIZE, 3)
    assert hashlib.sha256(bits.tobytes()).hexdigest()[:12] == "4e67d0da4161"
    assert (
        hashlib.sha256(
            np.round(picture.astype(float).reshape(13, 16, 13, 16, 3).mean((1, 3))).astype(np.uint8).tobytes()
        ).hexdigest()[:12]
        == "1353954e45ba"
    )


def test_truth_and_masks_stand_beside_every_picture(painted):
    rows = list(csv.DictReader((painted / "truth.csv").open()))
    assert len(rows) == 60
    assert {row["type"] for row in rows} == {coin.name for coin in TYPES}
    for row in rows:
        picture = Image.open(painted / "images" / row["image"])
        assert picture.format == "JPEG"
        assert picture.size == (SIZE, SIZE)
        masks = read_mask(painted / "masks" / row["image"].replace(".jpg", ".png"))
        assert 0.08 < masks["coin"].mean() < 0.8
        assert (masks["coin"].mean() < 0.5) or row["quality"] != "small"
        for i in range(4):
            assert masks[f"field{i}"].any() == bool(row[f"field{i}"])
            assert not (masks[f"field{i}"] & ~masks["coin"]).any()
        assert (masks["cross"] & masks["coin"]).sum() > 0.03 * masks["coin"].sum()
        assert masks["dot"].any() == (row["dot"] == "True")
        assert 0 <= float(row["wear"]) <= 1
        assert row["background"] in BACKGROUNDS


def test_masks_lie_where_the_relief_is(painted):
    """Along the bars' and symbols' outlines the picture changes more than on the bare field."""
    rows = [
        row
        for row in csv.DictReader((painted / "truth.csv").open())
        if row["quality"] == "good" and float(row["wear"]) < 0.3
    ]
    ratios = []
    for row in rows:
        grey = np.asarray(Image.open(painted / "images" / row["image"]).convert("L"), float)
        masks = read_mask(painted / "masks" / row["image"].replace(".jpg", ".png"))
        change = np.hypot(*np.gradient(grey))
        drawn = masks["cross"] | masks["field0"] | masks["field1"] | masks["field2"] | masks["field3"]
        y, x = np.mgrid[:SIZE, :SIZE]
        centre = np.argwhere(masks["coin"]).mean(0)
        inner = np.hypot(y - centre[0], x - centre[1]) < 0.75 * np.sqrt(masks["coin"].sum() / np.pi)
        ratios.append(change[drawn & inner].mean() / change[inner & ~drawn].mean())
    assert len(ratios) > 10
    assert np.mean(ratios) > 1.2


def test_wear_takes_the_relief_away():
    """One coin painted with the same dice but its wear: the worn one has less contrast on the cross."""

    class Worn:
        """A generator whose first draw, the wear, is given."""

        def __init__(self, wear):
            self._rng, self._wear = np.random.default_rng(3), wear

        def __getattr__(self, name):
            return getattr(self._rng, name)

        def beta(self, *_):
            self._rng.beta(1, 1)
            return self._wear

    contrast = []
    for wear in (0.0, 0.4, 0.9):
        picture, bits, facts = paint_coin(TYPES[7], Worn(wear))
        assert facts["wear"] == wear
        cross = (bits & (MASK_BITS["horizontal"] | MASK_BITS["vertical"])) > 0
        contrast.append(np.hypot(*np.gradient(picture.astype(float).mean(2)))[cross].mean())
    assert contrast[0] > 1.15 * contrast[1] > 1.15 * 1.15 * contrast[2]


def test_coins_of_one_die_have_one_relief_and_all_else_of_their_own():
    """The die is all that differs between the first two; the flan and the photograph between the first and the last."""

    def strike(coin, die):
        return paint_coin(TYPES[13], np.random.default_rng(coin), np.random.default_rng(die))

    picture, bits, facts = strike(1, 1)
    for again, same in zip(strike(1, 1)[:2], (picture, bits), strict=True):
        np.testing.assert_array_equal(again, same)
    _, other, others = strike(1, 2)
    assert others == facts
    np.testing.assert_array_equal(other & MASK_BITS["coin"], bits & MASK_BITS["coin"])
    fields = sum(MASK_BITS[f"field{i}"] for i in range(4))
    assert ((other ^ bits) & fields > 0).sum() > 300
    _, last, _ = strike(2, 1)
    assert ((last ^ bits) & MASK_BITS["coin"] > 0).sum() > 300


def test_dies_of_a_painted_set(tmp_path):
    paint(tmp_path / "coins", 60, seed=4, dies=2)
    rows = list(csv.DictReader((tmp_path / "coins" / "truth.csv").open()))
    struck = {coin.name: [row["die"] for row in rows if row["type"] == coin.name] for coin in TYPES}
    for name, dies in struck.items():  # as evenly as their number lets
        assert {*dies} == {f"{name}/{die}" for die in (1, 2)[: len(dies)]}
        assert abs(dies.count(f"{name}/1") - len(dies) / 2) <= 0.5
    assert all(row["die"].startswith(row["type"] + "/") for row in rows)
    turns = np.array([float(row["turn_degrees"]) for row in rows])
    assert np.abs(turns).max() > 120
    assert 60 < turns.std() < 150  # at any angle


def test_of_painted_coins_no_more_are_painted_than_are_used(cache):
    few = open_dataset("painted", 48, limit=20)
    assert len(few) == 20
    assert few.source == "painted:20"  # which explain opens again
    assert few.key == open_dataset("painted:20", 48).key == open_dataset(few.source, 48, limit=20).key
    assert len(open_dataset("painted", 48, limit=5)) == 5
    counts = {int(path.name.split("-")[1]) for path in (cache / "painted").iterdir() if path.is_dir()}
    assert {20, len(TYPES)} <= counts
    assert max(counts) < 1000


def test_painted_opens_as_a_dataset(painted):
    dataset = open_dataset("painted:60", 48)
    assert dataset.name == "painted"
    assert dataset.upright
    assert not dataset.colour_matters
    assert {"coin", "cross", "field0"} <= dataset.mask(3).keys()
    assert len(dataset) == 60
    assert set(dataset.labels) == {coin.name for coin in TYPES}


def test_a_painted_folder_that_lies_elsewhere_knows_its_truth(painted, tmp_path):
    shutil.copytree(painted, tmp_path / "set")
    dataset = open_dataset(str(tmp_path / "set" / "images"), 64)
    facts, parts = dataset.truth(3), dataset.mask(3)
    assert facts is not None
    assert facts["image"] == dataset.ids[3]
    assert facts["type"] in dataset.ids[3]
    assert parts is not None
    assert parts["coin"].sum() > parts["cross"].sum() > 0
    (tmp_path / "set" / "masks" / dataset.ids[3]).with_suffix(".png").unlink()
    assert dataset.mask(3) is None
    (tmp_path / "set" / "truth.csv").unlink()
    plain = open_dataset(str(tmp_path / "set" / "images"), 64)
    assert plain.truth(3) is None
    assert plain.mask(3) is None


def test_coins_at_any_angle_are_the_upright_ones_turned(tmp_path):
    paint(tmp_path / "upright", 20, seed=4)
    paint(tmp_path / "turned", 20, seed=4, any_angle=True)
    both = [list(csv.DictReader((tmp_path / name / "truth.csv").open())) for name in ("upright", "turned")]
    turns = np.array([[float(row["turn_degrees"]) for row in rows] for rows in both])
    assert np.abs(turns[0]).max() < 30
    assert np.abs(turns[1]).max() > 120
    assert turns[1].std() > 60
    same = [[{k: v for k, v in row.items() if k != "turn_degrees"} for row in rows] for rows in both]
    assert same[0] == same[1]
