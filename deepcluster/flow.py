"""How clusters flow into each other from epoch to epoch: an alluvial picture of the assignments."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from runs import Run
from runs.figures import new_figure, save_figure

COLUMNS = 8  # epochs shown at most, the first and the last among them
SHOWN = 60  # clusters of an epoch shown at most, the largest; the others are one grey block
MATTERS = 0.25  # share of the cluster that it leaves, or of the one it enters, from which a flow is drawn
COLOURED = 10  # clusters of the last epoch that have a colour
MOSTLY = 0.5  # share of a flow's images that end in a coloured cluster, from which it has that colour
GAP, WIDTH = 0.5, 0.04  # share of a column's height between blocks; width of a block, in distances between columns
OTHERS = -1
GREY = (0.72, 0.72, 0.72)
PALETTE: Sequence[tuple[float, ...]] = [to_rgb(f"C{i}") for i in (0, 1, 2, 3, 4, 5, 6, 8, 9)] + [(0.1, 0.1, 0.35)]


@dataclass(frozen=True)
class Flow:
    """Images that are in one cluster of an epoch and in one of the next."""

    step: int  # from column `step` to the one after
    source: int
    target: int
    size: int
    colour: tuple[float, ...]


def draw_flow(run: Run, kinds: Sequence[str] = ("png",)) -> None:
    """figures/flow: the clusters of up to COLUMNS epochs as blocks, and what goes from one to the next."""
    epochs = [epoch for epoch in run.epochs() if run.has_clusters(epoch)]
    chosen = sorted({epochs[i] for i in np.linspace(0, len(epochs) - 1, min(COLUMNS, len(epochs))).round().astype(int)})
    shown = [largest(run.clusters(epoch).assignment, SHOWN) for epoch in chosen]
    orders = order_blocks(shown)
    coloured = [number for number in orders[-1] if number != OTHERS][:COLOURED]
    flows, left_out = flows_between(shown, coloured)
    most = max(len(order) for order in orders)
    figure = new_figure(max(5, 2 + 1.6 * len(chosen)), min(13, max(4, 1.6 + 0.2 * most)))
    axis = figure.subplots()
    places = [_places(order, column) for order, column in zip(orders, shown, strict=True)]
    _draw_flows(axis, flows, places, len(run.ids))
    _draw_blocks(axis, shown, places, coloured)
    axis.set_xticks(range(len(chosen)), [f"epoch {epoch}" for epoch in chosen])
    axis.set_yticks([])
    axis.set(xlim=(-0.25, len(chosen) - 0.75), ylim=(1.01, -0.01))
    for side in axis.spines.values():
        side.set_visible(False)
    axis.tick_params(length=0)
    between = "" if len(chosen) == len(epochs) else f", {len(chosen)} of {len(epochs)} epochs"
    figure.suptitle(f"{run.path.resolve().name}: how clusters flow from epoch to epoch{between}", fontsize=11)
    figure.supxlabel(_caption(shown, left_out), fontsize=8, x=0.01, ha="left", color="0.3")
    for kind in kinds:
        save_figure(run, f"flow.{kind}", figure)


def _caption(shown: Sequence[np.ndarray], left_out: float) -> str:
    lines = [
        f"Blocks: clusters, as high as they are large; the {COLOURED} largest of the last epoch have a colour, and",
        "what mostly ends in them. Numbers belong to one epoch: cluster 7 of the next is another.",
    ]
    if len(shown) > 1:
        lines.append(
            f"Left out: flows of less than {MATTERS:.0%} of both their clusters, {left_out:.0%} of all images a step"
        )
        others = any(bool((column == OTHERS).any()) for column in shown)
        lines[-1] += f"; what flows from or to clusters beyond the {SHOWN} largest (one grey block)." if others else "."
    return "\n".join(lines)


def largest(assignment: np.ndarray, most: int) -> np.ndarray:
    """(N,) clusters -> the same, but OTHERS for images outside the `most` largest clusters."""
    counts = np.bincount(assignment)
    if (counts > 0).sum() <= most:
        return assignment
    kept = np.argsort(-counts, kind="stable")[:most]
    return np.where(np.isin(assignment, kept), assignment, OTHERS)


def order_blocks(shown: Sequence[np.ndarray]) -> list[list[int]]:
    """Of each epoch its clusters from top to bottom.

    The last epoch's by size; each before it by where its images go on average, which keeps crossings few. OTHERS last.
    """
    last = shown[-1]
    numbers, counts = np.unique(last[last != OTHERS], return_counts=True)
    orders = [numbers[np.argsort(-counts, kind="stable")].tolist() + [OTHERS] * bool((last == OTHERS).any())]
    for before, after in zip(shown[-2::-1], shown[:0:-1], strict=True):
        height = np.zeros(len(after))
        for place, number in enumerate(orders[0]):
            height[after == number] = place
        found = np.unique(before[before != OTHERS]).tolist()
        found.sort(key=lambda number: float(height[before == number].mean()))
        orders.insert(0, found + [OTHERS] * bool((before == OTHERS).any()))
    return orders


def flows_between(shown: Sequence[np.ndarray], coloured: Sequence[int]) -> tuple[list[Flow], float]:
    """The flows that matter, and the share of images, of all steps, that are in none of them."""
    flows, drawn = [], 0
    for step, (before, after) in enumerate(pairwise(shown)):
        pairs, sizes = np.unique(np.stack([before, after]), axis=1, return_counts=True)
        for (source, target), size in zip(pairs.T.tolist(), sizes.tolist(), strict=True):
            if OTHERS in (source, target):
                continue
            if size < MATTERS * (before == source).sum() and size < MATTERS * (after == target).sum():
                continue
            drawn += size
            ends = shown[-1][(before == source) & (after == target)]
            flows.append(Flow(step, source, target, size, _colour(ends, coloured)))
    steps = len(shown) - 1
    return flows, 1 - drawn / (steps * len(shown[0])) if steps else 0.0


def _colour(ends: np.ndarray, coloured: Sequence[int]) -> tuple[float, ...]:
    """Of images by the cluster of the last epoch that they end in."""
    numbers, counts = np.unique(ends, return_counts=True)
    number = int(numbers[counts.argmax()])
    return PALETTE[coloured.index(number)] if number in coloured and counts.max() >= MOSTLY * len(ends) else GREY


def _places(order: Sequence[int], column: np.ndarray) -> dict[int, tuple[float, float]]:
    """Top and bottom of each block, in 0..1 downwards."""
    heights = {number: (1 - GAP) * float((column == number).sum()) / len(column) for number in order}
    gap = GAP / max(1, len(order) - 1)
    places, top = {}, 0.0
    for number in order:
        places[number] = (top, top + heights[number])
        top += heights[number] + gap
    return places


def _draw_flows(
    axis: Axes, flows: Sequence[Flow], places: Sequence[dict[int, tuple[float, float]]], count: int
) -> None:
    """Each flow as a band, as high as it is large among the `count` images."""
    starts, ends = (_stack(flows, places, end, count) for end in (0, 1))
    for flow, start, end in zip(flows, starts, ends, strict=True):
        height = (1 - GAP) * flow.size / count
        left, right = flow.step + WIDTH, flow.step + 1 - WIDTH
        middle = (left + right) / 2
        points = [(left, start), (middle, start), (middle, end), (right, end)]
        points += [(right, end + height), (middle, end + height), (middle, start + height), (left, start + height)]
        codes = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO, *[Curve.CURVE4] * 3]
        axis.add_patch(PathPatch(Curve(points, codes), facecolor=flow.colour, alpha=0.55, linewidth=0))


def _stack(
    flows: Sequence[Flow], places: Sequence[dict[int, tuple[float, float]]], end: int, count: int
) -> list[float]:
    """Where each flow begins (`end` 0) or ends (1): those of a block lie in the order of their other ends."""
    here = [(flow.step + end, (flow.source, flow.target)[end]) for flow in flows]
    there = [places[flow.step + 1 - end][(flow.target, flow.source)[end]][0] for flow in flows]
    used: dict[tuple[int, int], float] = {}
    tops = [0.0] * len(flows)
    for i in sorted(range(len(flows)), key=lambda i: there[i]):
        column, number = here[i]
        tops[i] = places[column][number][0] + used.get(here[i], 0.0)
        used[here[i]] = used.get(here[i], 0.0) + (1 - GAP) * flows[i].size / count
    return tops


def _draw_blocks(
    axis: Axes,
    shown: Sequence[np.ndarray],
    places: Sequence[dict[int, tuple[float, float]]],
    coloured: Sequence[int],
) -> None:
    """Each cluster as a bar with its number, to its left; in the last epoch to its right."""
    for column, (assignment, where) in enumerate(zip(shown, places, strict=True)):
        last = column == len(shown) - 1
        for number, (top, bottom) in where.items():
            colour = GREY if number == OTHERS else _colour(shown[-1][assignment == number], coloured)
            axis.add_patch(Rectangle((column - WIDTH, top), 2 * WIDTH, bottom - top, facecolor=colour, linewidth=0))
            text = "others" if number == OTHERS else str(number)
            if last:
                axis.text(column + 1.5 * WIDTH, (top + bottom) / 2, text, ha="left", va="center", fontsize=6.5)
            else:
                axis.text(column - 1.5 * WIDTH, (top + bottom) / 2, text, ha="right", va="center", fontsize=6.5)
