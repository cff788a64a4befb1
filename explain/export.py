"""`python -m explain export`: photographs in a folder for each cluster, a table of them, and a PDF to print of each.

Needs no network: clusters and names are the run's, a table's, or those that an expert's edits leave.
"""

import argparse
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

import runs
from console import UserError, megabytes, progress
from datasets import Dataset
from datasets.folder import refuse_inside
from explain.assignment import ExplainedClusters, clusters_of
from explain.own import PREFIX, kept_columns, to_cells
from explain.plates import Plate, write_plate
from explain.record import file_names, is_there, safe_name
from explain.subject import epochs_to_explain, find_photographs, trainer_of
from machine.files import harmless, home_path, locked, spared, write_atomic, write_csv, write_json
from machine.reading import Damaged, open_regular, read_csv, read_json, typed, whole_number
from runs import Run
from runs.edits import edit_clusters, outputs_of, read_edits

SCHEMA = 1
KEPT, TABLE, SKIPPED = "export.json", "export.csv", "skipped.csv"


@dataclass(frozen=True)
class Kept:
    """export.json: what a folder was made with; anything else is refused in it."""

    schema: int
    run: str  # its identity
    epoch: int
    images: str  # digest of which are exported, their clusters and names
    linked: bool


@dataclass(frozen=True)
class Export:
    """What goes where."""

    run: Run
    epoch: int
    clusters: ExplainedClusters
    rows: np.ndarray  # the images to export, cluster by cluster, the most typical first
    dataset: Dataset
    position: np.ndarray  # (N,) of the run's image i in the dataset
    group: str  # the word for a cluster
    out: Path
    linked: bool

    @cached_property
    def own(self) -> dict[str, list[str]]:
        """The user's own columns, if an `explain --table` kept some: name -> N cells."""
        return {name: to_cells(values) for name, values in kept_columns(self.run).items()}

    @cached_property
    def rank(self) -> np.ndarray:
        """(N,) place in the whole cluster, 1: nearest to the centroid; images whose distance is unknown last."""
        found = np.zeros(len(self.run.ids), np.int64)
        for number in np.unique(self.clusters.assignment):
            members = np.flatnonzero(self.clusters.assignment == number)
            found[members[np.argsort(self.clusters.distance[members], kind="stable")]] = np.arange(1, len(members) + 1)
        return found

    @cached_property
    def _names(self) -> list[str]:
        return file_names(self.run.ids)

    def original(self, row: int) -> Path | None:
        """The photograph's file; None where images are no files."""
        return None if self.dataset.root is None else self.dataset.root / self.run.ids[row]

    def folder(self, number: int) -> str:
        """Of a cluster: its number, as long as the longest, and its name."""
        digits = len(str(max(*self.clusters.numbers, self.clusters.assignment.max())))
        name = safe_name(self.clusters.names.get(number, ""))[:60]
        return f"cluster-{number:0{digits}d}" + (f"-{name}" if name else "")

    def file(self, row: int) -> str:
        """Where an image goes, from `out`."""
        suffix = ".png" if self.dataset.root is None else PurePosixPath(self.run.ids[row]).suffix.lower()
        return f"{self.folder(int(self.clusters.assignment[row]))}/{self._names[row]}{suffix}"

    def members(self) -> Iterator[tuple[int, list[int]]]:
        """Each cluster with images to export, and these."""
        assigned = self.clusters.assignment[self.rows]
        for number in np.unique(assigned).tolist():
            yield number, self.rows[assigned == number].tolist()


def export_command(options: argparse.Namespace) -> None:
    """`python -m explain export`."""
    run = runs.open_run(options.run)
    epoch, clusters = clusters_to_export(run, options)
    refuse_inside(options.out, options.data or run.meta.dataset.source, "--out")
    check_out(options.out)
    wanted = read_selection(options.selection, run) if options.selection is not None else np.arange(len(run.ids))
    export = choose(run, epoch, clusters, wanted, options)
    kept = Kept(SCHEMA, run.identity, epoch, digest_of(export), options.link)
    check_out(options.out, kept)
    options.out.mkdir(parents=True, exist_ok=True)
    with locked(options.out, "another export is writing here: wait for it or choose --out"):
        check_out(options.out, kept)
        write_json(options.out / KEPT, asdict(kept))
        write_export(export)


def clusters_to_export(run: Run, options: argparse.Namespace) -> tuple[int, ExplainedClusters]:
    """The epoch, and which cluster each image is in: as the run, a table or the expert's edits say."""
    if options.edits is not None and options.assignments is not None:
        raise UserError("--edits and --assignments both say which cluster an image is in: give one of them")
    edits = None if options.edits is None else read_edits(options.edits)
    wanted = options.epoch
    if edits is not None and wanted == "latest":
        wanted = edits[0]["epoch"]
        if whole_number(wanted) is None:
            raise UserError(f"--edits {options.edits}: {wanted!r} is no epoch: save it again in the gallery")
    if wanted == "all":
        raise UserError("--epoch all: an export is of one epoch: name its number, or latest")
    epoch = epochs_to_explain(run, wanted)[0] if edits is None else int(wanted)
    if edits is not None and edits[0]["epoch"] != str(epoch):
        raise UserError(f"--edits {options.edits}: are of epoch {edits[0]['epoch']}, not of --epoch {epoch}")
    k = outputs_of(run, epoch, run.clusters(epoch).assignment)
    clusters = clusters_of(run, epoch, k, trainer_of(run).given_names(run), options.assignments)
    return epoch, clusters if edits is None else _edited(run, clusters, edits)


