"""What is known of each photograph and is not the coin: names, heads, light, ground, place, the painter's truth."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch
from scipy.ndimage import laplace

from console import plain, progress
from datasets import SOURCES
from datasets.headers import read_header
from datasets.names import take_apart
from datasets.places import Place
from deepcluster.lift import family_of
from explain.audit.findings import UNKNOWN
from explain.own import Values, as_values, read_table
from explain.subject import Subject

SIDE = 128  # pixels of the shorter side at which photographs are measured, at most
COLOURED, GREYISH = 8.0, 12.0  # chroma (CIE Lab) from which a pixel, and a ground, has a hue
COLOURFUL = 0.1  # share of such pixels in a picture that has one
DARK, LIGHT = 25.0, 80.0  # L of a ground that is called black and white
EDGE = 0.1  # radii about the coin that are neither coin nor ground: shadows
ENOUGH = 20  # pixels that a ground is judged by, at least
HUES = ((50, "red"), (80, "orange"), (110, "yellow"), (180, "green"), (225, "cyan"), (315, "blue"), (350, "purple"))

NO_PREFIX = "no prefix"
Found = TypeVar("Found")
TRUTH = {"background": "true ground", "light_degrees": "true light", "quality": "true quality", "wear": "true wear"}


@dataclass(frozen=True)
class Kind:
    """Of a fact."""

    about: str  # facts about the same thing are told once of a cluster
    says: str  # what images do that share a value: "share the prefix {}"


KINDS = {
    "prefix of the name": Kind("name", "share the prefix {}"),
    "series of the name": Kind("name", "are of the series {}"),
    "pattern of the name": Kind("name", "have a name like {}"),
    "hundred of the name": Kind("name", "are numbered {}"),
    "family of the name": Kind("name", "are of the family {}, perhaps cut from one photograph"),
    "folder": Kind("name", "lie in the folder {}"),
    "camera": Kind("camera", "were taken with a {}"),
    "day": Kind("camera", "were taken on {}"),
    "size of the picture": Kind("camera", "have a shorter side, in pixels, of {}"),
    "shape of the picture": Kind("camera", "are, width over height, of {}"),
    "brightness": Kind("light", "have a brightness of {}"),
    "contrast": Kind("light", "have a contrast of {}"),
    "sharpness": Kind("light", "have a sharpness of {}"),
    "hue": Kind("light", "are {} on the whole"),
    "ground": Kind("ground", "lie on {} ground"),
    "share of the ground": Kind("place", "are ground to a share of {}"),
    "place across": Kind("place", "have the coin to the right, in shorter sides, by {}"),
    "place down": Kind("place", "have the coin below the middle, in shorter sides, by {}"),
    "radius": Kind("place", "have a coin whose radius, in shorter sides, is {}"),
    "true ground": Kind("ground", "lie on {}"),
    "true light": Kind("light", "are lit from an angle, in degrees, of {}"),
    "true quality": Kind("light", "are of the quality {}"),
    "true wear": Kind("wear", "have a wear of {}"),
}


def facts_of(subject: Subject, table: Path | None) -> dict[str, Values]:
    """What is known of each of the run's N photographs and is not the coin.

    Args:
        subject: whose images.
        table: as `explain.own.read_table` takes it. None: none.

    Returns:
        fact -> N texts, or (N,) float64; '' and NaN where it is not known. Keys of KINDS, and columns of the table.

    Raises:
        UserError: if the table will not do, naming it and the column or line.
    """
    return gather(subject, table)[0]


def gather(subject: Subject, table: Path | None) -> tuple[dict[str, Values], list[str]]:
    """What `facts_of` gives, and sentences on what is not known."""
    own, missing = ({}, []) if table is None else read_table(table, subject.run.ids)  # what may be refused, first
    facts: dict[str, Values] = {}
    dataset, present = subject.pictures.dataset, subject.pictures.present
    gone = len(subject.run.ids) - len(present)
    if gone:
        missing.append(f"{gone} of the run's images are not there any more: of these the names alone are known.")
    if dataset.root is None:
        missing.append("These images are no files: they have no names, folders, camera or day.")
    else:
        facts |= _of_names(subject.run.ids)
        heads, silent = _of_headers(subject, dataset.root)
        facts |= heads
        missing += silent
    facts |= _of_pixels(subject)
    kind = dataset.source.partition(":")[0]
    if kind in SOURCES and not SOURCES[kind].coins:
        missing.append("These pictures show no coins: ground and place of the coin are not measured.")
    else:
        places = _of_places(subject)
        lost = int(np.isnan(places["radius"][present]).sum())
        if lost:
            missing.append(f"In {lost} of the photographs no coin was found: their ground and place are not known.")
        facts |= places
    if dataset.truth_of is None:
        missing.append("True ground, light, quality and wear are known of painted coins alone.")
    else:
        facts |= _of_truth(subject)
    return facts | {f"{name} (own table)": values for name, values in own.items()}, missing


def _of_names(ids: list[str]) -> dict[str, Values]:
    names = [take_apart(image) for image in ids]
    return {
        "prefix of the name": [plain(name.prefix) or NO_PREFIX for name in names],
        "series of the name": [plain(name.series) for name in names],
        "pattern of the name": [plain(name.pattern) for name in names],
        "hundred of the name": [plain(name.hundred) for name in names],
        "folder": [plain(image.rpartition("/")[0]) for image in ids],
        "family of the name": [plain(family_of(image)) for image in ids],
    }


def _of_headers(subject: Subject, root: Path) -> tuple[dict[str, Values], list[str]]:
    ids = subject.run.ids
    heads = _each(lambda row: read_header(root / ids[row]), subject.pictures.present, len(ids), "reading heads")
    sides = [UNKNOWN if head is None else float(min(head.width, head.height)) for head in heads]
    shapes = [UNKNOWN if head is None else head.width / head.height for head in heads]
    facts: dict[str, Values] = {
        "camera": ["" if head is None else head.camera for head in heads],
        "day": ["" if head is None else head.day for head in heads],
        "size of the picture": np.array(sides),
        "shape of the picture": np.array(shapes),
    }
    silent = [name for name in ("camera", "day") if not any(facts[name])]
    return facts, [f"No file tells its {' or '.join(silent)} (EXIF)."] if silent else []


def _of_pixels(subject: Subject) -> dict[str, Values]:
    decoded, position = subject.pictures.dataset.decoded, subject.pictures.position
    found = _each(
        lambda row: _looks(decoded[position[row]]), subject.pictures.present, len(position), "brightness and colour"
    )
    numbers = np.array([(UNKNOWN,) * 3 if one is None else one[:3] for one in found])
    return {
        "brightness": numbers[:, 0],
        "contrast": numbers[:, 1],
        "sharpness": numbers[:, 2],
        "hue": ["" if one is None else one[3] for one in found],
    }


def _looks(pixels: np.ndarray) -> tuple[float, float, float, str]:
    """Brightness and contrast (mean and deviation of CIE L, 0 to 100), sharpness and hue of a picture (H, W, 3) uint8.

    Sharpness is the deviation of the Laplacian over that of L, at one size for all.
    """
    lab = _lab(_small(pixels))
    light = lab[..., 0]
    chroma = np.hypot(lab[..., 1], lab[..., 2])
    coloured = chroma > COLOURED
    hue = "grey"
    if coloured.mean() >= COLOURFUL:
        hue = HUES[int(np.bincount(_hues(lab[coloured]), chroma[coloured]).argmax())][1]
    deviation = float(light.std())
    return float(light.mean()), deviation, float(laplace(light).std()) / max(deviation, 0.4), hue


def _of_places(subject: Subject) -> dict[str, np.ndarray | list[str]]:
    pictures = subject.pictures
    decoded, position, places = pictures.dataset.decoded, pictures.position, pictures.dataset.find_places()
    numbers = np.full((len(position), 4), UNKNOWN)
    grounds = [""] * len(position)
    seen = _each(
        lambda row: _ground(decoded[position[row]], places[position[row]]), pictures.present, len(position), "grounds"
    )
    for row in pictures.present.tolist():
        place, ground = places[position[row]], seen[row]
        height, width = (int(side) for side in decoded.shape[position[row]])
        if place.found and ground is not None:
            side = min(height, width)
            across, down = place.x - (width - 1) / 2, place.y - (height - 1) / 2
            numbers[row] = across / side, down / side, place.radius / side, ground[1]
            grounds[row] = ground[0]
    return {
        "ground": grounds,
        "share of the ground": numbers[:, 3],
        "place across": numbers[:, 0],
        "place down": numbers[:, 1],
        "radius": numbers[:, 2],
    }


def _ground(pixels: np.ndarray, place: Place) -> tuple[str, float]:
    """Colour of what is not the coin ('' if hardly anything is), and its share of the picture."""
    coin = place.mask(pixels.shape).astype(np.uint8)
    reach = 2 * max(1, round(EDGE * place.radius)) + 1
    about = cv2.dilate(coin, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    outside = pixels[about == 0]
    share = 1 - float(coin.mean())
    if len(outside) < ENOUGH:
        return "", share
    median = np.median(_lab(outside[None])[0], axis=0)
    if np.hypot(median[1], median[2]) >= GREYISH:
        return HUES[int(_hues(median[None])[0])][1], share
    return "black" if median[0] < DARK else "white" if median[0] > LIGHT else "grey", share


def _hues(lab: np.ndarray) -> np.ndarray:
    """(M, 3) CIE Lab -> (M,) rows of HUES."""
    angle = np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
    return np.searchsorted([end for end, _ in HUES], angle, side="right") % len(HUES)


def _lab(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(pixels, np.float32) / 255, cv2.COLOR_RGB2Lab)


def _small(pixels: np.ndarray) -> np.ndarray:
    """With SIDE pixels on the shorter side, or as it is where it has fewer."""
    scale = SIDE / min(pixels.shape[:2])
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, (0, 0), fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _of_truth(subject: Subject) -> dict[str, Values]:
    truths: list[dict[str, str]] = [{} for _ in subject.run.ids]
    for row in subject.pictures.present.tolist():
        truths[row] = subject.pictures.dataset.truth(int(subject.pictures.position[row])) or {}
    return {name: as_values([truth.get(column, "") for truth in truths]) for column, name in TRUTH.items()}


def _each(function: Callable[[int], Found], rows: np.ndarray, count: int, what: str) -> list[Found | None]:
    """`function` of each of `rows`, in a list of `count`; None elsewhere."""
    found: list[Found | None] = [None] * count
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for row, one in zip(rows.tolist(), progress(pool.map(function, rows.tolist()), what, len(rows)), strict=True):
            found[row] = one
    return found
