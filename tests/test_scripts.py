"""The shell scripts, with a stand-in for Python so that nothing is downloaded."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

FAKE_PYTHON = """#!/bin/sh
# makes a virtual environment whose python writes down what it was asked
case "$*" in
  --version) echo Python 3.11.99; exit 0;;
  "-c "*) exit 0;;
  "-m venv "*)
    mkdir -p "$3/bin"
    printf '#!/bin/sh\\necho "$*" >> "%s/calls"\\nexit ${FAIL:-0}\\n' "$(dirname "$3")" > "$3/bin/python"
    cp "$3/bin/python" "$3/bin/pip"
    chmod +x "$3/bin/python" "$3/bin/pip";;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A fresh clone, as far as setup.sh can tell."""
    root = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    fakes = tmp_path / "bin"
    fakes.mkdir()
    (fakes / "python3.11").write_text(FAKE_PYTHON)
    (fakes / "python3.11").chmod(0o755)
    return root


def setup(clone: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{clone.parent / 'bin'}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", str(clone / "scripts" / "setup.sh")],
        env={"PATH": path, "HOME": str(clone.parent)} | variables,
        capture_output=True,
        text=True,
    )


def calls(clone: Path) -> list[str]:
    return (clone / "calls").read_text().splitlines() if (clone / "calls").exists() else []


def test_set_up_once_then_nothing(clone):
    first = setup(clone)
    assert first.returncode == 0, first.stderr
    assert "faiss-cpu" in first.stderr
    assert any("[cpu,dev]" in call for call in calls(clone))
    before = calls(clone)
    second = setup(clone)
    assert second.returncode == 0
    assert second.stderr == ""
    assert calls(clone) == before  # no network was asked for


def test_interrupted_set_up_heals(clone):
    failed = setup(clone, FAIL="1")
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


def test_gpu_gets_its_faiss(clone):
    smi = clone.parent / "bin" / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: a card'\n")
    smi.chmod(0o755)
    setup(clone)
    assert any("[gpu,dev]" in call for call in calls(clone))


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
    script = ["bash", str(clone / "scripts" / "run_deepcluster.sh"), *arguments]
    environment = {"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "HOME": str(clone.parent)}
    result = subprocess.run(script, cwd=clone, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert calls(clone)[-2] == f"-m deepcluster {expected}"
    explained = ["-m explain --run", expected.split("--exp ")[1].split()[0]]
    explained += ["--results theirs"] if "--results" in arguments else []
    explained += ["--device cpu"] if "--device=cpu" in arguments else []
    assert calls(clone)[-1] == " ".join(explained)


def test_an_interrupted_training_is_not_explained(clone):
    setup(clone)
    script = ["bash", str(clone / "scripts" / "run_deepcluster.sh")]
    environment = {"PATH": f"{clone.parent / 'bin'}:/usr/bin:/bin", "HOME": str(clone.parent), "FAIL": "130"}
    assert subprocess.run(script, cwd=clone, env=environment, capture_output=True).returncode == 130
    assert not any("explain" in call for call in calls(clone))
