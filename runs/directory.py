"""Reader and writer of a run directory.

Nothing that is read can run code: JSON, CSV, npz without pickle, torch.load(weights_only=True).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from console import UserError
from machine.files import locked, refuse_links, write_atomic, write_csv, write_json
from machine.reading import Damaged, finite_number, read_csv, read_json, read_npz, shown, typed, whole_number
from runs.meta import Meta, compare_settings
from runs.received import remember
from runs.tables import LOG, current_names
from runs.tensors import load_tensors, read_weights, save_tensors

if TYPE_CHECKING:
    import torch

# What a run that was half begun leaves, beside scratch files; a folder with anything else in it is somebody's own.
OURS = {
    "images.csv",
    "skipped.csv",
    "clusters",
    "checkpoints",
    "figures",
    ".lock",
    "k.csv",
    "start.csv",
    "clusters.csv",
    "log.csv",
}
MOST_CLUSTERS = 10_000_000  # a larger number in a file is damage
AGAIN = "restore a copy, or remove it and run the same command: it trains from the beginning"
COPY = "restore a copy, or start a new run directory"
KEPT = re.compile(r"epoch_(\d{4,9})\.pt")  # and not "epoch_0010 (1).pt", as a mounted Drive makes them


@dataclass(frozen=True)
class Clusters:
    """One epoch's clustering: cluster and distance to the own centroid, (N,) each."""

    assignment: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class Run:
    """An existing run directory; attributes are what never changes, methods read what grows."""

    path: Path
    meta: Meta  # run.json
    ids: list[str]
    labels: list[str] | None

    # --- reading ---

    @cached_property
    def identity(self) -> str:
        """What tells this run from another, wherever they lie: 16 hexadecimal digits."""
        sha = sha256()
        for name in ("run.json", "images.csv"):
            sha.update((self.path / name).read_bytes())
        return sha.hexdigest()[:16]

    def epochs(self) -> list[int]:
        """Finished epochs, ascending: those with a row in log.csv."""
        return [int(row["epoch"]) for row in self.log()]

    def checkpoints(self) -> list[int]:
        """Epochs whose weights were kept, ascending."""
        names = [path.name for path in self.path.glob("checkpoints/epoch_*.pt")]
        return sorted(int(found[1]) for found in map(KEPT.fullmatch, names) if found)

    def log(self) -> list[dict[str, str]]:
        """The rows of log.csv, cells as text; columns as in runs.tables.LOG.

        Raises:
            UserError: if it is damaged: an epoch is no number or does not follow the one above, a cell no number.
        """
        path = self.path / "log.csv"
        mend = "remove it and run the training again, which writes it"
        rows = current_names(read_csv(path, mend)) if path.exists() else []
        before = 0
        for line, row in enumerate(rows, 2):
            epoch = whole_number(row.get("epoch", ""))
            if epoch is None or epoch <= before:
                raise Damaged(path, f"line {line}: the epoch is {row.get('epoch', '')!r}", mend)
            before = epoch
            for column in LOG:
                if row.get(column.name) and finite_number(row[column.name]) is None and not _is_nan(row[column.name]):
                    raise Damaged(path, f"line {line}: {column.name} is {row[column.name]!r}", mend)
        return rows

    def clusters(self, epoch: int) -> Clusters:
        """One epoch's clustering.

        Raises:
            UserError: if there is none, or it is not of these images.
        """
        path = self.path / "clusters" / f"epoch_{epoch:04d}.npz"
        mend = "restore a copy, or train into a new --exp"
        wanted = {"assignment": ("iu", (len(self.ids),)), "distance": ("f", (len(self.ids),))}
        try:
            found = read_npz(path, wanted, mend)
        except FileNotFoundError:
            raise UserError(f"{path}: epoch {epoch} was not clustered; this run has {_span(self.epochs())}") from None
        assignment = found["assignment"].astype(np.int64)
        if len(assignment) and not 0 <= assignment.min() <= assignment.max() < MOST_CLUSTERS:
            raise Damaged(path, "clusters below 0 or beyond all numbers", mend)
        return Clusters(assignment, found["distance"])

    def table(self) -> list[dict[str, Any]]:
        """The rows of clusters.csv, numbers as numbers; columns in runs.tables.CLUSTERS.

        Raises:
            UserError: if no epoch is finished, or the table is not of these images.
        """
        path, mend = self.path / "clusters.csv", "restore a copy, or train another epoch, which writes it"
        try:
            rows: list[dict[str, Any]] = list(read_csv(path, mend))
        except FileNotFoundError:
            raise UserError(f"{self.path}: no finished epoch yet: let the training finish") from None
        if [row.get("image") for row in rows] != self.ids:
            raise Damaged(path, "its images are not those of images.csv", mend)
        for line, row in enumerate(rows, 2):
            for name in row.keys() & {"cluster", "rank", "predicted", "distance", "probability"}:
                read = finite_number if name in ("distance", "probability") else whole_number
                number = read(row[name])
                if number is None:
                    raise Damaged(path, f"line {line}: {name} is {row[name]!r}", mend)
                row[name] = number
        if rows and "cluster" not in rows[0]:
            raise Damaged(path, "it has no column cluster", mend)
        return rows

    def has_clusters(self, epoch: int) -> bool:
        return (self.path / "clusters" / f"epoch_{epoch:04d}.npz").exists()

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        """The weights that learnt epoch's clusters: {"epoch", "model": arguments, "state": state_dict}."""
        path = self.path / "checkpoints" / f"epoch_{epoch:04d}.pt"
        if not path.exists():
            raise UserError(f"{path}: the weights of epoch {epoch} were not kept; kept are {_span(self.checkpoints())}")
        return read_weights(path)

    def latest(self) -> dict[str, Any] | None:
        """All that a resume needs, or None before the first save."""
        path = self.path / "latest.pt"
        return load_tensors(path, AGAIN) if path.exists() else None

    def restored(self, restore: Callable[[], None]) -> None:
        """Do what puts latest.pt into a network; what does not fit is latest.pt's damage.

        Raises:
            UserError: if it does not fit.
        """
        try:
            restore()
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
            reason = shown(str(error).split("\n")[0])[1:-1] or type(error).__name__
            raise Damaged(self.path / "latest.pt", f"or of another training: {reason}", AGAIN) from None

    def read_json(self, name: str, kind: Any = Any) -> Any:
        """The content of an optional JSON file, or None.

        Args:
            name: of the file.
            kind: type of its content, as machine.reading.typed takes it: a dataclass, or dict[str, float], say.

        Raises:
            UserError: if it is damaged.
        """
        path, mend = self.path / name, "remove it and run the training again, which writes it"
        return typed(kind, read_json(path, mend), path, mend) if path.exists() else None

    # --- writing ---

    def write_clusters(self, epoch: int, clusters: Clusters) -> None:
        write_atomic(
            self.path / "clusters" / f"epoch_{epoch:04d}.npz",
            lambda file: np.savez(file, assignment=clusters.assignment, distance=clusters.distance),
        )

    def write_checkpoint(self, epoch: int, content: dict[str, Any]) -> None:
        save_tensors(self.path / "checkpoints" / f"epoch_{epoch:04d}.pt", content)

    def remove_checkpoint(self, epoch: int) -> None:
        (self.path / "checkpoints" / f"epoch_{epoch:04d}.pt").unlink(missing_ok=True)

    def write_latest(self, content: dict[str, Any]) -> None:
        save_tensors(self.path / "latest.pt", content)

    def write_log(self, rows: Sequence[Mapping[str, object]]) -> None:
        known = {name for row in rows for name in row}
        columns = [column.name for column in LOG if column.name in known] + sorted(known - {c.name for c in LOG})
        write_csv(self.path / "log.csv", rows, columns or ["epoch"])

    def write_table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        write_csv(self.path / name, rows)

    def write_json(self, name: str, content: object) -> None:
        write_json(self.path / name, content)

    def write_figure(self, name: str, content: bytes) -> None:
        """figures/NAME."""
        write_atomic(self.path / "figures" / name, content)

    def hold(self) -> AbstractContextManager[None]:
        """Hold the run for writing; a second training in the same directory is refused."""
        return hold(self.path)


