"""python -m datasets paint | check | prepare"""

import argparse
from collections import Counter
from pathlib import Path

from console import Parser, UserError, command
from console.options import add_reading, natural, positive
from datasets import DATA


def main() -> None:
    parser = Parser(prog="python -m datasets", description="Make, check and prepare sets of images.")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)

    paint = commands.add_parser("paint", help="paint photographs of coins whose every cause is known")
    paint.add_argument("out", type=Path, metavar="DIR", help="new folder: images/, masks/, truth.csv")
    paint.add_argument("--count", type=positive, default=1000, help="number of coins (1000)")
    paint.add_argument("--seed", type=natural, default=11, help="the same seed paints the same coins (11)")

    check = commands.add_parser("check", help="counts, sizes, broken, duplicate, blurred and dark photographs")
    prepare = commands.add_parser("prepare", help="decode into the cache, so that training starts at once")
    prepare.add_argument("--size", type=positive, default=128, help="the --size of the training to come (128)")
    prepare.add_argument(
        "--decode-at-most",
        type=positive,
        metavar="PX",
        help="its --decode-at-most too, if it has one (paper: 915 at 224)",
    )
    check.add_argument("--sheet", type=Path, default=Path("contact-sheet.jpg"), help="where the contact sheet goes")
    for parser_of in (check, prepare):
        parser_of.add_argument("data", metavar="DATA", help=DATA)
        add_reading(parser_of)

    options = parser.parse_args()
    {"paint": paint_command, "check": check_command, "prepare": prepare_command}[options.command](options)


def paint_command(options: argparse.Namespace) -> None:
    from datasets.painted import TYPES, paint

    if options.out.exists():
        raise UserError(f"{options.out}: already there: name a new folder")
    if options.count < len(TYPES):
        raise UserError(f"--count {options.count}: at least {len(TYPES)}, one for each type")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    paint(options.out, options.count, options.seed)
    print(f"{options.out}: {options.count} coins of {len(TYPES)} types in images/, their masks in masks/, truth.csv")


def check_command(options: argparse.Namespace) -> None:
    from datasets import open_dataset
    from datasets.check import SIDE, contact_sheet, examine

    if not options.sheet.parent.is_dir():
        raise UserError(f"{options.sheet.parent}: no such folder: --sheet names a file in an existing one")
    dataset = open_dataset(options.data, SIDE, workers=options.workers, mnist_dir=options.mnist_dir)
    shapes = dataset.pixels.shape
    print(f"{dataset.name}: {len(dataset)} usable images, {len(dataset.skipped)} files passed over")
    for name, reason in dataset.skipped[:20]:
        print(f"  {name!r}: {reason}")
    if len(dataset.skipped) > 20:
        print(f"  and {len(dataset.skipped) - 20} more")
    ratio = shapes.max(1) / shapes.min(1)
    print(
        f"longer to shorter side: {ratio.min():.2f} to {ratio.max():.2f}; {(ratio > 1.5).sum()} longer than 3:2 "
        "(two sides in one picture?)"
    )
    if dataset.labels is not None:
        counts = Counter(dataset.labels)
        print("folders: " + ", ".join(f"{label or '(none)'} {count}" for label, count in counts.most_common(30)))
    report = examine(dataset)
    groups = [", ".join(repr(name) for name in group[:4]) for group in report.duplicates]
    for title, names in (
        ("groups of duplicates", groups),
        ("blurred", [repr(name) for name in report.blurred]),
        ("dark", [repr(name) for name in report.dark]),
    ):
        print(f"{title}: {len(names)}")
        for name in names[:10]:
            print(f"  {name}")
        if len(names) > 10:
            print(f"  and {len(names) - 10} more")
    contact_sheet(dataset, options.sheet)
    print(f"Look at {options.sheet}.")


def prepare_command(options: argparse.Namespace) -> None:
    from datasets import decoded_side, open_dataset

    side = decoded_side(options.size)
    most = options.decode_at_most
    dataset = open_dataset(options.data, side, workers=options.workers, mnist_dir=options.mnist_dir, at_most=most)
    print(f"{dataset.name}: {len(dataset)} images ready at {side} px, {len(dataset.skipped)} files passed over")


if __name__ == "__main__":
    command(main)
