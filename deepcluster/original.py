"""Read a checkpoint and cluster log (original_log) of the original DeepCluster program into a run directory.

Nothing that is read can run code: weights come through torch.load(weights_only=True), the log through original_pickle.

The original saves `checkpoint.pth.tar` at the end of every epoch and `checkpoints/checkpoint_N.pth.tar` within one.
Both state the epoch counted from 1, and both were trained on that epoch's clusters. The log has an entry for each
epoch that came to its end, and a resumed training begins a new log.
"""

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

import runs
from console import UserError
from datasets import decoded_side, open_dataset
from datasets.folder import refuse_inside
from deepcluster.clustering import Clustering
from deepcluster.config import PAPER, Config
from deepcluster.features import embed, pca_whiten
from deepcluster.journal import cluster_table, epoch_facts
from deepcluster.launch import describe_run
from deepcluster.models import HIDDEN, ClusterNet, build, model_arguments
from deepcluster.original_log import MOST_CLUSTERS, MOST_EPOCHS, match_images, read_clusters
from deepcluster.views import Frames
from machine.device import use_device
from runs import Clusters, Run
from runs.tables import log_row
from runs.tensors import load_tensors

SIZE = 224  # the only one the original knows


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
    runs.find_begun(options.out, "deepcluster")
    refuse_inside(options.out, str(options.data), "--out")
    device = use_device(options.device)
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
    x = pca_whiten(embedding.features, config.pca, config.whiten_power)
    found = Clustering.of(x, assignment, k)
    meta = replace(describe_run(config, dataset, None, device), imported=checkpoint_path.name)
    epoch = weights.epoch
    row = log_row(epoch_facts(epoch, found, None, dataset.labels, embedding, None, {}))

    def write_all(run: Run) -> None:
        run.write_clusters(epoch, Clusters(found.assignment, found.distance))
        run.write_checkpoint(epoch, {"epoch": epoch, "model": model.arguments, "state": model.cpu().state_dict()})
        run.write_table("clusters.csv", cluster_table(dataset.ids, found, embedding))
        run.write_log([row])

    with runs.hold(options.out):
        run = runs.begin(options.out, meta, dataset.ids, dataset.labels, dataset.skipped, write_all)
    empty = k - len(np.unique(assignment))
    print(
        f"{run.path}: epoch {epoch}, {len(dataset)} images in {k} clusters ({empty} empty); "
        f"the head agrees with the cluster of {row['head_agreement']:.0%} of the images"
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
    if not isinstance(content.get("state_dict"), dict):
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
        return _epoch_in(content)
    within = checkpoint.parent.name == "checkpoints" or re.match(r"checkpoint_\d", checkpoint.name)
    return None if within else epoch


def original_config(weights: Weights) -> Config:
    values = PAPER | {"arch": weights.arch, "sobel": weights.sobel, "k": weights.head_rows, "epochs": weights.epoch}
    return Config(**values, decode_at_most=decoded_side(SIZE))


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
