"""Whether the network needs what a map points at: pixels are replaced in the order of heat, and its answer is watched.

Each image, map and baseline gives a curve of the probability of the image's own cluster; orders that know nothing, or
nothing of what was learnt (`controls`), are followed the same way. What a method is worth is what it does better than
they, image by image.
"""

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from explain.attribution.perturbation import filling
from explain.audit.controls import CONTROLS, UNIFORM, UNTRAINED, goes_around, heats, own_targets
from explain.audit.findings import (
    BETTER,
    UNKNOWN,
    Asked,
    Figure,
    Finding,
    Measured,
    Sample,
    compare_with,
    join_words,
    mean_of,
    share_of,
)
from explain.subject import Subject
from machine.device import full_precision
from machine.seeds import derive_seed

PART = "faithfulness"
FEW = 24  # images: each map of each is shown to the network some hundred times
STEPS = 16  # of a curve
IMPUTED = (0.1, 0.3, 0.5)  # shares of the pixels that ROAD takes away; more leave little to fill the gaps from
FEW_NAMED = 3  # measures that a conclusion names
NOISE = 0.01  # of ROAD's filling, as pytorch-grad-cam has it
SHOWN_FIRST = (0.01, 0.03, 0.07, 0.13, 0.25, 0.5)  # of the pixels, for SIC
SEEN_ANYWAY = 0.01  # of the pixels, from which the rest of an image that nothing is shown of is interpolated
SHOWN = {"cpu": 64, "cuda": 512}  # images in the network at a time
BASELINES = {"neutral": "nothing to see", "blur": "a blurred copy", "other": "the image of another cluster"}
DELETION, INSERTION = "deletion to {}", "insertion out of {}"
ROAD, DROP, INCREASE = "ROAD, most relevant first", "average drop", "increase of confidence"
SIC, AIC = "softmax information curve (SIC)", "accuracy information curve (AIC)"
MORE_IS_BETTER = (INCREASE, SIC, AIC)


def pieces(sample: Sample, asked: Asked) -> list[int]:
    """Rows of the images that are measured, each by itself."""
    if len(sample.subject.clusters.numbers) < 2 or not asked.methods:
        return []
    rng = np.random.default_rng(derive_seed(asked.seed, 0, PART))
    return [int(row) for row in np.sort(rng.permutation(sample.rows)[:FEW])]


def measure_piece(sample: Sample, asked: Asked, row: int) -> Measured:
    """Of one image every measure of every map and control, and its curves."""
    subject = sample.subject
    one = np.array([row])
    image, column = subject.images(one), int(own_targets(subject, one)[0])
    found = heats(subject, one, asked.methods, asked.seed)
    orders = {title: order_of(heat[0], derive_seed(asked.seed, row, "ties")) for title, heat in found.items()}
    rows, curves = [], {}
    for name, fill in fills_of(subject, sample.rows, row, image, asked.seed).items():
        for what, start, end in (
            (DELETION.format(BASELINES[name]), image, fill.expand_as(image)),
            (INSERTION.format(BASELINES[name]), fill.expand_as(image), image),
        ):
            probabilities = replacement_curves(subject.model, start, end, np.stack([*orders.values()]), column)
            curves[what] = dict(zip(orders, probabilities, strict=True))
            rows += [Finding(PART, what, title, area(curve)) for title, curve in curves[what].items()]
    alone = confidences(subject.model, image, found, column)
    whole = float(probabilities_of(subject.model, image, column)[0])
    filled = road_probabilities(
        subject.model, image, orders, column, derive_seed(asked.seed, row, "ROAD"), goes_around(subject)
    )
    shown = information_curves(subject, image, orders, column, derive_seed(asked.seed, row, "SIC"))
    for title in orders:
        measured = {
            SIC: shown[title][0],
            AIC: shown[title][1],
            ROAD: filled[title],
            DROP: max(0.0, whole - alone[title]) / max(whole, 1e-12),
            INCREASE: float(alone[title] > whole),
        }
        for what, value in measured.items():
            if title == UNIFORM and what in (DROP, INCREASE):
                continue  # it leaves the image whole
            rows.append(Finding(PART, what, title, value))
    return Measured(rows, figures_of(curves))


