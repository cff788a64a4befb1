"""Painted coins: photographs of struck "monnaies a la croix" whose every cause is known.

Each coin is a height map (flan, cross, four fields), worn, lit from one side and photographed. Everything comes
from one seed in float64 and is rounded to bytes at the end, so the pictures are the same on every machine.
Angles are in degrees, lengths in coin radii unless said otherwise; y points down, as in images.
"""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from console import progress
from datasets.cache import made_once
from datasets.painted.photograph import BACKGROUNDS, photograph
from datasets.painted.relief import FREE, SIZE, engrave, flan, metal, rotate
from datasets.painted.types import MASK_BITS, SYMBOLS, TYPES, CoinType, read_mask, split_mask
from datasets.processes import map_processes
from machine.files import cache_root, whole_folder

__all__ = [
    "BACKGROUNDS",
    "MASK_BITS",
    "SIZE",
    "SYMBOLS",
    "TYPES",
    "Changed",
    "CoinType",
    "paint",
    "paint_coin",
    "painted_folder",
    "read_mask",
    "repaint",
    "repaint_with_mask",
    "split_mask",
]

COUNT, MOST = 1000, 1_000_000
SEED = 11
VERSION = 5  # raise when the same seed paints other pictures


class Changed(TypedDict, total=False):
    """What of a coin or its photograph is not left to chance; all else stays as it was, to the pixel.

    Light, wear and turn change pixels everywhere; a symbol or the dot those beside it, the ground those off the coin.
    """

    fields: tuple[str, str, str, str]  # symbols clockwise from top left, "" is empty
    dot: bool
    wear: float  # 0..1
    quality: str  # "good", "blurred", "dark", "small"
    background: str  # one of BACKGROUNDS
    turn: float  # degrees
    light: float  # degrees, azimuth of the lamp


def painted_folder(count: int = COUNT, seed: int = SEED) -> Path:
    """The painted coins of this count and seed in the local cache, painted now if they are not there yet."""
    home = cache_root() / "painted" / f"v{VERSION}-{count}-{seed}"
    return made_once(home, lambda folder: paint_into(folder, count, seed))


def paint(out: Path, count: int = COUNT, seed: int = SEED, dies: int | None = None, any_angle: bool = False) -> None:
    """Write `images/<type>/coin_0001.jpg` ..., `masks/` beside it (see MASK_BITS) and `truth.csv` into `out`.

    The folder appears only when it is complete.

    Args:
        out: new folder.
        count: number of coins.
        seed: the same seed paints the same coins.
        dies: strike the coins of each type from this many dies, a column of truth.csv, and lay them at any angle. None:
            each coin has a die of its own and lies upright.
        any_angle: lay them at any angle; all else, the lamp too, is as it is of upright coins.
    """
    with whole_folder(out) as unfinished:
        paint_into(unfinished, count, seed, dies, any_angle)


def paint_into(folder: Path, count: int, seed: int, dies: int | None = None, any_angle: bool = False) -> None:
    """What `paint` writes, into an empty folder."""
    chosen = _type_of_each(count, seed)
    for coin_type in TYPES:
        for kind in ("images", "masks"):
            (folder / kind / coin_type.name).mkdir(parents=True)
    jobs = [
        (number, int(type_index), seed, str(folder), None if dies is None else int(die), any_angle)
        for number, (type_index, die) in enumerate(zip(chosen, _die_of_each(chosen, dies or 1), strict=True))
    ]
    painted = map_processes(_paint_file, jobs, count)
    rows = list(progress(painted, "painting coins", total=count, unit="coins"))
    with (folder / "truth.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "masks.json").write_text(json.dumps(MASK_BITS, indent=1) + "\n")


def _type_of_each(count: int, seed: int) -> np.ndarray:
    """Type of each coin: quotas by weight (largest remainder), then shuffled."""
    weights = np.array([coin_type.weight for coin_type in TYPES])
    exact = count * weights / weights.sum()
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact)[: count - quota.sum()]] += 1
    return np.random.default_rng([seed, 0]).permutation(np.repeat(np.arange(len(TYPES)), quota))


def _die_of_each(chosen: np.ndarray, dies: int) -> np.ndarray:
    """Die of each coin, from 0: the coins of a type, which are in no order, take its dies in turn."""
    number = np.empty(len(chosen), int)
    for type_index in np.unique(chosen):
        rows = np.flatnonzero(chosen == type_index)
        number[rows] = np.arange(len(rows)) % dies
    return number


