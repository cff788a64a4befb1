"""One image file -> uint8 RGB pixels, or the reason why not."""

import threading
import warnings
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from machine.reading import Special, open_regular

MAX_PIXELS = 150_000_000  # more is a decompression bomb or a mistake; a 100-megapixel camera still passes
MOST_BYTES = 1 << 32  # of a file; a larger one is no photograph, and a sparse one would be read for hours
LARGE_PIXELS = 20_000_000  # pictures from here on are decoded one at a time: each takes up to 1.3 GB
STRIP = 1 << 20  # pixels of a picture whose numbers are converted at a time
MAX_ASPECT = 12  # a longer strip would fill the cache without showing a coin
HEIC = find_spec("pillow_heif") is not None  # what iPhones take; a rented machine may lack its library
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", *(["HEIF"] if HEIC else []))
# bytes 4 to 12 of an HEIC file: its kind and brand
BRANDS = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


if HEIC:
    import pillow_heif

    pillow_heif.register_heif_opener()


class BadImage(Exception):
    """This file cannot be used; the message is the reason, for skipped.csv."""


def decode(file: Path | IO[bytes], shorter_side: int | None = None, at_most: int | None = None) -> np.ndarray:
    """Read an image upright and in colour.

    EXIF orientation is applied; grey, palette, CMYK and 16-bit become RGB; what is transparent becomes white;
    of an animation the first frame counts.

    Args:
        file: path or open file.
        shorter_side: resize (bilinear, antialiased, as torchvision's Resize) so that the shorter side has this
            many pixels; None keeps the size.
        at_most: leave a larger image's shorter side as it is, up to this many pixels.

    Returns:
        (height, width, 3) uint8.

    Raises:
        BadImage: with the reason.
    """
    try:
        if isinstance(file, Path):
            with open_regular(file) as opened:
                return _decode(opened, shorter_side, at_most)
        return _decode(file, shorter_side, at_most)
    except BadImage:
        raise
    except Special as error:
        raise BadImage(str(error)) from None
    except Image.DecompressionBombError:
        raise BadImage(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except MemoryError:
        raise BadImage("too large for the memory") from None
    except OSError as error:
        raise BadImage(f"damaged image: {error.strerror or error}") from None
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise BadImage(f"damaged image: {error!r}") from None


_one_at_a_time = threading.Lock()


def _decode(file: IO[bytes], shorter_side: int | None, at_most: int | None) -> np.ndarray:
    size = file.seek(0, 2)
    file.seek(0)
    if size > MOST_BYTES:
        raise BadImage(f"larger than {MOST_BYTES >> 30} GB")
    if size == 0:
        raise BadImage("empty file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(file, formats=FORMATS) as image:
                return _pixels(image, shorter_side, at_most)
        except Image.UnidentifiedImageError:
            raise BadImage(_unidentified(file)) from None


def _unidentified(file: IO[bytes]) -> str:
    file.seek(4)
    if not HEIC and file.read(8) in BRANDS:
        return "HEIC, as iPhones take it: export it as JPEG, or `pip install pillow-heif`"
    try:
        file.seek(0)
        with Image.open(file) as image:
            return f"{image.format} is not one of the formats read ({', '.join(FORMATS)})"
    except Exception:
        return "not an image"


def _pixels(image: Image.Image, shorter_side: int | None, at_most: int | None) -> np.ndarray:
    width, height = image.size
    if shorter_side is not None and at_most is not None:
        shorter_side = min(max(shorter_side, min(width, height)), max(shorter_side, at_most))
    if width * height > MAX_PIXELS:
        raise BadImage(f"{width} x {height} is more than {MAX_PIXELS // 10**6} megapixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BadImage(f"{width} x {height} is a strip of more than {MAX_ASPECT} to 1")
    if shorter_side is not None and image.format in ("JPEG", "MPO"):
        image.draft("RGB", (2 * shorter_side, 2 * shorter_side))  # libjpeg scales by 2, 4 or 8 while it decodes
    with _one_at_a_time if image.size[0] * image.size[1] > LARGE_PIXELS else nullcontext():
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        colours = _colours(image)
        if shorter_side is not None:
            colours = resize_shorter(colours, shorter_side)
        return np.asarray(colours.convert("RGB"))  # grey becomes colours last, when it is small


def resize_shorter(image: Image.Image, side: int) -> Image.Image:
    """Resize so that the shorter side has `side` pixels; the longer side is truncated as torchvision does."""
    width, height = image.size
    if width <= height:
        size = (side, int(side * height / width))
    else:
        size = (int(side * width / height), side)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _colours(image: Image.Image) -> Image.Image:
    """As RGB, or as L where all colours are the same; strip by strip where that takes further memory."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image)
        strips = [values[rows] for rows in _strips(image)]
        highest = float(np.max([np.max(strip, initial=0) for strip in strips], initial=0))
        top = 65535.0 if highest > 255 else 255.0
        if image.mode == "F" and highest <= 1:
            top = 1.0
        grey = np.empty(values.shape, np.uint8)
        for rows, strip in zip(_strips(image), strips, strict=True):
            grey[rows] = np.clip(strip.astype(np.float64) / top, 0, 1) * 255 + 0.5
        return Image.fromarray(grey)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        found = Image.new("RGB", image.size)
        for rows in _strips(image):
            rgba = image.crop((0, rows.start, image.width, rows.stop)).convert("RGBA")
            white = Image.new("RGBA", rgba.size, "white")
            found.paste(Image.alpha_composite(white, rgba).convert("RGB"), (0, rows.start))
        return found
    return image if image.mode == "L" else image.convert("RGB")


def _strips(image: Image.Image) -> list[slice]:
    step = max(1, STRIP // max(1, image.width))
    return [slice(row, min(row + step, image.height)) for row in range(0, image.height, step)]
