"""python -m datasets paint | check | prepare | split"""

import argparse
from collections import Counter
from pathlib import Path

from console import UserError, command, next_step
from console.group import refuse_many
from console.options import add_reading, decoded, positive, seed, side
from console.parser import Parser
from datasets import DATA
from datasets.view import PHOTOGRAPH, VIEWS, decoded_for, default_size, shape_of
from machine.files import FORMULA, home_path, refuse_existing


def build_parser() -> Parser:
    parser = Parser(prog="python -m datasets", description="Make, check and prepare sets of images.")
    commands = parser.commands()

    paint = commands.add_parser("paint", help="paint photographs of coins whose every cause is known")
    paint.add_argument("out", type=Path, metavar="DIR", help="new folder: images/, masks/, truth.csv")
    paint.add_argument("--count", type=positive, default=1000, help="number of coins (1000)")
    paint.add_argument("--seed", type=seed, default=11, help="the same seed paints the same coins (11)")
    paint.add_argument(
        "--dies", type=positive, metavar="N", help="strike each type from N dies, at any angle (default: a die a coin)"
    )
    paint.add_argument("--any-angle", action="store_true", help="lay the coins at any angle")

    check = commands.add_parser(
        "check", help="counts, sizes, broken, duplicate, blurred, dark, over-exposed photographs"
    )
    prepare = commands.add_parser(
        "prepare", help="decode into the cache, so that training starts at once (or `train ... --dry-run`)"
    )
    prepare.add_argument("--size", type=side, help="the --size of the training to come, if it has one")
    prepare.add_argument(
        "--decode-at-most",
        type=decoded,
        metavar="PX",
        help="its --decode-at-most too, if it has one",
    )
    prepare.add_argument(
        "--view", choices=[PHOTOGRAPH, *VIEWS], help="its --view (default: unrolled for coins, photograph for others)"
    )
    check.add_argument("--sheet", type=Path, default=Path("contact-sheet.jpg"), help="where the contact sheet goes")
    check.add_argument(
        "--exclude-out",
        type=Path,
        metavar="CSV",
        help="write broken, blurred, dark, over-exposed and duplicate pictures there, for `train --exclude`",
    )
    for parser_of in (check, prepare):
        parser_of.add_argument("data", metavar="DATA", help=DATA)
        add_reading(parser_of)

    split = commands.add_parser("split", help="cut every coin of every picture into a file of its own")
    split.add_argument("data", metavar="DATA", help="folder or .zip of photographs")
    split.add_argument("out", type=Path, metavar="OUT", help="new folder")
    split.add_argument("--workers", type=positive, metavar="N", help="processes (default: one a core)")

    return parser


def main() -> None:
    options = build_parser().parse_args()
    refuse_many(f"python -m datasets {options.command}")
    called = {"paint": paint_command, "check": check_command, "prepare": prepare_command, "split": split_command}
    called[options.command](options)
    next_step(*next_of(options))


def next_of(options: argparse.Namespace) -> tuple[object, ...]:
    """The command to type when this one has done its work."""
    if options.command == "split":
        return ("python", "-m", "datasets", "check", options.out)
    train: tuple[object, ...] = (
        "python",
        "-m",
        "deepcluster",
        "train",
        options.out / "images" if options.command == "paint" else options.data,
    )
    if options.command == "prepare":
        told = {name: getattr(options, name) for name in ("size", "decode_at_most", "view", "mnist_dir")}
        for name, value in told.items():
            train += (f"--{name.replace('_', '-')}", value) if value is not None else ()
        return train
    if options.command == "check" and options.exclude_out is not None:
        return (*train, "--exclude", options.exclude_out)
    return train


def paint_command(options: argparse.Namespace) -> None:
    from datasets.painted import MOST, TYPES, paint

    if not len(TYPES) <= options.count <= MOST:
        raise UserError(f"--count {options.count}: at least {len(TYPES)}, one for each type, at most {MOST}")
    paint(options.out, options.count, options.seed, options.dies, options.any_angle)
    print(f"{options.out}: {options.count} coins of {len(TYPES)} types in images/, their masks in masks/, truth.csv")


