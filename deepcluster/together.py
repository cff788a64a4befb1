"""One network, trained by several processes on a part of each batch each, as one process would on the whole of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from machine.processes import stacked, summed, world_size


@contextmanager
def together(model: nn.Module) -> Iterator[nn.Module]:
    """The network to call while training: gradients are means over all processes, batch norms see the whole batch.

    All begin with the first process's weights; what is learnt is in `model`. Of one process it is `model` itself.
    """
    if world_size() == 1:
        yield model
        return
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = partial(batch_norm, norm)  # type: ignore[method-assign]
    device = next(model.parameters()).device
    try:
        yield DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    finally:
        for norm in norms:
            del norm.forward


def batch_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """`norm(x)` in training, with mean and variance over the images of all processes.

    torch.nn.SyncBatchNorm does so on GPUs alone; this one on every device, never in less than float32.

    Args:
        norm: a batch norm with a momentum and running statistics, which are kept.
        x: (B, C, ...); processes may differ in B.
    """
    kind = x.dtype
    x = x if kind == torch.float64 else x.float()
    with torch.no_grad():
        variance, mean = torch.var_mean(x, _but_channels(x), correction=0)
        images = mean.new_tensor([x.numel() / x.shape[1]])
        every = stacked(torch.cat([images, mean, variance]).double())  # (processes, 1 + 2 C)
        sizes, means, variances = every.split([1, x.shape[1], x.shape[1]], 1)
        total = sizes.sum()
        mean = (sizes * means).sum(0) / total
        variance = (sizes * (variances + (means - mean) ** 2)).sum(0) / total
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        norm.running_mean.lerp_(mean.to(x.dtype), norm.momentum)
        norm.running_var.lerp_((variance * total / (total - 1)).to(x.dtype), norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
    return _Normalise.apply(x, mean.to(x.dtype), variance.to(x.dtype), total, norm.weight, norm.bias, norm.eps).to(kind)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, whose statistics depend on x in every process."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        total: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, mean, torch.rsqrt(variance + eps), total, weight)
        return nn.functional.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, scale, total, weight = ctx.saved_tensors
        wide = (1, -1, *[1] * (x.dim() - 2))
        centred = (x - mean.view(wide)) * scale.view(wide)
        bias_own, weight_own = gradient.sum(_but_channels(x)), (gradient * centred).sum(_but_channels(x))
        bias_all, weight_all = (summed(torch.cat([bias_own, weight_own])) / total).to(x.dtype).chunk(2)
        factor = scale if weight is None else scale * weight
        found = (gradient - bias_all.view(wide) - centred * weight_all.view(wide)) * factor.view(wide)
        affine = (None, None) if weight is None else (weight_own, bias_own)
        return found, None, None, None, *affine, None


def _but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]
