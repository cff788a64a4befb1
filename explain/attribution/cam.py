"""Grad-CAM, its product with Guided Backpropagation, and the one pass that serves both."""

from typing import Any

import torch
from torch import Tensor, nn

from explain.attribution.gradients import GuidedReLU
from explain.attribution.targets import Layer, as_weights, find_layer, frozen, only_map, upsample, watched


def grad_cam(model: nn.Module, images: Tensor, targets: Tensor, layer: Layer = None) -> Tensor:
    """ReLU(sum_k a_k A_k), a_k the mean over positions of d score / d A_k; A: output of `layer` (B, K, h, w).

    Selvaraju et al. 2017, equations 1 and 2. Upsampled to (B, 1, H, W) bilinearly.
    """
    with frozen(model):
        inputs = images.detach().clone().requires_grad_()
        with watched(find_layer(model, layer)) as seen:
            logits = model(inputs)
            activation = only_map(seen)
            score = (logits * as_weights(targets, logits)).sum()
            (plain,) = torch.autograd.grad(score, activation)
    return upsample(weigh_maps(activation.detach(), plain), images, model)


def hires_cam(model: nn.Module, images: Tensor, targets: Tensor, layer: Layer = None) -> Tensor:
    """ReLU(sum_k d score / d A_k * A_k), pointwise; A: output of `layer` (B, K, h, w).

    Draelos & Carin 2020. Where what follows the layer is no average over places, Grad-CAM's mean gradient mixes them
    up, and this does not. Upsampled to (B, 1, H, W) bilinearly.
    """
    return shared_pass(model, images, targets, layer)["hires_cam"]


def guided_grad_cam(model: nn.Module, images: Tensor, targets: Tensor, layer: Layer = None) -> Tensor:
    """Guided Backpropagation times Grad-CAM, pointwise (B, C, H, W) (Selvaraju et al. 2017, section 3.2)."""
    return shared_pass(model, images, targets, layer)["guided_grad_cam"]


def shared_pass(model: nn.Module, images: Tensor, targets: Tensor, layer: Layer = None) -> dict[str, Tensor]:
    """Grad-CAM, HiRes-CAM, Guided Backprop and Guided Grad-CAM from one forward: maps by the method's name.

    The plain gradient that Grad-CAM needs runs from the logits to the layer only; the guided one to the pixels.
    """
    in_parts = layer in (None, -1) and hasattr(model, "from_maps")
    with frozen(model):
        if in_parts:
            activation, plain, guided = _split_pass(model, images, targets)
        else:
            activation, plain, guided = _hooked_pass(model, images, targets, find_layer(model, layer))
    heat = upsample(weigh_maps(activation, plain), images, model)
    pointwise = upsample((plain * activation).sum(1, keepdim=True).relu(), images, model)
    return {
        "grad_cam": heat,
        "hires_cam": pointwise,
        "view": pointwise,
        "guided_backprop": guided,
        "guided_grad_cam": guided * heat,
    }


def weigh_maps(activation: Tensor, gradient: Tensor) -> Tensor:
    """(B, K, h, w) feature maps and their gradients -> (B, 1, h, w), from 0: Grad-CAM before upsampling."""
    weight = gradient.mean((2, 3), keepdim=True)  # (B, K, 1, 1)
    return (weight * activation).sum(1, keepdim=True).relu()


def _split_pass(model: Any, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Activation and plain gradient at `cam_layer`, guided gradient at the pixels, for a model that comes in two parts.

    From the logits to `cam_layer` both gradients run as one doubled batch, half plain, half guided: large linear layers
    are read from memory once. Only the guided half goes on to the pixels.
    """
    count = len(images)
    inputs = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with GuidedReLU() as mode:
        activation = model.maps(inputs)  # (B, K, h, w)
        doubled = torch.cat([activation.detach()] * 2).requires_grad_()
        logits = model.from_maps(doubled)
        weights = as_weights(targets, logits[:count])
        mode.first_guided = count
        (both,) = torch.autograd.grad((logits * torch.cat([weights] * 2)).sum(), doubled)
        mode.first_guided = 0
        (guided,) = torch.autograd.grad(activation, inputs, both[count:])
    return activation.detach(), both[:count], guided


def _hooked_pass(model: nn.Module, images: Tensor, targets: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """The same for any model and layer: one forward, then each gradient in turn."""
    inputs = images.detach().clone().requires_grad_()
    with GuidedReLU() as mode, watched(layer) as seen:
        logits = model(inputs)
        activation = only_map(seen)
        score = (logits * as_weights(targets, logits)).sum()
        mode.first_guided = None
        (plain,) = torch.autograd.grad(score, activation, retain_graph=True)
        mode.first_guided = 0
        (guided,) = torch.autograd.grad(score, inputs)
    return activation.detach(), plain, guided
