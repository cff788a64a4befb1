"""Images with stable ids: coin folders and zips, painted coins, MNIST."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from console import UserError
from datasets.cache import Pixels, content_digests, decoded, fingerprint
from datasets.decoding import decode
from datasets.folder import class_labels, list_files, unpack

__all__ = ["Dataset", "Pixels", "open_dataset"]

# Settings of a training that follow from what the pictures are; the user's own go before them.
LOOSE_COINS = {"rotate": 180.0}  # may lie at any angle
PAINTED = {"rotate": 15.0, "sobel": True}  # upright; struck silver, whose colour is the light's and the background's
DIGITS = {"rotate": 15.0}


@dataclass(frozen=True)
class Dataset:
    """N images, decoded. `ids[i]`, `labels[i]` and `pixels[i]` are image i."""

    name: str
    source: str  # what open_dataset was asked for, made absolute
    key: str  # identifies the content: equal keys, equal files
    ids: list[str]
    labels: list[str] | None  # for evaluation alone
    skipped: list[tuple[str, str]]  # (file, reason)
    pixels: Pixels
    suggests: dict[str, Any]  # settings of a training that suit such pictures

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: np.ndarray) -> "Dataset":
        labels = None if self.labels is None else [self.labels[i] for i in indices]
        return replace(self, ids=[self.ids[i] for i in indices], labels=labels, pixels=self.pixels.take(indices))


def open_dataset(
    source: str,
    shorter_side: int,
    limit: int | None = None,
    workers: int | None = None,
    mnist_dir: Path | None = None,
) -> Dataset:
    """Find, decode (once, into the cache) and name the images of `source`.

    Args:
        source: a folder, a .zip, `painted` (or `painted:COUNT`), `mnist` or `mnist:test`. A folder or zip of that very
            name goes first when written with a slash.
        shorter_side: pixels of the shorter side of every decoded image.
        limit: keep this many images, drawn evenly from all; the same ones every time.
    Raises: UserError if there is no such source or no usable image in it.
    """
    kind, _, detail = source.partition(":")
    if kind == "mnist":
        dataset = _mnist(source, detail or "train", shorter_side, workers, mnist_dir)
    elif kind == "painted":
        dataset = _painted(source, detail, shorter_side, workers)
    else:
        dataset = _folder(source, shorter_side, workers)
    if limit is not None and limit < len(dataset):
        order = np.random.default_rng(0).permutation(len(dataset))
        dataset = dataset.take(np.sort(order[:limit]))
    return dataset


def _folder(source: str, shorter_side: int, workers: int | None) -> Dataset:
    path = Path(source).expanduser()
    if path.suffix.lower() == ".zip" and path.is_file():
        root, name = unpack(path), path.stem
    elif path.is_dir():
        root, name = path.resolve(), path.resolve().name
    elif path.exists():
        raise UserError(f"{source}: neither a folder nor a .zip: name the folder that holds the photographs")
    else:
        raise UserError(f"{source}: no such folder or zip: name the folder that holds the photographs")
    names = list_files(root)
    if not names:
        raise UserError(f"{source}: an empty folder: put photographs into it or name another")
    digests = content_digests(root, names, workers)
    key = fingerprint([part for pair in zip(names, digests, strict=True) for part in pair])
    pixels, kept, skipped = decoded(
        f"{key}-{shorter_side}",
        names,
        lambda i: decode(root / names[i], shorter_side),
        f"decoding {name}",
        workers,
    )
    if not kept:
        raise UserError(
            f"{source}: none of its {len(names)} files is a usable image (the first: {skipped[0][0]}: {skipped[0][1]})"
        )
    ids = [names[i] for i in kept]
    return Dataset(name, str(path.resolve()), key, ids, class_labels(ids), skipped, pixels, LOOSE_COINS)


def _painted(source: str, detail: str, shorter_side: int, workers: int | None) -> Dataset:
    from datasets.painted import COUNT, painted_folder

    if detail and not detail.isdigit():
        raise UserError(f"{source}: write painted or painted:COUNT, COUNT a number")
    root = painted_folder(int(detail) if detail else COUNT)
    return replace(
        _folder(str(root / "images"), shorter_side, workers), name="painted", source=source, suggests=PAINTED
    )


def _mnist(source: str, split: str, shorter_side: int, workers: int | None, folder: Path | None) -> Dataset:
    from PIL import Image

    from datasets.mnist import SPLITS, load_mnist

    if split not in SPLITS:
        raise UserError(f"{source}: write mnist, mnist:train or mnist:test")
    images, labels = load_mnist(split, folder)
    ids = [f"{split}/{i:05d}" for i in range(len(images))]

    def load(index: int) -> np.ndarray:
        digit = Image.fromarray(images[index]).resize((shorter_side, shorter_side), Image.Resampling.BILINEAR)
        return np.asarray(digit.convert("RGB"))

    key = fingerprint(["mnist", split])
    pixels, _, _ = decoded(f"{key}-{shorter_side}", ids, load, f"decoding {source}", workers)
    return Dataset("mnist", source, key, ids, [str(label) for label in labels], [], pixels, DIGITS)
