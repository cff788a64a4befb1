import os
import random
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, a_meta, kill_module, run_module
from PIL import Image
from torch.nn import functional

import runs
from datasets import decoded_side, look, open_dataset
from datasets.view import VIEWS
from deepcluster.config import PAPER, STABLE, Config
from deepcluster.descriptors import facts_of
from deepcluster.epoch import balanced_draws, learning_rate_factor, train_epoch, training_batches
from deepcluster.features import embed, pca_whiten
from deepcluster.journal import Journal, warnings_of
from deepcluster.train import cluster, reduce, start, train
from deepcluster.views import (
    MEAN,
    STD,
    Augmentation,
    Frames,
    draw_crops,
    draw_turns,
    training_views,
    turned_views,
)
from machine.files import read_csv
from machine.seeds import derive_seed

CPU = torch.device("cpu")
KILLS = int(os.environ.get("KILLS", "3"))


def paper(**changes) -> Config:
    return Config(**(PAPER | {"size": 64, "k": 4, "epochs": 1, "batch": 20, "decode_at_most": 73} | changes))


def stable(**changes) -> Config:
    values = {"arch": "alexnet_fine", "size": 32, "k": 4, "epochs": 2, "batch": 16, "rotate": 30.0}
    return Config(**(STABLE | values | {"decode_at_most": 73} | changes))


# --- the paper to the letter: a whole epoch, slowly ----------------------------------------------------------------


def naive_forward(state, images, training, upto_feature=False):
    """AlexNet of Caron et al. 2018 written out, from a state_dict; updates the running statistics when training."""
    grey = images.mean(1, keepdim=True)
    kernel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    x = functional.conv2d(grey, torch.stack([kernel, kernel.T])[:, None], padding=1)
    index = 0
    for stride, padding, pool in ((4, 2, True), (1, 2, True), (1, 1, False), (1, 1, False), (1, 1, True)):
        conv, norm = f"features.{index}", f"features.{index + 1}"
        x = functional.conv2d(x, state[f"{conv}.weight"], state[f"{conv}.bias"], stride, padding)
        x = functional.batch_norm(
            x,
            state[f"{norm}.running_mean"],
            state[f"{norm}.running_var"],
            state[f"{norm}.weight"],
            state[f"{norm}.bias"],
            training,
        )
        x = functional.relu(x)
        index += 3
        if pool:
            x = functional.max_pool2d(x, 3, 2)
            index += 1
    x = functional.dropout(x.flatten(1), 0.5, training)
    x = functional.relu(functional.linear(x, state["classifier.1.weight"], state["classifier.1.bias"]))
    x = functional.dropout(x, 0.5, training)
    x = functional.linear(x, state["classifier.4.weight"], state["classifier.4.bias"])
    if upto_feature:
        return x
    return functional.linear(functional.relu(x), state["head.weight"], state["head.bias"])


def naive_normalise(image):
    """(H, W, 3) uint8 -> (3, H, W)."""
    return torch.stack([(image[..., c].float() / 255 - MEAN[c]) / STD[c] for c in range(3)])


