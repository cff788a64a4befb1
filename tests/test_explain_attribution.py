"""Each method against the formula written out, pytorch-grad-cam and captum: float64, raw maps."""

import copy

import pytest
import torch
import torchvision
from captum.attr import LRP, Deconvolution, GuidedBackprop, GuidedGradCam, IntegratedGradients, LayerGradCam
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule
from pytorch_grad_cam import GradCAM, GuidedBackpropReLUModel, HiResCAM
from torch import nn
from torch.testing import assert_close

from console import UserError
from deepcluster.models import build, fuse_batch_norm
from explain.attribution import METHODS, attribute
from explain.attribution.cam import grad_cam, weigh_maps
from explain.attribution.gradients import deconvnet, guided_backprop, integrated_gradients, smooth_grad
from explain.attribution.lrp import lrp
from explain.attribution.targets import frozen, watched
from supervised import models as digits

CORE = [method.name for method in METHODS.values() if method.default]
ALEXNET = {"arch": "alexnet", "size": 64, "k": 9, "sobel": True, "neck": "fc"}
NETWORKS = {
    "alexnet": lambda: build(ALEXNET, 1),
    "alexnet, colour, mlp": lambda: build(ALEXNET | {"sobel": False, "neck": "mlp"}, 1),
    "alexnet, pool": lambda: build(ALEXNET | {"neck": "pool"}, 1),
    "mnist cnn": lambda: digits.build({"name": "cnn101"}, 1),
    "vgg16": lambda: build({"arch": "vgg16", "size": 32, "k": 9, "sobel": False, "neck": "mlp"}, 1),
    "alexnet, unrolled": lambda: build(ALEXNET | {"sobel": False, "neck": "spectrum", "view": "unrolled"}, 1),
    "torchvision alexnet": lambda: _of_torchvision("alexnet", lambda net: net.features[11]),
    "torchvision resnet18": lambda: _of_torchvision("resnet18", lambda net: net.layer4),
}


def _of_torchvision(name, layer):
    """With its in-place ReLUs, as people have it."""
    net = getattr(torchvision.models, name)(weights=None, num_classes=9)
    net.cam_layer = layer(net)
    return net


def network(name: str) -> nn.Module:
    """Float64, with weights large enough that every logit depends on the image."""
    torch.manual_seed(0)
    net = NETWORKS[name]().double().eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_var.uniform_(0.5, 1.5)
                module.running_mean.normal_(0, 0.1)
    return net


def shape_for(name: str) -> tuple[int, int, int]:
    if name == "mnist cnn":
        return 1, 28, 28
    if name == "alexnet, unrolled":
        return 3, 32, 128
    return (3, 32, 32) if name in ("vgg16", "torchvision resnet18") else (3, 64, 64)


def batch(count: int, shape: tuple[int, int, int] = (3, 64, 64)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 9, (count,), generator=generator)


