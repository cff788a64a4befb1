"""Explaining a run that sees coins unrolled: what is found in the view is drawn on the photograph, upon the coin."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import call_main
from PIL import Image

import runs
from datasets.decoding import decode
from datasets.view import REACH, neutral
from deepcluster import cluster
from deepcluster.descriptors import five_numbers
from deepcluster.trained import TrainedRun
from explain.__main__ import main
from explain.attribution import attribute
from explain.gallery import likeness
from explain.gallery.conclusions import facts_of_run
from explain.gallery.likeness import say_alike, size_and_colour
from explain.image import viewer_of_run
from explain.rendering import EMPTY
from explain.subject import SHOWN, Subject, find_pictures
from machine.files import read_csv

CPU = torch.device("cpu")
SIZE = 64


@pytest.fixture(scope="module")
def trained(struck, tmp_path_factory):
    exp = tmp_path_factory.mktemp("seen") / "exp"
    cluster(struck, exp, size=SIZE, k=2, epochs=1, batch=8)
    return exp


@pytest.fixture(scope="module")
def subject(trained):
    run = runs.open_run(trained)
    return Subject(run, 1, find_pictures(run, None, None, None, CPU), None, CPU)


def explain(monkeypatch, capsys, *words):
    return call_main(main, "explain", monkeypatch, capsys, *words)


def radii_from(subject, row):
    """(SHOWN, SHOWN): how far each pixel of what is drawn lies from the design's centre, in radii of the coin."""
    position = int(subject.pictures.position[row])
    dataset = subject.pictures.dataset
    place, (height, width) = dataset.places[position], dataset.decoded.shape[position]
    side = min(height, width)
    left, top = (
        max(0, min(round(at - (side - 1) / 2), length - side)) for at, length in ((place.x, width), (place.y, height))
    )
    steps = (np.arange(SHOWN) + 0.5) * side / SHOWN - 0.5
    return np.hypot(steps + left - place.center_x, (steps + top - place.center_y)[:, None]) / place.radius


