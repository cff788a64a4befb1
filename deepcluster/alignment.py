"""Two coins laid on one another by the best turn, shift and size, and how well their reliefs then agree.

Light is what makes two photographs of one relief differ most. Two things are compared that hardly depend on it:

- **Edges**: how strong an edge is beside its surroundings, and along which line it runs, whichever side is the bright
  one. Read off along circles about the centre, a turn is a roll, so one Fourier transform correlates all turns.
- **The relief, lit alike.** A matt relief h under a lamp in direction l looks like l.grad(h); under a lamp m like
  m.grad(h). So the first picture's derivative along m is the second's along l. Nobody knows the lamps: the two
  directions along which both agree best are the first canonical pair of the two gradient fields, a matter of 2 x 2.

Coarse: both, at all turns and some shifts and sizes. Fine: Gauss-Newton on the reliefs lit alike (Lucas & Kanade 1981).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from datasets.places import Place, find_place

SIDE, RADIUS = 144, 64.0  # pixels of a face, the square that a coin is brought to, and of the coin in it
REACH = 0.87  # radii that are compared: the rim of every coin is a circle
STEPS, ANGLES = 24, 128  # of the unrolled face
SHIFTS = (-0.08, -0.04, 0.0, 0.04, 0.08)  # of the centre, tried in the coarse search, in radii
SIZES = (0.96, 1.0, 1.04)
STARTS, APART = 4, 17  # turns that are refined, and how far apart they are, in degrees
ROUNDS_SMALL, ROUNDS = 5, 2  # of Gauss-Newton, on the face at half its size and at full size
SHARP = 3  # weight of how the fine reliefs agree when a start is chosen: only they tell a half turn from none
LONGEST = np.array([0.06, 0.06, 0.06, 0.08])  # step of one round: shift in radii, size, turn in radians
WINDOW = 0.07  # Gaussian's sigma within which reliefs are correlated, in radii
WORST = 1 / 3  # of the relief, by its strength, that is averaged: one symbol elsewhere is another die
PLAIN = 1e-3  # of the mean energy, added in each window: where there is no relief nothing agrees

_MIDDLE = (SIDE - 1) / 2
_EDGE, _NEARBY, _POOL, _FINE = (round(length * RADIUS, 3) for length in (0.012, 0.085, 0.035, 0.008))  # sigmas


class Alignment(NamedTuple):
    """How another coin lies on a first one."""

    score: float  # mean of the three below, relief twice: 1 for a coin with itself, little for unrelated reliefs
    rotation: float  # degrees, clockwise as seen, -180..180, by which the other is turned to lie as the first
    edges: float  # correlation of the edges, coarsely aligned, -1..1
    light: float  # of the reliefs lit alike, coarsely aligned, 0..1
    relief: float  # of the same, finely aligned, within windows: the mean of the worst third, -1..1
    to_first: np.ndarray  # (2, 3): from pixels of the other's face to those of the first's


@dataclass(frozen=True)
class Face:
    """What is compared of one coin: brought to one size, its centre in the middle."""

    picture: np.ndarray  # (SIDE, SIDE, 3) uint8
    lines: np.ndarray  # (SIDE, SIDE, 4) float32: strength^1/2 times exp(2i angle), exp(4i angle) of the edges
    strength: np.ndarray  # (SIDE, SIDE, 3) float32: strength^1/2, and the gradient of the local relief
    small: np.ndarray  # (SIDE / 2, SIDE / 2, 2) float32: gradient of the smoothed grey
    fine: np.ndarray  # (SIDE, SIDE, 2) float32: gradient of the grey
    unrolled: tuple[np.ndarray, np.ndarray]  # see _unroll


def compare_coins(first: np.ndarray, other: np.ndarray) -> Alignment:
    """Lay the largest coin of one photograph on that of another.

    Args:
        first: (H, W, 3) uint8 RGB.
        other: the same, of any size.
    """
    return align(face_of(first, find_place(first)), [face_of(other, find_place(other))])[0]


def face_of(pixels: np.ndarray, place: Place) -> Face:
    """What is compared of the coin at a place, about the centre of its design.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        place: of the coin.
    """
    scale = RADIUS / place.radius
    smooth = cv2.GaussianBlur(pixels, (0, 0), 0.5 / scale) if scale < 0.7 else pixels
    move = np.array([[scale, 0, _MIDDLE - scale * place.center_x], [0, scale, _MIDDLE - scale * place.center_y]])
    picture = cv2.warpAffine(smooth, move, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    edge = _gradient(grey, _EDGE)
    edge /= np.sqrt(cv2.GaussianBlur(_squared(edge), (0, 0), _NEARBY))[..., None] + 1
    size = np.sqrt(_squared(edge))
    z = (edge[..., 0] + 1j * edge[..., 1]) / (size + 1e-6)
    root = np.sqrt(size)
    lines = np.dstack([part for power in (2, 4) for part in ((root * z**power).real, (root * z**power).imag)])
    mean = cv2.GaussianBlur(grey, (0, 0), 2 * _NEARBY)
    deviation = np.sqrt(np.maximum(cv2.GaussianBlur(grey * grey, (0, 0), 2 * _NEARBY) - mean * mean, 0))
    local = _whitened(_gradient((grey - mean) / (deviation + 2), _EDGE))
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    face = Face(
        picture=picture,
        lines=cv2.GaussianBlur(lines.astype(np.float32), (0, 0), _POOL),
        strength=np.dstack([cv2.GaussianBlur(root, (0, 0), _POOL), local]).astype(np.float32),
        small=_gradient(half, 2 * _EDGE),
        fine=_gradient(grey, _FINE),
        unrolled=(np.zeros(0), np.zeros(0)),
    )
    object.__setattr__(face, "unrolled", _unroll(face, 0, 0, 1))
    return face


def align(first: Face, others: Sequence[Face]) -> list[Alignment]:
    """Lay each of several coins on the first."""
    if not others:
        return []
    found = _search(first, others)
    return [_best(first, other, starts) for other, starts in zip(others, found, strict=True)]


def agreement(first: Face, other: Face, to_first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How well the reliefs, lit alike, agree about each pixel of the first coin, and how much relief there is.

    Returns:
        (SIDE, SIDE) float32 each: correlation, -1..1; energy, about 2 on the mean, 0 outside of what is compared.
    """
    agreed, energy = _correlations(first.fine, _warped(other.fine, _inverse(to_first)), _FULL)
    return agreed * _FULL.disc, energy * _FULL.disc


