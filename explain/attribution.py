"""Which pixels speak for a cluster: attribution methods, each `method(model, images, targets) -> maps`.

`images` (B, C, H, W) float, as the model wants them; `targets` (B,) logit numbers, or (B, K) weights of the logits (a margin
is +1 for one and -1 for the other). The score of image i is the chosen logit, or the weighted sum. Maps are unnormalised:
(B, 1, H, W), from 0, for a heat map; (B, C, H, W), signed, for a gradient with respect to the image.

The model names the layer that Grad-CAM reads as `cam_layer`; it runs in eval mode and is left as it was found, also
after an error. A model with `maps(images)` (up to and with `cam_layer`) and `from_maps(maps)` (from there to the logits)
takes a faster path with the same result.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Method = Callable[[nn.Module, Tensor, Tensor], Tensor]


def grad_cam(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """ReLU(sum_k a_k A_k), a_k the mean over positions of d score / d A_k; A: output of `cam_layer` (B, K, h, w).

    Selvaraju et al. 2017, equations 1 and 2. Upsampled to (B, 1, H, W) bilinearly.
    """
    with _frozen(model):
        activation, gradient = _at_cam_layer(model, images, targets)
    return upsampled(cam(activation, gradient), images)


def guided_backprop(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """d score / d image (B, C, H, W) where each ReLU also lets no negative gradient pass (Springenberg et al. 2015)."""
    with _frozen(model), GuidedReLU():
        return _input_gradient(model, images, targets)


def guided_grad_cam(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Guided Backpropagation times Grad-CAM, pointwise (B, C, H, W) (Selvaraju et al. 2017, section 3.2)."""
    return attribute(model, images, targets, ["guided_grad_cam"])["guided_grad_cam"]


def gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """d score / d image (B, C, H, W) (Simonyan et al. 2014)."""
    with _frozen(model):
        return _input_gradient(model, images, targets)


def library_cam(name: str, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """A method of pytorch-grad-cam, by its class's name: ReLU of its raw map, upsampled to (B, 1, H, W)."""
    import pytorch_grad_cam

    def score(output: Tensor, target: Tensor) -> Tensor:  # of one image: its logits (K,)
        return output[target] if target.dim() == 0 else (output * target.to(output)).sum()

    layer: nn.Module = model.cam_layer  # type: ignore[assignment]
    with _frozen(model), getattr(pytorch_grad_cam, name)(model, [layer]) as method:
        inputs = images.detach().clone().requires_grad_()
        logits = method.activations_and_grads(inputs)
        if method.uses_gradients:
            (logits * as_weights(targets, logits)).sum().backward(inputs=[inputs])
        store = method.activations_and_grads
        activation, *gradient = (values[0].numpy() for values in (store.activations, store.gradients) if values)
        scores = [partial(score, target=target) for target in targets]
        with redirect_stderr(io.StringIO()):  # a progress bar for each image
            raw = method.get_cam_image(
                inputs.detach(), layer, scores, activation, gradient[0] if gradient else None, eigen_smooth=False
            )
    maps = torch.as_tensor(np.asarray(raw), device=images.device, dtype=images.dtype)
    return upsampled(maps[:, None].relu(), images)


# What the command line offers and the tests iterate.
METHODS: dict[str, Method] = {
    "grad_cam": grad_cam,
    "guided_backprop": guided_backprop,
    "guided_grad_cam": guided_grad_cam,
    "gradient": gradient,
    "grad_cam_plus_plus": partial(library_cam, "GradCAMPlusPlus"),
    "xgrad_cam": partial(library_cam, "XGradCAM"),
    "layer_cam": partial(library_cam, "LayerCAM"),
    "hires_cam": partial(library_cam, "HiResCAM"),
    "eigen_cam": partial(library_cam, "EigenCAM"),
    "score_cam": partial(library_cam, "ScoreCAM"),
    "ablation_cam": partial(library_cam, "AblationCAM"),
}
CORE = ("grad_cam", "guided_backprop", "guided_grad_cam")  # share one forward


def attribute(model: nn.Module, images: Tensor, targets: Tensor, methods: Iterable[str]) -> dict[str, Tensor]:
    """The maps of several methods. Grad-CAM, Guided Backprop and Guided Grad-CAM together take one forward.

    The plain gradient that Grad-CAM needs runs from the logits to `cam_layer` only; the guided one to the pixels.
    """
    chosen = list(methods)
    maps: dict[str, Tensor] = {}
    if "guided_grad_cam" in chosen or {"grad_cam", "guided_backprop"} <= {*chosen}:
        pass_ = _split_pass if hasattr(model, "from_maps") else _hooked_pass
        with _frozen(model):
            activation, plain, guided = pass_(model, images, targets)
        heat = upsampled(cam(activation, plain), images)
        maps = {"grad_cam": heat, "guided_backprop": guided, "guided_grad_cam": guided * heat}
    return {name: maps[name] if name in maps else METHODS[name](model, images, targets) for name in chosen}


def cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """(B, K, h, w) feature maps and their gradients -> (B, 1, h, w), from 0: Grad-CAM before upsampling."""
    weight = gradient.mean((2, 3), keepdim=True)  # (B, K, 1, 1)
    return (weight * activation).sum(1, keepdim=True).relu()


def upsampled(maps: Tensor, images: Tensor) -> Tensor:
    return functional.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)


def as_weights(targets: Tensor, logits: Tensor) -> Tensor:
    """(B,) logit numbers or (B, K) weights -> (B, K) weights."""
    if targets.dim() == 2:
        return targets.to(logits)
    return functional.one_hot(targets.to(logits.device), logits.shape[1]).to(logits.dtype)


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


def _hooked_pass(model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for any model: one forward, then each gradient in turn."""
    inputs = images.detach().clone().requires_grad_()
    with GuidedReLU() as mode, _watched(model) as seen:
        logits = model(inputs)
        score = (logits * as_weights(targets, logits)).sum()
        mode.first_guided = None
        (plain,) = torch.autograd.grad(score, seen[0], retain_graph=True)
        mode.first_guided = 0
        (guided,) = torch.autograd.grad(score, inputs)
    return seen[0].detach(), plain, guided


def _at_cam_layer(model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    inputs = images.detach().clone().requires_grad_()
    with _watched(model) as seen:
        logits = model(inputs)
        score = (logits * as_weights(targets, logits)).sum()
        (plain,) = torch.autograd.grad(score, seen[0])
    return seen[0].detach(), plain


def _input_gradient(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    inputs = images.detach().clone().requires_grad_()
    logits = model(inputs)
    return torch.autograd.grad((logits * as_weights(targets, logits)).sum(), inputs)[0]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
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
def _watched(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what `cam_layer` puts out while a forward runs."""
    seen: list[Tensor] = []
    layer: nn.Module = model.cam_layer  # type: ignore[assignment]
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        yield seen
    finally:
        handle.remove()
