"""`python -m explain image PHOTO`: any file, explained by a run's network or one of torchvision's."""

import argparse
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import runs
from console import UserError
from datasets import check_drawn
from datasets.cache import Pixels
from datasets.decoding import BadImage, decode
from datasets.places import Place
from datasets.view import COLOURLESS, Window, look_at, to_photograph
from datasets.view import PHOTOGRAPH as PHOTOGRAPH_VIEW
from deepcluster.published import classifiers, fetch, read_state
from deepcluster.views import Frames
from explain.attribution import PHOTOGRAPH, VIEW, Asked, attribute_and_measure
from explain.attribution.registry import default_methods
from explain.attribution.targets import find_layer
from explain.record import number_column
from explain.rendering import draw, encode, titled
from explain.subject import SHOWN, epochs_to_explain, neutral_pixel, trainer_of
from machine.device import use_device
from machine.files import home_path, write_atomic, write_csv
from machine.reading import whole_number

TOP, LISTED = 3, 10  # classes that are printed, and in the table
OCCLUSION = Asked("occlusion")


@dataclass(frozen=True)
class Look:
    """A photograph as a network sees it."""

    images: Tensor  # (1, C, H, W)
    place: Place | None = None  # of the coin, where the network sees a view of it


@dataclass(frozen=True)
class Viewer:
    """A network that a photograph can be shown to."""

    name: str
    model: Any  # nn.Module from (B, C, H, W) to (B, K) logits; knows its `neutral`
    names: list[str]  # of the K logits
    sides: tuple[int | None, int | None]  # what `decode` is to do with a file's shorter side; None: leave it
    look: Callable[[np.ndarray], Look]  # at (height, width, 3) uint8
    photograph: Callable[[Tensor], Tensor]  # what the network sees (1, C, H, W), for the eye: in 0..1
    view: str = PHOTOGRAPH_VIEW
    size: int = 0  # of the view, where it is another


def image_command(options: argparse.Namespace) -> None:
    """`python -m explain image`."""
    if (options.run is None) == (options.network is None):
        raise UserError("image: name either a run with --run, or a network with --network torchvision:resnet18")
    device = use_device(options.device)
    viewer = (
        viewer_of_run(options.run, options.epoch, device) if options.run else viewer_of_network(options.network, device)
    )
    methods = options.methods or (*default_methods(viewer.view != PHOTOGRAPH_VIEW), OCCLUSION)
    for path in options.photos:
        explain_photo(viewer, path, methods, options.target, options.out, device)


def explain_photo(
    viewer: Viewer, path: Path, methods: tuple[Asked, ...], target: str, out: Path, device: torch.device
) -> None:
    """Print what the network says of a file, and write a titled picture of each method and a table into `out`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file: name a photograph")
    try:
        pixels = decode(path, *viewer.sides)
    except BadImage as error:
        raise UserError(f"{path}: {error}: name another photograph") from None
    look = viewer.look(pixels)
    images = look.images.to(device)
    with torch.inference_mode():
        logits = viewer.model(images).float()
    probability = logits.softmax(1)[0].cpu()
    order = probability.argsort(descending=True, stable=True).tolist()
    weights, what = target_of(target, viewer, order)
    maps_of = [one for one in methods if one.name != PHOTOGRAPH]
    for one in maps_of:
        if one.method.needs_layer:
            find_layer(viewer.model, one.options.get("layer"))
        if one.method.check is not None:
            one.method.check(min(images.shape[2:]), **one.options)
    maps, numbers = attribute_and_measure(viewer.model, images.clone(), weights.to(images), maps_of)

    seen = (viewer.photograph(images)[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    if viewer.view in COLOURLESS:
        seen = seen[:, :, :1]  # the height alone, in grey
    seen = seen.repeat(3 // seen.shape[2], 2)  # (H, W, 3)
    drawn = {key: found[0].float().cpu().numpy() for key, found in maps.items()}
    for one in maps_of:
        if viewer.view in COLOURLESS and one.method.kind == "signed":
            drawn[one.key] = drawn[one.key].sum(0, keepdims=True)  # channels that are no colours
    shown = seen
    if look.place is not None:
        window = Window.about(look.place, pixels.shape)
        shown = window.cut(pixels, SHOWN)
        for one in maps_of:
            if one.name != VIEW:
                values = drawn[one.key].transpose(1, 2, 0)
                back = to_photograph(values, viewer.view, look.place, window, viewer.size, SHOWN)
                drawn[one.key] = back.reshape(SHOWN, SHOWN, -1).transpose(2, 0, 1)
    likeliest = ", ".join(f"{viewer.names[number]} {float(probability[number]):.3f}" for number in order[:TOP])
    score = float((probability * weights[0]).sum())
    out.mkdir(parents=True, exist_ok=True)
    table = [
        {
            "place": place,
            "number": number,
            "name": viewer.names[number],
            "logit": f"{float(logits[0, number]):.6g}",
            "probability": f"{float(probability[number]):.6g}",
        }
        for place, number in enumerate(order[:LISTED], 1)
    ]
    for one in methods:
        if one.name == PHOTOGRAPH:
            picture, title = Image.fromarray(shown), likeliest
        else:
            picture = draw(one.method, drawn[one.key], seen if one.name == VIEW else shown)
            title = f"{one.title}: {what} {score:.3f}"
        if one.key in numbers:
            found = {name: float(values[0]) for name, values in numbers[one.key].items()}
            title += f", covered {found['worst']:.3f} to {found['best']:.3f}"
            table[0] |= {number_column(one.key, name): f"{value:.6g}" for name, value in found.items()}
        write_atomic(out / f"{path.stem}-{one.key}.png", encode(titled(picture, title), "png"), durable=False)
    write_csv(out / f"{path.stem}.csv", table)
    print(f"{path}: {likeliest} ({viewer.name})")
    print(f"  {len(methods)} pictures of what speaks for {what}: {out / path.stem}-*.png")


def target_of(target: str, viewer: Viewer, order: list[int]) -> tuple[Tensor, str]:
    """What is explained of a photograph.

    Args:
        target: own (the likeliest class), rival (the second), margin (their difference), a number or a name.
        viewer: whose classes.
        order: the classes, the likeliest first.

    Returns:
        Weights of the logits (1, K), and what they stand for in words.

    Raises:
        UserError: if the network has no such class.
    """
    weights = torch.zeros(1, len(viewer.names))
    if target in ("rival", "margin") and len(order) < 2:
        raise UserError(f"--target {target}: this network has only one class: explain --target own")
    if target == "margin":
        weights[0, order[0]], weights[0, order[1]] = 1, -1
        return weights, f"{viewer.names[order[0]]} before {viewer.names[order[1]]}"
    if target in ("own", "rival"):
        number = order[0 if target == "own" else 1]
    elif (named := whole_number(target)) is not None and named < len(viewer.names):
        number = named
    else:
        known = {name.casefold(): number for number, name in reversed(list(enumerate(viewer.names)))}
        if target.casefold() not in known:
            near = difflib.get_close_matches(target.casefold(), known, 1, 0)
            raise UserError(
                f"--target {target}: {viewer.name} has no such class: own, rival, margin, 0 to "
                f"{len(viewer.names) - 1}, or a name like {viewer.names[known[near[0]]]!r}"
            )
        number = known[target.casefold()]
    weights[0, number] = 1
    return weights, viewer.names[number]


def viewer_of_run(path: Path, epoch: str, device: torch.device) -> Viewer:
    """The network of a run's epoch (`latest` or a number)."""
    run = runs.open_run(path)
    check_drawn(run.meta.view.name, run.meta.view.drawn)
    trainer = trainer_of(run)
    number = epochs_to_explain(run, epoch)[-1]
    model = trainer.for_inference(trainer.network(run, number).to(device))
    seen = run.meta.view

    def look(pixels: np.ndarray) -> Look:
        drawn, place = look_at(pixels, seen.name, seen.size)
        return Look(trainer.view(run, Frames(Pixels.of([drawn]), device), np.zeros(1, np.int64)), place)

    blank = look(np.zeros((seen.decoded_side, seen.decoded_side, 3), np.uint8)).images
    model.neutral = neutral_pixel(trainer, seen.name, blank)
    with torch.inference_mode():
        k = model(blank).shape[1]
    names = trainer.class_names(run) or [f"{trainer.group(run)} {j}" for j in range(k)]
    sides = (seen.decoded_side, seen.decode_at_most)
    return Viewer(f"{path}, epoch {number}", model, list(names), sides, look, trainer.photograph, seen.name, seen.size)


