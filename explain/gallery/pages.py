"""The pages: overview, map of all images, and one for each cluster."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from explain.attribution.registry import PHOTOGRAPH, Asked
from explain.drawing import HEAT
from explain.gallery.cards import Card, make_cards
from explain.record import MAXIMUM, Explanation
from explain.rendering import SUFFIX
from machine.files import write_atomic
from machine.reading import whole_number
from runs.tables import LOG

TEMPLATES = Path(__file__).parent.parent / "templates"
ASSETS = ("gallery.css", "common.js", "edits.js", "overview.js", "cluster.js", "map.js")
PAGES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


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
    cards = make_cards(explanation, rows)
    there = [whole_number(path.parent.name) for path in results.glob("*/explanations.csv")]
    epochs = sorted({*to_come, *(epoch for epoch in there if epoch is not None)})  # not a copy called "10 (1)"
    shared = common(explanation, caveat, cards)
    for name in ASSETS:
        write_atomic(results / name, (TEMPLATES / name).read_bytes(), durable=False)
    overview = {"cards": cards, "epochs": epochs, "facts": overview_facts(explanation)}
    _page(folder / "index.html", "overview.html", root="..", **overview, **shared)
    if subject.epoch == epochs[-1]:
        _page(results / "index.html", "overview.html", root=".", **overview, **shared)
    spots = map_spots(explanation)
    _page(folder / "map.html", "map.html", root="..", spots=spots, kind=explanation.choice.map, **shared)

    keys = [asked.key for asked in explanation.record.drawn()]
    by_cluster: dict[int, list[int]] = {}
    for row in rows:
        by_cluster.setdefault(int(subject.clusters.assignment[row]), []).append(row)
    for at, card in enumerate(cards):
        (folder / str(card.number)).mkdir(exist_ok=True)  # also of a cluster whose images are all gone
        content = {
            "card": card,
            "facts": cluster_facts(explanation, card),
            "coins": [coin(explanation, row, keys) for row in by_cluster.get(card.number, [])],
            "previous": cards[at - 1].number,
            "next": cards[(at + 1) % len(cards)].number,
        }
        _page(folder / str(card.number) / "index.html", "cluster.html", root="../..", **content, **shared)


def common(explanation: Explanation, caveat: dict[str, float], cards: list[Card]) -> dict[str, Any]:
    """What every page is told."""
    subject, run = explanation.subject, explanation.subject.run
    drawn = explanation.record.drawn()
    return {
        "run_name": run.path.resolve().name,
        "run_id": run.identity,
        "former_id": hashlib.sha256((run.path / "run.json").read_bytes()).hexdigest()[:12],
        "data_name": run.meta.dataset.name,
        "count": len(run.ids),
        "epoch": subject.epoch,
        "methods": [{"key": asked.key, "title": asked.title, "panels": panels_of(asked)} for asked in drawn],
        "mean_heat": f"_mean-{HEAT}.png",
        "maximum": MAXIMUM,
        "suffix": SUFFIX[explanation.choice.format],
        "caveat": [(asked.title, caveat[asked.key]) for asked in drawn if asked.key in caveat],
        "numbers": [card.number for card in cards],
        "group": subject.group,
        "has_truth": subject.class_names is not None and run.labels is not None,
    }


def panels_of(asked: Asked) -> int:
    """How many squares side by side its picture is."""
    return 2 if asked.name != PHOTOGRAPH and asked.method.kind == "change" else 1


def overview_facts(explanation: Explanation) -> list[str]:
    """The line below the overview's title."""
    subject, run = explanation.subject, explanation.subject.run
    edited = subject.clusters.digest is not None
    row = {int(line["epoch"]): line for line in run.log()}.get(subject.epoch, {})
    facts = [f"Epoch {subject.epoch}" + (", clusters edited by hand" if edited else "")]
    for column in LOG:
        if column.gallery is not None and row.get(column.name) and not edited:
            facts.append(column.gallery.format(float(row[column.name])))
    if explanation.choice.target != "own":
        facts.append(f"explained: {explanation.choice.target}")
    gone = int((subject.pictures.position < 0).sum())
    if gone:
        facts.append(f"{gone} images are not there any more")
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


def coin(explanation: Explanation, row: int, keys: list[str]) -> dict[str, Any]:
    """An image as its cluster's page knows it; `keys`: of the methods that were drawn."""
    subject, scores, record = explanation.subject, explanation.scores, explanation.record
    found: dict[str, Any] = {
        "id": subject.run.ids[row],
        "file": explanation.paths.names[row],
        "rank": int(scores.rank[row]),
        "score": _number(scores.score[row]),
        "rival": int(scores.rival[row]),
        "margin": _number(scores.margin[row]),
        "distance": _number(subject.clusters.distance[row]),
        "empty": [key for key in keys if record.empty[key][row]],
        "has": [key for key in keys if record.done[key][row]],
        "wrong": subject.is_wrong(row),
        "numbers": {},
    }
    for asked, name, values in record.measured():
        if not np.isnan(values[row]):
            found["numbers"].setdefault(asked.key, {})[name] = _number(values[row])
    return found if subject.run.labels is None else found | {"label": subject.run.labels[row]}


def map_spots(explanation: Explanation) -> list[list[Any]]:
    """Of each image in a cluster: id, cluster, place in the map, file name."""
    subject, names = explanation.subject, explanation.paths.names
    assignment, position = subject.clusters.assignment, explanation.scores.position
    return [
        [subject.run.ids[i], int(assignment[i]), *(round(float(x), 4) for x in position[i]), names[i]]
        for i in subject.pictures.present.tolist()
        if assignment[i] >= 0
    ]


def _page(path: Path, template: str, **content: Any) -> None:
    """Render and put in place; everything is escaped."""
    html = PAGES.get_template(template).render(content)
    write_atomic(path, html.encode("utf-8", "replace"), durable=False)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)
