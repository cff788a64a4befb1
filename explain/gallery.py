"""Load: what was computed of an epoch -> tables and a gallery of static pages that open from disk."""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from PIL import Image
from torch.nn import functional

import runs
from console import progress
from explain.rendering import SUFFIX, contact_sheet, overlay, put, write_picture
from explain.stage import Choice, Paths, Record, Scores
from explain.subject import Subject

TEMPLATES = Path(__file__).parent / "templates"
SHEET = 40  # images on a cluster's contact sheet
PANEL = 4  # ... and on the one with their explanations
VIEWS = 128  # images in memory at a time while means are taken
TITLES = {
    "original": "Photograph",
    "grad_cam": "Grad-CAM",
    "guided_backprop": "Guided Backprop",
    "guided_grad_cam": "Guided Grad-CAM",
    "gradient": "Gradient",
    "grad_cam_plus_plus": "Grad-CAM++",
    "xgrad_cam": "XGrad-CAM",
    "layer_cam": "Layer-CAM",
    "hires_cam": "HiRes-CAM",
    "eigen_cam": "Eigen-CAM",
    "score_cam": "Score-CAM",
    "ablation_cam": "Ablation-CAM",
}


@dataclass(frozen=True)
class Card:
    """A cluster as the overview shows it."""

    number: int
    name: str
    size: int
    shown: int  # images with pictures
    stability: float | None  # largest Jaccard index with a cluster of the epoch before
    purity: float | None
    label: str | None  # the most frequent one
    mean_heat: bool


def write_tables(subject: Subject, choice: Choice, record: Record, scores: Scores, folder: Path) -> list[int]:
    """explanations.csv and skipped.csv of an epoch. Returns the images that have every picture."""
    run, assignment = subject.run, subject.assignment
    paths = Paths(folder, subject.names, assignment.cluster, choice.format)
    methods = [method for method in TITLES if method in record.done]
    drawn = np.any([record.done[method] for method in methods], axis=0) if methods else np.zeros(len(run.ids), bool)
    rows = np.flatnonzero(drawn)
    rows = rows[np.lexsort((scores.rank[rows], assignment.cluster[rows]))]
    table = []
    for row in rows.tolist():
        line: dict[str, object] = {"image": run.ids[row], "cluster": int(assignment.cluster[row])}
        if run.labels is not None:
            line["label"] = run.labels[row]
        line |= {
            "score": _number(scores.score[row]),
            "rival": int(scores.rival[row]) if scores.rival[row] >= 0 else "",
            "margin": _number(scores.margin[row]),
            "distance": _number(assignment.distance[row]),
            "rank": int(scores.rank[row]),
            "target": choice.target,
        }
        line |= {method: paths.file(row, method) if record.done[method][row] else "" for method in methods}
        flags = [f"empty:{method}" for method in methods if record.empty[method][row]]
        if subject.supervised and run.labels is not None and run.labels[row] != str(assignment.cluster[row]):
            flags.append("wrong")
        line["flags"] = ";".join(flags)
        table.append(line)
    runs.write_csv(folder / "explanations.csv", table, None if table else ["image", "cluster"])
    gone = [
        {"image": run.ids[i], "reason": "not there any more"} for i in np.flatnonzero(subject.pictures.position < 0)
    ]
    runs.write_csv(folder / "skipped.csv", gone, ["image", "reason"])
    return rows.tolist()


def write_cluster_pictures(subject: Subject, record: Record, scores: Scores, folder: Path) -> None:
    """Of each cluster: contact sheet, most typical first; mean image; mean Grad-CAM. The first two do not change."""
    cluster = subject.assignment.cluster
    present = subject.pictures.present
    numbers = np.unique(cluster[present][cluster[present] >= 0])
    for number in progress(numbers, "clusters", unit="clusters"):
        home = folder / str(number)
        home.mkdir(exist_ok=True)
        members = present[cluster[present] == number]
        members = members[np.argsort(scores.rank[members], kind="stable")]
        if not (_there(home / "_sheet.jpg") and _there(home / "_mean.png")):
            total = np.zeros((subject.size, subject.size, 3))
            sheet: list[np.ndarray] = []
            for start in range(0, len(members), VIEWS):
                photographs = subject.photographs(subject.images(members[start : start + VIEWS]))
                total += photographs.sum(0, dtype=np.float64)
                sheet += list(photographs[: max(0, SHEET - len(sheet))])
            _write_jpeg(home / "_sheet.jpg", contact_sheet(sheet))
            mean = Image.fromarray((total / len(members)).round().astype(np.uint8))
            write_picture(home / "_mean.png", mean, "png")
        heat = [record.heat[row] for row in members.tolist() if row in record.heat]
        if heat:
            size = subject.size
            cells = torch.from_numpy(np.stack(heat).astype(np.float32).mean(0))[None, None]
            smooth = functional.interpolate(cells, (size, size), mode="bilinear")[0, 0].numpy()
            with Image.open(home / "_mean.png") as mean:
                photograph = np.asarray(mean.convert("RGB").resize((size, size)))
            write_picture(home / "_mean-grad_cam.png", overlay(smooth, photograph), "png")


