#!/usr/bin/env bash
# bash scripts/run_deepcluster.sh [DATA] [options of `python -m deepcluster train`]
# Without DATA: the painted coins, into exp/. With DATA (a folder, a .zip, mnist, mnist:test): into exp-<name>/.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/scripts/setup.sh"

data=painted
exp=exp
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
  data=$1
  shift
  case $data in
    painted) ;;
    *) name=$(basename "$(realpath -m -- "$data")")
       name=${name%.[zZ][iI][pP]}
       exp=exp-$(printf %s "$name" | tr '[:space:]:' '-') ;;
  esac
fi
explicit=
for argument in "$@"; do case $argument in --exp|--exp=*) explicit=yes ;; esac; done
[ -n "$explicit" ] || set -- --exp "$exp" "$@"
exec "$root/.venv/bin/python" -m deepcluster train "$data" "$@"
