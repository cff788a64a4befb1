"""`python -m explain apply`, and explaining the clusters that come of it."""

import numpy as np
import pytest
import torch
from conftest import a_meta, refused, run_module

import runs
from explain.assignment import clusters_of, merge_logits
from explain.edits import apply_edits
from machine.files import read_csv

HEAD = "epoch,image,cluster,action,value,note\n"


@pytest.fixture
def run(tmp_path):
    """Eight images in four clusters; cluster 4 is empty."""
    ids = [f"{i}.jpg" for i in range(8)]
    made = runs.begin(tmp_path / "exp", a_meta(len(ids)), ids, None, [])
    assignment = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    made.write_clusters(3, runs.Clusters(assignment, np.linspace(0, 1, 8)))
    return made


def table(tmp_path, *lines):
    path = tmp_path / "edits.csv"
    path.write_text(HEAD + "".join(line + "\n" for line in lines))
    return path


def test_moves_then_merges_names_and_wrong_coins(run, tmp_path):
    edits = table(
        tmp_path,
        "3,,1,merge,0,",
        '3,,0,name,"axe, left",',
        "3,0.jpg,0,move,2,the axe is a torc",
        "3,4.jpg,2,move,1,",
        "3,5.jpg,2,wrong,,worn",
        "3,6.jpg,3,note,,fine",
    )
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    result = run_module("explain", "apply", "--run", run.path, "--edits", edits)
    assert result.returncode == 0, result.stderr
    rows = {row["image"]: row for row in read_csv(run.path / "clusters-edited.csv")}
    assert [rows[f"{i}.jpg"]["cluster"] for i in range(8)] == ["2", "0", "0", "0", "0", "", "3", "3"]
    assert rows["1.jpg"]["logits"] == rows["4.jpg"]["logits"] == "0+1"
    assert rows["0.jpg"]["logits"] == "2"
    assert rows["2.jpg"]["name"] == "axe, left"
    assert (rows["5.jpg"]["wrong"], rows["5.jpg"]["note"]) == ("yes", "worn")
    assert rows["6.jpg"]["note"] == "fine"
    log = (run.path / "clusters-edited.log").read_text()
    for words in (
        "moved from cluster 0 to 2 (the axe is a torc)",
        "cluster 1 is merged into 0",
        "4 clusters became 3",
        "1 images are in none",
    ):
        assert words in log
    assert {path: path.read_bytes() for path in before} == before  # nothing else was touched
    assert {path.name for path in run.path.iterdir()} - {path.name for path in before} == {
        "clusters-edited.csv", "clusters-edited.log", "clusters", "checkpoints", "figures",
    }  # fmt: skip


def test_chains_and_circles_of_merges_end_in_one_cluster(run):
    def merge(cluster, other):
        return {"epoch": "3", "image": "", "cluster": cluster, "action": "merge", "value": other, "note": ""}

    rows, _ = apply_edits(run, [merge("3", "2"), merge("2", "1")])
    assert [row["cluster"] for row in rows] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert rows[7]["logits"] == "1+2+3"
    rows, _ = apply_edits(run, [merge("3", "2"), merge("2", "3")])
    assert [row["cluster"] for row in rows] == [0, 0, 1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("3,99.jpg,0,move,1,", "'99.jpg' is not an image"),
        ("3,0.jpg,1,move,2,", "is in cluster 0 of epoch 3"),
        ("3,0.jpg,0,move,9,", "no cluster 9"),
        ("3,0.jpg,0,move,x,", "'x' is not the number of a cluster"),
        ("3,0.jpg,0,destroy,,", "unknown action 'destroy'"),
        ("2,0.jpg,0,wrong,,", "epoch 2 was not clustered"),
    ],
)
def test_bad_edits_are_one_sentence_and_write_nothing(run, tmp_path, line, words):
    result = run_module("explain", "apply", "--run", run.path, "--edits", table(tmp_path, line))
    assert words in refused(result)
    assert not (run.path / "clusters-edited.csv").exists()


def test_edits_of_two_epochs_or_of_nothing_are_refused(run, tmp_path):
    apply = ["explain", "apply", "--run", run.path, "--edits"]
    assert "epochs 3 and 4" in refused(run_module(*apply, table(tmp_path, "3,0.jpg,0,wrong,,", "4,1.jpg,0,wrong,,")))
    assert "no edits" in refused(run_module(*apply, table(tmp_path)))
    assert "no such file" in refused(run_module(*apply, tmp_path / "none.csv"))


def test_a_merged_cluster_is_the_log_sum_exp_of_its_logits(run, tmp_path):
    logits = torch.randn(5, 4, dtype=torch.float64)
    merged = merge_logits(logits, [(0, 1), (2,), (3,)])
    assert torch.allclose(merged[:, 0], torch.log(logits[:, 0].exp() + logits[:, 1].exp()))
    assert torch.equal(merged[:, 1:], logits[:, 2:])
    # the probability of "one of them" is the sum of their probabilities
    assert torch.allclose(merged.softmax(1)[:, 0], logits.softmax(1)[:, :2].sum(1))

    path = tmp_path / "a.csv"
    path.write_text("image,cluster,logits,name\n0.jpg,0,0+1,axe\n1.jpg,0,0+1,axe\n2.jpg,3,,\n3.jpg,,,\n")
    found = clusters_of(run, 3, 5, {}, path)
    assert found.assignment.tolist() == [0, 0, 3, -1, -1, -1, -1, -1]
    assert found.logits == {0: (0, 1), 2: (2,), 3: (3,), 4: (4,)}
    assert found.names == {0: "axe"}
    assert found.numbers == [0, 2, 3, 4]
    assert np.isnan(found.distance[2])  # it was in cluster 1: no distance to the centroid of 3 is known


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,type\n0.jpg,1\n", "columns image and cluster"),
        ("image,cluster\n0.jpg,8\n", "line 2: '8' is not a cluster of this epoch: 0 to 4"),
        ("image,cluster\nx.jpg,1\n", "'x.jpg' is not an image"),
        ("image,cluster\n0.jpg,\n", "puts no image into a cluster"),
        ("image,cluster,logits\n0.jpg,1,1+2\n1.jpg,1,1\n", "other logits than above"),
    ],
)
def test_bad_assignments_are_refused_by_line(run, tmp_path, text, words):
    from console import UserError

    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match="assignments") as caught:
        clusters_of(run, 3, 5, {}, tmp_path / "a.csv")
    assert words in str(caught.value)
