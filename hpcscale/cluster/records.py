"""What `submit` writes down about a job in FOLDER/jobs: submit-TOKEN.json and .sbatch before it calls sbatch,
renamed to ID.json and ID.sbatch when the id is known.

Renaming works even on a full disk. Two files that still have their first names belong to a submission that
was cut off, or whose outcome sbatch did not tell; the next command for the folder asks Slurm for its job.
"""

import fcntl
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpcscale import files
from hpcscale.cluster import slurm
from hpcscale.files import FileError
from hpcscale.progress import Say

OPEN = 600  # seconds within which a submission may still reach Slurm


class Draft:
    """The record and the script of a job that has no id yet."""

    def __init__(self, folder: Path, token: str) -> None:
        self.token = token
        self.record, self.script = (folder / f"submit-{token}.{kind}" for kind in ("json", "sbatch"))

    def write(self, text: str, values: dict[str, Any]) -> None:
        try:
            self.script.write_text(text)
            self.record.write_text(json.dumps(values, indent=2) + "\n")
        except OSError:
            self.remove()
            raise

    def remove(self) -> None:
        self.record.unlink(missing_ok=True)
        self.script.unlink(missing_ok=True)

    def name(self, job: str) -> None:
        """Name both after the job's id. Files of an older job with the same id become ID.*.old."""
        for file in (self.script, self.record):
            if not file.exists():  # another command has renamed it
                continue
            target = file.with_name(f"{job}{file.suffix}")
            if target.exists():
                target.rename(target.with_name(f"{target.name}.old"))
            file.rename(target)


def draft(folder: Path) -> Draft:
    return Draft(folder, f"hpcscale-{secrets.token_hex(8)}")


def settle(folder: Path, say: Say) -> None:
    """Find the jobs of submissions that were left open, and rename their files. Raises SlurmError."""
    for file in sorted((folder / "jobs").glob("submit-*.json")):
        left = Draft(file.parent, file.stem.removeprefix("submit-"))
        job = slurm.find(left.token)
        with suppress(OSError):  # who only looks may have no right to write here
            age = round(time.time() - file.stat().st_mtime)
            if job:
                left.name(job)
                say(f"job {job} had no record yet: its submission was cut off")
            elif age < OPEN:
                say(f"{file}: submitted {age} s ago, and Slurm does not have this job (yet)")
            else:  # or the job has ended; then its attempts tell
                left.remove()
                say(f"{file}: removed; Slurm does not have this job")


class DamagedError(FileError):
    """A JSON file that does not hold what it should; the message names it."""


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises FileNotFoundError, and DamagedError if anything else is wrong."""
    try:
        values = files.read_json(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(f"{file}: cannot be read: {error.strerror or error}") from None
    except FileError as error:
        raise DamagedError(f"{file}: is damaged: {str(error).removeprefix(f'{file}: ')}") from None
    if not isinstance(values, dict):
        raise DamagedError(f"{file}: is damaged: holds no JSON object, but {str(values)[:40]!r}")
    return values


def read(folder: Path, job: str) -> dict[str, Any]:
    """What `submit` wrote down; empty for a job by hand. Raises DamagedError."""
    file = folder / "jobs" / f"{job}.json"
    try:
        values = read_json(file)
    except FileNotFoundError:
        return {}
    command, request = values.get("command"), values.get("request")
    if not (isinstance(command, list) and command and all(isinstance(word, str) for word in command)):
        raise DamagedError(f"{file}: is damaged: command is {command!r}, must be a list of words")
    if not isinstance(values.get("cwd"), str) or not isinstance(request, dict):
        raise DamagedError(f"{file}: is damaged: holds no cwd and request of `hpcscale submit`")
    return {"job": job, **values}


@contextmanager
def lock(folder: Path, say: Say) -> Iterator[None]:
    """Allows one submission at a time; on a file system without locks, only warns."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in files.NO_LOCKS:
                raise
            say(f"{folder}: this file system has no locks; see that nothing else submits for it now")
        yield
