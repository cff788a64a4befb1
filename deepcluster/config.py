"""Everything that decides the result of a training, and the two presets."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Config:
    """All of it is written to run.json; a resume with another value of any field is refused."""

    preset: str
    arch: str
    size: int  # side of the view that is clustered, predicted and explained
    sobel: bool
    neck: str  # "fc": two layers of 4,096; "mlp": one of 512; "pool": the averaged last convolution
    center_crop: bool  # the view is the centre (7/8 of the shorter side), else all of the central square
    k: int
    epochs: int
    batch: int
    reassign: float  # training images drawn per epoch, in multiples of N
    lr: float
    head_lr: float  # in multiples of lr
    head_init: str  # "random": N(0, .01); "centroids": the clusters' mean embeddings
    momentum: float
    weight_decay: float
    warmup: float  # epochs of linear warm-up
    schedule: str  # "constant" or "cosine"
    pca: int
    whiten: float  # power of the variance that scales a principal component: -1/2 whitens, 0 does not
    scale: float
    rotate: float
    flip: bool
    jitter: float
    clustering: str
    final_clustering: str | None
    final_epochs: int
    seed: int
    init: str | None  # digest of the weights that training starts from; None: random

    def clustering_of(self, epoch: int) -> str:
        """The algorithm of an epoch, counted from 1."""
        if self.final_clustering is not None and epoch > self.epochs - self.final_epochs:
            return self.final_clustering
        return self.clustering


PAPER: dict[str, Any] = {
    "preset": "paper",
    "arch": "alexnet",
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
    "whiten": -0.5,
    "scale": 0.08,
    "rotate": 0.0,
    "flip": True,
    "jitter": 0.0,
    "clustering": "kmeans",
    "final_clustering": None,
    "final_epochs": 0,
    "seed": 31,
    "init": None,
}

# What each change earns is in the README's table of ingredients. What the dataset suggests is laid over it.
STABLE: dict[str, Any] = PAPER | {
    "preset": "stable",
    "size": 128,
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
    "whiten": -0.25,
    "scale": 0.6,
    "flip": False,
    "jitter": 0.4,
}

PRESETS = {"stable": STABLE, "paper": PAPER}