def overlay(other: Face, to_first: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: the other coin's picture as it lies on the first."""
    return cv2.warpAffine(other.picture, to_first, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


# --- gradients ----------------------------------------------------------------------------------------------------


class _Grid(NamedTuple):
    """The disc that is compared, in a face of some size."""

    side: int
    x: np.ndarray  # (P,) float32 of its pixels, from the middle
    y: np.ndarray
    inside: np.ndarray  # (P,) indices into the flat picture
    disc: np.ndarray  # (side, side) float32: 1 inside


def _grid(side: int) -> _Grid:
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2).astype(np.float32)
    disc = np.hypot(x, y) < REACH * RADIUS * side / SIDE
    return _Grid(side, x[disc], y[disc], np.flatnonzero(disc), disc.astype(np.float32))


_FULL, _SMALL = _grid(SIDE), _grid(SIDE // 2)


def _gradient(grey: np.ndarray, sigma: float) -> np.ndarray:
    """(..., 2) float32: change per pixel across and down, of a (H, W) picture smoothed by sigma."""
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
    return np.dstack([cv2.Sobel(smooth, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))])


def _squared(field: np.ndarray) -> np.ndarray:
    return (field**2).sum(2)


def _whitener(values: np.ndarray) -> np.ndarray:
    """(2, 2): values (P, 2) times it have unit covariance."""
    covariance = values.T @ values / len(values)
    spread, axes = np.linalg.eigh(covariance + (0.01 * np.trace(covariance) + 1e-6) * np.eye(2))
    return axes @ np.diag(spread**-0.5) @ axes.T


def _whitened(field: np.ndarray) -> np.ndarray:
    """The lamp makes gradients along its direction the stronger ones: a face's, made alike in all directions."""
    return field @ _whitener(field.reshape(-1, 2)[_FULL.inside])


def _lit_alike(first: np.ndarray, other: np.ndarray, grid: _Grid) -> tuple[np.ndarray, np.ndarray, float]:
    """Of two gradient fields (S, S, 2) the components that agree best, of unit variance, and their correlation."""
    a, b = (field.reshape(-1, 2)[grid.inside] for field in (first, other))
    white_a, white_b = _whitener(a), _whitener(b)
    left, values, right = np.linalg.svd(white_a @ (a.T @ b / len(a)) @ white_b)
    return first @ _f32(white_a @ left[:, 0]), other @ _f32(white_b @ right[0]), float(values[0])


def _f32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


def _warped(field: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The field (S, S, C) seen from another face, whose pixels the (2, 3) matrix maps into this one."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(field, matrix, field.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


# --- the coarse search --------------------------------------------------------------------------------------------

_TURN = np.arange(ANGLES) * (2 * np.pi / ANGLES)
_RING = np.sqrt((np.arange(STEPS) + 0.5) / STEPS)[:, None]  # outer rings are longer
_VARIANTS = [(x, y, size) for size in SIZES for x in SHIFTS for y in SHIFTS if np.hypot(x, y) <= max(SHIFTS) + 1e-9]


def _unroll(face: Face, x: float, y: float, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges (3, STEPS, ANGLES) and gradient (STEPS, ANGLES), complex64, about a centre (in radii), of unit length."""
    flags = cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS
    centre, reach = (_MIDDLE + x * RADIUS, _MIDDLE + y * RADIUS), REACH * RADIUS * size
    lines, rest = (
        cv2.warpPolar(field, (STEPS, ANGLES), centre, reach, flags).transpose(2, 1, 0)
        for field in (face.lines, face.strength)
    )
    edges = np.stack(
        [  # angles from the ray's direction, so that turning the coin rolls them and no more
            (lines[0] + 1j * lines[1]) * np.exp(-2j * _TURN),
            (lines[2] + 1j * lines[3]) * np.exp(-4j * _TURN),
            rest[0].astype(np.complex64),
        ]
    )
    edges = (edges - edges.mean(2, keepdims=True)) * _RING  # what is the same all around tells no turn
    gradient = (rest[1] + 1j * rest[2]) * _RING
    return tuple((x / (np.linalg.norm(x) + 1e-9)).astype(np.complex64) for x in (edges, gradient))


class _Start(NamedTuple):
    """Where the fine search begins."""

    to_first: np.ndarray  # (2, 3), as Alignment's
    edges: float
    light: float


def _search(first: Face, others: Sequence[Face]) -> list[list[_Start]]:
    """For each other coin the STARTS best turns, each with its best shift and size."""
    variants = [_unroll(first, *variant) for variant in _VARIANTS]
    edges, gradient = (_spectra([v[i] for v in variants]) for i in range(2))
    other_edges, other_gradient = (_spectra([other.unrolled[i] for other in others]) for i in range(2))
    mirrored = _spectra([other.unrolled[1].conj() for other in others])
    alike = _correlated(edges, other_edges).real
    # With gradients a, b as complex numbers the larger singular value of sum a b^T is half of
    # |sum a conj(b)| + |sum a b|; turning one coin turns the phases alone.
    light = np.abs(_correlated(gradient, other_gradient)) + np.abs(_correlated(gradient, mirrored))
    light = np.minimum(light, 1)  # of length 1, but not quite white
    found = []
    for column in range(len(others)):
        left, starts = (alike + light)[:, :, column], []  # (angles, variants)
        for _ in range(STARTS):
            at = np.unravel_index(left.argmax(), left.shape)
            here = (*at, column)
            x, y, size = _VARIANTS[at[1]]
            starts.append(_Start(_matrix(x, y, size, float(_TURN[at[0]])), float(alike[here]), float(light[here])))
            away = np.abs((np.arange(ANGLES) - at[0] + ANGLES // 2) % ANGLES - ANGLES // 2)
            left[away * 360 / ANGLES < APART] = -9
        found.append(starts)
    return found


def _spectra(unrolled: list[np.ndarray]) -> np.ndarray:
    """(ANGLES, N, rows): Fourier transform along the angle, the last axis."""
    flat = np.stack(unrolled).reshape(len(unrolled), -1, ANGLES)
    return np.ascontiguousarray(np.fft.fft(flat, axis=2).astype(np.complex64).transpose(2, 0, 1))


def _correlated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(ANGLES, Na, Nb): correlation of all with all at all rolls of b."""
    return np.fft.ifft(a @ b.conj().transpose(0, 2, 1), axis=0)


def _matrix(x: float, y: float, size: float, turn: float) -> np.ndarray:
    """(2, 3): turns and scales about the middle of a face, then shifts by x, y radii."""
    cos, sin = size * np.cos(turn), size * np.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]])
    shift = np.array([x, y]) * RADIUS + _MIDDLE - linear @ [_MIDDLE, _MIDDLE]
    return np.column_stack([linear, shift])


