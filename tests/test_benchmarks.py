"""The benchmarks, small: that they run, name their reference and say what they were measured with."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, call_main, photograph, refused, run_module
from nursery import run_child
from PIL import Image

from benchmarks import hand
from benchmarks.__main__ import COMMANDS, main
from benchmarks.agreement import OURS, TITLES, Trained, markdown, ratios, read_table
from benchmarks.machines import ADDRESSES, NAMES, PORT, in_namespace, two_machines
from benchmarks.scale import Taken, at_many, family, on_disk, table, watch, write_digits
from benchmarks.setting import Ratio
from benchmarks.training import Seconds, Task, cold_cache, fastest, paper_config, reference_batches, reference_features
from console import UserError
from deepcluster.agreement import MEASURES
from deepcluster.baselines import BASELINES
from deepcluster.models import untrained
from machine.files import read_csv, write_csv

CONDITIONS = ("thread", "torch", "commit", "code")


@pytest.fixture
def photographs(tmp_path):
    for i in range(12):
        photograph(tmp_path / "photographs" / "abc"[i % 3] / f"{i}.jpg", i, hue=i % 3)
    return tmp_path / "photographs"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_a_module_with_options(name):
    module = import_module(COMMANDS[name].module)
    assert callable(module.add_options)
    assert callable(module.run)
    assert name in run_module("benchmarks", "--help").stdout


def test_an_unknown_option_is_refused():
    assert "--limt" in refused(run_module("benchmarks", "training", "--limt", "3"))


@pytest.mark.parametrize("name", ["training", "explain"])
def test_photographs_that_are_not_there(name):
    assert "/nowhere" in refused(run_module("benchmarks", name, "--data", "/nowhere"))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_training_against_the_original(photographs, workers):
    settings = ["--size", "64", "--batch", "8", "--epochs", "1", "--device", "cpu", "--workers", workers]
    result = run_module("benchmarks", "training", "--data", photographs, *settings)
    assert result.returncode == 0, result.stderr
    assert "ratio to the original's way: " in result.stdout
    assert all(word in result.stdout for word in CONDITIONS)


def test_explain_against_others(photographs):
    settings = ["--size", "96", "--batch", "3", "--limit", "6", "--device", "cpu"]
    result = run_module("benchmarks", "explain", "--data", photographs, *settings)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("images/s") == 7
    assert result.stdout.count("ratio to captum") == 3
    assert result.stdout.count("ratio to pytorch-grad-cam") == 1
    assert all(word in result.stdout for word in CONDITIONS)


def test_flips_by_windows_against_whole_images(tmp_path):
    result = run_module("benchmarks", "pixelflip", "--models", "mlp", "--rounds", "1", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    *_, row = result.stdout.splitlines()
    assert row.startswith("mlp")
    assert float(row.split()[-1]) < 1e-4  # by which the logits differ
    assert all(word in result.stdout for word in CONDITIONS)
    assert "dots" in refused(run_module("benchmarks", "pixelflip", "--models", "dots"))
    assert str(tmp_path) in refused(run_module("benchmarks", "pixelflip", "--models", "--runs", tmp_path))


def test_agreement_beside_every_baseline(photographs, tmp_path, monkeypatch, capsys):
    table, begun = tmp_path / "table.csv", []

    def train(command, **_):  # as subprocess.run, but it begins at once; test_agreement_needs_labels starts a real one
        assert command[:2] == [sys.executable, "-m"]
        begun.append(run_child(command[2:], ROOT, dict(os.environ)))
        return begun[-1]

    monkeypatch.setattr("benchmarks.agreement.subprocess", SimpleNamespace(run=train, DEVNULL=None))
    command = ["agreement", photographs, "--k", "3", "--seeds", "1", "--out", table]
    training = ["--size", "64", "--epochs", "1", "--device", "cpu"]
    code, said, _ = call_main(main, "benchmarks", monkeypatch, capsys, *command, *training)
    assert code == 0, begun[-1].stderr
    (row,) = read_csv(table)
    usual = {name: baseline for name, baseline in BASELINES.items() if name != "given"}  # there were no --weights
    for name in (OURS, *usual):
        assert all(float(row[f"{name}_{measure}"]) <= 1 for measure in MEASURES)
    for baseline in usual.values():
        assert f"ratio to {baseline.title}, AMI at k 3: " in said
    assert all(word in said for word in CONDITIONS)

    assert call_main(main, "benchmarks", monkeypatch, capsys, *command, *training) == (0, said, "")
    assert read_csv(table) == [row]
    assert len(begun) == 1


def test_agreement_needs_labels(photographs, tmp_path):
    settings = ["--k", "2", "--seeds", "1", "--out", tmp_path / "table.csv", "--size", "64", "--epochs", "1"]
    assert "no labels" in refused(run_module("benchmarks", "agreement", photographs / "a", *settings))


@pytest.fixture
def trained():
    agreement = {name: dict.fromkeys(MEASURES, 0.5) for name in TITLES}
    return Trained("coins --epochs 1", "coins", 12, "stable", 64, 1, 8, 1, 3, "a machine", 0.75, agreement)


def test_a_row_of_the_table_comes_back(trained, tmp_path):
    write_csv(tmp_path / "table.csv", [trained.to_row()])
    assert read_table(tmp_path / "table.csv") == [trained]
    assert read_table(tmp_path / "none.csv") == []


def test_a_table_of_another_version_is_refused(trained, tmp_path):
    row = trained.to_row()
    del row["conditions"]
    write_csv(tmp_path / "table.csv", [row])
    with pytest.raises(UserError, match="conditions"):
        read_table(tmp_path / "table.csv")


def test_means_deviations_and_ratios(trained):
    other = replace(trained, seed=2, agreement=trained.agreement | {OURS: dict.fromkeys(MEASURES, 0.7)})
    heads, _, row = markdown([trained, other])
    assert all(title in heads for title in TITLES.values())
    assert row.startswith("| 8 | 0.600 ± 0.141 | 0.500 ± 0.000 |")
    assert row.endswith("| 1, 2 |")
    assert [ratio.value for ratio in ratios([trained, other])] == pytest.approx([1.2] * len(BASELINES))


def test_no_ratio_to_a_baseline_at_chance(trained):
    name, baseline = next(iter(BASELINES.items()))
    at_chance = replace(trained, agreement=trained.agreement | {name: dict.fromkeys(MEASURES, 0.0)})
    told = [str(ratio) for ratio in ratios([at_chance]) if ratio.reference == baseline.title]
    assert told == [f"ratio to {baseline.title}, AMI at k 8: none"]
    assert str(Ratio("others", 2.345)) == "ratio to others: 2.35"


def test_of_each_phase_the_fastest_epoch():
    best = fastest([Seconds(3, 1, 5), Seconds(2, 2, 6)])
    assert best == Seconds(2, 1, 5)
    assert best.epoch == 8


def test_a_cold_cache_is_for_the_while():
    before = os.environ["DEEPCLUSTER_CACHE"]
    with cold_cache():
        assert os.environ["DEEPCLUSTER_CACHE"] != before
    assert os.environ["DEEPCLUSTER_CACHE"] == before


def test_the_reference_sees_the_files_it_is_given(photographs):
    names = ["a/0.jpg", "b/1.jpg", "c/2.jpg"]
    task = Task(photographs, names, replace(paper_config(64), batch=2), torch.device("cpu"), epochs=1, workers=0)
    batches = list(reference_batches(task, np.array([5, 6, 7]), np.array([2, 0, 2]), []))
    assert [targets.tolist() for _, targets in batches] == [[7, 5], [7]]
    assert torch.equal(batches[0][0][0], batches[1][0][0])
    assert reference_features(untrained(task.config), task).shape == (3, 4096)


def test_a_stage_is_watched_with_what_it_starts(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "hungry.py").write_text(
        "import subprocess, sys, time\n"
        "kept = bytearray(b'x' * (80 << 20))\n"
        "opened = [open(__file__) for _ in range(30)]\n"
        "open('left.bin', 'wb').write(b'y' * 1000)\n"
        "begin = time.process_time()\n"
        "while time.process_time() < begin + 0.2: pass\n"
        "if len(sys.argv) == 1: subprocess.run([sys.executable, __file__, 'child'])\n"
        "time.sleep(1)\n"
    )
    taken = watch("eating", 10, ["hungry"], work)
    assert 80 < taken.peak < 400
    assert taken.worked > 0.4  # it and its child
    assert taken.own > 160  # it and its child
    assert taken.opened >= 30
    assert (taken.size, taken.files) == (1000, 1)
    with pytest.raises(UserError, match=r"ended with 1: .*No module named nothing"):
        watch("failing", 10, ["nothing"], work)
    assert family(os.getpid())[0] == os.getpid()
    assert on_disk(work)[1] == 2


def test_digits_are_files_of_one_folder(tmp_path, monkeypatch):
    digits = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)
    splits = {"train": digits[:3], "test": digits[3:]}
    monkeypatch.setattr("benchmarks.scale.load_mnist", lambda split: (splits[split], None))
    write_digits(tmp_path / "digits", 4)
    found = sorted((tmp_path / "digits").iterdir())
    assert [path.name for path in found] == ["00000.png", "00001.png", "00002.png", "00003.png"]
    np.testing.assert_array_equal([np.asarray(Image.open(path)) for path in found], digits)
    with pytest.raises(UserError, match="MNIST has 4 digits"):
        write_digits(tmp_path / "more", 5)


def test_two_machines_are_joined_by_a_cable_or_one_sentence_says_what_is_missing(monkeypatch):
    ask = f"import socket; socket.create_connection(('{ADDRESSES[1]}', {PORT}), 3).sendall(b'heard')"
    answer = "import socket, sys; s = socket.create_server(('', %d)); print(flush=True); print(s.accept()[0].recv(9))"
    if shutil.which("ip") is None or subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        with pytest.raises(UserError, match=r"machines: .* network namespaces"), two_machines():
            pass
        return
    with two_machines():
        there = ["ip", "netns", "exec", NAMES[1], sys.executable, "-c", answer % PORT]
        server = subprocess.Popen(there, stdout=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "\n"
        in_namespace(NAMES[0], sys.executable, "-c", ask)
        assert server.communicate(timeout=20)[0] == "b'heard'\n"
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert NAMES[0] not in names
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(UserError, match="needs the command ip"), two_machines():
        pass


def test_a_lasso_holds_what_belongs_together_and_nothing_else():
    """Three strays of b in a row, whose way a coin of a bars from a fourth; a fifth too near another coin."""
    labels = {(0, 0): "b", (20, 0): "b", (40, 0): "b", (50, 0): "a", (60, 0): "b", (0, 99): "b", (2, 99): "a"}
    spots = [hand.Spot(str(i), 0, label, 1) for i, label in enumerate(labels.values())]
    spots.append(hand.Spot("at home", 1, "b", 0))
    places = np.array([*labels, (10, 0)], float)
    left = {spot.id: spot for spot in spots[:-1] if spot.label == "b"}
    [group] = hand.groups_of(spots, places, left, {"a": 0, "b": 1})
    assert sorted(group) == [0, 1, 2, 7]
    way = hand.around(places[group], hand.APART)
    assert hand.holds(way, places).nonzero()[0].tolist() == [0, 1, 2, 7]
    assert hand.holds(way, np.array([[-2, 0], [-4, 0], [20, 2.5], [20, 3.5]])).tolist() == [True, False, True, False]


def test_the_line_through_two_numbers_is_drawn_to_many():
    small = Taken("train", 100, 20.0, 10.0, 500, 400, 20, 1000, 30)
    large = Taken("train", 300, 35.0, 20.0, 500, 390, 20, 3000, 30)
    many = at_many([large, small], "train", 1100)
    assert (many.seconds, many.worked) == (95, 60)
    assert (many.peak, many.own, many.opened, many.size, many.files) == (500, 400, 20, 11000, 30)
    assert table([many])[2] == "| train | 1,100 | 95.0 | 60.0 | 54.5 | 500 | 400 | 20 | 0.0 | 30 |"
