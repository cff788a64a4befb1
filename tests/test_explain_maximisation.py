"""Activation maximisation: answers known by hand, its own chance for each picture, its files and its check."""

import csv
import shutil

import pytest
import torch
from conftest import refused, run_module
from PIL import Image
from torch import nn
from torch.testing import assert_close

from console import UserError
from explain import maximisation
from explain.__main__ import main
from explain.maximisation import (
    STYLES,
    Ascent,
    ascend,
    before_relu,
    blur,
    by_frequency,
    maximise,
    shake,
    unit_values,
)

# f(x) = relu(x W): 1 on the diagonal, -1 below it.
W = torch.zeros(5, 4).fill_diagonal_(1) - torch.diag(torch.ones(5), -1)[:5, :4]
FAST = ["--steps", "3", "--style", "plain"]


def test_the_example_by_hand():
    """Before the ReLU, whose gradient at 0 is none."""
    layer = nn.Linear(5, 4, bias=False)
    layer.weight.data = W.T.clone()
    net = nn.Sequential(layer, nn.ReLU(inplace=True))
    for named in (net[0], net[1]):
        x = ascend(lambda x, named=named: unit_values(net, named, x)[:, 1], torch.zeros(1, 5), 2, 1.0)
        assert x.tolist() == [[0, 2, -2, 0, 0]]
        assert (x @ W).tolist() == [[-2, 4, -2, 0]]
    assert ascend(lambda x: net(x)[:, 1], torch.zeros(1, 5), 2, 1.0).tolist() == [[0] * 5]  # after it: nothing to climb


def test_the_example_is_a_convolution():
    convolution = nn.Conv1d(1, 1, 2, bias=False)
    convolution.weight.data = torch.tensor([[[1.0, -1.0]]])
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    assert_close(convolution(x[:, None])[:, 0], x @ W)
    found = ascend(lambda x: convolution(x)[:, 0, 1], torch.zeros(1, 1, 5), 2, 1.0)
    assert found.tolist() == [[[0, 2, -2, 0, 0]]]


def test_a_normalised_step_has_the_length_of_the_rate():
    found = ascend(lambda x: (x * torch.tensor([3.0, -4.0])).sum(1), torch.zeros(2, 2), 1, 0.5, normalise=True)
    assert_close(found.square().mean(1).sqrt(), torch.full((2,), 0.5))
    assert ascend(lambda x: 0 * x.sum(1), torch.ones(1, 2), 1, 0.5, normalise=True).tolist() == [[1, 1]]


def test_channels_and_units_are_read_before_their_relu():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 4), nn.ReLU())
    images = torch.randn(5, 3, 4, 4)
    maps = net[0](images)
    assert_close(unit_values(net, net[0], images), maps.mean((2, 3)))
    assert_close(unit_values(net, net[1], images), maps.mean((2, 3)))
    assert_close(unit_values(net, net[4], images), unit_values(net, net[3], images))
    assert unit_values(net, net[3], images).min() < 0
    with pytest.raises(UserError, match="does not take part"):
        unit_values(net, nn.ReLU(), images)
    with before_relu(net[1]):
        pass
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("style", STYLES)
def test_a_picture_climbs_within_what_a_photograph_can_show(style):
    aim = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))

    def score(pictures):
        return (pictures * aim).sum((1, 2, 3))

    def make(seeds, steps=30):
        return maximise(score, (3, 16, 16), Ascent(style, steps, 0.01, jitter=0.1), seeds, torch.device("cpu"))

    found = make([1, 2])
    assert 0 <= found.min() <= found.max() <= 1
    assert_close((found * 255).round() / 255, found)
    assert (score(found) > score(make([1, 2], 1)) + 1).all()
    assert_close(make([1, 2]), found, rtol=0, atol=0)
    assert_close(make([2]), found[1:], rtol=0, atol=1.1 / 255)  # whoever climbs beside it
    assert not torch.equal(found[0], found[1])


def test_a_network_without_colours_gets_a_grey_picture():
    found = maximise(
        lambda p: p.mean(1)[:, 4:, 4:].sum((1, 2)), (3, 16, 16), STYLES["readable"], [1], torch.device("cpu")
    )
    assert (found.amax(1) - found.amin(1)).max() <= 1 / 255


def test_a_step_by_frequency_is_what_climbing_over_amplitudes_makes():
    for height, width in ((8, 8), (7, 9)):
        gradient = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        down, across = torch.fft.fftfreq(height).double(), torch.fft.fftfreq(width).double()
        frequency = (down[:, None] ** 2 + across**2).sqrt().clamp_min(1 / max(height, width))
        amplitudes = torch.zeros(2, 3, height, width, 2, dtype=torch.float64, requires_grad=True)
        picture = torch.fft.ifft2(torch.view_as_complex(amplitudes) / frequency, norm="ortho").real
        (step,) = torch.autograd.grad((picture * gradient).sum(), amplitudes)
        expected = torch.fft.ifft2(torch.view_as_complex(step) / frequency, norm="ortho").real
        assert_close(by_frequency(gradient), expected, rtol=1e-4, atol=1e-5)


