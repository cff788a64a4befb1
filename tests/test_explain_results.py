"""`python -m explain --run`: the right picture for each image, nothing done twice, nothing mixed, nothing lost."""

import dataclasses
import json
import random
import re
import shutil
import subprocess
import sys
import types
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call_main, kill_module, photograph, refused, run_module
from PIL import Image
from torch.nn import functional

import runs
from console import UserError
from datasets import open_dataset
from deepcluster.trained import network
from deepcluster.views import MEAN, STD, Frames, fixed_view
from explain import scores
from explain.__main__ import main
from explain.attribution import METHODS, PHOTOGRAPH
from explain.drawing import say_beforehand
from explain.packing import pack
from explain.record import file_names
from explain.rendering import draw
from explain.results import SCHEMA, Kept, choose_format
from explain.scores import project
from machine.files import locked, read_csv

DRAWN = [PHOTOGRAPH, *(method.name for method in METHODS.values() if method.default)]
CORE = ("guided_backprop", "guided_grad_cam", "grad_cam")
TRAIN = ["--view", "photograph", "--size", "64", "--k", "4", "--epochs", "3", "--save-every", "2", "--batch", "16"]
TRAIN += ["--reassign", "4"]


def explain(run: Path, results: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return run_module("explain", "--run", run, "--results", results, *arguments)


@pytest.fixture(scope="module")
def trained(coins, tmp_path_factory) -> Path:
    exp = tmp_path_factory.mktemp("explained") / "exp"
    result = run_module("deepcluster", "train", coins, "--exp", exp, *TRAIN)
    assert result.returncode == 0, result.stderr
    return exp


@pytest.mark.parametrize("wanted", ["draw", "maximise", "pixelflip", "audit"])
def test_nothing_is_written_among_the_photographs(trained, coins, wanted, monkeypatch, capsys):
    before = sorted(coins.rglob("*"))
    words = (wanted, "--run", trained, "--results", coins / "results")
    code, _, error = call_main(main, "explain", monkeypatch, capsys, *words)
    assert (code, "among the photographs" in error) == (2, True)
    assert sorted(coins.rglob("*")) == before


@pytest.fixture(scope="module")
def results(trained) -> Path:
    """Explained with all defaults; not to be changed."""
    result = run_module("explain", "--run", trained)
    assert result.returncode == 0, result.stderr
    assert "index.html" in result.stdout
    assert (trained.parent / "results" / "index.html").exists()  # results/ for exp/
    return trained.parent / "results"


def test_a_dry_run_says_what_would_be_drawn_and_writes_nothing(trained, results, tmp_path):
    plan = explain(trained, tmp_path / "new", "--per-cluster", "2", "--dry-run")
    assert plan.returncode == 0, plan.stderr
    pictures = 8 * len(DRAWN)
    assert f"8 images in 4 clusters, {', '.join(DRAWN)}: {pictures} pictures to draw, 0 are there" in plan.stdout
    assert re.search(r"on the (CPU, \d+ threads?|GPU .*): about \d+ \w+ \(4 images were drawn", plan.stdout)
    assert f"Next: python -m explain --run {trained} --results {tmp_path / 'new'} --per-cluster 2\n" in plan.stdout
    assert not (tmp_path / "new").exists()
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert f"0 pictures to draw, {48 * len(DRAWN)} are there" in explain(trained, results, "--dry-run").stdout
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*")} == before


def test_a_dry_run_says_nothing_of_the_few_that_it_draws(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("explain.drawing.BATCH", {"cpu": 8})  # so that its sample is several batches
    asked = ("--run", trained, "--results", tmp_path / "new", "--methods", "grad_cam", "--dry-run", "--shard", "1/2")
    code, said, error = call_main(main, "explain", monkeypatch, capsys, *asked)
    assert code == 0, error
    assert "24 images in 4 clusters" in said
    assert "20 images were drawn to measure it" in said
    assert "by the first that are drawn" not in said


def naive_maps(model: torch.nn.Module, image: torch.Tensor, cluster: int) -> dict[str, np.ndarray]:
    """The three methods for one image, straight from the papers: plain hooks, one pass each, nothing fused."""
    kept = {}
    handle = model.cam_layer.register_forward_hook(lambda _, __, output: kept.update(a=output))
    logit = model(image)[0, cluster]
    (gradient,) = torch.autograd.grad(logit, kept["a"])
    handle.remove()
    heat = (gradient.mean((2, 3), keepdim=True) * kept["a"]).sum(1, keepdim=True).clamp(min=0)
    heat = functional.interpolate(heat, image.shape[2:], mode="bilinear")
    handles = [
        module.register_full_backward_hook(lambda _, inputs, __: (inputs[0].clamp(min=0),))
        for module in model.modules()
        if isinstance(module, torch.nn.ReLU)
    ]
    pixels = image.clone().requires_grad_()
    (guided,) = torch.autograd.grad(model(pixels)[0, cluster], pixels)
    for handle in handles:
        handle.remove()
    maps = {"grad_cam": heat, "guided_backprop": guided, "guided_grad_cam": guided * heat}
    return {name: value[0].detach().numpy() for name, value in maps.items()}


def check_pictures(run_path: Path, results: Path, count: int) -> None:
    run = runs.open_run(run_path)
    epoch = run.checkpoints()[-1]
    view = run.meta.view
    dataset = open_dataset(run.meta.dataset.source, view.decoded_side, at_most=view.decode_at_most)
    assert dataset.ids == run.ids
    assignment = run.clusters(epoch).assignment
    model = network(run, epoch)
    table = {row["image"]: row for row in read_csv(results / str(epoch) / "explanations.csv")}
    assert len(table) == len(run.ids)
    for i in np.random.default_rng(1).choice(len(run.ids), count, replace=False):
        row = table[run.ids[i]]
        assert row["cluster"] == str(assignment[i])
        image = fixed_view(Frames(dataset.pixels, torch.device("cpu")), np.array([i]), view.size, view.center_crop)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        eye = ((image[0] * std + mean) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        with torch.no_grad():
            logits = model(image)[0]
        others = logits.clone()
        others[assignment[i]] = -torch.inf
        assert float(row["score"]) == pytest.approx(float(logits[assignment[i]]), rel=1e-3, abs=1e-4)
        assert row["rival"] == str(int(others.argmax()))
        assert float(row["margin"]) == pytest.approx(float(logits[assignment[i]] - others.max()), rel=1e-3, abs=1e-3)
        naive = naive_maps(model, image, int(assignment[i]))
        for method in ("original", *CORE):
            path = results / str(epoch) / row[method]
            assert path.parent.name == str(assignment[i])
            shown = np.asarray(Image.open(path).convert("RGB")).astype(float)
            wanted = (
                eye if method == "original" else np.asarray(draw(METHODS[method], naive[method], eye).convert("RGB"))
            )
            times = len(shown) // len(wanted)
            wanted = wanted.repeat(times, 0).repeat(times, 1)
            different = (np.abs(shown - wanted) > 8).mean()  # rounding may flip a ReLU or a pool's choice
            assert different < 0.03, (run.ids[i], method, different)


def test_every_picture_is_the_map_of_its_image_for_its_clusters_logit(trained, results):
    check_pictures(trained, results, 12)


def test_an_import_with_an_empty_cluster_is_explained_by_the_right_logits(original, tmp_path):
    arguments = ["--data", original["data"], "--out", tmp_path / "exp", "--clusters", original["root"] / "triples"]
    imported = run_module("deepcluster", "import", original["root"] / "checkpoint.pth.tar", *arguments)
    assert imported.returncode == 0, imported.stderr
    result = explain(tmp_path / "exp", tmp_path / "results")
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "results" / "9" / "2").exists()  # the empty one
    check_pictures(tmp_path / "exp", tmp_path / "results", 5)


def test_what_lands_in_results(trained, results, coins):
    folder = results / "3"
    clusters = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    table = read_csv(folder / "explanations.csv")
    assert {path.name for path in clusters} == {row["cluster"] for row in table}
    wanted = ["image", "cluster", "label", "score", "rival", "margin", "probability", "distance", "rank", "target"]
    assert list(table[0]) == [*wanted, "original", *CORE, "grad_cam.peak", "flags"]
    for cluster in clusters:
        for name in ("_sheet.jpg", "_mean.png", "_mean-grad_cam.png", "_why.jpg", "index.html"):
            assert (cluster / name).stat().st_size > 500
        members = [row for row in table if row["cluster"] == cluster.name]
        assert [int(row["rank"]) for row in members] == list(range(1, len(members) + 1))
        distances = [float(row["distance"]) for row in members]
        assert distances == sorted(distances)
        assert len(list(cluster.glob("*-*.png"))) == 4 * len(members) + 1
    assert read_csv(folder / "skipped.csv") == []


def pictures(results: Path) -> dict[str, bytes]:
    kept = (".png", ".jpg", ".csv", ".html", ".js", ".css", ".webp")
    files = [path for path in results.rglob("*") if path.suffix in kept and path.name != "originals.js"]  # says where
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


def test_a_second_call_does_only_what_is_missing(trained, results, tmp_path):
    mine = tmp_path / "results"
    shutil.copytree(results, mine)
    before = pictures(mine)
    victims = sorted(path for path in mine.rglob("*-grad_cam.png") if not path.name.startswith("_"))
    victims[0].unlink()
    victims[1].write_bytes(b"")
    drawn = {path: path.stat().st_mtime_ns for path in mine.rglob("*-*.png") if not path.name.startswith("_")}
    assert explain(trained, mine).returncode == 0
    assert pictures(mine) == before
    again = {path for path, when in drawn.items() if path.stat().st_mtime_ns != when}
    assert again == {victims[1]}
    assert victims[0].exists()
    assert explain(trained, mine, "--methods", "layer-cam").returncode == 0  # another method joins
    row = read_csv(mine / "3" / "explanations.csv")[0]
    assert (mine / "3" / row["layer_cam"]).exists()
    assert (mine / "3" / row["grad_cam"]).exists()


def test_killed_at_any_instant_it_continues_to_the_same_pictures(trained, results, tmp_path):
    torn = tmp_path / "torn"
    whole = sum(path.is_file() for path in results.rglob("*"))
    for share in sorted(random.Random(5).uniform(0, 0.9) for _ in range(4)):
        assert kill_module(
            lambda: sum(path.is_file() for path in torn.rglob("*")) > share * whole,  # noqa: B023 - called before the next
            *("explain", "--run", trained, "--results", torn),
        )
    assert explain(trained, torn).returncode == 0
    assert pictures(torn) == pictures(results)


def test_umap_is_the_users_own_package(trained, tmp_path, monkeypatch):
    """Without it one sentence; with it (here what would be called, recorded) the map is centred and within -1 .. 1."""
    if find_spec("umap") is None:
        said = refused(explain(trained, tmp_path / "none", "--map", "umap"))
        assert "--map umap" in said
        assert "pip install umap-learn" in said
        assert not (tmp_path / "none").exists()
    asked = {}

    class Recorded:
        def __init__(self, **settings):
            asked.update(settings)

        def fit_transform(self, features):
            asked["features"] = features.shape
            return features[:, :2] + 7

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Recorded))
    found = project(np.random.default_rng(3).normal(size=(9, 60)), "umap", 2**32 + 5)
    assert asked == {
        "n_components": 2,
        "n_neighbors": 8,
        "init": "pca",
        "random_state": 5,
        "n_jobs": 1,
        "features": (9, 9),
    }
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(np.abs(found).max(0), 1)


