"""Whether a map stays where it is when the photograph changes a little: turned, lit otherwise, blurred, cut, coarser.

The photograph is changed and goes the whole way again: the coin is found, the view drawn, the map computed and drawn
back onto the photograph, which is then laid over the unchanged one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from console import progress
from datasets import view
from datasets.cache import Pixels
from datasets.places import Place
from datasets.view import PHOTOGRAPH, Window, to_photograph
from deepcluster.views import Frames
from explain.attribution import Asked as Method
from explain.attribution import attribute
from explain.attribution.registry import PHOTOGRAPH as ORIGINAL
from explain.audit.controls import EDGES, edge_heat, heat_of, own_targets
from explain.audit.findings import Asked, Finding, Measured, Sample, join_words, mean_of, share_of
from explain.rendering import says_nothing
from explain.subject import Subject
from machine.seeds import derive_seed

PART = "stability"
FEW = 32  # photographs: in each of CHANGES the coin is looked for anew
TURN = 5.0  # degrees
GAMMA, GRADIENT = 1.3, 0.25  # of another light: exponent, and by how much one side is brighter and the other darker
BLUR = 1 / 250  # sigma, of the shorter side
CUT = 0.02  # of each side of the photograph
BATCH = 16
MOVES, SWITCHED = "map moves (1 - rank correlation)", "photographs that change their"
EMPTY_MAPS, LOSING = "empty maps", "maps of a logit that loses to another"


@dataclass(frozen=True)
class Change:
    """A slight change of a photograph."""

    title: str
    change: Callable[[np.ndarray, np.random.Generator], np.ndarray]  # of (H, W, 3) uint8, into one of that shape
    # of the shape (H, W), (2, 3): where a pixel (x, y) of the photograph, or of its central square, comes to lie
    moved: Callable[[tuple[int, int]], np.ndarray]


def _laid(shape: tuple[int, int], degrees: float, scale: float) -> np.ndarray:
    return cv2.getRotationMatrix2D(((shape[1] - 1) / 2, (shape[0] - 1) / 2), degrees, scale)


def _turned(shape: tuple[int, int]) -> np.ndarray:
    return _laid(shape, TURN, 1)


def _closer(shape: tuple[int, int]) -> np.ndarray:
    return _laid(shape, 0, 1 / (1 - 2 * CUT))


def _unmoved(shape: tuple[int, int]) -> np.ndarray:
    return _laid(shape, 0, 1)


def _warped(pixels: np.ndarray, moved: Callable[[tuple[int, int]], np.ndarray]) -> np.ndarray:
    height, width = pixels.shape[:2]
    matrix = moved((height, width))
    return cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _relit(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Under another gamma, and brighter towards one side, whichever."""
    height, width = pixels.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    gradient = 1 + GRADIENT * (np.cos(angle) * across + np.sin(angle) * down) / np.sqrt(2)
    lit = 255 * (pixels / 255.0) ** GAMMA * gradient[..., None]
    return lit.round().clip(0, 255).astype(np.uint8)


def _blurred(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), max(0.4, BLUR * min(pixels.shape[:2])))


