#!/usr/bin/env python
"""Measure this project: python scripts/benchmark.py training | agreement | explain

`training` times an epoch against the way of the original program, in one run. `agreement` trains over several k and
seeds and tabulates agreement with the labels beside its baselines: the README's tables. `explain` times the three core
methods, pictures included, against the recipes of pytorch-grad-cam and captum.

The reference loop of `training` does what the original does, at the same settings (the paper's preset): every pass
decodes every file with PIL in a DataLoader and transforms it alone; float32, no channels-last, PCA by faiss, memory
returned to the system. Absolute times depend on the machine and the hour; the ratio is the result.
"""

import argparse
import copy
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from console import Parser, UserError, command
from datasets.folder import list_files
from datasets.painted import painted_folder
from deepcluster.config import PRESETS, Config
from deepcluster.models import ClusterNet, build
from deepcluster.train import balanced_draws, model_arguments
from deepcluster.views import MEAN, STD, Frames, decoded_side
from runs import open_run, read_csv, write_csv

PHASES = ("decode", "features", "clustering", "training")


class Files(Dataset):
    """The original's way: open, decode and transform one file at a time, every time."""

    def __init__(
        self, root: Path, names: list[str], labels: np.ndarray, indices: np.ndarray, transform: transforms.Compose
    ):
        self.root, self.names, self.labels, self.indices, self.transform = root, names, labels, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        index = int(self.indices[row])
        with Image.open(self.root / self.names[index]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[index])


def reference_epoch(
    model: ClusterNet, root: Path, names: list[str], config: Config, workers: int, device: torch.device
) -> dict[str, float]:
    """Seconds per phase of one epoch as the original runs it; decoding is part of features and training."""
    normalise = transforms.Normalize(MEAN, STD)
    fixed = transforms.Compose(
        [
            transforms.Resize(decoded_side(config.size)),
            transforms.CenterCrop(config.size),
            transforms.ToTensor(),
            normalise,
        ]
    )
    varied = transforms.Compose(
        [transforms.RandomResizedCrop(config.size), transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalise]
    )
    count, zeros = len(names), np.zeros(len(names), np.int64)

    def batches(labels: np.ndarray, indices: np.ndarray, transform: transforms.Compose) -> Iterator[tuple]:
        data = Files(root, names, labels, indices, transform)
        yield from DataLoader(data, config.batch, num_workers=workers, pin_memory=device.type == "cuda")

    seconds, last = {"decode": 0.0}, time.perf_counter()

    def lap(phase: str) -> None:
        nonlocal last
        if device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        seconds[phase], last = now - last, now

    model.eval()
    features = []
    with torch.no_grad():
        for images, _ in batches(zeros, np.arange(count), fixed):
            features.append(model.embed(images.to(device)).cpu().numpy())
    lap("features")
    x = np.concatenate(features)
    dimension = min(config.pca, count - 1)
    pca = faiss.PCAMatrix(x.shape[1], dimension, -0.5)
    pca.train(x)
    x = pca.apply(x)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    kmeans = faiss.Kmeans(
        dimension, config.k, niter=20, seed=1, max_points_per_centroid=count, min_points_per_centroid=1
    )
    kmeans.train(x)
    assignment = kmeans.index.search(x, 1)[1][:, 0]
    lap("clustering")
    model.fresh_head(config.k, torch.Generator().manual_seed(0))
    model.to(device)
    trunk = torch.optim.SGD(
        model.trunk_parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    head = torch.optim.SGD(model.head.parameters(), config.lr, weight_decay=config.weight_decay)
    model.train()
    draws = balanced_draws(assignment, count, np.random.default_rng(0))
    for images, targets in batches(assignment, draws, varied):
        trunk.zero_grad()
        head.zero_grad()
        nn.functional.cross_entropy(model(images.to(device)), targets.to(device)).backward()
        trunk.step()
        head.step()
    lap("training")
    return seconds


def our_epoch(root: Path, names: list[str], config: Config, device_name: str, epochs: int) -> list[dict[str, float]]:
    """Seconds per phase of each epoch; decoding happens once, before the first."""
    from datasets import open_dataset
    from deepcluster.clustering import reduced
    from deepcluster.train import cluster, embed, start, train_epoch
    from machine import prepare

    with tempfile.TemporaryDirectory() as cache:  # a cold cache: decoding is counted
        os.environ["DEEPCLUSTER_CACHE"] = cache
        begin = time.perf_counter()
        dataset = open_dataset(str(root), decoded_side(config.size))
        decode = time.perf_counter() - begin
        dataset = dataset.take(np.array([dataset.ids.index(name) for name in names]))
        device = prepare(device_name)
        frames = Frames(dataset.pixels, device)
        state = start(config, device)
        timings = []
        for epoch in range(1, epochs + 1):
            marks = [time.perf_counter()]

            def lap(marks: list[float] = marks) -> None:
                if device.type == "cuda":
                    torch.cuda.synchronize()
                marks.append(time.perf_counter())

            embedding = embed(state.model, frames, config, "features")
            lap()
            clusters, k = cluster(reduced(embedding.features, config.pca, config.whiten), config, epoch)
            lap()
            train_epoch(state, frames, clusters.assignment, embedding.features, k, epoch, config)
            lap()
            spent = dict(zip(PHASES[1:], np.diff(marks), strict=True))
            timings.append({"decode": decode * len(names) / len(list_files(root)) if epoch == 1 else 0.0} | spent)
    return timings


def training(options: argparse.Namespace) -> None:
    root = Path(options.data) if options.data else painted_folder() / "images"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: --data names a folder of photographs")
    names = list_files(root)
    random.Random(0).shuffle(names)
    names = sorted(names[: options.limit])
    values = PRESETS["paper"] | {"size": options.size, "k": 50, "batch": options.batch}
    config = Config(**values)
    device = torch.device(
        "cuda" if options.device == "auto" and torch.cuda.is_available() else options.device.replace("auto", "cpu")
    )
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{len(names)} images at {config.size} px, AlexNet of the paper, batch {config.batch}; {where}, torch {torch.__version__}"
    )

    reference = build(model_arguments(config)).to(device)
    theirs = [reference_epoch(reference, root, names, config, options.workers, device) for _ in range(options.epochs)]
    ours = our_epoch(root, names, config, device.type, options.epochs)
    print(f"{'seconds an epoch':<34}" + "".join(f"{phase:>12}" for phase in PHASES) + f"{'all':>12}")
    totals = {}
    for name, rows in ((f"reference loop, {options.workers} workers", theirs), ("deepcluster", ours)):
        best = {phase: min(row[phase] for row in rows) if phase != "decode" else rows[0][phase] for phase in PHASES}
        totals[name] = sum(best[phase] for phase in PHASES[1:])
        print(f"{name:<34}" + "".join(f"{best[phase]:>12.2f}" for phase in PHASES) + f"{totals[name]:>12.2f}")
    slow, fast = totals.values()
    print(f"ratio, without our one decoding: {slow / fast:.2f}   (best of {options.epochs} epochs each)")


