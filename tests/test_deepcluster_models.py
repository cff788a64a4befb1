import pytest
import torch
from torch import nn

from console import UserError
from datasets.view import PHOTOGRAPH, VIEWS, shape_of
from deepcluster.backbones import BACKBONES, build_backbone, fits, map_shape, pooled_shape, smallest_size
from deepcluster.models import Sobel, build, fuse_batch_norm

# The papers' size, the last maps and what the pool leaves of them.
SHAPES = {
    "alexnet": (224, (256, 13, 13), (256, 6, 6)),
    "alexnet_fine": (224, (256, 27, 27), (256, 13, 13)),
    "vgg16": (224, (512, 14, 14), (512, 7, 7)),
    "resnet18": (224, (512, 7, 7), (512, 7, 7)),
}


def arguments(arch="alexnet", size=64, k=5, sobel=False, neck="pool"):
    return {"arch": arch, "size": size, "k": k, "sobel": sobel, "neck": neck}


def test_alexnet_is_the_papers():
    model = build(arguments(size=224, sobel=True, neck="fc", k=10))
    convolutions = [m for m in model.features if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in convolutions] == [
        (96, 11, 4, 2), (256, 5, 1, 2), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1),
    ]  # fmt: skip
    kinds = [type(m).__name__ for m in model.classifier]
    assert kinds == ["Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU"]
    assert model.classifier[1].in_features == 9216
    trainable = sum(p.numel() for p in model.trunk_parameters())
    assert trainable + sum(p.numel() for p in model.head.parameters()) == pytest.approx(58.3e6, rel=0.01)


def test_initialisation_has_the_papers_deviations():
    model = build(arguments(size=64, neck="fc"))
    first = model.features[0]
    assert first.weight.std().item() == pytest.approx((2 / (121 * 96)) ** 0.5, rel=0.02)
    assert model.classifier[4].weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert first.bias.abs().max() == 0
    assert model.head.bias.abs().max() == 0


@pytest.mark.parametrize("arch", BACKBONES)
@pytest.mark.parametrize("neck", ["pool", "mlp", "fc"])
def test_shapes(arch, neck):
    size, maps, pooled = SHAPES[arch]
    assert map_shape(arch, size, size) == maps
    assert pooled_shape(arch, size, size) == pooled
    cam = maps[1]
    if neck == "fc":
        size, cam = 96, None  # the same code on smaller layers
    model = build(arguments(arch, size, neck=neck)).eval()
    images = torch.randn(2, 3, size, size)
    seen = []
    handle = model.cam_layer.register_forward_hook(lambda *a: seen.append(a[2]))
    with torch.no_grad():
        assert model(images).shape == (2, 5)
    handle.remove()
    assert cam is None or seen[0].shape[2:] == (cam, cam)
    assert arch == "resnet18" or isinstance(model.cam_layer, nn.ReLU)
    with torch.no_grad():
        torch.testing.assert_close(model.from_maps(model.maps(images)), model(images))


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("arch", ["alexnet", "alexnet_fine", "vgg16"])
def test_shapes_by_arithmetic_are_torchs_own(arch, around):
    with torch.device("meta"):
        features = build_backbone(arch, 3, around).eval()
    sides = [*range(1, 50), *range(50, 240, 9)]
    for height, width in [(side // 2, 2 * side) if around else (side, side) for side in sides]:
        try:
            maps = features[:-1](torch.empty(1, 3, height, width, device="meta"))
            pooled = features[-1](maps)
        except RuntimeError:
            maps = pooled = torch.empty(0)
        left = pooled.numel() > 0
        assert map_shape(arch, height, width, around) == (tuple(maps.shape[1:]) if left else None)
        assert not left or pooled_shape(arch, height, width, around) == tuple(pooled.shape[1:])


def test_sobel_against_numbers_by_hand():
    ramp = torch.arange(5.0).repeat(5, 1).expand(1, 3, 5, 5)  # grows by 1 to the right
    out = Sobel()(ramp)
    torch.testing.assert_close(out[0, 0, 1:-1, 1:-1], torch.full((3, 3), -8.0))  # (0 - 2) * (1 + 2 + 1)
    torch.testing.assert_close(out[0, 1, 1:-1, 1:-1], torch.zeros(3, 3))


@pytest.mark.parametrize(
    ("arch", "neck", "sobel"),
    [("alexnet", "fc", True), ("alexnet", "mlp", False), ("vgg16", "pool", True), ("resnet18", "mlp", True)],
)
def test_fusing_batch_norm_changes_nothing(arch, neck, sobel):
    model = build(arguments(arch, 64, sobel=sobel, neck=neck)).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    model.eval()
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        torch.testing.assert_close(fuse_batch_norm(model)(images), model(images))
        torch.testing.assert_close(fuse_batch_norm(model).embed(images), model.embed(images))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_fresh_head_follows_k_and_generator():
    model = build(arguments())
    model.fresh_head(9, torch.Generator().manual_seed(3))
    one = model.head.weight.clone()
    model.fresh_head(9, torch.Generator().manual_seed(3))
    torch.testing.assert_close(model.head.weight, one)
    assert model.arguments["k"] == 9
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 9)


@pytest.mark.parametrize("arch", BACKBONES)
@pytest.mark.parametrize("view", [PHOTOGRAPH, *VIEWS])
def test_smallest_size_is_the_smallest(arch, view):
    size = smallest_size(arch, view)
    assert fits(arch, size, view)
    assert size == 2 or not fits(arch, size - 1, view)
    neck = "spectrum" if view == "unrolled" else "pool"
    model = build(arguments(arch, size, neck=neck) | {"view": view}).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, *shape_of(view, size))).shape == (2, 5)
    if size > 2:
        with pytest.raises(UserError, match=f"at least {size}$"):
            build(arguments(arch, size - 1, neck=neck) | {"view": view})
