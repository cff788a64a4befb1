"""One epoch of learning: by torch (`TorchLearner`), or by our own differentiation on numpy arrays (`NumpyLearner`)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from machine.seeds import derive_seed
from supervised import autodiff
from supervised.data import Split
from supervised.models import ClassNet
from supervised.recipes import Augmentation, find_recipe

EVALUATED = 1000  # images in a batch without gradients
SMALLEST_RATE = 1e-5


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy, and share right."""

    loss: float
    accuracy: float


class Learner(Protocol):
    """What a training trains."""

    def __init__(self, model: ClassNet, epochs: int, rate: float, plateau: int): ...

    @property
    def learning_rate(self) -> float:
        """Of the coming epoch."""

    def train_epoch(
        self,
        training: Split,
        epoch: int,
        batch: int,
        augmentation: Augmentation,
        seed: int,
        after_batch: Callable[[], Any],
    ) -> Score:
        """Learn from all images once; the score is over the batches as they were met. `after_batch` follows each."""

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        """Choose the learning rate of the next epoch."""

    def network(self) -> ClassNet:
        """The network as it is now."""

    def snapshot(self) -> dict[str, Any]:
        """All that a resume needs: tensors and plain values."""

    def restore(self, saved: dict[str, Any]) -> None:
        """Put what `snapshot` took into a learner that was just made."""


class TorchLearner:
    """Adam, whose rate is halved after `plateau` epochs without a better validation loss."""

    def __init__(self, model: ClassNet, epochs: int, rate: float, plateau: int):
        self._model = model.to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.Adam(self._model.parameters(), rate)
        self._schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimizer, factor=0.5, patience=plateau, min_lr=SMALLEST_RATE
        )

    @property
    def learning_rate(self) -> float:
        return self._optimizer.param_groups[0]["lr"]

    def train_epoch(
        self,
        training: Split,
        epoch: int,
        batch: int,
        augmentation: Augmentation,
        seed: int,
        after_batch: Callable[[], Any],
    ) -> Score:
        model = self._model.train()
        torch.manual_seed(derive_seed(seed, epoch, "dropout"))
        loss_sum = torch.zeros((), device=training.images.device)
        right = torch.zeros((), device=training.images.device)
        seen = 0
        for images, targets in draw_batches(training, batch, augmentation, seed, epoch):
            self._optimizer.zero_grad(set_to_none=True)
            logits = model(images)
            loss = functional.cross_entropy(logits, targets)
            loss.backward()
            self._optimizer.step()
            loss_sum = loss_sum + loss.detach() * len(targets)
            right = right + (logits.argmax(1) == targets).sum()
            seen += len(targets)
            after_batch()
        return Score(float(loss_sum) / seen, float(right) / seen)

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        self._schedule.step(validation_loss)

    def network(self) -> ClassNet:
        return self._model

    def snapshot(self) -> dict[str, Any]:
        return {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self._model.load_state_dict(saved["model"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._schedule.load_state_dict(saved["schedule"])


class NumpyLearner:
    """autodiff.SmallCNN, by momentum with a rate that falls in a line to 0 at the last epoch's end, on the CPU.

    It starts at the weights of torch's network of the same layers, and hands them back to it after each epoch: so its
    network is judged, kept and explained like any other.
    """

    def __init__(self, model: ClassNet, epochs: int, rate: float, plateau: int):
        self._model, self._epochs, self._rate = model, epochs, rate
        known = model.arguments
        channels = find_recipe(known["name"]).arguments["channels"]
        self._net = autodiff.SmallCNN(0, channels, known["size"], known["channels"], len(known["classes"]))
        self._take_over()
        self._optimiser = autodiff.SGD(self._net.parameters(), rate)

    @property
    def learning_rate(self) -> float:
        return self._optimiser.rate

    def train_epoch(
        self,
        training: Split,
        epoch: int,
        batch: int,
        augmentation: Augmentation,
        seed: int,
        after_batch: Callable[[], Any],
    ) -> Score:
        loss_sum, right, seen = 0.0, 0, 0
        for images, targets in draw_batches(training, batch, augmentation, seed, epoch):
            self._optimiser.zero_grad()
            truth = targets.cpu().numpy()
            logits = self._net(autodiff.Tensor(images.contiguous().cpu().numpy()))
            loss = autodiff.softmax_cross_entropy(logits, truth)
            loss.backward()
            self._optimiser.step()
            loss_sum += float(loss.data) * len(truth)
            right += int((logits.data.argmax(1) == truth).sum())
            seen += len(truth)
            after_batch()
        self._hand_over()
        return Score(loss_sum / seen, right / seen)

    def end_epoch(self, epoch: int, validation_loss: float) -> None:
        self._optimiser.rate = self._rate * (1 - epoch / self._epochs)

    def network(self) -> ClassNet:
        return self._model

    def snapshot(self) -> dict[str, Any]:
        return {
            "model": self._model.state_dict(),
            "speed": [torch.from_numpy(speed) for speed in self._optimiser.speed],
            "rate": self._optimiser.rate,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self._model.load_state_dict(saved["model"])
        self._take_over()
        self._optimiser.speed = [speed.numpy() for speed in saved["speed"]]
        self._optimiser.rate = saved["rate"]

    def _take_over(self) -> None:
        for ours, value in zip(self._net.parameters(), self._model.parameters(), strict=True):
            ours.data = value.detach().cpu().numpy().copy()

    def _hand_over(self) -> None:
        with torch.no_grad():
            for ours, value in zip(self._net.parameters(), self._model.parameters(), strict=True):
                value.copy_(torch.from_numpy(ours.data))


LEARNERS: dict[str, type[Learner]] = {"torch": TorchLearner, "numpy": NumpyLearner}


def draw_batches(
    training: Split, batch: int, augmentation: Augmentation, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The epoch's images and their classes in random order, augmented; a last image alone is left out (batch norm)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch, "batches"))
    order = torch.randperm(len(training), generator=generator)
    for begin in range(0, len(order), batch):
        rows = order[begin : begin + batch]
        if len(rows) == 1 < len(order):
            continue
        part = training[rows.to(training.images.device)]
        yield augment(part.images, augmentation, generator), part.targets


def augment(images: Tensor, by: Augmentation, generator: torch.Generator) -> Tensor:
    """Turn, zoom and shift each image by its own amounts in one bilinear sampling; outside is black."""
    if by == Augmentation():
        return images.contiguous(memory_format=torch.channels_last)
    count = len(images)

    def draw(size: float, *shape: int) -> Tensor:
        return (2 * torch.rand(count, *shape, generator=generator) - 1) * size

    angle, zoom, shift = torch.deg2rad(draw(by.rotate)), 1 + draw(by.zoom), 2 * draw(by.shift, 2)
    c, s = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    affine = torch.stack([torch.stack([c, -s, shift[:, 0]], 1), torch.stack([s, c, shift[:, 1]], 1)], 1)
    grid = functional.affine_grid(affine.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False).contiguous(memory_format=torch.channels_last)


def compute_logits(model: nn.Module, images: Tensor) -> Tensor:
    """(N, classes) in eval mode."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(images[begin : begin + EVALUATED]) for begin in range(0, len(images), EVALUATED)])


def evaluate(model: nn.Module, split: Split) -> Score:
    """Over all images of the split, in eval mode."""
    logits = compute_logits(model, split.images)
    accuracy = (logits.argmax(1) == split.targets).float().mean()
    return Score(float(functional.cross_entropy(logits, split.targets)), float(accuracy))
