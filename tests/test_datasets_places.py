import cv2
import numpy as np
import pytest

from datasets import open_dataset
from datasets.cache import Pixels
from datasets.places import Place, find_place, find_places, place_at


def pixels_of(images):
    shape = np.array([image.shape[:2] for image in images], np.int64)
    sizes = shape.prod(1) * 3
    flat = np.concatenate([image.ravel() for image in images])
    return Pixels([flat], np.zeros(len(images), np.int64), np.cumsum(sizes) - sizes, shape)


def disc(x, y, radius, shape=(120, 160)):
    """A light disc with a dark cross on a dark ground."""
    down, across = np.indices(shape)
    picture = np.full((*shape, 3), 60, np.uint8)
    inside = np.hypot(across - x, down - y) <= radius
    picture[inside] = 190
    picture[inside & ((np.abs(across - x) < 3) | (np.abs(down - y) < 3))] = 120
    return picture


def test_a_disc_is_placed():
    place = find_place(disc(70, 55, 40))
    assert place.found
    np.testing.assert_allclose([place.x, place.y, place.radius], [70, 55, 40], atol=1.5)
    np.testing.assert_allclose([place.center_x, place.center_y], [70, 55], atol=3)  # it looks for flanks in the light


def test_without_a_coin_the_inscribed_circle_stands_for_it_and_says_so():
    place = find_place(np.full((60, 90, 3), 128, np.uint8))
    assert not place.found
    assert (place.x, place.y, place.radius) == (44.5, 29.5, 30)
    assert np.hypot(*(place.outline - [44.5, 29.5]).T) == pytest.approx(30, abs=1e-3)


@pytest.mark.parametrize(("width", "scale"), [(160, 1), (240, 1), (160, 4)])
def test_a_noisy_disc_is_placed_in_wide_and_in_large_photographs(width, scale):
    picture = np.full((120, width, 3), 40, np.uint8)
    picture[:, :160] = disc(70, 55, 40)
    noisy = picture + np.random.default_rng(0).integers(0, 12, picture.shape).astype(np.uint8)
    place = find_place(cv2.resize(noisy, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR))
    assert place.found
    np.testing.assert_allclose([place.x, place.y, place.radius], scale * np.array([70, 55, 40]), atol=3 * scale)


def test_of_two_coins_it_is_the_larger():
    picture = np.full((160, 320, 3), 60, np.uint8)
    cv2.circle(picture, (90, 80), 60, (190, 180, 170), -1)
    cv2.circle(picture, (235, 80), 40, (190, 180, 170), -1)
    place = find_place(picture)
    np.testing.assert_allclose([place.x, place.y, place.radius], [90, 80, 60], atol=3)


def test_a_row_holds_all_of_a_place():
    place = place_at(10.5, 20.25, 7, confidence=0.75)
    back = Place.from_row(place.to_row())
    assert (back.x, back.y, back.radius, back.center_x, back.confidence) == (10.5, 20.25, 7, 10.5, 0.75)
    np.testing.assert_array_equal(back.outline, place.outline)


@pytest.fixture
def few(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(tmp_path))
    return pixels_of([disc(70 + i, 55, 40) for i in range(5)])


def test_places_are_found_once_and_continued(few, tmp_path, monkeypatch):
    import datasets.places

    looked = []
    find = datasets.places.find_place
    monkeypatch.setattr(datasets.places, "find_place", lambda image: looked.append(1) or find(image))
    monkeypatch.setattr(datasets.places, "PIECE", 2)
    first = find_places(few, "some")
    assert len(looked) == 5
    np.testing.assert_array_equal(first[3].to_row(), find(few[3]).to_row())
    assert (first[3].x, first[3].center_y) == (find(few[3]).x, find(few[3]).center_y)  # to the last bit
    assert [place.x for place in find_places(few, "some")] == [place.x for place in first]
    assert len(looked) == 5
    (file,) = (tmp_path / "places").glob("*.npy")
    np.save(file, np.load(file)[:2])  # as a kill after the first piece leaves it
    assert [place.x for place in find_places(few, "some")] == [place.x for place in first]
    assert len(looked) == 8
    file.write_bytes(b"damaged")
    assert [place.x for place in find_places(few, "some")] == [place.x for place in first]


def test_processes_find_the_same_places(few, monkeypatch):
    import datasets.processes

    here = find_places(few, "here")
    monkeypatch.setattr(datasets.processes, "HERE", 0)
    there = find_places(few, "there", workers=2)
    for one, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(one.to_row(), other.to_row())


def test_painted_coins_are_placed_by_their_design(tmp_path):
    dataset = open_dataset("painted:24", 128)
    off = []
    for i, place in enumerate(dataset.find_places()):
        masks = dataset.mask(i)
        assert masks is not None
        both = masks["horizontal"] & masks["vertical"]  # where the bars cross: the design's centre
        down, across = (indices.mean() * dataset.decoded[i].shape[0] / len(both) for indices in np.nonzero(both))
        off.append(np.hypot(across - place.center_x, down - place.center_y) / place.radius)
    assert np.median(off) < 0.06
