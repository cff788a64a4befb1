"""What the epochs of a training write: the one place that decides what is kept, when, and whether by this process."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets import Dataset
from deepcluster import figures
from deepcluster.agreement import agreement
from deepcluster.clustering import Clustering
from deepcluster.config import Config
from deepcluster.epoch import Loss, State
from deepcluster.features import Embedding
from deepcluster.flow import draw_flow
from deepcluster.models import check_arguments
from machine.device import synchronise
from runs import Clusters, Run
from runs.tables import EpochFacts, cluster_rows, current_names, log_row
from runs.tensors import check_progress

SAVE_SHARE, DRAW_SHARE = 0.02, 0.05  # of the time that may go into saving latest.pt and into figures
LEARNS_NOTHING = 0.97  # of ln k: the loss of a head that knows no more than the number of clusters
COLLAPSED = 0.5  # share of images in one cluster, or of clusters without an image


class Journal:
    """The run directory's writer during the epochs; used in a `with`, which closes what it opened.

    Args:
        run: where to.
        dataset: whose clusters are written.
        config: of the training.
        save_every: epochs between kept checkpoints; the last epoch's is always kept.
        keep: how many of them are kept at most, the newest.
        tensorboard: write the curves for TensorBoard too.
        writes: False in a process that leaves the writing to another one.
    """

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        config: Config,
        save_every: int = 10,
        keep: int = 3,
        tensorboard: bool = False,
        writes: bool = True,
    ):
        self.run, self.dataset, self.config, self.writes = run, dataset, config, writes
        self._save_every, self._keep = save_every, keep
        self._saving, self._drawing = TimeBudget(SAVE_SHARE), TimeBudget(DRAW_SHARE, guess=1.0)
        self._tensorboard = tensorboard and writes
        self._scalars: Any = None

    def __enter__(self) -> "Journal":
        if self._tensorboard:
            self._scalars = _summary_writer(self.run)
        return self

    def __exit__(self, *_: object) -> None:
        if self._scalars is not None:
            self._scalars.close()

    def begun(self, state: State) -> None:
        """Training goes on from `state`: log.csv then knows no epoch that the weights do not."""
        if self.writes:
            self.run.write_log(state.log)

    def ended(self, state: State) -> None:
        """The training is over; a process that was killed behind its last save still owed the figures."""
        drawn = [self.run.path / "figures" / name for name in ("curves.png", "flow.png")]
        if self.writes and not all(is_younger(path, self.run.path / "latest.pt") for path in drawn):
            self.run.write_log(state.log)
            figures.draw(self.run, state.log)
            draw_flow(self.run)

    def clustered(self, epoch: int, found: Clustering) -> None:
        """Epoch's clusters, on disk before it trains."""
        if self.writes:
            self.run.write_clusters(epoch, Clusters(found.assignment, found.distance))

    def finished(
        self,
        state: State,
        found: Clustering,
        previous: np.ndarray | None,
        embedding: Embedding,
        loss: Loss,
        seconds: dict[str, float],
    ) -> list[str]:
        """Epoch `state.epoch`: its row, tables, checkpoint, figures, and now and then what a resume needs.

        Returns:
            Signs of collapse, in words.
        """
        facts = epoch_facts(state.epoch, found, previous, self.dataset.labels, embedding, loss, seconds)
        state.log.append(log_row(facts))
        if self.writes:
            self._keep_checkpoint(state)
            self.run.write_table("clusters.csv", cluster_table(self.dataset.ids, found, embedding))
            self.run.write_log(state.log)
            last = state.epoch == self.config.epochs
            self._saving.spend(lambda: self.run.write_latest(snapshot(state)), last)
            self._drawing.spend(lambda: figures.draw(self.run, state.log), last)
            if last:
                draw_flow(self.run)
            if self._scalars is not None:
                for name, value in state.log[-1].items():
                    if isinstance(value, int | float):
                        self._scalars.add_scalar(name, value, state.epoch)
        return warnings_of(state.log, len(self.dataset))

    def _keep_checkpoint(self, state: State) -> None:
        """The weights of every so many epochs and of the last; older ones than the newest few go."""
        if state.epoch % self._save_every and state.epoch != self.config.epochs:
            return
        content = {"epoch": state.epoch, "model": state.model.arguments, "state": state.model.state_dict()}
        self.run.write_checkpoint(state.epoch, content)
        for old in [epoch for epoch in self.run.checkpoints() if epoch <= state.epoch][: -self._keep]:
            self.run.remove_checkpoint(old)