def check_command(options: argparse.Namespace) -> None:
    import numpy as np

    from datasets import open_dataset
    from datasets.check import SIDE, coins_of, contact_sheet, examine, file_sizes, is_table, odd_sizes, write_table
    from datasets.exclude import write_list
    from datasets.folder import refuse_inside

    if not options.sheet.parent.is_dir():
        raise UserError(f"{options.sheet.parent}: no such folder: --sheet names a file in an existing one")
    if not options.sheet.name or options.sheet.is_dir():
        raise UserError(f"--sheet {options.sheet}: is a folder: name a picture in it (.jpg, .png)")
    refuse_inside(options.sheet, options.data, "--sheet")
    table = options.sheet.with_suffix(".csv")
    if table != options.sheet and not is_table(table):
        raise UserError(
            f"{table}: is there already, and the table of --sheet {options.sheet} would take its place: name another"
        )
    if table == options.sheet:
        raise UserError(f"--sheet {options.sheet}: is to be a picture (.jpg, .png); the table lies beside it")
    if options.exclude_out is not None:
        if not options.exclude_out.parent.is_dir():
            raise UserError(f"{options.exclude_out.parent}: no such folder: --exclude-out names a file in one")
        if options.exclude_out.is_dir():
            raise UserError(f"--exclude-out {options.exclude_out}: is a folder: name a file in it")
        refuse_inside(options.exclude_out, options.data, "--exclude-out")
        if options.exclude_out.resolve() in (options.sheet.resolve(), table.resolve()):
            raise UserError(
                f"--exclude-out {options.exclude_out}: is the --sheet, too, or its table: name another file"
            )
    dataset = open_dataset(options.data, SIDE, workers=options.workers, mnist_dir=options.mnist_dir)
    shapes = dataset.pixels.shape
    print(f"{dataset.name}: {len(dataset)} usable images, {len(dataset.skipped)} files passed over")
    _print_some([f"{name!r}: {reason}" for name, reason in dataset.skipped], 20)
    ratio = shapes.max(1) / shapes.min(1)
    print(
        f"longer to shorter side: {ratio.min():.2f} to {ratio.max():.2f}; {(ratio > 1.5).sum()} longer than 3:2 "
        "(two sides in one picture?)"
    )
    if dataset.labels is not None:
        counts = Counter(dataset.labels)
        print("folders: " + ", ".join(f"{label or '(none)'} {count}" for label, count in counts.most_common(30)))
    sizes = file_sizes(dataset)
    coins = [] if dataset.name == "mnist" else coins_of(dataset, options.workers)
    report = examine(dataset, coins, pairs=bool(coins))
    groups = [", ".join(repr(name) for name in group[:4]) for group in report.duplicates]
    lists = [
        ("groups of duplicates", groups),
        ("nearly the same", [f"{one!r}, {other!r}: {value:.3f}" for one, other, value in report.near]),
        ("blurred", [repr(name) for name in report.blurred]),
        ("dark", [repr(name) for name in report.dark]),
        ("over-exposed", [repr(name) for name in report.burnt]),
    ]
    if sizes is not None:
        usual = int(np.median(sizes.min(1)))
        odd = [f"{dataset.ids[i]!r}: {sizes[i, 0]} x {sizes[i, 1]}" for i in np.flatnonzero(odd_sizes(sizes))]
        lists.append((f"odd sizes (the usual shorter side is {usual} pixels)", odd))
    if coins:
        named = [(repr(name), found) for name, found in zip(dataset.ids, coins, strict=True)]
        lists += [
            ("no coin found", [name for name, found in named if not found]),
            ("several coins in one picture", [name for name, found in named if len(found) > 1]),
            ("cut off", [name for name, found in named if any(coin.cut_off for coin in found)]),
        ]
    formulas = [repr(name) for name in dataset.ids if name.startswith(FORMULA)]
    if formulas:
        lists.append(("names that a spreadsheet would compute", formulas))
    for title, names in lists:
        print(f"{title}: {len(names)}")
        _print_some(names, 10)
    if options.exclude_out is not None:
        count = write_list(options.exclude_out, report, dataset.skipped)
        print(f"{options.exclude_out}: {count} of them: strike out what shall stay, then train with --exclude")
    write_table(table, dataset, report, sizes, coins)
    contact_sheet(dataset, options.sheet, coins, report)
    print(f"Look at {options.sheet}; {table} has what each image measures.")


def prepare_command(options: argparse.Namespace) -> None:
    from datasets import MOST_WITHOUT, Dataset, decoded_side, default_view, look, open_dataset

    def opened(view: str) -> Dataset:
        """The photographs as a training in this view decodes them."""
        size = options.size or default_size(view)
        if options.decode_at_most is not None and options.decode_at_most < size:
            raise UserError(f"--decode-at-most {options.decode_at_most}: at least the {size} pixels of --size")
        if min(shape_of(view, size)) < 1:
            raise UserError(f"--size {size}: too small for the view {view}: use at least 2")
        most = options.decode_at_most or (decoded_for(size) if view != PHOTOGRAPH else None)
        return open_dataset(
            options.data, decoded_side(size), workers=options.workers, mnist_dir=options.mnist_dir, at_most=most
        )

    view = options.view or default_view(options.data)
    dataset = opened(view)
    if options.view is None and view != PHOTOGRAPH:
        without = dataset.count_without_coin(options.workers)
        if without > MOST_WITHOUT * len(dataset):
            print(f"no coin was found in {without} of {len(dataset)} photographs: a training sees them as they are")
            view = PHOTOGRAPH
            dataset = opened(view)
    if default_view(options.data) != PHOTOGRAPH:
        dataset.find_places(options.workers)  # of photographs, too: baselines and the gallery ask where the coin is
    look(dataset, view, options.size or default_size(view), options.workers)
    print(f"{dataset.name}: {len(dataset)} images ready, {len(dataset.skipped)} files passed over; view: {view}")


def split_command(options: argparse.Namespace) -> None:
    from datasets.folder import list_files, unpack
    from datasets.split import split

    source = home_path(options.data)
    refuse_existing(options.out)
    if source.is_dir():
        if options.out.resolve().is_relative_to(source.resolve()):
            raise UserError(f"{options.out}: lies in {source}, which is to be split: name a folder outside of it")
        root = source
    elif source.suffix.lower() == ".zip" and source.is_file():
        root = unpack(source)
    else:
        raise UserError(f"{options.data}: no such folder or zip: name the folder that holds the photographs")
    done = split(root, list_files(root), options.out, options.workers)
    passed = [f"{each.name!r}: {each.reason}" for each in done if each.reason]
    kept = [repr(each.name) for each in done if not each.coins and not each.reason]
    print(f"{options.out}: {sum(each.coins for each in done)} coins of {len(done) - len(passed)} pictures")
    for title, lines in (("no coin found, kept whole", kept), ("passed over", passed)):
        print(f"{title}: {len(lines)}")
        _print_some(lines, 20)


def _print_some(lines: list[str], count: int) -> None:
    for line in lines[:count]:
        print(f"  {line}")
    if len(lines) > count:
        print(f"  and {len(lines) - count} more")


if __name__ == "__main__":
    command(main)
