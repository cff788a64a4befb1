"""One epoch of training on pseudo-labels: a fresh head, balanced draws, random crops, SGD."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from console import progress
from deepcluster.config import Config
from deepcluster.features import Embedding
from deepcluster.models import ClusterNet
from deepcluster.together import together
from deepcluster.views import Augmentation, Crops, Frames, Turns, draw_crops, draw_turns, training_views, turned_views
from machine.device import autocast, sent
from machine.processes import rank, share, summed, world_size
from machine.seeds import derive_seed

HEAD_NORM = (
    0.1  # length of a head's weights that start at a centroid: logits of standardised features then start moderate
)
WARMUP_OFFSET = 0.1  # epochs: the first step of a warm-up learns a little
SCALE_BOUNDS = (-5, 5)  # of the logarithm of the head's temperature


@dataclass
class State:
    """What changes while training, and is saved in latest.pt."""

    model: ClusterNet
    optimizer: torch.optim.SGD
    epoch: int = 0  # the last finished one
    log: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Loss:
    """Cross-entropy with the pseudo-labels: mean of an epoch, and of its last quarter."""

    mean: float
    last_quarter: float


def train_epoch(
    state: State, frames: Frames, assignment: np.ndarray, features: Tensor, k: int, epoch: int, config: Config
) -> Loss:
    """One epoch on the pseudo-labels `assignment` (N,), found in `features` (N, D), with a fresh head.

    Of several processes each learns its share of every batch, and all step with the gradient of the whole of it.
    """
    model, optimizer, device = state.model, state.optimizer, frames.device
    model.fresh_head(k, torch.Generator().manual_seed(derive_seed(config.seed, epoch, "head")))
    if config.head_init == "centroids":
        start_head_at_centroids(model, features, assignment)
    head_optimizer = torch.optim.SGD(model.head.parameters(), config.lr, weight_decay=config.weight_decay)
    torch.manual_seed(derive_seed(config.seed, epoch, f"dropout{rank() or ''}"))  # other images, other masks
    losses = []
    draws = int(config.reassign * len(assignment))
    steps = math.ceil(draws / config.batch)
    model.train()
    with together(model) as net:
        for step, (images, targets) in enumerate(training_batches(frames, assignment, epoch, config)):
            rate = config.lr * learning_rate_factor(epoch - 1 + step / steps, config)
            optimizer.param_groups[0]["lr"] = rate
            head_optimizer.param_groups[0]["lr"] = rate * config.head_lr
            optimizer.zero_grad()
            head_optimizer.zero_grad()
            with autocast(device, config.mixed_precision):
                loss = nn.functional.cross_entropy(net(images), targets)
            # the mean over processes is then that over the batch, be their shares equal or not; of one process 1.0
            loss = loss * (len(targets) * world_size() / min(config.batch, draws - step * config.batch))
            loss.backward()
            optimizer.step()
            head_optimizer.step()
            losses.append(loss.detach())
    model.eval()
    curve = (summed(torch.stack(losses).float().cpu()) / world_size()).numpy()
    return Loss(float(curve.mean()), float(curve[-max(1, len(curve) // 4) :].mean()))


def training_batches(
    frames: Frames, assignment: np.ndarray, epoch: int, config: Config
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's random crops (of unrolled coins, turns) and their pseudo-labels, batch by batch.

    All processes draw the same; each cuts its share of every batch.
    """
    rng = np.random.default_rng(derive_seed(config.seed, epoch, "sampler"))
    generator = torch.Generator().manual_seed(derive_seed(config.seed, epoch, "crops"))
    draws = balanced_draws(assignment, int(config.reassign * len(assignment)), rng)
    augmentation = Augmentation(config.scale, config.rotate, config.flip, config.jitter)
    chance: Crops | Turns
    if config.view == "unrolled":
        chance = draw_turns(len(draws), augmentation, generator)
    else:
        chance = draw_crops(frames.shape[draws], augmentation, generator)
    starts = list(range(0, len(draws), config.batch))
    if 0 < len(draws) % config.batch < max(2, world_size()) and len(starts) > 1:
        starts.pop()  # batch norm cannot learn from a single image, nor a process from none

    def batch(begin: int) -> tuple[Tensor, Tensor]:
        own = share(min(config.batch, len(draws) - begin))
        rows = slice(begin + own.start, begin + own.stop)
        if isinstance(chance, Turns):
            images = turned_views(frames, draws[rows], chance[rows])
        else:
            images = training_views(frames, draws[rows], chance[rows], config.size)
        return images, sent(torch.as_tensor(assignment[draws[rows]]), frames.device)

    if frames.device.type == "cuda" and frames.resident is None:
        with ThreadPoolExecutor(1) as ahead:  # cut the next batch on the CPU while the GPU learns this one
            pending = ahead.submit(batch, starts[0])
            for begin in progress([*starts[1:], None], f"epoch {epoch}", unit="batches"):
                ready = pending.result()
                if begin is not None:
                    pending = ahead.submit(batch, begin)
                yield ready
    else:
        yield from map(batch, progress(starts, f"epoch {epoch}", unit="batches"))


