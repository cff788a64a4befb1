"""What the claims are judged by: where the heat of each image lies, and what is known of the images besides."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch

from console import progress
from datasets import Masks
from datasets.check import examine, sharpness
from datasets.decoding import decode
from datasets.painted import repaint_with_mask, split_mask
from datasets.places import Place
from datasets.processes import map_processes
from datasets.view import PHOTOGRAPH, VIEWS, Window, look_at, to_photograph
from deepcluster.baselines import Material, raw_pixels
from deepcluster.clustering import distance_to_centroid, partition
from deepcluster.features import pca_whiten
from deepcluster.trained import run_config
from explain.attribution import PHOTOGRAPH as ORIGINAL
from explain.attribution import VIEW
from explain.attribution import Asked as Method
from explain.audit import localisation
from explain.audit.controls import UNIFORM, UNTRAINED, heats_of, own_targets
from explain.audit.counterfactual import PaintedSet, answers_of, as_jpeg, can_be_painted, images_of, truth_of
from explain.audit.findings import Asked, Sample
from explain.audit.localisation import ALL, BACKGROUND, COIN, SYMBOLS, Shares, draw_heats
from explain.subject import Subject
from machine.seeds import derive_seed
from runs.meta import View

BATCH = 32
WARM = 0.1  # of the square: concentration is the share of the heat on its warmest such part
FIELDS = ("field0", "field1", "field2", "field3")
HORIZONTAL, VERTICAL, OTHERS = "horizontal", "vertical", "other symbols"  # parts
TURNED, UNDER_THE_LAMP = "the photograph turned by 90 degrees", "the coin turned by 90 degrees under the same lamp"
AXES, OTHER_SYMBOLS = "the axes", "the other symbols"
BAR, OTHER_BAR = "the horizontal bar", "the vertical bar"  # without their crossing
PLACEBO = "the same shape where nothing is struck"
LOST, DISTANCE, OTHER, SCATTERED = (
    "probability lost",
    "distance to the centroid",
    "another cluster chosen by the network",
    "heat scattered",
)
REPAINTED = 60  # coins that are painted anew at most
LEVELS = 5  # that a measured quantity is divided into
GROWN = 0.04  # of the picture's side: what is covered beyond a symbol's own pixels


@dataclass(frozen=True)
class Evidence:
    """Of n images of the sample and all N of the run that are there and have a cluster."""

    assignment: np.ndarray  # (n,) clusters
    clusters: np.ndarray  # (N,)
    places: np.ndarray  # (n,) the sample's among the N
    method: str = "the map"  # title of the one whose maps are told of
    # whose map ("" is the method's, others know nothing) -> part -> (n,) heat density
    heat: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    turned: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)  # how -> part -> (n,)
    causes: dict[str, np.ndarray] = field(default_factory=dict)  # of the picture, not of the coin -> (N,)
    facts: dict[str, np.ndarray] = field(default_factory=dict)  # of the coin -> (N,)
    fields: np.ndarray | None = None  # (N, 4) symbols
    bad: np.ndarray | None = None  # (N,) whether a picture is bad
    wear: tuple[str, np.ndarray] | None = None  # what is told of it, and (N,) of that
    stands_in: bool = False  # wear itself is not known, that is something else
    signs: dict[str, np.ndarray] = field(default_factory=dict)  # of being recognised badly -> (N,)
    signs_untrained: dict[str, np.ndarray] = field(default_factory=dict)  # the same of a network that learnt nothing
    covered: dict[str, np.ndarray] = field(default_factory=dict)  # what -> (2, n) probability lost: see `cover`
    other_clusters: dict[str, np.ndarray] = field(default_factory=dict)  # (N,) of other clusterings
    missing: list[str] = field(default_factory=list)

    def has_parts(self, *names: str) -> bool:
        """Whether the heat on these parts is known of any image."""
        parts = self.heat.get("", {})
        return all(name in parts and np.isfinite(parts[name]).any() for name in names)


# --- heat ---------------------------------------------------------------------------------------------------------


def arms_of(parts: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Both bars of a cross without what is of both, and without the dot: masks -> the same two (S, S) bool."""
    if not {HORIZONTAL, VERTICAL, "dot"} <= parts.keys():
        return {}
    crossing = parts["dot"] | (parts[HORIZONTAL] & parts[VERTICAL])
    return {name: parts[name] & ~crossing for name in (HORIZONTAL, VERTICAL)}


