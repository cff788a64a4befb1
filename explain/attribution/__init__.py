"""Which pixels speak for a cluster: attribution methods, each `method(model, images, targets, **options) -> maps`.

`images` (B, C, H, W) float, as the model wants them; `targets` (B,) logit numbers, or (B, K) weights of the logits (a
margin is +1 for one and -1 for the other). The score of image i is the chosen logit, or the weighted sum. Maps are
unnormalised; what they are is told by the method's kind (`registry`).

The model runs in eval mode and is left as it was found, also after an error. The layer that a CAM reads is given, or
the model names it as `cam_layer`. A model with `maps(images)` (up to and with `cam_layer`) and `from_maps(maps)` (from
there to the logits) takes a faster path with the same result.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from console import UserError
from explain.attribution.registry import METHODS, PHOTOGRAPH, VIEW, Asked, Method, Option, in_order, parse, parse_all

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "METHODS",
    "PHOTOGRAPH",
    "VIEW",
    "Asked",
    "Method",
    "Option",
    "attribute",
    "attribute_and_measure",
    "in_order",
    "parse",
    "parse_all",
]


def attribute(
    model: "nn.Module", images: "Tensor", targets: "Tensor", methods: Sequence[str | Asked], layer: Any = None
) -> "dict[str, Tensor]":
    """The maps of several methods, by their keys; those that share a pass take one forward together.

    Args:
        model: any torch module from images to (B, K) logits.
        images: (B, C, H, W).
        targets: (B,) logit numbers, or (B, K) weights.
        methods: names, perhaps with options (`"layer_cam:layer=-2"`).
        layer: a module, its name, or its place among the convolutions from the end, for the methods that read one and
        do not
            say which themselves. None: the model's `cam_layer`.

    Raises:
        UserError: if there is no such method or layer, or targets do not fit the images.
    """
    return attribute_and_measure(model, images, targets, methods, layer)[0]


def attribute_and_measure(
    model: "nn.Module", images: "Tensor", targets: "Tensor", methods: Sequence[str | Asked], layer: Any = None
) -> "tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]":
    """`attribute`, and what the methods measure beside their maps: key -> number's name (`Method.numbers`) -> (B,)."""
    from explain.attribution.cam import shared_pass

    _check(model, images, targets)
    methods = [methods] if isinstance(methods, str | Asked) else methods
    if not isinstance(methods, Sequence) or not all(isinstance(one, str | Asked) for one in methods):
        raise UserError(f"methods: a list of names like {next(iter(METHODS))!r} is wanted")
    asked = [parse_all([one])[0] if isinstance(one, str) else one for one in methods]
    together = [one for one in asked if one.method.shared and not one.options]
    maps: dict[str, Tensor] = {}
    if len(together) > 1:
        maps = shared_pass(model, images, targets, layer)
    found: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Tensor]] = {}
    for one in asked:
        given = {} if layer is None or not one.method.needs_layer else {"layer": layer}
        if one.name in maps and not one.options:
            found[one.key] = maps[one.name]
        elif one.method.measure is not None:
            found[one.key], numbers[one.key] = one.method.measure(model, images, targets, **one.options)
        else:
            found[one.key] = one.method.function(model, images, targets, **(given | dict(one.options)))
    return found, numbers


def _check(model: "nn.Module", images: "Tensor", targets: "Tensor") -> None:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise UserError(f"model: a {type(model).__name__}, but a torch module is wanted")
    for name, value in (("images", images), ("targets", targets)):
        if not isinstance(value, torch.Tensor):
            raise UserError(f"{name}: a {type(value).__name__}, but a torch tensor is wanted")
    if not images.is_floating_point():
        raise UserError(f"images: of {images.dtype}, but floating-point numbers, as the model wants them, are wanted")
    if targets.dim() == 1 and (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool):
        raise UserError(f"targets: of {targets.dtype}, but whole numbers of logits, or (B, K) weights, are wanted")
    if images.dim() != 4:
        raise UserError(f"images: of shape {tuple(images.shape)}, but (batch, channels, height, width) is wanted")
    if targets.dim() not in (1, 2) or len(targets) != len(images):
        raise UserError(
            f"targets: of shape {tuple(targets.shape)}, but ({len(images)},) numbers of logits or ({len(images)}, K) "
            "weights of them are wanted"
        )