def balanced_draws(assignment: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """`total` image indices, uniform over the non-empty clusters, shuffled.

    Each cluster gives the same number, drawn without repetition where it is large enough (Caron et al. 2018, sec. 3.3).
    """
    numbers = np.unique(assignment)
    each = total // len(numbers) + 1
    draws = []
    for number in numbers:
        members = np.flatnonzero(assignment == number)
        draws.append(rng.choice(members, each, replace=len(members) < each))
    return rng.permutation(np.concatenate(draws))[:total]


def learning_rate_factor(time_in_epochs: float, config: Config) -> float:
    """Linear warm-up to 1, then constant or half a cosine down to 0 at the last epoch's end."""
    warmup = min(config.warmup, config.epochs / 2)
    if time_in_epochs < warmup:
        return (time_in_epochs + WARMUP_OFFSET) / (warmup + WARMUP_OFFSET)
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (time_in_epochs - warmup) / (config.epochs - warmup)))


def start_head_at_centroids(model: ClusterNet, features: Tensor, assignment: np.ndarray) -> None:
    """Point each non-empty cluster's weights at its mean standardised embedding.

    Args:
        model: whose head.
        features: (N, D), or of each process the rows of its share.
        assignment: (N,).
    """
    spread = len(features) < len(assignment)
    with torch.no_grad():
        x = (
            _standardised_together(features, len(assignment))
            if spread
            else ((features - features.mean(0)) / features.std(0).clamp_min(1e-6))
        )
        own = assignment[share(len(assignment))] if spread else assignment
        for number in np.unique(assignment):
            members = x[torch.as_tensor(own == number, device=x.device)]
            mean = summed(members.sum(0)) / int((assignment == number).sum()) if spread else members.mean(0)
            model.head.weight[number] = HEAD_NORM * mean / mean.norm().clamp_min(1e-6)


def _standardised_together(own: Tensor, total: int) -> Tensor:
    """Of `total` features the rows of this process's share, each number to mean 0 and deviation 1 over all."""
    mean = summed(own.double().sum(0)) / total
    deviation = (summed(((own - mean) ** 2).sum(0)) / (total - 1)).sqrt()
    return ((own - mean) / deviation.clamp_min(1e-6)).float()


def calibrate(model: ClusterNet, embedding: Embedding, assignment: np.ndarray) -> Embedding:
    """Scale the head so that its probabilities tell how often it is right; no prediction changes.

    One temperature for all logits that minimises their cross-entropy with the clusters (Guo et al. 2017). A head that
    is new each epoch has no time to grow to its scale, least of all at the small rates of the last epochs.
    """
    targets = torch.as_tensor(assignment, device=embedding.logits.device)

    def loss(log_scale: float) -> float:
        return float(nn.functional.cross_entropy(embedding.logits.double() * math.exp(log_scale), targets))

    scale = math.exp(minimize_scalar(loss, bounds=SCALE_BOUNDS, method="bounded").x)
    with torch.no_grad():
        model.head.weight.mul_(scale)
        model.head.bias.mul_(scale)
    return Embedding(embedding.features, embedding.logits * scale)
