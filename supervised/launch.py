"""From a user's options to a training: begun, continued or refused; then the one look at the test set."""

import argparse
import fcntl
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import runs
from console import UserError
from datasets.mnist import load_mnist
from machine import prepare
from runs import Clusters, Run
from runs.directory import atomic
from supervised.models import AUGMENTATIONS, Augmentation, build
from supervised.train import Config, Split, State, as_split, fit, held_back, logits_of

BEST = "best_parameters.json"
OURS = {"run.json", "images.csv", "skipped.csv", "clusters", "checkpoints", "figures", ".lock"}


def train_command(options: argparse.Namespace) -> None:
    """`python -m supervised train`."""
    config = configure(options)
    exp: Path = options.exp
    old = runs.open_run(exp) if (exp / "run.json").exists() else None
    if old is not None:
        refuse_differences(old, config)
    elif exp.exists() and (not exp.is_dir() or any(not path.name.startswith(".") for path in exp.iterdir() if path.name not in OURS)):  # fmt: skip
        raise UserError(f"{exp}: not a run directory, and something is in it: choose another --exp")
    device = prepare(options.device, old.meta["threads"] if old is not None else None)
    images, digits = load_mnist("train", options.mnist_dir)
    test_images, test_digits = load_mnist("test", options.mnist_dir)
    rows = np.arange(len(images))
    if config.limit is not None:
        if config.limit > len(images):
            raise UserError(f"--limit {config.limit}: MNIST has {len(images)} training images")
        rows = np.sort(np.random.default_rng(0).permutation(len(images))[: config.limit])
    run = old or create(exp, config, [str(digit) for digit in test_digits], device)
    with run.locked():
        learn, check = held_back(len(rows), config.validation, config.seed)
        whole = as_split(images[rows], digits[rows], device)
        state = fit(run, whole[learn], whole[check], config, device)
        if not run.checkpoints() or run.json("result.json") is None:
            finish(run, state, config, whole[check], as_split(test_images, test_digits, device))
    result = run.json("result.json")
    print(
        f"{exp}: {config.model}, seed {config.seed}: {result['epochs_used']} epochs, best {result['best_epoch']}; "
        f"validation {result['validation_accuracy']:.4f}, test {result['test_accuracy']:.4f} (loss {result['test_loss']:.4f})"
    )


def configure(options: argparse.Namespace) -> Config:
    build(options.model)  # refuses an unknown one
    if not 0 < options.validation < 1:
        raise UserError(f"--validation {options.validation:g}: a share between 0 and 1 is held back; .1 is usual")
    suits = AUGMENTATIONS.get(options.model, Augmentation())
    chosen = {name: getattr(options, name) for name in ("rotate", "zoom", "shift")}
    values = {name: getattr(suits, name) if value is None else value for name, value in chosen.items()}
    same = ("model", "epochs", "batch", "lr", "validation", "limit", "plateau", "patience", "seed")
    return Config(**{name: getattr(options, name) for name in same}, **values)


def create(exp: Path, config: Config, labels: Sequence[str], device: torch.device) -> Run:
    """Begin the run directory: its images are the test set's."""
    names = ("torch", "torchvision", "numpy", "scikit-learn")
    meta = {
        "kind": "supervised",
        "dataset": {
            "name": "mnist", "source": "mnist:test", "key": "mnist:test", "limit": None, "images": len(labels),
        },
        "view": {"size": 28, "center_crop": False, "decoded_side": 28},
        "model": {"name": config.model},
        "config": asdict(config),
        "seed": config.seed,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "versions": {name: version(name) for name in names} | {"python": platform.python_version()},
    }  # fmt: skip
    return runs.create(exp, meta, [f"test/{i:05d}" for i in range(len(labels))], labels, [])


def finish(run: Run, state: State, config: Config, validation: Split, test: Split) -> None:
    """The best weights, and the test set under them: read here, once. The checkpoint is written last."""
    state.model.load_state_dict(state.best["state"])
    logits = logits_of(state.model, test.images).double().cpu()
    digits = test.digits.cpu()
    probability, predicted = logits.softmax(1).max(1)
    epoch = state.best["epoch"]
    run.write_clusters(epoch, Clusters(predicted.numpy(), (1 - probability).numpy()))
    right = predicted == digits
    rows = [
        {"image": name, "cluster": int(predicted[i]), "distance": f"{1 - float(probability[i]):.6g}",
         "predicted": int(predicted[i]), "probability": f"{float(probability[i]):.6f}", "right": "yes" if right[i] else ""}
        for i, name in enumerate(run.ids)
    ]  # fmt: skip
    run.write_table("clusters.csv", rows)
    result = {
        "model": config.model,
        "epochs_asked": config.epochs,
        "epochs_used": state.epoch,
        "best_epoch": epoch,
        "validation_loss": state.best["loss"],
        "validation_accuracy": state.best["accuracy"],
        "validation_reliability": reliability(logits_of(state.model, validation.images), validation.digits),
        "test_loss": float(torch.nn.functional.cross_entropy(logits, digits)),
        "test_accuracy": float(right.double().mean()),
        "seconds": sum(row["seconds"] for row in state.log),
    }
    run.write_json("result.json", result)
    keep_best(run, result, config)
    weights = state.best["state"]
    run.write_checkpoint(epoch, {"epoch": epoch, "model": run.meta["model"], "state": weights})


def reliability(logits: torch.Tensor, digits: torch.Tensor) -> list[float]:
    """For each digit, how often the net is right when it says so (precision); a digit it never says: 0."""
    predicted = logits.argmax(1)
    found = []
    for digit in range(logits.shape[1]):
        said = predicted == digit
        found.append(float((digits[said] == digit).float().mean()) if bool(said.any()) else 0.0)
    return found


def keep_best(run: Run, result: dict[str, Any], config: Config) -> None:
    """best_parameters.json beside the run: the best of all runs there, by validation loss.

    Runs that end at the same time take turns; a run counts when its result is complete.
    """
    path = run.path.resolve().parent / BEST
    with (path.parent / f".{BEST}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a mounted Drive has no locks; there is one writer there
            pass
        try:
            best = json.loads(path.read_text()) if path.exists() else None
        except ValueError:  # damaged by somebody: it holds nothing any more
            best = None
        if best is not None and best["validation_loss"] <= result["validation_loss"] and best["run"] != run.path.name:
            return
        content = {"run": run.path.resolve().name, **result, "parameters": asdict(config)}
        atomic(path, lambda file: file.write((json.dumps(content, indent=1) + "\n").encode()))


def refuse_differences(run: Run, config: Config) -> None:
    if run.meta.get("kind") != "supervised":
        raise UserError(f"{run.path}: holds a run of another kind ({run.meta.get('kind')}): choose another --exp")
    stored = run.meta["config"]
    differing = [
        f"--{name} {stored.get(name)} (now {value})"
        for name, value in asdict(config).items()
        if stored.get(name) != value
    ]
    if differing:
        raise UserError(
            f"{run.path}: was begun with {', '.join(differing)}: give the same settings to continue it, or choose another --exp"
        )
