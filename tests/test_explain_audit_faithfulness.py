"""Faithfulness of maps: cases that are computed by hand, pytorch-grad-cam's figures, and a planted cause."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.perturbation_confidence import PerturbationConfidenceMetric, RemoveMostRelevantFirst
from pytorch_grad_cam.metrics.road import ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import nn

from explain.attribution import parse_all
from explain.audit import faithfulness
from explain.audit.controls import CONTROLS, UNIFORM, heat_of, heats
from explain.audit.faithfulness import (
    AIC,
    SIC,
    area,
    bytes_of,
    compare,
    confidences,
    impute,
    information_area,
    information_curves,
    interpolate,
    measure,
    order_of,
    replacement_curves,
    road_probabilities,
)
from explain.audit.findings import BETTER, Asked, Sample, correct_for_number


class Adder(nn.Module):
    """The probability of class 0 is the sum of all pixels, over 10."""

    neutral = torch.zeros(1, 1, 1, 1)

    def forward(self, images):
        total = images.sum((1, 2, 3))
        return torch.stack([total.log(), (10 - total).log()], 1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4)]
    model = nn.Sequential(*layers).eval().requires_grad_(False)
    with torch.no_grad():
        model[4].weight *= 12
    model.neutral = torch.zeros(1, 3, 1, 1)
    return model


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(5)
    image = torch.from_numpy(rng.normal(size=(1, 3, 16, 16)).astype(np.float32))
    return image, rng.random((16, 16)).astype(np.float32)


def test_four_pixels_that_are_added():
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    nothing = torch.zeros(1, 1, 1, 1)
    best, worst = (order_of(sign * image[0, 0].numpy(), 0) for sign in (1, -1))
    assert best.tolist() == [[3, 2], [1, 0]]
    curves = replacement_curves(Adder(), image, nothing, np.stack([best, worst]), 0, steps=4)
    np.testing.assert_allclose(curves, [[1, 0.6, 0.3, 0.1, 0], [1, 0.9, 0.7, 0.4, 0]], atol=1e-6)
    assert area(curves[0]) == pytest.approx((1 / 2 + 0.6 + 0.3 + 0.1 + 0 / 2) / 4)
    inserted = replacement_curves(Adder(), nothing.expand_as(image), image, best[None], 0, steps=4)
    np.testing.assert_allclose(inserted, [[0, 0.4, 0.7, 0.9, 1]], atol=1e-6)
    assert area(inserted[0]) == pytest.approx(0.625)
    halves = replacement_curves(Adder(), image, nothing, best[None], 0, steps=2)
    np.testing.assert_allclose(halves, [[1, 0.3, 0]], atol=1e-6)


def test_what_is_equally_hot_goes_in_an_order_of_chance():
    flat = np.zeros((9, 11), np.float32)
    first, again, other = order_of(flat, 1), order_of(flat, 1), order_of(flat, 2)
    assert (first == again).all()
    assert (first != other).any()
    assert sorted(first.ravel().tolist()) == list(range(99))
    flat[4, 7] = 1
    assert order_of(flat, 1)[4, 7] == order_of(flat, 2)[4, 7] == 0


def test_deletion_is_what_pytorch_grad_cam_finds_at_each_share(net, picture):
    image, heat = picture
    curve = replacement_curves(net, image, torch.zeros(1, 3, 1, 1), order_of(heat, 0)[None], 2)[0]
    target = [ClassifierOutputSoftmaxTarget(2)]
    assert np.ptp(curve) > 0.05
    for step in range(1, 16):
        remove = RemoveMostRelevantFirst(100 * (1 - step / 16), lambda pixels, kept: pixels * kept)
        theirs = PerturbationConfidenceMetric(remove)(image, heat[None], target, net, return_diff=False)
        assert curve[step] == pytest.approx(theirs[0], abs=1e-5)


def test_road_is_that_of_pytorch_grad_cam(net, picture):
    image, heat = picture
    ours = road_probabilities(net, image, {"heat": order_of(heat, 0)}, 1, seed=7)
    theirs = []
    for share in faithfulness.IMPUTED:
        torch.manual_seed(7)
        metric = ROADMostRelevantFirst(100 * (1 - share))
        theirs += metric(image, heat[None], [ClassifierOutputSoftmaxTarget(1)], net, return_diff=False).tolist()
    assert np.ptp(theirs) > 1e-3
    assert ours["heat"] == pytest.approx(np.mean(theirs), abs=1e-5)


def test_gaps_at_the_seam_of_a_strip_are_filled_from_across():
    strip = torch.zeros(1, 6, 32)
    strip[..., 24:] = 8  # on the other side of the seam from the gap
    gone = np.zeros((6, 32), bool)
    gone[:, :3] = True
    flat, around = (impute(strip, gone, 0, joined)[0, :, :3].mean(0) for joined in (False, True))
    assert flat.abs().max() < 0.1
    np.testing.assert_allclose(around, [6, 4, 2], atol=0.1)  # straight from 8 to 0
    assert (impute(strip, gone, 0, True)[0, :, 3:] == strip[0, :, 3:]).all()


def test_drop_and_increase_are_those_of_pytorch_grad_cam(net, picture):
    image, heat = picture
    heat = heat / heat.max()
    dropped = risen = 0
    for column in range(4):
        whole = float(net(image).softmax(1)[0, column])
        alone = confidences(net, image, {"heat": heat[None] * 5}, column)["heat"]  # whatever its scale
        target = [ClassifierOutputSoftmaxTarget(column)]
        assert max(0, whole - alone) == pytest.approx(DropInConfidence()(image, heat[None], target, net)[0], abs=1e-5)
        assert (alone > whole) == IncreaseInConfidence()(image, heat[None], target, net)[0]
        dropped, risen = dropped + (alone < whole), risen + (alone > whole)
    assert dropped
    assert risen


def test_an_information_curve_by_hand():
    sizes, answers = np.array([10.0, 12, 15, 20]), np.array([0.1, 0.5, 0.3, 0.9])
    by_hand = 0.2 * 0.5 / 2 + 0.3 * 0.5 + 0.5 * (0.5 + 1) / 2  # (0, 0), (.2, .5), (.5, .5: the best so far), (1, 1)
    assert information_area(sizes, answers) == pytest.approx(by_hand)
    assert information_area(sizes[[0, 2, 1, 3]], answers) == pytest.approx(by_hand)  # fewer bytes though more is shown
    at_once = information_area(np.array([10.0, 10, 20]), np.array([0.0, 1, 1]))
    never = information_area(np.array([10.0, 20, 20]), np.array([0.0, 0, 1]))
    assert (at_once, never) == (1, 0)
    assert np.isnan(information_area(sizes[::-1], answers))
    assert np.isnan(information_area(sizes, 1 - answers))


def test_gaps_lie_in_planes_between_what_is_known():
    rng = np.random.default_rng(0)
    down, across = np.indices((12, 30)).astype(np.float32)
    plane = np.stack([2 * down - across, across, 7 - down], 2)
    known = rng.random((12, 30)) < 0.2
    known[4:9, 10:20] = True  # what lies deep in the known is left out, and must not matter
    known[np.ix_([0, -1], [0, -1])] = True
    assert (~known).any()
    np.testing.assert_allclose(interpolate(plane, known), plane, atol=1e-4)
    strip, known = np.zeros((6, 32, 1), np.float32), np.ones((6, 32), bool)
    strip[:, 24:] = 8  # on the other side of the seam from the gap
    known[:, :3] = False
    np.testing.assert_allclose(interpolate(strip, known, True)[:, :3, 0].mean(0), [6, 4, 2], atol=0.01)


def test_information_curves_are_what_one_finds_step_by_step():
    """Kapishnikov et al.'s, one picture, one share and one channel at a time, from 1,000 places across."""
    from scipy.interpolate import griddata

    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4)).eval()
    with torch.no_grad():
        net[4].weight *= 25
    net.goes_around = False
    subject = SimpleNamespace(model=net, photographs=to_bytes)
    rng = np.random.default_rng(4)
    smooth = nn.functional.avg_pool2d(torch.from_numpy(rng.random((1, 4, 28, 38)).astype(np.float32)), 5, 1)[0]
    image, heat = (smooth[:3] - 0.3)[None] * 2, smooth[3].numpy()
    place = order_of(heat, 0)
    anyway = (np.random.default_rng(7).permutation(24 * 34) < 0.01 * 24 * 34).reshape(24, 34)
    anyway[0, 0] = anyway[0, -1] = anyway[-1, 0] = anyway[-1, -1] = True

    def shown(known):
        found = image[0].numpy().copy()
        for channel in found:
            channel[~known] = griddata(np.argwhere(known), channel[known], np.argwhere(~known))
        return torch.from_numpy(found)[None]

    pictures = [shown(anyway | (place < share * 24 * 34)) for share in (0, *faithfulness.SHOWN_FIRST)]
    sizes = np.array([bytes_of(to_bytes(one)[0]) for one in [*pictures, image]])
    told = 0
    for column in range(4):
        found = information_curves(subject, image, {"heat": place}, column, seed=7)["heat"]
        logits = torch.cat([net(one) for one in [*pictures, image]]).detach()
        for mine, up in zip(found, (logits.softmax(1)[:, column], (logits.argmax(1) == column).float()), strict=True):
            if not up[-1] > up[0]:
                assert np.isnan(mine)
                continue
            x = np.clip((sizes - sizes[0]) / (sizes[-1] - sizes[0]), 0, 1)
            y = np.clip((up.numpy() - up[0].item()) / (up[-1] - up[0]).item(), 0, 1)
            y[1:-1] = [y[1 : i + 1].max() for i in range(1, len(y) - 1)]
            order = np.argsort(x, kind="stable")
            theirs = np.interp(np.linspace(0, 1, 1000), x[order], y[order]).mean()
            assert mine == pytest.approx(theirs, abs=0.02)  # another choice of triangles among equals
            told += 1
    assert told >= 2


