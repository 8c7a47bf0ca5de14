"""What became of the jobs of a folder: files of FOLDER/jobs (and a run's log) in, plain values out.

Slurm is asked too, if it is here, but remembers a finished job only for some minutes; the files stay.
"""

import json
import math
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.cluster import records, slurm

Event = dict[str, Any]
JOB = re.compile(r"([0-9]+)(?:_[0-9]+)?\.(?:json|sbatch|log|attempts\.jsonl|[0-9]+)")  # a file of a job


class Attempt(NamedTuple):
    number: int
    nodes: str
    begin: int  # Unix time
    end: int | None = None  # None: it still runs, or was lost
    verdict: str | None = None  # done, stopped, failed, retry, lost
    code: int | None = None
    blamed: str = ""  # nodes, as a,b
    excluded: str = ""  # nodes that were excluded after this attempt
    refused: str = ""  # what Slurm said, if it did not take the job back into the queue


def ids(folder: Path) -> list[str]:
    """Jobs of the folder, by `submit` or by hand, the oldest first; an array counts as one."""
    named = (JOB.fullmatch(file.name) for file in (folder / "jobs").iterdir()) if _has(folder) else ()
    return sorted({found[1] for found in named if found}, key=int)


def _has(folder: Path) -> bool:
    return (folder / "jobs").is_dir()


def attempts(folder: Path, job: str) -> dict[str, list[Attempt]]:
    """Attempts of a job ("5"), or of each task of an array ("5_0") that has begun."""
    found = {}
    for file in (folder / "jobs").glob(f"{job}*.attempts.jsonl"):
        name = file.name.partition(".")[0]
        if re.fullmatch(rf"{job}(_[0-9]+)?", name):
            found[name] = _told(_lines(file))
    return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split("_")]))


def _told(events: list[Event]) -> list[Attempt]:
    """The attempts that the events of a file describe; malformed events are skipped."""
    tries: dict[int, Attempt] = {}
    for event in events:
        number, at = _integer(event, "attempt"), _integer(event, "time")
        if number is None or at is None:
            continue
        told = tries.get(number)
        match event:
            case {"event": "begin", "nodes": str(nodes)}:
                tries[number] = Attempt(number, nodes, at)
            case {"event": "end", "verdict": str(verdict)} if told:
                blamed = str(event.get("blamed", ""))
                tries[number] = told._replace(
                    end=at, verdict=verdict, code=_integer(event, "code"), blamed=blamed
                )
            case {"event": "exclude", "nodes": str(nodes)} if told:
                tries[number] = told._replace(excluded=nodes)
            case {"event": "requeue", "refused": str(words)} if told:
                tries[number] = told._replace(refused=words)
    return list(tries.values())


def logs(folder: Path, job: str) -> list[Path]:
    found = [*(folder / "jobs").glob(f"{job}.log"), *(folder / "jobs").glob(f"{job}_*.log")]
    return sorted(filter(Path.is_file, found), key=lambda file: (len(file.name), file.name))


def active_trainings(folder: Path) -> set[str]:
    """Jobs that wait or run and train this folder. Those by hand or with damaged records may, and count."""
    return active([job for job in ids(folder) if _may_train(folder, job)])


def _may_train(folder: Path, job: str) -> bool:
    try:
        return bool(records.read(folder, job).get("command", ["train"])[0] == "train")
    except records.DamagedError:
        return True


def active(jobs: list[str]) -> set[str]:
    """Which of the jobs, or tasks of arrays, wait or run. Raises SlurmError if Slurm does not say."""
    known = slurm.states(jobs)
    if known is None:
        raise slurm.SlurmError("squeue does not tell which jobs wait or run")
    wait = {name for name, state in known.items() if state in slurm.ACTIVE}
    return {job for job in jobs if job in wait | {name.partition("_")[0] for name in wait}}


def state(tries: dict[str, list[Attempt]], known: dict[str, str] | None) -> str:
    """State of a job in Slurm's words: what Slurm says, else what its files say.

    known: {} if Slurm has forgotten the job, which is then over, whatever its files say; None if Slurm cannot
    be asked: then the job may still run.
    """
    states = set((known or {}).values()) or {_ended(task, known is None) for task in tries.values()}
    states = states or {"PENDING" if known is None else "CANCELLED"}
    for first in ("RUNNING", "COMPLETING", "PENDING"):
        if first in states:
            return first
    wrong = sorted(states - {"COMPLETED"})
    return wrong[0] if wrong else "COMPLETED"


