"""How many clicks and keys it takes to correct a gallery: `python -m benchmarks hand --results results/`.

An expert who knows each coin at sight puts every image where its label belongs: into the largest cluster in which that
label is the most frequent, or, where there is none, into a new one. A browser does it with real clicks and keys, which
the page counts. Beside it the same work by ways that leave out what is quick. With --side COLUMN, one of the gallery's
own columns, the first way also splits clusters in which that is mixed, where the halves part it, and merges those of
one label and side. Labels and columns are read for this alone.
"""

import argparse
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright
from scipy.spatial import ConvexHull

from benchmarks.setting import CHECKOUT, Ratio
from console import UserError, progress
from console.parser import commit_of
from machine.reading import whole_number

COUNT = """
for (const [event, kind] of [["pointerdown", "click"], ["keydown", "key"]])
  addEventListener(event, (one) => {
    if (one.isTrusted && !one.repeat && !["Control", "Shift", "Alt", "Meta"].includes(one.key)) tellAction(kind);
  }, true);
let wheeled = -Infinity;
addEventListener("wheel", (one) => {
  if (one.isTrusted && one.timeStamp - wheeled > 400) tellAction("wheel");
  wheeled = one.timeStamp;
}, true);
"""
POINT, CLICK, KEY = 1.1, 0.2, 0.28  # seconds: the keystroke-level model (Card, Moran and Newell 1980), average typist
RANGE = 3  # images in a row from which Shift and a click are fewer actions than a click each
TOGETHER = 3  # images of one label on the map from which a lasso is fewer actions than their pages
APART = 3  # pixels of the whole map that a lasso keeps from what it encircles: a hand's precision once it is enlarged
CLOSER = 4.0  # times, at most, that the map is enlarged for a lasso
MIXED = 2  # images whose side is known and another than most: from so many on a cluster is looked at in two halves
ALL = "all that there is"
WAYS = {
    ALL: "a lasso on the map around what belongs together, then the pages",
    "pages alone": "Shift for rows, R where the rival is right, a letter for a target that was used before",
    "without letters": "the same, but each target is looked for: M, its number, Enter",
    "selections alone": "a click for each image, then M, its number, Enter",
    "one by one": "for each image a click, M, the number, Enter",
}


@dataclass
class Work:
    """What was done, and what it took."""

    images: int  # of the gallery, in a cluster
    moved: int = 0
    encircled: int = 0  # of these on the map
    split: int = 0  # moved besides, into halves that became clusters
    looked: int = 0  # clusters whose halves were looked at
    merged: int = 0  # clusters
    joined: int = 0  # images of these
    sided: int = 0  # images whose side is known, and of these ...
    alike: int = 0  # ... with most of their cluster's, afterwards
    actions: Counter[str] = field(default_factory=Counter)  # "click", "key", "wheel"
    right: int = 0  # images in a cluster of their label afterwards

    @property
    def each(self) -> float:
        """Actions for each image that was moved."""
        return self.actions.total() / self.moved

    @property
    def of_all(self) -> float:
        """Actions for each image whose cluster changed, by a merge too."""
        return self.actions.total() / (self.moved + self.split + self.joined)

    @property
    def minutes(self) -> float:
        """Of a hand that need not think, by the keystroke-level model."""
        pointed = self.actions["click"] + self.actions["wheel"]
        return (pointed * (POINT + CLICK) + self.actions["key"] * KEY) / 60


@dataclass(frozen=True)
class Spot:
    """An image of the gallery."""

    id: str
    cluster: int
    label: str
    rival: int
    side: str = ""  # '': not known


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="a gallery of labelled images (results/)"
    )
    parser.add_argument(
        "--side",
        metavar="COLUMN",
        help="own column by which clusters are also split and merged, with all that there is",
    )
    parser.add_argument("--ways", type=int, choices=range(1, len(WAYS) + 2), help="so many (all)")


