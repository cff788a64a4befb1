"""Layer-wise relevance propagation: the score, handed back from layer to layer in proportion to what each was made of.

The relevance R of a value a is kept as g with R = a * g. So most layers need no rule of their own: through ReLU, max
pool and mean, and through layers that are linear but for a constant, the gradient hands g on as LRP hands R on.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from explain.attribution.gradients import RELUS
from explain.attribution.targets import as_weights, frozen

EPSILON = 1e-6


def lrp(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The relevance of each pixel and channel for the score, signed, (B, C, H, W).

    Bach et al. 2015 (doi:10.1371/journal.pone.0130140); which rule where, as Montavon et al. 2019 advise (Layer-Wise
    Relevance Propagation: An Overview, doi:10.1007/978-3-030-28954-6_10). With contributions c_ij = x_i w_ij to z_j:

    - dense layers, the epsilon rule: R_i = sum_j c_ij / (z_j + epsilon sign z_j) R_j (Bach, equation 58). The constant
      in z_j keeps its share of R_j; epsilon is 1e-6.
    - convolutions, the z+ rule: R_i = sum_j c_ij+ / (sum_i c_ij+) R_j, of positive contributions alone (Bach, equation
      60 with alpha 1, beta 0; Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008, where inputs are from 0 up). A
      constant keeps nothing. Of an output below 0 (Sobel's, or in front of a residual sum: no ReLU took it away) the
      negative contributions count instead.
    - batch norm is one layer with the convolution or dense layer before it; elsewhere its shift is a constant.
    - max pool hands all to the largest. Everything else is gradient times input, in the neck `spectrum` the strengths
      of frequencies. Like sums and means these give twice the output for twice the input, and so hand on all they get.

    What holds: convolutions hand on all they get, but of outputs that live by their constant alone. So an image's
    relevance sums to that of its last maps: to the score, less what constants of dense layers keep (biases, shifts of
    batch norms).
    """
    inputs = images.detach().clone().requires_grad_()
    with frozen(model):
        with Rules():
            logits = model(inputs)
        (found,) = torch.autograd.grad((logits * as_weights(targets, logits)).sum(), inputs)
    return images * found


class Rules(TorchFunctionMode):
    """What runs in this context has g in place of its gradient, also when that is taken later.

    The model itself is not touched.
    """

    def __init__(self) -> None:
        super().__init__()
        # Of values that came by: themselves (or another could take their id), their version (who writes into one makes
        # it another), and what is known of them.
        self._known: dict[int, tuple[Tensor, int, Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in RELUS:
            return _first(*args, **kwargs).relu()  # never in place
        if func in (functional.linear, functional.conv2d):
            return self._layer(func, *args, **kwargs)
        if func is functional.batch_norm:
            return self._batch_norm(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in (functional.max_pool2d, functional.dropout) and isinstance(result, Tensor):
            constant = self._recall(_first(*args, **kwargs), Tensor)
            return result if constant is None else self._remember(result, constant)
        return result

    def _layer(
        self, func: Any, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any
    ) -> Tensor:
        constant = self._recall(input, Tensor)
        output = _Layer.apply(func, input, weight, bias, rest, named, constant)
        return self._remember(output, (func, input, weight, bias, rest, named))

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        result = functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        if training or running_mean is None or running_var is None:
            return result
        scale = (running_var + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - running_mean * scale
        layer = self._recall(input, tuple)
        if layer is None:
            return self._remember(result, shift.view(-1, 1, 1)) if input.dim() == 4 else result
        func, before, weights, constant, rest, named = layer
        scaled = weights * scale.view(-1, *[1] * (weights.dim() - 1))
        return self._layer(
            func, before, scaled, shift if constant is None else constant * scale + shift, *rest, **named
        )

    def _remember(self, value: Tensor, what: Any) -> Tensor:
        self._known[id(value)] = value, value._version, what
        return value

    def _recall(self, value: Tensor, kind: type) -> Any:
        """The layer (a tuple) that made a value, or the part of it (C, 1, 1) that is constant (a Tensor), if known."""
        _, version, what = self._known.get(id(value), (None, None, None))
        return what if version == value._version and isinstance(what, kind) else None


def _first(input: Tensor, *_: Any, **__: Any) -> Tensor:
    return input


class _Layer(torch.autograd.Function):
    """A convolution or dense layer with a rule for its backward."""

    @staticmethod
    def forward(
        ctx: Any,
        func: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rest: tuple[Any, ...],
        named: dict[str, Any],
        constant: Tensor | None,
    ) -> Tensor:
        output: Tensor = func(input, weight, bias, *rest, **named)
        ctx.layer = func, rest, named
        varying = input if constant is None else input - constant
        ctx.save_for_backward(varying, weight, output.clone())  # what follows may write into the output
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        func, rest, named = ctx.layer
        values, weight, output = ctx.saved_tensors
        if func is functional.linear:
            handed = (gradient * (output / _stable(output))) @ weight
        else:
            handed = _of_own_sign(
                lambda x, w: func(x, w, None, *rest, **named), values, weight, output, gradient * output
            )
        return None, handed, None, None, None, None, None


def _of_own_sign(layer: Any, values: Tensor, weight: Tensor, output: Tensor, relevance: Tensor) -> Tensor:
    """z+ for outputs above 0, its mirror image for those below: g of the values.

    Args:
        layer: (values, weights) -> outputs, without a constant.
        values: what the layer took, of either sign.
        weight: of the layer.
        output: what it gave, with its constant.
        relevance: of the outputs.
    """
    sides = [1, -1] if bool((values < 0).any()) else [1]
    parts = [_of_sign(values, side).requires_grad_() for side in sides]
    handed = [torch.zeros_like(values) for _ in sides]
    for sign in (1, -1):
        mine = torch.where(output * sign > 0, relevance, 0)
        if not bool(mine.any()):
            continue
        with torch.enable_grad():
            made = sum(layer(part, _of_sign(weight, sign * side)) for side, part in zip(sides, parts, strict=True))
        for total, found in zip(handed, torch.autograd.grad(made, parts, mine / _stable(made.detach())), strict=True):
            total += found
    return torch.where(values >= 0, handed[0], handed[-1])


def _of_sign(values: Tensor, sign: int) -> Tensor:
    return values.clamp(min=0) if sign > 0 else values.clamp(max=0)


def _stable(values: Tensor) -> Tensor:
    return values + torch.where(values < 0, -EPSILON, EPSILON)
