"""python -m deepcluster train | predict | features | compare | figures | pairs | import"""

import argparse
import sys
from pathlib import Path
from typing import Any

from console import UserError, command, nearest, next_step
from console.group import refuse_many, started
from console.options import (
    above_zero,
    add_exp,
    add_machine,
    add_reading,
    add_run,
    decoded,
    finite,
    natural,
    not_negative,
    number,
    positive,
    seed,
    side,
)
from console.parser import Parser
from datasets import DATA
from datasets.view import PHOTOGRAPH, VIEWS
from deepcluster.backbones import BACKBONES, check_arch
from deepcluster.clustering import CLUSTERINGS
from deepcluster.config import PAPER, PRESETS, STABLE
from machine.files import home_path, read_csv

# Options of the original program that mean nothing here at the values its main.sh gives them, and else another thing.
ORIGINAL = {
    "--resume": (
        ("",),
        "the same command started again continues by itself; `python -m deepcluster import` reads original checkpoints",
    ),
    "--checkpoints": ((), "checkpoints are counted in epochs here: use --save-every EPOCHS and --keep NUMBER"),
    "--start_epoch": (("0",), "a continued run knows its epoch: leave it out"),
    "--verbose": (([],), "progress is always shown: leave it out"),
}


class Original(argparse.Action):
    """Passes over an option of the original program, or says what to use instead."""

    def __call__(self, parser: argparse.ArgumentParser, _: Any, value: Any, option: str | None = None) -> None:
        name = (option or "").replace("start-epoch", "start_epoch")
        harmless, instead = ORIGINAL[name]
        if value not in harmless:
            raise UserError(f"{option}: {instead}")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m deepcluster", description="Cluster images without labels, and use what came of it.")
    commands = parser.commands()
    add_train(commands)

    predict = commands.add_parser("predict", help="the cluster of new images, by the trained head")
    add_run(predict)
    predict.add_argument("--images", required=True, metavar="DATA", help=DATA)
    predict.add_argument("--out", type=Path, required=True, metavar="CSV")
    predict.add_argument("--epoch", type=positive, help="use this epoch's weights (default: the last kept)")
    add_machine(predict)
    add_reading(predict)

    features = commands.add_parser("features", help="what is clustered, as an array")
    add_run(features)
    features.add_argument("--out", type=Path, metavar="FILE", help="where it goes (features.npz in the run)")
    features.add_argument("--csv", action="store_true", help="as a table of text instead of npz")
    features.add_argument("--epoch", type=positive, help="use this epoch's weights (default: the last kept)")
    features.add_argument("--data", metavar="DATA", help="these images instead of the run's own")
    add_machine(features)
    add_reading(features)

    compare = commands.add_parser("compare", help="compare the clusters with an expert's table")
    add_run(compare)
    compare.add_argument(
        "--labels", type=Path, required=True, metavar="CSV", help="table with the columns image and type"
    )
    compare.add_argument(
        "--within",
        metavar="WHAT",
        help="compare only coins that have this in common: folder (the first of their path) or a column of the table",
    )
    compare.add_argument(
        "--family",
        metavar="REGEX",
        help="coins cut from one photograph: what this finds in their path is the same (default: all but the last of "
        "several numbers, as in photo_12_3.jpg)",
    )
    compare.add_argument("--out", type=Path, metavar="DIR", help="where the tables go (default: compare/ in the run)")
    compare.add_argument("--data", metavar="DATA", help="where the images are now, if they were moved")
    add_machine(compare)
    add_reading(compare)

    drawn = commands.add_parser("figures", help="draw curves, sizes and flow of the clusters again, for a text too")
    add_run(drawn)
    drawn.add_argument(
        "--figure", action="append", choices=["svg", "pdf"], default=[], help="of this kind too (besides PNG)"
    )

    pairs = commands.add_parser("pairs", help="lay each coin on its nearest ones and compare")
    add_run(pairs)
    pairs.add_argument("--nearest", type=positive, default=10, metavar="N", help="others of each coin (10)")
    pairs.add_argument("--pictures", type=natural, default=300, metavar="N", help="pairs drawn at most, the best (300)")
    pairs.add_argument("--epoch", type=positive, help="use this epoch's weights (default: the last kept)")
    pairs.add_argument(
        "--labels", type=Path, metavar="CSV", help="table with the columns image and type: AUC of the score"
    )
    pairs.add_argument("--within", metavar="WHAT", help="AUC among coins that have this in common: folder or a column")
    pairs.add_argument("--data", metavar="DATA", help="where the images are now, if they were moved")
    add_machine(pairs)
    add_reading(pairs)

    old = commands.add_parser("import", help="read a checkpoint of the original program")
    old.add_argument("old", type=Path, metavar="OLD", help="the original's exp folder, or its checkpoint.pth.tar")
    old.add_argument("--data", type=Path, required=True, metavar="DIR", help="the ImageFolder it was trained on")
    old.add_argument("--out", type=Path, required=True, metavar="DIR", help="run directory to write")
    old.add_argument(
        "--clusters", type=Path, metavar="FILE", help="the pickled clusters (default: `clusters` beside OLD)"
    )
    add_machine(old)
    add_reading(old)
    return parser


