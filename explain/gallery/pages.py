"""The pages: overview, doubtful images, map of all images, tree, one for each cluster, and the expert's new ones."""

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from console import UserError
from console.pages import templates_in
from explain.attribution.registry import METHODS, PHOTOGRAPH, Asked
from explain.attribution.targets import find_layer
from explain.audit.findings import FOLDER, read_said
from explain.doubt import DOUBTS, doubtful_first, doubts_of
from explain.gallery.cards import Card, make_cards
from explain.gallery.conclusions import conclude, copy_figures, count_empty, facts_of_run, terms_for, to_script
from explain.gallery.likeness import say_alike, size_and_colour
from explain.gallery.places import share_of_parts
from explain.gallery.sheets import ACROSS, STRIP, THUMBNAIL, TYPICAL, write_thumbnails
from explain.gallery.tree import draw_tree
from explain.record import MAXIMUM, Explanation
from explain.rendering import LOOK_UPS, OPAQUE, SUFFIX, bar_as_drawn
from explain.scores import map_in_words
from machine.files import write_atomic
from machine.reading import whole_number
from runs.tables import LOG

TEMPLATES = Path(__file__).parent.parent / "templates"
ASSETS = (  # of each epoch its own: an epoch that an earlier version explained keeps those that its pages are made for
    "gallery.css",
    "common.js",
    "edits.js",
    "hand.js",
    "own.js",
    "overview.js",
    "cluster.js",
    "doubtful.js",
    "map.js",
    "made.js",
    "tree.js",
)
ORIGINALS = (
    "originals.js"  # where the photographs are from here; the only file that differs if the results lie elsewhere
)
CLUSTERS = "clusters.js"  # of an epoch: what its pages know of the other clusters
IMAGES = "images.js"  # ... and of all images
DOUBTFUL = 2000  # images on the page of doubtful ones
PAGES = templates_in(TEMPLATES)


