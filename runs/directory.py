"""Reader and writer of a run directory.

Nothing that is read can run code: JSON, CSV, npz without pickle, torch.load(weights_only=True).
"""

import errno
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from console import UserError
from machine.files import locked, read_csv, write_atomic, write_csv, write_json
from runs.meta import Meta, compare_settings
from runs.tables import LOG, current_names

# What a run that was half begun leaves, beside scratch files; a folder with anything else in it is somebody's own.
OURS = {"run.json", "images.csv", "skipped.csv", "clusters", "checkpoints", "figures", ".lock"}
DAMAGED = (zipfile.BadZipFile, ValueError, KeyError, EOFError)  # what reading a half or broken npz raises


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
        return sorted(int(path.stem.removeprefix("epoch_")) for path in self.path.glob("checkpoints/epoch_*.pt"))

    def log(self) -> list[dict[str, str]]:
        """The rows of log.csv, cells as text; columns as in runs.tables.LOG."""
        path = self.path / "log.csv"
        return current_names(read_csv(path)) if path.exists() else []

    def clusters(self, epoch: int) -> Clusters:
        path = self.path / "clusters" / f"epoch_{epoch:04d}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Clusters(arrays["assignment"], arrays["distance"])
        except FileNotFoundError:
            raise UserError(f"{path}: epoch {epoch} was not clustered; this run has {_span(self.epochs())}") from None
        except DAMAGED:
            raise UserError(f"{path}: damaged file: restore a copy, or train into a new --exp") from None

    def has_clusters(self, epoch: int) -> bool:
        return (self.path / "clusters" / f"epoch_{epoch:04d}.npz").exists()

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        """The weights that learnt epoch's clusters: {"epoch", "model": arguments, "state": state_dict}."""
        path = self.path / "checkpoints" / f"epoch_{epoch:04d}.pt"
        if not path.exists():
            raise UserError(f"{path}: the weights of epoch {epoch} were not kept; kept are {_span(self.checkpoints())}")
        return load_tensors(path)

    def latest(self) -> dict[str, Any] | None:
        """All that a resume needs, or None before the first save."""
        path = self.path / "latest.pt"
        return load_tensors(path) if path.exists() else None

    def read_json(self, name: str) -> Any:
        """The content of an optional JSON file, or None.

        Raises:
            UserError: if it is damaged.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError as error:
            raise UserError(
                f"{path}: damaged ({error}): remove it and run the training again, which writes it"
            ) from None

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

    def write_figure(self, name: str, draw: Callable[[io.BytesIO], object]) -> None:
        """`draw` puts the picture's bytes into a buffer, which becomes figures/NAME."""
        buffer = io.BytesIO()
        draw(buffer)
        write_atomic(self.path / "figures" / name, buffer.getvalue())

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the run for writing; a second training in the same directory is refused."""
        with locked(self.path, "another training is writing here: wait for it or choose --exp"):
            yield


def begin(
    path: Path, meta: Meta, ids: Sequence[str], labels: Sequence[str] | None, skipped: Iterable[tuple[str, str]]
) -> Run:
    """Start a run directory. run.json is written last: with it the directory is a run."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: a file is in the way of the run directory: choose another --exp")
    for folder in ("clusters", "checkpoints", "figures"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = [{"image": name} for name in ids]
    if labels is not None:
        rows = [{"image": name, "label": label} for name, label in zip(ids, labels, strict=True)]
    write_csv(path / "images.csv", rows)
    write_csv(path / "skipped.csv", [{"file": name, "reason": why} for name, why in skipped], ["file", "reason"])
    write_json(path / "run.json", meta.to_json())
    return Run(path, meta, list(ids), None if labels is None else list(labels))


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
    differing = compare_settings(run.meta.config, meta.config)
    if differing:
        raise UserError(
            f"{run.path}: was begun with {', '.join(differing)}: give the same settings to continue it, or choose "
            "another --exp"
        )


def open_run(path: Path) -> Run:
    """Open what training left.

    Raises:
        UserError: if `path` is not a run directory, or one of a newer version, or damaged.
    """
    if not (path / "run.json").is_file():
        there = "no such folder" if not path.is_dir() else "no run.json in it"
        raise UserError(f"{path}: not a run directory ({there}): name the folder that was given as --exp")
    try:
        content = json.loads((path / "run.json").read_text(encoding="utf-8"))
        rows = read_csv(path / "images.csv")
        ids = [row["image"] for row in rows]
        labels = [row["label"] for row in rows] if rows and "label" in rows[0] else None
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise UserError(f"{path}: run.json or images.csv is damaged ({error}): start a new run directory") from None
    return Run(path, Meta.from_json(content, path / "run.json"), ids, labels)


def _span(epochs: Sequence[int]) -> str:
    if not epochs:
        return "no epoch"
    if len(epochs) > 12:
        return f"{len(epochs)} epochs, the last {epochs[-1]}"
    return f"epochs {', '.join(map(str, epochs))}"


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    def write(file: Any) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer hides the disk's own error
            free = os.statvfs(path.parent)
            if free.f_bavail * free.f_frsize < 1 << 20:
                raise OSError(errno.ENOSPC, "no space left", str(path)) from None
            raise error

    write_atomic(path, write)


def load_weights(run: Run, model: torch.nn.Module, state: dict[str, Any]) -> None:
    """Put a checkpoint's weights into the network that it says it is of.

    Raises:
        UserError: if they do not fit.
    """
    try:
        model.load_state_dict(state)
    except (RuntimeError, KeyError, TypeError) as error:
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


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        UserError: if the file is damaged or holds more than tensors and plain containers.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError) as error:
        reason = str(error).split("\n")[0][:120]
        raise UserError(
            f"{path}: damaged or not a checkpoint ({reason}): delete it to continue from what is left, or restore a "
            "copy"
        ) from None