def test_many_images_are_placed_among_those_that_tsne_is_made_of(monkeypatch):
    """Blobs stay apart, images that lie on each other meet on the map, and nothing is left to chance."""
    blobs = np.repeat(np.eye(4) * 50, 40, 0)
    points = np.hstack([blobs, np.zeros((160, 4))]) + np.random.default_rng(0).normal(size=(160, 8))
    monkeypatch.setattr(scores, "DRAWN", 60)
    found = project(points, "tsne", 7)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(project(points, "tsne", 7), found)
    away = np.linalg.norm(found[:, None] - found, axis=2) + 9 * np.eye(160)
    assert scores.map_in_words("tsne", 160) == "t-SNE of 60 of them, the others placed among these"
    assert scores.map_in_words("tsne", 60) == "t-SNE"
    assert (away.argmin(1) // 40 == np.arange(160) // 40).all()
    monkeypatch.undo()
    assert len({*map(tuple, project(points, "tsne", 7))}) == 160  # of few images all have a place of their own


def test_a_choice_of_clusters_images_methods_and_formats(trained, tmp_path):
    out = tmp_path / "some"
    arguments = ["--clusters", "1,2", "--per-cluster", "3", "--methods", "hires_cam,gradient", "--format", "webp"]
    result = explain(trained, out, *arguments, "--pick", "atypical", "--epoch", "2", "--map", "tsne")
    assert result.returncode == 0, result.stderr
    table = read_csv(out / "2" / "explanations.csv")
    assert {row["cluster"] for row in table} <= {"1", "2"}
    assignment = runs.open_run(trained).clusters(2).assignment
    for cluster in {row["cluster"] for row in table}:
        size = int((assignment == int(cluster)).sum())
        ranks = [int(row["rank"]) for row in table if row["cluster"] == cluster]
        assert ranks == list(range(size - len(ranks) + 1, size + 1))
        assert len(ranks) == min(3, size)
    assert Image.open(out / "2" / table[0]["gradient"]).format == "WEBP"
    assert "grad_cam" not in table[0]


def test_all_kept_epochs_and_another_target(trained, tmp_path):
    out = tmp_path / "margin"
    result = explain(trained, out, "--epoch", "all", "--target", "margin", "--per-cluster", "2")
    assert result.returncode == 0, result.stderr
    assert {path.parent.name for path in out.glob("*/explanations.csv")} == {"2", "3"}
    assert "margin" in (out / "index.html").read_text()
    assert 'href="./2/index.html"' in (out / "index.html").read_text()
    sentence = refused(explain(trained, out, "--target", "rival"))
    assert "--target margin" in sentence


def test_the_margins_picture_differs_from_the_owns(trained, results, tmp_path):
    assert explain(trained, tmp_path / "m", "--target", "margin").returncode == 0
    table = read_csv(results / "3" / "explanations.csv")
    paths = [row["guided_backprop"] for row in table]
    assert any((results / "3" / path).read_bytes() != (tmp_path / "m" / "3" / path).read_bytes() for path in paths)
    same = [row["original"] for row in table]
    assert all((results / "3" / path).read_bytes() == (tmp_path / "m" / "3" / path).read_bytes() for path in same)


def test_images_that_are_gone_are_named_counted_and_skipped(trained, coins, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(coins, moved)
    gone = sorted(path.relative_to(moved).as_posix() for path in moved.rglob("*.jpg"))[:3]
    for name in gone:
        (moved / name).unlink()
    photograph(moved / "new.jpg", 99)  # newer than the run: none of its business
    out = tmp_path / "results"
    result = explain(trained, out, "--data", moved)
    assert result.returncode == 0, result.stderr
    assert f"3 of 48 images are not there any more (the first: {gone[0]!r})" in result.stdout
    assert [row["image"] for row in read_csv(out / "3" / "skipped.csv")] == gone
    table = read_csv(out / "3" / "explanations.csv")
    assert len(table) == 45
    assert not {row["image"] for row in table} & {*gone, "new.jpg"}
    assert explain(trained, out).returncode == 0  # they are back: only they are drawn
    assert len(read_csv(out / "3" / "explanations.csv")) == 48


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--epoch", "1"], "kept the weights of epochs 2, 3"),
        (["--epoch", "soon"], "whole number"),
        (["--methods", "grad-camm"], "did you mean grad_cam?"),
        (["--clusters", "77"], "--clusters 77"),
        (["--target", "77"], "--target 77"),
        (["--data", "/no/such/folder"], "no such folder"),
        (["--assignments", "/no/such.csv"], "no such file"),
    ],
)
def test_bad_input_is_one_sentence(trained, tmp_path, arguments, words):
    assert words in refused(explain(trained, tmp_path / "results", *arguments))
    assert not (tmp_path / "results").exists()


