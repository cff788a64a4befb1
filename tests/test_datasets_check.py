import numpy as np
import pytest
from conftest import call_main, photograph, refused, run_module
from PIL import Image, ImageFilter

from datasets import Dataset, Pixels, check, open_dataset
from datasets.__main__ import main
from machine.files import read_csv


def test_check_counts_and_names(tmp_path):
    root = tmp_path / "set"
    for i in range(20):
        photograph(root / f"{i:02d}.jpg", i, side=300, hue=i)
    original = Image.open(root / "03.jpg")
    original.save(root / "copy-of-03.png")
    original.filter(ImageFilter.GaussianBlur(8)).save(root / "out-of-focus.jpg")
    Image.fromarray((np.asarray(original) * 0.15).astype(np.uint8)).save(root / "at-night.jpg")
    (root / "letter.doc").write_text("dear colleague")
    result = run_module("datasets", "check", root, "--sheet", tmp_path / "sheet.jpg")
    assert result.returncode == 0, result.stderr
    assert "23 usable images, 1 files passed over" in result.stdout
    assert "'letter.doc': not an image" in result.stdout
    blurred = result.stdout.split("blurred: ")[1].split("dark: ")
    assert "out-of-focus" in blurred[0]
    assert "at-night" in blurred[1]
    assert "'03.jpg', 'copy-of-03.png'" in result.stdout
    sheet = Image.open(tmp_path / "sheet.jpg")
    assert sheet.width == 1440
    assert np.asarray(sheet).std() > 20
    table = {row["image"]: row for row in read_csv(tmp_path / "sheet.csv")}
    assert "blurred" in table["out-of-focus.jpg"]["flags"]
    assert float(table["out-of-focus.jpg"]["sharpness"]) < 0.6
    assert (table["03.jpg"]["width"], table["03.jpg"]["coins"]) == ("300", "1")
    assert table["letter.doc"]["flags"] == "passed over: not an image"
    assert len(table) == 24
    listed = tmp_path / "exclude.csv"
    result = run_module("datasets", "check", root, "--sheet", tmp_path / "sheet.jpg", "--exclude-out", listed)
    assert result.returncode == 0, result.stderr
    reasons = {row["image"]: row["reason"] for row in read_csv(listed)}
    assert reasons["letter.doc"] == "broken: not an image"
    assert reasons["out-of-focus.jpg"] == "blurred"
    assert "dark" in reasons["at-night.jpg"]
    assert reasons["copy-of-03.png"] == "duplicate of 03.jpg"
    assert "03.jpg" not in reasons
    inside = run_module("datasets", "check", root, "--sheet", tmp_path / "sheet.jpg", "--exclude-out", root / "e.csv")
    assert "--exclude-out" in refused(inside)
    both = run_module("datasets", "check", root, "--sheet", tmp_path / "both", "--exclude-out", tmp_path / "both")
    assert "is the --sheet, too" in refused(both)


def test_prepare_fills_the_cache_that_training_reads(coins, cache):
    before = set((cache / "pixels").iterdir()) if (cache / "pixels").exists() else set()
    result = run_module("datasets", "prepare", coins, "--size", "70")
    assert result.returncode == 0, result.stderr
    assert "48 images ready" in result.stdout
    assert "unrolled" in result.stdout
    made = set((cache / "pixels").iterdir()) - before
    assert len(made) == 2  # the photographs and their view
    trained = run_module(
        "deepcluster", "train", coins, "--size", "70", "--k", "4", "--epochs", "1", "--exp", cache / "e"
    )
    assert trained.returncode == 0, trained.stderr
    assert set((cache / "pixels").iterdir()) - before == made


@pytest.mark.parametrize("view", [[], ["--view", "photograph"]], ids=" ".join)
def test_prepare_makes_what_a_training_takes_where_no_size_is_said(view, coins, tmp_path):
    cache = tmp_path / "cache"
    assert run_module("datasets", "prepare", coins, *view, DEEPCLUSTER_CACHE=str(cache)).returncode == 0
    made = {path.name for path in (cache / "pixels").iterdir()}
    words = ["deepcluster", "train", coins, *view, "--dry-run", "--exp", tmp_path / "exp"]
    would = run_module(*words, DEEPCLUSTER_CACHE=str(cache))
    assert would.returncode == 0, would.stderr
    assert {path.name for path in (cache / "pixels").iterdir()} == made


def test_paint_and_its_refusals(tmp_path):
    assert run_module("datasets", "paint", tmp_path / "new", "--count", "14", "--seed", "2").returncode == 0
    assert len(list((tmp_path / "new" / "images").rglob("*.jpg"))) == 14
    assert "already there" in refused(run_module("datasets", "paint", tmp_path / "new"))
    assert "at least 14" in refused(run_module("datasets", "paint", tmp_path / "b", "--count", "3"))
    assert "name a command" in refused(run_module("datasets"))


def test_wrong_numbers_are_one_sentence(tmp_path):
    for arguments in (["check", tmp_path, "--workers", "-1"], ["prepare", tmp_path, "--size", "0"]):
        assert "from 1" in refused(run_module("datasets", *arguments))


