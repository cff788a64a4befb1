"""What is explained, and the state in which a model is asked: shared by all methods."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from console import UserError

Layer = int | str | nn.Module | None  # place from the end, name, module; None: the model's cam_layer


def as_weights(targets: Tensor, logits: Tensor) -> Tensor:
    """(B,) logit numbers or (B, K) weights of the logits -> (B, K) weights.

    Raises:
        UserError: if the network gave no logits of classes, or has not those that are asked for.
    """
    if logits.dim() != 2:
        raise UserError(
            f"this network has no classes: it gives {tuple(logits.shape)} where (batch, classes) is wanted: name a "
            "classifier, or pool and flatten what it gives"
        )
    classes = logits.shape[1]
    if targets.dim() == 2:
        if targets.shape[1] != classes:
            raise UserError(f"targets: weights of {targets.shape[1]} classes, and the network has {classes}")
        return targets.to(logits)
    if int(targets.min()) < 0 or int(targets.max()) >= classes:
        raise UserError(
            f"targets: classes {int(targets.min())} to {int(targets.max())}, and the network has 0 to {classes - 1}"
        )
    return functional.one_hot(targets.to(logits.device), classes).to(logits.dtype)


def find_layer(model: nn.Module, layer: Layer = None) -> nn.Module:
    """The module whose output a CAM reads.

    Args:
        model: any torch module.
        layer: a module; its name; or its place among the convolutions from the end, where the ReLU that follows a
        convolution
            counts for it (-1: the last). None or -1 of a model that names its `cam_layer` is that.

    Raises:
        UserError: if there is no such layer.
    """
    if isinstance(layer, nn.Module):
        return layer
    if isinstance(layer, str):
        named = dict(model.named_modules())
        inner = getattr(model, "model", None)  # a network in a wrapper: its modules have the names that they have there
        named |= dict(inner.named_modules()) if isinstance(inner, nn.Module) else {}
        if layer not in named:
            close = [name for name, module in named.items() if isinstance(module, nn.Conv2d)]
            raise UserError(
                f"layer {layer!r}: the network has no such module; its last convolutions are {', '.join(close[-4:])}"
            )
        return named[layer]
    if layer in (None, -1) and hasattr(model, "cam_layer"):
        return model.cam_layer  # type: ignore[return-value]
    if layer is None:
        raise UserError("this network does not name its cam_layer: give layer=, a module or its name")
    found = convolution_outputs(model)
    if not 1 <= -layer <= len(found):
        raise UserError(f"layer {layer}: the network has {len(found)} convolutions: -1 to -{len(found)}")
    return found[layer]


def convolution_outputs(model: nn.Module) -> list[nn.Module]:
    """Of each convolution in the order of the modules the ReLU that follows it in its nn.Sequential, else itself."""
    found: list[nn.Module] = []
    for parent in model.modules():
        children = list(parent.children())
        for at, child in enumerate(children):
            if not isinstance(child, nn.Conv2d):
                continue
            following = children[at + 1 : at + 4] if isinstance(parent, nn.Sequential) else []
            until = next((i for i, one in enumerate(following) if isinstance(one, nn.Conv2d)), len(following))
            found.append(next((one for one in following[:until] if isinstance(one, nn.ReLU)), child))
    return found


def only_map(seen: list[Tensor]) -> Tensor:
    """What a layer put out while the network looked once at images: (B, K, h, w).

    Raises:
        UserError: if it took no part, took part more than once, or puts out no maps.
    """
    if len(seen) != 1 or seen[0].dim() != 4:
        raise UserError("layer: it gives no maps of the image: name a convolution or the ReLU after one")
    return seen[0]


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode, and parameters that take no gradient; afterwards as before, also after an error."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires in wanted:
            parameter.requires_grad_(requires)


@contextmanager
def watched(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer puts out while a forward runs."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        yield seen
    finally:
        handle.remove()


def upsample(maps: Tensor, images: Tensor, model: nn.Module) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinearly; across the edge where the model's images have none (`goes_around`)."""
    height, width = images.shape[2:]
    if getattr(model, "goes_around", False) and width % maps.shape[3] == 0:
        cell = width // maps.shape[3]
        joined = functional.pad(maps, (1, 1, 0, 0), mode="circular")
        smooth = functional.interpolate(joined, (height, width + 2 * cell), mode="bilinear", align_corners=False)
        return smooth[..., cell : cell + width].contiguous()
    return functional.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)
