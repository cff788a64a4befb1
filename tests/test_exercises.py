"""The exercise sheet's numbers, as docs/exercises.md states them: each by the formula and by torch."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.nn import functional

from supervised import autodiff
from supervised.autodiff import Tensor, cross_entropy, linear, softmax_cross_entropy

WEIGHT = np.eye(5, 4) - np.eye(5, 4, -1)  # 1 on the diagonal, -1 below
LOGITS = np.array([[6, 5, 2, 3, 1], [4, 3, 8, 1, -2], [4, 4, 1, -1, 0]], float)  # of dog, cat, horse, eagle, cow
TRUE = np.array([1, 2, 2])  # cat, horse, horse
SOFTMAX = [
    [0.6931, 0.2550, 0.0127, 0.0345, 0.0047],
    [0.0179, 0.0066, 0.9746, 0.0009, 0.0000],
    [0.4820, 0.4820, 0.0240, 0.0032, 0.0088],
]


def test_activation_maximisation_by_hand():
    """Two steps of rate 1 on (xW) at index 1, from zero; our differentiation takes the gradient."""
    x = np.zeros((1, 5))
    for _ in range(2):
        given = Tensor(x)
        linear(given, Tensor(WEIGHT.T), Tensor(np.zeros(4))).backward(np.eye(4)[None, 1])
        x = x + given.grad
    assert_array_equal(x[0], [0, 2, -2, 0, 0])
    assert_array_equal((x @ WEIGHT)[0], [-2, 4, -2, 0])
    assert_array_equal(np.maximum(x @ WEIGHT, 0)[0], [0, 4, 0, 0])


def test_after_the_relu_the_ascent_would_not_leave_zero():
    x = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    torch.relu(x @ torch.from_numpy(WEIGHT))[1].backward()
    assert x.grad.tolist() == [0] * 5


def test_the_weight_matrix_is_a_convolution():
    x = np.random.default_rng(1).normal(size=(3, 5))
    wanted = functional.conv1d(torch.from_numpy(x)[:, None], torch.tensor([[[1.0, -1.0]]], dtype=torch.float64))
    assert_allclose(x @ WEIGHT, wanted[:, 0], atol=1e-15)


@pytest.mark.parametrize(
    ("said", "wanted"), [([0.45, 0.25, 0.03, 0.07, 0.2], 0.7985), ([0.97, 0.01, 0.003, 0.007, 0.01], 0.0305)]
)
def test_cross_entropies(said, wanted):
    assert cross_entropy([1, 0, 0, 0, 0], said) == pytest.approx(wanted, abs=5e-5)
    assert wanted == pytest.approx(-np.log(said[0]), abs=5e-5)  # of a certain truth only what it is given counts
    assert cross_entropy([1, 0, 0, 0, 0], [1, 0, 0, 0, 0]) == 0  # the entropy of the truth, which no answer goes below


def test_softmax_and_its_cross_entropies():
    exact = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    assert_allclose(exact, SOFTMAX, atol=5e-5)
    wanted = [1.3665, 0.0257, 3.7299]
    for row, target, loss in zip(LOGITS, TRUE, wanted, strict=True):
        assert float(softmax_cross_entropy(Tensor(row[None]), np.array([target])).data) == pytest.approx(loss, abs=5e-5)
    assert_allclose(-np.log(exact[range(3), TRUE]), wanted, atol=5e-5)


def test_the_loss_is_the_log_of_a_sum_minus_a_logit_and_its_slope_never_fades_while_wrong():
    rows = np.arange(3)
    exact = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    assert_allclose(-np.log(exact[rows, TRUE]), np.log(np.exp(LOGITS).sum(1)) - LOGITS[rows, TRUE], atol=1e-12)
    logits = Tensor(LOGITS)
    softmax_cross_entropy(logits, TRUE).backward()
    assert_allclose(logits.grad * 3, exact - np.eye(5)[TRUE], atol=1e-12)  # the mean of three
    sure = Tensor(np.array([[50.0, 0.0]]))  # wrong and sure: squared error on the softmax has no slope here
    softmax_cross_entropy(sure, np.array([1])).backward()
    assert_allclose(sure.grad, [[1, -1]], atol=1e-12)
    given = torch.tensor([50.0, 0.0], dtype=torch.float64, requires_grad=True)
    ((given.softmax(0) - torch.tensor([0.0, 1.0])) ** 2).sum().backward()
    assert given.grad.abs().max() < 1e-20


def test_conv2d_by_hand():
    """The sheet's names: forward on arrays, and the gradient of both."""
    image = np.arange(16.0).reshape(1, 1, 4, 4)
    kernel = np.zeros((1, 1, 3, 3))
    kernel[0, 0, 0, 0], kernel[0, 0, 1, 1] = -1, 1
    out = autodiff.h_conv2d(image, kernel)
    assert_array_equal(out[0, 0], [[5, 5], [5, 5]])  # each pixel minus the one above and left
    of_image, of_kernel = autodiff.h_conv2d_grad(image, kernel, np.ones((1, 1, 2, 2)))
    assert_array_equal(of_image[0, 0], [[-1, -1, 0, 0], [-1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    assert_array_equal(of_kernel[0, 0], [[10, 14, 18], [26, 30, 34], [42, 46, 50]])
