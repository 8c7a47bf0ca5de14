"""What a folder is like in which jobs would write: its file system, locks and clock; and room for images.

In: the folder. Out: `Finding`s, for doctor.py. Everything is tried, nothing is left.
"""

import fcntl
import mmap
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hpcscale import files
from hpcscale.cluster.node import Finding

SPACE = 10e9  # free bytes that a larger run needs for shards and checkpoints
BUILD = {"cpu": 8e9, "cuda": 20e9}  # bytes that `image build` needs for a while
INODES = 10_000
SKEW, MUNGE = 5.0, 300.0  # seconds from which logs are confusing, and Slurm's credentials refused
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "overlay", "fuse-overlayfs", "squashfs"}


class Mount(NamedTuple):
    kind: str  # of file system
    options: str


def mount_of(folder: Path) -> Mount:
    """The file system of a folder, from /proc/self/mountinfo; of several mounts at one place, the last."""
    place, found = folder.resolve(), Mount("unknown", "")
    depth = -1
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        first, _, second = line.partition(" - ")
        where = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), first.split()[4]))
        if place.is_relative_to(where) and len(where.parts) >= depth:
            depth = len(where.parts)
            kind, _, options = second.split(" ", 2)
            found = Mount(kind, f"{first.split()[5]},{options.rpartition(' ')[2]}")
    return found


@contextmanager
def _probe(folder: Path) -> Iterator[Path]:
    """A new file in the folder, removed afterwards. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix=".hpcscale-doctor-", dir=folder) as name:
        file = Path(name) / "probe"
        file.write_bytes(bytes(4096))
        yield file


def file_system(folder: Path, shared: bool) -> Iterator[Finding]:
    """Can jobs write here as they need to? shared: other nodes must see the folder."""
    check, mount = "file system", mount_of(folder)
    try:
        with _probe(folder) as file, file.open("rb+") as stream:
            os.fsync(stream.fileno())
            mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ).close()
            file.rename(file.with_name("renamed"))
    except OSError as error:
        why = "jobs write, sync, map and rename files: name a folder where they can (`doctor FOLDER`)"
        yield Finding(check, "problem", f"{folder} ({mount.kind}): {error.strerror or error}", why)
        return
    space = os.statvfs(folder)
    free, files = space.f_bavail * space.f_frsize, space.f_favail
    said = f"{folder}: {mount.kind}, {free / 1e9:.1f} GB free"
    if free < SPACE:
        advice = "checkpoints and shards need room; take a larger file system, or clear this one"
        yield Finding(check, "problem" if free < 1e9 else "warning", said, advice)
    elif space.f_files and files < INODES:
        advice = "the file system has nearly as many files as it can have"
        yield Finding(check, "warning", f"{said}, {files} files", advice)
    elif shared and mount.kind in LOCAL:
        advice = "this looks like a disk of this machine alone: jobs need a folder that every node sees"
        yield Finding(check, "warning", said, advice)
    else:
        yield Finding(check, "ok", said)


def locks(folder: Path) -> Iterator[Finding]:
    """Do locks keep two calls apart, and can HDF5, which uses the same locks, write here?"""
    options = mount_of(folder).options.split(",")
    apart = "so do not run one command twice at the same time on one output: nothing keeps the calls apart"
    try:
        with _probe(folder) as file, file.open("rb") as one, file.open("rb") as other:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                yield Finding("locks", "warning", f"{folder}: a lock that is held is given again", apart)
                return
    except OSError as error:
        if error.errno in files.NO_LOCKS:
            advice = 'put HDF5_USE_FILE_LOCKING = "FALSE" under [environment] of the site; ' + apart
            yield Finding("locks", "warning", f"{folder}: {error.strerror}", advice)
        return  # file_system tells what else is wrong
    alone = {"localflock", "nolock", "local_lock=all", "local_lock=flock"} & set(options)
    if alone:
        yield Finding("locks", "warning", f"{folder}: {', '.join(alone)}: locks hold on one node only", apart)
    else:
        yield Finding("locks", "ok", f"{folder}: held locks are refused")


def clock(folder: Path) -> Iterator[Finding]:
    """Does this machine's clock agree with the file server's?"""
    try:
        before = time.time()
        with _probe(folder) as file:
            stamp, after = file.stat().st_mtime, time.time()
    except OSError:
        return
    # Kernels take time stamps from a clock that ticks, up to 10 ms late.
    skew = max(before - 0.1 - stamp, stamp - after, 0.0)
    yield skewed(skew, "the file server")


def skewed(seconds: float, other: str) -> Finding:
    said = f"{seconds:.0f} s from {other}" if seconds >= 1 else f"agrees with {other}"
    advice = "have the clock set (NTP)"
    if seconds > MUNGE:
        return Finding("clock", "problem", said, f"{advice}: Slurm refuses what comes from another time")
    if seconds > SKEW:
        return Finding("clock", "warning", said, f"{advice}: times in logs do not fit each other")
    return Finding("clock", "ok", said)


def room(building: bool) -> Iterator[Finding]:
    """Is there room where Apptainer caches and unpacks?"""

    def named(name: str) -> str | None:
        return os.environ.get(f"APPTAINER_{name}") or os.environ.get(f"SINGULARITY_{name}")

    temporary = Path(named("TMPDIR") or ("/var/tmp" if building else os.environ.get("TMPDIR") or "/tmp"))
    cache = Path(named("CACHEDIR") or Path.home() / ".apptainer" / "cache")
    for check, folder, needed, variable in (
        ("temporary files", temporary, BUILD["cpu"] if building else 1e9, "APPTAINER_TMPDIR"),
        ("cache", cache, 1e9, "APPTAINER_CACHEDIR"),
    ):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        said = f"{folder}: {mount_of(folder).kind}, {free / 1e9:.1f} GB free"
        if building and check == "temporary files" and needed <= free < BUILD["cuda"]:
            said += f"; a CUDA image would need {BUILD['cuda'] / 1e9:.0f}"
        advice = f"name a folder with {needed / 1e9:.0f} GB in {variable}; a home folder's quota is not seen"
        if not os.access(folder, os.W_OK):
            yield Finding(check, "warning", f"{folder}: not writable", advice)
        else:
            yield Finding(check, "warning", said, advice) if free < needed else Finding(check, "ok", said)
