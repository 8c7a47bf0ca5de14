# shellcheck shell=bash
# Sourced by setup.sh and wheels.sh, in the root of the clone: uv reads neither pip's settings nor our minds.
if [ -z "${UV_FIND_LINKS:-}" ] && [ -n "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS=$PIP_FIND_LINKS; fi
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}  # a site's own certificates are in the system's store

# Prints uv's options for a build of torch: cpu, cu130 ..., or auto, which is what this machine's driver can run.
torch_build() {
    local version
    version=$(sed -n 's/^torch==//p' constraints.txt)
    if [ "$1" = cpu ] && compgen -G "${UV_FIND_LINKS:-/nowhere}/torch-$version+cpu-*.whl" >/dev/null; then
        return  # the local CPU wheel wins over the index
    fi
    # The registry's default build is the CUDA one: gigabytes, and Horovod would then want nvcc.
    echo "--torch-backend=$1"
}