def test_pictures_are_squares_of_the_photograph(subject, struck):
    rows = np.array([0, 7, 23])
    images = subject.images(rows)
    assert images.shape == (3, 3, SIZE // 2, 2 * SIZE)
    drawn = subject.drawn_on(rows)
    assert drawn.shape == (3, SHOWN, SHOWN, 3)
    for picture, row in zip(drawn, rows, strict=True):
        away = radii_from(subject, row)
        grey = picture.mean(2)
        assert grey[(away > 0.85) & (away < 0.93)].mean() > 150  # metal, beyond the ends of the design
        assert grey[away > 1.1].mean() < 70  # ground


def test_maps_lie_on_the_coin_and_nowhere_else(subject):
    rows = np.arange(0, 24, 5)
    images = subject.images(rows)
    targets = torch.as_tensor(subject.clusters.column_of(subject.clusters.assignment[rows]))
    maps = attribute(subject.model, images, targets, ["grad_cam", "guided_backprop", "occlusion"])
    for name, channels in (("grad_cam", 1), ("guided_backprop", 3), ("occlusion", 1)):
        back = subject.draw_back(rows, maps[name].float().numpy())
        assert back.shape == (5, channels, SHOWN, SHOWN)
        assert np.isfinite(back).all()
        for one, row in zip(back, rows, strict=True):
            assert not one[:, radii_from(subject, row) > REACH * (1 + 1 / SIZE)].any()
        assert np.abs(back).max() > 0.5 * float(maps[name].abs().max())
    everywhere = subject.draw_back(rows, np.ones((5, 1, SIZE // 2, 2 * SIZE), np.float32))
    for one, row in zip(everywhere, rows, strict=True):
        inside = radii_from(subject, row) < REACH * (1 - 1 / SIZE)
        np.testing.assert_allclose(one[0][inside], 1, rtol=1e-5)


def test_a_place_in_the_view_is_drawn_where_it_is_on_the_photograph(subject):
    """Half-way out: to the right of the centre, and a quarter of the way around below it."""
    rows = np.array([4, 9])
    maps = np.zeros((2, 1, SIZE // 2, 2 * SIZE), np.float32)
    down = round(SIZE / 4 / REACH)
    maps[0, 0, down, 0] = maps[1, 0, down, SIZE // 2] = 1
    back = subject.draw_back(rows, maps)[:, 0]
    for row, picture, (right, below) in zip(rows, back, ((1, 0), (0, 1)), strict=True):
        away = radii_from(subject, row)
        centre = np.unravel_index(away.argmin(), away.shape)
        top, left = np.unravel_index(picture.argmax(), picture.shape)
        assert away[top, left] == pytest.approx(0.5, abs=0.05)
        assert np.sign(round((left - centre[1]) / 5)) == right
        assert np.sign(round((top - centre[0]) / 5)) == below


def test_the_five_numbers_of_the_coins_are_measured_once(subject, tmp_path, monkeypatch):
    explanation = SimpleNamespace(subject=subject, folder=tmp_path)
    numbers = size_and_colour(explanation)
    places, decoded = subject.pictures.dataset.places, subject.pictures.dataset.decoded
    rows = subject.pictures.position
    expected = np.array([five_numbers(decoded[i], places[i]) for i in rows.tolist()])
    varying = expected.std(0) > 1e-6
    np.testing.assert_allclose(
        numbers[:, varying], ((expected - expected.mean(0)) / expected.std(0))[:, varying], atol=1e-4
    )
    monkeypatch.setattr(likeness, "ruler_and_colour", None)
    np.testing.assert_array_equal(size_and_colour(explanation), numbers)
    monkeypatch.setattr(likeness, "VERSION", likeness.VERSION + 1)  # coins are found elsewhere by now
    with pytest.raises(TypeError):
        size_and_colour(explanation)


def test_the_overview_says_what_is_clustered_beside_the_design(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "epoch_0001.pt").touch()

    def said(view, **config):
        meta = SimpleNamespace(
            config=config,
            dataset=SimpleNamespace(name="coins", images=9, limit=None),
            view=SimpleNamespace(size=96),
            stamp=SimpleNamespace(device="cpu"),
        )
        run = SimpleNamespace(meta=meta, path=tmp_path)
        subject = SimpleNamespace(run=run, view=view, seed=1, epoch=1)
        return dict(facts_of_run(SimpleNamespace(subject=subject))).get("clustered")

    assert (
        said("unrolled", facts="size,colour", facts_weight=1.2) == "design, and beside it size and colour (weight 1.2)"
    )
    assert said("unrolled", facts="", facts_weight=1.2) == "design alone"
    assert said("photograph", facts="", facts_weight=1.0) is None
    assert said("unrolled") is None  # not a run that clusters


def of_a_run(view="unrolled", digest=None, **config):
    return SimpleNamespace(
        run=SimpleNamespace(meta=SimpleNamespace(config=config)),
        view=view,
        seed=1,
        clusters=SimpleNamespace(digest=digest),
    )


def test_a_cluster_is_called_alike_in_size_or_colour_where_no_random_set_of_as_many_is_so():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(300, 5))
    numbers[:40, 0] = 1 + 0.2 * rng.normal(size=40)
    numbers[40:60, 1:] = 0.3 * rng.normal(size=(20, 4))
    numbers[0] = np.nan  # no coin was found in it
    both = of_a_run(facts="size,colour")
    [said] = say_alike(numbers, both, np.arange(40))
    assert said.startswith("Its coins are alike in size, which was clustered beside the design: their radii spread 0.")
    ratio = numbers[1:40, 0].std() / np.nanstd(numbers[:, 0])
    assert f"spread {ratio:.2f} times" in said
    [said] = say_alike(numbers, of_a_run(facts=""), np.arange(40, 60))
    assert said.startswith("Its coins are alike in colour, of which neither network nor clustering was told: ")
    [said] = say_alike(numbers, of_a_run(view="coin", facts="size"), np.arange(40, 60))
    assert "colour, which the network sees: " in said
    [said] = say_alike(numbers, of_a_run(digest="edited", facts="size"), np.arange(40))
    assert "in size: " in said
    assert say_alike(numbers, both, np.arange(60, 300)) == []
    assert say_alike(numbers, both, np.arange(8)) == []  # seven of which it is known: too few
    assert len(say_alike(numbers, both, np.arange(9))) == 1
    wider = numbers.copy()
    wider[:40, 0] = 0.65 * rng.normal(size=40)  # narrower than chance, but more than half as wide as all
    assert say_alike(wider, both, np.arange(40)) == []
    assert say_alike(None, both, np.arange(40)) == []


def test_a_run_explained_unasked_shows_the_view_too(trained, tmp_path, monkeypatch, capsys):
    out = tmp_path / "results"
    words = ["--run", trained, "--results", out, "--per-cluster", "2", "--device", "cpu"]
    assert explain(monkeypatch, capsys, *words)[0] == 0
    rows = read_csv(out / "1" / "explanations.csv")
    names = ("original", "grad_cam", "hires_cam", "guided_backprop", "guided_grad_cam", "view")
    assert rows
    for row in rows:
        opened = {name: np.asarray(Image.open(out / "1" / row[name]).convert("RGB")).astype(int) for name in names}
        assert {opened[name].shape for name in names[:-1]} == {(SHOWN, SHOWN, 3)}
        seen = opened["view"]
        assert seen.shape == (2 * SIZE, 2 * SIZE, 3)  # the strip, as wide as the square
        edge = 3 * SIZE // 4
        assert (seen[:edge] == EMPTY).all()
        assert (seen[-edge:] == EMPTY).all()
        assert seen[edge:-edge].std() > 5
        corner = opened["guided_backprop"][:4, :4]
        assert (np.abs(corner - EMPTY) <= 1).all()  # off the coin nothing is said
    page = (out / "1" / rows[0]["cluster"] / "index.html").read_text()
    assert "HiRes-CAM in the view" in page
    assert "clustered design, and beside it size (weight 1.2)" in (out / "index.html").read_text()
    assert (out / "1" / rows[0]["cluster"] / "_why.jpg").stat().st_size > 500
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*-*.png") if not path.name.startswith("_")}
    assert before
    assert explain(monkeypatch, capsys, *words)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_image_is_seen_as_in_the_run(trained, struck, tmp_path, monkeypatch, capsys):
    run = TrainedRun(trained)
    viewer = viewer_of_run(trained, "latest", CPU)
    name = run.run.ids[5]
    found = viewer.look(decode(struck / name, *viewer.sides)).images
    torch.testing.assert_close(found, run.images([5]))
    out = tmp_path / "out"
    words = ["--run", trained, "--methods", "original,grad_cam,view,occlusion", "--out", out, "--device", "cpu"]
    code, said, _ = explain(monkeypatch, capsys, "image", struck / name, *words)
    assert code == 0
    assert "cluster " in said
    with (out / f"{struck.joinpath(name).stem}.csv").open() as file:
        best = next(csv.DictReader(file))
    table = {row["image"]: row for row in read_csv(trained / "clusters.csv")}
    assert best["name"] == f"cluster {table[name]['predicted']}"
    assert float(best["probability"]) == pytest.approx(float(table[name]["probability"]), abs=1e-4)
    assert len(list(out.glob("*.png"))) == 4


def test_what_a_cluster_wants_is_shown_as_a_coin(trained, tmp_path, monkeypatch, capsys):
    out = tmp_path / "results"
    words = ["maximise", "--run", trained, "--results", out, "--steps", "3", "--style", "plain", "--device", "cpu"]
    assert explain(monkeypatch, capsys, *words)[0] == 0
    down, across = np.indices((SHOWN, SHOWN)) - (SHOWN - 1) / 2
    away = np.hypot(down, across) / (SHOWN / 2)
    for number in ("0", "1"):
        with Image.open(out / "1" / number / "activation_maximum.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        assert pixels.shape == (SHOWN, SHOWN, 3)
        assert (pixels[away > 1] == 0).all()
        assert (np.ptp(pixels, axis=2) == 0).all()  # a relief has no colours
        assert pixels[away < 0.9].std() > 1


def test_what_is_drawn_on_a_single_photograph_lies_where_the_gallery_has_it(
    trained, subject, struck, tmp_path, monkeypatch, capsys
):
    """`explain image` and the gallery draw a coin and its maps onto the same square, in the same colours."""
    name = subject.run.ids[8]
    words = ["--run", trained, "--methods", "original,grad_cam,guided_backprop", "--device", "cpu"]
    one = ["image", struck / name, "--target", subject.clusters.assignment[8], "--out", tmp_path / "one"]
    assert explain(monkeypatch, capsys, *one, *words)[0] == 0
    assert explain(monkeypatch, capsys, *words, "--results", tmp_path / "all")[0] == 0
    stem = name.rpartition("/")[2].rpartition(".")[0]
    for method in ("original", "grad_cam", "guided_backprop"):
        with Image.open(next((tmp_path / "all" / "1").glob(f"[01]/*{stem}*-{method}.png"))) as picture:
            there = np.asarray(picture.convert("RGB")).astype(int)
        with Image.open(tmp_path / "one" / f"{stem}-{method}.png") as picture:
            here = np.asarray(picture.convert("RGB")).astype(int)
        here = here[-here.shape[1] :: here.shape[1] // SHOWN, :: here.shape[1] // SHOWN]  # the title and size taken off
        assert np.abs(here - there).mean() < 1, method
        assert there.std() > 5, method


def test_nothing_to_see_is_mid_grey_and_no_edge(trained, subject, struck):
    """What covers and backgrounds are filled with is what the network sees off a coin."""
    for model in (subject.model, viewer_of_run(trained, "latest", CPU).model):
        shown = subject.trainer.photograph(model.neutral.expand(1, 3, 1, 1)).flatten()
        torch.testing.assert_close(shown, torch.tensor(neutral("unrolled")), atol=1e-3, rtol=0)
    strip = subject.images(np.array([8]))
    off_the_coin = (strip - subject.model.neutral).abs().amax(1)[0]
    assert (off_the_coin < 0.02).any()
