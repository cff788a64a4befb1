"""What stands beside every agreement figure: the same images clustered without any learning.

One entry of BASELINES each; baselines.json, console, curves, tables and benchmarks iterate it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from datasets import Dataset
from datasets.places import Place
from deepcluster.agreement import agreement
from deepcluster.clustering import kmeans
from deepcluster.config import Config
from deepcluster.descriptors import design_features, facts_of, ruler_and_colour, set_beside
from deepcluster.features import embed, pca_whiten
from deepcluster.models import ClusterNet, untrained
from deepcluster.views import Frames
from machine.seeds import derive_seed

PIXEL_SIDE = 32
SAME = 0.02  # a difference of AMI that another seed makes as well


@dataclass(frozen=True)
class Material:
    """What baselines are made of: N images, the settings of the training that they stand beside, and a device."""

    dataset: Dataset
    config: Config
    device: torch.device
    given: dict[str, torch.Tensor] | None = None  # weights from elsewhere that the training starts from

    @cached_property
    def places(self) -> list[Place]:
        """Where the coin is in each photograph."""
        return self.dataset.find_places()


@dataclass(frozen=True)
class Baseline:
    """A clustering to compare with: k-means on features that nothing was learnt for."""

    name: str
    title: str
    says: str  # what clusters say that are no better, in words
    line: str | tuple[int, tuple[int, ...]]  # its style in the curves, as matplotlib writes it
    features: Callable[[Material], np.ndarray | None]  # (N, d) float32, C-contiguous; None: it has no part in this run


@dataclass(frozen=True)
class Clustered:
    """N images in k clusters, and what was clustered."""

    features: np.ndarray  # (N, d) float32
    assignment: np.ndarray  # (N,) int64


def raw_pixels(material: Material) -> np.ndarray:
    """The central square at 32 x 32, RGB, 0..1: (N, 3,072)."""
    rows = []
    frames = Frames(material.dataset.decoded, material.device)
    for i in range(len(material.dataset)):
        image = frames.batch(np.array([i]))[0]
        side = min(image.shape[2:])
        top, left = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
        square = image[:, :, top : top + side, left : left + side]
        rows.append(torch.nn.functional.interpolate(square, (PIXEL_SIDE, PIXEL_SIDE), mode="area").flatten().cpu())
    return np.ascontiguousarray(torch.stack(rows).numpy() / 255)


def untrained_network(material: Material) -> np.ndarray:
    """The features of the network before training, reduced as in training: (N, config.pca at most)."""
    return _features(material, untrained(material.config))


def given_network(material: Material) -> np.ndarray | None:
    """The same of the network with the weights that it was given (--weights), if it was."""
    if material.config.weights is None or material.given is None:
        return None
    model = untrained(material.config)
    model.load_trunk(material.given)
    return _features(material, model)


def _features(material: Material, model: ClusterNet) -> np.ndarray:
    config, frames = material.config, Frames(material.dataset.pixels, material.device)
    features = embed(model.to(material.device), frames, config, "baseline").features
    return pca_whiten(features, config.pca, config.whiten_power)


def unrolled_spectrum(material: Material) -> np.ndarray:
    """The unrolled coins' spectra, reduced to 64 components, half whitened, of length 1."""
    return design_features(material.dataset.decoded, material.dataset.pixels_key)


def spectrum_and_facts(material: Material) -> np.ndarray | None:
    """What a training that clusters facts beside its features would cluster with the spectra in place of these."""
    facts = facts_of(material.dataset, material.config)
    return None if facts is None else set_beside(unrolled_spectrum(material), facts)


BASELINES: dict[str, Baseline] = {
    "pixels": Baseline("raw pixels", "k-means on the pixels", "raw pixels do", ":", raw_pixels),
    "untrained": Baseline(
        "untrained network",
        "k-means on the untrained network",
        "a network says before it learns",
        "--",
        untrained_network,
    ),
    "given": Baseline(
        "network as given",
        "k-means on the network as it was given",
        "the given weights do untrained",
        (0, (1, 2, 1, 2, 5, 2)),
        given_network,
    ),
    "ruler": Baseline(
        "ruler and colour",
        "k-means on ruler and colour",
        "size and colour do",
        "-.",
        lambda material: ruler_and_colour(material.dataset.decoded, material.places),
    ),
    "spectrum": Baseline(
        "unrolled spectrum",
        "k-means on the unrolled spectrum",
        "the relief does without a network",
        (0, (5, 1, 1, 1, 1, 1)),
        unrolled_spectrum,
    ),
    "facts": Baseline(
        "unrolled spectrum, size and colour",
        "k-means on the spectrum and the facts",
        "relief, size and colour do without a network",
        (0, (3, 1, 1, 1)),
        spectrum_and_facts,
    ),
}


def cluster_baselines(
    dataset: Dataset, config: Config, k: int, device: torch.device, given: dict[str, torch.Tensor] | None = None
) -> dict[str, Clustered]:
    """Every baseline's features of N images, and k clusters of them: name -> both."""
    material, seed = Material(dataset, config, device, given), derive_seed(config.seed, 0, "baseline")
    found = {}
    for key, baseline in BASELINES.items():
        features = baseline.features(material)
        if features is not None:
            found[key] = Clustered(features, kmeans(features, min(k, len(features)), seed, device))
    return found


def measure_baselines(
    dataset: Dataset, config: Config, k: int, device: torch.device, given: dict[str, torch.Tensor] | None = None
) -> dict[str, dict[str, float]]:
    """Agreement of each baseline with the dataset's labels: name -> measures."""
    assert dataset.labels is not None
    found = cluster_baselines(dataset, config, k, device, given)
    return {name: agreement(dataset.labels, baseline.assignment) for name, baseline in found.items()}


def verdict(ami: float, baselines: Mapping[str, Mapping[str, float]]) -> str:
    """What a run's AMI is worth beside its baselines' (name -> measures, as in baselines.json), in a sentence."""
    known = {name: values["ami"] for name, values in baselines.items() if name in BASELINES}
    said = f"AMI {_short(ami)} with the labels"
    if not known:
        return f"{said}; no baseline was measured."
    best = max(known, key=known.__getitem__)
    said += f"; best baseline: {BASELINES[best].name} {_short(known[best])}: "
    if max(ami, known[best]) < SAME:
        return said + "neither has to do with the labels."
    if not beats_baselines(ami, baselines):
        return said + f"the clusters say no more than {BASELINES[best].says}."
    return said + "the clusters say more than any baseline."


def beats_baselines(ami: float, baselines: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the clusters say more than any baseline, as `verdict` puts it; where none was measured, they may."""
    known = [values["ami"] for name, values in baselines.items() if name in BASELINES]
    return ami >= max([*known, 0.0]) + SAME or not known


def _short(value: float) -> str:
    """.45 for 0.4489."""
    return f"{value:.2f}".replace("0.", ".", 1)
