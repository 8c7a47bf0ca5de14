"""What matters to jobs on this machine: stray packages, GPUs, network, limits. For disks see storage.py.

In: the site's settings. Out: `Finding`s, for doctor.py. It reads but changes nothing, and needs neither Slurm
nor Apptainer nor the libraries of training.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import resource
import site
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hpcscale.cluster import programs

FILES = 4096  # open files: one per shard, and some more
DRIVERS = {11: 450, 12: 525, 13: 580}  # CUDA: oldest driver, by minor-version compatibility (NVIDIA's table)
INFINIBAND = "32"  # ARPHRD_INFINIBAND of Linux's if_arp.h


class Finding(NamedTuple):
    check: str
    state: Literal["ok", "warning", "problem"]  # a problem would stop a job
    found: str
    advice: str = ""


def call(words: Sequence[str], seconds: float = 20) -> tuple[int, str]:
    """Exit code (127: no such program, 124: no answer in time) and all output of a program."""
    done = programs.run(words, seconds)
    return done.code, (done.out + done.err).strip()


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


def horovod(backend: str | None) -> Iterator[Finding]:
    """What Horovod was built with. Takes some seconds. backend: the site's; torch needs no Horovod."""
    if importlib.util.find_spec("horovod") is None:
        if backend == "torch":
            yield Finding("horovod", "ok", "not installed, nor needed: the site's backend is torch")
        else:
            advice = "more than one rank needs it (`make setup`), or backend = 'torch' in the site or recipe"
            yield Finding("horovod", "problem", "not installed", advice)
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
