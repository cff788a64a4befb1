"""The picture that excites a cluster, a channel or a unit most: gradient ascent on the input (Erhan et al. 2009).

Two styles. *Plain*: the pixels themselves, from grey, along the normalised gradient, kept within what a photograph can
show. *Readable* (Olah et al. 2017): the picture is a sum of waves whose amplitudes fall as 1 / frequency, squeezed into
0..1 by a sigmoid, and shifted, turned and scaled a little before each look, so that what excites must do so wherever it
lies.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import runs
from console import UserError, progress
from datasets.folder import refuse_inside
from explain.attribution.registry import PHOTOGRAPH, Asked
from explain.attribution.targets import find_layer, frozen
from explain.choice import Choice
from explain.record import MAXIMUM, is_there
from explain.rendering import contact_sheet, encode, encode_sheet, read_picture
from explain.results import check_results, claim_results, default_results, read_results, refresh_pages
from explain.subject import Subject, epochs_to_explain, find_pictures, trainer_of
from machine.device import full_precision, use_device
from machine.files import locked, write_atomic, write_csv
from machine.reading import Damaged, read_csv, whole_number
from machine.seeds import derive_seed

BATCH = {"cpu": 8, "cuda": 64}  # pictures that climb together
LOOKED_AT = 128  # images in a batch of the pass over all
BESIDE = 9  # images that excite most, beside the maximum on the sheet
CHANNELS = 16  # of a layer, if none are named
TURN, STRETCH = 5.0, 0.05  # degrees, and share, that a readable picture is turned and scaled by, either way
NOISE = 0.01  # of the start
SHEET, TABLE = "activation_maxima.jpg", "activation_maxima.csv"

Score = Callable[[Tensor], Tensor]  # (B, ...) inputs -> (B,)


@dataclass(frozen=True)
class Ascent:
    """How to climb. `STYLES` are the two that have names."""

    style: str  # "readable": waves; "plain": pixels
    steps: int
    rate: float  # length of a step, root mean square over the pixels (of a readable picture before the sigmoid)
    jitter: float = 0.0  # largest shift, as a fraction of the side; above 0 the picture is also turned and scaled
    blur: float = 0.0  # sigma in pixels of a Gaussian over the pixels after each step
    decay: float = 0.0  # share by which each step fades towards grey

    def __str__(self) -> str:
        return (
            f"{self.style} steps={self.steps} rate={self.rate:g} jitter={self.jitter:g} blur={self.blur:g} "
            f"decay={self.decay:g}"
        )


STYLES = {
    "readable": Ascent("readable", 128, 0.2, jitter=0.05, decay=0.03),
    "plain": Ascent("plain", 64, 0.02),
}


def ascend(score: Score, start: Tensor, steps: int, rate: float, normalise: bool = False) -> Tensor:
    """Gradient ascent, x <- x + rate * d score / d x.

    Args:
        score: (B, ...) -> (B,).
        start: (B, ...); not changed.
        steps: how many.
        rate: of a step.
        normalise: divide each x's gradient by its root mean square; a gradient of 0 stays 0.

    Returns:
        (B, ...).
    """
    found = start.detach().clone()
    for _ in range(steps):
        found = found + rate * _gradient(score, found, normalise)
    return found


def _gradient(score: Score, at: Tensor, normalise: bool) -> Tensor:
    at = at.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(score(at).sum(), at)
    return _of_length_one(gradient) if normalise else gradient


def _of_length_one(step: Tensor) -> Tensor:
    """(B, ...) each divided by its root mean square; 0 stays 0."""
    size = step.flatten(1).square().mean(1).sqrt().clamp_min(1e-20)
    return step / size.view(-1, *[1] * (step.dim() - 1))


def maximise(
    score: Score,
    shape: tuple[int, int, int],
    ascent: Ascent,
    seeds: Sequence[int],
    device: torch.device,
    what: str = "",
) -> Tensor:
    """Pictures that excite most.

    Each has its own chance: it does not depend on which others climb with it, but for rounding.

    Args:
        score: of pictures (B, C, H, W) in 0..1 -> (B,).
        shape: (C, H, W).
        ascent: how.
        seeds: one a picture.
        device: where to compute.
        what: for the progress bar.

    Returns:
        (len(seeds), C, H, W) in 0..1, float32, rounded to 255ths as a file holds them.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    waves = ascent.style == "readable"
    picture_of = torch.sigmoid if waves else _around_grey
    # The same noise in each channel: a network that sees no colour leaves the picture grey.
    noise = [torch.randn(1, *shape[1:], generator=generator).expand(shape) for generator in generators]
    at = (torch.stack(noise) * NOISE).to(device)

    def shaken(values: Tensor) -> Tensor:
        pictures = picture_of(values)
        return score(pictures if ascent.jitter == 0 else shake(pictures, ascent.jitter, generators))

    with torch.enable_grad(), full_precision():
        for _ in progress(range(ascent.steps), what, unit="steps"):
            step = _gradient(shaken, at, normalise=not waves)
            step = _of_length_one(by_frequency(step)) if waves else step
            at = (at + ascent.rate * step) * (1 - ascent.decay)
            at = blur(at, ascent.blur) if ascent.blur else at
            at = at if waves else at.clamp(-0.5, 0.5)
    return (picture_of(at) * 255).round() / 255


