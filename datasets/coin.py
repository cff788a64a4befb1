"""Find the coins of a photograph: place, outline, confidence, and where the centre of the design lies.

Circles are voted for by the directions of edges, whatever their polarity. About each, the picture is unrolled and the
outline is the closed path of least cost through two kinds of evidence: a sharp edge, and colours that tell the
coin inside from the ground outside, of which darkened copies count as ground too, since coins throw shadows. The
path is found exactly (Viterbi's algorithm), then again about its own centre with what it encloses as the colours.
"""

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image, ImageOps
from scipy.ndimage import convolve1d, gaussian_filter, gaussian_filter1d

from console import progress
from datasets.decoding import FORMATS, BadImage, decode

CONFIDENT = 0.6  # below this a coin counts as not found
WITHIN = 0.55  # the share of a coin that must lie in the picture

_WORK_SIDE = 160  # pixels of the shorter side where outlines are drawn; candidates are tried at half of it
_VOTE_SIDE = 72  # and where circles are voted for
_RADII = tuple(np.geomspace(0.11, 0.58, 22))  # in shorter sides
_CANDIDATES = 10
_NEAR, _FAR = 0.45, 1.6  # the unrolled picture reaches from here to here, in radii of the circle
_SHADES = (0.9, 0.8, 0.7, 0.6, 0.5)  # ground in shadow
_BINS = (16, 10, 10)  # of L, a and b
_TEXTURE_BINS = 12

# What an outline gains, for each of its points.
_EDGE = 2.0  # for a sharp edge
_REGION = 2.0  # for colours of the coin just inside and of the ground just outside
_ENCLOSED = 1.8  # for enclosing the coin's colours, all along the ray
_BEYOND = 1.2  # where it runs beyond the frame, instead of the first two
_TEXTURE = 0.15  # how much local contrast counts beside colour
_BEND = 0.03  # cost of a step of one hundredth of a radius or so, squared
_ELLIPSE, _ELLIPSE_SHARE, _ELLIPSE_WIDTH = 0.35, 0.6, 0.03  # see _fit_ellipse

_CONCENTRIC = 0.08  # in radii
_WHOLE = 0.62  # a concentric disc that encloses a better supported one is preferred to it at this share of its support
_ROUND = (0.73, 0.81)  # area over the enclosing circle's: nothing below is a coin, all above may be; a square has .64


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
        return _filled(self.outline, shape).astype(bool)


