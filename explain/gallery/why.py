"""_why.jpg of a cluster: its most typical coins down, methods across, for folders seen without a browser and for texts.

Pictures are as large as they were drawn; heads, names and a colour bar say what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from console import plain
from datasets.lettering import fitted, letters, wrapped
from explain.attribution.registry import PHOTOGRAPH, Asked
from explain.record import Explanation, is_there
from explain.rendering import bar_as_drawn, encode_sheet, panels, read_picture
from machine.files import write_atomic

COINS = 4  # on a cluster's picture
GAP, MARGIN = 6, 12
SMALL, NORMAL, LARGE = 12, 14, 20  # letters, in pixels
BAR = (160, 12)
INK, FAINT = (20, 20, 20), (95, 95, 95)
CHANGE = ("where it was needed", "red: needed, blue: in the way")  # heads of the two panels of a change
OWN_SCALE = "of each map's own largest value"


@dataclass(frozen=True)
class Why:
    """What a picture shows."""

    title: str
    facts: str
    heads: Sequence[str]  # of the columns
    coins: Sequence[tuple[str, Sequence[Image.Image]]]  # name, and a square for each head
    colours: str | None  # of the bar, a key of COLOURS; None: no heat is shown


def write_why(explanation: Explanation) -> None:
    """_why.jpg of each cluster with pictures of all methods."""
    subject, paths, record = explanation.subject, explanation.paths, explanation.record
    methods = record.drawn()
    by_cluster: dict[int, list[int]] = {}
    for row in explanation.drawn_rows().tolist():
        members = by_cluster.setdefault(int(subject.clusters.assignment[row]), [])
        if len(members) < COINS and all(is_there(paths.of(row, one.key)) for one in methods):
            members.append(row)
    sizes = np.bincount(subject.clusters.assignment[subject.clusters.assignment >= 0])
    heat = any(one.name != PHOTOGRAPH and one.method.kind in ("heat", "fine", "view") for one in methods)
    for number, members in by_cluster.items():
        if not members:
            continue
        name = subject.clusters.names.get(number, "")
        explained = "" if explanation.choice.target == "own" else f", explained: {explanation.choice.target}"
        why = Why(
            f"{subject.group.capitalize()} {number}" + (f": {name}" if name else ""),
            f"{len(members)} of {sizes[number]} images, run {subject.run.path.resolve().name}, epoch {subject.epoch}"
            + explained,
            [head for one in methods for head in heads_of(one)],
            [(subject.run.ids[row], _squares(explanation, row, methods)) for row in members],
            explanation.choice.colours if heat else None,
        )
        sheet = encode_sheet(np.asarray(draw_why(why)))
        write_atomic(explanation.folder / str(number) / "_why.jpg", sheet, durable=False)


def heads_of(asked: Asked) -> list[str]:
    """A head for each square of a method's picture."""
    if asked.name != PHOTOGRAPH and asked.method.kind == "change":
        return [f"{asked.title}: {panel}" for panel in CHANGE]
    return [asked.title]


def _squares(explanation: Explanation, row: int, methods: Sequence[Asked]) -> list[Image.Image]:
    return [panel for one in methods for panel in panels(read_picture(explanation.paths.of(row, one.key)))]


def draw_why(why: Why) -> Image.Image:
    """The picture: title, heads, a row for each coin below its name, and what the colours mean."""
    cell = max(square.height for _, squares in why.coins for square in squares)
    large, normal, small = letters(LARGE), letters(NORMAL), letters(SMALL)
    width = max(2 * MARGIN + len(why.heads) * (cell + GAP) - GAP, 2 * MARGIN + 420)
    heads = [wrapped(head, small, cell) for head in why.heads]
    above = MARGIN + LARGE + NORMAL + 22
    deepest = max(len(lines) for lines in heads)
    first = above + deepest * (SMALL + 4) + 4
    step = SMALL + 8 + cell + GAP
    below = first + len(why.coins) * step
    sheet = Image.new("RGB", (width, below + (BAR[1] + 22 if why.colours else MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    room = width - 2 * MARGIN
    draw.text((MARGIN, MARGIN), fitted(plain(why.title), large, room), INK, large)
    draw.text((MARGIN, MARGIN + LARGE + 8), fitted(plain(why.facts), normal, room), FAINT, normal)
    for column, lines in enumerate(heads):
        top = above + (deepest - len(lines)) * (SMALL + 4)
        draw.multiline_text((MARGIN + column * (cell + GAP), top), "\n".join(lines), INK, small, spacing=3)
    for place, (name, squares) in enumerate(why.coins):
        top = first + place * step
        draw.text((MARGIN, top), fitted(plain(name), small, room), FAINT, small)
        for column, square in enumerate(squares):
            left = MARGIN + column * (cell + GAP) + (cell - square.width) // 2
            sheet.paste(square, (left, top + SMALL + 8 + (cell - square.height) // 2))
    if why.colours:
        _bar(sheet, draw, why.colours, below + 4, small)
    return sheet


def _bar(sheet: Image.Image, draw: ImageDraw.ImageDraw, colours: str, top: int, font: ImageFont.FreeTypeFont) -> None:
    """Heat's colours as they lie on a photograph, from 0 to 1."""
    stops = np.array([bar_as_drawn(colours, BAR[0])], np.uint8).repeat(BAR[1], 0)
    left = MARGIN + round(font.getlength("heat 0 "))
    draw.text((MARGIN, top - 2), "heat 0", INK, font)
    sheet.paste(Image.fromarray(stops), (left, top))
    draw.text((left + BAR[0] + 6, top - 2), f"1 {OWN_SCALE}", INK, font)
