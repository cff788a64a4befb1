"""Convolutions that go around: rolling a picture rolls its maps, as if it were repeated without end."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import deepcluster.around
from deepcluster.around import ConvAround, join_edges, wrap
from deepcluster.backbones import BACKBONES, build_backbone
from deepcluster.models import ClusterNet, build, fuse_batch_norm

STRIDES = {"alexnet": 16, "alexnet_fine": 8, "vgg16": 16, "resnet18": 32}  # of the last maps
WIDTH = 256  # of a strip at --size 128; an edge is felt over less, also by ResNet


def whole_numbers(*shape: int) -> torch.Tensor:
    """Sums of products of these are exact, in whichever order they are summed."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(sum(shape))).double()


def seen_plainly(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """The middle of the picture tiled three times, with the columns that a layer looks at beside it; zeros above."""
    total = max(0, kernel - stride)
    before, after = total - total // 2, total // 2
    width = x.shape[3]
    tiled = x.repeat(1, 1, 1, 3)[..., width - before : 2 * width + after]
    return functional.pad(tiled, (0, 0, before, after))


def around(layer: nn.Module) -> nn.Module:
    """The layer as it is where edges meet."""
    layers = nn.Sequential(layer)
    join_edges(layers)
    return layers[0].double()


@pytest.mark.parametrize(("kernel", "stride"), [(11, 4), (7, 2), (5, 1), (3, 2), (3, 1), (1, 2), (1, 1)])
def test_a_convolution_is_that_of_a_picture_tiled_three_times(kernel, stride):
    conv = around(nn.Conv2d(3, 4, kernel, stride, padding=kernel // 2))
    conv.weight.data, conv.bias.data = whole_numbers(4, 3, kernel, kernel), whole_numbers(4)
    x = whole_numbers(2, 3, 16, 24)
    with torch.no_grad():
        out = conv(x)
        assert out.shape == (2, 4, 16 // stride, 24 // stride)
        assert torch.equal(out, functional.conv2d(seen_plainly(x, kernel, stride), conv.weight, conv.bias, stride))
        assert torch.equal(conv(x.roll(stride, 3)), out.roll(1, 3))
        meet = torch.equal(conv(x.roll(stride, 2)), out.roll(1, 2))  # top and bottom
        assert meet == (kernel <= stride)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2)])
def test_a_pool_is_that_of_a_picture_tiled_three_times(kernel, stride):
    pool, x = around(nn.MaxPool2d(kernel, stride)), whole_numbers(2, 3, 16, 24).abs()
    assert pool(x).shape == (2, 3, 8, 12)
    assert torch.equal(pool(x), functional.max_pool2d(seen_plainly(x, kernel, stride), kernel, stride))
    assert torch.equal(pool(x.roll(2, 3)), pool(x).roll(1, 3))


@pytest.mark.parametrize(("kernel", "stride"), [(11, 4), (3, 2), (3, 1), (1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_columns_of_the_other_edge_and_their_gradient_are_those_of_a_circular_pad(kernel, stride, layout):
    total = max(0, kernel - stride)
    ours, theirs = (whole_numbers(2, 3, 4, 12).contiguous(memory_format=layout).requires_grad_() for _ in range(2))
    one, other = (
        wrap(ours, kernel, stride),
        functional.pad(theirs, (total - total // 2, total // 2, 0, 0), mode="circular"),
    )
    assert torch.equal(one, other)
    assert one.is_contiguous(memory_format=layout)
    gradient = whole_numbers(*one.shape)
    one.backward(gradient)
    other.backward(gradient)
    assert torch.equal(ours.grad, theirs.grad)


def with_statistics(net: nn.Module) -> nn.Module:
    """Float64, its batch norms as after a training."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net.double().eval()


def strips(count: int, height: int = 32, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("arch", BACKBONES)
@torch.no_grad()
def test_rolling_by_the_stride_rolls_the_last_maps_by_one(arch, monkeypatch):
    torch.manual_seed(0)
    stride, layers, x = STRIDES[arch], with_statistics(build_backbone(arch, 3, around=True))[:-1], strips(1)
    maps = layers(x)
    assert maps.shape[3] == WIDTH // stride
    spread = float((maps - maps.mean(3, keepdim=True)).abs().max())  # around
    assert spread > 0
    assert_close(layers(x.roll(stride, 3)), maps.roll(1, 3), rtol=0, atol=1e-6 * spread)
    between = layers(x.roll(stride // 2, 3))
    assert min(float((between - maps.roll(n, 3)).abs().max()) for n in (0, 1)) > 0.1 * spread

    def zeros_beside(x, kernel, stride):
        total = max(0, kernel - stride)
        return functional.pad(x, (total - total // 2, total // 2, 0, 0))

    monkeypatch.setattr(deepcluster.around, "wrap", zeros_beside)  # nothing goes around any more
    middle = layers(x.repeat(1, 1, 1, 3))[..., WIDTH // stride : 2 * WIDTH // stride]
    assert_close(middle, maps, rtol=0, atol=1e-6 * spread)
    assert float((layers(x) - maps).abs().max()) > 0.1 * spread


@pytest.mark.parametrize("arch", BACKBONES)
def test_the_layers_keep_their_names_and_weights(arch):
    plain, around = (build_backbone(arch, 3, way) for way in (False, True))
    assert {name: value.shape for name, value in plain.state_dict().items()} == {
        name: value.shape for name, value in around.state_dict().items()
    }


def unrolled(arch: str = "alexnet", neck: str = "spectrum", sobel: bool = False, size: int = 128) -> ClusterNet:
    net = build({"arch": arch, "size": size, "k": 5, "sobel": sobel, "neck": neck, "view": "unrolled"}, 1)
    return with_statistics(net)


@pytest.mark.parametrize("arch", BACKBONES)
@torch.no_grad()
def test_fusing_batch_norm_changes_nothing(arch):
    model, images = unrolled(arch, size=64), strips(2, 32, 128)
    fused = fuse_batch_norm(model)
    assert any(isinstance(module, ConvAround) for module in fused.features.modules())
    assert_close(fused(images), model(images))
    assert_close(fused.embed(images), model.embed(images))


@pytest.mark.parametrize(("arch", "sobel"), [*((arch, False) for arch in BACKBONES), ("alexnet", True)])
@torch.no_grad()
def test_a_coin_turned_by_a_cell_has_the_features_that_it_had(arch, sobel):
    model, images, stride = unrolled(arch, sobel=sobel).float(), strips(2, 64).float(), STRIDES[arch]
    own = model.embed(images)
    assert own.shape == (2, 512)
    apart = float((own[0] - own[1]).norm())
    for cells in (1, 3, WIDTH // stride // 2):
        turned = model.embed(images.roll(cells * stride, 3))
        assert_close(turned, own, rtol=1e-5, atol=1e-5 * float(own.abs().max()))
    assert float((model.embed(images.roll(stride // 2, 3)) - own).norm()) > 1e-3 * apart
    across = unrolled(arch, "mlp", sobel).float()  # the other necks see where on the coin something is
    assert float((across.embed(images.roll(stride, 3)) - across.embed(images)).norm()) > 1e-3 * apart
