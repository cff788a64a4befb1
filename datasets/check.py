"""What is in a folder of photographs: counts, sizes, and what may spoil a clustering.

Sharpness and brightness are measured on the coins where they were found, since a ground says nothing of the focus, and
judged by what is usual in the set: a photograph is unlike the others if it lies further off than so many robust
deviations of the logarithm.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, laplace

from console import plain, progress
from datasets import Dataset
from datasets.coin import Coin, find_coins
from datasets.decoding import FORMATS
from datasets.lettering import fitted, letters
from datasets.processes import map_processes
from machine.files import write_atomic, write_csv
from machine.reading import open_regular

SIDE = 256  # images are judged at this shorter side, so that figures compare between cameras
DARK = 45.0  # mean grey (0..255) below which a photograph counts as dark, if its brightest part is dim too
DIM = 110.0
UNLIKE = 3.0  # robust standard deviations below the median, from which a photograph is blurred or dark
LEAST, MOST = 0.1, 0.3  # bounds of that deviation, of a natural logarithm: sets that are all alike, or a medley
NOISE, BLUR = 1.5, 4.0  # pixels, sigma of blurs: what is finer is the camera's grain; what a sharp picture loses
CLIPPED, BURNT = 250.0, 0.1  # grey that is as white as can be; share of the coin from which it is over-exposed
USUAL = 4.0  # ... unless that is usual: times the median share
ODD = 2.0  # times smaller or larger than the median: an odd size
NEAR = 0.95  # correlation of local contrast from which two pictures are nearly the same
SMALL, LOCAL = 32, 2.0  # side of the pictures that are compared so, and sigma of what is taken away as ground
FEW = 5  # pictures before it that one is said to be nearly the same as, at most
BLOCK = 2048  # pictures compared at a time
INSIDE = 0.85  # of the radius: the coin without its edge
OUTLINE = (0, 200, 0)
WORST = 5  # least sharp and darkest photographs on the sheet, first and framed
FRAMES = {"blurred": (30, 90, 230), "dark": (230, 120, 0)}
HEADER = b"image,width,height,sharpness,brightness,clipped,coins,flags"  # of the table
CAPTION, LETTERS = 14, 10  # pixels below a picture, and of its letters


@dataclass(frozen=True)
class Report:
    """Ids of the images concerned; a group of duplicates is a list of ids whose pixels are the same or nearly so.

    What each image measures stands in arrays (N,), in the order of the dataset.
    """

    duplicates: list[list[str]]
    blurred: list[str]
    dark: list[str]
    burnt: list[str]
    near: list[tuple[str, str, float]]  # two images that are nearly the same, and their correlation
    sharpness: np.ndarray
    brightness: np.ndarray  # grey, 0..255
    clipped: np.ndarray  # share of pixels that are white

    def spoiling(self) -> dict[str, list[str]]:
        """Id -> why an image may spoil a clustering; of duplicates the first is fine."""
        found: dict[str, list[str]] = defaultdict(list)
        for group in self.duplicates:
            for name in group[1:]:
                found[name].append(f"duplicate of {group[0]}")
        for flag, names in (("blurred", self.blurred), ("dark", self.dark), ("over-exposed", self.burnt)):
            for name in names:
                found[name].append(flag)
        return found

    def flags(self) -> dict[str, list[str]]:
        """Id -> all that is said of it: what may spoil, and what it is nearly the same as (coins of one die may be)."""
        found = self.spoiling()
        for one, other, _ in self.near:
            found[other].append(f"nearly the same as {one}")
        return found


def examine(dataset: Dataset, coins: Sequence[Sequence[Coin]] = (), pairs: bool = False) -> Report:
    """Look at every image once.

    Args:
        dataset: the images.
        coins: those of every image, as `coins_of` gives them; empty: the whole picture is measured.
        pairs: whether to look for pictures that are nearly the same, each against each.
    """
    count = len(dataset)
    focus, grey_of, clipped = np.zeros(count), np.zeros(count), np.zeros(count)
    brightest, darkish = np.zeros(count), np.zeros(count, bool)
    small = np.zeros((count if pairs else 0, SMALL * SMALL), np.float32)
    same: dict[bytes, list[str]] = defaultdict(list)
    for i in progress(range(count), "checking"):
        grey = dataset.pixels[i].mean(axis=2, dtype=np.float32)
        inside = _inside(grey.shape, coins[i] if coins else ())
        focus[i] = measure_focus(grey, inside)
        grey_of[i], clipped[i] = grey[inside].mean(), (grey[inside] >= CLIPPED).mean()
        brightest[i] = np.percentile(grey, 98)
        darkish[i] = grey.mean() < DARK and brightest[i] < DIM
        if pairs:
            small[i] = _local_contrast(grey)
        same[_thumbprint(grey)].append(dataset.ids[i])
    groups = [group for group in same.values() if len(group) > 1]
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    near = [
        (dataset.ids[a], dataset.ids[b], value)
        for a, b, value in (_alike(small) if pairs else [])
        if group_of.get(dataset.ids[a], -1) != group_of.get(dataset.ids[b], -2)
    ]
    burnt = clipped > max(BURNT, USUAL * float(np.median(clipped)))

    def named(which: np.ndarray) -> list[str]:
        return [dataset.ids[i] for i in np.flatnonzero(which)]

    dark = named(darkish | _far_below(brightest))
    return Report(groups, named(_far_below(focus)), dark, named(burnt), near, focus, grey_of, clipped)


def _far_below(values: np.ndarray) -> np.ndarray:
    """(N,) whether a value lies more than UNLIKE robust deviations of its logarithm below the median."""
    logs = np.log(np.maximum(values, 1e-6))
    middle = np.median(logs)
    deviation = np.clip(1.4826 * np.median(np.abs(logs - middle)), LEAST, MOST)
    return logs < middle - UNLIKE * deviation


def _inside(shape: tuple[int, ...], coins: Sequence[Coin]) -> np.ndarray:
    """(H, W) bool: the coins without their edges; all of the picture where there are none."""
    mask = Image.new("1", (shape[1], shape[0]))
    for coin in coins:
        middle = np.array(coin.center)
        outline = middle + (coin.outline - middle) * INSIDE
        ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    found = np.asarray(mask)
    return found if found.sum() >= SMALL * SMALL else np.ones(shape, bool)


def measure_focus(grey: np.ndarray, inside: np.ndarray) -> float:
    """How much of its fine detail a picture (H, W) of 0..255 loses by a blur, whatever its contrast: more is sharper.

    Detail is the deviation of the Laplacian, of a picture whose grain is smoothed away: a lens blurs the coin, and
    the grain comes after it.
    """
    fine, coarse = (float(laplace(gaussian_filter(grey, sigma))[inside].std()) for sigma in (NOISE, BLUR))
    return fine / max(coarse, 1e-3)


def sharpness(grey: np.ndarray) -> float:
    """How fine the detail of a picture (H, W) of 0..255 is, whatever its contrast: larger is sharper."""
    return float(laplace(grey).std() / max(float(grey.std()), 1.0))


def _thumbprint(grey: np.ndarray) -> bytes:
    """16 x 16 means, coarsely: equal for copies of one photograph, also when saved at another quality or size."""
    small = np.asarray(Image.fromarray(grey).resize((16, 16), Image.Resampling.BOX))
    return np.round(small / 8).astype(np.uint8).tobytes()


def _local_contrast(grey: np.ndarray) -> np.ndarray:
    """(SMALL^2,) of length 1: a small picture without its large shapes, a disc on a plain ground, say."""
    small = np.asarray(Image.fromarray(grey).resize((SMALL, SMALL), Image.Resampling.BOX))
    detail = small - gaussian_filter(small, LOCAL)
    even = detail / (np.sqrt(gaussian_filter(detail**2, 3 * LOCAL)) + 2)
    even = even.ravel() - even.mean()
    return even / max(float(np.linalg.norm(even)), 1e-6)


def _alike(vectors: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of rows that correlate by NEAR or more, the most alike first; of each row the FEW most alike before it.

    Block by block, so that memory stays small however many there are, and be all of them alike.
    """
    found = []
    starts = range(0, len(vectors), BLOCK)
    for begin in progress(starts, "comparing", unit="blocks") if len(starts) > 1 else starts:
        later = vectors[begin : begin + BLOCK]
        best, which = np.full((2, len(later), FEW), -1.0)
        for other in range(0, begin + 1, BLOCK):
            alike = later @ vectors[other : other + BLOCK].T
            if other == begin:
                alike[np.triu_indices(len(alike))] = -1
            rows = np.flatnonzero(alike.max(1) >= NEAR)
            values = np.concatenate([best[rows], alike[rows]], 1)
            columns = np.concatenate([which[rows], np.tile(np.arange(alike.shape[1]) + other, (len(rows), 1))], 1)
            order = np.argsort(-values, 1, kind="stable")[:, :FEW]
            best[rows], which[rows] = np.take_along_axis(values, order, 1), np.take_along_axis(columns, order, 1)
        rows, ranks = np.nonzero(best >= NEAR)
        places = zip(rows.tolist(), ranks.tolist(), strict=True)
        found += [(int(which[a, i]), begin + a, float(best[a, i])) for a, i in places]
    return sorted(found, key=lambda pair: -pair[2])


