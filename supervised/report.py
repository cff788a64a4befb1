"""Every picture of the course for one run: figures/ and report.html in the run directory."""

import argparse
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import nn

from console import UserError
from datasets.mnist import load_mnist
from machine import prepare
from runs import Run
from runs.directory import atomic
from supervised.judge import comparison, finished_run, in_words
from supervised.models import CLASSES, DigitNet
from supervised.predict import trained_model
from supervised.train import Split, as_split, logits_of

TEMPLATES = Path(__file__).parent / "templates"
WORST = 60  # misclassified digits shown
EMBEDDED = 2000  # test images in the embeddings: t-SNE of all takes minutes


def report_command(options: argparse.Namespace) -> None:
    """`python -m supervised report`."""
    run, device = finished_run(options.run), prepare(options.device)
    epoch = run.checkpoints()[-1]
    model = trained_model(run, epoch).to(device)
    test = as_split(*load_mnist("test", options.mnist_dir), device)
    logits = logits_of(model, test.images).cpu()
    convolutions = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.Conv2d)]
    drawn = convolutions[:1] + convolutions[-1:] if options.layer is None else [options.layer]
    check(options, model, convolutions)

    pictures: list[tuple[str, str]] = []  # file, caption

    def add(name: str, figure: Figure, caption: str) -> None:
        run.write_figure(name, lambda file: _save(figure, file))
        pictures.append((name, caption))

    add("curves.png", curves(run), "Loss and accuracy; the dashed line is the epoch with the best validation loss, whose weights are kept.")  # fmt: skip
    add("confusion.png", confusion(logits, test), "Test digits: rows are true, columns predicted.")
    wrong = int((logits.argmax(1) != test.digits.cpu()).sum())
    if wrong:
        shown = f"All {wrong}" if wrong <= WORST else f"The surest {WORST} of {wrong}"
        add("misclassified.png", misclassified(logits, test), f"{shown} misclassified digits: number, true digit and prediction, probability of the prediction minus that of the truth, which falls.")  # fmt: skip
    for layer in dict.fromkeys(drawn):
        add(f"filters-{layer}.png", filters(model, layer), f"Filters of layer {layer} (blue negative, red positive).")
        add(f"activations-{layer}.png", activations(model, test, options.image, layer), f"What the channels of layer {layer} make of test image {options.image}; all of them.")  # fmt: skip
    add("embeddings.png", embeddings(model, test, run.meta["seed"]), f"{EMBEDDED} test digits: the first dense layer and the raw pixels, each in PCA and t-SNE; last the pixels' k-means clusters.")  # fmt: skip
    layers = layers_of(model)
    add("network.png", diagram(layers), "The network: each block is what a layer with weights or a pool puts out, channels x height x width; below it all its layers and their parameters.")  # fmt: skip
    siblings, damaged = readable(sorted(run.path.resolve().parent.glob("*/result.json")))
    html = page(run, layers, pictures, comparison(siblings), len(test) - wrong)
    atomic(run.path / "report.html", lambda file: file.write(html.encode()))
    print(f"Open {run.path / 'report.html'}; the pictures are in {run.path / 'figures'}.")
    for sentence in damaged:
        print(f"Left out of the table: {sentence}")


