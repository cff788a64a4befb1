"""Whether an explanation depends on what was learnt: the same method on the network before its training.

The gallery shows one figure of it for each method; the audit gives random weights layer by layer, from the head down.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from console import progress
from explain.attribution import Asked, attribute
from explain.attribution.registry import PHOTOGRAPH
from explain.audit import findings
from explain.audit.controls import BATCH, BATCH_OF_MANY_PASSES, own_targets, partners_of
from explain.audit.findings import Figure, Finding, Measured, join_words, mean_of
from explain.choice import target_weights
from explain.record import Explanation
from explain.subject import Subject
from machine.files import write_json
from machine.reading import Between, Damaged, read_json, typed
from machine.seeds import derive_seed

SAMPLE = 32  # images
DRAWS = 5  # of random weights: those that the training started from, and others
PART = "randomisation"
RANK, STRUCTURE = "rank correlation", "SSIM"
HEAD, ALL = "random weights in the head alone", "random weights everywhere"
DOWN_TO = "random weights from the head down to {}"
SPREAD = "standard deviation between draws"
OF_ANOTHER = "maps of two images"  # of two clusters: what likeness is held against
LEAST = 0.1  # of a likeness above that, from which a map is said not to ask the weights
LAST = "head"
WINDOW, SIGMA, STEADY = (11, 11), 1.5, (0.01, 0.03)  # of SSIM, as in Wang et al. 2004


def random_weights_correlation(explanation: Explanation) -> dict[str, float]:
    """Rank correlation with the maps of the untrained network, by the key of each method that is drawn by default.

    Measured once on a few images, and kept for each method and target beside the epoch's pieces, also for later calls
    that ask for other methods.
    """
    subject, choice = explanation.subject, explanation.choice
    path = explanation.folder / ".random-weights.json"
    try:
        kept = typed(dict[str, dict[str, Annotated[float, Between(-1.001, 1.001)]]], read_json(path, ""), path, "")
    except (FileNotFoundError, Damaged):
        kept = {}  # not measured yet, or damaged, or of an older version
    known = kept.get(choice.target, {})
    wanted = [asked for asked in choice.maps if asked.method.default]
    missing = [asked for asked in wanted if asked.key not in known]
    sample = np.random.default_rng(subject.seed).permutation(explanation.rows)[:SAMPLE]
    if missing and len(sample):
        weights = target_weights(subject, choice.target, sample, explanation.scores)
        known |= against_random_weights(subject, sample, weights, missing)
        write_json(path, kept | {choice.target: known})
    return {asked.key: known[asked.key] for asked in explanation.record.drawn() if asked.key in known}


def against_random_weights(
    subject: Subject, rows: np.ndarray, weights: torch.Tensor, methods: Sequence[Asked]
) -> dict[str, float]:
    """Rank correlation of each method's maps with those of the same network before any training.

    Adebayo et al. 2018 (section 3, with all layers randomised at once): a map that hardly changes cannot tell what the
    network learnt. Spearman's correlation over pixels of the absolute maps (maximum over channels), mean over the
    images whose two maps both say something; 1: the same, 0: unrelated. A method with no such image is left out.

    Args:
        subject: whose network is explained.
        rows: (B,) images of the run.
        weights: (B, K) of the logits that are explained.
        methods: to measure.
    """
    images = subject.images(rows)
    learnt, unlearnt = (attribute(model, images, weights, methods) for model in (subject.model, subject.untrained))
    found = {}
    for asked in methods:
        pairs = [
            (a.abs().amax(0).flatten(), b.abs().amax(0).flatten())
            for a, b in zip(learnt[asked.key], unlearnt[asked.key], strict=True)
        ]
        values = [_spearman(a, b) for a, b in pairs if a.max() > a.min() and b.max() > b.min()]
        if values:
            found[asked.key] = float(np.mean(values))
    return found


def _spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a.cpu().numpy(), b.cpu().numpy()).statistic)


# --- the audit ----------------------------------------------------------------------------------------------------


def measure(sample: findings.Sample, asked: findings.Asked) -> Measured:
    """Likeness of each method's maps to those of the network with random weights from the head down to each layer.

    Cascading randomisation (Adebayo et al. 2018, section 3), with the weights that the training started from and
    others drawn anew; a figure is the mean over these draws. Held against how alike the maps of two different images
    are anyway.
    """
    subject = sample.subject
    methods = [one for one in asked.methods if one.name != PHOTOGRAPH]
    rng = np.random.default_rng(derive_seed(asked.seed, 0, PART))
    rows = np.sort(rng.permutation(sample.rows)[:SAMPLE])
    if not len(rows) or not methods:
        return Measured([], missing=["Sanity: there is no image in a cluster, or no method, to measure."])
    learnt = maps_of(subject, subject.model, rows, own_targets(subject, rows), methods)
    like, depths = likeness_by_depth(subject, rows, methods, learnt)
    found: list[Finding] = []
    partner = partners_of(subject.clusters.assignment[rows], rng)
    for one in methods:
        other = likenesses(one, learnt[one.key], learnt[one.key][partner])
        for what, floor in other.items():
            of = like[one.title, what]
            floor = floor if len(rows) > 1 else np.full(1, np.nan)
            for depth, name in enumerate(depths[1:]):
                where = ALL if depth == len(depths) - 2 else HEAD if name == LAST else DOWN_TO.format(name)
                if where in (HEAD, ALL) or what == f"{RANK}, absolute maps":
                    measure = f"{what}, {where}"
                    found.append(_held(measure, one.title, _mean_of_draws(of[:, depth]), floor, asked.seed))
                    found.append(_spread(measure, one.title, of[:, depth]))
    across = "layers with random weights, counted from the head down"
    figures = {}
    for file, kind in (("sanity-rank", RANK), ("sanity-ssim", STRUCTURE)):
        lines = {
            f"{title}{what.removeprefix(kind)}": (
                list(map(float, range(len(depths)))),
                [1.0, *(mean_of(_mean_of_draws(values), asked.seed)[0] for values in of.swapaxes(0, 1))],
            )
            for (title, what), of in like.items()
            if what.startswith(kind)
        }
        figures[file] = Figure("How much of a map is there without what was learnt", across, kind, lines)
    return Measured(found, figures)


def likeness_by_depth(
    subject: Subject, rows: np.ndarray, methods: Sequence[Asked], learnt: Mapping[str, np.ndarray]
) -> tuple[dict[tuple[str, str], np.ndarray], list[str]]:
    """Likeness to maps of the trained network, by how many layers of it have random weights, DRAWS times drawn.

    Args:
        subject: whose network.
        rows: (B,) images.
        methods: whose maps.
        learnt: key of each method -> (B, C, H, W) its maps of the trained network.

    Returns:
        (title of the method, likeness) -> (DRAWS, layers, B); "trained" and the name of each layer, head first.
    """
    drawn: dict[tuple[str, str], list[list[np.ndarray]]] = {}
    targets = own_targets(subject, rows)
    depths: list[str] = []
    for draw in progress(range(DRAWS), "randomising layers", unit="draws"):
        first, depths = depths, ["trained"]
        for name, model in cascade(subject.model, subject.with_random_weights(draw)):
            if draw and name not in first:
                continue  # training left this layer as it was, which other weights do not
            depths.append(name)
            changed = maps_of(subject, model, rows, targets, methods)
            for one in methods:
                for what, values in likenesses(one, learnt[one.key], changed[one.key]).items():
                    of = drawn.setdefault((one.title, what), [[] for _ in range(DRAWS)])
                    of[draw].append(values)
    return {key: np.array(of) for key, of in drawn.items()}, depths


def _mean_of_draws(values: np.ndarray) -> np.ndarray:
    """(DRAWS, B) -> (B,) mean over the draws in which both maps say something; NaN where none does."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)


