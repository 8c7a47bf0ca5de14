"""What became of the cells of a study, by what lies in its folder and what Slurm says of its jobs.

In: cells. Out: the state of each. Nothing else remembers a study: no process, no database.

A cell that was run by `study run --here`, or by a task of an array, has a record, OUT/cells/STAGE/NAME.json,
NAME that of its folder: the command, its exit code, its seconds, and the last lines that it printed; all of
them lie in NAME.log. A training on a cluster is a job of its own and has its attempts (cluster/jobs.py);
other cells of a stage share an array, whose jobs are in OUT/STAGE.job.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hpcscale.cluster import jobs, slurm
from hpcscale.files import FileError, read_json, write_file
from hpcscale.study.cells import Cell, Key
from hpcscale.study.definition import CELLS, TRAIN

Word = Literal["done", "failed", "running", "queued", "waiting", "missing"]
LINES = 20  # of what a failed command printed, that are kept


class State(NamedTuple):
    word: Word
    # failed: exit code or state of the job, and the last line; running, queued: the job; waiting: for what.
    why: str = ""
    seconds: float | None = None


def record_of(cell: Cell, root: Path) -> Path:
    return _beside(cell, root, "json")


def log_of(cell: Cell, root: Path) -> Path:
    return _beside(cell, root, "log")


def _beside(cell: Cell, root: Path, ending: str) -> Path:
    """Not beside the folder: what a cell makes may have such a name, as {here}.json."""
    return root / cell.folder.parent.parent / CELLS / cell.stage / f"{cell.folder.name}.{ending}"


def write(cell: Cell, root: Path, code: int, seconds: float) -> None:
    """The record of a cell whose command has ended."""
    said = {"command": list(cell.words), "digest": cell.digest, "code": code, "seconds": round(seconds, 3)}
    if code:
        said["said"] = last_lines(log_of(cell, root))
    record_of(cell, root).parent.mkdir(parents=True, exist_ok=True)
    write_file(record_of(cell, root), (json.dumps(said, indent=1) + "\n").encode())


def last_lines(log: Path) -> list[str]:
    try:
        return log.read_text("utf-8", "replace").splitlines()[-LINES:]
    except OSError:
        return []


def of_cells(cells: Mapping[Key, Cell], root: Path) -> dict[Key, State]:
    """The state of each. What has not begun, or failed, waits for what it needs and is not done."""
    known = _asked(dict.fromkeys(job_folder(cell, root) for cell in cells.values()))
    found: dict[Key, State] = {}
    blocked = set[Key]()  # by a failure
    for key, cell in cells.items():
        own = _own(cell, root, known)
        open_ = [need for need in cell.needs if found[need].word != "done"]
        bad = [need for need in open_ if found[need].word == "failed" or need in blocked]
        if bad and own.word in ("missing", "failed"):
            own = State("waiting", f"{_named(bad[0])}, which {'waits' if bad[0] in blocked else 'failed'}")
            blocked.add(key)
        elif open_ and own.word in ("missing", "failed"):
            more = f" and {len(open_) - 1} more" if len(open_) > 1 else ""
            own = State("waiting", f"{_named(open_[0])}{more}")
        found[key] = own
    return found


def job_folder(cell: Cell, root: Path) -> Path:
    """Where the jobs of a cell are kept, as `hpcscale submit` does."""
    if cell.words[0] == TRAIN:
        return root / cell.folder
    stage = root / cell.folder.parent
    return stage.with_name(stage.name + ".job")


def _named(key: Key) -> str:
    return f"{key[0]} {key[1]}"


def _asked(folders: Iterable[Path]) -> dict[str, str] | None:
    """What Slurm says of all jobs of these folders; {} where there are none."""
    ids = [job for folder in folders if folder.is_dir() for job in jobs.ids(folder)]
    return slurm.states(ids) if ids else {}


def _own(cell: Cell, root: Path, known: dict[str, str] | None) -> State:
    """The state of a cell by its own record and jobs."""
    record = _record(record_of(cell, root), cell)
    if record is not None and record["code"] == 0:
        return State("done", seconds=record["seconds"])
    folder = job_folder(cell, root)
    if ids := jobs.ids(folder):
        job = jobs.job_of(folder, ids[-1], known)
        if job["state"] in slurm.ACTIVE:
            word: Word = "running" if job["state"] == "RUNNING" and cell.words[0] == TRAIN else "queued"
            return State(word, f"job {job['job']}")
        if cell.words[0] == TRAIN:
            done = job["state"] == "COMPLETED"
            return State("done") if done else State("failed", f"job {job['job']}: {job['state']}")
    if record is not None:
        last = next((line.strip() for line in reversed(record.get("said", [])) if line.strip()), "")
        return State("failed", f"exit code {record['code']}: {last}"[:200], record["seconds"])
    return State("missing")


def _record(file: Path, cell: Cell) -> dict[str, Any] | None:
    """A record that is of this very cell; one that is damaged counts as none, and the command goes on."""
    try:
        said = read_json(file)
        fits = said["digest"] == cell.digest and type(said["code"]) is int
        return dict(said, seconds=float(said["seconds"])) if fits else None
    except (OSError, FileError, KeyError, TypeError, ValueError):
        return None
