"""`python -m supervised train`: begun, continued, refused; what it leaves; and the steps of the loop."""

import dataclasses
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
from test_supervised_data import CLASSES, blobs, write_labelled
from torch.testing import assert_close

import runs
from console import UserError
from machine.files import read_csv
from runs.tables import CLUSTERS
from supervised import trained as opened
from supervised.__main__ import build_parser
from supervised.evaluate import read_result
from supervised.launch import configure, keep_best, read_best, train_command
from supervised.learners import augment, evaluate
from supervised.recipes import Augmentation
from supervised.train import Best, State, is_finished, split_validation, start

SMALL = ["--model", "drop_full_conv", "--limit", "1000", "--epochs", "3", "--mnist-dir", MNIST]
CPU = torch.device("cpu")


def train(exp: Path, *options: object) -> runs.Run:
    """`python -m supervised train`, in this process."""
    train_command(build_parser().parse_args(["train", *map(str, options), "--exp", str(exp)]))
    return runs.open_run(exp)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("labelled") / "blobs")


@pytest.fixture(scope="module")
def small(tmp_path_factory, data) -> runs.Run:
    """A finished run on three classes of photographs."""
    return train(
        tmp_path_factory.mktemp("runs") / "one", data, "--model", "drop_conv", "--epochs", 6, "--batch-size", 16
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A finished run on digits, by the command."""
    exp = tmp_path_factory.mktemp("supervised") / "exp-one"
    result = run_module("supervised", "train", *SMALL, "--exp", exp)
    assert result.returncode == 0, result.stderr
    assert "mnist: 1000 images to train on, 10000 to test on, 10 classes; on the " in result.stdout
    assert "test 0." in result.stdout
    return exp


# --- what it leaves -------------------------------------------------------------------------------------------------


@needs_mnist
def test_the_run_directory_is_the_contract(trained):
    run = runs.open_run(trained)
    assert run.meta.kind == "supervised"
    assert run.meta.dataset.source == "mnist:test"
    assert run.meta.model["classes"] == [str(digit) for digit in range(10)]
    assert len(run.ids) == 10000
    assert run.ids[7] == "test/00007"
    [epoch] = run.checkpoints()
    assert epoch in run.epochs()
    found = run.clusters(epoch)
    accuracy = float((found.assignment == np.array(run.labels, int)).mean())
    result = run.read_json("result.json")
    assert accuracy == pytest.approx(result["test_accuracy"])
    assert accuracy > 0.6
    best = min(run.log(), key=lambda row: float(row["validation_loss"]))
    assert result["best_epoch"] == epoch == int(best["epoch"])
    assert 0 <= found.distance.min() <= found.distance.max() <= 0.9
    rows = read_csv(trained / "clusters.csv")
    assert list(rows[0]) == [column.name for column in CLUSTERS]
    assert [int(row["cluster"]) for row in rows] == found.assignment.tolist()
    kept = json.loads((trained.parent / "best_parameters.json").read_text())
    assert kept["run"] == "exp-one"
    assert kept["validation_loss"] == result["validation_loss"]
    assert {"epochs_asked", "epochs_used", "test_loss", "test_accuracy", "parameters"} <= kept.keys()
    shown = run_module("runs", "show", trained).stdout
    assert "supervised run" in shown
    assert "3 of 3 finished" in shown


def test_another_labelled_set_walks_in_by_the_door(small, data):
    assert small.meta.dataset.name == "blobs"
    assert small.meta.dataset.source == str(data / "test")
    assert small.meta.model == {"name": "drop_conv", "size": 28, "channels": 1, "classes": list(CLASSES)}
    result = small.read_json("result.json")
    assert result["test_accuracy"] > 0.9
    [epoch] = small.checkpoints()
    predicted = [CLASSES[i] for i in small.clusters(epoch).assignment]
    assert np.mean([a == b for a, b in zip(predicted, small.labels, strict=True)]) == result["test_accuracy"]
    assert read_best(small.path.parent / "best_parameters-blobs.json")["run"] == "one"


def test_a_trained_run_is_opened_again(small, data):
    assert opened.group(small) == "label"
    assert opened.class_names(small) == list(CLASSES)
    net = opened.network(small)
    begun = start(configure_as(small), small.meta.model, CPU).learner.network().state_dict()
    before = opened.untrained(small, net).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in begun.items())  # as before the first epoch
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    images = opened.training_images(small)
    assert len(images) == 120
    assert [CLASSES[i] for i in opened.class_index(small, images)] == images.labels

    @dataclasses.dataclass
    class Frames:
        pixels: object
        device: torch.device

    seen = opened.view(small, Frames(images.pixels, CPU), np.array([3, 5]))
    assert seen.shape == (2, 1, 28, 28)
    assert_close(opened.photograph(seen), seen)
    assert 0 <= float(seen.min()) <= float(seen.max()) <= 1
    logits = net(seen)
    assert_close(opened.for_inference(net)(seen), logits)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def configure_as(run):
    from supervised.train import Config

    return Config(**run.meta.config)


@needs_mnist
def test_a_run_of_schema_1_still_opens_and_continues(trained, tmp_path):
    """Its run.json names the network alone and knows no size; written by hand from a new one's."""
    old = tmp_path / "old"
    shutil.copytree(trained, old)
    meta = json.loads((old / "run.json").read_text())
    meta |= {"schema": 1, "model": {"name": "drop_full_conv"}}
    meta["dataset"]["key"] = "mnist:test"
    for name in ("size", "stop_at_accuracy"):
        del meta["config"][name]
    del meta["imported"], meta["memory_format"], meta["view"]["decode_at_most"]
    (old / "run.json").write_text(json.dumps(meta))
    run = runs.open_run(old)
    saved = run.checkpoint(run.checkpoints()[0])
    run.write_checkpoint(saved["epoch"], saved | {"model": {"name": "drop_full_conv"}})
    assert opened.group(run) == "digit"
    ours, theirs = opened.network(run).state_dict(), opened.network(runs.open_run(trained)).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    train(old, *SMALL)
    with pytest.raises(UserError, match="--seed 2 \\(now 3\\)"):
        train(old, *SMALL, "--seed", 3)


# --- continued and refused ------------------------------------------------------------------------------------------


def test_killed_and_started_again_it_ends_the_same(small, data, tmp_path):
    options = ["--model", "drop_conv", "--epochs", "6", "--batch", "16"]
    command = [sys.executable, "-m", "supervised", "train", str(data), *options, "--run", str(tmp_path / "torn")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "torn" / "log.csv").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not runs.open_run(tmp_path / "torn").checkpoints()
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert_same_end(small, runs.open_run(tmp_path / "torn"))


@pytest.mark.parametrize("options", [("--model", "drop_conv"), ("--model", "autodiff", "--batch", 16)])
def test_a_training_in_two_parts_is_the_same_training(data, tmp_path, monkeypatch, options):
    whole = train(tmp_path / "whole", data, *options, "--epochs", 3)

    class Stopped(Exception):
        pass

    def stop(run, content):
        write(run, content)
        if content["epoch"] == 2:
            raise Stopped

    write = runs.Run.write_latest
    monkeypatch.setattr(runs.Run, "write_latest", stop)
    with pytest.raises(Stopped):
        train(tmp_path / "parts", data, *options, "--epochs", 3)
    monkeypatch.undo()
    assert_same_end(whole, train(tmp_path / "parts", data, *options, "--epochs", 3))


def assert_same_end(one, two):
    assert (one.path / "clusters.csv").read_bytes() == (two.path / "clusters.csv").read_bytes()
    assert one.checkpoints() == two.checkpoints()
    a, b = (run.checkpoint(run.checkpoints()[0])["state"] for run in (one, two))
    assert all(torch.equal(a[name], b[name]) for name in a)
    without = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.log()] for run in (one, two)]
    assert without[0] == without[1]


