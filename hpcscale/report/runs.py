"""Reads a run folder so that nothing in it can stop a report: what cannot be read becomes a remark."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import config
from hpcscale.config import SETS, Config
from hpcscale.evaluate import evaluations, leaks
from hpcscale.evaluate.evaluations import Class
from hpcscale.evaluate.leaks import Audit
from hpcscale.files import FileError, read_bytes

NUMBERS = {"step": ("step", "loss"), "evaluation": ("step",)}  # the keys that these events must have
DRAWN = ("lr", "map100", "samples_per_second", "compute", "allreduce", "wait", "rest")
PICTURES, GUESSES = 96, 5  # most pictures on a sheet, and guesses of each

Event = dict[str, Any]
Numbers = dict[str, float | None]


class Picture(NamedTuple):
    pixels: NDArray[np.uint8]  # (side, side, 3)
    truth: str  # the class its tags select; where they select several, the three rarest labels
    guesses: list[tuple[str, bool]]  # the best first: class, and whether it is one of the labels


class Evaluated(NamedTuple):
    """One folder of `evaluations/`; evaluate/evaluations.py says what its files hold."""

    folder: Path
    set: str
    step: int
    metrics: Numbers
    baseline: Numbers
    classes: list[Class]
    pictures: list[Picture]
    audit: Audit | None = None  # what near-duplicates do to it, where `pairs/<set>.tsv` names some


class Run(NamedTuple):
    folder: Path
    name: str
    config: Config | None
    start: Event  # the newest "start" or "resume": where and on what it ran
    steps: list[Event]  # "step" events by rising step; of a repeated step the newest
    bad_samples: list[Event]
    curves: dict[str, dict[int, dict[str, float | None]]]  # set -> step -> metrics, from log and evaluations
    evaluations: list[Evaluated]  # the last one of every set, in the order of SETS
    remarks: list[str]  # what is missing or cannot be read


def read(run: Path) -> Run:
    """Read a run folder. Raises FileNotFoundError if it is not a folder."""
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: not a folder")
    remarks: list[str] = []
    settings = None
    try:
        settings = config.read(run / "config.json")
    except (config.ConfigError, FileError) as error:
        remarks.append(str(error))
    events = read_events(run / "log.jsonl", remarks)
    found = [_evaluated(folder, remarks) for folder in sorted(run.glob("evaluations/*-*[0-9]"))]
    evaluations = {evaluation.set: evaluation for evaluation in found if evaluation}
    curves: dict[str, dict[int, Numbers]] = defaultdict(dict)
    for event in events["evaluation"]:
        curves[str(event.get("set"))][event["step"]] = event
    for evaluation in filter(None, found):
        curves[evaluation.set][evaluation.step] = evaluation.metrics
    steps = {event["step"]: event for event in events["step"]}
    if settings and max(steps, default=0) < settings.train.steps:
        done = f"{max(steps, default=0)} of {settings.train.steps} steps are in the log"
        remarks.append(f"training has not finished: {done}")
    if not evaluations:
        remarks.append("not evaluated yet: `evaluations/` has no whole folder")
    return Run(
        folder=run,
        name=run.resolve().name,
        config=settings,
        start=[{}, *events["start"], *events["resume"]][-1],
        steps=[steps[step] for step in sorted(steps)],
        bad_samples=events["bad_sample"],
        curves={name: dict(sorted(curves[name].items())) for name in SETS if name in curves},
        evaluations=[
            evaluations[name]._replace(audit=audit_of(run, name, evaluations[name].folder, remarks))
            for name in SETS
            if name in evaluations
        ],
        remarks=[" ".join(remark.replace(f"{run}/", "").split()) for remark in remarks],
    )


def read_events(file: Path, remarks: list[str] | None = None) -> dict[str, list[Event]]:
    """The lines of the log by kind of event; a line that cannot be used becomes a remark."""
    remarks = [] if remarks is None else remarks
    events: dict[str, list[Event]] = defaultdict(list)
    try:
        lines = read_bytes(file).splitlines()
    except OSError as error:
        remarks.append(f"{file.name}: {error.strerror}")
        return events
    except FileError as error:
        remarks.append(str(error))
        return events
    if not lines:
        remarks.append(f"{file.name}: empty")
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            kind = event["event"]
            if (
                not all(_usable(event[key]) for key in NUMBERS.get(kind, ()))
                or type(event.get("step", 0)) is not int
            ):
                raise TypeError
            # Values that are drawn or compared must be numbers; values that are only shown may be anything.
            events[kind].append(
                {key: value for key, value in event.items() if key not in DRAWN or _usable(value)}
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            why = "cut off, as by a kill" if number == len(lines) else "not understood"
            remarks.append(f"{file.name}, line {number}: {why}; passed over")
    return events


def _usable(value: Any) -> bool:
    """Whether it is a number, finite or not, that fits into a float64."""
    return isinstance(value, float) or (type(value) is int and abs(value) <= evaluations.MOST)


def _evaluated(folder: Path, remarks: list[str]) -> Evaluated | None:
    try:
        found = evaluations.read_summary(folder)
        if found.set not in SETS:
            raise FileError(f"set is {found.set!r:.80}, allowed: {', '.join(SETS)}")
        classes = evaluations.read_classes(folder)
    except (OSError, FileError) as error:
        remarks.append(f"evaluations/{folder.name}: cannot be used: {error}")
        return None
    try:
        pictures = _pictures(folder, classes)
    except (OSError, FileError) as error:
        remarks.append(f"evaluations/{folder.name}: no pictures: {error}")
        pictures = []
    return Evaluated(folder, found.set, found.step, found.metrics, found.baseline, classes, pictures)


def audit_of(run: Path, which: str, folder: Path, remarks: list[str]) -> Audit | None:
    """Of the evaluation of a set, if the set has a pairs file; decisions lie beside that (.jsonl)."""
    pairs = run / "pairs" / f"{which}.tsv"
    decisions = pairs.with_suffix(".jsonl")
    if not pairs.exists():
        return None
    try:
        return leaks.audit(folder, pairs, decisions if decisions.exists() else None, which != "validation")
    except (OSError, ValueError) as error:
        remarks.append(f"near-duplicates not audited: {error}")
        return None


def _pictures(folder: Path, classes: list[Class]) -> list[Picture]:
    shown, pixels = (array[:PICTURES] for array in evaluations.read_thumbnails(folder))
    results, _ = evaluations.read(folder)
    rows = np.searchsorted(results.samples, shown)
    if not np.array_equal(results.samples[rows[rows < len(results.samples)]], shown):
        raise FileError(f"{folder / 'thumbnails.npz'}: shows samples that were not evaluated")
    pictures = []
    for row, picture in zip(rows.tolist(), pixels, strict=True):
        begin, end = results.label_offsets[row : row + 2]
        truth, held = int(results.truths[row]), results.labels[begin:end].tolist()
        rarest = sorted(held, key=lambda c: (classes[c].samples, c))[:3]
        title = ", ".join(classes[c].name for c in ([truth] if truth >= 0 else rarest)) or "no label"
        guesses = [(classes[c].name, c in held) for c in results.guesses[row].tolist()]
        pictures.append(Picture(picture, title, guesses[:GUESSES]))
    return pictures
