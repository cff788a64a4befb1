"""From a user's options to a training: begun, continued or refused; then the one look at the test set."""

import argparse
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import runs
from console import UserError
from datasets.folder import refuse_inside
from machine.device import device_in_words, use_device
from machine.files import waiting_for, write_json
from machine.reading import Damaged, read_json
from runs import Clusters, Meta, Run, Source, View
from runs.received import remember
from runs.tables import cluster_rows
from supervised.data import CHANNELS, LabelledData, Split, load_split, open_labelled
from supervised.evaluate import RESULT, Result, is_finished, measure_reliability, read_result
from supervised.learners import compute_logits
from supervised.models import DIGITS, build
from supervised.recipes import DATA, DEFAULT, SUITED, find_recipe
from supervised.train import Config, State, fit, split_validation

BEST = "best_parameters"  # beside the runs: .json for MNIST's, with the data's name for others
PACKAGES = ("console", "datasets", "machine", "runs", "supervised")  # whose code decides the result
FORMER_KEY = "mnist:test"  # of the images of a run of schema 1


def train_command(options: argparse.Namespace) -> None:
    """`python -m supervised train`."""
    config = configure(options)
    refuse_inside(options.exp, options.data, "--exp")
    old = runs.find_begun(options.exp, "supervised")
    device = use_device(options.device, old.meta.stamp.threads if old is not None else None)
    data = open_labelled(options.data, config.size, config.limit, options.workers, options.mnist_dir)
    meta = describe_run(config, data, device)
    learn, check = split_validation(len(data.training), config.validation, config.seed)
    if not len(learn):
        raise UserError(f"{options.data}: {len(check)} training images: none is left beside those for validation")
    introduce(data, device)
    with runs.hold(options.exp):
        if old is None:
            run = runs.begin(options.exp, meta, data.test.ids, data.test.labels, data.test.skipped)
        else:
            runs.refuse_differences(replace(old, meta=bring_up_to_date(old.meta, meta)), meta)
            remember(old)
            run = old
        whole = load_split(data.training, data.classes, device)
        validation = whole[check]
        state = fit(run, whole[learn], validation, config)
        if not is_finished(run):
            finish(run, state, config, validation, load_split(data.test, data.classes, device))
    result = read_result(run)
    keep_best(run, result, config)
    print(
        f"{options.exp}: {config.model}, seed {config.seed}: {result.epochs_used} epochs, best {result.best_epoch}; "
        f"validation {result.validation_accuracy:.4f}, test {result.test_accuracy:.4f} (loss {result.test_loss:.4f})"
    )


def configure(options: argparse.Namespace) -> Config:
    """The recipe, and over it the user's options.

    Raises:
        UserError: if there is no such recipe, the images are too small for it, or none or all would be held back.
    """
    recipe = find_recipe(options.model or SUITED.get(options.data, DEFAULT))
    build({"name": recipe.name, "size": options.size})
    if not 0 < options.validation < 1:
        raise UserError(f"--validation {options.validation:g}: a share between 0 and 1 is held back; .1 is usual")
    suited = asdict(recipe.augmentation) | {
        name: getattr(recipe, name) for name in ("epochs", "batch", "lr", "stop_at_accuracy")
    }
    chosen = {name: getattr(options, name) for name in suited if getattr(options, name) is not None}
    same = ("size", "validation", "limit", "plateau", "patience", "seed")
    return Config(model=recipe.name, **{name: getattr(options, name) for name in same}, **(suited | chosen))


def describe_run(config: Config, data: LabelledData, device: torch.device) -> Meta:
    """run.json of a training with these settings; its images are the test set's."""
    test = data.test
    key = test.key if data.training.key == test.key else f"{test.key}-{data.training.key}"
    return Meta(
        kind="supervised",
        dataset=Source(data.name, test.source, key, None, len(test)),
        view=View(config.size, False, config.size),
        model={"name": config.model, "size": config.size, "channels": CHANNELS, "classes": data.classes},
        config=asdict(config),
        seed=config.seed,
        stamp=runs.make_stamp(device, PACKAGES),
    )


def introduce(data: LabelledData, device: torch.device) -> None:
    """Say what is trained on, and where."""
    passed = len(data.training.skipped) + len(data.test.skipped)
    skipped = f"; {passed} files passed over" if passed else ""
    counts = f"{len(data.training)} images to train on, {len(data.test)} to test on, {len(data.classes)} classes"
    print(f"{data.name}: {counts}{skipped}; on {device_in_words(device)}")


def finish(run: Run, state: State, config: Config, validation: Split, test: Split) -> None:
    """The best weights, and the test set under them: read here, once. The checkpoint is written last."""
    model, best = state.learner.network(), state.best
    if not best.state:
        raise UserError(f"{run.path}: no epoch had a finite validation loss: train into another --exp, a smaller --lr")
    model.load_state_dict(best.state)
    logits = compute_logits(model, test.images).double().cpu()
    targets = test.targets.cpu()
    probability, predicted = (values.numpy() for values in logits.softmax(1).max(1))
    run.write_clusters(best.epoch, Clusters(predicted, 1 - probability))
    run.write_table("clusters.csv", cluster_rows(run.ids, predicted, 1 - probability, predicted, probability))
    result = Result(
        model=config.model,
        epochs_asked=config.epochs,
        epochs_used=state.epoch,
        best_epoch=best.epoch,
        validation_loss=best.loss,
        validation_accuracy=best.accuracy,
        validation_reliability=measure_reliability(compute_logits(model, validation.images), validation.targets),
        test_loss=float(functional.cross_entropy(logits, targets)),
        test_accuracy=float((torch.from_numpy(predicted) == targets).double().mean()),
        seconds=sum(row["seconds"] for row in state.log),
    )
    run.write_json(RESULT, asdict(result))
    run.write_checkpoint(best.epoch, {"epoch": best.epoch, "model": run.meta.model, "state": best.state})


def keep_best(run: Run, result: Result, config: Config) -> None:
    """best_parameters.json beside the run: the best of all runs there on the same data, by validation loss.

    Runs that end at the same time take turns; a run counts when it is finished. A folder that may not be written to
    goes without.
    """
    data = run.meta.dataset.name
    folder = run.path.resolve().parent
    path = folder / (f"{BEST}.json" if data == DATA else f"{BEST}-{data}.json")
    try:
        with waiting_for(folder / f".{path.name}.lock"):
            best = read_best(path)
            name = run.path.resolve().name
            if best is not None and best["validation_loss"] <= result.validation_loss and best["run"] != name:
                return
            write_json(path, {"run": name, **asdict(result), "parameters": asdict(config)})
    except (OSError, UserError) as error:
        print(f"{path.name} was left as it is ({error}); the run itself is complete", file=sys.stderr)


def read_best(path: Path) -> dict[str, Any] | None:
    """What `keep_best` wrote; None if nothing is there, or something else, which holds nothing for us."""
    try:
        best = read_json(path, "")
    except (FileNotFoundError, Damaged):
        return None
    if not isinstance(best, dict) or not isinstance(best.get("run"), str):
        return None
    loss = best.get("validation_loss")
    return best if isinstance(loss, int | float) and not isinstance(loss, bool) and math.isfinite(loss) else None


def bring_up_to_date(begun: Meta, now: Meta) -> Meta:
    """run.json of a run of schema 1, which knew MNIST alone, as it would be written now; of a newer run, itself."""
    if begun.dataset.key != FORMER_KEY or now.dataset.source != begun.dataset.source:
        return begun
    return replace(begun, dataset=now.dataset, config={"size": DIGITS["size"]} | begun.config)
