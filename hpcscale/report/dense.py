"""Reports of detectors, segmenters and pose: run folders in, Markdown and a figure out.

What stands in `evaluations/validation-STEP/` (dense/findings.py): metrics, the number of each class, and a
sheet of pictures, the truth beside what was found. Where `pairs/validation.tsv` lists near-duplicates, the
metrics without them too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from hpcscale.evaluate.leaks import Audit
from hpcscale.files import PNG, FileError, check_output, marked, read_json, write_file
from hpcscale.report import figures
from hpcscale.report.runs import Event, audit_of, read_events
from hpcscale.report.tables import audited, listing, number, table
from hpcscale.text import markdown

TITLE, CURVES, SHEET = "# What a model of a dense task found", "report-curves.png", "pictures.png"
SECTIONS = ("detector", "segmenter", "pose")
FIRST = ("AP", "mIoU")  # the metric of a curve
MEANING = """\
AP: COCO's average precision over overlaps from .50 to .95; APs, APm, APl: of small, medium and large objects;
AR: recall. mAP and mAP11: PASCAL VOC's at an overlap of .5, the area under the curve and eleven points. mIoU:
mean intersection over union of classes. –: nothing in the truth defines it."""


class Evaluated(NamedTuple):
    folder: Path
    step: int
    pictures: int
    metrics: dict[str, float | None]
    classes: dict[str, float | None]
    audit: Audit | None = None  # of the last evaluation


class Run(NamedTuple):
    folder: Path
    task: str
    steps: int  # wanted
    log: list[Event]  # of steps
    evaluations: list[Evaluated]  # by rising step
    remarks: list[str]


def is_dense(folder: Path) -> bool:
    """Whether a run is of a dense task; an unreadable one is not."""
    try:
        values = read_json(folder / "config.json")
    except (OSError, FileError):
        return False
    return isinstance(values, dict) and any(values.get(section) for section in SECTIONS)


def report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write `report.md` and a figure into every run; of several also a comparison, by default
    `comparison.md` beside the first. Returns the last file. Raises FileError and OutputError."""
    runs = [read(folder) for folder in folders]
    for run in runs:
        check_output(run.folder / "report.md", ours=marked(TITLE.encode()))
        check_output(run.folder / CURVES, ours=marked(PNG))
    for run in runs:
        drawn = _draw([run], run.folder / CURVES)
        parts = [TITLE, _overview([run]), MEANING, *([f"![curves]({CURVES})"] if drawn else []), *_last(run)]
        written = run.folder / "report.md"
        write_file(written, ("\n\n".join(parts) + "\n").encode())
    if len(runs) > 1:
        written = out or runs[0].folder.parent / "comparison.md"
        check_output(written, ours=marked(TITLE.encode()))
        write_file(written, f"{TITLE}\n\n{_overview(runs)}\n\n{MEANING}\n".encode())
    return written


def summary(folders: Sequence[Path]) -> str:
    return _overview([read(folder) for folder in folders])


def read(folder: Path) -> Run:
    """Raises FileError for an evaluation that was damaged, and OSError."""
    values = read_json(folder / "config.json")
    task = next(str(values[section].get("name", section)) for section in SECTIONS if values.get(section))
    found = [_evaluated(place) for place in sorted(folder.glob("evaluations/*-*[0-9]"))]
    found.sort(key=lambda one: one.step)
    remarks: list[str] = []
    if found:
        found[-1] = found[-1]._replace(audit=audit_of(folder, "validation", found[-1].folder, remarks))
    events = read_events(folder / "log.jsonl")["step"]
    return Run(folder, task, int(values["train"]["steps"]), events, found, remarks)


def _evaluated(folder: Path) -> Evaluated:
    file = folder / "metrics.json"
    said: Any = read_json(file)
    try:
        metrics, classes = (
            {str(key): None if value is None else float(value) for key, value in said[name].items()}
            for name in ("metrics", "classes")
        )
        return Evaluated(folder, int(said["step"]), int(said["pictures"]), metrics, classes)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise FileError(f"{file}: not the evaluation of a dense task") from None


def _overview(runs: Sequence[Run]) -> str:
    """A table of the last evaluations, a column for each run."""
    last = [run.evaluations[-1] if run.evaluations else None for run in runs]
    names = dict.fromkeys(name for one in last if one for name in one.metrics)
    rows = [[name, *(number(one.metrics.get(name)) if one else None for one in last)] for name in names]
    titles = [markdown(run.folder.resolve().name) for run in runs]
    states = [(title, _state(run)) for title, run in zip(titles, runs, strict=True)]
    parts = [listing(states), table(["", *titles], rows)]
    for title, one in zip(titles, last, strict=True):
        if one and one.audit:
            parts.append(audited("validation" if len(runs) == 1 else f"validation, {title}", one.audit))
    return "\n\n".join(parts)


def _state(run: Run) -> str:
    done = max((event["step"] for event in run.log), default=0)
    parts = [run.task, f"{done} of {run.steps} steps", "not evaluated yet"]
    if run.evaluations:
        last = run.evaluations[-1]
        parts[2] = f"evaluated after step {last.step} on {last.pictures} pictures"
    return ", ".join([*parts, *(markdown(" ".join(remark.split())) for remark in run.remarks)])


def _last(run: Run) -> list[str]:
    """Of the last evaluation: the classes, and the pictures."""
    if not run.evaluations:
        return []
    last = run.evaluations[-1]
    classes = [[markdown(name), number(value)] for name, value in last.classes.items()]
    parts = [table(["class", "AP" if "AP" in last.metrics else "IoU"], classes)]
    if (last.folder / SHEET).exists():
        place = (last.folder / SHEET).relative_to(run.folder).as_posix()
        parts.append(
            f"The truth on the left, what was found on the right; worst pictures first.\n\n![]({place})"
        )
    return parts


def _draw(runs: Sequence[Run], file: Path) -> bool:
    """Loss and metric over steps; False where there is nothing to draw."""
    file.unlink(missing_ok=True)
    if not any(run.log for run in runs):
        return False
    with figures.style():
        figure = Figure(figsize=(8, 5), layout="constrained")
        loss, metric = figure.subplots(2, 1, sharex=True)
        for run in runs:
            loss.plot([event["step"] for event in run.log], [event["loss"] for event in run.log])
            for name in FIRST:
                points = [(one.step, one.metrics[name]) for one in run.evaluations if one.metrics.get(name)]
                metric.plot(*zip(*points, strict=True), marker="o", label=name) if points else None
        loss.set_ylabel("training loss")
        metric.set(xlabel="step", ylabel="AP or mIoU", ylim=(0, 1.02))
        figures.save(figure, file)
    return True
