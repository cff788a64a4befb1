"""The photograph of a height map: lamp, metal, ground, shadow, camera."""

import numpy as np
from scipy.ndimage import gaussian_filter

from datasets.painted.relief import SIZE, noise

BACKGROUNDS = ("white", "grey", "black", "felt", "paper")


def photograph(
    surface: np.ndarray,
    coin: np.ndarray,
    inside: np.ndarray,
    background: str,
    light: float,
    radius: float,
    quality: str,
    rng: np.random.Generator,
    instead: str | None = None,
) -> np.ndarray:
    """Light the height map (Lambert and Blinn-Phong), lay it on its background with a shadow, and expose it.

    A background `instead` of its own takes nothing from the chance of what comes after it: the coin and the camera stay
    what they were.
    """
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
    tone = 1 - np.clip(0.10 * rng.uniform(0.5, 2.0) * hollow, -0.12, 0.35) + 0.03 * noise(rng, 0.22 * scale)
    toning = np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.80, 0.98)])  # silver, yellowish to brown
    brightness = rng.uniform(0.54, 0.70)
    metal = (brightness * tone * (0.22 + 0.95 * diffuse))[..., None] * toning + (0.32 * specular)[..., None]

    ground = _background(background, rng)
    if instead is not None and instead != background:
        ground = _background(instead, rng.spawn(1)[0])
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
        fibres = 1 + 0.10 * noise(rng, 0.8) + 0.06 * noise(rng, 3)
        return colours[rng.integers(3)] * fibres[..., None]
    grain = 1 + 0.025 * noise(rng, 1.5) + 0.03 * noise(rng, 14)
    return np.array([0.86, 0.80, 0.68]) * grain[..., None]
