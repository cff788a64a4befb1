"""Whether other trainings say the same: a copy does wholly, an untrained one less, other images are refused."""

import shutil

import pytest
from conftest import call_main

from datasets.painted import paint
from deepcluster import cluster
from explain.__main__ import main
from explain.audit import command
from explain.audit.parts import PARTS
from explain.audit.retraining import CLUSTERS, MAPS
from machine.files import read_csv


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("retrained")
    paint(root / "set", 24, seed=3)
    for seed in (1, 2):
        cluster(root / "set" / "images", root / f"exp-{seed}", size=64, k=3, epochs=1, batch=8, seed=seed)
    return root


@pytest.fixture
def audit(trained, tmp_path, monkeypatch, capsys):
    """Audit the first run against others by this part alone: code, what it said, refusal, rows of audit.csv."""
    monkeypatch.setattr(command, "PARTS", tuple(part for part in PARTS if part.name == "retraining"))

    def ask(*others):
        words = ["--run", trained / "exp-1", "--results", tmp_path / "results", "--images", "12", "--device", "cpu"]
        words += ["--methods", "hires_cam,guided_backprop", *(("--against", *others) if others else ())]
        code, said, error = call_main(main, "explain", monkeypatch, capsys, "audit", *words)
        table = tmp_path / "results" / "1" / "audit" / "audit.csv"
        return code, said, error, read_csv(table) if code == 0 else []

    return ask


def test_a_copy_agrees_wholly_and_another_seed_less(trained, audit, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained / "exp-1", copy)
    text = (copy / "run.json").read_text()
    (copy / "run.json").write_text(text.replace('"seed": 1', '"seed": 9'))
    code, said, _, rows = audit(copy)
    assert code == 0
    assert "AMI 1.00 (copy)" in said
    maps = {row["of"]: row for row in rows if row["measure"] == MAPS}
    own = {of: row for of, row in maps.items() if of in ("HiRes-CAM", "Guided Backprop")}
    assert len(own) == 2
    assert all(float(row["value"]) > 0.999 for row in own.values())
    for of in own:
        held = {row_of: float(row["value"]) for row_of, row in maps.items() if row_of.startswith(f"{of}: ")}
        assert len(held) == 3  # another image's map, the networks before training, edges
        assert all(value < 0.99 for value in held.values())
    assert own["HiRes-CAM"]["verdict"] == "better than every control"

    _, _, _, rows = audit(trained / "exp-2", copy)
    assert [row["of"] for row in rows if row["measure"] == CLUSTERS] == ["exp-2", "copy"]
    agreed = {row["of"]: float(row["value"]) for row in rows if row["measure"] == MAPS}
    assert all(value < 0.99 for value in agreed.values())


def test_alone_it_says_what_is_missing(audit):
    code, said, _, rows = audit()
    assert code == 0
    assert "--against" in said
    assert rows == []


def test_runs_that_cannot_be_compared_are_refused(trained, audit, tmp_path):
    assert "the very run" in audit(trained / "exp-1")[2]
    assert "named twice" in audit(trained / "exp-2", trained / "exp-1" / ".." / "exp-2")[2]
    text = (trained / "exp-2" / "run.json").read_text()
    for name, before, after, sentence in (
        ("other", '"key": "', '"key": "0', "other images"),
        ("view", '"size": 64', '"size": 96', "another view, version of it or size"),
    ):
        shutil.copytree(trained / "exp-2", tmp_path / name)
        (tmp_path / name / "run.json").write_text(text.replace(before, after, 1))
        assert sentence in audit(tmp_path / name)[2]
    (tmp_path / "empty").mkdir()
    assert "not a run directory" in audit(tmp_path / "empty")[2]
