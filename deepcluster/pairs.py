"""Each coin of a run beside its nearest ones, laid on one another and compared: an explanation without a network.

The network only proposes: which coins lie nearest in what was clustered. What is compared and shown is the relief
itself (deepcluster.alignment). Found pairs are kept in pieces, so a command that was stopped goes on.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from console import UserError, progress
from console.pages import templates_in
from datasets import Pixels
from datasets.places import Place
from deepcluster.alignment import Alignment, Face, agreement, align, face_of, overlay
from deepcluster.compare import join, read_labels, strata_of
from deepcluster.descriptors import facts_of, unrolled_spectra
from deepcluster.features import embed
from deepcluster.lift import INTERVAL, Estimate, nearest
from deepcluster.train import reduce
from deepcluster.trained import TrainedRun, open_images
from deepcluster.views import Frames
from machine.device import use_device
from machine.files import locked, write_atomic, write_csv, write_json
from machine.seeds import derive_seed
from runs.meta import code_digest

FACES = 400  # kept at once, a megabyte each
PIECE = 32  # coins whose pairs are kept in one file
JUDGED = 20_000  # pairs of labelled coins that are compared at most, drawn from all
PERMUTATIONS = 999
QUALITY = 88  # of the pictures' JPEG
AGREES, DIFFERS = (40, 130, 255), (255, 110, 0)  # also told apart without seeing red or green
SAME = 0.4  # correlation of the reliefs from which on a place is drawn as agreeing
TEMPLATES = Path(__file__).parent / "templates"
PAGES = templates_in(TEMPLATES)


@dataclass(frozen=True)
class Asked:
    """What the pieces that are kept were made from; others are thrown away."""

    run: str
    epoch: int
    nearest: int
    code: str


def pairs_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster pairs`: pairs.csv, pictures and index.html in RUN/pairs/."""
    run = TrainedRun(options.run)
    labelled = None
    if options.labels is not None:
        labelled = join(run, read_labels(options.labels), options.labels)
        strata = strata_of(run, labelled, options.within, options.labels)
    elif options.within is not None:
        raise UserError("--within says which labelled coins are compared: name their table with --labels too")
    clusters = run.frame()["cluster"].to_numpy()
    device = use_device(options.device, run.run.meta.stamp.threads)
    network = run.network(options.epoch)
    dataset = open_images(run.run, options.data, options.workers, options.mnist_dir)
    if dataset.ids != run.run.ids:
        raise UserError(f"{options.data}: not the images of this run: name the folder that it was trained on")
    if len(dataset) < 2:
        raise UserError(f"{run.run.path}: holds one image: a pair needs two")
    out: Path = run.run.path / "pairs"
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    with locked(out, "another command is writing pairs here: wait for it"):
        features = embed(network.to(device), Frames(dataset.pixels, device), run.config, "embedding").features
        x = reduce(features, run.config, facts_of(dataset, run.config))
        near = nearest(x, None, min(options.nearest, len(dataset) - 1))
        epoch = options.epoch or run.run.checkpoints()[-1]
        asked = Asked(run.run.identity, epoch, options.nearest, code_digest(("deepcluster", "datasets")))
        coins = Coins(dataset.decoded, dataset.find_places(options.workers))
        found = find_pairs(coins, near, out / ".pieces", asked)
        shown = draw_pairs(coins, found, options.pictures, out / "pictures")
        write_csv(out / "pairs.csv", table(dataset.ids, clusters, near, found))
        write_page(out / "index.html", run.run.path.resolve().name, dataset.ids, clusters, found, shown)
        print(f"{out}/pairs.csv: {len(found)} pairs of {len(dataset)} coins, each with its {near.shape[1]} nearest")
        print(f"{out}/index.html: the {len(shown)} that agree best")
        if labelled is not None:
            seed = derive_seed(run.config.seed, 0, "pairs")
            rows = judge(coins, x, labelled.rows, np.array(labelled.labels), strata, seed)
            say_auc(rows, options.within, out / "auc.csv")


class Coins:
    """The coins of N images, brought to one size when they are asked for."""

    def __init__(self, pixels: Pixels, places: list[Place]):
        self.pixels, self.places = pixels, places
        self.face: Callable[[int], Face] = lru_cache(FACES)(lambda row: face_of(pixels[row], places[row]))


Found = dict[tuple[int, int], Alignment]  # (first, other), rows, the smaller one first


