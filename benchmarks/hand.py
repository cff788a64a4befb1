"""How many clicks and keys it takes to correct a gallery: `python -m benchmarks hand --results results/`.

An expert who knows each coin at sight puts every image where its label belongs: into the largest cluster in which that
label is the most frequent, or, where there is none, into a new one. A browser does it with real clicks and keys, which
the page counts. Beside it the same work by ways that leave out what is quick. Labels are read for this alone.
"""

import argparse
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from benchmarks.setting import CHECKOUT, Ratio
from console import UserError, progress
from console.parser import commit_of
from machine.reading import whole_number

COUNT = """
for (const [event, kind] of [["pointerdown", "click"], ["keydown", "key"]])
  addEventListener(event, (one) => {
    if (one.isTrusted && !one.repeat && !["Control", "Shift", "Alt", "Meta"].includes(one.key)) tellAction(kind);
  }, true);
"""
POINT, CLICK, KEY = 1.1, 0.2, 0.28  # seconds: the keystroke-level model (Card, Moran and Newell 1980), average typist
RANGE = 3  # images in a row from which Shift and a click are fewer actions than a click each
WAYS = {
    "all that there is": "Shift for rows, R where the rival is right, a letter for a target that was used before",
    "without letters": "the same, but each target is looked for: M, its number, Enter",
    "selections alone": "a click for each image, then M, its number, Enter",
    "one by one": "for each image a click, M, the number, Enter",
}


@dataclass
class Work:
    """What was done, and what it took."""

    images: int  # of the gallery, in a cluster
    moved: int = 0
    actions: Counter[str] = field(default_factory=Counter)  # "click", "key"
    right: int = 0  # images in a cluster of their label afterwards

    @property
    def each(self) -> float:
        """Actions for each image that was moved."""
        return self.actions.total() / self.moved

    @property
    def minutes(self) -> float:
        """Of a hand that need not think, by the keystroke-level model."""
        return (self.actions["click"] * (POINT + CLICK) + self.actions["key"] * KEY) / 60


@dataclass(frozen=True)
class Spot:
    """An image of the gallery."""

    id: str
    cluster: int
    label: str
    rival: int


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="a gallery of labelled images (results/)"
    )
    parser.add_argument("--ways", type=int, choices=range(1, len(WAYS) + 1), default=len(WAYS), help="so many (all)")


def run(options: argparse.Namespace) -> None:
    folder = newest_epoch(options.results)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise UserError("no chromium is installed, which does the clicks")
    done: dict[str, Work] = {}
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for way in [*WAYS][: options.ways]:
            page = chromium.new_context(viewport={"width": 1400, "height": 900}).new_page()
            done[way] = correct(page, folder, way)
            page.context.close()
        chromium.close()
    print("| way | moved | clicks | keys | actions for each | minutes |\n|---|---|---|---|---|---|")
    for way, work in done.items():
        actions = work.actions
        print(
            f"| {way} | {work.moved} of {work.images} | {actions['click']} | {actions['key']} | {work.each:.2f} | "
            f"{work.minutes:.0f} |"
        )
    first, *others = done.values()
    print(f"{first.right} of {first.images} are then in a cluster of their label; commit {commit_of(CHECKOUT)}")
    for way, work in zip([*done][1:], others, strict=True):
        print(Ratio(way, work.each / first.each, "actions"))


def newest_epoch(results: Path) -> Path:
    """The folder of the newest epoch that was explained."""
    epochs = {number: path.parent for path in results.glob("*/map.html") if (number := whole_number(path.parent.name))}
    if not epochs:
        raise UserError(f"{results}: no gallery: `python -m explain --run exp/` makes one")
    return epochs[max(epochs)]


