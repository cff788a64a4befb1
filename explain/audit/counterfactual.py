"""Counterfactual pairs: the same painted coin with one thing otherwise, all else equal to the pixel.

The share of coins that change their cluster tells what clusters follow, whatever maps of heat say. Each photograph
is written as a JPEG and goes the whole way from there to the network's answer.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import binom
from torch import Tensor

from console import progress
from datasets.cache import Pixels
from datasets.decoding import decode
from datasets.painted import BACKGROUNDS, COUNT, SEED, SYMBOLS, Changed, repaint
from datasets.processes import map_processes
from datasets.view import look_at
from deepcluster.views import Frames
from explain.audit.findings import UNKNOWN, Asked, Finding, Measured, Sample, holm, join_words, mean_of, share_of
from explain.rendering import strip, titled
from explain.subject import Subject
from machine.files import write_atomic
from machine.reading import whole_number
from machine.seeds import derive_seed
from runs import Run
from runs.meta import View

PART = "counterfactual"
COINS = 80  # that are painted anew at most: eleven photographs of each
FEW = 5  # coins: of fewer nothing is told of a symbol
WORN = 0.5  # wear that is added
NUMBER = re.compile(r"coin_(\d+)\.jpg$")
CORNERS = ("top left", "top right", "bottom right", "bottom left")
UNLIKELY = 0.05
FEW_MOVE = 0.05  # share of the coins that is called few
MOVES, MOVES_FEW, UNDECIDED = "moves coins", "moves few coins", "undecided"
SHARE = "share of the coins whose cluster changes"
PAIRS = 10  # on the sheet
BATCH = 128


@dataclass(frozen=True)
class PaintedSet:
    """What painted a run's coins."""

    count: int
    seed: int

    @staticmethod
    def number_of(image: str) -> int:
        """Of an image's coin, from 0."""
        found = NUMBER.search(image)
        if found is None:
            raise ValueError(f"{image}: not a painted coin's name")
        return int(found[1]) - 1


def painted_set(run: Run) -> PaintedSet | None:
    """The set that a run's coins are painted anew from; None: they are not `painted`, so nobody knows how."""
    kind, _, detail = run.meta.dataset.source.partition(":")
    count = whole_number(detail) if detail else COUNT
    if kind != "painted" or count is None or not all(NUMBER.search(name) for name in run.ids):
        return None
    return PaintedSet(count, SEED)


# --- changes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What is done to a coin, and how it is told: "the axe at the top left" of the change "a symbol removed"."""

    changed: Changed
    what: str = ""  # in particular
    symbol: str = ""  # that it is about
    jpeg: float = 1.0  # of the quality that the JPEG had


Fields = tuple[str, str, str, str]
Maker = Callable[[Mapping[str, str], Fields, bool, np.random.Generator], Change | None]


def _with(fields: Fields, places: Mapping[int, str]) -> Fields:
    a, b, c, d = (places.get(place, name) for place, name in enumerate(fields))
    return a, b, c, d


def _filled(fields: Fields, rng: np.random.Generator) -> int | None:
    there = [place for place, name in enumerate(fields) if name]
    return int(rng.choice(there)) if there else None


