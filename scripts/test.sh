#!/usr/bin/env bash
# Lint, types and the whole suite; CI and pre-commit run nothing else. Arguments go to pytest.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh dev
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/mypy
# Real digits: those beside the clone, or as a user gets them (11 MB, once, into the user's cache).
if [ -z "${MNIST_DIR:-}" ] && [ -d ../shared/data/mnist ]; then
  MNIST_DIR=$(cd ../shared/data/mnist && pwd)
fi
export MNIST_DIR=${MNIST_DIR:-$($bin/python -c 'from datasets.mnist import fetch_mnist; print(fetch_mnist())' 2>/dev/null | tail -1)}
[ -n "$MNIST_DIR" ] || echo "MNIST could not be fetched: its tests will be skipped." >&2
# The gallery is tested in a real browser; without one those tests say so and are skipped.
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing chromium for the gallery's tests." >&2
  { apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 ||
    echo "chromium could not be installed: the gallery's tests will be skipped." >&2
fi
# A file of tests on each core, one thread each: most of a test's time is one process starting.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} $bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder "$@"
