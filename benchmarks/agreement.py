"""Agreement with the labels over several k and seeds, each training beside its baselines on the same images.

The tables of the docs are made by it. Every measure of deepcluster.agreement.MEASURES and every baseline of
deepcluster.baselines.BASELINES is in the table.
"""

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.setting import Ratio, conditions
from console import UserError
from console.options import natural, positive
from deepcluster.agreement import MEASURES, read_baselines
from deepcluster.baselines import BASELINES
from deepcluster.trained import run_config
from machine.files import read_csv, write_csv
from runs import Run, open_run

OURS = "run"  # what the columns of the training itself begin with
TITLES = {OURS: "DeepCluster"} | {name: baseline.title for name, baseline in BASELINES.items()}
RATIO_OF = "ami"


@dataclass(frozen=True)
class Trained:
    """A row of the table: one training, its baselines, and what it was measured with."""

    settings: str  # data and training options, as they were given
    data: str
    images: int
    preset: str
    size: int
    epochs: int
    k: int
    seed: int
    seconds: int
    conditions: str
    head_agreement: float
    agreement: dict[str, dict[str, float]]  # of each of TITLES that was measured, by measure

    def to_row(self) -> dict[str, object]:
        """As it is stored: a column `pixels_ami` for each baseline and measure, empty where there was none."""
        row = {name: value for name, value in vars(self).items() if name != "agreement"}
        return row | {
            _column(name, measure): self.agreement.get(name, {}).get(measure, "")
            for name in TITLES
            for measure in MEASURES
        }

    @classmethod
    def from_row(cls, row: dict[str, str]) -> "Trained":
        """What `to_row` gave, read from a file.

        Raises:
            KeyError: if a column is missing.
        """
        return cls(
            settings=row["settings"],
            data=row["data"],
            images=int(row["images"]),
            preset=row["preset"],
            size=int(row["size"]),
            epochs=int(row["epochs"]),
            k=int(row["k"]),
            seed=int(row["seed"]),
            seconds=int(row["seconds"]),
            conditions=row["conditions"],
            head_agreement=float(row["head_agreement"]),
            agreement={
                name: {measure: float(row[_column(name, measure)]) for measure in MEASURES}
                for name in TITLES
                if row[_column(name, RATIO_OF)]
            },
        )


def _column(name: str, measure: str) -> str:
    return f"{name}_{measure}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Options that are not named here go to `python -m deepcluster train`; they come after DATA."
    parser.add_argument("data", metavar="DATA", help="folder with class sub-folders, painted or mnist")
    parser.add_argument("--k", type=positive, nargs="+", default=[8, 40, 80], metavar="K", help="clusters (8 40 80)")
    parser.add_argument("--seeds", type=natural, nargs="+", default=[1, 2, 3], metavar="N", help="of trainings (1 2 3)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="CSV", help="table with a row per training; continued if it exists"
    )


def run(options: argparse.Namespace) -> None:
    """`python -m benchmarks agreement`: train once for each k and seed, but for what --out already holds."""
    settings = shlex.join([options.data, *options.rest])
    done = read_table(options.out)
    for k in options.k:
        for seed in options.seeds:
            if not any((one.settings, one.k, one.seed) == (settings, k, seed) for one in done):
                done.append(train_once(options.data, options.rest, k, seed))
                write_csv(options.out, [one.to_row() for one in done])
    asked = [one for one in done if one.settings == settings and one.k in options.k and one.seed in options.seeds]
    print("\n".join(sorted({one.conditions for one in asked})))
    print("\n".join(markdown(asked)))
    print("\n".join(str(ratio) for ratio in ratios(asked)))


def read_table(path: Path) -> list[Trained]:
    """The trainings that a table holds; none if it is not there.

    Raises:
        UserError: if it was not written by this version.
    """
    try:
        return [Trained.from_row(row) for row in read_csv(path)] if path.exists() else []
    except KeyError as error:
        raise UserError(
            f"--out {path}: has no column {error}: another version wrote it, so choose another --out"
        ) from None


def train_once(data: str, rest: Sequence[str], k: int, seed: int) -> Trained:
    """Train in a process of its own.

    Raises:
        UserError: if that fails, or the data has no labels.
    """
    with tempfile.TemporaryDirectory() as folder:
        exp = Path(folder) / "exp"
        ours = ["--exp", str(exp), "--k", str(k), "--seed", str(seed)]  # last, so that they hold
        command = [sys.executable, "-m", "deepcluster", "train", data, *rest, *ours]
        if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
            raise UserError(f"training with k {k} and seed {seed} failed: its message is above")
        return measure(open_run(exp), shlex.join([data, *rest]))


def measure(run: Run, settings: str) -> Trained:
    """The row of a finished run.

    Raises:
        UserError: if its images have no labels.
    """
    baselines, config, log = read_baselines(run), run_config(run), run.log()
    if baselines is None:
        raise UserError(f"{run.meta.dataset.source}: has no labels, so agreement cannot be measured")
    last: dict[str, Any] = log[-1] | {"accuracy": log[-1]["matched_accuracy"]}
    values = {OURS: last} | {name: baselines[name] for name in BASELINES if name in baselines}
    return Trained(
        settings=settings,
        data=run.meta.dataset.name,
        images=len(run.ids),
        preset=config.preset,
        size=config.size,
        epochs=config.epochs,
        k=config.k,
        seed=config.seed,
        seconds=round(sum(float(row[name]) for row in log for name in row if name.startswith("seconds_"))),
        conditions=conditions(run.meta.stamp),
        head_agreement=float(last["head_agreement"]),
        agreement={
            name: {measure: round(float(found[measure]), 4) for measure in MEASURES} for name, found in values.items()
        },
    )


def markdown(trained: list[Trained]) -> list[str]:
    """The table of the docs: a row per k, mean and standard deviation over the seeds."""
    measured = _measured(trained)
    heads = ["k", *(f"{TITLES[name]} {MEASURES[RATIO_OF]}" for name in measured), "purity", "head agrees", "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for k, rows in _by_k(trained).items():
        cells = [str(k), *(_spread(rows, _agreement(name, RATIO_OF)) for name in measured)]
        cells += [_spread(rows, _agreement(OURS, "purity")), _spread(rows, lambda one: one.head_agreement)]
        lines.append(f"| {' | '.join(cells)} | {', '.join(str(one.seed) for one in rows)} |")
    return lines


def ratios(trained: list[Trained]) -> list[Ratio]:
    """Of the training's mean to that of each baseline, at each k."""
    found = []
    for k, rows in _by_k(trained).items():
        ours = statistics.mean(map(_agreement(OURS, RATIO_OF), rows))
        for name in _measured(trained):
            if name == OURS:
                continue
            theirs = statistics.mean(map(_agreement(name, RATIO_OF), rows))
            value = ours / theirs if theirs > 0 else float("nan")  # chance is 0, and less may happen
            found.append(Ratio(TITLES[name], value, f"{MEASURES[RATIO_OF]} at k {k}"))
    return found


def _measured(trained: list[Trained]) -> list[str]:
    """The training and the baselines that all of them have: facts and given weights not every training has."""
    return [name for name in TITLES if all(name in one.agreement for one in trained)]


def _by_k(trained: list[Trained]) -> dict[int, list[Trained]]:
    return {k: [one for one in trained if one.k == k] for k in dict.fromkeys(one.k for one in trained)}


def _agreement(name: str, measure: str) -> Callable[[Trained], float]:
    return lambda one: one.agreement[name][measure]


def _spread(rows: list[Trained], of: Callable[[Trained], float]) -> str:
    values = [of(one) for one in rows]
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"
