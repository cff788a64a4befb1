"""The commands as a user meets them: good days, and bad input answered by one sentence and exit code 2."""

import csv
import json
import os
import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import call_main, photograph, refused, run_module

import runs
from console import UserError
from datasets import open_dataset
from deepcluster.__main__ import main
from deepcluster.baselines import BASELINES
from deepcluster.config import read_config
from deepcluster.estimate import measure_pace
from machine.files import read_csv

# The discs of `coins` differ in colour alone, which only the photograph shows.
TRAIN = ["--view", "photograph", "--arch", "alexnet_fine", "--size", "32", "--k", "4", "--epochs", "2", "--batch", "16"]
USUAL = [name for name in BASELINES if name not in ("facts", "given")]  # without --with and --weights


def call(monkeypatch, capsys, *arguments):
    return call_main(main, "deepcluster", monkeypatch, capsys, *arguments)


@pytest.fixture(scope="module")
def trained(coins, tmp_path_factory):
    exp = tmp_path_factory.mktemp("trained") / "exp"
    result = run_module(
        "deepcluster", "train", coins, "--exp", exp, *TRAIN, "--epochs", "4", "--reassign", "4", "--tensorboard"
    )
    assert result.returncode == 0, result.stderr
    return exp


def test_train_says_what_it_did(trained, coins):
    result = run_module("deepcluster", "train", coins, "--exp", trained, *TRAIN, "--epochs", "4", "--reassign", "4")
    assert result.returncode == 0  # finished: the same command looks and leaves
    assert all(BASELINES[name].title in result.stdout for name in USUAL)
    assert "best baseline: " in result.stdout
    meta = json.loads((trained / "run.json").read_text())
    assert meta["dataset"]["images"] == 48
    assert meta["config"]["rotate"] == 180  # a folder: any angle
    assert set(runs.open_run(trained).read_json("baselines.json")) == set(USUAL)
    assert list((trained / "tensorboard").iterdir())


def test_predict_agrees_with_the_training_table(trained, coins, tmp_path):
    out = tmp_path / "new.csv"
    result = run_module("deepcluster", "predict", "--run", trained, "--images", coins, "--out", out)
    assert result.returncode == 0, result.stderr
    new = {row["image"]: row for row in csv.DictReader(out.open())}
    old = read_csv(trained / "clusters.csv")
    assert len(new) == 48
    for row in old:
        assert new[row["image"]]["cluster"] == row["predicted"]
        assert float(new[row["image"]]["probability"]) == pytest.approx(float(row["probability"]), abs=2e-5)
        assert new[row["image"]]["rival"] != row["predicted"]
    agree = np.mean([row["predicted"] == row["cluster"] for row in old])
    assert agree > 0.6  # chance is 0.25


def test_predict_names_what_it_cannot_read(trained, tmp_path):
    photograph(tmp_path / "new" / "one.jpg", 3)
    (tmp_path / "new" / "two.jpg").write_bytes(b"broken")
    result = run_module(
        "deepcluster", "predict", "--run", trained, "--images", tmp_path / "new", "--out", tmp_path / "o.csv"
    )
    assert result.returncode == 0
    assert "two.jpg" in result.stderr
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 2


def test_compare_prints_and_writes(trained, coins, tmp_path):
    table = tmp_path / "expert.csv"
    rows = [(f"{i:02d}.jpg", f"type {'abcd'[i % 4]}") for i in range(40)]  # file names alone, some coins unknown
    rows[0] = ("00.jpg", "type d")  # a mistake of the expert's
    table.write_text("image,type\n" + "".join(f"{name},{label}\n" for name, label in rows) + "not-there.jpg,type a\n")
    result = run_module("deepcluster", "compare", "--run", trained, "--labels", table)
    assert result.returncode == 0, result.stderr
    assert "40 of 48 images" in result.stdout
    assert "1 rows name no image" in result.stdout
    for words in ("k-means on the pixels", "k-means on the untrained network", "look wrong", "dendrogram"):
        assert words in result.stdout
    out = trained / "compare"
    assert {path.name for path in out.iterdir()} == {
        "agreement.csv", "purity.csv", "confusion.csv", "doubtful.csv", "merging.csv", "dendrogram.png", "lift.csv",
    }  # fmt: skip
    confusion = read_csv(out / "confusion.csv")
    assert sum(int(v) for row in confusion for k, v in row.items() if k != "type") == 40


