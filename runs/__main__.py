"""python -m runs show DIR | trust DIR | sheet FILE.toml"""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from console import command, next_step
from console.group import refuse_many
from console.options import positive
from console.parser import Parser
from machine.reading import read_csv

if TYPE_CHECKING:
    from runs import Run

ROWS = 15  # of the log, the newest
WIDTH = 100  # characters of a line of facts


def build_parser() -> Parser:
    parser = Parser(prog="python -m runs", description="Look into a run directory, or make many.")
    commands = parser.commands()
    show = commands.add_parser("show", help="what was trained, how far it is, and how it went")
    trust = commands.add_parser("trust", help="read the images that a run from elsewhere names in its run.json")
    for one in (show, trust):
        one.add_argument("run", type=Path, metavar="DIR")
    sheet = commands.add_parser("sheet", help="a table of experiments: run, explained, compared on one page")
    sheet.add_argument("file", type=Path, metavar="FILE.toml")
    sheet.add_argument("--out", type=Path, metavar="DIR", help="where all of it goes (sheet-FILE/)")
    sheet.add_argument("--jobs", type=positive, default=1, metavar="N", help="experiments at a time (1)")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    refuse_many(f"python -m runs {options.command}")
    if options.command == "sheet":
        from runs.sheet import sheet_command

        best = sheet_command(options.file, options.out, options.jobs)
        next_step("python", "-m", "runs", "show", best)
        return
    from runs import open_run

    run = open_run(options.run)
    if options.command == "trust":
        from runs.received import remember

        remember(run)
        print(f"{run.path}: from now on its images are read from {run.meta.dataset.source}")
    else:
        print_run(run)
    next_step(*next_of(run))


def print_run(run: "Run") -> None:
    """What was trained, how far it is, and how it went."""
    from runs.tables import LOG

    meta, log = run.meta, run.log()
    data, settings = meta.dataset, {name: value for name, value in meta.config.items() if name not in meta.model}
    table = run.path / "skipped.csv"
    skipped = len(read_csv(table)) if table.exists() else 0
    wanted = meta.config.get("epochs", "?")
    part = f", {data.limit} of them" if data.limit is not None and data.limit < data.images else ""
    print(f"{run.path}: {meta.kind} run {run.identity}")
    _print_fact("images", [f"{data.images:,} of {data.name}{part}", f"{skipped:,} files passed over", data.source])
    _print_fact("network", _pairs(meta.model))
    _print_fact("settings", _pairs(settings))
    _print_fact("made with", [meta.stamp.device, f"{meta.stamp.threads} threads", *_pairs(meta.stamp.versions)])
    _print_fact("weights", [f"kept of epochs {', '.join(map(str, run.checkpoints())) or 'none yet'}"])
    _print_fact("epochs", [f"{len(log)} of {wanted} finished"])
    columns = [column.name for column in LOG if column.shown and log and column.name in log[0]]
    rows = [columns, *([_short(row[name]) for name in columns] for row in log[-ROWS:])] if log else []
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        print("  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))


def _print_fact(title: str, parts: list[str]) -> None:
    """A fact under its title, its parts in as many lines as they take."""
    # parts stay whole: their spaces are no places to break a line
    filled = textwrap.wrap(", ".join(part.replace(" ", "\0") for part in parts if part), WIDTH, break_on_hyphens=False)
    for number, line in enumerate(filled or [""]):
        print(f"  {title if number == 0 else '':<10}" + line.replace("\0", " "))


def _pairs(values: dict) -> list[str]:
    """Settings as a person would say them; those that are off or not set are left out."""
    return [_said(name.replace("_", " "), value) for name, value in values.items() if value not in (None, "", False)]


def _said(name: str, value: object) -> str:
    if isinstance(value, list | tuple):
        return f"{name} {' '.join(map(str, value))}"
    return name if value is True else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def next_of(run: "Run") -> tuple[object, ...]:
    """The command that goes on from here: training is not done, or to be explained."""
    if not run.checkpoints():
        return ("python", "-m", run.meta.kind, "train", run.meta.dataset.source, "--exp", run.path)
    return ("python", "-m", "explain", "--run", run.path)


def _short(cell: str) -> str:
    return f"{float(cell):.3f}" if "." in cell else cell or "-"


if __name__ == "__main__":
    command(main)