def not_in_place(net: nn.Module) -> nn.Module:
    """A copy for captum, whose hooks an in-place ReLU would break; its every ReLU is a module of its own."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return net


@pytest.mark.parametrize("count", [1, 7, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_pytorch_grad_cam_and_captum(name, count):
    net = network(name)
    images, _ = batch(count, shape_for(name))
    targets = net(images).argmax(1)  # the logit most likely to have something in its favour
    ours = attribute(net, images, targets, CORE)

    twin = not_in_place(net)
    score = LayerGradCam(twin, twin.cam_layer)
    raw = score.attribute(images, target=targets, relu_attributions=True).detach()
    upsampled = upsampled_plainly(net, raw, images)
    assert upsampled.abs().max() > 1e-3  # the comparison is not of zeros
    assert_close(ours["grad_cam"], upsampled, rtol=1e-6, atol=1e-6 * upsampled.max().item())

    with GradCAM(twin, [twin.cam_layer]) as theirs:
        theirs.activations_and_grads(images.clone().requires_grad_()).gather(1, targets[:, None]).sum().backward()
        store = theirs.activations_and_grads
        wanted = theirs.get_cam_image(
            images, twin.cam_layer, None, store.activations[0].numpy(), store.gradients[0].numpy()
        )
    assert_close(raw[:, 0], torch.tensor(wanted).relu(), rtol=1e-6, atol=1e-6 * raw.max().item())

    guided = GuidedBackprop(twin).attribute(images, target=targets)
    assert guided.abs().max() > 0
    assert_close(ours["guided_backprop"], guided, rtol=1e-6, atol=1e-6 * guided.detach().abs().max().item())
    if count == 1:  # it handles image 0 only
        first = torch.tensor(GuidedBackpropReLUModel(copy.deepcopy(twin))(images.clone(), int(targets[0])))
        tolerance = 1e-6 * float(guided.abs().max())
        assert_close(ours["guided_backprop"][0], first.permute(2, 0, 1), rtol=1e-6, atol=tolerance, check_dtype=False)

    if name == "alexnet, unrolled":  # captum's maps end where the picture does
        product = guided * upsampled
    else:
        product = GuidedGradCam(twin, twin.cam_layer).attribute(images, target=targets, interpolate_mode="bilinear")
    assert_close(ours["guided_grad_cam"], product, rtol=1e-6, atol=1e-6 * product.detach().abs().max().item())


SLOW = [method.name for method in METHODS.values() if method.passes == "many"]  # on one network
WATCHED = [
    (name, method) for name in ("alexnet, pool", "torchvision resnet18") for method in METHODS if method not in SLOW
]


@pytest.mark.parametrize(("name", "method"), [*WATCHED, *(("mnist cnn", method) for method in METHODS)])
def test_no_trace_is_left_and_a_batch_is_its_images(name, method):
    net = network(name).train()
    net.requires_grad_(True)
    dropout = next((module for module in net.modules() if isinstance(module, nn.Dropout)), None)
    if dropout is not None:
        dropout.eval()  # a mode of its own must survive
    modes = [module.training for module in net.modules()]
    images, targets = batch(2, shape_for(name))
    before, state = images.clone(), copy.deepcopy(net.state_dict())
    maps = METHODS[method].function(net, images, targets)

    assert maps.shape[0] == 2
    assert maps.shape[1] == (1 if METHODS[method].kind in ("heat", "view") or method == "saliency" else images.shape[1])
    assert maps.shape[2:] == images.shape[2:]
    assert not maps.requires_grad
    assert_close(images, before, rtol=0, atol=0)
    assert_close(net.state_dict(), state, rtol=0, atol=0)
    assert [module.training for module in net.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in net.parameters() if p.is_leaf)
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())
    for i in range(2):
        alone = METHODS[method].function(net, images[i : i + 1], targets[i : i + 1])
        tolerance = 1e-5 if method in SLOW else 1e-6  # those two score in float32
        assert_close(maps[i : i + 1], alone, rtol=tolerance, atol=tolerance * max(float(maps.abs().max()), 1e-9))


@pytest.mark.parametrize("method", METHODS)
def test_everything_comes_back_after_an_error(method):
    net = network("alexnet").train()
    images, targets = batch(2)
    with pytest.raises(Exception):  # noqa: B017, PT011 whichever error: the target does not exist
        METHODS[method].function(net, images[:, :1], targets + 100)
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad for part in (net.features, net.head) for p in part.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())
    assert nn.ReLU()(torch.tensor([2.0], requires_grad=True)).grad_fn.name() != "_ReLUBackward"


def test_the_worked_example():
    gradients = torch.zeros(3, 4, 4)
    gradients[0, [0, 0, 3, 3], [0, 1, 0, 1]] = 1
    gradients[1, [1, 1, 2, 2], [0, 1, 0, 1]] = 4
    gradients[2, [2, 2, 3, 3], [2, 3, 2, 3]] = 3
    maps = torch.zeros(3, 4, 4)
    maps[0, 0, [0, 3]] = 4
    maps[1, 3, [1, 2]] = 1
    maps[2, 2, [0, 3]] = 8
    assert gradients.mean((1, 2)).tolist() == [0.25, 1, 0.75]
    expected = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [6, 0, 0, 6], [0, 1, 1, 0]])
    assert weigh_maps(maps[None], gradients[None])[0, 0].tolist() == expected.tolist()


def test_a_margin_is_the_difference_of_two_logits():
    net = network("alexnet, colour, mlp")
    images, _ = batch(4)
    own, rival = torch.tensor([1, 2, 3, 4]), torch.tensor([5, 5, 6, 0])
    weights = torch.zeros(4, 9, dtype=torch.float64)
    weights[range(4), own], weights[range(4), rival] = 1, -1
    plain = METHODS["gradient"].function
    assert_close(plain(net, images, weights), plain(net, images, own) - plain(net, images, rival))
    assert not torch.allclose(grad_cam(net, images, weights), grad_cam(net, images, own))


@pytest.mark.parametrize("name", ["alexnet", "alexnet, colour, mlp", "alexnet, pool", "alexnet, unrolled", "vgg16"])
def test_float32_and_fused_batch_norm_stay_within_rounding(name):
    net = network(name)
    images, targets = batch(8, shape_for(name))
    exact = attribute(net, images, targets, CORE)
    rounded = attribute(fuse_batch_norm(net.float()), images.float(), targets, CORE)
    for method in CORE:
        worst = float((rounded[method] - exact[method]).abs().max() / exact[method].abs().max())
        assert worst < (1e-4 if method == "grad_cam" else 2e-2), method


def test_guided_backprop_lets_only_positive_gradient_through():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    net[3].weight.data = torch.tensor([[2.0, -3.0]])
    image = torch.ones(1, 3, 1, 1)
    assert METHODS["gradient"].function(net, image, torch.tensor([0])).flatten().tolist() == [2, -3, 0]
    assert guided_backprop(net, image, torch.tensor([0])).flatten().tolist() == [2, 0, 0]


def test_deconvnet_lets_positive_gradient_through_whatever_the_forward_did():
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    net[1].weight.data = torch.diag(torch.tensor([1.0, 1.0, -1.0]))
    net[3].weight.data = torch.tensor([[2.0, -3.0, 5.0]])
    image = torch.ones(1, 3, 1, 1)  # the third ReLU is shut in the forward
    assert guided_backprop(net, image, torch.tensor([0])).flatten().tolist() == [2, 0, 0]
    assert deconvnet(net, image, torch.tensor([0])).flatten().tolist() == [2, 0, -5]


@pytest.mark.parametrize("name", ["alexnet", "mnist cnn", "alexnet, unrolled", "torchvision alexnet"])
def test_deconvnet_is_captums(name):
    net = network(name)
    images, targets = batch(3, shape_for(name))
    wanted = Deconvolution(not_in_place(net)).attribute(images, target=targets).detach()
    assert wanted.abs().max() > 0
    assert_close(deconvnet(net, images, targets), wanted, rtol=1e-6, atol=1e-6 * wanted.abs().max().item())


class Squares(nn.Module):
    """Of an image (1, 1, 2) two logits: x0 squared times x1, and three times x1."""

    def forward(self, images):
        x0, x1 = images[:, 0, 0].unbind(1)
        return torch.stack([x0**2 * x1, 3 * x1], 1)


def test_integrated_gradients_of_a_polynomial_are_exact():
    """On the line (2a, 3a): 2 times the integral of 2 * 2a * 3a is 8, 3 times that of (2a)^2 is 4."""
    net, image = Squares(), torch.tensor([[[[2.0, 3.0]]]], dtype=torch.float64)
    assert_close(integrated_gradients(net, image, torch.tensor([0]), 2).flatten(), image.new_tensor([8, 4]))
    assert_close(integrated_gradients(net, image, torch.tensor([1]), 1).flatten(), image.new_tensor([0, 9]))
    net.neutral = torch.ones(1, 1, 1, 1)
    # x0 = 1 + a, x1 = 1 + 2a: the integrals of 2 (1 + a)(1 + 2a) and of (1 + a)^2, times 1 and 2
    wanted = image.new_tensor([2 * (1 + 3 / 2 + 2 / 3), 2 * (1 + 1 + 1 / 3)])
    assert_close(integrated_gradients(net, image, torch.tensor([0]), 2).flatten(), wanted)
    assert_close(wanted.sum(), image.new_tensor(2 * 2 * 3 - 1.0))  # score(image) - score(neutral)


def test_integrated_gradients_are_captums():
    """Which takes zeros where no baseline is given."""
    net = network("mnist cnn")
    images, targets = batch(3, shape_for("mnist cnn"))
    wanted = IntegratedGradients(net).attribute(images, target=targets, n_steps=24).detach()
    found = integrated_gradients(net, images, targets)
    assert_close(found, wanted, rtol=1e-6, atol=1e-6 * wanted.abs().max().item())


def test_integrated_gradients_sum_to_what_the_image_changes():
    """Within 1 % of the sum of their sizes at 24 points, .2 % at 200: the gradient of a network with ReLUs jumps."""
    net = network("mnist cnn")
    images, targets = batch(3, shape_for("mnist cnn"))
    net.neutral = torch.full((1, 1, 1, 1), 0.3)
    with torch.no_grad():
        score, without = (net(x)[range(3), targets] for x in (images, net.neutral.double().expand_as(images)))
    for steps, share in ((24, 0.01), (200, 0.002)):
        found = integrated_gradients(net, images, targets, steps)
        worst = (found.sum((1, 2, 3)) - (score - without)).abs() / found.abs().sum((1, 2, 3))
        assert worst.max() < share


def test_smooth_grad_is_the_mean_gradient_of_noisy_copies():
    """The noise is drawn here once more, and each gradient taken alone."""
    net = network("mnist cnn")
    images, targets = batch(3, (1, 28, 28))
    images[1] *= 4  # another range: other noise
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(5, 1, 28, 28, generator=generator).double()
    wanted = torch.zeros_like(images)
    for i in range(3):
        width = 0.2 * (images[i].max() - images[i].min())
        for one in noise:
            wanted[i] += METHODS["gradient"].function(net, images[i : i + 1] + width * one, targets[i : i + 1])[0] / 5
    found = smooth_grad(net, images, targets, samples=5, noise=0.2)
    assert_close(found, wanted, rtol=1e-6, atol=1e-6 * wanted.abs().max().item())
    assert_close(smooth_grad(net, images, targets, 5, 0.2), found, rtol=0, atol=0)
    assert not torch.allclose(smooth_grad(net, images, targets, 5, 0.1), found)
    margin = torch.zeros(3, 10, dtype=torch.float64)
    margin[range(3), targets] = 1
    asked = "smooth_grad:samples=5:noise=.2"
    assert_close(attribute(net, images, margin, [asked])["smooth_grad~samples=5~noise=0.2"], found)


@pytest.mark.parametrize("method", [integrated_gradients, smooth_grad])
def test_more_images_than_fit_into_memory_at_once_are_the_same(method, monkeypatch):
    net = network("mnist cnn")
    images, targets = batch(5, (1, 28, 28))
    whole = method(net, images, targets, 3)
    for many in (1, 2, 7):
        monkeypatch.setattr("explain.attribution.gradients.AT_ONCE", {"cpu": many})
        assert_close(method(net, images, targets, 3), whole, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_lrp_by_hand(sign):
    """The convolution gives 3 - 2 + 2 - 1 = 2 of (1, 2, -1); the score is 2 * 2 + 1, and the 1 keeps its share.

    So 4 goes back, to 3 and 2, what is positive among the contributions. With the other sign, and without ReLU, the
    same.
    """
    between = nn.ReLU() if sign == 1 else nn.Identity()
    net = nn.Sequential(nn.Conv2d(1, 1, (1, 3)), between, nn.Flatten(), nn.Linear(1, 1)).double()
    for module, weight, bias in ((net[0], [3.0, -1, -2], -1), (net[3], [2.0], 1)):
        module.weight.data = sign * torch.tensor(weight).double().view_as(module.weight)
        module.bias.data.fill_(sign * bias if module is net[0] else bias)
    image = torch.tensor([[[[1.0, 2, -1]]]]).double()
    assert net(image).item() == 5
    wanted = image.new_tensor([4 * 3 / 5, 0, 4 * 2 / 5])
    assert_close(lrp(net, image, torch.tensor([0])).flatten(), wanted, rtol=1e-5, atol=1e-5)


def test_lrp_is_captums():
    """Of images from 0 up, since captum's z+ rule takes no account of the sign of inputs; and of max and mean pools."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(72, 16), nn.ReLU(), nn.Linear(16, 9),
    ).double().eval()  # fmt: skip
    images, targets = batch(4, (3, 32, 32))
    images = images.abs()
    ours = lrp(net, images, targets)
    for module in net:
        if isinstance(module, nn.Conv2d):
            module.rule = Alpha1_Beta0_Rule(set_bias_to_zero=True)
            module.rule.STABILITY_FACTOR = 1e-6
        elif isinstance(module, nn.Linear | nn.Flatten):
            module.rule = EpsilonRule(1e-6)
    wanted = LRP(net).attribute(images, target=targets).detach()
    assert wanted.abs().max() > 1e-4
    assert_close(ours, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())


