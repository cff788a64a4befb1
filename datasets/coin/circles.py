"""Circles of a picture, voted for by the directions of edges."""

from functools import lru_cache

import cv2
import numpy as np
from scipy import fft

from datasets.coin.colours import Picture, log_odds

_SIDE = 72  # pixels of the shorter side where circles are voted for
_RADII = tuple(np.geomspace(0.11, 0.58, 22))  # in shorter sides
_MOST = 10


def find_circles(picture: Picture) -> np.ndarray:
    """(K, 3): x, y, radius in `picture` of up to ten circles, the most voted for first.

    Two kinds of edges vote: the picture's, and those of how likely a colour is at the frame, which patterned grounds
    leave clear.
    """
    height, width = picture.lab.shape[:2]
    scale = _SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    inner = np.zeros((1, height, width), bool)
    rim = max(2, min(height, width) // 16)
    inner[:, rim:-rim, rim:-rim] = True
    small, odds = (
        cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), 0.8)
        for image in (picture.lab, log_odds(picture, inner, ~inner))
    )
    margin = int(0.35 * _SIDE)
    votes = vote(directions(small) + directions(odds[..., None]), _RADII, margin)
    votes *= (np.array(_RADII, np.float32) ** 0.25)[:, None, None]  # small rings are easily complete
    found = []
    for _ in range(_MOST):
        best, y, x = np.unravel_index(votes.argmax(), votes.shape)
        if votes[best, y, x] <= 0.05:
            break
        radius = _RADII[best] * min(size)
        found.append((x - margin, y - margin, radius))
        reach = int(0.25 * radius) + 1
        votes[max(0, best - 2) : best + 3, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = -1
    return resized(np.array(found, float).reshape(-1, 3), 1 / scale)


def resized(circles: np.ndarray, scale: float) -> np.ndarray:
    """(K, 3) x, y, radius in a picture of another scale: the corner, not the middle, of the first pixel stays."""
    corner = np.array([0.5, 0.5, 0])
    return (circles + corner) * scale - corner


def directions(image: np.ndarray, ordinary: float = 75) -> np.ndarray:
    """(2, h, w) float32: cosine and sine of twice the angle of each pixel's edge, so that polarity is gone.

    Args:
        image: (h, w, C) float32.
        ordinary: an edge of this percentile of strength gets half the magnitude of the strongest, 1.
    """
    across = cv2.Sobel(image, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)
    down = cv2.Sobel(image, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)
    edge = np.stack(
        [np.einsum("yxc,yxc->yx", across + down, across - down), 2 * np.einsum("yxc,yxc->yx", across, down)]
    )
    size = cv2.magnitude(edge[0], edge[1])
    strength = np.sqrt(size)
    rank = round(ordinary / 100 * (strength.size - 1))
    return edge * (strength / ((strength + np.partition(strength, rank, None)[rank] + 1e-3) * (size + 1e-9)))


def vote(edges: np.ndarray, radii: tuple[float, ...], margin: int) -> np.ndarray:
    """How well rings of `radii` (in shorter sides) about each pixel fit the edges: (R, h + 2 margin, ...), 1 at most.

    An edge votes for the circles it touches and against those it crosses: cos 2(its angle - the angle to the centre),
    whose sum over a ring is a correlation with cosine and sine of twice that angle. Centres of rings half out of sight
    get -1.
    """
    height, width = edges.shape[1:]
    shape, rings, weight, unseen = _rings(height, width, radii, margin)
    padded = np.zeros((2, *shape), np.float32)
    padded[:, margin : margin + height, margin : margin + width] = edges
    cosine, sine = fft.rfft2(padded)
    votes = fft.irfft2(cosine * rings[0] + sine * rings[1], shape, overwrite_x=True)
    return votes * weight - unseen


@lru_cache(maxsize=16)
def _rings(
    height: int, width: int, radii: tuple[float, ...], margin: int
) -> tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray]:
    """The padded shape, transforms of the rings, and what is multiplied and subtracted for those partly in sight."""
    shape = tuple(fft.next_fast_len(side + 2 * margin, real=True) for side in (height, width))
    y, x = np.meshgrid(*(np.fft.fftfreq(side) * side for side in shape), indexing="ij")
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    inside = np.zeros(shape)
    inside[margin : margin + height, margin : margin + width] = 1
    rings, weights = [], []
    for radius in np.array(radii) * min(height, width):
        ring = np.exp(-0.5 * ((distance - radius) / (0.05 * radius + 0.4)) ** 2)
        ring /= ring.sum()
        rings.append(fft.rfft2([ring * np.cos(2 * angle), ring * np.sin(2 * angle)]))
        seen = fft.irfft2(fft.rfft2(inside) * fft.rfft2(ring), shape)
        weights.append(np.where(seen > 0.5, 1 / np.sqrt(np.clip(seen, 0.5, 1)), 0))
    weight = np.array(weights, np.float32)
    return shape, np.stack(rings, 1).astype(np.complex64), weight, (weight == 0).astype(np.float32)
