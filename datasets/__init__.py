"""Images with stable ids: coin folders and zips, painted coins, MNIST, dots and line.

`SOURCES` is the one table of what DATA may be besides a folder or a zip; a new one is added there.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np

import machine  # noqa: F401  before torch
from console import UserError, nearest, plain
from datasets.cache import Pixels, content_digests, decode_all, fingerprint
from datasets.decoding import HEIC, decode
from datasets.folder import class_labels, list_files, unpack
from datasets.places import VERSION as PLACES_VERSION
from datasets.places import Place, find_places
from datasets.view import PHOTOGRAPH, VIEWS
from machine.files import home_path
from machine.reading import read_csv, whole_number

__all__ = ["DATA", "SOURCES", "Dataset", "Pixels", "decoded_side", "default_view", "look", "open_dataset"]

MOST_WITHOUT = 0.5  # share of the photographs without a coin beyond which a view of it is not the default
MOST_BESIDE = 5000  # entries of a folder among which a mistyped name is looked for
Masks = dict[str, np.ndarray]  # part of the picture -> (H, W) bool


@dataclass(frozen=True)
class Dataset:
    """N images, decoded. `ids[i]`, `labels[i]` and `pixels[i]` are image i.

    The facts about all of them (`upright`, `colour_matters`) are there for a trainer to draw its conclusions from.
    """

    name: str
    source: str  # what open_dataset was asked for, made absolute
    key: str  # identifies the content: equal keys, equal files
    pixels_key: str  # identifies the photographs' pixels: equal keys, equal pixels
    ids: list[str]
    labels: list[str] | None
    skipped: list[tuple[str, str]]  # (file, reason)
    pixels: Pixels  # of the view that a network is given; the photographs themselves unless `look` made another
    upright: bool = False  # else each may lie at any angle
    colour_matters: bool = True  # else it is the light's and the background's
    mask_of: Callable[[str], Masks | None] | None = None  # id -> the true parts of a picture, where they are known
    truth_of: Callable[[str], dict[str, str] | None] | None = None  # id -> what else is known, as in truth.csv
    root: Path | None = None  # where the files are that ids name; None: they are no files
    view: str = PHOTOGRAPH  # whose pixels these are: a key of datasets.view.VIEWS, or PHOTOGRAPH
    photographs: Pixels | None = None  # as decoded, where `pixels` is another view
    places: list[Place] | None = None  # of the coins in them, where `pixels` is another view
    excluded: tuple[str, ...] = ()  # ids of images that were left out because they were listed

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, index: int) -> Masks | None:
        """Where each part of image `index` is, in the file's own pixels; None where no truth is known."""
        return None if self.mask_of is None else self.mask_of(self.ids[index])

    def truth(self, index: int) -> dict[str, str] | None:
        """What is known of image `index` besides its parts: symbols, light, ground, wear; None where nothing is."""
        return None if self.truth_of is None else self.truth_of(self.ids[index])

    @property
    def decoded(self) -> Pixels:
        """The photographs' pixels, whatever the view."""
        return self.pixels if self.photographs is None else self.photographs

    def find_places(self, workers: int | None = None) -> list[Place]:
        """Where the coin is in each photograph; found once, then cached."""
        return find_places(self.decoded, self.pixels_key, workers) if self.places is None else self.places

    def count_without_coin(self, workers: int | None = None) -> int:
        """In how many photographs no coin is found."""
        return sum(not place.found for place in self.find_places(workers))

    def take(self, indices: np.ndarray) -> "Dataset":
        """The images `indices` alone."""
        if np.array_equal(indices, np.arange(len(self))):
            return self
        return replace(
            self,
            pixels_key=fingerprint([self.pixels_key, *map(str, indices)]),
            ids=[self.ids[i] for i in indices],
            labels=None if self.labels is None else [self.labels[i] for i in indices],
            pixels=self.pixels.take(indices),
            photographs=None if self.photographs is None else self.photographs.take(indices),
            places=None if self.places is None else [self.places[i] for i in indices],
        )

    def without(self, listed: Mapping[str, str]) -> "Dataset":
        """The images but for those that are listed, id -> why; they are among the skipped then."""
        left = [i for i, name in enumerate(self.ids) if name not in listed]
        out = tuple(name for name in self.ids if name in listed)
        skipped = sorted([*self.skipped, *((name, listed[name]) for name in out)])
        return replace(self.take(np.array(left, np.int64)), skipped=skipped, excluded=out)


@dataclass(frozen=True)
class Request:
    """What open_dataset was asked for."""

    source: str
    detail: str  # what follows the colon
    shorter_side: int
    at_most: int
    workers: int | None
    mnist_dir: Path | None
    limit: int | None = None  # no more images are used: a source that makes them need not make more


@dataclass(frozen=True)
class Source:
    """What DATA may be besides a folder or a zip."""

    usage: str  # how it is written
    open: Callable[[Request], Dataset]
    coins: bool = False  # whether its pictures show a coin each