def find_pairs(coins: Coins, near: np.ndarray, folder: Path, asked: Asked) -> Found:
    """Compare each coin with its nearest: what lies in `folder` from before is taken from there.

    Args:
        coins: N of them.
        near: (N, count) rows of the nearest others; -1 where there are no more.
        folder: for the pieces.
        asked: what they are made from.
    """
    folder.mkdir(exist_ok=True)
    stored = folder / "asked.json"
    if not stored.exists() or stored.read_text() != json.dumps(asdict(asked), indent=1) + "\n":
        for old in folder.glob("*.npz"):
            old.unlink()
        write_json(stored, asdict(asked))
    pairs = np.array(sorted({(min(i, j), max(i, j)) for i, row in enumerate(near.tolist()) for j in row if j >= 0}))
    found: Found = {}
    starts = range(0, len(coins.places), PIECE)
    for begin in progress(starts, "comparing coins", unit=f"times {PIECE} coins"):
        mine = pairs[(pairs[:, 0] >= begin) & (pairs[:, 0] < begin + PIECE)]
        found |= _piece(coins, mine, folder / f"{begin:06d}.npz")
    return found


def _piece(coins: Coins, pairs: np.ndarray, path: Path) -> Found:
    if not path.exists():
        found = list(compare_pairs(coins, pairs))
        numbers = np.array([[*one[:-1]] for one in found], np.float64).reshape(len(pairs), -1)
        maps = np.array([one.to_first for one in found], np.float64).reshape(-1, 2, 3)
        write_atomic(path, lambda file: np.savez(file, pairs=pairs, numbers=numbers, maps=maps), durable=False)
    with np.load(path, allow_pickle=False) as stored:
        return {
            (int(i), int(j)): Alignment(*[*numbers.tolist(), to_first])
            for (i, j), numbers, to_first in zip(stored["pairs"], stored["numbers"], stored["maps"], strict=True)
        }


def compare_pairs(coins: Coins, pairs: np.ndarray) -> Iterator[Alignment]:
    """Of (P, 2) rows, ascending, the other coin laid on the first; those of one first coin at once."""
    for first in np.unique(pairs[:, 0]) if len(pairs) else ():
        others = pairs[pairs[:, 0] == first, 1]
        yield from align(coins.face(int(first)), [coins.face(int(other)) for other in others])


def table(ids: Sequence[str], clusters: np.ndarray, near: np.ndarray, found: Found) -> list[dict[str, object]]:
    """A row for each coin and each of its nearest, the best agreeing first."""
    rows: list[dict[str, object]] = []
    for i, others in enumerate(near.tolist()):
        mine = []
        for j in others:
            if j >= 0:
                one = found[min(i, j), max(i, j)]
                turn = one.rotation if i < j else -one.rotation
                mine.append((one, turn, j))
        rows += [
            {
                "image": ids[i],
                "other": ids[j],
                "score": f"{one.score:.4f}",
                "rotation": f"{turn:.1f}",
                "same_cluster": "yes" if clusters[i] == clusters[j] else "no",
                "edges": f"{one.edges:.4f}",
                "light": f"{one.light:.4f}",
                "relief": f"{one.relief:.4f}",
            }
            for one, turn, j in sorted(mine, key=lambda each: -each[0].score)
        ]
    return rows


def draw_pairs(coins: Coins, found: Found, count: int, folder: Path) -> list[tuple[int, int]]:
    """Draw the `count` pairs that agree best, and return them; pictures that are there already stay."""
    best = sorted(found, key=lambda pair: (-found[pair].score, pair))[:count]
    wanted = {name_of(pair, found[pair]) for pair in best}
    for old in folder.glob("*.jpg"):
        if old.name not in wanted:
            old.unlink()
    missing = [pair for pair in best if not (folder / name_of(pair, found[pair])).exists()]
    for pair in progress(sorted(missing), "drawing pairs", unit="pairs"):
        drawn = picture(coins.face(pair[0]), coins.face(pair[1]), found[pair])
        done, jpeg = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not done:
            raise OSError(f"{folder}: a picture could not be encoded")
        write_atomic(folder / name_of(pair, found[pair]), jpeg.tobytes(), durable=False)
    return best


def name_of(pair: tuple[int, int], one: Alignment) -> str:
    """File of a pair's picture: another score or turn is another picture."""
    return f"{pair[0]:06d}-{pair[1]:06d}-{round(1e4 * one.score)}-{round(10 * one.rotation)}.jpg"


