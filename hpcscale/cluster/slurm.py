"""The only file that calls Slurm's programs on the login side."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpcscale.files import Told

ACTIVE = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING", "SIGNALING",
          "STAGE_OUT", "STOPPED", "REQUEUE_HOLD", "SPECIAL_EXIT", "REQUEUE_FED", "RESV_DEL_HOLD"}  # fmt: skip

MAX_ARRAY_SIZE = 1001  # Slurm's own, where the site sets none


class SlurmError(Told):
    """Slurm is not here, or refused; the message has its own words."""


def submit(script: Path, output: Path) -> str:
    """Hand a script over; the id of the job."""
    # As an option: a path may hold what a line of the script cannot. With these two characters Slurm takes it
    # for a pattern; then only Slurm's own few words are lost, for the script itself writes to its log.
    name = "/dev/null" if re.search(r"[%\\]", str(output.parent)) else str(output)
    return _call("sbatch", "--parsable", f"--output={name}", str(script)).strip().partition(";")[0]


def states(jobs: Iterable[str]) -> dict[str, str] | None:
    """What Slurm knows of jobs: id (of a task "ID_TASK") to state; of finished ones only for some minutes.

    None if it cannot be asked.
    """
    if not (wanted := ",".join(jobs)):
        return {}
    try:
        found = _squeue(wanted, "%i %T")
    except SlurmError:
        return None
    return _sacct(wanted) | found if shutil.which("sacct") else found


def time_left(job: str) -> int | None:
    """Seconds to the time limit of a running job."""
    try:
        return next(map(seconds, _squeue(job, "%i %L").values()), None)
    except SlurmError:
        return None


def seconds(text: str) -> int | None:
    """Of one of Slurm's spans, "D-HH:MM:SS" with parts left out in front."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def cancel(jobs: Sequence[str]) -> None:
    _call("scancel", *jobs)


def max_array_size() -> int:
    """Tasks that an array may have: the site's MaxArraySize, or Slurm's default."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call("scontrol", "show", "config"), re.MULTILINE)
    except SlurmError:
        found = None
    return int(found[1]) if found else MAX_ARRAY_SIZE


def settings(seconds: float = 30) -> dict[str, str]:
    """What `scontrol show config` says, and under "as of" the controller's time. Raises SlurmError."""
    text = _call("scontrol", "show", "config", seconds=seconds)
    found = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", text, re.MULTILINE))
    stated = re.search(r"as of (\S+)", text)
    return found | ({"as of": stated[1]} if stated else {})


def partitions() -> list[str]:
    return [name for name in _call("sinfo", "--noheader", "--format=%R", seconds=30).split() if name]


def _squeue(jobs: str, fields: str) -> dict[str, str]:
    try:
        lines = _call(
            "squeue", "--noheader", "--states=all", "--array", f"--jobs={jobs}", f"--format={fields}"
        )
    except SlurmError as error:
        if "Invalid job id" in str(error):  # it knows none of these jobs any more
            return {}
        raise
    return dict(line.split(maxsplit=1) for line in lines.splitlines() if " " in line.strip())


def _sacct(jobs: str) -> dict[str, str]:
    try:
        lines = _call(
            "sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={jobs}", "--format=JobID,State"
        )
    except SlurmError:  # no accounting here
        return {}
    rows = [line.split("|") for line in lines.splitlines()]
    return {job: state.partition(" ")[0] for job, state in rows}  # "CANCELLED by 1000"


def _call(program: str, *arguments: str, seconds: float | None = None) -> str:
    # What the shell of the user holds of another job, or of sbatch's own options, is not to change this one.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "SBATCH_", "SQUEUE_", "SACCT_"))
    }
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, env=environment, timeout=seconds
        )
    except FileNotFoundError:
        raise SlurmError(f"no '{program}' on PATH: this is not a login node of a Slurm cluster") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{program}: no answer in {seconds:.0f} s") from None
    if done.returncode:
        raise SlurmError(f"{program}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout
