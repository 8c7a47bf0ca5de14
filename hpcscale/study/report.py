"""The report of a study: its numbers; over sizes of data a line, a figure, a forecast or why there is none.

In: cells, their states, and what `[report]` asks for. Out: OUT/report.md, OUT/points.csv, and with an axis of
sizes OUT/sizes.svg and .png. The same study gives the same bytes.
"""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcscale.evaluate.evaluations import safe
from hpcscale.files import FileError, Usage, check_output, marked, write_file
from hpcscale.report.tables import METRICS, table
from hpcscale.study import figures, fits, forecast, grid, readings
from hpcscale.study.cells import Cell, Key, name_of
from hpcscale.study.definition import Report, Study, Value
from hpcscale.study.fits import Array
from hpcscale.study.forecast import PointsError
from hpcscale.study.papers import Figure
from hpcscale.study.points import Point
from hpcscale.study.readings import Missing, Reading
from hpcscale.study.state import State
from hpcscale.text import markdown

TITLE = "# What became of a study"
HEAD = ("family", "size", "value", "seed")
SHARES = (0.0, 1.0)  # the least and the greatest value of a metric
LEVEL = 0.8  # of intervals
FIGURE = "sizes"


class Row(NamedTuple):
    """All results of one combination of values but seeds."""

    at: dict[str, Value]
    readings: list[Reading]
    missing: list[str]


def write(study: Study, cells: Mapping[Key, Cell], states: Mapping[Key, State], out: Path) -> Path:
    """Write the folder; returns report.md. Called in the folder of the study's file. Raises Usage where the
    study has no [report], and OutputError."""
    if study.report is None:
        raise Usage("the study has no [report], which says what to tell of which stage")
    file, points = out / "report.md", out / "points.csv"
    check_output(file, ours=marked(TITLE.encode()))
    check_output(points, ours=marked(",".join(HEAD).encode()))
    found = rows(cells.values(), states, study.report)
    parts = [TITLE, f"```\n{grid.as_text(study, cells, states)}\n```", *_results(study.report, found)]
    if study.report.size:
        series = _series(study.report, found)
        parts += _over_sizes(study.report, series, out)
        write_file(points, _csv(series).encode())
    write_file(file, ("\n\n".join(parts) + "\n").encode())
    return file


def rows(cells: Iterable[Cell], states: Mapping[Key, State], report: Report) -> list[Row]:
    """Of the stage of a report, in the order of the cells."""
    found: dict[str, Row] = {}
    for cell in cells:
        if cell.stage != report.stage:
            continue
        at = {axis: value for axis, value in cell.at.items() if axis != report.seeds}
        row = found.setdefault(name_of(at), Row(at, [], []))
        state = states[cell.key]
        if state.word != "done":
            row.missing.append(f"{cell.name}: {state.word}{f', {state.why}' if state.why else ''}")
            continue
        try:
            these = readings.read(cell.folder)
            for reading in these:
                readings.number(reading, f"full.{report.metric}")
            row.readings.extend(these)
        except (OSError, FileError) as error:
            row.missing.append(f"{cell.name}: {error}")
    return [*found.values()]


def values(row: Row, metric: str, part: str = "full") -> list[float]:
    """A number of every result; none where one of them has it not."""
    try:
        return [readings.number(reading, f"{part}.{metric}") for reading in row.readings]
    except Missing:
        return []


