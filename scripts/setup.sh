#!/usr/bin/env bash
# Make .venv when it is missing, half made or out of date; do nothing, without network, when it is finished.
# Every other script calls this first. The stamp is written last, so an interrupted set-up heals on the next call.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/.stamp
want=$(cat "$root/constraints.txt" "$root/pyproject.toml" | sha256sum | cut -d' ' -f1)

finished() { [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && [ -x "$venv/bin/python" ]; }
fail() { echo "error: $1" >&2; exit 2; }

finished && exit 0
if command -v flock >/dev/null; then  # two scripts started at once: the second waits for the first
  exec 9>"$root/.setup.lock"
  flock 9
  finished && exit 0
fi

for candidate in python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "${python:-}" ] || fail "no Python 3.11 or newer found: install it (on Debian: apt-get install python3 python3-venv)"

faiss=cpu
if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then faiss=gpu; fi
SECONDS=0
echo "Setting up $venv with $("$python" --version) and faiss-$faiss: 3 to 5 GB, two to five minutes." >&2

if [ -d "$venv" ] && [ ! -f "$stamp" ]; then
  echo "An earlier set-up was interrupted; starting again." >&2
  rm -rf "$venv"
fi
rm -f "$stamp"
if [ ! -x "$venv/bin/pip" ] && ! "$python" -m venv "$venv" 2>/dev/null; then
  # Debian ships Python without venv
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing python3-venv." >&2
    { apt-get update && apt-get install -y python3-venv; } >/dev/null 2>&1 || fail "apt-get could not install python3-venv: is the network there?"
  fi
  rm -rf "$venv"
  "$python" -m venv "$venv" || fail "$python cannot make a virtual environment: apt-get install python3-venv (or your system's package of that name)"
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
{
  pip install --quiet -c "$root/constraints.txt" setuptools &&
    # faiss-cpu and faiss-gpu overwrite each other: only one may be there
    pip uninstall --quiet --yes "faiss-$([ $faiss = cpu ] && echo gpu || echo cpu)" 2>/dev/null &&
    pip install --quiet -c "$root/constraints.txt" --no-build-isolation -e "$root[$faiss,dev]"
} || fail "the packages could not be installed (above is pip's own message): check the network and the disk, then run the same command again"
"$venv/bin/python" -c 'import torch, torchvision, faiss' || fail "torch, torchvision or faiss does not start: remove $venv and run the same command again"
echo "$want" > "$stamp"
echo "Set up in $SECONDS seconds." >&2
