"""Curves, confusion, mistakes, filters, activations and embeddings of one run."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from runs import Run
from runs.figures import new_figure
from supervised.data import Split
from supervised.models import ClassNet

WORST = 60  # misclassified images shown
EMBEDDED = 2000  # test images in the embeddings: t-SNE of all takes minutes
PERPLEXITY = 30  # t-SNE's, where there are images enough
ACROSS = 8  # maps in a row


def draw_curves(run: Run, training: str) -> Figure:
    """Loss and accuracy over the epochs; `training` is the legend of the training images' curve."""
    log = pandas.DataFrame(run.log()).apply(pandas.to_numeric).set_index("epoch")
    best = run.read_json("result.json")["best_epoch"]
    figure = new_figure(11, 4)
    for axis, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axis.plot(log.index, log[name], marker=".", label=training)
        axis.plot(log.index, log[f"validation_{name}"], marker=".", label="validation")
        axis.axvline(best, color="black", linestyle="--", linewidth=0.8)
        reached = log.loc[best, f"validation_{name}"]
        axis.plot([best], [reached], "ko", fillstyle="none", markersize=9, label=f"kept: epoch {best}, {reached:.4f}")
        axis.set(title=name.capitalize(), xlabel="epoch", ylabel="cross-entropy" if name == "loss" else "share right")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def draw_confusion(logits: Tensor, test: Split, classes: Sequence[str], word: str) -> Figure:
    """How many images of each class (rows) are taken for which (columns); mistakes are shaded."""
    table = confusion_matrix(test.targets.cpu(), logits.argmax(1), labels=np.arange(len(classes)))
    errors = table.copy()
    np.fill_diagonal(errors, 0)
    figure = new_figure(max(4.0, 0.5 * len(classes) + 1.5), max(3.5, 0.5 * len(classes) + 1.0))
    axis = figure.subplots()
    axis.imshow(errors, cmap="Reds", vmin=0, vmax=max(1, errors.max()))
    for row, column in np.ndindex(table.shape):
        shade = "white" if row != column and errors[row, column] > 0.6 * errors.max() else "black"
        weight = "bold" if row == column else "normal"
        axis.text(
            column, row, str(table[row, column] or ""), ha="center", va="center", color=shade, fontsize=9, weight=weight
        )
    axis.set(title="Confusion matrix (shaded: mistakes)", xlabel=f"predicted {word}", ylabel=f"true {word}")
    turned = 0 if max(map(len, classes)) < 3 else 60
    axis.set_xticks(range(len(classes)), classes, rotation=turned)
    axis.set_yticks(range(len(classes)), classes)
    return figure


