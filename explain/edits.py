"""`python -m explain apply`: the gallery's edits.csv -> clusters-edited.csv in the run directory."""

import argparse
import sys

import runs
from console import plain
from machine.files import write_atomic, write_csv
from runs.edits import OUT, apply_edits, read_edits

LOG = "clusters-edited.log"


def apply_command(options: argparse.Namespace) -> None:
    """`python -m explain apply`."""
    run = runs.open_run(options.run)
    rows, log = apply_edits(run, read_edits(options.edits))
    write_csv(run.path / OUT, rows)
    write_atomic(run.path / LOG, "".join(f"{plain(line)}\n" for line in log).encode())
    print(f"{run.path / OUT}: {len(rows)} images; what was done is in {run.path / LOG}")
    if sys.stdout.isatty():
        print("\n".join(log))
