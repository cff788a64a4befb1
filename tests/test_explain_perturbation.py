"""Occlusion: against captum, against the published program, against answers known by hand; and in the tables."""

import csv

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from conftest import refused, run_module
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from console import UserError
from explain import METHODS, attribute, cover
from explain.attribution import parse, perturbation
from explain.attribution.perturbation import Grid, measured_occlusion, occlusion, score_covered
from explain.rendering import change, panels, says_nothing


class Additive(nn.Module):
    """Logit j is the sum of all pixels times weights[j], (K, C, H, W)."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.weights = weights

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,kchw->bk", images, self.weights)


def small_network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 4)
    ).double()


def some_images(count: int = 3, side: int = 12) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (4, 2), (6, 3), (12, 1)])
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_equals_captum_with_the_other_sign(window, stride, score):
    net, images, targets = small_network(), some_images(), torch.tensor([0, 2, 3])
    model = net if score == "logit" else nn.Sequential(net, nn.Softmax(1))
    theirs = Occlusion(model).attribute(images, (3, window, window), (3, stride, stride), 0.5, targets)
    ours = occlusion(net, images, targets, window / 12, stride, 0.5, score)
    assert_close(ours.expand_as(theirs).float(), -theirs)


def published(model, images, ids, mean=0.0, patch=35):
    """The occlusion map of kazuto1011/grad-cam-pytorch, written from its description.

    Stride 1, the image padded by half a patch, one value for each place, minus the logit of the padded image.
    """
    pad = patch // 2
    images = functional.pad(images, (pad, pad, pad, pad), value=mean)
    height, width = (side - patch + 1 for side in images.shape[2:])
    plain = model(images).gather(1, ids[:, None])[:, 0]
    found = torch.empty(len(images), height, width, dtype=images.dtype)
    for top in range(height):
        for left in range(width):
            covered = images.clone()
            covered[:, :, top : top + patch, left : left + patch] = mean
            found[:, top, left] = model(covered).gather(1, ids[:, None])[:, 0] - plain
    return found, images


@pytest.mark.parametrize("patch", [1, 2, 5])
def test_equals_the_published_program_place_by_place(patch):
    net, targets = small_network(), torch.tensor([1, 3])
    with torch.no_grad():
        theirs, padded = published(net, some_images(2, 9), targets, 0.1, patch)
        side = padded.shape[-1]
        grid = Grid.over(side, side, patch / side, 1)
        weights = functional.one_hot(targets, 4).double()
        scores = score_covered(net, padded, torch.tensor(0.1).double(), grid.covers(), weights, "logit")
        ours = scores - net(padded).gather(1, targets[:, None])
    assert_close(ours.view_as(theirs), theirs)
    maps = occlusion(net, padded, targets, patch / side, 1, 0.1, "logit")
    assert_close(maps[:, 0], grid.spread(theirs.flatten(1)))


def test_the_published_patches_can_be_asked_for():
    asked = parse("occlusion:window=.0446+.067+.1116+.1563+.2009+.4018:stride=1:score=logit")
    assert [Grid.over(224, 224, size, 1).patch[0] for size in asked.options["window"]] == [10, 15, 25, 35, 45, 90]
    assert len(Grid.over(224, 224, 10 / 224, 1).tops) == 215


def test_is_exact_on_an_additive_network():
    weights = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = some_images(2, 6)[:, :1]
    ours = occlusion(Additive(weights), images, torch.tensor([0, 1]), 1 / 6, 1, 0.0, "logit")
    assert_close(ours[:, 0], -(images[:, 0] * weights[:, 0]))


def test_of_a_network_that_sees_one_corner_the_rest_is_zero():
    weights = torch.zeros(2, 3, 12, 12, dtype=torch.float64)
    weights[0, :, :3, :3] = 1
    maps = occlusion(Additive(weights), some_images(), torch.zeros(3, dtype=torch.long), 0.25, 3, 0.0)
    assert (maps[:, 0, :3, :3] < 0).all()
    assert not maps[:, 0, 3:].any()
    assert not maps[:, 0, :, 3:].any()


def test_a_window_of_one_gives_one_number():
    net, images, targets = small_network(), some_images(), torch.tensor([0, 1, 2])
    maps, numbers = measured_occlusion(net, images, targets, 1, 0.5, 0.25)
    whole = net(torch.full_like(images, 0.25)).softmax(1).gather(1, targets[:, None])[:, 0]
    plain = net(images).softmax(1).gather(1, targets[:, None])[:, 0]
    assert_close(maps, (whole - plain).detach().view(3, 1, 1, 1).expand(3, 1, 12, 12))
    assert_close(numbers["worst"], numbers["best"])
    assert_close(numbers["uncovered"], plain.detach())
    assert not says_nothing(maps[0].numpy(), "change")


def test_several_windows_are_averaged_and_measured_together():
    net, images, targets = small_network(), some_images(), torch.tensor([0, 1, 2])
    single = [measured_occlusion(net, images, targets, window) for window in (0.25, 0.5)]
    maps, numbers = measured_occlusion(net, images, targets, (0.25, 0.5))
    assert_close(maps, (single[0][0] + single[1][0]) / 2)
    assert_close(numbers["worst"], torch.minimum(single[0][1]["worst"], single[1][1]["worst"]))
    assert_close(numbers["best"], torch.maximum(single[0][1]["best"], single[1][1]["best"]))


def test_batches_change_nothing_and_memory_is_bounded(monkeypatch):
    net, images, targets = small_network(), some_images(), torch.tensor([0, 1, 2])
    seen = []
    net.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    together = occlusion(net, images, targets)
    monkeypatch.setitem(perturbation.COVERED, "cpu", 7)
    seen.clear()
    assert_close(occlusion(net, images, targets), together)
    assert max(seen) == 7
    apart = [occlusion(net, images[i : i + 1], targets[i : i + 1]) for i in range(3)]
    assert_close(torch.cat(apart), together)


def test_the_last_cover_ends_at_the_edge():
    grid = Grid.over(10, 7, 0.4, 2)
    assert grid.patch == (4, 3)
    assert grid.tops == [0, 2, 4, 6]
    assert grid.lefts == [0, 2, 4]
    ones = grid.spread(torch.ones(1, len(grid.covers())))
    assert_close(ones, torch.ones(1, 10, 7))


def test_a_margin_is_a_difference_of_probabilities():
    net, images = small_network(), some_images(2)
    margin = torch.tensor([[1.0, -1, 0, 0], [0, 0, 1, -1]])
    first, second = (torch.tensor(numbers) for numbers in ([0, 2], [1, 3]))
    expected = occlusion(net, images, first) - occlusion(net, images, second)
    assert_close(occlusion(net, images, margin), expected)


def test_fills():
    net, images = nn.Identity(), some_images(2)
    mean = images.mean((2, 3), keepdim=True)
    assert_close(perturbation.filling("grey", net, images), mean)  # it cannot know what grey is
    net.neutral = torch.full((1, 3, 1, 1), 0.3).double()
    assert_close(perturbation.filling("grey", net, images), net.neutral)
    assert_close(perturbation.filling("mean", net, images), mean)
    blurred = perturbation.filling("blur", net, images)
    assert blurred.shape == images.shape
    assert blurred.var() < images.var() / 2
    assert_close(perturbation.filling(0.7, net, images).expand_as(images), torch.full_like(images, 0.7))


def test_covering_an_additive_networks_grey_image_with_grey_changes_nothing():
    net = Additive(torch.randn(2, 3, 8, 8))
    net.neutral = torch.full((1, 3, 1, 1), 0.5)
    maps = attribute(net, torch.full((1, 3, 8, 8), 0.5), torch.tensor([0]), ["occlusion"])["occlusion"]
    assert not maps.any()
    assert says_nothing(maps[0].numpy(), "change")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"window": 1.5}, "over 0 to 1"),
        ({"window": 0}, "over 0 to 1"),
        ({"window": 0.01}, "under a pixel"),
        ({"stride": 5}, "gaps"),
        ({"stride": 1.5}, "whole pixels"),
        ({"fill": "pink"}, "grey, mean, blur"),
        ({"score": "loss"}, "probability or logit"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(options, word):
    with pytest.raises(UserError, match=word):
        METHODS["occlusion"].function(small_network(), some_images(), torch.tensor([0, 1, 2]), **options)


def test_names_of_files_and_columns_are_read_back():
    asked = parse("occlusion:window=.1+.2+.3:score=logit:stride=1")
    assert asked.key == "occlusion~window=0.1+0.2+0.3~stride=1~score=logit"
    assert parse(asked.key) == asked
    assert parse("occlusion:window=.2:stride=.25").key == "occlusion"
    for wrong in ("window=2", "window=0", "window=a", "stride=1.5", "stride=0", "fill=pink"):
        with pytest.raises(ValueError, match="occlusion:"):
            parse(f"occlusion:{wrong}")


def test_cover_hides_a_patch_of_any_kind_of_image():
    pixels = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    covered = cover(pixels, (0, 1), 0.3)
    assert (covered[:3, 14:] == 128).all()
    assert np.array_equal(covered[3:], pixels[3:])
    assert np.array_equal(covered[:, :14], pixels[:, :14])
    assert covered.dtype == np.uint8
    assert np.array_equal(np.asarray(cover(Image.fromarray(pixels), (0, 1), 0.3)), covered)
    middle = cover(torch.zeros(1, 9, 9), (0.5, 0.5), 1 / 3)
    assert middle.sum() == pytest.approx(0.5 * 9)
    assert middle[0, 3:6, 3:6].eq(0.5).all()
    assert (cover(pixels, (0.2, 0.4), 1, 7) == 7).all()
    assert np.allclose(cover(pixels / 255, (0, 0), 1, "mean"), (pixels / 255).mean((0, 1)))
    for position, fraction in (((0, 2), 0.3), ((0, 0), 1.2), ((0, 0), 0.001)):
        with pytest.raises(UserError):
            cover(pixels, position, fraction)


def test_is_drawn_as_brightness_and_around_zero():
    photograph = np.full((4, 4, 3), 200, np.uint8)
    values = np.zeros((4, 4))
    values[0, 0], values[3, 3] = -0.4, 0.2
    picture = change(values, photograph)
    assert picture.size == (8, 4)
    left, right = (np.asarray(panel).astype(int) for panel in panels(picture))
    assert (left[0, 0] == 200).all()
    assert (left[3, 3] == 60).all()
    assert (left[1, 1] == 60).all()
    assert right[0, 0, 0] > right[0, 0, 2] + 30  # needed: red
    assert right[3, 3, 2] > right[3, 3, 0] + 30  # in the way: blue
    assert np.ptp(right[1, 1]) <= 2
    assert np.asarray(change(np.zeros((4, 4)), photograph))[0, 4].tolist() == [220, 220, 220]


@pytest.fixture(scope="module")
def trained(coins, tmp_path_factory):
    exp = tmp_path_factory.mktemp("occluded") / "exp"
    arguments = ["--view", "photograph", "--size", "64", "--k", "3", "--epochs", "1", "--batch", "16"]
    result = run_module("deepcluster", "train", coins, "--exp", exp, *arguments)
    assert result.returncode == 0, result.stderr
    return exp


def test_the_gallery_has_its_pictures_and_numbers(trained, tmp_path):
    method = "occlusion:window=.5+1:stride=.5"
    out = tmp_path / "results"
    result = run_module(
        "explain", "--run", trained, "--results", out, "--methods", f"{method},grad_cam", "--per-cluster", "2"
    )
    assert result.returncode == 0, result.stderr
    with (out / "1" / "explanations.csv").open() as file:
        rows = list(csv.DictReader(file))
    key = parse(method).key
    for row in rows:
        with Image.open(out / "1" / row[key]) as picture:
            assert picture.size == (128, 64)
        worst, plain, best = (float(row[f"{key}.{name}"]) for name in ("worst", "uncovered", "best"))
        assert 0 <= worst <= best <= 1
        assert 0 <= plain <= 1
    page = (out / "1" / rows[0]["cluster"] / "index.html").read_text()
    assert '"panels": 2' in page
    assert '"uncovered"' in page
    with Image.open(out / "1" / rows[0]["cluster"] / "_why.jpg") as sheet:
        assert sheet.width == 444  # four squares (photograph, Grad-CAM, two panels) are narrower than its words
    before = (out / "1" / "explanations.csv").read_bytes()
    assert run_module("explain", "--run", trained, "--results", out, "--methods", method).returncode == 0
    with (out / "1" / "explanations.csv").open() as file:
        again = {row["image"]: row for row in csv.DictReader(file)}
    assert all(again[row["image"]][f"{key}.worst"] == row[f"{key}.worst"] for row in rows)
    assert before


def test_a_window_under_a_pixel_of_the_run_is_refused_before_anything_is_written(trained, tmp_path):
    out = tmp_path / "results"
    result = run_module("explain", "--run", trained, "--results", out, "--methods", "occlusion:window=.001")
    assert "under a pixel of a side of 64 pixels" in refused(result)
    assert not out.exists()
    assert "over 0 to 1" in refused(run_module("explain", "--run", trained, "--methods", "occlusion:window=1.2"))
