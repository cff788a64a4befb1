"""python -m runs show DIR | trust DIR | sheet FILE.toml"""

from pathlib import Path
from typing import TYPE_CHECKING

from console import command
from console.options import positive
from console.parser import Parser
from machine.reading import read_csv

if TYPE_CHECKING:
    from runs import Run

ROWS = 15  # of the log, the newest


def main() -> None:
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
    options = parser.parse_args()
    if options.command == "sheet":
        from runs.sheet import sheet_command

        sheet_command(options.file, options.out, options.jobs)
        return
    from runs import open_run  # brings torch, after --help

    run = open_run(options.run)
    if options.command == "trust":
        from runs.received import remember

        remember(run)
        print(f"{run.path}: from now on its images are read from {run.meta.dataset.source}")
    else:
        print_run(run)


def print_run(run: "Run") -> None:
    """What was trained, how far it is, and how it went."""
    from runs.tables import LOG

    meta, log = run.meta, run.log()
    data, settings = meta.dataset, {name: value for name, value in meta.config.items() if name not in meta.model}
    table = run.path / "skipped.csv"
    skipped = len(read_csv(table)) if table.exists() else 0
    print(f"{run.path}: {meta.kind} run {run.identity}")
    print(f"  images    {data.images} of {data.name} ({data.source}), {skipped} files passed over")
    print(f"  network   {_pairs(meta.model)}")
    print(f"  settings  {_pairs(settings)}")
    print(f"  made with {meta.stamp.device}, {meta.stamp.threads} threads, {_pairs(meta.stamp.versions)}")
    print(f"  weights   kept of epochs {', '.join(map(str, run.checkpoints())) or 'none yet'}")
    print(f"  epochs    {len(log)} of {meta.config.get('epochs', '?')} finished")
    columns = [column.name for column in LOG if column.shown and log and column.name in log[0]]
    width = max((len(name) for name in columns), default=0)
    rows = [columns, *([_short(row[name]) for name in columns] for row in log[-ROWS:])] if log else []
    for row in rows:
        print("  " + "  ".join(f"{cell:>{width}}" for cell in row))


def _pairs(values: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _short(cell: str) -> str:
    return f"{float(cell):.3f}" if "." in cell else cell or "-"


if __name__ == "__main__":
    command(main)
