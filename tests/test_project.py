"""The project as a whole: dependencies agree, packages import in one direction, the tree says what is true."""

import ast
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from conftest import ROOT

CONDA_NAMES = {  # the others are called the same
    "matplotlib": "matplotlib-base",
    "opencv-python-headless": "py-opencv",
    "torch": "pytorch",
}
ALLOWED = {
    "console": set(),
    "machine": {"console"},
    "datasets": {"console", "machine"},
    "runs": {"console", "machine"},
    "deepcluster": {"console", "datasets", "machine", "runs"},
    "supervised": {"console", "datasets", "machine", "runs"},
    "explain": {"console", "datasets", "deepcluster", "machine", "runs", "supervised"},
    "benchmarks": {"console", "datasets", "deepcluster", "explain", "machine", "runs", "supervised"},
}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def direct_dependencies() -> set[str]:
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    return {*project["dependencies"], *extras["cpu"], *extras["dev"]}


def test_conda_environment_lists_the_same_dependencies():
    text = (ROOT / "environment.yml").read_text()
    conda = set(re.findall(r"^  - ([a-z][^\s]*>=[\d.]+)$", text, re.M)) - {"python>=3.11"}
    wanted = set()
    for requirement in direct_dependencies():
        name, bound = requirement.split(">=")
        wanted.add(f"{CONDA_NAMES.get(name, name)}>={bound}")
    assert conda == wanted


def test_constraints_pin_every_direct_dependency_without_urls():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert {requirement.split(">=")[0] for requirement in direct_dependencies()} <= pinned
    assert "faiss-gpu" in pinned


def imported_packages(package: str) -> set[str]:
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_in_one_direction(package):
    ours = imported_packages(package) & {*ALLOWED}
    assert ours - {package} <= ALLOWED[package]


def test_every_package_is_type_checked():
    ours = {path.parent.name for path in ROOT.glob("*/*.py")} - {"scripts", "tests"}
    assert {*ALLOWED} <= ours
    assert sorted(pyproject()["tool"]["mypy"]["packages"]) == sorted(ours)


def test_the_distribution_claims_no_module(tmp_path):
    """It would overwrite others' (Hugging Face's `datasets`), and delete them when it is uninstalled."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "exp*", "results*", "*.egg-info", "build"))
    assert (checkout / "datasets" / "__init__.py").exists()
    build = "from setuptools.build_meta import build_wheel; import sys; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=checkout, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name.split("/")[0] for name in archive.namelist()} == {"deepcluster_explain-0.1.0.dist-info"}
        metadata = archive.read("deepcluster_explain-0.1.0.dist-info/METADATA").decode()
    assert {*re.findall("^Requires-Dist: ([^;\n]+)$", metadata, re.M)} == {*pyproject()["project"]["dependencies"]}


def test_the_citation_names_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search("^version: (.*)$", citation, re.M)[1] == pyproject()["project"]["version"]
    assert all(paper in citation for paper in ("1807.05520", "1610.02391", "1412.6806", "1810.03292"))


def test_every_trainer_offers_what_explain_asks_for():
    from explain.subject import TRAINERS, Trainer

    asked = {name: value for name, value in vars(Trainer).items() if inspect.isfunction(value) and name[0] != "_"}
    assert len(asked) >= 7
    for module in map(importlib.import_module, TRAINERS.values()):
        for name, wanted in asked.items():
            ours = list(inspect.signature(getattr(module, name)).parameters)
            assert ours == list(inspect.signature(wanted).parameters)[1:], (module.__name__, name)


def test_page_and_program_agree_on_the_edits():
    from runs.edits import ACTIONS, COLUMNS

    script = (ROOT / "explain" / "templates" / "edits.js").read_text()
    assert json.dumps(list(COLUMNS)) in script
    assert set(re.findall(r'"(of|new|move|wrong|note|name|merge)"', script)) == set(ACTIONS)


def test_explain_begins_without_what_takes_seconds_to_load():
    """A person waits for it at every command: torch's compiler, which tells shapes too, statistics, tables."""
    said = "import sys, explain.results; from deepcluster.backbones import pooled_shape; "
    said += "pooled_shape('alexnet_fine', 48, 192, True); pooled_shape('alexnet', 224, 224); "
    said += "print(*({'torch._dynamo', 'sympy', 'sklearn', 'scipy.stats', 'pandas'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", said], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
