"""The DeepCluster loop: embed, reduce, cluster, train on the pseudo-labels, and again."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from tqdm import tqdm

from console import bar_settings, progress
from datasets import Dataset
from deepcluster import figures
from deepcluster.agreement import agreement
from deepcluster.clustering import CLUSTERINGS, own_distance, reduced
from deepcluster.config import Config
from deepcluster.models import ClusterNet, build, folded
from deepcluster.views import Augmentation, Frames, draw_crops, fixed_view, training_views
from machine import autocast, stream
from runs import Clusters, Run

EMBED_BATCH = 128
SAVE_SHARE, DRAW_SHARE = 0.02, 0.05  # of the time that may go into saving latest.pt and into figures


@dataclass(frozen=True)
class Embedding:
    """One pass over all N images with one network."""

    features: Tensor  # (N, D) float32, what is clustered
    logits: Tensor  # (N, k) float32, the head's

    @property
    def best_two(self) -> tuple[np.ndarray, np.ndarray]:
        """The head's first and second choice, (N, 2) each: softmax probability and cluster (the same one if k is 1)."""
        probability, cluster = self.logits.softmax(1).topk(min(2, self.logits.shape[1]), dim=1)
        pick = [0, -1]
        return probability[:, pick].cpu().numpy(), cluster[:, pick].cpu().numpy()


@dataclass
class State:
    """What changes while training, and is saved in latest.pt."""

    model: ClusterNet
    optimizer: torch.optim.SGD
    epoch: int = 0  # the last finished one
    log: list[dict[str, Any]] = field(default_factory=list)


def train(
    run: Run,
    dataset: Dataset,
    config: Config,
    device: torch.device,
    save_every: int,
    keep: int,
    initial: dict[str, Tensor] | None = None,
    tensorboard: bool = False,
    say: Callable[[str], None] = tqdm.write,
) -> State:
    """Train `run` to its last epoch, from the beginning or from where it was left.

    Args:
        save_every: epochs between kept checkpoints; the last epoch's is always kept.
        keep: how many of them are kept at most, the newest.
        initial: weights to start from (config.init is their digest).
    """
    frames = Frames(dataset.pixels, device)
    state = start(config, device, initial)
    resumed = run.latest()
    if resumed is not None:
        restore(state, resumed)
        if state.epoch < config.epochs:
            say(f"continuing after epoch {state.epoch} of {config.epochs}")
    if state.epoch >= config.epochs:
        return state
    run.write_log(state.log)
    previous = run.clusters(state.epoch).assignment if state.epoch else None
    embedding = embed(state.model, frames, config, "embedding")
    writer = _tensorboard(run) if tensorboard else None
    saving, drawing = Ration(SAVE_SHARE), Ration(DRAW_SHARE)
    with tqdm(total=config.epochs, initial=state.epoch, desc="training", unit=" epochs", **bar_settings()) as bar:
        for epoch in range(state.epoch + 1, config.epochs + 1):
            clock = Clock()
            clusters, k = cluster(reduced(embedding.features, config.pca, config.whiten), config, epoch)
            run.write_clusters(epoch, clusters)
            clock.lap("cluster")
            loss, late_loss = train_epoch(state, frames, clusters.assignment, embedding.features, k, epoch, config)
            clock.lap("train")
            embedding = embed(state.model, frames, config, f"embedding {epoch}")
            if config.head_init == "centroids":
                embedding = calibrate(state.model, embedding, clusters.assignment)
            clock.lap("embed")

            row = describe(epoch, clusters, k, previous, dataset.labels, embedding, loss, late_loss) | clock.seconds
            state.epoch, previous = epoch, clusters.assignment
            state.log.append(row)
            keep_checkpoint(run, state, config, save_every, keep)
            run.write_table("clusters.csv", cluster_table(dataset.ids, clusters, embedding))
            run.write_log(state.log)
            last = epoch == config.epochs
            drawing.spend(lambda: figures.draw(run, state.log, dataset.labels is not None), last)
            if writer is not None:
                for name, value in row.items():
                    if isinstance(value, int | float):
                        writer.add_scalar(name, value, epoch)
            saving.spend(lambda: run.write_latest(snapshot(state)), last)
            bar.set_postfix_str(_figures_of(row))
            bar.update()
            for warning in warnings_of(state.log, len(dataset)):
                say(f"epoch {epoch}: {warning}")
    if writer is not None:
        writer.close()
    return state