def find_coins(pixels: np.ndarray) -> list[Coin]:
    """The coins of a photograph, the largest and most central first.

    A coin of which less than WITHIN lies in the picture is left out. The same pixels give the same coins; several
    threads may call it.

    Args:
        pixels: (H, W, 3) uint8 RGB.

    Returns:
        Coins of a confidence of at least CONFIDENT; an empty list where there is none: then use the whole photograph.
    """
    picture, coarse = _Picture.of(pixels, _WORK_SIDE), _Picture.of(pixels, _WORK_SIDE // 2)
    tried = _trace(coarse, _resized(_circles(picture), coarse.scale / picture.scale), angles=64, steps=48, rounds=1)
    seeds = np.array([[*trace.center, trace.radius] for trace in _select(tried, coarse.lab.shape, 0.15)]).reshape(-1, 3)
    traces = _trace(picture, _resized(seeds, picture.scale / coarse.scale), angles=128, steps=80, rounds=2)
    height, width = pixels.shape[:2]
    coins = []
    for trace in _select(traces, picture.lab.shape, 0.2):
        outline = ((trace.outline + 0.5) / picture.scale - 0.5).astype(np.float32)
        x, y = outline.T
        touching = (np.minimum(x, y) < 0.5) | (x > width - 1.5) | (y > height - 1.5)
        coins.append(Coin(*_area_circle(outline), outline, trace.confidence, bool(touching.mean() > 0.03)))
    middle = np.array([width - 1, height - 1]) / 2
    confident = [coin for coin in coins if coin.confidence >= CONFIDENT]
    return sorted(confident, key=lambda coin: float(np.hypot(*(middle - coin.center))) - 2 * coin.radius)


def _filled(outline: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(H, W) uint8: 1 within the (M, 2) outline."""
    drawn = np.zeros(tuple(shape[:2]), np.uint8)
    cv2.fillPoly(drawn, [np.round(outline * 16).astype(np.int32)], (1,), shift=4)
    return drawn


def _area_circle(outline: np.ndarray) -> tuple[tuple[float, float], float]:
    """Centre of the (M, 2) outline's area, and the radius of the circle of that area."""
    moments = cv2.moments(outline.reshape(-1, 1, 2))
    area = max(moments["m00"], 1e-6)
    return (moments["m10"] / area, moments["m01"] / area), float(np.sqrt(area / np.pi))


def _resized(circles: np.ndarray, scale: float) -> np.ndarray:
    """(K, 3) x, y, radius in a picture of another scale: the corner, not the middle, of the first pixel stays."""
    corner = np.array([0.5, 0.5, 0])
    return (circles + corner) * scale - corner


@dataclass(frozen=True)
class _Picture:
    """What the search looks at: a small copy of the photograph."""

    scale: float
    lab: np.ndarray  # (h, w, 3) float32, a little smoothed
    colour: np.ndarray  # (h, w) int32: bin of the colour
    shaded: tuple[np.ndarray, ...]  # the same of the picture in each of _SHADES
    texture: np.ndarray  # (h, w) int32: bin of the local deviation of L

    @classmethod
    def of(cls, pixels: np.ndarray, side: int) -> "_Picture":
        """With `side` pixels on the shorter side, or as many as there are."""
        scale = min(1.0, side / min(pixels.shape[:2]))
        width, height = (max(8, round(length * scale)) for length in pixels.shape[1::-1])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small.astype(np.float32) / 255, (0, 0), 0.7)
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2Lab)
        ends = []
        for channel, least in zip(np.moveaxis(lab, 2, 0), (16, 8, 8), strict=True):
            low, high = np.percentile(channel[::2, ::2], [0.5, 99.5])
            widen = max(0.0, least - (high - low)) / 2
            ends.append((low - widen, high + widen))
        shaded = tuple(_colour_bins(cv2.cvtColor(small * shade, cv2.COLOR_RGB2Lab), ends) for shade in _SHADES)
        light = lab[..., 0]
        mean = cv2.GaussianBlur(light, (0, 0), 2.5)
        variance = cv2.GaussianBlur(light * light, (0, 0), 2.5) - mean * mean
        texture = np.log(np.sqrt(np.maximum(variance, 0)) + 0.3)
        low, high = np.percentile(texture[::2, ::2], [1, 99])
        return cls(scale, lab, _colour_bins(lab, ends), shaded, _bin(texture, low, high, _TEXTURE_BINS))


