"""Convolutions and pools for pictures whose left and right edge meet: unrolled coins.

Down they are padded with zeros. Across they take from the other edge what they lack, and so much that a picture of a
multiple of their stride becomes exactly that many times narrower: rolling it by the stride rolls the result by one.
"""

from typing import Any

import torch
from torch import Tensor, nn


def join_edges(module: nn.Module) -> None:
    """Let every convolution and max-pool inside `module` go around, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, _conv_around(child))
        elif isinstance(child, nn.MaxPool2d):
            kernel, stride = _side(child.kernel_size), _side(child.stride)
            setattr(module, name, MaxPoolAround(kernel, stride, padding=(padding(kernel, stride)[0], 0)))
        else:
            join_edges(child)


class ConvAround(nn.Conv2d):
    """(B, C, H, W) -> (B, D, H / stride, W / stride)."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(wrap(x, _side(self.kernel_size), _side(self.stride)), self.weight, self.bias)


class MaxPoolAround(nn.MaxPool2d):
    """(B, C, H, W) -> (B, C, H / stride, W / stride)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(wrap(x, _side(self.kernel_size), _side(self.stride)))


def padding(kernel: int, stride: int) -> tuple[int, int]:
    """Columns that a window needs on the left and on the right to be applied once for each stride."""
    total = max(0, kernel - stride)
    return total - total // 2, total // 2


def wrap(x: Tensor, kernel: int, stride: int) -> Tensor:
    """(B, C, H, W) with the other edge's columns on either side, as many as a window needs."""
    before, after = padding(kernel, stride)
    return _Wrap.apply(x, before, after) if before or after else x


class _Wrap(torch.autograd.Function):
    """`functional.pad(x, (before, after, 0, 0), mode="circular")` in half of its time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, before: int, after: int) -> Tensor:
        batch, channels, height, width = x.shape
        ctx.before, ctx.width = before, width
        last = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        out = torch.empty(
            (batch, channels, height, before + width + after), dtype=x.dtype, device=x.device, memory_format=layout
        )
        out[..., before : before + width] = x
        if before:
            out[..., :before] = x[..., width - before :]
        if after:
            out[..., before + width :] = x[..., :after]
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        before, width = ctx.before, ctx.width
        own = gradient[..., before : before + width].clone(memory_format=torch.preserve_format)
        if before:
            own[..., width - before :] += gradient[..., :before]
        after = gradient.shape[3] - before - width
        if after:
            own[..., :after] += gradient[..., before + width :]
        return own, None, None


def _side(size: int | tuple[int, ...]) -> int:
    """Of a square kernel or stride, in whichever form torch keeps it."""
    return size if isinstance(size, int) else size[0]


def _conv_around(conv: nn.Conv2d) -> ConvAround:
    kernel, stride = _side(conv.kernel_size), _side(conv.stride)
    down = (padding(kernel, stride)[0], 0)
    channels = (conv.in_channels, conv.out_channels)
    twin = ConvAround(*channels, kernel, stride, padding=down, groups=conv.groups, bias=conv.bias is not None)
    twin.weight, twin.bias = conv.weight, conv.bias
    return twin
