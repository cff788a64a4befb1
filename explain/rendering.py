"""Maps -> pictures. Normalisation happens here and nowhere else; no file is written here.

A map that is zero, constant or not finite is degenerate: it is `None` after `normalise_heat`, and drawn as a plain grey
picture (an overlay: the photograph without colours). Pictures have one byte a pixel where that is enough: half the time
and size.
"""

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from console import UserError
from datasets.lettering import letters, wrapped
from explain.attribution.registry import COLOURS, Method
from machine.reading import Damaged, open_regular

# The look-up tables of heat maps, from nothing to the most, (256, 3) uint8 each.
LOOK_UPS = {
    name: (np.asarray(matplotlib.colormaps[name](np.arange(256)))[:, :3] * 255).round().astype(np.uint8)
    for name in COLOURS
}
# The same for pixels on their own: black where there is nothing, so that the ground is quiet in all of them.
QUIET = {
    name: table if table[0].max() < 16 else (table * np.minimum(np.arange(256) / 48, 1)[:, None]).astype(np.uint8)
    for name, table in LOOK_UPS.items()
}
OPAQUE = 0.8  # how opaque the most lies on the photograph; opacity follows the value, so nothing leaves it as it is
# That of changes, around 0: -1 (it was needed) red as the most of a heat map, 0 white, 1 (it was in the way) blue.
# (256, 3) uint8; without the darkest ends of the table, which over a photograph look like shadow.
TWO_SIDED = (matplotlib.colormaps["RdBu"](np.linspace(0.12, 0.88, 256))[:, :3] * 255).round().astype(np.uint8)
DIMMED = 0.3  # brightness of the photograph where nothing speaks for the class
EMPTY = 128  # grey of a picture that says nothing
ROBUST = 99.5  # percentile of a gradient that becomes full colour: single pixels reach ten times the rest
LEGIBLE, TITLE = 256, 14  # height of a picture below a title, and the size of its letters, in pixels
SMALLEST = 112  # side that tiny views are enlarged to, by whole pixels
FORMATS: dict[str, dict[str, int]] = {
    "png": {"compress_level": 1, "compress_type": 3},  # run lengths: as small as level 1, in two thirds of the time
    "jpeg": {"quality": 90},
    "webp": {"quality": 85, "method": 2},
}
SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def is_degenerate(values: np.ndarray) -> bool:
    """Whether a map of any shape is zero, constant, or has a value that is not finite."""
    return not np.isfinite(values).all() or float(values.max()) == float(values.min())


def says_nothing(values: np.ndarray, kind: str) -> bool:
    """Whether a map is degenerate. A constant change is none: one cover may hide everything."""
    if kind == "change":
        return not np.isfinite(values).all() or not values.any()
    return is_degenerate(values)


def panels(picture: Image.Image) -> list[Image.Image]:
    """The squares that a picture consists of, from left to right."""
    side = picture.height
    return [picture.crop((left, 0, left + side, side)) for left in range(0, picture.width - side + 1, side)]


def normalise_heat(heat: np.ndarray, robust: bool = False) -> np.ndarray | None:
    """(H, W) heat -> the same in 0..1, negative values 0; None if nothing is left.

    `robust`: 1 is the 99.5th percentile of what is positive, else the maximum.
    """
    if is_degenerate(heat):
        return None
    heat = np.maximum(heat, 0)
    top = percentile(heat[heat > 0]) if robust else float(heat.max())
    return np.minimum(heat / top, 1) if top > 0 else None


def percentile(values: np.ndarray) -> float:
    """The 99.5th, of every fourth value where there are many; 0 of none."""
    flat = values.ravel()
    return float(np.percentile(flat[:: 4 if flat.size > 4096 else 1], ROBUST)) if flat.size else 0.0


def draw(method: Method, values: np.ndarray, photograph: np.ndarray, colours: str = COLOURS[0]) -> Image.Image:
    """A method's map (C, H, W) as a picture of its kind; `photograph` (H, W, 3) uint8 is the view it belongs to.

    `colours` is the look-up table of heat, a key of LOOK_UPS.

    Signed maps are drawn as colours around grey (with Sobel in front of the network their three channels are equal, and
    so the picture is grey).
    """
    if method.kind == "signed":
        return signed(values)
    if method.kind == "change":
        return change(values[0], photograph)
    if method.kind == "view":
        return framed(overlay(normalise_heat(values[0]), photograph, colours))
    if method.kind == "fine":
        return coloured(normalise_heat(values.max(0), robust=True), photograph.shape[:2], QUIET[colours])
    return overlay(normalise_heat(values[0]), photograph, colours)