def remove(_: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    place = _filled(fields, rng)
    if place is None:
        return None
    return Change(
        {"fields": _with(fields, {place: ""})}, f"without the {fields[place]} {CORNERS[place]}", fields[place]
    )


def exchange(_: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    place = _filled(fields, rng)
    if place is None:
        return None
    other = str(rng.choice([name for name in SYMBOLS if name != fields[place]]))
    return Change(
        {"fields": _with(fields, {place: other})}, f"{other} for the {fields[place]} {CORNERS[place]}", fields[place]
    )


def move(_: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    place, empty = _filled(fields, rng), [at for at, name in enumerate(fields) if not name]
    if place is None or not empty:
        return None
    to = int(rng.choice(empty))
    return Change(
        {"fields": _with(fields, {place: "", to: fields[place]})},
        f"{fields[place]} from {CORNERS[place]} to {CORNERS[to]}",
        fields[place],
    )


def toggle_dot(_: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    return Change({"dot": not dot}, "without its dot" if dot else "with a dot")


def background(facts: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    other = str(rng.choice([one for one in BACKGROUNDS if one != facts["background"]]))
    return Change({"background": other}, f"{other} for {facts['background']}")


def light(facts: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    turn = float(rng.uniform(45, 180) * rng.choice([-1, 1]))
    return Change({"light": float(facts["light_degrees"]) + turn}, f"lamp turned by {turn:.0f}°")


def wear(facts: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    worn = min(1.0, float(facts["wear"]) + WORN)
    return Change({"wear": worn}, f"wear {worn:.2f} for {float(facts['wear']):.2f}")


def spoil(facts: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    if facts["quality"] != "good":
        return None
    quality = str(rng.choice(["blurred", "dark"]))
    return Change({"quality": quality}, quality)


def nothing(_: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    return Change({})


def compress(_: Mapping[str, str], fields: Fields, dot: bool, rng: np.random.Generator) -> Change | None:
    return Change({}, "JPEG of half the quality", jpeg=0.5)


NOTHING = "nothing changed, painted anew as a JPEG"
CHANGES: dict[str, Maker] = {
    NOTHING: nothing,
    "a JPEG of half the quality": compress,
    "one symbol removed": remove,
    "one symbol exchanged": exchange,
    "one symbol moved to an empty field": move,
    "the central dot added or removed": toggle_dot,
    "another background": background,
    "the lamp turned by 45° and more": light,
    f"wear {WORN} more": wear,
    "a good photograph blurred or dark": spoil,
}


def changes_of(number: int, truth: Mapping[str, str], seed: int) -> dict[str, Change]:
    """The changes that a coin admits, drawn by the seed: name of CHANGES -> what is done.

    Args:
        number: of the coin.
        truth: its row of truth.csv.
        seed: of chance.
    """
    fields = tuple(truth[f"field{place}"] for place in range(4))
    found = {}
    for name, make in CHANGES.items():
        rng = np.random.default_rng(derive_seed(seed, number, name))
        change = make(truth, fields, truth["dot"] == "True", rng)  # type: ignore[arg-type]
        if change is not None:
            found[name] = change
    return found


# --- from the painter to the answer -------------------------------------------------------------------------------


def as_jpeg(picture: np.ndarray, quality: int) -> io.BytesIO:
    """A picture (H, W, 3) uint8 as the bytes of a file, as a painted folder has it."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    file.seek(0)
    return file


def photograph_again(number: int, painted: PaintedSet, change: Change, seen: View) -> tuple[np.ndarray, np.ndarray]:
    """A coin as it is changed: what the file has (H, W, 3), and the view (height, width, 3) of it, uint8."""
    picture, facts = repaint(number, painted.seed, painted.count, change.changed)
    file = as_jpeg(picture, max(1, round(facts["jpeg_quality"] * change.jpeg)))
    shown = decode(io.BytesIO(file.getvalue()))
    return shown, look_at(decode(file, seen.decoded_side, seen.decode_at_most), seen.name, seen.size)[0]


def _photograph_again(job: tuple[int, PaintedSet, Change, View]) -> np.ndarray:
    return photograph_again(*job)[1]


def draw_again(jobs: Sequence[tuple[int, PaintedSet, Change]], seen: View) -> list[np.ndarray]:
    """The views of coins that are changed, one a job: uint8."""
    full = [(*job, seen) for job in jobs]
    return list(progress(map_processes(_photograph_again, full, len(full)), "painting coins", total=len(full)))


def images_of(run: Run, trainer: Any, drawn: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Pictures (height, width, 3) uint8 of the run's view as its network is given them: (B, C, H, W)."""
    return trainer.view(run, Frames(Pixels.of(drawn), device), np.arange(len(drawn)))


def answers(run: Run, trainer: Any, model: Any, drawn: Sequence[np.ndarray], device: torch.device) -> np.ndarray:
    """A network's probabilities (B, K) float32 for pictures (height, width, 3) uint8 of the run's view."""
    found = []
    for begin in range(0, len(drawn), BATCH):
        images = images_of(run, trainer, drawn[begin : begin + BATCH], device)
        with torch.inference_mode():
            found.append(model(images).float().softmax(1).cpu().numpy())
    return np.concatenate(found)


def answers_of(subject: Subject, drawn: Sequence[np.ndarray]) -> np.ndarray:
    """As `answers`, of the clusters that are explained: (B, clusters)."""
    return answers(subject.run, subject.trainer, subject.model, drawn, subject.device)


# --- findings -----------------------------------------------------------------------------------------------------


def measure(sample: Sample, asked: Asked) -> Measured:
    """How many coins change their cluster, by what is changed of them."""
    subject = sample.subject
    painted = can_be_painted(sample)
    if painted is None:
        return Measured(
            [],
            missing=[
                "counterfactual pairs: only coins that this program painted (DATA painted or painted:COUNT) can be "
                "photographed again with one thing changed"
            ],
        )
    rows = some_of(sample, asked)
    numbers = [painted.number_of(subject.run.ids[row]) for row in rows.tolist()]
    changes = [
        changes_of(number, truth_of(subject, row), asked.seed)
        for number, row in zip(numbers, rows.tolist(), strict=True)
    ]
    jobs = [
        (number, painted, change) for number, some in zip(numbers, changes, strict=True) for change in some.values()
    ]
    probability = iter(answers_of(subject, draw_again(jobs, subject.run.meta.view)))
    with torch.inference_mode():
        before = np.concatenate(
            [subject.model(subject.images(rows[i : i + BATCH])).float().softmax(1).cpu().numpy()
             for i in range(0, len(rows), BATCH)]
        )  # fmt: skip
    own = before.argmax(1)
    moved = {name: np.full(len(rows), np.nan) for name in CHANGES}
    lost = {name: np.full(len(rows), np.nan) for name in CHANGES}
    symbols = {name: np.full(len(rows), "", dtype="<U20") for name in CHANGES}
    for at, some in enumerate(changes):
        for name, change in some.items():
            after = next(probability)
            moved[name][at] = after.argmax() != own[at]
            lost[name][at] = before[at, own[at]] - after[own[at]]
            symbols[name][at] = change.symbol
    return Measured(findings_of(moved, lost, symbols, derive_seed(asked.seed, 0, "counterfactual")))


def truth_of(subject: Subject, row: int) -> dict[str, str]:
    """What truth.csv knows of an image."""
    return subject.pictures.dataset.truth(int(subject.pictures.position[row])) or {}


def can_be_painted(sample: Sample) -> PaintedSet | None:
    """What the sample's coins are painted anew from, if their truth is there too."""
    painted = painted_set(sample.subject.run)
    known = len(sample.rows) > 0 and all("field3" in truth_of(sample.subject, row) for row in sample.rows.tolist())
    return painted if known else None


def some_of(sample: Sample, asked: Asked) -> np.ndarray:
    """The sample's rows that are painted anew, ascending."""
    rng = np.random.default_rng(derive_seed(asked.seed, 0, "counterfactual coins"))
    return np.sort(rng.permutation(sample.rows)[:COINS])


def findings_of(
    moved: Mapping[str, np.ndarray], lost: Mapping[str, np.ndarray], symbols: Mapping[str, np.ndarray], seed: int
) -> list[Finding]:
    """Of each change the share of coins that moved, and the probability of the former cluster that was lost.

    Args:
        moved: change -> (n,) 1 where a coin's cluster is another one, NaN where the coin does not admit the change.
        lost: change -> (n,).
        symbols: change -> (n,) the symbol that it was about, "" if none.
        seed: of chance.
    """
    still, changes = moved[NOTHING], [name for name in moved if name != NOTHING]
    found = [Finding(PART, SHARE, NOTHING, *share_of(still))]
    pairs = {name: np.isfinite(moved[name]) & np.isfinite(still) for name in changes}
    alone = {name: (moved[name][both] > still[both]).astype(float) for name, both in pairs.items()}
    other = {name: (moved[name][both] < still[both]).astype(float) for name, both in pairs.items()}
    told = [name for name in changes if pairs[name].any()]
    p = [float(binom.sf(alone[name].sum() - 1, alone[name].sum() + other[name].sum(), 0.5)) for name in told]
    corrected = dict(zip(told, holm(p), strict=True))
    against = f"{NOTHING}; p corrected for {len(told)} changes (Holm)"
    for name in changes:
        value, low, high, n = share_of(moved[name])
        verdict = ""
        if n:
            at_most = share_of(alone[name])[2] - share_of(other[name])[1]  # more than with nothing changed
            verdict = MOVES if corrected[name] < UNLIKELY else MOVES_FEW if at_most < FEW_MOVE else UNDECIDED
        control = float(still[pairs[name]].mean()) if n else UNKNOWN
        found.append(
            Finding(PART, SHARE, name, value, low, high, n, against, control, corrected.get(name, UNKNOWN), verdict)
        )
    for name, values in lost.items():
        control = float(np.nanmean(lost[NOTHING])) if name != NOTHING else UNKNOWN
        against = NOTHING if name != NOTHING else ""
        found.append(
            Finding(PART, "probability of the cluster that is lost", name, *mean_of(values, seed), against, control)
        )
    for name, about in symbols.items():
        for symbol in sorted({*about.tolist()} - {""}):
            own = about == symbol
            if own.sum() >= FEW:
                rest = moved[name][(about != symbol) & (about != "")]
                found.append(
                    Finding(
                        PART,
                        SHARE,
                        f"{name}: {symbol}",
                        *share_of(moved[name][own]),
                        "the same of other symbols",
                        float(rest.mean()) if len(rest) else UNKNOWN,
                    )
                )
    return found


def conclude(measured: Measured) -> list[str]:
    """What moves coins, the strongest first, in a sentence."""
    shares = [one for one in measured.findings if one.measure == SHARE and one.of in CHANGES and one.n >= FEW]
    if not shares:
        return []
    order = sorted((one for one in shares if one.of != NOTHING), key=lambda one: -one.value)
    still = [f"{one.value:.0%} with {one.of}" for one in shares if one.of == NOTHING]
    moves = [f"{one.of} {one.value:.0%}" for one in order]
    said = [f"Of the coins that were painted anew these change their cluster: {', '.join(moves)} ({', '.join(still)})."]
    for verdict, words in ((MOVES_FEW, "Fewer than 5 % of the coins"), (UNDECIDED, "It is undecided whether coins")):
        names = [one.of for one in order if one.verdict == verdict]
        if names:
            said.append(f"{words} are moved by {join_words(names)}.")
    return said


def write_beside(path: Path, sample: Sample, asked: Asked) -> int:
    """Draw ten pairs, the coin and beside it the same with one thing otherwise; what changed, and both clusters.

    Args:
        path: of the PNG.
        sample: whose coins; those of `measure`.
        asked: seed.

    Returns:
        Pairs drawn; 0, and no file, where coins cannot be painted anew.
    """
    subject = sample.subject
    painted = can_be_painted(sample)
    if painted is None:
        return 0
    rng = np.random.default_rng(derive_seed(asked.seed, 0, "pairs"))
    told = [name for name in CHANGES if name != NOTHING and "JPEG" not in name]
    cells = []
    for place, row in enumerate(rng.permutation(some_of(sample, asked))[:PAIRS].tolist()):
        number = painted.number_of(subject.run.ids[row])
        changes = changes_of(number, truth_of(subject, row), asked.seed)
        wanted = [*told[place % len(told) :], *told]
        change = changes[next(name for name in wanted if name in changes)]
        shots = [photograph_again(number, painted, one, subject.run.meta.view) for one in (Change({}), change)]
        found = answers_of(subject, [drawn for _, drawn in shots])
        before, after = (int(one.argmax()) for one in found)
        numbers = subject.clusters.numbers
        word = subject.group
        same = f"stays in {word} {numbers[before]}"
        moves = f"{word} {numbers[before]} → {numbers[after]}"
        said = f"{change.what}: {same if before == after else moves} ({found[0, before]:.2f} → {found[1, before]:.2f})"
        pair = Image.fromarray(strip([shown for shown, _ in shots], 208))
        cells.append(_framed(titled(pair, said), before != after))
    sheet = _sheet(cells, 2)
    write_atomic(path, lambda file: sheet.save(file, "PNG"))
    return len(cells)


def _framed(picture: Image.Image, moves: bool) -> Image.Image:
    colour = (200, 60, 40) if moves else (200, 200, 200)
    framed = Image.new("RGB", (picture.width + 8, picture.height + 8), colour)
    framed.paste(picture, (4, 4))
    return framed


def _sheet(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    width = max(cell.width for cell in cells) + 12
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + 12 for row in rows]
    sheet = Image.new("RGB", (columns * width + 12, sum(heights) + 12), "white")
    top = 12
    for row, height in zip(rows, heights, strict=True):
        for i, cell in enumerate(row):
            sheet.paste(cell, (12 + i * width, top + height - 12 - cell.height))
        top += height
    return sheet