def parts_of(subject: Subject, row: int) -> Masks:
    """What densities are measured on, (size, size) bool: localisation's parts, each field, and the axe's rivals.

    The bars are without their crossing, which is of both.
    """
    found = localisation.parts_of(subject, row)
    masks = subject.pictures.dataset.mask(int(subject.pictures.position[row])) or {}
    for name in FIELDS:
        if name in masks:
            found[name] = found[COIN] & (subject.cut(row, masks[name].astype(np.float32), subject.size) > 0.5)
    if "axe" in found:
        found[OTHERS] = found[SYMBOLS] & ~found["axe"]
    return found | arms_of(found)


def densities(shares: Shares, name: str) -> dict[str, np.ndarray]:
    """Part -> (n,) density of a map's heat there: 1 is chance, of the coin; of what is off it, of the picture."""
    parts = {part for one in shares.areas for part in one} - {COIN, BACKGROUND}
    off = np.array([one.get(BACKGROUND) or np.nan for one in shares.areas])
    return {part: shares.density(name, part) for part in sorted(parts)} | {
        BACKGROUND: shares.column(name, BACKGROUND, 0) / off
    }


def concentration(heat: np.ndarray) -> np.ndarray:
    """(B, S, S) from 0 -> (B,) share of the heat on the warmest tenth; NaN of an empty map."""
    flat = np.sort(heat.reshape(len(heat), -1), axis=1)[:, ::-1]
    total = flat.sum(1)
    return flat[:, : round(WARM * flat.shape[1])].sum(1) / np.where(total > 0, total, np.nan)


# --- a run's ------------------------------------------------------------------------------------------------------


