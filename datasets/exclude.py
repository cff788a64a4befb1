"""The list of images that a training leaves out: a table with the column image, and why in reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from console import UserError, plain
from datasets.check import Report
from machine.files import write_csv
from machine.reading import read_csv


def read_list(path: Path) -> dict[str, str]:
    """Image -> why it is left out.

    Raises:
        UserError: if there is no such table.
    """
    try:
        rows = read_csv(path)
    except FileNotFoundError:
        raise UserError(f"--exclude {path}: no such file: name a table with the column image") from None
    if rows and "image" not in rows[0]:
        raise UserError(f"--exclude {path}: it has no column image: name one so, with a path as in images.csv a row")
    why = {row["image"]: plain(row.get("reason") or "") for row in rows if row["image"]}
    return {name: f"excluded by {path.name}" + (f": {reason}" if reason else "") for name, reason in why.items()}


def check_list(path: Path, listed: Mapping[str, str], ids: Sequence[str], skipped: Sequence[tuple[str, str]]) -> None:
    """Refuse a list of which no image is there, since it is one of another folder, and one that leaves none.

    Raises:
        UserError: for either.
    """
    if listed and not listed.keys() & {*ids, *(name for name, _ in skipped)}:
        raise UserError(
            f"--exclude {path}: none of its {len(listed)} images is there (the first: {next(iter(listed))!r}): write "
            "their paths as in images.csv"
        )
    if listed.keys() >= {*ids}:
        raise UserError(f"--exclude {path}: lists all {len(ids)} images: leave some")
    lost = sorted(listed.keys() - {*ids, *(name for name, _ in skipped)})
    if lost:
        print(
            f"--exclude {path}: {len(lost)} of its {len(listed)} images are not there (the first: {lost[0]!r}): are "
            "their names as in images.csv (UTF-8)?"
        )


def write_list(path: Path, report: Report, skipped: Sequence[tuple[str, str]]) -> int:
    """What `datasets check` would rather leave out; of duplicates the first stays. Each image once: how many."""
    reasons = {name: [f"broken: {reason}"] for name, reason in skipped}
    reasons |= report.spoiling()
    rows = [{"image": name, "reason": plain(", ".join(why))} for name, why in reasons.items()]
    write_csv(path, rows, ["image", "reason"])
    return len(reasons)
