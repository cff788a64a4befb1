"""Reader and writer of a run directory.

Every file is written beside itself and renamed into place, so after a kill at any instant each file is one that was
complete at some time. Nothing that is read can run code: JSON, CSV, npz without pickle, torch.load(weights_only=True).
"""

import csv
import errno
import fcntl
import io
import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from console import UserError

SCHEMA = 1
# What a mounted Drive answers while its connection hiccups; worth another try after so many seconds each.
HICCUPS = {errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EREMOTEIO}
WAITS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Clusters:
    """One epoch's clustering: cluster and distance to the own centroid, (N,) each."""

    assignment: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class Run:
    """An existing run directory; attributes are what never changes, methods read what grows."""

    path: Path
    meta: dict[str, Any]  # run.json
    ids: list[str]
    labels: list[str] | None

    # --- reading ---

    def epochs(self) -> list[int]:
        """Finished epochs, ascending: those with a row in log.csv."""
        return [int(row["epoch"]) for row in self.log()]

    def checkpoints(self) -> list[int]:
        """Epochs whose weights were kept, ascending."""
        return sorted(int(path.stem.removeprefix("epoch_")) for path in self.path.glob("checkpoints/epoch_*.pt"))

    def log(self) -> list[dict[str, str]]:
        path = self.path / "log.csv"
        return read_csv(path) if path.exists() else []

    def clusters(self, epoch: int) -> Clusters:
        path = self.path / "clusters" / f"epoch_{epoch:04d}.npz"
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Clusters(arrays["assignment"], arrays["distance"])
        except FileNotFoundError:
            raise UserError(f"{path}: epoch {epoch} was not clustered; this run has {_span(self.epochs())}") from None
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError):
            raise UserError(f"{path}: damaged file: restore a copy, or train into a new --exp") from None

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

    def json(self, name: str) -> Any:
        """The content of an optional JSON file, or None. Raises: UserError if it is damaged."""
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError as error:
            raise UserError(
                f"{path}: damaged ({error}): remove it and run the training again, which writes it"
            ) from None

    # --- writing ---

    def write_clusters(self, epoch: int, clusters: Clusters) -> None:
        atomic(
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
        write_csv(self.path / "log.csv", rows, None if rows else ["epoch"])

    def write_table(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        write_csv(self.path / name, rows)

    def write_json(self, name: str, content: object) -> None:
        text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"
        atomic(self.path / name, lambda file: file.write(text.encode()))

    def write_figure(self, name: str, draw: Callable[[io.BytesIO], object]) -> None:
        buffer = io.BytesIO()
        draw(buffer)
        atomic(self.path / "figures" / name, lambda file: file.write(buffer.getvalue()))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; a second training in the same directory is refused."""
        with locked(self.path, "another training is writing here: wait for it or choose --exp"):
            yield


def create(
    path: Path,
    meta: dict[str, Any],
    ids: Sequence[str],
    labels: Sequence[str] | None,
    skipped: Iterable[tuple[str, str]],
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
    run = Run(path, {"schema": SCHEMA, **meta}, list(ids), None if labels is None else list(labels))
    run.write_json("run.json", run.meta)
    return run


def open_run(path: Path) -> Run:
    """Raises: UserError if `path` is not a run directory, or one of a newer version, or damaged."""
    if not (path / "run.json").is_file():
        there = "no such folder" if not path.is_dir() else "no run.json in it"
        raise UserError(f"{path}: not a run directory ({there}): name the folder that was given as --exp")
    try:
        meta = json.loads((path / "run.json").read_text(encoding="utf-8"))
        rows = read_csv(path / "images.csv")
        ids = [row["image"] for row in rows]
        labels = [row["label"] for row in rows] if rows and "label" in rows[0] else None
        schema = int(meta["schema"])
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise UserError(f"{path}: run.json or images.csv is damaged ({error}): start a new run directory") from None
    if schema > SCHEMA:
        raise UserError(f"{path}: written by a newer version (schema {schema}, this one reads {SCHEMA}): update first")
    return Run(path, meta, ids, labels)


def _span(epochs: Sequence[int]) -> str:
    if not epochs:
        return "no epoch"
    return (
        f"epochs {', '.join(map(str, epochs))}" if len(epochs) <= 12 else f"{len(epochs)} epochs, the last {epochs[-1]}"
    )


# --- files ----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path, refusal: str) -> Iterator[None]:
    """Hold a folder for writing. Raises: UserError with `refusal` if another process holds it."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: {refusal}") from None
        except OSError:  # a mounted Drive has no locks; there is one writer there
            pass
        yield


def atomic(path: Path, write: Callable[[Any], object]) -> None:
    """Call `write` with an open binary file that takes the place of `path` when it is whole and on the disk.

    A mounted Drive that hiccups is tried again, so `write` may be called more than once.
    """
    for wait in (*WAITS, None):
        try:
            _replace(path, write)
            return
        except OSError as error:
            if error.errno not in HICCUPS or wait is None:
                raise
            time.sleep(wait)


def _replace(path: Path, write: Callable[[Any], object]) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        with scratch.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        if error.filename is None:
            error.filename = str(path)
        raise
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    def write(file: Any) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's zip writer hides the disk's own error
            free = os.statvfs(path.parent)
            if free.f_bavail * free.f_frsize < 1 << 20:
                raise OSError(28, "no space left", str(path)) from None
            raise error

    atomic(path, write)


def load_tensors(path: Path) -> dict[str, Any]:
    """Raises: UserError if the file is damaged or holds more than tensors and plain containers."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile, ValueError) as error:
        reason = str(error).split("\n")[0][:120]
        raise UserError(
            f"{path}: damaged or not a checkpoint ({reason}): delete it to continue from what is left, or restore a copy"
        ) from None


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """A table with a header; None becomes an empty cell. File names that are not UTF-8 keep their bytes."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text, columns or list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    atomic(path, lambda file: file.write(text.getvalue().encode("utf-8", "surrogateescape")))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        return list(csv.DictReader(file))