def test_one_epoch_of_the_paper_equals_a_naive_oracle(coins):
    config = paper()
    dataset = open_dataset(str(coins), decoded_side(64))
    frames = Frames(dataset.pixels, CPU)
    state = start(config, CPU)
    weights = {name: value.clone() for name, value in state.model.state_dict().items()}

    # features: centre crop, normalise, forward in eval mode; PCA whitening and length 1 by numpy's SVD
    top = round((73 - 64) / 2)
    views = torch.stack(
        [naive_normalise(torch.from_numpy(dataset.pixels[i][top : top + 64, top : top + 64].copy())) for i in range(48)]
    )
    with torch.no_grad():
        expected = naive_forward(weights, views, training=False, upto_feature=True)
    features = embed(state.model, frames, config, "").features
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-5)
    centred = expected.double().numpy() - expected.double().numpy().mean(0)
    _, s, v = np.linalg.svd(centred, full_matrices=False)
    whitened = centred @ v[:47].T / np.sqrt(s[:47] ** 2 / 47 + 1e-12)
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    ours = pca_whiten(expected, config.pca, config.whiten_power)
    np.testing.assert_allclose(
        ours @ ours.T, whitened @ whitened.T, atol=1e-4
    )  # signs of axes do not matter to k-means

    # training, given the same assignment and draws
    before = {name: value.clone() for name, value in weights.items() if not name.startswith("head")}
    assignment = np.arange(48) % 4
    train_epoch(state, frames, assignment, features, 4, 1, config)

    generator = torch.Generator().manual_seed(derive_seed(config.seed, 1, "head"))
    weights["head.weight"] = torch.empty(4, 4096).normal_(0, 0.01, generator=generator)
    weights["head.bias"] = torch.zeros(4)
    draws = balanced_draws(assignment, 48, np.random.default_rng(derive_seed(config.seed, 1, "sampler")))
    crops = draw_crops(
        dataset.pixels.shape[draws],
        Augmentation(0.08, 0, True, 0),
        torch.Generator().manual_seed(derive_seed(config.seed, 1, "crops")),
    )
    learnt = [n for n in weights if n.endswith(("weight", "bias")) and not n.startswith("sobel")]
    velocity = {name: torch.zeros_like(weights[name]) for name in learnt}
    torch.manual_seed(derive_seed(config.seed, 1, "dropout"))
    for begin in range(0, 48, 20):
        rows = range(begin, min(begin + 20, 48))
        batch = []
        for row in rows:
            y, x, h, w = (int(value) for value in crops.box[row])
            cut = (
                torch.from_numpy(dataset.pixels[draws[row]][y : y + h, x : x + w].copy()).permute(2, 0, 1)[None].float()
            )
            small = functional.interpolate(cut, (64, 64), mode="bilinear", align_corners=False)[0]
            small = small.flip(2) if crops.flip[row] else small
            batch.append(torch.stack([(small[c] / 255 - MEAN[c]) / STD[c] for c in range(3)]))
        ours = training_views(frames, draws[list(rows)], crops[rows.start : rows.stop], 64)
        torch.testing.assert_close(ours, torch.stack(batch), rtol=1e-4, atol=2e-3)
        for name in learnt:
            weights[name] = weights[name].detach().requires_grad_()
        logits = naive_forward(weights, ours, training=True)
        loss = functional.cross_entropy(logits, torch.from_numpy(assignment[draws[list(rows)]]))
        gradients = torch.autograd.grad(loss, [weights[name] for name in learnt])
        with torch.no_grad():
            for name, gradient in zip(learnt, gradients, strict=True):
                gradient = gradient + 1e-5 * weights[name]
                if not name.startswith("head."):  # the head's optimiser has no momentum
                    velocity[name] = 0.9 * velocity[name] + gradient
                    gradient = velocity[name]
                weights[name] = weights[name] - 0.05 * gradient

    for name, value in state.model.state_dict().items():
        if not name.endswith("num_batches_tracked"):  # rounding flips a ReLU here and there: compare what was learnt
            step = (weights[name] - before[name]).norm() if name in before else weights[name].norm()
            assert (value - weights[name]).norm() <= 0.06 * step + 1e-6, name


def test_what_is_clustered_is_embedded_in_float32(coins, monkeypatch):
    """On a GPU too, where training may use bfloat16 and products TF32."""
    frames = Frames(open_dataset(str(coins), decoded_side(64)).pixels, CPU)
    seen = []

    def watch(*_):
        seen.append((torch.is_autocast_enabled("cuda"), torch.backends.cuda.matmul.allow_tf32))

    state = start(stable(), CPU)
    state.model.features[0].register_forward_hook(watch)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        embed(state.model, frames, stable(), "")
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert seen
    assert set(seen) == {(False, False)}
    assert stable().mixed_precision
    assert not paper().mixed_precision


# --- parts ----------------------------------------------------------------------------------------------------------


def test_draws_are_uniform_over_clusters_without_needless_repetition():
    assignment = np.array([0] * 90 + [3] * 9 + [7])
    draws = balanced_draws(assignment, 300, np.random.default_rng(0))
    assert len(draws) == 300
    counts = np.bincount(assignment[draws], minlength=8)
    assert abs(counts[[0, 3, 7]] - 100).max() <= 1
    assert counts[[1, 2, 4, 5, 6]].sum() == 0
    few = balanced_draws(np.array([0] * 90 + [1] * 90), 100, np.random.default_rng(0))
    assert len(np.unique(few)) == 100