def add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train on a folder of images",
        description="Cluster the images of DATA into --exp. Started again, it continues. Defaults below are those of "
        "the presets (stable, paper).",
    )
    train.add_argument("data", metavar="DATA", help=DATA)
    add_exp(train, "exp")
    train.add_argument(
        "--preset", choices=sorted(PRESETS), default="stable", help="stable (default) or the paper to the letter"
    )

    def option(group: Any, *names: str, help: str, **keywords: Any) -> None:
        field = keywords.get("dest") or names[0].lstrip("-").replace("-", "_")
        if field in STABLE and field not in ("rotate", "view", "facts"):
            ours, papers = STABLE[field], PAPER[field]
            if ours is not None:
                help += f" ({ours})" if ours == papers else f" ({ours}, {papers})"
        group.add_argument(*names, help=help, **keywords)

    main = train.add_argument_group("what to find")
    option(
        main,
        "--k",
        "--nmb_cluster",
        "--n-clusters",
        dest="k",
        type=clusters,
        help="number of clusters, or auto (50, fewer for less than 400 images)",
    )
    option(main, "--epochs", type=positive, help="clusterings, each followed by training")
    option(main, "--clustering", type=algorithm, metavar="NAME", help=", ".join(CLUSTERINGS))
    option(
        main,
        "--spectrum-epochs",
        type=natural,
        metavar="N",
        help="first epochs that cluster by the unrolled spectrum, which takes no learning, instead of the network",
    )
    option(main, "--final-clustering", type=algorithm, metavar="NAME", help="another algorithm for the last epochs")
    option(main, "--final-epochs", type=positive, metavar="N", help="how many last epochs that are")
    option(main, "--limit", type=positive, metavar="N", help="use N images only, drawn evenly")
    option(
        main,
        "--exclude",
        type=Path,
        metavar="CSV",
        help="leave out the images in the column image of this table (`datasets check --exclude-out` writes one)",
    )
    option(main, "--seed", type=seed, help="everything random comes from it")

    net = train.add_argument_group("the network and what it sees")
    option(
        net,
        "--view",
        choices=[PHOTOGRAPH, *VIEWS],
        help="; ".join([f"{PHOTOGRAPH}: as it is", *(f"{view.name}: {view.says}" for view in VIEWS.values())])
        + " (default: unrolled for coins, photograph for mnist, dots and the paper)",
    )
    option(
        net,
        "--arch",
        "-a",
        type=network,
        metavar="NAME",
        help=f"network: {', '.join(sorted(BACKBONES))}, or a convolutional classifier of torchvision by its name",
    )
    option(
        net,
        "--weights",
        metavar="DEFAULT|FILE",
        help="start from weights that were learnt elsewhere: torchvision's best of this --arch, or a state_dict",
    )
    option(
        net,
        "--size",
        "--img-size",
        dest="size",
        type=side,
        metavar="PX",
        help="side of the view that is clustered and explained",
    )
    option(
        net,
        "--decode-at-most",
        type=decoded,
        metavar="PX",
        help="decode to at most this many pixels on the shorter side (8/7 of --size; paper: so many that no crop is "
        "enlarged, 915 at 224, which needs much disk)",
    )
    option(
        net,
        "--sobel",
        action=argparse.BooleanOptionalAction,
        help="see relief instead of colour: the derivatives of the grey picture (painted: yes)",
    )
    option(
        net,
        "--neck",
        choices=["mlp", "pool", "fc", "spectrum"],
        help="what is clustered: a layer of 512, the averaged last convolution, a layer of 4096, or (unrolled coins, "
        "the default there) a layer of 512 on frequencies around the coin",
    )
    option(
        net,
        "--with",
        "--facts",  # as the setting is called
        dest="facts",
        type=facts,
        metavar="FACTS",
        help="size, colour, size,colour or none: cluster these measured facts beside what the network sees (default: "
        "those in which coins of like design agree)",
    )
    option(
        net,
        "--with-weight",
        "--facts-weight",
        dest="facts_weight",
        type=above_zero,
        metavar="TIMES",
        help="... times its features",
    )
    option(net, "--center-crop", action=argparse.BooleanOptionalAction, help="see only the central 7/8")
    option(
        net,
        "--rotate",
        type=angle,
        metavar="DEGREES",
        help="turn training crops by up to this much (default: 15 for painted and mnist, 180 for folders; paper: 0)",
    )
    option(net, "--scale", type=share, help="smallest share of the image that a training crop covers")
    option(net, "--flip", action=argparse.BooleanOptionalAction, help="mirror half of the training crops")
    option(net, "--jitter", type=share, help="largest change of brightness, contrast, saturation")
    option(net, "--init", type=Path, metavar="RUN", help="start from another run's weights")
    option(
        net,
        "--edits",
        type=Path,
        metavar="CSV",
        help="... and from its clusters as you edited them in its gallery (edits.csv), and keep to the edits",
    )

    learning = train.add_argument_group("learning")
    option(learning, "--lr", type=above_zero, help="learning rate")
    option(learning, "--head-lr", type=above_zero, metavar="TIMES", help="the head's rate, in multiples of --lr")
    option(learning, "--head-init", choices=["random", "centroids"], help="where each epoch's fresh head starts")
    option(learning, "--batch", "--batch-size", dest="batch", type=batch_size, help="images per step")
    option(learning, "--momentum", type=share, help="of the trunk")
    option(
        learning,
        "--wd",
        "--weight-decay",
        dest="weight_decay",
        type=finite,
        help="weight decay; a negative number is its exponent: -5 is 1e-5",
    )
    option(
        learning,
        "--reassign",
        type=above_zero,
        metavar="TIMES",
        help="images drawn per epoch, in multiples of their number",
    )
    option(learning, "--warmup", type=not_negative, metavar="EPOCHS", help="linear warm-up")
    option(learning, "--schedule", choices=["constant", "cosine"], help="learning rate over the epochs")
    option(learning, "--pca", type=positive, metavar="DIM", help="dimensions that are clustered")
    option(
        learning,
        "--whiten",
        "--whiten-power",
        dest="whiten_power",
        type=finite,
        metavar="POWER",
        help="of the variance, scaling each component: -0.5 whitens, 0 not",
    )

    keeping = train.add_argument_group("running")
    option(
        keeping,
        "--save-every",
        type=positive,
        default=10,
        metavar="EPOCHS",
        help="epochs between kept checkpoints, the last is kept too (10)",
    )
    option(keeping, "--keep", type=positive, default=3, metavar="N", help="checkpoints kept at most, the newest (3)")
    option(
        keeping,
        "--dry-run",
        action="store_true",
        help="say what would be done, and how long it takes and how large it is by a few measured steps; write nothing",
    )
    option(keeping, "--tensorboard", action="store_true", help="write the curves for TensorBoard too")
    add_machine(keeping)
    add_reading(keeping)
    for name in [*ORIGINAL, "--start-epoch"]:
        values = 0 if name == "--verbose" else None
        train.add_argument(name, nargs=values, action=Original, help=argparse.SUPPRESS)