def status(folder: Path) -> dict[str, Any]:
    """The newest job of the folder, how far its run is, and all jobs. FileNotFoundError if there is none."""
    everything = ids(folder)
    if not everything:
        raise FileNotFoundError(f"{folder}: no job was submitted for it: there is none in {folder / 'jobs'}")
    known = slurm.states(everything)
    shown = [job_of(folder, job, known) for job in everything]
    newest = shown[-1]
    left = slurm.time_left(newest["job"]) if newest["state"] == "RUNNING" else None
    return {"folder": str(folder), **newest, "time_left": left, **progress(folder, shown), "jobs": shown}


def progress(folder: Path, shown: list[dict[str, Any]]) -> dict[str, Any]:
    """How far a training is, from its config.json and log.jsonl; all None for other folders.

    goodput: the time of the steps that count (a step that was done twice counts once), divided by the time
    since the first training job began, including the time in the queue between attempts.
    """
    lines = {}
    for line in _lines(folder / "log.jsonl"):
        step, samples = _integer(line, "step"), _integer(line, "samples")
        if line.get("event") == "step" and step and samples is not None:
            lines[step] = (samples, _number(line, "samples_per_second"), _number(line, "loss"))
    steps = _steps(folder / "config.json")
    useful, before, eta = 0.0, 0, None
    for step in sorted(lines):
        samples, rate, _ = lines[step]
        if rate:
            useful += (samples - before) / rate
        before = samples
    last = max(lines, default=None)
    samples, rate, loss = lines[last] if last else (0, None, None)
    if steps and last and rate:
        eta = round((steps - last) * samples / last / rate)
    trains = [job for job in shown if job["command"][:1] in ([], ["train"])]
    begins = [job["began"] for job in trains if job["began"]]
    ends = [job["ended"] or time.time() for job in trains if job["began"]]
    wall = max(ends) - min(begins) if begins else 0
    return {
        "step": last,
        "steps": steps,
        "loss": loss,
        "samples_per_second": rate,
        "eta": eta,
        "goodput": round(useful / wall, 4) if lines and wall > 0 else None,
    }


def job_of(folder: Path, job: str, known: dict[str, str] | None) -> dict[str, Any]:
    """One job. known: what Slurm says of jobs."""
    damage = None
    try:
        said = records.read(folder, job)
    except records.DamagedError as error:
        said, damage = {}, str(error)
    tries = attempts(folder, job)
    everyone = [attempt for task in tries.values() for attempt in task]
    own = known and {name: value for name, value in known.items() if name.partition("_")[0] == job}
    now = state(tries, own)
    over = now not in slurm.ACTIVE
    return {
        "job": job,
        "state": now,
        "reason": slurm.reason(job) if own and now in slurm.ACTIVE - {"RUNNING", "COMPLETING"} else None,
        "command": said.get("command", []),
        "damage": damage,  # what is wrong with its record
        "attempts": max((len(task) for task in tries.values()), default=0),
        "failures": sum(attempt.verdict in ("failed", "retry", "lost") for attempt in everyone),
        "nodes": everyone[-1].nodes if everyone else None,
        "excluded": _excluded(everyone),
        "refused": everyone[-1].refused or None if everyone and over else None,
        "submitted": said.get("submitted"),
        "began": min((attempt.begin for attempt in everyone), default=None),
        "ended": max((attempt.end or attempt.begin for attempt in everyone), default=None) if over else None,
        "parts": said.get("parts"),
        "tasks": {name: task[-1].verdict for name, task in tries.items() if "_" in name and task},
    }


def _excluded(tries: list[Attempt]) -> dict[str, str]:
    """Nodes that the job must not get again, and why."""
    found = {}
    for node in filter(None, ",".join(attempt.excluded for attempt in tries).split(",")):
        blame = [
            f"{attempt.number} ({attempt.verdict}{f', exit code {attempt.code}' if attempt.code else ''})"
            for attempt in tries
            if node in attempt.blamed.split(",")
        ]
        found[node] = f"blamed by attempt {' and '.join(blame)}" if blame else "blamed by its attempts"
    return found


def _ended(task: list[Attempt], active: bool) -> str:
    """State by the last line of an attempts file. active: the job may still wait or run."""
    last = task[-1].verdict if task else None
    if last in ("done", "failed") or not active:
        return "COMPLETED" if last == "done" else "FAILED"
    return "PENDING" if last else "RUNNING"


def _steps(file: Path) -> int | None:
    try:
        section = records.read_json(file).get("train")
    except (FileNotFoundError, records.DamagedError):
        return None
    return _integer(section, "steps") if isinstance(section, dict) else None


def _integer(event: Event, key: str) -> int | None:
    value = event.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(event: Event, key: str) -> float | None:
    value = event.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None


def _lines(file: Path) -> list[Event]:
    """Events of a file of JSON lines; a line that was cut off is skipped."""
    found = []
    try:
        lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    except OSError:
        return []
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            found.append(event)
    return found
