"""The notebook, really executed: a session that dies while it trains, the next one that goes on, and an expert's edits.

Colab is played by a folder for /content, and by stand-ins for what Colab alone has: its upload button, Drive, pip.
"""

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import ROOT, photograph
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import runs
from explain.__main__ import build_parser as explain_parser
from machine.files import read_csv
from runs.__main__ import build_parser as runs_parser
from supervised.__main__ import build_parser as supervised_parser

NOTEBOOK = ROOT / "scripts" / "deepcluster_colab.ipynb"
DIGITS = ROOT / "scripts" / "digits_colab.ipynb"
COLAB = {
    "google/__init__.py": "",
    "google/colab/__init__.py": "",
    "google/colab/drive.py": "def mount(where): pass",
    "google/colab/files.py": "import os, pathlib\n"
    "def upload():\n"
    "    path = pathlib.Path(os.environ['UPLOADED'])\n"
    "    return {path.name: path.read_bytes()}\n"
    "def download(path): print('download', path)",
    "google/colab/output.py": "import re\nimport urllib.request\n"
    "def serve_kernel_port_as_iframe(port, path, height):\n"
    "    import time\n"
    "    for _ in range(100):\n"
    "        try:\n"
    "            page = urllib.request.urlopen(f'http://127.0.0.1:{port}{path}').read()\n"
    "            break\n"
    "        except OSError: time.sleep(.1)\n"
    "    print('served', len(page) > 1000, *sorted(set(re.findall('exp-[a-z]+', page.decode()))))",
    "ipywidgets.py": "class Button:\n"
    "    def __init__(self, description, layout): print('button:', description)\n"
    "    def on_click(self, act): act(None)",
    "pip/__init__.py": "",
    "pip/__main__.py": "import sys; print('pip', *sys.argv[1:])",
}


