"""Decoded pixels in shards."""

import numpy as np
import pytest

from datasets import Pixels
from datasets.cache import decode_all


def test_images_of_one_shape_are_stacked_as_they_are():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (4, 5, 3)).astype(np.uint8) for _ in range(7)]
    shards = [np.concatenate([image.ravel() for image in part]) for part in (images[:4], images[4:])]
    offset = np.array([0, 60, 120, 180, 0, 60, 120])
    pixels = Pixels(shards, np.repeat([0, 1], [4, 3]), offset, np.full((7, 2), [4, 5]))
    for rows in ([0, 1, 2, 3, 4, 5, 6], [6, 0, 1, 5, 5, 2], [3]):
        np.testing.assert_array_equal(pixels.stack(np.array(rows)), np.stack([images[row] for row in rows]))
    np.testing.assert_array_equal(pixels.take([2, 3, 4]).stack(np.arange(3)), np.stack(images[2:5]))


def test_an_interrupted_decoding_goes_on(monkeypatch):
    monkeypatch.setattr("datasets.cache.SHARD", 4)
    loaded = []

    def load(index, until=100):
        if index >= until:
            raise KeyboardInterrupt
        loaded.append(index)
        return np.full((2, 2, 3), index, np.uint8)

    names = [str(i) for i in range(10)]
    with pytest.raises(KeyboardInterrupt):
        decode_all("interrupted", names, lambda index: load(index, 6), "decoding", 1)
    before = len(loaded)
    pixels, kept, _ = decode_all("interrupted", names, load, "decoding", 1)
    assert loaded[before:] == [4, 5, 6, 7, 8, 9]  # the first shard was whole
    assert kept == list(range(10))
    assert [int(pixels[i][0, 0, 0]) for i in range(10)] == list(range(10))


def test_many_images_open_few_files(monkeypatch, cache):
    """Each shard stays open while it is mapped, and a process may have 1,024 files open."""
    monkeypatch.setattr("datasets.cache.SHARD", 2)
    monkeypatch.setattr("datasets.cache.MOST_SHARDS", 3)
    names = [str(i) for i in range(10)]
    pixels, kept, _ = decode_all("few", names, lambda index: np.full((2, 3, 3), index, np.uint8), "decoding", 1)
    assert kept == list(range(10))
    assert [int(pixels[i][1, 2, 0]) for i in range(10)] == list(range(10))
    assert len(list(cache.glob("pixels/v*-few/*.bin"))) == 3
    again, _, _ = decode_all("few", names, lambda _: pytest.fail("decoded again"), "decoding", 1)
    assert len(again) == 10
