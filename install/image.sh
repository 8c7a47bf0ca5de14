#!/usr/bin/env bash
# Makes /opt/hpcscale inside an image, in the build stage of containers/*.def: install/image.sh cpu|cuda
#
#   /mnt    our source     /media  wheels.sh's folder     /srv    cache of built Horovod wheels
#
# Offline. /tmp and the home folder belong to the host even here, so they are not touched.
set -euo pipefail
export HOME=/opt/build TMPDIR=/opt/build HPCSCALE_TORCH=$1 HPCSCALE_CACHE=/srv
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/media PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
export UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 VIRTUAL_ENV=/opt/hpcscale PATH=/opt/hpcscale/bin:$PATH
mkdir -p "$HOME"
cp -r /mnt "$HOME/source"  # a build writes beside its source
cd "$HOME/source"
say() { printf '==> %s\n' "$*"; }

say "packages"
python3 -m venv /opt/hpcscale
pip install -q uv
uv pip install -q --no-index --find-links /media --no-deps --require-hashes -r /media/requirements.txt
say "Horovod"
install/horovod.sh /opt/hpcscale/bin/python
say "hpcscale and its extension"
uv pip install -q --no-deps --no-build-isolation .

say "without what only the build needs"
site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ "$1" = cuda ]; then
    uv pip uninstall -q nvidia-cuda-{nvcc,crt,cccl} nvidia-nvvm
    rm -rf "$site"/nvidia/*/{include,lib64,lib/libcudart.so}
fi
uv pip uninstall -q cmake ninja pybind11 wheel pip uv
rm -rf "$site"/torch/{include,test,share} "$site"/torch/lib/*.a /opt/build
say "one file for the next stage, because apptainer copies 30000 small ones slowly"
tar -C /opt -cf /opt/hpcscale.tar --remove-files hpcscale
say "done"