def _edited(run: Run, own: ExplainedClusters, edits: list[dict[str, str]]) -> ExplainedClusters:
    """Clusters as the edits leave them; a moved coin's distance to its new centroid is not known."""
    edited = edit_clusters(run, edits)
    final = edited.final
    names = {number: edited.name_of(number) for number in np.unique(final[final >= 0]).tolist()}
    return replace(
        own,
        assignment=final,
        names=own.names | {number: name for number, name in names.items() if name},
        distance=np.where(edited.before != final, np.nan, own.distance),
    )


def read_selection(path: Path, run: Run) -> np.ndarray:
    """The images that a table names in its column `image` (edits.csv does), or a plain list, one a line.

    Raises:
        UserError: if the file is not there, names none, or one that is not in the run.
    """
    try:
        rows = read_csv(path)
        if rows and "image" in rows[0]:
            named = [row["image"] for row in rows]
        else:
            with open_regular(path) as file:
                named = [line.rstrip("\r") for line in file.read().decode("utf-8", "surrogateescape").split("\n")]
    except FileNotFoundError:
        raise UserError(f"--selection {path}: no such file: name a table with the column image, or a list") from None
    named = [name for name in named if name.strip()]
    if not named:
        raise UserError(f"--selection {path}: names no image: a table with the column image is wanted, or a list")
    index = {name: i for i, name in enumerate(run.ids)}
    for name in named:
        if name not in index:
            raise UserError(f"--selection {path}: {name!r} is not an image of {run.path}: write it as in images.csv")
    return np.unique([index[name] for name in named])


def choose(
    run: Run, epoch: int, clusters: ExplainedClusters, wanted: np.ndarray, options: argparse.Namespace
) -> Export:
    """Which of the `wanted` images are exported: those that are there, and in one of --clusters."""
    for number in options.clusters or ():
        if number not in clusters.assignment:
            raise UserError(f"--clusters {number}: epoch {epoch} has no image in such a cluster")
    dataset, position = find_photographs(run, options.data, options.workers, options.mnist_dir)
    export = Export(
        run,
        epoch,
        clusters,
        wanted,
        dataset,
        position,
        trainer_of(run).group(run),
        options.out,
        options.link,
    )
    if options.link and (
        export.dataset.root is None or not home_path(options.data or run.meta.dataset.source).is_dir()
    ):
        raise UserError(f"--link: the images of {run.meta.dataset.name} lie in no folder of yours: export without it")
    there, placed = position[wanted] >= 0, clusters.assignment[wanted] >= 0
    for what, which in (("not there any more", ~there), ("in no cluster", there & ~placed)):
        if which.any():
            print(f"{which.sum()} images are {what} (the first: {run.ids[int(wanted[which][0])]!r}) and left out")
    rows = wanted[there & placed]
    if options.clusters is not None:
        rows = rows[np.isin(clusters.assignment[rows], options.clusters)]
    if not len(rows):
        raise UserError("nothing to export: of the images asked for none is there and in the clusters asked for")
    return replace(export, rows=rows[np.lexsort((export.rank[rows], clusters.assignment[rows]))])


