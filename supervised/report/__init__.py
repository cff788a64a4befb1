"""Every picture of the course for one run: figures/ and report.html in the run directory."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import nn

from console import UserError
from datasets import SOURCES, open_dataset
from machine.device import use_device
from machine.files import write_atomic
from runs import Run
from runs.figures import save_figure
from runs.received import choose_images
from supervised.data import Split, load_split
from supervised.evaluate import accuracy_in_words, count_right, open_finished, tabulate_results
from supervised.learners import compute_logits
from supervised.models import ClassNet
from supervised.report import figures
from supervised.report.diagram import draw_diagram, list_layers
from supervised.report.page import Picture, render_page
from supervised.trained import class_names, group, network


def report_command(options: argparse.Namespace) -> None:
    """`python -m supervised report`."""
    run, device = open_finished(options.run), use_device(options.device)
    model = network(run).to(device)
    convolutions = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.Conv2d)]
    if options.layer is not None and options.layer not in convolutions:
        raise UserError(
            f"--layer {options.layer}: the convolutions are layers {', '.join(map(str, convolutions)) or 'none'}"
        )
    source = choose_images(run, None, SOURCES)
    dataset = open_dataset(source, run.meta.view.decoded_side, None, options.workers, options.mnist_dir)
    if options.image >= len(dataset):
        raise UserError(f"--image {options.image}: the test images are 0 to {len(dataset) - 1}")
    test = load_split(dataset, class_names(run), device)
    drawn = convolutions[:1] + convolutions[-1:] if options.layer is None else [options.layer]
    pictures = draw_pictures(run, model, test, options.image, list(dict.fromkeys(drawn)))
    siblings, damaged = find_siblings(sorted(run.path.resolve().parent.glob("*/result.json")))
    right = count_right(compute_logits(model, test.images).argmax(1), test)
    html = render_page(
        run, list_layers(model), pictures, tabulate_results(siblings), accuracy_in_words(right, len(test))
    )
    write_atomic(run.path / "report.html", html.encode())
    print(f"Open {run.path / 'report.html'}; the pictures are in {run.path / 'figures'}.")
    for sentence in damaged:
        print(f"Left out of the table: {sentence}")


def draw_pictures(run: Run, model: ClassNet, test: Split, image: int, layers: Sequence[int]) -> list[Picture]:
    """Draw all of figures/: activations are those of test image `image`, filters those of the convolutions `layers`."""
    word, classes = group(run), class_names(run)
    logits = compute_logits(model, test.images).cpu()
    pictures: list[Picture] = []

    def add(name: str, figure: Figure, caption: str) -> None:
        save_figure(run, name, figure)
        pictures.append(Picture(name, caption))

    add(
        "curves.png",
        figures.draw_curves(run, describe_training(model, run)),
        "Loss and accuracy; the dashed line is the epoch whose weights are kept, chosen on validation images.",
    )
    add(
        "confusion.png",
        figures.draw_confusion(logits, test, classes, word),
        "Test images: rows are true, columns predicted.",
    )
    wrong = len(test) - count_right(logits.argmax(1), test)
    if wrong:
        shown = f"All {wrong}" if wrong <= figures.WORST else f"The surest {figures.WORST} of {wrong}"
        add(
            "misclassified.png",
            figures.draw_misclassified(logits, test, classes),
            f"{shown} misclassified images: number, true {word} and prediction, probability of the prediction minus "
            "that of the truth, which falls.",
        )
    for layer in layers:
        add(
            f"filters-{layer}.png",
            figures.draw_filters(model, layer),
            f"Filters of layer {layer} (blue negative, red positive).",
        )
        add(
            f"activations-{layer}.png",
            figures.draw_activations(model, test, image, layer),
            f"What the channels of layer {layer} make of test image {image}; all of them.",
        )
    add(
        "embeddings.png",
        figures.draw_embeddings(model, test, classes, word, run.meta.seed),
        f"{min(figures.EMBEDDED, len(test))} test images: the first dense layer and the raw pixels, each in PCA and "
        f"t-SNE; last the pixels' k-means clusters, each in the colour of its commonest {word}.",
    )
    add(
        "network.png",
        draw_diagram(list_layers(model)),
        "The network: each block is what a layer with weights or a pool puts out, channels x height x width; below it "
        "all its layers and their parameters.",
    )
    return pictures


def describe_training(model: ClassNet, run: Run) -> str:
    """The legend of a training curve: with what its figures were made harder than those of validation."""
    dropout = any(isinstance(layer, nn.Dropout) and layer.p for layer in model.modules())
    moved = any(run.meta.config.get(name) for name in ("rotate", "zoom", "shift"))
    harder = [word for word, there in (("dropout", dropout), ("augmentation", moved)) if there]
    return f"training (with {' and '.join(harder)})" if harder else "training"


def find_siblings(results: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs that these result.json belong to, and a sentence for each that cannot be read."""
    found, damaged = [], []
    for path in results:
        try:
            found.append(open_finished(path.parent))
        except UserError as error:
            damaged.append(str(error))
    return found, damaged
