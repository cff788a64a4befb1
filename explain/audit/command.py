"""One call of `python -m explain audit`: each part measured, or read where it was; tables, pictures and a page."""

import argparse
import re
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import runs
from console import UserError, progress
from datasets.folder import refuse_inside
from datasets.view import PHOTOGRAPH as PHOTOGRAPH_VIEW
from explain.attribution.registry import PHOTOGRAPH, VIEW, default_methods
from explain.attribution.registry import Asked as Method
from explain.attribution.targets import find_layer
from explain.audit.findings import (
    FOLDER,
    SAID,
    UNKNOWN,
    Asked,
    Figure,
    Finding,
    Luck,
    Measured,
    Sample,
    correct_for_number,
    say_luck,
    what_is_said,
    write_findings,
)
from explain.audit.page import write_page
from explain.audit.parts import PARTS, Part
from explain.audit.retraining import open_others
from explain.results import check_results, default_results, read_results, refresh_pages
from explain.scores import score_images
from explain.shards import BUSY, Shard, last, shard_of, starting
from explain.subject import Subject, epochs_to_explain, find_pictures
from machine.device import use_device
from machine.files import locked, refuse_links, taken, write_json
from machine.processes import device_here
from machine.reading import Damaged, read_json, shown, typed

FILE = re.compile(r"[a-z0-9_-]+")  # of a figure, without its ending
PIECES = ".pieces"  # of parts, until all are measured; and locks of what is being measured
AUDITED = "another audit is measuring here: wait for it or choose --results"
VERSION = 7  # raise when a part measures otherwise: kept parts are measured again


def audit_command(options: argparse.Namespace) -> None:
    """`python -m explain audit`."""
    if options.epoch == "all":
        raise UserError("--epoch all: an audit is one epoch's: name its number, or latest")
    run = runs.open_run(options.run)
    epoch = epochs_to_explain(run, options.epoch)[-1]
    shard = shard_of(options.shard)
    device = use_device(device_here(options.device), run.meta.stamp.threads)
    results: Path = options.results or default_results(run.path)
    check_results(results, run)
    refuse_inside(results, options.data or run.meta.dataset.source, "--results")
    methods = options.methods or default_methods(run.meta.view.name != PHOTOGRAPH_VIEW)
    asked = Asked(
        tuple(one for one in methods if one.name not in (PHOTOGRAPH, VIEW)),
        options.images,
        options.seed,
        options.table,
        tuple(options.against or ()),
        options.shuffled,
    )
    if asked.table is not None and not asked.table.is_file():
        raise UserError(f"--table {asked.table}: no such file: name a CSV with the column image")
    pictures = find_pictures(run, options.data, options.workers, options.mnist_dir, device)
    subject = Subject(run, epoch, pictures, options.assignments, device)
    check_methods(subject, asked.methods)
    open_others(subject, asked)  # refuses before anything is measured
    kept = read_results(results)
    if kept is not None and kept.assignments != subject.clusters.digest:
        raise UserError(
            f"{results}: explains other clusters than are to be audited: give the same --assignments, or choose "
            "another --results"
        )
    folder = results / str(epoch) / FOLDER
    refuse_links(results)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UserError(f"{error.filename}: a file is in the way: move it away or choose another --results") from None
    with ExitStack() as held:
        if shard is None:
            held.enter_context(locked(folder, AUDITED))
        else:
            measure_share(subject, results, folder, asked, shard)
            if not held.enter_context(last(folder)):
                print("other shards are still measuring: the last one makes the page")
                return
        held.enter_context(locked(results, BUSY))
        sample = draw_sample(subject, results, folder, asked)
        measured, luck = correct_all(measure_all(sample, asked, folder))
        findings = [finding for one in measured.values() for finding in one.findings]
        write_findings(folder, findings)
        concluded = {part.title: part.module.conclude(one) for part, one in measured.items()}
        write_page(sample, asked, measured, concluded, luck, folder)
        write_json(folder / SAID, asdict(what_is_said(findings, concluded)))
        refresh_pages(subject, results)
        shutil.rmtree(folder / PIECES, ignore_errors=True)
    tell(measured, concluded)
    if luck.tests:
        print(say_luck(luck))
    print(f"Open {folder / 'index.html'} in a browser; {folder / 'audit.csv'} has all {len(findings)} figures.")


