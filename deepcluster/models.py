"""The networks: AlexNet and VGG16 with batch norm (Caron et al. 2018), with the paper's classifier or a pooled neck.

`images` below are (B, 3, H, W) float32, RGB, normalised by views.MEAN and views.STD. Logit j is cluster j.
"""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from console import UserError
from runs import Run

# (out channels, kernel, stride, padding) of a convolution; "pool" is MaxPool2d(pool_kernel, 2).
Layer = tuple[int, int, int, int] | str
ALEXNET: Sequence[Layer] = (
    (96, 11, 4, 2), "pool", (256, 5, 1, 2), "pool", (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1), "pool",
)  # fmt: skip
VGG16: Sequence[Layer] = tuple(
    layer if layer == "pool" else (int(layer), 3, 1, 1)
    for layer in [
        "64",
        "64",
        "pool",
        "128",
        "128",
        "pool",
        "256",
        "256",
        "256",
        "pool",
        "512",
        "512",
        "512",
        "pool",
        "512",
        "512",
        "512",
        "pool",
    ]
)
ARCHITECTURES: dict[str, tuple[Sequence[Layer], int]] = {
    "alexnet": (ALEXNET, 3),
    "vgg16": (VGG16, 2),
}
HIDDEN = 4096  # of the paper's classifier
MLP_HIDDEN = 512


class Sobel(nn.Sequential):
    """Mean of the three channels, then the horizontal and vertical derivative: (B, 3, H, W) -> (B, 2, H, W). Fixed."""

    def __init__(self) -> None:
        grey = nn.Conv2d(3, 1, 1)
        sobel = nn.Conv2d(1, 2, 3, padding=1)
        kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
        with torch.no_grad():
            grey.weight.fill_(1 / 3)
            grey.bias.zero_()  # type: ignore[union-attr]
            sobel.weight.copy_(torch.stack([kernel, kernel.T])[:, None])
            sobel.bias.zero_()  # type: ignore[union-attr]
        super().__init__(grey, sobel)
        self.requires_grad_(False)


class ClusterNet(nn.Module):
    """Trunk (`sobel`, `features`), neck (`classifier`) and linear `head`.

    Three necks; what is clustered is what `embed` returns, and `classify` takes it from there:
    - `fc`, the paper's: two layers of 4,096; clustered is the second before its ReLU.
    - `mlp`: one layer of 512 with batch norm and ReLU, which is clustered; batch norm without affine, head.
    - `pool`: the last convolution's average over the picture is clustered; batch norm without affine, head.
    """

    def __init__(self, arch: str, size: int, k: int, sobel: bool, neck: str):
        super().__init__()
        layers, pool_kernel = ARCHITECTURES[arch]
        self.arguments = {"arch": arch, "size": size, "k": k, "sobel": sobel, "neck": neck}
        self.sobel = Sobel() if sobel else None
        self.features = _convolutions(layers, pool_kernel, 2 if sobel else 3)
        side = map_side(arch, size)
        if side < 1:
            raise UserError(f"--size {size} is too small for {arch}: use at least {smallest_size(arch)}")
        channels = next(layer[0] for layer in reversed(layers) if not isinstance(layer, str))
        self.neck = neck
        if neck == "fc":
            flat = channels * side * side
            drops = (nn.Dropout(), nn.Dropout()) if arch == "alexnet" else (nn.Identity(), nn.Dropout())
            self.classifier = nn.Sequential(
                drops[0], nn.Linear(flat, HIDDEN), nn.ReLU(), drops[1], nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
            )
            self.head = nn.Linear(HIDDEN, k)
        elif neck == "mlp":
            self.classifier = nn.Sequential(
                nn.Linear(channels * side * side, MLP_HIDDEN),
                nn.BatchNorm1d(MLP_HIDDEN),
                nn.ReLU(),
                nn.BatchNorm1d(MLP_HIDDEN, affine=False),
            )
            self.head = nn.Linear(MLP_HIDDEN, k)
        else:
            self.classifier = nn.Sequential(nn.BatchNorm1d(channels, affine=False))
            self.head = nn.Linear(channels, k)
        _initialise(self)

    @property
    def cam_layer(self) -> nn.Module:
        """The last convolution's ReLU, before the pool: the layer that Grad-CAM reads."""
        return self.features[-2]

    def maps(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, h, w), the output of `cam_layer`."""
        return self.features[:-1](self.sobel(images) if self.sobel is not None else images)

    def embed_maps(self, maps: Tensor) -> Tensor:
        """From `maps` to what is clustered: (B, 4096) for the neck `fc`, (B, 512) for `mlp`, (B, channels) for `pool`."""
        if self.neck == "pool":
            return maps.mean((2, 3))
        return self.classifier[:-1](self.features[-1](maps).flatten(1))

    def embed(self, images: Tensor) -> Tensor:
        """What is clustered, (B, features)."""
        return self.embed_maps(self.maps(images))

    def classify(self, embedding: Tensor) -> Tensor:
        """(B, features) from `embed` -> (B, k) logits."""
        return self.head(self.classifier[-1](embedding))

    def from_maps(self, maps: Tensor) -> Tensor:
        """From `maps` to the (B, k) logits."""
        return self.classify(self.embed_maps(maps))

    def forward(self, images: Tensor) -> Tensor:
        return self.from_maps(self.maps(images))

    def fresh_head(self, k: int, generator: torch.Generator) -> None:
        """Replace the head by N(0, .01) weights and zero biases for k clusters."""
        device = self.head.weight.device
        self.head = nn.Linear(self.head.in_features, k)
        with torch.no_grad():
            self.head.weight.normal_(0, 0.01, generator=generator)
            self.head.bias.zero_()
        self.head.to(device)
        self.arguments["k"] = k

    def load_trunk(self, state: dict[str, Tensor]) -> None:
        """Take everything but the head from another network's state_dict of the same layers."""
        own = {name: value for name, value in self.state_dict().items() if not name.startswith("head.")}
        wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
        if wrong:
            raise UserError(
                f"--init: its network is another one ({wrong[0]} differs): use the same --arch, --sobel, --size"
            )
        self.load_state_dict({name: state[name] for name in own}, strict=False)

    def trunk_parameters(self) -> list[nn.Parameter]:
        head = {id(parameter) for parameter in self.head.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in head]