def session(folder: Path, local: Path, colab: Path | None = None, **changed: object) -> str:
    """Execute the notebook with other parameters; what it said.

    Args:
        folder: stands for Drive; outside Colab the notebook's own.
        local: the runtime's disk.
        colab: of the stand-ins, in Colab.
        changed: parameters.
    """
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('"/content/drive"', repr(str(folder))).replace("/content", str(local))
    at = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in changed.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(lines))
    with pytest.MonkeyPatch.context() as runtime:
        runtime.setenv("TMPDIR", str(local))
        runtime.setenv("PYTHONPATH", str(ROOT if colab is None else colab))
        runtime.delenv("DEEPCLUSTER_CACHE")  # the notebook's own, on the runtime's disk
        where = {"metadata": {"path": folder if colab is None else local}}
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
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


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The zip that the script makes."""
    out = tmp_path_factory.mktemp("zip") / "program.zip"
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "make_colab_zip.sh", out], capture_output=True, text=True, check=True
    )
    assert str(out) in done.stdout
    return out


def test_a_session_dies_the_next_one_goes_on_and_edits_are_replayed(tmp_path, program, monkeypatch):
    drive, local, colab = tmp_path / "drive", tmp_path / "local", tmp_path / "colab"
    for i in range(30):
        photograph(tmp_path / "coins" / f"{i:02d}.jpg", i, hue=i % 3)
    drive.mkdir()
    local.mkdir()
    for name, text in COLAB.items():
        (colab / name).parent.mkdir(parents=True, exist_ok=True)
        (colab / name).write_text(text)
    shutil.make_archive(str(drive / "coins"), "zip", tmp_path / "coins")
    settings = {"DATA": "coins.zip", "NAME": "small", "CLUSTERS": "3", "EPOCHS": 8, "SIZE": 64, "FOLDER": "kept"}
    settings |= {"VIEW": "photograph", "LIMIT": 24, "MINUTES": 0.01}
    exp, kept = drive / "kept" / "exp-small", drive / "kept" / "results-small.zip"

    killed: list[int] = []
    watcher = threading.Thread(target=kill_training, args=(exp, killed), daemon=True)
    watcher.start()
    monkeypatch.setenv("UPLOADED", str(program))  # the program is not in Drive: its cell asks for it
    with pytest.raises(CellExecutionError) as stopped:
        session(drive, local, colab, **settings)
    watcher.join(5)
    assert killed
    shown = stopped.value.traceback.split("------------------\n")[-1].strip().splitlines()
    assert len(shown) == 1, shown  # one sentence and no traceback
    assert "did not finish" in shown[0]
    reached = read_csv(exp / "log.csv")
    assert 1 <= len(reached) < 8
    saved = runs.open_run(exp).latest()["epoch"]

    shutil.rmtree(local)  # the runtime is gone, and with it all that was not in Drive
    local.mkdir()
    shutil.copy(program, drive)
    said = session(drive, local, colab, PROJECT=program.name, **settings)
    log = read_csv(exp / "log.csv")
    assert len(log) == 8
    known, then = ([{k: v for k, v in row.items() if v} for row in rows[:saved]] for rows in (log, reached))
    assert known == then  # seconds and all: continued, not begun again
    assert "8 of 8 finished" in said
    assert "epoch 8: 24 images in" in said
    assert "served True exp-small\n" in said
    assert f"button: Download {kept.name}" in said
    assert f"download {exp / 'clusters.csv'}" in said
    assert "GPU" in said
    assert "\x1b[A" not in said
    assert not list(kept.parent.glob("*.part-*"))
    shutil.unpack_archive(kept, tmp_path / "unpacked")
    assert len(read_csv(tmp_path / "unpacked" / "8" / "explanations.csv")) == 24
    assert (tmp_path / "unpacked" / "index.html").exists()

    other = settings | {
        "NAME": "other",
        "EPOCHS": 1,
        "CLUSTERS": "2",
    }  # on the same runtime: a run and a gallery of its own
    assert "served True exp-other\n" in session(drive, local, colab, PROJECT=program.name, **other)
    assert len(read_csv(drive / "kept" / "exp-other" / "log.csv")) == 1
    assert read_csv(exp / "log.csv") == log
    assert kept.exists()

    shutil.rmtree(local)  # outside Colab: finished, so it looks, unpacks, copies, and takes the expert's edits
    local.mkdir()
    moved = read_csv(exp / "clusters.csv")[0]
    edit = f"8,{moved['image']},{moved['cluster']},wrong,,a cast"
    (drive / "edits.csv").write_text(f"epoch,image,cluster,action,value,note\n{edit}\n")
    said = session(drive, local, **settings | {"COPY_PICTURES": True, "EDITS": "edits.csv"})
    assert read_csv(exp / "log.csv") == log
    copied = {
        path.relative_to(drive / "kept" / "results-small") for path in (drive / "kept" / "results-small").rglob("*.png")
    }
    assert copied == {path.relative_to(tmp_path / "unpacked") for path in (tmp_path / "unpacked").rglob("*.png")}
    shutil.unpack_archive(drive / "kept" / "results-small-edited.zip", tmp_path / "edited")
    explained = {row["image"] for row in read_csv(tmp_path / "edited" / "8" / "explanations.csv")}
    assert moved["image"] not in explained
    assert len(explained) == 23


def functions_of(*names: str, **known: object) -> dict:
    """Some functions of the notebook, as Python has them, among `known` names."""
    space = dict(known)
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        for node in ast.parse(cell.source).body if cell.cell_type == "code" else []:
            if getattr(node, "name", "") in names:
                exec(ast.unparse(node), space)
    assert set(names) <= space.keys()
    return space


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
    done: list[str] = []

    def call(command, **_):
        words = [
            word.split(">=")[0] for word in command if word in ("install", "uninstall") or word.startswith("faiss-")
        ]
        done.append(" ".join(words) or "starts")
        return int(done[-1] == fails)

    process = SimpleNamespace(call=call, DEVNULL=None)
    disk = SimpleNamespace(which=lambda name: name if gpu else None)
    names = functions_of("install_faiss", sys=sys, subprocess=process, shutil=disk, run=lambda *words: call(words))
    names["install_faiss"]()
    assert ", ".join(done) == asked


def test_pictures_go_to_drive_in_pieces_from_which_they_come_back(tmp_path):
    local, base = tmp_path / "local", tmp_path / "drive"
    folder = local / "results-x"
    (folder / "8").mkdir(parents=True)
    base.mkdir()
    names = functions_of(
        "keep_pieces", "restore", zipfile=zipfile, shutil=shutil, LOCAL=local, BASE=base, MINUTES=0, carry=shutil.copy
    )
    (folder / "8" / "old.png").write_bytes(b"1")
    waits = []

    def wait(_):
        waits.append(1)
        (folder / "8" / f"new-{len(waits)}.png").write_bytes(bytes(len(waits)))
        (folder / "8" / ".half.png.7.tmp").write_bytes(b"half")
        return len(waits) == 4

    names["keep_pieces"](folder, SimpleNamespace(wait=wait))
    assert [len(zipfile.ZipFile(path).namelist()) for path in sorted(base.glob("*.part-*"))] == [1, 1, 1]
    shutil.rmtree(folder)
    assert {path.name for path in names["restore"]("results-x").rglob("*.png")} == {f"new-{i}.png" for i in (1, 2, 3)}


@pytest.mark.parametrize("project", ["", "MyDrive", "MyDrive/none.zip"])
def test_what_is_not_the_program_is_not_copied(tmp_path, project):
    (tmp_path / "MyDrive" / "holidays").mkdir(parents=True)
    asked = []

    def ask_for_file(what):
        asked.append(what)
        (tmp_path / "a.zip").write_text("no zip")
        return tmp_path / "a.zip"

    names = functions_of(
        "fetch_program", "Stop", re=re, zipfile=zipfile, DRIVE=tmp_path, HOME=tmp_path / "home", PROJECT=project,
        ask_for_file=ask_for_file,
    )  # fmt: skip
    with pytest.raises(names["Stop"], match="is no zip: make it with bash"):
        names["fetch_program"]()
    assert asked == ["deepcluster-explain.zip"]
    assert not (tmp_path / "home").exists()


def test_each_gallery_has_a_port_of_its_own():
    port = functions_of("free_port", socket=socket)["free_port"]
    with socket.socket() as one:
        one.bind(("127.0.0.1", port()))
        one.listen()
        assert port() != one.getsockname()[1]


def test_the_zip_of_the_program_holds_code_alone(program, tmp_path):
    inside = {name.partition("/")[2] for name in zipfile.ZipFile(program).namelist()}
    assert {
        "pyproject.toml",
        "explain/templates/base.html",
        "scripts/deepcluster_colab.ipynb",
        "scripts/digits_colab.ipynb",
    } <= inside
    assert not [name for name in inside if "__pycache__" in name or name.startswith((".", "tests"))]
    mine = tmp_path / "my coins.zip"
    with zipfile.ZipFile(mine, "w") as photographs:
        photographs.writestr("coin.jpg", b"pixels")
    before = mine.read_bytes()
    for name in (mine, tmp_path / "folder.zip"):
        (tmp_path / "folder.zip").mkdir(exist_ok=True)
        refusal = subprocess.run(["bash", ROOT / "scripts" / "make_colab_zip.sh", name], capture_output=True, text=True)
        assert (refusal.returncode, "no zip of this project" in refusal.stderr) == (2, True)
    assert mine.read_bytes() == before
    again = subprocess.run(
        ["bash", ROOT / "scripts" / "make_colab_zip.sh", "nowhere/x.zip"], capture_output=True, text=True
    )
    assert (again.returncode, again.stderr.count("error: ")) == (2, 1)


@pytest.mark.parametrize("path", [NOTEBOOK, DIGITS], ids=lambda path: path.stem)
def test_the_notebooks_are_committed_without_output_and_name_no_place_of_ours(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert "@param" in notebook.cells[1].source


def test_the_digits_notebook_asks_for_what_the_parsers_take(tmp_path):
    """Its cells run, with a stand-in for the commands; it was executed as it is by hand."""
    notebook = nbformat.read(DIGITS, 4)
    program = nbformat.read(NOTEBOOK, 4).cells[2].source
    assert notebook.cells[2].source == program  # what is mended in one is mended in both
    calls: list[list[str]] = []
    carried = []
    space = {"run": lambda *words: calls.append([*map(str, words)]), "IN_COLAB": False, "LOCAL": tmp_path / "local"}
    space |= {
        "BASE": tmp_path,
        "EXP": tmp_path / "exp",
        "socket": socket,
        "subprocess": subprocess,
        "os": os,
        "sys": sys,
    }
    space |= {"shutil": SimpleNamespace(make_archive=lambda *words: words[0], unpack_archive=shutil.unpack_archive)}
    shown: list[tuple] = []
    space |= {"show": lambda *words: shown.append(words)}
    page = tmp_path / "local" / "results-mnist" / "pixelflip" / "train-200" / "index.html"
    page.parent.mkdir(parents=True)
    page.touch()
    space |= {"carry": lambda source, target: carried.append((source, target))}
    for cell in notebook.cells[1:2] + notebook.cells[3:]:
        exec(cell.source.replace("def show(", "def unused("), space)
    for name, parser in (("supervised", supervised_parser), ("explain", explain_parser), ("runs", runs_parser)):
        asked = [words[1:] for words in calls if words[0] == name]
        assert asked, name
        for words in asked:
            parser().parse_args([*(["draw"] if words[0].startswith("-") else []), *words])
    asked = [" ".join(words[:2]) for words in calls]
    assert asked == ["supervised train", "runs show", "supervised report", "explain --run", "explain pixelflip"]
    assert [target.name for _, target in carried] == ["results-mnist.zip"] * 2
    assert [words[1:] for words in shown] == [("report.html",), (), ("pixelflip/train-200/index.html",)]
