"""`python -m explain image`: a photograph by its path, before the network of a run or one of torchvision."""

import csv
import pickle

import pytest
import torch
from conftest import photograph, refused, run_module
from PIL import Image
from torchvision.models import alexnet, resnet18

import runs
from console import UserError
from datasets.decoding import decode
from deepcluster.trained import TrainedRun
from explain.image import last_maps, target_of, viewer_of_network, viewer_of_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(coins, tmp_path_factory):
    exp = tmp_path_factory.mktemp("shown") / "exp"
    arguments = ["--view", "photograph", "--size", "64", "--k", "3", "--epochs", "1", "--batch", "16"]
    result = run_module("deepcluster", "train", coins, "--exp", exp, *arguments)
    assert result.returncode == 0, result.stderr
    return exp


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of an untrained ResNet-18, as a student's own file would be."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    return path


def test_a_run_says_of_its_own_image_what_it_says_elsewhere(trained, coins):
    run = runs.open_run(trained)
    viewer = viewer_of_run(trained, "latest", CPU)
    opened = TrainedRun(trained)
    images = opened.images([0])
    found = viewer.look(decode(coins / run.ids[0], *viewer.sides)).images
    torch.testing.assert_close(found, images)
    torch.testing.assert_close(viewer.model(found), opened.network()(images), rtol=1e-3, atol=1e-3)
    assert viewer.names == ["cluster 0", "cluster 1", "cluster 2"]
    assert viewer.photograph(viewer.model.neutral).sub(0.5).abs().max() < 1e-6


def test_pictures_table_and_the_likeliest_classes(trained, tmp_path):
    photograph(tmp_path / "a coin.jpg", 5)
    arguments = ["--methods", "grad_cam,occlusion:window=.5", "--out", tmp_path / "out"]
    result = run_module("explain", "image", tmp_path / "a coin.jpg", "--run", trained, *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("cluster ") >= 3
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"a coin-{key}.png" for key in ("original", "grad_cam", "occlusion~window=0.5")} | {"a coin.csv"}
    with (tmp_path / "out" / "a coin.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1, abs=1e-4)
    assert rows[0]["name"] in result.stdout.split(":", 1)[1].split(",")[0]
    assert float(rows[0]["occlusion~window=0.5.worst"]) <= float(rows[0]["occlusion~window=0.5.best"])
    with Image.open(tmp_path / "out" / "a coin-grad_cam.png") as picture:
        assert picture.width == 256
        assert picture.height > 256  # the title above


def test_a_network_of_torchvision_from_a_file_with_its_class_names(weights, tmp_path):
    viewer = viewer_of_network(f"torchvision:resnet18:{weights}", CPU)
    assert len(viewer.names) == 1000
    assert "timber wolf" in viewer.names
    assert viewer.photograph(viewer.model.neutral).sub(0.5).abs().max() < 1e-6
    order = list(range(1000))
    assert target_of("Timber Wolf", viewer, order)[1] == "timber wolf"
    assert target_of("margin", viewer, order)[0][0, :2].tolist() == [1, -1]
    assert target_of("7", viewer, order)[0].argmax() == 7
    with pytest.raises(UserError, match="timber wolf"):
        target_of("timber wolff", viewer, order)
    photograph(tmp_path / "wolf.jpg", 1, side=300)
    network = f"torchvision:resnet18:{weights}"
    arguments = ["--methods", "grad_cam,guided_backprop", "--target", "timber wolf", "--out", tmp_path / "out"]
    result = run_module("explain", "image", tmp_path / "wolf.jpg", "--network", network, *arguments)
    assert result.returncode == 0, result.stderr
    assert "timber wolf" in result.stdout
    assert (tmp_path / "out" / "wolf-guided_backprop.png").stat().st_size > 1000


def test_a_file_with_other_classes_has_numbers_for_names(tmp_path):
    torch.save(resnet18(weights=None, num_classes=5).state_dict(), tmp_path / "five.pth")
    viewer = viewer_of_network(f"torchvision:resnet18:{tmp_path / 'five.pth'}", CPU)
    assert viewer.names == [f"class {j}" for j in range(5)]


def test_where_the_last_maps_are():
    net = resnet18(weights=None)
    assert last_maps(net) is net.layer4
    net = alexnet(weights=None)
    assert last_maps(net) is net.features[11]
    assert last_maps(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ("resnet18", "torchvision:NAME"),
        ("torchvision:resnet81", "resnet"),
        ("torchvision:resnet18:nowhere.pth", "neither a file"),
        ("torchvision:resnet18:random", "neither a file"),
    ],
)
def test_a_network_that_cannot_be_had(spec, word):
    with pytest.raises(UserError, match=word):
        viewer_of_network(spec, CPU)


def test_weights_that_cannot_be_fetched_or_do_not_fit(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def no_network(*_, **__):
        raise OSError("Name or service not known")

    def damaged(*_, **__):
        raise pickle.UnpicklingError("Weights only load failed")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match="torchvision:resnet18:FILE"):
        viewer_of_network("torchvision:resnet18", CPU)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", damaged)
    with pytest.raises(UserError, match="its weights could not be fetched"):
        viewer_of_network("torchvision:resnet18", CPU)
    with pytest.raises(UserError, match="do not fit"):
        viewer_of_network(f"torchvision:resnet50:{weights}", CPU)
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a checkpoint"):
        viewer_of_network(f"torchvision:resnet18:{tmp_path / 'broken.pth'}", CPU)


def test_bad_input_is_one_sentence(trained, tmp_path):
    (tmp_path / "text.jpg").write_text("not a picture")
    assert "not an image" in refused(run_module("explain", "image", tmp_path / "text.jpg", "--run", trained))
    assert "no such file" in refused(run_module("explain", "image", tmp_path / "none.jpg", "--run", trained))
    assert "--run" in refused(run_module("explain", "image", tmp_path / "text.jpg"))
