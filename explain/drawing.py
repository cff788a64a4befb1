"""Draw what is missing of an epoch: results/<epoch>/<cluster>/<image>-<method>.png, piece by piece.

A piece is up to PIECE images. Its pictures are written, then its record; so a call that was killed at any instant is
continued by the next one, which does only what is missing.
"""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from console import UserError, bar_settings, megabytes
from datasets.view import COLOURLESS
from explain.attribution import PHOTOGRAPH, VIEW, Asked, attribute_and_measure
from explain.attribution.registry import PEAK
from explain.choice import target_weights
from explain.record import Explanation, Record, number_column
from explain.rendering import draw, encode, normalise_heat, says_nothing
from machine.files import write_atomic

PIECE = 256
BATCH = {"cpu": 32, "cuda": 256}
BATCH_OF_MANY_PASSES = 8
MANY_FILES = 10_000  # from which a Drive is slow
HEAT_CELLS = 16  # their side


def draw_missing(explanation: Explanation, announce: bool = True) -> Record:
    """Draw each picture of the explanation's rows that is not there yet; `announce`: say before what they will take."""
    subject, choice, record = explanation.subject, explanation.choice, explanation.record
    rows, missing = explanation.rows, explanation.undrawn()
    todo = rows[np.any([missing[key] for key in choice.keys], axis=0)]
    absent = {key: set(rows[missing[key]].tolist()) for key in choice.keys}
    many = any(asked.method.passes == "many" for asked in choice.maps)
    batch = min(BATCH[subject.device.type], BATCH_OF_MANY_PASSES if many else PIECE)
    bar = tqdm(
        total=len(todo),
        desc=f"explaining epoch {subject.epoch}",
        unit=" images",
        delay=1,
        leave=False,
        **bar_settings(),
    )
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool, bar:
        for begin in range(0, len(todo), PIECE):
            piece = todo[begin : begin + PIECE]
            written: list[Future[int]] = []
            parts = []
            for start in range(0, len(piece), batch):
                some = piece[start : start + batch]
                asked = [one for one in choice.methods if absent[one.key] & set(some.tolist())]
                images = subject.images(some)
                maps, numbers = explain_batch(explanation, some, images, asked)
                parts.append(summarise(maps, numbers, asked, some, explanation.heat_key))
                size = _wait(written)  # of the batch before: at most one batch waits for the disk
                if announce and begin == 0 and start == batch:
                    files = sum(len(without) for without in absent.values())
                    say_beforehand(explanation, len(todo), files, size / batch)
                seen = subject.photographs(images) if VIEW in maps else None
                written = write_batch(pool, explanation, some, subject.drawn_on(some, images), seen, maps, absent)
                bar.update(len(some))
            _wait(written)
            for group in _of_same_methods(parts):
                record.add(group)
    return record


