"""Imports of the original program's files."""

import codecs
import itertools
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, refused, run_module
from original_program import EMPTY, K, logits_of, original_network

import runs
from console import UserError
from datasets import open_dataset
from deepcluster import trained
from deepcluster.original import Weights, best_matching, convert, doubt_about_rows, newest_epoch, read_checkpoint
from deepcluster.original_log import entries_of, epochs_of, parse_entry, read_clusters
from deepcluster.original_pickle import unpickle
from deepcluster.views import Frames, fixed_view


@pytest.mark.parametrize("shape", ["lists", "triples", "published"])
def test_path_cluster_and_logit_agree(original, shape, tmp_path):
    root, truth, network = original["root"], original["truth"], original["network"]
    result = run_module(
        "deepcluster",
        "import",
        root / "checkpoint.pth.tar",
        "--data",
        original["data"],
        "--out",
        tmp_path / "exp",
        "--clusters",
        root / shape,
    )
    assert result.returncode == 0, result.stderr
    run = runs.open_run(tmp_path / "exp")
    assert run.epochs() == [9]
    assert len(run.ids) == 30  # the broken one is passed over, though it was counted
    assert {name: int(c) for name, c in zip(run.ids, run.clusters(9).assignment, strict=True)} == {
        name: cluster for name, cluster in truth.items() if "broken" not in name
    }

    dataset = open_dataset(str(original["data"]), 256)
    images = fixed_view(Frames(dataset.pixels, torch.device("cpu")), np.arange(8), 224, crop=True)
    with torch.no_grad():
        naive = logits_of(network, images)
        ours = trained.network(run)(images)
    occupied = [c for c in range(K) if c != EMPTY]
    torch.testing.assert_close(ours[:, occupied], naive[:, :4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[:, EMPTY], naive[:, 4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", ["triple", "numpy", "scalars"])
def test_other_shapes_say_the_same(original, shape):
    log, plain = (read_clusters(original["root"] / name, 9, 9) for name in (shape, "lists"))
    assert log.by_index == plain.by_index
    assert log.order == plain.order == [0, 1, 3, 4]


def numbered_by_the_original(lists):
    """Row of the head of each occupied cluster, as the original finds it."""
    labels = []
    for cluster, members in enumerate(lists):
        labels.extend([cluster] * len(members))
    return {label: row for row, label in enumerate(set(labels))}


def lists_of(k, occupied):
    """k index lists, empty but for `occupied`: cluster c has images 3c, 3c + 1 and 3c + 2."""
    return [[3 * c, 3 * c + 1, 3 * c + 2] if c in occupied else [] for c in range(k)]


def test_few_occupied_clusters_are_numbered_as_by_the_original():
    log = parse_entry(lists_of(50, [4, 11, 19, 30, 41, 49]))
    assert log.order == [4, 41, 11, 49, 19, 30]  # of a training of the original
    rng = np.random.default_rng(0)
    for k in (5, 50, 100, 1000):
        for m in (1, k // 10 + 1, k // 3, k):
            lists = lists_of(k, set(rng.choice(k, m, replace=False).tolist()))
            rows = numbered_by_the_original(lists)
            assert {cluster: row for row, cluster in enumerate(parse_entry(lists).order)} == rows


def test_head_of_few_clusters_follows_its_clusters():
    k, occupied = 50, [4, 11, 19, 30, 41, 49]
    rows = numbered_by_the_original(lists_of(k, occupied))
    network = original_network(k)
    bias = torch.zeros(k)
    for cluster, row in rows.items():
        bias[row] = cluster
    state = {name.replace("top_layer.", "head."): value for name, value in network.state_dict().items()}
    model = convert(
        Weights("alexnet", 1, True, k, state | {"head.bias": bias}), parse_entry(lists_of(k, occupied)).order
    )
    wanted = torch.zeros(k)
    wanted[occupied] = torch.tensor(occupied, dtype=torch.float32)
    torch.testing.assert_close(model.head.bias.detach(), wanted)


def triple_of(lists, rows, number=0):
    return lists, [(f"a/{i}.jpg", rows[c]) for c, members in enumerate(lists) for i in members], number


def test_triple_says_the_rows_itself():
    """Whatever Python made it."""
    lists = lists_of(50, [4, 19, 41])
    assert parse_entry(triple_of(lists, {4: 2, 19: 0, 41: 1})).order == [19, 41, 4]
    assert parse_entry(triple_of(lists, {4: 4, 19: 19, 41: 41})).order == parse_entry(lists).order  # no rows
    for contradiction in ({4: 0, 19: 0, 41: 1}, {4: 0, 19: 1, 41: 7}):
        with pytest.raises(ValueError, match="contradict"):
            parse_entry(triple_of(lists, contradiction))


def test_exchanged_rows_are_spoken_of():
    rng = np.random.default_rng(0)
    assignment = rng.integers(0, 8, 400)
    noisy = np.where(rng.random(400) < 0.2, rng.integers(0, 8, 400), assignment)
    assert doubt_about_rows(noisy, assignment) is None
    assert doubt_about_rows(rng.integers(0, 8, 400), assignment) is None  # a head that has learnt nothing
    assert doubt_about_rows(np.arange(40), rng.permutation(40)) is None  # any exchange fits so few
    doubt = doubt_about_rows((noisy + 3) % 8, assignment)
    own, best = (np.mean((noisy + shift) % 8 == assignment) for shift in (3, 0))
    assert f"of {own:.0%} " in doubt
    assert f"with {best:.0%} " in doubt


def test_best_matching_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows, columns = rng.integers(0, 4, 12), rng.integers(0, 5, 12)
        wanted = max(np.mean(np.array(exchange)[rows] == columns) for exchange in itertools.permutations(range(5), 4))
        assert best_matching(rows, columns) == pytest.approx(wanted)


def test_exchanged_rows_are_spoken_of_after_an_import(original, tmp_path):
    """A log of other clusters than those which the head has learnt: what the head says, moved by one."""
    predicted = original["predicted"]
    assert len(set(predicted.values())) >= 3
    numbers = {number: i for i, number in enumerate(sorted(set(predicted.values())))}
    moved = [(name, (numbers[number] + 1) % len(numbers)) for name, number in predicted.items()]
    (tmp_path / "clusters").write_bytes(pickle.dumps(moved))
    shutil.copy(original["root"] / "checkpoint.pth.tar", tmp_path)
    result = run_module("deepcluster", "import", tmp_path, "--data", original["data"], "--out", tmp_path / "exp")
    assert result.returncode == 0, result.stderr
    assert "the head agrees with the clusters of 0% of the images, but would with " in result.stdout
    assert result.stdout.count("\n") == 3  # with what comes next


# --- which entry of the log ---


ENTRIES = [[[0], [epoch]] for epoch in range(1, 5)]  # four epochs, each told apart by the image in its cluster 1


@pytest.mark.parametrize(
    ("entries", "newest", "epochs"),
    [
        (ENTRIES, 4, [1, 2, 3, 4]),
        (ENTRIES, 6, [3, 4, 5, 6]),  # resumed after epoch 2, the log begun anew
        (ENTRIES, 2, [1, 2, 3, 4]),  # the training went on after the checkpoint was copied
        (ENTRIES, None, [1, 2, 3, 4]),
        ([triple_of(lists, {0: 0, 1: 1}, n) for lists, n in zip(ENTRIES, (1, 3, 5, 7), strict=True)], 8, [2, 4, 6, 8]),
        ([triple_of(lists, {0: 0, 1: 1}, n) for lists, n in zip(ENTRIES, (1, 2, 3, 4), strict=True)], 4, [1, 2, 3, 4]),
        ([*ENTRIES[:3], triple_of(ENTRIES[3], {0: 0, 1: 1}, 8)], None, [6, 7, 8, 9]),
    ],
)
def test_entries_are_counted(entries, newest, epochs):
    assert list(epochs_of(entries, newest)) == epochs


@pytest.fixture
def exp(tmp_path):
    """exp/ of the original after epoch 4: `exp(4)` with checkpoints of these epochs within it, and the log."""

    def of(newest, *within, entries=ENTRIES):
        (tmp_path / "checkpoints").mkdir()
        weight = {"top_layer.weight": torch.zeros(2, 4096), "top_layer.bias": torch.zeros(2)}
        content = {"arch": "alexnet", "state_dict": weight}
        for i, epoch in enumerate(within):
            torch.save(content | {"epoch": epoch}, tmp_path / "checkpoints" / f"checkpoint_{i}.0.pth.tar")
        if newest is not None:
            torch.save(content | {"epoch": newest}, tmp_path / "checkpoint.pth.tar")
        (tmp_path / "clusters").write_bytes(pickle.dumps(entries))
        return tmp_path

    return of


def clusters_for(checkpoint, clusters):
    epoch = read_checkpoint(checkpoint).epoch
    return read_clusters(clusters, epoch, newest_epoch(checkpoint, clusters, epoch))


@pytest.mark.parametrize(
    ("newest", "epoch", "entry"),
    [(4, 1, 0), (4, 2, 1), (4, 4, 3), (6, 3, 0), (6, 5, 2), (None, 2, 1)],
)
def test_checkpoint_within_an_epoch_gets_its_clusters(exp, newest, epoch, entry, capsys):
    folder = exp(newest, epoch)
    log = clusters_for(folder / "checkpoints" / "checkpoint_0.0.pth.tar", folder / "clusters")
    assert log.by_index == {0: 0, entry + 1: 1}
    assert (f"epoch {epoch} is imported" in capsys.readouterr().out) == (epoch != 4)


@pytest.mark.parametrize(("epoch", "entries"), [(4, ENTRIES), (6, ENTRIES), (9, ENTRIES[:1])])
def test_checkpoint_of_an_epochs_end_gets_the_last_clusters(exp, epoch, entries, capsys):
    folder = exp(epoch, entries=entries)
    assert clusters_for(folder / "checkpoint.pth.tar", folder / "clusters").by_index == {0: 0, len(entries): 1}
    assert ("taken for epochs 3 to 6" in capsys.readouterr().out) == (epoch == 6)


@pytest.mark.parametrize(
    ("newest", "epoch", "held"),
    [
        (4, 5, "epochs 1 to 4"),  # stopped within epoch 5, whose clusters were not yet in the log
        (6, 2, "epochs 3 to 6"),  # before the resume
        (None, 5, "epochs 1 to 4"),
    ],
)
def test_checkpoint_whose_clusters_the_log_lacks_is_refused(exp, newest, epoch, held):
    folder = exp(newest, epoch)
    with pytest.raises(UserError, match=f"holds the clusters of {held}, but the checkpoint is of epoch {epoch}"):
        clusters_for(folder / "checkpoints" / "checkpoint_0.0.pth.tar", folder / "clusters")


def test_damaged_newest_checkpoint_says_nothing(exp):
    folder = exp(4, 2)
    (folder / "checkpoint.pth.tar").write_bytes(b"PK")
    within = folder / "checkpoints" / "checkpoint_0.0.pth.tar"
    assert newest_epoch(within, folder / "clusters", 2) is None
    assert clusters_for(within, folder / "clusters").by_index == {0: 0, 2: 1}


def test_import_of_a_checkpoint_within_an_epoch(original, tmp_path):
    """It finds the log in the folder above."""
    root = original["root"]
    content = torch.load(root / "checkpoint.pth.tar", weights_only=True)
    (tmp_path / "checkpoints").mkdir()
    torch.save(content | {"epoch": 8}, tmp_path / "checkpoints" / "checkpoint_1.0.pth.tar")
    shutil.copy(root / "checkpoint.pth.tar", tmp_path)
    older, newer = pickle.loads((root / "lists").read_bytes())
    older = newer[::-1]
    (tmp_path / "clusters").write_bytes(pickle.dumps([older, newer]))
    result = run_module(
        "deepcluster",
        "import",
        tmp_path / "checkpoints" / "checkpoint_1.0.pth.tar",
        "--data",
        original["data"],
        "--out",
        tmp_path / "exp",
    )
    assert result.returncode == 0, result.stderr
    run = runs.open_run(tmp_path / "exp")
    assert {name: int(c) for name, c in zip(run.ids, run.clusters(8).assignment, strict=True)} == {
        name: K - 1 - cluster for name, cluster in original["truth"].items() if "broken" not in name
    }


# --- what may be in a pickle ---


def test_python_2_pickle_of_numpy_numbers():
    """As Python 2 wrote it: raw bytes as str, module numpy.core."""
    raw = (
        b"\x80\x02]q\x00]q\x01(]q\x02cnumpy.core.multiarray\nscalar\nq\x03cnumpy\ndtype\nq\x04U\x02i8q\x05K\x00K\x01"
        b"\x87q\x06Rq\x07(K\x03U\x01<q\x08NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\tb"
        b"U\x08\xc8\x00\x00\x00\x00\x00\x00\x00q\n\x86q\x0bRq\x0ca]q\x0dK\x01aea."
    )
    content = unpickle(raw)
    assert content == [[[200], [1]]]
    assert parse_entry(content[-1]).by_index == {200: 0, 1: 1}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_numpy_in_any_protocol(protocol):
    arrays = (np.array([1, 2], ">i4"), np.array([[1, 2], [3, 4]], order="F"), np.array(["ab", "c"]), np.array([], int))
    content = [np.int64(3), np.float32(2.5), np.str_("ab"), np.bool_(True), arrays]
    assert unpickle(pickle.dumps(content, protocol)) == [
        3,
        2.5,
        "ab",
        True,
        ([1, 2], [[1, 2], [3, 4]], ["ab", "c"], []),
    ]


class Hostile:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/should-not-exist-deepcluster",)


@pytest.mark.parametrize("content", [Hostile(), [[[1, 2], [Hostile()]]], [np.array([Hostile()], dtype=object)]])
def test_hostile_pickle_is_refused(original, content, tmp_path):
    (tmp_path / "clusters").write_bytes(pickle.dumps(content))
    shutil.copy(original["root"] / "checkpoint.pth.tar", tmp_path)
    sentence = refused(
        run_module("deepcluster", "import", tmp_path, "--data", original["data"], "--out", tmp_path / "exp")
    )
    assert "refused" in sentence
    assert "system" in sentence or "numpy.dtype O8" in sentence  # an array of objects ends before them
    assert not (tmp_path / "exp").exists()


class Asks:
    """Pickles itself as a call, with a state if there is one."""

    def __init__(self, function, arguments, *state):
        self.reduced = (function, arguments, *state)

    def __reduce__(self):
        return self.reduced


def array_of(dtype, raw, shape=(1,)):
    """An array whose dtype is as pickled, not as it is."""
    return Asks(np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, raw))


def laughs(level):
    """2 ** level items in `level` lists."""
    value = [1, 1]
    for _ in range(level - 1):
        value = [value, value]
    return value


# An object dtype without its flags, whose bytes numpy reads as pointers; a field that lies beside the buffer.
POINTERS = Asks(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
BESIDE = Asks(np.dtype, ("V8", False, True), (3, "|", None, ("x",), {"x": (np.dtype("i8"), 4096)}, 8, 1, 0))
SUBARRAY = Asks(np.dtype, ("i8", False, True), (3, "<", (np.dtype("i8"), (1000,)), None, None, -1, -1, 0))
WIDE, TEXT = np.random.default_rng(0).integers(0, 9, 30_000).tolist(), "a" * 1_000_000
# name -> content, or the bytes themselves, and what the sentence says of it
HOSTILE = {
    "pointers": ([array_of(POINTERS, b"A" * 8)], "numpy.dtype O8"),
    "pointers in a number": ([[[Asks(np._core.multiarray.scalar, (POINTERS, b"A" * 8))]]], "numpy.dtype O8"),
    "beside the buffer": ([array_of(BESIDE, b"A" * 8)], "numpy.dtype V8"),
    "dtype of dtypes": ([array_of(SUBARRAY, b"A" * 8)], "numpy.dtype with parts"),
    "dtype without end": ([array_of(Asks(np.dtype, (laughs(40),)), b"")], "numpy.dtype of type list"),
    "wide dtype": ([array_of(Asks(np.dtype, ("S2147483647", False, True)), b"")], "numpy.dtype S2147483647"),
    "empty rows": ([array_of(np.dtype("i8"), b"", (2**40, 0))], "impossible shape"),
    "no characters": ([array_of(np.dtype("U1"), b"\xff" * 4)], "no characters"),
    "other bytes than said": ([array_of(np.dtype("i8"), b"A" * 7)], "damaged"),
    "laughs": (laughs(60), "deep in one another"),
    "laughing key": (b"\x80\x04})" + b"2\x86" * 60 + b"K\x01s.", "neither list, number nor path"),
    "wide laughs": ([[WIDE] * 30_000], "unfolds to more than"),
    "one array many times": (
        [[array_of(np.dtype("i1"), TEXT.encode(), (1_000_000,))] * 30_000],
        "unfolds to more than",
    ),
    "one text many times": ([[Asks(codecs.encode, (TEXT, "latin1")) for _ in range(30_000)]], "none of the known"),
    "changed function": (b"c_codecs\nencode\nK\x01b.", "changes what it was given"),
    "bytes without end": (b"\x80\x05\x96" + (2**36).to_bytes(8, "little") + b".", "neither list, number nor path"),
    "memo without end": (b"\x80\x02]r\xfe\xff\xff\x7f.", "none of the known shapes"),
    "terminal": (b"c\x1b[2Jos\nsystem\n.", r"asks for \x1b[2Jos.system"),
    "image": ([[[10**12]]], "more than 100000000 images"),
    "image of many digits": ([[[10**5000]]], "more than 100000000 images"),
    "image below 0": ([[[-1]]], "images below 0"),
    "image without end": ([[[float("inf")]]], "none of the known shapes"),
    "cluster": ([("a/00.jpg", 10**12), ("b/01.jpg", 0)], "more than 100000 clusters"),
    "cluster below 0": ([("a/00.jpg", -1)], "clusters below 0"),
    "clusters": ([[[0], *[[]] * 200_000]], "more than 100000 clusters"),
}
READ_ALL = """
import pathlib, resource, sys
from console import UserError
from deepcluster.original_log import read_clusters
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        read_clusters(path, 1, 1)
    except UserError as error:
        print(error, flush=True)
"""


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    """What is said of each hostile log, read in a process of its own, which may crash."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in HOSTILE.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=4))
    child = subprocess.run(
        [sys.executable, "-c", READ_ALL, folder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    return {Path(line.split(": ")[0]).name: line for line in child.stdout.splitlines()}


@pytest.mark.parametrize(("name", "says"), [(name, says) for name, (_, says) in HOSTILE.items()])
def test_what_no_log_holds_is_refused_in_one_sentence(sentences, name, says):
    assert says in sentences[name]
    assert sentences[name].isprintable()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"epoch": None}, "does not say its epoch"),
        ({"epoch": 10**12}, "does not say its epoch"),
        ({"rows": 10**9}, "top_layer has 1000000000 rows"),
        ({"inputs": 10**12}, "not one of 4096 inputs"),
        ({"state_dict": {"top_layer.weight": 1}}, "more than named tensors"),
        ({"state_dict": {"top_layer.weight": torch.zeros(2, 4096)}}, "not one of 4096 inputs"),
        ({"arch": "resnet18"}, "only alexnet and vgg16"),
    ],
)
def test_absurd_checkpoints_are_refused(change, says, tmp_path):
    rows, inputs = change.pop("rows", 2), change.pop("inputs", 4096)
    head = {"top_layer.weight": torch.zeros(1, 1).expand(rows, inputs), "top_layer.bias": torch.zeros(1).expand(rows)}
    torch.save({"epoch": 1, "arch": "alexnet", "state_dict": head} | change, tmp_path / "checkpoint.pth.tar")
    with pytest.raises(UserError, match=says):
        read_checkpoint(tmp_path / "checkpoint.pth.tar")


def test_more_clusters_than_the_head_has_rows_are_refused(original, tmp_path):
    shutil.copy(original["root"] / "checkpoint.pth.tar", tmp_path)
    (tmp_path / "clusters").write_bytes(pickle.dumps([("a/00.jpg", K), ("b/01.jpg", 0)]))
    sentence = refused(
        run_module("deepcluster", "import", tmp_path, "--data", original["data"], "--out", tmp_path / "exp")
    )
    assert f"counts {K + 1} clusters" in sentence
    assert not (tmp_path / "exp").exists()


def test_hostile_checkpoint_is_refused(original, tmp_path):
    shutil.copy(original["root"] / "lists", tmp_path / "clusters")
    torch.save({"state_dict": {}, "x": Hostile()}, tmp_path / "checkpoint.pth.tar")
    refused(run_module("deepcluster", "import", tmp_path, "--data", original["data"], "--out", tmp_path / "exp"))


def test_old_file_format_and_cut_file(original, tmp_path):
    shutil.copy(original["root"] / "lists", tmp_path / "clusters")
    content = torch.load(original["root"] / "checkpoint.pth.tar", weights_only=True)
    torch.save(content, tmp_path / "checkpoint.pth.tar", _use_new_zipfile_serialization=False)
    result = run_module("deepcluster", "import", tmp_path, "--data", original["data"], "--out", tmp_path / "exp")
    assert result.returncode == 0, result.stderr
    whole = (tmp_path / "checkpoint.pth.tar").read_bytes()
    (tmp_path / "checkpoint.pth.tar").write_bytes(whole[: len(whole) // 2])
    sentence = refused(
        run_module("deepcluster", "import", tmp_path, "--data", original["data"], "--out", tmp_path / "other")
    )
    assert "damaged" in sentence


@pytest.mark.parametrize("content", [[], {}, "text", [1, 2], [[["x"]]], [[]]])
def test_unknown_shapes_are_refused(content):
    with pytest.raises((ValueError, TypeError, IndexError)):
        parse_entry(entries_of(content)[-1])
