"""python -m explain [draw] --run exp/, and the other commands of COMMANDS."""

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from console import command, next_step
from console.group import MOST_PROCESSES, refuse_many
from console.options import above_zero, add_machine, add_reading, add_run, natural, not_negative, positive, seed
from console.parser import Parser
from explain.attribution.registry import COLOURS, MAPS, PHOTOGRAPH, Asked, described, layer, parse

LONGEST = 15  # digits of a cluster's number


def build_parser() -> Parser:
    parser = Parser(
        prog="python -m explain",
        description="Why the network of a run puts each image where it does. Without a command: draw.",
    )
    commands = parser.commands()
    for add, _ in COMMANDS.values():
        add(commands)
    return parser


def add_draw(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "draw",
        help="pictures and a gallery of what speaks for each cluster (the default)",
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
    what.add_argument(
        "--format",
        choices=["png", "jpeg", "webp"],
        help="of the pictures (png; webp, a seventh of the bytes, where all of more than 2,000 images are drawn)",
    )
    what.add_argument("--colours", choices=COLOURS, default=COLOURS[0], help=f"of heat ({COLOURS[0]})")
    what.add_argument(
        "--map", choices=[*MAPS], default="pca", help="the map of all images (pca); umap if umap-learn is installed"
    )

    what.add_argument(
        "--table",
        type=Path,
        metavar="CSV",
        help="what you know of the coins: a column image (or the first), and others (mint, weight, find), to filter, "
        "sort and colour by; kept in the run for later calls",
    )

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
    running.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be drawn, how long it takes and how large it is, by a few that are drawn; write nothing",
    )
    running.add_argument(
        "--shard", type=shard, metavar="I/N", help="draw the I-th of N shards of the images; the last makes the gallery"
    )
    running.add_argument("--zip", action="store_true", help="put all of it into one zip beside the folder, too")
    running.add_argument(
        "--few-files",
        action="store_true",
        help="a copy in few files, too, which opens as it is: NAME-packed/ beside it",
    )
    add_machine(running)
    add_reading(running)


def add_apply(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "apply",
        help="turn the edits that were saved in the gallery into a table of clusters",
        description="Write clusters-edited.csv and clusters-edited.log into the run directory; touch nothing else.",
    )
    add_run(parser)
    parser.add_argument("--edits", type=Path, required=True, metavar="CSV", help="saved by the gallery's button")


