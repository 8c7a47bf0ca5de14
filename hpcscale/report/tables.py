"""Markdown of reports: what `runs.read` found in, text out. Figures are linked, not drawn.

Text that others wrote, such as names, paths and remarks, is escaped by `markdown` where it is put in.
"""

import os
import statistics
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from hpcscale.config import Config
from hpcscale.evaluate import leaks
from hpcscale.evaluate.evaluations import Class
from hpcscale.evaluate.leaks import Audit
from hpcscale.report.runs import Evaluated, Numbers, Run
from hpcscale.text import markdown

METRICS = {
    "map100": "mAP@100 by class, weighted",
    "map100_uniform": "mAP@100 by class, uniform",
    "image_map100": "mAP@100 by picture, weighted",
    "image_map100_uniform": "mAP@100 by picture, uniform",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "loss": "loss",
}
SHARES = ("compute", "allreduce", "wait", "rest")
COUNTS = {
    "samples": "samples in the training data",
    "unlabelled": "samples that the vocabulary gives no class",
    "dropped": "samples that the drop list leaves out",
    "trained_on": "samples trained on",
    "held_out": "samples held out",
}
EXTREMES = 10
# One of these stands near the start of every report; a file with neither is the user's.
COMPLETE, INCOMPLETE = "Complete: trained to the last step and evaluated.", "**Incomplete:**"
MEANING = """\
mAP@100 **by class**: all pictures are ranked by the score of a class, and the precision at each of its
positives is averaged (average precision, AP); a picture counts as retrieved where the class is among its 100
best. **By picture**: the classes of each picture are ranked. **Weighted**: a class weighs as much as it has
samples in the data of the vocabulary; **uniform**: all weigh the same. The **baseline** gives every picture
the same scores: those numbers of samples. Accuracy is over pictures whose tags select exactly one class,
among the classes that a tag can select."""


def run_report(run: Run, curves: str | None, pictures: dict[str, str]) -> str:
    """The report of one run. curves: file name of a figure; pictures: set -> file name of its sheet."""
    parts = [f"# {markdown(run.name)}", _state([run])]
    if curves:
        parts.append(f"![Loss, metrics and learning rate over steps]({curves})")
    if run.evaluations:
        parts += ["## Results", summary(run)]
        parts += [MEANING, *_classes(run.evaluations[0])]
    if pictures:
        parts += [
            "## Predictions",
            "The five best guesses: ✓ is among the picture's labels, ancestors included.",
        ]
        parts += [
            f"### {name}\n\n![Pictures of {name} with guesses]({file})" for name, file in pictures.items()
        ]
    parts += ["## Training", *_training(run), "## Data", _data(run)]
    if run.config:
        parts += ["## Configuration", "Where it differs from the defaults; `config.json` has everything."]
        parts.append(listing((f"`{key}`", value) for key, value in _changed(run.config).items()))
    return "\n\n".join(parts) + "\n"


def comparison(runs: list[Run], curves: str | None) -> str:
    """Several runs side by side, with differences from the first."""
    names = [markdown(run.name) for run in runs]
    parts = ["# Comparison of " + ", ".join(names), _state(runs)]
    if curves:
        parts.append(f"![Loss, metrics and learning rate over steps]({quote(os.fsencode(curves))})")
    for name in dict.fromkeys(e.set for run in runs for e in run.evaluations):
        found = [next((e for e in run.evaluations if e.set == name), None) for run in runs]
        rows: list[list[Any]] = [["step", *(e.step if e else None for e in found)]]
        rows.append(["samples", *(e.metrics.get("samples") if e else None for e in found)])
        for key, label in METRICS.items():
            values = [e.metrics.get(key) if e else None for e in found]
            if any(value is not None for value in values):
                differences = [
                    number(values[0]),
                    *(_with_difference(value, values[0]) for value in values[1:]),
                ]
                rows.append([label, *differences])
        audits = [e.audit if e else None for e in found]
        if any(audits):
            rows.append(["near-duplicates", *(audit.duplicates if audit else None for audit in audits)])
        for key, label in METRICS.items():
            values = [audit.parts.dedup[key] if audit else None for audit in audits]
            if any(value is not None for value in values):
                rows.append([f"{label}, without them", *(number(value) for value in values)])
        parts += [f"## Results, {name}", table(["", *names], rows)]
    if len(parts) > 2 + bool(curves):
        parts.append(MEANING)
    speed = [dict(_speed(run)) for run in runs]
    keys = dict.fromkeys(key for each in speed for key in each)
    parts += ["## Training", table(["", *names], [[key, *(each.get(key) for each in speed)] for key in keys])]
    changed = [_changed(run.config) if run.config else {} for run in runs]
    keys = dict.fromkeys(key for each in changed for key in each)
    differing = [key for key in keys if len({each.get(key) for each in changed}) > 1]
    if differing:
        rows = [[f"`{key}`", *(each.get(key, "default") for each in changed)] for key in differing]
        parts += ["## Configuration, where it differs", table(["key", *names], rows)]
    return "\n\n".join(parts) + "\n"