@pytest.mark.parametrize("name", ["mnist cnn", "alexnet, colour, mlp", "alexnet, unrolled", "torchvision resnet18"])
def test_lrp_hands_all_through_the_convolutions(name):
    """Pixels sum to what the last maps have, activation times gradient, within 5e-4 of the sum of sizes.

    Batch norm before and behind ReLU, max pools, edges that meet and residual sums are among these networks.
    """
    net = network(name)
    images, targets = batch(2, shape_for(name))
    with frozen(net), watched(net.cam_layer) as seen:
        scores = net(images.clone().requires_grad_())[range(2), targets]
        (slope,) = torch.autograd.grad(scores.sum(), seen[0])
    wanted = (seen[0] * slope).sum((1, 2, 3)).detach()
    found = lrp(net, images, targets)
    sizes = found.abs().sum((1, 2, 3))
    assert wanted.abs().max() > 0.1 * sizes.max()  # of nothing, all would be handed on, too
    assert ((found.sum((1, 2, 3)) - wanted).abs() < 5e-4 * sizes).all()


def test_lrp_sums_to_the_score_where_no_constant_takes_part():
    net = network("alexnet")  # its biases are 0
    images, targets = batch(2)
    with torch.no_grad():
        scores = net(images)[range(2), targets]
    assert_close(lrp(net, images, targets).sum((1, 2, 3)), scores, rtol=1e-4, atol=0)


