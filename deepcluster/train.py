"""The DeepCluster loop: embed, reduce, cluster, train on the pseudo-labels, and again.

By one process or by several, which share the embedding and each batch; what is `decided` the first finds for all.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from console import UserError, bar_settings
from datasets import Dataset
from deepcluster.clustering import Clustering, kmeans_together, partition
from deepcluster.config import Config
from deepcluster.descriptors import SPECTRUM, design_features, design_features_together, facts_of, set_beside
from deepcluster.epoch import State, calibrate, train_epoch
from deepcluster.expert import Expert, cluster_with
from deepcluster.features import Embedding, embed_together, is_many, pca_whiten, pca_whiten_together
from deepcluster.journal import Clock, Journal, restore
from deepcluster.models import untrained
from deepcluster.views import Frames
from machine.processes import decided, gathered, share
from machine.seeds import derive_seed


def train(
    journal: Journal,
    dataset: Dataset,
    config: Config,
    device: torch.device,
    initial: dict[str, Tensor] | None = None,
    say: Callable[[str], None] = tqdm.write,
    expert: Expert | None = None,
) -> State:
    """Train the journal's run to its last epoch, from the beginning or from where it was left.

    Args:
        journal: writes what is learnt.
        dataset: the images.
        config: of the run.
        device: to train on.
        initial: weights to start from (config.init is their digest).
        say: prints a line without disturbing the progress bars.
        expert: whose clusters it starts from, and keeps to.
    """
    run, frames = journal.run, Frames(dataset.pixels, device)
    facts = decided(lambda: facts_of(dataset, config))
    state = start(config, device, initial)
    resumed = decided(run.latest)
    if resumed is not None:
        run.restored(lambda: restore(state, resumed))
        if state.epoch < config.epochs:
            say(f"continuing after epoch {state.epoch} of {config.epochs}")
    if state.epoch >= config.epochs:
        journal.ended(state)
        return state
    previous = decided(lambda: run.clusters(state.epoch).assignment) if state.epoch else None
    embedding = embed_together(state.model, frames, config, "embedding")
    bar = tqdm(total=config.epochs, initial=state.epoch, desc="training", unit=" epochs", **bar_settings())
    with journal, bar:
        journal.begun(state)
        for epoch in range(state.epoch + 1, config.epochs + 1):
            clock = Clock(device)
            found = cluster_epoch(embedding, dataset, facts, config, epoch, device, expert, previous)
            journal.clustered(epoch, found)
            clock.lap("cluster")
            loss = train_epoch(state, frames, found.assignment, embedding.features, found.k, epoch, config)
            clock.lap("train")
            if not math.isfinite(loss.mean):
                raise UserError(f"epoch {epoch}: the loss is not finite: train into another --exp with a smaller --lr")
            embedding = embed_together(state.model, frames, config, f"embedding {epoch}")
            if config.head_init == "centroids":
                embedding = calibrate(state.model, embedding, found.assignment)
            clock.lap("embed")

            state.epoch = epoch
            warnings = journal.finished(state, found, previous, embedding, loss, clock.seconds)
            previous = found.assignment
            bar.set_postfix_str(in_short(state.log[-1]))
            bar.update()
            for warning in warnings:
                say(f"epoch {epoch}: {warning}")
    return state


def start(config: Config, device: torch.device, initial: dict[str, Tensor] | None = None) -> State:
    """The untrained network (but for `initial`), and its optimiser: a run before its first epoch."""
    model = untrained(config)
    if initial is not None:
        model.load_trunk(initial)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.trunk_parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return State(model, optimizer)


def cluster_epoch(
    embedding: Embedding,
    dataset: Dataset,
    facts: np.ndarray | None,
    config: Config,
    epoch: int,
    device: torch.device,
    expert: Expert | None,
    previous: np.ndarray | None,
) -> Clustering:
    """The epoch's clustering: in the first epochs of the unrolled spectrum, then of what the network sees.

    With an expert it keeps to the edits and begins with the `previous` assignment (N,). The first process finds it for
    all; but of many images each reduces its share, and where it is k-means clusters it, too.
    """
    spectrum = epoch <= config.spectrum_epochs

    def found_from(x: np.ndarray) -> Clustering:
        return cluster(x, config, epoch, device) if expert is None else cluster_with(expert, x, previous)

    def found_by_one() -> Clustering:
        if spectrum:
            return found_from(set_beside(design_features(dataset.decoded, dataset.pixels_key), facts))
        return found_from(reduce(embedding.features, config, facts))

    if not (is_many(len(dataset), SPECTRUM) if spectrum else embedding.spread):
        return decided(found_by_one)
    if spectrum:
        own = design_features_together(dataset.decoded, dataset.pixels_key)
    else:
        own = pca_whiten_together(embedding.features, config.pca, config.whiten_power)
    own = set_beside(own, None if facts is None else facts[share(len(dataset))])
    if expert is None and config.clustering_of(epoch) == "kmeans":
        return kmeans_together(own, len(dataset), config.k, _seed_of(config, epoch), device)
    whole = gathered(torch.from_numpy(own), len(dataset)).numpy()
    return decided(lambda: found_from(whole))


def reduce_together(embedding: Embedding, config: Config, facts: np.ndarray | None = None) -> np.ndarray:
    """As `reduce`, all rows in every process, also where their features are spread over the processes."""
    if not embedding.spread:
        return reduce(embedding.features, config, facts)
    own = pca_whiten_together(embedding.features, config.pca, config.whiten_power)
    whole = gathered(torch.from_numpy(own), len(embedding.logits)).numpy()
    return set_beside(whole, facts)


def reduce(features: Tensor, config: Config, facts: np.ndarray | None = None) -> np.ndarray:
    """What is clustered: the features, reduced and of length 1, and the `facts` (N, d) beside them; (N, D) float32."""
    return set_beside(pca_whiten(features, config.pca, config.whiten_power), facts)


def cluster(x: np.ndarray, config: Config, epoch: int, device: torch.device) -> Clustering:
    """The epoch's clustering of what `reduce` gave, (N, D)."""
    return partition(x, config.clustering_of(epoch), config.k, _seed_of(config, epoch), device)


def _seed_of(config: Config, epoch: int) -> int:
    return derive_seed(config.seed, epoch, "clustering")


def in_short(row: dict[str, Any]) -> str:
    """An epoch's row of log.csv for the progress bar."""
    parts = [f"loss {row['loss']:.2f}"]
    for name, title in (("nmi_previous", "NMI before"), ("ami", "AMI")):
        if name in row:
            parts.append(f"{title} {row[name]:.2f}")
    return ", ".join([*parts, f"sizes {row['smallest']}..{row['largest']}"])