def join(sample: Sample, asked: Asked, found: Sequence[Measured]) -> Measured:
    """Deletion, insertion, SIC, AIC, ROAD, average drop, increase of confidence of each method, beside the controls."""
    if len(sample.subject.clusters.numbers) < 2:
        return Measured([], missing=["Faithfulness: there is one cluster alone, whose probability is always 1."])
    if not found:
        return Measured([], missing=["Faithfulness: there is no image in a cluster, or no method, to measure."])
    values: dict[str, dict[str, np.ndarray]] = {}  # measure -> map -> a value of each image
    for number, piece in enumerate(found):
        for row in piece.findings:
            of = values.setdefault(row.measure, {}).setdefault(row.of, np.full(len(found), UNKNOWN))
            of[number] = row.value
    findings = [
        compare(
            what, one.title, maps, asked.seed, more_is_better=what in MORE_IS_BETTER or what.startswith("insertion")
        )
        for one in asked.methods
        for what, maps in values.items()
        if one.title in maps
    ]
    missing = []
    if not any(BASELINES["other"] in what for what in values):
        missing.append("Faithfulness: no sampled image is of another cluster, so none could fill in for what is taken.")
    return Measured(findings, mean_figures([piece.figures for piece in found]), missing)


def measure(sample: Sample, asked: Asked) -> Measured:
    """Every piece, joined."""
    return join(sample, asked, [measure_piece(sample, asked, row) for row in pieces(sample, asked)])


def order_of(heat: np.ndarray, seed: int) -> np.ndarray:
    """(H, W) heat -> (H, W) int64, the place of each pixel in the order of heat: 0 is the hottest; ties by chance."""
    chance = np.random.default_rng(seed).random(heat.size)
    order = np.lexsort((chance, -heat.ravel().astype(np.float64)))
    place = np.empty(heat.size, np.int64)
    place[order] = np.arange(heat.size)
    return place.reshape(heat.shape)


def replacement_curves(
    model: nn.Module, start: Tensor, end: Tensor, orders: np.ndarray, column: int, steps: int = STEPS
) -> np.ndarray:
    """Probability of a cluster while an image is replaced by another one, pixel by pixel.

    From the image to a baseline this is *deletion*, from the baseline to the image *insertion* (Petsiuk, Das & Saenko
    2018, section 4.2).

    Args:
        model: from images to logits.
        start: (1, C, H, W) what there is at first.
        end: (1, C, H, W), or what broadcasts to it.
        orders: (M, H, W) `order_of` each map.
        column: of the cluster among the logits.
        steps: after each, `i / steps` of the pixels are replaced.

    Returns:
        (M, steps + 1) in 0..1.
    """
    ends = torch.cat([start, end.expand_as(start)])
    first, last = probabilities_of(model, ends, column)
    place = torch.as_tensor(orders, device=start.device)[:, None, None]  # (M, 1, 1, H, W)
    until = torch.arange(1, steps, device=start.device) * orders[0].size / steps
    replaced = (place < until[None, :, None, None, None]).flatten(0, 1)  # (M * (steps - 1), 1, H, W)
    between = probabilities_of(model, start, column, replaced, end).reshape(len(orders), steps - 1)
    side = np.ones((len(orders), 1))
    return np.concatenate([side * first, between, side * last], 1)


def probabilities_of(
    model: nn.Module, images: Tensor, column: int, replaced: Tensor | None = None, fill: Tensor | None = None
) -> np.ndarray:
    """(N,) softmax of one logit, of images (N, C, H, W); or of one image where `replaced` (N, 1, H, W) by `fill`."""
    count = len(images) if replaced is None else len(replaced)
    size, found = SHOWN[images.device.type], []
    for begin in range(0, count, size):
        if replaced is None or fill is None:
            shown = images[begin : begin + size]
        else:
            shown = torch.where(replaced[begin : begin + size], fill, images)
        found.append(logits_of(model, shown).softmax(1)[:, column].numpy())
    return np.concatenate(found).astype(np.float64)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """(N, K) float32 on the CPU."""
    with torch.inference_mode(), full_precision():
        return torch.cat([model(some).float().cpu() for some in images.split(SHOWN[images.device.type])])


def area(curve: np.ndarray) -> float:
    """Area under a curve over 0..1, by trapezoids."""
    return float((curve[1:] + curve[:-1]).mean() / 2)


def fills_of(subject: Subject, rows: np.ndarray, row: int, image: Tensor, seed: int) -> dict[str, Tensor]:
    """Key of BASELINES -> (1, C, H, W) to replace an image by; `other` is left out where there is no other cluster."""
    fills = {"neutral": filling("grey", subject.model, image), "blur": filling("blur", subject.model, image)}
    assignment = subject.clusters.assignment
    others = rows[assignment[rows] != assignment[row]]
    if len(others):
        rng = np.random.default_rng(derive_seed(seed, row, "another image"))
        fills["other"] = subject.images(rng.choice(others, 1))
    return fills


