#!/usr/bin/env bash
# bash scripts/setup.sh [dev]: make .venv when it is missing, half made or out of date; do nothing, without network,
# when it is finished. Every other script calls this first; `dev` adds the developers' tools (scripts/test.sh).
# The stamp names what is in and is written last, so an interrupted set-up heals on the next call.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"  # called as `sh ...`
set -euo pipefail
# what would lead cd elsewhere, or pip to other packages and another place than .venv
unset CDPATH PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/.stamp
tools=${1:-}
faiss=cpu
if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then faiss=gpu; fi
sha=$(command -v sha256sum || echo shasum -a 256)  # macOS has the latter
hash=$(cat "$root/constraints.txt" "$root/pyproject.toml" | $sha | cut -d' ' -f1)

finished() {
  local part has
  [ -x "$venv/bin/python" ] && has=" $(cat "$stamp" 2>/dev/null) " || return 1
  # what a GPU needs runs without one too, but not the other way round
  for part in "$hash" $tools ${faiss/cpu/}; do [[ $has = *" $part "* ]] || return 1; done
}
fail() { echo "error: $1" >&2; exit 2; }

finished && exit 0
if command -v flock >/dev/null; then  # two scripts started at once: the second waits for the first
  exec 9>>"$root/.setup.lock"  # pip inherits it: a set-up that was killed is waited for until its pip has ended
  flock -n 9 || { echo "Waiting for another set-up of this clone to end." >&2; flock 9; }
  finished && exit 0
fi

for candidate in python3.11 python3.12 python3.13 python3; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
[ -n "${python:-}" ] || fail "no Python 3.11 or newer found: install it (on Debian: apt-get install python3 python3-venv)"

SECONDS=0
if [ -d "$venv" ] && [ ! -f "$stamp" ]; then
  echo "An earlier set-up was interrupted; starting again." >&2
  rm -rf "$venv"
fi
[ $faiss = cpu ] && work="5 GB, two to five minutes" || work="8 GB, five minutes"
[ ! -f "$stamp" ] || work="what is missing or has changed"
echo "Setting up $venv with $("$python" --version) and faiss-$faiss${tools:+, tools for developers}: $work." >&2
if [ ! -x "$venv/bin/pip" ] && ! "$python" -m venv "$venv" 2>/dev/null; then
  # Debian ships Python without venv
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing python3-venv." >&2
    { apt-get update && apt-get install -y python3-venv; } >/dev/null 2>&1 || fail "apt-get could not install python3-venv: is the network there?"
  fi
  rm -rf "$venv"
  "$python" -m venv "$venv" || fail "$python cannot make a virtual environment: apt-get install python3-venv (or your system's package of that name)"
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
# Write to .list what is not there yet, but for $1 (a pattern). pip cannot leave a dependency out, so it is asked what
# it would install, and then told to install that without looking at dependencies again. fast-deps, which the pip of
# constraints.txt has, reads a wheel's metadata without fetching the wheel (the second --quiet is for its warning).
missing() {
  pip install --quiet --use-feature=fast-deps --dry-run --report "$venv/.report" -c "$root/constraints.txt" \
    --no-build-isolation "$root[$faiss${tools:+,$tools}]" &&
    "$venv/bin/python" -c 'import json, re, sys
for item in json.load(open(sys.argv[1]))["install"]:
    if not re.fullmatch(sys.argv[2], item["metadata"]["name"]):
        print("{name}=={version}".format(**item["metadata"]))' "$venv/.report" "$1" > "$venv/.list"
}
install() { [ ! -s "$venv/.list" ] || pip install --no-deps --no-build-isolation -r "$venv/.list"; }
works() {
  "$venv/bin/python" -c 'import faiss, numpy, torch, torchvision
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
step = torch.optim.SGD(net.parameters(), 0.1)
torch.nn.functional.cross_entropy(net(torch.rand(4, 3, 32, 32)), torch.arange(4)).backward()
step.step()
torch.linalg.eigh(torch.eye(8))
torchvision.ops.nms(torch.rand(4, 4), torch.ones(4), 0.5)
faiss.Kmeans(4, 2).train(numpy.random.rand(100, 4).astype("f"))'
}

ours=deepcluster-explain  # the distribution is its dependencies alone: nothing of it need be there
# For Linux on x86-64 the index has torch with CUDA alone, which must find most of CUDA to start, GPU or not (2.6 GB:
# cublas, cudnn, cufft, cusparse, nccl, ...). Only a GPU needs these 1.4 GB:
gpu_only='triton|cuda-\w+|nvidia-(cuda-cccl|cusolver|nvjitlink|nvtx)'
broken="the packages could not be installed (above is pip's own message): check the network and the disk, then"
broken="$broken run the same command again"
[ $faiss = gpu ] && other=cpu || other=gpu
pip install -c "$root/constraints.txt" pip setuptools || fail "$broken"
missing "$ours$([ $faiss = gpu ] || echo "|$gpu_only")" || fail "$broken"
rm -f "$stamp"  # not before: without network, what is there stays as it is
# Either faiss overwrites the other: only one may be there. And earlier versions installed our packages themselves.
{ pip uninstall --yes $ours faiss-$other 2>/dev/null && install; } || fail "$broken"
if ! works 2>/dev/null && [ $faiss = cpu ]; then
  echo "torch does not work without the libraries for a GPU: adding them, 1.4 GB." >&2
  { missing $ours && install; } || fail "$broken"
fi
works || fail "torch, torchvision or faiss does not work: remove $venv and run the same command again"

# Our folders' names (datasets, runs, ...) are others' on the package index, so none is ever installed. .venv, which is
# ours alone, points to the checkout it lies in: for its python, by a path (after all that is installed) ...
for site in "$venv"/lib/python3*/site-packages; do echo ../../../.. > "$site/deepcluster-explain.pth"; done
# ... and by a command that works whatever lies where it is called (-P) or was installed since (PYTHONPATH).
cat > "$venv/bin/deepcluster-explain" <<'END'
#!/bin/sh
# `python -m PACKAGE ...` of this checkout, from any folder
packages="deepcluster, explain, datasets, supervised, runs, benchmarks"
case ${1:-} in
  deepcluster|explain|datasets|supervised|runs|benchmarks) ;;
  -h|--help) echo "deepcluster-explain PACKAGE ..., as in python -m PACKAGE ...; packages: $packages"; exit 0 ;;
  --version) shift; set -- deepcluster --version ;;
  *) echo "error: '${1:-}' is no package: name one of $packages (deepcluster-explain --help)" >&2; exit 2 ;;
esac
root=$(cd "$(dirname "$(readlink -f "$0")")/../.." && pwd)
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$root/.venv/bin/python" -P -m "$@"
END
chmod +x "$venv/bin/deepcluster-explain"
echo "$hash $faiss $tools" > "$stamp"
echo "Set up in $SECONDS seconds." >&2
