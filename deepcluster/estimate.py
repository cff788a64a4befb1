"""How long a training takes and how much it writes, told before it begins from a few measured steps of its own network.

What is measured is a network that is thrown away, with chance of its own: the training that follows is not touched.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from console import duration, megabytes
from datasets import Dataset
from datasets.view import PHOTOGRAPH
from deepcluster.config import Config
from deepcluster.epoch import State, train_epoch
from deepcluster.features import EMBED_BATCH, embed
from deepcluster.train import cluster, reduce, start
from deepcluster.views import Frames
from machine.device import device_in_words, synchronise

STEPS = 6  # of training that are timed, after one that is not
PATIENCE = 3.0  # seconds that they may take
CLUSTERED = 2000  # images whose clustering is timed
SHORT = 40_000_000  # pixels that a training sees in all; below, it is over before an estimate would be of use
LONG = 600  # seconds from which it is told what fewer images would take
TRIED = 300  # images that are then proposed


@dataclass(frozen=True)
class Pace:
    """What was measured of a training: seconds of its parts, and bytes of what it keeps."""

    step: float  # seconds of training on one batch, which is cut from the pixels in it
    look: float  # seconds to embed one image
    cluster: float  # seconds of the clustering of one epoch
    images: int
    weights: int  # bytes of a kept checkpoint
    momentum: int  # bytes that latest.pt has beside the weights
    names: int  # bytes of all ids

    def epoch(self, config: Config, images: int | None = None) -> float:
        """Seconds of one epoch, of `images` as those that were measured."""
        count = self.images if images is None else images
        steps = math.ceil(int(config.reassign * count) / config.batch)
        return steps * self.step + count * self.look + self.cluster * count / self.images

    def seconds(self, config: Config, epochs: int, images: int | None = None) -> float:
        """Seconds of so many epochs, and of the look at all images before the first."""
        count = self.images if images is None else images
        return epochs * self.epoch(config, images) + count * self.look

    def bytes(self, config: Config, save_every: int, keep: int) -> int:
        """Bytes of the run directory when it is finished: checkpoints, latest.pt, clusters of each epoch, tables."""
        kept = {epoch for epoch in range(1, config.epochs + 1) if epoch % save_every == 0} | {config.epochs}
        tables = 16 * self.images * config.epochs + 2 * self.names + 40 * self.images
        return min(len(kept), keep) * self.weights + self.weights + self.momentum + tables


def pixels_seen(dataset: Dataset, config: Config, epochs: int) -> float:
    """How many pixels so many epochs look at: what tells a training of seconds from a long one."""
    height, width = dataset.pixels.shape[0] if config.view != PHOTOGRAPH else (config.size, config.size)
    return epochs * len(dataset) * (1 + config.reassign) * float(height) * float(width)


def measure_pace(dataset: Dataset, config: Config, device: torch.device) -> Pace:
    """Time a few steps of this training on this machine.

    Args:
        dataset: its images, in their view.
        config: its settings, with the k that was found.
        device: where it will run.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        state, frames = start(config, device), Frames(dataset.pixels, device)
        look, width = _time_looking(state, dataset, config, device)
        step = _time_steps(state, frames, config, width)
        clustering = _time_clustering(len(dataset), width, config, device)
        weights = sum(value.nbytes for value in state.model.state_dict().values())
        momentum = sum(value.nbytes for value in state.model.trunk_parameters())
    names = sum(len(name.encode("utf-8", "surrogateescape")) for name in dataset.ids)
    return Pace(step, look, clustering, len(dataset), weights, momentum, names)


def _timed(act: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    begun = time.perf_counter()
    act()
    synchronise(device)
    return time.perf_counter() - begun


def _time_looking(state: State, dataset: Dataset, config: Config, device: torch.device) -> tuple[float, int]:
    """Seconds to embed an image, and the length of its features."""
    count = min(len(dataset), EMBED_BATCH)
    some = Frames(dataset.pixels.take(np.arange(count)), device)
    width = embed(state.model, some, config, "measuring").features.shape[1]  # also what is slow the first time alone
    return _timed(lambda: embed(state.model, some, config, "measuring"), device) / count, width


def _time_steps(state: State, frames: Frames, config: Config, width: int) -> float:
    """Seconds of a step of training."""
    images = len(frames.shape)
    assignment = np.arange(images) % config.k
    features = torch.zeros((images, width), device=frames.device)
    every = math.ceil(int(config.reassign * images) / config.batch)

    def train_steps(count: int) -> None:
        few = replace(config, reassign=min(config.reassign, (count * config.batch + 0.5) / images))
        train_epoch(state, frames, assignment, features, config.k, 1, few)

    first = _timed(lambda: train_steps(1), frames.device)
    count = min(every, STEPS, int(PATIENCE / first))
    return first if count < 2 else _timed(lambda: train_steps(count), frames.device) / count


def _time_clustering(images: int, width: int, config: Config, device: torch.device) -> float:
    """Seconds to reduce and cluster all images once; of many, some are timed."""
    count = min(images, CLUSTERED)
    few = replace(config, k=min(config.k, count))
    features = torch.randn((count, width), generator=torch.Generator().manual_seed(0)).to(device)

    def reduce_and_cluster() -> object:
        return cluster(reduce(features, few), few, 1, device)

    if device.type == "cuda":
        reduce_and_cluster()  # the first time it opens its libraries, which takes several times as long
    seconds = _timed(reduce_and_cluster, device)
    growth = 2 if config.clustering == "agglomerative" else 1
    return seconds * (images / count) ** growth * config.k / few.k


def in_words(pace: Pace, config: Config, done: int, save_every: int, keep: int, device: torch.device) -> str:
    """The line before a long training: where, how long, how large, and what a try would take."""
    epochs = config.epochs - done
    seconds = pace.seconds(config, epochs)
    line = (
        f"on {device_in_words(device)}: about {duration(seconds)} for {epochs} epochs (a few steps were measured); "
        f"{megabytes(pace.bytes(config, save_every, keep))} in the run directory"
    )
    if seconds > LONG and pace.images > 2 * TRIED:
        line += f"; --limit {TRIED} would take about {duration(pace.seconds(config, config.epochs, TRIED))}"
    return line
