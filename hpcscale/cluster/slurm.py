"""Slurm on the login side: the only file that calls its programs. ranks/slurm.py is the side of the ranks."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hpcscale.cluster import programs
from hpcscale.files import Told

ACTIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING", "SIGNALING",
          "STAGE_OUT", "STOPPED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED", "RESV_DEL_HOLD"}  # fmt: skip

MAX_ARRAY_SIZE = 1001  # Slurm's default
SECONDS = 60.0  # that a program of Slurm may take to answer
# Variables of the submitting shell that sbatch would pass on but a job must not get: options of sbatch and of
# programs that the script calls, variables of another job, and what changes the image or the batch shell.
CLEARED = re.compile(
    r"(HPCSCALE|SLURMD?|SBATCH|SRUN|SALLOC|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO|APPTAINER|SINGULARITY)(ENV)?_"
    r"|(CUDA_VISIBLE_DEVICES|SHELLOPTS|BASHOPTS)$"
)
KEPT = {"SLURM_CONF", "SLURM_JWT"} | {
    f"{program}_{folder}" for program in ("APPTAINER", "SINGULARITY") for folder in ("TMPDIR", "CACHEDIR")
}
ID = r"[0-9]+(?:_[0-9]+)?"  # of a job, or of one task of an array


class SlurmError(Told):
    """Slurm is not here, or has refused; the message quotes it."""


class UnsureError(SlurmError):
    """sbatch failed, but the job may wait or run even so."""


def cleared(environment: Mapping[str, str]) -> set[str]:
    """The variables of a shell that must not reach a job."""
    return {name for name in environment if CLEARED.match(name)} - KEPT


def submit(script: Path, output: Path, token: str, own_comment: bool = False) -> tuple[str, str]:
    """Hand a script to sbatch. Returns the id of the job, and what else sbatch said.

    token: is in the name of the script and in the job's comment (unless own_comment: the script sets one); by
    it the job is found if sbatch does not tell its id, fails, or is too slow. Raises SlurmError or
    UnsureError.
    """
    # As an option, because a path may hold characters that a line of the script cannot. Slurm takes a path
    # with one of these two characters for a pattern: then only Slurm's own few words go elsewhere, because
    # the script itself writes to its log.
    name = "/dev/null" if re.search(r"[%\\]", str(output.parent)) else str(output)
    comment = [] if own_comment else [f"--comment={token}"]
    done = _run("sbatch", "--parsable", f"--output={name}", *comment, str(script))
    if done.code == programs.MISSING:
        raise SlurmError(_words("sbatch", done))
    said = [line for line in f"{done.out}\n{done.err}".splitlines() if line.strip()]
    told = {found[1]: line for line in done.out.splitlines() if (found := _told(line))}
    if done.code == 0 and len(told) == 1:
        [(job, line)] = told.items()
        said.remove(line)
        return job, "\n".join(said)
    words = _words("sbatch", done)
    if done.code == 0:
        words = f"sbatch: told no id of a job, but: {' / '.join(said) or 'nothing'}"
    try:
        job = find(token) or next((job for job in told if _squeue(job, "%i %T")), None)
    except SlurmError as error:
        raise UnsureError(f"{words}\nand {error}") from None
    if job:
        return job, f"{words}\nSlurm has the job: {job}"
    unsure = done.code in (0, programs.LATE) or re.search(r"(?i)timed?[ -]?out|connect|contact", done.err)
    raise UnsureError(words) if unsure else SlurmError(words)


def _told(line: str) -> re.Match[str] | None:
    """Match a line of sbatch that holds the id of a job, with --parsable or without."""
    return re.fullmatch(r"\s*(?:Submitted batch job )?([0-9]+)(?:;\S*| on cluster \S+)?\s*", line)


def find(token: str) -> str | None:
    """The job with this token in its comment or its script's name, if Slurm has it. Raises SlurmError."""
    text = _call("squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%i %k %o")
    for line in text.splitlines():
        if token in line and (found := re.match(r"\s*([0-9]+)", line)):
            return found[1]
    return None


