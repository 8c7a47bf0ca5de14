#!/usr/bin/env bash
# Downloads what an image is made of, pinned and hashed, so that nothing is fetched while it is built:
#
#   install/wheels.sh FOLDER PYTHON GLIBC cpu|cuda      e.g. wheels.sh /var/tmp/wheels 3.11 2_36 cpu
#
# PYTHON and GLIBC are the image's. FOLDER gets the wheels, Horovod's sdist, and requirements.txt with all hashes.
# uv resolves for another Python than ours; pip downloads, because it knows the site's registry, proxy and certificates.
# $HPCSCALE_PYTHON (python3) is the interpreter whose pip it is.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
version=$2 glibc=$3 kind=$4
cd "$(dirname "$0")/.."
python=${HPCSCALE_PYTHON:-python3}
machine=$(uname -m)
# shellcheck source=install/uv.sh
. install/uv.sh
if [ "$kind" = cpu ]; then
    mapfile -t torch < <(cpu_torch)
else
    torch=(install/toolkit.txt)
    unset UV_FIND_LINKS PIP_FIND_LINKS  # a CPU build of torch may lie there
fi

"$python" -m pip install -q --upgrade --target "$folder/uv" -c constraints.txt uv
"$folder/uv/bin/uv" pip compile -q --no-header --no-annotate --emit-index-annotation --generate-hashes --python "$python" \
    --python-version "$version" --python-platform "$machine-manylinux_$glibc" "${torch[@]}" \
    -c constraints.txt --extra tensorboard --extra dense install/build.txt setup.py - -o "$folder/requirements.txt" <<<uv

platforms=(--platform "linux_$machine" --platform "manylinux2014_$machine")
for minor in $(seq 17 "${glibc#*_}"); do platforms+=(--platform "manylinux_2_${minor}_$machine"); done
mapfile -t indexes < <(sed -n 's/^ *# from \(http.*\)/--extra-index-url=\1/p' "$folder/requirements.txt" | sort -u)
"$python" -m pip download -q --no-deps --only-binary :all: --require-hashes -d "$folder" "${indexes[@]}" \
    --python-version "$version" --implementation cp "${platforms[@]}" -r "$folder/requirements.txt"
"$python" -m pip download -q --no-deps --no-binary :all: --require-hashes -d "$folder" -r <(install/horovod.sh --requirement)
rm -rf "$folder/uv"
