import numpy as np
import pytest
import torch
from torch.nn import functional

from datasets import Pixels
from deepcluster.views import MEAN, STD, Augmentation, Crops, Frames, draw_crops, fixed_view, training_views

CPU = torch.device("cpu")
PLAIN = Augmentation(scale=0.08, rotation=0, flip=True, jitter=0)


def frames(*shapes: tuple[int, int], seed: int = 0) -> Frames:
    rng = np.random.default_rng(seed)
    shards = [rng.integers(0, 256, h * w * 3).astype(np.uint8) for h, w in shapes]
    return Frames(Pixels(shards, np.arange(len(shapes)), np.zeros(len(shapes), np.int64), np.array(shapes)), CPU)


def normalised(image: torch.Tensor) -> torch.Tensor:
    """Slowly and plainly: (H, W, 3) uint8 -> (3, H, W)."""
    return torch.stack([(image[..., c].float() / 255 - MEAN[c]) / STD[c] for c in range(3)])


def test_centre_crop_takes_the_middle_pixels():
    source = frames((256, 300), (256, 256))
    view = fixed_view(source, np.array([0, 1]), 224, crop=True)
    expected = normalised(torch.from_numpy(source.pixels[0][16:240, 38:262].copy()))
    torch.testing.assert_close(view[0], expected, rtol=1e-5, atol=1e-5)
    assert view.shape == (2, 3, 224, 224)


def test_whole_view_sees_the_central_square():
    source = frames((40, 60))
    view = fixed_view(source, np.array([0]), 40, crop=False)
    torch.testing.assert_close(
        view[0], normalised(torch.from_numpy(source.pixels[0][:, 10:50].copy())), rtol=1e-5, atol=1e-5
    )


def test_training_crop_is_cut_then_resized():
    """The naive way of the original: cut the box out, resize it, flip it."""
    source = frames((50, 64), (50, 64), (50, 50))
    crops = draw_crops(source.shape, PLAIN, torch.Generator().manual_seed(1))
    ours = training_views(source, np.arange(3), crops, 32)
    for i in range(3):
        top, left, h, w = (int(v) for v in crops.box[i])
        cut = torch.from_numpy(source.pixels[i].copy())[top : top + h, left : left + w].permute(2, 0, 1)[None].float()
        small = functional.interpolate(cut, (32, 32), mode="bilinear", align_corners=False, antialias=False)[0]
        small = small.flip(2) if crops.flip[i] else small
        expected = torch.stack([(small[c] / 255 - MEAN[c]) / STD[c] for c in range(3)])
        torch.testing.assert_close(ours[i], expected, rtol=1e-4, atol=2e-3)


def test_boxes_lie_inside_and_have_the_drawn_area_and_ratio():
    shape = np.tile([[100, 140]], (500, 1))
    box = draw_crops(shape, PLAIN, torch.Generator().manual_seed(0)).box
    top, left, h, w = box.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= 100).all()
    assert (left + w <= 140).all()
    area, ratio = h * w / 14000, w / h
    assert area.min() < 0.15
    assert area.max() > 0.85
    assert 0.08 * 0.95 <= area.min()
    assert (ratio > 0.7).all()
    assert (ratio < 1.42).all()


def test_quarter_turn_is_rot90():
    source = frames((33, 33))
    whole = torch.tensor([[0.0, 0, 33, 33]])
    still = torch.zeros(1, dtype=torch.bool)
    crops = Crops(whole, torch.tensor([np.pi / 2]), still, torch.ones(1, 3))
    turned = training_views(source, np.array([0]), crops, 33)
    upright = training_views(source, np.array([0]), Crops(whole, torch.zeros(1), still, torch.ones(1, 3)), 33)
    torch.testing.assert_close(turned, torch.rot90(upright, 1, (2, 3)), rtol=1e-4, atol=1e-3)


