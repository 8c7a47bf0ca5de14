"""The run folder as the training loop sees it: one process at a time, one configuration, one log.

RUN/config.json is the configuration of the run; RUN/log.jsonl has one event a line, see `LogFile`;
RUN/.lock is held by rank 0. Only rank 0 calls these functions.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcscale import config, files
from hpcscale.config import ConfigError, Training
from hpcscale.models import checkpoint
from hpcscale.sections import may_change
from hpcscale.train import schedule

FILES = ("log.jsonl", "checkpoints", "evaluations")  # which nothing else writes


class RunError(files.FileError):
    """A run folder that cannot be used now; the message names it."""


@contextlib.contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold the run folder, which is made if need be; RunError if another process does. Ends with the
    process."""
    run.mkdir(parents=True, exist_ok=True)
    with (run / ".lock").open("a+") as stream:
        try:
            files.lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise RunError(f"{run}: another process trains here now ({holder})") from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {os.uname().nodename}")
        stream.flush()
        yield


def agree(run: Path, settings: Training) -> None:
    """Check that a run goes on with the configuration it began with. A run without a first step has not
    begun.

    Raises RunError where files of a run are there without it, and ConfigError with every key that differs,
    unless it is one of those that may change (config.py marks them; the contents of data and vocabulary are
    compared through the checkpoint), or train.steps grows and the schedule does not depend on it.
    """
    file = run / "config.json"
    before = config.read_as(file, type(settings)) if file.exists() else None
    if before is not None and _begun(run):
        old, new = flat(before.model_dump(mode="json")), flat(settings.model_dump(mode="json"))
        free = may = set(may_change(type(settings)))
        if before.train.steps < settings.train.steps and not schedule.depends_on_length(settings.schedule):
            free = may | {"train.steps"}
        differing = [key for key in new if old.get(key) != new[key] and key not in free]
        if differing:
            lines = [f"  {key}: {old.get(key)!r} there, {new[key]!r} here" for key in differing]
            raise ConfigError(
                "\n".join([f"{file}: the run was started with another configuration", *lines])
                + f"\nGo on as it began, or choose another folder. May change: {', '.join(sorted(may))}; "
                "train.steps may grow unless the schedule is 'equal', 'cosine' or 'polynomial'"
            )
    elif before is None and (others := [name for name in FILES if (run / name).exists()]):
        raise RunError(f"{run}: holds {others[0]} but no config.json; choose another folder")


def keep(run: Path, settings: Training) -> None:
    """Write RUN/config.json, after all that it names was found unchanged."""
    files.write_file(run / "config.json", config.dump(settings).encode())


def _begun(run: Path) -> bool:
    """Whether a step was done here."""
    return checkpoint.exist(run) or any(
        event["step"] > 0 or event.get("event") == "first_step"
        for event in map(json.loads, _lines(run / "log.jsonl"))
    )


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.key`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


class LogFile:
    """RUN/log.jsonl: one JSON object a line, first key `event`, with the number of steps done as `step`.

    start, resume   how the process began
    first_step      seconds from the start of the process until everything was imported, until all ranks had
                    met, and until the first step was done
    step            loss, learning rate, speed and shares of the time, see train.log
    skip            a step whose update was not applied, why, and its samples
    overflow        a step whose update was not applied, because gradients of float16 overflowed; the loss
                    scale is halved, and this is no error
    rollback        the weights went back to those of step `to`
    evaluation      set and metrics
    bad_sample      a picture that could not be decoded and was replaced
    end             why the process ended
    """

    def __init__(self, run: Path, step: int) -> None:
        """Go on after `step` steps: removes later lines of an interrupted process, which are written
        again."""
        self.file = run / "log.jsonl"
        self.began = time.monotonic()
        kept = [line for line in _lines(self.file) if step and json.loads(line)["step"] <= step]
        files.write_file(self.file, "".join(kept).encode())
        self.stream = self.file.open("a", buffering=1)

    def write(self, event: str, step: int, **values: Any) -> None:
        self.stream.write(json.dumps({"event": event, "step": step, **values}) + "\n")

    def seconds(self) -> float:
        """Since this process began to train."""
        return time.monotonic() - self.began


def _lines(file: Path) -> Iterator[str]:
    """Lines that are whole, and of a step: a killed process may leave half of one."""
    if file.exists():
        for line in file.read_text(errors="replace").splitlines(keepends=True):
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                if isinstance(json.loads(line)["step"], int):
                    yield line
