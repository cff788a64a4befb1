"""Where the coin is in each photograph: found once, kept beside the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from console import progress
from datasets.cache import Pixels, cache_root
from datasets.outline import fill_outline
from datasets.processes import map_processes
from machine.files import write_atomic

VERSION = 2  # raise when datasets.coin finds other places in the same pixels
PIECE = 256  # images between two writings of what was found, at least
POINTS = 128  # of an outline


@dataclass(frozen=True)
class Place:
    """The coin of a photograph, in its pixels; (0, 0) is the middle of the first pixel, y points down."""

    x: float  # centre of the outline's area
    y: float
    radius: float  # of the circle of the same area
    center_x: float  # of the design, which off-centre strikes move
    center_y: float
    confidence: float  # 0..1; 0: no coin was found, and this is the circle inscribed in the photograph
    outline: np.ndarray  # (POINTS, 2) float32: x, y

    @property
    def found(self) -> bool:
        return self.confidence > 0

    def mask(self, shape: Sequence[int]) -> np.ndarray:
        """(H, W) bool: the coin's pixels in a picture of this (H, W, ...) shape."""
        return fill_outline(self.outline, shape).astype(bool)

    def to_row(self) -> np.ndarray:
        """(6 + 2 POINTS,) float32."""
        numbers = [self.x, self.y, self.radius, self.center_x, self.center_y, self.confidence]
        return np.concatenate([np.array(numbers, np.float32), self.outline.ravel().astype(np.float32)])

    @classmethod
    def from_row(cls, row: np.ndarray) -> "Place":
        """What `to_row` gave."""
        x, y, radius, center_x, center_y, confidence = (float(value) for value in row[:6])
        return cls(x, y, radius, center_x, center_y, confidence, row[6:].reshape(POINTS, 2))


def find_place(pixels: np.ndarray) -> Place:
    """The place of the largest, most central coin; the inscribed circle where none is found.

    Args:
        pixels: (H, W, 3) uint8 RGB.
    """
    from datasets.coin import design_center, find_coins  # SciPy takes its time: not for --help

    coins = find_coins(pixels)
    if not coins:
        height, width = pixels.shape[:2]
        return place_at((width - 1) / 2, (height - 1) / 2, min(height, width) / 2)
    coin = coins[0]
    exact = Place(*coin.center, coin.radius, *design_center(pixels, coin), coin.confidence, coin.outline)
    return Place.from_row(exact.to_row())  # as it is kept: the same pixels are drawn of it now and from the cache


def place_at(x: float, y: float, radius: float, confidence: float = 0.0) -> Place:
    """A round coin whose design is in its middle."""
    turn = np.arange(POINTS) * (2 * np.pi / POINTS)
    outline = np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1).astype(np.float32)
    return Place(x, y, radius, x, y, confidence, outline)


def find_places(images: Pixels, key: str, workers: int | None = None) -> list[Place]:
    """The place in each of N photographs, from the cache or found now; what was found before a kill is kept.

    Args:
        images: the photographs.
        key: identifies them; equal keys must mean equal pixels.
        workers: processes; None: one a core.
    """
    path = cache_root() / "places" / f"v{VERSION}-{key}.npy"
    rows = np.full((len(images), 6 + 2 * POINTS), np.nan, np.float32)
    done = _read(path, rows)
    todo = range(done, len(images))
    if todo:
        path.parent.mkdir(parents=True, exist_ok=True)
        each = map_processes(_find_row, (np.array(images[i]) for i in todo), len(todo), workers)
        found = iter(progress(each, "finding coins", total=len(todo), unit="coins"))
        while done < len(images):
            end = min(len(images), done + max(PIECE, done // 8))  # the whole is written: of many images less often
            for i in range(done, end):
                rows[i] = next(found)
            write_atomic(path, partial(_save, rows[:end]), durable=False)
            done = end
    return [Place.from_row(row) for row in rows]


def _save(rows: np.ndarray, file: IO[bytes]) -> None:
    np.save(file, rows)


def _read(path: Path, rows: np.ndarray) -> int:
    """Fill the first of `rows` with what the file holds; how many those are. A damaged file is found again."""
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return 0
    if known.ndim != 2 or known.shape[1:] != rows.shape[1:] or len(known) > len(rows) or not np.isfinite(known).all():
        return 0
    rows[: len(known)] = known
    return len(known)


def _find_row(pixels: np.ndarray) -> np.ndarray:
    return find_place(pixels).to_row()