def framed(picture: Image.Image) -> Image.Image:
    """A picture in the middle of the square that holds it, on grey; a square stays."""
    side = max(picture.size)
    if picture.size == (side, side):
        return picture
    square = Image.new(picture.mode, (side, side), EMPTY if picture.mode == "L" else (EMPTY,) * 3)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def signed(values: np.ndarray) -> Image.Image:
    """(C, H, W) signed -> grey at 0, colours to either side; grey altogether if the channels are equal."""
    if is_degenerate(values):
        return Image.new("L", (values.shape[2], values.shape[1]), EMPTY)
    if len(values) == 3 and not (np.array_equal(values[0], values[1]) and np.array_equal(values[0], values[2])):
        values = values.transpose(1, 2, 0)
    else:
        values = values[0]
    size = np.abs(values)
    top = percentile(size) or float(size.max())
    return Image.fromarray((np.clip(values / top, -1, 1) * 127 + EMPTY).astype(np.uint8))


def change(values: np.ndarray, photograph: np.ndarray) -> Image.Image:
    """(H, W) changes of a score by hiding a place -> two pictures side by side, (H, 2 W).

    Left the photograph, as bright as the place was needed (a change below 0); right, over the photograph in grey, the
    two-sided look-up table: red was needed, white did not matter, blue was in the way. Full colour is the largest
    change to either side.
    """
    height, width = photograph.shape[:2]
    picture = Image.new("RGB", (2 * width, height))
    # Lightened, so that colours are seen on black ground too.
    grey = Image.fromarray(photograph).convert("L").point(lambda value: 96 + value * 159 // 255).convert("RGB")
    if says_nothing(values, "change"):
        picture.paste(Image.fromarray((photograph * DIMMED).astype(np.uint8)), (0, 0))
        picture.paste(grey, (width, 0))
        return picture
    relative = values / np.abs(values).max()  # -1 .. 1
    bright = DIMMED + (1 - DIMMED) * np.maximum(-relative, 0)
    picture.paste(Image.fromarray((photograph * bright[:, :, None]).round().astype(np.uint8)), (0, 0))
    colours = Image.fromarray(TWO_SIDED[((relative + 1) * 127.5).round().astype(np.uint8)])
    picture.paste(Image.blend(grey, colours, 0.5), (width, 0))
    return picture


def coloured(heat: np.ndarray | None, shape: tuple[int, ...], table: np.ndarray) -> Image.Image:
    """(H, W) in 0..1 through a look-up table; `shape` (H, W) is asked for where there is no heat."""
    if heat is None:
        return Image.new("L", (shape[1], shape[0]), EMPTY)
    picture = Image.fromarray((heat * 255).round().astype(np.uint8)).convert("P")
    picture.putpalette(table.tobytes())
    return picture


def overlay(heat: np.ndarray | None, photograph: np.ndarray, colours: str = COLOURS[0]) -> Image.Image:
    """Heat in 0..1 laid over the photograph in grey, the more opaque the more of it: where there is none, the coin."""
    grey = Image.fromarray(photograph).convert("L")
    if heat is None:
        return grey
    opacity = Image.fromarray((heat * (OPAQUE * 255)).round().astype(np.uint8))
    return Image.composite(coloured(heat, heat.shape, LOOK_UPS[colours]).convert("RGB"), grey.convert("RGB"), opacity)


def bar_as_drawn(colours: str, stops: int = 17) -> list[tuple[int, int, int]]:
    """What a heat map's colours look like over mid grey, from nothing to the most, `stops` of them, 0..255."""
    values = np.linspace(0, 1, stops)[None]
    return [
        tuple(pixel)
        for pixel in np.asarray(overlay(values, np.full((1, stops, 3), EMPTY, np.uint8), colours))[0].tolist()
    ]


def overlay_of(heat: Any, photograph: Any, colours: str = COLOURS[0]) -> Image.Image:
    """`explain.overlay`: heat and photograph in whatever form a notebook has them."""
    if colours not in LOOK_UPS:
        raise UserError(f"overlay: colours {colours!r} are unknown: {', '.join(LOOK_UPS)}")
    values = np.asarray(heat.detach().cpu() if hasattr(heat, "detach") else heat, dtype=np.float32)
    values = (
        values.reshape(values.shape[-2:]) if values.ndim >= 2 and values.size == np.prod(values.shape[-2:]) else values
    )
    if values.ndim != 2:
        raise UserError(f"overlay: a heat map (H, W) or (1, H, W) is wanted, this is of shape {values.shape}")
    return overlay(normalise_heat(values), _pixels_of(photograph, (values.shape[1], values.shape[0])), colours)


def _pixels_of(photograph: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 of `size` (width, height)."""
    if not isinstance(photograph, Image.Image):
        if hasattr(photograph, "detach"):
            photograph = (
                (photograph.detach().cpu().squeeze(0).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
            )
        array = np.asarray(photograph)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            raise UserError(
                "overlay: the photograph should be a PIL image, (H, W, 3) bytes or a (3, H, W) tensor in 0..1; this "
                f"is {array.dtype} of shape {array.shape}"
            )
        photograph = Image.fromarray(array)
    if abs(photograph.width * size[1] - photograph.height * size[0]) > 0.02 * max(photograph.size) * max(size):
        raise UserError(
            f"overlay: the photograph is {photograph.width} x {photograph.height}, of another shape than the map "
            f"({size[0]} x {size[1]}): cut it to what the network saw first"
        )
    return np.asarray(photograph.convert("RGB").resize(size))


def titled(picture: Image.Image, title: str) -> Image.Image:
    """A picture, enlarged by whole pixels if small, below its title in black on white, wrapped to its width."""
    times = max(1, -(-LEGIBLE // picture.height))
    large = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST).convert("RGB")
    font = letters(TITLE)
    lines = wrapped(title, font, large.width - 8)
    above = len(lines) * (TITLE + 4) + 6
    sheet = Image.new("RGB", (large.width, large.height + above), "white")
    ImageDraw.Draw(sheet).multiline_text((4, 2), "\n".join(lines), "black", font, spacing=3)
    sheet.paste(large, (0, above))
    return sheet


def enlarge(picture: Image.Image) -> Image.Image:
    """Tiny pictures (digits) by whole pixels, so that a person can see them in a folder."""
    times = max(1, SMALLEST // min(picture.size))
    size = (picture.width * times, picture.height * times)
    return picture.resize(size, Image.Resampling.NEAREST) if times > 1 else picture


def encode(picture: Image.Image, kind: str) -> bytes:
    """A picture as the bytes of a file of `kind` (a key of FORMATS)."""
    if kind != "png" and picture.mode == "P":
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    enlarge(picture).save(buffer, kind, **FORMATS[kind])
    return buffer.getvalue()


def encode_sheet(picture: np.ndarray) -> bytes:
    """A contact sheet as the bytes of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=88)
    return buffer.getvalue()


def contact_sheet(
    pictures: list[np.ndarray], columns: int = 8, cell: int = 112, gap: int = 4, labels: list[str] | None = None
) -> np.ndarray:
    """Pictures in reading order on white, a narrower sheet if they are few; `labels`: one a row, to its left."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (cell + gap) + gap, columns * (cell + gap) + gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (gap + (cell + gap) * n for n in divmod(i, columns))
        sampling = Image.Resampling.NEAREST if len(picture) * 2 <= cell else Image.Resampling.LANCZOS
        sheet[top : top + cell, left : left + cell] = np.asarray(
            Image.fromarray(picture).resize((cell, cell), sampling)
        )
    return sheet if labels is None else _labelled(sheet, labels, cell + gap)


def strip(pictures: list[np.ndarray], cell: int = 112) -> np.ndarray:
    """Squares (H, W, 3) side by side, without a gap: (cell, len(pictures) * cell, 3)."""
    sampling = [Image.Resampling.NEAREST if len(one) * 2 <= cell else Image.Resampling.LANCZOS for one in pictures]
    cells = [Image.fromarray(one).resize((cell, cell), how) for one, how in zip(pictures, sampling, strict=True)]
    return np.concatenate([np.asarray(one) for one in cells], 1)


def _labelled(sheet: np.ndarray, labels: list[str], step: int) -> np.ndarray:
    """A label left of each row of a sheet, `step` pixels apart."""
    font = letters(TITLE)
    left = round(max(font.getlength(label) for label in labels)) + 12
    whole = Image.new("RGB", (sheet.shape[1] + left, sheet.shape[0]), "white")
    whole.paste(Image.fromarray(sheet), (left, 0))
    for row, label in enumerate(labels):
        ImageDraw.Draw(whole).text((6, row * step + step // 2 - TITLE // 2), label, "black", font)
    return np.asarray(whole)


def read_picture(path: Path) -> Image.Image:
    """A picture that we wrote, in RGB.

    Raises:
        Damaged: if it is none any more; it is then removed, so that the next call makes it.
    """
    try:
        with open_regular(path) as file, Image.open(file, formats=("PNG", "JPEG", "WEBP")) as picture:
            return picture.convert("RGB")
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        if isinstance(error, FileNotFoundError):
            raise
        path.unlink(missing_ok=True)
        raise Damaged(path, "not a picture any more", "run the same command again, which makes it anew") from None
