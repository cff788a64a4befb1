"""Pixel flips: the fast way against the naive one, ties asked again, resume, votes, tables and pictures, bad input."""

import copy
import csv
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import call_main, refused, run_module
from PIL import Image
from torch import nn

from console import UserError
from explain.__main__ import main
from explain.flipping import study
from explain.flipping.exact import FlipLogits, Screen, flip_naive, flipped_images, invert, take_apart
from explain.flipping.findings import Study, map_correlations, vote_studies
from explain.flipping.nets import fast_way, in_range
from explain.flipping.study import Changes, find_changes, run_study
from supervised.models import build
from supervised.recipes import RECIPES


def some_images(count: int, channels: int = 1, side: int = 28) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ink = torch.rand(count, channels, side, side, generator=generator)
    return ink * (torch.rand(count, channels, side, side, generator=generator) < 0.3)


def stir(model: nn.Module) -> nn.Module:
    """Batch norms that move, scale and turn their channels round."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            with torch.no_grad():
                layer.weight.normal_(generator=generator)
                layer.bias.normal_(generator=generator)
    return model.eval()


# --- what a flip is ---


def test_a_flip_inverts_and_goes_to_the_extreme():
    assert invert(torch.tensor([0.0, 0.2, 0.49, 0.5, 0.7, 1.0])).tolist() == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("wrong", [-0.1, 1.2, float("nan")])
def test_images_outside_0_to_1_are_refused(wrong):
    with pytest.raises(UserError, match=r"0\.\.1"):
        invert(torch.tensor([0.3, wrong]))


def test_blocks_are_flipped_in_order_and_cut_off_at_the_edge():
    image = torch.zeros(1, 3, 3)
    found = flipped_images(image, torch.arange(4), patch=2)
    whole = [[[1, 1, 0], [1, 1, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 1], [0, 0, 0]]]
    assert found[:2, 0].tolist() == whole
    assert found[2:, 0].tolist() == [[[0, 0, 0], [0, 0, 0], [1, 1, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 1]]]
    flipped_images(image, torch.tensor([3]), patch=2)  # one alone, too, leaves the image as it is
    assert image.sum() == 0


# --- two by two pixels, by hand ---


def toy() -> nn.Sequential:
    """Class 1 where the sum of four pixels, the last counted three times, is over 2.5."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 3]]))
        model[1].bias.copy_(torch.tensor([0.0, -2.5]))
    return model.eval()


def test_a_linear_net_on_four_pixels():
    image = torch.tensor([[[[0.8, 0.0], [0.0, 0.0]]]])  # score .8 - 2.5: class 0
    model = toy()
    fast = FlipLogits(take_apart([*model]), (1, 2, 2))
    with torch.inference_mode():
        score = fast(image)[0, :, 1]
        # flips: .8 -> 0, 0 -> 1 (twice), 0 -> 1 counted three times
        torch.testing.assert_close(score, torch.tensor([-2.5, -0.7, -0.7, 1.3]))
        found = find_changes(model, fast, image, 1)
    assert found.answers.tolist() == [0]
    assert (found.image.tolist(), found.flip.tolist(), found.becomes.tolist()) == ([0], [3], [1])
    np.testing.assert_allclose(found.lead, [1.3], rtol=1e-5)


# --- the fast way is the naive one ---


