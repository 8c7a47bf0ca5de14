"""Trials: short trainings that are judged on a held-out part of the training set, and the choice among them.

In: configurations. Out: `OUT/trials/NNN`, a run folder each with `trial.json` when it has ended; the best.
A trial that was interrupted goes on where it was. One that diverges, or has not enough memory, fails alone;
other errors are of all trials, and end the call. Array tasks share trials by their numbers.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hpcscale import files, ranks
from hpcscale.config import Config, ConfigError
from hpcscale.data.named import NameList
from hpcscale.data.parts import Part
from hpcscale.evaluate import classify, evaluations
from hpcscale.evaluate.sets import default_set
from hpcscale.files import FileError, Told
from hpcscale.sections import may_change
from hpcscale.train import pretrain, run_folder
from hpcscale.train.state import Diverged
from hpcscale.transfer.settings import Metric

RECORD = "trial.json"


class TransferError(Told):
    """A transfer that has no result; the message says why."""


class Trial(NamedTuple):
    number: int
    keys: Mapping[str, Any]  # what sets it apart, as `section.key`
    settings: Config


class Outcome(NamedTuple):
    """What a trial came to; JSON can carry it."""

    number: int
    keys: Mapping[str, Any]
    metrics: Mapping[str, int | float | None]  # on what was held out; empty if it failed
    error: str = ""  # why it failed


def folder_of(out: Path, number: int) -> Path:
    return out / "trials" / f"{number:03d}"


def run(trials: Sequence[Trial], out: Path, part: Part | None) -> list[Outcome] | None:
    """Train the trials that have no record yet, of a part (I, N) only every Nth; return the outcomes, or None
    of a part (collective). Each is told on stderr.

    Raises what training does, but Diverged; ConfigError where a record is of a trial with other settings.
    """
    found = []
    for trial in trials if part is None else trials[part[0] :: part[1]]:
        folder = folder_of(out, trial.number)
        outcome = _recorded(folder, trial)
        if outcome is None:
            outcome = _train(trial, folder)
            if ranks.rank() == 0:
                record = {**outcome._asdict(), "settings": _settings(trial)}
                files.write_file(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
                _tell(outcome, len(trials))
        found.append(outcome)
    return found if part is None else None


def judged(run_: Path, settings: Config) -> dict[str, int | float | None]:
    """The metrics of a run's last evaluation, on the set that judges it (collective)."""
    metrics = None
    if ranks.rank() == 0:
        folder = classify.folder_of(run_, default_set(settings), settings.train.steps)
        metrics = evaluations.read_summary(folder).metrics
    return dict(ranks.broadcast_object(metrics))


def best(outcomes: Sequence[Outcome], metric: Metric) -> Outcome:
    """The trial with the highest metric; of several, the one with the lowest number. Raises TransferError
    where no trial has one."""
    measured = [outcome for outcome in outcomes if outcome.metrics.get(metric) is not None]
    if not measured:
        failed = [f"trial {o.number}: {o.error}" for o in outcomes if o.error]
        why = "; ".join(failed[:3]) or f"'{metric}' is not defined on what was held out; see target.metric"
        raise TransferError(f"no trial can be chosen: {why}")
    return max(measured, key=lambda outcome: (outcome.metrics[metric], -outcome.number))


def _recorded(folder: Path, trial: Trial) -> Outcome | None:
    """The outcome of a trial that has ended, the same on all ranks."""
    values = None
    if ranks.rank() == 0 and (file := folder / RECORD).exists():
        values = files.read_json(file)
        try:
            if values["settings"] != _settings(trial):
                raise ConfigError(
                    f"{file}: it had other settings; choose another folder, or remove {folder.parent.parent}"
                )
            values = [values["number"], values["keys"], values["metrics"], values["error"]]
        except (KeyError, TypeError):
            raise FileError(f"{file}: not the record of a trial; remove {folder}") from None
    values = ranks.broadcast_object(values)
    return Outcome(*values) if values is not None else None


def _settings(trial: Trial) -> dict[str, Any]:
    """All that decides the outcome."""
    free = set(may_change(Config))
    values = run_folder.flat(trial.settings.model_dump(mode="json"))
    found = {key: value for key, value in values.items() if key not in free}
    if (file := trial.settings.data.held_out_names) is not None:  # which may move, but not change
        found["data.held_out_names"] = NameList(file).digest
    return found


def _train(trial: Trial, folder: Path) -> Outcome:
    error = ""
    try:
        pretrain.train(trial.settings, folder)
    except Diverged as diverged:  # on all ranks
        error = str(diverged)
    except (MemoryError, torch.OutOfMemoryError) as lacking:
        if ranks.size() > 1:  # the other ranks wait
            raise
        error = f"not enough memory: {str(lacking).strip().partition(chr(10))[0]:.200}"
    metrics = {} if error else judged(folder, trial.settings)
    return Outcome(trial.number, trial.keys, metrics, error)


def _tell(outcome: Outcome, trials: int) -> None:
    keys = ", ".join(f"{key} {value}" for key, value in outcome.keys.items()) or "the recipe as it is"
    said = f"failed: {outcome.error}" if outcome.error else f"top-1 {outcome.metrics['top1']}"
    print(f"trial {outcome.number} of {trials} ({keys}): {said}", file=sys.stderr, flush=True)
