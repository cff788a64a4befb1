"""One call of `python -m explain --run`: what is missing of each epoch is drawn, its tables and pages written."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import runs
from console import UserError, megabytes, plain
from datasets.folder import refuse_inside
from datasets.view import PHOTOGRAPH
from explain import gallery
from explain.attribution.registry import MAPS, default_methods
from explain.audit.findings import FOLDER
from explain.audit.randomisation import random_weights_correlation
from explain.choice import Choice, check_choice, chosen_rows
from explain.drawing import draw_missing
from explain.estimate import tell_plan
from explain.own import FILE as OWN
from explain.own import Values, keep_columns, kept_columns, read_table
from explain.packing import check_packed, check_zip, files_of, pack, pack_pictures
from explain.record import PIECES, Explanation
from explain.rendering import SUFFIX
from explain.scores import score_images
from explain.shards import BUSY, Shard, drawing, last, shard_of, starting
from explain.subject import Subject, epochs_to_explain, find_pictures, trainer_of
from machine.device import use_device
from machine.files import locked, write_json
from machine.processes import device_here
from machine.reading import Damaged, read_json, shown, typed, whole_number
from runs import Run
from runs.edits import keep_start

SCHEMA = 2
LOSSLESS = 2000  # images of a run up to which pictures are kept without loss by default
DOTS, FLIPS = "dots", "pixelflip"  # sub-folders of what `explain dots` and `explain pixelflip` write


@dataclass(frozen=True)
class Kept:
    """results.json: what a folder of explanations is made with."""

    schema: int
    run: str  # its identity
    name: str
    target: str = "own"
    assignments: str | None = None  # digest of the table
    format: str = "png"
    colours: str = ""  # a key of registry.COLOURS; "": an earlier version's, which coloured heat otherwise
    map: str = "pca"  # a key of registry.MAPS: of all images, in the pages that were written last


def draw_command(options: argparse.Namespace) -> None:
    """`python -m explain --run`."""
    run = runs.open_run(options.run)
    trainer_of(run)
    epochs = epochs_to_explain(run, options.epoch)
    if options.assignments is not None and len(epochs) > 1:
        raise UserError("--assignments belongs to one epoch: name it with --epoch")
    results: Path = options.results or default_results(run.path)
    choice = Choice(
        methods=options.methods or default_methods(run.meta.view.name != PHOTOGRAPH),
        target=options.target,
        clusters=options.clusters,
        per_cluster=options.per_cluster,
        pick=options.pick,
        format=options.format or choose_format(results, run, options.per_cluster),
        map=options.map,
        colours=options.colours,
    )
    columns = tell_columns(run, options.table)
    shard = shard_of(options.shard)
    device = use_device(device_here(options.device), run.meta.stamp.threads)
    check_results(results, run)
    if options.zip:
        check_zip(results)
    if options.few_files:
        check_packed(results, run.identity)
    refuse_inside(results, options.data or run.meta.dataset.source, "--results")
    pictures = find_pictures(run, options.data, options.workers, options.mnist_dir, device)
    if options.table is not None and not options.dry_run:
        keep_columns(run, columns)
        print(f"they are kept in {run.path / OWN} for later calls")
    in_shards: list[Subject] = []
    for epoch in epochs:
        subject = Subject(run, epoch, pictures, options.assignments, device)
        check_choice(subject, choice)
        if options.dry_run:
            check_results(results, run)
            tell_plan(subject, choice, results, shard)
            continue
        if options.assignments is not None:
            keep_start(run, options.assignments)
        results.mkdir(parents=True, exist_ok=True)
        if shard is not None:
            draw_shard(subject, choice, results, shard)
            in_shards.append(subject)
            continue
        check_results(results, run)
        with locked(results, BUSY):
            claim_results(results, run, choice, subject.clusters.digest)
            explanation = begin_epoch(subject, choice, results)
            draw_missing(explanation)
            finish_epoch(explanation, results, epochs)
    if options.dry_run:
        print("Nothing was written.")
        return
    if shard is not None and not finish_shards(in_shards, choice, results):
        return
    gone = len(run.ids) - len(pictures.present)
    if gone:
        first = run.ids[int(np.flatnonzero(pictures.position < 0)[0])]
        print(f"{gone} of {len(run.ids)} images are not there any more (the first: {first!r}); skipped.csv names them")
    if options.few_files:
        with locked(results, "another explain is writing here: wait for it, then give --few-files again"):
            folder = pack_pictures(results, run.identity)
        inside = [path.stat().st_size for path in files_of(folder)]
        print(f"{folder}: {megabytes(sum(inside))}, all of it in {len(inside)} files; open {folder / 'index.html'}")
    if options.zip:
        with locked(results, "another explain is writing here: wait for it, then give --zip again"):
            packed = pack(results)
        print(f"{packed}: {megabytes(packed.stat().st_size)}, all of it in one file")
    print(f"Open {results / 'index.html'} in a browser, or browse {results}/{epochs[-1]}/<cluster>/.")


def tell_columns(run: Run, table: Path | None) -> dict[str, Values]:
    """The user's own columns, of `table` or as an earlier call kept them; says which, and what found no match."""
    columns, missing = (kept_columns(run), []) if table is None else read_table(table, run.ids)
    for sentence in missing:
        print(plain(sentence))
    if columns:
        source = f"an earlier --table; to go without remove {run.path / OWN}" if table is None else str(table)
        print(f"your own columns, from {source}: {', '.join(columns)}")
    return columns