@pytest.mark.parametrize("patch", [1, 2, 5, 8])
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_equals_the_naive_way(name, patch):
    model = stir(build({"name": name}, seed=3))
    fast = fast_way(model, 28, patch)
    if fast is None:  # dilated convolutions: each flipped image is computed as a whole
        assert name == "dots"
        return
    images = some_images(2)
    with torch.inference_mode():
        torch.testing.assert_close(fast(images), flip_naive(model, images, patch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [13, 16, 23])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_stacks_equal_the_naive_way(side, channels):
    """Odd sides under a pool, batch norm before and after ReLU and pool, no ReLU, valid and padded, colour."""
    torch.manual_seed(0)
    features = [nn.Conv2d(channels, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
    features += [nn.Conv2d(4, 5, 3), nn.ReLU(), nn.BatchNorm2d(5), nn.MaxPool2d(2), nn.BatchNorm2d(5)]
    features += [nn.Conv2d(5, 6, 1), nn.Conv2d(6, 3, 3, padding=2, bias=False), nn.Dropout()]
    cells = ((side // 2 - 2) // 2 + 2) ** 2
    model = stir(
        nn.Sequential(*features, nn.Flatten(), nn.Linear(3 * cells, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 4))
    )
    images = some_images(2, channels, side)
    for patch in (1, 3):
        fast = FlipLogits(take_apart([*model]), (channels, side, side), patch)
        with torch.inference_mode():
            torch.testing.assert_close(fast(images), flip_naive(model, images, patch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("patch", [1, 2, 7])
def test_maps_that_a_window_covers_are_left_as_they_are(patch):
    """A flip whose window is the whole map must not stay in it: asked again, in another order, it says the same."""
    torch.manual_seed(0)
    features = [
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 2, 3, padding=1),
        nn.MaxPool2d(2),
    ]
    model = nn.Sequential(*features, nn.Flatten(), nn.Linear(2, 3)).eval()
    fast = FlipLogits(take_apart([*model]), (1, 7, 5), patch)
    images = some_images(3)[:, :, :7, :5].contiguous()
    before = images.clone()
    with torch.inference_mode():
        once, naive, twice = fast(images), flip_naive(model, images, patch), fast(images.flip(0)).flip(0)
    torch.testing.assert_close(once, naive, atol=1e-5, rtol=0)
    torch.testing.assert_close(twice, once, atol=1e-5, rtol=0)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(1, 2, 3, stride=2), nn.Conv2d(1, 2, 2), nn.AvgPool2d(2), nn.MaxPool2d(3, 2), nn.Sigmoid()]
)
def test_other_layers_are_left_to_the_naive_way(layer):
    assert take_apart([nn.Sequential(layer).eval()[0], nn.Flatten(), nn.Linear(4, 2).eval()]) is None


def test_a_network_in_training_is_left_to_the_naive_way():
    assert take_apart([nn.Flatten(), nn.Linear(4, 2).train()]) is None


def test_near_ties_are_asked_again_the_naive_way():
    """A fast way that is off by less than the tolerance gives the naive answers where two classes nearly tie."""
    model, images = toy(), some_images(6, side=2)
    images[0] = torch.tensor([[[0.0, 1.0], [0.49995, 0.0]]])
    asked = []

    class Close(FlipLogits):  # class 1 at -2.5 + 2.5: a tie for those with the last pixel, turned by the error
        def __call__(self, images):
            return super().__call__(images) + torch.tensor([0.0, 4e-5])

    close = Close(take_apart([*model]), (1, 2, 2))

    def logits(some):
        asked.append(len(some))
        return model(some)

    with torch.no_grad():
        model[1].bias[1] = -2.0  # flip of pixel 2 of image 0 sums to 2: a tie, won by class 0
        found = find_changes(logits, close, images, 1)
        whole = find_changes(model, None, images, 1)
    assert len(asked) > 1  # more than the images themselves
    for name in ("answers", "image", "flip", "becomes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=name)
    assert 2 not in found.flip[found.image == 0]


def test_the_bound_of_two_dense_layers_by_hand():
    """Two pixels, two units: class 1 gains 2 * relu(x0) - relu(x1 - .5)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(2))
        model[1].bias.copy_(torch.tensor([0.0, -0.5]))
        model[3].weight.copy_(torch.tensor([[0.0, 0], [2, -1]]))
        model[3].bias.copy_(torch.tensor([0.0, -1.9]))
    fast = FlipLogits(take_apart([*model]), (1, 1, 2))
    images = torch.tensor([[0.0, 0.0], [0.9, 0.0], [0.9, 1.0]]).view(3, 1, 1, 2)
    with torch.inference_mode():
        logits = model(images)
        # Of 0 0: x0 becomes 1, and class 1 rises by 2, over the 1.9 it lacks. Of .9 0 (class 1 lacks .1): x0 falls by
        # .9, x1 rises, and neither raises it. Of .9 1 (it lacks .6): x1 falls by 1, which may raise it by 1.
        image, flip = fast.may_change(images, logits, 1e-6)
        assert (image.tolist(), flip.tolist()) == ([0, 2], [0, 1])
        np.testing.assert_allclose(fast.of_flips(images, image, flip), [[0, 0.1], [0, -0.1]], atol=1e-6)
        assert not len(fast.may_change(images, logits - torch.tensor([0.0, 3.0]), 1e-6)[0])
        found = find_changes(model, fast, images, 1)
    assert (found.image.tolist(), found.flip.tolist(), found.becomes.tolist()) == ([0], [0], [1])


def test_flips_that_the_bound_passes_over_do_not_change():
    model = build({"name": "mlp"}, seed=3).eval()
    with torch.no_grad():  # so that some answers are sure
        model.classifier[-1].weight[:, ::9] *= 12
    fast, images = fast_way(model, 28, 1), some_images(60)
    with torch.inference_mode():
        open_, flips = fast.may_change(images, model(images), 2e-4)
        by_windows, naive = find_changes(model, fast, images, 1), find_changes(model, None, images, 1)
    assert 5 < len(set(open_.tolist())) < 55
    assert len(open_) < 0.2 * 60 * 784
    assert set(zip(naive.image, naive.flip, strict=True)) <= set(zip(open_.tolist(), flips.tolist(), strict=True))
    assert len(naive.image) > 0
    for name in ("answers", "image", "flip", "becomes"):
        np.testing.assert_array_equal(getattr(by_windows, name), getattr(naive, name), err_msg=name)
    np.testing.assert_allclose(by_windows.lead, naive.lead, atol=1e-4)


def test_images_that_the_screen_passes_over_do_not_change():
    """A little more is said for one class, so that some answers are far from changing; and some images are fainter."""
    model = build({"name": "simple_conv"}, seed=3).eval()
    with torch.no_grad():
        model.classifier[-1].bias[5] += 0.05
    fast, images = fast_way(model, 28, 1), some_images(40)
    images[20:] *= torch.linspace(0, 1, 20)[:, None, None, None]
    rough = fast_way(copy.deepcopy(model).bfloat16(), 28, 1)
    with torch.inference_mode():
        screen = Screen(rough, fast, images[:4])
        near = screen.near(images, model(images).argmax(1))
        quick, naive = find_changes(model, fast, images, 1, screen), find_changes(model, None, images, 1)
    assert 0 < screen.slack < 0.1
    assert 0 < len(near) < 36
    assert 0 < len(naive.image)
    for name in ("answers", "image", "flip", "becomes"):
        np.testing.assert_array_equal(getattr(quick, name), getattr(naive, name), err_msg=name)
    screen.slack = torch.nan  # an error that is no number passes none over
    with torch.inference_mode():
        assert len(screen.near(images, model(images).argmax(1))) == 40


# --- maps of attribution methods ---


def test_rank_correlations_are_scipys():
    from scipy.stats import spearmanr

    from explain.flipping.agreement import rank_correlations

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (4, 30)), rng.normal(size=(4, 30))
    np.testing.assert_allclose(rank_correlations(a, b), [spearmanr(*pair).statistic for pair in zip(a, b, strict=True)])


def test_agreement_and_its_controls():
    """A map that is the cost itself agrees wholly, another one and a shuffled one not; a constant one is left out."""
    from explain.flipping.agreement import agree, next_of_class

    assert next_of_class(np.array([1, 0, 1, 2, 1])).tolist() == [2, -1, 4, -1, 0]
    rng = np.random.default_rng(0)
    costs = rng.normal(size=(40, 400))
    said = np.exp(costs)
    said[7] = 1
    found = agree("A", "changed", "itself", costs, said, np.arange(40) % 4)
    assert (found.count, found.empty) == (40, 1)
    assert (found.own, found.spread, found.higher) == (pytest.approx(1), pytest.approx(0, abs=1e-12), 1)
    assert abs(found.other) < 0.1
    assert abs(found.shuffled) < 0.1
    alone = agree("A", "changed", "itself", costs[:1], said[:1], np.zeros(1))
    assert alone.own == pytest.approx(1)
    assert np.isnan([alone.spread, alone.other, alone.higher]).all()


# --- a study ---


def make_study(answers, flips, right, grid=(2, 2), classes=3, letter="A") -> Study:
    """`flips`: (image, flip, becomes)."""
    image, flip, becomes = np.array(flips, np.int32).reshape(-1, 3).T
    lead = np.ones(len(image), np.float32)
    return Study(
        letter,
        letter,
        Changes(np.array(answers, np.int16), image, flip, becomes.astype(np.int16), lead),
        np.array(right),
        classes,
        grid,
    )


def test_shares_maps_and_tables_by_hand():
    found = make_study([0, 1, 2, 2], [(0, 3, 2), (0, 1, 2), (2, 0, 1), (3, 0, 0)], right=[0, 1, 2, 0])
    assert found.shares == (0.25, 0.25, 0.5)  # image 3 is wrong, its flip does not count
    assert found.per_class.tolist() == [[1, 1], [1, 0], [1, 1]]
    assert found.rates.tolist() == [1, 0, 1]
    assert found.hits[0].tolist() == [[0, 1], [0, 1]]
    assert found.hits[2].tolist() == [[1, 0], [0, 0]]
    assert found.confusion.tolist() == [[0, 0, 2], [0, 0, 0], [0, 1, 0]]
    assert found.commonest()[2].tolist() == [[1, -1], [-1, -1]]


def test_a_vote_changes_only_when_enough_networks_do():
    nets = [
        make_study([0, 1], [(0, 0, 1), (0, 1, 1)], right=[0, 1]),
        make_study([0, 1], [(0, 1, 1)], right=[0, 1]),
        make_study([0, 2], [(1, 2, 1)], right=[0, 1]),
    ]
    majority, precise, steady = vote_studies(nets, np.array([[1.0, 1, 1]] * 3))
    for found in (majority, precise):
        assert found.changes.answers.tolist() == [0, 1]
        assert (found.changes.image.tolist(), found.changes.flip.tolist()) == ([0], [1])  # two of three
        assert found.shares == (0, 0.5, 0.5)
    assert steady.title == "vote, by 1 - instability"
    heavy = vote_studies(nets, np.array([[9.0, 9, 9], [1, 1, 1], [1, 1, 1]]))[1]
    assert heavy.changes.flip.tolist() == [0, 1]  # the first one decides alone


def test_correlation_of_equal_maps_is_one():
    found = make_study([0, 0, 1], [(0, 0, 1), (2, 15, 0)], right=[0, 0, 1], grid=(4, 4), classes=2)
    table = map_correlations(found, found)
    np.testing.assert_allclose(np.diag(table), 1)
    assert table[0, 1] < 0.5


# --- the command, on small folders ---


def draw_digits(root, seed: int) -> None:
    """Two classes of 12 x 12: a bar upright and a bar lying, 12 to train on and 6 to test on of each."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", 12), ("test", 6)):
        for name in ("lying", "upright"):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (12, 12)).astype(np.uint8)
                at = rng.integers(2, 10)
                bar = (at, slice(1, 11)) if name == "lying" else (slice(1, 11), at)
                pixels[bar] = 255
                Image.fromarray(pixels).save(root / part / name / f"{i:02d}.png")


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """Three runs on the same images, named exp-0 to exp-2, and one on others, exp-other."""
    from supervised.__main__ import build_parser
    from supervised.launch import train_command

    home = tmp_path_factory.mktemp("bars")
    draw_digits(home / "bars", 0)
    draw_digits(home / "others", 1)
    for name, data, model, seed in (
        ("0", "bars", "mlp", 1),
        ("1", "bars", "small_conv", 2),
        ("2", "bars", "mlp", 3),
        ("other", "others", "mlp", 1),
    ):
        train_command(
            build_parser().parse_args(
                [
                    "train",
                    str(home / data),
                    "--size",
                    "12",
                    "--exp",
                    str(home / f"exp-{name}"),
                    "--model",
                    model,
                    "--epochs",
                    "6",
                    "--batch",
                    "4",
                    "--seed",
                    str(seed),
                    "--device",
                    "cpu",
                ]
            )
        )
    return home


def flip(*arguments, **variables):
    return run_module("explain", "pixelflip", *arguments, "--device", "cpu", **variables)


@pytest.fixture(scope="module")
def three(bars):
    done = flip("--run", bars / "exp-0", "--against", bars / "exp-1", bars / "exp-2", "--results", bars / "results")
    assert done.returncode == 0, done.stderr
    return done, bars / "results" / "pixelflip" / "train"


def test_the_study_of_three_runs(three):
    done, folder = three
    assert "all 24 training images" in done.stdout
    assert "vote, majority" in done.stdout
    assert "vote, by precision" in done.stdout
    page = (folder / "index.html").read_text()
    assert "http" not in page  # nothing from elsewhere
    for letter in "ABC":
        for name in ("heat", "classes", "confusion"):
            for kind in ("png", "svg"):
                assert (folder / f"{name}-{letter}.{kind}").stat().st_size > 1000
    assert json.loads((folder / "findings.json").read_text())
    rows = list(csv.DictReader((folder / "shares.csv").open()))
    assert [row["network"] for row in rows][:3] == ["A: exp-0", "B: exp-1", "C: exp-2"]
    for row in rows:
        assert abs(sum(float(row[name]) for name in ("wrong", "right and robust", "right but changed")) - 1) < 2e-4


def test_the_flips_are_those_that_the_network_says(bars, three):
    """The table and the npz of one run against its network, asked naively."""
    import runs
    from supervised import trained

    run = runs.open_run(bars / "exp-0")
    [folder] = three[1].glob("exp-0-*")
    assert not (folder / ".pieces").exists()
    arrays = np.load(folder / "flips.npz")
    dataset = trained.training_images(run)
    model = trained.network(run)
    images = trained.view(run, _Frames(dataset.pixels), np.arange(len(dataset)))
    with torch.inference_mode():
        answers = model(images).argmax(1).numpy()
        flipped = flip_naive(model, images).argmax(2).numpy()
    np.testing.assert_array_equal(arrays["answers"], answers)
    assert arrays["ids"].tolist() == dataset.ids
    image, at = np.nonzero(flipped != answers[:, None])
    np.testing.assert_array_equal(arrays["image"], image)
    np.testing.assert_array_equal(arrays["flip"], at)
    np.testing.assert_array_equal(arrays["becomes"], flipped[image, at])
    right = answers == trained.class_index(run, dataset)
    rows = {row["image"]: row for row in csv.DictReader((folder / "flips.csv").open())}
    assert set(rows) == {dataset.ids[i] for i in set(image.tolist()) if right[i]}
    for name, row in rows.items():
        assert int(row["flips"]) == int((image == dataset.ids.index(name)).sum())
        assert float(row["smallest_margin"]) <= 0


class _Frames:
    def __init__(self, pixels):
        self.pixels, self.device = pixels, torch.device("cpu")


def test_two_runs_do_not_vote_and_the_test_images_are_an_option(bars, tmp_path):
    done = flip(
        "--run", bars / "exp-0", "--against", bars / "exp-1", "--split", "test", "--limit", "8", "--results", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "coin toss" in done.stdout
    assert "8 of 12 test images" in done.stdout
    assert "vote," not in done.stdout
    assert (tmp_path / "pixelflip" / "test-8" / "index.html").exists()


def tree(folder):
    """All files but the lock, with their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_a_killed_study_goes_on_to_the_same_bytes(bars, tmp_path, monkeypatch):
    from explain.__main__ import build_parser
    from explain.flipping.command import pixelflip_command

    monkeypatch.setattr(study, "piece_size", lambda size, flips: 5)

    def call(where):
        pixelflip_command(
            build_parser().parse_args(
                ["pixelflip", "--run", str(bars / "exp-1"), "--results", str(where), "--device", "cpu"]
            )
        )

    call(tmp_path / "whole")
    real, done = study.study_piece, []

    def killed(net, asked, patch, rows):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(rows)
        return real(net, asked, patch, rows)

    monkeypatch.setattr(study, "study_piece", killed)
    with pytest.raises(KeyboardInterrupt):
        call(tmp_path / "killed")
    assert len(list((tmp_path / "killed").rglob(".pieces/*.npz"))) == 2
    asked_again = []
    monkeypatch.setattr(study, "study_piece", lambda *a: (asked_again.append(a[3]), real(*a))[1])
    call(tmp_path / "killed")
    assert len(asked_again) == 3  # of five pieces, those that were missing
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_a_damaged_piece_is_one_sentence(tmp_path):
    (tmp_path / "flips.npz").write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        study.read_changes(tmp_path / "flips.npz", [])
    assert run_study is study.run_study


def test_the_flips_of_other_images_are_not_taken_for_these(tmp_path):
    found = Changes(*(np.zeros(0, kind) for kind in (np.int16, np.int32, np.int32, np.int16, np.float32)))
    study.write_changes(tmp_path / "flips.npz", found, ["a", "b"])
    assert len(study.read_changes(tmp_path / "flips.npz", ["a", "b"]).flip) == 0
    with pytest.raises(UserError, match="other images"):
        study.read_changes(tmp_path / "flips.npz", ["a", "c"])


def test_explaining_goes_beside_the_flips(bars):
    done = run_module(
        "explain", "--run", bars / "exp-1", "--results", bars / "results", "--per-cluster", "1", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def compared(bars):
    """Two of the runs, and the maps of methods beside their flips."""
    where = bars / "compared"
    asked = ("--methods", "grad_cam,guided_backprop,occlusion:window=.3")
    done = flip("--run", bars / "exp-1", "--against", bars / "exp-0", "--results", where, *asked)
    assert done.returncode == 0, done.stderr
    return done, where / "pixelflip" / "train"


def test_flips_beside_the_maps_of_methods(compared):
    done, folder = compared
    rows = list(csv.DictReader((folder / "maps.csv").open()))
    methods = {(row["network"], row["map"]) for row in rows}
    first_order = "Gradient times flip (positive control)"
    assert ("A: exp-1", "Grad-CAM") in methods  # a convolution
    assert ("B: exp-0", "Grad-CAM") not in methods  # an mlp
    assert {
        ("B: exp-0", "Guided Backprop"),
        ("B: exp-0", "Occlusion (window 0.3)"),
        ("B: exp-0", first_order),
    } < methods
    assert "B: exp-0: no convolution" in done.stdout
    for row in rows:
        if row["map"] == first_order and row["network"] == "B: exp-0":
            assert float(row["correlation"]) > 0.7
        assert abs(float(row["shuffled"])) < 0.3
    page = (folder / "index.html").read_text()
    assert "Do maps of attribution say so?" in page
    assert first_order in page
    assert (folder / "maps-A.png").stat().st_size > 1000


def test_every_changed_image_is_on_a_sheet(compared):
    _, folder = compared
    for own in folder.glob("exp-*"):
        rows = list(csv.DictReader((own / "flips.csv").open()))
        if not rows:
            continue
        page = (own / "sheets" / "index.html").read_text()
        for name in {row["sheet"] for row in rows}:
            assert (own / "sheets" / name).exists()
            assert f'src="{name}"' in page
        assert f"{own.name}/sheets/index.html" in (folder / "index.html").read_text()
    assert any((own / "sheets").is_dir() for own in folder.glob("exp-*"))


def test_a_sheet_has_each_of_its_images_with_their_flips():
    from explain.flipping import figures

    found = make_study([0, 1, 2, 0], [(0, 3, 2), (0, 1, 2), (2, 0, 1), (3, 2, 1)], right=[0, 1, 2, 0])
    rows = figures.order_images(found)
    assert rows.tolist() == [0, 3, 2]  # by class, most flips first; image 1 does not change
    sheet = np.asarray(figures.draw_sheet(found, "abc", rows, figures.flips_by_image(found), np.zeros((3, 2, 2, 3)), 1))
    cells = [sheet[3 : 3 + figures.CELL, 3 + i * (figures.CELL + 3) :][:, : figures.CELL] for i in range(3)]
    colours = (np.array(figures.palette(3))[:, :3] * 255).round()
    half = figures.CELL // 2
    for cell, flips in zip(cells, [{3: 2, 1: 2}, {2: 1}, {0: 1}], strict=True):
        for flip in range(4):
            middle = cell[flip // 2 * half + half // 2, flip % 2 * half + half // 2]
            np.testing.assert_array_equal(middle, colours[flips[flip]] if flip in flips else [0, 0, 0])


def test_images_that_were_moved(bars, three, tmp_path):
    """The training images beside the test images that --data names; the same flips as before."""
    shutil.copytree(bars / "exp-0", tmp_path / "exp-0")
    text = (tmp_path / "exp-0" / "run.json").read_text()
    assert str(bars / "bars") in text
    (tmp_path / "exp-0" / "run.json").write_text(text.replace(str(bars / "bars"), str(tmp_path / "gone")))
    shutil.copytree(bars / "bars", tmp_path / "elsewhere")
    for split in ("train", "test"):
        done = flip(
            "--run", tmp_path / "exp-0", "--data", tmp_path / "elsewhere" / "test", "--split", split,
            "--results", tmp_path / "results",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    [moved] = (tmp_path / "results" / "pixelflip" / "train").glob("exp-0-*/flips.npz")
    [before] = three[1].glob("exp-0-*/flips.npz")
    assert np.load(moved)["flip"].tolist() == np.load(before)["flip"].tolist()
    assert "none of the run" in refused(flip("--run", bars / "exp-0", "--split", "test", "--data", bars / "others"))


# --- bad input ---


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ("grad_cam:layer=-7", "-7"),
        ("grad_cam:layer=features.99", "features.99"),
        ("occlusion:window=1.5", "window"),
        ("occlusion:window=.01", "under a pixel"),
        ("grad_cm", "did you mean"),
    ],
)
def test_maps_that_cannot_be_had_are_refused_before_anything_is_written(bars, tmp_path, asked, word):
    assert word in refused(flip("--run", bars / "exp-1", "--methods", asked, "--results", tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_runs_on_different_data_are_refused(bars, tmp_path):
    sentence = refused(flip("--run", bars / "exp-0", "--against", bars / "exp-other", "--results", tmp_path))
    assert "other images" in sentence


def test_a_run_against_itself_is_refused(bars, tmp_path):
    assert "the same run" in refused(flip("--run", bars / "exp-0", "--against", bars / "exp-0", "--results", tmp_path))


def test_a_run_whose_images_are_gone_is_refused(bars, tmp_path):
    shutil.copytree(bars / "exp-0", tmp_path / "exp")
    text = (tmp_path / "exp" / "run.json").read_text()
    (tmp_path / "exp" / "run.json").write_text(text.replace(str(bars / "bars"), str(tmp_path / "gone")))
    assert "--data" in refused(flip("--run", tmp_path / "exp", "--results", tmp_path))  # and was begun elsewhere
    gone = refused(flip("--run", tmp_path / "exp", "--results", tmp_path, "--data", tmp_path / "gone"))
    assert "no such folder" in gone


def test_a_block_larger_than_the_image_is_refused(bars, tmp_path):
    assert "--patch 13" in refused(flip("--run", bars / "exp-0", "--patch", "13", "--results", tmp_path))
    assert "--patch" in refused(flip("--run", bars / "exp-0", "--patch", "0", "--results", tmp_path))


def test_images_of_a_run_outside_0_to_1_are_refused(bars):
    import runs

    run = runs.open_run(bars / "exp-0")
    assert in_range(torch.tensor([-1e-6, 1 + 1e-6]), run).tolist() == [0, 1]
    with pytest.raises(UserError, match=r"not in \[0, 1\]"):
        in_range(torch.tensor([0.0, 255.0]), run)


# --- coins ---


def test_blocks_of_a_deepcluster_run(struck, tmp_path, monkeypatch, capsys):
    """Coins as they are seen by default: a block is one of the unrolled strip, half as high and twice as wide."""
    exp, results = tmp_path / "exp", tmp_path / "results"
    done = run_module(
        *("deepcluster", "train", struck, "--exp", exp, "--k", "3", "--size", "64", "--epochs", "2"), "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr

    def ask(*words):
        return call_main(main, "explain", monkeypatch, capsys, "pixelflip", "--run", exp, "--patch", "16", *words)

    code, said, _ = ask("--limit", "4", "--results", results)
    assert code == 0
    assert "4 of 24 images" in said
    folder = results / "pixelflip" / "images-16px-4"
    assert (folder / "heat-A.png").exists()
    page = (folder / "index.html").read_text()
    assert "the cluster that it has learnt" in page
    assert "unrolled" in page
    [npz] = folder.rglob("flips.npz")
    assert np.load(npz)["flip"].max() < 2 * 8
    assert "leave it out" in ask("--split", "test", "--results", results)[2]
    assert "32 pixels" in ask("--patch", "33", "--results", results)[2]
    shutil.copytree(struck, tmp_path / "moved")
    text = (exp / "run.json").read_text()
    (exp / "run.json").write_text(text.replace(str(struck), str(tmp_path / "gone")))
    assert "gone" in ask("--limit", "4", "--results", tmp_path / "again")[2]
    code, *_ = ask("--limit", "4", "--results", tmp_path / "again", "--data", tmp_path / "moved")
    assert code == 0
    [before], [after] = ((tmp_path / name / "pixelflip").rglob("flips.npz") for name in ("results", "again"))
    assert np.load(after)["ids"].tolist() == np.load(before)["ids"].tolist()
