"""Labelled sets: where they are opened, what their classes are, what a network sees of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MNIST, needs_mnist
from PIL import Image
from torch.testing import assert_close

from console import UserError
from datasets import open_dataset
from supervised.data import (
    Split,
    load_split,
    number_classes,
    open_labelled,
    sort_classes,
    stack_images,
    training_source,
)

CLASSES = ("2", "10", "a")
CPU = torch.device("cpu")


def blobs(count: int, seed: int, classes: int = 10) -> Split:
    """Easy classes: a bright rectangle at one of ten places, in noise."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, count)
    images = rng.random((count, 1, 28, 28)).astype(np.float32) * 0.3
    for image, value in zip(images, targets, strict=True):
        top, left = 4 + 11 * (value // 5), 2 + 5 * (value % 5)
        image[0, top : top + 5, left : left + 4] = 1
    return Split(torch.from_numpy(images), torch.from_numpy(targets))


def write_labelled(root: Path, each: int = 40) -> Path:
    """A folder with train/ and test/, each with three classes of `each` and 8 small JPEGs: blobs, wider than high."""
    for part, count, seed in (("train", each, 1), ("test", 8, 2)):
        split = blobs(count * len(CLASSES), seed, len(CLASSES))
        for i, (image, target) in enumerate(zip(split.images, split.targets, strict=True)):
            path = root / part / CLASSES[int(target)] / f"{i:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = np.pad((image[0].numpy() * 255).astype(np.uint8), ((0, 0), (6, 6)))
            Image.fromarray(grey).convert("RGB").save(path, quality=95)
    return root


def test_a_folder_with_train_and_test_is_a_labelled_set(tmp_path):
    data = open_labelled(str(write_labelled(tmp_path / "blobs")), 28)
    assert (data.name, data.classes) == ("blobs", ["2", "10", "a"])
    assert (len(data.training), len(data.test)) == (120, 24)
    assert training_source(data.test.source) == data.training.source
    split = load_split(data.test, data.classes, CPU)
    assert split.images.shape == (24, 1, 28, 28)
    assert [data.classes[i] for i in split.targets] == data.test.labels
    with Image.open(tmp_path / "blobs" / "test" / data.test.ids[5]) as picture:  # the central square, grey
        wanted = torch.from_numpy(np.array(picture)[:, 6:-6].mean(2, dtype=np.float32))
    assert_close(split.images[5, 0], wanted / 255, atol=1e-6, rtol=0)
    few = open_labelled(str(tmp_path / "blobs"), 28, limit=30)
    assert (len(few.training), len(few.test)) == (30, 24)
    assert open_labelled(str(tmp_path / "blobs"), 28, limit=1).classes == [
        "2",
        "10",
        "a",
    ]  # though it shows one of them


def test_colours_become_their_mean(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4), (10, 20, 60)).save(tmp_path / name / "0.png")
    dataset = open_dataset(str(tmp_path), 4)
    assert_close(stack_images(dataset.pixels, np.array([1]), CPU), torch.full((1, 1, 4, 4), 30 / 255))


def test_numbers_come_before_words_and_by_their_value():
    assert sort_classes(["b", "10", "2", "a", "2"]) == ["2", "10", "a", "b"]
    assert sort_classes([str(digit) for digit in (9, 0, 3, 1, 2, 8, 7, 6, 5, 4)]) == [str(digit) for digit in range(10)]


def test_sets_that_do_not_fit_are_refused_in_a_sentence(tmp_path):
    root = write_labelled(tmp_path / "blobs", each=3)
    with pytest.raises(UserError, match="no such folder"):
        open_labelled(str(tmp_path / "nowhere"), 28)
    with pytest.raises(UserError, match="no sub-folder train/"):
        open_labelled(str(root / "test"), 28)
    with pytest.raises(UserError, match="--limit 10"):
        open_labelled(str(root), 28, limit=10)
    (root / "test" / "b").mkdir()
    Image.new("L", (28, 28)).save(root / "test" / "b" / "0.png")
    with pytest.raises(UserError, match="a sub-folder for each class and no other: 2, 10, a"):
        open_labelled(str(root), 28)
    dataset = open_dataset(str(root / "train" / "a"), 28)
    with pytest.raises(UserError, match="a sub-folder for each class"):
        number_classes(dataset, ["a"])


@needs_mnist
def test_mnist_is_its_own_bytes():
    from datasets.mnist import load_mnist

    data = open_labelled("mnist", 28, mnist_dir=MNIST)
    assert data.classes == [str(digit) for digit in range(10)]
    assert training_source(data.test.source) == data.training.source == "mnist:train"
    images, digits = load_mnist("test", MNIST)
    split = load_split(data.test, data.classes, CPU)
    assert torch.equal(split.images[:, 0], torch.from_numpy(images.copy()).float() / 255)
    assert split.targets.tolist() == digits.tolist()
