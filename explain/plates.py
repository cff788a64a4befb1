"""Pictures on pages of paper: a PDF of A4 pages, each photograph above its name and its own size in pixels.

A page is one picture, a JPEG of 300 dots an inch: some 40 kB a coin, where a PDF of matplotlib's stores pixels without
loss.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageDraw

from console import plain
from datasets.decoding import FORMATS, BadImage, decode
from datasets.lettering import fitted, letters, wrapped
from machine.files import write_atomic
from machine.reading import open_regular

DPI = 300
PAGE = (2480, 3508)  # A4 upright, in dots
MARGIN, HEAD, FOOT = 150, 300, 120
COLUMNS, ROWS, ROWS_KNOWN = 5, 6, 5  # squares of a page; fewer where something is known of the coins
CELL, GAP = 412, 30  # side of a photograph's square, and dots between squares
LARGE, NORMAL, SMALL = 72, 36, 27  # letters, in dots
LINE = SMALL + 6  # from one line below a square to the next
MOST_KNOWN, MOST_LETTERS = 3, 400  # lines, and letters that are looked at
FOOTER = (
    "Each photograph fills its square; below it stand its name and its own size in pixels. No scale in mm is known."
)
QUALITY = 88


@dataclass(frozen=True)
class Plate:
    """What a PDF shows."""

    title: str
    facts: str  # the line below it
    names: Sequence[str]
    photographs: Sequence[Path | np.ndarray]  # files, or pixels (H, W, 3) uint8
    known: Sequence[str]  # what the user's own table says of each; '' if nothing

    @property
    def rows(self) -> int:
        """Of squares on a page."""
        return ROWS_KNOWN if any(self.known) else ROWS


def write_plate(path: Path, plate: Plate) -> None:
    """The PDF, whole or not at all; a photograph that cannot be read is an empty square that says so."""
    step = COLUMNS * plate.rows
    pages = range(0, max(len(plate.names), 1), step)

    def fill(file: IO[bytes]) -> None:
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            for number, begin in enumerate(pages):
                part = slice(begin, begin + step)
                cells = list(pool.map(_cell, plate.photographs[part]))
                page = _page(plate, part, cells, f"{number + 1} of {len(pages)}")
                told = {"title": plain(plate.title)} if number == 0 else {}
                page.save(file, "PDF", resolution=DPI, quality=QUALITY, append=number > 0, **told)

    write_atomic(path, fill, durable=False)


def _cell(photograph: Path | np.ndarray) -> tuple[Image.Image, str]:
    """A photograph as it fits its square, and its own size in words."""
    if isinstance(photograph, np.ndarray):
        picture = Image.fromarray(photograph)
        width, height = picture.size
    else:
        try:
            picture = Image.fromarray(decode(photograph, CELL))
            with open_regular(photograph) as file, Image.open(file, formats=FORMATS) as image:
                width, height = image.size
        except (BadImage, OSError) as error:
            return Image.new("RGB", (CELL, CELL), (225, 225, 225)), f"cannot be read: {error}"[:34]
        if (width - height) * (picture.width - picture.height) < 0:  # turned by its EXIF
            width, height = height, width
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale >= 4 else Image.Resampling.LANCZOS
    return picture.resize(size, how), f"{width} × {height} px"


def _page(plate: Plate, part: slice, cells: Sequence[tuple[Image.Image, str]], number: str) -> Image.Image:
    page = Image.new("RGB", PAGE, "white")
    draw = ImageDraw.Draw(page)
    large, normal, small = letters(LARGE), letters(NORMAL), letters(SMALL)
    wide = PAGE[0] - 2 * MARGIN
    draw.text((MARGIN, 120), fitted(plain(plate.title), large, wide), "black", large)
    draw.text((MARGIN, 222), fitted(plain(plate.facts), normal, wide), (70, 70, 70), normal)
    pitch = (CELL + GAP + 2 * NORMAL) * ROWS // plate.rows
    told = zip(plate.names[part], plate.known[part], cells, strict=True)
    for place, (name, known, (picture, pixels)) in enumerate(told):
        down, across = divmod(place, COLUMNS)
        left = MARGIN + across * (CELL + GAP)
        top = HEAD + down * pitch
        page.paste(picture, (left + (CELL - picture.width) // 2, top + (CELL - picture.height) // 2))
        below: list[tuple[str, str | tuple[int, int, int]]] = [
            (fitted(plain(name), small, CELL), "black"),
            (pixels, (90, 90, 90)),
        ]
        lines = wrapped(plain(known[:MOST_LETTERS]), small, CELL)
        lines[MOST_KNOWN - 1 :] = [" ".join(lines[MOST_KNOWN - 1 :])]
        below += [(fitted(line, small, CELL), "black") for line in lines]
        for line, (text, ink) in enumerate(below):
            draw.text((left, top + CELL + 8 + line * LINE), text, ink, small)
    foot = PAGE[1] - FOOT
    draw.text((MARGIN, foot), FOOTER, (90, 90, 90), small)
    draw.text((PAGE[0] - MARGIN, foot), number, (90, 90, 90), small, anchor="ra")
    return page