def _coarser(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of half the resolution, brought back to its size: another camera's photograph."""
    height, width = pixels.shape[:2]
    small = cv2.resize(pixels, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


CHANGES: tuple[Change, ...] = (
    Change(f"turned by {TURN:g}°", lambda pixels, rng: _warped(pixels, _turned), _turned),
    Change("lit otherwise", _relit, _unmoved),
    Change("blurred", _blurred, _unmoved),
    Change(f"cut by {CUT:.0%} on each side", lambda pixels, rng: _warped(pixels, _closer), _closer),
    Change("of half the resolution", _coarser, _unmoved),
)


def measure(sample: Sample, asked: Asked) -> Measured:
    """How far maps move under CHANGES; how many are empty, or of a logit that loses; how long a map takes."""
    subject = sample.subject
    methods = [one for one in asked.methods if one.name != ORIGINAL]
    if not len(sample.rows):
        return Measured([], missing=["Stability: there is no image in a cluster to measure."])
    rng = np.random.default_rng(derive_seed(asked.seed, 0, PART))
    rows = np.sort(rng.permutation(sample.rows)[:FEW])
    moves = movements(subject, rows, methods, asked.seed)
    found = []
    for change in CHANGES:
        own, switched = moves[change.title]
        for title in own:
            if title != ORIGINAL:
                found.append(_beside_photograph(change.title, title, own, asked.seed))
        value, low, high, n = share_of(switched)
        measure_of = f"{SWITCHED} {subject.group}, {change.title}"
        found.append(Finding(PART, measure_of, "", value, low, high, n))
    for one in methods:
        some = rows if one.method.passes == "many" else sample.rows
        empty, took = empty_maps(subject, some, one)
        value, low, high, n = share_of(empty)
        found.append(Finding(PART, EMPTY_MAPS, one.title, value, low, high, n))
        found.append(Finding(PART, f"milliseconds an image on {subject.device.type}", one.title, took, n=len(some)))
    loses = (sample.scores.margin[sample.rows] < 0).astype(float)
    value, low, high, n = share_of(loses)
    found.append(Finding(PART, LOSING, "", value, low, high, n))
    return Measured(found)


def movements(
    subject: Subject, rows: np.ndarray, methods: list[Method], seed: int
) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """How far maps move under each change.

    Returns:
        Title of the change -> (title of each method, of the edges, and ORIGINAL for the photograph itself -> (B,) 1
        less the rank correlation over the coin with what was there before, NaN where a map is empty; (B,) bool, whether
        the network's cluster is another one).
    """
    dataset = subject.pictures.dataset
    places = None if subject.view == PHOTOGRAPH else dataset.find_places()
    found: dict[str, tuple[dict[str, list[float]], list[bool]]] = {change.title: ({}, []) for change in CHANGES}
    for row in progress(rows.tolist(), "changing photographs", unit="images"):
        position = int(subject.pictures.position[row])
        pixels = np.array(dataset.decoded[position])
        targets = own_targets(subject, np.array([row]))
        seen = [(pixels, None if places is None else places[position], subject.images(np.array([row])))]
        for change in CHANGES:
            rng = np.random.default_rng(derive_seed(seed, row, change.title))
            changed = change.change(pixels, rng)
            seen.append((changed, *look_at(subject, changed)))
        images = torch.cat([one for *_, one in seen])
        heats = {
            one.title: heat_of(
                one, attribute(subject.model, images, targets.repeat(len(images)), [one])[one.key].cpu().numpy()
            )
            for one in methods
        }
        heats[EDGES] = edge_heat(subject, np.repeat(row, len(images)), images, seed)
        with torch.inference_mode():
            predicted = subject.model(images).argmax(1).tolist()
        before = {title: drawn(subject, heat[0], *seen[0][:2]) for title, heat in heats.items()}
        before[ORIGINAL] = _grey(subject, *seen[0])
        coin = np.ones(before[ORIGINAL].shape, bool) if seen[0][1] is None else seen[0][1].mask(pixels.shape)
        for i, change in enumerate(CHANGES, 1):
            after = {title: drawn(subject, heat[i], *seen[i][:2]) for title, heat in heats.items()}
            after[ORIGINAL] = _grey(subject, *seen[i])
            matrix = change.moved(coin.shape)
            for title, picture in after.items():
                value = moved_by(before[title], picture, matrix, coin)
                found[change.title][0].setdefault(title, []).append(value)
            found[change.title][1].append(predicted[i] != predicted[0])
    return {
        title: ({name: np.array(values) for name, values in own.items()}, np.array(switched))
        for title, (own, switched) in found.items()
    }


def look_at(subject: Subject, pixels: np.ndarray) -> tuple[Place | None, Tensor]:
    """Where the coin of a photograph (H, W, 3) is, if the run sees coins, and what the network sees, (1, C, h, w)."""
    drawn, place = view.look_at(pixels, subject.view, subject.run.meta.view.size)
    nought = np.zeros(1, np.int64)
    one = Pixels([drawn.reshape(-1)], nought, nought, np.array([drawn.shape[:2]]))
    return place, subject.trainer.view(subject.run, Frames(one, subject.device), nought)


def drawn(subject: Subject, heat: np.ndarray, pixels: np.ndarray, place: Place | None) -> np.ndarray:
    """Heat of the view on the whole photograph, in its pixels; of the view of a photograph as it is."""
    if place is None:
        return heat.astype(np.float32)
    height, width = pixels.shape[:2]
    whole = Window(0, 0, max(height, width))
    size = subject.run.meta.view.size
    return to_photograph(heat.astype(np.float32), subject.view, place, whole, size, whole.side)[:height, :width]


def _grey(subject: Subject, pixels: np.ndarray, place: Place | None, images: Tensor) -> np.ndarray:
    """What `drawn` draws on, in grey."""
    shown = subject.photographs(images)[0] if place is None else pixels
    return cv2.cvtColor(np.ascontiguousarray(shown), cv2.COLOR_RGB2GRAY).astype(np.float32)


def moved_by(before: np.ndarray, after: np.ndarray, matrix: np.ndarray, within: np.ndarray) -> float:
    """1 less the rank correlation of two maps over `within`, the second laid back: 0 is the same, 1 unrelated.

    Args:
        before: (H, W).
        after: (H, W) of the changed photograph.
        matrix: (2, 3), where a pixel came to lie.
        within: (H, W) bool. What was moved out of the picture is left out.

    Returns:
        NaN if either map is constant there.
    """
    from scipy.stats import spearmanr

    shape, flags = before.shape[::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    back = cv2.warpAffine(after, matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    there = cv2.warpAffine(np.ones(after.shape, np.float32), matrix, shape, flags=flags) > 0.99
    a, b = before[within & there], back[within & there]
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return float("nan")
    return 1 - float(spearmanr(a, b).statistic)


def empty_maps(subject: Subject, rows: np.ndarray, method: Method) -> tuple[np.ndarray, float]:
    """Whether each image's map says nothing, (B,) bool, and the milliseconds that one took (median of batches)."""
    empty, took = [], []
    for begin in range(0, len(rows), BATCH):
        some = rows[begin : begin + BATCH]
        images, targets = subject.images(some), own_targets(subject, some)
        start = time.perf_counter()
        maps = attribute(subject.model, images, targets, [method])[method.key].float().cpu().numpy()
        took.append((time.perf_counter() - start) * 1000 / len(some))
        empty += [says_nothing(one, method.method.kind) for one in maps]
    return np.array(empty), float(np.median(took))


def _beside_photograph(change: str, title: str, moves: dict[str, np.ndarray], seed: int) -> Finding:
    """How far a map moves beside the photograph itself; the verdict tells its edges too, a map that follows it."""
    own, photograph = moves[title], moves[ORIGINAL]
    value, low, high, n = mean_of(own, seed)
    still = mean_of(photograph, seed)[0]
    ratio = value / still if still > 0.001 else np.inf  # of less the measure itself is rounding
    further = "further than" if np.isinf(ratio) else f"{ratio:.{1 if ratio < 10 else 0}f} times as far as"
    verdict = _against(own - photograph, further, "the photograph", seed)
    if title != EDGES and verdict:
        verdict += f", {_against(own - moves[EDGES], 'further than', 'its edges', seed)}"
    measure_of = f"{MOVES}, {change}"
    return Finding(PART, measure_of, title, value, low, high, n, "the photograph itself", still, verdict=verdict)


def _against(differences: np.ndarray, further: str, what: str, seed: int) -> str:
    """How far something moves beside something else on the same images, in words; "" if no image tells."""
    _, low, high, n = mean_of(differences, seed)
    if not n:
        return ""
    return f"{further if low > 0 else 'less than' if high < 0 else 'as far as'} {what}"


def conclude(measured: Measured) -> list[str]:
    """How many coins change their cluster, which maps move least and most, and how many say nothing."""
    said = []
    switched = [one for one in measured.findings if one.measure.startswith(SWITCHED) and np.isfinite(one.value)]
    if switched:
        told = join_words([f"{one.value:.0%} {one.measure.rpartition(', ')[2]}" for one in switched])
        group = switched[0].measure.removeprefix(SWITCHED).partition(",")[0].strip()
        said.append(f"Of the photographs change their {group}: {told}.")
    turned = [one for one in measured.findings if one.measure == f"{MOVES}, {CHANGES[0].title}" and one.of != EDGES]
    known = sorted((one for one in turned if np.isfinite(one.value)), key=lambda one: one.value)
    if known:
        told = join_words([f"{one.of} by {one.value:.2f}" for one in known])
        said.append(f"{CHANGES[0].title[:1].upper()}{CHANGES[0].title[1:]}, maps move (1 - rank correlation): {told}.")
    empty = [one for one in measured.findings if one.measure == EMPTY_MAPS and one.value >= 0.005]
    if empty:
        said.append(f"Empty are {join_words([f'{one.value:.0%} of the maps of {one.of}' for one in empty])}.")
    losing = next((one for one in measured.findings if one.measure == LOSING), None)
    if losing is not None and losing.value > 0:
        said.append(f"{losing.value:.0%} of the maps explain an answer that the network would not give.")
    return said
