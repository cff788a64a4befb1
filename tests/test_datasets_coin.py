"""Painted coins have exact masks: outlines are held against them, alone and in scenes made of several."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, refused, run_module
from PIL import Image
from scipy.ndimage import gaussian_filter

import datasets.processes
from console import UserError
from datasets.coin import Coin, design_center, find_coins
from datasets.decoding import decode
from datasets.painted import MASK_BITS, TYPES, paint_coin
from datasets.processes import map_processes
from datasets.split import split

EUROS = Path(os.environ.get("EURO_COINS_DIR") or ROOT.parent / "shared" / "data" / "euro_coins").absolute()
GROUNDS = ("white", "black", "stripes", "checks", "stone", "wood")


@pytest.fixture(scope="module")
def painted() -> list[tuple[np.ndarray, np.ndarray]]:
    """60 photographs and their mask bits, of every type and quality."""
    rng = np.random.default_rng(31)
    return [paint_coin(TYPES[i % len(TYPES)], rng)[:2] for i in range(60)]


@pytest.fixture(scope="module")
def found(painted) -> list[list[Coin]]:
    return [find_coins(picture) for picture, _ in painted]


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def circle(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (x, y) and radius by counting pixels."""
    return np.argwhere(mask).mean(0)[::-1], float(np.sqrt(mask.sum() / np.pi))


def test_outlines_of_painted_coins(painted, found):
    overlaps, errors = [], []
    for (picture, bits), coins in zip(painted, found, strict=True):
        truth = (bits & MASK_BITS["coin"]) > 0
        assert len(coins) == 1
        assert not coins[0].cut_off or truth[[0, -1]].any() or truth[:, [0, -1]].any()
        center, radius = circle(truth)
        overlaps.append(iou(coins[0].mask(picture.shape), truth))
        errors.append(np.hypot(*(coins[0].center - center)) / radius)
        assert coins[0].radius == pytest.approx(radius, rel=0.08)
    assert np.mean(overlaps) > 0.96
    assert np.percentile(overlaps, 1) > 0.85
    assert np.percentile(errors, 95) < 0.03


def test_design_is_found_where_the_strike_is_off_centre(painted, found):
    errors, of_the_flan = [], []
    for (picture, bits), (coin, *_) in zip(painted, found, strict=True):
        bars = MASK_BITS["horizontal"] | MASK_BITS["vertical"]
        truth, _ = circle((bits & bars) == bars)  # where both bars are
        errors.append(np.hypot(*(design_center(picture, coin) - truth)) / coin.radius)
        of_the_flan.append(np.hypot(*(coin.center - truth)) / coin.radius)
    assert np.median(errors) < 0.04
    assert np.percentile(errors, 95) < 0.06 < np.median(of_the_flan)


def test_design_turns_with_the_coin(painted):
    for picture, bits in painted[:8]:
        bars = MASK_BITS["horizontal"] | MASK_BITS["vertical"]
        truth, _ = circle((bits & bars) == bars)
        side = picture.shape[0]
        turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), 37, 1.0)
        turned = cv2.warpAffine(picture, turn, (side, side), borderMode=cv2.BORDER_REFLECT)
        coin = find_coins(turned)[0]
        assert np.hypot(*(design_center(turned, coin) - turn @ [*truth, 1])) < 0.08 * coin.radius


def disc(center=(104, 104), radius=80, side=208, ground=235, metal=120) -> np.ndarray:
    picture = np.full((side, side, 3), ground, np.uint8)
    cv2.circle(picture, center, radius, (metal, metal, metal - 10), -1)
    return picture


@pytest.mark.parametrize("shift", [(0, 0), (7, 3), (-5, 9)])
def test_design_is_an_inner_circle_where_there_is_no_cross(shift):
    picture = disc()
    cv2.circle(picture, (104 + shift[0], 104 + shift[1]), 55, (160, 160, 150), 3)
    found = design_center(picture, find_coins(picture)[0])
    np.testing.assert_allclose(found, np.add(104, shift), atol=1)


def test_design_of_a_bare_disc_is_its_centre():
    picture = disc(center=(98, 110))
    np.testing.assert_allclose(design_center(picture, find_coins(picture)[0]), (98, 110), atol=1)


def test_a_plain_disc_is_found_to_the_pixel():
    """Twice as large as the search works at, so that scales there and back are held to half-pixel care."""
    picture = disc(center=(300, 260), radius=170, side=640)
    coin = find_coins(picture)[0]
    np.testing.assert_allclose(coin.center, (300, 260), atol=1)
    assert coin.radius == pytest.approx(170, abs=3)
    assert coin.confidence > 0.9
    assert coin.outline.shape[1] == 2
    assert coin.outline.dtype == np.float32
    assert not coin.cut_off


