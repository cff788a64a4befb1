"""Every flip of every image put to a network, piece by piece; what changed its answer is kept.

A piece's file is whole or not there, and holds what follows from its images alone: a study that was killed goes on with
the next piece and ends in the same bytes.
"""

import io
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from console import UserError
from explain.flipping.exact import FlipLogits, Logits, Screen, flip_naive, flipped_images
from explain.flipping.nets import DIGIT, TOLERANCE, Asked, Net, naive_batch
from machine.device import full_precision
from machine.files import write_atomic
from machine.reading import Damaged, read_npz

PIECE = 256  # images of 28 x 28 pixels and as many flips; of larger ones fewer


@dataclass(frozen=True)
class Changes:
    """What a network said of N images, and the flips that made it say something else."""

    answers: np.ndarray  # (N,) int16, of the images as they are
    image: np.ndarray  # (M,) int32 row of the image, ascending
    flip: np.ndarray  # (M,) int32 block, counted row by row
    becomes: np.ndarray  # (M,) int16 the new answer
    lead: np.ndarray  # (M,) float32 its logit minus the old answer's, under the flip; 0 or more


Result = TypeVar("Result")
FIELDS = tuple(Changes.__dataclass_fields__)


def find_changes(
    logits: Logits, fast: FlipLogits | None, images: Tensor, patch: int, screen: Screen | None = None
) -> Changes:
    """Put every flip of a batch of images (B, C, H, W) to a network.

    Each answer is the naive one: where the fast way leaves the two best logits closer than `TOLERANCE`, the flipped
    image itself is asked about; and a flip is passed over only where it cannot bring them as close, or an image where
    the screen says that none does.
    """
    base = logits(images)
    answers = base.argmax(1)
    if fast is None:
        image, flip, some = nearly_changed(flip_naive(logits, images, patch, naive_batch(images)), answers)
    elif (open_ := fast.may_change(images, base, 2 * TOLERANCE)) is not None:
        image, flip = open_
        some = fast.of_flips(images, image, flip)
    else:
        rows = torch.arange(len(images), device=images.device) if screen is None else screen.near(images, answers)
        found = [(rows[:0], rows[:0], base[:0])]
        for part in rows.split(fast.batch(images.device)) if len(rows) else ():
            one, flip, some = nearly_changed(fast(images[part]), answers[part])
            found.append((part[one], flip, some))
        image, flip, some = (torch.cat(column) for column in zip(*found, strict=True))
    if fast is not None and len(some):
        two = some.topk(2, 1).values
        close = two[:, 0] - two[:, 1] < TOLERANCE
        for row in image[close].unique():
            asked = close & (image == row)
            some[asked] = ask_naive(logits, images[row], flip[asked], patch)
    becomes = some.argmax(1)
    changed = becomes != answers[image]
    image, flip, some, becomes = image[changed], flip[changed], some[changed], becomes[changed]
    lead = some.gather(1, becomes[:, None]) - some.gather(1, answers[image][:, None])
    kinds = (np.int16, np.int32, np.int32, np.int16, np.float32)
    values = (answers, image, flip, becomes, lead[:, 0])
    return Changes(*(value.cpu().numpy().astype(kind) for value, kind in zip(values, kinds, strict=True)))