@needs_mnist
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--validation", "0"], "--validation 0"),
        (["--validation", "1"], "--validation 1"),
        (["--model", "resnet"], "--model resnet: unknown: use one of cnn101"),
        (["--limit", "60001"], "60000 training images"),
        (["--limit", "1"], "none is left"),
        (["--size", "4"], "--size 4 is too small"),
        (["--mnist-dir", "/no/such/folder"], "no such folder"),
        (["/no/such/folder"], "no such folder"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, words):
    with pytest.raises(UserError, match=words):
        train(tmp_path / "exp", *SMALL, *arguments)
    assert not (tmp_path / "exp").exists()


def test_the_commands_sentence_and_exit_code(tmp_path):
    assert "--validation 0" in refused(
        run_module("supervised", "train", "--validation", "0", "--exp", tmp_path / "exp")
    )


def test_other_settings_images_and_folders_are_refused(small, data, tmp_path):
    options = ["--model", "drop_conv", "--epochs", 6, "--batch", 16]
    with pytest.raises(UserError, match="--seed 2 \\(now 7\\)"):
        train(small.path, data, *options, "--seed", 7)
    with pytest.raises(UserError, match="other images"):
        train(small.path, write_labelled(tmp_path / "others", each=20), *options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="not a run directory"):
        train(tmp_path / "mine", data, *options)
    before = (small.path / "clusters.csv").read_bytes()
    train(small.path, data, *options)  # ended already: says so, and changes nothing
    assert (small.path / "clusters.csv").read_bytes() == before