def test_compare_holds_something_fixed(trained, tmp_path):
    """Twelve coins in each of four folders; those whose names share the first digit are of one photograph."""
    table = tmp_path / "expert.csv"
    ids = runs.open_run(trained).ids
    rows = [f"{image},{'front' if i % 3 else 'back'},{image[0] in 'ab'}\n" for i, image in enumerate(ids)]
    table.write_text("image,type,red\n" + "".join(rows))
    out = tmp_path / "out"
    within = ["--within", "folder", "--family", r"/(\d)"]
    result = run_module("deepcluster", "compare", "--run", trained, "--labels", table, "--out", out, *within)
    assert result.returncode == 0, result.stderr
    assert "coins of one folder" in result.stdout
    assert "AMI" in result.stdout.splitlines()[2]
    written = read_csv(out / "lift.csv")
    assert len({row["what"] for row in written}) == 1 + len(USUAL)
    measures = ["lift", "AMI", "5 nearest", "lift of the photograph"]
    assert [row["measure"] for row in written[:: 1 + len(USUAL)]] == measures
    for row in written:
        assert float(row["low"]) <= float(row["high"]) or row["low"] == "nan"
        assert 0 < float(row["p"]) <= 1 or row["p"] == "nan"
    by_column = run_module(
        "deepcluster", "compare", "--run", trained, "--labels", table, "--out", out, "--within", "red"
    )
    assert "coins of one red" in by_column.stdout
    assert "photograph" not in by_column.stdout  # names of one number tell nothing


def test_compare_finds_the_planted_mistake_and_the_useful_merge():
    from deepcluster.compare import Comparison, doubtful, merging, purity_table

    assignment = np.repeat([0, 1, 2, 3], 10)
    labels = ["axe"] * 20 + ["wheel"] * 20
    labels[3] = "wheel"
    table = [{"image": str(i), "predicted": c, "probability": 0.9, "cluster": c} for i, c in enumerate(assignment)]
    found = doubtful(Comparison(np.arange(40), labels, assignment, pd.DataFrame(table)))
    assert [(row["image"], row["type"], row["suggested"]) for row in found] == [("3", "wheel", "axe")]
    assert purity_table(labels, assignment)[-1]["purity"] == "0.900"
    x = np.array([[0, 0], [0, 1], [9, 0], [9, 2]], np.float32)[assignment]  # 0 and 1 lie together, 2 and 3 do
    gains = {row["clusters"]: row["ami"] for row in merging(x, labels, assignment)["rows"]}
    assert gains[2] > gains[3] > gains[4]


