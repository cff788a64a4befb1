"""`python -m explain export`: each photograph in its cluster's folder, nothing of a stranger's touched."""

import argparse
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call_main, refused, run_module

import runs
from console import UserError
from datasets import decoded_side, open_dataset
from deepcluster.config import STABLE, Config
from deepcluster.launch import describe_run
from explain import export
from explain.__main__ import main
from explain.own import keep_columns
from machine.files import read_csv

OPTIONS = {"epoch": "latest", "data": None, "assignments": None, "edits": None, "clusters": None, "selection": None}
OPTIONS |= {"link": False, "workers": 1, "mnist_dir": None}


@pytest.fixture
def run(coins, tmp_path):
    """48 photographs in four clusters, by their number; epoch 3 has weights of no network, since none is needed."""
    dataset = open_dataset(str(coins), decoded_side(64))
    meta = describe_run(
        Config(**STABLE | {"size": 64, "k": 4, "decode_at_most": decoded_side(64)}), dataset, None, torch.device("cpu")
    )
    made = runs.begin(tmp_path / "exp", meta, dataset.ids, dataset.labels, dataset.skipped)
    made.write_clusters(3, runs.Clusters(np.arange(48) % 4, np.linspace(1, 0, 48)))
    made.write_checkpoint(3, {"epoch": 3, "model": {}, "state": {}})
    return made


def exported(run, out: Path, **options: object) -> Path:
    export.export_command(argparse.Namespace(run=run.path, out=out, **(OPTIONS | options)))
    return out


def files(out: Path) -> dict[str, bytes]:
    """All but the PDFs' bytes, which tell when they were made."""
    found = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {name: b"%PDF" if name.endswith(".pdf") else path.read_bytes() for name, path in found.items()}


