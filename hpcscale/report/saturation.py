"""How much more trials of a search bring (Kolesnikov et al. 2020, supplement, figure 1): `OUT/curve.csv` of
`hpcscale transfer search` in; curves, a table and a figure out.

A point is the mean of the best score so far over random orderings of the trials, and its standard error. Over
several tasks it is the mean of theirs, as far as all of them have trials; orderings are independent, so its
standard error is the root of the sum of squared standard errors, over the number of tasks. The same curves
give the same bytes.
"""

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpcscale.files import FileError, read_text
from hpcscale.report.figures import COLORS, label, save, style
from hpcscale.report.tables import table

FILE, HEAD = "curve.csv", ["trials", "mean", "standard_error"]
SHOWN = (1, 5, 10, 20, 40)  # numbers of trials in the table
LEGEND = 60  # letters


class Point(NamedTuple):
    """After so many trials as its place says, from 1."""

    mean: float
    error: float  # standard error over orderings


Curve = Sequence[Point]


def read(folder: Path) -> list[Point]:
    """The curve of one search. Raises FileError, which names the line, and OSError."""
    file = folder / FILE
    if not file.exists():
        raise FileError(f"{file}: not there; type the search again, which writes it and trains nothing twice")
    head, *lines = list(csv.reader(read_text(file).splitlines())) or [[]]
    if head != HEAD or not lines:
        raise FileError(f"{file}: not what `hpcscale transfer search` writes")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            trials, *values = int(line[0]), *map(float, line[1:])
            point = Point(*values)
        except (IndexError, TypeError, ValueError):
            trials, point = 0, Point(math.nan, math.nan)
        if trials != number or not all(map(math.isfinite, point)):
            raise FileError(
                f"{file}, line {number + 1}: expected {number}, a mean and its error: {line!r:.80}"
            )
        found.append(point)
    return found


def mean(curves: Sequence[Curve]) -> list[Point]:
    """Over tasks, up to the fewest trials of one."""
    return [
        Point(
            statistics.fmean(point.mean for point in points),
            math.hypot(*(point.error for point in points)) / len(points),
        )
        for points in zip(*curves, strict=False)
    ]


def text(curves: Mapping[str, Curve]) -> str:
    """A Markdown table of named curves, those that have as many trials."""
    longest = max(map(len, curves.values()))
    shown = [trials for trials in SHOWN if trials <= longest]
    rows: list[list[str | None]] = [
        [name, *(_cell(curve[trials - 1]) if trials <= len(curve) else None for trials in shown)]
        for name, curve in curves.items()
    ]
    return table(["trials", *map(str, shown)], rows)


def draw(curves: Mapping[str, Curve], scores: Iterable[str], file: Path) -> None:
    """Write a figure of named curves with bands of one standard error. scores: what they are of."""
    with style():
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for index, (name, curve) in enumerate(curves.items()):
            trials, color = range(1, len(curve) + 1), COLORS[index % len(COLORS)]
            means = [point.mean for point in curve]
            low, high = ([point.mean + sign * point.error for point in curve] for sign in (-1, 1))
            axes.fill_between(trials, low, high, color=color, alpha=0.25, linewidth=0)
            marker = "." if len(curve) < 3 else None
            axes.plot(trials, means, color=color, marker=marker, label=label(name, LEGEND))
        axes.set(xlabel="trials", ylabel=" · ".join(scores) + " on what was held out")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, loc="lower right")
        save(figure, file)


def _cell(point: Point) -> str:
    return f"{point.mean:.4f} ± {point.error:.4f}"