def test_an_epoch_turns_unrolled_coins(coins):
    dataset = look(open_dataset(str(coins), 128), "unrolled", 64)
    frames, assignment = Frames(dataset.pixels, CPU), np.arange(48) % 4
    config = stable(view="unrolled", neck="spectrum", rotate=180.0, reassign=1.0)
    batches = list(training_batches(frames, assignment, 3, config))
    draws = balanced_draws(assignment, 48, np.random.default_rng(derive_seed(config.seed, 3, "sampler")))
    chance = draw_turns(
        48, Augmentation(0.6, 180, False, 0.4), torch.Generator().manual_seed(derive_seed(config.seed, 3, "crops"))
    )
    assert [len(images) for images, _ in batches] == [16, 16, 16]
    seen = torch.cat([images for images, _ in batches])
    torch.testing.assert_close(seen, turned_views(frames, draws, chance))
    assert torch.cat([targets for _, targets in batches]).tolist() == assignment[draws].tolist()
    next_epoch, _ = next(iter(training_batches(frames, assignment, 4, config)))
    assert not torch.allclose(seen[:16], next_epoch)


def discs_of_two_sizes(root):
    """Twelve discs with the same cross on the same ground, every other one larger."""
    for i in range(12):
        picture = np.full((120, 120, 3), 60, np.uint8)
        radius = (32, 44)[i % 2]
        cv2.circle(picture, (60, 60), radius, (190, 180, 150), -1)
        cv2.line(picture, (60 - radius // 2, 60), (60 + radius // 2, 60), (120, 110, 90), 5)
        Image.fromarray(picture).save(root / f"{i:02d}.png")
    return open_dataset(str(root), 120)


def test_facts_decide_what_the_network_leaves_open(tmp_path):
    dataset = discs_of_two_sizes(tmp_path)
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 30)).astype(np.float32))

    def asked(facts, weight=3.0):
        return stable(k=2, facts=facts, facts_weight=weight)

    assert facts_of(dataset, asked("")) is None
    alone = reduce(features, asked(""))
    for names, columns in (("size", 1), ("colour", 4), ("size,colour", 5)):
        facts = facts_of(dataset, asked(names))
        assert facts.shape == (12, columns)
        whole = reduce(features, asked(names), facts)
        np.testing.assert_array_equal(whole[:, : alone.shape[1]], alone)
        np.testing.assert_array_equal(whole[:, alone.shape[1] :], facts)
    size, heavier = facts_of(dataset, asked("size")), facts_of(dataset, asked("size", 6.0))
    assert np.sqrt((size**2).sum(1).mean()) == pytest.approx(
        3, rel=0.01
    )  # times the length of the features, which is 1
    np.testing.assert_allclose(heavier, 2 * size, rtol=1e-6)
    by_size = cluster(reduce(features, asked("size"), size), asked("size"), 1, CPU).assignment
    assert (by_size[::2] == by_size[0]).all()
    assert (by_size[1::2] == by_size[1]).all()
    assert by_size[0] != by_size[1]
    by_design = cluster(alone, asked(""), 1, CPU).assignment
    assert len(set(by_design[::2])) + len(set(by_design[1::2])) > 2
    few = facts_of(look(dataset, "unrolled", 64), asked("size"))
    np.testing.assert_array_equal(few, size)  # measured on the photograph, whatever the network is given


def test_learning_rate_warms_up_and_falls_to_zero():
    config = stable(epochs=10, warmup=2.0, schedule="cosine")
    rates = [learning_rate_factor(t, config) for t in np.linspace(0, 10, 101)]
    assert rates[0] < 0.1
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert learning_rate_factor(7.3, paper()) == 1


def test_same_seed_same_result_and_another_seed_another(coins, tmp_path):
    dataset = open_dataset(str(coins), decoded_side(64))
    results = {}
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        run = runs.begin(tmp_path / name, a_meta(len(dataset)), dataset.ids, dataset.labels, [])
        config = stable(seed=seed)
        train(Journal(run, dataset, config), dataset, config, CPU)
        results[name] = run
    read = {name: (run.path / "clusters.csv").read_bytes() for name, run in results.items()}
    assert read["one"] == read["two"] != read["three"]
    one, two = (results[name].latest()["state"] for name in ("one", "two"))
    for name, value in one.items():
        assert torch.equal(value, two[name])


