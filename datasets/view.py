"""What a network is given of a photograph, and the way back: photograph, coin, relief, unrolled.

Every view but `photograph` starts from the *face*: the coin about its design's centre, all of one size. `relief` leaves
neither colour nor light nor, smoothed, sharpness: three channels hold the grey less its local mean and over its local
deviation, and the strength of its edges across and along the circles about the centre. `unrolled` is the relief with
the radius down and the angle across, so that turning the coin rolls the picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.outline import fill_outline
from datasets.places import Place, find_place

FACE_RADIUS = 80  # pixels of a coin's radius in the face, from which reliefs are made
MARGIN = 1.06  # the face reaches so far, in radii
REACH = 0.97  # radii that are unrolled: the rim's edge is left out
GROUND = 128  # grey in place of what is not the coin
LOCAL = 1 / 12  # sigma of what is local, in radii
FINEST = 2.0  # pixels of the face, a sigma: what is finer tells sharp photographs from blurred ones, and few designs
FAINT = 2.0  # grey levels, added to the local deviation: plain metal is not blown up to relief
BRIGHTER, EDGE = 40.0, 48.0  # bytes for a deviation of 1, and for an edge whose root is 1
SIZE, STRIP_SIZE = 128, 96  # sides of a view where nothing is said; of an unrolled coin
INSIDE = 0.03  # radii within the outline where the relief has its full strength


def face(pixels: np.ndarray, place: Place, radius: float = FACE_RADIUS, margin: float = MARGIN) -> np.ndarray:
    """The coin about its design's centre, its radius `radius` pixels: (S, S, C) of the type of `pixels`, S even.

    What lies beyond the photograph repeats its edge. Larger photographs are smoothed first, so that nothing finer than
    a pixel aliases.
    """
    scale, side = radius / place.radius, 2 * round(margin * radius)
    smooth = cv2.GaussianBlur(pixels, (0, 0), 0.45 / scale) if scale < 0.75 else pixels
    return cv2.warpAffine(
        smooth, _to_face(place, scale, side), (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _to_face(place: Place, scale: float, side: int) -> np.ndarray:
    shift = (side - 1) / 2 - scale * np.array([place.center_x, place.center_y])
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])


def _weight(place: Place, scale: float, side: int) -> np.ndarray:
    """(side, side) float32: 1 on the coin, 0 off it, between them over INSIDE radii."""
    move = _to_face(place, scale, side)
    drawn = fill_outline(place.outline @ move[:, :2].T + move[:, 2], (side, side))
    depth = cv2.distanceTransform(np.pad(drawn, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.clip(depth / (INSIDE * place.radius * scale), 0, 1).astype(np.float32)


def relief(pixels: np.ndarray, place: Place) -> np.ndarray:
    """The face without colour and light, and nothing finer than FINEST.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        place: of the coin.

    Returns:
        (S, S, 3) float32, S = 2 * MARGIN * FACE_RADIUS: grey less the local mean and over the local deviation; the
        roots of the strength of its edges that run across and along the circles about the centre. 0 off the coin.
    """
    sharp = cv2.cvtColor(face(pixels, place), cv2.COLOR_RGB2GRAY).astype(np.float32)
    weight, sigma = _weight(place, FACE_RADIUS / place.radius, len(sharp)), LOCAL * FACE_RADIUS
    grey = _mean_about(sharp, weight, FINEST)
    mean = _mean_about(grey, weight, sigma)
    variance = _mean_about(grey * grey, weight, sigma) - mean * mean
    local = (grey - mean) / (np.sqrt(np.maximum(variance, 0)) + FAINT) * weight
    across, down = cv2.Sobel(local, cv2.CV_32F, 1, 0), cv2.Sobel(local, cv2.CV_32F, 0, 1)
    at = np.arange(len(grey), dtype=np.float32) - (len(grey) - 1) / 2
    away = np.hypot(at, at[:, None]) + 1e-3
    x, y = at[None] / away, at[:, None] / away
    radial, angular = np.abs(across * x + down * y), np.abs(down * x - across * y)
    return np.dstack([local, np.sqrt(angular), np.sqrt(radial)])


def _mean_about(values: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """The mean of what lies about each pixel, of the coin alone: Gaussian, `sigma` in pixels."""
    there = np.maximum(cv2.GaussianBlur(weight, (0, 0), sigma), 1e-3)
    return cv2.GaussianBlur(values * weight, (0, 0), sigma) / there


def unroll(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A face (S, S, C) with the radius down, out to REACH, and the angle across: (height, width, C)."""
    middle = (len(picture) - 1) / 2
    radius = REACH * len(picture) / 2 / MARGIN
    flags = cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS  # without the latter, what lies outside is left uninitialised
    return cv2.warpPolar(picture, (height, width), (middle, middle), radius, flags).transpose(1, 0, 2)


