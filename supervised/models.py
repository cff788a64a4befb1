"""The networks: (B, channels, size, size) in 0..1 -> (B, classes) logits. Logit j is class j."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from console import UserError
from machine.reading import Between, Damaged, Side, shown, typed
from supervised.recipes import RECIPES, find_recipe

# What the arguments in a run of schema 1, which name a network alone, leave out.
DIGITS: dict[str, Any] = {"size": 28, "channels": 1, "classes": [str(digit) for digit in range(10)]}
MOST_CLASSES = 100_000


def build(arguments: Mapping[str, Any], seed: int = 0) -> "ClassNet":
    """The network of `arguments` with weights drawn from `seed`.

    Args:
        arguments: name (of a recipe), size (pixels of a side), channels, and classes (names, in the order of the
            logits). What is left out is a digit's.
        seed: of its weights.

    Raises:
        UserError: if there is no such recipe, or its network does not fit into images of that size.
    """
    known = DIGITS | dict(arguments)
    recipe = find_recipe(known["name"])
    make = NETWORKS[recipe.network]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        features, classifier = make(known["size"], known["channels"], len(known["classes"]), **recipe.arguments)
    return ClassNet(known, features, classifier)


@dataclass(frozen=True)
class Arguments:
    """What `build` takes, as run.json and checkpoints hold it."""

    name: str
    size: Side = DIGITS["size"]
    channels: Annotated[int, Between(1, 3)] = DIGITS["channels"]
    classes: Annotated[list[str], Between(1, MOST_CLASSES)] = field(default_factory=lambda: list(DIGITS["classes"]))


def check_arguments(stored: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The arguments that a checkpoint of the run at `path` holds.

    Raises:
        UserError: naming what is wrong with them.
    """
    mend = "restore a copy of its checkpoints and run.json"
    found = typed(Arguments, stored, path, mend, "model")
    if found.name not in RECIPES:
        raise Damaged(path, f"its network is {shown(found.name)}", mend)
    return asdict(found)


class ClassNet(nn.Module):
    """Convolutions (`features`), then dense layers (`classifier`).

    `cam_layer` is the last convolution's ReLU. `embed` is the first dense layer after its ReLU, or what the only one
    takes.
    """

    def __init__(self, arguments: dict[str, Any], features: list[nn.Module], classifier: list[nn.Module]):
        super().__init__()
        self.arguments = arguments
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)
        convolutions = [i for i, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
        self._cut = convolutions[-1] + 2 if convolutions else 0  # maps end with this many layers
        self._first = next((i for i, layer in enumerate(classifier) if isinstance(layer, nn.ReLU)), 0) + 1

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the logits."""
        return self.arguments["classes"]

    @property
    def cam_layer(self) -> nn.Module:
        if not self._cut:
            raise UserError(f"{self.arguments['name']} has no convolution for a CAM: use gradient or guided_backprop")
        return self.features[self._cut - 1]

    def maps(self, images: Tensor) -> Tensor:
        """The output of `cam_layer`, (B, channels, h, w); of a network without convolutions the image itself."""
        return self.features[: self._cut](images)

    def from_maps(self, maps: Tensor) -> Tensor:
        return self.classifier(self.features[self._cut :](maps))

    def embed(self, images: Tensor) -> Tensor:
        """(B, units of the first dense layer), or the flat maps where the first is the last."""
        return self.classifier[: self._first](self.features(images))

    def classify(self, embedding: Tensor) -> Tensor:
        return self.classifier[self._first :](embedding)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.embed(images))


Layers = tuple[list[nn.Module], list[nn.Module]]  # features, classifier


def cnn101(size: int, channels: int, classes: int) -> Layers:
    """Two 5x5 convolutions of 32 and two 3x3 of 64, batch norm after each ReLU, each two pooled; dense layers.

    Of the dense part only "up to 512" is published; 256 and then 512 units is ours.
    """
    features = [*_convolution(channels, 32, 5), *_convolution(32, 32, 5), nn.MaxPool2d(2), nn.Dropout(0.25)]
    features += [*_convolution(32, 64, 3), *_convolution(64, 64, 3), nn.MaxPool2d(2), nn.Dropout(0.25)]
    dense = [nn.Flatten(), nn.Linear(_units(64, size // 4, size), 256), nn.ReLU(), nn.BatchNorm1d(256)]
    dense += [nn.Linear(256, 512), nn.ReLU(), nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, classes)]
    return features, dense


def lecture(size: int, channels: int, classes: int, dropout: float = 0.0) -> Layers:
    """One 5x5 convolution of 32, one pool, one dense layer of 128; more dropout than .2 underfits moved images."""
    features = [nn.Conv2d(channels, 32, 5), nn.ReLU(), nn.MaxPool2d(2), *([nn.Dropout(dropout)] if dropout else [])]
    units = _units(32, (size - 4) // 2, size)
    return features, [nn.Flatten(), nn.Linear(units, 128), nn.ReLU(), nn.Linear(128, classes)]


def mlp(size: int, channels: int, classes: int, units: int) -> Layers:
    """One dense layer."""
    return [], [nn.Flatten(), nn.Linear(channels * size * size, units), nn.ReLU(), nn.Linear(units, classes)]


def small_conv(size: int, in_channels: int, classes: int, channels: int) -> Layers:
    """One 5x5 convolution, one pool, and the logits at once."""
    features = [nn.Conv2d(in_channels, channels, 5), nn.ReLU(), nn.MaxPool2d(2)]
    return features, [nn.Flatten(), nn.Linear(_units(channels, (size - 4) // 2, size), classes)]


def two_conv(size: int, in_channels: int, classes: int, channels: int) -> Layers:
    """Two 5x5 convolutions and the logits: the layers of supervised.autodiff.SmallCNN."""
    features = [nn.Conv2d(in_channels, channels, 5), nn.ReLU(), nn.Conv2d(channels, channels, 5), nn.ReLU()]
    return features, [nn.Flatten(), nn.Linear(_units(channels, size - 8, size), classes)]


def dilated(size: int, in_channels: int, classes: int, channels: int) -> Layers:
    """Five convolutions, ever wider dilated, and the largest value of each channel: the logits are told no places.

    A unit of the last maps sees more than the image of a digit, so that it can tell what lies above what. So it need
    not lie where its cause does, and Grad-CAM points roughly at best: docs/exercises.md measures it, and the mean in
    place of the largest value beside it.
    """
    _units(channels, size // 4, size)
    features = [*_convolution(in_channels, channels, 5), nn.MaxPool2d(2)]
    for dilation in (1, 2, 4):
        features += _convolution(channels, channels, 3, dilation)
    features += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1)]
    return features, [nn.Flatten(), nn.Linear(channels, classes)]


NETWORKS: dict[str, Callable[..., Layers]] = {
    "cnn101": cnn101,
    "dilated": dilated,
    "lecture": lecture,
    "mlp": mlp,
    "small_conv": small_conv,
    "two_conv": two_conv,
}


def _convolution(channels: int, out: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(channels, out, kernel, padding=padding, dilation=dilation)
    return [convolution, nn.ReLU(), nn.BatchNorm2d(out)]


def _units(channels: int, side: int, size: int) -> int:
    """Values in the last maps, of `side` pixels.

    Raises:
        UserError: if nothing is left of an image of `size` pixels.
    """
    if side < 1:
        raise UserError(f"--size {size} is too small for this network: use the 28 pixels of a digit, say")
    return channels * side * side