def _convolutions(layers: Sequence[Layer], pool_kernel: int, channels: int) -> nn.Sequential:
    modules: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, str):
            modules.append(nn.MaxPool2d(pool_kernel, 2))
        else:
            out, kernel, stride, padding = layer
            modules += [nn.Conv2d(channels, out, kernel, stride, padding), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
    return nn.Sequential(*modules)


def _initialise(model: ClusterNet) -> None:
    """Convolutions N(0, sqrt(2 / (kernel area x output channels))), linear N(0, .01), biases 0, batch norm 1 and 0."""
    for part in (model.features, model.classifier, model.head):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)


def build(arguments: dict, seed: int = 0) -> ClusterNet:
    """The network that `arguments` (run.json's "model") describes, with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClusterNet(**arguments)


def trained_model(run: Run, epoch: int | None = None) -> ClusterNet:
    """The network of an epoch (default: the last kept), in eval mode on the CPU."""
    kept = run.checkpoints()
    if not kept:
        raise UserError(f"{run.path}: no weights were kept yet: let the training finish")
    saved = run.checkpoint(kept[-1] if epoch is None else epoch)
    model = build(saved["model"])
    try:
        model.load_state_dict(saved["state"])
    except RuntimeError as error:
        raise UserError(f"{run.path}: a checkpoint does not fit its network ({str(error).splitlines()[0]})") from None
    return model.eval()


def map_side(arch: str, size: int, before_last_pool: bool = False) -> int:
    """Side of the square map that the convolutions make of a `size` x `size` image; below 1: the image is too small."""
    layers, pool_kernel = ARCHITECTURES[arch]
    side = size
    for layer in layers[:-1] if before_last_pool else layers:
        kernel, stride, padding = (pool_kernel, 2, 0) if isinstance(layer, str) else layer[1:]
        if side + 2 * padding < kernel:
            return 0
        side = (side + 2 * padding - kernel) // stride + 1
    return side


def smallest_size(arch: str) -> int:
    return next(size for size in range(1, 512) if map_side(arch, size) >= 1)


def folded(model: ClusterNet) -> ClusterNet:
    """A copy for inference whose batch norms are folded into the convolutions before them: the same function, faster."""
    twin = copy.deepcopy(model).eval()
    layers: list[nn.Module] = []
    for module in twin.features:
        if isinstance(module, nn.BatchNorm2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], module)  # type: ignore[type-var]
        else:
            layers.append(module)
    twin.features = nn.Sequential(*layers)
    return twin.requires_grad_(False).to(memory_format=torch.channels_last)
