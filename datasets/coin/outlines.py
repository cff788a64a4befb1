"""The outline about a circle: the closed path of the greatest evidence through the unrolled picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from datasets.coin.circles import resized
from datasets.coin.colours import Picture, log_odds
from datasets.outline import fill_outline

_NEAR, _FAR = 0.45, 1.6  # the unrolled picture reaches from here to here, in radii of the circle

# What an outline gains, for each of its points.
_EDGE = 2.0  # for a sharp edge
_REGION = 2.0  # for colours of the coin just inside and of the ground just outside
_ENCLOSED = 1.8  # for enclosing the coin's colours, all along the ray
_BEYOND = 1.2  # where it runs beyond the frame, instead of the first two
_BEND = 0.03  # cost of a step of one hundredth of a radius or so, squared
_ELLIPSE, _ELLIPSE_SHARE, _ELLIPSE_WIDTH = 0.35, 0.6, 0.03  # see _fit_ellipse

_ROUND = (0.73, 0.81)  # area over the enclosing circle's: nothing below is a coin, all above may be; a square has .64


@dataclass(frozen=True)
class Trace:
    """An outline in the pixels of the small picture, and how well it is supported."""

    center: tuple[float, float]
    radius: float
    outline: np.ndarray  # (angles, 2) float32
    evidence: float  # 0..1: mean of edge and region along it, to compare outlines of one picture
    confidence: float  # 0..1: the share of a whole, round outline that has good evidence

    def resized(self, scale: float) -> "Trace":
        """The same in a picture of another scale."""
        x, y, radius = resized(np.array([*self.center, self.radius]), scale)
        outline = ((self.outline + 0.5) * scale - 0.5).astype(np.float32)
        return Trace((x, y), radius, outline, self.evidence, self.confidence)


@dataclass(frozen=True)
class _Unrolled:
    """About K circles, (K, angles, steps): what an outline there would gain, and the evidence it would have."""

    score: np.ndarray
    edge: np.ndarray  # 0..1
    region: np.ndarray  # -1..1
    seen: np.ndarray  # bool: in the picture, with what lies just outside


def area_circle(outline: np.ndarray) -> tuple[tuple[float, float], float]:
    """Centre of the (M, 2) outline's area, and the radius of the circle of that area."""
    moments = cv2.moments(outline.reshape(-1, 1, 2))
    area = max(moments["m00"], 1e-6)
    return (moments["m10"] / area, moments["m01"] / area), float(np.sqrt(area / np.pi))


def trace(picture: Picture, circles: np.ndarray, angles: int, steps: int) -> list[Trace]:
    """The best outline about each of the (K, 3) circles, whose inside and surroundings tell the colours."""
    x, y, radius = (circles[:, i, None, None].astype(np.float32) for i in range(3))
    height, width = picture.lab.shape[:2]
    squared = ((np.arange(width, dtype=np.float32) - x) / radius) ** 2
    squared = squared + ((np.arange(height, dtype=np.float32)[:, None] - y) / radius) ** 2
    inside, outside = squared < 0.85**2, (squared > 1.2**2) & (squared < 2.2**2)
    return _trace(picture, circles, inside, outside, [None] * len(circles), angles, steps)


def retrace(picture: Picture, traces: list[Trace], angles: int, steps: int) -> list[Trace]:
    """Each again about its own centre: what it encloses tells the colours, and an ellipse that it is near draws it."""
    shape = picture.lab.shape[:2]
    inside, outside = np.empty((2, len(traces), *shape), bool)
    for i, each in enumerate(traces):
        drawn = fill_outline(each.outline, shape)
        away = cv2.distanceTransform(1 - drawn, cv2.DIST_L2, 3)
        outside[i] = (away > 0.06 * each.radius) & (away < 1.2 * each.radius)
        inside[i] = cv2.distanceTransform(drawn, cv2.DIST_L2, 3) > 0.04 * each.radius
    circles = np.array([[*each.center, each.radius] for each in traces]).reshape(-1, 3)
    ellipses = [_fit_ellipse(each.outline, each.radius) for each in traces]
    return _trace(picture, circles, inside, outside, ellipses, angles, steps)