def gather(sample: Sample, asked: Asked) -> Evidence:
    """The evidence of a run; what it has not goes into `missing`."""
    subject = sample.subject
    assignment, present = subject.clusters.assignment, subject.pictures.present
    every = present[assignment[present] >= 0]
    own = assignment[sample.rows]
    bare = Evidence(own, assignment[every], np.searchsorted(every, sample.rows))
    if subject.run.meta.kind != "deepcluster":
        words = "a supervised run is told what to find"
        return replace(bare, missing=[f"claims 1 to 7: they are about clusters of coins, and {words}"])
    if not len(sample.rows):
        return replace(bare, missing=["claims 1 to 7: no image of the run is there and has a cluster"])
    method = next((one for one in asked.methods if one.name not in (ORIGINAL, VIEW)), None)
    dataset = subject.pictures.dataset
    truths = [dataset.truth(int(subject.pictures.position[row])) or {} for row in every.tolist()]
    known = set.intersection(*({*truth} for truth in truths))
    fields = np.array([[truth[name] for name in FIELDS] for truth in truths]) if {*FIELDS} <= known else None
    missing = []
    first = dataset.mask(int(subject.pictures.position[sample.rows[0]]))
    has_coin = dataset.root is not None and (first is None or "coin" in first)
    if first is None:
        missing.append(
            "claims 1, 2 and 6, and the heat in 5 and 7: where cross, bars and symbols are is not known of these "
            "pictures: masks beside them are needed (painted coins have them)"
        )
    elif "cross" not in first:
        missing.append("claims 1, 2 and 6: these pictures show no cross and no bars")
    if fields is None:
        missing.append(
            "claims 5, 6 and 7, and the dot in 1: which symbols each coin bears is not known: a truth.csv with "
            "field0 to field3 is needed"
        )
    if method is None:
        missing.append("the heat in claims 1 to 7: no method of attribution was asked for")
    heat: dict[str, dict[str, np.ndarray]] = {}
    turned: dict[str, dict[str, np.ndarray]] = {}
    scattered: dict[str, np.ndarray] = {}
    covered: dict[str, np.ndarray] = {}
    named = None if fields is None else fields[bare.places]
    if method is not None and has_coin:
        heat, scattered = heat_on_parts(subject, sample.rows, method, asked.seed)
        if first is not None and "cross" in first:
            turned = heat_when_turned(sample, method, asked.seed)
            if named is not None:
                covered = cover(subject, sample.rows, named)
    facts = {"dot": np.array([truth["dot"] == "True" for truth in truths])} if "dot" in known else {}
    sharp, ground = (None, None) if {"quality", "background", "wear"} <= known else _measured(subject, every, has_coin)
    causes: dict[str, np.ndarray] = {
        name: np.array([truth[name] for truth in truths]) for name in ("background", "quality") if name in known
    }
    wear = None
    if "wear" in known:
        wear = ("wear", np.array([float(truth["wear"]) for truth in truths]))
    elif sharp is not None:
        missing.append(
            "claim 4: wear is not known of these coins; measured blur of the photograph is told of, and decides nothing"
        )
        wear = ("blur (measured)", -sharp)
    if sharp is not None and ground is not None and not causes:
        missing.append(
            "claim 3: quality and background are not known of these pictures; measured sharpness and the ground's "
            "brightness stand in their place"
        )
        causes = {"measured sharpness": _levels(sharp), "measured brightness of the ground": _levels(ground)}
    scatter = {whose: {SCATTERED: _spread(one, bare.places, len(every))} for whose, one in scattered.items()}
    bad = bad_pictures(subject, every)
    others = {} if fields is None else {"k-means on pixels": _pixel_clusters(subject, every, asked.seed)}
    return replace(
        bare,
        method=bare.method if method is None else method.title,
        heat=heat,
        turned=turned,
        causes=causes,
        facts=facts,
        fields=fields,
        bad=None if bad is None else bad != "",
        wear=wear,
        stands_in="wear" not in known,
        signs=_signs(sample, every) | scatter.get("", {}) if wear is not None else {},
        signs_untrained=_signs_untrained(subject, every) | scatter.get(UNTRAINED, {}) if wear is not None else {},
        covered=covered,
        other_clusters=others,
        missing=missing,
    )


