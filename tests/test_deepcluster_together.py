"""Several processes that train as one: real ones, started as torchrun starts them, talking through gloo."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, call_main
from nursery import begin_child

import runs
from console import UserError
from console.group import refuse_many, started
from datasets.__main__ import main as datasets_main
from deepcluster.__main__ import main
from machine.files import read_csv
from machine.processes import SILENCE, notice_silence, share
from runs.__main__ import main as runs_main

TRAIN = "--view photograph --arch alexnet --size 64 --limit 30 --k 3 --epochs 3 --batch 15 --device cpu".split()
KEEPALIVE = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SETTING = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port that nobody has, below those that the system gives to whoever asks for any."""
    for port in range(20000 + os.getpid() % 10000, 32000):
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def places(count: int) -> list[dict[str, str]]:
    """What each of `count` processes of a group is told, as torchrun tells it."""
    group = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [SETTING | group | {"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(count)]


def as_one(scratch: Path, *arguments: str, count: int = 2) -> list[str]:
    """What each of `count` processes said, that did the same as a group: `python -m`, or -c and a program."""
    said = [scratch / f"said-{i}-of-{count}" for i in range(count)]
    cache = {"DEEPCLUSTER_CACHE": os.environ["DEEPCLUSTER_CACHE"]}
    group = [
        begin_child(arguments, ROOT, place | cache, (str(path), str(path)))
        for place, path in zip(places(count), said, strict=True)
    ]
    try:
        for process in group:
            process.join(300)
    finally:
        for process in group:
            process.kill()
    told = [path.read_text() for path in said]
    assert [process.exitcode for process in group] == [0] * count, "\n".join(told)
    return told


@pytest.fixture(scope="module")
def undisturbed(coins, tmp_path_factory) -> tuple[Path, str]:
    """A training by two processes, and what was said."""
    exp = tmp_path_factory.mktemp("two") / "exp"
    return exp, "".join(as_one(exp.parent, "deepcluster", "train", str(coins), "--exp", str(exp), *TRAIN))


def test_two_processes_learn_from_a_batch_what_one_does_from_the_whole(tmp_path):
    """In float64, so that nothing but the arithmetic can differ: gradients and running statistics, to 1e-9."""
    as_one(
        tmp_path,
        "-c",
        """
import copy
import torch
from torch.nn.functional import cross_entropy
from datasets.view import shape_of
from deepcluster.models import ClusterNet
from deepcluster.together import together
from machine.processes import joined, rank, share

with joined():
    for neck, view in (("mlp", "photograph"), ("spectrum", "unrolled")):
        torch.manual_seed(rank())  # the second begins with other weights, and takes the first's
        ours = ClusterNet("alexnet", 64, 3, False, neck, view).double().train()
        torch.manual_seed(0)
        whole = ClusterNet("alexnet", 64, 3, False, neck, view).double().train()
        images, targets = torch.randn(9, 3, *shape_of(view, 64), dtype=torch.float64), torch.arange(9) % 3
        own = share(9)  # 4 and 5 images
        with together(ours) as net:
            loss = cross_entropy(net(images[own]), targets[own]) * (len(targets[own]) * 2 / 9)
            loss.backward()
            cross_entropy(whole(images), targets).backward()
        assert not any("forward" in vars(module) for module in ours.modules())
        for (name, one), other in zip(whole.named_parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=0, msg=name)
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=1e-9, msg=name)
        for (name, one), other in zip(whole.named_buffers(), ours.named_buffers(), strict=True):
            torch.testing.assert_close(other[1], one, rtol=1e-9, atol=1e-9, msg=name)
""",
    )


def test_two_processes_train_as_one_does(coins, undisturbed, tmp_path, monkeypatch, capsys):
    """The same draws, and sums in another order: the losses part slowly, as rounding grows.

    Tolerance: the loss of the first epoch to a thousandth, its clusters the same (k-means of features that agree to
    rounding); the second, in which rounding has grown, to .1 (they fall from .7 to .25). On some processors one of the
    30 images changes sides in the third, and then it is another training.
    """
    two, said = undisturbed
    assert said.count("labels (never used for training)") == 1  # the second process keeps silent
    code, _, _ = call_main(main, "deepcluster", monkeypatch, capsys, "train", coins, "--exp", tmp_path / "one", *TRAIN)
    assert code == 0
    one = tmp_path / "one"
    losses = [[float(row["loss"]) for row in read_csv(exp / "log.csv")] for exp in (one, two)]
    assert len(losses[0]) == len(losses[1]) == 3
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-3)
    np.testing.assert_allclose(losses[1][1], losses[0][1], rtol=0, atol=0.1)
    first = [runs.open_run(exp).clusters(1).assignment for exp in (one, two)]
    np.testing.assert_array_equal(*first)
    assert [runs.open_run(exp).meta.stamp.processes for exp in (one, two)] == [1, 2]
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())