def test_a_broken_link_or_a_file_in_a_folders_place_is_one_sentence(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    out = exported(run, tmp_path / "out")
    shutil.rmtree(out / "cluster-0")
    (out / "cluster-0").write_text("mine")
    for place in (tmp_path / "broken", out):
        code, _, error = call_main(main, "explain", monkeypatch, capsys, "export", "--run", run.path, "--out", place)
        assert (code, "is in the way" in error) == (2, True)
    assert (out / "cluster-0").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_each_photograph_lies_in_its_clusters_folder(run, coins, tmp_path):
    out = tmp_path / "out"
    result = run_module("explain", "export", "--run", run.path, "--out", out)
    assert result.returncode == 0, result.stderr
    assert "48 photographs of 4 clusters" in result.stdout
    rows = read_csv(out / "export.csv")
    assert len(rows) == 48
    for row in rows:
        assert row["cluster"] == str(run.ids.index(row["image"]) % 4)
        assert row["file"].startswith(f"cluster-{row['cluster']}/")
        assert (out / row["file"]).read_bytes() == (coins / row["image"]).read_bytes()
    nearest = [row["image"] for row in rows if row["rank"] == "1"]
    assert nearest == [run.ids[i] for i in (44, 45, 46, 47)]  # distances fall
    for number in range(4):
        sheet = (out / f"cluster-{number}.pdf").read_bytes()
        assert sheet.startswith(b"%PDF")
        assert len(re.findall(rb"/DCTDecode", sheet)) == 1  # 12 photographs


def test_more_photographs_than_a_page_holds_are_on_more_pages(run, tmp_path):
    run.write_clusters(3, runs.Clusters(np.zeros(48, np.int64), np.ones(48)))
    sheet = (exported(run, tmp_path / "out") / "cluster-0.pdf").read_bytes()
    assert len(re.findall(rb"/DCTDecode", sheet)) == 2


def test_the_experts_edits_name_and_fill_the_folders(run, tmp_path):
    edits = tmp_path / "edits.csv"
    lines = ['3,,1,name,"=lion / ../old",', f"3,{run.ids[0]},0,move,1,", f"3,{run.ids[4]},0,wrong,,worn"]
    edits.write_text("epoch,image,cluster,action,value,note\n" + "\n".join(lines) + "\n")
    out = exported(run, tmp_path / "out", edits=edits)
    rows = {row["image"]: row for row in read_csv(out / "export.csv")}
    assert run.ids[4] not in rows
    assert len(rows) == 47
    assert rows[run.ids[0]]["file"].startswith("cluster-1-lion_.._old/")
    assert rows[run.ids[0]]["rank"] == "13"  # its distance to the new centroid is not known
    assert rows[run.ids[0]]["name"] == "'=lion / ../old"  # computed by no spreadsheet
    assert (out / "cluster-1-lion_.._old.pdf").exists()
    with pytest.raises(UserError, match="not of --epoch 2"):
        exported(run, tmp_path / "other", edits=edits, epoch="2")


def test_a_run_that_began_with_the_experts_clusters_keeps_their_names(run, tmp_path):
    run.write_table("start.csv", [{"cluster": 2, "name": "'=owl", "was": 7, "images": 12}])
    out = exported(run, tmp_path / "out")
    rows = {row["image"]: row for row in read_csv(out / "export.csv")}
    assert rows[run.ids[2]]["file"].startswith("cluster-2-owl/")
    assert rows[run.ids[1]]["file"].startswith("cluster-1/")


def test_a_cluster_that_the_expert_made_has_a_folder_that_sorts_with_the_others(run, tmp_path):
    run.write_clusters(3, runs.Clusters(np.arange(48) % 10, np.linspace(1, 0, 48)))
    edits = tmp_path / "edits.csv"
    edits.write_text(f"epoch,image,cluster,action,value,note\n3,,10,new,7,\n3,{run.ids[7]},7,move,10,\n")
    rows = {row["image"]: row for row in read_csv(exported(run, tmp_path / "out", edits=edits) / "export.csv")}
    assert rows[run.ids[7]]["file"].startswith("cluster-10/")
    assert rows[run.ids[17]]["file"].startswith("cluster-07/")


def test_own_columns_stand_in_the_table_and_below_the_photographs(run, tmp_path):
    drawn = []
    plate = export.write_plate
    columns = {"mint": ["=lion", "Roma <b>", *[""] * 46], "weight": np.array([3.25, *[np.nan] * 47])}
    keep_columns(run, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "write_plate", lambda path, one: (drawn.append(one), plate(path, one)))
        out = exported(run, tmp_path / "out")
    rows = {row["image"]: row for row in read_csv(out / "export.csv")}
    assert [rows[run.ids[i]]["own.mint"] for i in (0, 1, 2)] == ["'=lion", "Roma <b>", ""]
    assert [rows[run.ids[i]]["own.weight"] for i in (0, 1)] == ["3.25", ""]
    known = {name: text for one in drawn for name, text in zip(one.names, one.known, strict=True) if text}
    assert known == {run.ids[0]: "mint =lion · weight 3.25", run.ids[1]: "mint Roma <b>"}
    assert [one.rows for one in drawn] == [5, 5, 6, 6]
    keep_columns(run, columns | {"find": ["hoard"] * 48})
    with pytest.raises(UserError, match="other images, clusters, names or columns"):
        exported(run, out)


def test_clusters_and_a_selection_are_all_there_is(run, coins, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{run.ids[i]}\n" for i in (0, 1, 5, 8)))
    out = exported(run, tmp_path / "out", clusters=(1,), selection=listed, link=True)
    rows = read_csv(out / "export.csv")
    assert [row["image"] for row in rows] == [run.ids[5], run.ids[1]]
    assert all((out / row["file"]).readlink() == (coins / row["image"]).resolve() for row in rows)
    listed.write_text("image,note\nnobody.jpg,\n")
    with pytest.raises(UserError, match=r"'nobody\.jpg' is not an image of"):
        exported(run, tmp_path / "third", selection=listed)
    with pytest.raises(UserError, match="no image in such a cluster"):
        exported(run, tmp_path / "third", clusters=(9,))
    assert not (tmp_path / "third").exists()


def test_a_killed_export_continues_to_the_same_folder(run, tmp_path, monkeypatch):
    whole = files(exported(run, tmp_path / "whole"))
    out, write, written = tmp_path / "out", export.write_atomic, []

    def killed(path, content, durable=True):
        if len(written) == 20:
            raise KeyboardInterrupt
        written.append(path)
        write(path, content, durable)

    monkeypatch.setattr(export, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        exported(run, out)
    assert len(list(out.rglob("*.jpg"))) == 20
    monkeypatch.setattr(export, "write_atomic", write)
    written[0].write_bytes(b"half")  # as a disk leaves it that lost its power
    before = written[1].stat().st_mtime_ns
    assert files(exported(run, out)) == whole
    assert written[1].stat().st_mtime_ns == before
    (out / "cluster-0.pdf").unlink()
    assert files(exported(run, out)) == whole


def test_a_strangers_folder_and_another_export_stay_as_they_are(run, coins, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear colleague")
    result = run_module("explain", "export", "--run", run.path, "--out", mine)
    assert "holds other files (letter.txt)" in refused(result)
    assert files(mine) == {"letter.txt": b"dear colleague"}
    assert "among the photographs" in refused(
        run_module("explain", "export", "--run", run.path, "--out", coins / "out")
    )
    out = exported(run, tmp_path / "out", clusters=(1,))
    before = files(out)
    for other in ({"clusters": (2,)}, {"clusters": (1,), "link": True}):
        with pytest.raises(UserError, match="holds an export"):
            exported(run, out, **other)
    assert files(out) == before
    (out / "cluster-2").symlink_to(mine)
    with pytest.raises(UserError, match="a link to another folder"):
        exported(run, out, clusters=(1,))


def test_a_photograph_that_cannot_be_read_is_listed_and_passed_over(run, tmp_path, monkeypatch, capsys):
    opened = export.open_regular

    def refuse(path):
        if path.name == "05.jpg":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(export, "open_regular", refuse)
    out = exported(run, tmp_path / "out")
    [skipped] = read_csv(out / "skipped.csv")
    assert skipped["image"].endswith("/05.jpg")
    assert skipped["reason"] == "Permission denied"
    assert len(read_csv(out / "export.csv")) == 47
    assert "1 could not be read" in capsys.readouterr().out
