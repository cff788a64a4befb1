"""`python -m explain film`: how the maps of a few coins change over the epochs, as an animated GIF.

Made of the pictures that `explain --epoch all` has drawn; nothing is computed.
"""

import argparse
import io
from pathlib import Path

from PIL import Image, ImageDraw

import runs
from console import UserError, plain
from datasets.folder import refuse_inside
from datasets.lettering import fitted, letters
from datasets.view import PHOTOGRAPH as PHOTOGRAPH_VIEW
from explain.attribution.registry import PHOTOGRAPH, summary_method
from explain.rendering import SUFFIX, panels, read_picture
from explain.results import check_results, default_results
from machine.files import write_atomic
from machine.reading import read_csv, whole_number

EACH, LAST = 900, 2500  # milliseconds of an epoch, and of the last
GAP, HEAD, FOOT = 8, 30, 20
WIDEST = 65535  # pixels of a GIF
Frame = dict[str, tuple[str, Image.Image, Image.Image]]  # image -> its cluster, its photograph, its map


def film_command(options: argparse.Namespace) -> None:
    """`python -m explain film`."""
    run = runs.open_run(options.run)
    options.images = list(dict.fromkeys(options.images))
    for name in options.images:
        if name not in run.ids:
            raise UserError(f"--images {name}: is not an image of {run.path}: write it as in images.csv")
    if options.out.suffix.lower() != ".gif" or options.out.is_dir():
        raise UserError(f"--out {options.out}: name a file that ends with .gif")
    if not options.out.parent.is_dir():
        raise UserError(f"--out {options.out}: there is no such folder: name a file in one")
    refuse_inside(options.out, run.meta.dataset.source, "--out")
    results: Path = options.results or default_results(run.path)
    check_results(results, run)
    method = options.method or summary_method(run.meta.view.name != PHOTOGRAPH_VIEW)
    frames = {}
    for path in results.glob("*/explanations.csv"):
        epoch = whole_number(path.parent.name)
        if epoch is not None:
            frames[epoch] = read_frame(path, options.images, method)
    epochs = sorted(epoch for epoch, frame in frames.items() if len(frame) == len(options.images))
    if len(epochs) < 2:
        raise UserError(
            f"{results}: has {method} of all these images in {len(epochs)} epochs, two are needed: train with "
            "--save-every 1 --keep 99, then run python -m explain with --epoch all"
        )
    drawn = [
        draw_frame(f"{run.path.resolve().name}, {method}, epoch {epoch} of {epochs[-1]}", frames[epoch])
        for epoch in epochs
    ]
    width = max(frame.width for frame in drawn)
    if width > WIDEST:
        raise UserError(
            f"--images: {len(options.images)} of them are {width} pixels wide, a GIF {WIDEST} at most: name fewer"
        )
    write_atomic(options.out, as_gif(drawn))
    print(f"{options.out}: {len(options.images)} images over epochs {', '.join(map(str, epochs))}")


def read_frame(table: Path, images: list[str], method: str) -> Frame:
    """Of those images that have both pictures in an epoch, these; `table`: its explanations.csv."""
    home = table.parent.resolve()
    found: Frame = {}
    for row in read_csv(table):
        files = [row.get(PHOTOGRAPH), row.get(method)]
        if row.get("image") not in images or not all(files):
            continue
        # a received table names what it likes, and what is no picture is removed when it is read as one
        if any("\0" in str(file) or not str(file).endswith(tuple(SUFFIX.values())) for file in files):
            continue
        paths = [(home / str(file)).resolve() for file in files]
        if all(path.is_relative_to(home) and path.is_file() for path in paths):
            photograph, drawn = (read_picture(path) for path in paths)
            found[row["image"]] = (row.get("cluster", ""), photograph, panels(drawn)[-1])
    return {name: found[name] for name in images if name in found}


def draw_frame(title: str, frame: Frame) -> Image.Image:
    """An epoch: of each image its photograph above its map, with its name and the cluster it is in."""
    side = max(picture.height for _, *pictures in frame.values() for picture in pictures)
    picture = Image.new("RGB", (GAP + len(frame) * (side + GAP), HEAD + 2 * (side + GAP) + 2 * FOOT), "white")
    draw, font = ImageDraw.Draw(picture), letters(12)
    draw.text((GAP, 7), fitted(plain(title), letters(14), picture.width - 2 * GAP), "black", letters(14))
    for place, (name, (cluster, photograph, heat)) in enumerate(frame.items()):
        left = GAP + place * (side + GAP)
        for row, one in enumerate((photograph, heat)):
            picture.paste(one, (left + (side - one.width) // 2, HEAD + row * (side + GAP) + (side - one.height) // 2))
        below = HEAD + 2 * (side + GAP) - GAP + 4
        draw.text((left, below), fitted(plain(name), font, side), (60, 60, 60), font)
        draw.text((left, below + 17), fitted(plain(f"cluster {cluster}"), font, side), "black", font)
    return picture


def as_gif(frames: list[Image.Image]) -> bytes:
    """Frames as an endless GIF; the last stays longer."""
    reduced = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    duration = [EACH] * (len(frames) - 1) + [LAST]
    reduced[0].save(buffer, "gif", save_all=True, append_images=reduced[1:], duration=duration, loop=0, disposal=1)
    return buffer.getvalue()
