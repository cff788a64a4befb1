"""Read a checkpoint and cluster log of the original DeepCluster program into a run directory.

Nothing that is read can run code: weights come through torch.load(weights_only=True), the pickled log through an
unpickler that knows plain containers, numbers, strings and stand-ins for numpy's arrays, and no function or class
besides.

The original saves `checkpoint.pth.tar` at the end of every epoch and `checkpoints/checkpoint_N.pth.tar` within one.
Both state the epoch counted from 1, and both were trained on that epoch's clusters. The log has an entry for each
epoch that came to its end, and a resumed training begins a new log.
"""

import argparse
import io
import pickle
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor
from torchvision.datasets import ImageFolder

import runs
from console import UserError
from datasets import Dataset, open_dataset
from deepcluster.clustering import own_distance, reduced
from deepcluster.config import PAPER, Config
from deepcluster.launch import check_free, describe_run
from deepcluster.models import HIDDEN, ClusterNet, build
from deepcluster.train import cluster_table, describe, embed, model_arguments
from deepcluster.views import Frames, decoded_side
from machine import prepare
from runs import Clusters
from runs.directory import load_tensors

SIZE = 224  # the only one the original knows
# More than any training of the original had; beyond, a file is damaged or hostile.
MOST_EPOCHS, MOST_CLUSTERS, MOST_IMAGES = 1_000_000, 100_000, 100_000_000


