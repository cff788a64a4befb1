"""Transform and load: an epoch's images -> results/<epoch>/<cluster>/<image>-<method>.png, piece by piece.

A piece is up to PIECE images. Its pictures are written, then its record under results/<epoch>/.pieces/; so a call that
was killed at any instant is continued by the next one, which does only what is missing.
"""

import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from console import UserError, progress
from explain.attribution import CORE, attribute
from explain.rendering import GRADIENTS, SUFFIX, draw, says_nothing, unit, write_picture
from explain.subject import Assignment, Subject
from runs.directory import atomic

PIECE = 256
DAMAGED = (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError)  # what reading a half or broken npz raises
BATCH = {"cpu": 32, "cuda": 256}
SLOW = ("score_cam", "ablation_cam")  # a forward for each channel
HEAT_CELLS = 16  # side of the Grad-CAM that a piece's record keeps of each image, for the cluster's mean
DEFAULT_METHODS = ("original", *CORE)


@dataclass(frozen=True)
class Choice:
    """What to explain, and how."""

    methods: tuple[str, ...]  # with "original"
    target: str  # "own", "rival", "margin" or a cluster's number
    clusters: tuple[int, ...] | None  # None: all
    per_cluster: int | None  # None: all
    pick: str  # "typical", "atypical" or "random"
    format: str
    map: str  # "pca" or "tsne"


@dataclass(frozen=True)
class Scores:
    """One forward over all images: what the tables and the map of the gallery say. NaN and -1 where nothing is known."""

    score: np.ndarray  # (N,) logit of the own cluster
    rival: np.ndarray  # (N,) the best other cluster
    margin: np.ndarray  # (N,) own logit minus the rival's
    place: np.ndarray  # (N, 2) in the map of all images
    rank: np.ndarray  # (N,) in the own cluster, 1 is the most typical; 0: none


