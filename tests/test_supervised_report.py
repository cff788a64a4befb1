"""`python -m supervised report`: every picture, what its legends say, and the gallery of a supervised run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MNIST, needs_mnist, refused, run_module
from PIL import Image
from test_supervised_data import blobs, write_labelled

import runs
from console import UserError
from machine.files import read_csv
from supervised.__main__ import build_parser
from supervised.launch import train_command
from supervised.models import build
from supervised.report import describe_training, figures, find_siblings, report_command
from supervised.report.diagram import draw_diagram, list_layers
from supervised.trained import network


def train(*arguments: object) -> None:
    train_command(build_parser().parse_args(["train", *map(str, arguments)]))


def report(*arguments: object) -> None:
    report_command(build_parser().parse_args(["report", *map(str, arguments)]))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("report")
    data = write_labelled(root / "blobs")
    train(data, "--model", "drop_move_conv", "--epochs", 2, "--exp", root / "conv")
    train(data, "--model", "mlp", "--epochs", 2, "--exp", root / "mlp")
    return root / "conv", root / "mlp"


def test_the_report_has_every_picture(pair):
    conv, _ = pair
    report("--run", conv, "--image", 3)
    html = (conv / "report.html").read_text()
    for name in ("curves", "confusion", "misclassified", "filters-0", "activations-0", "embeddings", "network"):
        assert f"figures/{name}.png" in html
        with Image.open(conv / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 150
            assert np.asarray(picture.convert("L")).std() > 10
    assert "drop_move_conv on blobs" in html
    assert "<td>mlp</td>" in html  # the run beside it
    total = sum(value.numel() for value in network(runs.open_run(conv)).parameters())
    assert f"{total:,}" in html
    with pytest.raises(UserError, match="layers 0"):
        report("--run", conv, "--layer", 3)
    with pytest.raises(UserError, match="test images are 0 to 23"):
        report("--run", conv, "--image", 24)


def test_a_network_without_convolutions_has_its_report_too(pair):
    _, mlp = pair
    assert "report.html" in run_module("supervised", "report", "--exp", mlp).stdout
    assert not list((mlp / "figures").glob("filters*"))
    with pytest.raises(UserError, match="layers none"):
        report("--run", mlp, "--layer", 0)


def test_legends_tell_what_there_was(pair):
    conv, mlp = (runs.open_run(path) for path in pair)
    assert describe_training(network(conv), conv) == "training (with dropout and augmentation)"
    assert describe_training(network(mlp), mlp) == "training"
    assert describe_training(build({"name": "drop_conv"}), mlp) == "training (with dropout)"
    assert describe_training(build({"name": "simple_conv"}), conv) == "training (with augmentation)"
    figure = figures.draw_curves(mlp, "training")
    texts = [text.get_text() for axis in figure.axes for text in axis.get_legend().get_texts()]
    assert texts.count("training") == 2
    assert not any("dropout" in text or "augmentation" in text for text in texts)


def test_clusters_of_pixels_have_the_colour_of_their_commonest_class():
    clusters = np.array([4, 4, 4, 0, 0, 1, 1, 1])
    targets = np.array([2, 2, 7, 7, 7, 3, 3, 2])
    assert figures.match_majority(clusters, targets).tolist() == [2, 2, 2, 7, 7, 3, 3, 3]
    split = blobs(120, 1)
    figure = figures.draw_embeddings(build({"name": "mlp"}), split, [str(i) for i in range(10)], "digit", 1)
    panels = {axis.get_title(): axis for axis in figure.axes}
    for method in ("PCA", "t-SNE"):
        true, found = (panels[f"raw pixels, {method}{end}"].collections[0] for end in ("", ", k-means clusters"))
        agree = np.asarray(true.get_array()) == np.asarray(found.get_array())
        assert agree.mean() > 0.8  # blobs are easy: as matched, nearly every dot has its digit's colour


def test_the_confusion_matrix_counts():
    split = blobs(30, 1, classes=3)
    wrong = (split.targets + torch.arange(30).eq(4)).remainder(3)  # one mistake
    figure = figures.draw_confusion(torch.eye(3)[wrong], split, ["x", "y", "z"], "class")
    numbers = [int(text.get_text() or 0) for text in figure.axes[0].texts]
    assert sum(numbers) == 30
    assert sorted(numbers)[:6] == [0] * 5 + [1]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["x", "y", "z"]


def test_layers_are_told_as_they_are():
    layers = list_layers(build({"name": "drop_conv"}).eval())
    assert [layer.words for layer in layers] == [
        "image", "5 x 5 convolution", "ReLU", "max-pool", "dropout", "flatten", "dense", "ReLU", "dense",
    ]  # fmt: skip
    assert layers[1].name == "0 Conv2d"
    assert layers[1].detail == "1 to 32 channels"
    assert [layer.size for layer in layers[:4]] == ["1 x 28 x 28", "32 x 24 x 24", "32 x 24 x 24", "32 x 12 x 12"]
    assert sum(layer.parameters for layer in layers) == 592_074
    texts = [text.get_text() for text in draw_diagram(layers).axes[0].texts]
    assert texts[::2] == ["1 x 28 x 28", "32 x 24 x 24", "32 x 12 x 12", "128", "10"]
    assert "832 parameters" in texts[3]


def test_a_damaged_run_beside_it_is_left_out_of_the_table(pair, tmp_path):
    conv, _ = pair
    torn = tmp_path / "torn"
    shutil.copytree(conv, torn)
    (torn / "result.json").write_text('{"model": ')
    found, damaged = find_siblings([torn / "result.json", conv / "result.json"])
    assert [run.path for run in found] == [conv]
    assert "result.json: damaged" in damaged[0]


# --- explained ------------------------------------------------------------------------------------------------------


@needs_mnist
def test_a_supervised_run_is_explained_by_the_same_command(tmp_path):
    exp, out = tmp_path / "exp", tmp_path / "results"
    train("--model", "drop_full_conv", "--limit", 1000, "--epochs", 3, "--exp", exp, "--mnist-dir", MNIST)
    arguments = ["--per-cluster", "4", "--pick", "atypical"]
    result = run_module("explain", "--run", exp, "--results", out, *arguments, MNIST_DIR=str(MNIST))
    assert result.returncode == 0, result.stderr
    run = runs.open_run(exp)
    [epoch] = run.checkpoints()
    table = read_csv(out / str(epoch) / "explanations.csv")
    assert len(table) == 40
    wrong = [row for row in table if row["label"] != row["cluster"]]
    assert wrong
    assert all(("wrong" in row["flags"].split(";")) == (row in wrong) for row in table)
    page = (out / str(epoch) / "3" / "index.html").read_text()
    assert "Digit 3" in page
    assert "Cluster" not in page
    assert "wrong prediction (" in page  # how many the filter would show

    from datasets import open_dataset
    from supervised.data import stack_images

    row = table[0]
    dataset = open_dataset("mnist:test", 28, mnist_dir=MNIST)
    image = stack_images(dataset.pixels, np.array([run.ids.index(row["image"])]), torch.device("cpu"))
    assert float(row["score"]) == pytest.approx(network(run)(image)[0, int(row["cluster"])].item(), rel=1e-4)
    with Image.open(out / str(epoch) / row["original"]) as picture:
        assert picture.size == (112, 112)
        shown = np.asarray(picture.convert("L"))[::4, ::4]
    np.testing.assert_allclose(shown / 255, image[0, 0], atol=1e-6)


def test_a_network_without_convolutions_is_explained_by_gradients_alone(pair, tmp_path):
    _, mlp = pair
    out = tmp_path / "results"
    sentence = refused(run_module("explain", "--run", mlp, "--results", out))
    assert "no convolution" in sentence
    assert not out.exists()
    arguments = ["--methods", "gradient,guided_backprop", "--per-cluster", "2"]
    result = run_module("explain", "--run", mlp, "--results", out, *arguments)
    assert result.returncode == 0, result.stderr
