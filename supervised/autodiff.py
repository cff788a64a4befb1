"""A small reverse-mode automatic differentiation on numpy arrays: enough for a CNN (`train --model autodiff`).

Each operation returns a Tensor that remembers its inputs and how a gradient flows back to them; `backward` walks the
graph once, from the end. Shapes: images B x C x H x W, kernels out x in x kh x kw.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Backward = Callable[[np.ndarray], Sequence[np.ndarray]]  # gradient of the output -> gradients of the inputs


class Tensor:
    """An array, the gradient of a later scalar with respect to it, and where it came from."""

    def __init__(self, data: Any, inputs: tuple["Tensor", ...] = (), backward: Backward | None = None):
        self.data = np.asarray(data)
        self.grad = np.zeros_like(self.data, dtype=np.result_type(self.data, np.float32))
        self._inputs, self._backward = inputs, backward

    def backward(self, seed: np.ndarray | None = None) -> None:
        """Add to `grad` of this and every earlier tensor. Without `seed` this must be a scalar (d self / d self = 1).

        Raises:
            ValueError: if it is not a scalar and no seed is given.
        """
        if seed is None and self.data.size != 1:
            raise ValueError(f"backward from shape {self.data.shape}: only a scalar needs no seed")
        self.grad = self.grad + (np.ones_like(self.grad) if seed is None else seed)
        for tensor in _last_first(self):
            if tensor._backward is not None:
                for source, gradient in zip(tensor._inputs, tensor._backward(tensor.grad), strict=True):
                    source.grad = source.grad + gradient


def _last_first(end: Tensor) -> list[Tensor]:
    """Every tensor that `end` depends on, each before its inputs."""
    order: list[Tensor] = []
    seen: set[int] = set()
    stack = [(end, iter(end._inputs))]
    seen.add(id(end))
    while stack:
        following = next((source for source in stack[-1][1] if id(source) not in seen), None)
        if following is None:
            order.append(stack.pop()[0])
        else:
            seen.add(id(following))
            stack.append((following, iter(following._inputs)))
    return order[::-1]


# --- operations -----------------------------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (B, in), weight (out, in), bias (out,) -> x weight^T + bias, (B, out)."""
    return Tensor(
        x.data @ weight.data.T + bias.data,
        (x, weight, bias),
        lambda g: (g @ weight.data, g.T @ x.data, g.sum(0)),
    )


def relu(x: Tensor) -> Tensor:
    return Tensor(np.maximum(x.data, 0), (x,), lambda g: (g * (x.data > 0),))


def flatten(x: Tensor) -> Tensor:
    """(B, ...) -> (B, all the rest)."""
    return Tensor(x.data.reshape(len(x.data), -1), (x,), lambda g: (g.reshape(x.data.shape),))


def h_conv2d(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Cross-correlation, stride 1, no padding: image (B, C, H, W), kernel (O, C, kh, kw) -> (B, O, H-kh+1, W-kw+1).

    out[b, o, i, j] = sum_{c, u, v} image[b, c, i+u, j+v] kernel[o, c, u, v].

    Raises:
        ValueError: if the kernel's sides are even, or its channels or size do not fit.
    """
    kh, kw = kernel.shape[2:]
    if kh % 2 == 0 or kw % 2 == 0:
        raise ValueError(f"kernel {kh} x {kw}: its sides must be odd")
    if image.shape[1] != kernel.shape[1]:
        raise ValueError(f"images of {image.shape[1]} channels, kernel for {kernel.shape[1]}")
    if image.shape[2] < kh or image.shape[3] < kw:
        raise ValueError(f"images {image.shape[2]} x {image.shape[3]} are smaller than the kernel {kh} x {kw}")
    return _correlate(image, kernel)


def h_conv2d_grad(image: np.ndarray, kernel: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients with respect to image and kernel of `h_conv2d`, from the `gradient` (B, O, h, w) at its output.

    The kernel's is the same sum as forward, with the output's gradient in the kernel's place; the image's is the full
    correlation of the output's gradient with the kernel turned by 180 degrees.
    """
    kh, kw = kernel.shape[2:]
    padded = np.pad(gradient, ((0, 0), (0, 0), (kh - 1, kh - 1), (kw - 1, kw - 1)))
    turned = kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)  # (C, O, kh, kw)
    windows = sliding_window_view(image, (kh, kw), (2, 3))  # (B, C, h, w, kh, kw)
    return _correlate(padded, turned), np.tensordot(gradient, windows, ((0, 2, 3), (0, 2, 3)))