def test_lrp_hands_all_through_the_strengths_of_frequencies():
    """Gradient times input is the rule of the neck `spectrum`: maps get what the strengths have."""
    net = network("alexnet, unrolled")
    images, targets = batch(2, shape_for("alexnet, unrolled"))
    with frozen(net):
        strength = torch.fft.rfft(net.maps(images), dim=3, norm="ortho").abs()[..., :8].flatten(1).requires_grad_()
        scores = net.classify(net.embedding_layers(strength))[range(2), targets]
        (slope,) = torch.autograd.grad(scores.sum(), strength)
    assert_close(scores, net(images)[range(2), targets])
    wanted = (strength * slope).sum(1).detach()
    assert_close(lrp(net, images, targets).sum((1, 2, 3)), wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ["alexnet, pool", "alexnet, unrolled"])
def test_lrp_takes_batch_norm_and_convolution_for_one_layer(name):
    net = network(name)
    with torch.no_grad():
        for module in net.features:
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1, 1)  # of either sign
                module.bias.normal_(0, 0.3)
    images, targets = batch(2, shape_for(name))
    apart = lrp(net, images, targets)
    fused = lrp(fuse_batch_norm(net), images, targets)
    assert apart.abs().max() > 0
    assert_close(apart, fused, rtol=1e-5, atol=1e-6 * apart.abs().max().item())


