"""The shell scripts, with a stand-in for Python so that nothing is downloaded."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FAKE_PYTHON = """#!/bin/sh
case "$*" in
  --version) echo Python 3.11.99;;
  "-m venv "*)
    mkdir -p "$3/bin" "$3/lib/python3.11/site-packages"
    cp "$(dirname "$0")/venv-python" "$3/bin/python"
    cp "$3/bin/python" "$3/bin/pip";;
esac
"""
# writes down what it was asked; fails where that contains $FAIL; torch does not work without $NEEDS
FAKE_VENV_PYTHON = f"""#!/bin/sh
venv=$(dirname "$(dirname "$0")")
echo "$*" | head -1 >> "$venv/../calls"
case "$*" in
  *"${{FAIL:-no failure}}"*) exit 130;;
  *"--dry-run --report "*)
    echo '{{"install": [' > "$venv/.report"
    for name in torch triton nvidia-cudnn-cu13 nvidia-cusolver cuda-bindings; do
      echo '{{"metadata": {{"name": "'$name'", "version": "1"}}}},' >> "$venv/.report"
    done
    echo '{{"metadata": {{"name": "deepcluster-explain", "version": "1"}}}}]}}' >> "$venv/.report";;
  *json*) exec '{sys.executable}' "$@";;
  *Conv2d*) [ -z "${{NEEDS:-}}" ] || grep -q "$NEEDS" "$venv/.list";;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A fresh clone, as far as setup.sh can tell."""
    root = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    script(tmp_path / "bin" / "python3.11", FAKE_PYTHON)
    script(tmp_path / "bin" / "venv-python", FAKE_VENV_PYTHON)
    script(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\nexit 9\n")  # this machine's own GPU, if any, is not seen
    return root


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def with_gpu(clone: Path) -> None:
    script(clone.parent / "bin" / "nvidia-smi", "#!/bin/sh\necho 'GPU 0: a card'\n")


def setup(clone: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{clone.parent / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", str(clone / "scripts" / "setup.sh"), *arguments],
        env={"PATH": path, "HOME": str(clone.parent)} | variables,
        capture_output=True,
        text=True,
    )


def calls(clone: Path) -> list[str]:
    return (clone / "calls").read_text().splitlines() if (clone / "calls").exists() else []


def installed(clone: Path) -> list[str]:
    """What pip was told to install, last."""
    assert any("--no-deps" in call and "/.list" in call for call in calls(clone))
    return (clone / ".venv" / ".list").read_text().split()


def test_set_up_once_then_nothing(clone):
    first = setup(clone)
    assert first.returncode == 0, first.stderr
    assert "faiss-cpu" in first.stderr
    assert any("[cpu]" in call for call in calls(clone))
    before = calls(clone)
    second = setup(clone)
    assert second.returncode == 0
    assert second.stderr == ""
    assert calls(clone) == before  # no network was asked for


def test_developers_tools_are_added_to_what_is_there(clone):
    setup(clone)
    (clone / ".venv" / "kept").touch()
    added = setup(clone, "dev")
    assert added.returncode == 0, added.stderr
    assert any("[cpu,dev]" in call for call in calls(clone))
    assert (clone / ".venv" / "kept").exists()
    before = calls(clone)
    assert setup(clone, "dev").stderr == setup(clone).stderr == ""
    assert calls(clone) == before


def test_without_network_what_is_there_stays(clone):
    setup(clone)
    (clone / ".venv" / "kept").touch()
    failed = setup(clone, "dev", FAIL="--dry-run")
    assert failed.returncode == 2
    assert "Traceback" not in failed.stderr
    assert setup(clone).stderr == ""
    assert (clone / ".venv" / "kept").exists()


@pytest.mark.parametrize("step", ["pip", "--dry-run", "--no-deps", "Conv2d"])
def test_interrupted_set_up_heals(clone, step):
    failed = setup(clone, FAIL=step)
    assert failed.returncode == 2
    assert "run the same command again" in failed.stderr
    assert not (clone / ".venv" / ".stamp").exists()
    (clone / ".venv" / "half-installed").touch()
    healed = setup(clone)
    assert healed.returncode == 0
    assert "interrupted" in healed.stderr
    assert not (clone / ".venv" / "half-installed").exists()


def test_changed_constraints_are_installed(clone):
    setup(clone)
    before = len(calls(clone))
    with (clone / "constraints.txt").open("a") as file:
        file.write("new-package==1\n")
    assert setup(clone).returncode == 0
    assert len(calls(clone)) > before


def test_what_only_a_gpu_needs_is_left_out(clone):
    setup(clone)
    assert installed(clone) == ["torch==1", "nvidia-cudnn-cu13==1"]


def test_what_torch_does_need_is_added(clone):
    done = setup(clone, NEEDS="triton")
    assert done.returncode == 0
    assert "adding them" in done.stderr
    assert "triton==1" in installed(clone)


def test_gpu_gets_its_faiss_and_libraries(clone):
    setup(clone)
    with_gpu(clone)  # one that came later
    setup(clone)
    assert any("[gpu]" in call for call in calls(clone))
    assert installed(clone) == [
        "torch==1",
        "triton==1",
        "nvidia-cudnn-cu13==1",
        "nvidia-cusolver==1",
        "cuda-bindings==1",
    ]
    script(clone.parent / "bin" / "nvidia-smi", "#!/bin/sh\nexit 9\n")
    assert setup(clone).stderr == ""  # and goes again


def test_the_program_starts_from_any_folder(clone, tmp_path):
    setup(clone)
    script(clone / ".venv" / "bin" / "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    script(clone / "datasets" / "__init__.py", "import sys; print('ours', sys.argv[-1:])")
    script(clone / "datasets" / "__main__.py", "print('started')")
    script(tmp_path / "elsewhere" / "datasets" / "__init__.py", "print('not ours')")
    (tmp_path / "program").symlink_to(clone / ".venv" / "bin" / "deepcluster-explain")
    for program in (tmp_path / "program", clone / ".venv" / "bin" / "deepcluster-explain"):
        command = [program, "datasets", "a b"]
        done = subprocess.run(command, cwd=tmp_path / "elsewhere", capture_output=True, text=True)
        assert done.stdout == "ours ['a b']\nstarted\n", done.stderr
    site = clone / ".venv" / "lib" / "python3.11" / "site-packages"
    assert (site / (site / "deepcluster-explain.pth").read_text().strip()).resolve() == clone.resolve()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "train painted --exp exp"),
        (["--k", "9"], "train painted --exp exp --k 9"),
        (["mnist:test"], "train mnist:test --exp exp-mnist-test"),
        (["my coins.ZIP", "--k", "9"], "train my coins.ZIP --exp exp-my-coins --k 9"),
        (["some/folder/", "--exp", "mine"], "train some/folder/ --exp mine"),
        (["coins", "--exp=mine", "--results", "theirs"], "train coins --exp mine"),
        (["mnist", "--device=cpu", "--wd", "-5"], "train mnist --exp exp-mnist --device cpu --wd -5"),
    ],
)
def test_each_dataset_gets_a_run_of_its_own(clone, arguments, expected):
    setup(clone)
    command = ["bash", str(clone / "scripts" / "run_deepcluster.sh"), *arguments]
    environment = {"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "HOME": str(clone.parent)}
    result = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert calls(clone)[-2] == f"-P -m deepcluster {expected}"
    explained = ["-P -m explain --run", expected.split("--exp ")[1].split()[0]]
    explained += ["--results theirs"] if "--results" in arguments else []
    explained += ["--device cpu"] if "--device=cpu" in arguments else []
    assert calls(clone)[-1] == " ".join(explained)


@pytest.mark.parametrize(
    ("data", "exp"), [("my coins.ZIP", "exp-my-coins"), ("coins/", "exp-coins"), (".", "exp-clone")]
)
def test_a_run_has_its_name_where_realpath_is_that_of_macos(clone, data, exp):
    setup(clone)
    (clone / "coins").mkdir()
    script(clone.parent / "bin" / "realpath", "#!/bin/sh\necho illegal option -- m >&2\nexit 1\n")
    command = ["bash", str(clone / "scripts" / "run_deepcluster.sh"), data]
    environment = {"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "HOME": str(clone.parent)}
    result = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert calls(clone)[-2] == f"-P -m deepcluster train {data} --exp {exp}"


def test_an_interrupted_training_is_not_explained(clone):
    setup(clone)
    command = ["bash", str(clone / "scripts" / "run_deepcluster.sh")]
    environment = {
        "PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin",
        "HOME": str(clone.parent),
        "FAIL": "deepcluster train",
    }
    assert subprocess.run(command, cwd=clone, env=environment, capture_output=True).returncode == 130
    assert not any("-m explain" in call for call in calls(clone))


def test_the_callers_environment_leads_nowhere_else(clone, tmp_path):
    """CDPATH makes cd print; PYTHONPATH and PIP_TARGET would make pip take or put packages elsewhere."""
    (tmp_path / "elsewhere" / "clone" / "scripts").mkdir(parents=True)
    script(
        tmp_path / "bin" / "venv-python",
        FAKE_VENV_PYTHON.replace("venv=", 'env >> "$(dirname "$0")/../../seen"\nvenv='),
    )
    done = subprocess.run(
        ["bash", "clone/scripts/setup.sh"],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "CDPATH": f"{tmp_path / 'elsewhere'}:.",
            "PYTHONPATH": "/somewhere",
            "PIP_TARGET": str(tmp_path / "target"),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (clone / ".venv" / ".stamp").exists()
    seen = (clone / "seen").read_text()
    assert "PATH=" in seen
    assert not {"CDPATH", "PYTHONPATH", "PIP_TARGET"} & {line.split("=")[0] for line in seen.splitlines()}


def test_a_second_set_up_says_that_it_waits(clone):
    with (clone / ".setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            ["bash", str(clone / "scripts" / "setup.sh")],
            env={"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "HOME": str(clone.parent)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "Waiting for another set-up of this clone to end.\n"
    assert waiting.wait(60) == 0
    waiting.stderr.close()


def test_a_clone_that_was_moved_and_a_call_by_sh_work(clone, tmp_path):
    assert setup(clone).returncode == 0
    moved = clone.rename(tmp_path / "moved")
    done = subprocess.run(
        ["sh", str(moved / "scripts" / "setup.sh")],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (pth,) = (moved / ".venv").glob("lib/python3*/site-packages/*.pth")
    assert (pth.parent / pth.read_text().strip()).resolve() == moved


def test_help_and_version_do_nothing_else(clone):
    """Neither sets up, nor trains, nor explains what lies there; --dry-run trains and explains nothing."""
    (clone / "exp").mkdir()
    run = ["bash", str(clone / "scripts" / "run_deepcluster.sh")]
    environment = {"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "HOME": str(clone.parent)}
    for words in (["--help"], ["coins", "-h"], ["--run", "exp", "--help"], ["--version"]):
        done = subprocess.run([*run, *words], cwd=clone, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert ("deepcluster-explain " if words == ["--version"] else "[DATA]") in done.stdout
        assert calls(clone) == []
        assert not (clone / ".venv").exists()
    setup(clone)
    subprocess.run([*run, "coins", "--dry-run"], cwd=clone, env=environment, check=True)
    assert calls(clone)[-1] == "-P -m deepcluster train coins --exp exp-coins --dry-run"


def test_a_mistyped_package_is_named(clone):
    setup(clone)
    program = str(clone / ".venv" / "bin" / "deepcluster-explain")
    for words, code in ((["tarin"], 2), ([], 2), (["--help"], 0)):
        done = subprocess.run([program, *words], capture_output=True, text=True)
        assert done.returncode == code
        assert "deepcluster, explain, datasets" in done.stdout + done.stderr
