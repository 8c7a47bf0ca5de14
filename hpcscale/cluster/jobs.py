"""What became of the jobs of a folder: files of FOLDER/jobs (and a run's log) in, plain values out.

Slurm is asked where it is at hand, and knows of finished jobs only for some minutes; the files know for ever.
"""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.cluster import slurm

Event = dict[str, Any]


class Attempt(NamedTuple):
    number: int
    nodes: str
    begin: int  # Unix time
    end: int | None = None  # None: it runs, or was lost
    verdict: str | None = None  # done, stopped, failed, retry, lost
    code: int | None = None
    blamed: str = ""


def ids(folder: Path) -> list[str]:
    """Jobs of the folder, the oldest first, submitted or by hand; an array is one."""
    found = {file.name.partition(".")[0].partition("_")[0] for file in (folder / "jobs").glob("[0-9]*.*")}
    return sorted(found, key=int)


def record(folder: Path, job: str) -> dict[str, Any]:
    """What `submit` wrote down; empty for a job by hand."""
    try:
        values: dict[str, Any] = json.loads((folder / "jobs" / f"{job}.json").read_text())
    except FileNotFoundError:
        return {}
    return values


def attempts(folder: Path, job: str) -> dict[str, list[Attempt]]:
    """Attempts of a job, or of each task of an array that has begun: "5" or "5_0" to its attempts."""
    files = [
        *(folder / "jobs").glob(f"{job}.attempts.jsonl"),
        *(folder / "jobs").glob(f"{job}_*.attempts.jsonl"),
    ]
    found = {}
    for file in files:
        tries: dict[int, Attempt] = {}
        for event in _lines(file):
            number = int(event.get("attempt", 0))
            if event.get("event") == "begin":
                tries[number] = Attempt(number, event["nodes"], event["time"])
            elif number in tries:
                tries[number] = tries[number]._replace(
                    end=event["time"],
                    verdict=event["verdict"],
                    code=event["code"],
                    blamed=event.get("blamed", ""),
                )
        found[file.name.partition(".")[0]] = list(tries.values())
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split("_")]))


def logs(folder: Path, job: str) -> list[Path]:
    files = [*(folder / "jobs").glob(f"{job}.log"), *(folder / "jobs").glob(f"{job}_*.log")]
    return sorted(files, key=lambda file: (len(file.name), file.name))


def active_trainings(folder: Path) -> set[str]:
    """Jobs that wait or run and train this folder; one submitted by hand is taken for one that does."""
    trains = [job for job in ids(folder) if record(folder, job).get("command", ["train"])[0] == "train"]
    return active(trains)


def active(jobs: list[str]) -> set[str]:
    """Those of the jobs that wait or run. Raises SlurmError if Slurm does not say."""
    known = slurm.states(jobs)
    if known is None:
        raise slurm.SlurmError("squeue does not tell which jobs wait or run")
    return {job.partition("_")[0] for job, state in known.items() if state in slurm.ACTIVE}


def state(tries: dict[str, list[Attempt]], known: dict[str, str] | None) -> str:
    """State of a job in Slurm's words: as Slurm knows it, else as its files tell.

    A job that Slurm has forgotten ({}) is over, however its files end; one that it cannot be asked for (None)
    may not be.
    """
    states = set((known or {}).values()) or {_told(task, known is None) for task in tries.values()}
    states = states or {"PENDING" if known is None else "CANCELLED"}
    for first in ("RUNNING", "COMPLETING", "PENDING"):
        if first in states:
            return first
    wrong = sorted(states - {"COMPLETED"})
    return wrong[0] if wrong else "COMPLETED"


def status(folder: Path) -> dict[str, Any]:
    """The newest job of the folder, how far its run is, and all jobs. FileNotFoundError without any."""
    everything = ids(folder)
    if not everything:
        raise FileNotFoundError(f"{folder}: no job was submitted for it: there is no {folder / 'jobs'}")
    known = slurm.states(everything)
    shown = [job_of(folder, job, known) for job in everything]
    newest = shown[-1]
    left = slurm.time_left(newest["job"]) if newest["state"] == "RUNNING" else None
    return {"folder": str(folder), **newest, "time_left": left, **progress(folder, shown), "jobs": shown}


def progress(folder: Path, shown: list[dict[str, Any]]) -> dict[str, Any]:
    """How far a training is, from its config.json and log.jsonl; all None for other folders.

    goodput is the time that steps took which count (a step that was done twice counts once), divided by the
    time since the first training job began, waiting in the queue between attempts included.
    """
    lines = {line["step"]: line for line in _lines(folder / "log.jsonl") if line.get("event") == "step"}
    try:
        steps = json.loads((folder / "config.json").read_text())["train"]["steps"]
    except (OSError, ValueError, KeyError):
        steps = None
    last: Event = lines[max(lines)] if lines else {}
    useful, samples, eta = 0.0, 0, None
    for step in sorted(lines):
        if rate := lines[step].get("samples_per_second"):
            useful += (lines[step]["samples"] - samples) / rate
        samples = lines[step]["samples"]
    if steps and last.get("samples_per_second"):
        eta = round((steps - last["step"]) * last["samples"] / last["step"] / last["samples_per_second"])
    trains = [job for job in shown if job["command"][:1] in ([], ["train"])]
    begins = [job["began"] for job in trains if job["began"]]
    ends = [job["ended"] or time.time() for job in trains if job["began"]]
    wall = max(ends) - min(begins) if begins else 0
    return {
        "step": last.get("step"),
        "steps": steps,
        "loss": last.get("loss"),
        "samples_per_second": last.get("samples_per_second"),
        "eta": eta,
        "goodput": round(useful / wall, 4) if lines and wall else None,
    }


def job_of(folder: Path, job: str, known: dict[str, str] | None) -> dict[str, Any]:
    """One job; `known`: what Slurm says of it and others."""
    said = record(folder, job)
    tries = attempts(folder, job)
    everyone = [attempt for task in tries.values() for attempt in task]
    own = known and {name: value for name, value in known.items() if name.partition("_")[0] == job}
    now = state(tries, own)
    over = now not in slurm.ACTIVE
    return {
        "job": job,
        "state": now,
        "command": said.get("command", []),
        "attempts": max((len(task) for task in tries.values()), default=0),
        "failures": sum(attempt.verdict in ("failed", "retry", "lost") for attempt in everyone),
        "nodes": everyone[-1].nodes if everyone else None,
        "submitted": said.get("submitted"),
        "began": min((attempt.begin for attempt in everyone), default=None),
        "ended": max((attempt.end or attempt.begin for attempt in everyone), default=None) if over else None,
        "parts": said.get("parts"),
        "tasks": {name: task[-1].verdict for name, task in tries.items() if "_" in name and task},
    }


def _told(task: list[Attempt], active: bool) -> str:
    """State by the last line of an attempts file; `active`: the job may wait or run."""
    last = task[-1].verdict if task else None
    if last in ("done", "failed") or not active:
        return "COMPLETED" if last == "done" else "FAILED"
    return "PENDING" if last else "RUNNING"


def _lines(file: Path) -> list[Event]:
    """Events of a file of JSON lines; one that was cut off is passed over."""
    found = []
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found