def conv2d(x: Tensor, kernel: Tensor) -> Tensor:
    """`h_conv2d`, differentiable.

    Raises:
        ValueError: if the kernel's sides are even, or its channels or size do not fit.
    """
    out = h_conv2d(x.data, kernel.data)
    return Tensor(out, (x, kernel), lambda g: h_conv2d_grad(x.data, kernel.data, g))


def _correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    windows = sliding_window_view(x, kernel.shape[2:], (2, 3))  # (B, C, h, w, kh, kw)
    return np.tensordot(windows, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)  # (B, h, w, O) -> (B, O, h, w)


def add_channels(x: Tensor, bias: Tensor) -> Tensor:
    """x (B, C, H, W) + bias (C,)."""
    return Tensor(x.data + bias.data[:, None, None], (x, bias), lambda g: (g, g.sum((0, 2, 3))))


def softmax_cross_entropy(logits: Tensor, targets: np.ndarray) -> Tensor:
    """Mean over the batch of log sum exp(logits) - logits[target]: (B, K), (B,) -> scalar.

    The largest logit is taken out before the exponential, so no logit is too large.
    """
    rows = np.arange(len(logits.data))
    shifted = logits.data - logits.data.max(1, keepdims=True)
    total = np.log(np.exp(shifted).sum(1))

    def backward(g: np.ndarray) -> tuple[np.ndarray]:
        slope = np.exp(shifted - total[:, None])  # softmax
        slope[rows, targets] -= 1
        return (g * slope / len(rows),)

    return Tensor((total - shifted[rows, targets]).mean(), (logits,), backward)


def cross_entropy(truth: np.ndarray, predicted: np.ndarray) -> float:
    """-sum_i truth_i ln predicted_i, of two distributions (K,)."""
    said = np.asarray(truth) > 0
    return float(-(np.asarray(truth)[said] * np.log(np.asarray(predicted)[said])).sum())


# --- layers ---------------------------------------------------------------------------------------------------------


class Linear:
    """x weight^T + bias."""

    def __init__(self, inputs: int, outputs: int, rng: np.random.Generator):
        """Weights N(0, sqrt(2 / inputs)) (He et al. 2015), float32; biases 0."""
        self.weight = Tensor(rng.normal(0, np.sqrt(2 / inputs), (outputs, inputs)).astype(np.float32))
        self.bias = Tensor(np.zeros(outputs, np.float32))

    def __call__(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def parameters(self) -> list[Tensor]:
        return [self.weight, self.bias]


class Conv2D:
    """conv2d with a bias for each channel that it puts out."""

    def __init__(self, channels: int, outputs: int, kernel: int, rng: np.random.Generator):
        """An odd kernel x kernel, weights N(0, sqrt(2 / fan in)), float32; biases 0."""
        scale = np.sqrt(2 / (channels * kernel * kernel))
        self.weight = Tensor(rng.normal(0, scale, (outputs, channels, kernel, kernel)).astype(np.float32))
        self.bias = Tensor(np.zeros(outputs, np.float32))

    def __call__(self, x: Tensor) -> Tensor:
        return add_channels(conv2d(x, self.weight), self.bias)

    def parameters(self) -> list[Tensor]:
        return [self.weight, self.bias]


class SmallCNN:
    """Two 5x5 convolutions and a linear layer: for digits 28 x 28 -> 24 x 24 -> 20 x 20 -> 10 logits."""

    def __init__(self, seed: int, channels: int = 8, size: int = 28, inputs: int = 1, classes: int = 10):
        rng = np.random.default_rng(seed)
        self.first, self.second = Conv2D(inputs, channels, 5, rng), Conv2D(channels, channels, 5, rng)
        self.dense = Linear(channels * (size - 8) ** 2, classes, rng)

    def maps(self, images: Tensor) -> Tensor:
        """(B, inputs, size, size) -> the second convolution's ReLU, (B, channels, size - 8, size - 8)."""
        return relu(self.second(relu(self.first(images))))

    def __call__(self, images: Tensor) -> Tensor:
        return self.dense(flatten(self.maps(images)))

    def parameters(self) -> list[Tensor]:
        return [*self.first.parameters(), *self.second.parameters(), *self.dense.parameters()]


class SGD:
    """v <- momentum v + gradient; parameter <- parameter - rate v."""

    def __init__(self, parameters: Iterable[Tensor], rate: float, momentum: float = 0.9):
        self.parameters, self.rate, self.momentum = list(parameters), rate, momentum
        self.speed = [np.zeros_like(parameter.data) for parameter in self.parameters]  # v of each

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = np.zeros_like(parameter.data)

    def step(self) -> None:
        for parameter, speed in zip(self.parameters, self.speed, strict=True):
            speed *= self.momentum
            speed += parameter.grad
            parameter.data = parameter.data - self.rate * speed