THREE_HOLD_THE_ROWS = """
import os
import numpy as np
import torch
from datasets import Pixels
from datasets.places import Place
from deepcluster import descriptors, features
from deepcluster.__main__ import build_parser
from deepcluster.clustering import Clustering, kmeans, kmeans_together
from deepcluster.epoch import start_head_at_centroids
from deepcluster.features import is_many, pca_whiten, pca_whiten_together
from deepcluster.launch import begin_or_continue
from deepcluster.models import ClusterNet
from machine.processes import joined, share

def check():
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 9, 1100)
    cloud = rng.normal(size=(1100, 24)).astype(np.float32)
    own = share(1100)
    blobs = pca_whiten(torch.from_numpy(rng.normal(size=(9, 24))[kinds] * 3 + cloud).float(), 12, -0.25)
    for rows in (torch.from_numpy(cloud), torch.from_numpy(cloud[:, :1].repeat(24, 1) + 1e-3 * cloud)):
        whole = pca_whiten(rows, 8, -0.25)
        np.testing.assert_allclose(pca_whiten_together(rows[own], 8, -0.25), whole[own], atol=2e-6)
    pictures = Pixels.of(list(rng.integers(0, 256, (13, 40, 44, 3), np.uint8)))
    found = descriptors.find_places
    descriptors.find_places = lambda *_: [Place(22, 20, 15, 22, 20, 1, np.zeros((8, 2), np.float32)) for _ in range(13)]
    descriptors.FREQUENCIES, descriptors.SPECTRUM = 3, 3 * 48 * 3  # of 39: their covariance takes a minute
    spectra = descriptors.design_features(pictures, "key")
    np.testing.assert_allclose(descriptors.design_features_together(pictures, "key"), spectra[share(13)], atol=2e-6)
    descriptors.find_places = found
    copies = np.concatenate([cloud[:8].repeat(100, 0), cloud[:300]])  # of which one is taken twice: the other is empty
    for x, k in ((blobs, 9), (cloud, 30), (blobs, 2), (copies, 20)):
        one = Clustering.of(x, kmeans(x, k, 77), k)
        many = kmeans_together(x[own], 1100, k, 77)
        assert abs(many.objective - one.objective) <= 1e-5 * one.objective
        if x is not copies:  # which are as near to one as to another
            np.testing.assert_array_equal(many.assignment, one.assignment)
            np.testing.assert_allclose(many.distance, one.distance, atol=1e-5)
    torch.manual_seed(0)
    heads = [ClusterNet("alexnet", 64, 9, False, "mlp", "photograph").double() for _ in range(2)]
    seen = torch.from_numpy(rng.normal(size=(1100, heads[0].head.in_features)))
    for net, rows in zip(heads, (seen, seen[own]), strict=True):
        torch.nn.init.zeros_(net.head.weight)
        start_head_at_centroids(net, rows, kinds)
    torch.testing.assert_close(heads[1].head.weight, heads[0].head.weight, rtol=0, atol=1e-6)

features.LARGE = 0  # all that follows is many
with joined():
    assert is_many(1, 1)
    check()
    begin_or_continue(build_parser().parse_args(["train", *os.environ["TRAIN"].split(chr(10))]))
"""


def test_three_processes_that_hold_a_share_of_the_rows_each_find_what_one_finds(
    coins, undisturbed, tmp_path, monkeypatch
):
    """PCA, k-means (also where clusters are left empty) and the head's beginning: the same but for rounding."""
    two, three = undisturbed[0], tmp_path / "three"
    monkeypatch.setitem(SETTING, "TRAIN", "\n".join([str(coins), "--exp", str(three), *TRAIN, "--epochs", "1"]))
    as_one(tmp_path, "-c", THREE_HOLD_THE_ROWS, count=3)
    assert runs.open_run(three).meta.stamp.processes == 3
    assert len(read_csv(three / "log.csv")) == 1
    np.testing.assert_array_equal(*[runs.open_run(exp).clusters(1).assignment for exp in (two, three)])


def test_a_killed_process_and_all_come_back_to_the_same_bytes(coins, undisturbed, tmp_path):
    exp = tmp_path / "exp"
    command = [*TORCHRUN, "--max-restarts", "1", "-m", "deepcluster", "train", str(coins), "--exp", str(exp), *TRAIN]
    training = subprocess.Popen(command, env=SETTING, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not (exp / "clusters" / "epoch_0002.npz").exists():  # the second epoch is being learnt
        assert training.poll() is None, training.communicate()[0].decode()
        time.sleep(0.01)
    second = process_of_rank(training.pid, 1)
    os.kill(second, signal.SIGKILL)
    said = training.communicate(timeout=300)[0].decode()
    assert training.returncode == 0, said
    assert re.search(r"continuing after epoch [12] of 3", said), said
    for name in ("clusters.csv", "images.csv", "clusters/epoch_0003.npz"):
        assert (exp / name).read_bytes() == (undisturbed[0] / name).read_bytes(), name
    weights = [runs.open_run(path).checkpoint(3)["state"] for path in (exp, undisturbed[0])]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=0)


