"""The test cluster as its tests use it: commands of this folder and of Slurm in, plain values out.

What a user would do is done on the login node as the ordinary user, by `login` and `hpcscale`. The tests
themselves run as root on the host, which sees the processes of all machines.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

HERE = Path(__file__).parent
FOLDER = Path(os.environ.get("HPCSCALE_CLUSTER", "/var/tmp/hpcscale-cluster"))
SHARED = FOLDER / "shared"
CLONE = SHARED / "hpcscale"
WORK = SHARED / "work"  # the working folder of all jobs
SMALL = SHARED / "small"  # a disk of some hundred megabytes
IMAGE = Path(os.environ.get("HPCSCALE_CLUSTER_IMAGE", FOLDER / "images" / "hpcscale-cpu.sif"))
SITE = WORK / "site.toml"
APPTAINER = os.environ.get("HPCSCALE_CLUSTER_APPTAINER", "apptainer")
USER = os.environ.get("HPCSCALE_CLUSTER_USER", "hpc")

ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "BOOT_FAIL",
}

T = TypeVar("T")


class Failed(RuntimeError):
    """A command failed; the message has its output."""


def command(*words: str | Path, timeout: float = 120, **options: Any) -> str:
    """Run a command of this folder (up, login, crash, ...); returns what it prints. Raises Failed."""
    done = subprocess.run(
        [HERE / words[0], *words[1:]], capture_output=True, text=True, timeout=timeout, check=False, **options
    )
    if done.returncode:
        raise Failed(f"{' '.join(map(str, words))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def login(*words: str | Path, online: bool = False, at: str = "ctl", timeout: float = 120) -> str:
    """A command on the login node (or another machine), as the user, in the user's folder."""
    options = ("--online",) if online else ()
    return command(
        "login", "--at", at, *options, *words, timeout=timeout, cwd=WORK if WORK.is_dir() else SHARED
    )


def hpcscale(*words: str | Path, online: bool = False, timeout: float = 120) -> str:
    """The project's own command line, as installed by `make login` in the user's clone."""
    return login(CLONE / ".venv-login/bin/hpcscale", *words, online=online, timeout=timeout).strip()


def submit(*words: str | Path) -> str:
    """`hpcscale submit`; the id of the job."""
    job = hpcscale("submit", "--site", SITE, *words)
    assert job.isdigit(), job
    return job


# ---- jobs


def asked(*words: str) -> str:
    """What Slurm answers. On a machine under load its controller may hang up on a client, which then ends
    with SIGPIPE and no word: it is asked again, twice at most."""
    for more in (2, 1, 0):
        try:
            return login(*words)
        except Failed as error:
            if not more or f"exit code {-signal.SIGPIPE}" not in str(error):
                raise
            time.sleep(1)
    raise AssertionError


def state(job: str) -> str:
    """PENDING, RUNNING, COMPLETED, ...; of an array that which is not COMPLETED, if there is one."""
    found = set(asked("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").split())
    return next(iter(sorted(found - {"COMPLETED"}) or found), "UNKNOWN")


def facts(job: str) -> dict[str, str]:
    """What `scontrol show job` tells."""
    words = asked("scontrol", "--oneliner", "show", "job", job).splitlines()[0].split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def wait_for(what: str, seconds: float, found: Callable[[], T | None], job: "Job | None" = None) -> T:
    """Poll until `found` gives something true. AssertionError, with the job's log, when it never does."""
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{seconds:.0f} s without: {what}\n{job.tail() if job else ''}")
        time.sleep(0.2)


def ended(job: str, seconds: float = 180) -> str:
    """Wait for the end of a job that is nobody's training; its state."""
    return wait_for(f"end of job {job}", seconds, lambda: ((found := state(job)) in ENDED and found) or None)


def outside(path: Path) -> Path:
    """Where the host sees a file of the machines: their small disk is mounted on them alone."""
    plug = (FOLDER / "state/ctl/plug").read_text().split()[0]
    init = Path(f"/proc/{plug}/task/{plug}/children").read_text().split()[0]
    return Path(f"/proc/{init}/root{path}")


class Process(NamedTuple):
    pid: int  # as the host counts
    node: str
    rank: int


class Job(NamedTuple):
    """A training that was submitted."""

    run: Path
    id: str
    batch: int

    def log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl that are whole."""
        file = outside(self.run) / "log.jsonl"
        try:
            lines = file.read_text().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:  # being written
                break
        return found

    def step(self) -> int:
        """Steps done, as far as the log says."""
        return max((line["step"] for line in self.log() if line["event"] == "step"), default=0)

    def reached(self, step: int, seconds: float = 120) -> int:
        """Wait until the log has this step; the step it has."""
        return wait_for(
            f"step {step} of {self.run.name}", seconds, lambda: (s := self.step()) >= step and s, self
        )

    def output(self) -> str:
        file = outside(self.run) / "jobs" / f"{self.id}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def tail(self) -> str:
        return f"job {self.id}: {facts(self.id).get('JobState')}\n" + "\n".join(
            self.output().splitlines()[-60:]
        )

    def attempts(self) -> list[dict[str, Any]]:
        file = outside(self.run) / "jobs" / f"{self.id}.attempts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def ended(self, seconds: float = 240) -> str:
        return wait_for(
            f"end of job {self.id}",
            seconds,
            lambda: ((found := state(self.id)) in ENDED and found) or None,
            self,
        )

    def completed(self, seconds: float = 240) -> None:
        found = self.ended(seconds)
        assert found == "COMPLETED", f"{found}\n{self.tail()}"

    def restarts(self) -> int:
        return int(facts(self.id)["Restarts"])

    def processes(self) -> dict[int, Process]:
        """The Python of each rank, wherever it runs; empty while there is none."""
        found: dict[int, Process] = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if str(self.run).encode() not in words or b"python" not in words[0]:
                    continue
                variables = dict(
                    pair.split("=", 1)
                    for pair in (folder / "environ").read_text(errors="replace").split("\0")
                    if "=" in pair
                )
            except OSError:  # it has ended
                continue
            if variables.get("SLURM_JOB_ID") == self.id and "SLURM_PROCID" in variables:
                rank = int(variables["SLURM_PROCID"])
                process = Process(int(folder.name), variables.get("SLURMD_NODENAME", "?"), rank)
                found[rank] = min(found.get(rank, process), process)  # the oldest, where it has children
        return found

    def process(self, rank: int, seconds: float = 60) -> Process:
        return wait_for(f"rank {rank} of job {self.id}", seconds, lambda: self.processes().get(rank), self)

    def weights(self) -> str:
        """Digest of the last checkpoint's tensors, optimizer included."""
        return digest(self.checkpoints()[-1])

    def checkpoints(self) -> list[Path]:
        """Files of tensors that have their record, oldest first."""
        return [
            file.with_suffix(".safetensors")
            for file in sorted((outside(self.run) / "checkpoints").glob("step-*.json"))
        ]


def digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def all_idle(seconds: float = 60) -> None:
    """Wait until every node is free: a drill begins with a healthy cluster."""
    wait_for("idle nodes", seconds, lambda: set(login("sinfo", "-h", "-o", "%T").split()) == {"idle"} or None)
