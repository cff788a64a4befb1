"""What a call of explain asks for: methods, target, and which images of which clusters."""

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from console import UserError
from datasets.view import shape_of
from explain.attribution.registry import COLOURS, PHOTOGRAPH, Asked
from explain.scores import Scores
from explain.subject import Subject


@dataclass(frozen=True)
class Choice:
    """What to explain, and how."""

    methods: tuple[Asked, ...]  # with the photograph
    target: str = "own"  # "own", "rival", "margin" or a cluster's number
    clusters: tuple[int, ...] | None = None  # None: all
    per_cluster: int | None = None  # None: all
    pick: str = "typical"  # "typical", "atypical" or "random"
    format: str = "png"  # of the pictures
    map: str = "pca"  # of all images: a key of MAPS
    colours: str = COLOURS[0]  # of heat

    @property
    def keys(self) -> list[str]:
        """Of its methods, the photograph's among them."""
        return [asked.key for asked in self.methods]

    @property
    def maps(self) -> list[Asked]:
        """Its methods without the photograph."""
        return [asked for asked in self.methods if asked.name != PHOTOGRAPH]


def check_choice(subject: Subject, choice: Choice) -> None:
    """Refuse clusters, targets, layers and settings that this epoch does not have, before anything is written."""
    from explain.attribution.targets import find_layer

    numbers = subject.clusters.numbers
    asked = [("--clusters", number) for number in choice.clusters or ()]
    asked += [("--target", int(choice.target))] if choice.target.isdecimal() else []
    for option, number in asked:
        if number not in numbers:
            raise UserError(f"{option} {number}: this epoch has clusters {numbers[0]} to {numbers[-1]}")
    for one in choice.maps:
        if one.method.needs_layer:  # refuses a network without convolutions
            find_layer(subject.model, one.options.get("layer"))
        if one.method.check is not None:
            one.method.check(min(shape_of(subject.view, subject.run.meta.view.size)), **one.options)
    if choice.map == "umap" and find_spec("umap") is None:
        raise UserError("--map umap: its package is not installed: pip install umap-learn (210 MB), or --map tsne")
    if choice.target in ("rival", "margin") and len(numbers) < 2:
        raise UserError(f"--target {choice.target}: there is only one cluster: explain --target own")


def chosen_rows(subject: Subject, choice: Choice, rank: np.ndarray) -> np.ndarray:
    """The images to explain, cluster by cluster, the most typical first."""
    assignment = subject.clusters.assignment
    rows = subject.pictures.present
    rows = rows[assignment[rows] >= 0]
    if choice.clusters is not None:
        rows = rows[np.isin(assignment[rows], choice.clusters)]
    rows = rows[np.lexsort((rank[rows], assignment[rows]))]
    if choice.per_cluster is None:
        return rows
    kept = []
    for number in np.unique(assignment[rows]):
        members = rows[assignment[rows] == number]
        if choice.pick == "typical":
            kept.append(members[: choice.per_cluster])
        elif choice.pick == "atypical":
            kept.append(members[-choice.per_cluster :])
        else:
            rng = np.random.default_rng([subject.seed, int(number)])
            drawn = rng.permutation(len(members))[: choice.per_cluster]
            kept.append(members[np.sort(drawn)])
    return np.concatenate(kept) if kept else rows


def target_weights(subject: Subject, target: str, rows: np.ndarray, scores: Scores) -> Tensor:
    """Weights of the logits (B, K): the score that is explained."""
    clusters = subject.clusters
    weights = torch.zeros(len(rows), len(clusters.numbers))
    own = clusters.column_of(clusters.assignment[rows])
    at = np.arange(len(rows))
    if target in ("rival", "margin"):
        known = scores.rival[rows] >= 0  # a cluster made by hand of all others has none
        rival = clusters.column_of(scores.rival[rows[known]])
        if target == "rival":
            weights[at[known], rival] = 1
        else:
            weights[at, own] = 1
            weights[at[known], rival] = -1
    elif target == "own":
        weights[at, own] = 1
    else:
        weights[:, int(clusters.column_of(int(target)))] = 1
    return weights.to(subject.device)
