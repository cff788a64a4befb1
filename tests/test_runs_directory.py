import errno
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, a_meta, run_module

import runs
from console import UserError
from machine.files import read_csv, write_atomic
from runs import Clusters

IDS = ["plain.jpg", 'with "quotes", and comma.jpg', "new\nline.jpg", "\u00e9\u4e2d.jpg", "bytes-\udcff.jpg"]


@pytest.fixture
def run(tmp_path):
    return runs.begin(tmp_path / "exp", a_meta(), IDS, list("aabbb"), [("bad\n.jpg", "not an image")])


def test_names_survive_the_round_trip(run):
    again = runs.open_run(run.path)
    assert again.ids == IDS
    assert again.labels == list("aabbb")
    assert read_csv(run.path / "skipped.csv") == [{"file": "bad\n.jpg", "reason": "not an image"}]


def test_arrays_and_weights_survive(run):
    clusters = Clusters(np.array([3, 0, 0, 1, 3]), np.linspace(0, 1, 5))
    run.write_clusters(7, clusters)
    np.testing.assert_array_equal(run.clusters(7).assignment, clusters.assignment)
    np.testing.assert_array_equal(run.clusters(7).distance, clusters.distance)
    run.write_checkpoint(7, {"epoch": 7, "model": {}, "state": {"w": torch.arange(3.0)}})
    assert run.checkpoints() == [7]
    torch.testing.assert_close(run.checkpoint(7)["state"]["w"], torch.arange(3.0))
    assert run.latest() is None


def test_a_drive_that_hiccups_is_tried_again(run, monkeypatch):
    waited = []
    monkeypatch.setattr("machine.files.time.sleep", waited.append)
    answers = [OSError(errno.ENOTCONN, "Transport endpoint is not connected"), OSError(errno.EIO, "I/O error"), None]

    def write(file):
        answer = answers.pop(0)
        file.write(b"half" if answer else b"whole")
        if answer:
            raise answer

    write_atomic(run.path / "x", write)
    assert (run.path / "x").read_bytes() == b"whole"
    assert waited == [1, 2]
    answers[:] = [OSError(errno.EIO, "I/O error")] * 99
    with pytest.raises(OSError, match="I/O error"):
        write_atomic(run.path / "x", write)
    assert (run.path / "x").read_bytes() == b"whole"
    assert not list(run.path.rglob("*.tmp"))


def test_a_failing_write_leaves_the_old_file(run):
    path = run.path / "log.csv"
    run.write_log([{"epoch": 1}])

    def fail(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        write_atomic(path, fail)
    assert caught.value.filename == str(path)
    assert [row["epoch"] for row in run.log()] == ["1"]
    assert not list(run.path.rglob("*.tmp"))


def test_what_is_not_there_is_one_sentence(run, tmp_path):
    with pytest.raises(UserError, match="epoch 3 was not clustered"):
        run.clusters(3)
    with pytest.raises(UserError, match="were not kept"):
        run.checkpoint(3)
    with pytest.raises(UserError, match="no such folder"):
        runs.open_run(tmp_path / "nowhere")
    (run.path / "run.json").write_text(json.dumps(a_meta().to_json() | {"schema": 99}))
    with pytest.raises(UserError, match="newer version"):
        runs.open_run(run.path)
    (run.path / "run.json").write_text('{"schema": ')
    with pytest.raises(UserError, match="damaged"):
        runs.open_run(run.path)


def test_nothing_that_is_read_can_run_code(run):
    torch.save({"epoch": 1, "state": print}, run.path / "checkpoints" / "epoch_0001.pt")
    with pytest.raises(UserError, match="not a checkpoint"):
        run.checkpoint(1)
    np.savez(run.path / "clusters" / "epoch_0001.npz", assignment=np.array([print], dtype=object), distance=np.zeros(1))
    with pytest.raises(UserError, match="damaged"):
        run.clusters(1)


def test_show(run):
    run.write_log([{"epoch": 1, "loss": 2.5, "nmi_previous": None}, {"epoch": 2, "loss": 1.25, "nmi_previous": 0.75}])
    result = run_module("runs", "show", run.path)
    assert result.returncode == 0, result.stderr
    assert "5 of x" in result.stdout
    assert "0.750" in result.stdout
    assert "Next: python -m deepcluster train" in result.stdout  # of no epoch the weights were kept
    assert run_module("runs", "show", run.path / "no").returncode == 2


@pytest.mark.parametrize(
    "words", [["runs", "show"], ["runs", "trust"], ["explain", "apply", "--edits", "none", "--run"]]
)
def test_who_only_reads_tables_does_not_wait_for_torch(run, words):
    script = (
        "import runpy, sys\n"
        "try: runpy.run_module(sys.argv.pop(1), run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words, run.path], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_show_says_settings_as_a_person_would(tmp_path):
    config = {"epochs": 3, "init": None, "sobel": False, "flip": True, "lr": 0.01, "classes": ["a", "b"]}
    run = runs.begin(tmp_path / "exp", a_meta(2, config=config), ["a", "b"], None, [])
    shown = run_module("runs", "show", run.path).stdout
    assert "epochs 3, flip, lr 0.01, classes a b\n" in shown
    assert not {"None", "False", "True", "{", "["} & set(re.findall(r"\w+|[{\[]", shown))