def test_init_starts_from_another_run(trained, coins, tmp_path):
    result = run_module("deepcluster", "train", coins, "--exp", tmp_path / "next", *TRAIN, "--init", trained)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "next" / "run.json").read_text())["config"]["init"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(coins, trained, tmp_path, monkeypatch, capsys):
    plan = ["train", coins, "--exp", tmp_path / "exp", *TRAIN, "--dry-run"]
    code, said, _ = call(monkeypatch, capsys, *plan)
    assert code == 0
    assert "would train 2 epochs of 48 images" in said
    assert "4 clusters, alexnet_fine on the view photograph, 32 pixels" in said
    assert re.search(r"on the (CPU, \d+ threads?|GPU .*): about \d+ \w+ for 2 epochs", said)
    assert said.splitlines()[-1] == "Next: python -m deepcluster " + shlex.join(map(str, plan[:-1]))
    assert not (tmp_path / "exp").exists()
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    finished = ["train", coins, "--exp", trained, *TRAIN, "--epochs", "4", "--reassign", "4"]
    _, said, _ = call(monkeypatch, capsys, *finished, "--dry-run")
    assert "4 epochs, 4 of which are done" in said
    _, _, sentence = call(monkeypatch, capsys, *finished[:-4], "--epochs", "9", "--reassign", "4", "--dry-run")
    assert (
        f"--epochs 4 (now 9): give the same settings to continue it, or choose another --exp; --init {trained}"
        in sentence
    )
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_the_estimate_before_a_training_changes_nothing_and_knows_the_size(coins, tmp_path, monkeypatch, capsys):
    for name, short in (("told", 0), ("silent", np.inf)):
        monkeypatch.setattr("deepcluster.launch.SHORT", short)
        _, said, _ = call(monkeypatch, capsys, "train", coins, "--exp", tmp_path / name, *TRAIN, "--epochs", "1")
        assert ("about" in said) == (name == "told")
    assert (tmp_path / "told" / "clusters.csv").read_bytes() == (tmp_path / "silent" / "clusters.csv").read_bytes()
    dataset = open_dataset(str(coins), 73)
    config = read_config(json.loads((tmp_path / "told" / "run.json").read_text())["config"], tmp_path)
    pace = measure_pace(dataset, config, torch.device("cpu"))
    assert 0 < pace.epoch(config, 24) < pace.epoch(config) < pace.seconds(config, 2)
    weights = [path.stat().st_size for path in (tmp_path / "told").rglob("*.pt")]
    assert pace.bytes(config, 10, 3) == pytest.approx(sum(weights), rel=0.01)


def test_k_auto_recommends_and_draws(coins, tmp_path):
    arguments = [
        "deepcluster",
        "train",
        coins,
        "--exp",
        tmp_path / "exp",
        "--size",
        "32",
        "--epochs",
        "1",
        "--k",
        "auto",
    ]
    result = run_module(*arguments)
    assert result.returncode == 0, result.stderr
    assert "recommended" in result.stdout
    assert (tmp_path / "exp" / "figures" / "k.png").stat().st_size > 5000
    assert run_module(*arguments).returncode == 0  # the same command knows its k


def test_small_sets_get_fewer_clusters_in_words(coins, tmp_path):
    result = run_module("deepcluster", "train", coins, "--exp", tmp_path / "exp", "--size", "32", "--epochs", "1")
    assert "clustering into 6 instead of 50" in result.stdout
    assert "PCA keeps 47 dimensions instead of 64" in result.stdout


def test_spellings_of_the_original(coins, tmp_path):
    line = (
        "-a alexnet --sobel --nmb_cluster 4 --lr 0.01 --wd -5 --epochs 1 --batch 16 --momentum 0.8 --reassign 1 "
        "--seed 3 --workers 2 --clustering Kmeans --size 64 --verbose --start_epoch 0"
    )
    result = run_module("deepcluster", "train", coins, "--run", tmp_path / "exp", *line.split(), "--resume", "")
    assert result.returncode == 0, result.stderr
    config = json.loads((tmp_path / "exp" / "run.json").read_text())["config"]
    assert config["weight_decay"] == pytest.approx(1e-5)
    assert (config["sobel"], config["k"], config["clustering"], config["seed"]) == (True, 4, "kmeans", 3)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--k", "49"], "more than the 48 usable images"),
        (["--k", "1"], "at least 2"),
        (["--k", "many"], "whole number"),
        (["--size", "32", "--view", "photograph"], "too small for alexnet"),
        (["--device", "tpu9"], "--device: 'tpu9'"),
        (["--device", "cuda"], "no such GPU"),
        (["--clustering", "dbscan"], "not one of kmeans"),
        (["--final-clustering", "pic"], "--final-epochs"),
        (["--final-clustering", "pic", "--final-epochs", "2"], "only 1 epochs"),
        (["--resume", "x"], "continues by itself"),
        (["--checkpoints", "5000"], "--save-every"),
        (["--start_epoch", "3"], "leave it out"),
        (["--decode-at-most", "40"], "at least the 64 pixels"),
        (["--lr", "-1"], "above 0"),
        (["--epochs", "0"], "from 1"),
        (["--colour"], "--colour: no such option"),
        (["--init", "nowhere"], "not a run directory"),
    ],
)
def test_wrong_options(options, words, coins, tmp_path, monkeypatch, capsys):
    if "cuda" in options:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    base = ["--size", "64", "--epochs", "1"]
    code, _, sentence = call(monkeypatch, capsys, "train", coins, "--exp", tmp_path / "exp", *base, *options)
    assert code == 2
    assert words in sentence
    assert not (tmp_path / "exp").exists()


