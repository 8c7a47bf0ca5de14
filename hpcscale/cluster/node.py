"""What matters to jobs on this machine: file system, locks, clock, network, GPUs, stray packages.

In: a folder where jobs would write, and the site's settings. Out: `Finding`s, for doctor.py. It reads and
tries things but changes nothing, and needs neither Slurm nor Apptainer nor the libraries of training.
"""

import ctypes
import fcntl
import importlib.metadata
import importlib.util
import mmap
import os
import re
import resource
import shutil
import site
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from hpcscale.cluster import programs, records

SPACE = 10e9  # free bytes that a larger run needs for shards and checkpoints
BUILD = 8e9  # bytes that `image build` needs for a while
INODES = 10_000
FILES = 4096  # open files: one per shard, and some more
SKEW, MUNGE = 5.0, 300.0  # seconds from which logs are confusing, and Slurm's credentials refused
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "ramfs", "overlay", "fuse-overlayfs", "squashfs"}
DRIVERS = {11: 450, 12: 525, 13: 580}  # CUDA: oldest driver, by minor-version compatibility (NVIDIA's table)
INFINIBAND = "32"  # ARPHRD_INFINIBAND of Linux's if_arp.h


class Finding(NamedTuple):
    check: str
    state: Literal["ok", "warning", "problem"]  # a problem would stop a job
    found: str
    advice: str = ""


class Mount(NamedTuple):
    kind: str  # of file system
    options: str


def call(words: Sequence[str], seconds: float = 20) -> tuple[int, str]:
    """Exit code (127: no such program, 124: no answer in time) and all output of a program."""
    done = programs.run(words, seconds)
    return done.code, (done.out + done.err).strip()


# ---- files


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
        if error.errno in records.WITHOUT_LOCKS:
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
        ("temporary files", temporary, BUILD if building else 1e9, "APPTAINER_TMPDIR"),
        ("cache", cache, 1e9, "APPTAINER_CACHEDIR"),
    ):
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        said = f"{folder}: {mount_of(folder).kind}, {free / 1e9:.1f} GB free"
        advice = f"name a folder with {needed / 1e9:.0f} GB in {variable}; a home folder's quota is not seen"
        if not os.access(folder, os.W_OK):
            yield Finding(check, "warning", f"{folder}: not writable", advice)
        else:
            yield Finding(check, "warning", said, advice) if free < needed else Finding(check, "ok", said)


# ---- Python


def packages(in_image: bool) -> Iterator[Finding]:
    """Would packages of the user's home folder or of PYTHONPATH be imported instead of the image's?"""
    check = "stray packages"
    if path := os.environ.get("PYTHONPATH"):
        advice = "unset PYTHONPATH; templates of jobs do not pass it on"
        yield Finding(check, "problem" if in_image else "warning", f"PYTHONPATH is {path}", advice)
    folder = site.getusersitepackages()
    names = sorted({found.name for found in importlib.metadata.distributions(path=[folder])})
    said = f"{folder}: {len(names)} packages" + (f", as {', '.join(names[:3])}" if names else "")
    if folder in sys.path and names:
        advice = "set PYTHONNOUSERSITE=1 (and start images with --no-mount home), as the templates of jobs do"
        yield Finding(check, "problem" if in_image else "warning", said, advice)
    elif not path:
        yield Finding(check, "ok", f"{said}, not used" if names else "none")


def horovod() -> Iterator[Finding]:
    """What Horovod was built with. Takes some seconds."""
    if importlib.util.find_spec("horovod") is None:
        yield Finding("horovod", "problem", "not installed", "more than one rank needs it: see `make setup`")
        return
    beside = Path(sys.executable).with_name("horovodrun")
    code, said = call([str(beside if beside.exists() else "horovodrun"), "--check-build"], 120)
    built = set(re.findall(r"\[X\] (\w+)", said))
    found = f"{said.partition(':')[0].strip()} with {', '.join(sorted(built))}"
    if code or not {"PyTorch", "Gloo"} <= built:
        advice = "build it with PyTorch and Gloo: install/horovod.sh"
        yield Finding(
            "horovod",
            "problem",
            found if not code else (said or f"exit code {code}").splitlines()[-1],
            advice,
        )
    elif (cuda := cuda_of_torch()) and "NCCL" not in built:
        advice = "GPUs will talk through the host's memory: build Horovod with NCCL"
        yield Finding("horovod", "warning", f"{found}, without NCCL though torch has CUDA {cuda}", advice)
    else:
        yield Finding("horovod", "ok", found)


