"""What can be said of a coin without learning: five numbers of a ruler and a colour meter, and its relief's spectrum.

Both start from the place of the coin in its photograph, and neither changes when the coin is turned.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

import cv2
import numpy as np
import torch

from console import progress
from datasets import Dataset, Pixels
from datasets.places import Place, find_places
from datasets.view import relief, unroll
from deepcluster.config import Config
from deepcluster.features import pca_whiten, pca_whiten_together
from deepcluster.lift import nearest
from machine.processes import share

CENTRE, RING, GROUND = 0.6, (0.75, 0.95), 1.1  # in radii: the inlay of a bimetallic coin ends at .7
ENOUGH = 20  # pixels that a colour is the mean of, at least
STEPS, ANGLES, FREQUENCIES = 48, 256, 39  # of the unrolled coin; of the transform along the angle, from 1
SPECTRUM = 3 * STEPS * FREQUENCIES  # numbers of a coin
DESIGN_PCA, DESIGN_POWER = 64, -0.25  # of the spectra: half whitened
FACTS = {"size": (0,), "colour": (1, 2, 3, 4)}  # name -> which of the five numbers
SAMPLE = 5000  # images that the agreement of facts is measured on, at most
AGREE = 0.5  # correlation from which a fact is said to go with the design

Found = TypeVar("Found")


def measure_facts(images: Pixels, places: list[Place], names: Sequence[str]) -> np.ndarray:
    """Some of the five numbers of each image: keys of FACTS; (N, d) float32, as `ruler_and_colour`."""
    return ruler_and_colour(images, places)[:, [column for name in names for column in FACTS[name]]]


def ruler_and_colour(images: Pixels, places: list[Place]) -> np.ndarray:
    """`five_numbers` of each image, each number brought to mean 0 and deviation 1: (N, 5) float32."""
    x = np.stack(_each(lambda i: five_numbers(images[i], places[i]), len(images), "size and colour"))
    return ((x - x.mean(0)) / np.maximum(x.std(0), 1e-6)).astype(np.float32)


def five_numbers(pixels: np.ndarray, place: Place) -> np.ndarray:
    """The coin's radius, and the colour of its centre and of its ring less the ground's.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        place: of the coin.

    Returns:
        (5,) float64: the radius in shorter sides of the picture; a and b (CIE Lab) of the centre (within .6 radii) and
        of the ring (.75 to .95), each less that of the ground (beyond 1.1). A part of which the picture shows hardly
        anything counts as grey.
    """
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    height, width = pixels.shape[:2]
    away = np.hypot(np.arange(width) - place.x, np.arange(height)[:, None] - place.y) / place.radius

    def colour(part: np.ndarray) -> np.ndarray:
        return lab[part][:, 1:].mean(0, dtype=np.float64) if part.sum() >= ENOUGH else np.zeros(2)

    ground = colour(away > GROUND)
    centre, ring = colour(away < CENTRE), colour((away > RING[0]) & (away < RING[1]))
    return np.array([place.radius / min(height, width), *(centre - ground), *(ring - ground)])


def facts_of(dataset: Dataset, config: Config) -> np.ndarray | None:
    """What is clustered beside a network's features, (N, d) float32 of length config.facts_weight on average."""
    if not config.facts:
        return None
    facts = measure_facts(dataset.decoded, dataset.find_places(), config.facts.split(","))
    return (config.facts_weight / math.sqrt(facts.shape[1]) * facts).astype(np.float32)


def set_beside(x: np.ndarray, facts: np.ndarray | None) -> np.ndarray:
    """Reduced features (N, d) and the facts beside them, float32, C-contiguous."""
    return x if facts is None else np.ascontiguousarray(np.concatenate([x, facts], 1))


@lru_cache(maxsize=1)
def design_features(images: Pixels, key: str) -> np.ndarray:
    """The unrolled spectra of N photographs, reduced to 64 components, half whitened, of length 1: (N, 64) float32.

    Args:
        images: the photographs.
        key: identifies them (Dataset.pixels_key).
    """
    spectra = torch.from_numpy(unrolled_spectra(images, find_places(images, key)))
    return pca_whiten(spectra, DESIGN_PCA, DESIGN_POWER)


@lru_cache(maxsize=1)
def design_features_together(images: Pixels, key: str) -> np.ndarray:
    """As `design_features`, the rows of this process's share alone, which is all that it unrolls."""
    own = share(len(images))
    spectra = unrolled_spectra(images.take(np.arange(len(images))[own]), find_places(images, key)[own])
    return pca_whiten_together(torch.from_numpy(spectra), DESIGN_PCA, DESIGN_POWER)


def facts_of_design(images: Pixels, key: str, families: np.ndarray) -> dict[str, float]:
    """How well coins of like design agree in each fact: of FACTS, the correlation with the coin nearest in design.

    Where all photographs have one scale, coins of one design have one size, and the correlation is high; where each was
    framed as it came, size says nothing of the coin, and it is near 0. So with colour and light. Labels are not asked.

    Args:
        images: N photographs.
        key: identifies them (Dataset.pixels_key).
        families: (N,) images of one family, cut from one photograph say, are not compared.
    """
    places = find_places(images, key)
    if len(images) <= SAMPLE:
        design = design_features(images, key)
    else:
        rows = np.sort(np.random.default_rng(0).permutation(len(images))[:SAMPLE])
        images, places, families = images.take(rows), [places[i] for i in rows], families[rows]
        design = pca_whiten(torch.from_numpy(unrolled_spectra(images, places)), DESIGN_PCA, DESIGN_POWER)
    neighbour = nearest(design, families, 1)[:, 0]
    known = neighbour >= 0
    found = {}
    for name in FACTS:
        facts = measure_facts(images, places, [name])
        pairs = [(column[known], column[neighbour[known]]) for column in facts.T]
        varies = [(one, other) for one, other in pairs if len(one) > 2 and one.std() > 0 and other.std() > 0]
        found[name] = float(np.mean([np.corrcoef(*pair)[0, 1] for pair in varies])) if varies else 0.0
    return found


def unrolled_spectra(images: Pixels, places: list[Place]) -> np.ndarray:
    """`unrolled_spectrum` of each image, flat: (N, 48 * 3 * 39) float32."""
    found = np.empty((len(images), SPECTRUM), np.float32)

    def fill(i: int) -> None:
        found[i] = unrolled_spectrum(images[i], places[i]).ravel()

    _each(fill, len(images), "unrolling coins")
    return found


def unrolled_spectrum(pixels: np.ndarray, place: Place) -> np.ndarray:
    """How strongly the relief repeats around the coin, at each distance from its centre: the same at any angle.

    Turning the coin rolls the unrolled picture, and a roll changes only the phases of the Fourier transform along the
    angle; so its magnitudes are kept, as by Fourier-Mellin descriptors. The relief (datasets.view) leaves neither
    colour nor light, unrolling by the radius no size.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        place: of the coin.

    Returns:
        (48, 3, 39) float32: the radius, from the centre to .97 of the coin's; the relief's channels; log(1 + magnitude)
        of frequencies 1 to 39.
    """
    unrolled = unroll(relief(np.ascontiguousarray(pixels), place), STEPS, ANGLES)
    return np.log1p(np.abs(np.fft.rfft(unrolled, axis=1)[:, 1 : FREQUENCIES + 1])).astype(np.float32).transpose(0, 2, 1)


def _each(function: Callable[[int], Found], count: int, what: str) -> list[Found]:
    """`function(0) .. function(count - 1)`, on as many threads as torch uses: OpenCV lets go of the interpreter."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(progress(pool.map(function, range(count)), what, total=count))