def test_jitter_of_factor_one_changes_nothing_and_zero_saturation_is_grey():
    source = frames((20, 20))
    base = Crops(torch.tensor([[0.0, 0, 20, 20]]), torch.zeros(1), torch.zeros(1, dtype=torch.bool), torch.ones(1, 3))
    plain = training_views(source, np.array([0]), base, 20)
    nearly = Crops(base.box, base.angle, base.flip, torch.tensor([[1.0, 1.0, 1 + 1e-7]]).double())
    torch.testing.assert_close(training_views(source, np.array([0]), nearly, 20), plain, rtol=1e-4, atol=1e-4)
    grey = training_views(
        source, np.array([0]), Crops(base.box, base.angle, base.flip, torch.tensor([[1.0, 1.0, 0.0]])), 20
    )
    back = grey * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)
    torch.testing.assert_close(back[:, 0], back[:, 2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_crop_does_not_depend_on_its_batch(batch):
    source = frames(*[(30, 30)] * 5)
    crops = draw_crops(source.shape, Augmentation(0.4, 180, False, 0.2), torch.Generator().manual_seed(4))
    whole = training_views(source, np.arange(5), crops, 16)
    parts = [training_views(source, np.arange(5)[i : i + batch], crops[i : i + batch], 16) for i in range(0, 5, batch)]
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("side", [200, 203])
def test_a_large_crop_is_shrunk_without_aliasing_or_shift(side):
    """What is finer than a pixel of the view becomes its mean, and nothing moves."""
    ramp = np.repeat(np.linspace(0, 255, side).round()[None, :, None], 3, 2).repeat(side, 0).astype(np.uint8)
    stripes = ((np.arange(side)[:, None, None] % 2) * 200 * np.ones((1, side, 3))).astype(np.uint8)
    shards = [ramp.ravel(), stripes.ravel()]
    source = Frames(Pixels(shards, np.arange(2), np.zeros(2, np.int64), np.full((2, 2), side)), CPU)
    box = torch.tensor([[0.0, 0, side, side]]).repeat(2, 1)
    crops = Crops(box, torch.zeros(2), torch.zeros(2, dtype=torch.bool), torch.ones(2, 3))
    views = training_views(source, np.arange(2), crops, 50)
    pixels = (views * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)) * 255
    across = (torch.arange(50) + 0.5) / 50 * side - 0.5
    torch.testing.assert_close(pixels[0, 0, 20, 2:-2], (across / (side - 1) * 255)[2:-2], rtol=0, atol=1.5)
    assert (pixels[1, :, 2:-2] - 100).abs().max() < 30  # without shrinking: 0 and 200


def test_the_papers_crops_are_cut_from_what_the_file_has(tmp_path):
    """Decoded for `paper`, the smallest crop of a large photograph is as sharp as the file; from 256 px it is not."""
    from PIL import Image

    from datasets import decoded_side, open_dataset
    from deepcluster.config import PAPER, side_to_decode

    fine = (np.indices((800, 800)).sum(0) // 3 % 2 * 255).astype(np.uint8)  # squares of three pixels
    (tmp_path / "coins").mkdir()
    Image.fromarray(fine).convert("RGB").save(tmp_path / "coins" / "fine.png")
    Image.fromarray(fine[:100, :100]).convert("RGB").save(tmp_path / "coins" / "small.png")
    largest = side_to_decode("paper", 64, PAPER["scale"])
    assert largest == 262  # 64 / sqrt(.08 * 3 / 4)
    assert side_to_decode("stable", 64, 0.6) == decoded_side(64) == 73
    contrast = {}
    for name, at_most in (("paper", 10_000), ("bounded", largest), ("before", None)):
        pixels = open_dataset(str(tmp_path / "coins"), 73, at_most=at_most).pixels
        side = pixels.shape[0][0]
        box = torch.tensor([[0.0, 0, 64 / 800 * side, 64 / 800 * side]])
        crops = Crops(box, torch.zeros(1), torch.zeros(1, dtype=torch.bool), torch.ones(1, 3))
        contrast[name] = float(training_views(Frames(pixels, CPU), np.array([0]), crops, 64).std())
        assert tuple(pixels.shape[1]) == ((73, 73) if at_most is None else (100, 100))  # a small file is not enlarged
    assert contrast["paper"] > 2
    assert contrast["before"] < 0.1 * contrast["paper"]
