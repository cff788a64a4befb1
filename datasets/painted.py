"""Painted coins: photographs of struck "monnaies a la croix" whose every cause is known.

Each coin is a height map (flan, cross, four fields), worn, lit from one side and photographed. Everything comes
from one seed in float64 and is rounded to bytes at the end, so the pictures are the same on every machine.
Angles are in degrees, lengths in coin radii unless said otherwise; y points down, as in images.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from console import progress
from datasets.cache import cache_root

COUNT = 1000
SEED = 11
SIZE = 208  # pixels of a photograph's side
VERSION = 5  # raise when the same seed paints other pictures

SYMBOLS = ("axe", "flower", "wheel", "torc", "crescent", "spiked circle")


@dataclass(frozen=True)
class CoinType:
    """What was engraved: the symbols of the fields clockwise from top left ('' is empty), and the central dot."""

    name: str
    fields: tuple[str, str, str, str]
    dot: bool
    weight: float  # how common it is


# No two are the same up to turns and mirrors (a test says so); their sizes differ about sixfold.
TYPES = (
    CoinType("01-axe", ("axe", "", "", ""), False, 12),
    CoinType("02-axe-opposite-crescent", ("axe", "", "crescent", ""), False, 10),
    CoinType("03-axe-beside-crescent", ("axe", "crescent", "", ""), False, 6),
    CoinType("04-four-crescents", ("crescent", "crescent", "crescent", "crescent"), False, 9),
    CoinType("05-three-crescents-axe", ("crescent", "crescent", "axe", "crescent"), False, 11),
    CoinType("06-flowers-opposite", ("flower", "", "flower", ""), False, 7),
    CoinType("07-flowers-beside-dot", ("flower", "flower", "", ""), True, 5),
    CoinType("08-wheel-beside-axe", ("wheel", "", "", "axe"), True, 8),
    CoinType("09-wheels-and-crescents", ("wheel", "crescent", "wheel", "crescent"), True, 4),
    CoinType("10-torc-opposite-axe", ("torc", "", "axe", ""), False, 8),
    CoinType("11-torcs-spiked-circle", ("torc", "torc", "spiked circle", ""), False, 3),
    CoinType("12-four-spiked-circles", ("spiked circle",) * 4, True, 6),
    CoinType("13-spiked-circle", ("", "spiked circle", "", ""), True, 5),
    CoinType("14-axe-flower-wheel-torc", ("axe", "flower", "wheel", "torc"), False, 2),
)

# The bits of a mask picture, one byte a pixel.
MASK_BITS = {
    "coin": 1,
    "horizontal": 2,
    "vertical": 4,
    "dot": 8,
    "field0": 16,
    "field1": 32,
    "field2": 64,
    "field3": 128,
}
BACKGROUNDS = ("white", "grey", "black", "felt", "paper")
_FIELD_CENTRES = ((-0.42, -0.42), (0.42, -0.42), (0.42, 0.42), (-0.42, 0.42))


def painted_folder(count: int = COUNT, seed: int = SEED) -> Path:
    """The painted coins of this count and seed in the local cache, painted now if they are not there yet."""
    home = cache_root() / "painted" / f"v{VERSION}-{count}-{seed}"
    if not home.is_dir():
        paint(home, count, seed)
    return home


def paint(out: Path, count: int = COUNT, seed: int = SEED) -> None:
    """Write `images/<type>/coin_0001.jpg` ..., `masks/` beside it (see MASK_BITS) and `truth.csv` into `out`.

    The folder appears only when it is complete.
    """
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    chosen = _type_of_each(count, seed)
    for coin_type in TYPES:
        for kind in ("images", "masks"):
            (partial / kind / coin_type.name).mkdir(parents=True)
    try:
        jobs = [(number, int(type_index), seed, str(partial)) for number, type_index in enumerate(chosen)]
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            rows = list(
                progress(pool.map(_paint_file, jobs, chunksize=16), "painting coins", total=count, unit="coins")
            )
        with (partial / "truth.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        (partial / "masks.json").write_text(json.dumps(MASK_BITS, indent=1) + "\n")
        os.rename(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_mask(path: Path) -> dict[str, np.ndarray]:
    """name (MASK_BITS, and `cross` for both bars and the dot) -> (SIZE, SIZE) bool."""
    bits = np.asarray(Image.open(path))
    masks = {name: (bits & bit) > 0 for name, bit in MASK_BITS.items()}
    masks["cross"] = masks["horizontal"] | masks["vertical"] | masks["dot"]
    return masks


def _type_of_each(count: int, seed: int) -> np.ndarray:
    """Type of each coin: quotas by weight (largest remainder), then shuffled."""
    weights = np.array([coin_type.weight for coin_type in TYPES])
    exact = count * weights / weights.sum()
    quota = np.floor(exact).astype(int)
    quota[np.argsort(quota - exact)[: count - quota.sum()]] += 1
    return np.random.default_rng([seed, 0]).permutation(np.repeat(np.arange(len(TYPES)), quota))


def _paint_file(job: tuple[int, int, int, str]) -> dict[str, object]:
    number, type_index, seed, out = job
    coin_type = TYPES[type_index]
    photograph, bits, facts = paint_coin(coin_type, np.random.default_rng([seed, 1, number]))
    name = f"{coin_type.name}/coin_{number + 1:04d}"
    Image.fromarray(photograph).save(f"{out}/images/{name}.jpg", quality=facts["jpeg_quality"])
    Image.fromarray(bits).save(f"{out}/masks/{name}.png")
    fields = {f"field{i}": symbol for i, symbol in enumerate(coin_type.fields)}
    return {"image": f"{name}.jpg", "type": coin_type.name, **fields, "dot": coin_type.dot, **facts}


def paint_coin(coin_type: CoinType, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, dict]:
    """One photograph.

    Returns: (SIZE, SIZE, 3) uint8 photograph, (SIZE, SIZE) uint8 mask bits, and the facts of truth.csv.
    """
    wear = float(rng.beta(1.3, 3.2))
    quality = str(rng.choice(["good", "blurred", "dark", "small"], p=[0.76, 0.09, 0.07, 0.08]))
    background = str(rng.choice(BACKGROUNDS, p=[0.46, 0.36, 0.06, 0.06, 0.06]))
    turn = float(rng.normal(0, 5))
    light = float(rng.normal(-125, 20))  # azimuth of the lamp; -125 is upper left
    radius = float(rng.uniform(0.40, 0.48) if quality == "small" else rng.uniform(0.80, 0.93))
    centre = rng.uniform(-0.3, 0.3, 2) * (1 - radius)
    off_centre = rng.normal(0, 0.055, 2)

    axis = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    x, y = (grid - c for grid, c in zip(np.meshgrid(axis, axis), centre, strict=True))
    x, y = _rotate(x / radius, y / radius, turn)
    pixel = 2 / SIZE / radius  # one pixel, in coin radii

    inside = _flan(x, y, rng)  # > 0 inside, about the distance to the edge
    coin = inside > 0
    design, parts = _design(coin_type, x - off_centre[0], y - off_centre[1], rng, pixel)
    surface = _metal(design, inside, wear, rng, radius)
    colour = _photograph(surface, coin, inside, background, light, radius, quality, rng)

    bits = np.zeros((SIZE, SIZE), np.uint8)
    bits[coin] |= MASK_BITS["coin"]
    for name, part in parts.items():
        bits[part & coin] |= MASK_BITS[name]
    facts = {
        "wear": round(wear, 4),
        "quality": quality,
        "background": background,
        "turn_degrees": round(turn, 3),
        "light_degrees": round(light, 2),
        "radius": round(radius, 4),
        "off_centre": round(float(np.hypot(*off_centre)), 4),
        "jpeg_quality": int(rng.integers(82, 95)),
    }
    return colour, bits, facts


# --- relief -------------------------------------------------------------------------------------------------------


def _rotate(x: np.ndarray, y: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return c * x + s * y, c * y - s * x


def _flan(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The irregular piece of metal: a wobbling outline, often trimmed with shears. About the distance to the edge."""
    angle = np.arctan2(y, x)
    edge = np.full_like(x, 0.97)
    for harmonic in range(2, 8):
        edge += rng.normal(0, 0.028 / harmonic**0.7) * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    inside = edge - np.hypot(x, y)
    for _ in range(rng.integers(0, 5)):
        cut = rng.uniform(0, 2 * np.pi)
        inside = np.minimum(inside, rng.uniform(0.82, 0.97) - (x * np.cos(cut) + y * np.sin(cut)))
    return inside


def _ridge(distance: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """A rounded bank of half-width `width` along distance 0; height 0 to 1."""
    return np.sqrt(np.clip(1 - (distance / width) ** 2, 0, None))


def _segment(x: np.ndarray, y: np.ndarray, ax: float, ay: float, bx: float, by: float) -> np.ndarray:
    dx, dy = bx - ax, by - ay
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - ax - along * dx, y - ay - along * dy)


def _axe(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    handle = _ridge(_segment(x, y, -0.28, 0.92, -0.28, -0.88), 0.15)
    flank = np.minimum(0.20 + 0.70 * (x + 0.28) - np.abs(y + 0.32), 0.74 - np.hypot(x, 0.45 * (y + 0.32)))
    blade = np.where(x > -0.28, np.clip(flank / 0.13, 0, 1) ** 0.5, 0)
    return np.maximum(handle, 0.95 * blade)


def _flower(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height = _ridge(np.hypot(x, y), 0.24)
    for petal in range(6):
        a = np.deg2rad(60 * petal)
        px, py = x - 0.58 * np.cos(a), y - 0.58 * np.sin(a)
        radial, across = px * np.cos(a) + py * np.sin(a), py * np.cos(a) - px * np.sin(a)
        height = np.maximum(height, _ridge(np.hypot(radial / 1.35, across), 0.22))
    return height


def _wheel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rim = _ridge(np.hypot(x, y) - 0.72, 0.16)
    spokes = np.minimum(_segment(x, y, -0.7, 0, 0.7, 0), _segment(x, y, 0, -0.7, 0, 0.7))
    return np.maximum(rim, 0.9 * _ridge(spokes, 0.12))


def _torc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Like a pretzel: an open ring whose ends cross inside and close in knobs."""
    angle = np.rad2deg(np.arctan2(x, -y))  # 0 is up, where the ring is open
    ring = np.where(np.abs(angle) > 38, np.abs(np.hypot(x, y * 0.95) - 0.74), 9)
    ends = np.minimum(_segment(x, y, -0.48, -0.56, 0.30, 0.30), _segment(x, y, 0.48, -0.56, -0.30, 0.30))
    knobs = np.minimum(np.hypot(x - 0.30, y - 0.30), np.hypot(x + 0.30, y - 0.30))
    return np.maximum(_ridge(np.minimum(ring, ends), 0.13), _ridge(knobs, 0.20))


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    outer, inner = 0.80 - np.hypot(x, y), np.hypot(x, y + 0.42) - 0.62
    return np.clip(np.minimum(outer, inner) / 0.16, 0, 1) ** 0.5


def _spiked_circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    spoke = np.abs((angle / (2 * np.pi) * 10 + 0.5) % 1 - 0.5) / 10 * 2 * np.pi * radius
    spikes = np.where((radius > 0.5) & (radius < 0.95), _ridge(spoke, 0.10) * np.clip((0.98 - radius) * 4, 0, 1), 0)
    return np.maximum.reduce([_ridge(radius - 0.50, 0.13), _ridge(radius, 0.20), spikes])


_DRAW: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "axe": _axe,
    "flower": _flower,
    "wheel": _wheel,
    "torc": _torc,
    "crescent": _crescent,
    "spiked circle": _spiked_circle,
}


def _design(
    coin_type: CoinType, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, pixel: float
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Height of the die's design (0 to 1) and the masks of its parts; symbols face the centre of the coin."""
    parts: dict[str, np.ndarray] = {}
    height = np.zeros_like(x)
    for name, along, across in (("horizontal", x, y), ("vertical", y, x)):
        width = rng.uniform(0.072, 0.088) * (1 + 0.45 * np.abs(along) ** 2)
        bar = np.where(np.abs(along) < 0.93, _ridge(across + rng.normal(0, 0.006), width), 0)
        parts[name] = bar > 0.05
        height = np.maximum(height, bar)
    dot = _ridge(np.hypot(x, y), 0.17) * 1.25 if coin_type.dot else np.zeros_like(x)
    parts["dot"] = dot > 0.05
    height = np.maximum(height, dot)
    for i, (symbol, (cx, cy)) in enumerate(zip(coin_type.fields, _FIELD_CENTRES, strict=True)):
        size = rng.uniform(0.285, 0.315)
        jitter = rng.normal(0, 0.012, 2)
        turn = rng.normal(0, 4)
        if symbol:
            fx, fy = _rotate((x - cx - jitter[0]) / size, (y - cy - jitter[1]) / size, 90 * i - 45 + turn)
            drawn = _DRAW[symbol](fx, fy)
            parts[f"field{i}"] = drawn > 0.05
            height = np.maximum(height, 0.9 * drawn)
        else:
            parts[f"field{i}"] = np.zeros(x.shape, bool)
    return height, parts


def _noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Smooth noise of unit deviation; sigma in pixels."""
    rough = gaussian_filter(rng.standard_normal((SIZE, SIZE)), sigma, mode="wrap")
    return rough / rough.std()


def _metal(design: np.ndarray, inside: np.ndarray, wear: float, rng: np.random.Generator, radius: float) -> np.ndarray:
    """Height of the worn coin in pixels: struck design, domed flan with a rounded edge, pits and scratches."""
    scale = SIZE / 2 * radius
    uneven = np.clip(1 + 0.22 * _noise(rng, 0.35 * scale) * (0.4 + wear), 0.15, 1.3)  # struck or worn unevenly
    relief = np.minimum(design, 1 - 0.55 * wear) * (1 - 0.62 * wear) * uneven
    relief = gaussian_filter(relief, (0.008 + 0.026 * wear) * scale)
    edge = np.sqrt(np.clip(1 - (1 - np.clip(inside / 0.10, 0, 1)) ** 2, 0, 1))
    surface = 0.095 * relief + 0.085 * edge - 0.02 * (1 - np.clip(inside, 0, 1)) ** 2
    surface += 0.0020 * _noise(rng, 0.04 * scale) + 0.0010 * _noise(rng, 0.012 * scale)
    pits = rng.random((SIZE, SIZE)) < 0.0012 * (0.4 + wear)
    surface -= 0.10 * gaussian_filter(pits.astype(float), 0.018 * scale)
    axis = np.arange(SIZE) / scale
    for _ in range(rng.integers(0, 4)):  # scratches
        angle, shift = rng.uniform(0, np.pi), rng.uniform(0, SIZE / scale)
        line = np.abs(axis[None] * np.cos(angle) + axis[:, None] * np.sin(angle) - shift)
        surface -= 0.004 * np.exp(-((line / 0.008) ** 2))
    return surface * scale


# --- photograph ---------------------------------------------------------------------------------------------------


def _photograph(
    surface: np.ndarray,
    coin: np.ndarray,
    inside: np.ndarray,
    background: str,
    light: float,
    radius: float,
    quality: str,
    rng: np.random.Generator,
) -> np.ndarray:
    """Light the height map (Lambert and Blinn-Phong), lay it on its background with a shadow, and expose it."""
    scale = SIZE / 2 * radius
    slope_y, slope_x = np.gradient(surface)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(surface)])
    normal /= np.linalg.norm(normal, axis=0)
    elevation = np.deg2rad(rng.uniform(32, 50))
    lamp = np.array(
        [
            np.cos(elevation) * np.cos(np.deg2rad(light)),
            np.cos(elevation) * np.sin(np.deg2rad(light)),
            np.sin(elevation),
        ]
    )
    diffuse = np.clip(np.tensordot(lamp, normal, 1), 0, None)
    half = lamp + np.array([0, 0, 1])
    specular = np.clip(np.tensordot(half / np.linalg.norm(half), normal, 1), 0, 1) ** rng.uniform(18, 40)
    hollow = gaussian_filter(surface, 0.05 * scale) - surface  # dirt stays in the hollows
    tone = 1 - np.clip(0.10 * rng.uniform(0.5, 2.0) * hollow, -0.12, 0.35) + 0.03 * _noise(rng, 0.22 * scale)
    toning = np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.80, 0.98)])  # silver, yellowish to brown
    brightness = rng.uniform(0.54, 0.70)
    metal = (brightness * tone * (0.22 + 0.95 * diffuse))[..., None] * toning + (0.32 * specular)[..., None]

    ground = _background(background, rng)
    blocked = gaussian_filter(coin.astype(float), 0.05 * scale)
    shift = np.rint(-0.07 * scale * lamp[:2] / np.cos(elevation)).astype(int)
    shadow = np.roll(blocked, (shift[1], shift[0]), (0, 1))
    ground = ground * (1 - 0.55 * shadow)[..., None]
    cover = np.clip(inside * scale + 0.5, 0, 1)[..., None]  # one pixel of soft edge
    picture = cover * metal + (1 - cover) * ground

    axis = np.linspace(-1, 1, SIZE)
    vignette = 1 - rng.uniform(0, 0.12) * (axis[None] ** 2 + axis[:, None] ** 2)
    exposure = rng.uniform(0.28, 0.42) if quality == "dark" else rng.uniform(0.88, 1.12)
    picture = picture * (vignette * exposure)[..., None] * (1 + rng.normal(0, 0.012, 3))
    sigma = rng.uniform(2.0, 3.2) if quality == "blurred" else rng.uniform(0.3, 0.8)
    picture = gaussian_filter(picture, (sigma, sigma, 0))
    picture += rng.normal(0, rng.uniform(0.008, 0.022), picture.shape)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)


def _background(kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind == "white":
        return np.full((SIZE, SIZE, 3), rng.uniform(0.90, 0.99))
    if kind == "grey":
        axis = np.linspace(-1, 1, SIZE)
        level = (
            rng.uniform(0.62, 0.80) + rng.uniform(-0.06, 0.06) * axis[None] + rng.uniform(-0.06, 0.06) * axis[:, None]
        )
        return np.repeat(level[..., None], 3, axis=2)
    if kind == "black":
        return np.full((SIZE, SIZE, 3), rng.uniform(0.02, 0.08))
    if kind == "felt":
        colours = np.array([[0.15, 0.20, 0.42], [0.40, 0.10, 0.12], [0.12, 0.28, 0.18]])
        fibres = 1 + 0.10 * _noise(rng, 0.8) + 0.06 * _noise(rng, 3)
        return colours[rng.integers(3)] * fibres[..., None]
    grain = 1 + 0.025 * _noise(rng, 1.5) + 0.03 * _noise(rng, 14)
    return np.array([0.86, 0.80, 0.68]) * grain[..., None]
