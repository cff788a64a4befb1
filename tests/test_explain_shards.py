"""`python -m explain --shard I/N`, and torchrun's RANK and WORLD_SIZE: together what one call draws, to the byte."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, call_main, run_module

from explain.__main__ import main
from explain.record import PIECES
from explain.results import draw_shard
from explain.shards import last
from machine.files import locked

TRAIN = "--view photograph --arch alexnet --size 64 --k 4 --epochs 1 --batch 16 --reassign 1".split()


@pytest.fixture(scope="module")
def trained(coins, tmp_path_factory) -> Path:
    exp = tmp_path_factory.mktemp("shards") / "exp"
    result = run_module("deepcluster", "train", coins, "--exp", exp, *TRAIN)
    assert result.returncode == 0, result.stderr
    return exp


@pytest.fixture
def explain(trained, monkeypatch, capsys):
    """A call on `trained` into a folder of results: exit code, what was said, the refusal."""

    def call(results: Path, *words: object) -> tuple[int, str, str]:
        return call_main(main, "explain", monkeypatch, capsys, "--run", trained, "--results", results, *words)

    return call


@pytest.fixture(scope="module")
def whole(trained) -> Path:
    """Drawn by one call; not to be changed."""
    result = run_module("explain", "--run", trained)
    assert result.returncode == 0, result.stderr
    return trained.parent / "results"


def files(results: Path) -> dict[str, bytes]:
    """All that a user sees: everything but pieces and locks."""
    paths = [path for path in results.rglob("*") if path.is_file() and path.name not in (".lock", ".begin.lock")]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths if PIECES not in path.parts}


def when(results: Path) -> dict[str, int]:
    """When each picture was written."""
    return {str(path): path.stat().st_mtime_ns for path in results.glob("1/*/[!_]*.png")}


def test_shards_in_any_order_make_the_gallery_that_one_call_makes(explain, whole, tmp_path):
    results = tmp_path / "results"
    drawn: dict[str, int] = {}
    for number, left in ((3, 32), (1, 16), (2, 0)):
        code, said, _ = explain(results, "--shard", f"{number}/3")
        assert code == 0
        assert f"shard {number} of 3, 16 images, is drawn" in said
        assert (f"{left} images of other shards are not drawn yet" in said) == (left > 0)
        assert (results / "index.html").exists() == (left == 0)
        now = when(results)
        assert {path: now[path] for path in drawn} == drawn  # nobody's picture is written again
        drawn = now
    assert files(results) == files(whole)
    assert sorted(path.name for path in (results / "1" / PIECES).iterdir()) == ["1-of-3", "2-of-3", "3-of-3"]
    assert explain(results)[0] == 0
    assert when(results) == drawn
    assert files(results) == files(whole)


def test_a_plain_call_draws_what_shards_left_out_or_lost(explain, whole, tmp_path):
    results = tmp_path / "results"
    assert explain(results, "--shard", "2/2")[0] == 0
    (lost,) = (results / "1" / PIECES / "2-of-2").glob("*.npz")
    lost.write_bytes(b"cut")
    assert explain(results)[0] == 0
    assert files(results) == files(whole)


def test_processes_share_the_images_at_once_and_the_last_makes_the_gallery(trained, whole, tmp_path):
    """As torchrun starts them. They need nothing of each other, so none is told where the first one is."""
    results = tmp_path / "results"
    command = [sys.executable, "-m", "explain", "--run", str(trained), "--results", str(results)]
    setting = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    both = [
        subprocess.Popen(command, env=setting | {"RANK": str(rank)}, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("in a browser" in words for words in said) == 1, said
    assert files(results) == files(whole)


def test_more_shards_than_images(explain, tmp_path):
    results = tmp_path / "results"
    for number in range(1, 7):
        code, said, _ = explain(results, "--shard", f"{number}/6", "--per-cluster", "1", "--methods", "grad_cam")
        assert code == 0
        assert f"{int(number <= 4)} images, is drawn" in said
    assert (results / "index.html").exists()
    assert len(when(results)) == 8  # of four clusters' images each the photograph and its map


def test_one_shard_is_drawn_by_one(explain, whole, tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    pieces = results / "1" / PIECES
    (pieces / "1-of-2").mkdir()
    with locked(results, "busy", shared=True), locked(pieces / "1-of-2", "busy"):  # as a shard that is being drawn
        assert "another explain draws this shard: wait" in explain(results, "--shard", "1/2")[2]
        assert "another explain draws this shard, not one of 3" in explain(results, "--shard", "1/3")[2]
        assert "another explain is writing here" in explain(results)[2]
        code, said, _ = explain(results, "--shard", "2/2")
        assert code == 0
        assert "other shards are still being drawn" in said
    with locked(results, "busy"):
        assert "another explain is writing here" in explain(results, "--shard", "1/2")[2]
    for wrong in ("0/2", "3/2", "1", "1/", "a/b", "1/99999"):
        assert "is not a shard like 3/8" in explain(results, "--shard", wrong)[2]
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "torchrun shares the images already" in explain(results, "--shard", "1/2")[2]


def test_a_shard_that_begins_while_the_last_one_makes_the_gallery_waits(explain, whole, tmp_path, monkeypatch):
    results = tmp_path / "results"
    shutil.copytree(whole, results)
    making, arrived = threading.Event(), threading.Event()

    def make_gallery():
        with last(results) as alone:
            assert alone
            making.set()
            arrived.wait(60)
            time.sleep(0.3)

    def arrive(*given):
        arrived.set()
        draw_shard(*given)

    monkeypatch.setattr("explain.results.draw_shard", arrive)
    other = threading.Thread(target=make_gallery)
    other.start()
    making.wait(60)
    code, said, _ = explain(results, "--shard", "1/2")
    other.join()
    assert code == 0
    assert "in a browser" in said  # the others are done: it is the last


def test_after_a_shard_the_next_one_is_proposed(explain, tmp_path):
    assert "--per-cluster 2 --shard 2/2\n" in explain(tmp_path / "r", "--per-cluster", "2", "--shard", "1/2")[1]
    assert "explain audit" in explain(tmp_path / "r", "--per-cluster", "2", "--shard=2/2")[1].splitlines()[-1]
    again = explain(tmp_path / "r", "--per-cluster", "2", "--dry-run")[1]
    assert "nothing is left to draw" in again


def test_shards_are_even_and_meet_every_cluster():
    from explain.shards import Shard

    rows = np.arange(100)
    parts = [Shard(number, 8).of(rows) for number in range(1, 9)]
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert {len(part) for part in parts} == {12, 13}
    assert all(len(np.unique(part // 25)) == 4 for part in parts)
