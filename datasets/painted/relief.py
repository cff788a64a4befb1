"""The struck coin as a height map: flan, cross, symbols, wear.

Lengths in coin radii, angles in degrees, y points down.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter

from datasets.painted.types import CoinType

SIZE = 208  # pixels of a photograph's side
_FIELD_CENTRES = ((-0.42, -0.42), (0.42, -0.42), (0.42, 0.42), (-0.42, 0.42))


def rotate(x: np.ndarray, y: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return c * x + s * y, c * y - s * x


def flan(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The irregular piece of metal: a wobbling outline, often trimmed with shears. About the distance to the edge."""
    angle = np.arctan2(y, x)
    edge = np.full_like(x, 0.97)
    for harmonic in range(2, 8):
        edge += rng.normal(0, 0.028 / harmonic**0.7) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    inside = edge - np.hypot(x, y)
    for _ in range(rng.integers(0, 5)):
        cut = rng.uniform(0, 2 * np.pi)
        inside = np.minimum(inside, rng.uniform(0.82, 0.97) - (x * np.cos(cut) + y * np.sin(cut)))
    return inside


def _ridge(distance: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """A rounded bank of half-width `width` along distance 0; height 0 to 1."""
    return np.sqrt(np.clip(1 - (distance / width) ** 2, 0, None))


def _segment(x: np.ndarray, y: np.ndarray, ax: float, ay: float, bx: float, by: float) -> np.ndarray:
    dx, dy = bx - ax, by - ay
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - ax - along * dx, y - ay - along * dy)


