"""The centre of the design, which off-centre strikes move from the flan's."""

from functools import lru_cache

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_array

from datasets.coin.circles import directions, vote
from datasets.coin.find import Coin
from datasets.outline import fill_outline

_FACE = 96  # pixels of the square that the coin is brought to
_OFF = 0.22  # the design's centre is sought within this, in radii
_BAR = 0.14  # half-width of a cross's bar and the ground beside it, in radii
_CROSS = 0.035  # painted crosses score .06 to .4, euro coins 0 to .03
_DEGREES = np.arange(0, 90, 3.0)  # turns at which a cross is tried
_CIRCLE = 0.3
_CIRCLES = tuple(np.linspace(0.45, 0.88, 12) / 2)  # radii of inner circles, in sides of the face


def design_center(pixels: np.ndarray, coin: Coin) -> tuple[float, float]:
    """Where the design's centre lies.

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
    depth = cv2.distanceTransform(fill_outline(coin.outline * scale + shift, (_FACE, _FACE)), cv2.DIST_L2, 3)
    weight = np.clip(depth / (0.03 * _FACE) - 1, 0, 1)  # 0 at the edge, whose contrast is none of the design's
    edges = directions(cv2.GaussianBlur(grey, (0, 0), 0.7)[..., None], ordinary=40) * weight
    offset = _cross(grey, weight, edges)
    if offset is None:
        offset = _inner_circle(edges)
    x, y = (0.0, 0.0) if offset is None else offset / scale
    return coin.center[0] + float(x), coin.center[1] + float(y)


def _cross(grey: np.ndarray, weight: np.ndarray, edges: np.ndarray) -> np.ndarray | None:
    """(2,) x, y from the face's middle, or None: two bars at right angles, each with edges along both of its sides."""
    half = _FACE / 2
    sums, beside = _strips()
    seen = np.concatenate([edges, weight[None]]).reshape(3, -1)
    cosine, sine, length = (sums @ seen.T).T.reshape(3, len(_DEGREES), 2, -1)
    turn = np.deg2rad(2 * _DEGREES)[:, None]
    along = np.stack(
        [
            cosine[:, 0] * np.cos(turn) + sine[:, 0] * np.sin(turn),
            -cosine[:, 1] * np.cos(turn) - sine[:, 1] * np.sin(turn),
        ],
        1,
    )
    # The geometric mean of both sides: an edge on one side alone is no bar.
    before, after = np.maximum(along / np.maximum(length, 0.3 * _FACE) @ beside, 0)
    strips = np.sqrt(before * after)
    off = np.arange(strips.shape[2]) - strips.shape[2] // 2
    strips = (strips - np.median(strips, 2, keepdims=True)) * np.exp(-0.5 * (off / (0.15 * half)) ** 2)
    score = np.sqrt(np.maximum(strips.max(2), 0).prod(1))
    best = int(score.argmax())
    if score[best] <= _CROSS:
        return None
    places = [_peak(strip) + off[0] for strip in strips[best]]
    middle = (_FACE - 1) / 2
    turned_by = cv2.getRotationMatrix2D((middle, middle), _DEGREES[best], 1.0)
    flat = (grey - cv2.GaussianBlur(grey, (0, 0), 0.25 * half)) * weight
    turned = cv2.warpAffine(np.dstack([flat, weight]), turned_by, (_FACE, _FACE))
    crossing = []
    for axis, place in enumerate(places):  # the crest: where the lit flank passes most steeply into the dark one
        profile = turned[..., 0].sum(axis) / np.maximum(turned[..., 1].sum(axis), 0.2 * _FACE)
        away = np.arange(_FACE) - middle - place
        slope = np.abs(gaussian_filter1d(np.gradient(profile), 0.05 * half))
        slope *= np.exp(-0.5 * (away / (0.07 * half)) ** 2) * (np.abs(away) < 0.15 * half)
        crossing.append(_peak(slope) - middle)
    return turned_by[:, :2].T @ np.array(crossing)


@lru_cache(maxsize=1)
def _strips() -> tuple[csr_array, np.ndarray]:
    """What sums a face along lines, and what takes the means of such sums before and after each place.

    Returns:
        (turns * 2 * P, _FACE ** 2): to sums along lines at each of _DEGREES, P of them a pixel apart about the middle,
        those that run down the turned face and those that run across;
        (2, 1, P, M): to means over a bar's half-width on either side of the M places within _OFF of the middle.
    """
    reach, width = int(_OFF * _FACE / 2), int(_BAR * _FACE / 2)
    lines = 2 * (reach + width) + 1
    offset = np.arange(_FACE) - (_FACE - 1) / 2
    turn = np.deg2rad(_DEGREES)[:, None, None]
    x, y = offset, offset[:, None]
    at = np.stack([x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)], 1)  # in the turned face
    at = at.reshape(-1, _FACE**2) + lines // 2
    within = np.hypot(x, y).ravel() <= _FACE / 2  # what lies beyond is no coin
    rows, columns, shares = [], [], []
    for i, places in enumerate(at):
        for line in (np.floor(places), np.floor(places) + 1):
            here = np.flatnonzero((line >= 0) & (line < lines) & within)
            rows.append(i * lines + line[here])
            columns.append(here)
            shares.append(1 - np.abs(places - line)[here])
    where = (np.concatenate(rows).astype(np.int32), np.concatenate(columns).astype(np.int32))
    sums = csr_array((np.concatenate(shares).astype(np.float32), where), shape=(len(at) * lines, _FACE**2))
    away = np.arange(lines)[:, None] - lines // 2 - np.arange(-reach, reach + 1)
    before = np.where((away < 0) & (away >= -width), 1.0, 0.5 * (away == 0)) / (width + 0.5)
    after = np.where((away > 0) & (away <= width), 1.0, 0.5 * (away == 0)) / (width + 0.5)
    return sums, np.stack([before, after])[:, None].astype(np.float32)


def _peak(values: np.ndarray) -> float:
    """Place of the largest value, between the samples by a parabola."""
    i = int(values.argmax())
    if not 0 < i < len(values) - 1:
        return float(i)
    curve = values[i - 1] - 2 * values[i] + values[i + 1]
    return i + float(0.5 * (values[i - 1] - values[i + 1]) / curve) if curve < 0 else float(i)


def _inner_circle(edges: np.ndarray) -> np.ndarray | None:
    """(2,) x, y from the face's middle of the best circle within the coin, or None."""
    middle, reach = (_FACE - 1) / 2, int(_OFF * _FACE / 2)
    near = slice(int(middle) - reach, int(middle) + reach + 2)
    votes = vote(edges, _CIRCLES, 0)[:, near, near]
    best, y, x = np.unravel_index(votes.argmax(), votes.shape)
    if votes[best, y, x] < _CIRCLE:
        return None
    return np.array([_peak(votes[best, y]), _peak(votes[best, :, x])]) + near.start - middle