def open_dataset(
    source: str,
    shorter_side: int,
    limit: int | None = None,
    workers: int | None = None,
    mnist_dir: Path | None = None,
    at_most: int | None = None,
    exclude: Path | None = None,
) -> Dataset:
    """Find, decode (once, into the cache) and name the images of `source`.

    Args:
        source: a folder, a .zip, or a name in SOURCES, perhaps with a colon and more (`painted:COUNT`, `mnist:test`). A
            folder or zip of that very name goes first when written with a slash.
        shorter_side: pixels of the shorter side of every decoded image.
        limit: keep this many images, drawn evenly from all; the same ones every time. Of `painted` no more are painted.
        workers: threads that decode; None: one a core.
        mnist_dir: where MNIST's files are; None: $MNIST_DIR, or fetched.
        exclude: table of images that are left out, before `limit` counts.
        at_most: photographs that are larger than `shorter_side` keep their pixels up to this many on the shorter side.

    Raises:
        UserError: if there is no such source or no usable image in it.
    """
    kind, _, detail = source.partition(":")
    asked = Request(
        source, detail, shorter_side, at_most or shorter_side, workers, mnist_dir, limit if exclude is None else None
    )
    dataset = SOURCES[kind].open(asked) if kind in SOURCES else _folder(asked)
    if exclude is not None:
        from datasets.exclude import check_list, read_list  # looks at pictures: not for --help

        listed = read_list(exclude)
        check_list(exclude, listed, dataset.ids, dataset.skipped)
        dataset = dataset.without(listed)
    if limit is not None and limit < len(dataset):
        order = np.random.default_rng(0).permutation(len(dataset))
        dataset = dataset.take(np.sort(order[:limit]))
    return dataset


def check_drawn(view: str, drawn: int) -> None:
    """Refuse a view of a run that was begun when it was drawn otherwise: its network knows no other.

    Raises:
        UserError: if it was.
    """
    if view != PHOTOGRAPH and drawn != VIEWS[view].version:
        raise UserError(
            f"the run sees version {drawn} of the view {view}, and this program draws version {VIEWS[view].version}: "
            "train again, or use the program that trained it"
        )


def look(dataset: Dataset, view: str, size: int, workers: int | None = None) -> Dataset:
    """The same images in another view of the coin: `pixels` are (height, width) = VIEWS[view].shape(size).

    Drawn once, into the cache. Where no coin is found the whole photograph takes its place.
    """
    if view == PHOTOGRAPH:
        return dataset
    photographs, places = dataset.decoded, dataset.find_places(workers)
    pixels, _, _ = decode_all(
        f"{dataset.pixels_key}-{view}{VIEWS[view].version}-{size}-places{PLACES_VERSION}",
        dataset.ids,
        lambda i: VIEWS[view].draw(np.array(photographs[i]), places[i], size),
        f"{view} view",
        workers,
    )
    return replace(dataset, pixels=pixels, view=view, photographs=photographs, places=places)


def default_view(source: str) -> str:
    """How its pictures are seen when nothing is said: unrolled where they are meant to show a coin each."""
    kind = source.partition(":")[0]
    return "unrolled" if kind not in SOURCES or SOURCES[kind].coins else PHOTOGRAPH


def decoded_side(size: int) -> int:
    """Shorter side to decode to for views of `size`: 256 for 224, the paper's ratio."""
    return round(size * 8 / 7)


def _folder(asked: Request) -> Dataset:
    source = asked.source
    path = home_path(source)
    if path.suffix.lower() == ".zip" and path.is_file():
        root, name = unpack(path), path.stem
    elif path.is_dir():
        root, name = path.resolve(), path.resolve().name
    elif path.exists():
        raise UserError(f"{source}: neither a folder nor a .zip: name the folder that holds the photographs")
    else:
        raise UserError(
            f"{source}: no such folder or zip: name the folder that holds the photographs{_nearest(path, source)}"
        )
    names = list_files(root)
    if not names:
        raise UserError(f"{source}: an empty folder: put photographs into it or name another")
    digests = content_digests(root, names, asked.workers)
    parts = [part for pair in zip(names, digests, strict=True) for part in pair]
    if HEIC and any(name.lower().endswith((".heic", ".heif")) for name in names):
        parts.append("HEIC")  # without its library these files were none of the images
    key = fingerprint(parts)
    sides = f"{asked.shorter_side}" + (f"-{asked.at_most}" if asked.at_most > asked.shorter_side else "")
    pixels_key = f"{key}-{sides}"
    pixels, kept, skipped = decode_all(
        pixels_key,
        names,
        lambda i: decode(root / names[i], asked.shorter_side, asked.at_most),
        f"decoding {name}",
        asked.workers,
    )
    if not kept:
        raise UserError(
            f"{source}: none of its {len(names)} files is a usable image (the first: {skipped[0][0]}: {skipped[0][1]})"
        )
    ids = [names[i] for i in kept]
    found = Dataset(name, str(path.resolve()), key, pixels_key, ids, class_labels(ids), skipped, pixels, root=root)
    return _with_truth(found, root) if is_painted(root) else found


