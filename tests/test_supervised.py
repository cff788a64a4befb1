"""`python -m supervised`: trained, continued, judged, reported and explained."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MNIST, ROOT, needs_mnist, refused, run_module
from PIL import Image
from torch import nn
from torch.testing import assert_close

import runs
from console import UserError
from supervised.judge import moved, vote, wilson
from supervised.launch import reliability
from supervised.models import MODELS, PUBLISHED, Augmentation, build
from supervised.predict import trained_model
from supervised.report import layers_of, readable
from supervised.speedrun import Trial, run_trial
from supervised.train import Split, augmented, evaluate, held_back

SMALL = ["--model", "drop_full_conv", "--limit", "1000", "--epochs", "4", "--mnist-dir", MNIST]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("supervised")
    result = run_module("supervised", "train", *SMALL, "--exp", root / "exp-one")
    assert result.returncode == 0, result.stderr
    assert "test 0." in result.stdout
    mlp = ["--model", "mlp", "--limit", "1000", "--epochs", "3", "--mnist-dir", MNIST, "--exp", root / "exp-mlp"]
    assert run_module("supervised", "train", *mlp).returncode == 0
    return root / "exp-one"


def blobs(count: int, seed: int) -> Split:
    """Ten easy classes: a bright square at one of ten places, in noise."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(0, 10, count)
    images = rng.random((count, 1, 28, 28)).astype(np.float32) * 0.3
    for image, value in zip(images, digits, strict=True):
        top, left = 4 + 11 * (value // 5), 2 + 5 * (value % 5)
        image[0, top : top + 5, left : left + 4] = 1
    return Split(torch.from_numpy(images), torch.from_numpy(digits))


# --- models and training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_each_model_comes_in_two_parts_that_are_one(name):
    net, images = build(name, 3).eval(), torch.rand(4, 1, 28, 28)
    assert net(images).shape == (4, 10)
    assert_close(net.from_maps(net.maps(images)), net(images))
    assert_close(net.classify(net.embed(images)), net(images))
    again = build(name, 3).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in net.state_dict().items())
    if name == "mlp":
        with pytest.raises(UserError, match="no convolution"):
            _ = net.cam_layer
    else:
        assert isinstance(net.cam_layer, nn.ReLU)
        assert set(PUBLISHED) == set(MODELS) - {"mlp"}


def test_cnn101_is_the_one_described():
    rows = [(row["layer"], row["shape"]) for row in layers_of(build("cnn101").eval())]
    layers = [layer.split()[-1] for layer, _ in rows]
    assert layers.count("Conv2d") == layers.count("BatchNorm2d") == 4
    assert [shape for layer, shape in rows if "MaxPool2d" in layer] == ["32 x 14 x 14", "64 x 7 x 7"]
    block = layers[1:4]
    assert block == ["Conv2d", "ReLU", "BatchNorm2d"]
    kernels = [module.kernel_size[0] for module in build("cnn101").modules() if isinstance(module, nn.Conv2d)]
    assert kernels == [5, 5, 3, 3]


def test_augmentation_shifts_zooms_and_turns_by_no_more_than_it_may():
    images = torch.zeros(64, 1, 28, 28)
    images[:, :, 13:15, 13:15] = 1
    assert torch.equal(augmented(images, Augmentation(), torch.Generator()), images)
    shifted = augmented(images, Augmentation(shift=0.1), torch.Generator().manual_seed(1))
    y = (shifted.sum((1, 3)) * torch.arange(28)).sum(1) / shifted.sum((1, 2, 3))
    assert float((y - 13.5).abs().max()) <= 2.81  # a tenth of the side
    assert float(y.std()) > 1
    turned = augmented(images, Augmentation(rotate=30), torch.Generator().manual_seed(1))
    assert_close(turned.sum((1, 2, 3)), torch.full((64,), 4.0), atol=0.3, rtol=0)  # the middle stays
    assert not torch.equal(turned[0], turned[1])
    once = augmented(images, Augmentation(rotate=9, zoom=0.1, shift=0.1), torch.Generator().manual_seed(5))
    assert torch.equal(
        once, augmented(images, Augmentation(rotate=9, zoom=0.1, shift=0.1), torch.Generator().manual_seed(5))
    )


def test_what_is_held_back_is_apart_and_comes_from_the_seed():
    learn, check = held_back(1000, 0.1, 2)
    assert len(check) == 100
    assert sorted([*learn, *check]) == list(range(1000))
    assert np.array_equal(check, held_back(1000, 0.1, 2)[1])
    assert not np.array_equal(check, held_back(1000, 0.1, 3)[1])


