"""Imports of the original program's files."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import refused, run_module
from original_program import EMPTY, K, logits_of

import runs
from datasets import open_dataset
from deepcluster.models import trained_model
from deepcluster.original import parse_clusters, read_clusters
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
        ours = trained_model(run)(images)
    occupied = [c for c in range(K) if c != EMPTY]
    torch.testing.assert_close(ours[:, occupied], naive[:, :4], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[:, EMPTY], naive[:, 4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", ["triple", "numpy", "scalars"])
def test_other_shapes_say_the_same(original, shape):
    log, plain = read_clusters(original["root"] / shape), read_clusters(original["root"] / "lists")
    assert log.by_index == plain.by_index
    assert log.occupied == plain.occupied == [0, 1, 3, 4]


def test_python_2_pickle_of_numpy_numbers():
    """As Python 2 wrote it: raw bytes as str, module numpy.core."""
    raw = b"\x80\x02]q\x00]q\x01(]q\x02cnumpy.core.multiarray\nscalar\nq\x03cnumpy\ndtype\nq\x04U\x02i8q\x05K\x00K\x01\x87q\x06Rq\x07(K\x03U\x01<q\x08NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\tbU\x08\xc8\x00\x00\x00\x00\x00\x00\x00q\n\x86q\x0bRq\x0ca]q\x0dK\x01aea."
    import io

    from deepcluster.original import _plain, _Unpickler  # the reader below the file

    content = _plain(_Unpickler(io.BytesIO(raw), encoding="utf-8", errors="surrogateescape").load())
    assert content == [[[200], [1]]]
    assert parse_clusters(content).by_index == {200: 0, 1: 1}


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
    assert "system" in sentence
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
        parse_clusters(content)