def test_shaking_and_blurring_keep_a_plain_picture():
    plain = torch.full((2, 3, 9, 9), 0.25)
    assert_close(shake(plain, 0.2, [torch.Generator().manual_seed(i) for i in (1, 2)]), plain)
    assert_close(blur(plain, 0.8), plain)


@pytest.fixture(scope="module")
def trained(coins, tmp_path_factory):
    exp = tmp_path_factory.mktemp("maximised") / "exp"
    arguments = ["--view", "photograph", "--size", "64", "--k", "3", "--epochs", "1", "--batch", "16"]
    result = run_module("deepcluster", "train", coins, "--exp", exp, *arguments)
    assert result.returncode == 0, result.stderr
    return exp


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_picture_of_each_cluster_in_the_gallery_and_nothing_done_twice(trained, tmp_path):
    out = tmp_path / "results"
    assert run_module("explain", "--run", trained, "--results", out, "--per-cluster", "1").returncode == 0
    assert "activation maximum" not in (out / "1" / "0" / "index.html").read_text()
    command = ["explain", "maximise", "--run", trained, "--results", out, *FAST]
    result = run_module(*command, "--clusters", "0,2")
    assert result.returncode == 0, result.stderr
    assert {path.parent.name for path in out.rglob("activation_maximum.png")} == {"0", "2"}
    assert "activation maximum" in (out / "1" / "0" / "index.html").read_text()
    assert "activation maximum" not in (out / "1" / "1" / "index.html").read_text()
    assert "activation_maximum.png" in (out / "index.html").read_text()
    first = {path: path.stat().st_mtime_ns for path in out.rglob("activation_maximum.png")}
    assert run_module(*command).returncode == 0  # all three: one is missing
    assert all(path.stat().st_mtime_ns == when for path, when in first.items())
    rows = table(out / "1" / "activation_maxima.csv")
    assert [row["cluster"] for row in rows] == ["0", "1", "2"]
    for row in rows:
        better = float(row["value"]) > float(row["highest_of_images"])
        assert row["works"] == ("yes" if better and row["predicted"] == row["cluster"] else "no")
    failed = [row["cluster"] for row in rows if row["works"] == "no"]
    if failed:
        assert f"{len(failed)} excite less" in run_module(*command).stdout
    with Image.open(out / "1" / "activation_maxima.jpg") as sheet:
        assert sheet.height == 3 * 116 + 4
    with Image.open(out / "1" / "0" / "activation_maximum.png") as picture:
        assert picture.size == (64, 64)
    before = {path: path.read_bytes() for path in first}
    shutil.rmtree(out)
    assert run_module(*command, "--clusters", "0,2").returncode == 0  # another folder of epochs: the same pictures
    assert all(path.read_bytes() == content for path, content in before.items())


def test_killed_between_two_pictures_it_makes_the_others(trained, tmp_path, monkeypatch):
    made = []

    def make(*arguments, **options):
        if len(made) == limit:
            raise KeyboardInterrupt
        made.append(1)
        return maximise(*arguments, **options)

    out = tmp_path / "results"
    words = ["explain", "maximise", "--run", str(trained), "--results", str(out), *FAST]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(maximisation, "BATCH", dict.fromkeys(maximisation.BATCH, 1))
    monkeypatch.setattr(maximisation, "maximise", make)
    limit = 1
    with pytest.raises(KeyboardInterrupt):
        main()
    first = {path: path.read_bytes() for path in out.rglob("activation_maximum.png")}
    assert len(first) == 1
    limit = 3
    main()
    assert len(made) == 3
    assert len(list(out.rglob("activation_maximum.png"))) == 3
    assert all(path.read_bytes() == content for path, content in first.items())
    assert len(table(out / "1" / "activation_maxima.csv")) == 3
    monkeypatch.setattr("sys.argv", [*words, "--rate", "0.03"])
    limit = 6
    main()
    assert len(made) == 6  # other settings: made again
    main()
    assert len(made) == 6


def test_channels_of_a_layer(trained, tmp_path):
    command = ["explain", "maximise", "--run", trained, "--results", tmp_path / "r", *FAST]
    result = run_module(*command, "--layer", "-2", "--channels", "3,5")
    assert result.returncode == 0, result.stderr
    [home] = (tmp_path / "r" / "1" / "channels").iterdir()
    assert {path.name for path in home.iterdir()} == {
        "3.png",
        "5.png",
        "activation_maxima.jpg",
        "activation_maxima.csv",
    }
    assert [row["channel"] for row in table(home / "activation_maxima.csv")] == ["3", "5"]
    with Image.open(home / "activation_maxima.jpg") as sheet:
        assert sheet.width > 10 * 116  # the maximum and nine images
    assert "channels 0 to 383" in refused(run_module(*command, "--layer", "-2", "--channels", "384"))
    assert "no such module" in refused(run_module(*command, "--layer", "nowhere"))
    assert "--layer" in refused(run_module(*command, "--channels", "1"))
    assert "clusters 0 to 2" in refused(run_module(*command, "--clusters", "7"))
