"""The network that is trained: a backbone, a neck whose output is clustered, and a head with one logit a cluster.

`images` below are (B, 3, H, W) float32, RGB, normalised by views.MEAN and views.STD. Logit j is cluster j.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from console import UserError
from datasets.view import PHOTOGRAPH, VIEWS, shape_of
from deepcluster.around import join_edges
from deepcluster.backbones import (
    BACKBONES,
    build_backbone,
    check_arch,
    check_size,
    fits,
    map_shape,
    pooled_shape,
    published_name,
)
from deepcluster.config import MOST_K, Config
from deepcluster.published import read_trunk
from machine.reading import Between, Damaged, Side, shown, typed
from machine.seeds import derive_seed

HIDDEN = 4096  # of the paper's classifier
MLP_HIDDEN = 512
FREQUENCIES = 8  # around the coin that the neck `spectrum` keeps, 0 among them
NECKS = ("fc", "mlp", "pool", "spectrum")


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

    Four necks; what is clustered is what `embed` returns, and `classify` takes it from there:

    - `fc`, the paper's: two layers of 4,096; clustered is the second before its ReLU.
    - `mlp`: one layer of 512 with batch norm and ReLU, which is clustered; batch norm without affine, head.
    - `pool`: the last convolution's average over the picture is clustered; batch norm without affine, head.
    - `spectrum`, for unrolled coins: as `mlp`, on how strong each frequency around the coin is in each row of the last
      convolution, so that turning the coin, which rolls the rows, changes nothing but at the scale of a map's cell.
    """

    def __init__(self, arch: str, size: int, k: int, sobel: bool, neck: str, view: str = PHOTOGRAPH):
        super().__init__()
        around, (height, width) = view == "unrolled", shape_of(view, size)
        check_size(arch, size, view)
        shape = map_shape(arch, height, width, around)
        assert shape is not None
        self.arguments: dict[str, Any] = {"arch": arch, "size": size, "k": k, "sobel": sobel, "neck": neck}
        if view != PHOTOGRAPH:  # checkpoints of before there were views have none
            self.arguments["view"] = view
        self.sobel = Sobel() if sobel else None
        if around and self.sobel is not None:
            join_edges(self.sobel)
        self.features = build_backbone(arch, 2 if sobel else 3, around)
        self.neck = neck
        channels, flat = shape[0], math.prod(pooled_shape(arch, height, width, around))
        if neck == "spectrum":
            flat = channels * shape[1] * min(FREQUENCIES, shape[2] // 2 + 1)
        if neck == "fc":
            first = nn.Identity() if arch == "vgg16" else nn.Dropout()  # the original's VGG has one dropout
            self.classifier = nn.Sequential(
                first, nn.Linear(flat, HIDDEN), nn.ReLU(), nn.Dropout(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
            )
            self.head = nn.Linear(HIDDEN, k)
        elif neck in ("mlp", "spectrum"):
            self.classifier = nn.Sequential(
                nn.Linear(flat, MLP_HIDDEN),
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
    def goes_around(self) -> bool:
        """Whether the left and right edge of its images meet."""
        return self.arguments.get("view") == "unrolled"

    @property
    def cam_layer(self) -> nn.Module:
        """The backbone's last module before its pool (AlexNet's last ReLU): the layer that Grad-CAM reads."""
        return self.features[-2]

    @property
    def pool(self) -> nn.Module:
        """What follows `cam_layer`."""
        return self.features[-1]

    @property
    def embedding_layers(self) -> nn.Sequential:
        """The neck up to what is clustered."""
        return self.classifier[:-1]

    @property
    def after_embedding(self) -> nn.Module:
        """The neck's last module, between what is clustered and the head."""
        return self.classifier[-1]

    def maps(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, h, w), the output of `cam_layer`."""
        return self.features[:-1](self.sobel(images) if self.sobel is not None else images)

    def embed_maps(self, maps: Tensor) -> Tensor:
        """From `maps` to what is clustered: (B, 4096) of `fc`, (B, channels) of `pool`, else (B, 512)."""
        if self.neck == "pool":
            return maps.mean((2, 3))
        if self.neck == "spectrum":
            exact = maps if maps.dtype == torch.float64 else maps.float()  # of bfloat16 there is no transform
            strength = torch.fft.rfft(exact, dim=3, norm="ortho").abs()[..., :FREQUENCIES]
            return self.embedding_layers(strength.flatten(1))
        return self.embedding_layers(self.pool(maps).flatten(1))

    def embed(self, images: Tensor) -> Tensor:
        """What is clustered, (B, features)."""
        return self.embed_maps(self.maps(images))

    def classify(self, embedding: Tensor) -> Tensor:
        """(B, features) from `embed` -> (B, k) logits."""
        return self.head(self.after_embedding(embedding))

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
        """All that are trained but the head's."""
        head = {id(parameter) for parameter in self.head.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in head]


def _initialise(model: ClusterNet) -> None:
    """Convolutions N(0, sqrt(2 / (kernel area x output channels))), linear N(0, .01), biases 0, batch norm 1 and 0.

    The layers of torchvision's networks stay as torchvision draws them: each family begins in its own way.
    """
    ours = model.arguments["arch"] in BACKBONES
    for part in (*([model.features] if ours else []), model.classifier, model.head):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                fan = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)


def model_arguments(config: Config) -> dict[str, Any]:
    """run.json's "model": what `build` takes."""
    found = {"arch": config.arch, "size": config.size, "k": config.k, "sobel": config.sobel, "neck": config.neck}
    return found if config.view == PHOTOGRAPH else found | {"view": config.view}


@dataclass(frozen=True)
class Arguments:
    """What `build` takes, as run.json and checkpoints hold it."""

    arch: str
    size: Side
    k: Annotated[int, Between(1, MOST_K)]
    sobel: bool
    neck: str
    view: str = PHOTOGRAPH


def check_arguments(stored: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The arguments that a checkpoint of the run at `path` holds.

    Raises:
        UserError: naming what is wrong with them.
    """
    mend = "restore a copy of its checkpoints and run.json"
    found = typed(Arguments, stored, path, mend, "model")
    try:
        check_arch(found.arch)
    except UserError:
        raise Damaged(path, f"its network is {shown(found.arch)}", mend) from None
    if found.neck not in NECKS or found.view not in (PHOTOGRAPH, *VIEWS):
        raise Damaged(path, f"its network is {shown(found.arch)} with the neck {shown(found.neck)}", mend)
    if not fits(found.arch, found.size, found.view):
        raise Damaged(path, f"its network is {found.arch} for {found.size} pixels", mend)
    return asdict(found)


def build(arguments: dict[str, Any], seed: int = 0) -> ClusterNet:
    """The network that `arguments` (run.json's "model") describes, with weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClusterNet(**arguments)


def untrained(config: Config, draw: int = 0) -> ClusterNet:
    """The network before training, the one that baselines and caveats mean; `train` starts from it, but for --init.

    `draw`: from 1 on the same network with other random weights.
    """
    return build(model_arguments(config), derive_seed(config.seed, draw, "weights"))


def pretrained(config: Config, weights: str) -> dict[str, Tensor]:
    """The state of `untrained(config)` with the trunk's weights from elsewhere: torchvision's DEFAULT, or a file's.

    Raises:
        UserError: if they cannot be had, or do not fit.
    """
    found = read_trunk(published_name(config.arch), weights)
    model = untrained(replace(config, k=1))  # whose head is not used
    return model.state_dict() | {f"features.{key}": value for key, value in found.items()}


def fuse_batch_norm(model: ClusterNet) -> ClusterNet:
    """A copy for inference: the same function, faster.

    Batch norms that follow a convolution in `features` itself are fused with it (those inside ResNet's blocks are not).
    Each leaves an identity behind, so that layers keep their names.
    """
    twin = copy.deepcopy(model).eval()
    layers: list[nn.Module] = []
    for module in twin.features:
        if isinstance(module, nn.BatchNorm2d) and layers and isinstance(layers[-1], nn.Conv2d):
            layers[-1] = fuse_conv_bn_eval(layers[-1], module)
            layers.append(nn.Identity())
        else:
            layers.append(module)
    twin.features = nn.Sequential(*layers)
    return twin.requires_grad_(False).to(memory_format=torch.channels_last)