# --- the fine one -------------------------------------------------------------------------------------------------


def _best(first: Face, other: Face, starts: list[_Start]) -> Alignment:
    """The start that fits best, refined, and what is then to be said."""
    half = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25]])  # from the pixels of a face to those of its half
    tried = []
    for start in starts:
        begin = _chain(half, start.to_first, _inverse(half))
        _, matrix = _refine(first.small, other.small, begin, _SMALL, ROUNDS_SMALL)
        matrix = _chain(_inverse(half), matrix, half)
        there = _warped(first.fine, matrix)
        sharp = _lit_alike(there, other.fine, _FULL)[2] + _worst(there, other.fine, _FULL)
        tried.append((start.edges + start.light + SHARP * sharp, start, matrix))
    _, start, matrix = max(tried, key=lambda one: one[0])
    _, matrix = _refine(first.fine, other.fine, matrix, _FULL, ROUNDS)
    relief = _worst(_warped(first.fine, matrix), other.fine, _FULL)
    turn = float(np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0])))
    score = (start.edges + start.light + 2 * relief) / 4
    return Alignment(score, turn, start.edges, start.light, relief, matrix)


def _refine(
    first: np.ndarray, other: np.ndarray, start: np.ndarray, grid: _Grid, rounds: int
) -> tuple[float, np.ndarray]:
    """Gauss-Newton for shift, size and turn: the greatest correlation met with, and its map to the first."""
    best, matrix = (-1.0, start), start
    middle = (grid.side - 1) / 2
    longest = LONGEST * np.array([RADIUS * grid.side / SIDE] * 2 + [1, 1])
    for done in range(rounds + 1):
        a, b, fit = _lit_alike(_warped(first, matrix), other, grid)
        if fit > best[0]:
            best = (fit, matrix)
        if done == rounds:
            break
        across, down = (cv2.Sobel(a, cv2.CV_32F, *axis, scale=1 / 8).ravel()[grid.inside] for axis in ((1, 0), (0, 1)))
        slopes = np.stack([across, down, across * grid.x + down * grid.y, down * grid.x - across * grid.y])
        missing = b.ravel()[grid.inside] / max(fit, 0.2) - a.ravel()[grid.inside]
        normal = slopes @ slopes.T
        step = np.linalg.solve(normal + 1e-3 * np.diag(np.diag(normal)) + 1e-9 * np.eye(4), slopes @ missing)
        dx, dy, grow, turn = np.clip(step, -longest, longest)
        linear = np.array([[1 + grow, -turn], [turn, 1 + grow]])
        move = np.column_stack([linear, np.array([dx, dy]) + middle - linear @ [middle, middle]])
        matrix = _chain(matrix, move)
    return best


