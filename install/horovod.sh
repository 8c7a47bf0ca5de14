#!/usr/bin/env bash
# Installs Horovod for the torch of one interpreter: install/horovod.sh PYTHON
# The unmodified sdist is built once; the wheel is cached under a key of everything the binary depends on.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=0.28.1
sha256=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0
requirement="horovod==$version --hash=sha256:$sha256"
if [ "$1" = --requirement ]; then  # wheels.sh downloads it for an image
    echo "$requirement"
    exit
fi
python=$1
bin=$(dirname "$python")
export PATH=$bin:/usr/bin:$PATH

export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
    HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
    CMAKE_TOOLCHAIN_FILE=$here/horovod-toolchain.cmake
MAKEFLAGS=-j$(nproc)
export MAKEFLAGS
torch=$("$python" -c 'import torch; print(torch.__version__)')
toolkit=none
if [ "${HPCSCALE_TORCH:-cpu}" = cuda ]; then
    CUDA_HOME=$("$here/toolkit.sh" "$python")
    export CUDA_HOME  # torch would guess it from a wrapper in /usr/local/bin
    toolkit=$("$CUDA_HOME/bin/nvcc" --version | tail -1)
    nccl=$("$python" -c 'import nvidia.nccl as n; print(list(n.__path__)[0])')
    export HOROVOD_GPU=CUDA HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_NCCL_LINK=SHARED HOROVOD_CUDA_HOME=$CUDA_HOME \
        HOROVOD_NCCL_INCLUDE=$nccl/include HOROVOD_BUILD_CUDA_CC_LIST="${HOROVOD_BUILD_CUDA_CC_LIST:-80,90}"
fi

key=$({ echo "$version $sha256 $torch $toolkit"; "$python" -VV; c++ --version | head -1; cmake --version | head -1
    env | grep ^HOROVOD_ | grep -v -e _NCCL_ -e _CUDA_HOME= | sort; cat "$CMAKE_TOOLCHAIN_FILE"; } | sha256sum | cut -c1-16)
wheels=${HPCSCALE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hpcscale}/horovod/$key
if ! compgen -G "$wheels/horovod-*.whl" >/dev/null; then
    echo "==> building Horovod $version for torch $torch (once; 2 to 5 minutes on two cores)"
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    if [ -n "${nccl:-}" ]; then  # NVIDIA's wheel has no unversioned name for the linker
        mkdir "$build/nccl"
        ln -s "$nccl/lib/libnccl.so.2" "$build/nccl/libnccl.so"
        export HOROVOD_NCCL_LIB=$build/nccl
    fi
    echo "$requirement" > "$build/requirement.txt"
    # Two steps: the local version (+torch...) is accepted for a file, not for what pip takes from an index.
    if ! {
        "$python" -m pip download --no-deps --no-build-isolation --no-binary horovod --require-hashes -r "$build/requirement.txt" -d "$build" &&
            HOROVOD_LOCAL_VERSION=torch$(tr -c '[:alnum:]\n' . <<<"$torch") \
                "$python" -m pip wheel --no-deps --no-build-isolation --no-cache-dir -w "$build/wheel" "$build/horovod-$version.tar.gz"
    } >"$build/log" 2>&1; then
        tail -50 "$build/log" >&2
        echo "install/horovod.sh: Horovod did not build; the end of its log is above" >&2
        exit 1
    fi
    mkdir -p "$(dirname "$wheels")"
    rm -rf "$wheels.part" && cp -r "$build/wheel" "$wheels.part" && rm -rf "$wheels" && mv "$wheels.part" "$wheels"
fi
"$python" -m pip install -q --no-deps --force-reinstall "$wheels"/horovod-*.whl
"$python" -c 'import horovod.torch as h; assert h.gloo_built(), "Horovod was built without Gloo"'
if [ -n "${nccl:-}" ]; then
    "$python" -c 'import horovod.torch as h; assert h.nccl_built(), "Horovod was built without NCCL"'
fi
