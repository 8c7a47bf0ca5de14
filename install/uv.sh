# shellcheck shell=bash
# Sourced by setup.sh and wheels.sh, in the root of the clone: uv reads neither pip's settings nor our minds.
if [ -z "${UV_FIND_LINKS:-}" ] && [ -n "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS=$PIP_FIND_LINKS; fi
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-1}  # a site's own certificates are in the system's store

# Prints uv's option for the CPU build of torch: the registry's own build has CUDA, gigabytes of it.
cpu_torch() {
    local version
    version=$(sed -n 's/^torch==//p' constraints.txt)
    # Where a local file is the CPU build, it wins over the registry.
    compgen -G "${UV_FIND_LINKS:-/nowhere}/torch-$version+cpu-*.whl" >/dev/null || echo --torch-backend=cpu
}