def _nearest(path: Path, source: str) -> str:
    """What was meant by a DATA that is not there, as the end of a sentence: a name of ours, or what lies beside it."""
    ours = nearest(source.partition(":")[0], SOURCES) if path == Path(source.partition(":")[0]) else ""
    if ours or not path.parent.is_dir():
        return ours
    try:
        with os.scandir(path.parent) as entries:
            some = list(islice(entries, MOST_BESIDE))
        beside = [one.name for one in some if one.name.lower().endswith(".zip") or one.is_dir()]
    except OSError:
        return ""
    return nearest(path.name, beside, lambda name: plain(str(path.parent / name)))


def is_painted(root: Path) -> bool:
    """Whether a folder is the `images/` of a painted set, beside which its truth lies."""
    return root.name == "images" and (root.parent / "truth.csv").is_file() and (root.parent / "masks").is_dir()


def _with_truth(dataset: Dataset, root: Path) -> Dataset:
    from datasets.painted import read_mask

    @lru_cache  # functools.cache would be datasets.cache here
    def known() -> dict[str, dict[str, str]]:
        return {line["image"]: line for line in read_csv(root.parent / "truth.csv") if "image" in line}

    def mask(name: str) -> Masks | None:
        path = (root.parent / "masks" / name).with_suffix(".png")
        return read_mask(path) if path.is_file() else None

    return replace(dataset, mask_of=mask, truth_of=lambda name: known().get(name))


def _painted(asked: Request) -> Dataset:
    from datasets.painted import COUNT, MOST, TYPES, painted_folder

    wanted = whole_number(asked.detail) if asked.detail else COUNT
    if wanted is None or not len(TYPES) <= wanted <= MOST:
        raise UserError(f"{asked.source}: write painted or painted:COUNT, COUNT a number from {len(TYPES)} to {MOST}")
    source = asked.source
    if asked.limit is not None and max(asked.limit, len(TYPES)) < wanted:  # no more coins are painted than are used
        wanted = max(asked.limit, len(TYPES))
        source = f"painted:{wanted}"
    root = painted_folder(wanted)
    return replace(
        _folder(replace(asked, source=str(root / "images"))),
        name="painted",
        source=source,
        upright=True,
        colour_matters=False,  # struck silver
    )


def _mnist(asked: Request) -> Dataset:
    from PIL import Image

    from datasets.mnist import SPLITS, load_mnist

    split = asked.detail or "train"
    if split not in SPLITS:
        raise UserError(f"{asked.source}: write mnist, mnist:train or mnist:test")
    images, labels = load_mnist(split, asked.mnist_dir)
    ids = [f"{split}/{i:05d}" for i in range(len(images))]
    side = asked.shorter_side

    def load(index: int) -> np.ndarray:
        digit = Image.fromarray(images[index]).resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(digit.convert("RGB"))

    key = fingerprint(["mnist", split])
    pixels_key = f"{key}-{side}"
    pixels, _, _ = decode_all(pixels_key, ids, load, f"decoding {asked.source}", asked.workers)
    names = [str(label) for label in labels]
    return Dataset("mnist", asked.source, key, pixels_key, ids, names, [], pixels, upright=True)


def _dots(asked: Request, spoilt: bool = False) -> Dataset:
    from PIL import Image

    from datasets.dots import CLASSES, COUNTS, SEED, VERSION, draw_scenes, load_scenes, masks_of

    name, split = asked.source.partition(":")[0], asked.detail or "train"
    if split not in COUNTS:
        raise UserError(f"{asked.source}: write {name}, {name}:train or {name}:test")
    scenes = load_scenes(split, spoilt)
    pictures = draw_scenes(scenes)
    ids = [f"{split}/{i:05d}" for i in range(len(scenes))]
    side = asked.shorter_side

    def load(index: int) -> np.ndarray:
        picture = Image.fromarray(pictures[index]).resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(picture.convert("RGB"))

    def masks(name: str) -> Masks:
        row = int(name.rpartition("/")[2])
        return {part: mask[0] for part, mask in masks_of(scenes[row : row + 1]).items()}

    key = fingerprint([name, split, str(VERSION), str(SEED)])
    pixels_key = f"{key}-{side}"
    pixels, _, _ = decode_all(pixels_key, ids, load, f"decoding {asked.source}", asked.workers)
    return Dataset(
        name,
        asked.source,
        key,
        pixels_key,
        ids,
        [CLASSES[label] for label in scenes.label],
        [],
        pixels,
        upright=True,
        colour_matters=False,
        mask_of=masks,
    )


SOURCES: dict[str, Source] = {
    "painted": Source("painted or painted:COUNT", _painted, coins=True),
    "mnist": Source("mnist or mnist:test", _mnist),
    "dots": Source("dots or dots:test", _dots),
    "dots-spoilt": Source("dots-spoilt", partial(_dots, spoilt=True)),
}
DATA = f"folder of photographs, .zip of one, {', '.join(source.usage for source in SOURCES.values())}"  # for --help
