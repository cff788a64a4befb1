"""Maps -> pictures. Normalisation happens here and nowhere else.

Pictures are (H, W, 3) uint8. A map that is zero, constant or not finite everywhere says nothing: it is `None` after
`unit`, and drawn as a plain grey picture (an overlay: the photograph without colours).
"""

import io
import os
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

# The look-up table of heat maps: 0 blue to violet, .5 turquoise, 1 red. (256, 3) uint8.
LOOK_UP = (np.asarray(matplotlib.colormaps["rainbow"](np.arange(256)))[:, :3] * 255).round().astype(np.uint8)
EMPTY = 128  # grey of a picture that says nothing
ROBUST = 99.5  # percentile of a gradient that becomes full colour: single pixels reach ten times the rest
GRADIENTS = ("gradient", "guided_backprop")  # drawn as they are, signed; every other method as heat
SMALLEST = 112  # side that tiny views are enlarged to, by whole pixels
FORMATS = {"png": {"compress_level": 1}, "jpeg": {"quality": 90}, "webp": {"quality": 85, "method": 2}}
SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def says_nothing(values: np.ndarray) -> bool:
    """Whether a map of any shape is zero, constant, or has a value that is not finite."""
    return not np.isfinite(values).all() or float(values.max()) == float(values.min())


def unit(heat: np.ndarray, robust: bool = False) -> np.ndarray | None:
    """(H, W) heat -> the same in 0..1, negative values 0; None if nothing is left.

    `robust`: 1 is the 99.5th percentile of what is positive, else the maximum.
    """
    if says_nothing(heat):
        return None
    heat = np.maximum(heat, 0)
    top = float(np.percentile(heat[heat > 0], ROBUST) if robust and (heat > 0).any() else heat.max())
    return np.minimum(heat / top, 1) if top > 0 else None


def draw(method: str, values: np.ndarray, photograph: np.ndarray) -> np.ndarray:
    """A method's map (C, H, W) as a picture; `photograph` is the view it belongs to.

    Gradients are drawn signed, as colours around grey (with Sobel in front of the network their three channels are equal,
    and so the picture is grey). The heat map of a product is the maximum over its channels. All else is laid over the
    photograph.
    """
    if method in GRADIENTS:
        return signed(values)
    if len(values) > 1:
        return coloured(unit(values.max(0), robust=True), photograph.shape)
    return overlay(unit(values[0]), photograph)


def signed(values: np.ndarray) -> np.ndarray:
    """(C, H, W) signed -> grey at 0, colours to either side."""
    _, height, width = values.shape
    if says_nothing(values):
        return np.full((height, width, 3), EMPTY, np.uint8)
    top = float(np.percentile(np.abs(values), ROBUST)) or float(np.abs(values).max())
    picture = np.clip(values / top, -1, 1) * 127 + EMPTY
    return np.broadcast_to(picture.transpose(1, 2, 0), (height, width, 3)).astype(np.uint8)


def coloured(heat: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) in 0..1 through the look-up table."""
    if heat is None:
        return np.full(shape, EMPTY, np.uint8)
    return LOOK_UP[(heat * 255).round().astype(np.uint8)]


def overlay(heat: np.ndarray | None, photograph: np.ndarray) -> np.ndarray:
    """Heat in 0..1 laid over the photograph in grey, half and half."""
    grey = (photograph @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    if heat is None:
        return np.broadcast_to(grey, photograph.shape).astype(np.uint8)
    return ((grey + coloured(heat, photograph.shape)) / 2).astype(np.uint8)


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Tiny pictures (digits) by whole pixels, so that a person can see them in a folder."""
    times = max(1, SMALLEST // max(picture.shape[:2]))
    return picture.repeat(times, 0).repeat(times, 1) if times > 1 else picture


def write_picture(path: Path, picture: np.ndarray, kind: str) -> None:
    """Encode as `kind` (a key of FORMATS) and put in place whole."""
    buffer = io.BytesIO()
    Image.fromarray(enlarged(picture)).save(buffer, kind, **FORMATS[kind])
    put(path, buffer.getvalue())


def put(path: Path, content: bytes) -> None:
    """Write beside `path` and rename into place.

    Unlike runs.atomic it does not wait for the disk: pictures are many, and an empty one is made again.
    """
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        error.filename = str(path)
        raise


def contact_sheet(pictures: list[np.ndarray], columns: int = 8, cell: int = 112, gap: int = 4) -> np.ndarray:
    """Pictures in reading order on white; fewer pictures than columns make a narrower sheet."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (cell + gap) + gap, columns * (cell + gap) + gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (gap + (cell + gap) * n for n in divmod(i, columns))
        sampling = Image.Resampling.NEAREST if len(picture) * 2 <= cell else Image.Resampling.LANCZOS
        sheet[top : top + cell, left : left + cell] = np.asarray(
            Image.fromarray(picture).resize((cell, cell), sampling)
        )
    return sheet