def test_a_sheet_beside_ones_own_table_is_refused_before_any_work(tmp_path, coins, monkeypatch, capsys):
    mine = tmp_path / "catalogue.csv"
    mine.write_text("image,find\n1.jpg,Trier\n")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "linked.csv").symlink_to(tmp_path / "nowhere")
    for sheet, says in (("catalogue.jpg", "is there already"), ("linked.jpg", "already"), ("folder.jpg", "a folder")):
        words = ("check", coins, "--sheet", tmp_path / sheet)
        code, said, error = call_main(main, "datasets", monkeypatch, capsys, *words)
        assert (code, said, says in error) == (2, "", True)
    assert "is a folder" in call_main(main, "datasets", monkeypatch, capsys, "check", coins, "--sheet", "")[2]
    words = ("check", coins, "--sheet", tmp_path / "s.jpg", "--exclude-out", tmp_path)
    assert "is a folder" in call_main(main, "datasets", monkeypatch, capsys, *words)[2]
    assert mine.read_text() == "image,find\n1.jpg,Trier\n"


def test_a_table_of_ours_is_known_again(tmp_path):
    dataset = a_dataset(pictures_of_noise(4, 40))
    check.write_table(tmp_path / "sheet.csv", dataset, check.examine(dataset), None)
    assert check.is_table(tmp_path / "sheet.csv")
    assert check.is_table(tmp_path / "none.csv")


def a_dataset(pictures) -> Dataset:
    names = [f"{i}.png" for i in range(len(pictures))]
    return Dataset("x", "x", "k", "p", names, None, [], Pixels.of(pictures))


def pictures_of_noise(count: int, side: int = 256) -> list[np.ndarray]:
    """Each a design of its own, of the same sharpness and brightness."""
    rng = np.random.default_rng(2)
    coarse = [rng.integers(60, 180, (48, 48)).astype(np.uint8) for _ in range(count)]
    large = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in coarse]
    return [np.clip(one[:, :, None] + rng.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8) for one in large]


def test_what_is_unlike_the_set_is_said_though_no_threshold_is_passed():
    pictures = pictures_of_noise(12)
    assert check.examine(a_dataset(pictures), pairs=True).flags() == {}
    soft = np.asarray(Image.fromarray(pictures[0]).filter(ImageFilter.GaussianBlur(3)))
    dim, burnt = (pictures[1] * 0.6).astype(np.uint8), np.minimum(pictures[2].astype(int) + 100, 255).astype(np.uint8)
    again = np.clip(pictures[3][::2, ::2].repeat(2, 0).repeat(2, 1) * 0.9 + 9, 0, 255).astype(np.uint8)
    report = check.examine(a_dataset([*pictures, soft, dim, burnt, again]), pairs=True)
    assert report.blurred == ["12.png"]
    assert report.dark == ["13.png"]
    assert report.burnt == ["14.png"]
    assert ("3.png", "15.png") in [pair[:2] for pair in report.near]
    assert dict(report.flags())["15.png"] == ["nearly the same as 3.png"]


def test_pairs_are_the_same_whatever_the_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20, 8)).astype(np.float32)
    vectors[17], vectors[9] = vectors[3], vectors[4] + 0.01
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = check._alike(vectors)
    assert {pair[:2] for pair in whole} >= {(3, 17), (4, 9)}
    assert all(a < b for a, b, _ in whole)
    monkeypatch.setattr(check, "BLOCK", 6)
    assert [pair[:2] for pair in check._alike(vectors)] == [pair[:2] for pair in whole]


def test_sizes_far_from_the_usual_are_odd():
    sizes = np.array([[300, 200], [200, 310], [220, 210], [90, 100], [900, 800], [0, 0]])
    assert check.odd_sizes(sizes).tolist() == [False, False, False, True, True, False]


def test_the_sheet_begins_with_the_least_sharp_and_the_darkest_in_frames(tmp_path):
    pictures = [picture[:64, :64] for picture in pictures_of_noise(40)]
    dataset = a_dataset([np.ascontiguousarray(picture) for picture in pictures])
    report = check.examine(dataset)
    check.contact_sheet(dataset, tmp_path / "plain.png", rows=2)
    check.contact_sheet(dataset, tmp_path / "framed.png", report=report, rows=2)
    plain, framed = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("plain.png", "framed.png"))
    for colour in check.FRAMES.values():
        assert not (plain == colour).all(2).any()
        assert (framed[24:150, :1200] == colour).all(2).any()  # ten pictures of the first row
        assert not (framed[160:] == colour).all(2).any()


def test_the_blurred_and_dark_of_painted_coins_are_found_by_the_painters_truth():
    """Grain, wear, grounds, lamps and sizes are of all kinds; for some the camera was out of focus, or the lamp dim."""
    dataset = open_dataset("painted:120", check.SIDE)
    report = check.examine(dataset, check.coins_of(dataset, 1))
    for flag, found in (("blurred", report.blurred), ("dark", report.dark)):
        true = {name for i, name in enumerate(dataset.ids) if dataset.truth(i)["quality"] == flag}
        assert len(true) >= 8
        assert len(true & set(found)) >= 0.8 * len(true)
        assert len(set(found) - true) <= 2
