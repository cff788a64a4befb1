"""The pictures of dots and line: what changes the answer, where the large dot may lie, what Grad-CAM shows."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch

from datasets.dots import CLASSES, GAP, LARGE, ON, PARTS, SIDE, SMALL, Scenes, draw_scenes, side_of_large
from explain.attribution import attribute
from explain.dots.answers import CONDITIONS, Measured, answer, images_of
from explain.rendering import overlay
from runs.figures import new_figure
from supervised.learners import compute_logits
from supervised.models import ClassNet

COLOURS = ("#9bbcd9", "#f2c77e", "#a9d39e")  # of the classes
GROUPS = ("#4c78a8", "#e45756")  # of the models
STEP = 0.5  # pixels between the places that the large dot is tried at
LAID = ((ON, 14.0), (1, 22.0), (2, 5.0))  # class and height of the small dot in the pictures of `draw_moves`
LINE, AT = 14, 9.0  # their line's row, and how far to the right their small dot lies


def draw_measures(measured: Mapping[str, Sequence[Measured]]) -> Figure:
    """Share right under each condition, and heat on each part over its area; name of a model -> its runs."""
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2, width_ratios=(7, 3.6))
    width = 0.8 / len(measured)
    for i, (name, runs) in enumerate(measured.items()):
        for axis, values in (
            (left, np.array([[one.right[key].value for key in CONDITIONS] for one in runs])),
            (right, np.array([[one.heat[part] for part in PARTS] for one in runs])),
        ):
            at = np.arange(values.shape[1]) + (i - (len(measured) - 1) / 2) * width
            axis.bar(at, values.mean(0), width * 0.92, color=GROUPS[i], label=name)
            for value in values:
                axis.plot(at, value, "o", color="black", markersize=2.5)
    left.set(ylim=(0, 1.05), ylabel="share right", title="The large dot is changed, nothing else")
    left.set_xticks(range(len(CONDITIONS)), [name.replace(" ", "\n", 1) for name in CONDITIONS])
    left.axhline(1 / len(CLASSES), color="black", linewidth=0.8, linestyle=":")
    left.text(1.005, 1 / len(CLASSES), "chance", transform=left.get_yaxis_transform(), va="center", fontsize=8)
    right.set(ylabel="heat / area", title="Grad-CAM of the own answer")
    right.set_xticks(range(len(PARTS)), [f"{part} dot" if part != "line" else part for part in PARTS])
    right.axhline(1, color="black", linewidth=0.8, linestyle=":")
    right.text(1.01, 1, "evenly", transform=right.get_yaxis_transform(), va="center", fontsize=8)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def draw_moves(networks: Mapping[str, ClassNet]) -> Figure:
    """The answer for each place of the large dot, in one picture of each class; a row for each network."""
    axis_values = np.arange(LARGE, SIDE - 1 - LARGE + STEP / 2, STEP)
    x, y = (grid.ravel() for grid in np.meshgrid(axis_values, axis_values))
    large = np.stack([x, y], 1)
    figure = new_figure(8.4, 2.85 * len(networks) + 0.35)
    axes = figure.subplots(len(networks), len(LAID), squeeze=False)
    half = STEP / 2
    edges = (axis_values[0] - half, axis_values[-1] + half, axis_values[-1] + half, axis_values[0] - half)
    for row, (name, net) in zip(axes, networks.items(), strict=True):
        for axis, (label, height) in zip(row, LAID, strict=True):
            count = len(large)
            small = np.broadcast_to([AT, height], (count, 2))
            scenes = Scenes(np.full(count, label), np.full(count, LINE), small, large)
            given = answer(net, scenes)
            touches = np.hypot(*(large - small).T) < SMALL + LARGE + GAP
            shown = np.ma.masked_array(given, touches).reshape(len(axis_values), -1)
            style = {"cmap": ListedColormap(COLOURS), "vmin": -0.5, "vmax": len(CLASSES) - 0.5}
            axis.imshow(shown, extent=edges, interpolation="nearest", **style)
            axis.axhline(LINE, color="black", linewidth=1.5)
            axis.add_patch(Circle((AT, height), SMALL, color="black"))
            right = float((given[~touches] == label).mean())
            axis.set(xlim=(-0.5, SIDE - 0.5), ylim=(SIDE - 0.5, -0.5), xticks=[], yticks=[])
            axis.set_title(f"true: {CLASSES[label]}; right {right:.0%}", fontsize=10)
        row[0].set_ylabel(name)
    legend = [Patch(color=colour, label=name) for name, colour in zip(CLASSES, COLOURS, strict=True)]
    figure.legend(handles=legend, loc="outside lower center", ncols=len(CLASSES), title="answer", fontsize=9)
    return figure


def choose_examples(scenes: Scenes) -> np.ndarray:
    """Rows of six scenes: of each class one with the large dot on the small one's side, and one with it elsewhere."""
    same = side_of_large(scenes) == scenes.label
    rows = [np.flatnonzero((scenes.label == k) & (same == wanted)) for k in range(3) for wanted in (True, False)]
    return np.array([found[0] for found in rows if len(found)])


def draw_examples(net: ClassNet, scenes: Scenes, name: str) -> Figure:
    """Inputs with their true class, and beside each Grad-CAM for every class with its logit."""
    chosen = scenes[choose_examples(scenes)]
    pictures = draw_scenes(chosen)
    images = images_of(net, chosen)
    logits = compute_logits(net, images).cpu().numpy()
    maps = np.stack(
        [
            attribute(net, images, torch.full((len(chosen),), k), ["grad_cam"])["grad_cam"][:, 0].cpu().numpy()
            for k in range(len(CLASSES))
        ],
        1,
    )  # (N, classes, SIDE, SIDE)
    figure = new_figure(6.6, 1.62 * len(chosen) + 0.4)
    axes = figure.subplots(len(chosen), 1 + len(CLASSES), squeeze=False)
    for i, row in enumerate(axes):
        top = float(maps[i].max()) or 1.0
        photograph = pictures[i][..., None].repeat(3, 2)
        row[0].imshow(photograph, interpolation="nearest")
        row[0].set_title(f"true: {CLASSES[chosen.label[i]]}", fontsize=9)
        for k, axis in enumerate(row[1:]):
            axis.imshow(np.asarray(overlay(maps[i, k] / top, photograph).convert("RGB")), interpolation="nearest")
            said = logits[i].argmax() == k
            colour = ("black" if k == chosen.label[i] else "#c1121f") if said else "#66625b"
            weight = "bold" if said else "normal"
            axis.set_title(f"{CLASSES[k]}: {logits[i, k]:+.1f}", fontsize=9, color=colour, weight=weight)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    figure.suptitle(f"Trained on {name}: Grad-CAM for each class, and its logit", fontsize=11)
    return figure
