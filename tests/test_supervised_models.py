"""The networks and the recipes that train them: every entry of the registry."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from console import UserError
from supervised.learners import LEARNERS
from supervised.models import NETWORKS, build
from supervised.recipes import RECIPES, find_recipe, list_values
from supervised.report.diagram import list_layers

PUBLISHED = {"simple_conv", "drop_conv", "drop_move_conv", "drop_full_conv", "cnn101"}


def arguments(name, size=28, channels=1, classes=10):
    return {"name": name, "size": size, "channels": channels, "classes": [f"class {i}" for i in range(classes)]}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 10), (20, 3, 4)])
def test_each_network_comes_in_two_parts_that_are_one(name, size, channels, classes):
    net = build(arguments(name, size, channels, classes), 3).eval()
    images = torch.rand(4, channels, size, size)
    assert net(images).shape == (4, classes)
    assert_close(net.from_maps(net.maps(images)), net(images))
    assert_close(net.classify(net.embed(images)), net(images))
    assert net.embed(images).ndim == 2
    again = build(net.arguments, 3).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in net.state_dict().items())
    if name == "mlp":
        with pytest.raises(UserError, match="no convolution"):
            _ = net.cam_layer
    else:
        assert isinstance(net.cam_layer, nn.ReLU)
        assert net.maps(images).ndim == 4


def test_each_recipe_is_told_once_and_names_what_there_is():
    assert {recipe.network for recipe in RECIPES.values()} == NETWORKS.keys()
    assert {recipe.learner for recipe in RECIPES.values()} == LEARNERS.keys()
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    assert {name for name, recipe in RECIPES.items() if recipe.published} == PUBLISHED
    assert [name for name, recipe in RECIPES.items() if recipe.stop_at_accuracy] == ["small_conv"]
    with pytest.raises(UserError, match=f"--model resnet: unknown: use one of {', '.join(RECIPES)}"):
        find_recipe("resnet")
    assert list_values(lambda recipe: recipe.epochs) == "150; autodiff 3, dots 12"
    assert list_values(lambda recipe: recipe.augmentation.rotate) == "cnn101 10, drop_full_conv 30"


def test_help_lists_the_recipes_without_torch():
    import subprocess
    import sys

    from conftest import ROOT

    code = (
        "import sys; from supervised.__main__ import build_parser; text = build_parser()._subparsers._group_actions[0]"
        ".choices['train'].format_help(); assert 'torch' not in sys.modules; print(' '.join(text.split()))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in RECIPES)


def test_cnn101_is_the_one_described():
    net = build({"name": "cnn101"}).eval()  # as run.json of schema 1 names it: digits
    layers = list_layers(net)
    kinds = [layer.kind for layer in layers]
    assert kinds.count("Conv2d") == kinds.count("BatchNorm2d") == 4
    assert [layer.shape for layer in layers if layer.kind == "MaxPool2d"] == [(32, 14, 14), (64, 7, 7)]
    assert kinds[1:4] == ["Conv2d", "ReLU", "BatchNorm2d"]
    assert [module.kernel_size[0] for module in net.modules() if isinstance(module, nn.Conv2d)] == [5, 5, 3, 3]
    assert [layer.shape for layer in layers if layer.kind == "Linear"] == [(256,), (512,), (10,)]
    assert sum(layer.parameters for layer in layers) == sum(value.numel() for value in net.parameters())


@pytest.mark.parametrize("name", sorted(RECIPES.keys() - {"mlp"}))
def test_an_image_too_small_for_the_network_is_refused(name):
    with pytest.raises(UserError, match="--size 3 is too small"):
        build(arguments(name, size=3))
