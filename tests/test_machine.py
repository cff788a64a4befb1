"""Device, seeds and files."""

import os
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
import torch
from conftest import ROOT

from console import UserError
from machine.device import full_precision, synchronise, use_device
from machine.files import locked, read_csv, whole_folder, write_atomic, write_csv
from machine.seeds import derive_seed


def test_seeds_differ_by_every_part_and_never_change():
    assert len({derive_seed(s, e, p) for s in range(5) for e in range(5) for p in ("head", "crops")}) == 50
    assert derive_seed(31, 0, "weights") == 1599930206  # written into every run: another number is another program


def test_what_is_clustered_is_float32():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with full_precision():
            assert not torch.is_autocast_enabled("cuda")
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def test_a_gpu_that_is_not_in_use_is_left_alone(monkeypatch):
    def refuse(*_):
        raise AssertionError("a GPU was asked")

    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    synchronise(torch.device("cpu"))


def test_kmeans_stays_on_the_device_of_the_run(monkeypatch):
    """Though faiss sees several GPUs: a run on the CPU takes none, one on a GPU takes that one."""
    import faiss

    from deepcluster import clustering

    asked = []

    def to_gpu(_, device, index):
        asked.append(device)
        return index

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 4, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for device in (None, torch.device("cpu"), torch.device("cuda"), torch.device("cuda:2")):
        clustering.kmeans(points, 3, 0, device)
    assert asked == [0, 2]


@pytest.mark.parametrize(
    "package", ["runs", "datasets.painted", "deepcluster.train", "supervised.train", "explain.drawing"]
)
def test_waiting_threads_sleep_whatever_is_imported_first(package):
    program = f"import {package}, os; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "PASSIVE", done.stderr


def test_wrong_devices_are_one_sentence():
    for name, words in (("tpu9", "unknown"), ("meta", "not supported"), ("cuda:99", "no such GPU")):
        with pytest.raises(UserError, match=words):
            use_device(name)


def test_a_table_keeps_names_that_are_not_text(tmp_path):
    rows = [{"image": "odd-\udcff.jpg", "n": 1}, {"image": 'quotes "and", comma', "n": None}, {"image": "new\nline"}]
    write_csv(tmp_path / "t.csv", rows)
    assert [row["image"] for row in read_csv(tmp_path / "t.csv")] == [row["image"] for row in rows]
    assert [row["n"] for row in read_csv(tmp_path / "t.csv")] == ["1", "", ""]


def test_bytes_take_a_files_place_whole(tmp_path):
    write_atomic(tmp_path / "a", b"old")
    write_atomic(tmp_path / "a", b"new", durable=False)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(OSError, match="No such file") as caught:
        write_atomic(tmp_path / "nowhere" / "a", b"x")
    assert caught.value.filename == str(tmp_path / "nowhere" / "a")


def test_a_folder_is_held_by_one(tmp_path):
    with locked(tmp_path, "busy"):
        program = "from pathlib import Path\nfrom machine.files import locked\n"
        program += f"with locked(Path({str(tmp_path)!r}), 'busy'): pass"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert "busy" in done.stderr
    with locked(tmp_path, "busy"):
        pass


def test_a_new_folder_is_whole_or_not_there(tmp_path):
    """What a killed process left goes, what a living one writes stays, and what is there is refused."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    alive = tmp_path / f"out.{os.getppid()}.partial"
    for folder in (tmp_path / f"out.{ended.pid}.partial", alive, tmp_path / "another.1.partial"):
        folder.mkdir()
    with suppress(KeyboardInterrupt), whole_folder(tmp_path / "out") as folder:
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {alive.name, "another.1.partial"}
    with whole_folder(tmp_path / "out") as folder:
        (folder / "all").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["all"]
    with pytest.raises(UserError, match="out: already there"), whole_folder(tmp_path / "out"):
        pass