def write_pages(explanation: Explanation, caveat: dict[str, float], results: Path, to_come: Sequence[int] = ()) -> None:
    """The pages of one epoch; of the newest also results/index.html.

    Args:
        explanation: what was drawn.
        caveat: rank correlation with the untrained network's maps, by the method's key.
        results: the folder of all epochs.
        to_come: epochs that the same call explains next.
    """
    subject, folder = explanation.subject, explanation.folder
    rows = explanation.drawn_rows().tolist()
    doubts = doubts_of(explanation)
    cards = make_cards(explanation, rows, doubts)
    there = [whole_number(path.parent.name) for path in results.glob("*/explanations.csv")]
    epochs = sorted({*to_come, *(epoch for epoch in there if epoch is not None)})  # not a copy called "10 (1)"
    tree = draw_tree(explanation)
    shared = common(explanation, caveat, cards) | {"has_tree": tree is not None}
    for name in ASSETS:
        write_atomic(folder / name, (TEMPLATES / name).read_bytes(), durable=False)
    write_atomic(results / ORIGINALS, to_script(originals=originals_from(explanation, results)), durable=False)
    look_up = LOOK_UPS[explanation.choice.colours].tobytes().hex()
    known = [{"number": c.number, "name": c.name, "size": c.size, "nearest": c.nearest} for c in cards]
    script = to_script(
        clusters=known, outputs=subject.clusters.outputs, strip=STRIP, lookUp=look_up, opaque=OPAQUE,
        columns=[{"name": name, "numbers": isinstance(values, np.ndarray)} for name, values in explanation.own.items()],
    )  # fmt: skip
    write_atomic(folder / CLUSTERS, script, durable=False)
    thumbnails = {"sheets": write_thumbnails(explanation), "side": THUMBNAIL, "across": ACROSS}
    own_values = [[_own(values[row]) for row in range(len(values))] for values in explanation.own.values()]
    script = to_script(spots=map_spots(explanation), thumbnails=thumbnails, ownValues=own_values)
    write_atomic(folder / IMAGES, script, durable=False)

    order = doubtful_first(explanation, doubts)
    overview = {
        "cards": cards,
        "epochs": epochs,
        "facts": overview_facts(explanation),
        "conclusion": conclude(explanation, int(doubts["wrong"].sum())),
        "run_facts": facts_of_run(explanation),
        "counts": [(doubt, int(doubts[doubt.flag].sum())) for doubt in DOUBTS if doubts[doubt.flag].any()],
        "empty": count_empty(explanation),
        "figures": copy_figures(explanation),
        "typical": TYPICAL,
        "strip": STRIP,
    }
    _page(folder / "index.html", "overview.html", root="..", **overview, **shared)
    if subject.epoch == epochs[-1]:
        _page(results / "index.html", "overview.html", root=".", **overview, **shared)
    kind = map_in_words(explanation.choice.map, len(subject.pictures.present))
    _page(folder / "map.html", "map.html", root="..", kind=kind, **shared)
    _page(folder / "made.html", "made.html", root="..", **shared)
    keys = [asked.key for asked in explanation.record.drawn()]
    shown = [coin(explanation, row, keys, doubts) for row in order[:DOUBTFUL].tolist()]
    counts = [(doubt, int(doubts[doubt.flag].sum())) for doubt in DOUBTS]
    _page(
        folder / "doubtful.html", "doubtful.html", root="..", coins=shown, counts=counts, total=len(order),
        undrawn=sum(not one["has"] for one in shown),
        parameters={"seen": first_map(explanation, keys)}, **shared,
    )  # fmt: skip
    if tree is not None:
        by_number = {card.number: card for card in cards}
        _page(folder / "tree.html", "tree.html", root="..", tree=tree, by_number=by_number, **shared)

    parts = share_of_parts(explanation)
    numbers = size_and_colour(explanation)
    cells = cells_of(explanation)
    by_cluster: dict[int, list[int]] = {}
    for row in rows:
        by_cluster.setdefault(int(subject.clusters.assignment[row]), []).append(row)
    for at, card in enumerate(cards):
        (folder / str(card.number)).mkdir(exist_ok=True)  # also of a cluster whose images are all gone
        members = by_cluster.get(card.number, [])
        content = {
            "card": card,
            "facts": cluster_facts(explanation, card),
            "coins": [coin(explanation, row, keys, doubts) | more_of(explanation, row) for row in members],
            "made": made_of(explanation, card.number),
            "previous": cards[at - 1].number,
            "next": cards[(at + 1) % len(cards)].number,
            "counts": [(doubt, int(doubts[doubt.flag][members].sum())) for doubt in DOUBTS],
            "places": mean_places(parts, members),
            "alike": say_alike(numbers, subject, np.flatnonzero(subject.clusters.assignment == card.number)),
            "cells": cells,
        }
        _page(folder / str(card.number) / "index.html", "cluster.html", root="../..", **content, **shared)


def common(explanation: Explanation, caveat: dict[str, float], cards: list[Card]) -> dict[str, Any]:
    """What every page is told."""
    subject, run = explanation.subject, explanation.subject.run
    drawn = explanation.record.drawn()
    digest = subject.clusters.digest  # edits of clusters that were edited before are others than of the run's own
    former = "" if digest else hashlib.sha256((run.path / "run.json").read_bytes()).hexdigest()[:12]
    stops = [f"rgb({r} {g} {b})" for r, g, b in bar_as_drawn(explanation.choice.colours)]
    return {
        "run_name": run.path.resolve().name,
        "run_id": f"{run.identity}-{digest}" if digest else run.identity,
        "former_id": former,
        "base": digest or "",
        "data_name": run.meta.dataset.name,
        "count": len(run.ids),
        "epoch": subject.epoch,
        "methods": [
            {"key": asked.key, "title": asked.title, "panels": panels_of(asked), "heat": is_heat(asked)}
            for asked in drawn
        ],
        "heat_key": explanation.heat_key,
        "heat_title": METHODS[explanation.heat_key].title,
        "mean_heat": f"_mean-{explanation.heat_key}.png",
        "maximum": MAXIMUM,
        "suffix": SUFFIX[explanation.choice.format],
        "caveat": [(asked.title, caveat[asked.key]) for asked in drawn if asked.key in caveat],
        "numbers": [card.number for card in cards],
        "group": subject.group,
        "has_truth": subject.class_names is not None and run.labels is not None,
        "terms": terms_for(explanation.subject.group),
        "bar": ", ".join(stops),
        "colours": explanation.choice.colours,
        "target": explanation.choice.target,
        "audit": read_said(explanation.folder / FOLDER),
        "audit_page": f"{FOLDER}/index.html",
        "doubts": {doubt.flag: {"title": doubt.title, "says": doubt.says} for doubt in DOUBTS},
        "own_columns": [*explanation.own],
    }


