"""One image file -> uint8 RGB pixels, or the reason why not."""

import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 150_000_000  # more is a decompression bomb or a mistake; a 100-megapixel camera still passes
MAX_ASPECT = 12  # a longer strip would fill the cache without showing a coin
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                return _pixels(image, shorter_side, at_most)
    except BadImage:
        raise
    except Image.UnidentifiedImageError:
        raise BadImage(_unidentified(file)) from None
    except Image.DecompressionBombError:
        raise BadImage(f"more than {MAX_PIXELS // 10**6} megapixels") from None
    except MemoryError:
        raise BadImage("too large for the memory") from None
    except OSError as error:
        raise BadImage(f"damaged image: {error.strerror or error}") from None
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise BadImage(f"damaged image: {error!r}") from None


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
    image.load()
    upright = ImageOps.exif_transpose(image)
    rgb = _rgb(upright)
    if shorter_side is not None:
        rgb = resize_shorter(rgb, shorter_side)
    return np.asarray(rgb)


def resize_shorter(image: Image.Image, side: int) -> Image.Image:
    """Resize so that the shorter side has `side` pixels; the longer side is truncated as torchvision does."""
    width, height = image.size
    if width <= height:
        size = (side, int(side * height / width))
    else:
        size = (int(side * width / height), side)
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, dtype=np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        if image.mode == "F" and values.max(initial=0) <= 1:
            top = 1.0
        return Image.fromarray((np.clip(values / top, 0, 1) * 255 + 0.5).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _unidentified(file: Path | IO[bytes]) -> str:
    if isinstance(file, Path):
        if file.stat().st_size == 0:
            return "empty file"
        try:
            with Image.open(file) as image:
                return f"{image.format} is not one of the formats read ({', '.join(FORMATS)})"
        except Exception:
            pass
    return "not an image"