def explain_batch(
    explanation: Explanation, rows: np.ndarray, images: Tensor, asked: Sequence[Asked]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Maps (B, C, H, W) float32 of each method, by its key; and (B,) what the methods measure, by `number_column`.

    They are drawn back onto the photographs, but for VIEW's.
    """
    subject = explanation.subject
    weights = target_weights(subject, explanation.choice.target, rows, explanation.scores)
    methods = [one for one in asked if one.name != PHOTOGRAPH]
    computed, measured = attribute_and_measure(subject.model, images, weights, methods)
    numbers = {
        number_column(key, name): values.double().cpu().numpy()
        for key, named in measured.items()
        for name, values in named.items()
    }
    maps = {}
    for one in methods:
        found = computed[one.key].float().cpu().numpy()
        if subject.view in COLOURLESS and one.method.kind == "signed":
            found = found.sum(1, keepdims=True)  # its channels are no colours
        maps[one.key] = found if one.name == VIEW else subject.draw_back(rows, found)
    return maps, numbers


def summarise(
    maps: dict[str, np.ndarray],
    numbers: dict[str, np.ndarray],
    asked: Sequence[Asked],
    rows: np.ndarray,
    heat_key: str,
) -> dict[str, np.ndarray]:
    """What the record keeps of a batch; `heat_key`: of the method whose small maps are kept, for the cluster's mean."""
    nothing = [
        [one.key in maps and says_nothing(maps[one.key][i], one.method.kind) for one in asked] for i in range(len(rows))
    ]
    kept = {"rows": rows, "methods": np.array([one.key for one in asked])}
    kept |= {"empty": np.array(nothing, bool).reshape(len(rows), -1), **numbers}
    for one in asked:
        if one.key in maps and one.method.kind == "heat":
            peak = maps[one.key].reshape(len(rows), -1).max(1, initial=0)
            kept[number_column(one.key, PEAK)] = np.where(np.isfinite(peak), peak, np.nan).astype(np.float64)
    if heat_key in maps:
        heat = [normalise_heat(one[0]) for one in maps[heat_key]]
        whole = np.stack([np.zeros(maps[heat_key].shape[2:], np.float32) if one is None else one for one in heat])
        small = functional.adaptive_avg_pool2d(torch.from_numpy(whole), HEAT_CELLS)
        kept["heat"] = small.numpy().astype(np.float16)
    return kept


def write_batch(
    pool: ThreadPoolExecutor,
    explanation: Explanation,
    rows: np.ndarray,
    photographs: np.ndarray,
    seen: np.ndarray | None,
    maps: dict[str, np.ndarray],
    absent: dict[str, set[int]],
) -> list[Future[int]]:
    """Let the pool draw and write a batch while the next is computed; each future gives the bytes it has written.

    `absent`: key -> images without that picture.

    Maps are drawn on `photographs` (B, H, W, 3), VIEW's on what the network has `seen`.
    """
    paths, choice = explanation.paths, explanation.choice
    for number in {int(paths.assignment[row]) for row in rows}:
        (paths.folder / str(number)).mkdir(exist_ok=True)

    def one(i: int, row: int) -> int:
        size = 0
        for asked in choice.methods:
            if row not in absent[asked.key]:
                continue
            if asked.name == PHOTOGRAPH:
                picture = Image.fromarray(photographs[i])
            else:
                below = seen[i] if asked.name == VIEW and seen is not None else photographs[i]
                picture = draw(asked.method, maps[asked.key][i], below, choice.colours)
            content = encode(picture, choice.format)
            write_atomic(paths.of(row, asked.key), content, durable=False)
            size += len(content)
        return size

    return [pool.submit(one, i, int(row)) for i, row in enumerate(rows)]


def say_beforehand(explanation: Explanation, images: int, files: int, size: float) -> None:
    """What the pictures will take, by those that are drawn.

    Args:
        explanation: whose pictures they are.
        images: to draw.
        files: that they become.
        size: bytes of an image's pictures, on average of the first.

    Raises:
        UserError: if the disk has no room for them.
    """
    needed, free = size * images, shutil.disk_usage(explanation.folder).free
    smaller = "" if explanation.choice.format == "webp" else "; --format webp takes a fraction"
    told = f"{images} images: about {megabytes(needed)} of pictures in {files} files"
    fewer = "; --few-files makes a copy in few" if files > MANY_FILES else ""
    tqdm.write(f"{told} ({explanation.choice.format}{smaller}{fewer}), by the first that are drawn")
    if needed > free:
        raise UserError(
            f"{explanation.folder}: about {megabytes(needed)} are needed, {megabytes(free)} are free: free some space, "
            "choose another --results, --per-cluster, or another --format"
        )


def _wait(futures: list[Future[int]]) -> int:
    """Bytes that they have written."""
    return sum(future.result() for future in futures)


def _of_same_methods(parts: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Batches of a piece with the same methods become one record."""
    groups: dict[tuple[str, ...], list[dict[str, np.ndarray]]] = {}
    for part in parts:
        groups.setdefault(tuple(part["methods"].tolist()), []).append(part)
    return [
        {key: same[0][key] if key == "methods" else np.concatenate([part[key] for part in same]) for key in same[0]}
        for same in groups.values()
    ]