def first_map(explanation: Explanation, keys: list[str]) -> str:
    """The method whose map is shown where there is room for one: the summary's, else the first drawn; '' if none is."""
    maps = [key for key in keys if key != PHOTOGRAPH]
    return explanation.heat_key if explanation.heat_key in maps else next(iter(maps), "")


def panels_of(asked: Asked) -> int:
    """How many squares side by side its picture is."""
    return 2 if asked.name != PHOTOGRAPH and asked.method.kind == "change" else 1


def is_heat(asked: Asked) -> bool:
    """Whether its picture is heat over the photograph."""
    return asked.name != PHOTOGRAPH and asked.method.kind == "heat"


def originals_from(explanation: Explanation, results: Path) -> dict[str, str]:
    """Where the photographs are: as a path from `results`, if they are files, and as a path to copy."""
    source = Path(explanation.subject.pictures.dataset.source)
    if source.is_absolute() and source.is_dir():
        relative = os.path.relpath(source.resolve(), results.resolve())
        return {"relative": Path(relative).as_posix(), "path": str(source)}
    return {"relative": "", "path": str(source)}


@dataclass(frozen=True)
class Cells:
    """Of the maps that a CAM reads."""

    down: int
    across: int
    sees: float  # share of the view that one of them depends on: its receptive field
    square: bool  # whether they lie on the photograph as a grid, and not about the coin's centre

    @property
    def said(self) -> str:
        lie = "" if self.square else ", from the centre to the rim and around"
        return (
            f"A CAM has {self.down} × {self.across} cells{lie}; each sees {self.sees:.0%} of what the network is "
            "shown, so heat says where about and never which line."
        )


