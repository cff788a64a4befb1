"""The numpy automatic differentiation against finite differences, torch, hand-worked answers, and our Grad-CAM."""

import numpy as np
import pytest
import torch
from conftest import MNIST, needs_mnist
from test_supervised_data import blobs, write_labelled
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import runs
from explain import METHODS
from supervised import autodiff, trained
from supervised.__main__ import build_parser
from supervised.autodiff import (
    SGD,
    SmallCNN,
    Tensor,
    conv2d,
    cross_entropy,
    h_conv2d,
    h_conv2d_grad,
    linear,
    relu,
    softmax_cross_entropy,
)
from supervised.launch import train_command
from supervised.learners import NumpyLearner, draw_batches
from supervised.models import build
from supervised.recipes import Augmentation

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


SHAPES = [((2, 3, 6, 5), (4, 3, 3, 3)), ((1, 1, 5, 5), (1, 1, 5, 5)), ((2, 2, 7, 4), (3, 2, 5, 1))]


@pytest.mark.parametrize("shapes", SHAPES)
def test_h_conv2d_and_its_gradients_equal_torch_and_finite_differences(shapes):
    image, kernel = (RNG.normal(size=shape) for shape in shapes)
    out = h_conv2d(image, kernel)
    weight = RNG.normal(size=out.shape)
    found = h_conv2d_grad(image, kernel, weight)
    a, b = (torch.tensor(array, requires_grad=True) for array in (image, kernel))
    theirs = functional.conv2d(a, b)
    theirs.backward(torch.tensor(weight))
    np.testing.assert_allclose(out, theirs.detach(), atol=1e-12)
    for gradient, torchs, array in zip(found, (a.grad, b.grad), (image, kernel), strict=True):
        np.testing.assert_allclose(gradient, torchs, atol=1e-12)
        slope = finite_differences(lambda: float((h_conv2d(image, kernel) * weight).sum()), array)
        np.testing.assert_allclose(gradient, slope, atol=1e-6)


@pytest.mark.parametrize("shapes", SHAPES)
def test_conv2d_is_h_conv2d_with_its_gradients(shapes):
    x, kernel = (Tensor(RNG.normal(size=shape)) for shape in shapes)
    out = conv2d(x, kernel)
    weight = RNG.normal(size=out.data.shape)
    out.backward(weight)
    np.testing.assert_array_equal(out.data, h_conv2d(x.data, kernel.data))
    for gradient, wanted in zip((x.grad, kernel.grad), h_conv2d_grad(x.data, kernel.data, weight), strict=True):
        np.testing.assert_array_equal(gradient, wanted)


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
    convolutions = [nn.Conv2d(1, channels, 5), nn.ReLU(), nn.Conv2d(channels, channels, 5), nn.ReLU()]
    twin = Twin(*convolutions, nn.Flatten(), nn.Linear(channels * 400, 10)).double()
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
    ours = METHODS["grad_cam"].function(as_torch(net), torch.tensor(images), torch.tensor(targets))
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


# --- trained by the command -----------------------------------------------------------------------------------------


def test_the_numpy_network_and_torchs_are_one():
    model = build({"name": "autodiff"}, 5)
    learner = NumpyLearner(model, 2, 0.01, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learner.train_epoch(blobs(64, 1), 1, 16, Augmentation(), 1, lambda: None)
    after = learner.network().state_dict()
    assert all(not torch.equal(value, before[name]) for name, value in after.items())
    images = blobs(8, 2).images
    net = learner._net
    np.testing.assert_allclose(model(images).detach(), net(Tensor(images.numpy())).data, atol=1e-5)
    np.testing.assert_allclose(model.maps(images).detach(), net.maps(Tensor(images.numpy())).data, atol=1e-5)


def test_an_epoch_equals_torchs_sgd():
    split = blobs(48, 3)
    learner = NumpyLearner(build({"name": "autodiff"}, 5), 2, 0.01, 3)
    twin = build({"name": "autodiff"}, 5)
    optimiser = torch.optim.SGD(twin.parameters(), 0.01, momentum=0.9)
    for images, targets in draw_batches(split, 16, Augmentation(), 7, 1):
        optimiser.zero_grad()
        functional.cross_entropy(twin(images), targets).backward()
        optimiser.step()
    learner.train_epoch(split, 1, 16, Augmentation(), 7, lambda: None)
    learner.end_epoch(1, 0.0)
    assert learner.learning_rate == 0.005
    for name, value in learner.network().state_dict().items():
        assert_close(value, twin.state_dict()[name], atol=1e-5, rtol=1e-4)


def test_the_command_trains_it_into_a_run_like_any_other(tmp_path):
    data = write_labelled(tmp_path / "blobs")
    arguments = [
        "train",
        str(data),
        "--model",
        "autodiff",
        "--epochs",
        "3",
        "--seed",
        "1",
        "--exp",
        str(tmp_path / "exp"),
    ]
    train_command(build_parser().parse_args(arguments))
    run = runs.open_run(tmp_path / "exp")
    result = run.read_json("result.json")
    assert result["test_accuracy"] > 0.9
    assert result["epochs_used"] == len(run.log()) == 3
    assert [float(row["lr"]) for row in run.log()] == pytest.approx([0.01, 0.02 / 3, 0.01 / 3])
    net = trained.network(run)
    assert net.cam_layer is net.features[3]
    begun = trained.untrained(run, net)
    assert not torch.equal(begun.features[0].weight, net.features[0].weight)


@needs_mnist
def test_it_learns_digits(tmp_path):
    """With 10,000 digits and three epochs it is right for more than .97; here as few as a test may take."""
    arguments = ["train", "--model", "autodiff", "--epochs", "2", "--limit", "2000", "--exp", str(tmp_path / "exp")]
    train_command(build_parser().parse_args([*arguments, "--mnist-dir", str(MNIST)]))
    assert runs.open_run(tmp_path / "exp").read_json("result.json")["test_accuracy"] > 0.85