def readable(results: list[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs that these result.json belong to, and a sentence for each that cannot be read."""
    found, damaged = [], []
    for path in results:
        try:
            found.append(finished_run(path.parent))
        except UserError as error:
            damaged.append(str(error))
    return found, damaged


def check(options: argparse.Namespace, model: DigitNet, convolutions: list[int]) -> None:
    if options.layer is not None and options.layer not in convolutions:
        raise UserError(
            f"--layer {options.layer}: the convolutions are layers {', '.join(map(str, convolutions)) or 'none'}"
        )
    if options.image >= 10000:
        raise UserError(f"--image {options.image}: the test images are 0 to 9999")


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, file: io.BytesIO) -> None:
    figure.savefig(file, format="png", dpi=110)


def curves(run: Run) -> Figure:
    log, best = run.log(), run.json("result.json")["best_epoch"]
    epochs = [int(row["epoch"]) for row in log]
    figure = _figure(11, 4)
    for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axis.plot(
            epochs, [float(row[name]) for row in log], marker=".", label="training (with dropout and augmentation)"
        )
        axis.plot(epochs, [float(row[f"validation_{name}"]) for row in log], marker=".", label="validation")
        axis.axvline(best, color="black", linestyle="--", linewidth=0.8)
        reached = float(log[best - 1][f"validation_{name}"])
        axis.plot([best], [reached], "ko", fillstyle="none", markersize=9, label=f"kept: epoch {best}, {reached:.4f}")
        axis.set(title=name.capitalize(), xlabel="epoch", ylabel="cross-entropy" if name == "loss" else "share right")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def confusion(logits: torch.Tensor, test: Split) -> Figure:
    table = np.zeros((CLASSES, CLASSES), int)
    np.add.at(table, (test.digits.cpu().numpy(), logits.argmax(1).numpy()), 1)
    figure = _figure(6.5, 6)
    axis = figure.subplots()
    errors = table.copy()
    np.fill_diagonal(errors, 0)
    axis.imshow(errors, cmap="Reds", vmin=0, vmax=max(1, errors.max()))
    for row, column in np.ndindex(table.shape):
        shade = "white" if row != column and errors[row, column] > 0.6 * errors.max() else "black"
        weight = "bold" if row == column else "normal"
        axis.text(
            column, row, str(table[row, column] or ""), ha="center", va="center", color=shade, fontsize=9, weight=weight
        )
    axis.set(title="Confusion matrix (shaded: mistakes)", xlabel="predicted digit", ylabel="true digit")
    axis.set_xticks(range(CLASSES))
    axis.set_yticks(range(CLASSES))
    return figure


def misclassified(logits: torch.Tensor, test: Split) -> Figure:
    digits = test.digits.cpu()
    probability = logits.double().softmax(1)
    said = logits.argmax(1)
    rows = torch.arange(len(digits))
    gap = probability[rows, said] - probability[rows, digits]
    wrong = torch.nonzero(said != digits).flatten()
    worst = wrong[gap[wrong].argsort(descending=True)][:WORST].tolist()
    across = min(10, len(worst))
    down = -(-len(worst) // across)
    figure = _figure(1.25 * across + 0.5, 1.65 * down + 0.5)
    for axis, i in zip(np.ravel(figure.subplots(down, across, squeeze=False)), [*worst, *[None] * (down * across - len(worst))], strict=True):  # fmt: skip
        axis.axis("off")
        if i is not None:
            axis.imshow(test.images[i, 0].cpu(), cmap="gray_r")
            axis.set_title(f"no. {i}\n{digits[i]} taken for {said[i]}\n{gap[i]:+.2f}", fontsize=8)
    figure.suptitle("Misclassified digits, the surest mistakes first", fontsize=11)
    return figure


def filters(model: DigitNet, layer: int) -> Figure:
    """All filters of a convolution; of one with many input channels, the mean over them."""
    convolution = model.features[layer]
    assert isinstance(convolution, nn.Conv2d)
    weight = convolution.weight.detach().cpu()  # (out, in, h, w)
    top = float(weight.mean(1).abs().max())
    title = f"Layer {layer}: {weight.shape[0]} filters of {weight.shape[2]} x {weight.shape[3]}"
    title += "" if weight.shape[1] == 1 else f", mean over {weight.shape[1]} input channels"
    return _grid(weight.mean(1).numpy(), title, {"cmap": "RdBu_r", "vmin": -top, "vmax": top})


def activations(model: DigitNet, test: Split, image: int, layer: int) -> Figure:
    """After the convolution's ReLU, all channels, one scale."""
    with torch.inference_mode():
        maps = model.features[: layer + 2](test.images[image : image + 1])[0].cpu().numpy()
    title = f"Layer {layer} after ReLU: all {len(maps)} channels, test image {image} (a {int(test.digits[image])})"
    return _grid(maps, title, {"cmap": "viridis", "vmin": 0, "vmax": float(maps.max()) or 1})


def _grid(maps: np.ndarray, title: str, style: dict[str, Any]) -> Figure:
    across = 8
    down = -(-len(maps) // across)
    figure = _figure(across * 1.05, down * 1.12 + 0.5)
    axes = np.ravel(figure.subplots(down, across, squeeze=False))
    for axis in axes:
        axis.axis("off")
    for i, one in enumerate(maps):
        drawn = axes[i].imshow(one, **style)
        axes[i].set_title(str(i), fontsize=7, pad=2)
    figure.suptitle(title, fontsize=10)
    figure.colorbar(drawn, ax=list(axes), shrink=0.6)
    return figure


def embeddings(model: DigitNet, test: Split, seed: int) -> Figure:
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = np.sort(np.random.default_rng(seed).permutation(len(test))[:EMBEDDED])
    images, digits = test.images[rows], test.digits[rows].cpu().numpy()
    with torch.inference_mode():
        dense = model.embed(images).cpu().numpy()
    pixels = images.flatten(1).cpu().numpy()
    groups = KMeans(CLASSES, n_init=4, random_state=seed).fit_predict(pixels)
    figure = _figure(13, 8)
    axes = np.ravel(figure.subplots(2, 3))
    places = {name: (PCA(2, random_state=seed).fit_transform(x), TSNE(2, init="pca", random_state=seed).fit_transform(x)) for name, x in (("first dense layer", dense), ("raw pixels", pixels))}  # fmt: skip
    shown = [
        ("first dense layer, PCA", places["first dense layer"][0], digits),
        ("raw pixels, PCA", places["raw pixels"][0], digits),
        ("raw pixels, PCA, k-means clusters", places["raw pixels"][0], groups),
        ("first dense layer, t-SNE", places["first dense layer"][1], digits),
        ("raw pixels, t-SNE", places["raw pixels"][1], digits),
        ("raw pixels, t-SNE, k-means clusters", places["raw pixels"][1], groups),
    ]
    for axis, (title, place, colour) in zip(axes, shown, strict=True):
        points = axis.scatter(*place.T, c=colour, cmap="tab10", s=5, vmin=-0.5, vmax=9.5)
        axis.set(title=title, xticks=[], yticks=[])
    figure.colorbar(points, ax=list(axes), ticks=range(CLASSES), label="digit, or number of the cluster", shrink=0.7)
    return figure


def layers_of(model: DigitNet) -> list[dict[str, Any]]:
    """Each layer with the shape it puts out and its number of parameters."""
    shape = torch.zeros(1, 1, 28, 28, device=next(model.parameters()).device)
    rows: list[dict[str, Any]] = [{"layer": "input", "words": "image", "shape": "1 x 28 x 28", "parameters": 0}]
    with torch.inference_mode():
        for part in (model.features, model.classifier):
            for i, layer in enumerate(part):
                shape = layer(shape)
                name = f"{i if part is model.features else ''} {str(layer).split('(')[0]}".strip()
                detail = str(layer)[str(layer).index("(") :] if isinstance(layer, nn.Conv2d | nn.Linear | nn.Dropout | nn.MaxPool2d) else ""  # fmt: skip
                count = sum(parameter.numel() for parameter in layer.parameters())
                size = " x ".join(map(str, shape.shape[1:]))
                rows.append(
                    {"layer": name, "words": _words(layer), "detail": detail, "shape": size, "parameters": count}
                )
    return rows


def _words(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        return "{} x {} convolution".format(*layer.kernel_size)
    words = {"MaxPool2d": "max-pool", "BatchNorm2d": "batch norm", "BatchNorm1d": "batch norm", "Linear": "dense"}
    kind = type(layer).__name__
    return words.get(kind, kind if kind == "ReLU" else kind.lower())


def diagram(layers: list[dict[str, Any]]) -> Figure:
    """A block for the input and each layer with weights or a pool; sides grow with the maps, depth with the channels."""
    blocks: list[dict[str, Any]] = []
    for layer in layers:
        if layer["layer"].split()[-1] in ("input", "Conv2d", "MaxPool2d", "Linear"):
            blocks.append({"shape": [int(n) for n in layer["shape"].split(" x ")], "names": [], "parameters": 0})
        blocks[-1]["names"].append(layer["words"])
        blocks[-1]["parameters"] += layer["parameters"]
    figure = _figure(1.25 * len(blocks), 2.7)
    axis = figure.subplots()
    for x, block in enumerate(blocks):
        channels, *sides = block["shape"]
        if sides:
            width, height, sheets = 0.6 * sides[1] / 28, 0.6 * sides[0] / 28, min(8, 1 + channels // 8)
        else:
            width, height, sheets = 0.1, 0.12 + 0.6 * min(1.0, channels / 512), 1
        for sheet in reversed(range(sheets)):
            corner = (x - width / 2 + 0.02 * sheet, -height / 2 + 0.02 * sheet)
            colour = "#c9dbe8" if sides else "#e8d5b7"
            axis.add_patch(Rectangle(corner, width, height, facecolor=colour, edgecolor="#44525c", linewidth=0.7))
        size = " x ".join(map(str, block["shape"]))
        axis.text(x, 0.55, size, ha="center", va="bottom", fontsize=9, weight="bold")
        parameters = [f"{block['parameters']:,} parameters"] if block["parameters"] else []
        axis.text(x, -0.45, "\n".join(block["names"] + parameters), ha="center", va="top", fontsize=8)
    total = sum(layer["parameters"] for layer in layers)
    axis.set_title(f"{total:,} parameters in all", fontsize=10)
    axis.set(xlim=(-0.55, len(blocks) - 0.45), ylim=(-1.2, 0.7), aspect="equal")
    axis.axis("off")
    return figure


def page(run: Run, layers: list[dict[str, Any]], pictures: list[tuple[str, str]], table: list[str], right: int) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return environment.get_template("report.html").render(
        name=run.path.resolve().name,
        config=run.meta["config"],
        device=run.meta["device"],
        result=run.json("result.json"),
        words=in_words(right, len(run.ids)),
        pictures=pictures,
        layers=layers,
        total=sum(layer["parameters"] for layer in layers),
        head=cells[0],
        rows=cells[2:],
    )
