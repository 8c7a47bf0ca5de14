#!/usr/bin/env bash
# From a bare machine to .venv with every pinned package, Horovod and the extension. Safe to repeat: a stamp makes the
# second run free. Called by `make setup`.
#
#   PYTHON=python3.12        another interpreter (3.11 or newer)
#   HPCSCALE_TORCH=cpu|cuda  instead of looking for a GPU
#   CUDA_HOME=DIR            your site's CUDA toolkit, if its major version is torch's, instead of NVIDIA's wheels
#   HPCSCALE_APT=1           install missing Debian packages through sudo (root installs them unasked; 0 never)
#   HPCSCALE_CACHE=DIR       where built Horovod wheels are kept (~/.cache/hpcscale)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$PWD/.venv
python=${PYTHON:-python3}
say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
fail() { printf 'make setup: %s\n' "$*" >&2; exit 1; }

# --- what the system must bring -------------------------------------------------------------------------------------
missing=()
if command -v dpkg-query >/dev/null; then
    while read -r package _; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -q '^installed' || missing+=("$package")
    done < <(grep -v '^#' install/apt.txt)
else
    for tool in c++ make; do command -v "$tool" >/dev/null || fail "no '$tool' on PATH: install a C++20 compiler and make"; done
fi
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        [ "${HPCSCALE_APT:-0}" = 1 ] || fail "these Debian packages are missing: ${missing[*]}
  install them with:  sudo apt-get install ${missing[*]}
  or let this do it:  HPCSCALE_APT=1 make setup"
        as_root=(sudo)
    elif [ "${HPCSCALE_APT:-1}" = 0 ]; then
        fail "these Debian packages are missing: ${missing[*]}"
    fi
    say "Debian packages: ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
command -v "$python" >/dev/null || fail "no '$python' on PATH; name one with PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" -VV) found; Python 3.11 or newer is needed"

# --- which torch ----------------------------------------------------------------------------------------------------
torch=${HPCSCALE_TORCH:-}
if [ -z "$torch" ]; then
    if [ -e /dev/nvidia0 ] || [ -e /dev/nvidiactl ]; then torch=cuda; else torch=cpu; fi
fi
case $torch in
    cpu | cuda) ;;
    *) fail "HPCSCALE_TORCH=$torch: allowed are cpu and cuda" ;;
esac

# --- nothing to do? -------------------------------------------------------------------------------------------------
export PATH=$venv/bin:$PATH  # cmake and ninja
stamp=$venv/.hpcscale-$({ "$python" -VV; echo "$PWD $torch"; cat constraints.txt setup.py pyproject.toml install/*; } | sha256sum | cut -c1-16)
if [ -e "$stamp" ]; then
    "$venv/bin/python" setup.py -q build_ext --inplace  # C++ sources may have changed; incremental
    exit 0
fi

# --- the environment ------------------------------------------------------------------------------------------------
say "virtual environment .venv ($torch)"
rm -f "$venv"/.hpcscale-*
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv" || fail "'$python -m venv' failed (on Debian: apt-get install python3-venv)"
[ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install -q -c constraints.txt uv
# uv writes no bytecode by itself, which would make every later import slow.
export UV_COMPILE_BYTECODE=1 UV_LINK_MODE=${UV_LINK_MODE:-hardlink} VIRTUAL_ENV=$venv
# shellcheck source=install/uv.sh
. install/uv.sh
install=("$venv/bin/uv" pip install -q -c constraints.txt)
"${install[@]}" -r install/build.txt
had=$("$venv/bin/python" -c 'import torch; print("cuda" if torch.version.cuda else "cpu")' 2>/dev/null || true)
if [ -n "$had" ] && [ "$had" != "$torch" ]; then "$venv/bin/uv" pip uninstall -q torch; fi  # of the same version
if [ "$torch" = cuda ]; then
    env -u UV_FIND_LINKS "${install[@]}" torch -r install/toolkit.txt  # the registry's own build is for CUDA
else
    # shellcheck disable=SC2046  # nothing, or one word
    "${install[@]}" $(cpu_torch) torch
fi
HPCSCALE_TORCH=$torch install/horovod.sh "$venv/bin/python"
say "packages and the extension"
"${install[@]}" --no-build-isolation-package hpcscale -e ".[horovod,dev,demo,bench,tensorboard,dense]"
"$venv/bin/hpcscale" --version
touch "$stamp"
