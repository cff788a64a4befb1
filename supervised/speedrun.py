"""The fewest seconds, epochs and layers with which 99 % of the digits are told."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from console import bar_settings
from machine.device import synchronise, use_device
from machine.files import write_csv
from machine.seeds import derive_seed
from supervised.data import Split, load_split, open_labelled
from supervised.evaluate import describe_spread
from supervised.learners import evaluate
from supervised.recipes import DATA
from supervised.train import split_validation

GOAL = 0.99
BATCH, TOP_RATE = 256, 0.01
CHANNELS = (16, 32, 32)  # of the convolutions, each followed by a pool
SIZE = 28  # pixels of a digit's side
FARTHEST = 2  # pixels that a training image is shifted by at most


@dataclass(frozen=True)
class Trial:
    """How much is spent."""

    convolutions: int
    epochs: int


TRIALS = tuple(Trial(layers, epochs) for layers in (1, 2, 3) for epochs in (1, 2, 3, 5))


def speedrun_command(options: argparse.Namespace) -> None:
    """`python -m supervised speedrun`: trials from the cheapest on; the choice is made on validation images."""
    device = use_device(options.device)
    data = open_labelled(DATA, SIZE, None, options.workers, options.mnist_dir)
    whole, test = (load_split(part, data.classes, device) for part in (data.training, data.test))
    total = len(options.seeds) * sum(trial.epochs for trial in TRIALS)
    rows = []
    print("| convolutions | epochs | seconds | validation accuracy | test accuracy | 99 % |")
    print("|---|---|---|---|---|---|", flush=True)
    with tqdm(total=total, desc="speedrun", unit=" epochs", leave=False, **bar_settings()) as bar:
        for trial in TRIALS:
            rows.append(measure_trial(trial, whole, test, len(data.classes), options.seeds, bar))
            bar.write("| " + " | ".join(str(value) for value in rows[-1].values()) + " |")
    if options.out is not None:
        write_csv(options.out, rows)


def measure_trial(
    trial: Trial, whole: Split, test: Split, classes: int, seeds: Sequence[int], bar: tqdm
) -> dict[str, str | int]:
    """The table's row of a trial: mean and spread over the seeds."""
    seconds, checked, tested = [], [], []
    for seed in seeds:
        learn, check = split_validation(len(whole), 0.1, seed)
        begin = time.perf_counter()
        net = train_trial(trial, whole[learn], classes, seed)
        synchronise(whole.images.device)
        seconds.append(time.perf_counter() - begin)
        checked.append(evaluate(net, whole[check]).accuracy)
        tested.append(evaluate(net, test).accuracy)
        bar.update(trial.epochs)
    return {
        "convolutions": trial.convolutions,
        "epochs": trial.epochs,
        "seconds": describe_spread(seconds, 1),
        "validation": describe_spread(checked, 4),
        "test": describe_spread(tested, 4),
        "reached": "yes" if np.mean(checked) >= GOAL else "",
    }


def make_network(convolutions: int, channels: int, side: int, classes: int) -> nn.Sequential:
    """So many convolutions with batch norm, ReLU and pool, and the logits."""
    layers: list[nn.Module] = []
    for out in CHANNELS[:convolutions]:
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = out, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, classes))


def train_trial(trial: Trial, training: Split, classes: int, seed: int) -> nn.Sequential:
    """Train on data that lies on the device; shifts of up to two pixels, label smoothing .1."""
    device, (_, channels, side, _) = training.images.device, training.images.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, 0, "weights"))
        net = make_network(trial.convolutions, channels, side, classes)
    net = net.to(device).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(derive_seed(seed, 0, "batches"))
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    steps = trial.epochs * -(-len(training) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, TOP_RATE, total_steps=steps)
    padded = functional.pad(training.images, (FARTHEST,) * 4)
    net.train()
    for _ in range(trial.epochs):
        order = torch.randperm(len(training), generator=generator).to(device)
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            top, left = torch.randint(0, 2 * FARTHEST + 1, (2,), generator=generator).tolist()
            images = padded[rows, :, top : top + side, left : left + side]
            optimiser.zero_grad(set_to_none=True)
            logits = net(images.contiguous(memory_format=torch.channels_last))
            functional.cross_entropy(logits, training.targets[rows], label_smoothing=0.1).backward()
            optimiser.step()
            schedule.step()
    return net
