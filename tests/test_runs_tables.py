"""A column is told once: computed, written, shown and drawn from its entry."""

import dataclasses

import numpy as np
import pytest
from conftest import a_meta, run_module

import runs
from deepcluster import figures
from machine.files import read_csv
from runs import Clusters, tables
from runs.tables import EpochFacts, LogColumn, cluster_rows, current_names, log_row, rank_within

FACTS = EpochFacts(
    epoch=2,
    loss=1.23456789,
    k=4,
    assignment=np.array([0, 0, 1, 3]),
    previous=np.array([1, 1, 0, 2]),
    predicted=np.array([0, 1, 1, 3]),
    objective=2.5,
)


def test_a_row_by_hand():
    row = log_row(FACTS)
    assert row["loss"] == 1.234568
    assert row["nmi_previous"] == 1
    assert row["head_agreement"] == 0.75
    assert [row[name] for name in ("smallest", "median", "largest", "empty")] == [0, 1.0, 2, 1]
    assert "ami" not in row  # no labels: not known
    assert "loss_last_quarter" not in row
    assert list(row) == [column.name for column in tables.LOG if column.name in row]


def test_a_supervised_epoch_has_other_columns_of_the_same_table():
    row = log_row(
        EpochFacts(1, loss=0.5, accuracy=0.9, validation={"loss": 0.4, "accuracy": 0.95}, seconds={"": 3.14159})
    )
    assert row == {
        "epoch": 1, "loss": 0.5, "accuracy": 0.9, "validation_loss": 0.4, "validation_accuracy": 0.95, "seconds": 3.14,
    }  # fmt: skip


def test_a_new_column_is_written_shown_and_drawn(tmp_path, monkeypatch):
    new = LogColumn("entropy", "entropy of the sizes", lambda f: 0.5 * f.epoch, panel="Entropy", shown=True)
    monkeypatch.setattr(tables, "LOG", (*tables.LOG, new))
    monkeypatch.setattr(figures, "LOG", tables.LOG)
    run = runs.begin(tmp_path / "exp", a_meta(4), list("abcd"), None, [])
    rows = [log_row(dataclasses.replace(FACTS, epoch=epoch)) for epoch in (1, 2)]
    run.write_log(rows)
    assert [row["entropy"] for row in run.log()] == ["0.5", "1.0"]
    run.write_clusters(2, Clusters(FACTS.assignment, np.zeros(4)))
    drawn = {}
    monkeypatch.setattr(figures, "save_figure", lambda run, name, figure: drawn.update({name: figure}))
    figures.draw(run, rows)
    assert "Entropy" in [axis.get_title() for axis in drawn["curves.png"].axes]


def test_show_prints_the_shown_columns(tmp_path):
    run = runs.begin(tmp_path / "exp", a_meta(4), list("abcd"), None, [])
    run.write_log([log_row(FACTS)])
    head = run_module("runs", "show", run.path).stdout.splitlines()[-3].split()
    assert head == [column.name for column in tables.LOG if column.shown and column.name in log_row(FACTS)]


def test_former_names_become_todays():
    old = [{"epoch": "1", "late_loss": "2", "stability": "", "head_share": ".5", "accuracy": ".4"}]
    assert current_names(old) == [
        {"epoch": "1", "loss_last_quarter": "2", "head_agreement": ".5", "matched_accuracy": ".4"}
    ]
    supervised = [{"epoch": "1", "accuracy": ".9"}]
    assert current_names(supervised) == supervised


def test_clusters_csv_by_hand(tmp_path):
    rows = cluster_rows(
        list("abc"), np.array([1, 0, 1]), np.array([0.5, 0.25, 0.125]), np.array([1, 1, 1]), np.full(3, 0.5)
    )
    assert [row["rank"] for row in rows] == [2, 1, 1]
    assert rows[0] == {
        "image": "a", "cluster": 1, "distance": "0.500000", "rank": 2, "predicted": 1, "probability": "0.500000",
    }  # fmt: skip
    run = runs.begin(tmp_path / "exp", a_meta(3), list("abc"), None, [])
    run.write_table("clusters.csv", rows)
    assert list(read_csv(run.path / "clusters.csv")[0]) == [column.name for column in tables.CLUSTERS]


@pytest.mark.parametrize("seed", range(3))
def test_ranks_count_from_one_in_each_cluster(seed):
    rng = np.random.default_rng(seed)
    assignment, distance = rng.integers(0, 5, 40), rng.integers(0, 6, 40) / 4  # with ties
    rank = rank_within(assignment, distance)
    for number in np.unique(assignment):
        members = np.flatnonzero(assignment == number)
        assert sorted(rank[members]) == list(range(1, len(members) + 1))
        assert members[np.argsort(rank[members])].tolist() == sorted(members, key=lambda i: (distance[i], i))
