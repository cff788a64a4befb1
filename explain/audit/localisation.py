"""Where the heat is: on the coin, its rim and its symbols, of each method, beside maps that know nothing.

Maps are drawn back onto the photograph first, so runs of different views compare. Parts are known of painted coins;
of real ones the found coin gives coin, rim and background.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from console import progress
from datasets import Masks, default_view
from datasets.painted import TYPES
from datasets.view import PHOTOGRAPH
from explain.attribution import Asked as Method
from explain.audit.controls import (
    ANOTHERS,
    CONTROLS,
    EDGES,
    UNTRAINED,
    edges_of,
    heats,
    heats_of,
    own_targets,
    partners_of,
)
from explain.audit.findings import (
    BETTER,
    Asked,
    Beside,
    Finding,
    Measured,
    Sample,
    compare_with,
    join_words,
    mean_of,
    share_of,
)
from explain.gallery.places import RIM
from explain.subject import Subject
from machine.seeds import derive_seed

BATCH = 32
PART = "localisation"
COIN, BACKGROUND, RIM_PART = "coin", "background", "rim"
SYMBOLS, DECIDING = "symbols", "deciding symbol"
TOLD = (SYMBOLS, DECIDING)  # parts of which a method is told whether it surpasses every control
ENOUGH = 5  # images that have a part, for a figure of it
ALL = "all of the coin"
NO_PARTS = "Where the heat lies: these pictures show no coins, and none of their parts is known."
ONLY_FOUND = "Heat on symbols, cross and dot: only of painted coins is known where these are; here coins were found."


@dataclass
class Shares:
    """Of each image of a sample how much of it each part covers, and of each of its maps what lies there."""

    areas: list[dict[str, float]] = field(default_factory=list)  # one an image: part -> share of the picture
    # map -> one an image: part -> share of the heat, whether the maximum lies there, rank accuracy
    on: dict[str, list[dict[str, tuple[float, float, float]]]] = field(default_factory=dict)

    def add(self, drawn: Mapping[str, np.ndarray], parts: Sequence[Masks]) -> None:
        """Maps of more images, name -> (B, S, S) from 0, and the parts of each."""
        self.areas += [{name: float(mask.mean()) for name, mask in one.items()} for one in parts]
        for name, heat in drawn.items():
            kept = self.on.setdefault(name, [])
            kept += [shares_of(one, masks) for one, masks in zip(heat, parts, strict=True)]

    def column(self, name: str, part: str, what: int) -> np.ndarray:
        """(n,) of a map: 0 share of the heat, 1 maximum there, 2 rank accuracy; NaN without such a part or heat."""
        return np.array([one[part][what] if part in one else np.nan for one in self.on[name]])

    def density(self, name: str, part: str) -> np.ndarray:
        """(n,) share of the coin's heat that is on a part over the part's share of the coin: 1 is chance.

        Of pictures without a coin: over the part's share of the picture.
        """
        area = np.array([one.get(part, np.nan) / one.get(COIN, 1) for one in self.areas])
        heat = self.column(name, part, 0)
        if any(COIN in one for one in self.areas):
            heat = heat / np.where(self.column(name, COIN, 0) > 0, self.column(name, COIN, 0), np.nan)
        return heat / np.where(area > 0, area, np.nan)


def measure(sample: Sample, asked: Asked) -> Measured:
    """Share of the heat on each part over the part's share of the coin, how often the maximum lies there, and more."""
    subject = sample.subject
    dataset, first = subject.pictures.dataset, int(subject.pictures.position[sample.rows[0]])
    if dataset.mask(first) is None and default_view(subject.run.meta.dataset.source) == PHOTOGRAPH:
        return Measured([], missing=[NO_PARTS])
    found = measure_shares(sample, asked)
    methods = [one.title for one in asked.methods]
    missing = []
    if dataset.mask(first) is None:
        missing.append(ONLY_FOUND)
    return Measured(list_findings(found, methods, asked.seed), {}, missing)


