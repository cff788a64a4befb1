"""One call of `python -m explain --run`: extract, transform, load, for each epoch asked for."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import runs
from console import UserError
from explain import gallery
from explain.attribution import CORE
from explain.audit import SAMPLE, against_random_weights
from explain.stage import (
    DEFAULT_METHODS,
    Choice,
    Record,
    check_choice,
    chosen_rows,
    draw_missing,
    score_images,
    target_weights,
)
from explain.subject import Subject, epochs_to_explain, find_pictures, identity
from machine import prepare
from runs import Run
from runs.directory import atomic, locked

SCHEMA = 1
KINDS = ("deepcluster", "supervised")


def explain_command(options: argparse.Namespace) -> None:
    """`python -m explain --run`."""
    run = runs.open_run(options.run)
    if run.meta.get("kind") not in KINDS:
        raise UserError(f"{run.path}: a run of an unknown kind ({run.meta.get('kind')}): update this program")
    epochs = epochs_to_explain(run, options.epoch)
    if options.assignments is not None and len(epochs) > 1:
        raise UserError("--assignments belongs to one epoch: name it with --epoch")
    choice = Choice(
        methods=options.methods or DEFAULT_METHODS,
        target=options.target,
        clusters=options.clusters,
        per_cluster=options.per_cluster,
        pick=options.pick,
        format=options.format,
        map=options.map,
    )
    device = prepare(options.device, run.meta["threads"])
    results: Path = options.results or default_results(run.path)
    check_results(results, run)
    pictures = find_pictures(run, options.data, options.workers, options.mnist_dir, device)
    for epoch in epochs:
        subject = Subject(run, epoch, pictures, options.assignments, device)
        check_choice(subject, choice)
        claim_results(results, run, choice, subject.assignment.digest)
        with locked(results, "another explain is writing here: wait for it or choose --results"):
            explain_epoch(subject, choice, results)
    gone = len(run.ids) - len(pictures.present)
    if gone:
        first = run.ids[int(np.flatnonzero(pictures.position < 0)[0])]
        print(f"{gone} of {len(run.ids)} images are not there any more (the first: {first!r}); skipped.csv names them")
    print(f"Open {results / 'index.html'} in a browser, or browse {results}/{epochs[-1]}/<cluster>/.")


def explain_epoch(subject: Subject, choice: Choice, results: Path) -> None:
    folder = results / str(subject.epoch)
    (folder / ".pieces").mkdir(parents=True, exist_ok=True)
    scores = score_images(subject, folder, choice.map, subject.seed)
    rows = chosen_rows(subject, choice, scores.rank)
    record = draw_missing(subject, choice, rows, scores, folder)
    drawn = gallery.write_tables(subject, choice, record, scores, folder)
    gallery.write_cluster_pictures(subject, record, scores, folder)
    gallery.write_panels(subject, choice, record, drawn, folder)
    caveat = random_weights_figure(subject, choice, scores, rows, folder)
    epochs = sorted({int(path.parent.name) for path in results.glob("*/explanations.csv")})
    gallery.write_pages(subject, choice, record, scores, drawn, caveat, results, epochs)
    report(subject, choice, record, rows)


def report(subject: Subject, choice: Choice, record: Record, rows: np.ndarray) -> None:
    clusters = len(np.unique(subject.assignment.cluster[rows]))
    print(f"epoch {subject.epoch}: {len(rows)} images in {clusters} clusters explained")
    for method in choice.methods:
        empty = int(record.empty[method][rows].sum()) if len(rows) else 0
        if empty:
            print(f"  {empty} maps of {method} say nothing (zero, constant or not finite) and are drawn empty")


def random_weights_figure(
    subject: Subject, choice: Choice, scores: Any, rows: np.ndarray, folder: Path
) -> dict[str, float]:
    """The run's own figure for the caveat beside Guided Backprop, measured once on a few images."""
    path = folder / ".random-weights.json"
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        pass  # not measured yet, or damaged
    sample = np.random.default_rng(subject.seed).permutation(rows)[:SAMPLE]
    if not len(sample):
        return {}
    weights = target_weights(subject, choice.target, sample, scores)
    found = against_random_weights(subject, sample, weights, [method for method in CORE if method in choice.methods])
    atomic(path, lambda file: file.write(json.dumps(found).encode()))
    return found


def default_results(run: Path) -> Path:
    """results/ beside exp/, results-NAME/ beside exp-NAME/ or NAME/."""
    name = run.resolve().name
    rest = "" if name == "exp" else name.removeprefix("exp-")
    return run.parent / (f"results-{rest}" if rest else "results")


def check_results(results: Path, run: Run) -> None:
    """Refuse a folder with another run's explanations, or with a stranger's files."""
    if results.exists() and not results.is_dir():
        raise UserError(f"{results}: a file is in the way: choose another --results")
    kept = read_results(results)
    if kept is None:
        foreign = [
            path.name
            for path in (sorted(results.iterdir()) if results.is_dir() else [])
            if path.name != "README.md" and not path.name.startswith(".")
        ]
        if foreign:
            raise UserError(f"{results}: holds other files ({foreign[0]}): choose another --results")
    elif kept["run"] != identity(run)["run"]:
        raise UserError(
            f"{results}: holds the explanations of another run ({kept['name']}): choose another --results, or remove it"
        )


def claim_results(results: Path, run: Run, choice: Choice, assignments: str | None) -> None:
    """Write what this folder is made with, or refuse a setting that would mix two kinds of pictures in it."""
    made = {"target": choice.target, "assignments": assignments, "format": choice.format}
    kept = read_results(results)
    if kept is None:
        results.mkdir(parents=True, exist_ok=True)
        content = {"schema": SCHEMA, **identity(run), **made}
        atomic(results / "results.json", lambda file: file.write(json.dumps(content, indent=1).encode()))
        return
    for name, value in made.items():
        if kept.get(name) != value:
            told = "other --assignments" if name == "assignments" else f"--{name} {kept.get(name)}"
            raise UserError(f"{results}: was made with {told}: give the same, or choose another --results")


def read_results(results: Path) -> dict[str, Any] | None:
    path = results / "results.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise UserError(f"{path}: damaged: remove {results} and explain again") from None
