"""`python -m explain film`: maps over the epochs, out of pictures that are there."""

import argparse
from dataclasses import replace

import numpy as np
import pytest
from conftest import a_meta
from PIL import Image

import runs
from console import UserError
from explain import film
from explain.results import SCHEMA, Kept
from machine.files import write_csv, write_json

COLOURS = {2: (200, 0, 0), 10: (0, 200, 0), 9: (0, 0, 200)}


@pytest.fixture
def drawn(tmp_path):
    """A run, and results of three epochs in which the map of a coin has another colour each; the copy is a Drive's."""
    run = runs.begin(tmp_path / "exp", a_meta(2), ["a.jpg", "b.jpg"], None, [])
    results = tmp_path / "results"
    for name in [*map(str, COLOURS), "10 (1)"]:
        home = results / name
        (home / "7").mkdir(parents=True)
        colour = COLOURS.get(int(name.split()[0]))
        Image.new("RGB", (64, 64), (90, 90, 90)).save(home / "7" / "a-original.png")
        Image.new("RGB", (64, 64), colour).save(home / "7" / "a-grad_cam.png")
        row = {"image": "a.jpg", "cluster": "7", "original": "7/a-original.png", "grad_cam": "7/a-grad_cam.png"}
        write_csv(home / "explanations.csv", [row, row | {"image": "b.jpg", "grad_cam": "../../exp/images.csv"}])
    write_json(results / "results.json", vars(Kept(SCHEMA, run.identity, "exp")))
    return run, results


def filmed(drawn, **options):
    run, results = drawn
    out = results.parent / "film.gif"
    asked = {"run": run.path, "results": results, "images": ["a.jpg"], "method": None, "out": out} | options
    film.film_command(argparse.Namespace(**asked))
    return out


def test_a_frame_for_each_epoch_in_their_order(drawn):
    with Image.open(filmed(drawn)) as gif:
        assert gif.n_frames == 3
        shown = []
        for i in range(3):
            gif.seek(i)
            shown.append(np.asarray(gif.convert("RGB"))[film.HEAD + 64 + film.GAP + 32, film.GAP + 32].tolist())
        assert gif.info["duration"] == film.LAST
    assert np.abs(np.array(shown) - [COLOURS[2], COLOURS[9], COLOURS[10]]).max() <= 8


def test_a_received_table_makes_it_remove_and_read_nothing(drawn):
    _, results = drawn
    table = results / "2" / "explanations.csv"
    row = {"image": "a.jpg", "cluster": "7", "original": "7/a-original.png"}
    for named in ("explanations.csv", "7/a\0.png", "../../exp/run.json", ""):
        write_csv(table, [row | {"grad_cam": named}])
        before = table.read_bytes()
        filmed(drawn)  # of the other two epochs
        assert table.read_bytes() == before


def test_an_image_named_twice_is_shown_once_and_too_many_are_refused(drawn, monkeypatch):
    with Image.open(filmed(drawn, images=["a.jpg", "a.jpg"])) as gif:
        assert gif.width == 64 + 2 * film.GAP
    monkeypatch.setattr(film, "WIDEST", 70)
    with pytest.raises(UserError, match="name fewer"):
        filmed(drawn)


def test_what_cannot_be_filmed_is_one_sentence(drawn, tmp_path):
    with pytest.raises(UserError, match="two are needed"):
        filmed(drawn, images=["a.jpg", "b.jpg"])  # b's table leads out of the results
    with pytest.raises(UserError, match="is not an image of"):
        filmed(drawn, images=["c.jpg"])
    with pytest.raises(UserError, match=r"ends with \.gif"):
        filmed(drawn, out=tmp_path / "film.mp4")
    with pytest.raises(UserError, match="two are needed"):
        filmed(drawn, method="hires_cam")
    run, results = drawn
    among = replace(run.meta, dataset=replace(run.meta.dataset, source=str(tmp_path / "coins")))
    write_json(run.path / "run.json", among.to_json())
    write_json(results / "results.json", vars(Kept(SCHEMA, runs.open_run(run.path).identity, "exp")))
    (tmp_path / "coins").mkdir()
    with pytest.raises(UserError, match="among the photographs"):
        filmed(drawn, out=tmp_path / "coins" / "film.gif")