# --- the views ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What a network may be given of a photograph. One entry of VIEWS each."""

    name: str
    says: str  # what it is, in words
    version: int  # raise it when other pixels are drawn of the same photograph and place
    shape: Callable[[int], tuple[int, int]]  # size -> (height, width)
    draw: Callable[[np.ndarray, Place, int], np.ndarray]  # (H, W, 3) uint8, place, size -> (height, width, 3) uint8
    # (H, W) x and y of the photograph, place, size -> x and y of the view, in its pixels
    trace: Callable[[np.ndarray, np.ndarray, Place, int], tuple[np.ndarray, np.ndarray]]


def _square(size: int) -> tuple[int, int]:
    return size, size


def _strip(size: int) -> tuple[int, int]:
    """As many pixels as the square has."""
    return size // 2, 2 * size


def _draw_coin(pixels: np.ndarray, place: Place, size: int) -> np.ndarray:
    radius = size / 2 / MARGIN
    picture = face(pixels, place, radius)
    weight = _weight(place, radius / place.radius, len(picture))[..., None]
    return _fitted((picture * weight + GROUND * (1 - weight)).round().astype(np.uint8), size)


def _draw_relief(pixels: np.ndarray, place: Place, size: int) -> np.ndarray:
    return _fitted(_to_bytes(relief(pixels, place)), size)


def _draw_unrolled(pixels: np.ndarray, place: Place, size: int) -> np.ndarray:
    return _to_bytes(unroll(relief(pixels, place), *_strip(size)))


def _fitted(picture: np.ndarray, size: int) -> np.ndarray:
    return picture if len(picture) == size else cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    scale, zero = np.array([BRIGHTER, EDGE, EDGE], np.float32), np.array([GROUND, 0, 0], np.float32)
    return np.clip(picture * scale + zero, 0, 255).round().astype(np.uint8)


def _trace_face(x: np.ndarray, y: np.ndarray, place: Place, size: int) -> tuple[np.ndarray, np.ndarray]:
    scale, middle = size / 2 / MARGIN / place.radius, (size - 1) / 2
    return (x - place.center_x) * scale + middle, (y - place.center_y) * scale + middle


def _trace_unrolled(x: np.ndarray, y: np.ndarray, place: Place, size: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = _strip(size)
    x, y = (x - place.center_x) / place.radius, (y - place.center_y) / place.radius
    return np.arctan2(y, x) % (2 * np.pi) * (width / (2 * np.pi)), np.hypot(x, y) * (height / REACH)


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View("coin", "the coin cut out, all of one size, the ground grey", 1, _square, _draw_coin, _trace_face),
        View("relief", "the coin's relief, without size, colour and light", 2, _square, _draw_relief, _trace_face),
        View(
            "unrolled",
            "the coin's relief unrolled about its centre, the same however the coin lies",
            2,
            _strip,
            _draw_unrolled,
            _trace_unrolled,
        ),
    )
}
COLOURLESS = ("relief", "unrolled")  # whose channels are no colours
PHOTOGRAPH = "photograph"  # the view that leaves a picture as it is


def look_at(pixels: np.ndarray, view: str, size: int) -> tuple[np.ndarray, Place | None]:
    """One photograph (H, W, 3) uint8 in a view, as `datasets.look` draws those of a set, and where its coin is."""
    if view == PHOTOGRAPH:
        return pixels, None
    place = find_place(pixels)
    return VIEWS[view].draw(pixels, place, size), place


