"""What can be said of a coin without learning: five numbers of a ruler and a colour meter, and its relief's spectrum.

Both start from the place of the coin in its photograph, and neither changes when the coin is turned.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch

from console import progress
from datasets import Pixels
from datasets.coin import find_coins

OUTLINED = 5000  # images whose coins are outlined; of more, a circle each has to do: a tenth of the time
PLACED_AT = 160  # pixels of the shorter side at which the circle is looked for, at most
RADII = (0.15, 0.55)  # of a circle that may be a coin, in shorter sides
CENTRE, RING, GROUND = 0.6, (0.75, 0.95), 1.1  # in radii: the inlay of a bimetallic coin ends at .7
ENOUGH = 20  # pixels that a colour is the mean of, at least

RELIEF_RADIUS = 80  # pixels: larger coins are shrunk to it
LOCAL = 1 / 12  # Gaussian's sigma of what is local, in radii
FAINT = 2.0  # grey levels, added to the local deviation: plain metal is not blown up to relief
REACH = 0.97  # radii: the rim's edge is left out
STEPS, ANGLES, FREQUENCIES = 48, 256, 39  # of the unrolled coin; of the transform along the angle, from 1

Found = TypeVar("Found")


class Place(NamedTuple):
    """The circle of a coin, in the pixels of its photograph; (0, 0) is the middle of the first pixel."""

    x: float
    y: float
    radius: float


def place_of(pixels: np.ndarray) -> Place:
    """The largest coin's place by its outline; the inscribed circle where none is found.

    Args:
        pixels: (H, W, 3) uint8 RGB.
    """
    coins = find_coins(pixels)
    if not coins:
        return _inscribed(pixels)
    largest = max(coins, key=lambda coin: coin.radius)
    return Place(*largest.center, largest.radius)


def circle_of(pixels: np.ndarray) -> Place:
    """The same by Hough's transform on the median-filtered grey: less exact, ten times as fast."""
    height, width = pixels.shape[:2]
    scale = min(1.0, PLACED_AT / min(height, width))
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        grey = cv2.resize(grey, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    side = min(grey.shape)
    low, high = (int(share * side) for share in RADII)
    circles = cv2.HoughCircles(
        cv2.medianBlur(grey, 5), cv2.HOUGH_GRADIENT, 1.5, side, param1=100, param2=20, minRadius=low, maxRadius=high
    )
    found = np.zeros((0, 3)) if circles is None else np.asarray(circles, np.float64).reshape(-1, 3)
    if not len(found) or found[0, 2] <= 0:
        return _inscribed(pixels)
    x, y, radius = (float(value) for value in found[0])
    return Place((x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5, radius / scale)


def places_of(images: Pixels) -> list[Place]:
    """The place of the coin in each of N images; of more than 5,000, by the faster way."""
    find = place_of if len(images) <= OUTLINED else circle_of
    return _each(lambda i: find(images[i]), len(images), "finding coins")


def _inscribed(pixels: np.ndarray) -> Place:
    height, width = pixels.shape[:2]
    return Place((width - 1) / 2, (height - 1) / 2, min(height, width) / 2)


def ruler_and_colour(images: Pixels, places: list[Place]) -> np.ndarray:
    """`five_numbers` of each image, each number brought to mean 0 and deviation 1: (N, 5) float32."""
    x = np.stack(_each(lambda i: five_numbers(images[i], places[i]), len(images), "size and colour"))
    return ((x - x.mean(0)) / np.maximum(x.std(0), 1e-6)).astype(np.float32)


def five_numbers(pixels: np.ndarray, place: Place) -> np.ndarray:
    """The coin's radius, and the colour of its centre and of its ring less the ground's.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        place: of the coin.

    Returns:
        (5,) float64: the radius in shorter sides of the picture; a and b (CIE Lab) of the centre (within .6 radii) and
        of the ring (.75 to .95), each less that of the ground (beyond 1.1). A part of which the picture shows hardly
        anything counts as grey.
    """
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    height, width = pixels.shape[:2]
    away = np.hypot(np.arange(width) - place.x, np.arange(height)[:, None] - place.y) / place.radius

    def colour(part: np.ndarray) -> np.ndarray:
        return lab[part][:, 1:].mean(0, dtype=np.float64) if part.sum() >= ENOUGH else np.zeros(2)

    ground = colour(away > GROUND)
    centre, ring = colour(away < CENTRE), colour((away > RING[0]) & (away < RING[1]))
    return np.array([place.radius / min(height, width), *(centre - ground), *(ring - ground)])


def unrolled_spectra(images: Pixels, places: list[Place]) -> np.ndarray:
    """`unrolled_spectrum` of each image, flat: (N, 48 * 39) float32."""
    return np.stack(_each(lambda i: unrolled_spectrum(images[i], places[i]).ravel(), len(images), "unrolling coins"))


def unrolled_spectrum(pixels: np.ndarray, place: Place) -> np.ndarray:
    """How strongly the relief repeats around the coin, at each distance from its centre: the same at any angle.

    Turning the coin rolls the unrolled picture, and a roll changes only the phases of the Fourier transform along the
    angle; so its magnitudes are kept, as by Fourier-Mellin descriptors. Taking away the local mean and dividing by the
    local deviation leaves neither colour nor light; unrolling by the radius leaves no size.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        place: of the coin.

    Returns:
        (48, 39) float32: the radius, from the centre to .97 of the coin's; log(1 + magnitude) of frequencies 1 to 39.
    """
    grey, place = _shrunk(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), place)
    unrolled = unroll(local_relief(grey, LOCAL * place.radius), place)
    return np.log1p(np.abs(np.fft.rfft(unrolled, axis=1)[:, 1 : FREQUENCIES + 1])).astype(np.float32)


def local_relief(grey: np.ndarray, sigma: float) -> np.ndarray:
    """Grey (H, W) float32 0..255, minus its local mean and over its local deviation (Gaussian, sigma in pixels)."""
    mean = cv2.GaussianBlur(grey, (0, 0), sigma)
    variance = cv2.GaussianBlur(grey * grey, (0, 0), sigma) - mean * mean
    return (grey - mean) / (np.sqrt(np.maximum(variance, 0)) + FAINT)


def unroll(picture: np.ndarray, place: Place) -> np.ndarray:
    """(48, 256): the radius down, the angle across; 0 where the picture ends."""
    flags = cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS  # without the latter, what lies outside is left uninitialised
    return cv2.warpPolar(picture, (STEPS, ANGLES), (place.x, place.y), REACH * place.radius, flags).T


def _shrunk(grey: np.ndarray, place: Place) -> tuple[np.ndarray, Place]:
    """The picture made so small that the coin's radius is at most RELIEF_RADIUS, and the coin's place in it."""
    if place.radius <= RELIEF_RADIUS:
        return grey, place
    height, width = grey.shape
    scale = RELIEF_RADIUS / place.radius
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    across, down = size[0] / width, size[1] / height
    there = Place((place.x + 0.5) * across - 0.5, (place.y + 0.5) * down - 0.5, place.radius * (across + down) / 2)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA), there


def _each(function: Callable[[int], Found], count: int, what: str) -> list[Found]:
    """`function(0) .. function(count - 1)`, on as many threads as torch uses: OpenCV lets go of the interpreter."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(progress(pool.map(function, range(count)), what, total=count))