def confidences(model: nn.Module, image: Tensor, found: Mapping[str, np.ndarray], column: int) -> dict[str, float]:
    """Probability of the cluster where the image is left in proportion to the heat (1 at its maximum), by title.

    The "explanation maps" of Chattopadhay et al. 2018, section 5.1, on what the network has for nothing. The more a map
    covers the more it leaves, so heat that is the same everywhere leaves the image whole: there it is no control.
    """
    heat = torch.as_tensor(np.concatenate([*found.values()]), device=image.device)[:, None]
    heat = heat / heat.amax((2, 3), keepdim=True).clamp(min=1e-30)
    nothing = filling("grey", model, image)
    return dict(zip(found, probabilities_of(model, nothing + heat * (image - nothing), column).tolist(), strict=True))


def road_probabilities(
    model: nn.Module, image: Tensor, orders: Mapping[str, np.ndarray], column: int, seed: int, around: bool = False
) -> dict[str, float]:
    """Mean probability of the cluster with the hottest pixels (IMPUTED) filled from their neighbours, by title.

    Remove and debias, most relevant first (Rong et al. 2022), filled by pytorch-grad-cam's noisy linear imputation. Of
    a strip whose ends meet, its ends are laid on either side first, so that gaps there are filled from across.
    """
    pictures = [
        impute(image[0].cpu(), order < share * order.size, seed, around)
        for order in orders.values()
        for share in IMPUTED
    ]
    found = probabilities_of(model, torch.stack(pictures).to(image), column)
    return dict(zip(orders, found.reshape(len(orders), len(IMPUTED)).mean(1).tolist(), strict=True))


def impute(image: Tensor, gone: np.ndarray, seed: int, around: bool = False) -> Tensor:
    """(C, H, W) on the CPU with the pixels `gone` (H, W) filled by weighted means of their neighbours, and noise."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer

    width = image.shape[2]
    beside = width // 8 if around else 0
    columns = np.arange(-beside, width + beside) % width
    kept = torch.from_numpy((~gone).astype(np.float32)[:, columns])
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it hands tensors to numpy
        torch.manual_seed(seed)
        filled = NoisyLinearImputer(NOISE)(image[:, :, torch.as_tensor(columns)].contiguous(), kept)
    return filled[:, :, beside : beside + width]


def information_curves(
    subject: Subject, image: Tensor, orders: Mapping[str, np.ndarray], column: int, seed: int
) -> dict[str, tuple[float, float]]:
    """How soon the network knows the cluster as the hottest pixels are shown: area of SIC and of AIC, by title.

    Performance information curves (Kapishnikov et al. 2019, section 4.2): of an image only some random pixels are
    given, then the hottest too, and the rest is interpolated; across is how many bytes more a picture of that takes
    (0: of the random pixels alone, 1: of the whole image), up the probability (SIC), or whether the network names the
    cluster (AIC), between the same ends. Bytes are those of PNG rather than of WebP, which takes ten times as long.

    Args:
        subject: whose network.
        image: (1, C, H, W).
        orders: title -> (H, W) `order_of` each map.
        column: of the cluster among the logits.
        seed: of the random pixels, the same for all maps.

    Returns:
        Title -> areas; NaN where the random pixels alone do as well as the image, or take as many bytes.
    """
    height, width = image.shape[2:]
    around, pixels = goes_around(subject), image[0].cpu().numpy().transpose(1, 2, 0)
    anyway = np.random.default_rng(seed).permutation(height * width) < SEEN_ANYWAY * height * width
    anyway = anyway.reshape(height, width)
    anyway[np.ix_([0, -1], [0, -1])] = True  # so that all the rest lies between
    masks = [anyway, *(anyway | (order < share * order.size) for order in orders.values() for share in SHOWN_FIRST)]
    filled = np.stack([interpolate(pixels, mask, around) for mask in masks]).transpose(0, 3, 1, 2)
    shown = torch.cat([torch.from_numpy(filled).to(image), image])
    logits = logits_of(subject.model, shown)
    sizes = np.array([bytes_of(picture) for picture in subject.photographs(shown)], np.float64)
    areas = []
    for answers in (logits.softmax(1)[:, column].numpy(), (logits.argmax(1) == column).numpy()):
        ups = answers.astype(np.float64)
        between = np.arange(1, len(masks)).reshape(len(orders), len(SHOWN_FIRST))
        areas.append([information_area(sizes[[0, *at, -1]], ups[[0, *at, -1]]) for at in between.tolist()])
    return dict(zip(orders, zip(*areas, strict=True), strict=True))


def information_area(sizes: np.ndarray, answers: np.ndarray) -> float:
    """Area under an information curve.

    Args:
        sizes: (n,) bytes, of the least shown first, of the whole image last.
        answers: (n,) of the network; between the ends each counts as the best so far.

    Returns:
        0..1; NaN where the last of either is not above the first.
    """
    across, up = (values - values[0] for values in (sizes, answers))
    if across[-1] <= 0 or up[-1] <= 0:
        return float("nan")
    across, up = (np.clip(values / values[-1], 0, 1) for values in (across, up))
    up[1:-1] = np.maximum.accumulate(up[1:-1])
    order = np.argsort(across, kind="stable")
    return float(np.trapezoid(up[order], across[order]))


def interpolate(pixels: np.ndarray, known: np.ndarray, around: bool = False) -> np.ndarray:
    """(H, W, C) with what is not `known` (H, W) bool interpolated, linearly in triangles of what is; corners are known.

    Of a strip whose ends meet, its ends are laid on either side first.
    """
    from scipy.interpolate import LinearNDInterpolator

    width = known.shape[1]
    beside = width // 8 if around else 0
    columns = np.arange(-beside, width + beside) % width
    wide = known[:, columns].copy()
    corners = np.zeros_like(wide)
    corners[np.ix_([0, -1], [0, -1])] = True
    wide |= corners
    within = cv2.erode(wide.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0  # no triangle of theirs has a gap in it
    points = wide & ~within | corners
    gaps = ~known
    found = pixels.copy()
    if gaps.any():
        down, across = np.nonzero(gaps)
        values = LinearNDInterpolator(np.argwhere(points), pixels[:, columns][points])
        found[gaps] = values(np.stack([down, across + beside], 1))
    return found


def bytes_of(picture: np.ndarray) -> int:
    """How many a picture (H, W, 3) uint8 takes as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.tell()