def to_bytes(images):
    return (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def test_what_is_not_hot_becomes_what_nothing_looks_like():
    class Grey(Adder):
        neutral = torch.full((1, 1, 1, 1), 0.5)

    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    found = confidences(Grey(), image, {"heat": np.array([[[0.0, 0.0], [1.0, 2.0]]])}, 0)
    assert found["heat"] == pytest.approx((0.5 + 0.5 + (0.5 + 3) / 2 + 4) / 10)


def test_the_verdict_is_of_differences_on_the_same_images():
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 1, 30)  # what makes images differ far more than maps do
    noise = {title: rng.normal(0, 0.05, 30) for title in ("M", "M, untrained", *CONTROLS)}
    maps = {title: (hard + own).tolist() for title, own in noise.items()}

    def verdict(shift, more_is_better=True, of="M"):
        moved = maps | {of: (np.array(maps[of]) + shift).tolist()}
        return compare("deletion", "M", moved, 0, more_is_better)

    assert verdict(0.3).verdict == "better than every control"
    assert verdict(-0.3, more_is_better=False).verdict == "better than every control"
    found = verdict(0.5, of="edges of the photograph")
    assert found.verdict == "worse than edges of the photograph"
    assert found.control == "edges of the photograph"
    assert found.control_value == pytest.approx(found.value + 0.5, abs=0.05)
    assert found.high - found.low > 0.3
    assert verdict(0).verdict.startswith("no better than")
    assert verdict(-0.3, of="M, untrained").verdict.startswith("no better than")  # one control beaten is not all


