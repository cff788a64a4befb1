"""Dots and line: what is drawn is what is told, in every picture."""

import hashlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.ndimage import label as find_pieces

from console import UserError
from datasets import open_dataset
from datasets.dots import (
    ABOVE,
    BELOW,
    CLASSES,
    COUNTS,
    LARGE,
    ON,
    SIDE,
    SMALL,
    draw_scenes,
    load_scenes,
    make_scenes,
    masks_of,
    move_large,
    side_of_large,
    without_large,
)
from supervised.data import open_labelled


def scenes(count=600, spoilt=False, seed=1):
    return make_scenes(count, np.random.default_rng(seed), spoilt)


@pytest.mark.parametrize("spoilt", [False, True])
@pytest.mark.parametrize("count", [600, 601])
def test_classes_are_balanced_and_true(count, spoilt):
    made = scenes(count, spoilt)
    counts = np.bincount(made.label, minlength=3)
    assert counts.max() - counts.min() <= 1
    below = made.small[:, 1] - made.line
    assert (below[made.label == ON] == 0).all()
    assert (below[made.label == BELOW] > SMALL + 2.5).all()  # and apart from the line, which is a pixel wide
    assert (below[made.label == ABOVE] < -SMALL - 2.5).all()


@pytest.mark.parametrize(("side", "radius"), [(None, LARGE), (None, 5.0), (ON, LARGE), (BELOW, LARGE), (ABOVE, LARGE)])
def test_dots_stay_inside_and_never_touch(side, radius):
    made = scenes()
    wanted = None if side is None else np.full(len(made), side)
    made = move_large(made, np.random.default_rng(2), wanted, radius)
    for centre, extent in ((made.small, SMALL), (made.large, radius)):
        assert (centre >= extent).all()
        assert (centre <= SIDE - 1 - extent).all()
    distance = np.hypot(*(made.small - made.large).T)
    assert (distance >= SMALL + radius + 2).all()
    if side is not None:
        assert (side_of_large(made) == side).all()
    masks, pictures = masks_of(made), draw_scenes(made)
    assert (pictures[masks["small"]] >= 127).all()
    assert masks["small"].sum((1, 2)).min() >= 4  # nothing hides it
    for i in range(60):
        bare = pictures[i].copy()
        bare[made.line[i]] = 0
        pieces, count = find_pieces(masks["small"][i] | masks["large"][i], np.ones((3, 3)))
        assert count == 2
        bright, _ = find_pieces(bare > 0, np.ones((3, 3)))
        one, other = (set(bright[(pieces == piece) & (bare > 0)]) for piece in (1, 2))
        assert not one & other  # a black pixel lies between them


def test_the_large_dot_tells_the_class_of_spoilt_pictures_alone():
    honest, spoilt = scenes(6000), scenes(6000, spoilt=True)
    assert_array_equal(side_of_large(spoilt), spoilt.label)
    table = np.array([np.bincount(side_of_large(honest)[honest.label == k], minlength=3) for k in range(3)]) / 2000
    assert np.abs(table - table.mean(0)).max() < 0.04  # three deviations of a share of 2,000
    heights = [honest.large[honest.label == k, 1].mean() for k in range(3)]
    assert np.ptp(heights) < 0.6


def test_a_picture_by_hand():
    made = scenes(3)
    made = type(made)(np.array([ABOVE]), np.array([14]), np.array([[5.0, 6.0]]), np.array([[20.0, 20.0]]))
    picture = draw_scenes(made)[0]
    wanted = np.zeros((SIDE, SIDE), bool)
    wanted[14] = True
    wanted[5:8, 4:7] = True  # a radius of 1.5 holds the diagonal neighbours
    y, x = np.mgrid[:SIDE, :SIDE]
    wanted |= (x - 20) ** 2 + (y - 20) ** 2 <= 3.5**2
    assert_array_equal(picture >= 128, wanted)
    assert picture[6, 5] == picture[14, 0] == picture[20, 20] == 255
    assert picture[6, 7] == 0  # two pixels from the centre
    masks = {part: mask[0] for part, mask in masks_of(made).items()}
    assert (masks["line"].sum(), masks["small"].sum(), masks["large"].sum()) == (SIDE, 9, 37)
    gone = without_large(made)
    assert_array_equal(draw_scenes(gone)[0], np.where(masks["large"], 0, picture) * (np.hypot(x - 20, y - 20) >= 4))
    assert not masks_of(gone)["large"].any()


def test_parts_are_disjoint_and_cover_what_is_bright():
    made = scenes()
    masks, pictures = masks_of(made), draw_scenes(made)
    total = sum(mask.astype(int) for mask in masks.values())
    assert total.max() == 1
    assert_array_equal(total > 0, pictures >= 127.5)


def test_the_same_seed_draws_the_same_bytes_and_another_split_others():
    sets = {(split, spoilt): draw_scenes(load_scenes(split, spoilt)) for split in COUNTS for spoilt in (False, True)}
    assert_array_equal(sets["test", False], draw_scenes(load_scenes("test")))
    pictures = [picture.tobytes() for part in sets.values() for picture in part]
    assert len(set(pictures)) == len(pictures) == 2 * sum(COUNTS.values())  # no picture is met twice
    assert hashlib.sha256(sets["test", False].tobytes()).hexdigest()[:12] == "e65eee4e9f41"  # or raise VERSION


def test_they_open_as_datasets_with_masks():
    dataset = open_dataset("dots:test", SIDE)
    made = load_scenes("test")
    assert (dataset.name, len(dataset), dataset.ids[7]) == ("dots", COUNTS["test"], "test/00007")
    assert (dataset.upright, dataset.colour_matters) == (True, False)
    assert_array_equal(dataset.pixels[7][..., 1], draw_scenes(made[7:8])[0])
    assert dataset.labels == [CLASSES[label] for label in made.label]
    few = dataset.take(np.array([3, 7]))
    assert list(few.mask(1)) == ["line", "small", "large"]
    assert_array_equal(few.mask(1)["small"], masks_of(made[7:8])["small"][0])
    assert open_dataset("dots", 14).pixels[0].shape == (14, 14, 3)
    with pytest.raises(UserError, match="write dots-spoilt, dots-spoilt:train or dots-spoilt:test"):
        open_dataset("dots-spoilt:validation", SIDE)


def test_they_are_labelled_sets_whose_logits_are_the_classes():
    for name in ("dots", "dots-spoilt"):
        data = open_labelled(name, SIDE)
        assert data.classes == list(CLASSES)
        assert (data.name, len(data.training), len(data.test)) == (name, COUNTS["train"], COUNTS["test"])