def digest_of(export: Export) -> str:
    """What tells one export of a run's epoch from another: images, clusters, names, own columns."""
    names = [export.folder(number) for number, _ in export.members()]
    own = [[name, *(cells[row] for row in export.rows.tolist())] for name, cells in export.own.items()]
    told = repr((export.rows.tolist(), export.clusters.assignment[export.rows].tolist(), names, *own))
    return sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def check_out(out: Path, now: Kept | None = None) -> None:
    """Refuse a folder with somebody's own files, or with another export than `now`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file is in the way: choose another --out")
    path, mend = out / KEPT, f"remove {out} and export again"
    if not path.exists():
        foreign = sorted(one.name for one in out.iterdir() if not one.name.startswith(".")) if out.is_dir() else []
        if foreign:
            raise UserError(f"{out}: holds other files ({foreign[0]}): choose another --out")
        return
    kept: Kept = typed(Kept, read_json(path, mend), path, mend)
    if kept.schema > SCHEMA:
        raise Damaged(path, f"written by a newer version (schema {kept.schema})", "update first")
    if now is not None and kept != now:
        what = (
            "of another run"
            if kept.run != now.run
            else f"of epoch {kept.epoch}, other images, clusters, names or columns"
        )
        what = "with copies" if kept == replace(now, linked=False) else what
        what = "with links" if kept == replace(now, linked=True) else what
        raise UserError(f"{out}: holds an export {what}: choose another --out, or remove it")


def write_export(export: Export) -> None:
    """Everything that is not there yet."""
    members = list(export.members())
    missing = [row for row in export.rows.tolist() if not _is_exported(export, row)]
    bytes_missing = 0 if export.linked else sum(_size(export, row) for row in missing)
    free = shutil.disk_usage(export.out).free
    print(
        f"{len(export.rows)} photographs of {len(members)} {export.group}s into {export.out}: {len(missing)} to "
        f"{'link' if export.linked else 'copy'}" + ("" if export.linked else f" ({megabytes(bytes_missing)})")
    )
    if bytes_missing > free:
        raise UserError(
            f"{export.out}: {megabytes(bytes_missing)} are to be copied, {megabytes(free)} are free: free some "
            "space, choose another --out, or --link"
        )
    for number, _ in members:
        (export.out / export.folder(number)).mkdir(exist_ok=True)
    failed: dict[int, str] = {}
    for row in progress(missing, "exporting"):
        why = _place(export, row)
        if why is not None:
            failed[row] = why
    write_csv(export.out / TABLE, [_line(export, row) for row in export.rows.tolist() if row not in failed])
    write_csv(
        export.out / SKIPPED,
        [{"image": export.run.ids[row], "reason": why} for row, why in failed.items()],
        ["image", "reason"],
    )
    for number, rows in progress(members, "contact sheets", unit="clusters"):
        path = export.out / f"{export.folder(number)}.pdf"
        if not is_there(path):
            write_plate(path, _plate(export, number, [row for row in rows if row not in failed]))
    if failed:
        row, why = next(iter(failed.items()))
        print(f"{len(failed)} could not be read (the first: {export.run.ids[row]!r}: {why}); {SKIPPED} names them")
    print(f"Look at {export.out / TABLE}, and at {export.out / export.folder(members[0][0])}.pdf and the other sheets.")


def _plate(export: Export, number: int, rows: list[int]) -> Plate:
    size = int((export.clusters.assignment == number).sum())
    name = export.clusters.names.get(number, "")
    of_all = f"{len(rows)} of its {size} images" if len(rows) != size else f"{size} image{'' if size == 1 else 's'}"
    return Plate(
        title=f"{export.group.capitalize()} {number}" + (f": {name}" if name else ""),
        facts=f"{of_all}, the most typical first; {export.run.meta.dataset.name}, run "
        f"{export.run.path.resolve().name}, epoch {export.epoch}",
        names=[export.run.ids[row] for row in rows],
        known=[_known(export, row) for row in rows],
        photographs=[export.original(row) or export.dataset.decoded[int(export.position[row])] for row in rows],
    )


def _known(export: Export, row: int) -> str:
    return " · ".join(f"{name} {spared(cells[row])}" for name, cells in export.own.items() if cells[row])


def _line(export: Export, row: int) -> dict[str, object]:
    clusters = export.clusters
    number, distance = int(clusters.assignment[row]), float(clusters.distance[row])
    line: dict[str, object] = {
        "image": export.run.ids[row],
        "file": export.file(row),
        "cluster": number,
        "name": harmless(clusters.names.get(number, "")),
        "rank": int(export.rank[row]),
        "distance": "" if np.isnan(distance) else f"{distance:.6g}",
    }
    if export.run.labels is not None:
        line["label"] = export.run.labels[row]
    return line | {PREFIX + name: cells[row] for name, cells in export.own.items()}


def _size(export: Export, row: int) -> int:
    """Bytes of an image's file; 0 if it cannot be asked."""
    original = export.original(row)
    try:
        return export.dataset.decoded[int(export.position[row])].nbytes if original is None else original.stat().st_size
    except OSError:
        return 0


def _is_exported(export: Export, row: int) -> bool:
    target, original = export.out / export.file(row), export.original(row)
    if export.linked:
        return target.is_symlink() and original is not None and os.readlink(target) == str(original.resolve())
    if original is None:
        return is_there(target) and not target.is_symlink()
    return target.exists() and not target.is_symlink() and target.stat().st_size == _size(export, row)


def _place(export: Export, row: int) -> str | None:
    """Copy or link an image; why not, if its file cannot be read."""
    target, original = export.out / export.file(row), export.original(row)
    if original is None:
        buffer = io.BytesIO()
        Image.fromarray(export.dataset.decoded[int(export.position[row])]).save(buffer, "png")
        content = buffer.getvalue()
    else:
        try:
            with open_regular(original) as file:
                content = b"" if export.linked else file.read()
        except OSError as error:
            return str(error.strerror or error)
    if export.linked and original is not None:
        scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        scratch.unlink(missing_ok=True)
        os.symlink(original.resolve(), scratch)
        os.replace(scratch, target)
    else:
        write_atomic(target, content, durable=False)
    return None
