"""The notebook, really executed: a session that dies while it trains, and the next one that goes on."""

import ast
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT, photograph
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import runs
from machine.files import read_csv

NOTEBOOK = ROOT / "scripts" / "deepcluster_colab.ipynb"


def session(folder: Path, local: Path, **changed: object) -> str:
    """Execute the notebook in `folder` (which stands for Drive) with other parameters; what it said."""
    notebook = nbformat.read(NOTEBOOK, 4)
    at = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in changed.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(lines))
    with pytest.MonkeyPatch.context() as runtime:
        runtime.setenv("TMPDIR", str(local))
        runtime.setenv("PYTHONPATH", str(ROOT))
        runtime.delenv("DEEPCLUSTER_CACHE")  # the notebook's own, on the runtime's disk
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    )


def kill_training(exp: Path, killed: list[int]) -> None:
    """Wait until an epoch is finished and saved, then kill the process that trains into `exp`."""
    while not killed:
        time.sleep(0.1)
        if not ((exp / "latest.pt").exists() and (exp / "log.csv").exists() and read_csv(exp / "log.csv")):
            continue
        for process in Path("/proc").iterdir():
            try:
                words = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
            except OSError:
                continue
            if b"deepcluster" in words and b"train" in words and str(exp).encode() in words:
                os.kill(int(process.name), signal.SIGKILL)
                killed.append(int(process.name))


def test_a_session_dies_and_the_next_one_goes_on(tmp_path):
    drive, local = tmp_path / "drive", tmp_path / "local"
    for i in range(60):
        photograph(tmp_path / "coins" / f"{i:02d}.jpg", i, hue=i % 3)
    drive.mkdir()
    local.mkdir()
    shutil.make_archive(str(drive / "coins"), "zip", tmp_path / "coins")
    settings = {"DATA": "coins.zip", "NAME": "small", "CLUSTERS": 3, "EPOCHS": 20, "SIZE": 64, "FOLDER": "kept"}
    exp = drive / "kept" / "exp-small"

    killed: list[int] = []
    watcher = threading.Thread(target=kill_training, args=(exp, killed), daemon=True)
    watcher.start()
    with pytest.raises(CellExecutionError, match="did not finish"):
        session(drive, local, **settings)
    watcher.join(5)
    assert killed
    reached = read_csv(exp / "log.csv")
    assert 1 <= len(reached) < 20
    saved = runs.open_run(exp).latest()["epoch"]

    shutil.rmtree(local)  # the runtime is gone, and with it all that was not in Drive
    local.mkdir()
    said = session(drive, local, **settings)
    log = read_csv(exp / "log.csv")
    assert len(log) == 20
    known, then = ([{k: v for k, v in row.items() if v} for row in rows[:saved]] for rows in (log, reached))
    assert known == then  # seconds and all: continued, not begun again
    assert "20 of 20 finished" in said
    assert "epoch 20: 60 images in" in said
    kept = drive / "kept" / "results-small.zip"
    shutil.unpack_archive(kept, tmp_path / "unpacked")
    assert len(read_csv(tmp_path / "unpacked" / "20" / "explanations.csv")) == 60
    assert (tmp_path / "unpacked" / "index.html").exists()

    shutil.rmtree(local)
    local.mkdir()
    assert session(drive, local, **settings | {"COPY_PICTURES": True})  # finished: looks, unpacks, copies
    assert read_csv(exp / "log.csv") == log
    copied = {
        path.relative_to(drive / "kept" / "results-small") for path in (drive / "kept" / "results-small").rglob("*.png")
    }
    assert copied == {path.relative_to(tmp_path / "unpacked") for path in (tmp_path / "unpacked").rglob("*.png")}


@pytest.mark.parametrize(
    ("gpu", "fails", "asked"),
    [
        (False, "", "install faiss-cpu"),
        (True, "", "install faiss-gpu, starts"),
        (True, "starts", "install faiss-gpu, starts, uninstall faiss-gpu, install faiss-cpu"),
        (True, "install faiss-gpu", "install faiss-gpu, uninstall faiss-gpu, install faiss-cpu"),
    ],
)
def test_a_gpu_runtime_gets_faiss_for_it_where_that_works(gpu, fails, asked):
    source = nbformat.read(NOTEBOOK, 4).cells[2].source
    (function,) = (node for node in ast.parse(source).body if getattr(node, "name", "") == "install_faiss")
    done: list[str] = []

    def call(command, **_):
        words = [
            word.split(">=")[0] for word in command if word in ("install", "uninstall") or word.startswith("faiss-")
        ]
        done.append(" ".join(words) or "starts")
        return int(done[-1] == fails)

    process = SimpleNamespace(call=call, DEVNULL=None)
    disk = SimpleNamespace(which=lambda name: name if gpu else None)
    names = {"sys": sys, "subprocess": process, "shutil": disk, "run": lambda *words: call(words)}
    exec(ast.unparse(function) + "\ninstall_faiss()", names)
    assert ", ".join(done) == asked


def test_the_notebook_is_committed_without_output_and_names_no_place_of_ours():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert "@param" in notebook.cells[1].source