def measure_shares(sample: Sample, asked: Asked) -> Shares:
    """Every map of every image of the sample against every part."""
    subject, found = sample.subject, Shares()
    rng = np.random.default_rng(derive_seed(asked.seed, 0, PART))
    partners = sample.rows[partners_of(subject.clusters.assignment[sample.rows], rng)]
    for begin in progress(range(0, len(sample.rows), BATCH), "audit: where the heat is", unit="batches"):
        rows, others = (of[begin : begin + BATCH] for of in (sample.rows, partners))
        parts = [parts_of(subject, row) for row in rows.tolist()]
        drawn = draw_heats(subject, rows, asked.methods, asked.seed, parts)
        theirs = heats_of(subject.model, subject.images(others), own_targets(subject, others), asked.methods)
        drawn |= {name + ANOTHERS: subject.draw_back(rows, heat[:, None])[:, 0] for name, heat in theirs.items()}
        found.add(drawn, parts)
    return found


def draw_heats(
    subject: Subject, rows: np.ndarray, methods: Sequence[Method], seed: int, parts: Sequence[Masks]
) -> dict[str, np.ndarray]:
    """Every map that `controls.heats` gives of B images, on the squares that the gallery shows.

    Edges are those on the coin; ALL besides is the same everywhere on it. Title -> (B, size, size) from 0; `parts`:
    those of each image.
    """
    drawn = {
        name: subject.draw_back(rows, heat[:, None])[:, 0] for name, heat in heats(subject, rows, methods, seed).items()
    }
    within = np.stack([one.get(COIN, np.ones(one[next(iter(one))].shape, bool)) for one in parts])
    drawn[EDGES] = np.stack([edges_of(picture) for picture in subject.drawn_on(rows)]) * within
    drawn[ALL] = within.astype(np.float64)
    return drawn


def list_findings(found: Shares, methods: Sequence[str], seed: int) -> list[Finding]:
    """Rows of audit.csv: of every map and part; of symbols methods are told whether they surpass every control."""
    coins = any(COIN in one for one in found.areas)
    listed = []
    for part in sorted({part for one in found.areas for part in one}, key=_place):
        covered = [one[part] for one in found.areas if one.get(part)]
        if len(covered) < ENOUGH:
            continue
        for name in found.on:
            if part in (COIN, BACKGROUND):
                title, values = f"share of the heat on the {part}", found.column(name, part, 0)
                beside = Beside("its share of the picture", float(np.mean(covered)), "", None)
            else:
                title = f"heat on the {part} over its share of the {'coin' if coins else 'picture'}"
                values, beside = found.density(name, part), Beside("chance", 1.0, "", None)
                if name in methods and (part in TOLD or not coins):
                    controls = {one: found.density(one, part) for one in (*CONTROLS, name + UNTRAINED, name + ANOTHERS)}
                    beside = compare_with(values, controls, seed)
            listed.append(
                Finding(PART, title, name, *mean_of(values, seed), beside.name, beside.value, beside.p, beside.verdict)
            )
            if part == COIN or part in TOLD or not coins:
                for what, words in ((1, "maximum lies on the"), (2, "rank accuracy on the")):
                    values = found.column(name, part, what)
                    measured = share_of(values) if what == 1 else mean_of(values, seed)
                    listed.append(Finding(PART, f"{words} {part}", name, *measured))
    return listed


def parts_of(subject: Subject, row: int) -> dict[str, np.ndarray]:
    """(size, size) bool of each part of image `row`, on the square that the gallery shows."""
    dataset, position = subject.pictures.dataset, int(subject.pictures.position[row])
    masks = dataset.mask(position)
    if masks is None:
        masks = {COIN: dataset.find_places()[position].mask(dataset.decoded.shape[position])}
    whole = {name: mask for name, mask in masks.items() if not name.startswith("field")}
    if COIN in masks:
        whole |= {RIM_PART: rim_of(masks[COIN])} | symbols_of(masks, dataset.truth(position))
    found = {name: subject.cut(row, mask.astype(np.float32), subject.size) > 0.5 for name, mask in whole.items()}
    if COIN not in masks:
        return found
    return {name: mask & found[COIN] for name, mask in found.items()} | {BACKGROUND: ~found[COIN]}