def summary(run: Run) -> str:
    """The newest metrics of every set."""
    parts = []
    for e in run.evaluations:
        parts.append(results(e.set, e.step, e.metrics, e.baseline))
        if e.audit:
            parts.append(audited(e.set, e.audit))
    return "\n\n".join(parts)


def audited(name: str, audit: Audit) -> str:
    """The metrics of a set with and without its near-duplicates, and of these alone."""
    about, parts = audit.leaks, audit.parts
    undecided = about.pairs - about.accepted - about.rejected
    percent = 100 * audit.duplicates / max(1, audit.samples)
    head = (
        f"**{audit.duplicates} of {audit.samples} pictures of {name} ({percent:.2f} %) have near-duplicates "
        f"in the training data** ({about.pairs} pairs: {about.accepted} accepted, {about.rejected} rejected "
        f"by reviewers and not counted, {undecided} undecided and counted)."
    )
    if audit.remark:
        head += f" {audit.remark[0].upper()}{audit.remark[1:]}."
    rows: list[list[Any]] = [["samples", *(part["samples"] for part in (parts.full, parts.dedup)), None,
                              parts.dups["samples"], None]]  # fmt: skip
    for key in dict.fromkeys((*METRICS, *parts.full)):
        if key not in leaks.UNCHANGED and parts.full.get(key) is not None:
            change = leaks.delta(parts, key)
            values = [number(parts.full[key]), number(parts.dedup[key]),
                      None if change is None else f"{change:+.3f}",
                      number(parts.dups[key]), number(parts.lower_bound.get(key))]  # fmt: skip
            rows.append([METRICS.get(key, key), *values])
    return f"{head}\n\n" + table(
        ["", "full", "without them", "change", "they alone", "all of them wrong"], rows
    )


def results(name: str, step: int, metrics: Numbers, baseline: Numbers) -> str:
    """What one evaluation found, beside the baseline."""
    single = metrics.get("single")
    head = f"**{name}**, after step {step}: {metrics.get('samples')} pictures"
    head += f" ({single} of them with one truth)" if single else ""
    rows = []
    for key, label in METRICS.items():
        value, base = metrics.get(key), baseline.get(key)
        if value is not None:
            rows.append(
                [label, number(value), number(base), None if base is None else f"{value - base:+.3f}"]
            )
    columns = ["", "model", "baseline", "difference"]
    return f"{head}, {metrics.get('classes')} classes with a positive.\n\n{table(columns, rows)}"


