"""The network as a row of blocks, and as a table of its layers."""

from dataclasses import dataclass, field

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from runs.figures import new_figure
from supervised.models import ClassNet

WORDS = {
    nn.BatchNorm1d: "batch norm",
    nn.BatchNorm2d: "batch norm",
    nn.Dropout: "dropout",
    nn.Flatten: "flatten",
    nn.Linear: "dense",
    nn.MaxPool2d: "max-pool",
    nn.ReLU: "ReLU",
}


@dataclass(frozen=True)
class Layer:
    """A layer of a network."""

    number: int | None  # in its part of the network, by which `report --layer` names it; None: not a convolution's part
    kind: str  # torch's name for it
    words: str
    detail: str  # its settings
    shape: tuple[int, ...]  # of what it puts out, without the batch
    parameters: int

    @property
    def name(self) -> str:
        return self.kind if self.number is None else f"{self.number} {self.kind}"

    @property
    def size(self) -> str:
        """The shape for a person: "32 x 14 x 14"."""
        return " x ".join(map(str, self.shape))

    @property
    def begins_block(self) -> bool:
        """Whether the diagram has a block for it: the input, layers with weights that are no norms, and pools."""
        return self.kind in ("input", "Conv2d", "MaxPool2d", "Linear")


@dataclass
class Block:
    """What a layer puts out, and that layer with those after it that do not change the shape."""

    shape: tuple[int, ...]
    words: list[str] = field(default_factory=list)
    parameters: int = 0


def list_layers(model: ClassNet) -> list[Layer]:
    """The input and each layer, with the shape it puts out and its number of parameters."""
    side, channels = model.arguments["size"], model.arguments["channels"]
    maps = torch.zeros(1, channels, side, side, device=next(model.parameters()).device)
    layers = [Layer(None, "input", "image", "", tuple(maps.shape[1:]), 0)]
    with torch.inference_mode():
        for part in (model.features, model.classifier):
            for i, layer in enumerate(part):
                maps = layer(maps)
                kind = type(layer).__name__
                parameters = sum(parameter.numel() for parameter in layer.parameters())
                number, shape = i if part is model.features else None, tuple(maps.shape[1:])
                layers.append(Layer(number, kind, describe_kind(layer), describe_settings(layer), shape, parameters))
    return layers


def describe_kind(layer: nn.Module) -> str:
    """What it is, in words."""
    if isinstance(layer, nn.Conv2d):
        return "{} x {} convolution".format(*layer.kernel_size)
    return WORDS.get(type(layer), type(layer).__name__)


def describe_settings(layer: nn.Module) -> str:
    """What it was made with, in words."""
    if isinstance(layer, nn.Conv2d):
        rim = f", padding {layer.padding[0]}" if layer.padding[0] else ""
        return f"{layer.in_channels} to {layer.out_channels} channels{rim}"
    if isinstance(layer, nn.Linear):
        return f"{layer.in_features} to {layer.out_features}"
    if isinstance(layer, nn.Dropout):
        return f"{layer.p:g}"
    if isinstance(layer, nn.MaxPool2d):
        return f"{layer.kernel_size} x {layer.kernel_size}"
    return ""


def draw_diagram(layers: list[Layer]) -> Figure:
    """A block for the input and each layer with weights or a pool; sides grow as the maps, depth as the channels."""
    blocks: list[Block] = []
    for layer in layers:
        if layer.begins_block:
            blocks.append(Block(layer.shape))
        blocks[-1].words.append(layer.words)
        blocks[-1].parameters += layer.parameters
    figure = new_figure(1.25 * len(blocks), 2.7)
    axis = figure.subplots()
    largest = layers[0].shape[-1]
    for x, block in enumerate(blocks):
        channels, *sides = block.shape
        if sides:
            width, height, sheets = 0.6 * sides[1] / largest, 0.6 * sides[0] / largest, min(8, 1 + channels // 8)
        else:
            width, height, sheets = 0.1, 0.12 + 0.6 * min(1.0, channels / 512), 1
        for sheet in reversed(range(sheets)):
            corner = (x - width / 2 + 0.02 * sheet, -height / 2 + 0.02 * sheet)
            colour = "#c9dbe8" if sides else "#e8d5b7"
            axis.add_patch(Rectangle(corner, width, height, facecolor=colour, edgecolor="#44525c", linewidth=0.7))
        size = " x ".join(map(str, block.shape))
        axis.text(x, 0.55, size, ha="center", va="bottom", fontsize=9, weight="bold")
        parameters = [f"{block.parameters:,} parameters"] if block.parameters else []
        axis.text(x, -0.45, "\n".join(block.words + parameters), ha="center", va="top", fontsize=8)
    axis.set_title(f"{sum(layer.parameters for layer in layers):,} parameters in all", fontsize=10)
    axis.set(xlim=(-0.55, len(blocks) - 0.45), ylim=(-1.2, 0.7), aspect="equal")
    axis.axis("off")
    return figure
