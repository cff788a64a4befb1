"""The zip of results: odd names, old files, and others' zips, whole or damaged."""

import os
import zipfile

import pytest

from console import UserError
from explain.packing import check_zip, pack, zip_of


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