def _around_grey(values: Tensor) -> Tensor:
    return values + 0.5


def by_frequency(gradient: Tensor) -> Tensor:
    """(B, C, H, W), each wave of it divided by the square of its frequency.

    It is the step of a picture whose parameters are the amplitudes of waves, each divided by its frequency as
    photographs have it: the gradient goes through that division twice, to the parameters and back.
    """
    height, width = gradient.shape[2:]
    down, across = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    square = (down[:, None].square() + across.square()).clamp_min(1 / max(height, width) ** 2).to(gradient.device)
    return torch.fft.irfft2(torch.fft.rfft2(gradient) / square, (height, width))


def shake(pictures: Tensor, jitter: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Each picture shifted by up to `jitter` of its side, turned and scaled by TURN and STRETCH; edges reflected."""
    drawn = torch.stack([torch.rand(4, generator=generator) * 2 - 1 for generator in generators])  # -1 .. 1
    angle, zoom = torch.deg2rad(drawn[:, 0] * TURN), 1 + drawn[:, 1] * STRETCH
    across, down = drawn[:, 2] * 2 * jitter, drawn[:, 3] * 2 * jitter  # a side is 2 long in a grid's coordinates
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    turn = torch.stack([torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)], 1)
    grid = functional.affine_grid(turn, list(pictures.shape), align_corners=False).to(pictures.device)
    return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def blur(values: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W) under a Gaussian of `sigma` pixels."""
    from torchvision.transforms.functional import gaussian_blur

    reach = max(1, min(round(3 * sigma), min(values.shape[2:]) - 1))
    return gaussian_blur(values, [2 * reach + 1] * 2, [sigma] * 2)


@contextmanager
def before_relu(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer puts out while a forward runs; of a ReLU what it gets, also if it works in place."""
    seen: list[Tensor] = []
    if isinstance(layer, nn.ReLU):
        handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    else:
        handle = layer.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    try:
        yield seen
    finally:
        handle.remove()


def unit_values(model: nn.Module, layer: nn.Module, inputs: Tensor) -> Tensor:
    """What the channels or units of a layer say of inputs, before its ReLU: (B, channels), the mean over positions."""
    with before_relu(layer) as seen:
        model(inputs)
    if not seen:
        raise UserError(
            "maximise: this layer does not take part when the network looks at an image: name another --layer"
        )
    values = seen[0]
    return values if values.dim() == 2 else values.flatten(2).mean(2)


@dataclass(frozen=True)
class Goal:
    """What is to be excited: some of the columns of `values`."""

    word: str  # "cluster", "channel", ...
    numbers: list[int]
    values: Callable[[Tensor], Tensor]  # what the network sees (B, C, H, W) -> (B, all)
    columns: list[int]  # of `numbers`
    folder: Path
    of_classes: bool  # whether the highest column is the network's answer

    def path(self, number: int) -> Path:
        """Of its picture."""
        return self.folder / str(number) / MAXIMUM if self.of_classes else self.folder / f"{number}.png"


def maximise_command(options: argparse.Namespace) -> None:
    """`python -m explain maximise`."""
    run = runs.open_run(options.run)
    trainer_of(run)
    epochs = epochs_to_explain(run, options.epoch)
    if options.assignments is not None and len(epochs) > 1:
        raise UserError("--assignments belongs to one epoch: name it with --epoch")
    if options.channels is not None and options.layer is None:
        raise UserError("--channels: of which layer? Name it with --layer")
    given = {name: getattr(options, name) for name in ("steps", "rate", "jitter", "blur", "decay")}
    ascent = replace(STYLES[options.style], **{name: value for name, value in given.items() if value is not None})
    device = use_device(options.device, run.meta.stamp.threads)
    results: Path = options.results or default_results(run.path)
    check_results(results, run)
    refuse_inside(results, options.data or run.meta.dataset.source, "--results")
    pictures = find_pictures(run, options.data, options.workers, options.mnist_dir, device)
    for epoch in epochs:
        subject = Subject(run, epoch, pictures, options.assignments, device)
        goal = goal_of(subject, results / str(epoch), options.clusters, options.layer, options.channels)
        _claim(results, subject)
        with locked(results, "another explain is writing here: wait for it or choose --results"):
            goal.folder.mkdir(parents=True, exist_ok=True)
            report(goal, climb(subject, goal, ascent))
            if goal.of_classes:
                refresh_pages(subject, results)


def goal_of(
    subject: Subject,
    folder: Path,
    clusters: Sequence[int] | None = None,
    layer: int | str | None = None,
    channels: Sequence[int] | None = None,
) -> Goal:
    """The clusters' logits, or the channels of a layer.

    Raises:
        UserError: if the network has no such cluster, layer or channel.
    """
    if layer is None:
        known = subject.clusters.numbers
        wrong = [number for number in clusters or () if number not in known]
        if wrong:
            raise UserError(f"--clusters {wrong[0]}: this epoch has clusters {known[0]} to {known[-1]}")
        numbers = sorted(set(clusters)) if clusters is not None else list(known)
        columns = [int(subject.clusters.column_of(number)) for number in numbers]
        return Goal(subject.group, numbers, subject.model, columns, folder, True)
    net = subject.model.model
    module = find_layer(net, layer)
    with torch.inference_mode():
        count = unit_values(net, module, subject.images(subject.pictures.present[:1])).shape[1]
    wrong = [number for number in channels or () if number >= count]
    if wrong:
        raise UserError(f"--channels {wrong[0]}: layer {layer} has channels 0 to {count - 1}")
    numbers = sorted(set(channels)) if channels is not None else list(range(min(CHANNELS, count)))
    name = next(name for name, one in net.named_modules() if one is module and name)
    home = folder / "channels" / name
    return Goal("channel", numbers, lambda images: unit_values(net, module, images), numbers, home, False)


def _claim(results: Path, subject: Subject) -> None:
    """Take the results folder, or refuse one whose clusters are others; target and format do not matter here."""
    kept = read_results(results)
    choice = Choice((Asked(PHOTOGRAPH),))
    if kept is not None:
        choice = replace(choice, target=kept.target, format=kept.format, colours=kept.colours)
    claim_results(results, subject.run, choice, subject.clusters.digest)


def climb(subject: Subject, goal: Goal, ascent: Ascent) -> list[dict[str, str]]:
    """Make the pictures that are missing, and the table and the sheet of all.

    A picture is written before its row. What has a row with these settings, and its picture, is not made again.

    Returns:
        The table's rows for `goal.numbers`.
    """
    table = goal.folder / TABLE
    rows = read_rows(table, goal.word)
    missing = [
        (number, column)
        for number, column in zip(goal.numbers, goal.columns, strict=True)
        if number not in rows or rows[number].get("settings") != str(ascent) or not is_there(goal.path(number))
    ]
    if not missing and is_there(goal.folder / SHEET):
        return [rows[number] for number in goal.numbers]
    best = look(subject, goal)  # (M, all)
    present = subject.pictures.present
    many = BATCH.get(subject.device.type, 8)
    channels, height, width = subject.images(present[:1]).shape[1:]
    for begin in range(0, len(missing), many):
        some = missing[begin : begin + many]
        columns = torch.tensor([column for _, column in some], device=subject.device)
        seeds = [
            derive_seed(subject.seed, subject.epoch, f"maximise {goal.folder.name} {number}") for number, _ in some
        ]

        def score(pictures: Tensor, columns: Tensor = columns) -> Tensor:
            return goal.values(subject.seen(pictures)).gather(1, columns[:, None])[:, 0]

        what = f"maximising {begin + 1} to {begin + len(some)} of {len(missing)}"
        with frozen(subject.model):
            found = maximise(score, (channels, height, width), ascent, seeds, subject.device, what)
        with torch.inference_mode(), full_precision():
            values = goal.values(subject.seen(found)).cpu().double().numpy()
        for i, (number, column) in enumerate(some):
            path = goal.path(number)
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, encode(Image.fromarray(subject.coins(subject.seen(found[i : i + 1]))[0]), "png"))
            rows[number] = row_of(subject, goal, number, column, values[i], best[:, column], ascent)
        write_csv(table, [rows[number] for number in sorted(rows)])
    write_sheet(subject, goal, best)
    return [rows[number] for number in goal.numbers]


def read_rows(table: Path, word: str) -> dict[int, dict[str, str]]:
    """The rows of maxima that were made before, by number; those of a damaged table are made again."""
    try:
        rows = read_csv(table)
    except (FileNotFoundError, Damaged):
        return {}
    numbered = [(whole_number(row.get(word, "")), row) for row in rows]
    return {number: row for number, row in numbered if number is not None and "works" in row}


def look(subject: Subject, goal: Goal) -> np.ndarray:
    """What the goal's values are of all images that are there, (M, all) float64."""
    found, rows = [], subject.pictures.present
    with torch.inference_mode(), full_precision():
        for begin in progress(range(0, len(rows), LOOKED_AT), "looking", unit="batches"):
            found.append(goal.values(subject.images(rows[begin : begin + LOOKED_AT])).cpu().double())
    return torch.cat(found).numpy()


def row_of(
    subject: Subject, goal: Goal, number: int, column: int, values: np.ndarray, of_images: np.ndarray, ascent: Ascent
) -> dict[str, str]:
    """The table's row of a maximum: whether the network takes it for its own, and more so than any image.

    Args:
        subject: whose network.
        goal: what was to be excited.
        number: which of it.
        column: its column.
        values: (all,) of the maximum.
        of_images: (M,) of this column.
        ascent: how it was made.
    """
    highest = int(of_images.argmax())
    works = values[column] > of_images[highest]
    row: dict[str, str] = {goal.word: str(number), "value": f"{values[column]:.6g}"}
    if goal.of_classes:
        predicted = subject.clusters.numbers[int(values.argmax())]
        row["predicted"] = str(predicted)
        works = works and predicted == number
    row |= {
        "highest_of_images": f"{of_images[highest]:.6g}",
        "image": subject.run.ids[int(subject.pictures.present[highest])],
        "works": "yes" if works else "no",
        "settings": str(ascent),
    }
    return row


def write_sheet(subject: Subject, goal: Goal, best: np.ndarray) -> None:
    """Of each maximum that is there a line: the maximum, then the images that excite most."""
    present, cells, columns = subject.pictures.present, [], min(BESIDE, len(best))
    for number, column in zip(goal.numbers, goal.columns, strict=True):
        cells.append(np.asarray(read_picture(goal.path(number))))
        rows = present[np.argsort(-best[:, column], kind="stable")[:columns]]
        cells += list(subject.drawn_on(rows))
    labels = [f"{goal.word} {number}" for number in goal.numbers]
    write_atomic(goal.folder / SHEET, encode_sheet(contact_sheet(cells, columns + 1, labels=labels)), durable=False)


def report(goal: Goal, rows: Sequence[dict[str, str]]) -> None:
    """Where the pictures are, and which of them do not work."""
    failed = [row[goal.word] for row in rows if row["works"] != "yes"]
    print(f"{len(rows)} maxima ({goal.word}): {goal.folder / SHEET} shows them, {goal.folder / TABLE} has their values")
    if failed:
        print(f"  {len(failed)} excite less than some image of the run, or are taken for another: {', '.join(failed)}")
