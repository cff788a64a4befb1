"""How often a painted coin moves to another cluster when its photograph is taken again: turned, lit or laid otherwise.

The coin itself, its flan, die, strike and wear, stays what it was. Each photograph is written as a JPEG and goes the
whole way from the file to the network's answer.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import runs
from benchmarks.setting import conditions
from console import UserError, progress
from console.options import add_machine, positive
from datasets.painted import BACKGROUNDS, COUNT, SEED, repaint
from deepcluster.features import embed
from deepcluster.trained import network, open_images, run_config
from deepcluster.views import Frames
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
    numbers = np.sort(np.random.default_rng(0).permutation(COUNT)[: options.limit])
    with tempfile.TemporaryDirectory() as scratch:
        folders = photograph_again(Path(scratch), numbers, options.seed)
        print(f"share of {len(numbers)} painted coins that change their cluster; {conditions(trained[0].meta.stamp)}")
        print(f"{'photographed again with another':40}" + "".join(f"{one.path!s:>28}" for one in trained))
        answers = {
            (change, one.path): answer(one, folder, device) for change, folder in folders.items() for one in trained
        }
    for change in CHANGES[1:]:
        shares = [(answers[change, one.path] != answers["nothing", one.path]).mean() for one in trained]
        print(f"{change:40}" + "".join(f"{share:>28.3f}" for share in shares))


def photograph_again(root: Path, numbers: np.ndarray, seed: int) -> dict[str, Path]:
    """A folder of the coins `numbers` for each of CHANGES."""
    folders = {change: root / f"{i}" for i, change in enumerate(CHANGES)}
    for folder in folders.values():
        folder.mkdir()
    for number in progress(numbers.tolist(), "painting coins", unit="coins"):
        rng = np.random.default_rng(derive_seed(seed, number, "photograph again"))
        _, facts = repaint(number, SEED, COUNT)
        changed: dict[str, dict[str, float | str]] = {
            "nothing": {},
            "turn, up to 15°": {"turn": float(facts["turn_degrees"] + rng.uniform(-15, 15))},
            "turn, any angle": {"turn": float(rng.uniform(-180, 180))},
            "light": {"light": float(rng.uniform(-180, 180))},
            "ground": {"background": str(rng.choice([one for one in BACKGROUNDS if one != facts["background"]]))},
        }
        for change, folder in folders.items():
            picture, facts = repaint(number, SEED, COUNT, changed[change])
            Image.fromarray(picture).save(folder / f"coin_{number + 1:04d}.jpg", quality=facts["jpeg_quality"])
    return folders


def answer(run: runs.Run, folder: Path, device: torch.device) -> np.ndarray:
    """(N,) the network's cluster of each photograph in a folder, in the order of their names."""
    dataset = open_images(run, str(folder), None, None)
    found = embed(network(run).to(device), Frames(dataset.pixels, device), run_config(run), "predicting")
    order = np.argsort(dataset.ids)
    return found.best_two[1][order, 0]
