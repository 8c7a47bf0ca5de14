"""Numbers of run folders, for tables and figures.

In: a run of classification (report/runs.py), a run of a dense task (report/dense.py) or a transfer
(report/transfers.py). Out: a `Reading` for each seed. Every number has a name PART.NAME:

- full.NAME: a metric on all test pictures, a share from 0 to 1, as evaluations have it (top1, AP, mIoU);
- dedup.NAME: the same without the pictures that have a near-duplicate in the training data;
- audit.samples, audit.duplicates: numbers of pictures; audit.share: duplicates / samples;
- classes.NAME: the number of a class in an evaluation of a dense task, average precision or IoU;
- voc.NAME: the average precision of a class as in PASCAL VOC, at an overlap of .5;
- vtab.NAME: the mean of a metric over VTAB's nineteen tasks, of as many transfers (`over_tasks`).

What is not there raises `Missing`, whose message is the reason that a table prints.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.evaluate import kept
from hpcscale.evaluate.leaks import Audit
from hpcscale.files import FileError, Usage
from hpcscale.report import dense, runs, transfers
from hpcscale.transfer.vtab import scores

VTAB = "vtab"
PARTS = ("full", "dedup", "audit", "classes", "voc", VTAB)
JUDGING = ("validation", "held_out")  # sets that a run may be judged on; the pictures it learned are none
UNAUDITED = "near-duplicates not audited: "  # how a report's remark on that begins

Numbers = Mapping[str, Any]


class Missing(FileError):
    """A number that a run folder has not; the message says why."""


class Reading(NamedTuple):
    """One trained network, and what it was measured to be."""

    folder: Path
    seed: str  # of the training, as a transfer states it; "" of a run
    full: Numbers
    dedup: Numbers | None = None
    audit: Numbers | None = None
    classes: Numbers | None = None
    voc: Callable[[], Numbers] = dict  # measures classes as in PASCAL VOC, when they are asked for
    task: str = ""  # of VTAB
    remarks: tuple[str, ...] = ()  # what has to be known about these numbers
    unaudited: str = ""  # why near-duplicates are not known


def read(folder: Path) -> list[Reading]:
    """What a folder says, one reading for each seed. Raises Missing, FileError and OSError."""
    if not folder.is_dir():
        raise Missing(f"{folder}: no such folder")
    if transfers.is_transfer(folder):
        return _transfer(folder)
    return [_dense(folder)] if dense.is_dense(folder) else [_run(folder)]


def number(reading: Reading, metric: str) -> float:
    """A number by its name. Raises Missing, and what reading a file raises."""
    part, name = split(metric)
    there: Numbers | None = reading.voc() if part == "voc" else getattr(reading, part)
    if there is None and part == "classes":
        raise Missing(f"{reading.folder}: a transfer has no numbers of classes")
    if there is None:
        why = reading.unaudited or "no near-duplicates were searched (RUN/pairs)"
        raise Missing(f"{reading.folder}: not audited: {why}")
    value = there.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        names = ", ".join(map(str, there)) or "none"
        raise Missing(f"{reading.folder}: no number {metric}; there are: {names:.200}")
    return float(value)


def split(metric: str) -> tuple[str, str]:
    """PART and NAME of a metric. Raises Usage."""
    part, _, name = metric.partition(".")
    if part not in PARTS or not name:
        raise Usage(f"{metric!r:.80} is no metric PART.NAME; parts are {', '.join(PARTS)}")
    return part, name


def over_tasks(readings: Sequence[Reading], name: str) -> list[float]:
    """The score over all tasks of VTAB, for each seed that all have. Raises Missing."""
    by_seed: dict[str, dict[str, float]] = defaultdict(dict)
    for reading in readings:
        if not reading.task:
            raise Missing(f"{reading.folder}: no transfer to a task of VTAB (target.task)")
        if reading.task in by_seed[reading.seed]:
            raise Missing(f"{reading.folder}: another folder is of {reading.task}, seed {reading.seed}, too")
        by_seed[reading.seed][reading.task] = number(reading, f"full.{name}")
    found = {seed: scores.score(tasks) for seed, tasks in by_seed.items()}
    if not found:
        return []
    whole = [each.mean for each in found.values() if each.mean is not None]
    if not whole:
        least = min(found.values(), key=lambda each: len(each.missing))
        raise Missing(f"no seed has all tasks of VTAB; missing: {', '.join(least.missing)}")
    return whole


def curve(folder: Path, metric: str) -> list[tuple[int, float]]:
    """Steps, and a metric of all test pictures after each, of the set that judges a run best. Raises as
    `read` does."""
    part, name = split(metric)
    if part != "full":
        raise Usage(f"{metric}: a curve has only metrics of all pictures, full.NAME")
    if not folder.is_dir():
        raise Missing(f"{folder}: no such folder")
    of_dense = dense.is_dense(folder)
    curves: dict[str, dict[int, Any]] = {} if of_dense else runs.read(folder).curves
    if of_dense:
        curves = {JUDGING[0]: {one.step: one.metrics for one in _read_dense(folder).evaluations}}
    for which in JUDGING:
        points = {step: values.get(name) for step, values in curves.get(which, {}).items()}
        if found := [(step, float(value)) for step, value in points.items() if value is not None]:
            return found
    raise Missing(f"{folder}: no {metric} over steps in its log or evaluations")


def _transfer(folder: Path) -> list[Reading]:
    said = transfers.read(folder)
    return [
        Reading(
            folder=folder,
            seed=str(one.get("seed", "")),
            full=one["metrics"],
            dedup=one["audit"]["dedup"] if one["audit"] else None,
            audit=_counts(one["audit"].get("samples"), one["audit"]["duplicates"]) if one["audit"] else None,
            task=str(said.get("task") or ""),
            unaudited=str(one.get("unaudited") or ""),
        )
        for one in said["results"]
    ]


def _run(folder: Path) -> Reading:
    run = runs.read(folder)
    if run.config is None:
        raise Missing(f"{folder}: {run.remarks[0]}")
    _check_finished(folder, max((event["step"] for event in run.steps), default=0), run.config.train.steps)
    found = {evaluation.set: evaluation for evaluation in run.evaluations}
    judged = next((found[which] for which in JUDGING if which in found), None)
    if judged is None:
        raise Missing(f"{folder}: not evaluated; `hpcscale evaluate` does it")
    remarks = [] if judged.set == JUDGING[0] else [f"{folder}: judged on what was held out of training"]
    remarks += _earlier(folder, judged.step, run.config.train.steps)
    classes = {one.name: one.average_precision for one in judged.classes}
    bare = Reading(folder, "", judged.metrics, classes=classes, remarks=tuple(remarks))
    return _with_audit(bare, judged.audit, run.remarks)


def _dense(folder: Path) -> Reading:
    run = _read_dense(folder)
    _check_finished(folder, max((event["step"] for event in run.log), default=0), run.steps)
    if not run.evaluations:
        raise Missing(f"{folder}: not evaluated; `hpcscale evaluate` does it")
    last = run.evaluations[-1]
    bare = Reading(
        folder,
        "",
        last.metrics,
        classes=last.classes,
        voc=cache(partial(kept.voc_classes, last.folder)),
        remarks=tuple(_earlier(folder, last.step, run.steps)),
    )
    return _with_audit(bare, last.audit, run.remarks)


def _read_dense(folder: Path) -> dense.Run:
    try:
        return dense.read(folder)
    except (KeyError, TypeError, AttributeError):
        raise FileError(f"{folder / 'config.json'}: not the configuration of a dense task") from None


def _with_audit(reading: Reading, audit: Audit | None, remarks: list[str]) -> Reading:
    """remarks: of the report on the run, one of which may say why there is no audit."""
    if audit is None:
        failed = [remark.removeprefix(UNAUDITED) for remark in remarks if remark.startswith(UNAUDITED)]
        return reading._replace(unaudited="; ".join(failed))
    return reading._replace(dedup=audit.parts.dedup, audit=_counts(audit.samples, audit.duplicates))


def _counts(samples: int | None, duplicates: int) -> Numbers:
    return {"samples": samples, "duplicates": duplicates, "share": duplicates / samples if samples else None}


def _check_finished(folder: Path, done: int, steps: int) -> None:
    if done < steps:
        raise Missing(f"{folder}: not finished: {done} of {steps} steps are in its log")


def _earlier(folder: Path, step: int, steps: int) -> list[str]:
    return [f"{folder}: evaluated after step {step} of {steps}"] if step < steps else []