def _trace(
    picture: Picture,
    circles: np.ndarray,
    inside: np.ndarray,
    outside: np.ndarray,
    ellipses: Sequence["_Ellipse | None"],
    angles: int,
    steps: int,
) -> list[Trace]:
    if not len(circles):
        return []
    turn = np.arange(angles) * (2 * np.pi / angles)
    rays = np.stack([np.cos(turn), np.sin(turn)], 1)
    step = (_FAR - _NEAR) / steps
    unrolled = _unroll(picture, log_odds(picture, inside, outside), circles, rays, steps)
    for (x, y, radius), score, ellipse in zip(circles, unrolled.score, ellipses, strict=True):
        if ellipse is not None:
            expected = ellipse.reach((x, y), rays)[:, None] / radius
            away = ((_NEAR + np.arange(steps) * step - expected) / _ELLIPSE_WIDTH).astype(np.float32)
            score -= _ELLIPSE * np.minimum(away**2, 4)
    paths = _closed_paths(unrolled.score, _BEND * (128 / angles) * (80 / steps) ** 2)
    reach = gaussian_filter1d(_NEAR + paths * step, angles / 128, axis=1, mode="wrap")
    outlines = circles[:, None, :2] + rays * (reach * circles[:, 2:])[..., None]
    edge, region, seen = (
        np.take_along_axis(each, paths[..., None], 2)[..., 0]
        for each in (unrolled.edge, unrolled.region, unrolled.seen)
    )
    region = np.maximum(region, 0)
    count = np.maximum(1, seen.sum(1))
    evidence = (np.sqrt(edge * region) * seen).sum(1) / count
    support = (np.minimum(edge / 0.5, 1) * np.minimum(region / 0.2, 1) * seen).sum(1) / count
    support *= np.minimum(1, count / angles / 0.75)
    traces = []
    for i, outline in enumerate(outlines.astype(np.float32)):
        center, radius = area_circle(outline)
        confidence = float(support[i]) * _roundness(outline, radius)
        traces.append(Trace(center, radius, outline, float(evidence[i]), confidence))
    return traces


def _roundness(outline: np.ndarray, radius: float) -> float:
    """0 for squares, labels and fragments, 1 for discs, trimmed ones included: see _ROUND."""
    _, enclosing = cv2.minEnclosingCircle(outline.reshape(-1, 1, 2))
    low, high = _ROUND
    return float(np.clip(((radius / max(enclosing, 1e-6)) ** 2 - low) / (high - low), 0, 1))


