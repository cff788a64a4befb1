"""Gradients with respect to the image: plain, its largest channel, and guided."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from explain.attribution.targets import as_weights, frozen


def gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """d score / d image, (B, C, H, W) (Simonyan et al. 2014)."""
    with frozen(model):
        return _input_gradient(model, images, targets)


def saliency(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The largest of the channels' |d score / d image|, (B, 1, H, W) (Simonyan et al. 2014, section 3.1)."""
    return gradient(model, images, targets).abs().amax(1, keepdim=True)


def guided_backprop(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """d score / d image (B, C, H, W) where each ReLU also lets no negative gradient pass (Springenberg et al. 2015)."""
    with frozen(model), GuidedReLU():
        return _input_gradient(model, images, targets)


def _input_gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    inputs = images.detach().clone().requires_grad_()
    logits = model(inputs)
    return torch.autograd.grad((logits * as_weights(targets, logits)).sum(), inputs)[0]


class GuidedReLU(TorchFunctionMode):
    """Inside this context every ReLU, in place or not, module or function, is one whose backward can be guided.

    `first_guided`: the first row of the batch whose gradient is guided; None: none. Read when the gradient is taken.
    The model itself is not touched.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first_guided: int | None = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (functional.relu, functional.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_):
            value = args[0] if args else kwargs["input"]
            return _ReLU.apply(value, self)
        return func(*args, **(kwargs or {}))


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, mode: GuidedReLU) -> Tensor:
        output = value.relu()
        ctx.save_for_backward(output)
        ctx.mode = mode
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors
        first = ctx.mode.first_guided
        if first == 0:
            gradient = gradient.relu()
        elif first is not None:
            gradient = torch.cat([gradient[:first], gradient[first:].relu()])
        return torch.ops.aten.threshold_backward(gradient, output, 0), None
