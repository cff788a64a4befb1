"""Runs that were begun here, and those of others: what a stranger's run.json names is not read unasked.

The user's cache remembers the identity of each run that was begun here, which no received folder can forge.
"""

import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from console import UserError, plain
from machine.files import cache_root, home_path

if TYPE_CHECKING:
    from runs.directory import Run


def remember(run: "Run") -> None:
    """Note that a run was begun here, on images that the user named."""
    note = _note(run)
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def choose_images(run: "Run", data: str | None, named: Container[str]) -> str:
    """Whose images are read: `data`, else what run.json names, if the run was begun here. Says so.

    Args:
        run: whose images are wanted.
        data: that the user names.
        named: sources that are generated or published, and nobody's own.

    Raises:
        UserError: if only a run.json from elsewhere says where the images are.
    """
    source = run.meta.dataset.source
    if data is not None:
        if data == source or str(home_path(data).resolve()) == source:
            remember(run)
        return data
    kind, _, detail = source.partition(":")
    if kind in named and not detail.isdecimal():  # a count would be a stranger's
        return source
    if not _note(run).exists():
        raise UserError(
            f"{run.path}: its run.json names {plain(source)}, but it was not begun here, or before this version: name "
            f"its images with --data, or allow it: python -m runs trust {run.path}"
        )
    if kind not in named:
        print(f"reading the images in {source}, as run.json says", file=sys.stderr)
    return source


def tell_changes(run: "Run", ids: Sequence[str], key: str) -> None:
    """Say so if the photographs of a run are all there, but are not the same ones any more.

    Args:
        run: whose.
        ids: of the images that were found.
        key: of their content.
    """
    if not run.meta.dataset.key.startswith(key) and set(run.ids) <= set(ids):
        print(
            f"{run.meta.dataset.name}: files were changed, added or removed since the training: what is read now may "
            "not be what the network learnt from",
            file=sys.stderr,
        )


def _note(run: "Run") -> Path:
    return cache_root() / "runs" / run.identity
