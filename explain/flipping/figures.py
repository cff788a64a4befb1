"""The pictures of a study, PNG and SVG each: shares, heat maps, rates per class, confusion, images and their flips."""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.colors import PowerNorm, to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from PIL import Image, ImageDraw

from datasets.lettering import letters
from explain.flipping.agreement import Maps
from explain.flipping.findings import STUDY, STUDY_NAME, Study
from machine.files import write_atomic
from runs.figures import encode_figure, new_figure

PANELS = 20  # classes with a map of their own
SHOWN = 60  # images with their flips
ACROSS = 12
LEGEND = 39  # classes in the legend of a confusion picture
SHEET, SHEET_ACROSS, CELL, LABEL = 240, 16, 84, 14  # images of a sheet and of its row; pixels of a cell, and below it
COMPARED = 8  # images beside the maps of methods
GREY, GREEN, RED, DARK = "#9aa0a6", "#3a7d44", "#c8553d", "#15171a"


def two_parts(figure: Figure, widths: tuple[float, float]) -> tuple[SubFigure, SubFigure]:
    """Left and right."""
    parts: Any = figure.subfigures(1, 2, width_ratios=widths)
    return parts[0], parts[1]


def save(figure: Figure, folder: Path, name: str) -> bytes:
    """NAME.png and NAME.svg, the same bytes for the same picture; returns the PNG."""
    pictures = {kind: encode_figure(figure, kind) for kind in ("png", "svg")}
    for kind, content in pictures.items():
        write_atomic(folder / f"{name}.{kind}", content, durable=False)
    return pictures["png"]


