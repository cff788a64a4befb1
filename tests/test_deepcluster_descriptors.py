"""What is said of a coin without learning: by hand on a disc, and unchanged by turning and by light."""

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from datasets.places import find_place, place_at
from datasets.view import FACE_RADIUS, MARGIN, REACH, face, unroll
from deepcluster.descriptors import five_numbers, measure_facts, ruler_and_colour, unrolled_spectra, unrolled_spectrum

SIDE, CENTRE, RADIUS = 201, 100, 70
PLACE = place_at(CENTRE, CENTRE, RADIUS)


def away() -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.hypot(x - CENTRE, y - CENTRE)


def coin(seed: int = 0) -> np.ndarray:
    """Grey relief of soft random strokes on a disc, (201, 201) float32."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(14):
        ends = (rng.normal(CENTRE, 28, (2, 2))).astype(int)
        cv2.line(picture, ends[0].tolist(), ends[1].tolist(), int(rng.integers(90, 255)), 5)
    relief = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), 1.5)
    return np.where(away() < RADIUS, 90 + 0.4 * relief, 30).astype(np.float32)


def colours(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(grey, 0, 255).round().astype(np.uint8)[..., None], 3, 2)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


@pytest.mark.parametrize("angle", [7, 33, 90, 161])
def test_turning_a_coin_changes_its_spectrum_by_less_than_another_coin_would(angle):
    turn = cv2.getRotationMatrix2D((CENTRE, CENTRE), angle, 1)
    turned = cv2.warpAffine(coin(), turn, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    own, other = unrolled_spectrum(colours(coin()), PLACE), unrolled_spectrum(colours(coin(1)), PLACE)
    seen = unrolled_spectrum(colours(turned), PLACE)
    assert likeness(seen, own) > 0.98
    assert np.linalg.norm(seen - own) < 0.25 * np.linalg.norm(other - own)


def test_a_roll_of_the_angle_changes_nothing():
    unrolled = np.random.default_rng(0).normal(size=(48, 256))
    there, rolled = (np.abs(np.fft.rfft(x, axis=1)) for x in (unrolled, np.roll(unrolled, 31, 1)))
    assert_allclose(there, rolled, rtol=1e-9)


def test_light_from_one_side_changes_the_spectrum_little():
    slope = np.linspace(0.7, 1.3, SIDE, dtype=np.float32)
    own, lit = (unrolled_spectrum(colours(grey), PLACE) for grey in (coin(), coin() * slope))
    other = unrolled_spectrum(colours(coin(1)), PLACE)
    assert likeness(own, lit) > 0.98
    assert np.linalg.norm(lit - own) < 0.3 * np.linalg.norm(other - own)


def test_size_changes_the_spectrum_little():
    double = cv2.resize(colours(coin()), (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_LINEAR)
    place = place_at(2 * CENTRE + 0.5, 2 * CENTRE + 0.5, 2 * RADIUS)
    assert likeness(unrolled_spectrum(colours(coin()), PLACE), unrolled_spectrum(double, place)) > 0.98


def test_unrolled_is_radius_down_and_angle_across():
    side = 2 * round(MARGIN * FACE_RADIUS)  # of a face
    y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32((side - 1) / 2)
    away, right, below = unroll(np.dstack([np.hypot(x, y), x, y]), 48, 256).transpose(2, 0, 1)
    assert away.shape == (48, 256)
    reach = REACH * side / 2 / MARGIN
    assert_allclose(away, np.repeat(np.arange(48)[:, None] * reach / 48, 256, 1), atol=0.8)  # no pixel is the centre
    assert_allclose([right[47, 0], below[47, 64], right[47, 128]], np.array([1, 1, -1]) * reach * 47 / 48, atol=0.5)


def test_a_coin_that_the_photograph_cuts_off_repeats_its_edge_and_is_finite():
    beyond = face(np.ones((SIDE, SIDE), np.float32), place_at(0, 0, RADIUS))
    assert (beyond == 1).all()  # only a quarter of that coin is in the picture
    assert np.isfinite(unrolled_spectrum(colours(coin()), place_at(0, 0, RADIUS))).all()


def test_spectrum_of_a_wheel_is_its_spokes():
    y, x = np.mgrid[:SIDE, :SIDE]
    grey = 120 + 60 * np.cos(8 * np.arctan2(y - CENTRE, x - CENTRE))
    spectrum = unrolled_spectrum(colours(grey.astype(np.float32)), PLACE)
    assert spectrum.shape == (48, 3, 39)
    assert spectrum.dtype == np.float32
    height, across_circles = (spectrum[20:46, channel].argmax(1) + 1 for channel in range(2))
    assert (height == 8).all()  # frequencies count from 1
    assert (across_circles % 16 == 0).all()  # each spoke has two flanks
    assert spectrum[20:46, 1].max() > spectrum[20:46, 2].max()  # it has no edges that run along circles


def test_five_numbers_of_a_bimetallic_disc_by_hand():
    """Lab of sRGB: pure red has a 80.1, b 67.2; pure blue a 79.2, b -107.9; greys have 0, 0 (CIE, D65)."""
    picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
    picture[away() < RADIUS] = (0, 0, 255)
    picture[away() < 0.7 * RADIUS] = (255, 0, 0)
    numbers = five_numbers(picture, PLACE)
    assert_allclose(numbers, [RADIUS / SIDE, 80.1, 67.2, 79.2, -107.9], atol=0.6)
    picture[away() >= RADIUS] = (255, 0, 0)
    assert_allclose(five_numbers(picture, PLACE)[1:3], 0, atol=0.1)  # less the ground's


def test_a_coin_without_ground_has_finite_numbers():
    assert np.isfinite(five_numbers(np.full((60, 60, 3), 200, np.uint8), place_at(29.5, 29.5, 60))).all()


def test_facts_are_columns_of_the_five_numbers():
    images = [colours(coin(seed)) for seed in range(2)]
    images[1][away() < RADIUS, 0] = 255
    five = ruler_and_colour(images, [PLACE, PLACE])
    np.testing.assert_array_equal(measure_facts(images, [PLACE, PLACE], ["size"]), five[:, :1])
    np.testing.assert_array_equal(measure_facts(images, [PLACE, PLACE], ["size", "colour"]), five)
    np.testing.assert_array_equal(measure_facts(images, [PLACE, PLACE], ["colour"]), five[:, 1:])
    assert np.abs(five[1, 1:] - five[0, 1:]).max() > 1


def test_results_do_not_depend_on_threads():
    images = [colours(coin(seed)) for seed in range(6)]
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            places = [find_place(image) for image in images]
            rows = np.stack([place.to_row() for place in places])
            found.append((rows, ruler_and_colour(images, places), unrolled_spectra(images, places)))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[0][1].shape == (6, 5)
    assert found[0][2].shape == (6, 48 * 3 * 39)
