"""python -m runs show DIR"""

from pathlib import Path

from console import Parser, command
from runs import open_run


def main() -> None:
    parser = Parser(prog="python -m runs", description="Look into a run directory.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    show = commands.add_parser("show", help="what was trained, how far it is, and how it went")
    show.add_argument("run", type=Path, metavar="DIR")
    run = open_run(parser.parse_args().run)

    meta, log = run.meta, run.log()
    config = meta.get("config", {})
    data = meta["dataset"]
    skipped = max(0, len((run.path / "skipped.csv").read_text(errors="replace").splitlines()) - 1)
    print(f"{run.path}: {meta['kind']} run, schema {meta['schema']}")
    print(f"  images    {data['images']} of {data['name']} ({data['source']}), {skipped} files passed over")
    print(f"  network   {meta['model']}")
    print(f"  settings  {', '.join(f'{name} {value}' for name, value in config.items() if name not in meta['model'])}")
    print(f"  made with {meta['device']}, {meta['threads']} threads, {meta['versions']}")
    print(f"  weights   kept of epochs {', '.join(map(str, run.checkpoints())) or 'none yet'}")
    print(f"  epochs    {len(log)} of {config.get('epochs', '?')} finished")
    columns = [
        c
        for c in ("epoch", "loss", "stability", "ami", "purity", "head_share", "smallest", "largest", "empty")
        if log and c in log[0]
    ]
    rows = [columns] + [[_short(row[c]) for c in columns] for row in log[-15:]]
    for row in rows if log else []:
        print("  " + "  ".join(f"{cell:>10}" for cell in row))


def _short(cell: str) -> str:
    return f"{float(cell):.3f}" if "." in cell else cell or "-"


if __name__ == "__main__":
    command(main)
