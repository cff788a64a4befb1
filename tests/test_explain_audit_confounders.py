"""What else the clusters could be: names taken apart, photographs measured; a plant is found, shuffled never."""

import re
from dataclasses import replace
from math import comb
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from console import UserError
from datasets import open_dataset
from datasets.headers import Header, read_header
from datasets.names import take_apart
from datasets.painted import TYPES, paint_coin
from datasets.places import place_at
from deepcluster.lift import conditional_ami, estimate_ami
from explain.audit import confounders
from explain.audit import facts as known_facts
from explain.audit.confounders import (
    AMI,
    HELD,
    LEVEL,
    WITHIN,
    _Classes,
    _shared,
    associate,
    classes_of,
    conclude,
    measure,
)
from explain.audit.facts import _ground, _looks, facts_of
from explain.audit.findings import SHARED, Asked, Sample, holm
from explain.subject import Pictures

NAMES = {  # prefix, series, pattern, hundred
    "BN_3023_R": ("BN", "BN", "BN_#_R", "BN_30xx"),
    "3273 R": ("", "", "# R", "32xx"),
    "EYM.01.43_R": ("EYM", "EYM.01", "EYM.#.#_R", "EYM.01.xx"),
    "Ninv21R": ("Ninv", "Ninv21", "Ninv#R", "Ninvxx"),
    "L325aR": ("L", "L325", "L#aR", "L3xx"),
    "L325R": ("L", "L325", "L#R", "L3xx"),
    "M243_33R": ("M", "M243", "M#_#R", "M243_xx"),
    "MNRB-205 R": ("MNRB", "MNRB", "MNRB-# R", "MNRB-2xx"),
    "11_R copie": ("", "", "#_R copie", "xx"),
    "MAN_sn17": ("MAN", "MAN", "MAN_sn#", "MAN_snxx"),
    "10c/train_12_3": ("train", "train_12", "train_#_#", "train_12_xx"),
    "BN_3023_R - Copy (2)": ("BN", "BN", "BN_#_R - Copy (#)", "BN_30xx"),
    "Denier": ("Denier", "", "Denier", ""),
    "..": ("", "", "..", ""),
}
KINDS, EACH = (3, 7, 12), 14  # types that are painted, and coins of each
PLANTED = 0  # the one that was photographed on one ground under one prefix


@pytest.mark.parametrize("ending", ["", ".jpg", ".TIF"])
@pytest.mark.parametrize("name", NAMES)
def test_names_are_taken_apart(name, ending):
    found = take_apart(name + ending)
    assert (found.prefix, found.series, found.pattern, found.hundred) == NAMES[name]


# --- the set in which a confounder is planted ---------------------------------------------------------------------


@pytest.fixture(autouse=True)
def fewer_permutations(monkeypatch):
    monkeypatch.setattr(confounders, "PERMUTATIONS", 2999)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Coins of three types on grounds as they come, then those of the first once more, all on black."""
    root = tmp_path_factory.mktemp("planted") / "photographs"
    root.mkdir()
    for number in range((len(KINDS) + 1) * EACH):
        kind, changed = divmod(number, EACH)[0], None
        if kind == len(KINDS):
            kind, changed = PLANTED, {"background": "black"}
        picture, _, _ = paint_coin(TYPES[KINDS[kind]], np.random.default_rng([5, number % EACH, kind]), changed=changed)
        Image.fromarray(picture).save(root / f"{number:03d}.png")
    return open_dataset(str(root), 96)


def a_subject(dataset, assignment, ids=None, labels=None, gone=()):
    ids = list(dataset.ids) if ids is None else list(ids)
    position = np.arange(len(ids))
    position[list(gone)] = -1
    return SimpleNamespace(
        run=SimpleNamespace(ids=ids, labels=labels),
        pictures=Pictures(dataset, None, position),
        clusters=SimpleNamespace(assignment=np.asarray(assignment)),
        group="cluster",
    )


def audit(subject, table=None, seed=1):
    return measure(Sample(subject, None, subject.pictures.present), Asked((), 200, seed, table))


def kinds_in_clusters(rng):
    """Types as clusters, in each of which one coin is another cluster's."""
    assignment = np.repeat(np.arange(len(KINDS)), EACH)
    astray = [rng.integers(EACH) + EACH * kind for kind in range(len(KINDS))]
    assignment[astray] = np.roll(assignment[astray], 1)
    return assignment


def named(dataset, prefixes, rng):
    """The same photographs, named PREFIX_NUMBER."""
    numbers = rng.permutation(900)[: len(prefixes)] + 100
    return replace(dataset, ids=[f"{prefix}_{n}_R.jpg" for prefix, n in zip(prefixes, numbers, strict=True)])


