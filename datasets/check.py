"""What is in a folder of photographs: counts, sizes, and what may spoil a clustering."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import laplace

from console import progress
from datasets import Dataset
from datasets.coin import Coin, find_coins
from datasets.processes import map_processes
from machine.files import write_atomic

SIDE = 256  # images are judged at this shorter side, so that figures compare between cameras
DARK = 45.0  # mean grey (0..255) below which a photograph counts as dark, if its brightest part is dim too
DIM = 110.0
OUTLINE = (0, 200, 0)
BLURRED = 0.25  # of the median sharpness of the set


@dataclass(frozen=True)
class Report:
    """Ids of the images concerned; a group of duplicates is a list of ids whose pixels are the same or nearly so."""

    duplicates: list[list[str]]
    blurred: list[str]
    dark: list[str]


def examine(dataset: Dataset) -> Report:
    """Look at every image once."""
    sharp, dark = np.zeros(len(dataset)), []
    same: dict[bytes, list[str]] = defaultdict(list)
    for i in progress(range(len(dataset)), "checking"):
        grey = dataset.pixels[i].mean(axis=2, dtype=np.float32)
        sharp[i] = sharpness(grey)
        if grey.mean() < DARK and np.percentile(grey, 98) < DIM:
            dark.append(dataset.ids[i])
        same[_thumbprint(grey)].append(dataset.ids[i])
    blurred = [dataset.ids[i] for i in np.flatnonzero(sharp < BLURRED * np.median(sharp))]
    return Report([group for group in same.values() if len(group) > 1], blurred, dark)


def sharpness(grey: np.ndarray) -> float:
    """How fine the detail of a picture (H, W) of 0..255 is, whatever its contrast: larger is sharper."""
    return float(laplace(grey).std() / max(float(grey.std()), 1.0))


def _thumbprint(grey: np.ndarray) -> bytes:
    """16 x 16 means, coarsely: equal for copies of one photograph, also when saved at another quality or size."""
    small = np.asarray(Image.fromarray(grey).resize((16, 16), Image.Resampling.BOX))
    return np.round(small / 8).astype(np.uint8).tobytes()


def coins_of(dataset: Dataset, workers: int | None = None) -> list[list[Coin]]:
    """The coins of every image, as datasets.coin.find_coins gives them."""
    photographs = (np.array(dataset.pixels[i]) for i in range(len(dataset)))
    found = map_processes(find_coins, photographs, len(dataset), workers)
    return list(progress(found, "finding coins", total=len(dataset)))


def contact_sheet(
    dataset: Dataset,
    path: Path,
    coins: Sequence[Sequence[Coin]] = (),
    columns: int = 12,
    rows: int = 10,
    side: int = 120,
) -> None:
    """A picture of up to columns x rows images, evenly chosen, each fitted into a square.

    Args:
        dataset: the images.
        path: JPEG by its name, else PNG.
        coins: those of every image, drawn as outlines; empty for none.
        columns: of the sheet.
        rows: at most.
        side: of a square, in pixels.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(columns * rows, len(dataset))).astype(int))
    lines = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * side, lines * side), "white")
    for place, i in enumerate(chosen):
        image = Image.fromarray(np.ascontiguousarray(dataset.pixels[i]))
        width = image.width
        image.thumbnail((side - 4, side - 4))
        scale = image.width / width
        for coin in coins[i] if coins else ():
            outline = [(float(x), float(y)) for x, y in (coin.outline + 0.5) * scale - 0.5]
            ImageDraw.Draw(image).line([*outline, outline[0]], fill=OUTLINE)
        left, top = place % columns * side, place // columns * side
        sheet.paste(image, (left + (side - image.width) // 2, top + (side - image.height) // 2))
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    write_atomic(path, lambda file: sheet.save(file, format=kind, quality=88))
