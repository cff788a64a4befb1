"""What stands beside every agreement figure: the same images clustered without any learning.

One entry of BASELINES each; console, curves, tables and benchmarks iterate it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from datasets import Dataset
from deepcluster.agreement import agreement
from deepcluster.clustering import kmeans
from deepcluster.config import Config
from deepcluster.features import embed, pca_whiten
from deepcluster.models import untrained
from deepcluster.views import Frames
from machine.seeds import derive_seed

PIXEL_SIDE = 32


@dataclass(frozen=True)
class Baseline:
    """A clustering to compare with."""

    title: str
    cluster: Callable[[Frames, Config, int, torch.device], np.ndarray]  # (images, config, k, device) -> (N,)


def raw_pixels(frames: Frames, config: Config, k: int, device: torch.device) -> np.ndarray:
    """k-means on the central square at 32 x 32, RGB."""
    rows = []
    for i in range(len(frames.shape)):
        image = frames.batch(np.array([i]))[0]
        side = min(image.shape[2:])
        top, left = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
        square = image[:, :, top : top + side, left : left + side]
        rows.append(torch.nn.functional.interpolate(square, (PIXEL_SIDE, PIXEL_SIDE), mode="area").flatten().cpu())
    return kmeans(np.ascontiguousarray(torch.stack(rows).numpy() / 255), k, _seed(config), device)


def untrained_network(frames: Frames, config: Config, k: int, device: torch.device) -> np.ndarray:
    """k-means on the features of the network before training, reduced as in training."""
    features = embed(untrained(config).to(device), frames, config, "baseline").features
    return kmeans(pca_whiten(features, config.pca, config.whiten_power), k, _seed(config), device)


BASELINES: dict[str, Baseline] = {
    "pixels": Baseline("k-means on the pixels", raw_pixels),
    "untrained": Baseline("k-means on the untrained network", untrained_network),
}


def measure_baselines(dataset: Dataset, config: Config, k: int, device: torch.device) -> dict[str, dict[str, float]]:
    """Agreement of each baseline with the dataset's labels: name -> measures."""
    assert dataset.labels is not None
    frames = Frames(dataset.pixels, device)
    k = min(k, len(dataset))
    found = {name: baseline.cluster(frames, config, k, device) for name, baseline in BASELINES.items()}
    return {name: agreement(dataset.labels, assignment) for name, assignment in found.items()}


def _seed(config: Config) -> int:
    return derive_seed(config.seed, 0, "baseline")
