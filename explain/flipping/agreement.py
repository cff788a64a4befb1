"""Do the maps of attribution methods say where a flip tells? Rank correlations on the same images, beside controls."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from console import progress
from explain.attribution import Asked as Method
from explain.attribution import attribute
from explain.attribution.targets import find_layer
from explain.flipping.exact import flip_naive, invert
from explain.flipping.findings import Study
from explain.flipping.nets import Asked, Net, naive_batch
from machine.device import full_precision

COMPARED = 500  # images of each group at most
BATCH = 8
FIRST_ORDER = "Gradient times flip (positive control)"
HEAD = [
    "network",
    "images",
    "map",
    "count",
    "empty",
    "correlation",
    "plus or minus",
    "other image",
    "shuffled",
    "higher",
]


@dataclass(frozen=True)
class Maps:
    """Of n right images what each flip costs, and what methods say; F flips of an image."""

    rows: np.ndarray  # (n,) of the study
    costs: np.ndarray  # (n, F) margin of the answer over the best other class, without the flip minus with it
    said: dict[str, np.ndarray]  # title of a method -> (n, F), how much it makes of the place


@dataclass(frozen=True)
class Agreement:
    """Mean Spearman correlation over images between the cost of each flip and a method's map."""

    network: str
    group: str  # which images
    method: str
    count: int  # images
    empty: int  # of them the method says nothing, the same everywhere: left out
    own: float
    spread: float  # half the 95 % interval of `own`
    other: float  # control: with the map of another image of the same class
    shuffled: float  # control: with the places of the map shuffled
    higher: float  # share of the images whose own map agrees better than the other image's

    @property
    def cells(self) -> list[str]:
        """In the order of HEAD."""
        numbers = [f"{value:.3f}" for value in (self.own, self.spread, self.other, self.shuffled)]
        return [self.network, self.group, self.method, str(self.count), str(self.empty), *numbers, f"{self.higher:.2f}"]


def can_read(net: Net, method: Method) -> bool:
    """Whether a network has what a method reads; False: it has no convolution.

    Raises:
        UserError: if it has convolutions, but not the layer that is asked for.
    """
    if not method.method.needs_layer:
        return True
    if not any(isinstance(layer, nn.Conv2d) for layer in net.model.modules()):
        return False
    find_layer(net.model, method.options.get("layer"))
    return True


def choose_rows(study: Study) -> dict[str, np.ndarray]:
    """Right images that a flip changes, and right ones that none does; up to COMPARED each, drawn evenly."""
    groups = {"changed": study.is_changed, "robust": study.is_right & ~study.is_changed}
    rng = np.random.default_rng(0)
    return {
        name: np.sort(rng.permutation(np.flatnonzero(which))[:COMPARED])
        for name, which in groups.items()
        if which.any()
    }


def compare_maps(
    net: Net, asked: Asked, study: Study, methods: Sequence[Method], patch: int
) -> tuple[list[Agreement], Maps]:
    """Agreements of each group of images and method, and the maps of the changed images (of the robust, if none is)."""
    groups = choose_rows(study)
    found = {name: make_maps(net, asked, rows, methods, patch) for name, rows in groups.items()}
    agreements = []
    for name, maps in found.items():
        for title, said in maps.said.items():
            agreements.append(agree(net.title, name, title, maps.costs, said, study.right[maps.rows]))
    return agreements, next(iter(found.values()))


def make_maps(net: Net, asked: Asked, rows: np.ndarray, methods: Sequence[Method], patch: int) -> Maps:
    """The cost of each flip of images `rows`, and each method's map of the class that the network says."""
    parts: list[tuple[Tensor, dict[str, Tensor]]] = []
    begins = range(0, len(rows), BATCH)
    for begin in progress(begins, f"{net.title}: maps", unit="batches"):
        images = asked.load(rows[begin : begin + BATCH])
        with torch.no_grad(), full_precision():
            logits = net.logits(images)
            answers = logits.argmax(1)
            rival = logits.scatter(1, answers[:, None], -torch.inf).argmax(1)
            every = flip_naive(net.logits, images, patch, naive_batch(images)) if net.fast is None else net.fast(images)
            costs = margin(logits, answers)[:, None] - margin(every, answers[:, None].expand(every.shape[:2]))
        net.model.neutral = net.seen(torch.full_like(images[:1, :, :1, :1], 0.5))
        seen = net.seen(images)
        maps = attribute(net.model, seen.clone(), answers, methods)
        said = {one.title: over_flips(as_size(maps[one.key], one.method.kind), patch) for one in methods}
        before = torch.zeros_like(logits)
        before.scatter_(1, rival[:, None], -1).scatter_(1, answers[:, None], 1)
        slope = attribute(net.model, seen.clone(), before, ["gradient"])["gradient"]
        said[FIRST_ORDER] = over_flips(-(slope * (net.seen(invert(images)) - seen)).sum(1), patch)
        parts.append((costs.cpu(), {title: one.cpu() for title, one in said.items()}))
    titles = parts[0][1]
    return Maps(
        rows,
        torch.cat([costs for costs, _ in parts]).numpy(),
        {title: torch.cat([said[title] for _, said in parts]).numpy() for title in titles},
    )


def margin(logits: Tensor, answers: Tensor) -> Tensor:
    """(..., K) logits and (...) answers -> (...) the answer's logit minus the best other's."""
    own = logits.gather(-1, answers[..., None])
    return own[..., 0] - logits.scatter(-1, answers[..., None], -torch.inf).amax(-1)


def as_size(maps: Tensor, kind: str) -> Tensor:
    """(B, C, H, W) of a method -> (B, H, W), how much it makes of a place.

    Heat itself; a gradient's largest size; by how much the score falls when the place is hidden.
    """
    if kind == "change":
        return -maps[:, 0]
    return maps[:, 0] if kind == "heat" else maps.abs().amax(1)


def over_flips(maps: Tensor, patch: int) -> Tensor:
    """(B, H, W) -> (B, F): the mean over each flipped block."""
    return functional.avg_pool2d(maps[:, None].float(), patch, ceil_mode=True, count_include_pad=False).flatten(1)


def agree(
    network: str, group: str, method: str, costs: np.ndarray, said: np.ndarray, classes: np.ndarray, seed: int = 0
) -> Agreement:
    """The agreement of n images' costs and maps, (n, F) each; `classes` (n,).

    The other image is the next of the same class; a class with a single image has no such control.
    """
    full = np.ptp(said, 1) > 0
    told = rank_correlations(costs[full], said[full])
    n, other = int(full.sum()), next_of_class(classes[full])
    elsewhere = np.where(other >= 0, rank_correlations(costs[full], said[full][other]), np.nan)
    mixed = np.random.default_rng(seed).permuted(said[full], axis=1)
    known = ~np.isnan(elsewhere)
    return Agreement(
        network,
        group,
        method,
        len(said),
        len(said) - n,
        mean(told),
        float(1.96 * told.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan,
        mean(elsewhere[known]),
        mean(rank_correlations(costs[full], mixed)),
        mean(told[known] > elsewhere[known]),
    )


def mean(values: np.ndarray) -> float:
    """NaN of none."""
    return float(values.mean()) if len(values) else np.nan


def next_of_class(classes: np.ndarray) -> np.ndarray:
    """(n,) the next row of the same class, the first after the last; -1 where there is no other."""
    found = np.full(len(classes), -1)
    for number in np.unique(classes):
        rows = np.flatnonzero(classes == number)
        if len(rows) > 1:
            for row, after in pairwise([*rows, rows[0]]):
                found[row] = after
    return found


def rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) Spearman's, of each row of (n, F) and (n, F); ties share their mean rank."""
    ranks = [rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (a, b)]
    length = np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    return (ranks[0] * ranks[1]).sum(1) / np.where(length > 0, length, np.nan)