def neutral(view: str) -> tuple[float, float, float]:
    """What each channel of a view has where there is nothing to see, in 0..1: mid grey; of a relief no edge."""
    return (GROUND / 255, 0.0, 0.0) if view in COLOURLESS else (0.5, 0.5, 0.5)


def decoded_for(size: int) -> int:
    """Shorter side that photographs are decoded to at most: a coin that fills half of one still has a view's pixels."""
    return 2 * size


def default_size(view: str) -> int:
    """--size where nothing is said, of a key of VIEWS or of PHOTOGRAPH: what is prepared is what a training takes."""
    return STRIP_SIZE if view == "unrolled" else SIZE


def shape_of(view: str, size: int) -> tuple[int, int]:
    """(height, width) of a key of VIEWS, or of PHOTOGRAPH, at --size `size`."""
    return VIEWS[view].shape(size) if view in VIEWS else (size, size)


@dataclass(frozen=True)
class Window:
    """A square of a photograph, about its coin: where what is seen in a view is drawn back."""

    left: int
    top: int
    side: int

    @classmethod
    def about(cls, place: Place, shape: Sequence[int]) -> "Window":
        """The largest square of a photograph of this (H, W, ...) shape that has the coin nearest to its middle."""
        side = min(shape[:2])
        at = [round(center - (side - 1) / 2) for center in (place.x, place.y)]
        left, top = (max(0, min(first, length - side)) for first, length in zip(at, shape[1::-1], strict=True))
        return cls(left, top, side)

    @classmethod
    def central(cls, shape: Sequence[int], share: float = 1) -> "Window":
        """The square in the middle of a photograph of this (H, W, ...) shape, of this share of its shorter side."""
        side = round(min(shape[:2]) * share)
        return cls(round((shape[1] - side) / 2), round((shape[0] - side) / 2), side)

    def times(self, factor: float) -> "Window":
        """The same square of a larger or smaller copy of the photograph."""
        return Window(*(round(length * factor) for length in (self.left, self.top, self.side)))

    def cut(self, pixels: np.ndarray, size: int) -> np.ndarray:
        """Its pixels, `size` on a side."""
        square = pixels[self.top : self.top + self.side, self.left : self.left + self.side]
        if self.side == size:
            return np.ascontiguousarray(square)
        return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if self.side > size else cv2.INTER_LINEAR)


def to_photograph(values: np.ndarray, view: str, place: Place, window: Window, size: int, side: int) -> np.ndarray:
    """Draw back onto the photograph what was found in a view.

    Args:
        values: (height, width) or (height, width, C) float32, such as a heat map of the view.
        view: a key of VIEWS.
        place: of the coin.
        window: of the photograph.
        size: of the view.
        side: pixels of the result.

    Returns:
        (side, side) or (side, side, C) float32: 0 where the view does not reach.
    """
    height, width = VIEWS[view].shape(size)
    steps = (np.arange(side, dtype=np.float32) + 0.5) * (window.side / side) - 0.5
    x, y = np.meshgrid(steps + window.left, steps + window.top)
    across, down = (part.astype(np.float32) for part in VIEWS[view].trace(x, y, place, size))
    if view == "unrolled":  # its left and right edge meet
        values = np.concatenate([values, values[:, :1]], 1)
    else:
        values, width = np.asarray(values), width - 1
    back = cv2.remap(values, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    outside = (across < -0.5) | (across > width + 0.5) | (down < -0.5) | (down > height - 0.5)
    back[outside] = 0
    return back


def from_photograph(values: np.ndarray, view: str, place: Place, size: int) -> np.ndarray:
    """What a view shows of a map of its photograph, a mask say: (H, W) float32 -> (height, width) float32."""
    height, width = VIEWS[view].shape(size)
    if view == "unrolled":
        turn = np.arange(width, dtype=np.float32) * (2 * np.pi / width)
        reach = np.arange(height, dtype=np.float32)[:, None] * (REACH * place.radius / height)
        x, y = place.center_x + reach * np.cos(turn), place.center_y + reach * np.sin(turn)
    else:
        scale, middle = size / 2 / MARGIN / place.radius, (size - 1) / 2
        steps = (np.arange(size, dtype=np.float32) - middle) / scale
        x, y = np.meshgrid(steps + place.center_x, steps + place.center_y)
    return cv2.remap(
        values, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