def draw_misclassified(logits: Tensor, test: Split, classes: Sequence[str]) -> Figure:
    """The surest mistakes: probability of the prediction minus that of the truth falls."""
    targets = test.targets.cpu()
    probability = logits.double().softmax(1)
    predicted = logits.argmax(1)
    rows = torch.arange(len(targets))
    gap = probability[rows, predicted] - probability[rows, targets]
    wrong = torch.nonzero(predicted != targets).flatten()
    worst = wrong[gap[wrong].argsort(descending=True)][:WORST].tolist()
    across = min(10, len(worst))
    down = -(-len(worst) // across)
    figure = new_figure(1.25 * across + 0.5, 1.65 * down + 0.5)
    axes = np.ravel(figure.subplots(down, across, squeeze=False))
    for axis in axes:
        axis.axis("off")
    for axis, i in zip(axes, worst, strict=False):
        axis.imshow(test.images[i, 0].cpu().numpy(), cmap="gray_r", vmin=0, vmax=1)
        mistake = f"{classes[int(targets[i])]} taken for {classes[int(predicted[i])]}"
        axis.set_title(f"no. {i}\n{mistake}\n{gap[i]:+.2f}", fontsize=8)
    figure.suptitle("Misclassified images, the surest mistakes first", fontsize=11)
    return figure


def draw_filters(model: ClassNet, layer: int) -> Figure:
    """All filters of a convolution; of one with many input channels, the mean over them."""
    convolution = model.features[layer]
    assert isinstance(convolution, nn.Conv2d)
    weight = convolution.weight.detach().cpu()  # (out, in, h, w)
    top = float(weight.mean(1).abs().max())
    title = f"Layer {layer}: {weight.shape[0]} filters of {weight.shape[2]} x {weight.shape[3]}"
    title += "" if weight.shape[1] == 1 else f", mean over {weight.shape[1]} input channels"
    return _draw_maps(weight.mean(1).numpy(), title, {"cmap": "RdBu_r", "vmin": -top, "vmax": top})


def draw_activations(model: ClassNet, test: Split, image: int, layer: int) -> Figure:
    """After the convolution's ReLU, all channels, one scale."""
    with torch.inference_mode():
        maps = model.features[: layer + 2](test.images[image : image + 1])[0].cpu().numpy()
    name = model.classes[int(test.targets[image])]
    title = f"Layer {layer} after ReLU: all {len(maps)} channels, test image {image} ({name})"
    return _draw_maps(maps, title, {"cmap": "viridis", "vmin": 0, "vmax": float(maps.max()) or 1})


def _draw_maps(maps: np.ndarray, title: str, style: dict[str, Any]) -> Figure:
    down = -(-len(maps) // ACROSS)
    figure = new_figure(ACROSS * 1.05, down * 1.12 + 0.5)
    axes = np.ravel(figure.subplots(down, ACROSS, squeeze=False))
    for axis in axes:
        axis.axis("off")
    for i, one in enumerate(maps):
        drawn = axes[i].imshow(one, **style)
        axes[i].set_title(str(i), fontsize=7, pad=2)
    figure.suptitle(title, fontsize=10)
    figure.colorbar(drawn, ax=list(axes), shrink=0.6)
    return figure


def draw_embeddings(model: ClassNet, test: Split, classes: Sequence[str], word: str, seed: int) -> Figure:
    """The first dense layer and the raw pixels in two dimensions, coloured by class; the pixels also by k-means."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(test))[:EMBEDDED])
    images, targets = test.images[rows], test.targets[rows].cpu().numpy()
    with torch.inference_mode():
        dense = model.embed(images).cpu().numpy()
    pixels = images.flatten(1).cpu().numpy()
    seed %= 2**32  # all that scikit-learn takes
    found = KMeans(min(len(classes), len(rows)), n_init=4, random_state=seed).fit_predict(pixels)
    matched = match_majority(found, targets)
    colours = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5}
    if len(classes) > 10:
        colours = {"cmap": "turbo", "vmin": -0.5, "vmax": len(classes) - 0.5}
    figure = new_figure(13, 8)
    axes = figure.subplots(2, 3)
    for row, method in enumerate((embed_pca, embed_tsne)):
        title, places = ("PCA", "t-SNE")[row], method(pixels, seed)
        panels = (
            (f"first dense layer, {title}", method(dense, seed), targets),
            (f"raw pixels, {title}", places, targets),
            (f"raw pixels, {title}, k-means clusters", places, matched),
        )
        for axis, (name, place, colour) in zip(axes[row], panels, strict=True):
            points = axis.scatter(*place.T, c=colour, s=5, **colours)
            axis.set(title=name, xticks=[], yticks=[])
    label = f"{word}, or the commonest {word} of the cluster"
    bar = figure.colorbar(points, ax=list(np.ravel(axes)), ticks=range(len(classes)), label=label, shrink=0.7)
    bar.ax.set_yticklabels(classes)
    bar.ax.set_ylim(-0.5, len(classes) - 0.5)
    return figure


def embed_pca(x: np.ndarray, seed: int) -> np.ndarray:
    """(N, D) -> (N, 2)."""
    return PCA(2, random_state=seed).fit_transform(x)


def embed_tsne(x: np.ndarray, seed: int) -> np.ndarray:
    """(N, D) -> (N, 2)."""
    perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
    return TSNE(2, init="pca", perplexity=perplexity, random_state=seed).fit_transform(x)


def match_majority(clusters: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,) the commonest class of each image's cluster, so that clusters and classes may share colours."""
    counts = confusion_matrix(clusters, targets, labels=np.arange(1 + max(clusters.max(), targets.max())))
    return counts.argmax(1)[clusters]