def _spread(measure: str, title: str, values: np.ndarray) -> Finding:
    """How far the figure of one draw of random weights is from that of another: standard deviation over the draws."""
    means = [one[np.isfinite(one)].mean() if np.isfinite(one).any() else np.nan for one in values]
    known = [one for one in means if np.isfinite(one)]
    value = float(np.std(known, ddof=1)) if len(known) > 1 else np.nan
    return Finding(PART, f"{measure}: {SPREAD}", title, value, n=len(known))


def cascade(trained: nn.Module, untrained: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """One copy of a network that takes the untrained weights, layer by layer from the head down: (layer, the copy).

    A layer is a convolution or linear map with the norms that follow it; those that training left alone are none. At
    last the copy is the untrained network.

    Args:
        trained: the network, which is left as it is.
        untrained: the same one before its training.
    """
    model, before = copy.deepcopy(trained), dict(untrained.named_modules())
    layers: list[list[str]] = []
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if any(True for _ in module.children()) or not module.state_dict():
            continue
        if not layers or (isinstance(weight, Tensor) and weight.dim() > 1):  # a norm's has one
            layers.append([])
        layers[-1].append(name)
    kinds = ["convolution" if _is_convolution(model.get_submodule(layer[0])) else "dense" for layer in layers]
    for i in reversed(range(len(layers))):
        same = True
        for name in layers[i]:
            own, first = model.get_submodule(name).state_dict(), before[name].state_dict()
            same &= all(torch.equal(own[key], first[key]) for key in own)
            model.get_submodule(name).load_state_dict(first)
        if not same:
            yield LAST if i == len(layers) - 1 else f"{kinds[i]} {kinds[: i + 1].count(kinds[i])}", model


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def maps_of(
    subject: Subject, model: nn.Module, rows: np.ndarray, targets: Tensor, methods: Sequence[Asked]
) -> dict[str, np.ndarray]:
    """Key of each method -> (B, C, H, W) float32 maps of images `rows` (B,) for a network's logits `targets` (B,)."""
    size = BATCH_OF_MANY_PASSES if any(one.method.passes == "many" for one in methods) else BATCH
    parts = []
    for begin in range(0, len(rows), size):
        some = slice(begin, begin + size)
        maps = attribute(model, subject.images(rows[some]), targets[some], methods)
        parts.append({key: values.detach().float().cpu().numpy() for key, values in maps.items()})
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def likenesses(asked: Asked, a: np.ndarray, b: np.ndarray) -> dict[str, np.ndarray]:
    """How alike maps are, pair by pair: what is compared, and how -> (B,); NaN where either map says nothing.

    Absolute maps (the largest of the channels), and of methods whose maps have signs the sums over channels too. SSIM
    is of maps over their own largest size.

    Args:
        asked: the method.
        a: (B, C, H, W) its maps.
        b: (B, C, H, W) what they are compared with.
    """
    pairs = {"absolute": (np.abs(a).max(1), np.abs(b).max(1))}
    if asked.method.kind in ("signed", "fine", "change"):
        pairs["signed"] = a.sum(1), b.sum(1)
    measures: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {RANK: rank_correlation, STRUCTURE: _likeness}
    return {
        f"{name}, {which} maps": np.array([compared(x, y) for x, y in zip(*both, strict=True)])
        for name, compared in measures.items()
        for which, both in pairs.items()
    }


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    return _spearman(torch.from_numpy(a.ravel()), torch.from_numpy(b.ravel()))


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    a, b = (one / np.abs(one).max() for one in (a, b))
    if min(a.min(), b.min()) < 0:  # 0 in the middle: of means to either side of 0 SSIM makes no sense
        a, b = (a + 1) / 2, (b + 1) / 2
    return structural_similarity(a, b)


def structural_similarity(a: np.ndarray, b: np.ndarray) -> float:
    """SSIM of two pictures (H, W) in 0..1: 1 if they are the same.

    Wang, Bovik, Sheikh & Simoncelli 2004, equation 13 under a Gaussian window, and its mean over the picture.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    first, second = (k**2 for k in STEADY)

    def local(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, WINDOW, SIGMA)

    mean_a, mean_b = local(a), local(b)
    together = local(a * b) - mean_a * mean_b
    spread = local(a * a) - mean_a**2 + local(b * b) - mean_b**2
    found = (2 * mean_a * mean_b + first) * (2 * together + second)
    return float((found / ((mean_a**2 + mean_b**2 + first) * (spread + second))).mean())


def _held(measure: str, title: str, values: np.ndarray, floor: np.ndarray, seed: int) -> Finding:
    """A likeness beside that of maps of two images, with what the difference on the same images says."""
    value, low, high, n = mean_of(values, seed)
    difference, above, below, _ = mean_of(values - floor, seed)
    verdict = ""
    if above > LEAST:
        verdict = f"more alike than {OF_ANOTHER}, by {difference:.2f}: hardly asks these weights"
    elif below < LEAST:
        verdict = f"no more alike than {OF_ANOTHER}: depends on these weights"
    elif np.isfinite(above):
        verdict = f"undecided beside {OF_ANOTHER}"
    return Finding(PART, measure, title, value, low, high, n, OF_ANOTHER, mean_of(floor, seed)[0], verdict=verdict)


def conclude(measured: Measured) -> list[str]:
    """Which methods' maps stay as they are without the head, and without anything, that was learnt."""
    said = []
    for where, words in ((HEAD, "the head alone is what it was before training"), (ALL, "everything is")):
        rows = [one for one in measured.findings if one.measure == f"{RANK}, absolute maps, {where}" and one.verdict]
        stay = [f"{one.of} ({one.value:.2f})" for one in rows if one.verdict.startswith("more alike")]
        change = [f"{one.of} ({one.value:.2f})" for one in rows if one.verdict.startswith("no more alike")]
        if stay:
            said.append(f"When {words}, maps of {join_words(stay)} stay more alike than maps of two images are.")
        if change:
            said.append(f"When {words}, maps of {join_words(change)} are as unlike as maps of two images.")
    return said