def test_a_result_that_is_missing_is_written_again(small, data, tmp_path):
    shutil.copytree(small.path, tmp_path / "torn")
    (tmp_path / "torn" / "result.json").unlink()
    again = train(tmp_path / "torn", data, "--model", "drop_conv", "--epochs", 6, "--batch", 16)
    assert again.read_json("result.json") == small.read_json("result.json")


@needs_mnist
def test_damaged_digits_are_refused(tmp_path):
    broken = tmp_path / "mnist"
    shutil.copytree(MNIST, broken)
    path = next(broken.glob("t10k-images*"))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="damaged"):
        train(tmp_path / "exp", *SMALL, "--mnist-dir", broken)


# --- when it ends ---------------------------------------------------------------------------------------------------


def test_it_stops_at_an_accuracy_and_keeps_that_epoch(data, tmp_path):
    run = train(tmp_path / "exp", data, "--model", "mlp", "--epochs", 40, "--stop-at-accuracy", 0.6)
    reached = [float(row["validation_accuracy"]) >= 0.6 for row in run.log()]
    assert reached.index(True) == len(reached) - 1 < 39
    assert run.checkpoints() == [len(reached)]
    options = build_parser().parse_args(["train", "--model", "small_conv"])
    assert configure(options).stop_at_accuracy == 0.97


def test_patience_ends_and_can_be_done_without(small):
    config = configure_as(small)
    state = State(None, epoch=5, best=Best(2, 1.0, 0.5))
    assert is_finished(state, dataclasses.replace(config, epochs=9, patience=3))
    assert not is_finished(state, dataclasses.replace(config, epochs=9, patience=4))
    assert not is_finished(state, dataclasses.replace(config, epochs=9, patience=None))
    assert configure(build_parser().parse_args(["train", "--no-early-stopping"])).patience is None


def test_the_best_of_several_runs_and_damaged_notes(small, tmp_path):
    config, result = configure_as(small), read_result(small)
    path = tmp_path / "best_parameters-blobs.json"

    def with_loss(loss):
        return dataclasses.replace(result, validation_loss=loss)

    for damaged in ("{", "[]", '{"run": 3}', '{"run": "x", "validation_loss": "low"}', '"text"'):
        path.write_text(damaged)
        assert read_best(path) is None
        keep_best(dataclasses.replace(small, path=tmp_path / "a"), with_loss(0.5), config)
        assert read_best(path)["run"] == "a"
    keep_best(dataclasses.replace(small, path=tmp_path / "b"), with_loss(0.6), config)
    assert read_best(path)["run"] == "a"
    keep_best(dataclasses.replace(small, path=tmp_path / "c"), with_loss(0.4), config)
    assert read_best(path)["run"] == "c"
    assert read_best(path)["parameters"]["model"] == "drop_conv"


# --- the steps ------------------------------------------------------------------------------------------------------


def test_augmentation_shifts_zooms_and_turns_by_no_more_than_it_may():
    images = torch.zeros(64, 1, 28, 28)
    images[:, :, 13:15, 13:15] = 1
    assert torch.equal(augment(images, Augmentation(), torch.Generator()), images)
    shifted = augment(images, Augmentation(shift=0.1), torch.Generator().manual_seed(1))
    y = (shifted.sum((1, 3)) * torch.arange(28)).sum(1) / shifted.sum((1, 2, 3))
    assert float((y - 13.5).abs().max()) <= 2.81  # a tenth of the side
    assert float(y.std()) > 1
    turned = augment(images, Augmentation(rotate=30), torch.Generator().manual_seed(1))
    assert_close(turned.sum((1, 2, 3)), torch.full((64,), 4.0), atol=0.3, rtol=0)  # the middle stays
    assert not torch.equal(turned[0], turned[1])
    every = Augmentation(rotate=9, zoom=0.1, shift=0.1)
    once = augment(images, every, torch.Generator().manual_seed(5))
    assert torch.equal(once, augment(images, every, torch.Generator().manual_seed(5)))


def test_what_is_held_back_is_apart_and_comes_from_the_seed():
    learn, check = split_validation(1000, 0.1, 2)
    assert len(check) == 100
    assert sorted([*learn, *check]) == list(range(1000))
    assert np.array_equal(check, split_validation(1000, 0.1, 2)[1])
    assert not np.array_equal(check, split_validation(1000, 0.1, 3)[1])


def test_a_score_by_hand():
    split = blobs(20, 1)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    found = evaluate(net, split)
    logits = net(split.images)
    assert found.accuracy == pytest.approx(float((logits.argmax(1) == split.targets).float().mean()))
    assert found.loss == pytest.approx(float(-logits.detach().log_softmax(1)[range(20), split.targets].mean()))
