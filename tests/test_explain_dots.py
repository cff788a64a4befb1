"""The two answers about dots and line: of networks whose answers are known, and of small trained ones."""

import csv

import numpy as np
import pytest
import torch
from conftest import refused, run_module
from PIL import Image

from datasets import dots
from explain.dots import Group, _in_words, figures
from explain.dots.answers import CONDITIONS, Share, change_large, measure, weigh_heat
from supervised.__main__ import build_parser
from supervised.launch import train_command
from supervised.models import build

ARGUMENTS = {"name": "dots", "size": dots.SIDE, "channels": 1, "classes": list(dots.CLASSES)}


class Bright(torch.nn.Module):
    """Its maps are the image itself: all heat lies on what is bright. The last logit goes against all of it."""

    def __init__(self):
        super().__init__()
        self.cam_layer = torch.nn.ReLU()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0, -1.0]]))

    def forward(self, images):
        return self.cam_layer(images).sum((1, 2, 3))[:, None] * self.weight


def scenes(count, seed=5):
    return dots.make_scenes(count, np.random.default_rng(seed))


def test_conditions_change_nothing_but_the_large_dot():
    made = scenes(300)
    changed = change_large(made, np.random.default_rng(1))
    assert list(changed) == list(CONDITIONS)
    for one in changed.values():
        for name in ("label", "line", "small"):
            np.testing.assert_array_equal(getattr(one, name), getattr(made, name))
        masks, before = dots.masks_of(one), dots.masks_of(made)
        np.testing.assert_array_equal(masks["small"], before["small"])
    assert not dots.masks_of(changed["absent"])["large"].any()
    assert dots.masks_of(changed["larger"])["large"].sum() > 1.8 * dots.masks_of(made)["large"].sum()
    assert (dots.side_of_large(changed["on the line"]) == dots.ON).all()
    assert (dots.side_of_large(changed["same side"]) == made.label).all()
    other = dots.side_of_large(changed["other side"])
    assert (other != made.label).all()
    assert (other != dots.ON).all()


def test_heat_is_weighed_on_each_part():
    made = scenes(20)
    net = Bright().eval()
    heat, empty = weigh_heat(net, made, np.zeros(20, np.int64))
    masks = dots.masks_of(made)
    pictures = dots.draw_scenes(made) / 255.0
    for part, mask in masks.items():
        wanted = ((pictures * mask).sum((1, 2)) / pictures.sum((1, 2))).mean() / mask.mean()
        assert heat[part] == pytest.approx(wanted, rel=1e-4)
    assert empty == 0
    nothing, empty = weigh_heat(net, made, np.full(20, 2))
    assert empty == 20
    assert np.isnan(list(nothing.values())).all()


def test_a_yes_of_several_networks_is_one_of_each(monkeypatch):
    made, net = scenes(450), Bright().eval()
    monkeypatch.setattr("explain.dots.answers.answer", lambda _, given: given.label)
    honest = measure(net, made, 1)
    monkeypatch.setattr("explain.dots.answers.answer", lambda _, given: dots.side_of_large(given))
    fooled = measure(net, made, 1)
    assert Group("dots", [], [], [honest, honest]).is_robust
    assert not Group("dots", [], [], [honest, fooled]).is_solved
    assert not Group("dots", [], [], [honest, fooled]).is_robust


def test_an_interval_over_runs_spans_those_of_each():
    low, high = Share(99, 100).interval
    assert (low, high) == pytest.approx((0.9455, 0.9982), abs=1e-4)  # Wilson, by hand
    other = Share(90, 100)
    assert _in_words([Share(99, 100), other]) == f"0.9450 ({other.interval[0]:.4f} to {high:.4f})"
    assert _in_words([Share(99, 100)] * 3) == f"0.9900 ({low:.4f} to {high:.4f})"  # no narrower for three


