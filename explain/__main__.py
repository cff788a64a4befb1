"""python -m explain [draw] --run exp/ | python -m explain pixelflip --run exp/ | python -m explain apply --run exp/ --edits edits.csv"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from console import Parser, command
from console.options import add_machine, add_reading, add_run, positive
from explain.attribution.registry import PHOTOGRAPH, Asked, described, parse

# Each command, and the function that does it.
COMMANDS = {
    "draw": "explain.results:draw_command",
    "pixelflip": "explain.flipping.command:pixelflip_command",
    "apply": "explain.edits:apply_command",
}


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m explain",
        description="Why the network of a run puts each image where it does. Without a command: draw.",
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    add_draw(commands)
    add_pixelflip(commands)
    add_apply(commands)
    return parser


def add_draw(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "draw",
        help="pictures and a gallery of what speaks for each cluster (the default)",
        allow_abbrev=False,
        description="Draw, coin by coin, why the network of a run puts it into its cluster, and make a gallery of it. "
        "Started again, it does only what is missing.",
    )
    add_run(parser)
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="where it goes (default: results/ for exp/, results-NAME/ for exp-NAME/)",
    )
    parser.add_argument("--epoch", type=epoch, default="latest", metavar="N|latest|all", help="whose weights (latest)")
    parser.add_argument("--data", metavar="DATA", help="where the images are now, if they were moved")

    what = parser.add_argument_group("what to draw")
    what.add_argument("--clusters", type=numbers, metavar="N,N", help="these clusters only")
    what.add_argument("--per-cluster", type=positive, metavar="N", help="so many images of each cluster (all)")
    what.add_argument(
        "--pick", choices=["typical", "atypical", "random"], default="typical", help="which ones (typical)"
    )
    what.add_argument("--methods", type=methods, metavar="NAME,NAME:OPTION=VALUE", default=None, help=described())
    what.add_argument("--format", choices=["png", "jpeg", "webp"], default="png", help="of the pictures (png)")
    what.add_argument("--map", choices=["pca", "tsne"], default="pca", help="the map of all images (pca)")

    why = parser.add_argument_group("what is explained")
    why.add_argument(
        "--target",
        type=target,
        default="own",
        metavar="own|rival|margin|N",
        help="the logit of the image's own cluster (default), of the second-best, the difference of the two (what tells "
        "it from its neighbour), or of cluster N",
    )
    why.add_argument(
        "--assignments", type=Path, metavar="CSV", help="explain these clusters (image, cluster) instead of the run's"
    )
    running = parser.add_argument_group("running")
    add_machine(running)
    add_reading(running)


def add_pixelflip(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "pixelflip",
        help="which single pixel, inverted, changes the answer",
        allow_abbrev=False,
        description="Invert each pixel of each image that the network gets right, one at a time, and note which flips change its "
        "answer. Started again, it continues.",
    )
    add_run(parser)
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="more runs on the same images: from three on they vote",
    )
    parser.add_argument(
        "--split", choices=["train", "test"], help="a supervised run's training (default) or test images"
    )
    parser.add_argument("--patch", type=positive, default=1, metavar="N", help="flip blocks of N x N pixels (1)")
    parser.add_argument("--limit", type=positive, metavar="N", help="ask about N images only, drawn evenly from all")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="it goes into DIR/pixelflip (default DIR: as for draw)"
    )
    add_machine(parser)
    add_reading(parser)


def add_apply(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "apply",
        help="turn the edits that were saved in the gallery into a table of clusters",
        allow_abbrev=False,
        description="Write clusters-edited.csv and clusters-edited.log into the run directory; nothing else is touched.",
    )
    add_run(parser)
    parser.add_argument("--edits", type=Path, required=True, metavar="CSV", help="saved by the gallery's button")


def epoch(text: str) -> str:
    return text if text in ("latest", "all") else str(positive(text))


def target(text: str) -> str:
    if text in ("own", "rival", "margin") or text.isdigit():
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not own, rival, margin or the number of a cluster")


def numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of clusters like 3,7,12")
    return tuple(int(part) for part in parts)


def methods(text: str) -> tuple[Asked, ...]:
    try:
        asked = [parse(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return tuple({one.key: one for one in [Asked(PHOTOGRAPH), *asked]}.values())


def main() -> None:
    arguments = sys.argv[1:]
    parser = build_parser()
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help"):
        arguments = ["draw", *arguments]
    options = parser.parse_args(arguments)
    module, function = COMMANDS[options.command].split(":")
    getattr(import_module(module), function)(options)


if __name__ == "__main__":
    command(main)