def check_methods(subject: Subject, methods: tuple[Method, ...]) -> None:
    """Refuse methods that this network or view cannot have, before anything is measured."""
    if not methods:
        raise UserError("--methods: name a method that makes maps, such as grad_cam")
    for one in methods:
        if one.method.needs_layer:
            find_layer(subject.model, one.options.get("layer"))
        if one.method.check is not None:
            one.method.check(min(subject.images(subject.pictures.present[:1]).shape[2:]), **one.options)


def draw_sample(subject: Subject, results: Path, folder: Path, asked: Asked) -> Sample:
    """The images whose maps are measured, drawn evenly from those that are there and in a cluster."""
    kept = read_results(results)
    scores = score_images(subject, results / str(subject.epoch), "pca" if kept is None else kept.map)
    there = subject.pictures.present
    there = there[subject.clusters.assignment[there] >= 0]
    if not len(there):
        raise UserError(f"{subject.run.path}: none of its images is in a cluster: there is nothing to audit")
    rows = np.sort(np.random.default_rng(asked.seed).permutation(there)[: asked.images])
    return Sample(subject, scores, rows, folder)


def measure_all(sample: Sample, asked: Asked, folder: Path) -> dict[Part, Measured]:
    """Every part, in the order of PARTS; one that was measured with the same is read instead."""
    (folder / PIECES).mkdir(exist_ok=True)
    return {part: measure_part(part, sample, asked, folder) for part in PARTS}


def measure_share(subject: Subject, results: Path, folder: Path, asked: Asked, shard: Shard) -> None:
    """What no other shard measures: this one's share first, then what the others have not begun."""
    with ExitStack() as held:
        with starting(folder):
            held.enter_context(locked(folder, AUDITED, shared=True))
            (folder / PIECES).mkdir(exist_ok=True)
            sample = draw_sample(subject, results, folder, asked)
        work: list[tuple[Part, int | None]] = [(part, None) for part in PARTS if not part.in_pieces]
        for part in PARTS:  # those in pieces last: they fill what a long one leaves to the others
            if part.in_pieces and _read(*_kept(part, sample, asked, folder)) is None:
                work += [(part, piece) for piece in part.module.pieces(sample, asked)]
        every = range(len(work))
        for at in progress([*shard.of(np.array(every)), *every], "auditing, with others", unit="pieces"):
            part, piece = work[at]
            name = part.name if piece is None else f"{part.name}-{piece}"
            with taken(folder / PIECES / f"{name}.lock") as mine:
                if mine and piece is None:
                    measure_part(part, sample, asked, folder)
                elif mine:
                    measure_piece(part, sample, asked, folder, piece)
    print(f"epoch {subject.epoch}: shard {shard.number} of {shard.count} has measured its share")


def measure_part(part: Part, sample: Sample, asked: Asked, folder: Path) -> Measured:
    """A part, as it was measured with the same, or now."""

    def measure() -> Measured:
        if part.in_pieces:
            pieces = progress(part.module.pieces(sample, asked), part.in_pieces, unit="images")
            each = [measure_piece(part, sample, asked, folder, piece) for piece in pieces]
            joined: Measured = part.module.join(sample, asked, each)
            return replace(joined, seconds=round(sum(one.seconds for one in each), 1))
        found: Measured = part.module.measure(sample, asked)
        if part.leaves is not None:
            part.module.write_beside(folder / part.leaves[0], sample, asked)
        return found

    return _read_or(measure, *_kept(part, sample, asked, folder))


def measure_piece(part: Part, sample: Sample, asked: Asked, folder: Path, piece: int) -> Measured:
    """A piece of a part, as it was measured with the same, or now."""
    path, known = _kept(part, sample, asked, folder)
    path = folder / PIECES / f"{part.name}-{piece}.json"
    return _read_or(lambda: part.module.measure_piece(sample, asked, piece), path, known)


def _read_or(measure: Callable[[], Measured], path: Path, known: dict[str, Any]) -> Measured:
    measured = _read(path, known)
    if measured is None:
        begun = time.perf_counter()
        measured = measure()
        measured = replace(measured, seconds=measured.seconds or round(time.perf_counter() - begun, 1))
        write_json(path, {"asked": known, **_to_json(measured)})
    return measured