def nearly_changed(found: Tensor, answers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits (B, F, K) under every flip those whose answer is another than `answers` (B,), or nearly.

    Returns:
        (M,) image and (M,) flip, and their (M, K) logits.
    """
    at = answers[:, None, None].expand(-1, found.shape[1], 1)
    own = found.gather(2, at)
    rest = found.scatter_(2, at, -torch.inf).amax(2)  # in place, and back: a copy takes as long as finding them
    found.scatter_(2, at, own)
    image, flip = (rest - own[:, :, 0] > -TOLERANCE).nonzero(as_tuple=True)
    return image, flip, found[image, flip]


def ask_naive(logits: Logits, image: Tensor, flips: Tensor, patch: int) -> Tensor:
    """The logits (F, K) of an image (C, H, W) under these flips, each flipped image computed as a whole."""
    return torch.cat([logits(flipped_images(image, some, patch)) for some in flips.split(naive_batch(image[None]))])


def piece_size(pixels: int, flips: int) -> int:
    """Images of so many pixels and flips in a piece: about as much work each, so that a kill costs seconds."""
    return max(1, min(PIECE, PIECE * DIGIT**4 // (pixels * flips)))


def run_study(net: Net, asked: Asked, patch: int, flips: int, folder: Path, bar: tqdm) -> Changes:
    """All images; continues what is in `folder`.

    Raises:
        UserError: if what is there is damaged, or of other images.
    """
    done = folder / "flips.npz"
    if done.exists():
        bar.update(len(asked.ids))
        return read_changes(done, asked.ids)
    pieces = folder / ".pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    size = piece_size(asked.shape[0] * asked.shape[1], flips)
    parts = []
    for number, begin in enumerate(range(0, len(asked.ids), size)):
        rows = np.arange(begin, min(begin + size, len(asked.ids)))
        path, ids = pieces / f"{number:06d}.npz", [asked.ids[row] for row in rows]
        if not path.exists():
            write_changes(path, study_piece(net, asked, patch, rows), ids)
        parts.append((begin, read_changes(path, ids)))
        bar.update(len(rows))
    whole = join(parts)
    write_changes(done, whole, asked.ids)
    shutil.rmtree(pieces)
    return whole


def study_piece(net: Net, asked: Asked, patch: int, rows: np.ndarray) -> Changes:
    """The images `rows`; images in the result are counted from the first of them."""
    batch = net.batch(asked.shape[0] * asked.shape[1])
    images = asked.load(rows)

    def find(some: Tensor) -> Changes:
        return find_changes(net.logits, net.fast, some, patch, net.screen)

    found = map_batches(find, images.split(batch), shared=net.fast is not None)
    return join(list(zip(range(0, len(rows), batch), found, strict=True)))


def map_batches(function: Callable[[Tensor], Result], batches: Sequence[Tensor], shared: bool = True) -> list[Result]:
    """What `function` gives for each batch, in order, without gradients and in full precision.

    A window is too small to be shared out among threads: on a CPU, if `shared`, each thread has batches of its own. So
    the result does not depend on their number.
    """

    def alone(batch: Tensor) -> Result:
        with torch.inference_mode():  # which belongs to the thread
            return function(batch)

    threads = torch.get_num_threads()
    with full_precision():
        if not shared or batches[0].device.type != "cpu" or threads == 1:
            return [alone(batch) for batch in batches]
        torch.set_num_threads(1)  # of each thread that begins now
        try:
            with ThreadPoolExecutor(threads) as pool:
                return list(pool.map(alone, batches))
        finally:
            torch.set_num_threads(threads)


def join(parts: list[tuple[int, Changes]]) -> Changes:
    """One after another; each part's images begin at its number."""
    columns = {name: np.concatenate([getattr(part, name) for _, part in parts]) for name in FIELDS}
    columns["image"] = np.concatenate([part.image + np.int32(begin) for begin, part in parts])
    return Changes(**columns)


def write_changes(path: Path, changes: Changes, ids: Sequence[str]) -> None:
    """As npz without loss, with the images' ids: the same changes, the same bytes."""
    arrays: dict[str, Any] = {"ids": np.array(ids)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays, **{name: getattr(changes, name) for name in FIELDS})
    write_atomic(path, buffer.getvalue())


def read_changes(path: Path, ids: Sequence[str]) -> Changes:
    """What `write_changes` wrote of these images.

    Raises:
        UserError: if it is damaged, or of other images.
    """
    mend = "remove it and run the same command again, which makes it anew"
    kinds = {name: ("f" if name == "lead" else "iu", (None,)) for name in FIELDS}
    *values, held = read_npz(path, kinds | {"ids": ("U", (None,))}, mend).values()
    found = Changes(*values)
    counts = {len(getattr(found, name)) for name in FIELDS if name != "answers"}
    images = len(found.answers)
    if len(counts) > 1 or (len(found.image) and not 0 <= found.image.min() <= found.image.max() < images):
        raise Damaged(path, "its flips are not of its images", mend)
    if held.tolist() != list(ids):
        raise UserError(
            f"{path}: holds the flips of other images (some came or went since): remove its folder and run the same "
            "command again, or choose --results"
        )
    return found