@needs_mnist
def test_the_run_directory_is_the_contract(trained):
    run = runs.open_run(trained)
    assert run.meta["kind"] == "supervised"
    assert len(run.ids) == 10000
    assert run.ids[7] == "test/00007"
    [epoch] = run.checkpoints()
    assert epoch in run.epochs()
    found = run.clusters(epoch)
    accuracy = float((found.assignment == np.array(run.labels, int)).mean())
    result = run.json("result.json")
    assert accuracy == pytest.approx(result["test_accuracy"])
    assert accuracy > 0.7
    best = min(run.log(), key=lambda row: float(row["validation_loss"]))
    assert result["best_epoch"] == epoch == int(best["epoch"])
    assert 0 <= found.distance.min() <= found.distance.max() <= 0.9
    kept = json.loads((trained.parent / "best_parameters.json").read_text())
    assert kept["run"] in ("exp-one", "exp-mlp")
    losses = [
        runs.open_run(trained.parent / name).json("result.json")["validation_loss"] for name in ("exp-one", "exp-mlp")
    ]
    assert kept["validation_loss"] == min(losses)
    assert {"epochs_asked", "epochs_used", "test_loss", "test_accuracy", "parameters"} <= kept.keys()


@needs_mnist
def test_killed_and_started_again_it_ends_the_same(trained, tmp_path):
    command = [sys.executable, "-m", "supervised", "train", *map(str, SMALL), "--exp", str(tmp_path / "torn")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "torn" / "log.csv").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not runs.open_run(tmp_path / "torn").checkpoints()
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert (tmp_path / "torn" / "clusters.csv").read_bytes() == (trained / "clusters.csv").read_bytes()
    one, two = (runs.open_run(path).checkpoint(runs.open_run(path).checkpoints()[0])["state"] for path in (trained, tmp_path / "torn"))  # fmt: skip
    assert all(torch.equal(one[name], two[name]) for name in one)


@needs_mnist
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--validation", "0"], "--validation 0"),
        (["--validation", "1"], "--validation 1"),
        (["--model", "resnet"], "--model resnet: unknown: use one of cnn101"),
        (["--limit", "60001"], "60000 training images"),
        (["--mnist-dir", "/no/such/folder"], "no such folder"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, words):
    assert words in refused(run_module("supervised", "train", *SMALL, *arguments, "--exp", tmp_path / "exp"))
    assert not (tmp_path / "exp").exists()


@needs_mnist
def test_damaged_files_other_settings_and_unfinished_runs_are_refused(trained, tmp_path):
    broken = tmp_path / "mnist"
    shutil.copytree(MNIST, broken)
    path = next(broken.glob("t10k-images*"))
    path.write_bytes(path.read_bytes()[:-1000])
    assert "damaged" in refused(
        run_module("supervised", "train", *SMALL, "--mnist-dir", broken, "--exp", tmp_path / "e")
    )
    sentence = refused(run_module("supervised", "train", *SMALL, "--seed", "7", "--exp", trained))
    assert "--seed 2 (now 7)" in sentence
    torn = tmp_path / "torn"
    shutil.copytree(trained, torn)
    (torn / "result.json").write_text('{"model": ')
    assert "result.json: damaged" in refused(run_module("supervised", "compare", torn))
    found, damaged = readable([torn / "result.json", trained / "result.json"])
    assert [run.path for run in found] == [trained]
    assert "result.json: damaged" in damaged[0]
    (torn / "result.json").unlink()
    assert "has not ended" in refused(run_module("supervised", "compare", torn))
    assert run_module("supervised", "train", *SMALL, "--exp", torn).returncode == 0
    assert runs.open_run(torn).json("result.json") == runs.open_run(trained).json("result.json")
    shutil.copytree(trained, tmp_path / "young")
    shutil.rmtree(tmp_path / "young" / "checkpoints")
    assert "has not ended" in refused(run_module("supervised", "test", "--run", tmp_path / "young"))


# --- judging --------------------------------------------------------------------------------------------------------


def test_votes_by_hand():
    said = np.array([[1, 7, 3, 9], [1, 2, 3, 4], [5, 2, 8, 0]])
    assert vote(said, np.ones((3, 10))).tolist() == [1, 2, 3, 0]  # among equals the smaller
    weight = np.ones((3, 10))
    weight[0, 7] = 5
    weight[2, 8] = 2.5
    assert vote(said, weight).tolist() == [1, 7, 8, 0]
    logits = torch.eye(10)[[0, 0, 0, 1]]
    assert reliability(logits, torch.tensor([0, 0, 5, 1]))[:3] == pytest.approx([2 / 3, 1, 0])


def test_wilsons_interval_against_published_values():
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_moved_images_go_right_and_down():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 5, 6] = 1
    assert moved(image, 0, 3)[0, 0, 8, 9] == 1
    assert_close(moved(moved(image, 90, 0), -90, 0), image, atol=1e-4, rtol=0)


