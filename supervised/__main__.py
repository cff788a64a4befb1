"""python -m supervised train | test | ensemble | compare | speedrun | report"""

import argparse
from pathlib import Path

from console import Parser, command
from console.options import above_zero, add_machine, natural, not_negative, positive


def build_parser() -> Parser:
    parser = Parser(prog="python -m supervised", description="MNIST with its labels: train, compare, report.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    train = commands.add_parser("train", help="train a digit network", allow_abbrev=False,
                                description="Train into --exp; started again, it continues. The test set is read once, at the end.")  # fmt: skip
    train.add_argument("--model", default="cnn101", help="cnn101 (default), simple_conv, drop_conv, drop_move_conv, drop_full_conv, mlp")  # fmt: skip
    train.add_argument("--exp", type=Path, default=Path("exp-mnist"), metavar="DIR", help="run directory (exp-mnist)")
    train.add_argument("--epochs", type=positive, default=150, help="at most (150)")
    train.add_argument("--batch", type=positive, default=64, help="images per step (64)")
    train.add_argument("--lr", type=above_zero, default=1e-3, help="learning rate of Adam (.001)")
    train.add_argument(
        "--validation", type=float, default=0.1, metavar="SHARE", help="of the training images, held back (.1)"
    )
    train.add_argument("--plateau", type=positive, default=3, metavar="EPOCHS", help="without improvement, then the rate is halved (3)")  # fmt: skip
    train.add_argument("--patience", type=positive, default=12, metavar="EPOCHS", help="without improvement, then training stops (12)")  # fmt: skip
    train.add_argument("--rotate", type=not_negative, metavar="DEGREES", help="turn by up to this much (cnn101: 10)")
    train.add_argument("--zoom", type=not_negative, metavar="SHARE", help="zoom by up to this much (cnn101: .1)")
    train.add_argument(
        "--shift", type=not_negative, metavar="SHARE", help="shift by up to this much of the side (cnn101: .1)"
    )
    train.add_argument("--limit", type=positive, metavar="N", help="use N training images only")
    train.add_argument("--seed", type=natural, default=2, help="everything random comes from it (2)")
    add_machine(train, workers=False)

    test = commands.add_parser("test", help="accuracy on another test set", allow_abbrev=False)
    test.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
    add_test(test)

    ensemble = commands.add_parser("ensemble", help="several networks vote", allow_abbrev=False)
    ensemble.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    add_test(ensemble)

    compare = commands.add_parser("compare", help="a table of runs beside the published figures", allow_abbrev=False)
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")

    speedrun = commands.add_parser(
        "speedrun", help="the fewest seconds, epochs and layers to 99 %%", allow_abbrev=False
    )
    speedrun.add_argument("--seeds", type=natural, nargs="+", default=[1, 2, 3, 4, 5], help="(1 to 5)")
    speedrun.add_argument("--out", type=Path, metavar="CSV", help="write the table here too")
    add_machine(speedrun, workers=False)

    report = commands.add_parser("report", help="figures/ and report.html of a run", allow_abbrev=False)
    report.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
    report.add_argument(
        "--image", type=natural, default=0, metavar="N", help="test image whose activations are drawn (0)"
    )
    report.add_argument(
        "--layer", type=natural, metavar="N", help="layer of the convolutions to draw (the first and the last)"
    )
    add_machine(report, workers=False)
    return parser


def add_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test", default="mnist:test", metavar="DATA", help="mnist:test, or a folder with a sub-folder for each digit")  # fmt: skip
    parser.add_argument("--rotate", type=float, default=0.0, metavar="DEGREES", help="turn its images by this much")
    parser.add_argument(
        "--shift", type=natural, default=0, metavar="PX", help="shift its images right and down by this much"
    )
    add_machine(parser, workers=False)


def main() -> None:
    options = build_parser().parse_args()
    if options.command == "train":
        from supervised.launch import train_command as act
    elif options.command == "speedrun":
        from supervised.speedrun import speedrun_command as act
    elif options.command == "report":
        from supervised.report import report_command as act
    else:
        from supervised import judge

        act = {"test": judge.test_command, "ensemble": judge.ensemble_command, "compare": judge.compare_command}[
            options.command
        ]
    act(options)


if __name__ == "__main__":
    command(main)