def states(jobs: Iterable[str]) -> dict[str, str] | None:
    """What Slurm knows of jobs: id (of a task "ID_TASK") to state. Finished jobs are forgotten after minutes.

    None if Slurm cannot be asked.
    """
    if not (wanted := ",".join(jobs)):
        return {}
    try:
        found = _squeue(wanted, "%i %T")
    except SlurmError:
        return None
    return _sacct(wanted) | {job: state for job, state in found.items() if re.fullmatch("[A-Z_]+", state)}


def time_left(job: str) -> int | None:
    """Seconds to the time limit of a running job."""
    try:
        return next(map(seconds, _squeue(job, "%i %L").values()), None)
    except SlurmError:
        return None


def reason(job: str) -> str | None:
    """Why a job waits, in Slurm's word."""
    try:
        return next((why for why in _squeue(job, "%i %r").values() if why != "None"), None)
    except SlurmError:
        return None


def seconds(text: str) -> int | None:
    """Seconds of a time span in Slurm's form, "D-HH:MM:SS", where parts at the front may be missing."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def cancel(jobs: Sequence[str]) -> None:
    _call("scancel", *jobs)


def max_array_size() -> int:
    """The most tasks that an array may have: the site's MaxArraySize, or Slurm's default."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config"), re.MULTILINE)
    except SlurmError:
        found = None
    return int(found[1]) if found else MAX_ARRAY_SIZE


def settings(seconds: float = 30) -> dict[str, str]:
    """What `scontrol show config` says; the key "as of" is the controller's time. Raises SlurmError."""
    text = _call("scontrol", "show", "config", seconds=seconds)
    found = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
    stated = re.search(r"as of (\S+)", text)
    return found | ({"as of": stated[1]} if stated else {})


def partitions() -> list[str]:
    lines = _call("sinfo", "--noheader", "--format=%R", seconds=30).splitlines()
    return [line.strip() for line in lines if re.fullmatch(r"\s*\S+\s*", line)]


def _squeue(jobs: str, fields: str) -> dict[str, str]:
    """What squeue says of jobs, by id. fields: "%i" and one more."""
    try:
        lines = _call(
            "squeue", "--noheader", "--states=all", "--array", f"--jobs={jobs}", f"--format={fields}"
        )
    except SlurmError as error:
        if "Invalid job id" in str(error):  # Slurm has forgotten all these jobs
            return {}
        raise
    return _of(jobs, re.findall(r"^[ \t]*([0-9]+[^\s|]*)[ \t]+(\S.*?)[ \t\r]*$", lines, re.MULTILINE))


def _sacct(jobs: str) -> dict[str, str]:
    if not shutil.which("sacct"):
        return {}
    try:
        lines = _call(
            "sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={jobs}", "--format=JobID,State"
        )
    except SlurmError:  # this cluster has no accounting
        return {}
    return _of(jobs, re.findall(r"^([0-9]+[^\s|]*)\|([A-Z_]+)", lines, re.MULTILINE))  # "CANCELLED by 1000"


def _of(jobs: str, found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Only what was found about these jobs: a site's programs may print other lines too."""
    wanted = {job.partition("_")[0] for job in jobs.split(",")}
    return {name: value for name, value in found if re.split("[_+]", name)[0] in wanted}


def _call(program: str, *arguments: str, seconds: float | None = None) -> str:
    """What a program prints. Raises SlurmError."""
    done = _run(program, *arguments, seconds=seconds)
    if done.code:
        raise SlurmError(_words(program, done))
    return done.out


def _run(program: str, *arguments: str, seconds: float | None = None) -> programs.Done:
    without = cleared(os.environ)
    environment = {name: value for name, value in os.environ.items() if name not in without}
    return programs.run([program, *arguments], seconds or SECONDS, environment)


def _words(program: str, done: programs.Done) -> str:
    said = done.err.strip() or done.out.strip() or f"exit code {done.code}"
    if done.code == programs.MISSING:
        return f"{said}: this is not a login node of a Slurm cluster"
    return said if said.startswith(f"{program}:") else f"{program}: {said}"
