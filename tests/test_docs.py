"""What the documents say is so: the code of docs/python.md runs, links lead somewhere, files that are named exist."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_the_code_for_notebooks_runs_in_order(coins, tmp_path):
    shutil.copytree(coins, tmp_path / "coins")
    code = blocks((ROOT / "docs" / "python.md").read_text(), "python")
    assert len(code) >= 5
    (tmp_path / "session.py").write_text("\n\n".join(code))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "session.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith(("http", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = path if not name else (path.parent / name)
        assert file.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            known = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in known, target


def test_the_readme_can_be_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path):
    """`package/module.py` and the like, as they stand in backticks."""
    for name in re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|html|js|sh|md|toml|ipynb))`", path.read_text()):
        if (ROOT / name.split("/")[0]).is_dir() and not name.startswith(("exp", "results")):
            assert (ROOT / name).exists(), name
