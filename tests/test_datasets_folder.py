import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import ROOT, photograph
from PIL import Image

from console import UserError
from datasets import open_dataset
from datasets.folder import class_labels

STRANGE = [
    "with space.jpg",
    "quo\"te's.jpg",
    "<img onerror=alert(1)>.jpg",
    "moneda-\u00e9\u4e2d.jpg",
    "new\nline.jpg",
    "-rf.jpg",
]


@pytest.fixture
def messy(tmp_path):
    root = tmp_path / "messy"
    for i, name in enumerate(STRANGE):
        photograph(root / name, i)
    photograph(root / "deep" / "er" / "x.JPG", 7)
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / "empty.png").touch()
    (root / "notes.txt").write_text("not a picture")
    return root


def test_messy_folder(messy):
    dataset = open_dataset(str(messy), 32)
    assert dataset.ids == sorted([*STRANGE, "deep/er/x.JPG"])
    assert dict(dataset.skipped).keys() == {"broken.jpg", "empty.png", "notes.txt"}
    assert dict(dataset.skipped)["empty.png"] == "empty file"
    assert not dataset.upright  # may lie at any angle
    assert dataset.colour_matters
    assert all(dataset.pixels[i].shape == (32, 32, 3) for i in range(len(dataset)))


def test_images_are_decoded_once(messy, monkeypatch):
    first = open_dataset(str(messy), 24)
    opened = []
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a))
    again = open_dataset(str(messy), 24)
    assert opened == []
    assert again.key == first.key
    np.testing.assert_array_equal(again.pixels[3], first.pixels[3])


def test_changed_content_is_decoded_again(messy):
    first = open_dataset(str(messy), 24)
    photograph(messy / STRANGE[0], 99, hue=2)
    again = open_dataset(str(messy), 24)
    assert again.key != first.key
    i = again.ids.index(STRANGE[0])
    assert (again.pixels[i] != first.pixels[i]).any()


def test_zip_has_the_ids_of_its_folder(messy, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path, "messy")
    from_zip, from_folder = open_dataset(archive, 32), open_dataset(str(messy), 32)
    assert from_zip.ids == from_folder.ids
    assert from_zip.key == from_folder.key
    assert from_zip.name == "all"


@pytest.mark.parametrize("name", ["../outside.jpg", "/absolute/outside.jpg", "a/../../outside.jpg", "C:\\outside.jpg"])
def test_zip_that_reaches_outside_is_refused(name, tmp_path, coins):
    archive = tmp_path / "hostile.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.write(coins / "a" / "00.jpg", "fine.jpg")
        entry = zipfile.ZipInfo("x")
        entry.filename = name  # as written by a hostile program; zipfile itself would clean it
        content.writestr(entry, (coins / "a" / "00.jpg").read_bytes())
    with pytest.raises(UserError, match="points outside"):
        open_dataset(str(archive), 32)
    assert not list(tmp_path.rglob("outside.jpg"))


def test_damaged_zip_is_one_sentence(tmp_path):
    archive = tmp_path / "half.zip"
    archive.write_bytes(b"PK\x03\x04 and nothing else")
    with pytest.raises(UserError, match="damaged"):
        open_dataset(str(archive), 32)


def test_labels_come_from_class_folders(coins):
    dataset = open_dataset(str(coins), 32)
    assert dataset.labels == [name[0] for name in dataset.ids]
    assert class_labels(["one/a.jpg", "one/b.jpg"]) is None
    assert class_labels(["a.jpg", "b.jpg"]) is None


def test_limit_keeps_the_same_images_of_all_classes(coins):
    one, two = (open_dataset(str(coins), 32, limit=20) for _ in range(2))
    assert one.ids == two.ids
    assert len(one) == 20
    assert set(one.labels) == set("abcd")


def test_aspect_is_kept(tmp_path):
    for name, size in (("wide.png", (90, 45)), ("tall.png", (40, 100)), ("square.png", (64, 64))):
        Image.new("RGB", size, "teal").save(tmp_path / name)
    dataset = open_dataset(str(tmp_path), 20)
    assert {name: dataset.pixels[i].shape[:2] for i, name in enumerate(dataset.ids)} == {
        "square.png": (20, 20),
        "tall.png": (50, 20),
        "wide.png": (20, 40),
    }
    assert not dataset.pixels.alike


@pytest.mark.parametrize(
    ("make", "words"), [(None, "no such folder"), ("empty", "empty folder"), ("broken", "none of its 1 files")]
)
def test_nothing_usable_is_an_error(make, words, tmp_path):
    root = tmp_path / "data"
    if make:
        root.mkdir()
    if make == "broken":
        (root / "x.jpg").write_bytes(b"no")
    with pytest.raises(UserError, match=words):
        open_dataset(str(root), 32)


def test_interrupted_decoding_continues(coins, monkeypatch, cache):
    import datasets
    import datasets.cache as module

    monkeypatch.setattr(module, "SHARD", 10)
    calls = []
    real = datasets.decode

    def failing(path, *sides):
        calls.append(path)
        if len(calls) > 30:
            raise KeyboardInterrupt
        return real(path, *sides)

    monkeypatch.setattr(datasets, "decode", failing)
    with pytest.raises(KeyboardInterrupt):
        open_dataset(str(coins), 31, workers=1)
    first_try = len(calls)
    calls.clear()
    monkeypatch.setattr(datasets, "decode", lambda path, *sides: calls.append(path) or real(path, *sides))
    dataset = open_dataset(str(coins), 31, workers=1)
    assert len(dataset) == 48
    assert 0 < len(calls) < 48 <= first_try + len(calls)
    np.testing.assert_array_equal(dataset.pixels[5], real(coins / dataset.ids[5], 31))


def test_two_runs_begun_at_once_decode_together(coins, tmp_path):
    command = [sys.executable, "-m", "datasets", "prepare", str(coins), "--size", "40"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DEEPCLUSTER_CACHE": str(tmp_path)}
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert not list(tmp_path.glob("pixels/*.partial"))