def test_no_run_no_epoch_another_runs_results(trained, results, coins, tmp_path):
    assert "not a run directory" in refused(explain(tmp_path / "nowhere", tmp_path / "r"))
    shutil.copytree(trained, tmp_path / "young")
    shutil.rmtree(tmp_path / "young" / "checkpoints")
    assert "no epoch is finished" in refused(explain(tmp_path / "young", tmp_path / "r"))
    shutil.copytree(trained, tmp_path / "other")
    meta = json.loads((trained / "run.json").read_text()) | {"seed": 7}
    (tmp_path / "other" / "run.json").write_text(json.dumps(meta))
    before = pictures(results)
    assert "another run (exp)" in refused(explain(tmp_path / "other", results))
    assert pictures(results) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "thesis.txt" in refused(explain(trained, tmp_path / "mine"))
    empty = tmp_path / "empty"
    photograph(empty / "a.jpg", 1)
    assert "none of the run's 48 images" in refused(explain(trained, tmp_path / "r", "--data", empty))


def test_results_of_a_newer_version_are_left_alone(trained, results, tmp_path):
    mine = tmp_path / "results"
    shutil.copytree(results, mine)
    kept = json.loads((mine / "results.json").read_text())
    (mine / "results.json").write_text(json.dumps(kept | {"schema": 99}))
    assert "newer version" in refused(explain(trained, mine))
    (mine / "results.json").write_text("[]")
    assert "damaged" in refused(explain(trained, mine))


