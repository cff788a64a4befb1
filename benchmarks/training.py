"""Seconds of an epoch of the paper's recipe: ours, and a loop that does what the original program does.

The reference has the same images and settings. Each of its passes decodes every file with PIL in a DataLoader and
transforms it alone; float32, no channels-last, PCA by faiss, memory returned to the system. It runs in a process of its
own, so that what our loop tells the memory allocator does not help it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

import runs
from benchmarks.setting import Ratio, add_photographs, conditions, photographs
from console.options import natural, positive
from datasets import Dataset, decoded_side, open_dataset
from datasets.folder import list_files
from datasets.view import PHOTOGRAPH
from deepcluster.clustering import KMEANS_ITERATIONS
from deepcluster.config import PRESETS, Config, side_to_decode
from deepcluster.epoch import State, balanced_draws, train_epoch
from deepcluster.features import embed
from deepcluster.journal import Clock
from deepcluster.launch import PACKAGES
from deepcluster.models import ClusterNet, untrained
from deepcluster.train import cluster, reduce, start
from deepcluster.views import MEAN, STD, Frames
from machine.device import synchronise, use_device

K = 50
REFERENCE = "the original's way"


@dataclass(frozen=True)
class Seconds:
    """Of the phases of an epoch."""

    features: float
    clustering: float
    training: float

    @property
    def epoch(self) -> float:
        return self.features + self.clustering + self.training


@dataclass(frozen=True)
class Timing:
    """A loop's row of the table."""

    name: str
    decoding: float | None  # seconds, once before the first epoch; None: in each pass
    best: Seconds  # of each phase the fastest epoch's


@dataclass(frozen=True)
class Task:
    """What the reference does: an epoch on these files, so many times."""

    root: Path
    names: list[str]
    config: Config
    device: torch.device
    epochs: int
    workers: int  # of its DataLoader


def add_options(parser: argparse.ArgumentParser) -> None:
    add_photographs(parser, limit=300, batch=256)
    parser.add_argument(
        "--epochs", type=positive, default=2, metavar="N", help="epochs of each; of each phase the fastest counts (2)"
    )
    parser.add_argument(
        "--workers",
        type=natural,
        default=os.cpu_count(),
        metavar="N",
        help="processes of the reference's DataLoader (one a core)",
    )


def run(options: argparse.Namespace) -> None:
    """`python -m benchmarks training`."""
    root, device = photographs(options.data), use_device(options.device)
    config = replace(paper_config(options.size), batch=options.batch)
    with cold_cache():
        clock = Clock(device)
        dataset = open_dataset(str(root), decoded_side(config.size), options.limit, at_most=config.decode_at_most)
        clock.lap("decoding")
        config = replace(config, k=min(config.k, len(dataset)))
        print(f"{len(dataset)} images at {config.size} px, AlexNet of the paper, k {config.k}, batch {config.batch}")
        print(conditions(runs.make_stamp(device, ("benchmarks", *PACKAGES))))
        decoding = clock.seconds["decoding"] * len(dataset) / len(list_files(root))  # all were decoded
        ours = Timing("deepcluster", decoding, fastest(our_epochs(dataset, config, device, options.epochs)))
        idle = waiting(dataset, config, device) if device.type == "cuda" else None
    task = Task(root, dataset.ids, config, device, options.epochs, options.workers)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        theirs = Timing(
            f"{REFERENCE}, {task.workers} workers", None, fastest(process.submit(reference_epochs, task).result())
        )
    print("\n".join(table([theirs, ours])))
    if idle is not None:
        told = ", ".join(f"{phase.name} {getattr(idle, phase.name):.0%}" for phase in fields(Seconds))
        print(f"of our time the GPU waits: {told}")
    print(f"{Ratio(REFERENCE, theirs.best.epoch / ours.best.epoch)} (without our one decoding)")


def paper_config(size: int) -> Config:
    """The paper's preset with views of `size` pixels."""
    paper = PRESETS["paper"]
    changed = {"size": size, "k": K, "decode_at_most": side_to_decode("paper", PHOTOGRAPH, size, paper["scale"])}
    return Config(**(paper | changed))


@contextmanager
def cold_cache() -> Iterator[None]:
    """A cache of decoded images in which there are none yet."""
    before = os.environ.get("DEEPCLUSTER_CACHE")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["DEEPCLUSTER_CACHE"] = cache
        try:
            yield
        finally:
            del os.environ["DEEPCLUSTER_CACHE"]
            if before is not None:
                os.environ["DEEPCLUSTER_CACHE"] = before


def our_epochs(dataset: Dataset, config: Config, device: torch.device, epochs: int) -> list[Seconds]:
    """Seconds of each epoch of ours."""
    frames, state, spent = Frames(dataset.pixels, device), start(config, device), []
    for epoch in range(1, epochs + 1):
        clock = Clock(device)
        for phase in our_phases(state, frames, config, epoch):
            clock.lap(phase)
        spent.append(Seconds(**clock.seconds))
    return spent


def our_phases(state: State, frames: Frames, config: Config, epoch: int) -> Iterator[str]:
    """An epoch of ours, which stops behind each phase to tell its name."""
    embedding = embed(state.model, frames, config, "features")
    yield "features"
    found = cluster(reduce(embedding.features, config), config, epoch, frames.device)
    yield "clustering"
    train_epoch(state, frames, found.assignment, embedding.features, found.k, epoch, config)
    yield "training"


