"""Train a network on labelled images: epochs, the choice of the best one on validation images, and what a resume needs.

The network is chosen on a part of the training images held back for validation; the test set is read once, at the end.
"""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from console import bar_settings
from machine.seeds import derive_seed
from runs import Run
from runs.tables import EpochFacts, log_row
from runs.tensors import check_progress, is_state
from supervised.data import Split
from supervised.learners import LEARNERS, Learner, evaluate
from supervised.models import build
from supervised.recipes import Augmentation, find_recipe


@dataclass(frozen=True)
class Config:
    """All of it is written to run.json; a resume with another value of any field is refused."""

    model: str  # a key of supervised.recipes.RECIPES
    size: int  # pixels of a side
    epochs: int
    batch: int
    lr: float
    rotate: float  # degrees
    zoom: float  # share of the size
    shift: float  # share of the side
    validation: float  # share of the training images held back
    limit: int | None  # training images used, validation included
    plateau: int  # epochs without a better validation loss before the rate is halved
    patience: int | None  # ... before training stops; None: it does not
    stop_at_accuracy: float | None  # on the validation images: reached, training stops, and that epoch is kept
    seed: int

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.rotate, self.zoom, self.shift)


@dataclass(frozen=True)
class Best:
    """The epoch whose weights are kept, by its validation images."""

    epoch: int = 0
    loss: float = math.inf
    accuracy: float = 0.0
    state: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class State:
    """Between two epochs."""

    learner: Learner
    epoch: int = 0
    best: Best = Best()
    log: list[dict[str, Any]] = field(default_factory=list)


def split_validation(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on, ascending, drawn from the seed."""
    order = np.random.default_rng(derive_seed(seed, 0, "validation")).permutation(count)
    cut = max(1, round(count * share))
    return np.sort(order[cut:]), np.sort(order[:cut])


def start(config: Config, arguments: dict[str, Any], device: torch.device) -> State:
    """Before the first epoch; `arguments` are the network's."""
    model = build(arguments, derive_seed(config.seed, 0, "weights")).to(device)
    learner = LEARNERS[find_recipe(config.model).learner](model, config.epochs, config.lr, config.plateau)
    return State(learner)


def fit(run: Run, training: Split, validation: Split, config: Config) -> State:
    """Train until the config says that it is enough; the best weights are then in `best`. Continues what was begun."""
    state = start(config, run.meta.model, training.images.device)
    saved = run.latest()
    if saved is not None:
        run.restored(lambda: restore(state, saved))
        run.write_log(state.log)  # which a kill behind latest.pt left without its last row
    steps = -(-len(training) // config.batch)
    done, whole = state.epoch * steps, config.epochs * steps
    with tqdm(initial=done, total=whole, desc=config.model, unit=" batches", leave=False, **bar_settings()) as bar:
        while not is_finished(state, config):
            begin = time.monotonic()
            state.epoch += 1
            rate = state.learner.learning_rate
            learnt = state.learner.train_epoch(
                training, state.epoch, config.batch, config.augmentation, config.seed, bar.update
            )
            found = evaluate(state.learner.network(), validation)
            state.learner.end_epoch(state.epoch, found.loss)
            if found.loss < state.best.loss or is_enough(found.accuracy, config):
                weights = {
                    name: value.detach().cpu().clone() for name, value in state.learner.network().state_dict().items()
                }
                state.best = Best(state.epoch, found.loss, found.accuracy, weights)
            facts = EpochFacts(
                epoch=state.epoch,
                loss=learnt.loss,
                accuracy=learnt.accuracy,
                validation={"loss": found.loss, "accuracy": found.accuracy},
                learning_rate=rate,
                seconds={"": time.monotonic() - begin},
            )
            state.log.append(log_row(facts))
            run.write_latest(snapshot(state))
            run.write_log(state.log)
            bar.set_postfix_str(f"epoch {state.epoch}, validation {found.accuracy:.4f}, best {state.best.epoch}")
    return state


def is_enough(accuracy: float, config: Config) -> bool:
    """Whether this validation accuracy ends the training."""
    return config.stop_at_accuracy is not None and accuracy >= config.stop_at_accuracy


def is_finished(state: State, config: Config) -> bool:
    """Whether another epoch would be one too many."""
    waited = state.epoch - state.best.epoch
    out_of_patience = config.patience is not None and waited >= config.patience
    return state.epoch >= config.epochs or out_of_patience or is_enough(state.best.accuracy, config)


def snapshot(state: State) -> dict[str, Any]:
    """latest.pt. No random state: every seed derives from the run's and the epoch."""
    return {"epoch": state.epoch, "best": vars(state.best), "log": state.log, **state.learner.snapshot()}


def restore(state: State, saved: dict[str, Any]) -> None:
    """Put what `snapshot` took into a state that was just started."""
    state.epoch, state.log = check_progress(saved)
    state.best = Best(**saved["best"])
    if state.best.epoch > state.epoch or not is_state(state.best.state) or not isinstance(state.best.loss, float):
        raise ValueError("its best epoch is none")
    state.learner.restore(saved)