def correct(page: Page, folder: Path, way: str) -> Work:
    """Put each image of a gallery into a cluster of its label, by one of WAYS.

    Args:
        page: of a browser that holds no edits of this gallery.
        folder: of the epoch, with labelled images.
        way: how.

    Raises:
        UserError: if the images have no labels.
    """
    page.goto((folder / "map.html").resolve().as_uri())
    told = page.evaluate("spots.map(([id, cluster, , , , , label, rival]) => [id, cluster, label, rival])")
    spots = [Spot(*one) for one in told]
    if not all(spot.label for spot in spots):
        raise UserError(f"{folder}: its images have no labels, so nothing says where they belong")
    work = Work(len(spots))
    page.expose_binding("tellAction", lambda _, kind: work.actions.update([kind]))
    page.add_init_script(COUNT)
    members: dict[int, list[Spot]] = {}
    for spot in spots:
        members.setdefault(spot.cluster, []).append(spot)
    label_of = {number: Counter(spot.label for spot in some).most_common(1)[0][0] for number, some in members.items()}
    homes: dict[str, int] = {}
    for number in sorted(members, key=lambda one: -len(members[one])):
        homes.setdefault(label_of[number], number)
    numbers = page.evaluate("clusters.map((one) => one.number)")
    page.goto((folder / str(numbers[0]) / "index.html").resolve().as_uri())
    work.actions["click"] += 1  # on the overview
    for number in progress(numbers, way, unit="clusters"):
        page.wait_for_function(f"typeof page !== 'undefined' && data.cluster === {number} && page.coins.length > 0")
        strays = {spot.id: spot for spot in members[number] if spot.label != label_of[number]}
        work.moved += len(strays)
        correct_page(page, strays, label_of, homes, way)
        if number != numbers[-1]:
            page.keyboard.press("n")
    page.goto((folder / "map.html").resolve().as_uri())
    if not work.moved:
        raise UserError(f"{folder}: each image is in a cluster of its label: there is nothing to correct")
    places = page.evaluate("spots.map((spot) => map.placeOf(map.coin(spot)))")
    at = label_of | {number: label for label, number in homes.items()}
    work.right = sum(at.get(place) == spot.label for place, spot in zip(places, spots, strict=True))
    return work


def correct_page(
    page: Page, strays: dict[str, Spot], label_of: dict[int, str], homes: dict[str, int], way: str
) -> None:
    """Move the strays of the cluster whose page is open; a label without a home gets one, which joins `homes`."""
    page.evaluate("page.more(1e6)")
    order = page.evaluate("page.coins.map((coin) => coin.id)")
    at = {name: position for position, name in enumerate(order)}
    quick = way in ("all that there is", "without letters")
    if quick:
        by_rival = [name for name in order if name in strays and label_of.get(strays[name].rival) == strays[name].label]
        if by_rival:
            choose(page, [at[name] for name in by_rival], rows=True)
            page.keyboard.press("r")
        strays = {name: spot for name, spot in strays.items() if name not in by_rival}
    by_label: dict[str, list[int]] = {}
    for name in order:
        if name in strays:
            by_label.setdefault(strays[name].label, []).append(at[name])
    for label, positions in by_label.items():
        for group in [[one] for one in positions] if way == "one by one" else [positions]:
            choose(page, group, rows=quick)
            move(page, label, homes, letters=way == "all that there is")


def choose(page: Page, positions: list[int], rows: bool) -> None:
    """Select images of the page, by a click each, or, where some lie side by side, by the first and the last."""
    cards: Any = page.locator(".coin")
    begin = 0
    while begin < len(positions):
        end = begin
        while rows and end + 1 < len(positions) and positions[end + 1] == positions[end] + 1:
            end += 1
        if end - begin + 1 < RANGE:
            end = begin
        cards.nth(positions[begin]).locator(".caption").click(modifiers=["Control"])
        if end > begin:
            cards.nth(positions[end]).locator(".caption").click(modifiers=["Shift"])
        begin = end + 1


def move(page: Page, label: str, homes: dict[str, int], letters: bool) -> None:
    """Move what is selected to the home of a label."""
    if label not in homes:
        homes[label] = page.evaluate("Math.max(outputs - 1, ...clusters.map((one) => one.number), ...edits.made()) + 1")
        page.keyboard.press("+")
        return
    key = page.evaluate("number => hand.targets().find((one) => one.number === number)?.key", homes[label])
    if key and letters:
        page.keyboard.press(key)
        return
    page.keyboard.press("m")
    page.keyboard.type(str(homes[label]))
    page.keyboard.press("Enter")