def choose_format(results: Path, run: Run, per_cluster: int | None) -> str:
    """The pictures' format where none is asked for: as before, else without loss, unless there are very many."""
    kept = read_results(results) if results.is_dir() else None
    if kept is not None:
        return kept.format
    return "png" if per_cluster is not None or len(run.ids) <= LOSSLESS else "webp"


def begin_epoch(subject: Subject, choice: Choice, results: Path) -> Explanation:
    """What is to be explained of an epoch: its folder, and one look of the network at all images."""
    folder = results / str(subject.epoch)
    (folder / PIECES).mkdir(parents=True, exist_ok=True)
    scores = score_images(subject, folder, choice.map)
    return Explanation(subject, choice, folder, scores, chosen_rows(subject, choice, scores.rank))


def draw_shard(subject: Subject, choice: Choice, results: Path, shard: Shard) -> None:
    """Draw a shard of an epoch's images, and nothing else."""
    with drawing(results, results / str(subject.epoch) / PIECES, shard):
        with starting(results):
            check_results(results, subject.run)
            claim_results(results, subject.run, choice, subject.clusters.digest)
            whole = begin_epoch(subject, choice, results)
        part = replace(whole, rows=shard.of(whole.rows), shard=shard.name)
        draw_missing(part)
    print(f"epoch {subject.epoch}: shard {shard.number} of {shard.count}, {len(part.rows)} images, is drawn")


def finish_shards(subjects: Sequence[Subject], choice: Choice, results: Path) -> bool:
    """Write the tables and pages of the epochs, if this is the last of the shards; whether it was."""
    with last(results) as alone:
        if not alone:
            print("other shards are still being drawn: the last one makes the gallery")
            return False
        done = True
        epochs = [subject.epoch for subject in subjects]
        for subject in subjects:
            whole = begin_epoch(subject, choice, results)
            left = int(np.any([*whole.undrawn().values()], axis=0).sum())
            if left:
                told = f"epoch {subject.epoch}: {left} images of other shards are not drawn yet"
                print(f"{told}; the last shard makes the gallery")
                done = False
            else:
                finish_epoch(whole, results, epochs)
        return done


def finish_epoch(explanation: Explanation, results: Path, epochs: Sequence[int] = ()) -> None:
    """The tables and pages of what is drawn; pages name also the `epochs` that this call has still to explain."""
    gallery.write_tables(explanation)
    gallery.write_cluster_pictures(explanation)
    gallery.write_why(explanation)
    gallery.write_pages(explanation, random_weights_correlation(explanation), results, epochs)
    report(explanation)


def refresh_pages(subject: Subject, results: Path) -> None:
    """Write an epoch's pages again, with what lies in its folder by now; nothing where none were written yet."""
    folder = results / str(subject.epoch)
    kept = read_results(results)
    if kept is None or not (folder / "explanations.csv").exists():
        return
    choice = Choice(default_methods(), kept.target, format=kept.format, colours=kept.colours, map=kept.map)
    none = np.zeros(0, np.int64)
    explanation = Explanation(subject, choice, folder, score_images(subject, folder, kept.map), none)
    gallery.write_pages(explanation, random_weights_correlation(explanation), results)


