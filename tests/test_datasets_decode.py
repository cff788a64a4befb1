import io

import numpy as np
import pytest
from PIL import Image

from datasets.decoding import BadImage, decode

RED = np.zeros((8, 12, 3), np.uint8)
RED[..., 0] = 200


def encoded(image: Image.Image, kind: str, **keywords) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **keywords)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP", "GIF", "JPEG"])
def test_every_format_becomes_rgb(kind):
    keywords = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encoded(Image.fromarray(RED), kind, **keywords))
    assert pixels.shape == (8, 12, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), RED, atol=4)


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [("L", 90, (90, 90, 90)), ("1", 1, (255, 255, 255)), ("P", 0, None), ("CMYK", (0, 255, 255, 0), (254, 0, 0))],
)
def test_modes_become_rgb(mode, value, expected):
    image = Image.new(mode, (6, 6), value)
    if mode == "P":
        image.putpalette([10, 20, 30] * 256)
        expected = (10, 20, 30)
    pixels = decode(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(expected, (6, 6, 3)), atol=3)


def test_sixteen_bits_are_scaled_not_cut_off():
    image = Image.fromarray(np.full((5, 5), 32768, np.uint16))
    np.testing.assert_allclose(decode(encoded(image, "PNG")).astype(int), 128, atol=1)


def test_transparent_becomes_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode(encoded(image, "PNG")) == 255).all()


def test_first_frame_of_a_gif():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("black", "white")]
    assert decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).max() == 0


def test_exif_orientation_turns_the_picture():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    assert decode(encoded(Image.fromarray(RED), "JPEG", exif=exif)).shape == (12, 8, 3)


def test_shorter_side_as_torchvision_resizes():
    from torchvision.transforms import Resize

    noise = np.random.default_rng(0).integers(0, 256, (97, 61, 3)).astype(np.uint8)
    ours = decode(encoded(Image.fromarray(noise), "PNG"), 32)
    np.testing.assert_array_equal(ours, np.asarray(Resize(32)(Image.fromarray(noise))))


def test_broken_files_are_named_by_reason(tmp_path):
    whole = encoded(Image.fromarray(RED.repeat(20, 0).repeat(20, 1)), "JPEG").getvalue()
    for content, reason in ((b"", "empty file"), (b"hello", "not an image"), (whole[: len(whole) // 2], "damaged")):
        path = tmp_path / "file.jpg"
        path.write_bytes(content)
        with pytest.raises(BadImage, match=reason):
            decode(path)


def test_decompression_bomb_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr("datasets.decoding.MAX_PIXELS", 50)
    with pytest.raises(BadImage, match="megapixels"):
        decode(encoded(Image.fromarray(RED), "PNG"))


def test_long_strip_is_refused():
    with pytest.raises(BadImage, match="strip"):
        decode(encoded(Image.new("RGB", (200, 4)), "PNG"))


def test_an_iphones_picture_that_cannot_be_read_is_said_to_be_one(tmp_path, monkeypatch):
    """Without its library the reason says what to do."""
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x1cftypheic" + bytes(40))
    with pytest.raises(BadImage, match=r"damaged|not an image"):
        decode(path)
    monkeypatch.setattr("datasets.decoding.HEIC", False)
    with pytest.raises(BadImage, match="HEIC, as iPhones take it: export it as JPEG, or `pip install pillow-heif`"):
        decode(path)


def test_heic_is_upright_and_in_colour(tmp_path):
    import pillow_heif

    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48, 0] = 200  # red on the left, which lies on top when it is turned
    turned = Image.Exif()
    turned[274] = 6
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "a.heic", exif=turned.tobytes(), quality=95)
    seen = decode(tmp_path / "a.heic")
    assert seen.shape == (96, 64, 3)
    assert seen[10, 32, 0] > 150
    assert seen[80, 32].max() < 60