def planted(photographs, seed):
    rng = np.random.default_rng(seed)
    prefixes = rng.choice(["BN", "MAN", "EYM", "L"], len(KINDS) * EACH).tolist()
    prefixes[:EACH] = ["MNRB"] * EACH
    rows = np.concatenate([len(KINDS) * EACH + np.arange(EACH), np.arange(EACH, len(KINDS) * EACH)])
    return a_subject(named(photographs.take(rows), prefixes, rng), kinds_in_clusters(rng))


def shuffled(photographs, seed):
    rng = np.random.default_rng(seed)
    prefixes = rng.permutation(np.repeat(["MNRB", "BN", "MAN"], EACH))
    dataset = photographs.take(np.arange(len(KINDS) * EACH))
    return a_subject(named(dataset, prefixes, rng), kinds_in_clusters(rng))


@pytest.mark.parametrize("seed", range(4))
def test_a_planted_confounder_is_found(photographs, seed):
    found = audit(planted(photographs, seed), seed=seed)
    p = {one.of: one.p for one in found.findings if one.measure == AMI}
    assert max(p["prefix of the name"], p["ground"]) < LEVEL
    told = [one.verdict for one in found.findings if one.of == f"cluster {PLANTED}"]
    assert len(told) == 2
    assert any(re.match("(All|13 of) 14 lie on black ground", said) for said in told)
    assert "13 of 14 share the prefix MNRB (of all images 33%)" in told
    assert "prefix of the name" in conclude(found)[0]


@pytest.mark.parametrize("seed", range(6))
def test_shuffled_it_is_not(photographs, seed):
    found = audit(shuffled(photographs, seed), seed=seed)
    asked = {one.of: one for one in found.findings if one.measure == AMI}
    assert min(asked["prefix of the name"].p, asked["ground"].p, asked["hundred of the name"].p) >= LEVEL
    assert abs(asked["prefix of the name"].control_value) < 0.01
    told = [one for one in found.findings if one.measure == SHARED]
    assert not [one for one in told if "prefix" in one.verdict or "ground" in one.verdict or "name" in one.verdict]
    held = next(one for one in found.findings if one.measure == HELD)
    assert held.value == len({one.of for one in told}) / len(KINDS)


def test_the_same_seed_says_the_same(photographs):
    first, again = (audit(shuffled(photographs, 3), seed=9).findings for _ in range(2))
    assert [repr(one) for one in first] == [repr(one) for one in again]


def test_beside_labels_it_is_asked_whether_the_label_explains_it(photographs):
    """A prefix that a type alone has follows the clusters for the type's sake; the shuffled names follow nothing."""
    subject = planted(photographs, 1)
    of_kind = np.repeat(["a", "b", "c"], EACH).tolist()
    names = [f"{'ABC'['abc'.index(kind)]}_{i}.jpg" for i, kind in enumerate(of_kind)]
    dataset = replace(subject.pictures.dataset, ids=names)
    same = audit(a_subject(dataset, subject.clusters.assignment, labels=of_kind))
    row = next(one for one in same.findings if (one.measure, one.of) == (AMI, "prefix of the name"))
    assert "these are the labels" in row.verdict
    assert not [one for one in same.findings if one.measure == SHARED and "prefix" in one.verdict]
    halves = ["x" if kind == "a" else "y" for kind in of_kind]
    dataset = replace(dataset, ids=[f"{half.upper()}_{i}.jpg" for i, half in enumerate(halves)])
    coarser = audit(a_subject(dataset, subject.clusters.assignment, labels=of_kind))
    row = next(one for one in coarser.findings if (one.measure, one.of) == (AMI, "prefix of the name"))
    assert "cannot be told apart" in row.verdict
    assert not [one for one in coarser.findings if (one.measure, one.of) == (WITHIN, "prefix of the name")]


def test_what_cannot_be_measured_is_said(photographs):
    dataset = photographs.take(np.arange(24))
    one = audit(a_subject(dataset, np.zeros(24, int)))
    assert not one.findings
    assert "All images are in one cluster: there is nothing to follow." in one.missing
    assert not conclude(one)
    gone = audit(a_subject(dataset, np.arange(24) % 2, gone=(0, 5)))
    assert any(said.startswith("2 of the run's images are not there any more") for said in gone.missing)
    assert {one.n for one in gone.findings if one.of == "brightness"} == {22}
    digits = audit(a_subject(replace(dataset, root=None, source="mnist:test"), np.arange(24) % 2))
    assert {"prefix of the name", "ground", "radius"}.isdisjoint(one.of for one in digits.findings)
    assert any("no coins" in said for said in digits.missing)
    assert any("no files" in said for said in digits.missing)
    assert {"brightness", "sharpness"} <= {one.of for one in digits.findings}


def test_the_truth_of_painted_coins_is_asked(photographs):
    truth = {name: {"background": "felt" if i < 12 else "white", "wear": f"{i / 24}"} for i, name in
             enumerate(photographs.ids[:24])}  # fmt: skip
    dataset = replace(photographs.take(np.arange(24)), truth_of=truth.get)
    facts = facts_of(a_subject(dataset, np.arange(24) // 12), None)
    assert facts["true ground"] == ["felt"] * 12 + ["white"] * 12
    np.testing.assert_allclose(facts["true wear"], np.arange(24) / 24)
    found = audit(a_subject(dataset, np.arange(24) // 12))
    assert any(one.verdict == "All 12 lie on felt (of all images 50%)" for one in found.findings)


# --- an own table -------------------------------------------------------------------------------------------------


def test_an_own_table_is_asked_too(photographs, tmp_path):
    dataset = photographs.take(np.arange(24))
    lines = ["image,mint,weight,"]
    lines += [f"{name},{'Tolosa' if i < 12 else 'Massalia'},{3 + i / 100}," for i, name in enumerate(dataset.ids)]
    lines[3] = lines[3].replace(".png", "")  # by its name without the ending
    path = tmp_path / "coins.csv"
    path.write_text("\n".join([*lines, "elsewhere.png,Tolosa,3"]))
    found = audit(a_subject(dataset, np.arange(24) // 12), path)
    rows = {one.of: one for one in found.findings if one.measure == AMI}
    assert rows["mint (own table)"].value == pytest.approx(1)
    assert rows["mint (own table)"].n == 24
    assert rows["weight (own table)"].p < LEVEL
    assert any("All 12 share Tolosa as mint (own table)" in one.verdict for one in found.findings)
    assert any("1 rows of coins.csv name no image of the run" in said for said in found.missing)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no such file"),
        ("", "needs a row of names"),
        ("image\n000.png\n", "at least one other"),
        ("mint,picture\nx,000.png\n", "which its first column, 'mint', should name"),
        ("image,mint\n000.png,x\n001.png,x\n000,y\n", "line 4: names '000' a second time"),
        ("image,mint\nother.png,x\n", "none of its images is in the run (the first: 'other.png')"),
        ("image,mint\n000.png," + "x" * (1 << 21), "damaged"),
    ],
    ids=["none", "empty", "one column", "no images", "twice", "others", "damaged"],
)
def test_a_table_that_will_not_do_is_refused(photographs, tmp_path, content, complaint):
    path = tmp_path / "coins.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as refusal:
        audit(a_subject(photographs.take(np.arange(6)), np.arange(6) % 2), path)
    assert complaint in str(refusal.value)
    assert str(path) in str(refusal.value)


# --- by hand ------------------------------------------------------------------------------------------------------


def test_association_equals_the_slow_way():
    rng = np.random.default_rng(0)
    clusters, strata = rng.integers(0, 6, 150), rng.integers(0, 3, 150)
    values = np.where(rng.random(150) < 0.12, clusters % 4, rng.integers(0, 4, 150))
    for held in (np.zeros(150, int), strata):
        slow = estimate_ami(values, clusters, held, seed=1, permutations=1999)
        fast = associate(values, clusters, held, 2, 4000, jackknife=True)
        assert fast.ami == pytest.approx(conditional_ami(values, clusters, held))
        assert fast.p == pytest.approx(slow.p, abs=4 * np.sqrt(slow.p / 1999) + 1e-3)
        assert fast.chance == pytest.approx(0, abs=0.003)
        assert fast.low < fast.ami < fast.high
    assert associate(np.zeros(150, int), clusters, strata, 1, 10) is None
    assert associate(strata, clusters, strata, 1, 10) is None  # one value in each stratum


def test_chance_alone_reaches_a_level_as_often_as_it_says():
    rng = np.random.default_rng(1)
    one = np.zeros(60, int)
    p = np.array([
        associate(rng.integers(0, 4, 60), rng.integers(0, 5, 60), one, seed, 199).p for seed in range(400)
    ])  # fmt: skip
    assert 0.02 < (p <= 0.05).mean() < 0.09
    assert 0.4 < p.mean() < 0.6


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.001, 0.002], tests=100), [0.1, 0.198])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_what_a_cluster_shares_by_hand():
    """Six of 24 images are red and make up one cluster of six: one way in (24 choose 6), of 2 values x 2 clusters."""
    colours = _Classes.of(["red"] * 6 + ["blue"] * 18)
    shared = _shared({"colour": colours}, np.array([7] * 6 + [2] * 18))
    red, blue = shared
    assert (red.cluster, red.value, red.count, red.size, red.of_all) == (7, "red", 6, 6, 0.25)
    assert red.p == pytest.approx(4 / comb(24, 6))
    assert (blue.cluster, blue.value) == (2, "blue")
    assert red.sentence == "All 6 share red as colour (of all images 25%)"
    mixed = np.array([7] * 3 + [2] * 3 + [7] * 3 + [2] * 15)
    assert not _shared({"colour": colours}, mixed)  # half of cluster 7, and cluster 2 as all


def test_numbers_are_divided_into_fifths():
    values = np.append(np.arange(100.0), np.nan)
    named = classes_of(values)
    assert named[-1] == ""
    assert named[0] == "0 to 19, the lowest fifth"
    assert named[99] == "80 to 99, the highest fifth"
    assert len(set(named)) == 6
    assert {named.count(name) for name in set(named) - {""}} == {20}
    assert classes_of(np.array([2.0, 3, 2, np.nan])) == ["2", "3", "2", ""]  # few numbers stay what they are
    tied = classes_of(np.concatenate([np.zeros(90), np.arange(1.0, 11)]))
    assert set(tied[:90]) == {"0 to 0"}  # equal numbers are in one class, which is no fifth


# --- what is measured of a photograph -----------------------------------------------------------------------------


def a_photograph(ground, metal=(190, 185, 175), side=100, radius=35):
    pixels = np.full((side, side, 3), ground, np.uint8)
    cv2.circle(pixels, (side // 2, side // 2), radius, metal, -1)
    return pixels


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((10, 10, 10), "black"),
        ((240, 240, 240), "white"),
        ((120, 120, 120), "grey"),
        ((100, 20, 25), "red"),
        ((35, 50, 110), "blue"),
        ((30, 75, 45), "green"),
        ((220, 205, 90), "yellow"),
    ],
)
def test_the_ground_is_what_is_not_the_coin(colour, name):
    ground, share = _ground(a_photograph(colour), place_at(50, 50, 35, 0.9))
    assert ground == name
    assert share == pytest.approx(1 - np.pi * 0.35**2, abs=0.02)
    assert _ground(a_photograph(colour), place_at(50, 50, 90, 0.9))[0] == ""  # the coin fills the picture


def test_looks_follow_the_picture():
    rng = np.random.default_rng(0)
    picture = a_photograph((40, 60, 120))
    noisy = np.clip(picture + rng.integers(-20, 21, picture.shape), 0, 255).astype(np.uint8)
    light, contrast, sharpness, hue = _looks(noisy)
    assert hue == "blue"
    assert _looks(np.full((50, 50, 3), 128, np.uint8))[3] == "grey"
    darker = _looks(noisy // 2)
    assert darker[0] < 0.7 * light
    assert darker[1] < contrast
    assert _looks(cv2.GaussianBlur(noisy, (0, 0), 2))[2] < 0.5 * sharpness
    larger = cv2.resize(noisy, (0, 0), fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    assert _looks(larger)[0] == pytest.approx(light, rel=0.02)


def test_heads_of_files(tmp_path):
    exif = Image.Exif()
    exif[271], exif[272], exif[274] = "Nikon\0", "Nikon D850", 6
    exif.get_ifd(0x8769)[36867] = "2021:04:03 10:11:12"
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert read_header(tmp_path / "a.jpg") == Header(40, 60, "Nikon D850", "2021-04-03")
    exif = Image.Exif()
    exif[271], exif[272], exif[306] = "Canon\n\x1b[31m", "EOS", "0000:00:00 00:00:00"
    Image.new("RGB", (60, 40)).save(tmp_path / "b.png", exif=exif)
    assert read_header(tmp_path / "b.png") == Header(60, 40, "Canon\\n\\x1b[31m EOS", "")
    Image.new("L", (3, 4)).save(tmp_path / "c.png")
    assert read_header(tmp_path / "c.png") == Header(3, 4, "", "")
    (tmp_path / "d.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:30])
    assert read_header(tmp_path / "d.jpg") is None
    assert read_header(tmp_path / "none.jpg") is None


def test_camera_and_day_of_files_are_facts(tmp_path):
    for i in range(8):
        exif = Image.Exif()
        exif[272], exif[306] = ("D850", "X-T3")[i // 4], "2021:04:03 10:00:00"
        Image.fromarray(a_photograph((10 * i, 20, 30))).save(tmp_path / f"{i}.jpg", exif=exif)
    dataset = open_dataset(str(tmp_path), 64)
    facts = facts_of(a_subject(dataset, np.arange(8) // 4), None)
    assert facts["camera"] == ["D850"] * 4 + ["X-T3"] * 4
    assert facts["day"] == ["2021-04-03"] * 8
    assert facts["size of the picture"].tolist() == [100] * 8
    assert set(known_facts.KINDS) >= set(facts)
