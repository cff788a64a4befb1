"""Attacks made from a seed (tests/hostile.py): `pytest tests/test_hostile.py --fuzz 20000` makes so many of each."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT, photograph, run_module

from console import UserError
from machine.files import read_csv

EVERY_COMMAND = "train,supervised,prepare,explain,apply,audit,sheet,split,paint,export,predict"
FEW = {"pickles": 1500, "tensors": 600, "zips": 300, "runs": 40}


@pytest.fixture
def attacks(request):
    def run(kind: str, *arguments: object, share: float = 1.0) -> dict:
        """What came of the attacks of a kind, in a process of their own."""
        asked = request.config.getoption("--fuzz")
        count = FEW[kind] if asked is None else max(1, int(asked * share))
        command = [sys.executable, ROOT / "tests" / "hostile.py", kind, str(count), "1", *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        child = subprocess.run([*map(str, command)], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert child.returncode == 0, child.stdout[-2000:] + child.stderr[-4000:]  # below 0: a signal
        table = json.loads(child.stdout.splitlines()[-1])
        assert table["tried"] == count
        print({name: value for name, value in table.items() if name != "unclean"})
        return table

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """exp/ with its results/, sup/, tables for them, and the photographs they are of."""
    home = tmp_path_factory.mktemp("received")
    for i in range(12):
        for part in ("train", "test"):
            photograph(home / "data" / part / "ab"[i % 2] / f"{i:02d}.jpg", i, side=72, hue=i % 2)
    cache = {"DEEPCLUSTER_CACHE": str(home / "cache")}
    settings = ["--size", "64", "--k", "3", "--epochs", "2", "--save-every", "1", "--batch", "16"]
    draw = ["--methods", "grad_cam", "--per-cluster", "1", "--epoch", "all"]
    for command in (
        ["deepcluster", "train", "data", "--exp", "exp", *settings],
        ["explain", "--run", "exp", "--results", "results", *draw],
        ["supervised", "train", "data", "--exp", "sup", "--model", "mlp", "--epochs", "2"],
    ):
        done = run_module(*command, cwd=home, **cache)
        assert done.returncode == 0, done.stderr
    names = [line.split(",")[0] for line in (home / "exp" / "images.csv").read_text().splitlines()[1:]]
    rows = (home / "exp" / "clusters.csv").read_text().splitlines()[1:]
    clusters = dict(line.split(",")[:2] for line in rows)
    edits = [f"2,{name},{clusters[name]},note,,seen" for name in names[:4]]
    (home / "edits.csv").write_text("epoch,image,cluster,action,value,note\n" + "\n".join(edits) + "\n")
    table = [f"{name},{clusters[name]},{clusters[name]},called" for name in names]
    (home / "table.csv").write_text("image,cluster,logits,name\n" + "\n".join(table) + "\n")
    (home / "labels.csv").write_text("image,type\n" + "\n".join(f"{name},{name[-5]}" for name in names) + "\n")
    return home


@pytest.mark.parametrize("kind", ["pickles", "tensors", "zips"])
def test_damaged_files_end_in_one_sentence(attacks, kind):
    """No signal, no case over 5 s, nothing but UserError."""
    assert attacks(kind)["unclean"] == []


def test_damaged_runs_and_results_end_in_one_sentence(attacks, folder):
    assert attacks("runs", folder, share=0.02)["unclean"] == []


def test_commands_killed_at_a_rename_end_as_the_undisturbed(request, folder):
    """One instant of some; with --fuzz all instants of all."""
    names, kills = ("prepare,split,apply", 1) if request.config.getoption("--fuzz") is None else (EVERY_COMMAND, 0)
    command = [sys.executable, ROOT / "tests" / "killed.py", folder, names, kills, 1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    table = json.loads(done.stdout.splitlines()[-1])
    print(table)
    assert {name: one["unlike"] for name, one in table.items()} == {name: [] for name in names.split(",")}
    assert all(one["kills"] >= 1 for one in table.values())


# --- a run, its results and its photographs, after something happened to them ---


@pytest.fixture
def received(folder, tmp_path, monkeypatch):
    """A copy of the folder and its photographs, elsewhere; `call` calls a command there, in this process."""
    home = tmp_path / "copy"
    shutil.copytree(folder, home)
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(home / "cache"))
    monkeypatch.chdir(home)

    def call(*command: str) -> None:
        monkeypatch.setattr(sys, "argv", list(command))
        import_module(f"{command[0]}.__main__").main()

    return home, call


DRAW = ["explain", "draw", "--run", "exp", "--results", "results", "--methods", "grad_cam", "--per-cluster", "1"]


def test_all_images_of_a_cluster_gone(received, capsys):
    home, call = received
    smallest = Counter(row["cluster"] for row in read_csv(home / "exp" / "clusters.csv")).most_common()[-1][0]
    gone = [row["image"] for row in read_csv(home / "exp" / "clusters.csv") if row["cluster"] == smallest]
    for name in gone:
        (home / "data" / name).unlink()
    shutil.rmtree(home / "results")
    call(*DRAW, "--data", "data")
    assert f"{len(gone)} of 24 images are not there any more" in capsys.readouterr().out
    for page in ("index.html", f"2/{smallest}/index.html"):
        assert "None of its images is there any more" in (home / "results" / page).read_text()
    assert (home / "results" / "2" / "map.html").stat().st_size > 1000
    assert [row["image"] for row in read_csv(home / "results" / "2" / "skipped.csv")] == sorted(gone)


def test_photographs_that_were_changed_since_are_spoken_of(received, capsys):
    home, call = received
    call(*DRAW, "--data", "data")
    assert "changed" not in capsys.readouterr().err
    photograph(home / "data" / "train" / "a" / "00.jpg", 99, side=72, hue=3)
    call(*DRAW, "--data", "data")
    assert "files were changed, added or removed since the training" in capsys.readouterr().err


def test_copied_folders_and_files_are_left_alone(received):
    home, call = received
    for name in ("2 (1)", "old"):
        shutil.copytree(home / "results" / "2", home / "results" / name)
    shutil.copy(
        home / "results" / "2" / ".pieces" / "000000.npz", home / "results" / "2" / ".pieces" / "000000 (1).npz"
    )
    shutil.copy(home / "exp" / "checkpoints" / "epoch_0002.pt", home / "exp" / "checkpoints" / "epoch_0002 (1).pt")
    call(*DRAW, "--data", "data")
    assert (home / "results" / "2 (1)" / "explanations.csv").exists()


def test_pages_of_older_epochs_name_the_newer_ones(received):
    home, call = received
    shutil.rmtree(home / "results")
    call(*DRAW, "--data", "data", "--epoch", "all")
    assert "../2/" in (home / "results" / "1" / "index.html").read_text()


def test_a_strangers_run_json_chooses_no_folder(received, capsys, tmp_path):
    home, call = received
    path = home / "exp" / "run.json"
    call(*DRAW[:-2], "--per-cluster", "2")  # begun here: read, and said
    assert "reading the images in" in capsys.readouterr().err
    private = tmp_path / "private"
    shutil.copytree(home / "data", private)
    for source in (str(private), "/dev", "painted:1000000", "data"):
        content = json.loads(path.read_text())
        content["dataset"]["source"] = source
        path.write_text(json.dumps(content))
        for command in (
            [*DRAW[:4], "--results", str(tmp_path / "new")],
            ["deepcluster", "features", "--run", "exp"],
            ["explain", "maximise", "--run", "exp", "--results", str(tmp_path / "new")],
        ):
            with pytest.raises(UserError, match="name its images with --data"):
                call(*command)
    assert not (tmp_path / "new").exists()
    call("runs", "trust", "exp")
    content["dataset"]["source"] = str(private)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="python -m runs trust exp"):  # another run.json, another run
        call("deepcluster", "features", "--run", "exp")
    call("runs", "trust", "exp")
    call("deepcluster", "features", "--run", "exp")


def test_the_last_row_of_a_supervised_log_comes_back(received):
    """As if it had been killed between latest.pt and log.csv of the last epoch."""
    home, call = received
    log = home / "sup" / "log.csv"
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))
    (home / "sup" / "checkpoints" / "epoch_0001.pt").unlink(missing_ok=True)
    call("supervised", "train", str(home / "data"), "--exp", "sup", "--model", "mlp", "--epochs", "2")
    assert log.read_bytes() == whole


@pytest.mark.parametrize("content", ["[]", "{}", "7", '{"run": "x", "validation_loss": "low"}', "folder"])
def test_what_lies_beside_the_runs_never_keeps_one_from_ending(received, content):
    home, call = received
    (home / "sup" / "result.json").unlink()  # about to be finished
    for path in home.glob("best_parameters*"):
        path.unlink()
    best = home / "best_parameters-data.json"
    if content == "folder":
        (home / f".{best.name}.lock").unlink()
        (home / f".{best.name}.lock").mkdir()  # may not be locked
    else:
        best.write_text(content)
    call("supervised", "train", str(home / "data"), "--exp", "sup", "--model", "mlp", "--epochs", "2")
    assert (home / "sup" / "result.json").exists()
    if content != "folder":
        assert json.loads(best.read_text())["run"] == "sup"


@pytest.mark.parametrize("name", ["curves.png", "flow.png"])
def test_figures_that_a_kill_left_undrawn_are_drawn(received, name):
    home, call = received
    figure = home / "exp" / "figures" / name
    figure.unlink()
    settings = ["--size", "64", "--k", "3", "--epochs", "2", "--save-every", "1", "--batch", "16"]
    call("deepcluster", "train", str(home / "data"), "--exp", "exp", *settings)
    assert figure.stat().st_size > 1000
