"""Read a checkpoint and cluster log of the original DeepCluster program into a run directory.

Nothing that is read can run code: weights come through torch.load(weights_only=True), the pickled log through an
unpickler that knows plain containers, numbers, strings and numpy arrays, and no function or class besides.
"""

import argparse
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import ImageFolder

import runs
from console import UserError
from datasets import Dataset, decoded_side, open_dataset
from deepcluster.clustering import Clustering, distance_to_centroid
from deepcluster.config import PAPER, Config
from deepcluster.features import embed, pca_whiten
from deepcluster.journal import cluster_table, epoch_facts
from deepcluster.launch import describe_run
from deepcluster.models import HIDDEN, ClusterNet, build, model_arguments
from deepcluster.views import Frames
from machine.device import use_device
from runs import Clusters
from runs.directory import load_tensors
from runs.tables import log_row

SIZE = 224  # the only one the original knows


def import_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster import`."""
    folder = options.old if options.old.is_dir() else options.old.parent
    checkpoint_path = options.old / "checkpoint.pth.tar" if options.old.is_dir() else options.old
    clusters_path = options.clusters or folder / "clusters"
    for path in (checkpoint_path, clusters_path):
        if not path.is_file():
            raise UserError(
                f"{path}: no such file: import needs the original's checkpoint.pth.tar and its clusters file"
            )
    if (options.out / "run.json").exists():
        raise UserError(f"{options.out}: already a run directory: choose another --out")
    runs.find_begun(options.out, "deepcluster")
    device = use_device(options.device)
    weights = read_checkpoint(checkpoint_path)
    log = read_clusters(clusters_path)
    dataset = open_dataset(str(options.data), decoded_side(SIZE), workers=options.workers)

    assignment, rows_of_log = place(log, dataset, options.data)
    used = np.flatnonzero(assignment >= 0)
    if len(used) < len(dataset):
        print(f"{len(dataset) - len(used)} images are in no cluster of the log and are left out")
        dataset, assignment = dataset.take(used), assignment[used]
    if rows_of_log > len(used):
        print(f"{rows_of_log - len(used)} images of the log are missing or unreadable in {options.data}")
    k = max(weights.head_rows, log.clusters)
    model = convert(weights, k, log.occupied)
    config = original_config(weights, k)

    frames = Frames(dataset.pixels, device)
    embedding = embed(model.to(device), frames, config, "embedding")
    x = pca_whiten(embedding.features, config.pca, config.whiten_power)
    distance = distance_to_centroid(x, assignment, k)
    found = Clustering(assignment, k, distance, float((distance**2).sum()))
    meta = replace(describe_run(config, dataset, None, device), imported=checkpoint_path.name)
    run = runs.begin(options.out, meta, dataset.ids, dataset.labels, dataset.skipped)
    epoch = weights.epoch
    run.write_clusters(epoch, Clusters(found.assignment, found.distance))
    run.write_checkpoint(epoch, {"epoch": epoch, "model": model.arguments, "state": model.cpu().state_dict()})
    run.write_table("clusters.csv", cluster_table(dataset.ids, found, embedding))
    row = log_row(epoch_facts(epoch, found, None, dataset.labels, embedding, None, {}))
    run.write_log([row])
    empty = k - len(np.unique(assignment))
    print(
        f"{run.path}: epoch {epoch}, {len(dataset)} images in {k} clusters ({empty} empty); "
        f"the head agrees with the cluster of {row['head_agreement']:.0%} of the images"
    )


# --- the checkpoint -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    arch: str
    epoch: int
    sobel: bool
    head_rows: int
    state: dict[str, Tensor]  # names as in ClusterNet, the head's rows still in the original's order


def read_checkpoint(path: Path) -> Weights:
    """Names `features.module.*` or `features.*`, `sobel.*`, `classifier.*`, `top_layer.*`; both file formats of torch."""
    content = load_tensors(path)
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path}: not a checkpoint of the original program (it has no state_dict)")
    arch = str(content.get("arch", "alexnet"))
    if arch not in ("alexnet", "vgg16"):
        raise UserError(f"{path}: its network is {arch}: only alexnet and vgg16 can be imported")
    state: dict[str, Tensor] = {}
    for name, value in content["state_dict"].items():
        name = (
            name.removeprefix("module.").replace("features.module.", "features.", 1).replace("top_layer.", "head.", 1)
        )
        if arch == "vgg16" and name.startswith("classifier."):
            _, number, kind = name.split(".")
            name = f"classifier.{int(number) + 1}.{kind}"  # ours has a place for the first dropout, which VGG has not
        state[name] = value
    if "head.weight" not in state:
        raise UserError(
            f"{path}: it has no top_layer, so it knows no clusters: import a checkpoint saved while training"
        )
    epoch = max(1, int(content.get("epoch", 1)))
    sobel = any(name.startswith("sobel.") for name in state)
    return Weights(arch, epoch, sobel, len(state["head.weight"]), state)


def original_config(weights: Weights, k: int) -> Config:
    values = PAPER | {"arch": weights.arch, "sobel": weights.sobel, "k": k, "epochs": weights.epoch}
    return Config(**values, decoded_side=decoded_side(SIZE))


def convert(weights: Weights, k: int, occupied: list[int]) -> ClusterNet:
    """The same network with logit j for cluster j.

    The original numbers only the clusters that are not empty, 0 .. m-1: its head's row r belongs to the r-th of
    `occupied` (ascending). The rows left over never learnt anything; they go to the empty clusters.
    """
    model = build(model_arguments(original_config(weights, k)))
    empty = [j for j in range(k) if j not in set(occupied)]
    order = np.empty(k, np.int64)
    order[np.array([*occupied, *empty], np.int64)] = np.arange(k)
    state = dict(weights.state)
    for name in ("head.weight", "head.bias"):
        rows = torch.zeros(k, *state[name].shape[1:])
        rows[: weights.head_rows] = state[name]
        state[name] = rows[torch.from_numpy(order)]
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
    """The last epoch's clusters: by index into ImageFolder's order, or by path."""

    clusters: int  # empty ones included
    by_index: dict[int, int] | None
    by_path: dict[str, int] | None

    @property
    def occupied(self) -> list[int]:
        return sorted(set((self.by_path or self.by_index or {}).values()))


def read_clusters(path: Path) -> ClusterLog:
    """Raises: UserError if the pickle is hostile, damaged or of an unknown shape."""
    try:
        with path.open("rb") as file:
            content = _plain(_Unpickler(file, encoding="utf-8", errors="surrogateescape").load())
    except _Refused as refused:
        raise UserError(
            f"{path}: refused: it asks for {refused}, and a cluster log holds numbers and paths only"
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"{path}: damaged or not a pickled cluster log ({type(error).__name__}: {error})") from None
    try:
        return parse_clusters(content)
    except (TypeError, ValueError, IndexError):
        raise UserError(
            f"{path}: none of the known shapes of a cluster log (lists of index lists, or (path, cluster) pairs)"
        ) from None


def parse_clusters(content: Any) -> ClusterLog:
    """The known shapes, containers already plain lists and tuples; ValueError for any other."""
    if _is_triple(content):
        return _from_triple(content)
    if _is_pairs(content):  # the published list of (path, cluster)
        by_path = {str(name): int(cluster) for name, cluster in content}
        return ClusterLog(max(by_path.values()) + 1, None, by_path)
    if not isinstance(content, list) or not content:
        raise ValueError("not a list")
    last = content[-1]  # a resumed original restarts its log: the last entry is the checkpoint's
    return _from_triple(last) if _is_triple(last) else _from_lists(last)


def _is_pairs(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value)
    )


def _is_triple(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[0], list) and _is_pairs(value[1])


def _from_triple(value: tuple) -> ClusterLog:
    """(index lists, [(path, relabelled cluster)] in the order of the concatenated lists, last epoch's number)."""
    lists = value[0]
    if lists and isinstance(lists[-1], list) and lists[-1] and isinstance(lists[-1][0], list):
        lists = lists[-1]  # one more level: a list with an entry per epoch
    log = _from_lists(lists)
    clusters = [cluster for cluster, members in enumerate(lists) for _ in members]
    if len(clusters) != len(value[1]):
        raise ValueError("paths and indices differ in number")
    return replace(log, by_path={str(pair[0]): cluster for pair, cluster in zip(value[1], clusters, strict=True)})


def _from_lists(lists: Any) -> ClusterLog:
    if not isinstance(lists, list) or not all(isinstance(members, list) for members in lists):
        raise ValueError("not lists of indices")
    by_index = {int(i): cluster for cluster, members in enumerate(lists) for i in members}
    if not by_index:
        raise ValueError("no image in it")
    return ClusterLog(len(lists), by_index, None)


def place(log: ClusterLog, dataset: Dataset, root: Path) -> tuple[np.ndarray, int]:
    """Cluster of each image of `dataset`, -1 where the log has none, and the number of images in the log.

    Paths are matched from their end, as many parts as make them unique; indices count torchvision's ImageFolder
    order, files that cannot be decoded included.
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
                    f"{root}: has {len(samples)} images in ImageFolder's order, but the log names number {index}: name the folder it was trained on"
                )
            found = position.get(Path(samples[index][0]).relative_to(root).as_posix())
            if found is not None:
                assignment[found] = cluster
        count = len(log.by_index)
    if (assignment < 0).all():
        raise UserError(f"{root}: none of the log's images is there: name the folder that the original was trained on")
    return assignment, count


class _Refused(Exception):
    """The name of what a pickle must not ask for."""


class _Array:
    """Stands for a pickled numpy array; its state is data, never code."""

    def __init__(self, *_: Any):
        self.value = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.value = np.frombuffer(_bytes(raw), dtype).reshape(shape, order="F" if fortran else "C")


def _scalar(dtype: np.dtype, raw: bytes | str) -> Any:
    return np.frombuffer(_bytes(raw), dtype)[0].item()


def _bytes(raw: bytes | str) -> bytes:
    return raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode with {encoding}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        admitted: dict[tuple[str, str], Any] = {
            ("numpy", "dtype"): np.dtype,
            ("numpy", "ndarray"): _Array,
            ("_codecs", "encode"): _latin1,
            ("__builtin__", "bytes"): lambda: b"",  # how protocol 2 writes the empty one
        }
        for package in ("numpy.core.multiarray", "numpy._core.multiarray"):
            admitted[package, "scalar"] = _scalar
            admitted[package, "_reconstruct"] = _Array
        if (module, name) not in admitted:
            raise _Refused(f"{module}.{name}")
        return admitted[module, name]


def _plain(value: Any) -> Any:
    """Arrays become lists, at any depth; tuples stay tuples."""
    if isinstance(value, _Array):
        return value.value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    return value
