"""What on this machine would stop a job or get in its way: on a login node, a compute node, and in an image.

In: a folder where jobs would write, and the site file if there is one. Out: findings, each with what to do.
node.py and storage.py look at the machine itself, this file at Slurm, Apptainer, the site and its image.
"""

import os
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from hpcscale.cluster import node, records, slurm, storage
from hpcscale.cluster.node import Finding
from hpcscale.cluster.site import Site, Template, find, load
from hpcscale.config import ConfigError

Where = Literal["login node", "compute node", "image"]
SLURM, APPTAINER = (21, 8), (1, 1)  # the oldest versions with all options that jobs use
SINGULARITY = (3, 10)
# Our variables that are meant for the login node.
LOGIN = {"HPCSCALE_SITE", "HPCSCALE_CACHE", "HPCSCALE_TORCH"}


def locate() -> Where:
    """Where this process runs. A machine outside any cluster counts as a login node without Slurm."""
    environment = os.environ
    if "APPTAINER_CONTAINER" in environment or "SINGULARITY_CONTAINER" in environment:
        return "image"
    if Path("/.singularity.d").is_dir():
        return "image"
    if "SLURM_JOB_ID" in environment or "SLURMD_NODENAME" in environment:
        return "compute node"
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().strip() == "slurmd":
                return "compute node"
        except OSError:
            continue
    return "login node"


def examine(folder: Path, name: str | None, where: Where) -> list[Finding]:
    """All findings. name: of the site, as `submit --site` takes it."""
    found: list[Finding] = []
    here: Site | None = None
    try:
        here = load(find(name))
    except ConfigError as error:
        if name is not None or where == "login node":
            state: Literal["warning", "problem"] = "warning" if name is None else "problem"
            advice = "`hpcscale submit` needs one: copy slurm/sites/example.toml and change it"
            found.append(Finding("site", state, str(error).splitlines()[0], advice))
    cuda = node.cuda_of_torch()
    if where != "image":
        found += [*slurm_programs(here, where), *_apptainer(here, where)]
        if where == "login node":
            found.append(shell(os.environ))
        if here is not None:
            found += [*_site(here, where), *image(here, where)]
            cuda = cuda_of_image(here.image)
    found += storage.file_system(folder, shared=shutil.which("sbatch") is not None)
    found += [*storage.locks(folder), *storage.clock(folder), *node.packages(where == "image")]
    if where != "login node":
        found += [*node.gpu(cuda, where == "image"), *node.network(here.interface if here else None)]
        found += node.limits()
    if where == "image":
        found += node.horovod(here.backend if here else None)
    return found


# ---- Slurm


def slurm_programs(here: Site | None, where: Where) -> Iterator[Finding]:
    check = "slurm"
    for program in ("sbatch", "squeue", "scontrol", "srun"):
        if shutil.which(program) is None:
            advice = "load the site's module for Slurm, or go to a login node: nothing can be submitted here"
            yield Finding(check, "problem", f"no '{program}' on PATH", advice)
            return
    code, said = node.call(["sbatch", "--version"])
    said = "Slurm" if code else said
    version = numbers(said)
    if version and version < SLURM:
        advice = f"jobs are written for Slurm {SLURM[0]}.{SLURM[1]:02} and newer"
        yield Finding(check, "warning", said, advice)
    begin = time.time()
    try:
        settings = slurm.settings()
    except slurm.SlurmError as error:
        advice = "the controller does not answer: see `scontrol ping`, and ask the site"
        yield Finding(check, "problem", f"{said}: {str(error).splitlines()[-1]}", advice)
        return
    size = settings.get("MaxArraySize", str(slurm.MAX_ARRAY_SIZE))
    yield Finding(check, "ok", f"{said}, controller answers, arrays of up to {size} tasks")
    if settings.get("ProctrackType") == "proctrack/linuxproc":
        advice = "signals reach the program that holds the image open, too: ask for proctrack/cgroup"
        yield Finding(check, "warning", "ProctrackType is proctrack/linuxproc", advice)
    if (asked := moment(settings.get("as of", ""))) is not None:
        yield storage.skewed(max(begin - 1 - asked, asked - time.time(), 0.0), "Slurm's controller")
    if where == "login node" and shutil.which("sacct") and node.call(["sacct", "-n", "-X", "-j", "1"])[0]:
        advice = "`hpcscale status` takes what squeue and the job's own files say"
        yield Finding("accounting", "ok", f"sacct knows nothing here; {advice}")
    if here is not None:
        try:
            known = slurm.partitions()
        except slurm.SlurmError as error:
            yield Finding("partition", "warning", str(error), "partitions of the site go unchecked")
            return
        tables = [here, *(table for table in (here.train, here.array, here.single) if table)]
        for wanted in sorted({table.partition for table in tables if table.partition}):
            for name in wanted.split(","):
                if name not in known:
                    advice = f"the site names it; there are {', '.join(known) or 'none'}"
                    yield Finding("partition", "problem", f"no partition {name}", advice)


def shell(environment: Mapping[str, str]) -> Finding:
    """What in this shell's environment would change a job if it reached it."""
    found = sorted(slurm.cleared(environment) - LOGIN)
    if not found:
        return Finding("shell", "ok", "sets nothing that a job must not get")
    advice = "`hpcscale submit` passes none of them on; what jobs need belongs into the site file"
    return Finding("shell", "warning", f"sets {', '.join(found)}", advice)