def write_panels(subject: Subject, choice: Choice, record: Record, rows: Sequence[int], folder: Path) -> None:
    """_why.jpg of each cluster: its most typical coins in rows, the methods in columns; for folders seen without a browser."""
    paths = Paths(folder, subject.names, subject.assignment.cluster, choice.format)
    methods = [method for method in TITLES if method in record.done]
    by_cluster: dict[int, list[int]] = {}
    for row in rows:
        members = by_cluster.setdefault(int(subject.assignment.cluster[row]), [])
        if len(members) < PANEL and all(_there(paths.of(row, method)) for method in methods):
            members.append(row)
    for number, members in by_cluster.items():
        pictures = []
        for row in members:
            for method in methods:
                with Image.open(paths.of(row, method)) as picture:
                    pictures.append(np.asarray(picture.convert("RGB")))
        if pictures:
            _write_jpeg(folder / str(number) / "_why.jpg", contact_sheet(pictures, len(methods)))


def _there(path: Path) -> bool:
    """Whether a picture is there, with something in it."""
    return path.exists() and path.stat().st_size > 0


def cards(subject: Subject, record: Record, rows: Sequence[int]) -> list[Card]:
    run, assignment = subject.run, subject.assignment
    shown = Counter(assignment.cluster[list(rows)].tolist())
    before = None
    if assignment.digest is None and (run.path / "clusters" / f"epoch_{subject.epoch - 1:04d}.npz").exists():
        before = run.clusters(subject.epoch - 1).assignment
    warm = {int(assignment.cluster[row]) for row in record.heat}
    found = []
    for number in np.unique(assignment.cluster[assignment.cluster >= 0]).tolist():
        members = np.flatnonzero(assignment.cluster == number)
        label, purity = None, None
        if run.labels is not None:
            [(label, count)] = Counter(run.labels[i] for i in members).most_common(1)
            purity = count / len(members)
        stability = None if before is None else _best_jaccard(members, before)
        name, warmed = assignment.names.get(number, ""), number in warm
        found.append(Card(number, name, len(members), shown[number], stability, purity, label, warmed))
    return found


def _best_jaccard(members: np.ndarray, before: np.ndarray) -> float:
    """Clusterwise stability (Hennig 2007): the largest overlap with a cluster of `before`, intersection over union."""
    overlap = np.bincount(before[members])
    sizes = np.bincount(before, minlength=len(overlap))[: len(overlap)]
    return float((overlap / (len(members) + sizes - overlap)).max())


def write_pages(
    subject: Subject,
    choice: Choice,
    record: Record,
    scores: Scores,
    rows: list[int],
    caveat: dict[str, float],
    results: Path,
    epochs: list[int],
) -> None:
    """The pages of one epoch: overview, map and a page for each cluster; of the newest also results/index.html."""
    folder = results / str(subject.epoch)
    run, assignment = subject.run, subject.assignment
    found = cards(subject, record, rows)
    methods = [method for method in TITLES if method in record.done]
    names = subject.names
    shared = common(subject, choice, methods, caveat, found)

    for name in ("gallery.css", "gallery.js"):
        put(results / name, (TEMPLATES / name).read_bytes())
    page(folder / "index.html", "overview.html", root="..", cards=found, epochs=epochs, **shared)
    if subject.epoch == epochs[-1]:
        page(results / "index.html", "overview.html", root=".", cards=found, epochs=epochs, **shared)
    spots = [
        [run.ids[i], int(assignment.cluster[i]), *(round(float(x), 4) for x in scores.place[i]), names[i]]
        for i in subject.pictures.present.tolist()
        if assignment.cluster[i] >= 0
    ]
    page(folder / "map.html", "map.html", root="..", spots=spots, kind=choice.map, **shared)

    by_cluster: dict[int, list[int]] = {}
    for row in rows:
        by_cluster.setdefault(int(assignment.cluster[row]), []).append(row)
    for place, card in enumerate(found):
        coins = [
            {
                "id": run.ids[row],
                "file": names[row],
                "rank": int(scores.rank[row]),
                "score": _json_number(scores.score[row]),
                "rival": int(scores.rival[row]),
                "margin": _json_number(scores.margin[row]),
                "distance": _json_number(assignment.distance[row]),
                "empty": [method for method in methods if record.empty[method][row]],
                "has": [method for method in methods if record.done[method][row]],
            }
            | ({} if run.labels is None else {"label": run.labels[row]})
            for row in by_cluster.get(card.number, [])
        ]
        near = {"previous": found[place - 1].number, "next": found[(place + 1) % len(found)].number}
        page(folder / str(card.number) / "index.html", "cluster.html", root="../..", card=card, coins=coins, **near, **shared)  # fmt: skip


def common(
    subject: Subject, choice: Choice, methods: list[str], caveat: dict[str, float], found: list[Card]
) -> dict[str, Any]:
    """What every page is told."""
    run = subject.run
    log = {row["epoch"]: row for row in run.log()}.get(str(subject.epoch), {})
    return {
        "run_name": run.path.resolve().name,
        "run_id": hashlib.sha256((run.path / "run.json").read_bytes()).hexdigest()[:12],
        "data_name": run.meta["dataset"]["name"],
        "count": len(run.ids),
        "gone": int((subject.pictures.position < 0).sum()),
        "epoch": subject.epoch,
        "log": {name: float(log[name]) for name in ("stability", "ami", "purity", "head_share") if log.get(name)},
        "methods": [{"key": method, "title": TITLES[method]} for method in methods],
        "suffix": SUFFIX[choice.format],
        "target": choice.target,
        "caveat": caveat,
        "numbers": [card.number for card in found],
        "supervised": subject.supervised,
        "group": "digit" if subject.supervised else "cluster",
        "edited": subject.assignment.digest is not None,
    }


def page(path: Path, template: str, **content: Any) -> None:
    """Render and put in place; everything is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    put(path, environment.get_template(template).render(content).encode("utf-8", "replace"))


def _write_jpeg(path: Path, picture: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "jpeg", quality=88)
    put(path, buffer.getvalue())


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _json_number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)