def _chain(*matrices: np.ndarray) -> np.ndarray:
    """(2, 3): the last one first."""
    whole = np.eye(3)
    for matrix in matrices:
        whole = whole @ np.vstack([matrix, [0, 0, 1]])
    return whole[:2]


def _inverse(matrix: np.ndarray) -> np.ndarray:
    return cv2.invertAffineTransform(matrix)


def _worst(first: np.ndarray, other: np.ndarray, grid: _Grid) -> float:
    """How well two reliefs, lit alike, agree where they do so worst."""
    agreed, energy = _correlations(first, other, grid)
    return _mean_of_worst(agreed.ravel()[grid.inside], energy.ravel()[grid.inside])


def _correlations(first: np.ndarray, other: np.ndarray, grid: _Grid) -> tuple[np.ndarray, np.ndarray]:
    """(S, S) each: correlation of two reliefs, lit alike, about each pixel, and their energy there."""
    a, b, _ = _lit_alike(first, other, grid)
    products = np.dstack([a * b, a * a, b * b, np.ones_like(a)]) * grid.disc[..., None]
    means = cv2.GaussianBlur(products, (0, 0), WINDOW * RADIUS * grid.side / SIDE)
    ab, aa, bb = (means[..., i] / (means[..., 3] + 1e-6) for i in range(3))
    return ab / np.sqrt((aa + PLAIN) * (bb + PLAIN)), aa + bb


def _mean_of_worst(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean of the smallest values that have WORST of the weight."""
    order = np.argsort(values)
    below = np.cumsum(weights[order]) - weights[order]
    share = np.clip(WORST * weights.sum() - below, 0, weights[order])
    return float((values[order] * share).sum() / max(share.sum(), 1e-12))