def start(config: Config, device: torch.device, initial: dict[str, Tensor] | None = None) -> State:
    """The network and optimiser before the first epoch."""
    model = build(model_arguments(config), stream(config.seed, 0, "weights"))
    if initial is not None:
        model.load_trunk(initial)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.trunk_parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return State(model, optimizer)


def model_arguments(config: Config) -> dict[str, Any]:
    """run.json's "model": what deepcluster.models.build takes."""
    return {"arch": config.arch, "size": config.size, "k": config.k, "sobel": config.sobel, "neck": config.neck}


def embed(model: ClusterNet, frames: Frames, config: Config, what: str) -> Embedding:
    """Features and predictions of every image, in eval mode, batch norms folded."""
    net = folded(model)
    features, logits = [], []
    starts = range(0, len(frames.shape), EMBED_BATCH)
    with torch.inference_mode(), autocast(frames.device):
        for begin in progress(starts, what, unit="batches"):
            indices = np.arange(begin, min(begin + EMBED_BATCH, len(frames.shape)))
            feature = net.embed(fixed_view(frames, indices, config.size, config.center_crop))
            features.append(feature.float())
            logits.append(net.classify(feature).float())
    return Embedding(torch.cat(features), torch.cat(logits))


def cluster(x: np.ndarray, config: Config, epoch: int) -> tuple[Clusters, int]:
    """The epoch's clustering of reduced features x (N, d), and its number of clusters, empty ones included."""
    name = config.clustering_of(epoch)
    assignment = CLUSTERINGS[name](x, config.k, stream(config.seed, epoch, "clustering"))
    k = int(assignment.max()) + 1 if name == "pic" else config.k
    return Clusters(assignment, own_distance(x, assignment, k)), k


