"""The numpy automatic differentiation against finite differences, torch, hand-worked answers, and our Grad-CAM."""

import numpy as np
import pytest
import torch
from conftest import MNIST, needs_mnist
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from explain import METHODS
from supervised import autodiff
from supervised.autodiff import SGD, SmallCNN, Tensor, conv2d, cross_entropy, linear, relu, softmax_cross_entropy

RNG = np.random.default_rng(0)


def finite_differences(function, array, step=1e-6):
    """The slope of a scalar function along each entry of `array`."""
    slope = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + step
        above = function()
        array[place] = kept - step
        slope[place] = (above - function()) / (2 * step)
        array[place] = kept
    return slope


def small(seed):
    """A SmallCNN in float64 with three channels, on 28 x 28 images that are mostly zero (so differences stay few)."""
    net = SmallCNN(seed, channels=3)
    for parameter in net.parameters():
        parameter.data = parameter.data.astype(np.float64)
    return net


@pytest.mark.parametrize(
    "shape", [((2, 3, 6, 5), (4, 3, 3, 3)), ((1, 1, 5, 5), (1, 1, 5, 5)), ((2, 2, 7, 4), (3, 2, 5, 1))]
)
def test_conv2d_equals_torch_and_finite_differences(shape):
    x, kernel = (Tensor(RNG.normal(size=part)) for part in shape)
    out = conv2d(x, kernel)
    weight = RNG.normal(size=out.data.shape)
    out.backward(weight)
    a, b = (torch.tensor(t.data, requires_grad=True) for t in (x, kernel))
    theirs = functional.conv2d(a, b)
    theirs.backward(torch.tensor(weight))
    np.testing.assert_allclose(out.data, theirs.detach(), atol=1e-12)
    np.testing.assert_allclose(x.grad, a.grad, atol=1e-12)
    np.testing.assert_allclose(kernel.grad, b.grad, atol=1e-12)
    for tensor in (x, kernel):
        slope = finite_differences(lambda: float((conv2d(x, kernel).data * weight).sum()), tensor.data)
        np.testing.assert_allclose(tensor.grad, slope, atol=1e-6)


def test_a_whole_network_equals_torch():
    net = small(1)
    images, digits = RNG.random((4, 1, 28, 28)), np.array([3, 1, 4, 1])
    loss = softmax_cross_entropy(net(Tensor(images)), digits)
    loss.backward()
    twin = as_torch(net)
    theirs = functional.cross_entropy(twin(torch.tensor(images)), torch.tensor(digits))
    theirs.backward()
    assert float(loss.data) == pytest.approx(theirs.item(), rel=1e-12)
    for ours, parameter in zip(net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad, parameter.grad, atol=1e-12)


class Twin(nn.Sequential):
    @property
    def cam_layer(self):
        return self[3]


def as_torch(net):
    """The same weights in a torch module that names its cam_layer."""
    channels = len(net.first.bias.data)
    twin = Twin(
        nn.Conv2d(1, channels, 5), nn.ReLU(), nn.Conv2d(channels, channels, 5), nn.ReLU(), nn.Flatten(), nn.Linear(channels * 400, 10)
    ).double()  # fmt: skip
    for ours, parameter in zip(net.parameters(), twin.parameters(), strict=True):
        parameter.data = torch.tensor(ours.data, dtype=torch.float64)
    return twin


def test_grad_cam_from_its_gradients_equals_ours():
    net = small(2)
    images, targets = RNG.random((5, 1, 28, 28)), np.array([0, 3, 5, 7, 9])
    maps = net.maps(Tensor(images))
    logits = net.dense(autodiff.flatten(maps))
    logits.backward(np.eye(10)[targets])  # each image's own logit
    weights = maps.grad.mean((2, 3), keepdims=True)
    heat = np.maximum((weights * maps.data).sum(1, keepdims=True), 0)
    assert heat.max() > 0
    wanted = functional.interpolate(torch.tensor(heat), (28, 28), mode="bilinear")
    ours = METHODS["grad_cam"](as_torch(net), torch.tensor(images), torch.tensor(targets))
    assert_close(ours, wanted, rtol=1e-10, atol=1e-12)


def test_a_tensor_used_twice_gets_both_gradients():
    x = Tensor(np.array([[1.0, -2.0]]))
    weight = Tensor(np.array([[3.0, 4.0]]))
    bias = Tensor(np.array([0.0]))
    once = linear(x, weight, bias)  # -5
    total = linear(relu(x), weight, once_bias := Tensor(once.data[0], (once,), lambda g: (g[None],)))
    total.backward()
    assert total.data.tolist() == [[3 - 5.0]]
    assert x.grad.tolist() == [[3 + 3.0, 4.0]]
    assert weight.grad.tolist() == [[1 + 1.0, -2.0]]
    assert once_bias.grad.tolist() == [1]


def test_known_answers():
    assert cross_entropy([1, 0, 0, 0, 0], [0.45, 0.25, 0.03, 0.07, 0.2]) == pytest.approx(0.7985, abs=5e-5)
    assert cross_entropy([1, 0, 0, 0, 0], [0.97, 0.01, 0.003, 0.007, 0.01]) == pytest.approx(0.0305, abs=5e-5)
    logits = np.array([[6, 5, 2, 3, 1], [4, 3, 8, 1, -2], [4, 4, 1, -1, 0]], float)
    cat, horse = 1, 2  # of dog, cat, horse, eagle, cow
    for row, target, wanted in zip(logits, (cat, horse, horse), (1.3665, 0.0257, 3.7299), strict=True):
        assert float(softmax_cross_entropy(Tensor(row[None]), np.array([target])).data) == pytest.approx(
            wanted, abs=5e-5
        )


@pytest.mark.filterwarnings("error")
def test_huge_logits_do_no_harm():
    logits = Tensor(np.array([[1e4, 0.0], [-1e4, 0.0]]))
    loss = softmax_cross_entropy(logits, np.array([1, 1]))
    loss.backward()
    assert float(loss.data) == pytest.approx(5e3)
    np.testing.assert_allclose(logits.grad, [[0.5, -0.5], [0, 0]])


def test_what_does_not_fit_is_refused():
    image = Tensor(np.zeros((1, 2, 4, 4)))
    with pytest.raises(ValueError, match="odd"):
        conv2d(image, Tensor(np.zeros((1, 2, 2, 3))))
    with pytest.raises(ValueError, match="2 channels, kernel for 3"):
        conv2d(image, Tensor(np.zeros((1, 3, 3, 3))))
    with pytest.raises(ValueError, match="smaller than the kernel"):
        conv2d(image, Tensor(np.zeros((1, 2, 5, 5))))
    with pytest.raises(ValueError, match="scalar"):
        image.backward()


def test_sgd_equals_torchs():
    start, gradients = RNG.normal(size=4), RNG.normal(size=(3, 4))
    ours, theirs = Tensor(start.copy()), torch.tensor(start, requires_grad=True)
    one, two = SGD([ours], 0.1), torch.optim.SGD([theirs], 0.1, momentum=0.9)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.copy(), torch.tensor(gradient)
        one.step()
        two.step()
    np.testing.assert_allclose(ours.data, theirs.detach(), atol=1e-12)


@needs_mnist
def test_it_learns_mnist():
    from datasets.mnist import load_mnist

    images, digits = load_mnist("train", MNIST)
    test_images, test_digits = load_mnist("test", MNIST)
    net = autodiff.train(images[:10000], digits[:10000], epochs=3, seed=1)
    assert autodiff.accuracy(net, test_images, test_digits) > 0.97