def agreement(options: argparse.Namespace) -> None:
    """Train once for each k and seed; what --out already holds is not trained again."""
    done = read_csv(options.out) if options.out.exists() else []
    for k in options.k:
        for seed in options.seeds:
            if any((row["k"], row["seed"]) == (str(k), str(seed)) for row in done):
                continue
            with tempfile.TemporaryDirectory() as folder:
                exp = Path(folder) / "exp"
                arguments = [
                    "train",
                    options.data,
                    "--exp",
                    str(exp),
                    "--k",
                    str(k),
                    "--seed",
                    str(seed),
                    *options.rest,
                ]
                finished = subprocess.run([sys.executable, "-m", "deepcluster", *arguments], stdout=subprocess.DEVNULL)
                if finished.returncode:
                    raise UserError(f"training with k {k} and seed {seed} failed: its message is above")
                run = open_run(exp)
                log, base, config = run.log(), run.json("baselines.json"), run.meta["config"]
                if base is None:
                    raise UserError(f"{options.data}: has no labels, so agreement cannot be measured")
                seconds = sum(float(row[f"seconds_{phase}"]) for row in log for phase in ("cluster", "train", "embed"))
                row = {
                    "data": run.meta["dataset"]["name"],
                    "images": len(run.ids),
                    "preset": config["preset"],
                    "k": k,
                    "seed": seed,
                }
                row |= {
                    "size": config["size"],
                    "epochs": config["epochs"],
                    "seconds": round(seconds),
                    "device": run.meta["device"],
                }
                row |= {"code": run.meta["versions"]["code"], "head_share": log[-1]["head_share"]}
                for name, values in (("run", log[-1]), ("untrained", base["untrained"]), ("pixels", base["pixels"])):
                    row |= {
                        f"{name}_{measure}": round(float(values[measure]), 4)
                        for measure in ("ami", "nmi", "ari", "purity")
                    }
                done.append({key: str(value) for key, value in row.items()})
                write_csv(options.out, done)
    print("| k | DeepCluster AMI | untrained network | raw pixels | purity | head agrees | seeds |")
    print("|---|---|---|---|---|---|---|")
    for k in options.k:
        rows = [row for row in done if row["k"] == str(k)]

        def cell(name: str, rows: list[dict[str, str]] = rows) -> str:
            values = [float(row[name]) for row in rows]
            return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) if len(values) > 1 else 0:.3f}"

        cells = [cell(name) for name in ("run_ami", "untrained_ami", "pixels_ami", "run_purity", "head_share")]
        print(f"| {k} | " + " | ".join(cells) + f" | {', '.join(row['seed'] for row in rows)} |")


