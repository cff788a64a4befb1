import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from console import UserError
from datasets.lettering import fitted, letters, wrapped
from explain.attribution import METHODS, Asked
from explain.attribution.registry import COLOURS
from explain.drawing import summarise
from explain.gallery.why import Why, draw_why, heads_of
from explain.rendering import (
    EMPTY,
    LOOK_UPS,
    OPAQUE,
    bar_as_drawn,
    coloured,
    contact_sheet,
    draw,
    encode,
    enlarge,
    is_degenerate,
    normalise_heat,
    overlay,
    overlay_of,
)

PHOTOGRAPH = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
NOTHING = {
    "zero": np.zeros((1, 8, 8), np.float32),
    "constant": np.full((1, 8, 8), 3.0, np.float32),
    "nan": np.where(np.eye(8) > 0, np.nan, 1).astype(np.float32)[None],
    "infinite": np.where(np.eye(8) > 0, np.inf, 1).astype(np.float32)[None],
}


def rgb(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


def test_the_rainbow_goes_from_violet_over_turquoise_to_red():
    table = LOOK_UPS["rainbow"]
    assert table.shape == (256, 3)
    red, green, blue = table[0].astype(int)
    assert blue > 250
    assert green < 10
    red, green, blue = table[128].astype(int)
    assert green > 240
    assert blue > red
    assert table[255].tolist() == [255, 0, 0]


# How a reader without green cones sees (linear) red, green and blue: Machado et al. 2009, severity 1.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


def lightness(table: np.ndarray) -> np.ndarray:
    """(256, 3) sRGB bytes -> luminance as a reader with deuteranopia sees it, (256,)."""
    linear = np.where(table <= 10.31, table / 255 / 12.92, ((table / 255 + 0.055) / 1.055) ** 2.4)
    return np.clip(linear @ DEUTERANOPIA.T, 0, 1) @ np.array([0.2126, 0.7152, 0.0722])


def test_the_default_colours_keep_their_order_for_red_green_blind_readers():
    assert COLOURS[0] == "inferno"
    for name in ("inferno", "viridis"):
        assert (np.diff(lightness(LOOK_UPS[name])[::8]) > 0).all(), name
    rainbow = lightness(LOOK_UPS["rainbow"])
    assert rainbow[128] > 2 * rainbow[255]  # the most is darker than the middle


def test_opacity_follows_the_value_and_nothing_is_the_plain_photograph():
    heat = np.zeros((8, 8))
    heat[0, 0], heat[0, 1] = 1, 0.5
    grey = np.asarray(Image.fromarray(PHOTOGRAPH).convert("L")).astype(float)
    for name, table in LOOK_UPS.items():
        picture = rgb(overlay(heat, PHOTOGRAPH, name)).astype(float)
        assert np.array_equal(picture[1:], np.repeat(grey[1:, :, None], 3, 2))
        for column, value in ((0, 1.0), (1, 0.5)):
            colour = table[round(value * 255)].astype(float)
            wanted = grey[0, column] * (1 - OPAQUE * value) + colour * OPAQUE * value
            assert np.abs(picture[0, column] - wanted).max() <= 2


@pytest.mark.parametrize("kind", NOTHING)
@pytest.mark.parametrize("method", ["grad_cam", "guided_backprop", "guided_grad_cam"])
@pytest.mark.filterwarnings("error")
def test_a_map_that_says_nothing_is_drawn_empty_and_never_divided_by_zero(kind, method):
    values = NOTHING[kind] if method == "grad_cam" else np.repeat(NOTHING[kind], 3, 0)
    assert is_degenerate(values)
    picture = rgb(draw(METHODS[method], values, PHOTOGRAPH))
    assert picture.shape == (8, 8, 3)
    if method == "grad_cam":
        grey = PHOTOGRAPH @ np.array([0.299, 0.587, 0.114])
        assert np.abs(picture - grey[..., None]).max() <= 1  # the photograph without colours
    else:
        assert (picture == EMPTY).all()
    other = np.random.default_rng(1).random(values.shape, np.float32)
    record = summarise({method: np.stack([values, other])}, {}, [Asked(method)], np.array([4, 5]), method)
    assert record["empty"].tolist() == [[True], [False]]
    assert np.isfinite(record.get("heat", np.zeros(1))).all()


def test_only_the_positive_part_is_heat_and_its_maximum_is_full_colour():
    heat = np.array([[-5.0, 0.0], [1.0, 2.0]])
    assert normalise_heat(heat).tolist() == [[0, 0], [0.5, 1]]
    assert normalise_heat(np.array([[-2.0, -1.0]])) is None  # nothing speaks for it
    picture = rgb(overlay(normalise_heat(heat), np.zeros((2, 2, 3), np.uint8)))
    assert np.abs(picture[1, 1] - OPAQUE * LOOK_UPS[COLOURS[0]][255]).max() <= 1
    assert not picture[0].any()


def test_equal_channels_make_a_grey_gradient_and_signs_lie_on_either_side():
    values = np.repeat(np.array([[[-1.0, 0.0], [0.5, 1.0]]]), 3, 0)
    picture = rgb(draw(METHODS["guided_backprop"], values, PHOTOGRAPH[:2, :2]))
    assert (picture == picture[..., :1]).all()
    assert picture[0, 0, 0] < picture[0, 1, 0] == EMPTY < picture[1, 0, 0] < picture[1, 1, 0]
    values[0] = 0
    picture = rgb(draw(METHODS["gradient"], values, PHOTOGRAPH[:2, :2]))
    assert picture[1, 1, 0] == EMPTY < picture[1, 1, 1]  # colours, where the channels differ


def test_a_products_heat_is_the_maximum_over_the_channels():
    values = np.zeros((3, 4, 4))
    values[0, 0, 0], values[2, 3, 3], values[1, 1, 1] = 2.0, 2.0, -9.0
    picture = rgb(draw(METHODS["guided_grad_cam"], values, PHOTOGRAPH[:4, :4]))
    assert picture[0, 0].tolist() == picture[3, 3].tolist() == LOOK_UPS[COLOURS[0]][255].tolist()
    assert picture[1, 1].tolist() == LOOK_UPS[COLOURS[0]][0].tolist()
    assert (
        rgb(draw(METHODS["guided_grad_cam"], values[:1], PHOTOGRAPH[:4, :4]))[0, 0] == LOOK_UPS[COLOURS[0]][255]
    ).all()  # of a digit too


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_pictures_are_written_whole_and_tiny_ones_enlarge(kind, tmp_path):
    (tmp_path / "a").write_bytes(encode(coloured(np.full((28, 28), 0.5), (28, 28), LOOK_UPS["inferno"]), kind))
    with Image.open(tmp_path / "a") as picture:
        assert picture.size == (112, 112)
        assert picture.format == kind.upper()
        assert np.abs(rgb(picture).astype(int) - LOOK_UPS[COLOURS[0]][128]).max() < 9
    assert enlarge(Image.new("L", (128, 128))).size == (128, 128)


def test_a_contact_sheet_reads_from_left_to_right():
    sheet = contact_sheet([np.full((9, 9, 3), value, np.uint8) for value in (0, 100, 200)], columns=2, cell=10, gap=1)
    assert sheet.shape == (23, 23, 3)
    assert [sheet[5, 5, 0], sheet[5, 16, 0], sheet[16, 5, 0], sheet[16, 16, 0]] == [0, 100, 200, 255]


def test_a_map_of_the_view_lies_in_the_middle_of_a_square():
    strip = np.repeat(PHOTOGRAPH[:4, :, :1], 3, 2)  # (4, 8, 3)
    heat = np.zeros((1, 4, 8))
    heat[0, 1, 2] = 1
    picture = rgb(draw(METHODS["view"], heat, strip)).astype(int)
    assert picture.shape == (8, 8, 3)
    assert (picture[[0, 1, 6, 7]] == EMPTY).all()
    assert (picture[2:6] == rgb(overlay(heat[0], strip))).all()
    nothing = rgb(draw(METHODS["view"], np.zeros((1, 4, 8)), strip))
    assert (nothing[2:6] == strip).all()
    assert (nothing[:2] == EMPTY).all()
    square = rgb(draw(METHODS["view"], heat[:, :, :4], strip[:, :4]))
    assert (square == rgb(draw(METHODS["grad_cam"], heat[:, :, :4], strip[:, :4]))).all()


def test_maps_of_the_network_are_drawn_as_they_are():
    before = torch.rand(1, 8, 8).numpy()
    kept = before.copy()
    draw(METHODS["grad_cam"], before, PHOTOGRAPH)
    assert (before == kept).all()


def test_overlay_takes_what_a_notebook_has():
    heat = torch.rand(1, 1, 8, 8)
    wanted = rgb(overlay(normalise_heat(heat[0, 0].numpy()), PHOTOGRAPH))
    tensor = torch.from_numpy(PHOTOGRAPH).permute(2, 0, 1) / 255
    for photograph in (PHOTOGRAPH, Image.fromarray(PHOTOGRAPH), tensor, tensor[None]):
        for values in (heat, heat[0], heat[0, 0], heat[0, 0].numpy()):
            assert (rgb(overlay_of(values, photograph)) == wanted).all()
    with pytest.raises(UserError, match="a heat map"):
        overlay_of(torch.rand(3, 8, 8), PHOTOGRAPH)
    with pytest.raises(UserError, match="the photograph"):
        overlay_of(heat, np.zeros((8, 8)))
    with pytest.raises(UserError, match="of another shape than the map"):
        overlay_of(heat, Image.new("RGB", (12, 8)))


@pytest.mark.parametrize("colours", COLOURS)
def test_pixels_on_their_own_lie_on_a_quiet_ground(colours):
    values = np.zeros((3, 8, 8), np.float32)
    values[1, 2, 2] = 1
    pixels = rgb(draw(METHODS["guided_grad_cam"], values, PHOTOGRAPH, colours)).astype(int)
    assert pixels[0, 0].max() < 16
    assert np.array_equal(pixels[2, 2], LOOK_UPS[colours][255])


def test_a_text_is_wrapped_and_fitted_to_its_width():
    font = letters(14)
    lines = wrapped("photographs of coins, the most typical first", font, 120)
    assert len(lines) > 2
    assert all(font.getlength(line) <= 120 for line in lines)
    short = fitted("a-very-long-folder/of/photographs/coin_0001.jpg", font, 150)
    assert font.getlength(short) <= 150
    assert short.endswith("1.jpg")
    assert fitted("1.jpg", font, 150) == "1.jpg"


def test_why_has_heads_names_and_a_bar_at_full_resolution():
    squares = [Image.new("RGB", (160, 160), colour) for colour in ("red", "green", "blue")]
    why = Why("Cluster 7: owls", "2 of 9 images", ["Photograph", "Grad-CAM", "HiRes-CAM in the view, unrolled"],
              [("a.jpg", squares), ("b.jpg", squares)], "inferno")  # fmt: skip
    sheet = np.asarray(draw_why(why)).astype(int)
    assert (sheet == (255, 0, 0)).all(2).sum() == 2 * 160 * 160  # as large as they were drawn
    without = np.asarray(draw_why(dataclasses.replace(why, colours=None))).astype(int)
    assert sheet.shape[0] > without.shape[0]
    most = bar_as_drawn("inferno")[-1]
    assert (sheet[-30:] == most).all(2).any()
    assert heads_of(Asked("occlusion"))[1].endswith("blue: in the way")


def test_a_megabyte_of_a_name_is_fitted_at_once():
    font = letters(12)
    assert len(fitted("x" * 1_000_000, font, 200)) < 60
    assert fitted("abc", font, 200) == "abc"
    assert fitted("abc", font, 1) == "…"