def draw_shares(studies: Sequence[Study], with_known: bool) -> Figure:
    """Wrong, robust and changed shares; beside them, as long as the wrong ones, those two that matter."""
    rows = [(study.title, study.shares) for study in studies]
    if with_known:
        rows.append((STUDY_NAME, STUDY))
    figure = new_figure(11, 1.3 + 0.45 * len(rows))
    whole, part = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    places = np.arange(len(rows))[::-1]
    for at, (_, (wrong, robust, changed)) in zip(places, rows, strict=True):
        whole.barh(at, robust, color=GREEN)
        whole.barh(at, changed, left=robust, color=RED)
        whole.barh(at, wrong, left=robust + changed, color=GREY)
        whole.text(robust / 2, at, f"{robust:.1%}", ha="center", va="center", color="white", fontsize=9)
        part.barh(at, changed, color=RED)
        part.barh(at, wrong, left=changed, color=GREY)
        if changed:
            part.text(changed / 2, at, f"{changed:.1%}", ha="center", va="center", color="white", fontsize=8)
        if wrong:
            part.text(changed + wrong / 2, at, f"{wrong:.1%}", ha="center", va="center", fontsize=8)
    whole.set_yticks(places, [title for title, _ in rows])
    whole.set(xlim=(0, 1), title="all images")
    part.set(
        xlim=(0, 1.05 * max(1e-3, *(shares[0] + shares[2] for _, shares in rows))), title="those not robust, larger"
    )
    for axis in (whole, part):
        axis.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=None))
        axis.spines[["top", "right"]].set_visible(False)
    words = ("right and robust", "right, changed by a flip", "wrong from the outset")
    handles = [Patch(color=colour, label=word) for colour, word in zip((GREEN, RED, GREY), words, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def shown_classes(studies: Sequence[Study]) -> np.ndarray:
    """Those with a panel of their own: all, or where they are many the ones that change most often."""
    total = np.sum([study.per_class[:, 1] for study in studies], axis=0)
    return np.sort(np.argsort(-total, kind="stable")[:PANELS])


def brightest(studies: Sequence[Study]) -> tuple[float, float]:
    """The largest share of a map of all images, and of a class: the common ends of the colour scales."""
    ends = [
        max(float(heat.max()) for heat in kind)
        for kind in ([s.heat_of_all() for s in studies], [s.heat() for s in studies])
    ]
    return max(ends[0], 1e-9), max(ends[1], 1e-9)


def mark(bar: Any, end: float) -> None:
    """Five shares up to `end`, evenly spaced where the colour is the square root."""
    ticks = end * np.linspace(0, 1, 5) ** 2
    bar.set_ticks(ticks, labels=[f"{tick:.2%}" for tick in ticks])


def flatness(study: Study) -> float:
    """Height of a map of flips over its width: 1 of a square image, 1/4 of an unrolled coin."""
    return study.grid[0] / study.grid[1]


def draw_heat(study: Study, names: Sequence[str], word: str, ends: tuple[float, float], classes: np.ndarray) -> Figure:
    """Where a flip changes the answer, of all images and of each class; bright is unstable, all have one scale."""
    across = 5
    down = -(-len(classes) // across)
    figure = new_figure(13, 1.2 + max(2.8, (0.35 + 1.35 * flatness(study)) * down))
    left, right = two_parts(figure, (2, 3.4))
    axis = left.subplots()
    style: dict[str, Any] = {"cmap": "inferno", "interpolation": "nearest"}
    drawn = axis.imshow(study.heat_of_all(), norm=PowerNorm(0.5, 0, ends[0]), **style)
    axis.set(title=f"all {word}s", xticks=[], yticks=[])
    bar = left.colorbar(drawn, ax=axis, shrink=0.8, location="bottom", label="right images that this flip changes")
    mark(bar, ends[0])
    axes = right.subplots(down, across, squeeze=False)
    heat = study.heat()
    for axis, number in zip(axes.flat, classes, strict=False):
        drawn = axis.imshow(heat[number], norm=PowerNorm(0.5, 0, ends[1]), **style)
        count, changed = study.per_class[number]
        axis.set_title(f"{names[number]}   ({changed} of {count})", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis in axes.flat[len(classes) :]:
        axis.axis("off")
    mark(right.colorbar(drawn, ax=list(axes.flat), shrink=0.8, label=f"of the {word}'s right images"), ends[1])
    figure.suptitle(f"{study.title}: where one flip changes the answer (colour: square root of the share)", fontsize=11)
    return figure


def draw_classes(study: Study, names: Sequence[str], word: str, top: float) -> Figure:
    """Instability of each class with its 95 % interval; `top` is the end of all networks' scales."""
    figure = new_figure(max(6.5, 0.32 * study.classes + 2), 3.6)
    axis = figure.subplots()
    rates = np.nan_to_num(study.rates)
    low, high = np.nan_to_num(np.array(study.intervals())).T
    axis.bar(range(study.classes), rates, color=RED)
    spread = np.maximum(0, [rates - low, high - rates])
    axis.errorbar(range(study.classes), rates, spread, fmt="none", ecolor=DARK, elinewidth=1, capsize=3)
    axis.set_xticks(range(study.classes), names, rotation=90 if max(map(len, names)) > 3 else 0)
    axis.set(xlabel=word, ylabel="changed by at least one flip", ylim=(0, top), title=f"{study.title}: instability")
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    return figure


def highest(studies: Sequence[Study]) -> float:
    """The common end of the scales of `draw_classes`."""
    return 1.05 * max(1e-3, *(float(np.nan_to_num(np.array(study.intervals())).max()) for study in studies))


def draw_confusion(study: Study, names: Sequence[str], word: str, classes: np.ndarray) -> Figure:
    """For each class a map with the colour of what a flip there most often makes of it; and the table of all flips."""
    across = 5
    down = -(-len(classes) // across)
    colours = palette(study.classes)
    figure = new_figure(14, 1.3 + max(3.7, (0.4 + 1.45 * flatness(study)) * down))
    left, right = two_parts(figure, (1.6, 1))
    axes = left.subplots(down, across, squeeze=False)
    commonest = study.commonest()
    for axis, number in zip(axes.flat, classes, strict=False):
        axis.imshow(np.array([*colours, to_rgba(DARK)])[commonest[number]])  # -1, none, is the last
        axis.set_title(f"{names[number]} becomes", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis in axes.flat[len(classes) :]:
        axis.axis("off")
    drawn = np.bincount(commonest[classes][commonest[classes] >= 0], minlength=study.classes)
    seen = sorted(i for i in np.argsort(-drawn, kind="stable")[:LEGEND].tolist() if drawn[i])
    left.legend(
        handles=[Patch(color=colours[i], label=names[i]) for i in seen] + [Patch(color=DARK, label="none")],
        loc="outside lower center",
        ncols=10,
        frameon=False,
        fontsize=8,
        title=f"the {word} that a flip there makes of it most often",
    )
    axis = right.subplots()
    table = study.confusion
    axis.imshow(np.sqrt(table), cmap="Reds", vmin=0, vmax=max(1.0, float(np.sqrt(table.max()))))
    if study.classes <= 12:
        for row, column in zip(*np.nonzero(table), strict=True):
            shade = "white" if table[row, column] > 0.4 * table.max() else DARK
            axis.text(column, row, str(table[row, column]), ha="center", va="center", fontsize=7, color=shade)
        axis.set_xticks(range(study.classes), names)
        axis.set_yticks(range(study.classes), names)
    axis.set(xlabel="becomes", ylabel=f"{word}", title="flips that change it")
    figure.suptitle(f"{study.title}: what a flip makes of it", fontsize=11)
    return figure


def palette(count: int) -> list[tuple[float, float, float, float]]:
    """A colour for each class."""
    name = "tab10" if count <= 10 else "tab20" if count <= 20 else "turbo"
    colours = matplotlib.colormaps[name]
    if count <= 20:
        return [colours(i) for i in range(count)]
    return [colours(i / (count - 1)) for i in range(count)]


def order_images(study: Study) -> np.ndarray:
    """Rows of all changed images: class by class, those that most flips change first."""
    rows = np.flatnonzero(study.is_changed)
    flips = np.bincount(study.changes.image[study.counts], minlength=len(study.right))[rows]
    return rows[np.lexsort((rows, -flips, study.right[rows]))]


def flips_by_image(study: Study) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Of each changed image's row the flips that change it, and what they make of it."""
    image = study.changes.image[study.counts]
    flip, becomes = study.changes.flip[study.counts], study.changes.becomes[study.counts]
    bounds = np.flatnonzero(np.diff(image, prepend=-1, append=-1))
    return {int(image[a]): (flip[a:b], becomes[a:b]) for a, b in pairwise(bounds.tolist())}


def paint_flips(
    image: np.ndarray, flips: np.ndarray, becomes: np.ndarray, colours: np.ndarray, across: int, patch: int
) -> np.ndarray:
    """An image (H, W, 3) in 0..1 with flips in the colour of what they make of it; darkened behind single pixels."""
    drawn = image * (0.75 if patch == 1 else 1)
    for flip, to in zip(flips, becomes, strict=True):
        y, x = flip // across * patch, flip % across * patch
        area = drawn[y : y + patch, x : x + patch]
        area[:] = colours[to] if patch == 1 else 0.45 * area + 0.55 * colours[to]
    return drawn


def draw_sheet(
    study: Study,
    names: Sequence[str],
    rows: np.ndarray,
    by_image: Mapping[int, tuple[np.ndarray, np.ndarray]],
    images: np.ndarray,
    patch: int,
) -> Image.Image:
    """Up to SHEET images (n, H, W, 3) in 0..1 of `rows` with their flips.

    Below each stands its class, what it becomes most often, and how many flips change it.
    """
    colours = np.array(palette(study.classes))[:, :3]
    wide, high = (round(CELL * stretch) for stretch in stretches(images))
    across = min(SHEET_ACROSS * CELL // wide, len(rows))
    gap, tall = 3, high + LABEL
    sheet = Image.new("RGB", (across * (wide + gap) + gap, -(-len(rows) // across) * (tall + gap) + gap), "white")
    pen, font = ImageDraw.Draw(sheet), letters(LABEL - 4)
    for place, (row, image) in enumerate(zip(rows.tolist(), images, strict=True)):
        flips, becomes = by_image[row]
        drawn = paint_flips(image, flips, becomes, colours, study.grid[1], patch)
        picture = Image.fromarray((drawn * 255).round().astype(np.uint8))
        sampling = Image.Resampling.NEAREST if picture.width <= wide else Image.Resampling.LANCZOS
        left, top = gap + place % across * (wide + gap), gap + place // across * (tall + gap)
        sheet.paste(picture.resize((wide, high), sampling), (left, top))
        commonest = int(np.bincount(becomes).argmax())
        label = f"{names[study.right[row]]} \u2192 {names[commonest]}: {len(flips)}"
        pen.text((left + wide / 2, top + high), label, "black", font, anchor="ma")
    return sheet


def stretches(images: np.ndarray) -> tuple[float, float]:
    """By how much images (n, H, W, 3) are wider and higher than a square of as many pixels."""
    height, width = images.shape[1:3]
    return (width / height) ** 0.5, (height / width) ** 0.5


def as_png(picture: Image.Image) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def draw_maps(study: Study, names: Sequence[str], maps: Maps, images: np.ndarray, patch: int) -> Figure:
    """A few images (n, H, W, 3) in 0..1 with their flips, what each flip costs, and what methods say of them."""
    titles = ["flips that change it", "cost of each flip", *maps.said]
    wide, high = stretches(images)
    figure = new_figure(1.75 * wide * len(titles) + 0.5, 1.62 * high * len(images) + 0.9)
    axes = figure.subplots(len(images), len(titles), squeeze=False)
    colours, by_image = np.array(palette(study.classes))[:, :3], flips_by_image(study)
    nothing = np.zeros(0, int), np.zeros(0, int)
    for line, image, row, place in zip(axes, images, maps.rows.tolist(), range(len(images)), strict=False):
        line[0].imshow(paint_flips(image, *by_image.get(row, nothing), colours, study.grid[1], patch))
        line[0].set_ylabel(names[study.right[row]])
        for axis, values in zip(line[1:], [maps.costs, *maps.said.values()], strict=True):
            cells = values[place].reshape(study.grid)
            end = max(float(np.abs(cells).max()), 1e-12)
            axis.imshow(cells, cmap="RdBu_r", vmin=-end, vmax=end, interpolation="nearest")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title("\n".join(wrap(title, 22)), fontsize=8)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    figure.suptitle(
        f"{study.title}: what flips cost, and what methods say (red much, blue the opposite, each map by itself)",
        fontsize=10,
    )
    return figure


def choose_images(study: Study) -> np.ndarray:
    """Rows of changed images to show: half of them with the most flips, half drawn evenly from the rest, by class."""
    rows = np.flatnonzero(study.is_changed)
    flips = np.bincount(study.changes.image[study.counts], minlength=len(study.right))[rows]
    order = rows[np.argsort(-flips, kind="stable")]
    if len(order) > SHOWN:
        rest = order[SHOWN // 2 :]
        order = np.concatenate(
            [order[: SHOWN // 2], rest[np.linspace(0, len(rest) - 1, SHOWN - SHOWN // 2).astype(int)]]
        )
    return order[np.argsort(study.right[order], kind="stable")]


def draw_images(study: Study, names: Sequence[str], rows: np.ndarray, images: np.ndarray, patch: int) -> Figure:
    """Images (n, H, W, 3) in 0..1 of `rows`, with the flips that change them in the colour of what they become."""
    wide, high = stretches(images)
    across = min(int(ACROSS / wide), len(rows))
    down = -(-len(rows) // across)
    colours = np.array(palette(study.classes))[:, :3]
    figure = new_figure(max(5.0, 1.05 * wide * across), (1.05 * high + 0.17) * down + 0.9)
    axes = figure.subplots(down, across, squeeze=False)
    becomes_any: set[int] = set()
    by_image = flips_by_image(study)
    for axis, row, image in zip(axes.flat, rows, images, strict=False):
        flips, becomes = by_image[int(row)]
        drawn = paint_flips(image, flips, becomes, colours, study.grid[1], patch)
        becomes_any |= set(becomes.tolist())
        axis.imshow(drawn, interpolation="nearest")
        axis.set_title(f"{names[study.right[row]]}: {len(flips)}", fontsize=8, pad=2)
    for axis in axes.flat:
        axis.axis("off")
    figure.legend(
        handles=[Patch(color=colours[i], label=names[i]) for i in sorted(becomes_any)[:24]],
        loc="outside lower center",
        ncols=12,
        frameon=False,
        fontsize=8,
        title="becomes",
        title_fontsize=8,
    )
    figure.suptitle(
        f"{study.title}: {len(rows)} of {int(study.is_changed.sum())} changed images, class: flips", fontsize=10
    )
    return figure