def waiting(dataset: Dataset, config: Config, device: torch.device) -> Seconds:
    """Of each phase of our second epoch the share (0 to 1) of its time in which the GPU had nothing to do.

    Under torch's profiler, which slows Python a little, so at most that.
    """
    frames, state, shares = Frames(dataset.pixels, device), start(config, device), {}
    for _ in our_phases(state, frames, config, 1):  # the first one warms up
        pass
    phases = our_phases(state, frames, config, 2)
    for one in fields(Seconds):
        synchronise(device)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            begun = time.perf_counter()
            next(phases)
            synchronise(device)
            took = time.perf_counter() - begun
        ran = [event for event in seen.events() or [] if event.device_type == DeviceType.CUDA]
        worked = sum(event.time_range.elapsed_us() for event in ran) / 1e6
        shares[one.name] = max(0.0, 1 - worked / took)
    return Seconds(**shares)


class Files(TorchDataset[Any]):
    """The original's way: open, decode and transform one file at a time, every time."""

    def __init__(self, task: Task, targets: np.ndarray, indices: np.ndarray, transform: transforms.Compose):
        self.task, self.targets, self.indices, self.transform = task, targets, indices, transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        index = int(self.indices[row])
        with Image.open(self.task.root / self.task.names[index]) as image:
            return self.transform(image.convert("RGB")), int(self.targets[index])


def reference_epochs(task: Task) -> list[Seconds]:
    """Seconds of each epoch as the original runs it; decoding is part of features and training."""
    model = untrained(task.config).to(task.device)
    return [reference_epoch(model, task) for _ in range(task.epochs)]


def reference_epoch(model: ClusterNet, task: Task) -> Seconds:
    clock = Clock(task.device)
    features = reference_features(model, task)
    clock.lap("features")
    assignment = reference_clusters(features, task.config)
    clock.lap("clustering")
    reference_training(model, task, assignment)
    clock.lap("training")
    return Seconds(**clock.seconds)


def reference_features(model: ClusterNet, task: Task) -> np.ndarray:
    """(N, D) float32."""
    size, count = task.config.size, len(task.names)
    fixed = [transforms.Resize(decoded_side(size)), transforms.CenterCrop(size)]
    model.eval()
    with torch.no_grad():
        batches = reference_batches(task, np.zeros(count, np.int64), np.arange(count), fixed)
        return np.concatenate([model.embed(images.to(task.device)).cpu().numpy() for images, _ in batches])


def reference_clusters(x: np.ndarray, config: Config) -> np.ndarray:
    """(N, D) -> (N,): faiss whitens, normalises and clusters."""
    count, d = x.shape
    dimension = min(config.pca, count - 1)
    pca = faiss.PCAMatrix(d, dimension, config.whiten_power)
    pca.train(x)
    x = pca.apply(x)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    kmeans = faiss.Kmeans(
        dimension,
        config.k,
        niter=KMEANS_ITERATIONS,
        seed=1,
        max_points_per_centroid=count,
        min_points_per_centroid=1,
    )
    kmeans.train(x)
    return kmeans.index.search(x, 1)[1][:, 0]


def reference_training(model: ClusterNet, task: Task, assignment: np.ndarray) -> None:
    """One pass over as many images as there are, drawn evenly from the clusters, with a fresh head."""
    config, device = task.config, task.device
    model.fresh_head(config.k, torch.Generator().manual_seed(0))
    trunk = torch.optim.SGD(
        model.trunk_parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    head = torch.optim.SGD(model.head.parameters(), config.lr, weight_decay=config.weight_decay)
    draws = balanced_draws(assignment, len(assignment), np.random.default_rng(0))
    varied = [transforms.RandomResizedCrop(config.size), transforms.RandomHorizontalFlip()]
    model.train()
    for images, targets in reference_batches(task, assignment, draws, varied):
        trunk.zero_grad()
        head.zero_grad()
        nn.functional.cross_entropy(model(images.to(device)), targets.to(device)).backward()
        trunk.step()
        head.step()


def reference_batches(task: Task, targets: np.ndarray, indices: np.ndarray, crops: list[nn.Module]) -> DataLoader[Any]:
    """Batches of (images, targets); `targets` (N,) are those of all files, `indices` the files in their order."""
    transform = transforms.Compose([*crops, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    return DataLoader(
        Files(task, targets, indices, transform),
        task.config.batch,
        num_workers=task.workers,
        pin_memory=task.device.type == "cuda",
        # as it is by default; a process that was spawned would have each of its workers import torch anew
        multiprocessing_context="fork" if task.workers else None,
    )


def fastest(epochs: list[Seconds]) -> Seconds:
    """Of each phase the fewest seconds."""
    return Seconds(**{phase.name: min(getattr(one, phase.name) for one in epochs) for phase in fields(Seconds)})


def table(timings: list[Timing]) -> list[str]:
    """Lines for the console."""
    heads = ["decoding, once", *(phase.name for phase in fields(Seconds)), "all"]
    lines = [f"{'seconds an epoch':<34}" + "".join(f"{head:>16}" for head in heads)]
    for one in timings:
        decoding = "in each pass" if one.decoding is None else f"{one.decoding:.2f}"
        spent = [*(getattr(one.best, phase.name) for phase in fields(Seconds)), one.best.epoch]
        lines.append(f"{one.name:<34}{decoding:>16}" + "".join(f"{seconds:>16.2f}" for seconds in spent))
    return lines