def hold(path: Path) -> AbstractContextManager[None]:
    """Hold a run directory, begun or not, for writing; the folder is made.

    Raises:
        UserError: if another process holds it, or a file is in its way.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: a file is in the way of the run directory: choose another --exp")
    path.mkdir(parents=True, exist_ok=True)
    return locked(path, "another training is writing here: wait for it or choose --exp")


def begin(
    path: Path,
    meta: Meta,
    ids: Sequence[str],
    labels: Sequence[str] | None,
    skipped: Iterable[tuple[str, str]],
    first: Callable[[Run], None] | None = None,
) -> Run:
    """Start a run directory, held by the caller. run.json is written last: with it the directory is a run.

    Args:
        path: the run directory.
        meta: its run.json.
        ids: of its images.
        labels: of each image, or None.
        skipped: (file, reason) of what could not be used.
        first: writes what the run must hold from its beginning; after a kill before its end there is no run yet.

    Raises:
        UserError: if a run has been begun there since the caller looked.
    """
    if (path / "run.json").exists():
        raise UserError(f"{path}: another training was begun here meanwhile: run the same command again")
    for folder in ("clusters", "checkpoints", "figures"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = [{"image": name} for name in ids]
    if labels is not None:
        rows = [{"image": name, "label": label} for name, label in zip(ids, labels, strict=True)]
    write_csv(path / "images.csv", rows)
    write_csv(path / "skipped.csv", [{"file": name, "reason": why} for name, why in skipped], ["file", "reason"])
    run = Run(path, meta, list(ids), None if labels is None else list(labels))
    if first is not None:
        first(run)
    write_json(path / "run.json", meta.to_json())
    remember(run)
    return run


def find_begun(path: Path, kind: str) -> Run | None:
    """The run of this kind that was begun in `path`, or None if it may be begun there.

    Raises:
        UserError: if another kind of run, or somebody's own files, are there.
    """
    if (path / "run.json").exists():
        run = open_run(path)
        if run.meta.kind != kind:
            raise UserError(f"{path}: holds a run of another kind ({run.meta.kind}): choose another --exp")
        return run
    if path.is_dir():
        foreign = [one.name for one in path.iterdir() if one.name not in OURS and not one.name.endswith(".tmp")]
        if foreign:
            raise UserError(
                f"{path}: not a run directory, and it holds other files ({min(foreign)}): choose another --exp"
            )
    elif path.exists():
        raise UserError(f"{path}: a file is in the way of the run directory: choose another --exp")
    return None


def refuse_differences(run: Run, meta: Meta) -> None:
    """A continued training must be the same training; where the data lies, workers, device and folder may differ.

    Raises:
        UserError: naming the images or the settings that differ.
    """
    stored, now = run.meta.dataset, meta.dataset
    if stored.key != now.key or stored.limit != now.limit:
        what = f"--limit {stored.limit}" if stored.key == now.key else f"other images ({stored.name})"
        raise UserError(f"{run.path}: was begun with {what}: choose another --exp for {now.name}")
    if stored.excluded != now.excluded:
        was = "without --exclude" if not stored.excluded else "with another --exclude list"
        was = was if now.excluded else "with an --exclude list (now none)"
        raise UserError(f"{run.path}: was begun {was}: give the same to continue it, or choose another --exp")
    if stored.images != now.images:  # the same files, of which another program, or a library more, reads others
        raise UserError(
            f"{run.path}: was begun with {stored.images} usable images, now {now.images} are: choose another --exp"
        )
    differing = compare_settings(run.meta.config, meta.config)
    if differing:
        more = f"; --init {run.path} starts another --exp from its weights" if run.meta.kind == "deepcluster" else ""
        raise UserError(
            f"{run.path}: was begun with {', '.join(differing)}: give the same settings to continue it, or choose "
            f"another --exp{more if run.meta.config.get('epochs') != meta.config.get('epochs') else ''}"
        )
    if run.meta.view.drawn != meta.view.drawn:
        raise UserError(
            f"{run.path}: was begun with version {run.meta.view.drawn} of the view {run.meta.view.name}, which this "
            f"program draws as version {meta.view.drawn}: choose another --exp (--init "
            f"{run.path} starts from its weights), or use the program that began it"
        )


def open_run(path: Path) -> Run:
    """Open what training left.

    Raises:
        UserError: if `path` is not a run directory, or one of a newer version, or damaged.
    """
    if not (path / "run.json").is_file():
        there = "no such folder" if not path.is_dir() else "no run.json in it"
        raise UserError(f"{path}: not a run directory ({there}): name the folder that was given as --exp")
    refuse_links(path)
    meta = Meta.from_json(read_json(path / "run.json", COPY), path / "run.json")
    table = path / "images.csv"
    try:
        rows = read_csv(table, COPY)
    except FileNotFoundError:
        raise Damaged(table, "it is missing", COPY) from None
    if len(rows) != meta.dataset.images or len({row.get("image") for row in rows}) < len(rows):
        raise Damaged(table, f"{len(rows)} rows for the {meta.dataset.images} images of run.json", COPY)
    if any("image" not in row for row in rows):
        raise Damaged(table, "it has no column image", COPY)
    labels = [row["label"] for row in rows] if rows and "label" in rows[0] else None
    return Run(path, meta, [row["image"] for row in rows], labels)


def _is_nan(text: str) -> bool:
    return text.lower() in ("nan", "inf", "-inf")  # of a training that diverged


def _span(epochs: Sequence[int]) -> str:
    if not epochs:
        return "no epoch"
    if len(epochs) > 12:
        return f"{len(epochs)} epochs, the last {epochs[-1]}"
    return f"epochs {', '.join(map(str, epochs))}"


def load_weights(run: Run, model: "torch.nn.Module", state: dict[str, Any]) -> None:
    """Put a checkpoint's weights into the network that it says it is of.

    Raises:
        UserError: if they do not fit.
    """
    try:
        model.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.path}: a checkpoint does not fit its network ({str(error).splitlines()[0]})") from None


def checkpoint_of(run: Run, epoch: int | None = None) -> dict[str, Any]:
    """The checkpoint of an epoch, or the last kept.

    Raises:
        UserError: if there is none.
    """
    kept = run.checkpoints()
    if not kept:
        raise UserError(f"{run.path}: no weights were kept yet: let the training finish")
    return run.checkpoint(kept[-1] if epoch is None else epoch)