def _bin(values: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
    return np.clip((values - low) * (count / (high - low + 1e-3)), 0, count - 1).astype(np.int32)


def _colour_bins(lab: np.ndarray, ends: list[tuple[float, float]]) -> np.ndarray:
    light, a, b = (_bin(lab[..., i], *ends[i], _BINS[i]) for i in range(3))
    return (light * _BINS[1] + a) * _BINS[2] + b


def _log_odds(picture: _Picture, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """How much likelier a pixel's colour and texture are inside than outside, of which shaded copies count too.

    Args:
        picture: (h, w).
        inside: (h, w) bool, where the coin's are learnt.
        outside: the same for the ground.

    Returns:
        (h, w) float32, -3..3.
    """
    colour, ground = (_histogram(picture.colour[where], _BINS) for where in (inside, outside))
    for shaded in picture.shaded:
        ground += _histogram(shaded[outside], _BINS) / len(_SHADES)
    rough, smooth = (_histogram(picture.texture[where], (_TEXTURE_BINS,)) for where in (inside, outside))
    odds = _ratio(colour, ground, 0.8)[picture.colour] + _TEXTURE * _ratio(rough, smooth, 1.0)[picture.texture]
    return np.clip(cv2.GaussianBlur(odds, (0, 0), 1.0), -3, 3)


def _histogram(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.bincount(values, minlength=int(np.prod(shape))).reshape(shape).astype(np.float32)


def _ratio(coin: np.ndarray, ground: np.ndarray, sigma: float) -> np.ndarray:
    """Of two histograms, smoothed by `sigma` bins, the logarithm of their ratio, flat, -3..3."""
    coin, ground = (gaussian_filter(counts, sigma, mode="nearest") / (counts.sum() + 1e-9) for counts in (coin, ground))
    least = 0.01 / coin.size**0.5
    return np.clip(np.log((coin + least) / (ground + least)), -3, 3).ravel()


# --- circles ------------------------------------------------------------------------------------------------------


def _circles(picture: _Picture) -> np.ndarray:
    """(K, 3): x, y, radius in `picture` of up to _CANDIDATES circles, the most voted for first.

    Two kinds of edges vote: the picture's, and those of how likely a colour is at the frame, which patterned grounds
    leave clear.
    """
    height, width = picture.lab.shape[:2]
    scale = _VOTE_SIDE / min(height, width)
    size = (round(width * scale), round(height * scale))
    inner = np.zeros((height, width), bool)
    rim = max(2, min(height, width) // 16)
    inner[rim:-rim, rim:-rim] = True
    small, odds = (
        cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), 0.8)
        for image in (picture.lab, _log_odds(picture, inner, ~inner))
    )
    margin = int(0.35 * _VOTE_SIDE)
    votes = _votes(_directions(small) + _directions(odds[..., None]), _RADII, margin)
    votes *= (np.array(_RADII) ** 0.25)[:, None, None]  # small rings are easily complete
    found = []
    for _ in range(_CANDIDATES):
        best, y, x = np.unravel_index(votes.argmax(), votes.shape)
        if votes[best, y, x] <= 0.05:
            break
        radius = _RADII[best] * min(size)
        found.append((x - margin, y - margin, radius))
        reach = int(0.25 * radius) + 1
        votes[max(0, best - 2) : best + 3, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = -1
    return _resized(np.array(found, float).reshape(-1, 3), 1 / scale)


def _directions(image: np.ndarray, ordinary: float = 75) -> np.ndarray:
    """(h, w) complex: twice the angle of each pixel's edge, so that polarity is gone; strong edges alike.

    Args:
        image: (h, w, C) float32.
        ordinary: an edge of this percentile of strength gets half the magnitude of the strongest, 1.
    """
    across = cv2.Sobel(image, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)
    down = cv2.Sobel(image, cv2.CV_32F, 0, 1, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)
    edge = (across**2 - down**2).sum(2) + 2j * (across * down).sum(2)
    strength = np.sqrt(np.abs(edge))
    return edge * (strength / (strength + np.percentile(strength, ordinary) + 1e-3) / (np.abs(edge) + 1e-9))


def _votes(directions: np.ndarray, radii: tuple[float, ...], margin: int) -> np.ndarray:
    """How well rings of `radii` (in shorter sides) about each pixel fit the edges: (R, h + 2 margin, ...), 1 at most.

    An edge votes for the circles it touches and against those it crosses: cos 2(its angle - the angle to the centre),
    whose sum over a ring is a correlation with exp(-2i angle). Centres of rings half out of sight get -1.
    """
    height, width = directions.shape
    kernels, seen = _rings(height, width, radii, margin)
    padded = np.zeros(kernels.shape[1:], np.complex64)
    padded[margin : margin + height, margin : margin + width] = directions
    votes = np.fft.ifft2(np.fft.fft2(padded) * kernels).real
    return np.where(seen > 0.5, votes / np.sqrt(np.clip(seen, 0.5, 1)), -1)


@lru_cache(maxsize=16)
def _rings(height: int, width: int, radii: tuple[float, ...], margin: int) -> tuple[np.ndarray, np.ndarray]:
    """Transforms of the rings to correlate with, and the share of each ring that lies in the picture."""
    shape = tuple(cv2.getOptimalDFTSize(side + 2 * margin) for side in (height, width))
    y, x = np.meshgrid(*(np.fft.fftfreq(side) * side for side in shape), indexing="ij")
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    inside = np.zeros(shape)
    inside[margin : margin + height, margin : margin + width] = 1
    kernels, seen = [], []
    for radius in np.array(radii) * min(height, width):
        ring = np.exp(-0.5 * ((distance - radius) / (0.05 * radius + 0.4)) ** 2)
        ring /= ring.sum()
        kernels.append(np.fft.fft2(ring * np.exp(-2j * angle)))
        seen.append(np.fft.ifft2(np.fft.fft2(inside) * np.fft.fft2(ring)).real)
    return np.array(kernels, np.complex64), np.array(seen, np.float32)


# --- outlines -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trace:
    """An outline in the pixels of the small picture, and how well it is supported."""

    center: tuple[float, float]
    radius: float
    outline: np.ndarray  # (angles, 2) float32
    evidence: float  # 0..1: mean of edge and region along it, to compare outlines of one picture
    confidence: float  # 0..1: the share of a whole, round outline that has good evidence


@dataclass(frozen=True)
class _Unrolled:
    """About one circle, (angles, steps): what an outline there would gain, and the evidence it would have."""

    score: np.ndarray
    edge: np.ndarray  # 0..1
    region: np.ndarray  # -1..1
    seen: np.ndarray  # bool: in the picture, with what lies just outside


def _trace(picture: _Picture, circles: np.ndarray, angles: int, steps: int, rounds: int) -> list[_Trace]:
    """The best outline about each of the (K, 3) circles; after a round, each about its own centre again."""
    if not len(circles):
        return []
    shape = picture.lab.shape[:2]
    y, x = np.indices(shape, dtype=np.float32)
    distances = [np.hypot(x - cx, y - cy) / radius for cx, cy, radius in circles]
    learnt = [(distance < 0.85, (distance > 1.2) & (distance < 2.2)) for distance in distances]
    ellipses: list[_Ellipse | None] = [None] * len(circles)
    turn = np.arange(angles) * (2 * np.pi / angles)
    rays = np.stack([np.cos(turn), np.sin(turn)], 1)
    step = (_FAR - _NEAR) / steps
    bend = _BEND * (128 / angles) * (80 / steps) ** 2
    for done in range(rounds):
        maps = []
        for (cx, cy, radius), (inside, outside), ellipse in zip(circles, learnt, ellipses, strict=True):
            unrolled = _unroll(picture.lab, _log_odds(picture, inside, outside), (cx, cy), radius, rays, steps)
            if ellipse is not None:
                expected = ellipse.reach((cx, cy), rays)[:, None] / radius
                away = (_NEAR + np.arange(steps) * step - expected) / _ELLIPSE_WIDTH
                unrolled = replace(unrolled, score=unrolled.score - _ELLIPSE * np.minimum(away**2, 4))
            maps.append(unrolled)
        paths = _closed_paths(np.stack([unrolled.score for unrolled in maps]), bend)
        traces = [
            _judge(unrolled, path, circle, gaussian_filter1d(_NEAR + path * step, angles / 128, mode="wrap"), rays)
            for unrolled, path, circle in zip(maps, paths, circles, strict=True)
        ]
        if done + 1 < rounds:
            circles = np.array([[*trace.center, trace.radius] for trace in traces])
            ellipses = [_fit_ellipse(trace.outline, trace.radius) for trace in traces]
            learnt = []
            for trace in traces:
                drawn = _filled(trace.outline, shape)
                away = cv2.distanceTransform(1 - drawn, cv2.DIST_L2, 3) / trace.radius
                inside = cv2.distanceTransform(drawn, cv2.DIST_L2, 3) > 0.04 * trace.radius
                learnt.append((inside, (away > 0.06) & (away < 1.2)))
    return traces


def _judge(unrolled: _Unrolled, path: np.ndarray, circle: np.ndarray, reach: np.ndarray, rays: np.ndarray) -> _Trace:
    """The trace of a path: `reach` is its radius at each angle, in radii of the circle."""
    outline = (circle[:2] + rays * (reach * circle[2])[:, None]).astype(np.float32)
    center, radius = _area_circle(outline)
    along = (np.arange(len(path)), path)
    edge, region, seen = unrolled.edge[along], np.clip(unrolled.region[along], 0, None), unrolled.seen[along]
    count = max(1, int(seen.sum()))
    evidence = float(np.sqrt(edge * region)[seen].sum() / count)
    support = float((np.minimum(edge / 0.5, 1) * np.minimum(region / 0.2, 1))[seen].sum() / count)
    confidence = support * min(1.0, count / len(path) / 0.75) * _roundness(outline, radius)
    return _Trace(center, radius, outline, evidence, confidence)


def _roundness(outline: np.ndarray, radius: float) -> float:
    """0 for squares, labels and fragments, 1 for discs, trimmed ones included: see _ROUND."""
    _, enclosing = cv2.minEnclosingCircle(outline.reshape(-1, 1, 2))
    low, high = _ROUND
    return float(np.clip(((radius / max(enclosing, 1e-6)) ** 2 - low) / (high - low), 0, 1))


def _unroll(
    lab: np.ndarray, odds: np.ndarray, center: tuple[float, float], radius: float, rays: np.ndarray, steps: int
) -> _Unrolled:
    """Evidence for an outline between each two neighbouring samples on the (angles, 2) rays about a circle."""
    step = (_FAR - _NEAR) / steps
    reach = (_NEAR + (np.arange(steps) + 0.5) * step) * radius
    x, y = ((center[i] + rays[:, i, None] * reach).astype(np.float32) for i in range(2))
    valid = (x >= 0) & (x <= lab.shape[1] - 1) & (y >= 0) & (y <= lab.shape[0] - 1)
    samples = cv2.remap(np.dstack([lab, odds]), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    colour = gaussian_filter1d(samples[..., :3], 0.0094 * len(rays), axis=0, mode="wrap")
    width = max(2, round(0.043 / step))
    before, after = _beside(colour, width)
    change = np.sqrt(((before - after) ** 2).sum(2))
    change[:, :2] = 0
    ordinary = np.percentile(change[valid], 80) if valid.any() else 0
    edge = change / (change + ordinary + 1)

    odds_seen = samples[..., 3] * valid
    width = max(2, round(0.1 / step))
    before, after = _beside(odds_seen[..., None], width)
    region = (before - after)[..., 0] / 6
    seen = valid.copy()
    seen[:, :-width] &= valid[:, width:]
    total = np.cumsum(odds_seen, 1)
    enclosed = (2 * (total - odds_seen) - total[:, -1:]) / (3 * steps)
    score = np.where(seen, _EDGE * edge + _REGION * region, _BEYOND) + _ENCLOSED * enclosed
    return _Unrolled(score, edge, region, seen)


def _beside(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of `width` (at the ends fewer) of (angles, steps, C) values before each step, and of those from it on."""
    steps = values.shape[1]
    total = np.concatenate([np.zeros_like(values[:, :1]), np.cumsum(values, 1)], 1)
    here = np.arange(steps)
    start, end = np.maximum(here - width, 0), np.minimum(here + width, steps)
    before = (total[:, here] - total[:, start]) / np.maximum(here - start, 1)[:, None]
    return before, (total[:, end] - total[:, here]) / (end - here)[:, None]


def _closed_paths(scores: np.ndarray, bend: float, reach: int = 4) -> np.ndarray:
    """(K, angles) int: in each of K (angles, steps) maps the path of the greatest sum, closed.

    A step of s to the next angle costs bend * s^2 and is `reach` at most. Viterbi's algorithm on one and two thirds
    turns, of which the middle turn is kept.
    """
    count, angles, steps = scores.shape
    lead = angles // 3
    turns = np.concatenate([scores[:, -lead:], scores, scores[:, :lead]], 1).astype(np.float32)
    best = np.full((count, steps + 2 * reach), -1e9, np.float32)
    best[:, reach:-reach] = turns[:, 0]
    windows = np.lib.stride_tricks.sliding_window_view(best, 2 * reach + 1, axis=1)
    cost = bend * np.arange(-reach, reach + 1, dtype=np.float32) ** 2
    back = np.zeros((turns.shape[1], count, steps), np.int8)
    for i in range(1, turns.shape[1]):
        options = windows - cost
        back[i] = options.argmax(2)
        best[:, reach:-reach] = options.max(2) + turns[:, i]
    path = np.empty((turns.shape[1], count), int)
    path[-1] = best[:, reach:-reach].argmax(1)
    each = np.arange(count)
    for i in range(turns.shape[1] - 1, 0, -1):
        path[i - 1] = path[i] + back[i, each, path[i]] - reach
    return path[lead : lead + angles].T


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
        followed = off < max(_ELLIPSE_WIDTH, 1.2 * float(np.quantile(off, _ELLIPSE_SHARE)))
    return ellipse if (off < _ELLIPSE_WIDTH).mean() >= _ELLIPSE_SHARE else None


def _select(traces: list[_Trace], shape: Sequence[int], least: float) -> list[_Trace]:
    """Discs that do not overlap, the best supported first, but the whole coin rather than its bull's eye.

    Args:
        traces: of one picture.
        shape: of that picture.
        least: traces of less evidence times confidence are none.
    """
    quality = np.array([trace.evidence * trace.confidence for trace in traces])
    centers = np.array([trace.center for trace in traces]).reshape(-1, 2)
    masks = np.array([_filled(trace.outline, shape).ravel()[::2] for trace in traces], np.float32)
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


# --- the centre of the design -------------------------------------------------------------------------------------

_FACE = 96  # pixels of the square that the coin is brought to
_OFF = 0.22  # the design's centre is sought within this, in radii
_BAR = 0.14  # half-width of a cross's bar and the ground beside it, in radii
_CROSS = 0.035  # painted crosses score .06 to .4, euro coins 0 to .03
_CIRCLE = 0.3
_CIRCLES = tuple(np.linspace(0.45, 0.88, 12) / 2)  # radii of inner circles, in sides of the face


def design_center(pixels: np.ndarray, coin: Coin) -> tuple[float, float]:
    """Where the design's centre lies, which off-centre strikes move from the flan's.

    The crossing of a cross with right angles, as on "monnaies a la croix", at any turn; without a cross the centre of
    an inner circle; without either the coin's centre. Relief lit from one side looks shifted away from the lamp, by
    about .03 radii on painted coins: most of the error.

    Args:
        pixels: (H, W, 3) uint8 RGB, the photograph.
        coin: one of find_coins(pixels).

    Returns:
        x, y in pixels of the photograph.
    """
    scale = _FACE / 2 / coin.radius
    shift = (_FACE - 1) / 2 - scale * np.array(coin.center)
    smooth = cv2.GaussianBlur(pixels, (0, 0), 0.5 / scale) if scale < 0.6 else pixels
    to_face = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    face = cv2.warpAffine(smooth, to_face, (_FACE, _FACE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32)
    depth = cv2.distanceTransform(_filled(coin.outline * scale + shift, (_FACE, _FACE)), cv2.DIST_L2, 3)
    weight = np.clip(depth / (0.03 * _FACE) - 1, 0, 1).astype(
        np.float32
    )  # 0 at the edge, whose contrast is none of the design's
    directions = _directions(cv2.GaussianBlur(grey, (0, 0), 0.7)[..., None], ordinary=40) * weight
    offset = _cross(grey, weight, directions)
    if offset is None:
        offset = _inner_circle(directions)
    x, y = (0.0, 0.0) if offset is None else offset / scale
    return coin.center[0] + float(x), coin.center[1] + float(y)


def _cross(grey: np.ndarray, weight: np.ndarray, directions: np.ndarray) -> np.ndarray | None:
    """(2,) x, y from the face's middle, or None: two bars at right angles, each with edges along both of its sides."""
    middle, half = (_FACE - 1) / 2, _FACE / 2
    near = np.flatnonzero(np.abs(np.arange(_FACE) - middle) <= int(_OFF * half))
    prior = np.exp(-0.5 * ((near - middle) / (0.15 * half)) ** 2)
    best, found = _CROSS, None
    for degrees in np.arange(0, 90, 3.0):
        turn = cv2.getRotationMatrix2D((middle, middle), degrees, 1.0)
        along = (directions * np.exp(-2j * np.deg2rad(degrees))).real.astype(np.float32)
        turned = cv2.warpAffine(np.dstack([along, weight]), turn, (_FACE, _FACE))
        ends = []
        for axis, sign in ((0, 1), (1, -1)):  # the bar that runs down, then the one that runs across
            length = np.maximum(turned[..., 1].sum(axis), 0.3 * _FACE)
            strip = _both_sides(sign * turned[..., 0].sum(axis) / length, int(_BAR * half))[near]
            ends.append((strip - np.median(strip)) * prior)
        score = float(np.sqrt(max(0.0, ends[0].max()) * max(0.0, ends[1].max())))
        if score > best:
            best, found = score, (turn, [near[0] + _peak(end) for end in ends])
    if found is None:
        return None
    turn, places = found
    flat = (grey - cv2.GaussianBlur(grey, (0, 0), 0.25 * half)) * weight
    turned = cv2.warpAffine(np.dstack([flat, weight]), turn, (_FACE, _FACE))
    crossing = []
    for axis, place in enumerate(places):  # the crest: where the lit flank passes most steeply into the dark one
        profile = turned[..., 0].sum(axis) / np.maximum(turned[..., 1].sum(axis), 0.2 * _FACE)
        away = np.arange(_FACE) - place
        slope = np.abs(gaussian_filter1d(np.gradient(profile), 0.05 * half))
        slope *= np.exp(-0.5 * (away / (0.07 * half)) ** 2) * (np.abs(away) < 0.15 * half)
        crossing.append(_peak(slope) - middle)
    return turn[:, :2].T @ np.array(crossing)


def _both_sides(profile: np.ndarray, width: int) -> np.ndarray:
    """Geometric mean of the means over `width` to either side of each place: an edge on one side alone is no bar."""
    side = np.r_[np.full(width, 1.0), 0.5, np.zeros(width)] / (width + 0.5)
    before, after = (convolve1d(profile, window, mode="constant") for window in (side, side[::-1]))
    return np.sqrt(np.maximum(before, 0) * np.maximum(after, 0))


def _peak(values: np.ndarray) -> float:
    """Place of the largest value, between the samples by a parabola."""
    i = int(values.argmax())
    if not 0 < i < len(values) - 1:
        return float(i)
    curve = values[i - 1] - 2 * values[i] + values[i + 1]
    return i + float(0.5 * (values[i - 1] - values[i + 1]) / curve) if curve < 0 else float(i)


def _inner_circle(directions: np.ndarray) -> np.ndarray | None:
    """(2,) x, y from the face's middle of the best circle within the coin, or None."""
    middle, reach = (_FACE - 1) / 2, int(_OFF * _FACE / 2)
    near = slice(int(middle) - reach, int(middle) + reach + 2)
    votes = _votes(directions, _CIRCLES, 0)[:, near, near]
    best, y, x = np.unravel_index(votes.argmax(), votes.shape)
    if votes[best, y, x] < _CIRCLE:
        return None
    return np.array([_peak(votes[best, y]), _peak(votes[best, :, x])]) + near.start - middle


# --- a file for every coin ----------------------------------------------------------------------------------------

_MARGIN = 0.06  # of ground around a coin that is cut out, in radii
_FILLS = 0.75  # a coin that with its margin takes this much of both sides fills its photograph
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # stored as they are


@dataclass(frozen=True)
class Split:
    """What split() did with one file."""

    name: str
    coins: int  # files written for coins found in it; 0 if it was kept whole
    reason: str = ""  # why nothing was written


def split(root: Path, names: list[str], out: Path, workers: int | None = None) -> list[Split]:
    """Cut every coin of every picture into a file of its own, under the new folder `out`, sub-folders as they are.

    One coin that fills its picture, or none: the file itself, untouched. Otherwise PNG of the very pixels, called
    `name.png`, or `name-1.png`, `name-2.png` ... in reading order. The folder appears only when it is complete.

    Args:
        root: folder of photographs.
        names: files below `root`, as list_files gives them.
        out: new folder.
        workers: threads; None for one a core.

    Returns:
        One Split for each name.
    """
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    stems = Counter(str(PurePosixPath(name).with_suffix("")).lower() for name in names)

    def one(name: str) -> Split:
        stem = str(PurePosixPath(name).with_suffix(""))
        head, _, number = stem.rpartition("-")
        unclear = stems[stem.lower()] > 1 or (number.isdigit() and head.lower() in stems)
        try:
            return Split(name, _split_one(root / name, partial / name, partial / (name if unclear else stem)))
        except BadImage as bad:
            return Split(name, 0, str(bad))
        except FileExistsError as error:
            return Split(name, 0, f"another file's coin is called {Path(error.filename).name}")

    try:
        with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            done = list(progress(pool.map(one, names), "cutting coins", total=len(names)))
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return done


def _split_one(source: Path, whole: Path, stem: Path) -> int:
    pixels = decode(source)
    height, width = pixels.shape[:2]
    coins = _in_reading_order(find_coins(pixels))
    boxes = []
    for coin in coins:
        margin = _MARGIN * coin.radius
        left, top = np.floor(coin.outline.min(0) - margin).astype(int).clip(0)
        right, bottom = np.ceil(coin.outline.max(0) + margin).astype(int) + 1
        boxes.append((int(left), int(top), min(width, int(right)), min(height, int(bottom))))
    whole.parent.mkdir(parents=True, exist_ok=True)
    if not boxes or (len(boxes) == 1 and _fills(boxes[0], width, height)):
        with source.open("rb") as original, whole.open("xb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
        return len(boxes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(source, formats=FORMATS) as opened:
            image = ImageOps.exif_transpose(opened) if opened.mode in _PNG_MODES else Image.fromarray(pixels)
            profile = opened.info.get("icc_profile") if opened.mode in _PNG_MODES else None
            for number, box in enumerate(boxes, 1):
                ending = f"-{number}.png" if len(boxes) > 1 else ".png"
                with stem.with_name(stem.name + ending).open("xb") as file:
                    image.crop(box).save(file, format="PNG", icc_profile=profile)
    return len(boxes)


def _fills(box: tuple[int, int, int, int], width: int, height: int) -> bool:
    left, top, right, bottom = box
    return right - left >= _FILLS * width and bottom - top >= _FILLS * height


def _in_reading_order(coins: list[Coin]) -> list[Coin]:
    """Row by row, each from left to right; a coin begins a row if it lies a radius below the row's first."""
    rows: list[list[Coin]] = []
    for coin in sorted(coins, key=lambda coin: coin.center[1]):
        if not rows or coin.center[1] > rows[-1][0].center[1] + coin.radius:
            rows.append([])
        rows[-1].append(coin)
    return [coin for row in rows for coin in sorted(row, key=lambda coin: coin.center[0])]
