"""The convolutional networks that can be trained: one entry of BACKBONES each, and torchvision's (`published`).

A backbone is a function from the number of input channels to an `nn.Sequential` whose last module is the pool after the
last convolution (`nn.Identity()` if there is none). So `[:-1]` are the maps that Grad-CAM reads, and the rest of the
program needs to know nothing else. Free of torch until one is built, so that `--help` can list them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from console import UserError
from datasets.view import PHOTOGRAPH, shape_of
from deepcluster.published import check_name, trunk
from machine.reading import MOST_SIDE

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]  # channels, height, width
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


def alexnet_fine(channels: int) -> nn.Sequential:
    """AlexNet with finer maps: twice as many cells each way, each of which sees 59 pixels instead of 163.

    The first layer has 7 x 7 pixels in steps of 2, as in ZFNet (Zeiler & Fergus 2014), the others 3 x 3; four layers
    and fewer channels, so that it takes the time of AlexNet.
    """
    layers: Layers = (
        (48, 7, 2, 3), None,
        (128, 3, 1, 1), None,
        (256, 3, 1, 1), (256, 3, 1, 1), None,
    )  # fmt: skip
    return _plain_stack(layers, channels, pool=3)


def vgg16(channels: int) -> nn.Sequential:
    """VGG-16 with batch norm (Simonyan & Zisserman 2015)."""
    widths = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    layers = [layer for width, depth in widths for layer in [*[(width, 3, 1, 1)] * depth, None]]
    return _plain_stack(layers, channels, pool=2)


def resnet18(channels: int) -> nn.Sequential:
    """torchvision's ResNet-18 (He et al. 2016) up to its last block."""
    return trunk("resnet18", channels)


BACKBONES: dict[str, Callable[[int], nn.Sequential]] = {
    "alexnet": alexnet,
    "alexnet_fine": alexnet_fine,
    "vgg16": vgg16,
    "resnet18": resnet18,
}
PUBLISHED = {"vgg16": "vgg16_bn", "resnet18": "resnet18"}  # what torchvision calls those that it has, too


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


def check_arch(arch: str) -> None:
    """Refuse what is no backbone.

    Raises:
        UserError: saying which there are.
    """
    if arch not in BACKBONES:
        check_name(arch, [*BACKBONES])


def published_name(arch: str) -> str:
    """What torchvision calls a backbone.

    Raises:
        UserError: if it has not got it, so that there are no weights for it.
    """
    if arch in BACKBONES and arch not in PUBLISHED:
        raise UserError(
            f"--weights: there are none for {arch}: leave them out (--init starts from another run's), or use another "
            "--arch, such as resnet18"
        )
    return PUBLISHED.get(arch, arch)


def build_backbone(arch: str, channels: int, around: bool = False) -> nn.Sequential:
    """A key of BACKBONES or a network of torchvision's; `around`: for pictures whose left and right edge meet."""
    features = BACKBONES[arch](channels) if arch in BACKBONES else trunk(arch, channels)
    if around:
        from deepcluster.around import join_edges

        join_edges(features)
    return features


@lru_cache(maxsize=8)
def _outline(arch: str, around: bool) -> nn.Sequential:
    """The backbone in eval mode, without numbers in it: to ask for shapes."""
    import torch

    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_backbone(arch, 3, around).eval()
        except NotImplementedError:  # RegNets compute their widths with tensors
            return build_backbone(arch, 3, around).eval().to("meta")


def unguided(arch: str) -> list[str]:
    """The kinds of activations in a backbone that are no ReLU: Guided Backprop passes them as the gradient does."""
    from torch import nn

    kinds = (nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU)  # all that torchvision's convolutional classifiers have
    return sorted({type(module).__name__ for module in _outline(arch, False).modules() if isinstance(module, kinds)})


@lru_cache(maxsize=1024)
def map_shape(arch: str, height: int, width: int, around: bool = False) -> Shape | None:
    """(channels, height, width) of a backbone's last maps for pictures (height, width), before its pool.

    None: too small a picture, of which nothing is left after the pool, or a strip whose width is no multiple of the
    stride of a network of residuals.
    """
    outline = _outline(arch, around)
    maps = _shape_behind(outline[:-1], (3, height, width))
    return None if maps is None or _shape_behind(outline[-1:], maps) is None else maps


def pooled_shape(arch: str, height: int, width: int, around: bool = False) -> Shape:
    """The same after the pool, for pictures that are not too small."""
    maps = map_shape(arch, height, width, around)
    assert maps is not None
    pooled = _shape_behind(_outline(arch, around)[-1:], maps)
    assert pooled is not None
    return pooled


def _shape_behind(layers: nn.Sequential, shape: Shape) -> Shape | None:
    """What is left of (channels, height, width) behind some layers of an outline; None: nothing.

    By arithmetic where a layer is plain: torch would load its compiler to tell, a second and more of every command.
    """
    import torch
    from torch import nn

    from deepcluster.around import ConvAround, MaxPoolAround

    for layer in layers:
        kind = type(layer)  # of a subclass nobody knows what it does
        plain_pool = kind in (nn.MaxPool2d, MaxPoolAround) and not layer.ceil_mode
        in_pixels = isinstance(layer, nn.Conv2d) and isinstance(layer.padding, tuple)  # else "same" or "valid"
        plain_conv = kind in (nn.Conv2d, ConvAround) and in_pixels and layer.padding_mode == "zeros"
        if plain_pool or plain_conv:
            channels, height, width = shape
            channels = getattr(layer, "out_channels", channels)
            shape = (channels, _windows(layer, height, 0), _windows(layer, width, 1))
        elif kind not in (nn.BatchNorm2d, nn.ReLU, nn.Identity):
            try:
                with torch.inference_mode():
                    shape = tuple(layer(torch.empty(1, *shape, device="meta")).shape[1:])
            except RuntimeError:  # a kernel larger than the map that is left, or branches of different widths
                return None
        if min(shape) < 1:
            return None
    return shape


def _windows(layer: Any, side: int, axis: int) -> int:
    """How many windows of a convolution or pool go along an axis (0: down, 1: across) of `side` pixels."""
    from deepcluster import around

    kernel, stride, padding, dilation = (  # torch keeps one number or one for each axis
        value if isinstance(value, int) else value[axis]
        for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    joined = axis == 1 and isinstance(layer, around.ConvAround | around.MaxPoolAround)
    added = sum(around.padding(kernel, stride)) if joined else 2 * padding
    return int((side + added - dilation * (kernel - 1) - 1) // stride + 1)


def smallest_size(arch: str, view: str = PHOTOGRAPH) -> int:
    """The smallest --size of a view that the backbone takes."""
    return _next_size(arch, 2, view)


def check_size(arch: str, size: int, view: str = PHOTOGRAPH) -> None:
    """Refuse a --size that the backbone does not take.

    Raises:
        UserError: naming one that it takes.
    """
    if fits(arch, size, view):
        return
    least = smallest_size(arch, view)
    if size < least:
        raise UserError(f"--size {size} is too small for {arch}: use at least {least}")
    raise UserError(
        f"--size {size}: the steps of {arch} do not go around strips of {shape_of(view, size)[1]} pixels: use "
        f"{_next_size(arch, size, view)}"
    )


def _next_size(arch: str, size: int, view: str) -> int:
    """The next one from `size` on that fits."""
    return next(size for size in range(size, MOST_SIDE + 1) if fits(arch, size, view))


def fits(arch: str, size: int, view: str = PHOTOGRAPH) -> bool:
    """Whether the backbone takes a view of this --size."""
    return map_shape(arch, *shape_of(view, size), view == "unrolled") is not None
