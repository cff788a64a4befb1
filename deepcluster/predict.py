"""The head's cluster for new images: exactly the logit that Grad-CAM explains."""

import argparse
import sys
from typing import Any

import runs
from console import UserError
from deepcluster.launch import open_images, run_config
from deepcluster.models import trained_model
from deepcluster.train import embed
from deepcluster.views import Frames
from machine import prepare


def predict_command(options: argparse.Namespace) -> None:
    """`python -m deepcluster predict`."""
    run = runs.open_run(options.run)
    config = run_config(run)
    device = prepare(options.device, run.meta["threads"])
    model = trained_model(run, options.epoch).to(device)
    if not options.out.parent.is_dir():
        raise UserError(f"{options.out.parent}: no such folder: --out names a file in an existing one")
    dataset = open_images(run, options.images, options.workers, options.mnist_dir)
    probability, cluster = embed(model, Frames(dataset.pixels, device), config, "predicting").best_two
    rows: list[dict[str, Any]] = [
        {
            "image": dataset.ids[i],
            "cluster": int(cluster[i, 0]),
            "probability": f"{probability[i, 0]:.6f}",
            "runner_up": int(cluster[i, 1]),
            "runner_up_probability": f"{probability[i, 1]:.6f}",
        }
        for i in range(len(dataset))
    ]
    runs.write_csv(options.out, rows)
    print(f"{options.out}: {len(rows)} images")
    for name, reason in dataset.skipped:
        print(f"passed over {name!r}: {reason}", file=sys.stderr)