def symbols_of(masks: Masks, truth: Mapping[str, str] | None) -> dict[str, np.ndarray]:
    """The parts that a coin's symbols are: all of them, each kind, and those that decide its type."""
    fields = [name for name in masks if name.startswith("field")]
    if not fields:
        return {}
    found = {SYMBOLS: np.any([masks[name] for name in fields], axis=0)}
    if truth is None:
        return found
    for name in fields:
        if truth.get(name):
            found[truth[name]] = found.get(truth[name], False) | masks[name]
    deciding = deciding_fields(tuple(truth.get(f"field{i}", "") for i in range(4)), truth.get("dot") == "True")
    if deciding:
        found[DECIDING] = np.any([masks[f"field{i}"] for i in deciding], axis=0)
    return found


def deciding_fields(fields: Sequence[str], dot: bool) -> list[int]:
    """The filled fields by whose symbol alone a painted coin is of its type: with another there it is of another.

    A type's only symbol counts, too. Types are the same up to turns and mirrors.
    """
    filled = [i for i, symbol in enumerate(fields) if symbol]
    if len(filled) == 1:
        return filled
    known = {(canonical(one.fields), one.dot) for one in TYPES}
    own = canonical(fields)
    kinds = {symbol for one in TYPES for symbol in one.fields}
    found = []
    for i in filled:
        others = [canonical([*fields[:i], symbol, *fields[i + 1 :]]) for symbol in kinds - {fields[i]}]
        if any((other, dot) in known for other in others if other != own):
            found.append(i)
    return found


def canonical(fields: Sequence[str]) -> tuple[str, ...]:
    """The first in order of all turns and mirrors of four fields."""
    both = (list(fields), list(fields)[::-1])
    return min(tuple(one[turn:] + one[:turn]) for one in both for turn in range(len(fields)))


def rim_of(coin: np.ndarray) -> np.ndarray:
    """(H, W) bool: what of a coin's mask lies within RIM of its radius from the edge."""
    depth = cv2.distanceTransform(coin.astype(np.uint8), cv2.DIST_L2, 3)
    return coin & (depth <= RIM * np.sqrt(coin.sum() / np.pi))


def shares_of(heat: np.ndarray, masks: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float, float]]:
    """Of a map (S, S) from 0 up, by part: its share of the heat, whether the maximum lies there, and rank accuracy.

    Share: relevance mass accuracy; rank accuracy: of the pixels with most heat, as many as the part has, the share on
    the part (Arras, Osman & Samek 2022). The maximum: the pointing game (Zhang et al. 2018). Parts without a pixel are
    left out; an empty map has NaN of all.
    """
    total = float(heat.sum())
    present = {name: mask for name, mask in masks.items() if mask.any()}
    if not np.isfinite(total) or total <= 0:
        return dict.fromkeys(present, (np.nan, np.nan, np.nan))
    order = np.argsort(-heat, axis=None, kind="stable")
    found = {}
    for name, mask in present.items():
        first = mask.ravel()[order[: int(mask.sum())]]
        found[name] = (float(heat[mask].sum() / total), float(mask.ravel()[order[0]]), float(first.mean()))
    return found


def _place(part: str) -> tuple[int, str]:
    first = (COIN, BACKGROUND, RIM_PART, "cross", "horizontal", "vertical", "dot", SYMBOLS, DECIDING)
    return (first.index(part) if part in first else len(first), part)


def conclude(measured: Measured) -> list[str]:
    """What the figures say of the methods, in sentences."""
    said = []
    for part in (DECIDING, SYMBOLS):
        rows = [one for one in measured.findings if one.verdict and f" {part} " in one.measure]
        rows.sort(key=lambda one: -one.value)
        good = [f"{one.of} ({one.value:.2f})" for one in rows if one.verdict == BETTER]
        rest = [
            f"{one.of} ({one.value:.2f}) is {one.verdict} ({one.control_value:.2f})"
            for one in rows
            if one.verdict != BETTER
        ]
        if good:
            verb = "put" if len(good) > 1 else "puts"
            said.append(f"{join_words(good)} {verb} more heat on the {part} than every control.")
        if rest:
            said.append(f"On the {part} {'; '.join(rest)}.")
    coin = [one for one in measured.findings if one.measure == f"share of the heat on the {COIN}"]
    if coin and not said:
        said.append(f"On the coin lies {', '.join(f'{one.value:.0%} of {one.of}' for one in coin[:3])}.")
    return said
