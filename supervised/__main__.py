"""python -m supervised train | test | ensemble | compare | speedrun | report"""

import argparse
from pathlib import Path
from typing import Any

from console import command, next_step
from console.group import refuse_many
from console.options import (
    above_zero,
    add_exp,
    add_machine,
    add_reading,
    add_run,
    natural,
    not_negative,
    number,
    positive,
    seed,
    side,
)
from console.parser import Parser
from supervised.recipes import DATA, DEFAULT, RECIPES, SUITED, list_values

share = number(float, "a share above 0, at most 1", lambda x: 0 < x <= 1)


def build_parser() -> Parser:
    parser = Parser(prog="python -m supervised", description="Labelled images: train, compare, report.")
    commands = parser.commands()
    add_train(commands)

    test = commands.add_parser("test", help="accuracy on another test set")
    add_run(test)
    add_test(test)

    ensemble = commands.add_parser("ensemble", help="several networks vote")
    ensemble.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    add_test(ensemble)

    compare = commands.add_parser("compare", help="a table of runs beside the published figures")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")

    speedrun = commands.add_parser("speedrun", help="the fewest seconds, epochs and layers to 99 %% of the digits")
    speedrun.add_argument("--seeds", type=seed, nargs="+", default=[1, 2, 3, 4, 5], help="(1 to 5)")
    speedrun.add_argument("--out", type=Path, metavar="CSV", help="write the table here too")
    add_machine(speedrun)
    add_reading(speedrun)

    report = commands.add_parser("report", help="figures/ and report.html of a run")
    add_run(report)
    report.add_argument(
        "--image", type=natural, default=0, metavar="N", help="test image whose activations are drawn (0)"
    )
    report.add_argument(
        "--layer", type=natural, metavar="N", help="layer of the convolutions to draw (the first and the last)"
    )
    add_machine(report)
    add_reading(report)
    return parser


batch_size = number(int, "a whole number from 2", lambda n: n >= 2)  # batch norm cannot learn from one image


def add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a network",
        description="Train into --exp; started again, it continues. The test set is read once, at the end.",
    )
    train.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        default=DATA,
        help="a folder with train/ and test/, each with a sub-folder for each class, or "
        f"{', '.join([f'{DATA} (default)', *SUITED])}",
    )
    add_exp(train, "exp-mnist")
    others = ", ".join(name for name in RECIPES if name != DEFAULT)
    suited = "".join(f"; {model} for {data}" for data, model in SUITED.items())
    train.add_argument("--model", metavar="NAME", help=f"{DEFAULT} (default{suited}), {others}")
    train.add_argument(
        "--size", "--img-size", dest="size", type=side, default=28, metavar="PX", help="side that is seen (28)"
    )
    train.add_argument("--limit", type=positive, metavar="N", help="use N training images only")
    train.add_argument("--seed", type=seed, default=2, help="everything random comes from it (2)")

    learning = train.add_argument_group("learning")
    learning.add_argument("--epochs", type=positive, help=f"at most ({list_values(lambda recipe: recipe.epochs)})")
    learning.add_argument(
        "--batch",
        "--batch-size",
        dest="batch",
        type=batch_size,
        help=f"images per step ({list_values(lambda recipe: recipe.batch)})",
    )
    learning.add_argument("--lr", type=above_zero, help=f"learning rate ({list_values(lambda recipe: recipe.lr)})")
    learning.add_argument(
        "--validation", type=float, default=0.1, metavar="SHARE", help="of the training images, held back (.1)"
    )
    learning.add_argument(
        "--plateau",
        type=positive,
        default=3,
        metavar="EPOCHS",
        help="without improvement, then the rate is halved (3; autodiff's falls in a line)",
    )
    learning.add_argument(
        "--patience", type=positive, default=12, metavar="EPOCHS", help="without improvement, then training stops (12)"
    )
    learning.add_argument(
        "--no-early-stopping", dest="patience", action="store_const", const=None, help="train for all of --epochs"
    )
    learning.add_argument(
        "--stop-at-accuracy",
        type=share,
        metavar="SHARE",
        help="stop as soon as so many validation images are right "
        f"({list_values(lambda recipe: recipe.stop_at_accuracy or 0)})",
    )

    moves = train.add_argument_group("training images are moved")
    moves.add_argument(
        "--rotate",
        type=not_negative,
        metavar="DEGREES",
        help=f"turn by up to this much ({list_values(lambda recipe: recipe.augmentation.rotate)})",
    )
    moves.add_argument(
        "--zoom",
        type=not_negative,
        metavar="SHARE",
        help=f"zoom by up to this much ({list_values(lambda recipe: recipe.augmentation.zoom)})",
    )
    moves.add_argument(
        "--shift",
        type=not_negative,
        metavar="SHARE",
        help=f"shift by up to this much of the side ({list_values(lambda recipe: recipe.augmentation.shift)})",
    )
    add_machine(train)
    add_reading(train)


def add_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--test", metavar="DATA", help="a folder with a sub-folder for each class (default: the run's own test set)"
    )
    parser.add_argument("--rotate", type=float, default=0.0, metavar="DEGREES", help="turn its images by this much")
    parser.add_argument(
        "--shift", type=natural, default=0, metavar="PX", help="shift its images right and down by this much"
    )
    add_machine(parser)
    add_reading(parser)


def main() -> None:
    options = build_parser().parse_args()
    refuse_many(f"python -m supervised {options.command}")
    if options.command == "train":
        from supervised.launch import train_command as act
    elif options.command == "speedrun":
        from supervised.speedrun import speedrun_command as act
    elif options.command == "report":
        from supervised.report import report_command as act
    else:
        from supervised import evaluate

        act = {
            "test": evaluate.test_command,
            "ensemble": evaluate.ensemble_command,
            "compare": evaluate.compare_command,
        }[options.command]
    act(options)
    next_step(*next_of(options))


def next_of(options: argparse.Namespace) -> tuple[object, ...]:
    """The command to type when this one has done its work."""
    if options.command == "report":
        return ("python", "-m", "explain", "--run", options.run)
    if options.command == "ensemble":
        return ("python", "-m", "supervised", "compare", *options.runs)
    if options.command == "compare" and len(options.runs) > 1:
        return ("python", "-m", "supervised", "ensemble", *options.runs)
    if options.command == "speedrun":
        return ("python", "-m", "supervised", "train")
    run = (
        options.runs[0] if options.command == "compare" else options.exp if options.command == "train" else options.run
    )
    return ("python", "-m", "supervised", "report", "--run", run)


if __name__ == "__main__":
    command(main)
