#!/usr/bin/env bash
# What a login node needs to build images, submit jobs and look after them: .venv-login/bin/hpcscale, from Python and
# three small packages. No compiler, no torch. Called by `make login`; safe to repeat.
#
#   PYTHON=python3.12   another interpreter (3.11 or newer)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=$PWD/.venv-login
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "make login: $("$python" -VV) found; Python 3.11 or newer is needed: load your site's module, or name one with PYTHON=..." >&2
    exit 1
}
stamp=$venv/.hpcscale-$({ "$python" -VV; cat constraints.txt "$0"; } | sha256sum | cut -c1-16)
[ ! -e "$stamp" ] || exit 0

rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check -c constraints.txt click pydantic rich
"$venv/bin/python" - "$PWD" <<'END'  # the package as it lies here
import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "hpcscale.pth").write_text(sys.argv[1] + "\n")
END
cat >"$venv/bin/hpcscale" <<'END'
#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/python" -I -c 'from hpcscale.cli import main; main(prog_name="hpcscale")' "$@"
END
chmod +x "$venv/bin/hpcscale"
"$venv/bin/hpcscale" --version
touch "$stamp"
