"""A network that learns given clusters of a few images by heart: a run's recipe, without what keeps it from doing so.

Pseudo-labels that were shuffled say nothing about the images; what a network that knows them all the same looks at is
no reason. `explain audit` compares maps with it (Adebayo et al. 2018, section 4).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from console import progress
from deepcluster.config import Config
from deepcluster.epoch import State, train_epoch
from deepcluster.features import embed
from deepcluster.journal import TimeBudget, restore, snapshot
from deepcluster.models import ClusterNet
from deepcluster.train import start
from deepcluster.views import Frames
from machine.reading import Damaged
from runs.tensors import load_tensors, save_tensors

BATCH = 16  # many steps in little time
SHOWN = 400  # images in an epoch, however few there are: each as often
KNOWN = 0.99  # share of the images from which on nothing more is learnt
SAVE_SHARE = 0.05  # of the time that may go into what a resume needs


def recipe(config: Config, images: int, epochs: int, seed: int) -> Config:
    """The run's recipe for learning so many images by heart: as they are, in small batches, without weight decay."""
    return replace(
        config,
        epochs=epochs,
        seed=seed,
        batch=BATCH,
        reassign=(SHOWN + 0.5) / images,
        weight_decay=0.0,
        scale=1.0,
        rotate=0.0,
        flip=False,
        jitter=0.0,
    )


def learn_by_heart(
    config: Config, frames: Frames, labels: np.ndarray, k: int, kept: Path, stop_after: int | None = None
) -> tuple[ClusterNet, list[float]]:
    """Train from random weights on clusters that stay as they are, until nearly all are known.

    Args:
        config: of `recipe`: at most so many epochs, and the seed of the weights and of all chance.
        frames: the N images.
        labels: (N,) int64 in 0..k - 1.
        k: logits.
        kept: file of this very training, of what a resume needs.
        stop_after: so many epochs instead, however many are known.

    Returns:
        The network in eval mode, and after each epoch the share of the images of which it names the cluster.
    """

    def enough() -> bool:
        return bool(shares) and (len(shares) >= stop_after if stop_after else shares[-1] >= KNOWN)

    state = resume(config, frames.device, k, kept)
    shares = [float(row["share"]) for row in state.log]
    saving = TimeBudget(SAVE_SHARE)
    embedding = embed(state.model, frames, config, "embedding")
    for epoch in progress(range(state.epoch + 1, config.epochs + 1), "learning by heart", unit="epochs"):
        if enough():
            break
        train_epoch(state, frames, labels, embedding.features, k, epoch, config)
        embedding = embed(state.model, frames, config, "embedding")
        shares.append(float((embedding.logits.argmax(1).cpu().numpy() == labels).mean()))
        state.epoch = epoch
        state.log.append({"epoch": epoch, "share": shares[-1]})
        saving.spend(lambda: save_tensors(kept, snapshot(state)), enough() or epoch == config.epochs)
    return state.model.eval(), shares


def resume(config: Config, device: torch.device, k: int, kept: Path) -> State:
    """The network where it was left; before its first epoch if nothing, or nothing sound, was kept."""
    try:
        saved = load_tensors(kept)
        state = start(config, device)
        restore(state, saved)
    except (Damaged, KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, FileNotFoundError):
        state = start(config, device)
        state.model.fresh_head(k, torch.Generator().manual_seed(config.seed))
    return state