def test_wrong_places(coins, trained, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.jpg").write_bytes(b"no")
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "holiday.jpg").write_bytes(b"")
    labels = tmp_path / "labels.csv"
    labels.write_text("image,type,side\n00.jpg,axe,front\n01.jpg,wheel,\n")
    exp = ["--exp", tmp_path / "exp", *TRAIN]
    for arguments, words in (
        (["train", tmp_path / "nowhere", *exp], "no such folder"),
        (["train", tmp_path / "empty", *exp], "empty folder"),
        (["train", tmp_path / "broken", *exp], "none of its 1 files"),
        (["train", tmp_path / "file", *exp], "neither a folder nor a .zip"),
        (["train", "mnist:validation", *exp], "mnist:test"),
        (["train", "mnist", *exp, "--mnist-dir", tmp_path / "nowhere"], "no such folder"),
        (["train", coins, "--exp", tmp_path / "other", *TRAIN], "holiday.jpg"),
        (["train", coins, "--exp", tmp_path / "file", *TRAIN], "file is in the way"),
        (["train", coins, "--exp", trained, *TRAIN, "--epochs", "4", "--reassign", "4", "--k", "5"], "--k 4 (now 5)"),
        (
            ["train", coins, "--exp", trained, *TRAIN, "--epochs", "4", "--reassign", "4", "--size", "36"],
            "--size 32 (now 36)",
        ),
        (
            ["train", coins, "--exp", trained, *TRAIN, "--epochs", "4", "--reassign", "4", "--limit", "40"],
            "was begun with",
        ),
        (
            ["predict", "--run", tmp_path / "empty", "--images", coins, "--out", tmp_path / "o.csv"],
            "not a run directory",
        ),
        (["predict", "--run", trained, "--images", coins, "--out", tmp_path / "no" / "o.csv"], "no such folder"),
        (
            ["predict", "--run", trained, "--images", coins, "--out", tmp_path / "o.csv", "--epoch", "3"],
            "were not kept",
        ),
        (["compare", "--run", trained, "--labels", tmp_path / "nowhere.csv"], "no such file"),
        (["compare", "--run", trained, "--labels", tmp_path / "file"], "two columns"),
        (["compare", "--run", trained, "--labels", labels, "--within", "metal"], "no column 'metal'"),
        (["compare", "--run", trained, "--labels", labels, "--within", "side"], "1 of its images have no side"),
        (["compare", "--run", trained, "--labels", labels, "--family", "("], "not a regular expression"),
        (["import", tmp_path / "empty", "--data", coins, "--out", tmp_path / "o"], "no such file"),
    ):
        code, _, sentence = call(monkeypatch, capsys, *arguments)
        assert code == 2, arguments
        assert words in sentence, (arguments, sentence)


def test_run_of_another_dataset_is_refused(trained, tmp_path, monkeypatch, capsys):
    for i in range(20):
        photograph(tmp_path / "others" / f"{i}.jpg", 100 + i)
    code, _, sentence = call(
        monkeypatch, capsys, "train", tmp_path / "others", "--exp", trained, *TRAIN, "--epochs", "4", "--reassign", "4"
    )
    assert code == 2
    assert "other images (coins)" in sentence


def test_cut_checkpoint_is_named(trained, coins, tmp_path, monkeypatch, capsys):
    for name, arguments in (
        ("checkpoints/epoch_0004.pt", ["predict", "--images", str(coins), "--out", str(tmp_path / "o.csv"), "--run"]),
        ("latest.pt", ["train", str(coins), *TRAIN, "--epochs", "4", "--reassign", "4", "--exp"]),
    ):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(trained, copy)
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[: len(whole) // 2])
        code, _, sentence = call(monkeypatch, capsys, *arguments, copy)
        assert code == 2
        assert name in sentence
    shutil.copytree(trained, tmp_path / "copy")
    damaged = tmp_path / "copy" / "clusters" / "epoch_0004.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        runs.open_run(tmp_path / "copy").clusters(4)


def test_full_disk_is_one_sentence_and_nothing_is_lost(coins, small_disk):
    exp = small_disk("16m") / "exp"
    assert "no space left" in refused(run_module("deepcluster", "train", coins, "--exp", exp, *TRAIN))
    assert not list(exp.rglob("*.tmp"))
    small_disk("200m")
    assert run_module("deepcluster", "train", coins, "--exp", exp, *TRAIN).returncode == 0


def test_no_write_permission_is_one_sentence(coins, tmp_path, monkeypatch, capsys):
    home = tmp_path / "locked"
    home.mkdir()

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(home / "exp"))

    if os.geteuid() == 0:  # root may write anywhere: let the system call refuse
        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    else:
        home.chmod(0o500)
    code, _, sentence = call(monkeypatch, capsys, "train", coins, "--exp", home / "exp", *TRAIN)
    assert code == 2
    assert "no permission" in sentence


