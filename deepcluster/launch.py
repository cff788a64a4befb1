"""From a user's options to a training: begun, continued or refused."""

import argparse
import hashlib
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import runs
from console import UserError
from datasets import MOST_WITHOUT, Dataset, decoded_side, default_view, look, open_dataset
from datasets.cache import fingerprint
from datasets.folder import refuse_inside
from datasets.view import PHOTOGRAPH, VIEWS
from deepcluster import figures
from deepcluster.agreement import BASELINES_FILE, agreement_table, read_baselines
from deepcluster.backbones import check_arch, check_size, published_name, unguided
from deepcluster.baselines import BASELINES, measure_baselines, verdict
from deepcluster.choose_k import choose_k
from deepcluster.config import TO_THE_LETTER, Config, defaults_of, side_to_decode, suits
from deepcluster.descriptors import AGREE, facts_of_design
from deepcluster.estimate import SHORT, in_words, measure_pace, pixels_seen
from deepcluster.expert import START_FILE, Expert, follow, read_expert
from deepcluster.journal import Journal
from deepcluster.lift import family_of
from deepcluster.models import model_arguments, pretrained
from deepcluster.published import name_weights
from deepcluster.train import train
from deepcluster.trained import run_config
from machine.device import device_in_words, use_device
from machine.processes import decided, device_here, first_here_goes_ahead, is_first, joined, world_size
from runs import Meta, Run, Source, View
from runs.directory import checkpoint_of
from runs.received import remember

DEFAULT_K = 50
MOST_DRAWS = 100_000_000  # images of an epoch
IMAGES_PER_CLUSTER = 8  # below 400 images the default k shrinks with them
PACKAGES = ("console", "datasets", "deepcluster", "machine", "runs")  # whose code decides the result