def _axe(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    handle = _ridge(_segment(x, y, -0.28, 0.92, -0.28, -0.88), 0.15)
    flank = np.minimum(0.20 + 0.70 * (x + 0.28) - np.abs(y + 0.32), 0.74 - np.hypot(x, 0.45 * (y + 0.32)))
    blade = np.where(x > -0.28, np.clip(flank / 0.13, 0, 1) ** 0.5, 0)
    return np.maximum(handle, 0.95 * blade)


def _flower(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height = _ridge(np.hypot(x, y), 0.24)
    for petal in range(6):
        a = np.deg2rad(60 * petal)
        px, py = x - 0.58 * np.cos(a), y - 0.58 * np.sin(a)
        radial, across = px * np.cos(a) + py * np.sin(a), py * np.cos(a) - px * np.sin(a)
        height = np.maximum(height, _ridge(np.hypot(radial / 1.35, across), 0.22))
    return height


def _wheel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rim = _ridge(np.hypot(x, y) - 0.72, 0.16)
    spokes = np.minimum(_segment(x, y, -0.7, 0, 0.7, 0), _segment(x, y, 0, -0.7, 0, 0.7))
    return np.maximum(rim, 0.9 * _ridge(spokes, 0.12))


def _torc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Like a pretzel: an open ring whose ends cross inside and close in knobs."""
    angle = np.rad2deg(np.arctan2(x, -y))  # 0 is up, where the ring is open
    ring = np.where(np.abs(angle) > 38, np.abs(np.hypot(x, y * 0.95) - 0.74), 9)
    ends = np.minimum(_segment(x, y, -0.48, -0.56, 0.30, 0.30), _segment(x, y, 0.48, -0.56, -0.30, 0.30))
    knobs = np.minimum(np.hypot(x - 0.30, y - 0.30), np.hypot(x + 0.30, y - 0.30))
    return np.maximum(_ridge(np.minimum(ring, ends), 0.13), _ridge(knobs, 0.20))


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    outer, inner = 0.80 - np.hypot(x, y), np.hypot(x, y + 0.42) - 0.62
    return np.clip(np.minimum(outer, inner) / 0.16, 0, 1) ** 0.5


def _spiked_circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    spoke = np.abs((angle / (2 * np.pi) * 10 + 0.5) % 1 - 0.5) / 10 * 2 * np.pi * radius
    spikes = np.where((radius > 0.5) & (radius < 0.95), _ridge(spoke, 0.10) * np.clip((0.98 - radius) * 4, 0, 1), 0)
    return np.maximum.reduce([_ridge(radius - 0.50, 0.13), _ridge(radius, 0.20), spikes])


_DRAW: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "axe": _axe,
    "flower": _flower,
    "wheel": _wheel,
    "torc": _torc,
    "crescent": _crescent,
    "spiked circle": _spiked_circle,
}


class Hand(NamedTuple):
    """How far an engraver's dies of one type differ."""

    width: tuple[float, float]  # half of a bar's, in radii
    bar: float  # deviation of a bar's place, in radii
    size: tuple[float, float]  # of a symbol, in radii
    place: float  # deviation of a symbol's place, in radii, along either axis
    turn: float  # deviation of a symbol's turn, in degrees


STEADY = Hand((0.072, 0.088), 0.006, (0.285, 0.315), 0.012, 4)
FREE = Hand((0.060, 0.100), 0.020, (0.250, 0.350), 0.040, 14)  # three times and more: one sees which die it was


def engrave(
    coin_type: CoinType, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, hand: Hand = STEADY
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Height of the die's design (0 to 1) and the masks of its parts; symbols face the centre of the coin."""
    parts: dict[str, np.ndarray] = {}
    height = np.zeros_like(x)
    for name, along, across in (("horizontal", x, y), ("vertical", y, x)):
        width = rng.uniform(*hand.width) * (1 + 0.45 * np.abs(along) ** 2)
        bar = np.where(np.abs(along) < 0.93, _ridge(across + rng.normal(0, hand.bar), width), 0)
        parts[name] = bar > 0.05
        height = np.maximum(height, bar)
    dot = _ridge(np.hypot(x, y), 0.17) * 1.25 if coin_type.dot else np.zeros_like(x)
    parts["dot"] = dot > 0.05
    height = np.maximum(height, dot)
    for i, (symbol, (cx, cy)) in enumerate(zip(coin_type.fields, _FIELD_CENTRES, strict=True)):
        size = rng.uniform(*hand.size)
        jitter = rng.normal(0, hand.place, 2)
        turn = rng.normal(0, hand.turn)
        if symbol:
            fx, fy = rotate((x - cx - jitter[0]) / size, (y - cy - jitter[1]) / size, 90 * i - 45 + turn)
            drawn = _DRAW[symbol](fx, fy)
            parts[f"field{i}"] = drawn > 0.05
            height = np.maximum(height, 0.9 * drawn)
        else:
            parts[f"field{i}"] = np.zeros(x.shape, bool)
    return height, parts


def noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Smooth noise of unit deviation; sigma in pixels."""
    rough = gaussian_filter(rng.standard_normal((SIZE, SIZE)), sigma, mode="wrap")
    return rough / rough.std()


def metal(design: np.ndarray, inside: np.ndarray, wear: float, rng: np.random.Generator, radius: float) -> np.ndarray:
    """Height of the worn coin in pixels: struck design, domed flan with a rounded edge, pits and scratches."""
    scale = SIZE / 2 * radius
    uneven = np.clip(1 + 0.22 * noise(rng, 0.35 * scale) * (0.4 + wear), 0.15, 1.3)  # struck or worn unevenly
    relief = np.minimum(design, 1 - 0.55 * wear) * (1 - 0.62 * wear) * uneven
    relief = gaussian_filter(relief, (0.008 + 0.026 * wear) * scale)
    edge = np.sqrt(np.clip(1 - (1 - np.clip(inside / 0.10, 0, 1)) ** 2, 0, 1))
    surface = 0.095 * relief + 0.085 * edge - 0.02 * (1 - np.clip(inside, 0, 1)) ** 2
    surface += 0.0020 * noise(rng, 0.04 * scale) + 0.0010 * noise(rng, 0.012 * scale)
    pits = rng.random((SIZE, SIZE)) < 0.0012 * (0.4 + wear)
    surface -= 0.10 * gaussian_filter(pits.astype(float), 0.018 * scale)
    axis = np.arange(SIZE) / scale
    for _ in range(rng.integers(0, 4)):  # scratches
        angle, shift = rng.uniform(0, np.pi), rng.uniform(0, SIZE / scale)
        line = np.abs(axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle) - shift)
        surface -= 0.004 * np.exp(-((line / 0.008) ** 2))
    return surface * scale
