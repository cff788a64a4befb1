#!/usr/bin/env bash
# Lint, types and the whole suite; CI and pre-commit run nothing else. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
bin=.venv/bin
$bin/ruff check .
$bin/ruff format --check .
$bin/mypy
if [ -z "${MNIST_DIR:-}" ] && [ -d ../shared/data/mnist ]; then
  MNIST_DIR=$(cd ../shared/data/mnist && pwd)
  export MNIST_DIR
fi
$bin/python -m pytest "$@"
