"""Convolutions and pools for pictures whose left and right edge meet: unrolled coins.

Down they are padded as ever. Across they take from the other edge what they lack, and so much that a picture of a
multiple of their stride becomes exactly that many times narrower: rolling it by the stride rolls the result by one.
"""

from torch import Tensor, nn
from torch.nn import functional


def join_edges(module: nn.Module) -> None:
    """Let every convolution and max-pool inside `module` go around, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, _conv_around(child))
        elif isinstance(child, nn.MaxPool2d):
            setattr(module, name, MaxPoolAround(child.kernel_size, child.stride))
        else:
            join_edges(child)


class ConvAround(nn.Conv2d):
    """(B, C, H, W) -> (B, D, H / stride, W / stride)."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(pad_around(x, _side(self.kernel_size), _side(self.stride)), self.weight, self.bias)


class MaxPoolAround(nn.MaxPool2d):
    """(B, C, H, W), from 0 -> (B, C, H / stride, W / stride)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_around(x, _side(self.kernel_size), _side(self.stride)))


def pad_around(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros above and below, the other edge's columns left and right."""
    total = max(0, kernel - stride)
    before, after = total - total // 2, total // 2
    if not total:
        return x
    x = functional.pad(x, (before, after, 0, 0), mode="circular")
    return functional.pad(x, (0, 0, before, after))


def _side(size: int | tuple[int, ...]) -> int:
    """Of a square kernel or stride, in whichever form torch keeps it."""
    return size if isinstance(size, int) else size[0]


def _conv_around(conv: nn.Conv2d) -> ConvAround:
    kernel, stride = _side(conv.kernel_size), _side(conv.stride)
    twin = ConvAround(conv.in_channels, conv.out_channels, kernel, stride, bias=conv.bias is not None)
    twin.weight, twin.bias = conv.weight, conv.bias
    return twin
