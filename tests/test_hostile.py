"""Attacks made from a seed (tests/hostile.py): `pytest tests/test_hostile.py --fuzz 20000` makes so many of each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, photograph, run_module

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
