"""The project as a whole: dependencies agree, packages import in one direction, the tree says what is true."""

import ast
import re
import tomllib

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


def test_every_package_is_shipped_and_checked():
    listed = pyproject()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(
        path.parent.name for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"
    )
    assert listed == pyproject()["tool"]["mypy"]["packages"]