@needs_mnist
def test_other_test_sets_ensembles_and_the_table(trained, tmp_path):
    usps = tmp_path / "usps"
    for value in range(3):
        (usps / str(value)).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(np.full((16, 16), 40 * value + i, np.uint8)).save(usps / str(value) / f"{i}.png")
    result = run_module("supervised", "test", "--run", trained, "--test", usps)
    assert result.returncode == 0, result.stderr
    assert "of 12 wrong" in result.stdout
    result = run_module("supervised", "test", "--run", trained, "--rotate", "25", "--shift", "2", "--mnist-dir", MNIST)
    assert "turned by 25 degrees and shifted by 2 pixels" in result.stdout
    turned = float(result.stdout.split("accuracy ")[1].split()[0])
    assert turned < runs.open_run(trained).json("result.json")["test_accuracy"]
    (usps / "x").mkdir()
    Image.new("L", (16, 16)).save(usps / "x" / "0.png")
    assert "one sub-folder for each digit" in refused(
        run_module("supervised", "test", "--run", trained, "--test", usps)
    )

    pair = [trained, trained.parent / "exp-mlp"]
    result = run_module("supervised", "ensemble", *pair, "--mnist-dir", MNIST)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("accuracy") == 4
    result = run_module("supervised", "compare", *pair)
    assert "| drop_full_conv | 1 |" in result.stdout
    assert "0.9927 | 0.0250 |" in result.stdout
    assert "at least two" in refused(run_module("supervised", "ensemble", trained))


def test_a_speedrun_learns_in_one_epoch():
    net = run_trial(Trial(2, 3), blobs(3000, 1), seed=1)
    assert evaluate(net, blobs(500, 2))["accuracy"] > 0.95
    again = run_trial(Trial(2, 3), blobs(3000, 1), seed=1)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), again.state_dict().values(), strict=True))


# --- pictures -------------------------------------------------------------------------------------------------------


@needs_mnist
def test_the_report_has_every_picture(trained):
    result = run_module("supervised", "report", "--run", trained, "--image", "3", "--mnist-dir", MNIST)
    assert result.returncode == 0, result.stderr
    html = (trained / "report.html").read_text()
    for name in ("curves", "confusion", "misclassified", "filters-0", "activations-0", "embeddings", "network"):
        assert f"figures/{name}.png" in html
        with Image.open(trained / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 250
            assert np.asarray(picture.convert("L")).std() > 10
    assert "drop_full_conv" in html
    assert "mlp" in html  # the run beside it
    assert "592,074" in html  # parameters in all
    assert "layers 0" in refused(
        run_module("supervised", "report", "--run", trained, "--layer", "3", "--mnist-dir", MNIST)
    )


@needs_mnist
def test_a_supervised_run_is_explained_by_the_same_command(trained, tmp_path):
    out = tmp_path / "results"
    arguments = ["--per-cluster", "4", "--pick", "atypical"]
    result = run_module("explain", "--run", trained, "--results", out, *arguments, MNIST_DIR=str(MNIST))
    assert result.returncode == 0, result.stderr
    run = runs.open_run(trained)
    [epoch] = run.checkpoints()
    table = runs.read_csv(out / str(epoch) / "explanations.csv")
    assert len(table) == 40
    wrong = [row for row in table if row["label"] != row["cluster"]]
    assert wrong
    assert all(("wrong" in row["flags"].split(";")) == (row in wrong) for row in table)
    page = (out / str(epoch) / "3" / "index.html").read_text()
    assert "Digit 3" in page
    assert "Cluster" not in page
    assert "wrong predictions" in page

    from datasets import open_dataset
    from supervised.predict import view

    row = table[0]
    model = trained_model(run, epoch)
    dataset = open_dataset("mnist:test", 28, mnist_dir=MNIST)
    image = view(dataset.pixels, np.array([run.ids.index(row["image"])]), torch.device("cpu"))
    assert float(row["score"]) == pytest.approx(model(image)[0, int(row["cluster"])].item(), rel=1e-4)
    with Image.open(out / str(epoch) / row["original"]) as picture:
        assert picture.size == (112, 112)
        shown = np.asarray(picture.convert("L"))[::4, ::4]
    assert_close(torch.tensor(shown) / 255, image[0, 0], atol=1e-6, rtol=0)


@needs_mnist
def test_a_network_without_convolutions_is_explained_by_gradients_alone(trained, tmp_path):
    mlp = trained.parent / "exp-mlp"
    out = tmp_path / "results"
    sentence = refused(run_module("explain", "--run", mlp, "--results", out, MNIST_DIR=str(MNIST)))
    assert "no convolution" in sentence
    assert not out.exists()
    arguments = ["--methods", "gradient,guided_backprop", "--per-cluster", "2"]
    result = run_module("explain", "--run", mlp, "--results", out, *arguments, MNIST_DIR=str(MNIST))
    assert result.returncode == 0, result.stderr
