"""python -m explain --run exp/ | python -m explain apply --run exp/ --edits edits.csv"""

import argparse
import difflib
import sys
from pathlib import Path
from typing import Any

from console import Parser, command
from console.options import add_machine, positive


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m explain",
        allow_abbrev=False,
        description="Draw, coin by coin, why the network of a run puts it into its cluster, and make a gallery of it. "
        "Started again, it does only what is missing.",
        epilog="`python -m explain apply --help`: turn the edits that were saved in the gallery into a table of clusters.",
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
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
    what.add_argument(
        "--methods", type=methods, metavar="NAME,NAME", default=None,
        help="grad_cam, guided_backprop, guided_grad_cam (these by default), gradient, grad_cam_plus_plus, xgrad_cam, "
        "layer_cam, hires_cam, eigen_cam, score_cam, ablation_cam",
    )  # fmt: skip
    what.add_argument("--format", choices=["png", "jpeg", "webp"], default="png", help="of the pictures (png)")
    what.add_argument("--map", choices=["pca", "tsne"], default="pca", help="the map of all images (pca)")

    why = parser.add_argument_group("what is explained")
    why.add_argument(
        "--target", type=target, default="own", metavar="own|rival|margin|N",
        help="the logit of the image's own cluster (default), of the second-best, the difference of the two (what tells "
        "it from its neighbour), or of cluster N",
    )  # fmt: skip
    why.add_argument(
        "--assignments", type=Path, metavar="CSV", help="explain these clusters (image, cluster) instead of the run's"
    )
    add_machine(parser.add_argument_group("running"))
    return parser


def build_apply_parser() -> Parser:
    parser = Parser(
        prog="python -m explain apply",
        allow_abbrev=False,
        description="Write clusters-edited.csv and clusters-edited.log into the run directory; nothing else is touched.",
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run directory")
    parser.add_argument("--edits", type=Path, required=True, metavar="CSV", help="saved by the gallery's button")
    return parser


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


def methods(text: str) -> tuple[str, ...]:
    from explain.attribution import METHODS

    found = []
    for part in (part.strip() for part in text.split(",")):
        name = part.lower().replace("-", "_")
        if name not in METHODS and name != "original":
            near = difflib.get_close_matches(name, METHODS, 1, 0)
            raise argparse.ArgumentTypeError(f"{part!r} is not a method: did you mean {near[0]}?")
        found.append(name)
    return tuple(dict.fromkeys(["original", *found]))


def main() -> None:
    arguments: list[str] = sys.argv[1:]
    options: Any
    if arguments[:1] == ["apply"]:
        options = build_apply_parser().parse_args(arguments[1:])
        from explain.edits import apply_command

        apply_command(options)
        return
    options = build_parser().parse_args(arguments)
    from explain.results import explain_command

    explain_command(options)


if __name__ == "__main__":
    command(main)