def _unroll(picture: Picture, odds: np.ndarray, circles: np.ndarray, rays: np.ndarray, steps: int) -> _Unrolled:
    """Evidence for an outline between each two neighbouring samples on the (angles, 2) rays about (K, 3) circles.

    Args:
        picture: (h, w).
        odds: (h, w, K), what log_odds gives.
        circles: x, y, radius.
        rays: of length 1.
        steps: on each ray.
    """
    count, angles = len(circles), len(rays)
    height, width = picture.lab.shape[:2]
    step = (_FAR - _NEAR) / steps
    across = 0.0094 * angles  # colours are averaged over so many rays
    more = int(4 * across + 0.5)  # rays that the first and the last ones need beside them
    spread = np.take(rays, np.arange(-more, angles + more), axis=0, mode="wrap").astype(np.float32)
    reach = ((_NEAR + (np.arange(steps) + 0.5) * step) * circles[:, 2:]).astype(np.float32)
    x, y = (circles[:, i, None, None].astype(np.float32) + spread[:, i, None] * reach[:, None] for i in range(2))
    valid = ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))[:, more : more + angles]
    image = np.dstack([picture.lab, odds[..., 0]])
    samples = np.empty((*x.shape, 4), np.float32)
    for i in range(count):
        image[..., 3] = odds[..., i]
        samples[i] = cv2.remap(image, x[i], y[i], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    kernel = np.exp(-0.5 * (np.arange(-more, more + 1) / across) ** 2)
    flat = _change(samples.reshape(-1, steps, 4), max(2, round(0.043 / step)), kernel / kernel.sum())
    change = cv2.sqrt(cv2.transform(flat * flat, np.array([[1, 1, 1, 0]], np.float32)))
    change = change.reshape(count, -1, steps)[:, more : more + angles]
    change[:, :, :2] = 0
    ordinary = np.array(
        [_quantile(values[there], 0.8) for values, there in zip(change, valid, strict=True)], np.float32
    )
    edge = change / (change + ordinary[:, None, None] + 1)

    odds_seen = samples[:, more : more + angles, :, 3] * valid
    beside = max(2, round(0.1 / step))
    region = _change(odds_seen.reshape(-1, steps), beside, np.ones(1)).reshape(odds_seen.shape) / -6
    seen = valid.copy()
    seen[..., :-beside] &= valid[..., beside:]
    total = np.cumsum(odds_seen, 2)
    enclosed = (2 * (total - odds_seen) - total[..., -1:]) * (_ENCLOSED / (3 * steps))
    return _Unrolled(np.where(seen, _EDGE * edge + _REGION * region, _BEYOND) + enclosed, edge, region, seen)


def _change(image: np.ndarray, width: int, across: np.ndarray) -> np.ndarray:
    """Mean of `width` pixels from each on less that of as many before it, averaged over rows as `across` says."""
    step = np.repeat([-1 / width, 1 / width], width)
    return cv2.sepFilter2D(image, cv2.CV_32F, step, across, anchor=(width, -1), borderType=cv2.BORDER_REPLICATE)


def _quantile(values: np.ndarray, share: float) -> float:
    rank = int(share * (len(values) - 1))
    return float(np.partition(values, rank)[rank]) if len(values) else 0.0


def _closed_paths(scores: np.ndarray, bend: float, most: int = 4) -> np.ndarray:
    """(K, angles) int: in each of K (angles, steps) maps the path of the greatest sum, closed.

    A step of s to the next angle costs bend * s^2 and is `most` at most. Viterbi's algorithm on one and two thirds
    turns, of which the middle turn is kept; from both ends at once, since the sums that reach a place from either side
    tell how good the best path through it is.
    """
    count, angles, steps = scores.shape
    lead = angles // 3
    turns = np.concatenate([scores[:, -lead:], scores, scores[:, :lead]], 1).swapaxes(0, 1)
    length = len(turns)
    gain = np.concatenate([turns, turns[::-1]], 1)  # (length, 2 K, steps)
    padded = np.full((length, 2 * count, steps + 2 * most), -1e9, np.float32)
    best = padded[..., most:-most]
    best[0] = gain[0]
    windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(padded, 2 * most + 1, axis=2), 3, 1)
    cost = (bend * np.arange(-most, most + 1, dtype=np.float32) ** 2)[:, None, None]
    options = np.empty((2 * most + 1, 2 * count, steps), np.float32)
    for i in range(1, length):
        np.subtract(windows[i - 1], cost, out=options)
        np.maximum.reduce(options, axis=0, out=best[i])
        best[i] += gain[i]
    through = best[:, :count] + best[::-1, count:] - turns
    return through[lead : lead + angles].argmax(2).T


@dataclass(frozen=True)
class _Ellipse:
    center: np.ndarray  # (2,) x, y
    to_circle: np.ndarray  # (2, 2): from the centre, maps it to the unit circle
    mean_radius: float

    def deviation(self, points: np.ndarray) -> np.ndarray:
        """About the distance of (M, 2) points from it, negative inside."""
        return (np.hypot(*((points - self.center) @ self.to_circle).T) - 1) * self.mean_radius

    def reach(self, start: tuple[float, float], rays: np.ndarray) -> np.ndarray:
        """(angles,): how far it is from `start`, inside, along each of the (angles, 2) rays."""
        origin, direction = (np.array(start) - self.center) @ self.to_circle, rays @ self.to_circle
        a, b, c = (direction**2).sum(1), direction @ origin, origin @ origin - 1
        return (-b + np.sqrt(np.maximum(b * b - a * c, 0))) / a


def _fit_ellipse(outline: np.ndarray, radius: float) -> _Ellipse | None:
    """The ellipse that all but the bulges of an outline follow: struck coins are round, but for shadows and neighbours.

    None where fewer than _ELLIPSE_SHARE of the points are within _ELLIPSE_WIDTH radii of one: an irregular flan.
    """
    followed = np.ones(len(outline), bool)
    for _ in range(5):
        (x, y), (first, second), degrees = cv2.fitEllipse(outline[followed].reshape(-1, 1, 2))
        if min(first, second) < 0.7 * max(first, second):
            return None
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        to_circle = np.array([[cos, -sin], [sin, cos]]) * [2 / first, 2 / second]
        ellipse = _Ellipse(np.array([x, y]), to_circle, (first + second) / 4)
        off = np.abs(ellipse.deviation(outline)) / radius
        followed = off < max(_ELLIPSE_WIDTH, 1.2 * _quantile(off, _ELLIPSE_SHARE))
    return ellipse if (off < _ELLIPSE_WIDTH).mean() >= _ELLIPSE_SHARE else None
