"""The text of a job script. In: a template of slurm/, what a job asks for, and facts of a site. Out: bash.

A pure function. Text of the user is only put in as one quoted word of bash, or into a comment with all
special characters removed, so it cannot be executed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcscale import catalogue
from hpcscale.cluster import templates
from hpcscale.cluster.site import Resources, Site, Template

MARK = "# ----"


@dataclass(frozen=True)
class BatchJob:
    """One job that `hpcscale submit` was asked for."""

    template: Template
    folder: Path  # where its log and attempts lie; absolute
    arguments: tuple[str, ...]  # of the template, after FOLDER
    image: Path  # absolute
    image_sha256: str
    resources: Resources
    nodes: int = 1
    after: tuple[str, ...] = ()  # jobs that must have succeeded before
    after_any: tuple[str, ...] = ()  # jobs that must have ended before, however
    array: str | None = None  # for sbatch: "0-7%4"
    parts: int = 0  # parts of an array's work; may be more than its tasks
    catalogue: Path | None = None  # of names of data sets, if it is not that of the working folder; absolute


def render(job: BatchJob, site: Site) -> str:
    """The template with everything filled in; the script needs no other file of hpcscale."""
    text = (templates.slurm() / f"{job.template}.sbatch").read_text()
    head, _, rest = text.partition(f"{MARK} by hand")
    _, _, tail = rest.partition(f"\n{MARK}\n")
    library = (templates.slurm() / "lib.sh").read_text()
    return "".join(
        [
            head,
            f"{MARK} from hpcscale submit\n",
            *(f"#SBATCH {directive}\n" for directive in directives(job, site)),
            # None of our variables in the submitting shell is meant for the job.
            'unset "${!HPCSCALE_@}"\n',
            *_modules(site),
            *(_line(f"export {name}", "=", value) for name, value in variables(job, site).items()),
            _line("set --", " ", str(job.folder), *job.arguments),
            f"{MARK} slurm/lib.sh\n",
            library,
            f"{MARK}\n",
            tail,
        ]
    )


def directives(job: BatchJob, site: Site) -> Iterator[str]:
    wanted = job.resources
    yield f"--job-name={job_name(job)}"
    for option in ("partition", "account", "qos", "constraint", "time"):
        if value := getattr(wanted, option):
            yield f"--{option}={value}"
    yield f"--nodes={job.nodes}"
    yield f"--ntasks-per-node={wanted.ranks()}"
    if wanted.cpus_per_rank:
        yield f"--cpus-per-task={wanted.cpus_per_rank}"
    if wanted.gpus_per_node:
        yield f"--gpus-per-node={wanted.gpus_per_node}"
    if wanted.memory:
        yield f"--mem={wanted.memory}"
    if job.array:
        yield f"--array={job.array}"
    before = {"afterok": job.after, "afterany": job.after_any}
    if any(before.values()):
        parts = (":".join((word, *ids)) for word, ids in before.items() if ids)
        yield f"--dependency={','.join(parts)}"
    if job.after:
        yield "--kill-on-invalid-dep=yes"
    yield f"--signal=B:USR1@{site.stop_seconds}"
    yield "--requeue"
    yield "--open-mode=append"
    yield from wanted.directives


def variables(job: BatchJob, site: Site) -> dict[str, str]:
    """What slurm/lib.sh reads. HPCSCALE_ENV_NAME becomes NAME in the image; the batch shell ignores it."""
    names = {
        "HPCSCALE_IMAGE": str(job.image),
        "HPCSCALE_IMAGE_SHA256": job.image_sha256,
        "HPCSCALE_APPTAINER": site.apptainer,
        "HPCSCALE_BINDS": "\n".join(site.binds),
        "HPCSCALE_PASS": " ".join(site.pass_on),
        "HPCSCALE_RETRIES": str(site.retries),
        "HPCSCALE_INTERFACE": site.interface or "",
        "HPCSCALE_BACKEND": site.backend or "",
        "HPCSCALE_MPI": site.mpi,
        "HPCSCALE_LAUNCHER": "" if site.mpi == "none" else "mpi",
        "HPCSCALE_NVIDIA": "1" if job.resources.nvidia else "",
    }
    if job.parts:
        names["HPCSCALE_PARTS"] = str(job.parts)
    inside = {f"HPCSCALE_ENV_{name}": value for name, value in site.environment.items()}
    if job.catalogue:
        inside[f"HPCSCALE_ENV_{catalogue.VARIABLE}"] = str(job.catalogue)
    return {name: value for name, value in names.items() if value} | inside


def job_name(job: BatchJob) -> str:
    """A name for squeue: the command, and the folder without special characters."""
    words = ("train",) if job.template == "train" else job.arguments[:2]
    plain = [re.sub(r"[^A-Za-z0-9._]+", "-", word).strip("-") for word in (*words, job.folder.name)]
    return "-".join(filter(None, plain))


def quote(word: str) -> str:
    """One word of bash, on one line."""
    if "\n" in word:
        escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return f"$'{escaped}'"
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def _line(begin: str, joint: str, *words: str) -> str:
    line = f"{begin}{joint}{' '.join(map(quote, words))}\n"
    # Text that looks like a variable is meant literally: that is why it is quoted.
    return "# shellcheck disable=SC2016\n" * bool(re.search("'[^']*[$`]", line)) + line


def _modules(site: Site) -> Iterator[str]:
    if site.modules:
        yield "# shellcheck source=/dev/null  # a batch shell is no login shell\n"
        yield '[ -n "$(type -t module)" ] || source /etc/profile\n'
        yield f"module load {' '.join(map(quote, site.modules))}\n"