def viewer_of_network(spec: str, device: torch.device) -> Viewer:
    """An image-recognition network of torchvision with its class names.

    Args:
        spec: `torchvision:NAME` (its default weights), `torchvision:NAME:WEIGHTS` (named as torchvision names them) or
            `torchvision:NAME:FILE`, a state_dict. Named weights are fetched by torchvision, once.
        device: where it computes.

    Raises:
        UserError: if there is no such network, or its weights cannot be had.
    """
    from torchvision import models

    source, _, rest = spec.partition(":")
    name, _, wanted = rest.partition(":")
    known = [*classifiers()]
    if source != "torchvision" or name not in known:
        near = difflib.get_close_matches(name or source, known, 1, 0)
        raise UserError(f"--network {spec}: unknown: write torchvision:NAME, NAME like {near[0]}")
    offered = models.get_model_weights(name)
    if not wanted or wanted in offered.__members__:
        weights = offered[wanted or "DEFAULT"]
        state = fetch(weights, f"--network {spec}: its weights", f"--network torchvision:{name}:FILE")
    elif home_path(wanted).is_file():
        weights = offered["DEFAULT"]
        state = read_state(wanted)
    else:
        raise UserError(
            f"--network {spec}: {wanted} is neither a file nor weights of {name}: name a file with its state_dict, or "
            f"one of {', '.join(offered.__members__)}"
        )
    names = list(weights.meta["categories"])
    try:
        classes = len(list(state.values())[-1])
        net = models.get_model(name, weights=None, num_classes=classes)
        net.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, IndexError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise UserError(f"--network {spec}: these weights do not fit {name} ({reason}): name others") from None
    if classes != len(names):
        names = [f"class {j}" for j in range(classes)]
    net = net.eval().requires_grad_(False).to(device)
    layer = last_maps(net)
    if layer is not None:
        net.cam_layer = layer
    shows = weights.transforms()
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (shows.mean, shows.std))
    net.neutral = (0.5 - mean) / std
    return Viewer(
        f"torchvision's {name}", net, names, (None, None),
        look=lambda pixels: Look(shows(torch.from_numpy(np.array(pixels)).permute(2, 0, 1))[None].to(device)),
        photograph=lambda images: images * std + mean,
    )  # fmt: skip


def last_maps(net: nn.Module) -> nn.Module | None:
    """The module with the last maps before they are pooled, of torchvision's convolutional families; else None."""
    for name in ("layer4", "trunk_output", "Mixed_7c", "inception5b", "conv5", "layers", "features"):
        part = getattr(net, name, None)
        if not isinstance(part, nn.Module):
            continue
        if name in ("features", "layers") and isinstance(part, nn.Sequential):
            pools = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
            return [child for child in part if not isinstance(child, pools)][-1]
        return part
    return None
