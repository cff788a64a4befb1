"""A trained network used: its features, and the head's cluster for new images, exactly what Grad-CAM explains."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import runs
from console import UserError
from deepcluster.features import embed, embed_together
from deepcluster.trained import network, open_images, run_config
from deepcluster.views import Frames
from machine.device import use_device
from machine.files import write_atomic, write_csv
from machine.processes import device_here, first_here_goes_ahead, is_first, joined


def predict_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster predict`; of several processes each sees its share, and the first writes."""
    with joined():
        predict(options)


def predict(options: argparse.Namespace) -> None:
    """Write the table of the head's clusters."""
    run = runs.open_run(options.run)
    config = run_config(run)
    device = use_device(device_here(options.device), run.meta.stamp.threads)
    model = network(run, options.epoch).to(device)
    if not options.out.parent.is_dir():
        raise UserError(f"{options.out.parent}: no such folder: --out names a file in an existing one")
    with first_here_goes_ahead():
        dataset = open_images(run, options.images, options.workers, options.mnist_dir)
    probability, cluster = embed_together(model, Frames(dataset.pixels, device), config, "predicting").best_two
    if not is_first():
        return
    rows: list[dict[str, Any]] = [
        {
            "image": dataset.ids[i],
            "cluster": int(cluster[i, 0]),
            "probability": f"{probability[i, 0]:.6f}",
            "rival": int(cluster[i, 1]),
            "rival_probability": f"{probability[i, 1]:.6f}",
        }
        for i in range(len(dataset))
    ]
    write_csv(options.out, rows)
    print(f"{options.out}: {len(rows)} images")
    for name, reason in dataset.skipped:
        print(f"passed over {name!r}: {reason}", file=sys.stderr)


def features_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster features`: what is clustered, one row an image, as npz (`features`, `images`) or CSV."""
    run = runs.open_run(options.run)
    config = run_config(run)
    out: Path = options.out or run.path / ("features.csv" if options.csv else "features.npz")
    if not out.parent.is_dir():
        raise UserError(f"{out.parent}: no such folder: --out names a file in an existing one")
    device = use_device(options.device, run.meta.stamp.threads)
    model = network(run, options.epoch).to(device)
    dataset = open_images(run, options.data, options.workers, options.mnist_dir)
    found = embed(model, Frames(dataset.pixels, device), config, "embedding").features.cpu().numpy()
    if options.csv:
        table: list[dict[str, Any]] = [{"image": name} for name in dataset.ids]
        for row, values in zip(table, found.tolist(), strict=True):
            row |= {f"feature_{j}": value for j, value in enumerate(values)}
        write_csv(out, table)
    else:
        write_atomic(out, lambda file: np.savez(file, features=found, images=np.array(dataset.ids)))
    print(f"{out}: {found.shape[0]} images x {found.shape[1]} features")
