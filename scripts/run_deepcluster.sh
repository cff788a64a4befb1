#!/usr/bin/env bash
# bash scripts/run_deepcluster.sh [DATA] [options of `python -m deepcluster train`] [--results DIR]
# Trains, explains, and says which page to open. Without DATA: the painted coins, into exp/ and results/.
# With DATA (a folder, a .zip, mnist, mnist:test): into exp-<name>/ and results-<name>/.
# --limit 300 tries it on 300 images; --dry-run says what would be trained, how long it takes, and writes nothing.
# Stopped, it continues where it was when the same command is given again. The first call makes .venv.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # called as `sh ...`
set -euo pipefail
unset CDPATH  # cd would print where it went
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for option in "$@"; do
  case $option in
    -h|--help)
      sed -n '2,6s/^# //p' "$0"
      if [ -x "$root/.venv/bin/python" ]; then
        echo; PYTHONPATH=$root "$root/.venv/bin/python" -P -m deepcluster train --help 2>/dev/null || true
      else
        echo "All options: docs/settings.md, or, after bash scripts/setup.sh, python -m deepcluster train --help"
      fi
      exit 0 ;;
    --version) sed -n 's/^version = "\(.*\)"$/deepcluster-explain \1/p' "$root/pyproject.toml"; exit 0 ;;
  esac
done
if [ $# -gt 0 ] && [ -z "$1" ]; then
  echo "error: an empty name: name a folder or a zip of photographs" >&2
  exit 2
fi
bash "$root/scripts/setup.sh"

data=painted
exp=exp
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  data=$1
  shift
  case $data in
    painted) ;;
    *) # macOS' realpath has no -m
       name=$(basename "$(realpath -m -- "$data" 2>/dev/null || { cd -- "$data" 2>/dev/null && pwd -P; } || printf %s "$data")")
       name=${name%.[zZ][iI][pP]}
       exp=exp-$(printf %s "$name" | tr '[:space:]:' '-') ;;
  esac
fi
train=()
explain=()
dry=
while [ $# -gt 0 ]; do
  option=$1
  shift
  case $option in
    --exp=*|--run=*|--results=*|--device=*|--workers=*|--mnist-dir=*) value=${option#*=}; option=${option%%=*} ;;
    --exp|--run|--results|--device|--workers|--mnist-dir)
      [ $# -gt 0 ] || { echo "error: $option needs a value" >&2; exit 2; }
      value=$1
      shift ;;
  esac
  case $option in
    --exp|--run) exp=$value ;;
    --results) explain+=("$option" "$value") ;;
    --device|--workers|--mnist-dir) train+=("$option" "$value"); explain+=("$option" "$value") ;;
    --dry-run) dry=$option ;;
    *) train+=("$option") ;;
  esac
done
program=$root/.venv/bin/deepcluster-explain  # finds the packages from any folder; paths stay relative to the caller's
if [ -n "$dry" ]; then exec "$program" deepcluster train "$data" --exp "$exp" ${train[@]+"${train[@]}"} $dry; fi
DEEPCLUSTER_GOES_ON=1 "$program" deepcluster train "$data" --exp "$exp" ${train[@]+"${train[@]}"}
exec "$program" explain --run "$exp" ${explain[@]+"${explain[@]}"}