def a_run(folder: Path, root: Path, limit: int, size: int) -> Path:
    """A run directory of the paper's AlexNet, untrained, with images dealt to 50 clusters: enough to be explained."""
    from dataclasses import asdict

    import runs
    from datasets import open_dataset
    from deepcluster.train import start

    config = Config(**(PRESETS["paper"] | {"size": size, "k": 50}))
    dataset = open_dataset(str(root), decoded_side(size), limit)
    meta = {
        "kind": "deepcluster",
        "dataset": {"name": dataset.name, "source": dataset.source, "key": dataset.key, "limit": limit, "images": len(dataset)},
        "view": {"size": size, "center_crop": True, "decoded_side": decoded_side(size)},
        "model": model_arguments(config),
        "config": asdict(config),
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    run = runs.create(folder / "exp", meta, dataset.ids, dataset.labels, dataset.skipped)
    run.write_clusters(1, runs.Clusters(np.arange(len(dataset)) % 50, np.arange(len(dataset), dtype=np.float32)))
    state = start(config, torch.device("cpu")).model.state_dict()
    run.write_checkpoint(1, {"epoch": 1, "model": model_arguments(config), "state": state})
    return run.path


def explaining(options: argparse.Namespace) -> None:
    """Images a second: ours, pytorch-grad-cam's recipe for each image, captum in batches, and the arithmetic's floor."""
    from captum.attr import GuidedBackprop, GuidedGradCam, LayerGradCam
    from explain.stage import DEFAULT_METHODS, Choice, draw_missing, score_images
    from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel
    from pytorch_grad_cam.utils.image import deprocess_image, show_cam_on_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    import runs
    from deepcluster.models import trained_model
    from explain.rendering import draw, write_picture
    from explain.subject import Subject, find_pictures
    from machine import prepare

    warnings.filterwarnings("ignore", module="captum")
    root = Path(options.data) if options.data else painted_folder() / "images"
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: --data names a folder of photographs")
    core = DEFAULT_METHODS[1:]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = runs.open_run(a_run(folder, root, options.limit, options.size))
        device = prepare(options.device)
        subject = Subject(run, 1, find_pictures(run, None, None, None, device), None, device)
        model = trained_model(run).to(device)
        rows = np.arange(len(run.ids))
        targets = torch.tensor(subject.assignment.cluster, device=device)
        batches = [rows[begin : begin + options.batch] for begin in range(0, len(rows), options.batch)]
        choice = Choice(DEFAULT_METHODS, "own", None, None, "typical", "png", "pca")
        (folder / "1" / ".pieces").mkdir(parents=True)
        scores = score_images(subject, folder / "1", "pca", 0)  # the one forward for tables and map, timed apart
        (folder / "theirs").mkdir()

        def ordinary(row: int, eye: np.ndarray, mask: np.ndarray, guided: np.ndarray, product: np.ndarray) -> None:
            """The pictures as pytorch-grad-cam's examples make them; mask (H, W) in 0..1, gradients (H, W, 3)."""
            shown = show_cam_on_image(eye.astype(np.float32) / 255, mask, use_rgb=True)
            named = {
                "grad_cam": shown,
                "guided_backprop": deprocess_image(guided),
                "guided_grad_cam": deprocess_image(product),
            }
            for name, pixels in named.items():
                Image.fromarray(pixels).save(folder / "theirs" / f"{row}-{name}.png")

        def ours() -> None:
            draw_missing(subject, choice, rows, scores, folder / "1")

        def look() -> None:
            score_images(subject, Path(tempfile.mkdtemp(dir=scratch)), "pca", 0)

        def recipe() -> None:
            with GradCAM(model, [model.cam_layer]) as cam:
                guided_model = GuidedBackpropReLUModel(copy.deepcopy(model), device)  # it swaps modules
                for row in rows:
                    image, target = subject.images(rows[row : row + 1]), int(targets[row])
                    mask = cam(image, [ClassifierOutputTarget(target)])[0]
                    guided = guided_model(image, target_category=target)
                    ordinary(row, subject.photographs(image)[0], mask, guided, mask[..., None] * guided)

        def captum(by_hand: bool, ours: bool = False) -> None:
            guided_method, cam_method = GuidedBackprop(model), LayerGradCam(model, model.cam_layer)
            whole_method = GuidedGradCam(model, model.cam_layer)
            for some in batches:
                images = subject.images(some).requires_grad_()
                target = targets[torch.as_tensor(some, device=device)]
                heat = cam_method.attribute(images, target, relu_attributions=True)
                heat = nn.functional.interpolate(heat, images.shape[2:], mode="bilinear")
                guided = guided_method.attribute(images, target)
                product = (
                    guided * heat if by_hand else whole_method.attribute(images, target, interpolate_mode="bilinear")
                )
                maps = [found.detach().cpu().numpy() for found in (heat, guided, product)]
                eye = subject.photographs(images.detach())
                for at, row in enumerate(some):
                    if ours:
                        for method, found in zip(core, maps, strict=True):
                            write_picture(
                                folder / "theirs" / f"{row}-{method}.png", draw(method, found[at], eye[at]), "png"
                            )
                    else:
                        mask, guided_one, product_one = (
                            maps[0][at, 0],
                            *(found[at].transpose(1, 2, 0) for found in maps[1:]),
                        )
                        ordinary(row, eye[at], mask / max(mask.max(), 1e-9), guided_one, product_one)

        def floor() -> None:
            for some in batches:
                images = subject.images(some).requires_grad_()
                logits = model(images)
                torch.autograd.grad(
                    logits.gather(1, targets[torch.as_tensor(some, device=device)][:, None]).sum(), images
                )

        contestants = [
            ("one forward, one backward, nothing drawn", floor),
            ("explain: three methods and the photograph", ours),
            ("  its forward over all images for tables and map", look),
            ("captum, product by hand, our pictures", lambda: captum(True, ours=True)),
            ("captum, product by hand", lambda: captum(True)),
            ("captum's GuidedGradCam", lambda: captum(False)),
            ("pytorch-grad-cam's recipe, image by image", recipe),
        ]
        where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        print(
            f"{len(rows)} images at {options.size} px, AlexNet of the paper, batch {options.batch}; {where}, torch {torch.__version__}"
        )
        floor()  # warm up
        spent = {}
        for name, work in contestants:
            begin = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent[name] = time.perf_counter() - begin
            print(
                f"{name:<52}{len(rows) / spent[name]:>8.1f} images/s {spent[name] / len(rows) * 1000:>8.1f} ms an image",
                flush=True,
            )
        _, mine, look_too, same_pictures, by_hand, _, recipes = spent.values()
        for title, seconds in (
            ("pytorch-grad-cam's recipe", recipes),
            ("captum's product form", by_hand),
            ("captum's product form with our pictures", same_pictures),
        ):
            print(
                f"ratio to {title}: {seconds / mine:.2f}; with the forward for tables and map: {seconds / (mine + look_too):.2f}"
            )


def main() -> None:
    parser = Parser(prog="benchmark.py", description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="what", required=True, parser_class=Parser)
    train = commands.add_parser("training", help="seconds per epoch against the original's way")
    train.add_argument("--data", help="folder of photographs (default: the painted coins)")
    train.add_argument("--limit", type=int, default=300, help="number of images (300)")
    train.add_argument("--size", type=int, default=224, help="side of the images (224)")
    train.add_argument("--batch", type=int, default=256, help="images per step (256)")
    train.add_argument("--epochs", type=int, default=2, help="epochs of each; the fastest counts (2)")
    train.add_argument("--workers", type=int, default=os.cpu_count(), help="of the reference's DataLoader (one a core)")
    train.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    agree = commands.add_parser("agreement", help="agreement with labels over k and seeds, beside the baselines")
    agree.add_argument("data", help="folder with class sub-folders, painted or mnist")
    agree.add_argument("--k", type=int, nargs="+", default=[8, 40, 80])
    agree.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    agree.add_argument("--out", type=Path, required=True, help="CSV with a row per training; continued if it exists")
    why = commands.add_parser("explain", help="images a second, pictures included, against other libraries")
    why.add_argument("--data", help="folder of photographs (default: the painted coins)")
    why.add_argument("--limit", type=int, default=96, help="number of images (96)")
    why.add_argument("--size", type=int, default=224, help="side of the images (224)")
    why.add_argument("--batch", type=int, default=32, help="images per batch of the others (32)")
    why.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    options, rest = parser.parse_known_args()  # what is not ours goes to `python -m deepcluster train`
    if options.what != "agreement":
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        (training if options.what == "training" else explaining)(options)
    else:
        options.rest = rest
        agreement(options)


if __name__ == "__main__":
    command(main)