def run(options: argparse.Namespace) -> None:
    folder = newest_epoch(options.results)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise UserError("no chromium is installed, which does the clicks")
    done: dict[str, Work] = {}
    ways = [*([(ALL, options.side)] if options.side else []), *((way, None) for way in WAYS)]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for way, column in ways[: options.ways]:
            page = chromium.new_context(viewport={"width": 1400, "height": 900}).new_page()
            done[f"{way}, by {column} too" if column else way] = correct(page, folder, way, column)
            page.context.close()
        chromium.close()
    print("| way | moved | clicks | wheel | keys | actions for each | minutes |\n|---|---|---|---|---|---|---|")
    for way, work in done.items():
        actions = work.actions
        print(
            f"| {way} | {work.moved} of {work.images} | {actions['click']} | {actions['wheel']} | {actions['key']} | "
            f"{work.each:.2f} | {work.minutes:.0f} |"
        )
        if work.encircled or work.looked or work.merged:
            print(
                f"  on the map {work.encircled}; {work.looked} clusters looked at in halves, {work.split} images of "
                f"them moved; {work.merged} clusters merged, {work.joined} images: {work.of_all:.2f} actions for each "
                "image whose cluster changed"
                + (f"; {work.alike} of {work.sided} are then with their side" if work.sided else "")
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


def correct(page: Page, folder: Path, way: str, column: str | None = None) -> Work:
    """Put each image of a gallery into a cluster of its label, by one of WAYS.

    Args:
        page: of a browser that holds no edits of this gallery.
        folder: of the epoch, with labelled images.
        way: how.
        column: of the gallery's own, by which clusters are split and merged besides.

    Raises:
        UserError: if the images have no labels, or the gallery no such column.
    """
    page.goto((folder / "map.html").resolve().as_uri())
    names = page.evaluate("columns.map((one) => one.name)")
    if column is not None and column not in names:
        raise UserError(f"--side {column}: {folder} has no such column of yours: explain --table gives it some")
    told = page.evaluate(
        "at => spots.map(([id, cluster, , , , , label, rival, row]) => "
        "[id, cluster, label, rival, at < 0 ? '' : String(ownValues[at][row] ?? '')])",
        -1 if column is None else names.index(column),
    )
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
    left = {spot.id: spot for spot in spots if spot.label != label_of[spot.cluster]}
    if not left:
        raise UserError(f"{folder}: each image is in a cluster of its label: there is nothing to correct")
    work.moved = len(left)
    if way == ALL:
        encircle(page, folder, spots, left, homes, work)
    numbers = page.evaluate("clusters.map((one) => one.number)")
    page.goto((folder / str(numbers[0]) / "index.html").resolve().as_uri())
    work.actions["click"] += 1  # on the overview
    first_of: dict[tuple[str, str], int] = {}  # the clusters that others of their label and side are merged into
    for number in progress(numbers, way, unit="clusters"):
        page.wait_for_function(f"typeof page !== 'undefined' && data.cluster === {number} && page.coins.length > 0")
        strays = {spot.id: spot for spot in members[number] if spot.id in left}
        correct_page(page, strays, label_of, homes, way)
        if column is not None:
            stay = [spot for spot in members[number] if spot.label == label_of[number]]
            side = split_page(page, stay, label_of, work)
            if side and first_of.setdefault((label_of[number], side), number) != number:
                merge_page(page, first_of[label_of[number], side], work)
        if number != numbers[-1]:
            page.keyboard.press("n")
    page.goto((folder / "map.html").resolve().as_uri())
    places = page.evaluate("spots.map((spot) => map.placeOf(map.coin(spot)))")
    at = label_of | {number: label for label, number in homes.items()}
    work.right = sum(at.get(place) == spot.label for place, spot in zip(places, spots, strict=True))
    sides: dict[int, Counter[str]] = {}
    for place, spot in zip(places, spots, strict=True):
        if spot.side:
            sides.setdefault(place, Counter()).update([spot.side])
    work.sided = sum(one.total() for one in sides.values())
    work.alike = sum(max(one.values()) for one in sides.values())
    return work


def encircle(
    page: Page, folder: Path, spots: list[Spot], left: dict[str, Spot], homes: dict[str, int], work: Work
) -> None:
    """Move those strays that a lasso on the map reaches without any other image; they leave `left`."""
    page.goto((folder / "map.html").resolve().as_uri())
    work.actions["click"] += 1  # on the overview
    places = np.array(page.evaluate("spots.map((spot) => map.whole(spot))"))
    box = page.locator("#map").bounding_box()
    assert box is not None
    middle = np.array([box["width"], box["height"]]) / 2
    page.keyboard.press("l")
    for group in groups_of(spots, places, left, homes):
        some = places[group]
        centre = (some.min(0) + some.max(0)) / 2
        times = min(CLOSER, float((middle / (np.ptp(some, axis=0) + 4 * APART)).min()))
        page.mouse.move(*(np.array([box["x"], box["y"]]) + centre))
        page.mouse.wheel(0, -float(np.log(times)) / 0.0015)
        page.wait_for_function("was => map.zoom > was", arg=1 + (times - 1) / 2)
        way = around(some, APART) * page.evaluate("map.zoom") + page.evaluate("[map.x, map.y]")
        way += [box["x"], box["y"]]
        page.mouse.move(*way[0])
        page.mouse.down()
        for point in way[1:]:
            page.mouse.move(*point)
        page.mouse.up()
        chosen = set(page.evaluate("[...hand.chosen.keys()]"))
        if chosen != {spots[i].id for i in group}:  # the map's edge was in the way
            page.keyboard.press("Escape")
        else:
            move(page, spots[group[0]].label, homes, letters=True)
            work.encircled += len(chosen & left.keys())
            for name in chosen:
                left.pop(name, None)
        page.locator("#zoom-all").click()
        page.wait_for_function("map.zoom === 1")


def groups_of(spots: list[Spot], places: np.ndarray, left: dict[str, Spot], homes: dict[str, int]) -> list[list[int]]:
    """Strays of one label that lie together on the map, (N, 2) pixels, with none but those already at home between."""
    free = {i for i, spot in enumerate(spots) if spot.id in left}
    found: list[list[int]] = []
    for first in sorted(free):
        label = spots[first].label
        others = np.array(
            [
                not (i in free and spot.label == label) and spot.cluster != homes.get(label)
                for i, spot in enumerate(spots)
            ]
        )
        group = [first] if first in free else []
        while group:
            near = sorted(
                (i for i in free - {*group} if spots[i].label == label),
                key=lambda i: min(np.hypot(*(places[group] - places[i]).T)),
            )
            for one in near[:TOGETHER]:
                if not holds(around(places[[*group, one]], APART), places[others]).any():
                    group.append(one)
                    break
            else:
                break
        if len(group) >= TOGETHER:
            way = around(places[group], APART)
            inside = holds(way, places).nonzero()[0].tolist()
            found.append([*group, *(i for i in inside if i not in group)])
            free -= {*found[-1]}
    return found


def around(points: np.ndarray, apart: float) -> np.ndarray:
    """A closed convex way, (M, 2), that keeps `apart` from points (N, 2) inside it."""
    turns = np.arange(8) * np.pi / 4
    wide = (points[:, None] + apart * np.stack([np.cos(turns), np.sin(turns)], 1)).reshape(-1, 2)
    return wide[ConvexHull(wide).vertices]


def holds(way: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points (N, 2) a convex way holds, (N,) bool."""
    sides = ConvexHull(way).equations
    return (points @ sides[:, :2].T + sides[:, 2] < 0).all(1)


def split_page(page: Page, stay: list[Spot], label_of: dict[int, str], work: Work) -> str:
    """Look at the halves of the cluster whose page is open if its sides are mixed; its side then, '' if unclear."""
    sides = Counter(spot.side for spot in stay if spot.side)
    if not sides:
        return ""
    if sides.total() - sides.most_common(1)[0][1] < MIXED:
        return sides.most_common(1)[0][0]
    work.looked += 1
    page.locator("#split").click()
    half = dict(page.evaluate("page.movable().map((coin) => [coin.id, coin.half])"))
    parts = [Counter(spot.side for spot in stay if spot.side and half.get(spot.id) == one) for one in (0, 1)]
    if any(len(part) != 1 for part in parts) or parts[0].keys() == parts[1].keys():
        page.keyboard.press("Escape")
        return ""
    less = min((0, 1), key=[*half.values()].count)
    number = page.evaluate("Math.max(outputs - 1, ...clusters.map((one) => one.number), ...edits.made()) + 1")
    page.locator(f"#half-make-{less}").click()
    label_of[number] = stay[0].label
    work.split += [*half.values()].count(less)
    return next(iter(parts[1 - less]))


def merge_page(page: Page, into: int, work: Work) -> None:
    """Merge the cluster whose page is open into another."""
    page.locator("#cluster-merge").select_option(str(into))
    work.actions["click"] += 2  # a browser without a window opens no list
    work.merged += 1
    work.joined += page.evaluate("edits.ownSizeOf(data.cluster)")


def correct_page(
    page: Page, strays: dict[str, Spot], label_of: dict[int, str], homes: dict[str, int], way: str
) -> None:
    """Move the strays of the cluster whose page is open; a label without a home gets one, which joins `homes`."""
    page.evaluate("page.more(1e6)")
    order = page.evaluate("page.coins.map((coin) => coin.id)")
    at = {name: position for position, name in enumerate(order)}
    quick = way in (ALL, "pages alone", "without letters")
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
            move(page, label, homes, letters=way in (ALL, "pages alone"))


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