def test_one_who_looks_at_the_small_dot_is_robust_and_one_who_looks_at_the_large_one_is_not(monkeypatch):
    made, net = scenes(450), Bright().eval()
    monkeypatch.setattr("explain.dots.answers.answer", lambda _, given: given.label)
    right = measure(net, made, 1)
    assert all(share.count == share.of == 450 for share in right.right.values())
    assert (right.changed.count, right.ever_changed.count) == (0, 0)
    assert right.is_solved
    assert right.is_robust
    monkeypatch.setattr("explain.dots.answers.answer", lambda _, given: dots.side_of_large(given))
    wrong = measure(net, made, 1)
    assert wrong.right["same side"].value == 1
    assert wrong.right["other side"].value == 0
    assert wrong.right["on the line"].value == 1 / 3
    assert not wrong.is_solved
    assert not wrong.is_robust
    assert 0.5 < wrong.changed.value < wrong.ever_changed.value


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of each kind: three epochs on 1,500 pictures."""
    root = tmp_path_factory.mktemp("dots")
    for data in ("dots", "dots-spoilt"):
        arguments = ["train", data, "--limit", "1500", "--epochs", "3", "--batch", "32", "--lr", "0.003"]
        train_command(build_parser().parse_args([*arguments, "--seed", "1", "--exp", str(root / f"exp-{data}")]))
    return root


def test_the_command_tells_an_honest_network_from_a_spoilt_one(trained):
    done = run_module(
        "explain", "dots", "--run", trained / "exp-dots", "--against", trained / "exp-dots-spoilt", "--images", "300"
    )
    assert done.returncode == 0, done.stderr
    folder = trained / "results-dots" / "dots"
    rows = {
        (row["data"], row["measure"]): row for row in csv.DictReader((folder / "answers.csv").open(encoding="utf-8"))
    }
    assert len(rows) == 2 * (len(CONDITIONS) + 2 + len(dots.PARTS) + 1)

    def value(data, name):
        return float(rows[data, name]["value"])

    for name in CONDITIONS:
        assert value("dots", f"right: {name}") > 0.85
    assert value("dots-spoilt", "right: same side") > 0.85
    assert value("dots-spoilt", "right: other side") < 0.3
    assert value("dots-spoilt", "changed by one move") > 0.3 > value("dots", "changed by one move")
    first = rows["dots", "right: as drawn"]
    assert float(first["low"]) <= float(first["value"]) <= float(first["high"])
    assert first["count"] == "300"
    page = (folder / "index.html").read_text()
    assert "dots-spoilt (1 run): robust against the large dot? no" in page
    for name in ("measures.png", "moves.png", "examples-dots.png", "examples-dots-spoilt.png"):
        assert name in page
        with Image.open(folder / name) as picture:
            assert picture.width > 500

    again = run_module("explain", "--run", trained / "exp-dots", "--per-cluster", "2")  # the gallery finds room beside
    assert again.returncode == 0, again.stderr
    assert (trained / "results-dots" / "index.html").exists()


def test_examples_show_each_class_with_the_large_dot_on_its_side_and_elsewhere():
    made = scenes(60)
    chosen = made[figures.choose_examples(made)]
    assert chosen.label.tolist() == [0, 0, 1, 1, 2, 2]
    assert (dots.side_of_large(chosen) == chosen.label).tolist() == [True, False] * 3
    figure = figures.draw_examples(build(ARGUMENTS, 1).eval(), made, "dots")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[4] == "true: 0 on"
    assert titles[5].startswith("0 on: ")
    assert float(titles[5].removeprefix("0 on: ")) is not None


def test_other_runs_are_refused_in_a_sentence(trained, tmp_path):
    from test_supervised_data import write_labelled

    write_labelled(tmp_path / "blobs", each=12)
    arguments = ["train", str(tmp_path / "blobs"), "--model", "mlp", "--epochs", "1", "--exp", str(tmp_path / "exp")]
    train_command(build_parser().parse_args(arguments))
    honest, spoilt = trained / "exp-dots", trained / "exp-dots-spoilt"
    assert "trained on blobs" in refused(run_module("explain", "dots", "--run", tmp_path / "exp"))
    assert "separate them" in refused(run_module("explain", "dots", "--run", honest, spoilt))
    assert "give all of them to --run" in refused(run_module("explain", "dots", "--run", honest, "--against", honest))