def picture(first: Face, other: Face, one: Alignment) -> np.ndarray:
    """(S, 3 S + gaps, 3) uint8: the first coin; the other as it lies on it; blue where they agree, orange where not."""
    scale = 2
    agreed, energy = (cv2.resize(x, None, fx=scale, fy=scale) for x in agreement(first, other, one.to_first))
    panels = [
        cv2.resize(panel, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        for panel in (first.picture, overlay(other, one.to_first))
    ]
    grey = cv2.cvtColor(panels[0], cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    ground = 50 + 0.7 * grey
    tint = np.where(agreed[..., None] > SAME, AGREES, DIFFERS)
    strength = (0.8 * np.minimum(np.abs(agreed - SAME) / SAME, 1) * energy / (energy + 1))[..., None]
    panels.append(np.clip(ground * (1 - strength) + tint * strength, 0, 255).astype(np.uint8))
    gap = np.full((panels[0].shape[0], 6, 3), 255, np.uint8)
    return np.hstack([panels[0], gap, panels[1], gap, panels[2]])


def write_page(
    path: Path, name: str, ids: Sequence[str], clusters: np.ndarray, found: Found, shown: list[tuple[int, int]]
) -> None:
    cards = [
        {
            "picture": f"pictures/{name_of(pair, found[pair])}",
            "image": ids[pair[0]],
            "other": ids[pair[1]],
            "score": f"{found[pair].score:.2f}",
            "rotation": f"{found[pair].rotation:.0f}",
            "clusters": [int(clusters[row]) for row in pair],
        }
        for pair in shown
    ]
    page = PAGES.get_template("pairs.html").render(run=name, cards=cards, pairs=len(found), coins=len(ids))
    write_atomic(path, page.encode("utf-8", "surrogateescape"), durable=False)


# --- measured against labels --------------------------------------------------------------------------------------


def judge(
    coins: Coins, x: np.ndarray, rows: np.ndarray, labels: np.ndarray, strata: np.ndarray, seed: int
) -> list[tuple[str, Estimate, int, int]]:
    """AUC of same label against different, among pairs of labelled coins of one stratum, of the score and baselines.

    Args:
        coins: all of the run.
        x: (N, d) their clustered features.
        rows: (M,) the labelled ones, ascending.
        labels: (M,) of them.
        strata: (M,) what is held fixed.
        seed: of the pairs that are drawn, if there are more than 20,000, and of the permutations.

    Returns:
        For each measure its name, AUC, pairs of one label and pairs of different ones.
    """
    i, j = np.triu_indices(len(rows), 1)
    within = np.flatnonzero(strata[i] == strata[j])
    if len(within) > JUDGED:
        within = np.sort(np.random.default_rng(seed).choice(within, JUDGED, replace=False))
    i, j = i[within], j[within]
    same = labels[i] == labels[j]
    if same.all() or not same.any():
        which = "different labels" if same.all() else "one label"
        raise UserError(f"--labels: no two of its coins that are compared have {which}: nothing to measure")
    pairs = np.stack([rows[i], rows[j]], 1)
    compared = list(progress(compare_pairs(coins, pairs), "comparing labelled coins", len(pairs), "pairs"))
    spectra = unrolled_spectra(coins.pixels.take(rows), [coins.places[row] for row in rows.tolist()])
    spectra -= spectra.mean(0)
    spectra /= np.maximum(np.linalg.norm(spectra, axis=1, keepdims=True), 1e-9)
    measures = {
        "score of the pair": np.array([one.score for one in compared]),
        "its relief alone": np.array([one.relief for one in compared]),
        "clustered features, cosine": (x[rows[i]] * x[rows[j]]).sum(1),
        "unrolled spectrum, cosine": (spectra[i] * spectra[j]).sum(1),
    }
    count = int(same.sum())
    return [
        (name, _estimate(values, labels, strata, i, j, seed), count, len(same) - count)
        for name, values in measures.items()
    ]


def _estimate(
    values: np.ndarray, labels: np.ndarray, strata: np.ndarray, i: np.ndarray, j: np.ndarray, seed: int
) -> Estimate:
    """The AUC, beside what it is for labels that are dealt out anew within each stratum."""
    value = float(roc_auc_score(labels[i] == labels[j], values))
    rank = values.argsort().argsort() + 1.0
    rng, chance = np.random.default_rng(seed), []
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    for _ in range(PERMUTATIONS):
        dealt = labels.copy()
        for rows in members:
            dealt[rows] = rng.permutation(labels[rows])
        same = dealt[i] == dealt[j]
        positive, negative = int(same.sum()), int((~same).sum())
        if positive and negative:
            chance.append((rank[same].sum() - positive * (positive + 1) / 2) / (positive * negative))
    low, high = np.quantile(chance, INTERVAL)
    return Estimate(value, float(low), float(high), (1 + sum(c >= value for c in chance)) / (1 + len(chance)))


def say_auc(rows: list[tuple[str, Estimate, int, int]], within: str | None, path: Path) -> None:
    same, different = rows[0][2:]
    print(
        f"\nAUC of one label against different ones, {same} and {different} pairs of coins "
        f"{'of all' if within is None else f'of one {within}'}; .5 is chance, in brackets what labels that say nothing "
        "give:"
    )
    for name, estimate, _, _ in rows:
        print(f"  {name:<28}{estimate}")
    content: list[dict[str, Any]] = [
        {"what": name, "within": within or "", "same": same, "different": different}
        | {key: f"{value:.4f}" for key, value in asdict(estimate).items()}
        for name, estimate, same, different in rows
    ]
    write_csv(path, content)