def correct_all(measured: dict[Part, Measured]) -> tuple[dict[Part, Measured], Luck]:
    """Verdicts of all parts that hold methods against controls, corrected for their number, and that number."""
    compared = {part: one for part, one in measured.items() if part.compares}
    findings, luck = correct_for_number([row for one in compared.values() for row in one.findings])
    rows = iter(findings)
    for part, one in compared.items():
        compared[part] = replace(one, findings=list(islice(rows, len(one.findings))))
    return measured | compared, luck


def tell(measured: dict[Part, Measured], concluded: dict[str, list[str]]) -> None:
    """What each part concludes, or why it cannot."""
    for part, one in measured.items():
        print(f"{part.title}:")
        for sentence in concluded[part.title] or one.missing[:1]:
            print(f"  {sentence}")


def _kept(part: Part, sample: Sample, asked: Asked, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where a part is kept, and what it must have been measured with."""
    subject = sample.subject
    known: dict[str, Any] = {
        "version": VERSION,
        "run": subject.run.identity,
        "assignments": subject.clusters.digest,
        "methods": [one.key for one in asked.methods],
        "images": asked.images,
        "present": sha256(subject.pictures.present.tobytes()).hexdigest()[:16],
        "seed": asked.seed,
        "table": None if asked.table is None else sha256(asked.table.read_bytes()).hexdigest()[:16],
    }
    if part.name == "retraining":
        known["against"] = [runs.open_run(path).identity for path in asked.against]
    if part.name == "shuffling":
        known["shuffled"] = asked.shuffled
    return folder / f".{part.name}.json", known


def _to_json(measured: Measured) -> dict[str, Any]:
    """As JSON has it, which knows no NaN."""
    rows = [{name: _known(value) for name, value in asdict(one).items()} for one in measured.findings]
    figures = {
        name: {"title": figure.title, "across": figure.across, "up": figure.up}
        | {"lines": {key: [[_known(x) for x in axis] for axis in line] for key, line in figure.lines.items()}}
        for name, figure in measured.figures.items()
    }
    return {"findings": rows, "figures": figures, "missing": measured.missing, "seconds": measured.seconds}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _read(path: Path, asked: dict[str, Any]) -> Measured | None:
    """A part that was measured with the same; None where it was not, or its file is damaged."""
    try:
        kept = typed(dict[str, Any], read_json(path, ""), path, "")
        if kept.get("asked") != asked:
            return None
        findings = [_finding(row, path) for row in typed(list[dict[str, Any]], kept.get("findings"), path, "")]
        figures = {}
        for name, figure in typed(dict[str, dict[str, Any]], kept.get("figures"), path, "").items():
            if not FILE.fullmatch(name):  # the folder may be a stranger's: no picture is written elsewhere
                raise Damaged(path, f"a figure {shown(name)}", "")
            figures[name] = _figure(figure, path)
        missing = typed(list[str], kept.get("missing"), path, "")
        seconds = typed(float, kept.get("seconds"), path, "")
        return Measured(findings, figures, missing, seconds)
    except (FileNotFoundError, Damaged):
        return None


def _finding(row: dict[str, Any], path: Path) -> Finding:
    unknown: dict[str, Any] = {
        one.name: UNKNOWN for one in fields(Finding) if one.type is float and row.get(one.name, 0) is None
    }
    found: Finding = typed(Finding, row | dict.fromkeys(unknown, 0.0), path, "")
    try:
        "".join(value for value in asdict(found).values() if isinstance(value, str)).encode()
    except UnicodeEncodeError:
        raise Damaged(path, "half a character", "") from None
    return replace(found, **unknown)


def _figure(figure: dict[str, Any], path: Path) -> Figure:
    lines = typed(dict[str, list[list[float | None]]], figure.get("lines"), path, "")
    if any(len(line) != 2 or len(line[0]) != len(line[1]) for line in lines.values()):
        raise Damaged(path, "a line without its x or y", "")
    axes = {name: [[UNKNOWN if v is None else v for v in axis] for axis in line] for name, line in lines.items()}
    title, across, up = typed(list[str], [figure.get(one) for one in ("title", "across", "up")], path, "")
    return Figure(title, across, up, {name: (x, y) for name, (x, y) in axes.items()})
