import numpy as np
import pytest
import torch
from torch.nn import functional

from datasets import Pixels
from datasets.view import BRIGHTER, GROUND, PHOTOGRAPH
from deepcluster.views import (
    LEVEL,
    LIGHT,
    MEAN,
    SHIFT,
    STD,
    ZOOM,
    Augmentation,
    Crops,
    Frames,
    Turns,
    draw_crops,
    draw_turns,
    fixed_view,
    training_views,
    turned_views,
)

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
    largest = side_to_decode("paper", PHOTOGRAPH, 64, PAPER["scale"])
    assert largest == 262  # 64 / sqrt(.08 * 3 / 4)
    assert side_to_decode("stable", PHOTOGRAPH, 64, 0.6) == decoded_side(64) == 73
    assert side_to_decode("stable", "unrolled", 64, 0.6) == side_to_decode("paper", "coin", 64, 0.08) == 128
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


# --- unrolled coins -------------------------------------------------------------------------------------------------


def strips(count: int = 3, height: int = 32, width: int = 128) -> Frames:
    """Unrolled noise; the first row is one pixel, the centre, in all directions."""
    source = frames(*[(height, width)] * count)
    for shard in source.pixels._shards:
        picture = shard.reshape(height, width, 3)
        picture[0] = picture[0, 0]
    return source


def turns(
    count: int, roll: float = 0, zoom: float = 1, shift=(0.0, 0.0), light=(1.0, 0, 0, 0), opposite=False
) -> Turns:
    one = torch.ones(count, dtype=torch.float64)
    shifts, lights = torch.tensor([shift] * count).double(), torch.tensor([light] * count).double()
    return Turns(one * roll, one * zoom, shifts, lights, torch.full((count,), opposite))


def test_the_opposite_lamp_turns_the_relief_over_and_leaves_its_edges():
    source, rows = strips(), np.arange(3)
    one, other = (bytes_of(turned_views(source, rows, turns(3, opposite=side))) for side in (False, True))
    torch.testing.assert_close(other[:, 0].clamp(1, 255), (256 - one[:, 0]).clamp(1, 255), atol=0.01, rtol=0)
    torch.testing.assert_close(other[:, 1:], one[:, 1:], atol=0.01, rtol=0)
    drawn = draw_turns(400, Augmentation(0.6, 180, False, 0.4), torch.Generator().manual_seed(1)).opposite
    assert 150 < int(drawn.sum()) < 250
    assert not draw_turns(50, Augmentation(0.6, 180, False, 0.0), torch.Generator().manual_seed(1)).opposite.any()


def bytes_of(views: torch.Tensor) -> torch.Tensor:
    """Normalised (B, 3, H, W) -> 0..255."""
    return (views * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)) * 255


def test_the_fixed_view_of_another_view_is_its_frame():
    source = strips(2)
    for crop in (True, False):
        seen = fixed_view(source, np.array([1, 0]), 64, crop, "unrolled")
        assert seen.shape == (2, 3, 32, 128)
        torch.testing.assert_close(seen[0], normalised(torch.from_numpy(source.pixels[1].copy())), rtol=1e-5, atol=1e-5)


def test_an_unrolled_coin_that_is_left_alone_is_the_fixed_view():
    source, rows = strips(), np.array([2, 0])
    seen = bytes_of(turned_views(source, rows, turns(2)))
    torch.testing.assert_close(seen, bytes_of(fixed_view(source, rows, 64, False, "unrolled")), rtol=0, atol=0.1)


@pytest.mark.parametrize(("degrees", "columns"), [(90, 32), (180, 64), (-45, -16), (360 / 128, 1)])
def test_a_turn_rolls_the_view(degrees, columns):
    source, rows = strips(), np.arange(3)
    turned = bytes_of(turned_views(source, rows, turns(3, roll=np.deg2rad(degrees))))
    fixed = bytes_of(fixed_view(source, rows, 64, False, "unrolled"))
    torch.testing.assert_close(turned, fixed.roll(-columns, 3), rtol=0, atol=0.1)


def test_a_closer_coin_and_one_whose_centre_lies_elsewhere():
    source = strips(1)
    fixed = bytes_of(fixed_view(source, np.array([0]), 64, False, "unrolled"))
    zoomed = bytes_of(turned_views(source, np.array([0]), turns(1, zoom=0.5)))
    torch.testing.assert_close(zoomed[:, :, ::2], fixed[:, :, :16], rtol=0, atol=0.1)
    moved = bytes_of(turned_views(source, np.array([0]), turns(1, shift=(0.25, np.pi / 2))))
    centre = fixed[:, :, 8, 32]  # a quarter of the radius from the centre, a quarter of a turn on
    torch.testing.assert_close(moved[:, :, 0], centre[:, :, None].expand(-1, -1, 128), rtol=0, atol=0.1)


