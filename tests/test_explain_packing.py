"""The zip of results: odd names, old files, and others' zips, whole or damaged."""

import os
import zipfile

import pytest

from console import UserError
from explain.packing import MARK, check_packed, check_zip, pack, pack_pictures, packed_folder, zip_of


@pytest.mark.parametrize("name", ["results", "mit Leerzeichen", "a\nb", "-x", os.fsdecode(b"r\xffes")])
def test_any_name_and_any_date_is_packed_and_known_again(tmp_path, name):
    results = tmp_path / name
    results.mkdir()
    (results / "results.json").write_text("{}")
    os.utime(results / "results.json", (0, 0))  # a zip knows no year before 1980
    for _ in range(2):
        check_zip(results)
        with zipfile.ZipFile(pack(results)) as packed:
            assert packed.testzip() is None
            assert [inside.rpartition("/")[2] for inside in packed.namelist()] == ["results.json"]


def test_a_zip_that_cannot_even_be_listed_is_left_alone(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    with zipfile.ZipFile(zip_of(results), "w") as other:
        other.writestr("photograph-é.jpg", b"pixels")
    damaged = zip_of(results).read_bytes().replace("é".encode(), b"\xff\xff")
    zip_of(results).write_bytes(damaged)
    with pytest.raises(UserError, match="holds no explanations"):
        check_zip(results)
    assert zip_of(results).read_bytes() == damaged


@pytest.mark.parametrize("mark", ["5", "null", "[]", '"run"', "{", '{"run": 5}', ""])
def test_a_folder_with_a_damaged_mark_is_left_alone(tmp_path, mark):
    folder = packed_folder(tmp_path / "results")
    folder.mkdir()
    check_packed(tmp_path / "results", "a run")
    (folder / MARK).write_text(mark)
    with pytest.raises(UserError, match="holds no packed gallery"):
        check_packed(tmp_path / "results", "a run")


def test_nothing_but_pictures_of_the_folder_is_packed(tmp_path):
    epoch = tmp_path / "results" / "2"
    (epoch / "0").mkdir(parents=True)
    (tmp_path / "secret").write_text("SECRET")
    (epoch / "0" / "coin-original.png").symlink_to(tmp_path / "secret")
    (epoch / "explanations.csv").write_text("image,cluster,original\ncoin.jpg,0,0/coin-original.png\n")
    with pytest.raises(UserError, match=r"clusters\.js is gone\): explain with --epoch 2 again"):
        pack_pictures(tmp_path / "results", "a run")
    (epoch / "clusters.js").write_text("")
    out = pack_pictures(tmp_path / "results", "a run")
    assert not [*out.rglob("_pictures-*")]
    assert not [*out.rglob("coin-original.png")]
