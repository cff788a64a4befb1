"""Where in the picture the heat lies, where masks or a found coin tell: shares of the summary map's heat on parts."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np

from datasets import Masks
from explain.drawing import HEAT_CELLS
from explain.record import Explanation
from machine.files import write_atomic
from machine.reading import Damaged, read_npz

RIM = 0.18  # of the coin's radius, from its edge inwards
ELSEWHERE = "background"


def share_of_parts(explanation: Explanation) -> dict[str, np.ndarray] | None:
    """Of each part of the picture the share of heat on it and of the view that it covers, (N, 2) in 0..1.

    The heat is the small map that the record keeps; NaN: no map, an empty one, no mask, or no coin found. Kept beside
    the pieces.

    Returns:
        Part -> (N, 2), parts that do not overlap and together are the view; None where neither truth nor coin is known.
    """
    dataset, heat = explanation.subject.pictures.dataset, explanation.record.heat
    rows = np.array(sorted(row for row, values in heat.items() if values.any()), np.int64)
    if (dataset.mask_of is None and dataset.places is None) or not len(rows):
        return None
    path, count = explanation.folder / ".places.npz", len(explanation.subject.run.ids)
    try:
        kept = read_npz(path, {"rows": ("iu", (None,)), "parts": ("U", (None,))}, "", others=True)
        if np.array_equal(kept["rows"], rows):
            return {name: _spread(kept[f"on {name}"], rows, count) for name in kept["parts"].tolist()}
    except (FileNotFoundError, KeyError, Damaged):
        pass  # not measured yet, or damaged, or more has been drawn since
    found: dict[str, np.ndarray] = {}

    def parts(row: int) -> dict[str, np.ndarray]:
        position = int(explanation.subject.pictures.position[row])
        masks = dataset.mask(position)
        if masks is None and dataset.places is not None and dataset.places[position].found:
            masks = {"coin": dataset.places[position].mask(dataset.decoded[position].shape)}
        return {} if masks is None else parts_in_view(masks, explanation, row)

    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        cells_of_parts = list(pool.map(parts, rows.tolist()))
    for at, row in enumerate(rows.tolist()):
        warm = heat[row].astype(np.float64)
        for name, cells in cells_of_parts[at].items():
            values = found.setdefault(name, np.zeros((len(rows), 2)))
            values[at] = (warm * cells).sum() / warm.sum(), cells.mean()
    for values in found.values():
        values[[not cells for cells in cells_of_parts]] = np.nan  # of what shows no coin nothing is known
    arrays: dict[str, Any] = {f"on {name}": values for name, values in found.items()}
    write_atomic(path, lambda file: np.savez(file, rows=rows, parts=np.array(list(found)), **arrays), durable=False)
    return {name: _spread(values, rows, count) for name, values in found.items()}


def parts_in_view(masks: Masks, explanation: Explanation, row: int) -> dict[str, np.ndarray]:
    """The share of each of the picture's HEAT_CELLS x HEAT_CELLS on each part, which is drawn of image `row`.

    `masks` are (H, W) in the file's own pixels.
    """
    parts = partition(masks).items()
    return {name: explanation.subject.cut(row, mask.astype(np.float32), HEAT_CELLS) for name, mask in parts}


def partition(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parts (H, W) bool that do not overlap and together are the picture; of a coin rim and face, and what is known."""
    if "coin" in masks:
        coin = masks["coin"]
        radius = np.sqrt(coin.sum() / np.pi)
        depth = cv2.distanceTransform(coin.astype(np.uint8), cv2.DIST_L2, 3)
        order, face = {}, "face"
        if "cross" in masks:  # painted
            order["symbols"] = np.any([mask for name, mask in masks.items() if name.startswith("field")], axis=0)
            order["cross"], face = masks["cross"], "face beside them"
        order |= {"rim": coin & (depth <= RIM * radius), face: coin}
    else:
        order = dict(masks)
    left = np.ones(next(iter(masks.values())).shape, bool)
    found = {}
    for name, mask in order.items():
        found[name] = mask & left
        left &= ~mask
    return found | {ELSEWHERE: left}


def _spread(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    found = np.full((count, 2), np.nan)
    found[rows] = values
    return found
