"""What a network answers when nothing but the large dot is changed, and where Grad-CAM's heat lies, by exact masks."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from datasets.dots import BELOW, CLASSES, ON, Scenes, draw_scenes, masks_of, move_large, without_large
from explain.attribution import attribute
from supervised.evaluate import accuracy_interval
from supervised.learners import compute_logits
from supervised.models import ClassNet

CONDITIONS = {  # what is done to the large dot
    "as drawn": "fresh pictures: it lies anywhere",
    "absent": "taken away",
    "moved": "laid elsewhere, anywhere",
    "larger": "radius 5 instead of 3.5, anywhere",
    "on the line": "laid on the line",
    "same side": "laid where the small one is: on the line, below or above",
    "other side": "laid on the other side; for a small dot on the line, on either",
}
LARGER = 5.0
MOVES = 8  # of each picture's large dot, to count the answers that change
HEATED = 600  # pictures whose heat is weighed
LIMIT = 0.99  # "yes" where the lower end of the interval is above


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    count: int
    of: int

    @property
    def value(self) -> float:
        return self.count / self.of

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % (Wilson 1927)."""
        return accuracy_interval(self.count, self.of)


@dataclass(frozen=True)
class Measured:
    """What was measured of one network."""

    right: dict[str, Share]  # by condition
    changed: Share  # answers that another place of the large dot alone changes
    ever_changed: Share  # pictures with such an answer among MOVES places
    heat: dict[str, float]  # by part: share of Grad-CAM's heat for the own answer, over its share of the picture
    empty: int  # maps without heat, left out of `heat`

    @property
    def is_solved(self) -> bool:
        """Whether fresh pictures, whose large dot lies anywhere, are answered."""
        return self.right["as drawn"].interval[0] > LIMIT

    @property
    def is_robust(self) -> bool:
        """Whether the answer is right whatever is done to the large dot, and moving it does not change it."""
        return min(share.interval[0] for share in self.right.values()) > LIMIT and self.changed.interval[1] < 1 - LIMIT


def measure(net: ClassNet, scenes: Scenes, seed: int) -> Measured:
    """Ask a network about scenes that it has not seen, under each of CONDITIONS."""
    rng = np.random.default_rng([seed, 1])
    answers = {name: answer(net, changed) for name, changed in change_large(scenes, rng).items()}
    right = {name: Share(int((given == scenes.label).sum()), len(scenes)) for name, given in answers.items()}
    moved = np.stack([answer(net, move_large(scenes, rng)) for _ in range(MOVES)])  # (MOVES, N)
    differs = moved != answers["as drawn"]
    heat, empty = weigh_heat(net, scenes[:HEATED], answers["as drawn"][:HEATED])
    return Measured(
        right=right,
        changed=Share(int(differs.sum()), differs.size),
        ever_changed=Share(int(differs.any(0).sum()), len(scenes)),
        heat=heat,
        empty=empty,
    )


def change_large(scenes: Scenes, rng: np.random.Generator) -> dict[str, Scenes]:
    """The scenes under each of CONDITIONS: nothing but their large dots is changed."""
    either = rng.integers(BELOW, len(CLASSES), len(scenes))
    other = np.where(scenes.label == ON, either, len(CLASSES) - scenes.label)
    made = [
        scenes,
        without_large(scenes),
        move_large(scenes, rng),
        move_large(scenes, rng, radius=LARGER),
        move_large(scenes, rng, np.full(len(scenes), ON)),
        move_large(scenes, rng, scenes.label),
        move_large(scenes, rng, other),
    ]
    return dict(zip(CONDITIONS, made, strict=True))


def images_of(net: ClassNet, scenes: Scenes) -> Tensor:
    """The drawn scenes as the network sees them, (N, 1, SIDE, SIDE) in 0..1 on its device."""
    device = next(net.parameters()).device
    return torch.from_numpy(draw_scenes(scenes)[:, None]).to(device).float() / 255


def answer(net: ClassNet, scenes: Scenes) -> np.ndarray:
    """(N,) class that the network says."""
    return compute_logits(net, images_of(net, scenes)).argmax(1).cpu().numpy()


def weigh_heat(net: ClassNet, scenes: Scenes, targets: np.ndarray) -> tuple[dict[str, float], int]:
    """Where Grad-CAM's heat lies.

    Args:
        net: the network.
        scenes: N of them.
        targets: (N,) logit that is explained of each.

    Returns:
        For each of PARTS its mean share of a picture's heat over its mean share of a picture's pixels, 1 where heat
        lies evenly; and the number of maps without any heat, which count for nothing.
    """
    maps = attribute(net, images_of(net, scenes), torch.from_numpy(targets), ["grad_cam"])["grad_cam"]
    heat = maps[:, 0].double().cpu().numpy()  # (N, SIDE, SIDE)
    total = heat.sum((1, 2))
    there = total > 0
    ratios = {}
    for part, mask in masks_of(scenes).items():
        on_it = (heat * mask).sum((1, 2))[there] / total[there]
        ratios[part] = float(on_it.mean() / mask[there].mean()) if there.any() else float("nan")
    return ratios, int((~there).sum())