def report(explanation: Explanation) -> None:
    """What was explained, and how many maps say nothing, in words."""
    rows = explanation.rows
    clusters = len(np.unique(explanation.subject.clusters.assignment[rows]))
    print(f"epoch {explanation.subject.epoch}: {len(rows)} images in {clusters} clusters explained")
    for key in explanation.choice.keys:
        empty = int(explanation.record.empty[key][rows].sum()) if len(rows) else 0
        if empty:
            print(f"  {empty} maps of {key} say nothing (zero, constant or not finite) and are drawn empty")


def default_results(run: Path) -> Path:
    """results/ beside exp/, results-NAME/ beside exp-NAME/ or NAME/."""
    name = run.resolve().name
    rest = "" if name == "exp" else name.removeprefix("exp-")
    home = run.parent if run.name else run.resolve().parent  # of `.` the parent is itself
    return home / (f"results-{rest}" if rest else "results")


def check_results(results: Path, run: Run) -> None:
    """Refuse a folder with another run's explanations, or with a stranger's files."""
    if results.exists() and not results.is_dir():
        raise UserError(f"{results}: a file is in the way: choose another --results")
    kept = read_results(results)
    if kept is None:
        foreign = [
            path.name
            for path in (sorted(results.iterdir()) if results.is_dir() else [])
            if path.name not in ("README.md", DOTS, FLIPS) and not path.name.startswith(".") and not only_audited(path)
        ]
        if foreign:
            raise UserError(f"{results}: holds other files ({foreign[0]}): choose another --results")
        for path in sorted(results.glob(f"*/{FOLDER}/.*.json")):
            if _audited_run(path) not in (None, run.identity):
                raise UserError(
                    f"{path.parent}: holds the audit of another run: choose another --results, or remove it"
                )
    elif kept.run != run.identity:
        raise UserError(
            f"{results}: holds the explanations of another run ({kept.name}): choose another --results, or remove it"
        )


def _audited_run(path: Path) -> object:
    """The identity of the run that a part of an audit was measured of; None where its file is damaged."""
    try:
        return typed(dict[str, Any], read_json(path, "")["asked"], path, "").get("run")
    except (Damaged, FileNotFoundError, KeyError, TypeError):
        return None


def only_audited(path: Path) -> bool:
    """Whether a folder is that of an epoch of which `explain audit` alone wrote something."""
    if whole_number(path.name) is None or not path.is_dir():
        return False
    return all(inside.name == FOLDER or inside.name.startswith(".") for inside in path.iterdir())


def claim_results(results: Path, run: Run, choice: Choice, assignments: str | None) -> None:
    """Write what this folder is made with, or refuse a setting that would mix two kinds of pictures in it."""
    name = run.path.resolve().name
    now = Kept(SCHEMA, run.identity, name, choice.target, assignments, choice.format, choice.colours, choice.map)
    kept = read_results(results)
    if kept is None:
        results.mkdir(parents=True, exist_ok=True)
        write_json(results / "results.json", asdict(now))
        return
    for name in ("target", "assignments", "format", "colours"):
        if getattr(kept, name) != getattr(now, name):
            if name == "colours" and kept.colours == "":
                raise UserError(
                    f"{results}: made by an earlier version, which coloured heat otherwise: remove it to draw all "
                    "again, or choose another --results"
                )
            told = "other --assignments" if name == "assignments" else f"--{name} {getattr(kept, name)}"
            raise UserError(f"{results}: was made with {told}: give the same, or choose another --results")
    if kept.map != now.map:
        write_json(results / "results.json", asdict(replace(kept, map=now.map)))


def read_results(results: Path) -> Kept | None:
    """results.json, or None where nothing has been explained yet."""
    path, mend = results / "results.json", f"remove {results} and explain again"
    if not path.exists():
        return None
    kept: Kept = typed(Kept, read_json(path, mend), path, mend)
    if kept.schema > SCHEMA:
        raise UserError(
            f"{path}: written by a newer version (schema {kept.schema}, this one reads {SCHEMA}): update first"
        )
    if kept.map not in MAPS:
        raise Damaged(path, f"a map {shown(kept.map)}", mend)
    if kept.format not in SUFFIX:
        raise Damaged(path, f"pictures of the format {shown(kept.format)}", mend)
    return kept