def balanced_draws(assignment: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """`total` image indices, uniform over the non-empty clusters, shuffled.

    Each cluster gives the same number, drawn without repetition where it is large enough (Caron et al. 2018, sec. 3.3).
    """
    clusters = np.unique(assignment)
    each = total // len(clusters) + 1
    draws = []
    for cluster in clusters:
        members = np.flatnonzero(assignment == cluster)
        draws.append(rng.choice(members, each, replace=len(members) < each))
    return rng.permutation(np.concatenate(draws))[:total]


def train_epoch(
    state: State, frames: Frames, assignment: np.ndarray, features: Tensor, k: int, epoch: int, config: Config
) -> tuple[float, float]:
    """One epoch on the pseudo-labels with a fresh head.

    Returns: mean loss of the epoch, and of its last quarter.
    """
    model, optimizer, device = state.model, state.optimizer, frames.device
    model.fresh_head(k, torch.Generator().manual_seed(stream(config.seed, epoch, "head")))
    if config.head_init == "centroids":
        centroid_head(model, features, assignment)
    head_optimizer = torch.optim.SGD(model.head.parameters(), config.lr, weight_decay=config.weight_decay)
    torch.manual_seed(stream(config.seed, epoch, "dropout"))
    losses = []
    steps = math.ceil(int(config.reassign * len(assignment)) / config.batch)
    model.train()
    for step, (images, targets) in enumerate(training_batches(frames, assignment, epoch, config)):
        rate = config.lr * learning_rate_factor(epoch - 1 + step / steps, config)
        optimizer.param_groups[0]["lr"] = rate
        head_optimizer.param_groups[0]["lr"] = rate * config.head_lr
        optimizer.zero_grad()
        head_optimizer.zero_grad()
        with autocast(device):
            loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        head_optimizer.step()
        losses.append(loss.detach())
    model.eval()
    curve = torch.stack(losses).float().cpu().numpy()
    return float(curve.mean()), float(curve[-max(1, len(curve) // 4) :].mean())


def training_batches(
    frames: Frames, assignment: np.ndarray, epoch: int, config: Config
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's random crops and their pseudo-labels, batch by batch."""
    rng = np.random.default_rng(stream(config.seed, epoch, "sampler"))
    generator = torch.Generator().manual_seed(stream(config.seed, epoch, "crops"))
    draws = balanced_draws(assignment, int(config.reassign * len(assignment)), rng)
    augmentation = Augmentation(config.scale, config.rotate, config.flip, config.jitter)
    crops = draw_crops(frames.shape[draws], augmentation, generator)
    starts = list(range(0, len(draws), config.batch))
    if len(draws) % config.batch == 1 and len(starts) > 1:
        starts.pop()  # batch norm cannot learn from a single image

    def batch(begin: int) -> tuple[Tensor, Tensor]:
        rows = slice(begin, min(begin + config.batch, len(draws)))
        images = training_views(frames, draws[rows], crops[rows], config.size)
        return images, torch.as_tensor(assignment[draws[rows]], device=frames.device)

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


def learning_rate_factor(time_in_epochs: float, config: Config) -> float:
    """Linear warm-up to 1, then constant or half a cosine down to 0 at the last epoch's end."""
    warmup = min(config.warmup, config.epochs / 2)
    if time_in_epochs < warmup:
        return (time_in_epochs + 0.1) / (warmup + 0.1)
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (time_in_epochs - warmup) / (config.epochs - warmup)))


def centroid_head(model: ClusterNet, features: Tensor, assignment: np.ndarray) -> None:
    """Point each non-empty cluster's weights at its mean standardised embedding, scaled so that logits start moderate."""
    with torch.no_grad():
        x = (features - features.mean(0)) / features.std(0).clamp_min(1e-6)
        for cluster in np.unique(assignment):
            mean = x[torch.as_tensor(assignment == cluster, device=x.device)].mean(0)
            model.head.weight[cluster] = 0.1 * mean / mean.norm().clamp_min(1e-6)


def calibrate(model: ClusterNet, embedding: Embedding, assignment: np.ndarray) -> Embedding:
    """Scale the head so that its probabilities tell how often it is right; no prediction changes.

    One temperature for all logits that minimises their cross-entropy with the clusters (Guo et al. 2017). A head that is
    new each epoch has no time to grow to its scale, least of all at the small rates of the last epochs.
    """
    targets = torch.as_tensor(assignment, device=embedding.logits.device)

    def loss(log_scale: float) -> float:
        return float(nn.functional.cross_entropy(embedding.logits.double() * math.exp(log_scale), targets))

    scale = math.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)
    with torch.no_grad():
        model.head.weight.mul_(scale)
        model.head.bias.mul_(scale)
    return Embedding(embedding.features, embedding.logits * scale)


# --- what is written ----------------------------------------------------------------------------------------------


class Ration:
    """Lets a costly act take no more than `share` of the time."""

    def __init__(self, share: float):
        self._share, self._ended, self._cost = share, time.monotonic(), 0.0

    def spend(self, act: Callable[[], None], now: bool) -> None:
        """Act if enough time has passed since the last time, or at once if `now`."""
        begun = time.monotonic()
        if now or begun - self._ended > self._cost / self._share:
            act()
            self._ended = time.monotonic()
            self._cost = self._ended - begun


class Clock:
    """Seconds per phase of an epoch."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, phase: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds[f"seconds_{phase}"] = round(now - self._last, 3)
        self._last = now


def describe(
    epoch: int,
    clusters: Clusters,
    k: int,
    previous: np.ndarray | None,
    labels: list[str] | None,
    embedding: Embedding,
    loss: float | None,
    late_loss: float | None,
) -> dict[str, Any]:
    """The epoch's row of log.csv."""
    from sklearn.metrics import normalized_mutual_info_score

    sizes = np.bincount(clusters.assignment, minlength=k)
    row: dict[str, Any] = {
        "epoch": epoch,
        "k": k,
        "loss": None if loss is None else round(loss, 6),
        "late_loss": None if late_loss is None else round(late_loss, 6),
        "objective": round(float((clusters.distance**2).sum()), 6),
        "stability": None
        if previous is None
        else round(normalized_mutual_info_score(previous, clusters.assignment), 6),
        "head_share": round(float((embedding.best_two[1][:, 0] == clusters.assignment).mean()), 6),
        "smallest": int(sizes.min()),
        "median": float(np.median(sizes)),
        "largest": int(sizes.max()),
        "empty": int((sizes == 0).sum()),
    }
    if labels is not None:
        row |= {name: round(value, 6) for name, value in agreement(labels, clusters.assignment).items()}
    return row


def cluster_table(ids: list[str], clusters: Clusters, embedding: Embedding) -> list[dict[str, Any]]:
    """clusters.csv; rank 1 is the image nearest to its cluster's centroid."""
    order = np.lexsort((clusters.distance, clusters.assignment))
    sizes = np.bincount(clusters.assignment)
    probability, predicted = embedding.best_two
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.concatenate([np.arange(1, size + 1) for size in sizes])
    return [
        {
            "image": ids[i],
            "cluster": int(clusters.assignment[i]),
            "distance": f"{clusters.distance[i]:.6f}",
            "rank": int(rank[i]),
            "predicted": int(predicted[i, 0]),
            "probability": f"{probability[i, 0]:.6f}",
        }
        for i in range(len(ids))
    ]


def warnings_of(log: list[dict[str, Any]], count: int) -> list[str]:
    """Signs of collapse in the newest epoch, in words."""
    row = log[-1]
    k, found = row["k"], []
    if row["epoch"] >= 3 and row["late_loss"] > 0.97 * math.log(k) and row["head_share"] < 3 / k:
        found.append(
            f"the head learns nothing (loss {row['late_loss']:.2f}, ln k is {math.log(k):.2f}): "
            "the clusters do not follow from the pictures; try fewer clusters or another --lr"
        )
    if row["largest"] > 0.5 * count and k > 2:
        found.append(f"one cluster holds {row['largest']} of {count} images: the clustering is collapsing")
    if row["empty"] > 0.5 * k:
        found.append(f"{row['empty']} of {k} clusters are empty: use a smaller --k")
    return found


def keep_checkpoint(run: Run, state: State, config: Config, save_every: int, keep: int) -> None:
    if state.epoch % save_every and state.epoch != config.epochs:
        return
    content = {"epoch": state.epoch, "model": state.model.arguments, "state": state.model.state_dict()}
    run.write_checkpoint(state.epoch, content)
    for old in [epoch for epoch in run.checkpoints() if epoch <= state.epoch][:-keep]:
        run.remove_checkpoint(old)


def snapshot(state: State) -> dict[str, Any]:
    return {
        "epoch": state.epoch,
        "model": state.model.arguments,
        "state": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "log": state.log,
    }


def restore(state: State, saved: dict[str, Any]) -> None:
    device = state.model.head.weight.device
    if saved["model"]["k"] != state.model.arguments["k"]:
        state.model.fresh_head(saved["model"]["k"], torch.Generator().manual_seed(0))
    state.model.load_state_dict(saved["state"])
    state.model.to(device)
    state.optimizer.load_state_dict(saved["optimizer"])
    state.epoch, state.log = saved["epoch"], saved["log"]


def _figures_of(row: dict[str, Any]) -> str:
    parts = [f"loss {row['loss']:.2f}"]
    if row["stability"] is not None:
        parts.append(f"stability {row['stability']:.2f}")
    if "ami" in row:
        parts.append(f"ami {row['ami']:.2f}")
    return ", ".join([*parts, f"sizes {row['smallest']}..{row['largest']}"])


def _tensorboard(run: Run) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.path / "tensorboard"))