def train_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster train`, also as one of the processes that torchrun starts."""
    with joined():
        begin_or_continue(options)


def begin_or_continue(options: argparse.Namespace) -> None:
    """Train into `options.exp`; the first process looks and writes there, the others are told."""
    old = decided(lambda: find_begun(options.exp))
    if old is not None:  # as it was begun, be today's defaults what they may
        as_begun = {"view": PHOTOGRAPH} | old.meta.config
        options.view = options.view or as_begun["view"]
        options.decode_at_most = options.decode_at_most or as_begun.get("decode_at_most")
    check_options(options)
    refuse_inside(options.exp, options.data, "--exp")
    device = use_device(device_here(options.device), old.meta.stamp.threads if old is not None else None)
    weights = decided(lambda: weights_of(options, old))
    initial, digest = (None, None) if options.init is None else decided(lambda: initial_weights(options.init))
    edited = None if options.edits is None else decided(lambda: read_expert(runs.open_run(options.init), options.edits))
    with first_here_goes_ahead():
        dataset = open_in_view(options)
    introduce(dataset, device)
    if options.facts is None and old is not None:
        options.facts = old.meta.config.get("facts", "")
    elif options.facts is None:
        options.facts = decided(lambda: choose_facts(dataset, options.preset))
    expert = None if edited is None else follow(*edited, dataset.ids)
    suited = suits(options.preset, dataset) | ({} if weights is None else {"weights": weights, "sobel": False})
    config = replace(configure(options, suited), init=digest)
    if weights is not None:
        initial = decided(lambda: pretrained_unless_trained(options, config, old))
    introduce_network(config)
    if expert is not None:  # its clusters, from the first epoch on; the digest of a run's beginning is then of both
        introduce_expert(expert)
        config = replace(config, k=expert.k, spectrum_epochs=0, init=f"{digest}+{expert.digest}")
    config, curve = with_k(config, options, old, dataset, device, initial)
    if len(dataset) <= config.pca:
        print(f"PCA keeps {len(dataset) - 1} dimensions instead of {config.pca}: there are only {len(dataset)} images")
    meta = describe_run(config, dataset, options.limit, device)
    if old is not None:
        old = as_today(old, meta)
    tell_time(options, config, dataset, 0 if old is None else len(old.epochs()), device)
    if options.dry_run:
        return

    def write_beginning(run: Run) -> None:
        if expert is not None:
            run.write_table(START_FILE, expert.table)
        if curve is not None:
            run.write_table("k.csv", curve)
            figures.draw_k(run, curve, config.k)

    def opened() -> Run:
        if old is None:
            run = runs.begin(options.exp, meta, dataset.ids, dataset.labels, dataset.skipped, write_beginning)
        else:
            run = old
            remember(run)
        if dataset.labels is not None and read_baselines(run) is None:
            run.write_json(BASELINES_FILE, measure_baselines(dataset, config, config.k, device, initial))
        return run

    with runs.hold(options.exp) if is_first() else nullcontext():
        run = decided(opened)
        journal = Journal(run, dataset, config, options.save_every, options.keep, options.tensorboard, is_first())
        state = train(journal, dataset, config, device, initial, expert=expert)
    if is_first():
        summarise(run, state.log[-1])


def find_begun(exp: Path) -> Run | None:
    """The training in this folder, if one was begun there and can be continued."""
    run = runs.find_begun(exp, "deepcluster")
    if run is not None and run.meta.imported is not None:
        raise UserError(f"{exp}: was imported and cannot be continued: train into another --exp with --init {exp}")
    return run


def as_today(old: Run, meta: Meta) -> Run:
    """A begun run with settings that it was too early to have; refused where `meta` asks for something else."""
    if old.meta.stamp.processes != world_size():
        begun = processes_in_words(old.meta.stamp.processes)
        print(f"begun by {begun}, continued by {processes_in_words(world_size())}: the same but for rounding")
    run = replace(old, meta=replace(old.meta, config=asdict(run_config(old))))
    runs.refuse_differences(run, meta)
    return run


def processes_in_words(processes: int) -> str:
    return "one process" if processes == 1 else f"{processes} processes"


def tell_time(options: argparse.Namespace, config: Config, dataset: Dataset, done: int, device: torch.device) -> None:
    """How long a long training will take, by a few measured steps; with `--dry-run` of any, and what it would do."""
    if options.dry_run:
        goes_on = f", {done} of which are done" if done else ""
        k = f"{config.k} clusters" if options.k != "auto" else f"the k that --k auto finds (here {config.k})"
        print(
            f"would train {config.epochs} epochs{goes_on} of {len(dataset)} images into {options.exp}: {k}, "
            f"{config.arch} on the view {config.view}, {config.size} pixels"
        )
    long = options.dry_run or pixels_seen(dataset, config, config.epochs - done) > SHORT
    if done < config.epochs and long and world_size() == 1:  # several processes would time different numbers of steps
        pace = measure_pace(dataset, config, device)
        print(in_words(pace, config, done, options.save_every, options.keep, device), flush=True)
    if options.dry_run:
        print("Nothing was written but the cache of decoded images, which the training takes up.")


def introduce_network(config: Config) -> None:
    """Say what a network that is not ours starts from, and what to know of its maps."""
    others = unguided(config.arch)
    if config.weights is not None:
        print(f"{config.arch} starts from given weights ({config.weights})")
    if others:
        print(f"{config.arch} has {' and '.join(others)}: Guided Backprop and Deconvnet guide at ReLUs alone")


def introduce_expert(expert: Expert) -> None:
    """Say what --edits means for these images."""
    stay, kept_out = int((expert.constraints.fixed >= 0).sum()), len({*expert.constraints.barred[:, 0].tolist()})
    print(
        f"--edits: starts from {expert.k} clusters of yours; {stay} images stay in theirs, {kept_out} are kept out of "
        f"one ({START_FILE} says what each cluster was)"
    )


def open_in_view(options: argparse.Namespace) -> Dataset:
    """The images of a training as its network will be given them; `options.view` is then a view's name.

    Nothing asked for, coins are seen unrolled, unless hardly any is found; other pictures and `paper` as photographs.
    """
    wanted, options.view = options.view, view_of(options)
    if options.view == PHOTOGRAPH:
        return _open(options)
    photographs = _open(options)
    without = photographs.count_without_coin(options.workers)
    said = f"{without} of {len(photographs)} photographs" if without else ""
    if wanted is None and without > MOST_WITHOUT * len(photographs):
        print(f"no coin was found in {said}: the network sees them as they are (--view unrolled insists)")
        options.view = PHOTOGRAPH
        return _open(options)
    whole = f"; in {said} no coin was found, they are seen whole" if said else ""
    print(f"view: {options.view}, {VIEWS[options.view].says}{whole} (--view {PHOTOGRAPH} leaves them as they are)")
    return look(photographs, options.view, sides_of(options)[0], options.workers)


def view_of(options: argparse.Namespace) -> str:
    """The view that is asked for, or that suits the data and the preset."""
    return options.view or (PHOTOGRAPH if options.preset == TO_THE_LETTER else default_view(options.data))


def choose_facts(dataset: Dataset, preset: str) -> str:
    """Which facts are clustered beside the design when nothing is said: those in which coins of like design agree."""
    if dataset.view != "unrolled" or preset == TO_THE_LETTER:
        return ""
    families = np.array([family_of(name) for name in dataset.ids])
    agreement = facts_of_design(dataset.decoded, dataset.pixels_key, families)
    chosen = [name for name, value in agreement.items() if value >= AGREE]
    said = " and ".join(f"{name} {value:.2f}" for name, value in agreement.items())
    does = f"{' and '.join(chosen)} clustered beside it" if chosen else "neither is clustered beside it"
    print(f"coins of like design agree in {said} (correlation; 1 fully): {does} (--with chooses)")
    return ",".join(chosen)


def _open(options: argparse.Namespace) -> Dataset:
    size, side = sides_of(options)
    return open_dataset(
        options.data,
        decoded_side(size),
        options.limit,
        options.workers,
        options.mnist_dir,
        at_most=side,
        exclude=options.exclude,
    )


def check_options(options: argparse.Namespace) -> None:
    """Refuse what can be seen to be wrong before the images are read."""
    if options.neck == "spectrum" and options.view not in (None, "unrolled"):
        raise UserError(f"--neck spectrum: goes around the unrolled coin: use --view unrolled, not {options.view}")
    if options.tensorboard and find_spec("tensorboard") is None:
        raise UserError("--tensorboard: its package is not installed: pip install tensorboard")
    view = view_of(options)
    defaults = defaults_of(options.preset, view)
    arch, size = (getattr(options, name) or defaults[name] for name in ("arch", "size"))
    check_arch(arch)
    if options.weights is not None:
        published_name(arch)
        if options.init is not None:
            raise UserError("--weights and --init both say where the network starts: leave one of them out")
        if options.sobel:
            raise UserError("--weights: were learnt from colours, and --sobel shows none: leave one of them out")
    check_size(arch, size, view)
    if isinstance(options.k, int) and options.k < 2:
        raise UserError(f"--k {options.k}: clustering needs at least 2 clusters")
    if options.edits is not None:
        if options.init is None:
            raise UserError("--edits: goes with --init RUN, the run whose gallery they were made in")
        if options.k is not None:
            raise UserError(f"--k {options.k}: with --edits there are as many clusters as yours: leave it out")
        for option, value in (("clustering", options.clustering), ("final-clustering", options.final_clustering)):
            if value not in (None, "kmeans"):
                raise UserError(f"--{option} {value}: with --edits it is k-means, which can keep to them: leave it out")
        if options.spectrum_epochs:
            raise UserError(f"--spectrum-epochs {options.spectrum_epochs}: with --edits the first clusters are yours")
    if options.decode_at_most is not None and options.decode_at_most < size:
        raise UserError(f"--decode-at-most {options.decode_at_most}: at least the {size} pixels of --size")
    if (options.final_clustering is None) != (options.final_epochs is None):
        raise UserError(
            "--final-clustering and --final-epochs go together: which algorithm, and for how many last epochs"
        )


def sides_of(options: argparse.Namespace) -> tuple[int, int]:
    """Side of the view, and the largest shorter side that images are decoded to, in pixels."""
    defaults = defaults_of(options.preset, options.view)
    size = options.size or defaults["size"]
    scale = defaults["scale"] if options.scale is None else options.scale
    return size, options.decode_at_most or side_to_decode(options.preset, options.view, size, scale)


def weights_of(options: argparse.Namespace, old: Run | None) -> str | None:
    """What run.json says of --weights; a run that goes on keeps what it began with, if nothing is said."""
    if options.weights is None:
        return None if old is None else old.meta.config.get("weights")
    arch = options.arch or defaults_of(options.preset, view_of(options))["arch"]
    return name_weights(published_name(arch), options.weights)


def pretrained_unless_trained(
    options: argparse.Namespace, config: Config, old: Run | None
) -> dict[str, torch.Tensor] | None:
    """Where a training with --weights starts; None: it has begun, and goes on from its own."""
    if old is not None and old.latest() is not None:
        return None
    if options.weights is None:
        raise UserError(f"{options.exp}: was begun with --weights and has learnt nothing yet: give them again")
    return pretrained(config, options.weights)


def configure(options: argparse.Namespace, suited: dict[str, Any]) -> Config:
    """The view's defaults, over them what suits the dataset, over that the user's options; k 0 if it is to be found."""
    values = defaults_of(options.preset, options.view) | suited
    values |= {
        name: value
        for name, value in vars(options).items()
        if name in Config.__dataclass_fields__ and name not in ("k", "weights", "init") and value is not None
    }
    values["k"] = options.k if isinstance(options.k, int) else 0
    if options.spectrum_epochs is None:  # of a short training most epochs are the network's own
        values["spectrum_epochs"] = min(values["spectrum_epochs"], values["epochs"] // 2)
    _, values["decode_at_most"] = sides_of(options)
    if values["neck"] == "spectrum" and values["view"] != "unrolled":
        raise UserError(f"--neck spectrum: goes around the unrolled coin, but the view is the {values['view']}")
    if values["final_epochs"] > values["epochs"]:
        raise UserError(f"--final-epochs {values['final_epochs']}: there are only {values['epochs']} epochs")
    if values["weight_decay"] < 0:  # the original's spelling: --wd -5 is 1e-5
        values["weight_decay"] = 10.0 ** values["weight_decay"]
    return Config(**values)


def default_k(images: int) -> int:
    """50, or one cluster for 8 images where that is less."""
    return max(2, min(DEFAULT_K, images // IMAGES_PER_CLUSTER))


def say_default_k(images: int) -> int:
    """`default_k`, and a line where it is less than 50."""
    k = default_k(images)
    if k < DEFAULT_K:
        print(
            f"{images} images: clustering into {k} instead of {DEFAULT_K} (one for {IMAGES_PER_CLUSTER} images; "
            "--k chooses)"
        )
    return k


def check_count(config: Config, images: int) -> None:
    """Refuse a k that the images cannot fill."""
    if images < 2:
        raise UserError(f"only {images} usable image: clustering needs at least 2")
    if not 1 <= int(config.reassign * images) <= MOST_DRAWS:
        raise UserError(
            f"--reassign {config.reassign:g}: an epoch would draw {config.reassign * images:.0f} images: give a number "
            "around 1"
        )
    batch = min(config.batch, int(config.reassign * images))
    if batch < world_size():
        raise UserError(
            f"{world_size()} processes for batches of {batch} images: start fewer (torchrun --nproc-per-node)"
        )
    if config.k > images:
        raise UserError(f"--k {config.k} is more than the {images} usable images: use a smaller --k")


def describe_run(config: Config, dataset: Dataset, limit: int | None, device: torch.device) -> Meta:
    """run.json of a training with these settings on these images."""
    excluded = fingerprint(sorted(dataset.excluded))[:16] if dataset.excluded else ""
    return Meta(
        kind="deepcluster",
        dataset=Source(dataset.name, dataset.source, dataset.key, limit, len(dataset), excluded),
        view=describe_view(config),
        model=model_arguments(config),
        config=asdict(config),
        seed=config.seed,
        stamp=runs.make_stamp(device, PACKAGES),
    )


def describe_view(config: Config) -> View:
    """What a training with these settings sees."""
    side = decoded_side(config.size)
    drawn = {} if config.view == PHOTOGRAPH else {"drawn": VIEWS[config.view].version}
    return View(config.size, config.center_crop, side, config.decode_at_most, config.view, **drawn)


def introduce(dataset: Dataset, device: torch.device) -> None:
    """Say what is trained on, and where."""
    labels = ""
    if dataset.labels is not None:
        labels = f", {len(set(dataset.labels))} labels (never used for training)"
    passed = f"; {len(dataset.skipped)} files passed over, see skipped.csv" if dataset.skipped else ""
    passed += f" ({len(dataset.excluded)} of them by --exclude)" if dataset.excluded else ""
    print(f"{dataset.name}: {len(dataset)} images{labels}{passed}; on {device_in_words(device)}")


def initial_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The newest weights of another run, and their digest."""
    state = checkpoint_of(runs.open_run(path))["state"]
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].contiguous().numpy().tobytes())
    return state, sha.hexdigest()[:16]


def with_k(
    config: Config,
    options: argparse.Namespace,
    old: Run | None,
    dataset: Dataset,
    device: torch.device,
    initial: dict[str, torch.Tensor] | None,
) -> tuple[Config, list[dict[str, float]] | None]:
    """The config with its number of clusters, and the curve that recommends it, if it was looked for."""
    curve = None
    if options.k == "auto" and old is not None:
        config = replace(config, k=old.meta.config["k"])
    elif options.k == "auto" and options.dry_run:
        config = replace(config, k=default_k(len(dataset)))
    elif options.k == "auto":
        check_count(config, len(dataset))
        config, curve = find_k(config, dataset, device, initial)
    elif not config.k:
        config = replace(config, k=say_default_k(len(dataset)))
    check_count(config, len(dataset))
    return config, curve


def find_k(
    config: Config, dataset: Dataset, device: torch.device, initial: dict[str, torch.Tensor] | None
) -> tuple[Config, list[dict[str, float]]]:
    """`--k auto`: the config with the recommended k, and the curve that recommends it."""
    pilot = replace(config, k=default_k(len(dataset)))
    k, curve = choose_k(dataset, pilot, device, initial)
    tried = ", ".join(str(int(row["k"])) for row in curve)
    print(f"--k auto: {k} clusters recommended (tried {tried}; the curve is figures/k.png)")
    return replace(config, k=k), curve


def summarise(run: Run, row: dict[str, Any]) -> None:
    """The last epoch in words, beside its baselines."""
    print(f"\n{run.path}: {row['epoch']} epochs, {row['k']} clusters of {row['smallest']} to {row['largest']} images")
    base = read_baselines(run)
    if base is not None:
        ours = row | {"accuracy": row["matched_accuracy"]}
        named = [(BASELINES[name].title, values) for name, values in base.items() if name in BASELINES]
        print("\n".join(agreement_table([("this run", ours), *named])))
        print(verdict(float(row["ami"]), base))
    print(f"The network agrees with the cluster of {float(row['head_agreement']):.0%} of the images.")
    print(f"Look at {run.path}/clusters.csv (image, cluster, distance) and {run.path}/figures/.")
