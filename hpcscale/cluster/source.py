"""What an image is made of: the files of this clone, their digests, and the packages that pip downloads.

In: the clone that contains this package. Out: digests, which decide what must be built again, and folders to
bind into a build. Downloads are kept in ~/.cache/hpcscale ($HPCSCALE_CACHE).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from hpcscale import files
from hpcscale.cluster import templates
from hpcscale.files import Told

DEBIAN = ("3.11", "2_36")  # Python and glibc of Debian 12, which containers/*.def begin with
# The parts of the clone that go into an image. After a change in COMPILED, all is built again.
PYTHON = ("hpcscale", "slurm", "containers", "README.md", "LICENSE")
COMPILED = ("CMakeLists.txt", "cpp", "constraints.txt", "install", "pyproject.toml", "setup.py")
DAY = 86_400  # seconds
# In install/; these decide what is downloaded.
DOWNLOAD = ("build.txt", "horovod.sh", "toolkit.txt", "uv.sh", "wheels.sh")


class SourceError(Told):
    """There is no clone to build from, or its packages cannot be downloaded."""


def root() -> Path:
    """The clone that contains this package. Raises SourceError if the package was installed without one."""
    clone = templates.containers().parent
    if not (clone / "CMakeLists.txt").is_file():
        raise SourceError(f"an image is built of a clone of hpcscale, which {clone} is not")
    return clone


def commit(clone: Path) -> str | None:
    """The commit of a clone, with + if files have changed since; None if git does not know."""
    git = ["git", "-C", str(clone)]
    try:
        head = subprocess.check_output([*git, "rev-parse", "HEAD"], stderr=subprocess.DEVNULL, text=True)
        changed = subprocess.check_output([*git, "status", "--porcelain", "--", *PYTHON, *COMPILED])
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + "+" * bool(changed)


def digest(clone: Path, parts: Sequence[str] = (*PYTHON, *COMPILED)) -> str:
    """SHA-256 over names and contents of all files in some parts of a clone, without what was built there."""
    total = hashlib.sha256()
    for file in _walk(clone, parts):
        total.update(f"{file.relative_to(clone)}\0{sha256(file)}\n".encode())
    return total.hexdigest()


def environment(clone: Path, kind: str) -> str:
    """The digest of everything that decides the content of an image, except our own Python files."""
    return digest(clone, (*COMPILED, f"containers/hpcscale-{kind}.def"))


def copy(clone: Path, to: Path) -> None:
    for file in _walk(clone, (*PYTHON, *COMPILED)):
        target = to / file.relative_to(clone)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


def wheels(clone: Path, kind: str) -> Path:
    """The folder with all packages of an image, downloaded if it is not there.

    clone: a copy that may be written to: setup.py, asked for its requirements, writes beside itself. Packages
    that no build has used since yesterday are removed. Raises SourceError.
    """
    key = digest(clone, ("constraints.txt", "setup.py", *(f"install/{name}" for name in DOWNLOAD)))[:16]
    folder = cache(f"wheels-{kind}") / key
    with (folder.parent / ".lock").open("w") as lock:
        with suppress(OSError):  # without locks on this file system, two builds may download the same
            fcntl.flock(lock, fcntl.LOCK_EX)  # another build may be downloading
        if not folder.is_dir():
            _download(clone, folder, kind)
        os.utime(folder)
        for other in folder.parent.iterdir():
            if other.is_dir() and other.stat().st_mtime < time.time() - DAY:
                shutil.rmtree(other)
    return folder


def _download(clone: Path, folder: Path, kind: str) -> None:
    part = files.aside(folder)
    part.mkdir()
    try:
        command = [str(clone / "install" / "wheels.sh"), str(part), *DEBIAN, kind]
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"HPCSCALE_PYTHON": sys.executable}
        )
        if done.returncode:
            raise SourceError(
                f"{done.stderr[-4000:]}\ninstall/wheels.sh could not download; it ended as above"
            )
        files.commit(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def cache(name: str = "") -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("HPCSCALE_CACHE") or Path(home) / "hpcscale") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _walk(clone: Path, parts: Sequence[str]) -> Iterator[Path]:
    made = ("__pycache__", ".so", ".pyc", ".egg-info")
    for part in sorted(parts):
        if (clone / part).is_file():
            yield clone / part
        for folder, inner, names in os.walk(clone / part):
            inner[:] = sorted(name for name in inner if not name.endswith(made) and name[0] != ".")
            for name in sorted(names):
                if not name.endswith(made) and name[0] != ".":
                    yield Path(folder, name)
