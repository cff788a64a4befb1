"""What you know of the coins and no photograph tells: the columns of your own table (weight, mint, find, die axis)."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from console import UserError, plain
from datasets.names import match_names
from machine.files import harmless, spared, write_csv
from machine.reading import finite_number, read_csv, shown
from runs import Run

FILE = "own.csv"  # in the run directory: the columns by the run's own ids, kept for every later call
PREFIX = "own."  # of the columns in explanations.csv, which may be called like one of its own
IMAGE = "image"
ODD = re.compile("[\udc80-\udcff]")  # what bytes that are no UTF-8 are read as
UNKNOWN = {"", "-", "–", "?", "n/a", "nan"}  # cells that say that a thing is not known
COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
SEPARATORS = ",;\t"  # a spreadsheet whose numbers have commas writes semicolons
IDENTIFIER = re.compile(r"[+-]?(?:0[0-9].*|[0-9]{16,})|.*_.*")  # 007, 12_3: what a number would not give back
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3},[0-9]{3}")  # "1,234" may be either: no guess where all cells are so

Values = list[str] | np.ndarray  # of each of N images; '' and NaN: not known


def read_table(path: Path, ids: list[str], option: str = "--table") -> tuple[dict[str, Values], list[str]]:
    """The columns of a CSV, matched with the images `ids` (N), and sentences on what found no match.

    Args:
        path: of the table. Its column `image`, else its first, names the photographs: by id, file name, or that
            without its ending.
        ids: of the run's images.
        option: that named it, for what is refused.

    Returns:
        column -> N texts, or (N,) float64 where all cells that are filled are numbers (a decimal comma is one too, 007
        is none); '' and NaN where it is not known. Names and texts are in one line, without control characters.

    Raises:
        UserError: if the table will not do, naming it and the column or line.
    """
    where = f"{option} {path}"
    try:
        rows = read_csv(path, separators=SEPARATORS)
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{where}: no such file: name a CSV with a column image and others") from None
    names = [name for name in (rows[0] if rows else {}) if name.strip()]
    named_by = next((name for name in names if name.strip() == IMAGE), next(iter(names), IMAGE))
    columns = [name for name in names if name != named_by]
    if not columns:
        raise UserError(
            f"{where}: needs a row of names, image (or else the photographs' names first) and at least one other, and "
            "rows below, with commas, semicolons or tabs between them"
        )
    called = Counter(plain(name).strip() for name in [IMAGE, *columns])
    for name, times in called.items():
        if times > 1:
            raise UserError(f"{where}: two of its columns are called {shown(name)}: give each a name of its own")
    found: dict[int, dict[str, str]] = {}
    unknown = []
    matched = match_names(ids, [(row[named_by], "") for row in rows])
    for line, (row, (index, _)) in enumerate(zip(rows, matched, strict=True), 2):
        if index is None:
            unknown.append(row[named_by])
        elif index in found:
            raise UserError(f"{where}, line {line}: names {shown(row[named_by])} a second time: keep one of the rows")
        else:
            found[index] = row
    if not found:
        hint = "" if named_by.strip() == IMAGE else f", which its first column, {shown(named_by)}, should name"
        raise UserError(f"{where}: none of its images is in the run (the first: {shown(rows[0][named_by])}){hint}")
    missing = []
    if unknown:
        missing.append(
            f"{len(unknown)} rows of {path.name} name no image of the run, or not a unique one (the first: "
            f"{shown(unknown[0])})."
        )
    if len(found) < len(ids):
        first = next(name for i, name in enumerate(ids) if i not in found)
        missing.append(f"{len(ids) - len(found)} of {len(ids)} images have no row in {path.name} (the first: {first}).")
    if any(ODD.search(text) for name in columns for text in [name, *(row[name] for row in found.values())]):
        missing.append(f"{path.name} is not UTF-8: some of its letters are shown as codes; save it as CSV UTF-8.")
    cells = {name: [plain(found[i][name].strip()) if i in found else "" for i in range(len(ids))] for name in columns}
    return {plain(name).strip(): as_values(values) for name, values in cells.items()}, missing


def keep_columns(run: Run, columns: dict[str, Values]) -> None:
    """Write them into the run directory, in place of those of an earlier table."""
    cells = {harmless(name): to_cells(values) for name, values in columns.items()}
    rows = [{IMAGE: name} | {column: cells[column][i] for column in cells} for i, name in enumerate(run.ids)]
    write_csv(run.path / FILE, rows)


def kept_columns(run: Run) -> dict[str, Values]:
    """The columns that an earlier call kept in the run directory; none where there were none.

    Raises:
        UserError: if the file is no longer what was written.
    """
    path = run.path / FILE
    if not path.exists():
        return {}
    rows = read_csv(path, "give --table again")
    names = [name for name in (rows[0] if rows else {}) if name != IMAGE]
    if [row.get(IMAGE) for row in rows] != run.ids:
        raise UserError(f"{path}: not of the images of this run: give --table again, or remove it")
    return {spared(name): as_values([spared(row[name]) for row in rows]) for name in names}


def to_cells(values: Values) -> list[str]:
    """As a table has them that people open in a spreadsheet: '' where it is not known."""
    if isinstance(values, list):
        return [harmless(value) for value in values]
    return ["" if np.isnan(value) else f"{value:.15g}" for value in values.tolist()]


def as_values(cells: list[str]) -> Values:
    """Cells as numbers where all that are filled are some, else as texts."""
    cells = ["" if cell.casefold() in UNKNOWN else cell for cell in cells]
    if any(IDENTIFIER.fullmatch(cell) for cell in cells):
        return cells
    with_comma = [cell for cell in cells if COMMA.fullmatch(cell)]
    if with_comma and not all(THOUSANDS.fullmatch(cell) for cell in with_comma) and not any("." in c for c in cells):
        numbers = [finite_number(cell.replace(",", ".")) if cell else np.nan for cell in cells]
    else:
        numbers = [finite_number(cell) if cell else np.nan for cell in cells]
    if any(number is None for number in numbers) or not any(cells):
        return cells
    return np.array(numbers, np.float64)
