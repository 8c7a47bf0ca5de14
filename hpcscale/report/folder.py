"""What a run folder holds, read so that nothing in it can stop a report: what cannot be read becomes a
remark."""

import csv
import json
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import config, leaks
from hpcscale.config import Config
from hpcscale.leaks import Audit

SETS = ("validation", "held_out", "train")  # what a run is judged by comes first
NUMBERS = {"step": ("step", "loss"), "evaluation": ("step",)}  # what these events cannot be used without

Event = dict[str, Any]
Numbers = dict[str, float | None]


class Class(NamedTuple):
    """One row of classes.csv."""

    id: int
    name: str
    samples: int  # in the data of the vocabulary
    positives: int
    average_precision: float | None  # None: no positives
    baseline: float | None


class Picture(NamedTuple):
    pixels: NDArray[np.uint8]  # (side, side, 3)
    truth: str  # the class its tags select; where they select several, the three rarest labels
    guesses: list[tuple[str, bool]]  # the best first: class, and whether it is one of the labels


class Evaluated(NamedTuple):
    """One folder of `evaluations/`; hpcscale/evaluations.py says what its files hold."""

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
    """Read a run folder. Raises FileNotFoundError if it is none."""
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: not a folder")
    remarks: list[str] = []
    settings = None
    try:
        settings = config.read(run / "config.json")
    except config.ConfigError as error:
        remarks.append(" ".join(str(error).replace(f"{run}/", "").split()))
    events = _events(run / "log.jsonl", remarks)
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
        evaluations=[_audited(run, evaluations[name], remarks) for name in SETS if name in evaluations],
        remarks=remarks,
    )


def _events(file: Path, remarks: list[str]) -> dict[str, list[Event]]:
    """The lines of the log by kind of event; those that cannot be used become remarks."""
    events: dict[str, list[Event]] = defaultdict(list)
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        remarks.append(f"{file.name}: {error.strerror}")
        return events
    if not lines:
        remarks.append(f"{file.name}: empty")
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
            if not all(isinstance(event[key], int | float) for key in NUMBERS.get(event["event"], ())):
                raise TypeError
            events[event["event"]].append(event)
        except (ValueError, KeyError, TypeError):
            why = "cut off, as by a kill" if number == len(lines) else "not understood"
            remarks.append(f"{file.name}, line {number}: {why}; passed over")
    return events


def _evaluated(folder: Path, remarks: list[str]) -> Evaluated | None:
    try:
        summary = json.loads((folder / "metrics.json").read_text())
        name, step = summary["set"], int(summary["step"])
        if name not in SETS:
            raise ValueError(f"set is {name!r}, allowed: {', '.join(SETS)}")
        with (folder / "classes.csv").open(newline="") as stream:
            classes = [_class(row) for row in csv.DictReader(stream)]
        metrics, baseline = dict(summary["metrics"]), dict(summary["baseline"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        remarks.append(f"evaluations/{folder.name}: cannot be used: {type(error).__name__}: {error}")
        return None
    try:
        pictures = _pictures(folder, classes)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        remarks.append(f"evaluations/{folder.name}: no pictures: {type(error).__name__}: {error}")
        pictures = []
    return Evaluated(folder, name, step, metrics, baseline, classes, pictures)


def _audited(run: Path, evaluation: Evaluated, remarks: list[str]) -> Evaluated:
    """With its audit, if there is a pairs file for the set; reviewers' decisions lie beside it (.jsonl)."""
    pairs = run / "pairs" / f"{evaluation.set}.tsv"
    decisions = pairs.with_suffix(".jsonl")
    if not pairs.exists():
        return evaluation
    try:
        kept = decisions if decisions.exists() else None
        within = evaluation.set != "validation"
        return evaluation._replace(audit=leaks.audit(evaluation.folder, pairs, kept, within))
    except (OSError, ValueError, IndexError) as error:
        remarks.append(f"near-duplicates not audited: {error}".replace(f"{run}/", ""))
        return evaluation


def _class(row: dict[str, str]) -> Class:
    precisions = [float(row[key]) if row[key] else None for key in ("average_precision", "baseline")]
    return Class(int(row["id"]), row["name"], int(row["count"]), int(row["positives"]), *precisions)


def _pictures(folder: Path, classes: list[Class]) -> list[Picture]:
    with (folder / "thumbnails.npz").open("rb") as stream:
        shown = dict(np.load(stream, allow_pickle=False))
    with (folder / "samples.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as results:
        rows = np.searchsorted(results["samples"], np.atleast_1d(shown["samples"])).tolist()
        offsets, labels = results["label_offsets"], results["labels"]
        truths, guesses = results["truths"][rows].tolist(), results["guesses"][rows].tolist()
    pictures = []
    for row, pixels, truth, guessed in zip(rows, shown["pixels"], truths, guesses, strict=True):
        held = labels[offsets[row] : offsets[row + 1]].tolist()
        rarest = sorted(held, key=lambda c: (classes[c].samples, c))[:3]
        title = ", ".join(classes[c].name for c in ([truth] if truth >= 0 else rarest)) or "no label"
        pictures.append(Picture(pixels, title, [(classes[c].name, c in held) for c in guessed]))
    return pictures