def test_light_strengthens_the_relief_on_one_side_and_lifts_its_mean():
    flat = np.empty((32, 128, 3), np.uint8)
    flat[:] = (GROUND + 40, 60, 20)
    source = Frames(Pixels([flat.ravel()], np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([[32, 128]])), CPU)
    stronger = bytes_of(turned_views(source, np.array([0]), turns(1, light=(1.5, 0, 0, 0))))[0]
    torch.testing.assert_close(stronger[:, 5, 7], torch.tensor([GROUND + 60.0, 90, 30]), rtol=0, atol=0.01)
    lifted = bytes_of(turned_views(source, np.array([0]), turns(1, light=(1, 0, 0, 0.5))))[0]
    torch.testing.assert_close(lifted[:, 5, 7], torch.tensor([GROUND + 40 + BRIGHTER / 2, 60, 20]), rtol=0, atol=0.01)
    sided = bytes_of(turned_views(source, np.array([0]), turns(1, light=(1, 0.5, 0, 0))))[0]
    torch.testing.assert_close(sided[1, 16, [0, 32, 64]], torch.tensor([75.0, 60, 45]), rtol=0, atol=0.01)
    torch.testing.assert_close(sided[1, 0], torch.full((128,), 60.0), rtol=0, atol=0.01)  # none at the centre


def test_turns_come_from_the_seed_and_stay_within_what_was_asked():
    asked = Augmentation(scale=0.6, rotation=30, flip=False, jitter=0.4)

    def draw(seed: int, augmentation: Augmentation = asked) -> Turns:
        return draw_turns(2000, augmentation, torch.Generator().manual_seed(seed))

    one, again, other = draw(1), draw(1), draw(2)
    for name in ("roll", "zoom", "shift", "light"):
        assert torch.equal(getattr(one, name), getattr(again, name))
        assert not torch.equal(getattr(one, name), getattr(other, name))
    for values, low, high in (
        (one.roll, -np.pi / 6, np.pi / 6),
        (one.zoom, 1 - ZOOM, 1 + ZOOM),
        (one.shift[:, 0], 0, SHIFT),
        (one.light[:, 0], 1 - 0.4 * LIGHT, 1 + 0.4 * LIGHT),
        (one.light[:, 1], 0, 0.4 * LIGHT),
        (one.light[:, 3], -0.4 * LEVEL, 0.4 * LEVEL),
    ):
        span = high - low
        assert low <= values.min() < low + 0.05 * span
        assert high - 0.05 * span < values.max() <= high
    still = draw(1, Augmentation(scale=0.6, rotation=0, flip=False, jitter=0))
    assert still.roll.abs().max() == 0
    assert (still.light[:, [0, 1, 3]] == torch.tensor([1.0, 0, 0])).all()


@pytest.mark.parametrize("batch", [1, 2])
def test_a_turned_coin_does_not_depend_on_its_batch(batch):
    source = strips(5)
    chance = draw_turns(5, Augmentation(0.6, 180, False, 0.4), torch.Generator().manual_seed(4))
    whole = turned_views(source, np.arange(5), chance)
    parts = [turned_views(source, np.arange(5)[i : i + batch], chance[i : i + batch]) for i in range(0, 5, batch)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_a_turned_view_is_the_view_of_a_turned_coin():
    """Drawn of a photograph that is turned, or turned after it was drawn: the same but for what pixels are."""
    import cv2

    from datasets.places import place_at
    from datasets.view import VIEWS

    rng = np.random.default_rng(0)
    grey = cv2.GaussianBlur(rng.normal(128, 400, (201, 201)).astype(np.float32), (0, 0), 4)
    place = place_at(100, 100, 80, confidence=1.0)
    drawn = {}
    for degrees in (0, 33):
        to = cv2.getRotationMatrix2D((100, 100), degrees, 1)
        turned = cv2.warpAffine(grey, to, (201, 201), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        pixels = np.repeat(turned.clip(0, 255).round().astype(np.uint8)[..., None], 3, 2)
        drawn[degrees] = VIEWS["unrolled"].draw(pixels, place, 128)
    source = Frames(
        Pixels([drawn[0].ravel()], np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([[64, 256]])), CPU
    )
    wanted = torch.from_numpy(drawn[33]).permute(2, 0, 1).float()

    def off(degrees: float) -> float:
        seen = bytes_of(turned_views(source, np.array([0]), turns(1, roll=np.deg2rad(degrees))))[0]
        return float((seen - wanted)[:, 4:].abs().mean())

    assert off(33) < 0.2 * min(off(0), off(-33))  # OpenCV turns against the clock