def test_a_second_explain_at_the_same_time_is_refused(trained, results):
    with locked(results, "busy"):
        assert "another explain is writing here" in refused(explain(trained, results))


def test_full_disk_is_one_sentence_and_it_continues(trained, results, small_disk):
    mine = small_disk("1m") / "results"
    assert "no space left" in refused(explain(trained, mine))
    small_disk("100m")
    assert explain(trained, mine).returncode == 0
    assert pictures(mine) == pictures(results)


def test_what_a_failing_disk_left_behind_is_made_again(trained, results, tmp_path):
    mine = tmp_path / "results"
    shutil.copytree(results, mine)
    before = pictures(mine)
    for path in [*mine.rglob("*.npz"), mine / "3" / ".random-weights.json"]:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])  # cut in half
    cluster = next(path for path in (mine / "3").iterdir() if path.name.isdigit())
    for name in ("_mean.png", "_sheet.jpg", "_why.jpg", "index.html"):
        (cluster / name).write_bytes(b"")
    result = explain(trained, mine)
    assert result.returncode == 0, result.stderr
    assert pictures(mine) == before
    next(cluster.glob("*-grad_cam.png")).unlink()  # and one that this call does not look after
    other = next(path.name for path in (mine / "3").iterdir() if path.name.isdigit() and path != cluster)
    assert explain(trained, mine, "--clusters", other).returncode == 0


