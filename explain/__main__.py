"""python -m explain [draw] --run exp/ | python -m explain apply --run exp/ --edits edits.csv | dots --run exp-dots/"""

import argparse
import sys
from pathlib import Path

from console import Parser, command
from console.options import add_machine, add_reading, add_run, natural, positive
from explain.attribution.registry import PHOTOGRAPH, Asked, described, parse


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m explain",
        description="Why the network of a run puts each image where it does. Without a command: draw.",
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    add_draw(commands)
    add_apply(commands)
    add_dots(commands)
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
        help="the logit of the image's own cluster (default), of the second-best, the difference of the two (what "
        "tells it from its neighbour), or of cluster N",
    )
    why.add_argument(
        "--assignments", type=Path, metavar="CSV", help="explain these clusters (image, cluster) instead of the run's"
    )
    running = parser.add_argument_group("running")
    add_machine(running)
    add_reading(running)


def add_apply(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "apply",
        help="turn the edits that were saved in the gallery into a table of clusters",
        allow_abbrev=False,
        description="Write clusters-edited.csv and clusters-edited.log into the run directory; touch nothing else.",
    )
    add_run(parser)
    parser.add_argument("--edits", type=Path, required=True, metavar="CSV", help="saved by the gallery's button")


def add_dots(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "dots",
        help="dots and line: is the task solved, and does the large dot matter?",
        allow_abbrev=False,
        description="Ask networks of `supervised train dots` about fresh pictures in which nothing but the large dot "
        "is changed, and draw Grad-CAM for each class.",
    )
    parser.add_argument(
        "--run", "--exp", dest="run", type=Path, nargs="+", required=True, metavar="DIR", help="run directories"
    )
    parser.add_argument(
        "--against", type=Path, nargs="+", default=[], metavar="DIR", help="others to set beside them: spoilt ones"
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help="it goes into DIR/dots/ (default: as `draw`)")
    parser.add_argument("--images", type=positive, default=3000, metavar="N", help="fresh pictures (3000)")
    parser.add_argument("--seed", type=natural, default=1, help="of the fresh pictures (1)")
    add_machine(parser)


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
    if arguments[:1] not in (["draw"], ["apply"], ["dots"], ["-h"], ["--help"]):
        arguments = ["draw", *arguments]
    options = parser.parse_args(arguments)
    if options.command == "draw":
        from explain.results import draw_command as act
    elif options.command == "dots":
        from explain.dots import dots_command as act
    else:
        from explain.edits import apply_command as act
    act(options)


if __name__ == "__main__":
    command(main)
