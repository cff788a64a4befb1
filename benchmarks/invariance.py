"""How often a painted coin moves to another cluster when its photograph is taken again: turned, lit or laid otherwise.

The coin itself, its flan, die, strike and wear, stays what it was. Each photograph is written as a JPEG and goes the
whole way from the file to the network's answer.
"""

import argparse
from pathlib import Path

import numpy as np

import runs
from benchmarks.setting import conditions
from console import UserError, progress
from console.options import add_machine, positive
from datasets import check_drawn
from datasets.painted import BACKGROUNDS, COUNT, SEED, Changed, repaint
from explain.audit.counterfactual import Change, PaintedSet, answers, draw_again
from explain.subject import trainer_of
from machine.device import use_device
from machine.seeds import derive_seed

CHANGES = ("nothing", "turn, up to 15°", "turn, any angle", "light", "ground")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", "--exp", dest="run", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--limit", type=positive, default=150, metavar="N", help="coins, drawn evenly (150)")
    parser.add_argument("--seed", type=positive, default=1, help="of what is changed (1)")
    add_machine(parser)


def run(options: argparse.Namespace) -> None:
    device = use_device(options.device)
    trained = [runs.open_run(path) for path in options.run]
    for one in trained:
        if one.meta.dataset.source != "painted":
            raise UserError(f"{one.path}: not a run on `painted`, whose coins alone can be photographed again")
        check_drawn(one.meta.view.name, one.meta.view.drawn)
    numbers = np.sort(np.random.default_rng(0).permutation(COUNT)[: options.limit])
    changes = changes_of(numbers, options.seed)
    print(f"share of {len(numbers)} painted coins that change their cluster; {conditions(trained[0].meta.stamp)}")
    print(f"{'photographed again with another':40}" + "".join(f"{one.path!s:>28}" for one in trained))
    found = {}
    for change in CHANGES:
        jobs = [
            (number, PaintedSet(COUNT, SEED), Change(each[change]))
            for number, each in zip(numbers.tolist(), changes, strict=True)
        ]
        drawn = {view: draw_again(jobs, view) for view in dict.fromkeys(one.meta.view for one in trained)}
        for one in trained:
            trainer = trainer_of(one)
            model = trainer.for_inference(trainer.network(one).to(device))
            found[change, one.path] = answers(one, trainer, model, drawn[one.meta.view], device).argmax(1)
    for change in CHANGES[1:]:
        shares = [(found[change, one.path] != found["nothing", one.path]).mean() for one in trained]
        print(f"{change:40}" + "".join(f"{share:>28.3f}" for share in shares))


def changes_of(numbers: np.ndarray, seed: int) -> list[dict[str, Changed]]:
    """Of each coin what is otherwise, by the name in CHANGES."""
    found = []
    for number in progress(numbers.tolist(), "painting coins", unit="coins"):
        rng = np.random.default_rng(derive_seed(seed, number, "photograph again"))
        _, facts = repaint(number, SEED, COUNT)
        changes: dict[str, Changed] = {
            "nothing": {},
            "turn, up to 15°": {"turn": float(facts["turn_degrees"] + rng.uniform(-15, 15))},
            "turn, any angle": {"turn": float(rng.uniform(-180, 180))},
            "light": {"light": float(rng.uniform(-180, 180))},
            "ground": {"background": str(rng.choice([one for one in BACKGROUNDS if one != facts["background"]]))},
        }
        found.append(changes)
    return found