def file_sizes(dataset: Dataset) -> np.ndarray | None:
    """(N, 2) width and height of each image's file, 0 where it cannot be told; None where images are no files."""
    if dataset.root is None:
        return None
    found = np.zeros((len(dataset), 2), np.int64)
    for i, name in enumerate(progress(dataset.ids, "sizes")):
        try:
            with open_regular(dataset.root / name) as file, Image.open(file, formats=FORMATS) as image:
                found[i] = image.size
        except Exception:  # decoders raise nearly anything; the image itself was decoded before
            continue
    return found


def odd_sizes(sizes: np.ndarray) -> np.ndarray:
    """(N,) whether a file's shorter side is far from the median's."""
    shorter = sizes.min(1).astype(float)
    middle = float(np.median(shorter))
    return (shorter > 0) & ((shorter * ODD <= middle) | (shorter >= middle * ODD))


def coins_of(dataset: Dataset, workers: int | None = None) -> list[list[Coin]]:
    """The coins of every image, as datasets.coin.find_coins gives them."""
    photographs = (np.array(dataset.pixels[i]) for i in range(len(dataset)))
    found = map_processes(find_coins, photographs, len(dataset), workers)
    return list(progress(found, "finding coins", total=len(dataset)))


def is_table(path: Path) -> bool:
    """Whether a file may be written over by `write_table`: it is not there, or begins as its tables do."""
    try:
        with open_regular(path) as file:
            return file.read(len(HEADER) + 1).rstrip(b"\r\n") == HEADER
    except FileNotFoundError:
        return not path.is_symlink()
    except OSError:
        return False


def write_table(
    path: Path, dataset: Dataset, report: Report, sizes: np.ndarray | None, coins: Sequence[Sequence[Coin]] = ()
) -> None:
    """A row for each image: what was measured and what is said of it; those that were passed over come last."""
    flags, odd = report.flags(), None if sizes is None else odd_sizes(sizes)
    usual = float(np.median(report.sharpness))
    rows: list[dict[str, object]] = []
    for i, name in enumerate(dataset.ids):
        said = list(flags.get(name, []))
        if odd is not None and odd[i]:
            said.append("odd size")
        if coins and len(coins[i]) != 1:
            said.append("several coins" if coins[i] else "no coin found")
        if coins and any(coin.cut_off for coin in coins[i]):
            said.append("cut off")
        rows.append(
            {
                "image": name,
                "width": "" if sizes is None else int(sizes[i, 0]),
                "height": "" if sizes is None else int(sizes[i, 1]),
                "sharpness": f"{report.sharpness[i] / usual:.3f}",
                "brightness": f"{report.brightness[i]:.1f}",
                "clipped": f"{report.clipped[i]:.4f}",
                "coins": len(coins[i]) if coins else "",
                "flags": plain("; ".join(said)),
            }
        )
    rows += [{"image": name, "flags": plain(f"passed over: {why}")} for name, why in dataset.skipped]
    write_csv(path, rows)


def contact_sheet(
    dataset: Dataset,
    path: Path,
    coins: Sequence[Sequence[Coin]] = (),
    report: Report | None = None,
    columns: int = 12,
    rows: int = 10,
    side: int = 120,
) -> None:
    """A picture of up to columns x rows images, evenly chosen, each fitted into a square above its name.

    Args:
        dataset: the images.
        path: JPEG by its name, else PNG.
        coins: those of every image, drawn as outlines; empty for none.
        report: whose WORST least sharp and darkest images come first, in frames; None for none.
        columns: of the sheet.
        rows: at most, of those that are evenly chosen.
        side: of a square, in pixels.
    """
    frames: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    if report is not None:
        for flag, values in (("blurred", report.sharpness), ("dark", report.brightness)):
            for i in np.argsort(values, kind="stable")[:WORST].tolist():
                frames[i].append(FRAMES[flag])
    even = np.unique(np.linspace(0, len(dataset) - 1, min(columns * rows, len(dataset))).astype(int)).tolist()
    chosen = [*frames, *(i for i in even if i not in frames)]
    above = CAPTION + 10 if frames else 0
    step = side + CAPTION
    font = letters(LETTERS)
    sheet = Image.new("RGB", (columns * side, above + -(-len(chosen) // columns) * step), "white")
    draw = ImageDraw.Draw(sheet)
    if frames:
        draw.text((4, 5), f"the {WORST} least sharp", FRAMES["blurred"], letters(LETTERS + 3))
        draw.text((150, 5), f"the {WORST} darkest", FRAMES["dark"], letters(LETTERS + 3))
        more = f"then {len(even)} of {len(dataset)} images, evenly chosen; {path.stem}.csv has all"
        draw.text((270, 5), more, (60, 60, 60), letters(LETTERS + 3))
    for place, i in enumerate(chosen):
        image = Image.fromarray(np.ascontiguousarray(dataset.pixels[i]))
        width = image.width
        image.thumbnail((side - 8, side - 8))
        scale = image.width / width
        for coin in coins[i] if coins else ():
            outline = [(float(x), float(y)) for x, y in (coin.outline + 0.5) * scale - 0.5]
            ImageDraw.Draw(image).line([*outline, outline[0]], fill=OUTLINE)
        left, top = place % columns * side, above + place // columns * step
        corner = (left + (side - image.width) // 2, top + (side - image.height) // 2)
        sheet.paste(image, corner)
        for ring, colour in enumerate(frames.get(i, [])):
            grown = 2 + 2 * ring
            box = (corner[0] - grown, corner[1] - grown, corner[0] + image.width + grown - 1)
            draw.rectangle((*box, corner[1] + image.height + grown - 1), outline=colour, width=2)
        draw.text((left + 4, top + side), fitted(plain(dataset.ids[i]), font, side - 8), (40, 40, 40), font)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    write_atomic(path, lambda file: sheet.save(file, format=kind, quality=88))