def _paint_file(job: tuple[int, int, int, str, int | None, bool]) -> dict[str, object]:
    number, type_index, seed, out, die, any_angle = job
    coin_type = TYPES[type_index]
    engraver = None if die is None else np.random.default_rng([seed, 2, type_index, die])
    changed: Changed = {"turn": float(np.random.default_rng([seed, 3, number]).uniform(-180, 180))} if any_angle else {}
    picture, bits, facts = paint_coin(coin_type, np.random.default_rng([seed, 1, number]), engraver, changed)
    if die is not None:
        facts = {"die": f"{coin_type.name}/{die + 1}", **facts}
    name = f"{coin_type.name}/coin_{number + 1:04d}"
    Image.fromarray(picture).save(f"{out}/images/{name}.jpg", quality=facts["jpeg_quality"])
    Image.fromarray(bits).save(f"{out}/masks/{name}.png")
    fields = {f"field{i}": symbol for i, symbol in enumerate(coin_type.fields)}
    return {"image": f"{name}.jpg", "type": coin_type.name, **fields, "dot": coin_type.dot, **facts}


def repaint(
    number: int, seed: int = SEED, count: int = COUNT, changed: Changed | None = None
) -> tuple[np.ndarray, dict]:
    """Photograph coin `number` (from 0) of a painted folder again: the same coin, but for what is changed.

    Args:
        number: of the coin, from 0.
        seed: of the folder.
        count: of its coins.
        changed: what is otherwise.

    Returns:
        (SIZE, SIZE, 3) uint8 photograph, before it is a JPEG, and its facts.
    """
    picture, _, facts = repaint_with_mask(number, seed, count, changed)
    return picture, facts


def repaint_with_mask(
    number: int, seed: int = SEED, count: int = COUNT, changed: Changed | None = None
) -> tuple[np.ndarray, np.ndarray, dict]:
    """As `repaint`, with the mask bits (SIZE, SIZE) uint8 between picture and facts."""
    coin_type = TYPES[_type_of_each(count, seed)[number]]
    return paint_coin(coin_type, np.random.default_rng([seed, 1, number]), changed=changed)


def paint_coin(
    coin_type: CoinType,
    rng: np.random.Generator,
    engraver: np.random.Generator | None = None,
    changed: Changed | None = None,
) -> tuple[np.ndarray, np.ndarray, dict]:
    """One photograph.

    Args:
        coin_type: what was engraved.
        rng: the chance of flan, strike, wear and photograph.
        engraver: the chance of the die. Engravers of one seed cut the same die, which then strikes at any angle; None:
            a die for this coin alone, struck upright.
        changed: what is not left to chance.

    Returns:
        (SIZE, SIZE, 3) uint8 photograph, (SIZE, SIZE) uint8 mask bits, and the facts of truth.csv.
    """
    wear = float(rng.beta(1.3, 3.2))
    quality = str(rng.choice(["good", "blurred", "dark", "small"], p=[0.76, 0.09, 0.07, 0.08]))
    background = str(rng.choice(BACKGROUNDS, p=[0.46, 0.36, 0.06, 0.06, 0.06]))
    turn = float(rng.normal(0, 5) if engraver is None else rng.uniform(-180, 180))
    light = float(rng.normal(-125, 20))  # azimuth of the lamp; -125 is upper left
    changed = changed or {}
    coin_type = replace(
        coin_type, fields=changed.get("fields", coin_type.fields), dot=changed.get("dot", coin_type.dot)
    )
    wear, quality = float(changed.get("wear", wear)), changed.get("quality", quality)
    turn, light = float(changed.get("turn", turn)), float(changed.get("light", light))
    radius = float(rng.uniform(0.40, 0.48) if quality == "small" else rng.uniform(0.80, 0.93))
    centre = rng.uniform(-0.3, 0.3, 2) * (1 - radius)
    off_centre = rng.normal(0, 0.055, 2)

    axis = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x, y = (grid - c for grid, c in zip(np.meshgrid(axis, axis), centre, strict=True))
    x, y = rotate(x / radius, y / radius, turn)

    inside = flan(x, y, rng)  # > 0 inside, about the distance to the edge
    coin = inside > 0
    struck = x - off_centre[0], y - off_centre[1]
    design, parts = (
        engrave(coin_type, *struck, rng) if engraver is None else engrave(coin_type, *struck, engraver, FREE)
    )
    surface = metal(design, inside, wear, rng, radius)
    other = changed.get("background")
    picture = photograph(surface, coin, inside, background, light, radius, quality, rng, other)

    bits = np.zeros((SIZE, SIZE), np.uint8)
    bits[coin] |= MASK_BITS["coin"]
    for name, part in parts.items():
        bits[part & coin] |= MASK_BITS[name]
    facts = {
        "wear": round(wear, 4),
        "quality": quality,
        "background": other or background,
        "turn_degrees": round(turn, 3),
        "light_degrees": round(light, 2),
        "radius": round(radius, 4),
        "off_centre": round(float(np.hypot(*off_centre)), 4),
        "jpeg_quality": int(rng.integers(82, 95)),
    }
    return picture, bits, facts