batch_size = number(int, "a whole number from 2", lambda n: n >= 2)
share = number(float, "a number from 0 to 1", lambda x: 0 <= x <= 1)
angle = number(float, "an angle from 0 to 180", lambda x: 0 <= x <= 180)


def clusters(text: str) -> int | str:
    return text if text == "auto" else positive(text)


def facts(text: str) -> str:
    if text.strip().lower() == "none":
        return ""
    wanted = [name.strip().lower().replace("color", "colour") for name in text.split(",")]
    if not set(wanted) <= {"size", "colour"}:
        raise argparse.ArgumentTypeError(f"{text!r} is not size, colour, size,colour or none")
    return ",".join(name for name in ("size", "colour") if name in wanted)


def network(text: str) -> str:
    name = text.lower()
    if name not in BACKBONES:  # torchvision is asked for those that are not ours alone: it takes a second to load
        try:
            check_arch(name)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return name


def algorithm(text: str) -> str:
    if text.lower() not in CLUSTERINGS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(CLUSTERINGS)}{nearest(text, CLUSTERINGS)}")
    return text.lower()


def next_of(options: argparse.Namespace) -> tuple[object, ...]:
    """The command to type when this one has done its work."""
    if options.command == "train" and options.dry_run:
        return ("python", "-m", "deepcluster", *(word for word in sys.argv[1:] if word != "--dry-run"))
    if options.command == "predict" and home_path(options.images).is_dir():
        first = next(iter(read_csv(options.out)))["image"]
        return ("python", "-m", "explain", "image", Path(options.images) / first, "--run", options.run)
    if options.command == "compare":  # without the labels, which are what is sought and no confounder
        return ("python", "-m", "explain", "audit", "--run", options.run)
    run = {"train": "exp", "import": "out"}.get(options.command, "run")
    return ("python", "-m", "explain", "--run", getattr(options, run))


def main() -> None:
    options = build_parser().parse_args()
    if options.command not in ("train", "predict"):
        refuse_many(f"python -m deepcluster {options.command}")
    # each command imports only what it needs: --help answers at once
    if options.command == "train":
        from deepcluster.launch import train_command as act
    elif options.command == "predict":
        from deepcluster.predict import predict_command as act
    elif options.command == "features":
        from deepcluster.predict import features_command as act
    elif options.command == "compare":
        from deepcluster.compare import compare_command as act
    elif options.command == "figures":
        from deepcluster.figures import figures_command as act
    elif options.command == "pairs":
        from deepcluster.pairs import pairs_command as act
    else:
        from deepcluster.original import import_command as act
    act(options)
    if started()[0] == 0:  # the others may be here before it has written what it tells
        next_step(*next_of(options))


if __name__ == "__main__":
    command(main)