def is_younger(path: Path, other: Path) -> bool:
    """Whether a file is there and was written after another one."""
    return path.exists() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns


class TimeBudget:
    """Lets a costly act take no more than `share` of the time; `guess`: the seconds that the first may take."""

    def __init__(self, share: float, guess: float = 0.0):
        self._share, self._ended, self._cost = share, time.monotonic(), guess

    def spend(self, act: Callable[[], None], now: bool) -> None:
        """Act if enough time has passed since the last time, or at once if `now`."""
        begun = time.monotonic()
        if now or begun - self._ended > self._cost / self._share:
            act()
            self._ended = time.monotonic()
            self._cost = self._ended - begun


class Clock:
    """Seconds per phase of an epoch on `device`."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._device, self._last = device, time.monotonic()

    def lap(self, phase: str) -> None:
        synchronise(self._device)
        now = time.monotonic()
        self.seconds[phase] = now - self._last
        self._last = now


def epoch_facts(
    epoch: int,
    found: Clustering,
    previous: np.ndarray | None,
    labels: list[str] | None,
    embedding: Embedding,
    loss: Loss | None,
    seconds: dict[str, float],
) -> EpochFacts:
    """What log.csv's row of an epoch is computed from; `previous`: the assignment (N,) of the epoch before, or None."""
    return EpochFacts(
        epoch=epoch,
        loss=None if loss is None else loss.mean,
        loss_last_quarter=None if loss is None else loss.last_quarter,
        k=found.k,
        assignment=found.assignment,
        previous=previous,
        predicted=embedding.best_two[1][:, 0],
        objective=found.objective,
        agreement={} if labels is None else agreement(labels, found.assignment),
        seconds=seconds,
    )


def cluster_table(ids: list[str], found: Clustering, embedding: Embedding) -> list[dict[str, Any]]:
    """The rows of clusters.csv."""
    probability, predicted = embedding.best_two
    return cluster_rows(ids, found.assignment, found.distance, predicted[:, 0], probability[:, 0])


def warnings_of(log: list[dict[str, Any]], count: int) -> list[str]:
    """Signs of collapse in the newest epoch of `count` images, in words."""
    row = log[-1]
    k, found = row["k"], []
    learns_nothing = row["loss_last_quarter"] > LEARNS_NOTHING * math.log(k) and row["head_agreement"] < 3 / k
    if row["epoch"] >= 3 and learns_nothing:
        found.append(
            f"the head learns nothing (loss {row['loss_last_quarter']:.2f}, ln k is {math.log(k):.2f}): "
            "the clusters do not follow from the pictures; try fewer clusters or another --lr"
        )
    if row["largest"] > COLLAPSED * count and k > 2:
        found.append(f"one cluster holds {row['largest']} of {count} images: the clustering is collapsing")
    if row["empty"] > COLLAPSED * k:
        found.append(f"{row['empty']} of {k} clusters are empty: use a smaller --k")
    return found


def snapshot(state: State) -> dict[str, Any]:
    """latest.pt. No random state: every seed derives from the run's and the epoch."""
    return {
        "epoch": state.epoch,
        "model": state.model.arguments,
        "state": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "log": state.log,
    }


def restore(state: State, saved: dict[str, Any]) -> None:
    """Put what `snapshot` took into a state that was just started."""
    device = state.model.head.weight.device
    k = check_arguments(saved["model"], Path("latest.pt"))["k"]
    if k != state.model.arguments["k"]:
        state.model.fresh_head(k, torch.Generator().manual_seed(0))
    state.model.load_state_dict(saved["state"])
    state.model.to(device)
    state.optimizer.load_state_dict(saved["optimizer"])
    state.epoch, log = check_progress(saved)
    state.log = current_names(log)


def _summary_writer(run: Run) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.path / "tensorboard"))
