"""A file for every coin of a folder of photographs."""

import shutil
import warnings
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from console import progress
from datasets.coin import Coin, find_coins
from datasets.decoding import FORMATS, BadImage, decode
from datasets.processes import map_processes
from machine.files import whole_folder

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
        workers: processes; None for one a core.

    Returns:
        One Split for each name.
    """
    stems = Counter(_stem(name).lower() for name in names)
    unclear = {name for name in names if _is_unclear(_stem(name), stems)}
    with whole_folder(out) as unfinished:
        each = map_processes(partial(_split_file, root, unfinished, unclear), names, len(names), workers)
        return list(progress(each, "cutting coins", total=len(names)))


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _is_unclear(stem: str, stems: Mapping[str, int]) -> bool:
    """Whether a coin of another file might be called so: of the stems of all files, in small letters, with counts."""
    head, _, number = stem.rpartition("-")
    return stems[stem.lower()] > 1 or (number.isdigit() and head.lower() in stems)


def _split_file(root: Path, out: Path, unclear: Container[str], name: str) -> Split:
    try:
        return Split(name, _split_one(root / name, out / name, out / (name if name in unclear else _stem(name))))
    except BadImage as bad:
        return Split(name, 0, str(bad))
    except FileExistsError as error:
        return Split(name, 0, f"another file's coin is called {Path(error.filename).name}")


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