def cuda_of_torch() -> str | None:
    """The CUDA version of the installed torch, found without importing it."""
    try:
        found = importlib.util.find_spec("torch")
        text = (Path(found.origin).parent / "version.py").read_text() if found and found.origin else ""
    except (OSError, ValueError):
        return None
    match = re.search(r"^cuda\b.*'([\d.]+)'", text, re.MULTILINE)
    return match[1] if match else None


# ---- devices


def gpu(
    cuda: str | None, in_image: bool, driver_file: Path = Path("/proc/driver/nvidia/version")
) -> Iterator[Finding]:
    """Is the driver new enough for the image's CUDA, and does the image see it?"""
    check = "gpu"
    text = driver_file.read_text() if driver_file.exists() else ""
    match = re.search(r"\s(\d{3,})\.(\d+)(?:\.\d+)?\s", text)
    if match is None:
        asked = os.environ.get("SLURM_GPUS_ON_NODE") or os.environ.get("CUDA_VISIBLE_DEVICES")
        if asked:
            advice = "Slurm gave this job GPUs, but no NVIDIA driver is loaded: ask the site"
            yield Finding(check, "problem", "no driver", advice)
        else:
            yield Finding(check, "ok", "no GPU here" + (f"; CUDA {cuda} goes unchecked" if cuda else ""))
        return
    driver, least = match[0].strip(), DRIVERS.get(int(cuda.partition(".")[0])) if cuda else None
    said = f"driver {driver}" + (f", CUDA {cuda}" if cuda else "")
    if least and int(match[1]) < least:
        advice = (
            f"CUDA {cuda} needs driver {least} or newer: build the image for an older CUDA, or ask the site"
        )
        yield Finding(check, "problem", said, advice)
        return
    if in_image and cuda:
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            yield Finding(check, "problem", f"{said}, but no libcuda.so.1", "start the image with --nv")
            return
    yield Finding(check, "ok", said)


def network(wanted: str | None, net: Path = Path("/sys/class/net")) -> Iterator[Finding]:
    """Network interfaces between ranks. wanted: the one that the site names."""
    check = "network"
    state, infiniband = {}, []
    for entry in sorted(net.iterdir()) if net.exists() else []:
        if entry.name != "lo" and (entry / "operstate").exists():
            state[entry.name] = (entry / "operstate").read_text().strip()
            if (entry / "type").read_text().strip() == INFINIBAND and state[entry.name] == "up":
                infiniband.append(entry.name)
    said = ", ".join(f"{name} {is_}" for name, is_ in state.items()) or "loopback only"
    usable = [name for name, is_ in state.items() if is_ in ("up", "unknown")]
    if wanted and wanted not in usable:
        advice = f"the site's interface is {wanted}: name one that is up, or none, and the route is taken"
        yield Finding(check, "problem", said, advice)
    elif not usable:
        yield Finding(check, "warning", said, "ranks on several nodes cannot reach each other from here")
    elif infiniband and not wanted:
        advice = (
            f'set interface = "{infiniband[0]}" in the site, or ranks take the route between the node names'
        )
        yield Finding(check, "warning", said, advice)
    else:
        yield Finding(check, "ok", said)
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if infiniband and locked != resource.RLIM_INFINITY:
        advice = "InfiniBand pins memory: ask the site for an unlimited `ulimit -l` in jobs"
        yield Finding("limits", "warning", f"{locked / 1024:.0f} KB of locked memory", advice)


def limits() -> Iterator[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < FILES:
        advice = f"every shard is an open file: ask for a hard `ulimit -n` of {FILES}"
        yield Finding("limits", "warning", f"{hard} open files", advice)
    else:
        yield Finding(
            "limits", "ok", "open files: " + ("unlimited" if hard == resource.RLIM_INFINITY else str(hard))
        )