def cells_of(explanation: Explanation) -> Cells | None:
    """Cells of the maps that a CAM reads; None of a network without convolutions."""
    subject = explanation.subject
    try:
        find_layer(subject.model)
    except UserError:
        return None
    images = subject.images(subject.pictures.present[:4]).clone().requires_grad_()
    maps = subject.model.maps(images)
    if maps.dim() != 4:
        return None
    down, across = maps.shape[2:]
    (slope,) = torch.autograd.grad(maps[:, :, down // 2, across // 2].sum(), images)
    reached = (slope != 0).flatten(0, 1).any(0)
    share = float(reached.any(1).float().mean() * reached.any(0).float().mean())
    return Cells(down, across, share, subject.view != "unrolled")


def overview_facts(explanation: Explanation) -> list[tuple[str, str]]:
    """The line below the overview's title: each fact and what it means."""
    subject, run = explanation.subject, explanation.subject.run
    edited = subject.clusters.digest is not None
    row = {int(line["epoch"]): line for line in run.log()}.get(subject.epoch, {})
    facts = [(f"Epoch {subject.epoch}" + (", clusters edited by hand" if edited else ""), "")]
    for column in LOG:
        if column.gallery is not None and row.get(column.name) and not edited:
            facts.append((column.gallery.format(float(row[column.name])), column.meaning))
    if explanation.choice.target != "own":
        facts.append((f"explained: {explanation.choice.target}", ""))
    gone = int((subject.pictures.position < 0).sum())
    if gone:
        facts.append((f"{gone} images are not there any more", "skipped.csv names them"))
    return facts


def cluster_facts(explanation: Explanation, card: Card) -> list[str]:
    """The line below a cluster's title."""
    facts = card.facts
    if card.shown != card.size:
        facts.insert(1, f"{card.shown} explained")
    facts.append(f"epoch {explanation.subject.epoch}")
    if explanation.choice.target != "own":
        facts.append(f"explained: {explanation.choice.target}")
    return facts


def mean_places(parts: dict[str, np.ndarray] | None, members: list[int]) -> list[tuple[str, float, float]]:
    """Of each part its share of a cluster's heat and of its views, over the maps that are not empty."""
    if parts is None:
        return []
    found = [(name, *np.nanmean(values[members], 0)) for name, values in parts.items() if _any_known(values, members)]
    return [(name, float(heat), float(area)) for name, heat, area in found if area > 0]


def _any_known(values: np.ndarray, members: list[int]) -> bool:
    return bool(np.isfinite(values[members]).any())


def coin(explanation: Explanation, row: int, keys: list[str], doubts: dict[str, np.ndarray]) -> dict[str, Any]:
    """An image as pages know it; `keys`: of the methods that were drawn, `doubts`: as of `doubts_of`."""
    subject, scores, record = explanation.subject, explanation.scores, explanation.record
    found: dict[str, Any] = {
        "id": subject.run.ids[row],
        "file": explanation.paths.names[row],
        "cluster": int(subject.clusters.assignment[row]),
        "rank": int(scores.rank[row]),
        "score": _number(scores.score[row]),
        "rival": int(scores.rival[row]),
        "margin": _number(scores.margin[row]),
        "probability": _number(scores.probability[row]),
        "rivalProbability": _number(scores.rival_probability[row]),
        "distance": _number(subject.clusters.distance[row]),
        "empty": [key for key in keys if record.empty[key][row]],
        "has": [key for key in keys if record.done[key][row]],
        "wrong": bool(doubts["wrong"][row]),
        "doubts": [flag for flag, held in doubts.items() if held[row]],
        "own": [_own(values[row]) for values in explanation.own.values()],
        "numbers": {},
    }
    for asked, name, values in record.measured():
        if not np.isnan(values[row]):
            found["numbers"].setdefault(asked.key, {})[name] = _number(values[row])
    return found if subject.run.labels is None else found | {"label": subject.run.labels[row]}


def more_of(explanation: Explanation, row: int) -> dict[str, Any]:
    """What its cluster's page knows besides of an image: half of the cluster, those most like it, its small map.

    The map is for the page to draw on another scale: HEAT_CELLS^2 bytes of 0..1, base64.
    """
    scores, assignment = explanation.scores, explanation.subject.clusters.assignment
    drawn = explanation.record.done.get(PHOTOGRAPH, np.zeros(len(assignment), bool))
    near = [i for i in scores.alike[row].tolist() if i >= 0 and drawn[i] and assignment[i] >= 0]
    ids, names = explanation.subject.run.ids, explanation.paths.names
    found: dict[str, Any] = {
        "half": int(scores.half[row]),
        "alike": [{"id": ids[i], "cluster": int(assignment[i]), "file": names[i]} for i in near],
    }
    heat = explanation.record.heat.get(row)
    if heat is not None and heat.any():
        cells = (heat.astype(np.float32) * 255).round().astype(np.uint8)
        found["heat"] = base64.b64encode(cells.tobytes()).decode()
    return found


def made_of(explanation: Explanation, number: int) -> list[int]:
    """The clusters whose logits a cluster made by hand is explained by; empty of one that the network knows."""
    clusters = explanation.subject.clusters
    return [*clusters.logits[number]] if number >= clusters.outputs else []


def map_spots(explanation: Explanation) -> list[list[Any]]:
    """Of each image in a cluster what map, search and edits know of it.

    Id, cluster, place in the map (2), file name, whether it is drawn, its label or '', rival, row.
    """
    subject, names = explanation.subject, explanation.paths.names
    assignment, position = subject.clusters.assignment, explanation.scores.position
    done = explanation.record.done.get(PHOTOGRAPH, np.zeros(len(subject.run.ids), bool))
    labels = subject.run.labels or [""] * len(subject.run.ids)
    return [
        [
            subject.run.ids[i],
            int(assignment[i]),
            *(round(float(x), 4) for x in position[i]),
            names[i],
            int(done[i]),
            labels[i],
            int(explanation.scores.rival[i]),
            i,
        ]
        for i in subject.pictures.present.tolist()
        if assignment[i] >= 0
    ]


def _page(path: Path, template: str, **content: Any) -> None:
    """Render and put in place; everything is escaped."""
    html = PAGES.get_template(template).render(content)
    write_atomic(path, html.encode("utf-8", "replace"), durable=False)


def _own(value: str | float) -> str | float | None:
    """A cell of the user's own table, as a script has it: null where it is not known."""
    if isinstance(value, str):
        return value or None
    return None if np.isnan(value) else float(value)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.5g}")