def add_export(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export",
        help="the photographs in a folder for each cluster, a table, and contact sheets to print",
        description="Copy photographs into a folder for each cluster, with a table and a PDF contact sheet of each. "
        "Started again, it does only what is missing.",
    )
    add_run(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    add_what(parser, "N|latest")
    parser.add_argument(
        "--edits", type=Path, metavar="CSV", help="clusters and names as these edits leave them, saved in the gallery"
    )
    parser.add_argument("--clusters", type=numbers, metavar="N,N", help="these clusters only")
    parser.add_argument(
        "--selection", type=Path, metavar="FILE", help="these images only: a table with the column image, or a list"
    )
    parser.add_argument("--link", action="store_true", help="symbolic links to the photographs instead of copies")
    add_reading(parser)


def add_film(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "film",
        help="an animated GIF of how the maps of some images change over the epochs",
        description="Put the pictures of some images, as `draw --epoch all` made them, into an animated GIF.",
    )
    add_run(parser)
    parser.add_argument("--results", type=Path, metavar="DIR", help="where the pictures are (default: as for draw)")
    parser.add_argument("--images", nargs="+", required=True, metavar="NAME", help="which, as in images.csv")
    parser.add_argument("--method", type=method, metavar="NAME", help="whose map (that of the clusters' mean)")
    parser.add_argument("--out", type=Path, default=Path("film.gif"), metavar="FILE", help="the GIF (film.gif)")


def add_image(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "image",
        help="explain any photograph by its path",
        description="Show a photograph to the network of a run, or to an image-recognition network of torchvision: the "
        "likeliest classes are printed, and a titled picture of each method is written.",
    )
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--run", "--exp", dest="run", type=Path, metavar="DIR", help="run directory")
    parser.add_argument("--epoch", type=epoch, default="latest", metavar="N|latest", help="whose weights (latest)")
    parser.add_argument(
        "--network",
        metavar="torchvision:NAME[:WEIGHTS]",
        help="instead of a run, like torchvision:resnet18; WEIGHTS: a name that torchvision fetches (DEFAULT), or "
        "a file with a state_dict",
    )
    parser.add_argument("--methods", type=methods, metavar="NAME,NAME:OPTION=VALUE", default=None, help=described())
    parser.add_argument(
        "--target",
        default="own",
        metavar="own|rival|margin|N|NAME",
        help="the likeliest class (default), the second, the difference of the two, or a class by number or name",
    )
    parser.add_argument("--out", type=Path, default=Path("explained"), metavar="DIR", help="where it goes (explained/)")
    add_machine(parser)


def add_maximise(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "maximise",
        help="the picture that excites a cluster, a channel or a unit most",
        description="Make, by gradient ascent, the picture that each cluster's logit likes best, before softmax; or, "
        "with --layer, a channel of a convolution or a unit of a dense layer, before its ReLU. Started again, it does "
        "only what is missing.",
    )
    add_run(parser)
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="where it goes (default: as `draw`, beside its pictures)"
    )
    add_what(parser, "N|latest|all")
    parser.add_argument("--clusters", type=numbers, metavar="N,N", help="these clusters only")
    parser.add_argument(
        "--layer",
        type=layer_name,
        metavar="N|NAME",
        help="instead of clusters: a convolution counted from the end (-1 is the last), or a module's name",
    )
    parser.add_argument("--channels", type=numbers, metavar="N,N", help="its channels or units (the first 16)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--style",
        choices=["readable", "plain"],
        default="readable",
        help="readable (default): a Fourier image that is shaken between steps; plain: pixels, nothing else",
    )
    how.add_argument("--steps", type=positive, metavar="N", help="steps of the ascent (readable 128, plain 64)")
    how.add_argument("--rate", type=above_zero, metavar="X", help="length of a step: the gradient is normalised")
    how.add_argument(
        "--jitter", type=not_negative, metavar="X", help="shift of up to this fraction of the side each step"
    )
    how.add_argument(
        "--blur", type=not_negative, metavar="PX", help="sigma of a Gaussian over the pixels after each step"
    )
    how.add_argument("--decay", type=not_negative, metavar="X", help="share by which each step fades towards grey")
    running = parser.add_argument_group("running")
    add_machine(running)
    add_reading(running)


# Of each command what adds its options, and the function that does it, imported when it is called.
def add_dots(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "dots",
        help="dots and line: is the task solved, and does the large dot matter?",
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
    parser.add_argument("--seed", type=seed, default=1, help="of the fresh pictures (1)")
    add_machine(parser)


def add_pixelflip(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "pixelflip",
        help="which single pixel, inverted, changes the answer",
        description="Invert each pixel of each image that the network gets right, one at a time, and note which "
        "flips change its answer. Started again, it continues.",
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
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="where the run's images are now, if they were moved; of a supervised run those it was tested on, beside "
        "which lie those it was trained on",
    )
    parser.add_argument("--patch", type=positive, default=1, metavar="N", help="flip blocks of N x N pixels (1)")
    parser.add_argument("--limit", type=positive, metavar="N", help="ask about N images only, drawn evenly from all")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="it goes into DIR/pixelflip (default DIR: as for draw)"
    )
    parser.add_argument(
        "--methods",
        type=methods,
        metavar="NAME,NAME:OPTION=VALUE",
        help="hold the flips against the maps of these methods too: rank correlations, beside controls",
    )
    add_machine(parser)
    add_reading(parser)


def add_audit(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "audit",
        help="can it be believed: what else the clusters could be, and each method beside controls",
        description="Measure an epoch's clusters and heat maps beside controls, write audit.csv and a page into the "
        "results, and say in the gallery what follows. Started again, it continues.",
    )
    add_run(parser)
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="it goes into DIR/EPOCH/audit/ (default DIR: as for draw)"
    )
    add_what(parser, "N|latest")
    parser.add_argument("--images", type=positive, default=200, metavar="N", help="whose maps are measured (200)")
    parser.add_argument("--methods", type=methods, metavar="NAME,NAME:OPTION=VALUE", default=None, help=described())
    parser.add_argument(
        "--table", type=Path, metavar="CSV", help="what you know of the coins: a column image, and others (mint, find)"
    )
    parser.add_argument(
        "--against",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="runs on the same images, other seeds: do they agree?",
    )
    parser.add_argument(
        "--shuffled",
        type=natural,
        default=12,
        metavar="EPOCHS",
        help="at most so many to teach another network shuffled clusters (12; 0: leave that out)",
    )
    parser.add_argument("--seed", type=seed, default=1, help="of the choice of images and of all chance (1)")
    parser.add_argument(
        "--shard", type=shard, metavar="I/N", help="measure with N - 1 other calls; the last makes the page"
    )
    add_machine(parser)
    add_reading(parser)