def test_tensorboard_without_its_package_is_one_sentence(coins, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("deepcluster.launch.find_spec", lambda name: None)  # as if it were not there
    code, _, sentence = call(monkeypatch, capsys, "train", coins, "--exp", tmp_path / "exp", *TRAIN, "--tensorboard")
    assert code == 2
    assert "pip install tensorboard" in sentence
    assert not (tmp_path / "exp").exists()


def test_second_training_in_one_place_is_refused(trained, coins, monkeypatch, capsys):
    with runs.open_run(trained).hold():
        code, _, sentence = call(
            monkeypatch, capsys, "train", coins, "--exp", trained, *TRAIN, "--epochs", "4", "--reassign", "4"
        )
    assert code == 2
    assert "another training" in sentence


def test_help_is_for_newcomers():
    for arguments in ([], ["train"], ["predict"], ["compare"], ["import"]):
        result = run_module("deepcluster", *arguments, "--help")
        assert result.returncode == 0
        assert "usage" in result.stdout


def test_listed_images_are_left_out(coins, tmp_path, monkeypatch, capsys):
    """Of training, and of everything that opens the run again; another list is another training."""
    ids = sorted(path.relative_to(coins).as_posix() for path in coins.rglob("*.jpg"))
    exp, listed, other = tmp_path / "exp", tmp_path / "bad.csv", tmp_path / "other.csv"
    listed.write_text(f"image,reason\n{ids[3]},blurred\n{ids[40]},\nnowhere.jpg,\n")
    other.write_text(f"image\n{ids[3]}\n")
    words = ["train", coins, "--exp", exp, *TRAIN, "--limit", "40"]
    code, said, _ = call(monkeypatch, capsys, *words, "--exclude", listed)
    assert code == 0
    assert "1 of its 3 images are not there (the first: 'nowhere.jpg')" in said
    assert "2 of them by --exclude" in said
    run = runs.open_run(exp)
    assert len(run.ids) == 40  # the limit counts what is left
    assert not {ids[3], ids[40]} & {*run.ids}
    skipped = {row["file"]: row["reason"] for row in read_csv(exp / "skipped.csv")}
    assert skipped == {ids[3]: "excluded by bad.csv: blurred", ids[40]: "excluded by bad.csv"}
    again, _, _ = call(monkeypatch, capsys, *words, "--exclude", listed)
    assert again == 0
    assert call(monkeypatch, capsys, "features", "--run", exp)[0] == 0
    with np.load(exp / "features.npz") as found:
        assert found["images"].tolist() == run.ids
    (tmp_path / "none.csv").write_text("image\nelsewhere.jpg\n")
    (tmp_path / "bare.csv").write_text(f"file\n{ids[3]}\n")
    (tmp_path / "all.csv").write_text("\n".join(["image", *ids]))
    for arguments, sentence in (
        (["--exclude", other], "with another --exclude list"),
        ([], "with an --exclude list (now none)"),
        (["--exclude", tmp_path / "none.csv"], "none of its 1 images is there"),
        (["--exclude", tmp_path / "bare.csv"], "no column image"),
        (["--exclude", tmp_path / "all.csv"], "lists all 48 images"),
        (["--exclude", tmp_path / "no.csv"], "no such file"),
    ):
        code, _, refusal = call(monkeypatch, capsys, *words, *arguments)
        assert code == 2, arguments
        assert sentence in refusal