def compare(
    what: str, title: str, maps: Mapping[str, Sequence[float] | np.ndarray], seed: int, more_is_better: bool
) -> Finding:
    """One method's figure beside the best control's; the verdict is of differences on the same images.

    Args:
        what: the measure.
        title: of the method.
        maps: title of each method and control -> a value of each image, the same images in each.
        seed: of the bootstrap.
        more_is_better: of the measure.
    """
    own = np.array(maps[title])
    controls = {name: np.array(maps[name]) for name in (f"{title}{UNTRAINED}", *CONTROLS) if name in maps}
    beside = compare_with(own, controls, seed, more_is_better)
    measured = share_of(own) if what == INCREASE else mean_of(own, seed)
    return Finding(PART, what, title, *measured, beside.name, beside.value, beside.p, beside.verdict)


def conclude(measured: Measured) -> list[str]:
    """Of each method on how many measures it surpasses every control, the best first."""
    titles = dict.fromkeys(one.of for one in measured.findings)
    rows = {title: [one for one in measured.findings if one.of == title] for title in titles}
    good = {title: [one.measure for one in own if one.verdict == BETTER] for title, own in rows.items()}
    said = []
    for title in sorted(titles, key=lambda title: -len(good[title]) / len(rows[title])):
        count, total = len(good[title]), len(rows[title])
        which = f" ({join_words(good[title])})" if 0 < count < total and count <= FEW_NAMED else ""
        if count:
            said.append(f"{title} surpasses every control on {count} of {total} measures{which}.")
        else:
            said.append(f"{title} surpasses its controls on none of {total} measures.")
    return said


def figures_of(curves: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Figure]:
    """The curves of deletion and of insertion, each with the baseline that its authors chose."""
    chosen = {"deletion": DELETION.format(BASELINES["neutral"]), "insertion": INSERTION.format(BASELINES["blur"])}
    figures = {}
    for name, what in chosen.items():
        lines = {
            title: (np.linspace(0, 1, len(curve)).tolist(), curve.tolist()) for title, curve in curves[what].items()
        }
        better = "the lower the better" if name == "deletion" else "the higher the better"
        across = "share of the pixels replaced, the hottest first"
        figures[name] = Figure(f"{what[0].upper()}{what[1:]}: {better}", across, "probability of the cluster", lines)
    return figures


def mean_figures(found: Sequence[Mapping[str, Figure]]) -> dict[str, Figure]:
    """The mean of each line over all images."""
    figures = {}
    for name, first in found[0].items():
        lines = {}
        for title, (across, _) in first.lines.items():
            each = [of[name].lines[title][1] for of in found if name in of and title in of[name].lines]
            lines[title] = (across, np.mean([up for up in each if len(up) == len(across)], 0).tolist())
        figures[name] = replace(first, lines=lines)
    return figures
