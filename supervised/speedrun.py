"""The fewest seconds, epochs and layers to 99 %: small networks, large batches, one cycle of the learning rate."""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

import runs
from console import bar_settings
from datasets.mnist import load_mnist
from machine import prepare, stream
from supervised.judge import spread
from supervised.train import Split, as_split, evaluate, held_back

GOAL = 0.99
BATCH, TOP_RATE = 256, 0.01
CHANNELS = (16, 32, 32)  # of the convolutions, each followed by a pool


@dataclass(frozen=True)
class Trial:
    convolutions: int
    epochs: int


TRIALS = tuple(Trial(layers, epochs) for layers in (1, 2, 3) for epochs in (1, 2, 3, 5))


def speedrun_command(options: argparse.Namespace) -> None:
    """`python -m supervised speedrun`: trials from the cheapest on; the choice is made on validation images."""
    device = prepare(options.device)
    images, digits = load_mnist("train", options.mnist_dir)
    test = as_split(*load_mnist("test", options.mnist_dir), device)
    whole = as_split(images, digits, device)
    total = len(options.seeds) * sum(trial.epochs for trial in TRIALS)
    rows = []
    print("| convolutions | epochs | seconds | validation accuracy | test accuracy | 99 % |")
    print("|---|---|---|---|---|---|", flush=True)
    with tqdm(total=total, desc="speedrun", unit=" epochs", leave=False, **bar_settings()) as bar:
        for trial in TRIALS:
            seconds, checked, tested = [], [], []
            for seed in options.seeds:
                learn, check = held_back(len(whole), 0.1, seed)
                begin = time.perf_counter()
                net = run_trial(trial, whole[learn], seed)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - begin)
                checked.append(evaluate(net, whole[check])["accuracy"])
                tested.append(evaluate(net, test)["accuracy"])
                bar.update(trial.epochs)
            reached = bool(np.mean(checked) >= GOAL)
            row = {"convolutions": trial.convolutions, "epochs": trial.epochs, "seconds": spread(seconds, 1)}
            row |= {"validation": spread(checked, 4), "test": spread(tested, 4), "reached": "yes" if reached else ""}
            rows.append(row)
            bar.write("| " + " | ".join(str(value) for value in row.values()) + " |")
    if options.out is not None:
        runs.write_csv(options.out, rows)


def network(convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels, side = 1, 28
    for out in CHANNELS[:convolutions]:
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = out, side // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side * side, 10))


def run_trial(trial: Trial, training: Split, seed: int) -> nn.Sequential:
    """Train on data that lies on the device; shifts of up to two pixels, label smoothing .1."""
    device = training.images.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, 0, "weights"))
        net = network(trial.convolutions).to(device).to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(stream(seed, 0, "batches"))
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.01)
    steps = trial.epochs * -(-len(training) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, TOP_RATE, total_steps=steps)
    padded = functional.pad(training.images, (2, 2, 2, 2))
    net.train()
    for _ in range(trial.epochs):
        order = torch.randperm(len(training), generator=generator).to(device)
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
            images = padded[rows, :, top : top + 28, left : left + 28].contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad(set_to_none=True)
            functional.cross_entropy(net(images), training.digits[rows], label_smoothing=0.1).backward()
            optimiser.step()
            schedule.step()
    return net
