"""Train a digit network: batches -> epochs -> a run directory whose images are the test set.

The network is chosen on a part of the training images held back for validation; the test set is read once, at the end.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from console import bar_settings
from machine import stream
from runs import Run
from supervised.models import Augmentation, DigitNet, build

EVALUATED = 1000  # images in a batch without gradients
SMALLEST_RATE = 1e-5


@dataclass(frozen=True)
class Config:
    """All of it is written to run.json; a resume with another value of any field is refused."""

    model: str
    epochs: int
    batch: int
    lr: float
    rotate: float
    zoom: float
    shift: float
    validation: float  # share of the training images held back
    limit: int | None  # training images used, validation included
    plateau: int  # epochs without a better validation loss before the rate is halved
    patience: int  # ... before training stops
    seed: int

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.rotate, self.zoom, self.shift)


@dataclass
class State:
    """Between two epochs."""

    epoch: int
    model: DigitNet
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.ReduceLROnPlateau
    best: dict[str, Any]  # epoch, loss, accuracy, state: by validation
    log: list[dict[str, Any]]

    def finished(self, config: Config) -> bool:
        return self.epoch >= config.epochs or self.epoch - self.best["epoch"] >= config.patience


@dataclass(frozen=True)
class Split:
    """Images (N, 1, 28, 28) float32 in 0..1 and digits (N,), on the device."""

    images: Tensor
    digits: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> "Split":
        return Split(self.images[rows], self.digits[rows])


def as_split(images: np.ndarray, digits: np.ndarray, device: torch.device) -> Split:
    """(N, 28, 28) uint8 and (N,) -> on the device."""
    pixels = torch.from_numpy(np.array(images)).to(device)
    return Split(pixels[:, None].float() / 255, torch.from_numpy(np.array(digits, np.int64)).to(device))


def held_back(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on, ascending, drawn from the seed."""
    order = np.random.default_rng(stream(seed, 0, "validation")).permutation(count)
    cut = max(1, round(count * share))
    return np.sort(order[cut:]), np.sort(order[:cut])


def start(config: Config, device: torch.device) -> State:
    model = build(config.model, stream(config.seed, 0, "weights")).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), config.lr)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=config.plateau, min_lr=SMALLEST_RATE
    )
    return State(0, model, optimizer, schedule, {"epoch": 0, "loss": math.inf, "accuracy": 0.0, "state": {}}, [])


def fit(run: Run, training: Split, validation: Split, config: Config, device: torch.device) -> State:
    """Train until the validation loss has not improved for `patience` epochs; the best weights are then in `best`."""
    state = start(config, device)
    kept = run.latest()
    if kept is not None:
        restore(state, kept)
    steps = -(-len(training) // config.batch)
    done, whole = state.epoch * steps, config.epochs * steps
    with tqdm(initial=done, total=whole, desc=config.model, unit=" batches", leave=False, **bar_settings()) as bar:
        while not state.finished(config):
            begin = time.monotonic()
            state.epoch += 1
            rate = state.optimizer.param_groups[0]["lr"]
            loss, accuracy = train_epoch(state, training, config, bar.update)
            found = evaluate(state.model, validation)
            state.schedule.step(found["loss"])
            if found["loss"] < state.best["loss"]:
                weights = {name: value.detach().cpu().clone() for name, value in state.model.state_dict().items()}
                state.best = {"epoch": state.epoch, **found, "state": weights}
            row = {"epoch": state.epoch, "loss": round(loss, 6), "accuracy": round(accuracy, 6)}
            row |= {f"validation_{name}": round(value, 6) for name, value in found.items()}
            state.log.append(row | {"lr": rate, "seconds": round(time.monotonic() - begin, 2)})
            run.write_latest(snapshot(state))
            run.write_log(state.log)
            bar.set_postfix_str(f"epoch {state.epoch}, validation {found['accuracy']:.4f}, best {state.best['epoch']}")
    return state


def train_epoch(state: State, training: Split, config: Config, after_batch: Callable[[], Any]) -> tuple[float, float]:
    """Mean loss and accuracy over the epoch's batches, as they were met; `after_batch` is called after each."""
    model = state.model.train()
    torch.manual_seed(stream(config.seed, state.epoch, "dropout"))
    total, hits = torch.zeros(2, device=training.images.device)
    seen = 0
    for images, digits in batches(training, config, state.epoch):
        state.optimizer.zero_grad(set_to_none=True)
        logits = model(images)
        loss = functional.cross_entropy(logits, digits)
        loss.backward()
        state.optimizer.step()
        total = total + loss.detach() * len(digits)
        hits = hits + (logits.argmax(1) == digits).sum()
        seen += len(digits)
        after_batch()
    return float(total) / seen, float(hits) / seen


def batches(training: Split, config: Config, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's batches in random order, augmented; a last image alone is left out (batch norm)."""
    generator = torch.Generator().manual_seed(stream(config.seed, epoch, "batches"))
    order = torch.randperm(len(training), generator=generator)
    for begin in range(0, len(order), config.batch):
        rows = order[begin : begin + config.batch]
        if len(rows) == 1 < len(order):
            continue
        part = training[rows.to(training.images.device)]
        yield augmented(part.images, config.augmentation, generator), part.digits


def augmented(images: Tensor, by: Augmentation, generator: torch.Generator) -> Tensor:
    """Each image turned, zoomed and shifted by its own amounts in one bilinear sampling; outside is black."""
    if by == Augmentation():
        return images.contiguous(memory_format=torch.channels_last)
    count = len(images)

    def drawn(size: float, *shape: int) -> Tensor:
        return (2 * torch.rand(count, *shape, generator=generator) - 1) * size

    angle, zoom, shift = torch.deg2rad(drawn(by.rotate)), 1 + drawn(by.zoom), 2 * drawn(by.shift, 2)
    c, s = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    affine = torch.stack([torch.stack([c, -s, shift[:, 0]], 1), torch.stack([s, c, shift[:, 1]], 1)], 1)
    grid = functional.affine_grid(affine.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False).contiguous(memory_format=torch.channels_last)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """(N, 10) in eval mode."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(images[begin : begin + EVALUATED]) for begin in range(0, len(images), EVALUATED)])


def evaluate(model: nn.Module, split: Split) -> dict[str, float]:
    logits = logits_of(model, split.images)
    return {
        "loss": float(functional.cross_entropy(logits, split.digits)),
        "accuracy": float((logits.argmax(1) == split.digits).float().mean()),
    }


def snapshot(state: State) -> dict[str, Any]:
    return {
        "epoch": state.epoch,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "best": state.best,
        "log": state.log,
    }


def restore(state: State, kept: dict[str, Any]) -> None:
    state.epoch, state.best, state.log = kept["epoch"], kept["best"], kept["log"]
    state.model.load_state_dict(kept["model"])
    state.optimizer.load_state_dict(kept["optimizer"])
    state.schedule.load_state_dict(kept["schedule"])
