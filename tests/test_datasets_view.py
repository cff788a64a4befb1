import cv2
import numpy as np
import pytest

from datasets import default_view, look, open_dataset
from datasets.places import place_at
from datasets.view import GROUND, MARGIN, REACH, VIEWS, Window, face, from_photograph, relief, shape_of, to_photograph

SIZE = 128


def patterned(radius=60, shape=(160, 200), center=(104.0, 77.0), turn=0.0, gain=1.0, lift=0.0):
    """A coin of known place with a design that no turn leaves alone; its photograph, its place."""
    down, across = np.indices(shape, dtype=np.float32)
    x, y = (across - center[0]) / radius, (down - center[1]) / radius
    away, angle = np.hypot(x, y), np.arctan2(y, x) - turn
    design = np.sin(3 * angle) * (away > 0.2) + 1.5 * (
        np.hypot(away * np.cos(angle) - 0.5, away * np.sin(angle)) < 0.15
    )
    grey = np.where(away <= 1, (120 + 25 * design) * gain + lift, 30)
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, 2), place_at(*center, radius, confidence=1.0)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_its_shape(view):
    pixels, place = patterned()
    drawn = VIEWS[view].draw(pixels, place, SIZE)
    assert drawn.shape == (*shape_of(view, SIZE), 3)
    assert drawn.dtype == np.uint8
    assert np.prod(drawn.shape[:2]) == SIZE**2


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("side", [160, 128])
def test_a_mask_sent_there_and_back_is_the_mask(view, side):
    pixels, place = patterned()
    down, across = np.indices(pixels.shape[:2])
    mask = (np.hypot(across - 104, down - 77) < 0.9 * place.radius).astype(np.float32)
    mask[np.hypot(across - 120, down - 70) < 14] = 0
    window = Window.about(place, pixels.shape)
    there = from_photograph(mask, view, place, SIZE)
    back = to_photograph(there, view, place, window, SIZE, side) > 0.5
    truth = window.cut(mask, side) > 0.5
    assert (back & truth).sum() / (back | truth).sum() > 0.97


@pytest.mark.parametrize("view", VIEWS)
def test_a_point_comes_back_to_where_it_was(view):
    pixels, place = patterned()
    for x, y in ((104 + 30, 77), (104 - 20, 77 + 25), (104 + 5, 77 - 40)):
        spot = np.exp(-((np.arange(200)[None] - x) ** 2 + (np.arange(160)[:, None] - y) ** 2) / 18).astype(np.float32)
        window = Window.about(place, pixels.shape)
        back = to_photograph(from_photograph(spot, view, place, SIZE), view, place, window, SIZE, window.side)
        top, left = np.unravel_index(back.argmax(), back.shape)
        assert np.hypot(left + window.left - x, top + window.top - y) <= 1.5


def test_turning_the_coin_rolls_the_unrolled_view():
    (one, place), (other, _) = patterned(), patterned(turn=np.pi / 2)
    a, b = (VIEWS["unrolled"].draw(pixels, place, SIZE).astype(float) for pixels in (one, other))
    rolled = np.roll(a, 2 * SIZE // 4, axis=1)
    assert np.abs(rolled - b)[4:].mean() < 3 < np.abs(a - b)[4:].mean()


def test_a_relief_keeps_neither_light_nor_size_nor_colour():
    pixels, place = patterned()
    plain = relief(pixels, place)
    darker = relief(*patterned(gain=0.7, lift=20))
    assert np.corrcoef(darker[..., 0].ravel(), plain[..., 0].ravel())[0, 1] > 0.97
    tinted = (pixels * np.array([1, 0.8, 0.5])).astype(np.uint8)
    assert np.corrcoef(relief(tinted, place)[..., 0].ravel(), plain[..., 0].ravel())[0, 1] > 0.97
    small = relief(*patterned(radius=45))
    assert np.corrcoef(small[..., 0].ravel(), plain[..., 0].ravel())[0, 1] > 0.9


def test_a_photograph_of_half_the_resolution_or_with_noise_shows_nearly_the_same_relief():
    """By the mean difference in each channel, beside that of two coins.

    Sharp as it came it would be .19, .45, .48 at half the resolution, .12, .29, .37 with noise.
    """
    dataset = open_dataset("painted:24", 128)
    photographs, places = [np.array(dataset.decoded[i]) for i in range(24)], dataset.find_places()

    def seen(change):
        drawn = [VIEWS["unrolled"].draw(change(one), place, 96) for one, place in zip(photographs, places, strict=True)]
        return np.stack(drawn).astype(float)

    def coarse(pixels):
        small = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, pixels.shape[1::-1])

    def noisy(pixels):
        return (pixels + np.random.default_rng(0).normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)

    plain = seen(np.copy)
    others = np.abs(plain - np.roll(plain, 1, 0)).mean((0, 1, 2))
    assert (np.abs(plain - seen(coarse)).mean((0, 1, 2)) < others * [0.15, 0.35, 0.37]).all()
    assert (np.abs(plain - seen(noisy)).mean((0, 1, 2)) < others * [0.08, 0.2, 0.25]).all()


def test_the_ground_is_not_in_a_view():
    pixels, place = patterned()
    other = pixels.copy()
    down, across = np.indices(pixels.shape[:2])
    off = np.hypot(across - 104, down - 77) > place.radius + 1
    other[off] = np.random.default_rng(0).integers(0, 255, (int(off.sum()), 3))
    for view in VIEWS:
        one, two = (VIEWS[view].draw(picture, place, SIZE).astype(float) for picture in (pixels, other))
        assert np.abs(one - two).max() <= 25, view  # of 225: what the pixels at the very edge mix in
    corner = VIEWS["coin"].draw(pixels, place, SIZE)[0, 0]
    assert (corner == GROUND).all()


def test_a_face_has_the_coin_in_its_middle():
    pixels, place = patterned()
    cut = face(pixels, place)
    middle = len(cut) / 2
    inside = cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY) > 60
    down, across = np.nonzero(inside)
    assert (across.mean(), down.mean()) == pytest.approx((middle - 0.5, middle - 0.5), abs=1.5)
    assert np.sqrt(inside.sum() / np.pi) == pytest.approx(middle / MARGIN, rel=0.02)


def test_a_window_holds_the_coin_of_a_wide_photograph():
    place = place_at(150, 40, 35, confidence=1.0)
    assert Window.about(place, (80, 200)) == Window(110, 0, 80)
    assert Window.about(place_at(195, 40, 35), (80, 200)) == Window(120, 0, 80)  # never beyond the photograph
    assert REACH < 1 < MARGIN


def test_a_dataset_is_looked_at_once(tmp_path, monkeypatch):
    dataset = open_dataset("painted:24", 128)
    seen = look(dataset, "unrolled", 64)
    assert tuple(seen.pixels.shape[0]) == (32, 128)
    assert seen.decoded is dataset.pixels
    assert seen.ids == dataset.ids
    few = seen.take(np.array([3, 5]))
    np.testing.assert_array_equal(few.pixels[1], seen.pixels[5])
    np.testing.assert_array_equal(few.decoded[1], dataset.pixels[5])
    assert few.places[1] is seen.places[5]
    np.testing.assert_array_equal(look(dataset.take(np.array([3, 5])), "unrolled", 64).pixels[1], seen.pixels[5])
    assert look(dataset, "photograph", 64) is dataset


def test_coins_are_seen_unrolled_and_digits_as_they_are():
    assert default_view("some/folder") == default_view("painted:20") == "unrolled"
    assert default_view("mnist:test") == default_view("dots") == "photograph"