COMMANDS: dict[str, tuple[Callable[[argparse._SubParsersAction], None], str]] = {
    "draw": (add_draw, "explain.results:draw_command"),
    "apply": (add_apply, "explain.edits:apply_command"),
    "export": (add_export, "explain.export:export_command"),
    "film": (add_film, "explain.film:film_command"),
    "image": (add_image, "explain.image:image_command"),
    "maximise": (add_maximise, "explain.maximisation:maximise_command"),
    "dots": (add_dots, "explain.dots:dots_command"),
    "audit": (add_audit, "explain.audit.command:audit_command"),
    "pixelflip": (add_pixelflip, "explain.flipping.command:pixelflip_command"),
}


def add_what(parser: argparse.ArgumentParser, epochs: str) -> None:
    """Which epoch, images and clusters of a run."""
    parser.add_argument("--epoch", type=epoch, default="latest", metavar=epochs, help="whose weights (latest)")
    parser.add_argument("--data", metavar="DATA", help="where the images are now, if they were moved")
    parser.add_argument(
        "--assignments", type=Path, metavar="CSV", help="these clusters (image, cluster) instead of the run's"
    )


def layer_name(text: str) -> int | str:
    try:
        return layer(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a convolution from the end (-1) or a module's name"
        ) from None


def epoch(text: str) -> str:
    return text if text in ("latest", "all") else str(positive(text))


def target(text: str) -> str:
    if text in ("own", "rival", "margin") or (text.isdecimal() and len(text) <= LONGEST):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not own, rival, margin or the number of a cluster")


def shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count) <= MOST_PROCESSES):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard like 3/8: the third of eight")
    return int(number), int(count)


def numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of clusters like 3,7,12")
    return tuple(int(part) for part in parts)


def method(text: str) -> str:
    try:
        return parse(text).key
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def methods(text: str) -> tuple[Asked, ...]:
    try:
        asked = [parse(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return tuple({one.key: one for one in [Asked(PHOTOGRAPH), *asked]}.values())


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments = ["draw", *arguments]
    options = build_parser().parse_args(arguments)
    if options.command not in ("draw", "audit"):
        refuse_many(f"python -m explain {options.command}")
    module, function = COMMANDS[options.command][1].split(":")
    getattr(import_module(module), function)(options)
    next_step(*next_of(options))


def next_of(options: argparse.Namespace) -> tuple[object, ...]:
    """The command to type when this one has done its work."""
    explain, run = ("python", "-m", "explain"), options.run
    if options.command == "apply":
        names = ("results-edited", *(f"results-edited-{n}" for n in range(2, 100)))
        free = next((name for name in names if not Path(name).exists()), names[0])  # a gallery is of one table
        return (*explain, "--run", run, "--assignments", run / "clusters-edited.csv", "--results", free)
    if options.command == "draw" and options.dry_run:
        return (*explain, *(word for word in sys.argv[1:] if word != "--dry-run"))
    if options.command == "draw" and options.shard is not None and options.shard[0] < options.shard[1]:
        this, following = (f"{options.shard[0] + more}/{options.shard[1]}" for more in (0, 1))
        named = (this, f"--shard={this}")
        return (*explain, *(w.removesuffix(this) + following if w in named else w for w in sys.argv[1:]))
    if options.command == "draw":
        results = () if options.results is None else ("--results", options.results)
        assignments = () if options.assignments is None else ("--assignments", options.assignments)
        return (*explain, "audit", "--run", run, *results, *assignments)
    if options.command == "audit":  # with what was saved in the gallery, by then
        return (*explain, "apply", "--run", run, "--edits", "edits.csv")
    if options.command == "dots":
        return (*explain, "--run", run[0])
    if options.command == "image" and run is None:
        return (*explain, "image", "--help")
    return (*explain, "--run", run)


if __name__ == "__main__":
    command(main)
