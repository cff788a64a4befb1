"""Everything that decides the result of a training, and the two presets."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Annotated, Any

from datasets import Dataset, decoded_side
from datasets.view import PHOTOGRAPH, decoded_for, default_size
from machine.reading import MOST_DECODED, Between, Damaged, Seed, Share, Side, shown, typed

Positive = Annotated[int, Between(1, 10**9)]
Factor = Annotated[float, Between(0, 1e9)]
Power = Annotated[float, Between(-100, 100)]
MOST_K = 1_000_000  # more clusters are damage

# The preset that takes nothing from what is known of the pictures, trains in float32 and cuts crops from whole files.
TO_THE_LETTER = "paper"


@dataclass(frozen=True)
class Config:
    """All of it is written to run.json; a resume with another value of any field is refused."""

    preset: str
    arch: str  # a key of deepcluster.backbones.BACKBONES, or a network of torchvision's
    view: str  # what the network is given of a photograph: a key of datasets.view.VIEWS, or "photograph"
    size: Side  # pixels, side of the view that is clustered, predicted and explained (unrolled: as many in a strip)
    decode_at_most: Annotated[int, Between(1, MOST_DECODED)]  # pixels, largest shorter side of what views are cut from
    sobel: bool
    neck: str  # "fc": two layers of 4,096; "mlp": one of 512; "pool": the averaged last convolution; "spectrum"
    facts: str  # that are clustered beside the network's features: "", or "size,colour"
    facts_weight: Factor  # length of all facts beside the features' 1
    center_crop: bool  # the view is the centre (7/8 of the shorter side), else all of the central square
    k: Annotated[int, Between(0, MOST_K)]
    epochs: Positive
    batch: Positive
    reassign: Factor  # training images drawn per epoch, in multiples of N
    lr: Factor
    head_lr: Factor  # in multiples of lr
    head_init: str  # "random": N(0, .01); "centroids": the clusters' mean embeddings
    momentum: Share
    weight_decay: Factor
    warmup: Factor  # epochs of linear warm-up
    schedule: str  # "constant" or "cosine"
    pca: Positive  # principal components that are clustered
    whiten_power: Power  # of the variance that scales a principal component: -1/2 whitens, 0 does not
    scale: Share  # smallest share of the image's area that a training crop covers
    rotate: Annotated[float, Between(0, 180)]  # degrees that a training crop is turned by, at most, either way
    flip: bool
    jitter: Share  # largest relative change of brightness, contrast and saturation
    clustering: str  # a key of deepcluster.clustering.CLUSTERINGS
    # first epochs whose clusters are those of the unrolled spectrum, not of the network's features
    spectrum_epochs: Annotated[int, Between(0, 10**9)]
    final_clustering: str | None
    final_epochs: Annotated[int, Between(0, 10**9)]
    seed: Seed
    weights: (
        str | None
    )  # of the trunk, learnt elsewhere: torchvision's name or a file's digest; None: random, or `init`'s
    init: str | None  # digest of the weights (and the expert's edits) that training starts from; None: random

    @property
    def mixed_precision(self) -> bool:
        """Whether training runs in bfloat16 on a GPU. What is clustered is float32 always."""
        return self.preset != TO_THE_LETTER

    def clustering_of(self, epoch: int) -> str:
        """The algorithm of an epoch, counted from 1."""
        if self.final_clustering is not None and epoch > self.epochs - self.final_epochs:
            return self.final_clustering
        return self.clustering


PAPER: dict[str, Any] = {
    "preset": "paper",
    "arch": "alexnet",
    "view": PHOTOGRAPH,
    "facts": "",
    "facts_weight": 1.0,
    "size": 224,
    "sobel": True,
    "neck": "fc",
    "center_crop": True,
    "epochs": 200,
    "batch": 256,
    "reassign": 1.0,
    "lr": 0.05,
    "head_lr": 1.0,
    "head_init": "random",
    "momentum": 0.9,
    "weight_decay": 1e-5,
    "warmup": 0.0,
    "schedule": "constant",
    "pca": 256,
    "whiten_power": -0.5,
    "scale": 0.08,
    "rotate": 0.0,
    "flip": True,
    "jitter": 0.0,
    "clustering": "kmeans",
    "spectrum_epochs": 0,
    "final_clustering": None,
    "final_epochs": 0,
    "seed": 31,
    "weights": None,
    "init": None,
}

# What each change earns is in the table of ingredients in docs/coins.md. What suits the dataset is laid over it.
STABLE: dict[str, Any] = PAPER | {
    "preset": "stable",
    "size": default_size(PHOTOGRAPH),
    "sobel": False,
    "neck": "mlp",
    "center_crop": False,
    "epochs": 10,
    "batch": 64,
    "reassign": 2.0,
    "lr": 0.01,
    "head_lr": 5.0,
    "head_init": "centroids",
    "weight_decay": 1e-3,
    "warmup": 1.0,
    "schedule": "cosine",
    "pca": 64,
    "whiten_power": -0.25,
    "scale": 0.6,
    "flip": False,
    "jitter": 0.4,
}

PRESETS = {"stable": STABLE, "paper": PAPER}

# What `stable` does otherwise where coins are seen unrolled; docs/views.md has what was tried.
UNROLLED: dict[str, Any] = {
    "arch": "alexnet_fine",
    "neck": "spectrum",
    "epochs": 8,
    "spectrum_epochs": 3,
    "facts_weight": 1.2,
    "rotate": 180.0,
    "sobel": False,
}


def defaults_of(preset: str, view: str) -> dict[str, Any]:
    """What a preset sets where its images are seen in this view."""
    values = PRESETS[preset] | {"view": view}
    if preset == TO_THE_LETTER:
        return values
    return values | {"size": default_size(view)} | (UNROLLED if view == "unrolled" else {})


def read_config(stored: Mapping[str, Any], path: Path) -> Config:
    """The settings that run.json at `path` holds; one that is younger than the run has its preset's value.

    Raises:
        UserError: naming a setting that is missing, not known to this version, or no value of it.
    """
    mend = "restore a copy, or train again into a new --exp"
    preset = PRESETS.get(stored["preset"]) if isinstance(stored.get("preset"), str) else None
    if preset is None:
        raise Damaged(path, f"its preset is {shown(stored.get('preset'))}", mend)
    unknown = sorted(stored.keys() - Config.__dataclass_fields__.keys())
    if unknown:
        raise Damaged(path, f"a setting that this version does not know: {shown(unknown[0])}", mend)
    return typed(Config, preset | dict(stored), path, mend, "config")


def suits(preset: str, dataset: Dataset) -> dict[str, Any]:
    """Settings that follow from what is known of the pictures; the user's own go before them."""
    if preset == TO_THE_LETTER or dataset.view == "unrolled":
        return {}
    plain = dataset.view == PHOTOGRAPH
    return {"rotate": 15.0 if dataset.upright else 180.0, "sobel": plain and not dataset.colour_matters}


def side_to_decode(preset: str, view: str, size: int, scale: float) -> int:
    """Shorter side in pixels to decode to for views of `size` and training crops of at least `scale` of the area.

    `stable` keeps the paper's 8/7 of the view, so that a set of thousands fits everywhere. Under `paper` no crop is
    enlarged from less than the file has: the narrowest crop (ratio 3/4) of the smallest area still has `size` pixels.
    """
    if view != PHOTOGRAPH:
        return decoded_for(size)
    if preset != TO_THE_LETTER or scale == 0:
        return decoded_side(size)
    return max(decoded_side(size), ceil(size / sqrt(scale * 3 / 4)))
