import numpy as np
from conftest import photograph, refused, run_module
from PIL import Image, ImageFilter

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


def test_paint_and_its_refusals(tmp_path):
    assert run_module("datasets", "paint", tmp_path / "new", "--count", "14", "--seed", "2").returncode == 0
    assert len(list((tmp_path / "new" / "images").rglob("*.jpg"))) == 14
    assert "already there" in refused(run_module("datasets", "paint", tmp_path / "new"))
    assert "at least 14" in refused(run_module("datasets", "paint", tmp_path / "b", "--count", "3"))
    assert "required" in refused(run_module("datasets"))


def test_wrong_numbers_are_one_sentence(tmp_path):
    for arguments in (["check", tmp_path, "--workers", "-1"], ["prepare", tmp_path, "--size", "0"]):
        assert "from 1" in refused(run_module("datasets", *arguments))
