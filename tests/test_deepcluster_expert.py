"""Training from an expert's edits: what they say of images, and that every clustering keeps to it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import a_meta, call_main

import runs
from console import UserError
from deepcluster.__main__ import main
from deepcluster.expert import cluster_with, follow, given_names, read_expert
from deepcluster.launch import check_options
from machine.files import read_csv, write_csv
from runs.edits import COLUMNS


def write_edits(path, *edits):
    rows = [dict(zip(COLUMNS, (3, *edit, ""), strict=True)) for edit in edits]
    write_csv(path, rows)
    return path


@pytest.fixture
def run(tmp_path):
    """Ten images in clusters 0, 1, 2 and 5; the first of each is the most typical."""
    ids = [f"{i}.jpg" for i in range(10)]
    made = runs.begin(tmp_path / "exp", a_meta(len(ids)), ids, None, [])
    assignment = np.array([0, 0, 0, 1, 1, 1, 2, 2, 5, 5])
    made.write_clusters(3, runs.Clusters(assignment, np.array([0.1, 0.2, 0.3] * 3 + [0.4])))
    return made


def test_what_edits_say_of_each_image(run, tmp_path):
    edits = write_edits(
        tmp_path / "edits.csv",
        ("", 7, "new", "1"),
        ("", 7, "name", "owl"),
        ("", 5, "merge", 2),
        ("2.jpg", 0, "move", 1),
        ("4.jpg", 1, "move", 7),
        ("5.jpg", 1, "move", 7),
        ("7.jpg", 2, "wrong", ""),
        ("1.jpg", 0, "note", ""),
    )
    ids = [f"{i}.jpg" for i in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0)] + ["new.jpg"]  # another order, and one that is new
    found = follow(*read_expert(run, edits), ids)
    assert found.k == 4  # 0, 1, 2 with 5, and the new one
    assert found.start.tolist() == [2, 2, -1, 2, 3, 3, 1, 1, 0, 0, -1]
    # fixed: what was moved (2, 4, 5), and the most typical of 0 (0), 1 (3), 2 (6), 5 (8); the new one has no other
    assert found.constraints.fixed.tolist() == [-1, 2, -1, 2, 3, 3, 1, 1, -1, 0, -1]
    assert found.constraints.barred.tolist() == [[2, 2]]
    assert [(row["was"], row["name"], row["images"]) for row in found.table] == [
        (0, "", 2), (1, "", 2), (2, "", 3), (7, "owl", 2),
    ]  # fmt: skip

    x = np.random.default_rng(1).normal(size=(11, 3)).astype(np.float32)
    first = cluster_with(found, x, None).assignment
    placed = found.start >= 0
    assert first[placed].tolist() == found.start[placed].tolist()
    assert first[2] != 2
    later = cluster_with(found, x, first).assignment
    fixed = found.constraints.fixed
    assert later[fixed >= 0].tolist() == fixed[fixed >= 0].tolist()
    assert later[2] != 2


def test_edits_of_other_images_are_refused(run, tmp_path):
    edits = write_edits(tmp_path / "edits.csv", ("2.jpg", 0, "move", 1))
    with pytest.raises(UserError, match="leave 0 clusters with images of this training"):
        follow(*read_expert(run, edits), ["a.jpg", "b.jpg"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"init": None}, "goes with --init RUN"),
        ({"k": 9}, "as many clusters as yours"),
        ({"k": "auto"}, "as many clusters as yours"),
        ({"clustering": "pic"}, "it is k-means"),
        ({"final_clustering": "agglomerative", "final_epochs": 1}, "it is k-means"),
        ({"spectrum_epochs": 3}, "the first clusters are yours"),
    ],
)
def test_what_does_not_go_with_edits_is_one_sentence(given, words):
    plain = dict.fromkeys(
        (
            "neck",
            "arch",
            "size",
            "k",
            "decode_at_most",
            "clustering",
            "final_clustering",
            "final_epochs",
            "weights",
            "sobel",
        )
    )
    options = plain | {
        "preset": "stable",
        "view": "photograph",
        "data": "x",
        "tensorboard": False,
        "spectrum_epochs": None,
    }
    with pytest.raises(UserError, match=words):
        check_options(SimpleNamespace(**options | {"edits": "edits.csv", "init": "exp"} | given))


def test_a_training_starts_from_the_edited_clusters_and_keeps_to_the_edits(coins, tmp_path, monkeypatch, capsys):
    def train(*options):
        same = ["train", coins, "--view=photograph", "--arch=alexnet_fine", "--size=32", "--batch=16", *options]
        return call_main(main, "deepcluster", monkeypatch, capsys, *same)

    assert train("--exp", tmp_path / "exp", "--k", "3", "--epochs", "1")[0] == 0
    old = runs.open_run(tmp_path / "exp")
    before = old.clusters(1).assignment
    numbers = np.unique(before)
    a, b = (np.flatnonzero(before == number) for number in numbers[np.argsort(np.bincount(before)[numbers])[-2:]])
    names = old.ids
    edits = tmp_path / "edits.csv"
    rows = [(1, names[i], before[i], "move", before[b[0]], "") for i in a[:3]]
    rows += [(1, names[b[1]], before[b[1]], "wrong", "", ""), (1, "", 5, "new", str(before[b[0]]), "")]
    rows += [(1, "", 5, "name", "=owl", "")]
    rows += [(1, names[i], before[i], "move", 5, "") for i in b[2:5]]
    write_csv(edits, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    new = ["--exp", tmp_path / "next", "--epochs", "3", "--init", tmp_path / "exp", "--edits", edits]
    code, said, error = train(*new)
    assert code == 0, error
    count = len(numbers) + 1
    assert f"starts from {count} clusters of yours" in said
    run = runs.open_run(tmp_path / "next")
    assert run.meta.config["k"] == count
    start = read_csv(run.path / "start.csv")
    number_of = {int(row["was"]): int(row["cluster"]) for row in start}
    assert given_names(run) == {number_of[5]: "=owl"}
    moved = {row["image"]: number_of[int(row["value"])] for row in read_csv(edits) if row["action"] == "move"}
    for epoch in (1, 2, 3):
        found = dict(zip(run.ids, run.clusters(epoch).assignment.tolist(), strict=True))
        assert {name: found[name] for name in moved} == moved
        assert found[names[b[1]]] != number_of[before[b[1]]]
    untouched = [i for i in range(len(names)) if names[i] not in moved and i != b[1]]
    first_epoch = run.clusters(1).assignment
    assert [first_epoch[i] for i in untouched] == [number_of[before[i]] for i in untouched]

    edits.write_text(edits.read_text().replace("wrong", "note"))  # other edits are another training
    code, _, error = train(*new)
    assert code == 2
    assert "init" in error
    assert json.loads((run.path / "run.json").read_text())["config"]["init"].count("+") == 1
