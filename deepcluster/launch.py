"""From a user's options to a training: begun, continued or refused."""

import argparse
import hashlib
import platform
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch

import runs
from console import UserError
from datasets import Dataset, open_dataset
from deepcluster import figures
from deepcluster.agreement import agreement, feature_baseline, pixel_baseline
from deepcluster.choose_k import choose_k
from deepcluster.config import PRESETS, Config
from deepcluster.models import map_side, smallest_size
from deepcluster.train import embed, model_arguments, start, train
from deepcluster.views import Frames, decoded_side
from machine import prepare, stream
from runs import Run

DEFAULT_K = 50
IMAGES_PER_CLUSTER = 8  # below 400 images the default k shrinks with them
SHIPPED = ("console", "datasets", "deepcluster", "machine", "runs")
OURS = {"run.json", "images.csv", "skipped.csv", "clusters", "checkpoints", "figures", ".lock"}


def train_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster train`."""
    exp: Path = options.exp
    old = runs.open_run(exp) if (exp / "run.json").exists() else None
    if old is not None and old.meta.get("kind") != "deepcluster":
        raise UserError(f"{exp}: holds a run of another kind ({old.meta.get('kind')}): choose another --exp")
    if old is not None and "imported" in old.meta:
        raise UserError(f"{exp}: was imported and cannot be continued: train into another --exp with --init {exp}")
    if old is None:
        check_free(exp)
    check_options(options)
    device = prepare(options.device, old.meta["threads"] if old is not None else None)
    initial, digest = (None, None) if options.init is None else initial_weights(options.init)
    size = options.size or PRESETS[options.preset]["size"]
    dataset = open_dataset(options.data, decoded_side(size), options.limit, options.workers, options.mnist_dir)
    config = replace(configure(options, dataset.suggests), init=digest)
    say_what(dataset)
    curve = None
    if options.k == "auto" and old is not None:
        config = replace(config, k=old.meta["config"]["k"])
    elif options.k == "auto":
        check_count(config, len(dataset))
        config, curve = auto_k(config, dataset, device, initial)
    elif options.k is None:
        config = replace(config, k=default_k(len(dataset)))
    check_count(config, len(dataset))
    if len(dataset) <= config.pca:
        print(f"PCA keeps {len(dataset) - 1} dimensions instead of {config.pca}: there are only {len(dataset)} images")

    if old is None:
        run = runs.create(
            exp, describe_run(config, dataset, options.limit, device), dataset.ids, dataset.labels, dataset.skipped
        )
        if curve is not None:
            run.write_table("k.csv", curve)
            figures.draw_k(run, curve, config.k)
    else:
        refuse_differences(old, config, dataset, options.limit)
        run = old
    with run.locked():
        if dataset.labels is not None and run.json("baselines.json") is None:
            run.write_json("baselines.json", baselines(dataset, config, device))
        state = train(run, dataset, config, device, options.save_every, options.keep, initial, options.tensorboard)
    summarise(run, state.log[-1])


def check_options(options: argparse.Namespace) -> None:
    """Refuse what can be seen to be wrong before the images are read."""
    preset = PRESETS[options.preset]
    arch, size = (getattr(options, name) or preset[name] for name in ("arch", "size"))
    if map_side(arch, size) < 1:
        raise UserError(f"--size {size} is too small for {arch}: use at least {smallest_size(arch)}")
    if isinstance(options.k, int) and options.k < 2:
        raise UserError(f"--k {options.k}: clustering needs at least 2 clusters")
    if (options.final_clustering is None) != (options.final_epochs is None):
        raise UserError(
            "--final-clustering and --final-epochs go together: which algorithm, and for how many last epochs"
        )


def configure(options: argparse.Namespace, suggested: dict[str, object]) -> Config:
    """The preset, over it what suits the dataset, over that the user's options; k is still 0 if it is to be found out.

    The preset `paper` takes no suggestions.
    """
    values: dict[str, Any] = PRESETS[options.preset] | (suggested if options.preset == "stable" else {})
    values |= {
        name: value
        for name, value in vars(options).items()
        if name in Config.__dataclass_fields__ and name not in ("k", "init") and value is not None
    }
    values["k"] = options.k if isinstance(options.k, int) else 0
    if values["final_epochs"] > values["epochs"]:
        raise UserError(f"--final-epochs {values['final_epochs']}: there are only {values['epochs']} epochs")
    if values["weight_decay"] < 0:  # the original's spelling: --wd -5 is 1e-5
        values["weight_decay"] = 10.0 ** values["weight_decay"]
    return Config(**values)


def default_k(images: int) -> int:
    k = max(2, min(DEFAULT_K, images // IMAGES_PER_CLUSTER))
    if k < DEFAULT_K:
        print(
            f"{images} images: clustering into {k} instead of {DEFAULT_K} (one for {IMAGES_PER_CLUSTER} images; --k chooses)"
        )
    return k


def check_count(config: Config, images: int) -> None:
    """Refuse a k that the images cannot fill."""
    if images < 2:
        raise UserError(f"only {images} usable image: clustering needs at least 2")
    if config.k > images:
        raise UserError(f"--k {config.k} is more than the {images} usable images: use a smaller --k")


def check_free(exp: Path) -> None:
    """An --exp that holds other people's files is refused; a half-begun run is not."""
    if exp.is_dir():
        foreign = [path.name for path in exp.iterdir() if path.name not in OURS and not path.name.endswith(".tmp")]
        if foreign:
            raise UserError(
                f"{exp}: not a run directory, and it holds other files ({sorted(foreign)[0]}): choose another --exp"
            )
    elif exp.exists():
        raise UserError(f"{exp}: a file is in the way of the run directory: choose another --exp")


def refuse_differences(run: Run, config: Config, dataset: Dataset, limit: int | None) -> None:
    """A continued training must be the same training; where the data lies, workers, device and exp may differ."""
    stored = run.meta["dataset"]
    if stored["key"] != dataset.key or stored["limit"] != limit:
        what = f"--limit {stored['limit']}" if stored["key"] == dataset.key else f"other images ({stored['name']})"
        raise UserError(f"{run.path}: was begun with {what}: choose another --exp for {dataset.name}")
    differing = [
        f"--{name.replace('_', '-')} {run.meta['config'].get(name)} (now {value})"
        for name, value in asdict(config).items()
        if run.meta["config"].get(name) != value
    ]
    if differing:
        raise UserError(
            f"{run.path}: was begun with {', '.join(differing)}: give the same settings to continue it, or choose another --exp"
        )


def describe_run(config: Config, dataset: Dataset, limit: int | None, device: torch.device) -> dict[str, Any]:
    return {
        "kind": "deepcluster",
        "dataset": {
            "name": dataset.name, "source": dataset.source, "key": dataset.key, "limit": limit, "images": len(dataset),
        },
        "view": {"size": config.size, "center_crop": config.center_crop, "decoded_side": decoded_side(config.size)},
        "model": model_arguments(config),
        "config": asdict(config),
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "memory_format": "channels_last",
        "versions": {name: version(name) for name in ("torch", "torchvision", "numpy", "scikit-learn")}
        | {"faiss": faiss.__version__, "python": platform.python_version(), "code": code_digest()},
    }  # fmt: skip


def code_digest() -> str:
    """SHA-256 over our own source files, since an installed copy has no commit."""
    root = Path(__file__).parent.parent
    sha = hashlib.sha256()
    for path in sorted(path for package in SHIPPED for path in (root / package).glob("*.py")):
        sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def say_what(dataset: Dataset) -> None:
    print(f"{dataset.name}: {len(dataset)} images", end="")
    if dataset.labels is not None:
        print(f", {len(set(dataset.labels))} labels (never used for training)", end="")
    print(f"; {len(dataset.skipped)} files passed over, see skipped.csv" if dataset.skipped else "")


def initial_weights(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The newest weights of another run, and their digest."""
    run = runs.open_run(path)
    kept = run.checkpoints()
    if not kept:
        raise UserError(f"{path}: --init: this run has no finished epoch yet")
    state = run.checkpoint(kept[-1])["state"]
    sha = hashlib.sha256()
    for name in sorted(state):
        sha.update(name.encode())
        sha.update(state[name].contiguous().numpy().tobytes())
    return state, sha.hexdigest()[:16]


def auto_k(
    config: Config, dataset: Dataset, device: torch.device, initial: dict[str, torch.Tensor] | None
) -> tuple[Config, list[dict[str, float]]]:
    pilot = replace(config, k=max(2, min(DEFAULT_K, len(dataset) // IMAGES_PER_CLUSTER)))
    k, curve = choose_k(Frames(dataset.pixels, device), pilot, device, initial)
    tried = ", ".join(str(int(row["k"])) for row in curve)
    print(f"--k auto: {k} clusters recommended (tried {tried}; the curve is figures/k.png)")
    return replace(config, k=k), curve


def baselines(dataset: Dataset, config: Config, device: torch.device) -> dict[str, dict[str, float]]:
    """Agreement of k-means on raw pixels, and of the first clustering: the untrained network's features."""
    assert dataset.labels is not None
    frames = Frames(dataset.pixels, device)
    untrained = embed(start(config, device).model, frames, config, "baseline")
    seed = stream(config.seed, 0, "baseline")
    found = {
        "pixels": pixel_baseline(frames, config.k, seed),
        "untrained": feature_baseline(untrained.features, config.k, seed, config.pca, config.whiten),
    }
    return {name: agreement(dataset.labels, np.asarray(assignment)) for name, assignment in found.items()}


def summarise(run: Run, row: dict[str, Any]) -> None:
    print(f"\n{run.path}: {row['epoch']} epochs, {row['k']} clusters of {row['smallest']} to {row['largest']} images")
    base = run.json("baselines.json")
    if base is not None:
        print("agreement with the labels            AMI    NMI    ARI  purity")
        rows = [
            ("this run", row),
            ("k-means on the pixels", base["pixels"]),
            ("k-means on the untrained network", base["untrained"]),
        ]
        for name, values in rows:
            print(f"  {name:<33}" + "  ".join(f"{float(values[m]):5.3f}" for m in ("ami", "nmi", "ari", "purity")))
    print(f"Look at {run.path}/clusters.csv (image, cluster, distance) and {run.path}/figures/.")


def open_images(run: Run, data: str | None, workers: int | None, mnist_dir: Path | None) -> Dataset:
    """The images of `data`, decoded for the run's view; None: the run's own, which must be the same ones."""
    stored = run.meta["dataset"]
    dataset = open_dataset(
        data or stored["source"],
        run.meta["view"]["decoded_side"],
        None if data else stored["limit"],
        workers,
        mnist_dir,
    )
    if data is None and dataset.ids != run.ids:
        raise UserError(
            f"{run.path}: the images in {stored['source']} are not those of the run any more: put them back, or name them"
        )
    return dataset


def run_config(run: Run) -> Config:
    if run.meta.get("kind") != "deepcluster":
        raise UserError(f"{run.path}: not a deepcluster run but {run.meta.get('kind')}")
    try:
        return Config(**run.meta["config"])
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{run.path}: run.json does not fit this version ({error}): train again into a new --exp"
        ) from None
