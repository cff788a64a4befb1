"""How likely a pixel is the coin's, by colour and texture, once something is taken for coin and for ground."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

_SHADES = np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32)  # ground in shadow
_SHADED_SIDE = 80  # pixels of the shorter side that are looked at in shadow
_BINS = (16, 10, 10)  # of L, a and b
_COLOURS = 16 * 10 * 10
_LEAST = (16.0, 8.0, 8.0)  # the bins of L, a and b span this much, at least
_TEXTURES = 12
_TEXTURE = 0.15  # how much local contrast counts beside colour


@dataclass(frozen=True)
class Picture:
    """What the search looks at: a small copy of the photograph."""

    scale: float
    lab: np.ndarray  # (h, w, 3) float32, a little smoothed
    colour: np.ndarray  # (h, w) uint16: bin of the colour
    shaded: np.ndarray  # (5, h', w') uint16: the same in each of _SHADES, of every other pixel or so
    every: int  # which: 2 for every second of every second row
    texture: np.ndarray  # (h, w) uint16: bin of the local deviation of L

    @classmethod
    def of(cls, pixels: np.ndarray, side: int) -> "Picture":
        """With `side` pixels on the shorter side, or as many as there are."""
        scale = min(1.0, side / min(pixels.shape[:2]))
        width, height = (max(8, round(length * scale)) for length in pixels.shape[1::-1])
        small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small.astype(np.float32) / 255, (0, 0), 0.7)
        every = max(1, min(width, height) // _SHADED_SIDE)
        some = small[::every, ::every]
        dark = (some * _SHADES[:, None, None, None]).reshape(-1, *some.shape[1:])
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2Lab)
        ends = [_ends(lab[::2, ::2, i], 0.005, _LEAST[i]) for i in range(3)]
        light = np.ascontiguousarray(lab[..., 0])
        mean = cv2.GaussianBlur(light, (0, 0), 2.5)
        variance = cv2.GaussianBlur(light * light, (0, 0), 2.5) - mean * mean
        texture = np.log(np.sqrt(np.maximum(variance, 0)) + 0.3)
        low, high = _ends(texture[::2, ::2], 0.01)
        rough = np.clip((texture - low) * (_TEXTURES / (high - low + 1e-3)), 0, _TEXTURES - 1)
        shaded = _colour_bins(cv2.cvtColor(dark, cv2.COLOR_RGB2Lab), ends).reshape(len(_SHADES), *some.shape[:2])
        return cls(scale, lab, _colour_bins(lab, ends), shaded, every, rough.astype(np.uint16))


def _ends(values: np.ndarray, share: float, least: float = 0.0) -> tuple[float, float]:
    """The values below and above which `share` of all lie, at least so far apart."""
    flat = values.ravel()
    ranks = [round(part * (len(flat) - 1)) for part in (share, 1 - share)]
    low, high = np.partition(flat, ranks)[ranks]
    widen = max(0.0, least - float(high - low)) / 2
    return float(low) - widen, float(high) + widen


def _colour_bins(lab: np.ndarray, ends: list[tuple[float, float]]) -> np.ndarray:
    flat = np.zeros(lab.shape[:2], np.float32)
    for i, ((low, high), count) in enumerate(zip(ends, _BINS, strict=True)):
        bins = (lab[..., i] - low) * (count / (high - low + 1e-3))
        flat *= count
        flat += np.floor(np.clip(bins, 0, count - 1, out=bins), out=bins)
    return flat.astype(np.uint16)


def log_odds(picture: Picture, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """How much likelier a pixel's colour and texture are inside than outside, of which shaded copies count too.

    Args:
        picture: (h, w).
        inside: (K, h, w) bool, where the coin's are learnt, K times.
        outside: the same for the ground.

    Returns:
        (h, w, K) float32, -3..3.
    """
    colours, textures = (
        np.empty((2, len(inside), _COLOURS), np.float32),
        np.empty((2, len(inside), _TEXTURES), np.float32),
    )
    every, shaded = picture.every, picture.shaded.reshape(-1, picture.shaded.shape[2])
    for k, parts in enumerate(zip(inside.view(np.uint8), outside.view(np.uint8), strict=True)):
        for part, mask in enumerate(parts):
            colours[part, k] = _histogram(picture.colour, mask, _COLOURS)
            textures[part, k] = _histogram(picture.texture, mask, _TEXTURES)
        there = np.broadcast_to(parts[1][::every, ::every], picture.shaded.shape).reshape(shaded.shape)
        colours[1, k] += _histogram(shaded, there, _COLOURS) * (every**2 / len(_SHADES))
    light, tint = _smoothing(_BINS[:1], 0.8), _smoothing(_BINS[1:], 0.8)
    smooth = (light @ colours.reshape(-1, _BINS[0], len(tint)) @ tint).reshape(colours.shape)
    odds = np.take(_ratio(smooth).T.copy(), picture.colour, axis=0)
    odds += np.take(_TEXTURE * _ratio(textures @ _smoothing((_TEXTURES,), 1.0).T).T, picture.texture, axis=0)
    return np.clip(cv2.GaussianBlur(odds, (0, 0), 1.0).reshape(odds.shape), -3, 3)


def _histogram(bins: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    return cv2.calcHist([bins], [0], mask, [count], [0, count]).ravel()


@lru_cache(maxsize=8)
def _smoothing(shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """(M, M): from the left, smooths a flat histogram of this shape and M bins by `sigma` bins."""
    whole = np.ones((1, 1))
    for bins in shape:
        whole = np.kron(whole, gaussian_filter1d(np.eye(bins), sigma, axis=0, mode="nearest"))
    return whole.astype(np.float32)


def _ratio(counts: np.ndarray) -> np.ndarray:
    """Of (2, K, M) histograms of coin and ground the logarithm of their ratio: (K, M), -3..3."""
    share = counts / (counts.sum(2, keepdims=True) + 1e-9)
    coin, ground = np.log(share + 0.01 / counts.shape[2] ** 0.5)
    return np.clip(coin - ground, -3, 3)