def test_file_names_are_safe_unique_and_legible():
    ids = [
        "a/b.jpg",
        "a_b.jpg",
        "c.png",
        "c.tif",
        "A/B.jpg",
        "<img onerror=alert(1)>.jpg",
        "m\u00fcnze 1.jpg",
        "..",
        "x" * 300,
    ]
    ids += ["\u94b1" * 200, "new\nline.jpg", "odd\udce9.jpg", "-rf.jpg", "_sheet.jpg", "d.e/f.g.h.jpg"]
    names = file_names(ids)
    assert len({name.casefold() for name in names}) == len(ids)
    assert names[6] == "m\u00fcnze_1"
    assert names[-1] == "d.e_f.g.h"
    for name in names:
        assert len(f".{name}-guided_backprop.png.tmp".encode()) < 255
        assert not set(name) & set("/\\<>:\"|?*\n'% ")
        assert not name.startswith(("-", "_", "."))
    assert file_names(ids) == names


def test_what_the_pictures_will_take_is_said_beforehand_and_true(trained, tmp_path):
    result = explain(trained, tmp_path / "results")
    assert result.returncode == 0, result.stderr
    said = re.search(r"48 images: about (\d+) MB of pictures in (\d+) files \(png", result.stdout)
    assert said, result.stdout
    pictures = [one for one in (tmp_path / "results").glob("*/*/*-*.png") if not one.name.startswith("_")]
    assert int(said[2]) == len(pictures) == 48 * 4
    assert abs(int(said[1]) - sum(one.stat().st_size for one in pictures) / 1e6) <= 1


def test_a_full_disk_is_told_after_the_first_batch(trained, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    explanation = types.SimpleNamespace(folder=tmp_path, choice=types.SimpleNamespace(format="jpeg"))
    with pytest.raises(UserError, match="about 25 MB are needed"):
        say_beforehand(explanation, 100, 100, 250_000)


def test_very_many_pictures_are_webp_and_a_folder_keeps_its_format(trained, tmp_path, monkeypatch):
    run, there = runs.open_run(trained), tmp_path / "there"
    assert choose_format(there, run, None) == "png"
    monkeypatch.setattr("explain.results.LOSSLESS", 47)
    assert choose_format(there, run, None) == "webp"
    assert choose_format(there, run, 3) == "png"
    there.mkdir()
    kept = Kept(SCHEMA, run.identity, "exp", format="jpeg")
    (there / "results.json").write_text(json.dumps(dataclasses.asdict(kept)))
    assert choose_format(there, run, None) == "jpeg"


def test_the_zip_holds_what_the_pages_need_and_no_strangers_is_written_over(trained, tmp_path):
    out = tmp_path / "results"
    mine = tmp_path / "results.zip"
    mine.write_bytes(b"my holidays")
    few = ["--clusters", "0,1", "--methods", "grad_cam", "--zip"]
    assert "holds no explanations" in refused(explain(trained, out, *few))
    assert mine.read_bytes() == b"my holidays"
    assert not out.exists()
    mine.unlink()
    for _ in range(2):
        assert explain(trained, out, *few).returncode == 0
        with zipfile.ZipFile(mine) as packed:
            assert packed.testzip() is None
            names = set(packed.namelist())
        there = {one.relative_to(tmp_path).as_posix() for one in out.rglob("*") if one.is_file()}
        assert names == {name for name in there if "/." not in name}
    (out / "elsewhere.png").symlink_to("/etc/passwd")
    pack(out)
    with zipfile.ZipFile(mine) as packed:
        assert set(packed.namelist()) == names  # no link is followed
