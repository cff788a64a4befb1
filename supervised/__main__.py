"""python -m supervised train"""

import argparse
from pathlib import Path
from typing import Any

from console import Parser, command


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
    add_machine(train)
    return parser


def add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu or cuda")
    parser.add_argument("--mnist-dir", type=Path, metavar="DIR", help="folder with the MNIST files (or set MNIST_DIR)")


def _number(kind: Any, wanted: str, accepts: Any) -> Any:
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return convert


positive = _number(int, "a whole number from 1", lambda n: n >= 1)
natural = _number(int, "a whole number from 0", lambda n: n >= 0)
above_zero = _number(float, "a number above 0", lambda x: 0 < x < float("inf"))
not_negative = _number(float, "a number from 0", lambda x: 0 <= x < float("inf"))


def main() -> None:
    options = build_parser().parse_args()
    from supervised.launch import train_command

    train_command(options)


if __name__ == "__main__":
    command(main)