def table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table, padded so that it can be read as text. All columns but the first hold numbers."""
    lines = [head, *([_cell(value) for value in row] for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]

    def padded(line: list[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        return "| " + " | ".join([line[0].ljust(widths[0]), *rest]) + " |"

    return "\n".join(map(padded, [head, rule, *lines[1:]]))


def listing(pairs: Iterable[tuple[str, Any]]) -> str:
    """A Markdown list of names and values."""
    return "\n".join(f"- {name}: {_cell(value)}" for name, value in pairs)


def number(value: Any) -> str | None:
    return f"{value:.3f}" if isinstance(value, int | float) else None


def _cell(value: Any) -> str:
    return "–" if value is None or value == "" else f"{value:.4g}" if isinstance(value, float) else str(value)


def _with_difference(value: Any, first: Any) -> str | None:
    if isinstance(value, int | float) and isinstance(first, int | float):
        return f"{value:.3f} ({value - first:+.3f})"
    return number(value)


def _state(runs: list[Run]) -> str:
    """A sentence: what is missing, or that nothing is missing."""
    remarks = [f"{run.name}: {remark}" if len(runs) > 1 else remark for run in runs for remark in run.remarks]
    if not remarks:
        return COMPLETE
    return f"{INCOMPLETE}\n\n" + "\n".join(f"- {markdown(remark)}" for remark in remarks)


def _classes(evaluation: Evaluated) -> list[str]:
    """The best and the worst classes by AP, or all if they are few; equal ones by positives, then id."""
    found = [(c.average_precision, c) for c in evaluation.classes if c.average_precision is not None]
    best = [c for _, c in sorted(found, key=lambda pair: (-pair[0], -pair[1].positives, pair[1].id))]
    worst = [c for _, c in sorted(found, key=lambda pair: (pair[0], -pair[1].positives, pair[1].id))]

    def shown(part: list[Class]) -> str:
        head = ["class", "AP", "baseline", "positives", "samples in the data"]
        rows = [
            [markdown(c.name), number(c.average_precision), number(c.baseline), c.positives, c.samples]
            for c in part
        ]
        return table(head, rows)

    if len(best) <= 2 * EXTREMES:
        return [f"## Classes of {evaluation.set}, best first", shown(best)] if best else []
    return [
        f"## The {EXTREMES} best classes of {evaluation.set}",
        shown(best[:EXTREMES]),
        f"## The {EXTREMES} worst classes of {evaluation.set}",
        shown(worst[:EXTREMES]),
    ]


def _training(run: Run) -> list[str]:
    """Figures of the training, and the machine they were measured on, as far as the log tells."""
    place = ", ".join(
        markdown(f"{key} {value}")
        for key, value in run.start.items()
        if key not in ("event", "step", "steps", "data")
    )
    if not run.steps:
        return ["No step is in the log."]
    return [f"Measured on: {place or 'not in the log'}.", listing(_speed(run))]


def _speed(run: Run) -> list[tuple[str, Any]]:
    """Length, loss, throughput and where the time of a step goes, from the step events."""
    if not run.steps:
        return []
    first, last = run.steps[0], run.steps[-1]
    rows: list[tuple[str, Any]] = [
        ("steps", last["step"]),
        ("samples seen", markdown(last.get("samples", ""))),
        (f"loss at step {first['step']}", float(first["loss"])),
        (f"loss at step {last['step']}", float(last["loss"])),
    ]
    for key, label in [("samples_per_second", "samples/s, median")] + [
        (share, f"share of the step: {share}, median") for share in SHARES
    ]:
        values = [event[key] for event in run.steps if isinstance(event.get(key), int | float)]
        if values:
            middle = statistics.median(values)
            rows.append((label, f"{100 * middle:.1f} %" if key in SHARES else f"{middle:.1f}"))
    return rows


def _data(run: Run) -> str:
    rows: list[tuple[str, Any]] = []
    if run.config:
        data = run.config.data
        share = f"{100 * data.held_out:.4g} %"
        listed = data.held_out_names and markdown(data.held_out_names)
        rows += [("training data", markdown(data.train)), ("held out", listed or share)]
        rows += [("validation data", data.validation and markdown(data.validation))]
        rows += [("vocabulary", markdown(data.vocabulary))]
    counts = run.start.get("data")
    if isinstance(counts, dict):
        rows += [(label, markdown(counts[key])) for key, label in COUNTS.items() if key in counts]
    rows += [("classes", len(e.classes)) for e in run.evaluations[:1]]
    rows += [(f"pictures of {e.set}", e.metrics.get("samples")) for e in run.evaluations]
    bad = {str(event.get("sample")): event for event in run.bad_samples}
    rows.append(("pictures that could not be decoded in training", len(bad)))
    shown = list(bad.items())[:EXTREMES]
    rows += [
        (markdown(f"sample {sample}"), markdown(f"{event.get('name')}: {event.get('reason')}"))
        for sample, event in shown
    ]
    return listing(rows)


def _changed(settings: Config) -> dict[str, str]:
    """`section.key` and value of every key that differs from its default."""
    sections = settings.model_dump(mode="json", exclude_defaults=True)
    return {
        f"{name}.{key}": markdown(value) for name, keys in sections.items() for key, value in keys.items()
    }