def moment(text: str) -> float | None:
    """Seconds since 1970 of a time as Slurm prints it, in this machine's zone."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


# ---- Apptainer and the image


def _apptainer(here: Site | None, where: Where) -> Iterator[Finding]:
    check = "apptainer"
    wanted = here.apptainer if here else "apptainer"
    program = shutil.which(wanted) or (None if here else shutil.which("singularity"))
    if program is None:
        modules = f"; the site loads {', '.join(here.modules)} in jobs" if here and here.modules else ""
        advice = "load its module, or ask the site to install it: jobs run in an image"
        late = where == "login node" or modules  # compute nodes may have it even so
        yield Finding(check, "warning" if late else "problem", f"no '{wanted}' on PATH{modules}", advice)
        return
    code, said = node.call([program, "--version"])
    version, least = numbers(said), SINGULARITY if "singularity" in said else APPTAINER
    if code or version is None or version < least:
        advice = "jobs use options of Apptainer 1.1 (SingularityCE 3.10): ask for a newer one"
        yield Finding(check, "problem", said.splitlines()[-1] if said else f"exit code {code}", advice)
        return
    yield Finding(check, "ok", said)
    setuid = _has_setuid(Path(program))
    code, said = node.call(["unshare", "--user", "--map-root-user", "true"])
    if code == 0:
        yield Finding("user namespaces", "ok", "allowed")
    elif setuid:
        yield Finding(
            "user namespaces",
            "ok",
            "not allowed, but Apptainer is installed setuid; images cannot be built here",
        )
    else:
        advice = "ask the site for user namespaces (sysctl user.max_user_namespaces) or a setuid Apptainer"
        yield Finding("user namespaces", "problem", said or f"exit code {code}", advice)
    yield fuse(Path(program), setuid)
    yield from storage.room(building=where == "login node")


def _has_setuid(program: Path) -> bool:
    for name in ("apptainer", "singularity"):
        starter = program.resolve().parents[1] / "libexec" / name / "bin" / "starter-suid"
        if starter.exists() and starter.stat().st_mode & stat.S_ISUID:
            return True
    return False


def fuse(program: Path, setuid: bool) -> Finding:
    """Can an image be mounted? If not, every rank has to unpack it."""
    if setuid:
        return Finding("fuse", "ok", "not needed: Apptainer is installed setuid")
    slow = "without, every rank unpacks the whole image first, which takes minutes and gigabytes"
    device = "/dev/fuse"
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding("fuse", "warning", f"{device} cannot be opened", f"ask the site for it; {slow}")
    beside = program.resolve().parents[1] / "libexec" / "apptainer" / "bin"
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:{beside}"
    for name in ("squashfuse_ll", "squashfuse"):
        if found := shutil.which(name, path=places):
            return Finding("fuse", "ok", f"{device}, {found}")
    return Finding("fuse", "warning", "no squashfuse", f"ask the site to install squashfuse; {slow}")


def _site(here: Site, where: Where) -> Iterator[Finding]:
    """Do the site's folders exist, and do its time limits leave time to work?"""
    for bind in here.missing():
        advice = "jobs cannot start with it: make the folder, or take it out of the site"
        yield Finding("binds", "problem", f"{bind}: there is nothing on this {where}", advice)
    for limit in sorted({here.resources(template).time or "" for template in get_args(Template)}):
        try:
            here.check_time(limit)
        except ConfigError as error:
            yield Finding("site", "problem", str(error), "`hpcscale submit` refuses such jobs")


def image(here: Site, where: Where) -> Iterator[Finding]:
    """Is the site's image there, with its record? Its digest is left to `image verify` and to every job."""
    check, file = "image", here.image
    if not file.is_file():
        advice = "build it (`hpcscale image build`), or name the right one in the site"
        if where == "compute node":
            advice = "put it on a file system that every node sees"
        yield Finding(check, "problem", f"{file} is not here", advice)
        return
    if wrong := here.image_fault():
        yield Finding(check, "problem", wrong, "name an image in the site that `hpcscale image build` made")
        return
    try:
        record = records.read_json(file.with_name(f"{file.name}.json"))
    except (FileNotFoundError, records.DamagedError) as error:
        record, why = {}, str(error)
    else:
        why = "no sha256 in it"
    if not record.get("sha256"):
        advice = "jobs compare the image with its record: make it with `hpcscale image build`"
        yield Finding(check, "problem", f"{file}: no record that can be read ({why})", advice)
        return
    size = record.get("bytes")
    if size is not None and size != file.stat().st_size:
        advice = "it was changed or cut after it was recorded, and jobs refuse it: build or copy it again"
        yield Finding(check, "problem", f"{file}: {file.stat().st_size} bytes, recorded are {size}", advice)
    else:
        yield Finding(check, "ok", f"{file}: {record.get('kind', '?')}, version {record.get('version', '?')}")


def cuda_of_image(file: Path) -> str | None:
    """The CUDA version that the image's torch was built for, from the bill of materials beside the image.

    A torch of the package index does not say it, but brings cuda-toolkit of that version.
    """
    try:
        listed = records.read_json(file.with_name(f"{file.name}.cdx.json"))["components"]
        versions = {part["name"]: str(part["version"]) for part in listed}
    except (FileNotFoundError, records.DamagedError, KeyError, TypeError):
        return None
    match = re.search(r"\+cu(\d+)(\d)$", versions.get("torch", "")) or re.match(
        r"(\d+)\.(\d+)", versions.get("cuda-toolkit", "")
    )
    return f"{match[1]}.{match[2]}" if match else None


def numbers(text: str) -> tuple[int, int] | None:
    """The first two numbers of a version."""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None
