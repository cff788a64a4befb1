"""Which cluster each image is explained in: the run's own, or a table's; and the logits that stand for a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from console import UserError
from machine.reading import open_regular
from runs import Run
from runs.edits import digest_of, read_clusters_table


@dataclass(frozen=True)
class ExplainedClusters:
    """Which cluster each of the run's N images is explained in."""

    assignment: np.ndarray  # (N,) number, -1: none
    distance: np.ndarray  # (N,) to the own centroid, NaN: unknown
    logits: dict[int, tuple[int, ...]]  # cluster -> its logits: one, or several if it was merged
    names: dict[int, str]  # given by the expert
    digest: str | None  # of the table it came from; None: the run's own

    @property
    def numbers(self) -> list[int]:
        """Clusters in the order of the outputs of a network whose logits were merged."""
        return sorted(self.logits)

    @property
    def outputs(self) -> int:
        """Logits of the network: a cluster with a number from here on was made by hand and shares those it has."""
        return 1 + max(j for members in self.logits.values() for j in members)

    @property
    def whole(self) -> np.ndarray:
        """Which of `numbers` together have each logit once: all but those made by hand, (C,) bool."""
        return np.array(self.numbers) < self.outputs

    @property
    def share(self) -> np.ndarray:
        """Which of `numbers` have a logit in common, (C, C) bool; each has with itself."""
        held = np.zeros((len(self.numbers), self.outputs), bool)
        for column, members in enumerate(self.groups):
            held[column, list(members)] = True
        return held @ held.T

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Of each of `numbers` its logits."""
        return [self.logits[number] for number in self.numbers]

    def column_of(self, clusters: np.ndarray | int) -> np.ndarray:
        """The outputs that belong to `clusters`."""
        return np.searchsorted(np.array(self.numbers), clusters)


def merge_logits(logits: Tensor, groups: Sequence[tuple[int, ...]]) -> Tensor:
    """(N, K) logits -> (N, len(groups)): the log-sum-exp of logits is the logit of "one of them"."""
    if all(len(group) == 1 for group in groups):
        return logits[:, [group[0] for group in groups]]
    return torch.stack([logits[:, list(group)].logsumexp(1) for group in groups], 1)


def clusters_of(run: Run, epoch: int, k: int, names: dict[int, str], table: Path | None) -> ExplainedClusters:
    """The clusters that are explained, of an epoch with k logits: the run's own, or those of `table`.

    Args:
        run: whose images they are.
        epoch: whose clusters.
        k: logits of its network.
        names: what clusters are called, unless the table says otherwise.
        table: as runs.edits.read_clusters_table takes it.

    Raises:
        UserError: naming the line of the table that will not do.
    """
    kept = run.clusters(epoch)
    if kept.assignment.max(initial=0) >= k:
        raise UserError(
            f"{run.path}: damaged (epoch {epoch} has a cluster {kept.assignment.max()}, its network {k}): restore "
            "copies of its clusters and checkpoints"
        )
    own = ExplainedClusters(kept.assignment.astype(np.int64), kept.distance, {j: (j,) for j in range(k)}, names, None)
    return own if table is None else _read_table(table, run, own, k)


def _read_table(path: Path, run: Run, own: ExplainedClusters, k: int) -> ExplainedClusters:
    try:
        told = read_clusters_table(path, run, k, "--assignments")
        with open_regular(path) as file:
            digest = digest_of(file.read())
    except FileNotFoundError:
        raise UserError(f"--assignments {path}: no such file") from None
    taken = {j for number, members in told.logits.items() if number < k for j in members}
    logits = told.logits | {j: (j,) for j in range(k) if j not in taken and j not in told.logits}
    distance = np.where(told.assignment == own.assignment, own.distance, np.nan)
    return ExplainedClusters(told.assignment, distance, logits, own.names | told.names, digest)
