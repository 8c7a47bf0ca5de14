#!/usr/bin/env bash
# Prints CUDA_HOME for the CUDA build of torch that one interpreter has: install/toolkit.sh PYTHON
# That is $CUDA_HOME if its major version is torch's; else the wheels of toolkit.txt, which become a toolkit by two links.
set -euo pipefail
python=$1
cuda=$("$python" -c 'import torch; print(torch.version.cuda or "")')
major=${cuda%%.*}
fail() { printf 'install/toolkit.sh: %s\n' "$*" >&2; exit 1; }
release() { "$1/bin/nvcc" --version 2>/dev/null | sed -n 's/.*, release \([0-9.]*\),.*/\1/p'; }
[ -n "$major" ] || fail "the torch of $python has no CUDA"

if [ -n "${CUDA_HOME:-}" ]; then
    found=$(release "$CUDA_HOME") || true
    if [ "${found%%.*}" = "$major" ]; then
        echo "$CUDA_HOME"
        exit
    fi
    echo "==> CUDA_HOME=$CUDA_HOME is not used: torch has CUDA $cuda, and there is ${found:-no nvcc}" >&2
fi
home=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/nvidia/cu$major
[ -x "$home/bin/nvcc" ] || fail "no $home/bin/nvcc: install the wheels of install/toolkit.txt"
# nvcc follows its own path, so the names that it looks for must lie here, not in a folder of links elsewhere.
ln -sfn lib "$home/lib64"
ln -sfn "libcudart.so.$major" "$home/lib/libcudart.so"
[ -e "$home/lib/libcudart.so" ] || fail "no $home/lib/libcudart.so.$major: install the wheels of install/toolkit.txt"
echo "$home"