def test_a_finished_run_fulfils_the_contract(coins, tmp_path):
    dataset = open_dataset(str(coins), decoded_side(64))
    run = runs.begin(tmp_path / "exp", a_meta(len(dataset)), dataset.ids, dataset.labels, dataset.skipped)
    config = stable(epochs=5, reassign=4.0, batch=8)
    train(Journal(run, dataset, config, save_every=2, keep=2), dataset, config, CPU)
    assert run.epochs() == [1, 2, 3, 4, 5]
    assert run.checkpoints() == [4, 5]
    rows = read_csv(run.path / "clusters.csv")
    assignment = run.clusters(5).assignment
    assert [row["image"] for row in rows] == run.ids
    assert [int(row["cluster"]) for row in rows] == assignment.tolist()
    for number in np.unique(assignment):
        members = [row for row in rows if int(row["cluster"]) == number]
        assert sorted(int(row["rank"]) for row in members) == list(range(1, len(members) + 1))
        nearest = min(members, key=lambda row: float(row["distance"]))
        assert nearest["rank"] == "1"
    right = np.mean([float(row["probability"]) for row in rows])
    share = np.mean([row["predicted"] == row["cluster"] for row in rows])
    assert float(run.log()[-1]["head_agreement"]) == pytest.approx(share, abs=1e-6)
    assert share > 0.6  # chance is 0.25
    assert right == pytest.approx(share, abs=0.15)  # the head is as sure as it is right
    for figure in ("curves.png", "sizes.png"):
        assert (run.path / "figures" / figure).stat().st_size > 5000
    assert not list(run.path.rglob("*.tmp"))


def test_pic_finds_its_own_number_and_the_head_follows(coins, tmp_path):
    dataset = open_dataset(str(coins), decoded_side(64))
    run = runs.begin(tmp_path / "exp", a_meta(len(dataset)), dataset.ids, dataset.labels, [])
    config = stable(k=17, epochs=3, final_clustering="pic", final_epochs=1)
    state = train(Journal(run, dataset, config, save_every=1, keep=5), dataset, config, CPU)
    found = int(run.clusters(3).assignment.max()) + 1
    assert run.checkpoint(2)["model"]["k"] == 17
    assert run.checkpoint(3)["model"]["k"] == found == state.model.head.out_features < 17


def test_collapse_is_said_in_words():
    healthy = {"epoch": 5, "k": 50, "loss_last_quarter": 1.0, "head_agreement": 0.8, "largest": 40, "empty": 0}
    assert warnings_of([healthy], 1000) == []
    assert "learns nothing" in warnings_of([healthy | {"loss_last_quarter": 3.9, "head_agreement": 0.02}], 1000)[0]
    assert "collapsing" in warnings_of([healthy | {"largest": 600}], 1000)[0]
    assert "empty" in warnings_of([healthy | {"empty": 30}], 1000)[0]


# --- killed and continued -------------------------------------------------------------------------------------------

SETTINGS = [
    "--arch",
    "alexnet_fine",
    "--size",
    "32",
    "--k",
    "4",
    "--epochs",
    "6",
    "--batch",
    "16",
    "--reassign",
    "4",
    "--save-every",
    "2",
    "--seed",
    "5",
]


@pytest.mark.parametrize(("view", "kills"), [("photograph", KILLS), ("unrolled", max(2, KILLS // 2))])
def test_killed_at_any_instant_it_ends_the_same(coins, tmp_path, view, kills):
    command = ["deepcluster", "train", str(coins), "--view", view, *SETTINGS]
    begin = time.monotonic()
    whole = run_module(*command, "--exp", str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    duration = time.monotonic() - begin
    rng = random.Random(3)
    killed = 0
    for _ in range(5 * kills):
        if kill_module(duration * rng.uniform(0.3, 1), *command, "--exp", tmp_path / "torn"):
            killed += 1
        else:  # it was finished before, as the machine had less to do: once more from the beginning
            shutil.rmtree(tmp_path / "torn")
            duration *= 0.7
        if killed == kills:
            break
    assert killed == kills
    last = run_module(*command, "--exp", str(tmp_path / "torn"))
    assert last.returncode == 0, last.stderr

    one, two = runs.open_run(tmp_path / "whole"), runs.open_run(tmp_path / "torn")
    assert (one.path / "clusters.csv").read_bytes() == (two.path / "clusters.csv").read_bytes()
    drawn = VIEWS[view].version if view in VIEWS else 1
    assert one.meta.view == two.meta.view == runs.View(32, False, 37, one.meta.view.decode_at_most, view, drawn)
    assert one.checkpoints() == two.checkpoints() == [2, 4, 6]
    for epoch in one.checkpoints():
        a, b = one.checkpoint(epoch)["state"], two.checkpoint(epoch)["state"]
        assert all(torch.equal(a[name], b[name]) for name in a)
    same = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in one.log()]
    assert same == [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in two.log()]


def test_interrupted_by_hand_it_says_how_to_go_on(coins, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "deepcluster", "train", coins, *SETTINGS, "--epochs", "400", "--exp", tmp_path / "exp"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "exp" / "log.csv").exists():
        time.sleep(0.1)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "continues" in errors
    assert "Traceback" not in errors