def test_two_processes_predict_what_one_does(coins, undisturbed, tmp_path, monkeypatch, capsys):
    words = [str(word) for word in ("predict", "--exp", undisturbed[0], "--images", coins, "--device", "cpu", "--out")]
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    assert "".join(as_one(tmp_path, "deepcluster", *words, str(two))).count("Next: ") == 1
    assert call_main(main, "deepcluster", monkeypatch, capsys, *words, one)[0] == 0
    tables = [read_csv(path) for path in (one, two)]
    assert len(tables[0]) == 48
    for column in ("image", "cluster"):
        assert [row[column] for row in tables[1]] == [row[column] for row in tables[0]]
    probabilities = [[float(row["probability"]) for row in table] for table in tables]
    np.testing.assert_allclose(*probabilities, atol=1e-4)  # batches of other sizes round otherwise


def process_of_rank(parent: int, rank: int) -> int:
    """The child of torchrun that is of this rank."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"torchrun has no process of rank {rank}")


# --- parts ----------------------------------------------------------------------------------------------------------


def test_what_is_not_started_by_torchrun_is_one_process(monkeypatch, capsys):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert started() == (0, 1)
    assert share(7) == slice(0, 7)
    refuse_many("this")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert started() == (2, 3)
    with pytest.raises(UserError, match="this: the work of one process"):
        refuse_many("this")
    monkeypatch.setenv("RANK", "0")
    for name, program, words in (("datasets", datasets_main, ["paint", "x"]), ("runs", runs_main, ["show", "x"])):
        code, _, refusal = call_main(program, name, monkeypatch, capsys, *words)
        assert code == 2
        assert "call it without torchrun" in refusal
    for wrong in ("3", "-1", "x", ""):
        monkeypatch.setenv("RANK", wrong)
        with pytest.raises(UserError, match=f"RANK={wrong} of WORLD_SIZE=3"):
            started()


def test_the_system_asks_whether_the_others_are_there(tmp_path):
    """Of a machine without power nobody would tell (`python -m benchmarks machines` pulls a cable)."""
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "file").open("w") as file:
        with socket.create_connection(server.getsockname()) as one, server.accept()[0] as other:
            before = len(list(Path("/proc/self/fd").iterdir()))
            notice_silence()
            assert len(list(Path("/proc/self/fd").iterdir())) == before
            for end in (one, other):
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                asked = [end.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in KEEPALIVE]
                assert asked[0] + asked[1] * asked[2] == SILENCE
                assert asked[3] == 1000 * SILENCE
            one.sendall(b"still open")
            assert other.recv(20) == b"still open"
        file.write("still open")


@pytest.mark.parametrize(
    "words", ["datasets check coins", "runs show exp", "supervised compare exp", "explain film --run exp --images a"]
)
def test_the_work_of_one_process_is_not_done_by_several(words, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    name, *rest = words.split()
    code, _, error = call_main(import_module(f"{name}.__main__").main, name, monkeypatch, capsys, *rest)
    assert code == 2
    assert f"python -m {name} {rest[0]}: the work of one process" in error


REFUSED_BY_ONE = """
import torch
from console import UserError, command
from machine.processes import decided, gathered, is_first, joined, rank, share, stacked, summed

def refuse():
    raise UserError(f"no, says {rank()}")

def main():
    with joined():
        rows = torch.arange(7)[:, None] * torch.ones(2)
        assert torch.equal(gathered(rows[share(7)], 7), rows)
        assert share(7, 0) == slice(0, 3) and share(7, 1) == slice(3, 7)
        assert stacked(torch.tensor([rank()])).tolist() == [[0], [1]]
        assert summed(torch.tensor([rank() + 1])).item() == 3
        assert decided(lambda: f"of {rank()}") == "of 0"
        print("heard once")
        decided(refuse)

command(main)
"""


def test_shares_are_gathered_in_order_and_the_first_decides():
    """In whole processes: threads of gloo that are left behind end them by a signal when the interpreter ends."""
    whole = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    group = [subprocess.Popen([sys.executable, "-c", REFUSED_BY_ONE], env=place, **whole) for place in places(2)]
    try:
        said = [process.communicate(timeout=300)[0] for process in group]
    finally:
        for process in group:
            process.kill()
    assert [process.returncode for process in group] == [2, 2], said
    assert said == ["heard once\nerror: no, says 0\n", "process 2 of 2: error: no, says 0\n"]
