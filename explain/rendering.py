"""Maps -> pictures. Normalisation happens here and nowhere else.

A map that is zero, constant or not finite says nothing: it is `None` after `unit`, and drawn as a plain grey picture (an
overlay: the photograph without colours). Pictures have one byte a pixel where that is enough: half the time and size.
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
GRADIENTS = ("gradient", "guided_backprop")  # drawn as they are, signed
PRODUCTS = ("guided_grad_cam",)  # drawn as heat alone; every other method as heat over the photograph
SMALLEST = 112  # side that tiny views are enlarged to, by whole pixels
FORMATS: dict[str, dict[str, int]] = {
    "png": {"compress_level": 1, "compress_type": 3},  # run lengths: as small as level 1, in two thirds of the time
    "jpeg": {"quality": 90},
    "webp": {"quality": 85, "method": 2},
}
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
    top = percentile(heat[heat > 0]) if robust else float(heat.max())
    return np.minimum(heat / top, 1) if top > 0 else None


def percentile(values: np.ndarray) -> float:
    """The 99.5th, of every fourth value where there are many; 0 of none."""
    flat = values.ravel()
    return float(np.percentile(flat[:: 4 if flat.size > 4096 else 1], ROBUST)) if flat.size else 0.0


def draw(method: str, values: np.ndarray, photograph: np.ndarray) -> Image.Image:
    """A method's map (C, H, W) as a picture; `photograph` (H, W, 3) uint8 is the view it belongs to.

    Gradients are drawn signed, as colours around grey (with Sobel in front of the network their three channels are equal,
    and so the picture is grey). The heat map of a product is the maximum over its channels. All else is laid over the
    photograph.
    """
    if method in GRADIENTS:
        return signed(values)
    if method in PRODUCTS:
        return coloured(unit(values.max(0), robust=True), photograph.shape[:2])
    return overlay(unit(values[0]), photograph)


def signed(values: np.ndarray) -> Image.Image:
    """(C, H, W) signed -> grey at 0, colours to either side; grey altogether if the channels are equal."""
    if says_nothing(values):
        return Image.new("L", (values.shape[2], values.shape[1]), EMPTY)
    if len(values) == 3 and not (np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2])):
        values = values.transpose(1, 2, 0)
    else:
        values = values[0]
    size = np.abs(values)
    top = percentile(size) or float(size.max())
    return Image.fromarray((np.clip(values / top, -1, 1) * 127 + EMPTY).astype(np.uint8))


def coloured(heat: np.ndarray | None, shape: tuple[int, ...]) -> Image.Image:
    """(H, W) in 0..1 through the look-up table; `shape` (H, W) is asked for where there is no heat."""
    if heat is None:
        return Image.new("L", (shape[1], shape[0]), EMPTY)
    picture = Image.fromarray((heat * 255).round().astype(np.uint8)).convert("P")
    picture.putpalette(LOOK_UP.tobytes())
    return picture


def overlay(heat: np.ndarray | None, photograph: np.ndarray) -> Image.Image:
    """Heat in 0..1 laid over the photograph in grey, half and half."""
    grey = Image.fromarray(photograph).convert("L")
    if heat is None:
        return grey
    return Image.blend(grey.convert("RGB"), coloured(heat, heat.shape).convert("RGB"), 0.5)


def enlarged(picture: Image.Image) -> Image.Image:
    """Tiny pictures (digits) by whole pixels, so that a person can see them in a folder."""
    times = max(1, SMALLEST // max(picture.size))
    size = (picture.width * times, picture.height * times)
    return picture.resize(size, Image.Resampling.NEAREST) if times > 1 else picture


def write_picture(path: Path, picture: Image.Image, kind: str) -> None:
    """Encode as `kind` (a key of FORMATS) and put in place whole."""
    if kind != "png" and picture.mode == "P":
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    enlarged(picture).save(buffer, kind, **FORMATS[kind])
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