class Finder(nn.Module):
    """Says class 1 where a bright square of 4 x 4 is anywhere; dark squares it does not see."""

    neutral, goes_around = torch.full((1, 1, 1, 1), 0.5), False

    def forward(self, images):
        best = nn.functional.avg_pool2d(images, 4, 1).amax((1, 2, 3))
        return torch.stack([torch.zeros_like(best), 20 * (best - 0.75)], 1)


class Guesser(nn.Module):
    """The same with another weight for each place."""

    neutral, goes_around = Finder.neutral, False

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 32 * 32, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return images.flatten(1).square() @ self.weight.T


@pytest.fixture(scope="module")
def planted():
    """A sample of 12 images; one bright square each, which alone matters to the network, among six dark ones."""
    rng = np.random.default_rng(2)
    images = torch.full((13, 1, 32, 32), 0.5)
    for one in images[:, 0]:
        places = rng.permutation(16)[:7]
        for number, place in enumerate(places.tolist()):
            top, left = 2 + 7 * (place // 4), 2 + 7 * (place % 4)
            one[top : top + 4, left : left + 4] = 0.0 if number else 1.0
    images += torch.from_numpy(rng.normal(0, 0.01, images.shape).astype(np.float32))
    images[12] = 0.5  # of another cluster

    def photographs(some):
        return (some.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).repeat(1, 1, 1, 3).numpy()

    clusters = SimpleNamespace(
        assignment=np.array([1] * 12 + [0]), numbers=[0, 1], column_of=lambda numbers: np.asarray(numbers)
    )
    subject = SimpleNamespace(
        model=Finder(),
        untrained=Guesser(),
        clusters=clusters,
        device=torch.device("cpu"),
        images=lambda rows: images[torch.as_tensor(rows)],
        photographs=photographs,
    )
    return Sample(subject, None, np.arange(13))


def test_a_cause_that_was_planted_is_found_by_what_sees_it(planted):
    asked = Asked(parse_all(["saliency"]), 13, 0)
    found = measure(planted, asked)
    assert not found.missing
    verdicts = {one.measure: one.verdict for one in found.findings}
    assert verdicts["deletion to nothing to see"] == "better than every control"
    assert verdicts["insertion out of nothing to see"] == "better than every control"
    assert verdicts["ROAD, most relevant first"] == "better than every control"
    assert len(verdicts) == 11
    for one in found.findings:
        assert one.low <= one.value <= one.high
        assert 0 <= one.value <= 1
        assert one.n == 13 or (one.measure in (SIC, AIC) and one.n >= 8)  # of images that some pixels do not tell
    corrected, luck = correct_for_number(found.findings)
    assert (luck.tests, luck.better, luck.by_chance) == (11, luck.sure, 11 * 0.025)
    assert luck.better >= 5
    assert max(one.p for one in corrected if one.verdict == BETTER) <= 0.05
    lines = found.figures["deletion"].lines
    assert set(lines) == {"Saliency", "Saliency, untrained", *CONTROLS}
    assert lines["Saliency"][1][0] == pytest.approx(lines[UNIFORM][1][0])
    assert lines["Saliency"][1][2] < 0.2 < lines[UNIFORM][1][2]


def test_the_seed_alone_decides(planted):
    few = Sample(planted.subject, None, np.array([3, 5, 12]))
    first, again, other = (measure(few, Asked(parse_all(["saliency"]), 3, seed)) for seed in (0, 0, 1))
    assert again == first
    assert other.findings != first.findings


def test_a_method_that_looks_elsewhere_is_no_better(planted, monkeypatch):
    true = faithfulness.heats

    def upside_down(*arguments):
        return {title: -heat if title == "Saliency" else heat for title, heat in true(*arguments).items()}

    monkeypatch.setattr(faithfulness, "heats", upside_down)
    verdicts = {one.measure: one.verdict for one in measure(planted, Asked(parse_all(["saliency"]), 13, 0)).findings}
    assert verdicts["deletion to nothing to see"].startswith("worse than")
    assert verdicts["insertion out of nothing to see"].startswith("worse than")


def test_random_maps_surpass_no_control(planted, monkeypatch):
    true = faithfulness.heats

    def by_chance(subject, rows, methods, seed):
        heat = np.random.default_rng(int(rows[0])).random((1, 32, 32)).astype(np.float32)
        return true(subject, rows, methods, seed) | {"Saliency": heat}

    monkeypatch.setattr(faithfulness, "heats", by_chance)
    corrected, luck = correct_for_number(measure(planted, Asked(parse_all(["saliency"]), 13, 0)).findings)
    assert luck.tests == 11
    assert [one.verdict for one in corrected if one.verdict == BETTER] == []


def test_heat_is_what_speaks_for_the_cluster():
    maps = np.array([[[[-2.0, 1.0]], [[1.0, 0.5]]]])
    signed, fine, change = parse_all(["guided_backprop", "guided_grad_cam", "occlusion"])
    assert heat_of(signed, maps).tolist() == [[[3.0, 1.5]]]
    assert heat_of(fine, maps).tolist() == [[[1.0, 1.5]]]
    assert heat_of(change, maps[:, :1]).tolist() == [[[2.0, 0.0]]]  # hidden, the score fell


def test_controls_do_not_depend_on_the_batch(planted):
    methods = parse_all(["gradient"])
    together = heats(planted.subject, np.arange(5), methods, 3)
    alone = heats(planted.subject, np.array([4]), methods, 3)
    assert list(together) == ["Gradient", "Gradient, untrained", *CONTROLS]
    for title, heat in together.items():
        assert heat.shape == (5, 32, 32)
        assert heat.min() >= 0
        np.testing.assert_allclose(heat[4], alone[title][0], rtol=1e-4, atol=1e-6)
    assert (together["random heat"][3] != together["random heat"][4]).any()
    blob = together["a blob in the middle"][0]
    assert blob[15:17, 15:17].min() == blob.max()
    edges = together["edges of the photograph"][4]
    assert edges.max() > 20 * np.median(edges)


def test_a_single_cluster_cannot_be_asked(planted):
    alone = SimpleNamespace(clusters=SimpleNamespace(numbers=[0]))
    found = measure(Sample(alone, None, np.arange(3)), Asked(parse_all(["saliency"]), 3, 0))
    assert not found.findings
    assert "one cluster" in found.missing[0]


def test_without_another_cluster_no_image_fills_in(planted):
    found = measure(Sample(planted.subject, None, np.arange(4)), Asked(parse_all(["saliency"]), 4, 0))
    assert len({one.measure for one in found.findings}) == 9
    assert "another cluster" in found.missing[0]