def test_mask_is_the_outlines_inside():
    outline = np.array([[1, 1], [4, 1], [4, 3], [1, 3]], np.float32)
    mask = Coin((2.5, 2), 1.4, outline, 1.0, False).mask((6, 7, 3))
    assert mask.dtype == bool
    assert {tuple(place) for place in np.argwhere(mask)} == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3, 4)}


# --- scenes -------------------------------------------------------------------------------------------------------


def ground(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:height, :width]

    def noise(sigma):
        rough = gaussian_filter(rng.standard_normal((height, width)), sigma)
        return (rough / rough.std())[..., None]

    if kind == "white":
        picture = np.full((height, width, 3), 245.0)
    elif kind == "black":
        picture = np.full((height, width, 3), 12.0)
    elif kind == "stripes":
        picture = np.where(((x + 2 * y) // 9 % 2)[..., None] > 0, [200, 90, 80], [80, 190, 150])
    elif kind == "checks":
        picture = np.where(((x // 14 + y // 14) % 2)[..., None] > 0, [70, 180, 90], [190, 90, 170])
    elif kind == "stone":
        spots = noise(2.5)
        picture = np.where(spots > 1.1, [120, 122, 135] + 8 * noise(1), 195 + 12 * noise(1))
        picture = np.where(spots < -1.2, 238, picture)
    else:
        picture = np.array([150, 105, 65]) + 18 * noise((1.2, 30))
    return picture + rng.normal(0, 3, picture.shape)


def coin_alone(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    while True:
        picture, bits, facts = paint_coin(TYPES[rng.integers(len(TYPES))], rng)
        if facts["quality"] == "good":
            return picture.astype(float), (bits & MASK_BITS["coin"]) > 0


def lay(scene: np.ndarray, picture: np.ndarray, mask: np.ndarray, top: int, left: int) -> tuple[np.ndarray, np.ndarray]:
    """The coin and its shadow on the scene, the corner of its picture at (top, left); and its mask there."""
    height, width = mask.shape
    there = np.zeros((scene.shape[0] + 2 * height, scene.shape[1] + 2 * width))
    colours = np.zeros((*there.shape, 3))
    place = np.s_[height + top : 2 * height + top, width + left : 2 * width + left]
    there[place], colours[place] = mask, picture
    shadow = gaussian_filter(np.roll(there, (4, 4), (0, 1)), 5)
    seen = np.s_[height:-height, width:-width]
    cover = gaussian_filter(there, 0.6)[seen][..., None]
    return (scene * (1 - 0.4 * shadow[seen])[..., None]) * (1 - cover) + colours[seen] * cover, there[seen] > 0.5


def bytes_of(scene: np.ndarray) -> np.ndarray:
    return np.clip(scene, 0, 255).astype(np.uint8)


def pair(kind: str, seed: int, touching: bool = False) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng([seed, GROUNDS.index(kind)])
    (first, mask), (second, other) = coin_alone(rng), coin_alone(rng)
    scene = ground(kind, 230, 460, rng)
    left = np.flatnonzero(mask.any(0))[-1] - np.flatnonzero(other.any(0))[0] if touching else 220
    scene, mask = lay(scene, first, mask, 11, 15)
    scene, other = lay(scene, second, other, 11, 15 + int(left))
    return bytes_of(scene), [mask & ~other, other]


def assert_found(picture: np.ndarray, masks: list[np.ndarray], least: float = 0.93) -> list[Coin]:
    coins = find_coins(picture)
    assert len(coins) == len(masks)
    for mask in masks:
        assert max(iou(coin.mask(picture.shape), mask) for coin in coins) > least
    return coins


@pytest.mark.parametrize("kind", GROUNDS)
def test_two_coins_in_one_picture(kind):
    assert not any(coin.cut_off for coin in assert_found(*pair(kind, 1)))


@pytest.mark.parametrize("kind", GROUNDS)
def test_coins_that_touch(kind):
    assert_found(*pair(kind, 2, touching=True))


@pytest.mark.parametrize("kind", GROUNDS)
def test_a_coin_that_the_frame_cuts(kind):
    rng = np.random.default_rng([3, GROUNDS.index(kind)])
    picture, mask = lay(ground(kind, 208, 208, rng), *coin_alone(rng), 0, 40)
    assert assert_found(bytes_of(picture), [mask])[0].cut_off


@pytest.mark.parametrize("kind", GROUNDS)
def test_scale_bars_and_labels_are_no_coins(kind):
    rng = np.random.default_rng([4, GROUNDS.index(kind)])
    scene, mask = lay(ground(kind, 270, 300, rng), *coin_alone(rng), 5, 10)
    picture = bytes_of(scene)
    for i in range(8):
        cv2.rectangle(picture, (30 + i * 25, 235), (54 + i * 25, 248), (15, 15, 15) if i % 2 else (245, 245, 245), -1)
    cv2.rectangle(picture, (236, 20), (292, 64), (250, 250, 245), -1)
    cv2.putText(picture, "Inv 7", (240, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (10, 10, 10), 1)
    cv2.putText(picture, "2.31 g", (240, 58), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (10, 10, 10), 1)
    assert_found(picture, [mask])


@pytest.mark.parametrize(("y", "x", "radius"), [(75, 175, 35), (70, 180, 30), (104, 184, 20)])
def test_chipped_coin(y, x, radius):
    """A bite of 3 to 10 % of the disc; the outline follows it."""
    picture = disc()
    cv2.circle(picture, (x, y), radius, (235, 235, 235), -1)
    truth = picture[..., 0] == 120
    assert_found(picture, [truth], 0.96)
    assert iou(disc()[..., 0] == 120, truth) < 0.975


def test_the_bulls_eye_is_not_the_coin():
    """A ring of one metal around a disc of another, as a two-euro coin."""
    picture = disc(metal=190, ground=235)
    cv2.circle(picture, (104, 104), 55, (190, 150, 70), -1)
    assert find_coins(picture)[0].radius == pytest.approx(80, abs=3)


@pytest.mark.parametrize("kind", [*GROUNDS, "noise", "uniform", "ramp", "text"])
def test_no_coin(kind):
    rng = np.random.default_rng(5)
    if kind == "noise":
        picture = rng.integers(0, 256, (160, 200, 3)).astype(np.uint8)
    elif kind == "uniform":
        picture = np.full((150, 150, 3), 128, np.uint8)
    elif kind == "ramp":
        picture = np.repeat(np.linspace(0, 255, 180).astype(np.uint8), 180 * 3).reshape(180, 180, 3)
    elif kind == "text":
        picture = np.full((200, 200, 3), 240, np.uint8)
        for row in range(12):
            place = (3, 14 + row * 16)
            cv2.putText(picture, "Lot 12 denier tournois", place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1)
    else:
        picture = bytes_of(ground(kind, 208, 208, rng))
    assert find_coins(picture) == []


@pytest.mark.parametrize("shape", [(1, 1), (9, 9), (20, 200), (200, 20), (64, 64)])
def test_any_shape_is_looked_at(shape):
    assert find_coins(np.zeros((*shape, 3), np.uint8)) == []


def test_threads_find_the_same_and_leave_the_pixels(painted, found):
    pictures = [picture.copy() for picture, _ in painted[:12]]
    for picture in pictures:
        picture.flags.writeable = False
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(find_coins, pictures))
    for before, after in zip(found[:12], together, strict=True):
        np.testing.assert_array_equal(before[0].outline, after[0].outline)
        assert before[0].confidence == after[0].confidence


def test_processes_find_the_same(painted, found, monkeypatch):
    monkeypatch.setattr(datasets.processes, "HERE", 0)
    together = list(map_processes(find_coins, (picture for picture, _ in painted[:4]), 4, workers=2))
    assert [len(coins) for coins in together] == [1, 1, 1, 1]
    for before, after in zip(found[:4], together, strict=True):
        np.testing.assert_array_equal(before[0].outline, after[0].outline)


def die_elsewhere(here: int, _: bool) -> None:
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_one_sentence(monkeypatch):
    """As the system does where memory runs out. In the next call others work."""
    monkeypatch.setattr(datasets.processes, "HERE", 0)
    here = os.getpid()
    jobs = [False, False, False, True, True]
    with pytest.raises(UserError, match="was killed, perhaps since memory ran out"):
        list(map_processes(partial(die_elsewhere, here), jobs, len(jobs), workers=2))
    assert len(list(map_processes(whereabouts, range(12), 12, workers=2))) == 12


def whereabouts(_: int) -> str:
    time.sleep(0.2)  # so that no process takes all
    return os.getcwd()


def test_processes_that_are_kept_follow_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.processes, "HERE", 0)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert set(map_processes(whereabouts, range(40), 40, workers=2)) == {str(tmp_path / name)}


@pytest.mark.skipif(not EUROS.is_dir(), reason="about photographs of euro coins, which are not shipped")
def test_euro_coins():
    """Radii of this photographer's coins, whole and near the middle, lie between these."""
    files = sorted(EUROS.rglob("*.jpg"))
    good = 0
    for file in files[:: len(files) // 40][:40]:
        coins = find_coins(decode(file))
        good += len(coins) == 1 and 35 < coins[0].radius < 80 and np.hypot(*np.subtract(coins[0].center, 74.5)) < 25
    assert good >= 39


# --- a file for every coin ----------------------------------------------------------------------------------------


def test_split_cuts_every_coin_into_a_file(tmp_path):
    data, out = tmp_path / "data", tmp_path / "deep" / "out"
    (data / "a").mkdir(parents=True)
    both, masks = pair("white", 1)
    Image.fromarray(both).save(data / "a" / "both.png")
    Image.fromarray(disc()).save(data / "whole.jpg")
    Image.fromarray(disc((60, 130), 40)).save(data / "aside.tiff")
    Image.fromarray(np.full((60, 60, 3), 77, np.uint8)).save(data / "none.png")
    (data / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    result = run_module("datasets", "split", data, out)
    assert result.returncode == 0, result.stderr
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {"a/both-1.png", "a/both-2.png", "whole.jpg", "aside.png", "none.png"}
    for name in ("whole.jpg", "none.png"):
        assert (out / name).read_bytes() == (data / name).read_bytes()
    for number, mask in enumerate(masks, 1):  # the very pixels, the left one first
        y, x = np.argwhere(mask).min(0) + 60
        cut = np.asarray(Image.open(out / "a" / f"both-{number}.png"))
        assert (
            (np.lib.stride_tricks.sliding_window_view(cut, (9, 9, 3))[:, :, 0] == both[y : y + 9, x : x + 9])
            .all((2, 3, 4))
            .any()
        )
    assert max(Image.open(out / "aside.png").size) < 95
    assert "4 coins" in result.stdout
    assert "no coin found, kept whole: 1" in result.stdout
    assert "'none.png'" in result.stdout
    assert "'broken.jpg': damaged image" in result.stdout
    assert "already there" in refused(run_module("datasets", "split", data, out))
    assert "no such folder" in refused(run_module("datasets", "split", tmp_path / "nowhere", tmp_path / "new"))
    assert not list(tmp_path.rglob("*.partial"))


def test_split_never_writes_two_coins_under_one_name(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    aside = Image.fromarray(disc((60, 130), 40))
    names = ["one.jpg", "one.tiff", "both-1.jpg", "both.png"]
    for name in names[:3]:
        aside.save(data / name)
    Image.fromarray(pair("white", 1)[0]).save(data / "both.png")
    done = split(data, names, tmp_path / "out")
    assert [each.coins for each in done] == [1, 1, 1, 2]
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["both-1.jpg.png", "both-1.png", "both-2.png", "one.jpg.png", "one.tiff.png"]


def test_split_keeps_sixteen_bits_and_turns_upright(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    grey = disc((60, 130), 40)[..., 0].astype(np.uint16) * 256 + 77
    Image.fromarray(grey).save(data / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(disc((60, 130), 40)).save(data / "turned.jpg", exif=exif, quality=95)
    split(data, ["deep.png", "turned.jpg"], tmp_path / "out")
    deep = np.asarray(Image.open(tmp_path / "out" / "deep.png"))
    assert deep.dtype == np.uint16
    assert {120 * 256 + 77, 235 * 256 + 77} <= set(np.unique(deep))
    turned = Image.open(tmp_path / "out" / "turned.png")
    assert turned.getexif().get(0x0112, 1) == 1
    assert max(turned.size) < 95


def test_check_draws_and_lists_coins(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rng = np.random.default_rng(6)
    for name, picture in (
        ("one.png", disc()),
        ("both.png", pair("white", 1)[0]),
        ("cut.png", disc((150, 104), 80)),
        ("bare.png", bytes_of(ground("stone", 208, 208, rng))),
    ):
        Image.fromarray(picture).save(data / name)
    result = run_module("datasets", "check", data, "--sheet", tmp_path / "sheet.png")
    assert result.returncode == 0, result.stderr
    listed = {"no coin found": "bare.png", "several coins in one picture": "both.png", "cut off": "cut.png"}
    for title, name in listed.items():
        assert f"{title}: 1\n  '{name}'\n" in result.stdout
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    green = (sheet == (0, 200, 0)).all(2)  # a frame of its own for each picture, 120 px
    shares = sorted(green[:, 120 * i : 120 * i + 120].sum() for i in range(4))
    assert shares[0] == 0  # bare
    assert shares[1] > 60