class Record:
    """What has been drawn of an epoch: the union of its pieces."""

    def __init__(self, folder: Path, count: int):
        self.folder = folder
        self.done: dict[str, np.ndarray] = {}  # method -> (N,) bool
        self.empty: dict[str, np.ndarray] = {}  # method -> (N,) bool: the map says nothing
        self.heat: dict[int, np.ndarray] = {}  # image -> (HEAT_CELLS, HEAT_CELLS) Grad-CAM in 0..1
        self._count, self._pieces = count, 0
        for path in sorted(folder.glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as piece:
                    self._take({name: piece[name] for name in piece.files})
            except DAMAGED:
                path.unlink()  # damaged: its images are drawn again
                continue
            self._pieces = int(path.stem) + 1

    def add(self, piece: dict[str, np.ndarray]) -> None:
        atomic(self.folder / f"{self._pieces:06d}.npz", lambda file: np.savez(file, **piece))  # type: ignore[arg-type]
        self._pieces += 1
        self._take(piece)

    def _take(self, piece: dict[str, np.ndarray]) -> None:
        rows = piece["rows"]
        for column, method in enumerate(piece["methods"].tolist()):
            for table in (self.done, self.empty):
                table.setdefault(method, np.zeros(self._count, bool))
            self.done[method][rows] = True
            self.empty[method][rows] = piece["empty"][:, column]
        if "heat" in piece:
            self.heat |= dict(zip(rows.tolist(), piece["heat"], strict=True))


def score_images(subject: Subject, folder: Path, kind_of_map: str, seed: int) -> Scores:
    """Scores of all images, kept in `folder` for the next call."""
    path = folder / f".scores-{kind_of_map}.npz"
    present = subject.pictures.present
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as kept:
                if np.array_equal(kept["present"], present):
                    return Scores(*(kept[name] for name in Scores.__dataclass_fields__))
        except DAMAGED:
            pass  # damaged: computed again
    features, logits = subject.look()
    assignment, columns = subject.assignment, np.array(subject.assignment.columns)
    count = len(subject.run.ids)
    score, margin = np.full(count, np.nan), np.full(count, np.nan)
    rival = np.full(count, -1, np.int64)
    place = np.full((count, 2), np.nan)
    place[present] = two_dimensions(features, kind_of_map, seed)
    known = assignment.cluster[present] >= 0
    rows, logits = present[known], logits[known].astype(np.float64)
    own = np.searchsorted(columns, assignment.cluster[rows])
    score[rows] = logits[np.arange(len(rows)), own]
    if len(columns) > 1:
        others = logits.copy()
        others[np.arange(len(rows)), own] = -np.inf
        best = others.argmax(1)
        rival[rows] = columns[best]
        margin[rows] = score[rows] - others[np.arange(len(rows)), best]
    found = Scores(score, rival, margin, place, rank_in_cluster(assignment, score))
    arrays = {name: getattr(found, name) for name in Scores.__dataclass_fields__}
    atomic(path, lambda file: np.savez(file, present=present, **arrays))
    return found


def rank_in_cluster(assignment: Assignment, score: np.ndarray) -> np.ndarray:
    """1 is the most typical: nearest to the centroid, then, where no distance is known, the highest score."""
    rank = np.zeros(len(score), np.int64)
    order = np.lexsort((np.arange(len(score)), -np.nan_to_num(score, nan=-np.inf), assignment.distance))
    for cluster in np.unique(assignment.cluster[assignment.cluster >= 0]):
        members = order[assignment.cluster[order] == cluster]
        rank[members] = np.arange(1, len(members) + 1)
    return rank


def two_dimensions(features: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """(M, D) features -> (M, 2), each axis within -1..1."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(features.shape) < 3:
        return np.zeros((len(features), 2))
    components = min(50, *features.shape) if kind == "tsne" else 2
    place = PCA(components, svd_solver="randomized", random_state=seed).fit_transform(features)
    if kind == "tsne":
        perplexity = min(30, (len(features) - 1) / 3)
        place = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(place)
    return place / np.maximum(np.abs(place).max(0), 1e-12)


def check_choice(subject: Subject, choice: Choice) -> None:
    """Refuse clusters and targets that this epoch does not have, before anything is written."""
    columns = subject.assignment.columns
    asked = [("--clusters", number) for number in choice.clusters or ()]
    asked += [("--target", int(choice.target))] if choice.target.isdigit() else []
    for option, number in asked:
        if number not in columns:
            raise UserError(f"{option} {number}: this epoch has clusters {columns[0]} to {columns[-1]}")
    if not {*choice.methods} <= {"original", *GRADIENTS}:
        _ = subject.model.cam_layer  # refuses a network without convolutions
    if choice.target in ("rival", "margin") and len(columns) < 2:
        raise UserError(f"--target {choice.target}: there is only one cluster: explain --target own")


def chosen_rows(subject: Subject, choice: Choice, rank: np.ndarray) -> np.ndarray:
    """The images to explain, cluster by cluster, the most typical first."""
    cluster = subject.assignment.cluster
    rows = subject.pictures.present
    rows = rows[cluster[rows] >= 0]
    if choice.clusters is not None:
        rows = rows[np.isin(cluster[rows], choice.clusters)]
    rows = rows[np.lexsort((rank[rows], cluster[rows]))]
    if choice.per_cluster is None:
        return rows
    kept = []
    for number in np.unique(cluster[rows]):
        members = rows[cluster[rows] == number]
        if choice.pick == "typical":
            kept.append(members[: choice.per_cluster])
        elif choice.pick == "atypical":
            kept.append(members[-choice.per_cluster :])
        else:
            rng = np.random.default_rng([subject.seed, int(number)])
            drawn = rng.permutation(len(members))[: choice.per_cluster]
            kept.append(members[np.sort(drawn)])
    return np.concatenate(kept) if kept else rows


def draw_missing(subject: Subject, choice: Choice, rows: np.ndarray, scores: Scores, folder: Path) -> Record:
    """Draw each picture of `rows` that is not there yet."""
    record = Record(folder / ".pieces", len(subject.run.ids))
    paths = Paths(folder, subject.names, subject.assignment.cluster, choice.format)
    missing = {method: paths.missing(method, rows, record.done.get(method)) for method in choice.methods}
    todo = rows[np.any([missing[method] for method in choice.methods], axis=0)]
    absent = {method: set(rows[missing[method]].tolist()) for method in choice.methods}
    pieces = [todo[start : start + PIECE] for start in range(0, len(todo), PIECE)]
    batch = min(BATCH[subject.device.type], 8 if {*SLOW} & {*choice.methods} else PIECE)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        bar = progress(range(0, len(todo), batch), f"explaining epoch {subject.epoch}", -(-len(todo) // batch), "batch")
        for piece in pieces:
            written: list[Future[None]] = []
            parts = []
            for start in range(0, len(piece), batch):
                some = piece[start : start + batch]
                next(bar, None)
                methods = [m for m in choice.methods if any(row in absent[m] for row in some.tolist())]
                images = subject.images(some)
                maps = explain_batch(subject, images, target_weights(subject, choice.target, some, scores), methods)
                parts.append(summary(maps, methods, some))
                _wait(written)  # of the batch before: at most one batch waits for the disk
                written = hand_over(pool, subject, some, images, maps, absent, paths, choice.format)
            _wait(written)
            for group in _same_methods(parts):
                record.add(group)
        next(bar, None)
    return record


def explain_batch(subject: Subject, images: Tensor, weights: Tensor, methods: Sequence[str]) -> dict[str, np.ndarray]:
    """Maps (B, C, H, W) of each method but "original", float32."""
    computed = attribute(subject.model, images, weights, [method for method in methods if method != "original"])
    return {method: maps.float().cpu().numpy() for method, maps in computed.items()}


def target_weights(subject: Subject, target: str, rows: np.ndarray, scores: Scores) -> Tensor:
    """Weights of the logits (B, K): the score that is explained."""
    columns = np.array(subject.assignment.columns)
    weights = torch.zeros(len(rows), len(columns))
    own = np.searchsorted(columns, subject.assignment.cluster[rows])
    at = np.arange(len(rows))
    if target in ("rival", "margin"):
        rival = np.searchsorted(columns, scores.rival[rows])
        if target == "rival":
            weights[at, rival] = 1
        else:
            weights[at, own], weights[at, rival] = 1, -1
    elif target == "own":
        weights[at, own] = 1
    else:
        weights[:, int(np.searchsorted(columns, int(target)))] = 1
    return weights.to(subject.device)


def summary(maps: dict[str, np.ndarray], methods: Sequence[str], rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the record keeps of a batch."""
    nothing = [[method != "original" and says_nothing(maps[method][i]) for method in methods] for i in range(len(rows))]
    kept = {"rows": rows, "methods": np.array(methods), "empty": np.array(nothing, bool).reshape(len(rows), -1)}
    if "grad_cam" in maps:
        heat = [unit(one[0]) for one in maps["grad_cam"]]
        whole = np.stack([np.zeros(maps["grad_cam"].shape[2:], np.float32) if one is None else one for one in heat])
        small = functional.adaptive_avg_pool2d(torch.from_numpy(whole), HEAT_CELLS)
        kept["heat"] = small.numpy().astype(np.float16)
    return kept


def hand_over(
    pool: ThreadPoolExecutor,
    subject: Subject,
    rows: np.ndarray,
    images: Tensor,
    maps: dict[str, np.ndarray],
    absent: dict[str, set[int]],
    paths: "Paths",
    kind: str,
) -> list[Future[None]]:
    """Let the pool draw and write a batch while the next one is computed."""
    photographs = subject.photographs(images)

    def one(i: int, row: int) -> None:
        for method, wanted in absent.items():
            if row not in wanted:
                continue
            photograph = photographs[i]
            if method == "original":
                picture = Image.fromarray(photograph)
            else:
                picture = draw(method, maps[method][i], photograph)
            write_picture(paths.of(row, method), picture, kind)

    for cluster in {int(subject.assignment.cluster[row]) for row in rows}:
        (paths.folder / str(cluster)).mkdir(exist_ok=True)
    return [pool.submit(one, i, int(row)) for i, row in enumerate(rows)]


class Paths:
    """Where the pictures of an epoch are."""

    def __init__(self, folder: Path, names: Sequence[str], cluster: np.ndarray, kind: str):
        self.folder, self.names, self.cluster, self.suffix = folder, names, cluster, SUFFIX[kind]

    def file(self, row: int, method: str) -> str:
        """Relative to the epoch's folder."""
        return f"{self.cluster[row]}/{self.names[row]}-{method}{self.suffix}"

    def of(self, row: int, method: str) -> Path:
        return self.folder / self.file(row, method)

    def missing(self, method: str, rows: np.ndarray, done: np.ndarray | None) -> np.ndarray:
        """(len(rows),) bool: not recorded, or its file is gone or empty."""
        if done is None:
            return np.ones(len(rows), bool)
        there = {cluster: _files(self.folder / str(cluster)) for cluster in np.unique(self.cluster[rows])}
        return np.array(
            [not done[row] or self.of(row, method).name not in there[self.cluster[row]] for row in rows], bool
        )


def _files(folder: Path) -> set[str]:
    """Names of the files with something in them."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.stat().st_size > 0}


def _wait(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()


def _same_methods(parts: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Batches of a piece with the same methods become one record."""
    groups: dict[tuple[str, ...], list[dict[str, np.ndarray]]] = {}
    for part in parts:
        groups.setdefault(tuple(part["methods"].tolist()), []).append(part)
    return [
        {key: same[0][key] if key == "methods" else np.concatenate([part[key] for part in same]) for key in same[0]}
        for same in groups.values()
    ]
