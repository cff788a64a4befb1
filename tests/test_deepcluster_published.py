"""torchvision's classifiers as backbones: their trunks, strips that go around, weights from elsewhere, a whole run."""

import json
from urllib.error import URLError

import pytest
import torch
from conftest import call_main, run_module
from test_deepcluster_around import with_statistics
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torchvision import models

import deepcluster.around
import deepcluster.train
import runs
from console import UserError
from deepcluster.__main__ import main
from deepcluster.backbones import (
    BACKBONES,
    PUBLISHED,
    _outline,
    build_backbone,
    check_arch,
    check_size,
    map_shape,
    published_name,
    unguided,
)
from deepcluster.baselines import BASELINES
from deepcluster.config import STABLE, Config
from deepcluster.models import build, fuse_batch_norm, pretrained
from deepcluster.published import DEFAULT, TRUNKS, classifiers, name_weights, read_trunk, trunk
from explain.attribution import attribute
from explain.attribution.targets import watched
from machine.files import read_csv

# The smallest of each family, and the stride of its last maps.
SMALLEST = {
    "convnext_tiny": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "mnasnet0_5": 32,
    "mobilenet_v2": 32,
    "mobilenet_v3_small": 32,
    "regnet_x_400mf": 32,
    "resnet34": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 16,
    "vgg11_bn": 16,
}
SMALL = "mobilenet_v3_small"


def drawn(name: str) -> nn.Module:
    """A whole network of torchvision's, with random weights and statistics."""
    torch.manual_seed(1)
    net = models.get_model(name, weights=None)
    if name.startswith("vgg"):
        net.classifier = nn.Identity()  # a gigabyte
    return with_statistics(net)


def pictures(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)


