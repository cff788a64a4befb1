"""Columns of an own table: read, matched with the images, kept in the run, refused in one sentence."""

import numpy as np
import pytest
from conftest import a_meta

import runs
from console import UserError
from explain.own import FILE, keep_columns, kept_columns, read_table, to_cells

IDS = ["a/1.jpg", "a/2.jpg", "b/3.png", "b/four.png"]


def table(tmp_path, text: str):
    path = tmp_path / "coins.csv"
    path.write_text(text)
    return path


def test_images_are_found_by_id_file_name_and_name_without_ending(tmp_path):
    text = "weight,image,mint\n3.5,a/2.jpg,Paris\n4,3.png,?\n,four,Roma\n9,5.jpg,Wien\n"
    columns, missing = read_table(table(tmp_path, text), IDS)
    np.testing.assert_array_equal(columns["weight"], [np.nan, 3.5, 4, np.nan])
    assert columns["mint"] == ["", "Paris", "", "Roma"]
    assert missing == [
        "1 rows of coins.csv name no image of the run, or not a unique one (the first: '5.jpg').",
        "1 of 4 images have no row in coins.csv (the first: a/1.jpg).",
    ]


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_spreadsheet_whose_numbers_have_commas_is_read_too(tmp_path, separator):
    text = '\ufeffimage;"weight, g";mint\n1.jpg;3,5;"Paris; west"\n2.jpg;;Roma\n'.replace(";", separator)
    columns, _ = read_table(table(tmp_path, text), IDS)
    np.testing.assert_array_equal(columns["weight, g"], [3.5, np.nan, np.nan, np.nan])
    assert columns["mint"] == [f"Paris{separator} west".replace("\t", r"\t"), "Roma", "", ""]


def test_a_spreadsheet_of_another_kind_is_told_so(tmp_path):
    utf16 = tmp_path / "utf16.csv"
    for encoding in ("utf-16", "utf-16-le"):
        utf16.write_bytes("image,mint\n1.jpg,Paris\n".encode(encoding))
        with pytest.raises(UserError, match=r"UTF-16\?\): save it as CSV \(UTF-8"):
            read_table(utf16, IDS)
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path, IDS)
    (tmp_path / "old.csv").write_bytes("image,mint\n1.jpg,Orléans\n".encode("latin-1"))
    assert read_table(tmp_path / "old.csv", IDS)[1][-1].startswith("old.csv is not UTF-8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,mint,mint\n1.jpg,Paris,Roma\n", "two columns are called 'mint'"),
        ("image,mint, mint\n1.jpg,Paris,Roma\n", "two of its columns are called 'mint'"),
        ("image,mint, image\n1.jpg,Paris,Roma\n", "two of its columns are called 'image'"),
        ('image,mint\n1.jpg,"Paris\n2.jpg,Roma\n3.jpg,Wien\n', "line 2: unexpected end of data"),
    ],
)
def test_no_cell_is_lost_silently(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read_table(table(tmp_path, text), IDS)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["007", "12", "", ""], ["007", "12", "", ""]),  # what a number would not give back
        (["12_3", "4", "", ""], ["12_3", "4", "", ""]),
        (["9007199254740993", "4", "", ""], ["9007199254740993", "4", "", ""]),
        (["0.5", "3.1415926535897931", "0", "-0,5"], ["0.5", "3.1415926535897931", "0", "-0,5"]),
        (["0.5", "3.1415926535897931", "0", ""], [0.5, np.pi, 0, np.nan]),
        (["3,5", "4", "", "-1,25"], [3.5, 4, np.nan, -1.25]),  # decimal commas
        (["1,234", "12,345", "", ""], ["1,234", "12,345", "", ""]),  # or thousands: no guess
        (["1,234", "2,5", "", ""], [1.234, 2.5, np.nan, np.nan]),
        (["1,5", "2.5", "", ""], ["1,5", "2.5", "", ""]),
        (["12", "n/a", "-", "NaN"], [12, np.nan, np.nan, np.nan]),
        (["12h", "3", "?", "6"], ["12h", "3", "", "6"]),
        (["1e999", "3", "", ""], ["1e999", "3", "", ""]),  # no finite number
        (["", "?", "-", ""], ["", "", "", ""]),
    ],
)
def test_a_column_is_numbers_where_all_its_cells_are(tmp_path, cells, values):
    rows = "\n".join(f'{name},"{cell}"' for name, cell in zip(IDS, cells, strict=True))
    [found] = read_table(table(tmp_path, f"coin,x\n{rows}\n"), IDS)[0].values()
    np.testing.assert_array_equal(found, values)


def test_what_is_kept_is_read_again_and_obeyed_by_nobody(tmp_path):
    run = runs.begin(tmp_path / "exp", a_meta(len(IDS)), IDS, None, [])
    assert kept_columns(run) == {}
    text = "photo,=1+1,weight,'=1+1\n"  # the first and the last are columns of their own
    text += 'a/1.jpg,"=cmd|x",3.25,w\na/2.jpg,"two\nlines\x1b[2J",-1,x\nb/3.png,\'quoted,1e-7,y\n'
    columns, _ = read_table(table(tmp_path, text), IDS)
    assert columns["=1+1"] == ["=cmd|x", r"two\nlines\x1b[2J", "'quoted", ""]
    keep_columns(run, columns)
    written = (run.path / FILE).read_text()
    assert "\x1b" not in written
    assert written.splitlines()[:2] == ["image,'=1+1,weight,''=1+1", "a/1.jpg,'=cmd|x,3.25,w"]
    again = kept_columns(run)
    assert again.keys() == columns.keys()
    for name, values in columns.items():
        np.testing.assert_array_equal(again[name], values)
    assert to_cells(columns["weight"]) == ["3.25", "-1", "1e-07", ""]

    keep_columns(run, {"find": ["", "", "", "x"]})  # another table takes its place
    assert [*kept_columns(run)] == ["find"]
    (run.path / FILE).write_text("image,find\nother.jpg,x\n")
    with pytest.raises(UserError, match="not of the images of this run: give --table again"):
        kept_columns(run)
