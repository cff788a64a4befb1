"""Curves, sizes and flow of a run, as PNG and for a text."""

import numpy as np
import pytest
from conftest import a_meta, call_main, refused, run_module
from PIL import Image

import runs
from deepcluster import figures, flow
from deepcluster.__main__ import main
from deepcluster.flow import GREY, OTHERS, PALETTE, Flow, flows_between, largest, order_blocks
from runs import Clusters

ROW = {"epoch": 1, "k": 4, "loss": 1.0, "objective": 5.0, "nmi_previous": 0.5, "head_agreement": 0.9, "ami": -0.1}


@pytest.fixture
def run(tmp_path):
    """Twelve images; between two epochs clusters 0 and 1 change their numbers, and half of 2 goes into 3."""
    made = runs.begin(tmp_path / "exp", a_meta(12), [f"{i}.jpg" for i in range(12)], None, [])
    made.write_clusters(1, Clusters(np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3]), np.zeros(12)))
    made.write_clusters(2, Clusters(np.array([1, 1, 1, 1, 0, 0, 0, 2, 2, 3, 3, 3]), np.zeros(12)))
    made.write_log([ROW, ROW | {"epoch": 2, "loss": "", "head_agreement": 1.0}])
    return made


def test_the_command_draws_every_figure_of_every_kind_and_twice_the_same(run):
    result = run_module("deepcluster", "figures", "--run", run.path, "--figure", "svg", "--figure", "pdf")
    assert result.returncode == 0, result.stderr
    there = {path.name: path.read_bytes() for path in (run.path / "figures").iterdir()}
    assert there.keys() == {f"{name}.{kind}" for name in ("curves", "sizes", "flow") for kind in ("png", "svg", "pdf")}
    assert there["flow.pdf"].startswith(b"%PDF")
    assert b"<svg" in there["curves.svg"]
    assert run_module("deepcluster", "figures", "--run", run.path, "--figure", "svg").returncode == 0
    assert {path.name: path.read_bytes() for path in (run.path / "figures").iterdir()} == there
    run.write_table("k.csv", [{"k": 2, "silhouette": 0.2}])
    assert "line 2" in refused(run_module("deepcluster", "figures", "--run", run.path))
    run.write_table("k.csv", [{"k": 2, "silhouette": 0.2, "seed_agreement": "many", "objective": 3}])
    assert "line 2" in refused(run_module("deepcluster", "figures", "--run", run.path))


def test_dollars_in_a_name_are_no_formula(run):
    odd = run.path.rename(run.path.with_name("exp_$\\frac$_x^$y"))
    run = runs.open_run(odd)
    figures.draw(run, run.log(), ("png", "svg"))
    assert b"<svg" in (odd / "figures" / "curves.svg").read_bytes()


@pytest.mark.parametrize("k", ["", "100000000", "-3", "many"])
def test_a_log_whose_k_is_damage_is_one_sentence(run, k, monkeypatch, capsys):
    log = (run.path / "log.csv").read_text().replace("epoch,k", "epoch,kk") if k == "many" else ""
    (run.path / "log.csv").write_text(log or f"epoch,k\n1,{k}\n")
    code, _, error = call_main(main, "deepcluster", monkeypatch, capsys, "figures", "--run", run.path)
    assert (code, "log.csv: damaged (k of the last epoch" in error) == (2, True)


def test_curves_end_where_their_quantities_do_and_say_what_they_are(run):
    figure = figures.curves(run, run.log())
    axes = {axis.get_title(): axis for axis in figure.axes}
    assert axes[figures.HEAD].get_ylim() == (0, 1)
    assert axes[figures.AGREEMENT].get_ylim() == (-0.1, 1)
    assert all(axis.get_ylabel() for axis in axes.values())
    assert "12 images" in figure.get_suptitle()
    assert "corrected for chance" in figure.get_supxlabel()
    assert figures.curves(run, [{"epoch": 1, "k": 4, "loss": 1.0}]).get_supxlabel() == ""  # no word to explain


def test_sizes_bear_the_numbers_of_their_clusters(run, monkeypatch):
    drawn = {}
    monkeypatch.setattr(figures, "save_figure", lambda run, name, figure: drawn.update({name: figure}))
    figures.draw_sizes(run, 2, 5)
    [axis] = drawn["sizes.png"].axes
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "0", "3", "2", "4"]
    assert [bar.get_height() for bar in axis.patches] == [4, 3, 3, 2, 0]
    assert "1 of them empty" in axis.get_title()
    assert all(tick == int(tick) for tick in axis.get_yticks())


def test_flows_that_matter_are_drawn_and_the_rest_is_counted():
    before = np.array([0] * 20 + [1] * 20)
    after = np.array([7] * 19 + [8] * 21)  # one image of 0 goes into 8
    flows, left_out = flows_between([before, after], [8])
    assert [(one.source, one.target, one.size) for one in flows] == [(0, 7, 19), (1, 8, 20)]
    assert [one.colour for one in flows] == [GREY, PALETTE[0]]
    assert left_out == pytest.approx(1 / 40)
    assert flows_between([before], [0]) == ([], 0.0)


def test_blocks_lie_by_where_their_images_go():
    last = np.array([5, 5, 5, 2, 2, 9])
    assert order_blocks([np.array([1, 1, 1, 0, 0, 3]), last]) == [[1, 0, 3], [5, 2, 9]]
    assert largest(np.array([4, 4, 4, 1, 1, 0]), 2).tolist() == [4, 4, 4, 1, 1, OTHERS]
    assert order_blocks([largest(np.array([4, 4, 4, 1, 1, 0]), 2)]) == [[4, 1, OTHERS]]


def test_bands_fill_their_blocks():
    flows = [Flow(0, 0, 1, 3, GREY), Flow(0, 0, 0, 1, GREY)]
    places = [{0: (0.0, 0.5)}, {0: (0.0, 0.125), 1: (0.6, 0.975)}]
    assert flow._stack(flows, places, 0, 4) == pytest.approx([0.125, 0.0])  # the one that goes up lies above
    assert flow._stack(flows, places, 1, 4) == [0.6, 0.0]


def test_a_thousand_clusters_of_many_epochs_stay_one_picture(tmp_path):
    rng = np.random.default_rng(1)
    made = runs.begin(tmp_path / "exp", a_meta(5000), [f"{i}.jpg" for i in range(5000)], None, [])
    for epoch in range(1, 13):
        made.write_clusters(epoch, Clusters(rng.integers(0, 1000, 5000), np.zeros(5000)))
    made.write_log([ROW | {"epoch": epoch, "k": 1000} for epoch in range(1, 13)])
    flow.draw_flow(made)
    figures.draw_sizes(made, 12, 1000)
    for name in ("flow.png", "sizes.png"):
        with Image.open(made.path / "figures" / name) as picture:
            assert max(picture.size) < 2000
