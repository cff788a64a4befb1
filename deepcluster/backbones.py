"""The convolutional networks that can be trained: one entry of BACKBONES each.

A backbone is a function from the number of input channels to an `nn.Sequential` whose last module is the pool after the
last convolution (`nn.Identity()` if there is none). So `[:-1]` are the maps that Grad-CAM reads, and the rest of the
program needs to know nothing else. Free of torch until one is built, so that `--help` can list them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# (out channels, kernel, stride, padding) of a convolution with batch norm and ReLU, or None for a max-pool.
Layers = Sequence[tuple[int, int, int, int] | None]


def alexnet(channels: int) -> nn.Sequential:
    """AlexNet with batch norm (Caron et al. 2018; its grouped convolutions whole)."""
    layers: Layers = (
        (96, 11, 4, 2), None,
        (256, 5, 1, 2), None,
        (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1), None,
    )  # fmt: skip
    return _plain_stack(layers, channels, pool=3)


def vgg16(channels: int) -> nn.Sequential:
    """VGG-16 with batch norm (Simonyan & Zisserman 2015)."""
    widths = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    layers = [layer for width, depth in widths for layer in [*[(width, 3, 1, 1)] * depth, None]]
    return _plain_stack(layers, channels, pool=2)


def resnet18(channels: int) -> nn.Sequential:
    """torchvision's ResNet-18 (He et al. 2016) up to its last block."""
    from torch import nn
    from torchvision.models import resnet18 as build

    net = build(weights=None)
    if channels != 3:
        net.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    stem = (net.conv1, net.bn1, net.relu, net.maxpool)
    return nn.Sequential(*stem, net.layer1, net.layer2, net.layer3, net.layer4, nn.Identity())


BACKBONES: dict[str, Callable[[int], nn.Sequential]] = {"alexnet": alexnet, "vgg16": vgg16, "resnet18": resnet18}


def _plain_stack(layers: Layers, channels: int, pool: int) -> nn.Sequential:
    from torch import nn

    modules: list[nn.Module] = []
    for layer in layers:
        if layer is None:
            modules.append(nn.MaxPool2d(pool, 2))
        else:
            out, kernel, stride, padding = layer
            modules += [nn.Conv2d(channels, out, kernel, stride, padding), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
    return nn.Sequential(*modules)


@lru_cache(maxsize=1024)
def map_shape(arch: str, size: int) -> tuple[int, int, int] | None:
    """(channels, height, width) after a backbone's pool for a `size` x `size` image; None: too small a picture."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode():
        features = BACKBONES[arch](3).eval()
        try:
            _, channels, height, width = features(torch.empty(1, 3, size, size)).shape
        except RuntimeError:  # a kernel larger than the map that is left
            return None
    return (channels, height, width) if height and width else None


def smallest_size(arch: str) -> int:
    """Pixels of the smallest square picture that the backbone takes."""
    return next(size for size in range(1, 512) if map_shape(arch, size) is not None)
