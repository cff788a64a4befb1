"""Gradients with respect to the image: plain, its largest channel, guided, and means of many."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from console import progress
from explain.attribution.registry import NOISE, SAMPLES, STEPS
from explain.attribution.targets import as_weights, frozen

AT_ONCE = {"cpu": 32, "cuda": 256}  # images whose gradients are taken together
NOISE_SEED = 0
RELUS = (functional.relu, functional.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)


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


def deconvnet(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """d score / d image (B, C, H, W) where each ReLU passes the positive gradient, whatever it did in the forward.

    Zeiler & Fergus 2014, section 2.1 (arXiv:1311.2901); as a backward pass: Springenberg et al. 2015, figure 1. Max
    pools send back along their switches, convolutions through their transpose.
    """
    with frozen(model), GuidedReLU(gated=False):
        return _input_gradient(model, images, targets)


def integrated_gradients(model: nn.Module, images: Tensor, targets: Tensor, steps: int = STEPS) -> Tensor:
    """(x - b) * the mean of d score / d image over the straight line from b to the image x, (B, C, H, W).

    Sundararajan, Taly & Yan 2017, equation 1 (arXiv:1703.01365). The baseline b is what a model sees where there is
    nothing to see, if it tells that as `neutral` (1, C, 1, 1), else zeros. *Completeness* (their proposition 1): the
    attributions of an image sum to score(x) - score(b), as exactly as so many points tell the integral (24 on painted
    coins: within .8 % of the difference).

    Args:
        model: any torch module from images to (B, K) logits.
        images: (B, C, H, W).
        targets: (B,) logit numbers, or (B, K) weights.
        steps: points of the Gauss-Legendre rule on the line, 1 or more.
    """
    neutral = getattr(model, "neutral", None)
    away = images if neutral is None else images - neutral.to(images)
    places, widths = np.polynomial.legendre.leggauss(steps)  # on -1 .. 1, where the widths sum to 2
    left = torch.as_tensor((1 - places) / 2).to(images)  # of the way from the image to the baseline

    def between(some: Tensor, points: Tensor) -> Tensor:
        return images[some] - left[points].view(-1, 1, 1, 1, 1) * away[some]

    shares = torch.as_tensor(widths / 2).to(images)
    return away * _mean_gradient(model, images, targets, between, shares, "integrating gradients")


def smooth_grad(
    model: nn.Module, images: Tensor, targets: Tensor, samples: int = SAMPLES, noise: float = NOISE
) -> Tensor:
    """The mean of d score / d image over copies of the image with Gaussian noise, (B, C, H, W).

    Smilkov, Thorat, Kim, Viegas & Wattenberg 2017, section 2 (arXiv:1706.03825); the defaults are those of the authors'
    library. The noise comes from a fixed seed and is the same for every image but for its scale.

    Args:
        model: any torch module from images to (B, K) logits.
        images: (B, C, H, W).
        targets: (B,) logit numbers, or (B, K) weights.
        samples: copies, 1 or more.
        noise: its standard deviation as a share of the image's range (largest value less smallest).
    """
    generator = torch.Generator().manual_seed(NOISE_SEED)
    drawn = torch.randn(samples, *images.shape[1:], generator=generator).to(images)
    sigma = noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))  # (B, 1, 1, 1)

    def noisy(some: Tensor, points: Tensor) -> Tensor:
        return images[some] + sigma[some] * drawn[points][:, None]

    shares = torch.full((samples,), 1 / samples).to(images)
    return _mean_gradient(model, images, targets, noisy, shares, "smoothing gradients")


def _mean_gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    near: Callable[[Tensor, Tensor], Tensor],
    shares: Tensor,
    doing: str,
) -> Tensor:
    """The sum over points of their share of d score / d image there, (B, C, H, W), few images in memory at a time.

    Args:
        model: from images to (B, K) logits.
        images: (B, C, H, W).
        targets: (B,) or (B, K).
        near: (b,) numbers of images, (p,) numbers of points -> what stands there instead, (p, b, C, H, W).
        shares: (P,) of the points.
        doing: what the progress bar says.
    """
    total, many = torch.zeros_like(images), AT_ONCE.get(images.device.type, 32)
    numbers, all_points = (torch.arange(count, device=images.device) for count in (len(images), len(shares)))
    pieces = [(some, points) for some in numbers.split(many) for points in all_points.split(max(1, many // len(some)))]
    with frozen(model):
        for some, points in progress(pieces, doing, unit="batches"):
            inputs = near(some, points)
            found = _input_gradient(model, inputs.flatten(0, 1), torch.cat([targets[some]] * len(points)))
            total[some] += torch.einsum("p,pbchw->bchw", shares[points], found.view(inputs.shape))
    return total


def _input_gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    inputs = images.detach().clone().requires_grad_()
    logits = model(inputs)
    return torch.autograd.grad((logits * as_weights(targets, logits)).sum(), inputs)[0]


class GuidedReLU(TorchFunctionMode):
    """Inside this context every ReLU, in place or not, module or function, is one whose backward can be guided.

    `first_guided`: the first row of the batch whose gradient is guided; None: none. Read when the gradient is taken.
    `gated`: whether nothing passes where the forward passed nothing. The model itself is not touched.
    """

    def __init__(self, gated: bool = True) -> None:
        super().__init__()
        self.first_guided: int | None = 0
        self.gated = gated

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in RELUS:
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
        if not ctx.mode.gated:
            return gradient, None
        return torch.ops.aten.threshold_backward(gradient, output, 0), None