def heat_on_parts(
    subject: Subject, rows: np.ndarray, method: Method, seed: int
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Where a method's maps for the own cluster and those of its controls lie, and how scattered they are.

    Returns:
        Whose map ("" is the method's) -> part -> (n,) density; whose ("" and UNTRAINED) -> (n,), more is scattered.
    """
    shares, own = Shares(), {method.title + whose: whose for whose in ("", UNTRAINED)}
    scattered: dict[str, list[np.ndarray]] = {whose: [] for whose in own.values()}
    for some in _batches(rows, "heat on the coin's parts"):
        parts = [parts_of(subject, row) for row in some.tolist()]
        drawn = draw_heats(subject, some, (method,), seed, parts)
        shares.add(drawn, parts)
        for name, whose in own.items():
            scattered[whose].append(-concentration(drawn[name]))
    told = [name for name in shares.on if name not in (ALL, UNIFORM)]  # a claim knows what is chance
    heat = {"" if name == method.title else name: densities(shares, name) for name in told}
    return heat, {whose: np.concatenate(found) for whose, found in scattered.items()}


def _batches(rows: np.ndarray, what: str) -> Iterator[np.ndarray]:
    for begin in progress(range(0, len(rows), BATCH), what, unit="batches"):
        yield rows[begin : begin + BATCH]


@dataclass(frozen=True)
class Shot:
    """A photograph that is not the run's, as the run sees it."""

    pixels: np.ndarray  # (H, W, 3) uint8, decoded
    drawn: np.ndarray  # (height, width, 3) uint8, of the view
    place: Place | None
    masks: dict[str, np.ndarray]  # (h, w) bool, of a copy of the photograph of any size


def heat_when_turned(sample: Sample, method: Method, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Densities for the own cluster when the coin lies otherwise, on the bars turned with it: how -> bar -> (n,).

    The photograph turned takes its lamp with it, so what stays is no matter of what is across and what is down. Only a
    coin painted anew under the same lamp tells the bar from the light.
    """
    subject, rows = sample.subject, sample.rows
    dataset, seen = subject.pictures.dataset, subject.run.meta.view
    positions = subject.pictures.position[rows].tolist()
    jobs = [
        (np.rot90(dataset.decoded[at]).copy(), _turned(dataset.mask(at) or {}), seen.name, seen.size)
        for at in positions
    ]
    shots = progress(map_processes(_shoot, jobs, len(jobs)), "turning photographs", total=len(jobs))
    found = {TURNED: _heat_of_shots(subject, rows, list(shots), method)}
    painted = can_be_painted(sample)
    if painted is not None:
        some = np.sort(np.random.default_rng(derive_seed(seed, 0, "turned")).permutation(len(rows))[:REPAINTED])
        again = [_turning(subject, int(row), painted) for row in rows[some]]
        done = progress(map_processes(_paint_turned, again, len(again)), "turning coins", total=len(again))
        turned = _heat_of_shots(subject, rows[some], list(done), method)
        found[UNDER_THE_LAMP] = {name: _spread(values, some, len(rows)) for name, values in turned.items()}
    return found


def _turned(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.rot90(mask).copy() for name, mask in masks.items()}


def _shoot(job: tuple[np.ndarray, dict[str, np.ndarray], str, int]) -> Shot:
    pixels, masks, view, size = job
    return Shot(pixels, *look_at(pixels, view, size), masks)


def _turning(subject: Subject, row: int, painted: PaintedSet) -> tuple[int, PaintedSet, float, View]:
    number, turn = painted.number_of(subject.run.ids[row]), float(truth_of(subject, row)["turn_degrees"])
    return number, painted, turn - 90, subject.run.meta.view


def _paint_turned(job: tuple[int, PaintedSet, float, View]) -> Shot:
    number, painted, turn, seen = job
    picture, bits, facts = repaint_with_mask(number, painted.seed, painted.count, {"turn": turn})
    pixels = decode(as_jpeg(picture, facts["jpeg_quality"]), seen.decoded_side, seen.decode_at_most)
    return _shoot((pixels, split_mask(bits), seen.name, seen.size))


def _heat_of_shots(subject: Subject, rows: np.ndarray, shots: Sequence[Shot], method: Method) -> dict[str, np.ndarray]:
    """Densities on both bars of the maps of `shots`, for the clusters of images `rows` (n,)."""
    shares, seen = Shares(), subject.run.meta.view
    for begin in progress(range(0, len(rows), BATCH), "heat of turned coins", unit="batches"):
        some, batch = rows[begin : begin + BATCH], shots[begin : begin + BATCH]
        images = images_of(subject.run, subject.trainer, [shot.drawn for shot in batch], subject.device)
        heat = heats_of(subject.model, images, own_targets(subject, some), (method,))[method.title]
        drawn, parts = [], []
        for shot, one in zip(batch, heat, strict=True):
            window = subject.window(shot.pixels.shape, shot.place)
            if shot.place is not None:
                one = to_photograph(one, seen.name, shot.place, window, seen.size, subject.size)
            drawn.append(one)
            masks = {
                name: window.times(min(mask.shape) / min(shot.pixels.shape[:2])).cut(
                    mask.astype(np.float32), subject.size
                )
                > 0.5
                for name, mask in shot.masks.items()
            }
            parts.append({COIN: masks[COIN]} | {name: arm & masks[COIN] for name, arm in arms_of(masks).items()})
        shares.add({"": np.stack(drawn)}, parts)
    return {name: shares.density("", name) for name in (HORIZONTAL, VERTICAL)}


def cover(subject: Subject, rows: np.ndarray, fields: np.ndarray) -> dict[str, np.ndarray]:
    """Probability of the own cluster that is lost when a part of a coin with an axe is painted over.

    Painted over is what the metal around it lets expect (inpainting), on the photograph, which is then seen anew.

    Args:
        subject: whose network.
        rows: (n,) images.
        fields: (n, 4) their symbols.

    Returns:
        What -> (2, n): lost by covering that, and by covering its own shape where nothing is struck. NaN: not there.
    """
    dataset, seen = subject.pictures.dataset, subject.run.meta.view
    lost = {what: np.full((2, len(rows)), np.nan) for what in (AXES, OTHER_SYMBOLS, BAR, OTHER_BAR)}
    with_axe = np.flatnonzero((fields == "axe").any(1))
    for some in _batches(with_axe, "covering symbols"):
        drawn, what_of = [], []
        for at in some.tolist():
            position = int(subject.pictures.position[rows[at]])
            pixels, masks = np.array(dataset.decoded[position]), dataset.mask(position) or {}
            place = None if seen.name == PHOTOGRAPH else dataset.find_places()[position]
            for which, mask in {("", 0): np.zeros_like(masks[COIN]), **to_cover(masks, fields[at].tolist())}.items():
                shape = (pixels.shape[1], pixels.shape[0])
                small = cv2.resize(mask.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST)
                grown = cv2.dilate(small, np.ones((2 * round(GROWN / 2 * len(pixels)) + 1,) * 2, np.uint8))
                changed = cv2.inpaint(pixels, grown, 3, cv2.INPAINT_TELEA) if mask.any() else pixels
                drawn.append(changed if place is None else VIEWS[seen.name].draw(changed, place, seen.size))
                what_of.append((*which, at))
        columns = subject.clusters.column_of(subject.clusters.assignment[rows[[at for *_, at in what_of]]])
        probability = answers_of(subject, drawn)[np.arange(len(drawn)), columns]
        before = {at: value for (what, _, at), value in zip(what_of, probability, strict=True) if what == ""}
        for (what, spare, at), value in zip(what_of, probability, strict=True):
            if what:
                lost[what][spare, at] = before[at] - value
    return lost


def to_cover(masks: Masks, fields: Sequence[str]) -> dict[tuple[str, int], np.ndarray]:
    """What is covered of a coin with axes: (what, 0) -> its pixels (H, W) bool; (what, 1): its shape elsewhere.

    A turn about the coin's middle brings symbols onto other fields, and a bar onto the diagonal of two opposite ones;
    only if these are empty and nothing of the cross is there, it is a fair comparison.
    """
    axes = [place for place, name in enumerate(fields) if name == "axe"]
    others = [place for place, name in enumerate(fields) if name not in ("", "axe")]
    empty = {place for place, name in enumerate(fields) if not name}
    found = {}
    for what, places in ((AXES, axes), (OTHER_SYMBOLS, others)):
        if places:
            found[what, 0] = np.any([masks[f"field{place}"] for place in places], axis=0)
            turns = [quarter for quarter in (1, 2, 3) if {(place + quarter) % 4 for place in places} <= empty]
            if turns:
                found[what, 1] = _turned_about(found[what, 0], masks[COIN], 90 * turns[0])
    for what, name, falls_on in ((BAR, HORIZONTAL, {0, 2}), (OTHER_BAR, VERTICAL, {1, 3})):  # turned to the right
        found[what, 0] = arms_of(masks)[name]
        turn = 45 if falls_on <= empty else -45 if {0, 1, 2, 3} - falls_on <= empty else 0
        if turn:
            found[what, 1] = _turned_about(found[what, 0], masks[COIN], turn) & ~masks["cross"]
    return found


def _turned_about(mask: np.ndarray, coin: np.ndarray, degrees: float) -> np.ndarray:
    """A mask (H, W) bool turned to the right about the middle of the coin's."""
    middle = np.argwhere(coin).mean(0)[::-1]
    turn = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), -degrees, 1)
    return cv2.warpAffine(mask.astype(np.uint8), turn, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0


def bad_pictures(subject: Subject, rows: np.ndarray) -> np.ndarray | None:
    """Why each picture of images `rows` is bad, "" if it is not: (N,) str. By the truth, else by `datasets check`.

    None where that cannot be told: pictures that show no coin.
    """
    dataset, positions = subject.pictures.dataset, subject.pictures.position[rows]
    truths = [dataset.truth(int(at)) for at in positions]
    if all(truth is not None and "quality" in truth for truth in truths):
        qualities = [truth["quality"] for truth in truths if truth is not None]
        return np.array(["" if quality == "good" else quality for quality in qualities])
    if dataset.root is None:
        return None
    report = examine(replace(dataset, pixels=dataset.decoded).take(positions))
    reasons = dict.fromkeys(report.blurred, "blurred") | dict.fromkeys(report.dark, "dark")
    return np.array([reasons.get(dataset.ids[at], "") for at in positions])


def _measured(subject: Subject, rows: np.ndarray, has_coin: bool) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """(N,) sharpness of the square about each coin, and (N,) brightness off it."""
    dataset = subject.pictures.dataset
    if not has_coin or dataset.root is None:
        return None, None
    places, sharp, ground = dataset.find_places(), np.zeros(len(rows)), np.zeros(len(rows))
    for at, position in enumerate(progress(subject.pictures.position[rows].tolist(), "looking at photographs")):
        pixels = dataset.decoded[position]
        grey = pixels.mean(2, dtype=np.float32)
        sharp[at] = sharpness(Window.about(places[position], grey.shape).cut(grey, subject.size))
        off = ~places[position].mask(grey.shape)
        ground[at] = np.median(grey[off]) if off.any() else np.nan
    return sharp, ground


def _levels(values: np.ndarray) -> np.ndarray:
    """(N,) -> 0..LEVELS - 1, as many of each; NaN is a level of its own."""
    edges = np.nanquantile(values, np.arange(1, LEVELS) / LEVELS)
    return np.where(np.isfinite(values), np.searchsorted(edges, values), LEVELS)


def _pixel_clusters(subject: Subject, rows: np.ndarray, seed: int) -> np.ndarray:
    dataset = subject.pictures.dataset.take(subject.pictures.position[rows])
    k = len(np.unique(subject.clusters.assignment[rows]))
    pixels = raw_pixels(Material(dataset, run_config(subject.run), torch.device("cpu")))
    return partition(pixels, "kmeans", k, derive_seed(seed, 0, "k-means on pixels")).assignment


def _signs(sample: Sample, rows: np.ndarray) -> dict[str, np.ndarray]:
    """In words, what is larger where a coin is recognised worse -> (N,)."""
    subject, scores = sample.subject, sample.scores
    signs = {
        LOST: 1 - scores.probability[rows],
        DISTANCE: subject.clusters.distance[rows],
        OTHER: np.where(np.isfinite(scores.margin[rows]), scores.margin[rows] < 0, np.nan),
    }
    labels = subject.run.labels
    if labels is not None:
        codes = np.unique([labels[row] for row in rows], return_inverse=True)[1]
        own = np.unique(subject.clusters.assignment[rows], return_inverse=True)[1]
        table = np.zeros((int(own.max()) + 1, int(codes.max()) + 1))
        np.add.at(table, (own, codes), 1)
        signs["another label than most of its cluster"] = (table.argmax(1)[own] != codes).astype(float)
    return signs


def _signs_untrained(subject: Subject, rows: np.ndarray) -> dict[str, np.ndarray]:
    """The same signs, where they are a network's, of the network before its training: what the pictures do alone."""
    config = run_config(subject.run)
    features, logits = subject.predict_all(subject.untrained)
    at = np.searchsorted(subject.pictures.present, rows)
    features, logits = features[at], logits[at].astype(np.float64)
    codes = np.unique(subject.clusters.assignment[rows], return_inverse=True)[1]
    column = subject.clusters.column_of(subject.clusters.assignment[rows])
    own = logits[np.arange(len(rows)), column]
    seen = pca_whiten(torch.as_tensor(features), config.pca, config.whiten_power)
    return {
        LOST: 1 - np.exp(own - np.logaddexp.reduce(logits, axis=1)),
        DISTANCE: distance_to_centroid(seen, codes, int(codes.max()) + 1).astype(np.float64),
        OTHER: (logits.argmax(1) != column).astype(float),
    }


def _spread(values: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    found = np.full(count, np.nan)
    found[places] = values
    return found