class WritesInPlace(nn.Module):
    """A batch norm of a sum that is written into the convolution's output, or into a tensor of its own."""

    def __init__(self, in_place: bool):
        super().__init__()
        self.conv, self.norm, self.in_place = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), in_place

    def forward(self, images):
        value = self.conv(images)
        if self.in_place:
            value += images
        else:
            value = value + images
        return self.norm(value).relu().mean((2, 3))


def test_lrp_sees_who_writes_into_an_output():
    torch.manual_seed(0)
    nets = [WritesInPlace(in_place).double() for in_place in (True, False)]
    nets[1].load_state_dict(nets[0].state_dict())
    images, targets = batch(2, (3, 8, 8))
    ours, plain = (lrp(net, images, targets % 3) for net in nets)
    assert plain.abs().max() > 0
    assert_close(ours, plain, rtol=0, atol=0)


def test_what_is_drawn_on_the_view_is_hires_cam():
    """VIEW says how a map is drawn; alone and beside the others it is the same map."""
    net = network("alexnet, unrolled")
    images, targets = batch(2, shape_for("alexnet, unrolled"))
    found = attribute(net, images, targets, ["grad_cam", "hires_cam", "view", "guided_backprop"])
    assert found["view"].shape == (2, 1, 32, 128)
    assert found["view"].max() > 0
    assert_close(found["view"], found["hires_cam"], rtol=0, atol=0)
    assert not torch.allclose(found["view"], found["grad_cam"])
    for name in ("view", "hires_cam"):
        assert_close(attribute(net, images, targets, [name])[name], found["view"])


