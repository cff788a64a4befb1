"""The default run finds the painted types, and by looking at the coin.

A rough check, with pytorch-grad-cam; minutes of two cores. Of the symbols it asserts nothing: over a blob in the middle
Grad-CAM gains as much as its error there, more on one machine and less on another (docs/reading-heat-maps.md).
"""

import csv

import numpy as np
import torch
from conftest import run_module
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import runs
from datasets import open_dataset
from datasets.painted import painted_folder, read_mask
from deepcluster.trained import network
from deepcluster.views import Frames, fixed_view


def share(heat: np.ndarray, mask: np.ndarray) -> float:
    return float((heat * mask).sum() / heat.sum())


def test_the_default_run_finds_types_by_the_coin(tmp_path):
    result = run_module("deepcluster", "train", "painted", "--exp", tmp_path / "exp")
    assert result.returncode == 0, result.stderr
    run = runs.open_run(tmp_path / "exp")
    ami = float(run.log()[-1]["ami"])
    assert ami > run.read_json("baselines.json")["untrained"]["ami"] + 0.1
    assert ami > run.read_json("baselines.json")["pixels"]["ami"] + 0.3
    assert float(run.log()[-1]["head_agreement"]) > 0.8

    model, size = network(run), run.meta.view.size
    dataset = open_dataset("painted", run.meta.view.decoded_side)
    assignment = run.clusters(run.epochs()[-1]).assignment
    truth = {row["image"]: row for row in csv.DictReader((painted_folder() / "truth.csv").open())}
    chosen = [
        i for i, name in enumerate(dataset.ids) if truth[name]["quality"] == "good" and float(truth[name]["wear"]) < 0.5
    ]
    chosen = np.random.default_rng(0).choice(chosen, 160, replace=False)

    images = fixed_view(Frames(dataset.pixels, torch.device("cpu")), chosen, size, crop=False)
    targets = [ClassifierOutputTarget(int(assignment[i])) for i in chosen]
    with GradCAM(model, [model.cam_layer]) as cam:
        maps = cam(images, targets)
    axis = np.linspace(-1, 1, size)
    gaussian = np.exp(-(axis[None] ** 2 + axis[:, None] ** 2) / (2 * 0.5**2))

    gains = {"coin": [], "symbols": []}
    for heat, i in zip(maps, chosen, strict=True):
        if heat.max() <= 0:
            continue
        masks = read_mask(painted_folder() / "masks" / dataset.ids[i].replace(".jpg", ".png"))
        masks["symbols"] = masks["dot"] | masks["field0"] | masks["field1"] | masks["field2"] | masks["field3"]
        for part, gain in gains.items():
            mask = np.asarray(Image.fromarray(masks[part]).resize((size, size), Image.Resampling.NEAREST))
            gain.append(share(heat, mask) - share(gaussian, mask))
    print({part: (len(gain), np.mean(gain)) for part, gain in gains.items()})
    assert len(gains["coin"]) > 120
    assert np.mean(gains["coin"]) > 2 * np.std(gains["coin"]) / len(gains["coin"]) ** 0.5
