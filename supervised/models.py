"""The digit networks: (B, 1, 28, 28) in 0..1 -> (B, 10) logits. Logit j is digit j."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from console import UserError

CLASSES = 10


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image; each is drawn evenly from minus to plus."""

    rotate: float = 0.0  # degrees
    zoom: float = 0.0  # share of the size
    shift: float = 0.0  # share of the side, in each direction


class DigitNet(nn.Module):
    """Convolutions (`features`), then dense layers (`classifier`).

    `cam_layer` is the last convolution's ReLU. `embed` is the first dense layer after its ReLU.
    """

    def __init__(self, name: str, features: list[nn.Module], classifier: list[nn.Module]):
        super().__init__()
        self.arguments = {"name": name}
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(*classifier)
        convolutions = [i for i, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
        self._cut = convolutions[-1] + 2 if convolutions else 0  # maps end with this many layers
        self._first = next(i for i, layer in enumerate(classifier) if isinstance(layer, nn.ReLU)) + 1

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
        """(B, units of the first dense layer)."""
        return self.classifier[: self._first](self.features(images))

    def classify(self, embedding: Tensor) -> Tensor:
        return self.classifier[self._first :](embedding)

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.embed(images))


def _convolution(channels: int, out: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, out, kernel, padding=kernel // 2), nn.ReLU(), nn.BatchNorm2d(out)]


def cnn101() -> DigitNet:
    """Two 5x5 convolutions of 32 and two 3x3 of 64, batch norm after each ReLU, pooled 28 -> 14 -> 7, dense 256 and 512."""
    features = [*_convolution(1, 32, 5), *_convolution(32, 32, 5), nn.MaxPool2d(2), nn.Dropout(0.25)]
    features += [*_convolution(32, 64, 3), *_convolution(64, 64, 3), nn.MaxPool2d(2), nn.Dropout(0.25)]
    dense = [nn.Flatten(), nn.Linear(64 * 7 * 7, 256), nn.ReLU(), nn.BatchNorm1d(256)]
    dense += [nn.Linear(256, 512), nn.ReLU(), nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, CLASSES)]
    return DigitNet("cnn101", features, dense)


def _lecture(name: str, dropout: bool) -> DigitNet:
    """One 5x5 convolution of 32, one pool, one dense layer of 128; more dropout than this underfits moved images."""
    features = [nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), *([nn.Dropout(0.2)] if dropout else [])]
    dense = [nn.Flatten(), nn.Linear(32 * 12 * 12, 128), nn.ReLU(), nn.Linear(128, CLASSES)]
    return DigitNet(name, features, dense)


def mlp() -> DigitNet:
    """One dense layer of 64: about 97 %, for the study of single pixels."""
    return DigitNet("mlp", [], [nn.Flatten(), nn.Linear(28 * 28, 64), nn.ReLU(), nn.Linear(64, CLASSES)])


MODELS: dict[str, Callable[[], DigitNet]] = {
    "cnn101": cnn101,
    "simple_conv": lambda: _lecture("simple_conv", False),
    "drop_conv": lambda: _lecture("drop_conv", True),
    "drop_move_conv": lambda: _lecture("drop_move_conv", True),
    "drop_full_conv": lambda: _lecture("drop_full_conv", True),
    "mlp": mlp,
}
# What each is trained with, unless the options say otherwise.
AUGMENTATIONS: dict[str, Augmentation] = {
    "cnn101": Augmentation(rotate=10, zoom=0.1, shift=0.1),
    "drop_move_conv": Augmentation(shift=0.1),
    "drop_full_conv": Augmentation(rotate=30, shift=0.1),
}
# Loss and accuracy on the test set that were published for them; cnn101's was chosen on that test set.
PUBLISHED: dict[str, tuple[float, float]] = {
    "simple_conv": (0.1163, 0.9895),
    "drop_conv": (0.0359, 0.9921),
    "drop_move_conv": (0.0293, 0.9921),
    "drop_full_conv": (0.0250, 0.9927),
    "cnn101": (0.0090, 0.9970),
}


def build(name: str, seed: int = 0) -> DigitNet:
    """The network of that name with weights drawn from `seed`. Raises: UserError if there is none."""
    if name not in MODELS:
        raise UserError(f"--model {name}: unknown: use one of {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name]()