class LastPooled(TorchFunctionMode):
    """Remembers what was averaged over all places last."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (functional.adaptive_avg_pool2d, torch.Tensor.mean) and args[0].dim() == 4:
            self.maps = args[0]
        return func(*args, **(kwargs or {}))


def test_every_family_has_its_smallest_here():
    assert [classifiers()[name] for name in SMALLEST] == list(TRUNKS)


@pytest.mark.parametrize("name", SMALLEST)
@torch.no_grad()
def test_a_trunk_ends_in_what_the_network_itself_averages(name):
    net, x = drawn(name), pictures(64, 64)
    with LastPooled() as seen:
        logits = net(x)
    maps = trunk(name, 3, net)(x)
    assert tuple(trunk(name, 3, net)[:-1](x).shape[1:]) == map_shape(name, 64, 64)
    if name.startswith("squeezenet"):  # its classifier comes before its mean
        assert torch.equal(net.classifier(maps).flatten(1), logits)
    else:
        assert torch.equal(maps, seen.maps)


@pytest.mark.parametrize("name", [name for name in SMALLEST if not name.startswith("vgg")])  # vgg16 of ours is one
@torch.no_grad()
def test_rolling_by_the_stride_rolls_the_last_maps_by_one(name, monkeypatch):
    torch.manual_seed(1)
    layers, stride = with_statistics(build_backbone(name, 3, around=True))[:-1], SMALLEST[name]
    x = pictures(32, 4 * stride, 2)
    for module in layers.modules():
        if hasattr(module, "layer_scale"):  # ConvNeXt begins with blocks that hardly do anything
            module.layer_scale.fill_(1)
        if isinstance(module, nn.BatchNorm2d):  # statistics of these pictures, or little of them arrives at the end
            module.momentum = 1
    layers.train()(x)
    layers.eval()
    maps = layers(x)
    assert maps.shape[3] == 4
    spread = float((maps - maps.mean(3, keepdim=True)).abs().max())
    assert spread > 0
    assert_close(layers(x.roll(stride, 3)), maps.roll(1, 3), rtol=0, atol=1e-6 * spread)
    assert_close(layers(x.roll(-stride, 3)), maps.roll(-1, 3), rtol=0, atol=1e-6 * spread)

    def zeros_beside(x, kernel, stride):
        return functional.pad(x, deepcluster.around.padding(kernel, stride))

    monkeypatch.setattr(deepcluster.around, "wrap", zeros_beside)  # nothing goes around any more
    assert float((layers(x.roll(2 * stride, 3)) - layers(x).roll(2, 3)).abs().max()) > 0.01 * spread


@torch.no_grad()
def test_a_coin_turned_by_a_cell_has_the_features_that_it_had():
    arguments = {"arch": SMALL, "size": 64, "k": 5, "sobel": False, "neck": "spectrum", "view": "unrolled"}
    model, images = with_statistics(build(arguments, 1)), pictures(32, 128, 2)
    own = model.embed(images)
    apart = float((own[0] - own[1]).norm())  # 1e-7 or so
    assert_close(model.embed(images.roll(64, 3)), own, rtol=0, atol=1e-7 * apart)
    assert float((model.embed(images.roll(16, 3)) - own).norm()) > 1e-3 * apart  # between two cells it changes
    assert_close(fuse_batch_norm(model)(images), model(images))


@pytest.mark.parametrize("name", ["densenet121", SMALL])
@torch.no_grad()
def test_with_sobel_in_front_the_first_convolution_takes_two_channels(name):
    model = build({"arch": name, "size": 64, "k": 3, "sobel": True, "neck": "pool"}).eval()
    images = pictures(64, 64, 2).float()
    assert model(images).shape == (2, 3)
    assert_close(fuse_batch_norm(model)(images), model(images))


def test_maps_are_read_where_the_trunk_ends():
    model = build({"arch": SMALL, "size": 96, "k": 4, "sobel": False, "neck": "mlp"}).eval()
    images, targets = pictures(96, 96, 2).float(), torch.tensor([0, 3])
    with watched(model.cam_layer) as seen, torch.no_grad():
        model(images)
    assert [tuple(maps.shape) for maps in seen] == [(2, 576, 3, 3)]
    methods = ["grad_cam", "hires_cam", "guided_backprop", "lrp", "layer_cam"]
    for maps in attribute(model, images, targets, methods).values():
        assert maps.shape[2:] == (96, 96)
        assert bool(maps.isfinite().all())
        assert float(maps.abs().max()) > 0


def test_activations_that_guided_backprop_does_not_guide_are_named():
    assert [unguided(name) for name in ("resnet50", "densenet121", "mobilenet_v2", SMALL, "convnext_tiny")] == [
        [], [], ["ReLU6"], ["Hardswish"], ["GELU"],
    ]  # fmt: skip
    # of all that there are; the sigmoids weigh channels, as attention does
    known = {name for families in (SMALLEST, BACKBONES) for arch in families for name in kinds_of(arch)}
    assert known - {"ReLU", "Sigmoid", "Hardsigmoid"} <= {kind for arch in SMALLEST for kind in unguided(arch)}


def kinds_of(arch: str) -> set[str]:
    """Of all modules of a backbone those that torch keeps among activations."""
    kept = nn.modules.activation.__dict__
    return {type(module).__name__ for module in _outline(arch, False).modules()} & set(kept)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_b_16", "vit_b_16 cannot be trained: of torchvision's classifiers those of the families convnext, "),
        ("inception_v3", "inception_v3 cannot be trained"),
        ("resnet19", "'resnet19' is neither one of alexnet, alexnet_fine, vgg16, resnet18 nor a classifier of torch"),
        ("resnet_50", "did you mean resnet50?"),
        ("mobilenet_v3_smal", "did you mean mobilenet_v3_small?"),
        ("fcn_resnet50", "'fcn_resnet50' is neither"),  # torchvision's, but puts no picture into classes
    ],
)
def test_what_is_no_backbone_is_refused_in_a_sentence(name, said, tmp_path, monkeypatch, capsys):
    words = ("train", "painted", "--exp", tmp_path / "exp", "--arch", name)
    code, _, error = call_main(main, "deepcluster", monkeypatch, capsys, *words)
    assert code == 2
    assert said in error
    assert not (tmp_path / "exp").exists()


def test_a_strip_that_does_not_fit_the_steps_of_residuals_is_no_small_one():
    with pytest.raises(UserError, match=r"^--size 8 is too small for resnet18: use at least 16$"):
        check_size("resnet18", 8, "unrolled")
    with pytest.raises(UserError, match=r"^--size 100: the steps of resnet18 do not go around strips of 200 pixels"):
        check_size("resnet18", 100, "unrolled")
    check_size("resnet18", 112, "unrolled")
    check_size("resnet18", 100)


@pytest.mark.parametrize("name", BACKBONES)
def test_a_name_of_ours_is_ours(name):
    check_arch(name)
    assert any(isinstance(module, nn.BatchNorm2d) for module in build_backbone(name, 3))  # torchvision's AlexNet: none


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> dict:
    return drawn(SMALL).float().state_dict()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    torch.save(state, path)
    return path


@torch.no_grad()
def test_a_network_with_given_weights_sees_what_theirs_sees(file):
    net, x = drawn(SMALL).float(), pictures(64, 64).float()
    values = {"arch": SMALL, "size": 64, "k": 4, "decode_at_most": 73, "weights": name_weights(SMALL, str(file))}
    for view in ("photograph", "unrolled"):
        config = Config(**(STABLE | values | {"view": view}))
        model = build({"arch": SMALL, "size": 64, "k": 4, "sobel": False, "neck": "mlp", "view": view})
        model.load_trunk(pretrained(config, str(file)))
        if view == "photograph":
            assert torch.equal(model.eval().maps(x), net.features(x))
    assert len(values["weights"]) == 16


def test_weights_are_found_as_trainings_wrap_them_and_as_they_were_named(state, tmp_path):
    wanted = read_wrapped(SMALL, state, tmp_path)
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    assert same(read_wrapped(SMALL, wrapped, tmp_path), wanted)
    another = {name: value for name, value in state.items() if not name.startswith("classifier")}
    assert same(read_wrapped(SMALL, another | {"classifier.3.weight": torch.zeros(7, 3)}, tmp_path), wanted)
    dense = drawn("densenet121").state_dict()
    before = {name.replace("norm1", "norm.1").replace("conv2", "conv.2"): value for name, value in dense.items()}
    assert before.keys() != dense.keys()
    assert same(read_wrapped("densenet121", before, tmp_path), read_wrapped("densenet121", dense, tmp_path))


def read_wrapped(name: str, content: dict, folder) -> dict:
    torch.save(content, folder / "some.pth")
    return read_trunk(name, str(folder / "some.pth"))


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "these are not the weights of mobilenet_v3_small (features.0.0.weight is not in it)"),
        ({"features.0.0.weight": torch.zeros(8, 3, 3, 3)}, "(features.0.0.weight has the shape (8, 3, 3, 3))"),
        ({"features": [1, 2]}, "or no state_dict"),
        ({"features.0.0.weight": torch.full((16, 3, 3, 3), torch.nan)}, "its weights are not finite"),
        ([1, 2], "no table in it"),
    ],
)
def test_what_is_no_weights_of_it_is_refused(content, said, tmp_path):
    with pytest.raises(UserError) as refused:
        read_wrapped(SMALL, content, tmp_path)
    assert said in str(refused.value)


def test_without_network_it_says_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(UserError) as refused:
        read_trunk(SMALL, DEFAULT)
    said = str(refused.value)
    assert said.startswith("--weights DEFAULT: mobilenet_v3_small's could not be fetched (<urlopen error Name or serv")
    assert "fetch https://download.pytorch.org/models/mobilenet_v3_small-047dcff4.pth where there is a netw" in said
    assert said.endswith("and give --weights FILE")


def test_only_one_network_wants_its_pictures_scaled_otherwise():
    asked = [name for name, family in classifiers().items() if family in TRUNKS]
    refused = []
    for name in asked:
        try:
            name_weights(name, DEFAULT)
        except UserError as error:
            refused.append((name, "want pictures scaled otherwise" in str(error)))
    assert refused == [("efficientnet_v2_l", True)]


@pytest.mark.parametrize("arch", PUBLISHED)
def test_a_network_of_ours_takes_the_weights_of_torchvisions(arch):
    with torch.device("meta"):
        ours, theirs = build_backbone(arch, 3).state_dict(), trunk(PUBLISHED[arch], 3).state_dict()
    assert [(name, value.shape) for name, value in ours.items()] == [(n, value.shape) for n, value in theirs.items()]
    assert published_name(arch) == PUBLISHED[arch]


def test_default_is_torchvisions_best_and_runs_no_code(state, file, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url",
        lambda url, **how: asked.append((url, how)) or dict(state),
    )
    assert same(read_trunk(SMALL, DEFAULT), read_trunk(SMALL, str(file)))
    ((url, how),) = asked
    assert url == models.MobileNet_V3_Small_Weights.DEFAULT.url
    assert how["weights_only"]
    assert how["check_hash"]
    assert name_weights(SMALL, DEFAULT) == "MobileNet_V3_Small_Weights.IMAGENET1K_V1"
    assert name_weights("resnet50", DEFAULT) == "ResNet50_Weights.IMAGENET1K_V2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "DEFAULT"], "--weights: there are none for alexnet_fine: leave them out"),
        (["--weights", "DEFAULT", "--arch", "alexnet"], "--weights: there are none for alexnet:"),
        (["--weights", "nowhere.pth", "--arch", SMALL], "--weights nowhere.pth: cannot be read (No such file"),
        (["--weights", ".", "--arch", SMALL], "--weights .: cannot be read (Is a directory"),
        (["--weights", "DEFAULT", "--arch", SMALL, "--sobel"], "were learnt from colours"),
        (["--weights", "DEFAULT", "--arch", SMALL, "--init", "exp"], "both say where the network starts"),
    ],
)
def test_weights_that_cannot_be_are_refused_before_images_are_read(words, said, tmp_path, monkeypatch, capsys):
    words = ("train", tmp_path / "no such images", "--exp", tmp_path / "exp", *words)
    code, _, error = call_main(main, "deepcluster", monkeypatch, capsys, *words)
    assert code == 2
    assert said in error


# --- a run -----------------------------------------------------------------------------------------------------------


def begin(struck, exp, *words):
    return ("train", struck, "--exp", exp, "--arch", SMALL, "--size", "64", "--k", "2", "--batch", "8", *words)


def test_a_run_with_given_weights_goes_on_without_their_file(struck, file, state, tmp_path, monkeypatch, capsys):
    exp, whole, own = tmp_path / "exp", tmp_path / "whole", tmp_path / "own.pth"
    own.write_bytes(file.read_bytes())
    words = begin(struck, exp, "--view", "photograph", "--epochs", "2")
    cluster_epoch, wanted = deepcluster.train.cluster_epoch, True

    def stop_at_the_second(*arguments):
        if wanted and arguments[4] == 2:
            raise UserError("stopped")
        return cluster_epoch(*arguments)

    monkeypatch.setattr(deepcluster.train, "cluster_epoch", stop_at_the_second)
    stopped = call_main(main, "deepcluster", monkeypatch, capsys, *words, "--weights", own)
    assert stopped[::2] == (2, "error: stopped")
    run = runs.open_run(exp)
    assert run.meta.config["weights"] == name_weights(SMALL, str(file))
    assert {"given", "untrained"} < set(run.read_json("baselines.json"))

    torch.save({name: value + 1 if value.is_floating_point() else value for name, value in state.items()}, own)
    code, _, error = call_main(main, "deepcluster", monkeypatch, capsys, *words, "--weights", own)
    assert code == 2
    assert f"was begun with --weights {run.meta.config['weights']} (now " in error
    own.unlink()
    wanted = False
    code, said, _ = call_main(main, "deepcluster", monkeypatch, capsys, *words)
    assert code == 0
    assert BASELINES["given"].title in said
    words = [whole if word == exp else word for word in words]
    assert call_main(main, "deepcluster", monkeypatch, capsys, *words, "--weights", file)[0] == 0
    assert read_csv(exp / "clusters.csv") == read_csv(whole / "clusters.csv")


def test_a_run_of_unrolled_coins_with_given_weights_is_explained(struck, file, tmp_path):
    words = begin(struck, tmp_path / "exp", "--view=unrolled", "--epochs=1", "--limit=12", "--spectrum-epochs=0")
    trained = run_module("deepcluster", *words, "--weights", file)
    assert trained.returncode == 0, trained.stderr
    few = ("--per-cluster=1", "--methods=grad_cam,guided_backprop")
    explained = run_module("explain", "--run", tmp_path / "exp", "--results", tmp_path / "results", *few)
    assert explained.returncode == 0, explained.stderr
    rows = read_csv(tmp_path / "results" / "1" / "explanations.csv")
    assert len({row["image"] for row in rows}) == 2
    assert all((tmp_path / "results" / "1" / row["guided_backprop"]).is_file() for row in rows)


def test_a_run_that_has_learnt_nothing_yet_needs_its_weights_again(struck, file, tmp_path, monkeypatch, capsys):
    words = begin(struck, tmp_path / "exp", "--view", "photograph", "--epochs", "1")
    monkeypatch.setattr(deepcluster.train, "embed_together", lambda *_: (_ for _ in ()).throw(UserError("stopped")))
    assert call_main(main, "deepcluster", monkeypatch, capsys, *words, "--weights", file)[0] == 2
    assert json.loads((tmp_path / "exp" / "run.json").read_text())["config"]["weights"]
    code, _, error = call_main(main, "deepcluster", monkeypatch, capsys, *words)
    assert (code, error.partition(": ")[2]) == (
        2,
        f"{tmp_path / 'exp'}: was begun with --weights and has learnt nothing yet: give them again",
    )
