"""The coins of a photograph: circles, an outline about each, and which of them are coins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.coin.circles import find_circles, resized
from datasets.coin.colours import Picture
from datasets.coin.outlines import Trace, area_circle, retrace, trace
from datasets.outline import fill_outline

CONFIDENT = 0.6  # below this a coin counts as not found
WITHIN = 0.55  # the share of a coin that must lie in the picture

_SIDE = 160  # pixels of the shorter side where outlines are drawn
_TRIED_SIDE = 80  # and where circles are voted for and tried
_CONCENTRIC = 0.08  # in radii
_WHOLE = 0.62  # a concentric disc that encloses a better supported one is preferred to it at this share of its support


@dataclass(frozen=True)
class Coin:
    """One coin in the pixels of its photograph; (0, 0) is the middle of the first pixel, y points down."""

    center: tuple[float, float]  # x, y of the centre of the outline's area
    radius: float  # of the circle of the same area
    outline: np.ndarray  # (M, 2) float32: x, y; closed; may reach beyond the frame where the coin does
    confidence: float  # 0..1
    cut_off: bool  # touched or cut by the frame

    def mask(self, shape: Sequence[int]) -> np.ndarray:
        """(H, W) bool: the coin's pixels in a picture of this (H, W, ...) shape."""
        return fill_outline(self.outline, shape).astype(bool)


def find_coins(pixels: np.ndarray) -> list[Coin]:
    """The coins of a photograph, the largest and most central first.

    A coin of which less than WITHIN lies in the picture is left out. The same pixels give the same coins; several
    threads may call it.

    Args:
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        Coins of a confidence of at least CONFIDENT; an empty list where there is none: then use the whole photograph.
    """
    picture = Picture.of(pixels, _SIDE)
    coarse = Picture.of(pixels, _TRIED_SIDE)
    tried = _select(trace(coarse, find_circles(coarse), angles=64, steps=48), coarse.lab.shape, 0.15)
    seeds = resized(
        np.array([[*each.center, each.radius] for each in tried]).reshape(-1, 3), picture.scale / coarse.scale
    )
    rough = trace(picture, seeds, angles=64, steps=64)
    height, width = pixels.shape[:2]
    coins = []
    for found in _select(retrace(picture, rough, angles=128, steps=80), picture.lab.shape, 0.2):
        outline = found.resized(1 / picture.scale).outline
        x, y = outline.T
        touching = (np.minimum(x, y) < 0.5) | (x > width - 1.5) | (y > height - 1.5)
        coins.append(Coin(*area_circle(outline), outline, found.confidence, bool(touching.mean() > 0.03)))
    middle = np.array([width - 1, height - 1]) / 2
    confident = [coin for coin in coins if coin.confidence >= CONFIDENT]
    return sorted(confident, key=lambda coin: float(np.hypot(*(middle - coin.center))) - 2 * coin.radius)


def _select(traces: list[Trace], shape: Sequence[int], least: float) -> list[Trace]:
    """Discs that do not overlap, the best supported first, but the whole coin rather than its bull's eye.

    Args:
        traces: of one picture.
        shape: of that picture.
        least: traces of less evidence times confidence are none.
    """
    quality = np.array([trace.evidence * trace.confidence for trace in traces])
    centers = np.array([trace.center for trace in traces]).reshape(-1, 2)
    masks = np.array([fill_outline(trace.outline, shape).ravel()[::2] for trace in traces], np.float32)
    common = masks @ masks.T if traces else np.zeros((0, 0))
    area = np.maximum(np.diag(common), 1)
    whole = np.array([np.pi * trace.radius**2 for trace in traces])
    left = (quality > least) & (2 * area >= WITHIN * whole)
    kept = []
    while left.any():
        best = int(np.argmax(np.where(left, quality, -1)))
        while True:
            enclosing = left & (common[best] > 0.8 * area[best]) & (area > 1.15 * area[best])
            enclosing &= quality > _WHOLE * quality[best]
            enclosing &= np.hypot(*(centers - centers[best]).T) < _CONCENTRIC * np.sqrt(whole / np.pi)
            if not enclosing.any():
                break
            best = int(np.argmax(np.where(enclosing, quality, -1)))
        kept.append(traces[best])
        left &= common[best] < 0.25 * np.minimum(area, area[best])
    return kept
