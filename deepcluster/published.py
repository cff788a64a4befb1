"""torchvision's classifiers: which of them can be a backbone, their trunks, and weights that were learnt elsewhere.

Free of torch until one is named.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from console import UserError, nearest
from machine.files import home_path
from machine.reading import Damaged, open_regular
from runs.tensors import is_state, load_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

DEFAULT = "DEFAULT"  # torchvision's own name for the best weights that it has of a network
# What makes up the trunk, in the order in which a picture goes through it: of each family (a module of
# torchvision.models) the children up to the last maps.
TRUNKS: dict[str, tuple[str, ...]] = {
    "convnext": ("features",),
    "densenet": ("features",),
    "efficientnet": ("features",),
    "mnasnet": ("layers",),
    "mobilenetv2": ("features",),
    "mobilenetv3": ("features",),
    "regnet": ("stem", "trunk_output"),
    "resnet": ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    "shufflenetv2": ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"),
    "squeezenet": ("features",),
    "vgg": ("features",),
}
RENAMED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")  # published DenseNets are older than their layers' names
WRAPPINGS = ("state_dict", "model", "model_state_dict")  # what a training puts its weights under
LATER = "num_batches_tracked"  # that older files lack; no map depends on it


@lru_cache(maxsize=1)
def classifiers() -> dict[str, str]:
    """torchvision's networks that put pictures into classes: name -> family."""
    import torchvision
    from torchvision import models

    names = models.list_models(module=torchvision.models)
    return {name: models.get_model_builder(name).__module__.rpartition(".")[2] for name in names}


def check_name(name: str, own: Sequence[str]) -> None:
    """Refuse a network that is none of `own` and cannot be had from torchvision.

    Raises:
        UserError: saying which can be.
    """
    known = classifiers()
    fit = [*own, *(one for one, family in known.items() if family in TRUNKS)]
    if name in known and name not in fit:
        raise UserError(
            f"{name} cannot be trained: of torchvision's classifiers those of the families {', '.join(TRUNKS)} can"
        )
    if name not in fit:
        raise UserError(
            f"{name!r} is neither one of {', '.join(own)} nor a classifier of torchvision, such as resnet50 or "
            f"mobilenet_v3_small{nearest(name, fit)}"
        )


def trunk(name: str, channels: int, net: nn.Module | None = None) -> nn.Sequential:
    """The layers of a network up to its last maps, then its last max-pool or an identity; as a BACKBONES entry's.

    Args:
        name: one of `classifiers`, of a family in TRUNKS.
        channels: of the input; for another number than 3 the first convolution is a new one.
        net: the whole network; None: one with the random weights that torchvision draws.
    """
    from torch import nn
    from torchvision import models

    net = models.get_model(name, weights=None) if net is None else net
    parts = [getattr(net, part) for part in TRUNKS[classifiers()[name]]]
    modules = [*parts[0], *parts[1:]] if len(parts) == 1 else parts
    if classifiers()[name] == "densenet":
        modules.append(nn.ReLU())  # the network's forward applies it
    if not isinstance(modules[-1], nn.MaxPool2d):
        modules.append(nn.Identity())
    found = nn.Sequential(*modules)
    if channels != 3:
        _take_channels(found, channels)
    return found


def _take_channels(layers: nn.Module, channels: int) -> None:
    """Replace the first convolution by a new one for so many channels, in place."""
    from torch import nn

    path, first = next((name, module) for name, module in layers.named_modules() if isinstance(module, nn.Conv2d))
    parent, _, name = path.rpartition(".")
    shape = (first.kernel_size, first.stride, first.padding)
    new = nn.Conv2d(channels, first.out_channels, *shape, bias=first.bias is not None)  # type: ignore[arg-type]
    setattr(layers.get_submodule(parent), name, new)


# --- weights ----------------------------------------------------------------------------------------------------------


def name_weights(name: str, asked: str) -> str:
    """What run.json keeps of --weights: torchvision's name of them, or the beginning of the file's SHA-256.

    Args:
        name: torchvision's, of the network.
        asked: DEFAULT, or a file.

    Raises:
        UserError: if there is no such file.
    """
    if asked == DEFAULT:
        return str(_default(name))
    try:
        with open_regular(home_path(asked)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(
            f"--weights {asked}: cannot be read ({error.strerror or error}): name a file with a state_dict of {name}, "
            f"or {DEFAULT} for torchvision's"
        ) from None


def read_trunk(name: str, asked: str) -> dict[str, Tensor]:
    """The weights of `trunk(name, 3)`, as its state_dict.

    Raises:
        UserError: if they cannot be fetched or read, or are not those of this network.
    """
    from torchvision import models

    if asked == DEFAULT:
        state = fetch(_default(name), f"--weights {DEFAULT}: {name}'s", "--weights FILE")
    else:
        state = read_state(asked)
    net = models.get_model(name, weights=None)
    parts = TRUNKS[classifiers()[name]]
    wanted = {key: value for key, value in net.state_dict().items() if key.partition(".")[0] in parts}
    needed = {key: value for key, value in wanted.items() if not key.endswith(LATER)}
    wrong = [key for key, value in needed.items() if key not in state or state[key].shape != value.shape]
    if wrong:
        what = "is not in it" if wrong[0] not in state else f"has the shape {tuple(state[wrong[0]].shape)}"
        raise UserError(f"--weights {asked}: these are not the weights of {name} ({wrong[0]} {what})")
    net.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)
    return trunk(name, 3, net).state_dict()


def _default(name: str) -> Any:
    """torchvision's best weights of a network: a member of its enumeration of them.

    Raises:
        UserError: if they want pictures of another mean than all others do.
    """
    from torchvision import models

    found = models.get_model_weights(name)[DEFAULT]
    if found.transforms().mean != models.ResNet18_Weights[DEFAULT].transforms().mean:
        raise UserError(f"--weights {DEFAULT}: {name}'s want pictures scaled otherwise than all others: use another")
    return found


def fetch(weights: Any, what: str, otherwise: str) -> dict[str, Tensor]:
    """The state_dict of one of torchvision's networks, which torchvision fetches once.

    Args:
        weights: a member of its enumeration of them.
        what: begins the sentence where they cannot be had: the option, and whose they are.
        otherwise: what to give instead of them.

    Raises:
        UserError: if there is no network, or what came is damaged.
    """
    try:
        return _named_as_now(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    except Exception as error:  # no network, another hash, or damaged bytes in torchvision's own cache
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{what} could not be fetched ({reason}): fetch {weights.url} where there is a network, and give "
            f"{otherwise}"
        ) from None


def read_state(asked: str) -> dict[str, Tensor]:
    """The state_dict in a file, also one that a training put under a name of its own, or wrote on several GPUs.

    Raises:
        UserError: if the file has none, or its numbers are not finite.
    """
    path, mend = home_path(asked), "name a state_dict as torch.save writes it"
    state: Any = load_tensors(path, mend)
    state = next((state[name] for name in WRAPPINGS if isinstance(state.get(name), dict)), state)
    if not is_state(state):
        raise Damaged(path, "or no state_dict", mend)
    if any(value.is_floating_point() and not value.isfinite().all() for value in state.values()):
        raise Damaged(path, "its weights are not finite", mend)
    return _named_as_now({key.removeprefix("module."): value for key, value in state.items()})


def _named_as_now(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {RENAMED.sub(r"\1\2", key): value for key, value in state.items()}