def import_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster import`."""
    folder = options.old if options.old.is_dir() else options.old.parent
    checkpoint_path = options.old / "checkpoint.pth.tar" if options.old.is_dir() else options.old
    clusters_path = options.clusters or folder / "clusters"
    if options.clusters is None and folder.name == "checkpoints" and not clusters_path.exists():
        clusters_path = folder.parent / "clusters"
    for path in (checkpoint_path, clusters_path):
        if not path.is_file():
            raise UserError(
                f"{path}: no such file: import needs the original's checkpoint.pth.tar and its clusters file"
            )
    if (options.out / "run.json").exists():
        raise UserError(f"{options.out}: already a run directory: choose another --out")
    check_free(options.out)
    device = prepare(options.device)
    weights = read_checkpoint(checkpoint_path)
    log = read_clusters(clusters_path, weights.epoch, newest_epoch(checkpoint_path, clusters_path, weights.epoch))
    if log.clusters > weights.head_rows:
        raise UserError(
            f"{clusters_path}: counts {log.clusters} clusters, but the head in {checkpoint_path} knows only "
            f"{weights.head_rows}: give checkpoint and clusters of the same training"
        )
    dataset = open_dataset(str(options.data), decoded_side(SIZE), workers=options.workers)

    assignment, rows_of_log = match_images(log, dataset, options.data)
    used = np.flatnonzero(assignment >= 0)
    if len(used) < len(dataset):
        print(f"{len(dataset) - len(used)} images are in no cluster of the log and are left out")
        dataset, assignment = dataset.take(used), assignment[used]
    if rows_of_log > len(used):
        print(f"{rows_of_log - len(used)} images of the log are missing or unreadable in {options.data}")
    k = weights.head_rows
    model = convert(weights, log.order)
    config = original_config(weights)

    frames = Frames(dataset.pixels, device)
    embedding = embed(model.to(device), frames, config, "embedding")
    clusters = Clusters(assignment, own_distance(reduced(embedding.features, config.pca, config.whiten), assignment, k))
    meta = describe_run(config, dataset, None, device) | {"imported": checkpoint_path.name}
    run = runs.create(options.out, meta, dataset.ids, dataset.labels, dataset.skipped)
    epoch = weights.epoch
    run.write_clusters(epoch, clusters)
    run.write_checkpoint(epoch, {"epoch": epoch, "model": model.arguments, "state": model.cpu().state_dict()})
    run.write_table("clusters.csv", cluster_table(dataset.ids, clusters, embedding))
    row = describe(epoch, clusters, k, None, dataset.labels, embedding, None, None)
    run.write_log([row])
    empty = k - len(np.unique(assignment))
    print(
        f"{run.path}: epoch {epoch}, {len(dataset)} images in {k} clusters ({empty} empty); "
        f"the head agrees with the cluster of {row['head_share']:.0%} of the images"
    )
    doubt = doubt_about_rows(embedding.best_two[1][:, 0], assignment)
    if doubt is not None:
        print(doubt)


def doubt_about_rows(predicted: np.ndarray, assignment: np.ndarray) -> str | None:
    """A sentence if the head would agree markedly better with its rows exchanged; nothing is exchanged for it.

    The best exchange gains something by chance too; how much, the same clusters shuffled among the images show.

    Args:
        predicted: (N,) the head's first choice.
        assignment: (N,) the clusters.
    """

    def shares(clusters: np.ndarray) -> tuple[float, float]:
        return float((predicted == clusters).mean()), best_matching(predicted, clusters)

    own, best = shares(assignment)
    chance_own, chance_best = shares(np.random.default_rng(0).permutation(assignment))
    if best - own <= 0.1 + chance_best - chance_own:
        return None
    return (
        f"the head agrees with the clusters of {own:.0%} of the images, but would with {best:.0%} if its rows were "
        "exchanged: checkpoint and clusters may be of different epochs or trainings, or of a Python before 3.7 "
        "(2.7, say), which numbers the clusters in another order"
    )


def best_matching(predicted: np.ndarray, assignment: np.ndarray) -> float:
    """Share of the images on which two numberings agree under the best one-to-one matching of their numbers."""
    rows, row = np.unique(predicted, return_inverse=True)
    columns, column = np.unique(assignment, return_inverse=True)
    counts = scipy.sparse.coo_array((np.ones(len(row)), (row, column)), shape=(len(rows), len(columns)))
    alone = scipy.sparse.eye_array(len(rows)) * (0.5 / len(rows))  # a row may stay unmatched, for less than an image
    table = scipy.sparse.hstack([counts.tocsr(), alone]).tocsr()
    matched = table[min_weight_full_bipartite_matching(table, maximize=True)]
    return float(np.floor(matched.sum()) / len(row))


# --- the checkpoint -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    arch: str
    epoch: int
    sobel: bool
    head_rows: int
    state: dict[str, Tensor]  # names as in ClusterNet, the head's rows still in the original's order


def read_checkpoint(path: Path) -> Weights:
    """Read either file format of torch.

    Names are `features.module.*` or `features.*`, `sobel.*`, `classifier.*`, `top_layer.*`.

    Raises:
        UserError: if the file is damaged, or not a checkpoint of the original while it trains on clusters.
    """
    content = load_tensors(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path}: not a checkpoint of the original program (it has no state_dict)")
    arch = str(content.get("arch", "alexnet"))
    if arch not in ("alexnet", "vgg16"):
        raise UserError(f"{path}: its network is {arch}: only alexnet and vgg16 can be imported")
    epoch = _epoch_in(content)
    if epoch is None:
        raise UserError(f"{path}: does not say its epoch, a number from 1: import the file as the original saved it")
    state: dict[str, Tensor] = {}
    for name, value in content["state_dict"].items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: its state_dict holds more than named tensors: import the file as it was saved")
        name = (
            name.removeprefix("module.").replace("features.module.", "features.", 1).replace("top_layer.", "head.", 1)
        )
        layer = re.fullmatch(r"classifier\.(\d)\.(\w+)", name)
        if arch == "vgg16" and layer is not None:  # ours has a place for the first dropout, which VGG has not
            name = f"classifier.{int(layer[1]) + 1}.{layer[2]}"
        state[name] = value
    if "head.weight" not in state:
        raise UserError(
            f"{path}: it has no top_layer, so it knows no clusters: import a checkpoint saved while training"
        )
    shape = tuple(state["head.weight"].shape)
    if len(shape) != 2 or shape[1] != HIDDEN or "head.bias" not in state or state["head.bias"].shape != shape[:1]:
        raise UserError(f"{path}: its top_layer is not one of {HIDDEN} inputs: import the original's own network")
    if not 1 <= shape[0] <= MOST_CLUSTERS:
        raise UserError(f"{path}: its top_layer has {shape[0]} rows: only 1 to {MOST_CLUSTERS} can be imported")
    sobel = any(name.startswith("sobel.") for name in state)
    return Weights(arch, epoch, sobel, shape[0], state)


def _epoch_in(content: dict[str, Any]) -> int | None:
    epoch = content.get("epoch")
    return epoch if type(epoch) is int and 1 <= epoch <= MOST_EPOCHS else None


def newest_epoch(checkpoint: Path, clusters: Path, epoch: int) -> int | None:
    """The epoch that the whole training had reached, to which the log's last entry belongs, or None if unknown.

    The `checkpoint.pth.tar` beside the log says it. Where there is none, `checkpoint` itself is taken for the newest,
    unless its name says that it was saved within an epoch.

    Args:
        checkpoint: the file to be imported.
        clusters: the log.
        epoch: the checkpoint's.
    """
    beside = clusters.parent / "checkpoint.pth.tar"
    if beside.is_file() and not beside.samefile(checkpoint):
        try:
            content = load_tensors(beside)
        except UserError:  # a damaged newest checkpoint may be why an earlier one is imported
            return None
        return _epoch_in(content) if isinstance(content, dict) else None
    within = checkpoint.parent.name == "checkpoints" or re.match(r"checkpoint_\d", checkpoint.name)
    return None if within else epoch


def original_config(weights: Weights) -> Config:
    values = PAPER | {"arch": weights.arch, "sobel": weights.sobel, "k": weights.head_rows, "epochs": weights.epoch}
    return replace(Config(**values), size=SIZE)


def convert(weights: Weights, order: list[int]) -> ClusterNet:
    """The same network with logit j for cluster j.

    The original numbers only the clusters that are not empty, 0 .. m-1. The rows left over never learnt anything;
    they go to the empty clusters.

    Args:
        weights: of which the head's rows are in the original's order.
        order: the cluster of each of the head's first m rows.

    Raises:
        UserError: if the weights are not those of the original's network.
    """
    k = weights.head_rows
    occupied = set(order)
    model = build(model_arguments(original_config(weights)))
    row_of = np.empty(k, np.int64)
    row_of[[*order, *(j for j in range(k) if j not in occupied)]] = np.arange(k)
    state = dict(weights.state)
    for name in ("head.weight", "head.bias"):
        state[name] = state[name][torch.from_numpy(row_of)]
    own = model.state_dict()
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):  # older versions of torch did not count
            state.setdefault(name, value)
    wrong = [n for n in own if n not in state or state[n].shape != own[n].shape] + [n for n in state if n not in own]
    if wrong:
        raise UserError(
            f"the checkpoint's {wrong[0]} does not fit {weights.arch} at {SIZE} px with {HIDDEN} hidden units"
        )
    model.load_state_dict(state)
    return model.eval()


# --- the cluster log ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClusterLog:
    """One epoch's clusters: by index into ImageFolder's order, or by path."""

    clusters: int  # empty ones included
    by_index: dict[int, int] | None
    by_path: dict[str, int] | None
    rows: dict[int, int] | None = None  # cluster -> row of the head, where the log says it

    @property
    def occupied(self) -> list[int]:
        return sorted(set((self.by_path or self.by_index or {}).values()))

    @property
    def order(self) -> list[int]:
        """The cluster of the head's row 0, 1, ..., as the log says it, else as the original numbers them.

        The original makes a list of the images' clusters, cluster by cluster, and numbers the clusters as iterating
        a `set` of that list yields them. That is ascending only while the largest is below the size of the set's
        table: of 50 clusters with 4, 11, 19, 30, 41 and 49 occupied it yields 4, 41, 11, 49, 19, 30. A small number
        is its own hash and the table has grown by the same rule from CPython 3.7 to 3.13 at least, so a set made here
        the same way yields the same. Python 2 and 3.6 grow it by another rule: what they made may be numbered
        otherwise, which `doubt_about_rows` notices.
        """
        if self.rows is not None:
            return sorted(self.rows, key=self.rows.__getitem__)
        return list(set(self.occupied))  # of a list, so that the table grows as the original's did


def read_clusters(path: Path, epoch: int, newest: int | None) -> ClusterLog:
    """Read the clusters that belong to a checkpoint.

    Args:
        path: the log.
        epoch: the checkpoint's.
        newest: the epoch that the whole training had reached, None if unknown.

    Raises:
        UserError: if the pickle is hostile, damaged or of an unknown shape, or does not hold that epoch.
    """
    try:
        entries = entries_of(unpickle(path.read_bytes()))
        epochs = epochs_of(entries, newest)
        if epoch in epochs:
            log = parse_entry(entries[max(i for i, one in enumerate(epochs) if one == epoch)])
    except _Refused as refused:
        raise UserError(f"{path}: refused: {refused}: import only what the original program itself wrote") from None
    except _Damaged as damaged:
        raise UserError(f"{path}: damaged or not a pickled cluster log ({damaged}): restore a copy") from None
    except (TypeError, ValueError, IndexError, OverflowError):
        raise UserError(
            f"{path}: none of the known shapes of a cluster log (lists of index lists, or (path, cluster) pairs)"
        ) from None
    held = f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"
    if epoch not in epochs:
        unknown = "" if newest is not None else " (or put the training's last checkpoint.pth.tar beside it)"
        raise UserError(
            f"{path}: holds the clusters of {held}, but the checkpoint is of epoch {epoch}: import a checkpoint of "
            f"an epoch that it holds{unknown}"
        )
    if len(epochs) > 1 and list(epochs) != list(range(1, epoch + 1)):
        print(f"{path}: its {len(epochs)} entries are taken for {held}; epoch {epoch} is imported")
    return log


def entries_of(content: Any) -> list[Any]:
    """The log's entries, one an epoch, of which the last may be all there is.

    Raises:
        ValueError: for any other shape.
    """
    if _is_triple(content):
        lists, *rest = content
        return [*lists[:-1], (lists[-1], *rest)] if _is_of_epochs(lists) else [content]
    if _is_pairs(content):
        return [content]
    if not isinstance(content, list) or not content:
        raise ValueError("not a list")
    return content


def epochs_of(entries: list[Any], newest: int | None) -> Sequence[int]:
    """The epoch of each entry, counted from 1.

    A triple says it, as a rule counted from 0. Otherwise the last entry is of the newest epoch: a log shorter than
    that is a resumed training's, whose first epochs were in the log before, and one that is longer was copied later
    than the checkpoint. Without `newest` the training is taken for one that was never resumed.
    """
    numbers = [_number_of(entry) for entry in entries]
    shift = 0 if numbers[-1] is not None and numbers[-1] == newest else 1
    stated = [number + shift for number in numbers if number is not None]
    if len(stated) == len(entries):
        return stated
    last = stated[-1] if numbers[-1] is not None else max(newest or 0, len(entries))
    return range(last - len(entries) + 1, last + 1)


def _number_of(entry: Any) -> int | None:
    number = entry[2] if _is_triple(entry) else None
    return number if type(number) is int and 0 <= number <= MOST_EPOCHS else None


def parse_entry(entry: Any) -> ClusterLog:
    """One epoch's clusters in any known shape, containers already plain lists and tuples.

    Raises:
        ValueError: for any other shape.
    """
    if _is_triple(entry):
        return _from_triple(entry)
    if _is_pairs(entry):  # the published list of (path, cluster)
        by_path = {str(name): _cluster(cluster) for name, cluster in entry}
        return ClusterLog(max(by_path.values()) + 1, None, by_path)
    return _from_lists(entry)


def _is_pairs(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value)
    )


def _is_triple(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], list) and _is_pairs(value[1])


def _is_of_epochs(lists: list[Any]) -> bool:
    """Whether there is one more level: a list with an entry per epoch."""
    return bool(lists and isinstance(lists[-1], list) and lists[-1] and isinstance(lists[-1][0], list))


def _from_triple(value: tuple) -> ClusterLog:
    """(index lists, [(path, row of the head)] in the order of the concatenated lists, the epoch's number)."""
    lists, pairs, _ = value
    if _is_of_epochs(lists):
        lists = lists[-1]
    log = _from_lists(lists)
    clusters = [cluster for cluster, members in enumerate(lists) for _ in members]
    by_path = {str(path): cluster for (path, _), cluster in zip(pairs, clusters, strict=True)}
    stated = sorted({(cluster, _cluster(row)) for (_, row), cluster in zip(pairs, clusters, strict=True)})
    if sorted(row for _, row in stated) == list(range(len(log.occupied))):  # one row for each, and each its own
        return replace(log, by_path=by_path, rows=dict(stated))
    if any(cluster != number for cluster, number in stated):
        raise ValueError("the pairs contradict the lists")
    return replace(log, by_path=by_path)  # the clusters' own numbers, which say nothing about the head


def _from_lists(lists: Any) -> ClusterLog:
    if not isinstance(lists, list) or not all(isinstance(members, list) for members in lists):
        raise ValueError("not lists of indices")
    if len(lists) > MOST_CLUSTERS:
        raise _Refused(f"it counts more than {MOST_CLUSTERS} clusters")
    by_index = {_bounded(i, MOST_IMAGES, "images"): cluster for cluster, members in enumerate(lists) for i in members}
    if not by_index:
        raise ValueError("no image in it")
    return ClusterLog(len(lists), by_index, None)


def _cluster(number: Any) -> int:
    return _bounded(number, MOST_CLUSTERS, "clusters")


def _bounded(number: Any, most: int, what: str) -> int:
    number = int(number)
    if number < 0:
        raise _Refused(f"it counts {what} below 0")
    if number >= most:
        raise _Refused(f"it counts more than {most} {what}")
    return number


def match_images(log: ClusterLog, dataset: Dataset, root: Path) -> tuple[np.ndarray, int]:
    """Find the log's images among those of `dataset`.

    Paths are matched from their end, as many parts as make them unique; indices count torchvision's ImageFolder
    order, files that cannot be decoded included.

    Returns:
        The cluster of each image, (N,), -1 where the log has none, and the number of images in the log.

    Raises:
        UserError: if `root` is not the folder that the log tells of.
    """
    position = {name: i for i, name in enumerate(dataset.ids)}
    assignment = np.full(len(dataset), -1, np.int64)
    if log.by_path is not None:
        for name, cluster in log.by_path.items():
            parts = name.replace("\\", "/").split("/")
            for start in range(len(parts)):  # the longest ending that names an image
                found = position.get("/".join(parts[start:]))
                if found is not None:
                    assignment[found] = cluster
                    break
        count = len(log.by_path)
    else:
        assert log.by_index is not None
        try:
            samples = ImageFolder(str(root), allow_empty=True).samples
        except FileNotFoundError:
            raise UserError(
                f"{root}: has no class folders, but the cluster log counts images as ImageFolder does"
            ) from None
        for index, cluster in log.by_index.items():
            if not 0 <= index < len(samples):
                raise UserError(
                    f"{root}: has {len(samples)} images in ImageFolder's order, but the log names number {index}: "
                    "name the folder it was trained on"
                )
            found = position.get(Path(samples[index][0]).relative_to(root).as_posix())
            if found is not None:
                assignment[found] = cluster
        count = len(log.by_index)
    if (assignment < 0).all():
        raise UserError(f"{root}: none of the log's images is there: name the folder that the original was trained on")
    return assignment, count


# --- its pickle ---------------------------------------------------------------------------------------------------

DTYPE = re.compile(r"[iu][1248]|f[248]|b1|[SU][1-9]\d{0,4}")
DEEPEST = 8  # levels; a triple of lists of lists, one for each epoch, has five
# What shared parts may unfold to: the same in a file of the original is at most a path, two bytes for three items.
MOST_ITEMS_A_BYTE, MOST_ITEMS_ANYWAY = 10, 1_000_000


class _Refused(Exception):
    """What the file does that no cluster log does, in words."""


class _Damaged(Exception):
    """What went wrong, in words."""


# What lists of numbers, paths and arrays are made of; no dict or set, whose keys are hashed, and no object.
OPCODES = {
    getattr(pickle, name)[0]
    for name in """
    PROTO FRAME STOP MARK POP POP_MARK DUP GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    LIST EMPTY_LIST APPEND APPENDS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()
}


def unpickle(raw: bytes) -> Any:
    """The content as plain lists, tuples, numbers and strings.

    Raises:
        _Refused: for all that a cluster log has no need of.
        _Damaged: if it cannot be read.
    """
    try:
        content = _Unpickler(io.BytesIO(raw), encoding="utf-8", errors="surrogateescape").load()
        return _Plain(max(MOST_ITEMS_A_BYTE * len(raw), MOST_ITEMS_ANYWAY)).of(content)
    except _Refused:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _Damaged(f"{type(error).__name__}: {_shown(error)}") from None


def _shown(value: object) -> str:
    """A stranger's text, short and without anything that a terminal would obey."""
    if not isinstance(value, str | Exception):  # its own text may be endless
        return f"of type {type(value).__name__}"
    return ascii(str(value)[:120])[1:-1]


class _DType:
    """Stands for a pickled numpy dtype: numbers and strings of a fixed width.

    numpy's own must not be built by a pickle: its state can make one whose bytes are read as pointers, or which reads
    beside its buffer.
    """

    __slots__ = ("value",)

    def __init__(self, name: Any, *_: Any):
        if not isinstance(name, str) or not DTYPE.fullmatch(name):
            raise _Refused(f"it asks for a numpy.dtype {_shown(name)}, and a cluster log holds numbers and paths only")
        self.value = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        _, byte_order, *parts = state
        if byte_order not in ("<", ">", "|", "=") or any(part is not None for part in parts[:3]):
            raise _Refused("it asks for a numpy.dtype with parts, and a cluster log holds numbers and paths only")
        self.value = self.value.newbyteorder(byte_order)


class _Encoded:
    """Bytes that protocol 2 writes as text; encoded when they are read, lest many copies are made of one."""

    __slots__ = ("text",)

    def __init__(self, text: Any, encoding: Any):
        if not isinstance(text, str) or encoding != "latin1":
            raise _Refused(f"it asks for _codecs.encode {_shown(encoding)}, which writes no bytes of numbers")
        self.text = text


class _Array:
    """Stands for a pickled numpy array or number; its state is data, never code, and unfolded last."""

    __slots__ = ("_dtype", "_fortran", "_raw", "_shape")

    def __init__(self, *_: Any):
        self.__setstate__((1, (0,), _DType("i8"), False, b""))

    def __setstate__(self, state: Any) -> None:
        _, self._shape, self._dtype, self._fortran, self._raw = state
        if not isinstance(self._dtype, _DType) or not isinstance(self._raw, bytes | str | _Encoded):
            raise TypeError("an array without dtype or bytes")

    @property
    def size(self) -> int:
        """Of its bytes, roughly."""
        return len(self._raw.text if isinstance(self._raw, _Encoded) else self._raw)

    def plain(self) -> Any:
        raw = self._raw.text.encode("latin1") if isinstance(self._raw, _Encoded) else self._raw
        if isinstance(raw, str):  # of Python 2
            raw = raw.encode("utf-8", "surrogateescape")
        items = np.frombuffer(raw, self._dtype.value)
        if items.dtype.kind == "U" and (np.frombuffer(raw, f"{items.dtype.byteorder}u4") > sys.maxunicode).any():
            raise ValueError("text of what are no characters")
        shape = self._shape
        if not isinstance(shape, tuple) or len(shape) > 2 or any(type(n) is not int or n > items.size for n in shape):
            raise ValueError(f"an array of {items.size} items in an impossible shape")
        return items.reshape(shape, order="F" if self._fortran else "C").tolist()


def _scalar(dtype: Any, raw: Any) -> _Array:
    scalar = _Array()
    scalar.__setstate__((1, (), dtype, False, raw))
    return scalar


class _Callable:
    """A name that a pickle may call, and do nothing else with."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, _: Any) -> None:
        raise _Refused("it changes what it was given to call")


ADMITTED = {
    ("numpy", "dtype"): _Callable(_DType),
    ("numpy", "ndarray"): _Callable(_Array),
    ("_codecs", "encode"): _Callable(_Encoded),
    ("__builtin__", "bytes"): _Callable(lambda: b""),  # how protocol 2 writes the empty one
    ("numpy.core.multiarray", "scalar"): _Callable(_scalar),
    ("numpy._core.multiarray", "scalar"): _Callable(_scalar),
    ("numpy.core.multiarray", "_reconstruct"): _Callable(_Array),
    ("numpy._core.multiarray", "_reconstruct"): _Callable(_Array),
}


def _refuse(_: Any) -> None:
    raise _Refused("it holds what is neither list, number nor path")


class _Unpickler(pickle._Unpickler):
    """The one written in Python, eight times slower: the other takes as much memory as a number in the file says."""

    dispatch: ClassVar[dict[int, Any]] = {
        code: load if code in OPCODES else _refuse for code, load in pickle._Unpickler.dispatch.items()
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            what = _shown(f"{module}.{name}")
            raise _Refused(f"it asks for {what}, and a cluster log holds numbers and paths only")
        return ADMITTED[module, name]


class _Plain:
    """Arrays become lists, at any depth; tuples stay tuples. What is shared is copied, so copies are counted."""

    def __init__(self, most: int):
        self._most, self._left = most, most

    def of(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, _Array):
            self._count(value.size)
            return value.plain()
        if not isinstance(value, list | tuple):
            return value
        if depth == DEEPEST:
            raise _Refused(f"its lists lie more than {DEEPEST} deep in one another")
        self._count(len(value))
        parts = [self.of(item, depth + 1) for item in value]
        return tuple(parts) if isinstance(value, tuple) else parts

    def _count(self, items: int) -> None:
        self._left -= items
        if self._left < 0:
            raise _Refused(f"what it holds more than once unfolds to more than {self._most} items")