@pytest.mark.parametrize("name", ["alexnet, colour, mlp", "alexnet, unrolled"])
def test_hires_cam_is_that_of_the_library(name):
    net = network(name)
    images, _ = batch(3, shape_for(name))
    targets = net(images).argmax(1)
    twin = not_in_place(net)
    with HiResCAM(twin, [twin.cam_layer]) as theirs:
        theirs.activations_and_grads(images.clone().requires_grad_()).gather(1, targets[:, None]).sum().backward()
        store = theirs.activations_and_grads
        wanted = theirs.get_cam_image(
            images, twin.cam_layer, None, store.activations[0].numpy(), store.gradients[0].numpy(), eigen_smooth=False
        )
    wanted = upsampled_plainly(net, torch.tensor(wanted)[:, None].relu(), images)
    assert wanted.max() > 0
    ours = attribute(net, images, targets, ["hires_cam"])["hires_cam"]
    assert_close(ours, wanted, rtol=1e-6, atol=1e-6 * wanted.max().item())


def upsampled_plainly(net: nn.Module, maps: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Bilinearly; where edges meet, of the maps tiled three times, the middle."""
    height, width = images.shape[2:]
    if not getattr(net, "goes_around", False):
        return nn.functional.interpolate(maps, (height, width), mode="bilinear")
    tiled = nn.functional.interpolate(maps.repeat(1, 1, 1, 3), (height, 3 * width), mode="bilinear")
    return tiled[..., width : 2 * width]


def test_a_map_of_an_unrolled_coin_rolls_with_it():
    """Also where its left and right edge meet, and of each method that reads a layer."""
    net = network("alexnet, unrolled")
    images, targets = batch(2, shape_for("alexnet, unrolled"))
    asked = ["grad_cam", "hires_cam", "guided_backprop", "guided_grad_cam", "layer_cam", "layer_cam:layer=-2"]
    asked += ["deconvnet", "lrp"]
    plain, rolled = (attribute(net, pixels, targets, asked) for pixels in (images, images.roll(48, 3)))
    for key, maps in plain.items():
        assert_close(rolled[key], maps.roll(48, 3), rtol=1e-5, atol=1e-6 * float(maps.abs().max()))


def test_saliency_is_the_largest_channel_of_the_gradient():
    net = network("alexnet, colour, mlp")
    images, targets = batch(2)
    found = attribute(net, images, targets, ["gradient", "saliency"])
    assert_close(found["saliency"][:, 0], found["gradient"].abs().max(1).values)


def test_another_layer_by_place_name_or_module():
    net = network("alexnet, colour, mlp")
    images, targets = batch(2)
    last = attribute(net, images, targets, ["grad_cam", "hires_cam"])
    same = attribute(net, images, targets, ["grad_cam", "hires_cam"], layer="features.16")  # the ReLU of the last
    for name in last:
        assert_close(last[name], same[name])
    fourth = attribute(net, images, targets, ["grad_cam:layer=-2", "layer_cam:layer=features.13"])
    assert list(fourth) == ["grad_cam~layer=-2", "layer_cam~layer=features.13"]
    given = attribute(net, images, targets, ["grad_cam"], layer=net.features[13])
    assert_close(fourth["grad_cam~layer=-2"], given["grad_cam"])
    assert not torch.allclose(given["grad_cam"], last["grad_cam"])


def test_a_network_that_names_no_layer_is_asked_for_one():
    net = torchvision.models.resnet18(weights=None, num_classes=9).double()
    images, targets = batch(1, (3, 32, 32))
    with pytest.raises(UserError, match="give layer="):
        attribute(net, images, targets, ["grad_cam"])
    with pytest.raises(UserError, match="no such module"):
        attribute(net, images, targets, ["grad_cam"], layer="layer9")
    with pytest.raises(UserError, match="20 convolutions"):
        attribute(net, images, targets, ["grad_cam:layer=-21"])
    assert attribute(net, images, targets, ["gradient"])["gradient"].shape == images.shape
    assert attribute(net, images, targets, ["guided_grad_cam"], layer="layer4")["guided_grad_cam"].shape == images.shape
    with pytest.raises(UserError, match="did you mean grad_cam"):
        attribute(net, images, targets, ["gradcam"])
    with pytest.raises(UserError, match="of shape"):
        attribute(net, images[0], targets, ["gradient"])
    with pytest.raises(UserError, match="numbers of logits"):
        attribute(net, images, torch.tensor([1, 2]), ["gradient"])


@pytest.mark.parametrize("method", METHODS)
def test_a_network_without_classes_and_classes_that_it_has_not_are_one_sentence(method):
    maps = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(2, 3, 8, 8)
    for net, targets, word in [
        (maps, torch.tensor([0, 1]), "no classes"),
        (classifier, torch.tensor([0, 7]), "classes 0 to 7"),
        (classifier, torch.rand(2, 9), "9 classes"),
    ]:
        with pytest.raises(UserError, match=word):
            attribute(net, images, targets, [method], layer=net[0])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"model": lambda images: images}, "model: a function"),
        ({"images": [[0.0]]}, "images: a list"),
        ({"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "images: of torch.uint8"),
        ({"images": torch.zeros(3, 8, 8)}, "images: of shape"),
        ({"targets": 0}, "targets: a int"),
        ({"targets": torch.zeros(1)}, "targets: of torch.float32"),
        ({"targets": torch.zeros(1, dtype=torch.bool)}, "targets: of torch.bool"),
        ({"methods": None}, "methods: a list of names"),
        ({"methods": [3]}, "methods: a list of names"),
    ],
)
def test_arguments_of_another_kind_are_one_sentence(wrong, words):
    right = {
        "model": torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()),
        "images": torch.zeros(1, 3, 8, 8),
        "targets": torch.tensor([0]),
        "methods": ["gradient"],
    }
    assert attribute(**right)["gradient"].shape == (1, 3, 8, 8)
    with pytest.raises(UserError, match=words):
        attribute(**(right | wrong))
