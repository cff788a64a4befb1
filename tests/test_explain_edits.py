"""`python -m explain apply`, and explaining the clusters that come of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import a_meta, refused, run_module

import runs
from console import UserError
from explain.assignment import clusters_of, merge_logits
from explain.scores import compute_scores, halves, most_similar
from machine.files import read_csv, write_csv
from runs.edits import OUT, TABLES, apply_edits, digest_of, edit_clusters, keep_start, read_edits

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


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("photo,cluster\n0.jpg,1\n", "needs the columns image and cluster"),
        ("image,cluster,logits\n0.jpg,1,77\n", "line 2: '77' is not a cluster of this epoch: 0 to 3"),
        ("image,cluster\nelsewhere.jpg,1\n", "line 2: 'elsewhere.jpg' is not an image"),
    ],
)
def test_a_table_that_edits_are_of_is_checked_as_any_other(run, tmp_path, rows, said):
    """It lies in a run directory, which may have been received."""
    kept = run.path / TABLES / f"{digest_of(rows.encode())}.csv"
    kept.parent.mkdir()
    kept.write_text(rows)
    with pytest.raises(UserError, match=said):
        apply_edits(run, read_edits(table(tmp_path, f"3,,,of,{kept.stem},", "3,0.jpg,1,move,2,")))


def test_names_that_are_no_utf8_are_found_again(tmp_path):
    """As a browser saves them; of two that it cannot tell apart neither is edited."""
    ids = ["a\udcff.jpg", "b\udcff.jpg", "b\udcfe.jpg", "c.jpg"]
    made = runs.begin(tmp_path / "exp", a_meta(len(ids)), ids, None, [])
    made.write_clusters(3, runs.Clusters(np.array([0, 0, 1, 1]), np.zeros(4)))
    rows, _ = apply_edits(made, read_edits(table(tmp_path, "3,a\ufffd.jpg,0,move,1,")))
    assert [row["cluster"] for row in rows] == [1, 0, 1, 1]
    assert rows[0]["image"] == ids[0]
    with pytest.raises(UserError, match=r"line 2: 2 images are called .* in a browser"):
        apply_edits(made, read_edits(table(tmp_path, "3,b\ufffd.jpg,0,move,1,")))


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


def edit(image, cluster, action, value=""):
    return {"epoch": "3", "image": image, "cluster": cluster, "action": action, "value": value, "note": ""}


def test_of_two_experts_that_disagree_the_last_counts_and_it_is_said(run):
    """Two tables, one below the other."""
    one = [edit("0.jpg", "0", "move", "2"), edit("", "3", "merge", "2"), edit("2.jpg", "1", "move", "0")]
    other = [edit("0.jpg", "0", "move", "1"), edit("", "3", "merge", "1"), edit("2.jpg", "1", "move", "0")]
    rows, log = apply_edits(run, [*one, *other, edit("2.jpg", "1", "wrong")])
    assert [row["cluster"] for row in rows] == [1, 0, "", 1, 2, 2, 1, 1]
    said = [line for line in log if "as a line above says" in line]
    assert said == [
        "0.jpg: moved from cluster 0 to 1, not to 2 as a line above says",
        "cluster 3 is merged into 1, not into 2 as a line above says",
        "2.jpg: does not belong to cluster 1, so it is not moved to 0 as a line above says",
    ]


def test_a_new_cluster_has_the_logits_of_where_its_images_were(run, tmp_path):
    edits = [
        edit("0.jpg", "0", "move", "7"),
        edit("4.jpg", "2", "move", "7"),
        edit("", "7", "new", "0+2"),  # in whatever order
        edit("", "7", "name", "owl"),
        edit("", "8", "new", "3"),  # nothing was moved there: left out
        edit("", "2", "merge", "0"),
    ]
    rows, log = apply_edits(run, edits)
    assert [row["cluster"] for row in rows] == [7, 0, 1, 1, 7, 0, 3, 3]
    assert (rows[0]["logits"], rows[0]["name"], rows[1]["logits"]) == ("0+2", "owl", "0+2")
    assert "cluster 8 is left out: no image was moved into it" in log
    assert "4 clusters became 4; 0 images are in none" in log

    write_csv(tmp_path / "a.csv", rows)
    found = clusters_of(run, 3, 5, {}, tmp_path / "a.csv")
    assert found.numbers == [0, 1, 3, 4, 7]
    assert found.outputs == 5
    assert found.whole.tolist() == [True, True, True, True, False]  # these have each logit once
    assert np.argwhere(found.share & ~np.eye(5, dtype=bool)).tolist() == [[0, 4], [4, 0]]
    assert found.names == {7: "owl"}


def test_a_new_cluster_takes_no_probability_from_the_one_it_was_made_of(run, tmp_path):
    """Its images are scored by the old logit, and the rival is never the other half of the same answer."""
    path = tmp_path / "a.csv"
    path.write_text("image,cluster,logits\n" + "".join(f"{i}.jpg,{c},{m}\n" for i, c, m in [
        (0, 0, 0), (1, 6, 0), (2, 1, 1), (3, 1, 1), (4, 2, 2), (5, 2, 2), (6, 3, 3), (7, 3, 3)]))  # fmt: skip
    clusters = clusters_of(run, 3, 4, {}, path)
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    features = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    subject = SimpleNamespace(
        clusters=clusters, pictures=SimpleNamespace(present=np.arange(8)), run=run, seed=1, clustered=lambda x: x
    )
    found = compute_scores(subject, features, merge_logits(logits, clusters.groups).numpy(), "pca")
    probability = logits.softmax(1).numpy()
    for image in (0, 1):
        assert found.probability[image] == pytest.approx(probability[image, 0])
        assert found.rival[image] == 1 + probability[image, 1:].argmax()
    assert found.half[[0, 1]].tolist() == [0, 0]  # of one image there are no halves


def test_halves_and_the_most_similar_by_hand():
    x = np.array([[0.0, 0], [0.1, 0], [0.25, 0], [5, 0], [9, 9], [9, 9]])
    assert halves(x, np.array([0, 0, 0, 0, 1, 1]), 31).tolist() == [0, 0, 0, 1, 0, 0]  # the smaller; alike: none
    near = most_similar(x, 6)
    assert near[:4, :3].tolist() == [[1, 2, 3], [0, 2, 3], [1, 0, 3], [2, 1, 0]]
    assert (near[:, 5] == -1).all()  # there are five others
    assert (near[4, 0], near[5, 0]) == (5, 4)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("3,,3,new,0,", "new clusters have numbers from 4 to 999999, not 3"),
        ("3,0.jpg,0,move,4,", "no cluster 4"),
        ("3,,x,new,0,", "'x' is not the number of a cluster"),
        ("3,,4,new,0,\n3,,4,new,0,", "made twice"),
        ("3,,4,new,0,\n3,,4,merge,9,", "no cluster 9"),
        ("3,,,of,0123456789abcdef,\n3,,0,name,x,", "that {run} does not have: explain it again"),
        ("3,,,of,../../x,\n3,,0,name,x,", "that {run} does not have"),
    ],
)
def test_bad_new_clusters_are_one_sentence(run, tmp_path, line, words):
    with pytest.raises(UserError, match="--edits") as caught:
        apply_edits(run, read_edits(table(tmp_path, line)))
    assert words.format(run=run.path) in str(caught.value)


def test_new_clusters_are_merged_like_others(run):
    """Into one of the network's its images go, and it keeps its logits; what goes into a new one brings its logits."""
    moves = [edit("", "7", "new", "0+2"), edit("0.jpg", "0", "move", "7"), edit("4.jpg", "2", "move", "7")]
    rows, log = apply_edits(run, [*moves, edit("", "7", "merge", "3")])
    assert [row["cluster"] for row in rows] == [3, 0, 1, 1, 3, 2, 3, 3]
    assert {row["logits"] for row in rows if row["cluster"] == 3} == {"3"}
    assert "cluster 7 is merged into 3" in log
    rows, log = apply_edits(run, [*moves, edit("", "1", "merge", "7"), edit("", "7", "name", "owl")])
    assert [row["cluster"] for row in rows] == [7, 0, 7, 7, 7, 2, 3, 3]
    assert {(row["logits"], row["name"]) for row in rows if row["cluster"] == 7} == {("0+1+2", "owl")}
    both = [edit("", "8", "new", "3"), edit("6.jpg", "3", "move", "8"), edit("", "8", "merge", "7")]
    rows, _ = apply_edits(run, [*moves, *both])
    assert [row["cluster"] for row in rows] == [7, 0, 1, 1, 7, 2, 7, 3]
    assert rows[6]["logits"] == "0+2+3"
    rows, log = apply_edits(run, [edit("", "7", "new"), edit("", "8", "new"), edit("", "8", "merge", "7")])  # all empty
    assert [row["cluster"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert sum("left out" in line for line in log) == 2


def test_edits_of_edited_clusters_build_on_them(run, tmp_path):
    """A second round, and a third beside it from the same table, whatever `explain apply` wrote in between."""
    first = table(
        tmp_path, "3,,1,merge,0,", "3,,7,new,2,", "3,,7,name,owl,", "3,4.jpg,2,move,7,", "3,6.jpg,3,wrong,,worn"
    )
    done = run_module("explain", "apply", "--run", run.path, "--edits", first)
    assert done.returncode == 0, done.stderr
    keep_start(run, run.path / OUT)  # as `explain --assignments` does
    digest = digest_of((run.path / OUT).read_bytes())
    of = f"3,,,of,{digest},"
    second = table(tmp_path, of, "3,2.jpg,0,move,7,", "3,,3,merge,0,", "3,,8,new,0,", "3,0.jpg,0,move,8,")
    done = run_module("explain", "apply", "--run", run.path, "--edits", second)
    assert done.returncode == 0, done.stderr
    rows = read_csv(run.path / OUT)
    assert [row["cluster"] for row in rows] == ["8", "0", "7", "0", "7", "2", "", "0"]
    assert [row["logits"] for row in rows] == ["0+1", "0+1+3", "0+1+2", "0+1+3", "0+1+2", "2", "", "0+1+3"]
    assert [row["before"] for row in rows] == ["0", "0", "1", "1", "2", "2", "3", "3"]  # in the run itself
    assert rows[4]["name"] == "owl"
    assert (rows[6]["wrong"], rows[6]["note"]) == ("yes", "worn")
    assert f"as edited before ({digest})" in (run.path / "clusters-edited.log").read_text()
    found = clusters_of(run, 3, 4, {}, run.path / OUT)  # explainable: each of the network's logits once
    assert sorted(j for number in found.numbers if number < 4 for j in found.logits[number]) == [0, 1, 2, 3]

    edited = edit_clusters(run, read_edits(second))
    assert np.flatnonzero(edited.moved).tolist() == [0, 2, 4]  # by hand, in either round; 3 came by a merge
    assert [edited.became(j) for j in range(4)] == [0, 0, 2, 0]

    again = apply_edits(run, read_edits(table(tmp_path, of, "3,2.jpg,0,wrong,,")))[0]  # the first table is still known
    assert [row["cluster"] for row in again] == [0, 0, "", 0, 7, 2, "", 3]
    with pytest.raises(UserError, match="is in cluster 7 of epoch 3, not in 2"):
        apply_edits(run, read_edits(table(tmp_path, of, "3,4.jpg,2,wrong,,")))
    with pytest.raises(UserError, match="is in no cluster"):
        apply_edits(run, read_edits(table(tmp_path, of, "3,6.jpg,3,move,0,")))
    (run.path / "assignments" / f"{digest}.csv").write_text("image,cluster\n0.jpg,0\n")  # not what the edits are of
    with pytest.raises(UserError, match="does not have"):
        apply_edits(run, read_edits(second))
    for forged, words in (("a" * 5000, r"digest 'a{59}\.\.\.\)"), ("../own", "does not have"), ("", "does not have")):
        with pytest.raises(UserError, match=words):
            apply_edits(run, read_edits(table(tmp_path, f"3,,,of,{forged},", "3,2.jpg,0,wrong,,")))
    with pytest.raises(UserError, match="of several tables"):
        apply_edits(run, read_edits(table(tmp_path, of, f"3,,,of,{'a' * 16},")))


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
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match="assignments") as caught:
        clusters_of(run, 3, 5, {}, tmp_path / "a.csv")
    assert words in str(caught.value)