def _results(report: Report, found: Sequence[Row]) -> list[str]:
    """A table, and why numbers are missing."""
    lines = []
    for row in found:
        own, without = values(row, report.metric), values(row, report.metric, "dedup")
        duplicates = values(row, "duplicates", "audit")
        lines.append(
            [
                markdown(name_of(row.at)),
                len(own),
                f"{statistics.fmean(own):.4f}" if own else None,
                f"{statistics.stdev(own) / len(own) ** 0.5:.4f}" if len(own) > 1 else None,
                f"{statistics.fmean(without):.4f}" if without else None,
                f"{max(duplicates):.0f}" if duplicates else None,
            ]
        )
    label = METRICS.get(report.metric, report.metric)
    head = ["", "results", label, "standard error", "without near-duplicates", "near-duplicates"]
    parts = [f"## {label}, of the stage {report.stage}", table(head, lines)]
    if missing := [f"- {markdown(reason)}" for row in found for reason in row.missing]:
        parts.append("\n".join(["Not there:", "", *missing]))
    return parts


def _series(report: Report, found: Sequence[Row]) -> dict[str, list[Point]]:
    """The points over sizes of each combination of the other values."""
    series: dict[str, list[Point]] = {}
    for row in found:
        size = row.at[str(report.size)]
        rest = {axis: value for axis, value in row.at.items() if axis != report.size}
        family = name_of(rest) if rest else report.stage
        points = series.setdefault(family, [])
        for number, value in enumerate(values(row, report.metric)):
            points.append(Point(family, f"{size:,}", float(size), value, str(number)))
    return {family: points for family, points in series.items() if points}


def _over_sizes(report: Report, series: Mapping[str, list[Point]], out: Path) -> list[str]:
    """The figure, the papers' line of each series, and its forecast."""
    if not series:
        return []
    label = METRICS.get(report.metric, report.metric)
    figure = Figure(
        title=f"{label} over pictures trained on", source="", kind="lines", x="pictures", y=f"{label}, %",
        metric=f"full.{report.metric}", families=[*series], log=True, fit=True,
    )  # fmt: skip
    every = [point._replace(y=100 * point.y) for points in series.values() for point in points]
    figures.draw(figure, every, [], out / FIGURE)
    parts = [f"## {label} over pictures trained on", f"![{label} over pictures]({FIGURE}.png)"]
    for family, points in series.items():
        sizes, numbers = (np.array([getattr(point, key) for point in points]) for key in ("x", "y"))
        parts += [f"### {markdown(family)}", *_line(sizes, numbers)]
        if report.at:
            parts.append(_forecast(report, sizes, numbers))
    return parts


def _line(sizes: Array, numbers: Array) -> list[str]:
    """The line of the papers, as Sun et al. 2017 and Mahajan et al. 2018 draw it."""
    if np.unique(sizes).size < 2:
        return ["One size: no line goes through it."]
    line = fits.fit_line(sizes, numbers)
    error = "" if line.slope_error is None else f" (standard error {line.slope_error:.4f})"
    square = "" if line.r2 is None else f", R² {line.r2:.3f}"
    parts = [
        f"The papers' line, {line.intercept:.4f} {line.slope:+.4f} log10(pictures): {line.slope:+.4f} for "
        f"ten times the pictures{error}{square}. It is a figure, and no forecast."
    ]
    left = fits.deviations(sizes, numbers, SHARES)
    return [*parts, *(f"- {name}: {said}" for name, said in left.items())]


def _forecast(report: Report, sizes: Array, numbers: Array) -> str:
    """What more pictures would bring, or why nobody can say."""
    try:
        found = forecast.forecast(sizes, 1 - numbers, [float(at) for at in report.at], LEVEL)
    except PointsError as error:
        return f"No forecast: {markdown(str(error))}."
    lines = [
        f"- With {one.at:,.0f} pictures: {1 - one.estimate:.4f}, between {1 - one.high:.4f} and "
        f"{1 - one.low:.4f} with a probability of {100 * LEVEL:.0f} %."
        for one in found.estimates
    ]
    return "\n".join([f"Forecast, by the law {found.law.name}:", "", *lines])


def _csv(series: Mapping[str, list[Point]]) -> str:
    """All points, a line each."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEAD)
    for points in series.values():
        writer.writerows((safe(point.family), int(point.x), point.y, point.seed) for point in points)
    return stream.getvalue()
