#!/usr/bin/env bash
# bash scripts/make_colab_zip.sh [FILE.zip]
# Makes deepcluster-explain.zip (or FILE.zip) of this project: what scripts/deepcluster_colab.ipynb wants uploaded, or put
# into Drive. Code alone: no .venv, no photographs, no runs. Needs no network.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # called as `sh ...`
set -euo pipefail
unset CDPATH
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in
  -h|--help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  -*) echo "error: $1: no such option: name the zip to write (bash scripts/make_colab_zip.sh --help)" >&2; exit 2 ;;
  ""|*.zip) ;;
  *) echo "error: $1: name a file that ends in .zip" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "error: '$2' is one word too many: name one zip" >&2; exit 2; }
python=$(command -v python3 || command -v python || true)
[ -n "$python" ] || { echo "error: no Python found: install Python 3" >&2; exit 2; }
exec "$python" - "$root" "${1:-deepcluster-explain.zip}" <<'END_OF_PYTHON'
import os
import subprocess
import sys
import zipfile
from pathlib import Path

root, out = Path(sys.argv[1]), Path(sys.argv[2])
PACKAGES = ("benchmarks", "console", "datasets", "deepcluster", "explain", "machine", "runs", "supervised")
KINDS = (".py", ".sh", ".ipynb", ".html", ".js", ".css", ".toml")  # of our files
ALSO = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "scripts")


def git(*words):
    """What git says of this checkout; '' without git or in a copy."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
        return done.stdout if done.returncode == 0 and (root / ".git").exists() else ""
    except OSError:
        return ""


def fail(sentence):
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)


if not out.parent.is_dir():
    fail(f"{out.parent}: no such folder: name a zip in an existing one")
if out.exists() or out.is_symlink():
    try:
        with zipfile.ZipFile(out) as there:
            ours = "deepcluster-explain/pyproject.toml" in there.namelist()
    except Exception:  # a folder, no zip, or a damaged one
        ours = False
    if not ours:
        fail(f"{out}: is there already and is no zip of this project: move it, or name another")
commit = git("rev-parse", "--short=10", "HEAD").strip()
if commit and git("status", "--porcelain", "--untracked-files=no").strip():
    commit += ", with changes"
files = [root / name for name in ALSO if (root / name).is_file()]
for folder in [*PACKAGES, *(name for name in ALSO if (root / name).is_dir())]:
    for home, folders, names in os.walk(root / folder):
        if {"run.json", "results.json"} & {*names}:  # somebody's training in runs/, say
            folders.clear()
            continue
        folders.sort()
        files += [Path(home) / name for name in sorted(names) if name.endswith(KINDS)]
scratch = out.with_name(f".{out.name}.{os.getpid()}.tmp")
try:
    with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for path in files:
            archive.write(path, f"deepcluster-explain/{path.relative_to(root).as_posix()}")
        if commit:
            archive.writestr("deepcluster-explain/COMMIT", commit + "\n")
    os.replace(scratch, out)
except OSError as error:
    fail(f"{out}: {error.strerror}: choose another place")
finally:
    scratch.unlink(missing_ok=True)
print(f"{out}: {len(files)} files, {out.stat().st_size / 1e6:.1f} MB: put it into your Drive, or upload it in the cell Program")
print("Next: open https://colab.research.google.com, choose Upload, take scripts/deepcluster_colab.ipynb")
END_OF_PYTHON
