"""The points of a figure: measured numbers of run folders, by family, place on the x axis and seed.

In: a Figure and an Assignment, or a CSV of points. Out: `Point`s, in per cent as the papers draw, and why
folders gave none; the CSV, from which `hpcscale papers draw` makes the figure again.
"""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcscale.config import ConfigError
from hpcscale.evaluate.evaluations import safe
from hpcscale.files import FileError, Usage, read_text
from hpcscale.names import BadName
from hpcscale.names import read as read_count
from hpcscale.study import papers, readings
from hpcscale.study.assignment import Assignment, Entry, folders
from hpcscale.study.papers import Figure
from hpcscale.study.tables import SCALE, Known, gather, measure, named
from hpcscale.text import shown

HEAD = ["family", "place", "x", "y", "seed"]
MOST = 64 << 20  # bytes of a file of points


class Point(NamedTuple):
    family: str
    place: str  # what the user calls x; of a scatter, the network
    x: float
    y: float
    seed: str


def points(name: str, assigned: Assignment, known: Known) -> tuple[list[Point], list[str]]:
    """The points of a figure, and why folders have none. Raises ConfigError for a place that is none."""
    figure = papers.figures()[name]
    found: list[Point] = []
    reasons: list[str] = []
    for family, entries in assigned.written.figures[name].items():
        for place, entry in entries.items():
            of = _of(figure, place, entry, assigned.base, known)
            found += [point._replace(family=family) for point in of[0]]
            reasons += of[1]
    return found, list(dict.fromkeys(reasons))


def anchors(figure: Figure) -> list[Point]:
    """What the paper prints of the figure as numbers."""
    found = []
    for family, place, table, row, column in figure.anchors:
        value = papers.tables()[table].numbers[row, column].value
        if value is None:
            raise ValueError(f"figures.toml: {table}, {row}, {column} is no number")
        found.append(Point(family, place, where(figure, place), value, ""))
    return found


def where(figure: Figure, place: str) -> float:
    """The x of a place: one of the figure's, or a number as data sets' names have it. Raises ConfigError."""
    if place in figure.places:
        return figure.places[place]
    if figure.places and figure.kind == "bars":
        raise ConfigError(f"no place {place!r:.80}; there are: {', '.join(figure.places)}")
    try:
        return float(read_count(place))
    except BadName as error:
        places = f"; places are: {', '.join(figure.places)}" if figure.places else ""
        raise ConfigError(f"{error}{places}") from None


def misplaced(figure: Figure, found: Sequence[Point]) -> str | None:
    """What is wrong with the x of a point, if something is."""
    for point in found:
        if figure.log and point.x <= 0:
            return f"x is {point.x:g} ({point.family!r:.80}); a logarithmic axis begins above 0"
        if figure.kind == "bars" and point.x not in figure.places.values():
            there = ", ".join(f"{x:g} ({name})" for name, x in figure.places.items())
            return f"x is {point.x:g} ({point.family!r:.80}); bars stand at {there}"
    return None


def as_csv(found: Iterable[Point]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(HEAD)
    for point in found:
        texts = [safe(shown(text)) for text in (point.family, point.place)]
        writer.writerow([*texts, f"{point.x:.10g}", f"{point.y:.10g}", safe(shown(point.seed))])
    return stream.getvalue()


def read(file: Path) -> list[Point]:
    """The points of a CSV. Raises FileError, which names the line, and OSError."""
    rows = csv.reader(io.StringIO(read_text(file, MOST), newline=""), strict=True)
    found = []
    try:
        if (head := next(rows, [])) != HEAD:
            raise ValueError(f"the columns are {', '.join(head)!r:.80}, expected {', '.join(HEAD)}")
        for row in rows:
            family, place, x, y, seed = row
            point = Point(family.removeprefix("'"), place.removeprefix("'"), float(x), float(y), seed)
            if not (math.isfinite(point.x) and math.isfinite(point.y)):
                raise ValueError("x and y must be finite")
            found.append(point)
    except (ValueError, csv.Error) as error:
        raise FileError(f"{file}:{rows.line_num}: {error}") from None
    if not found:
        raise FileError(f"{file}: no points")
    return found


def _of(figure: Figure, place: str, entry: Entry, base: Path, known: Known) -> tuple[list[Point], list[str]]:
    """The points of one place, of a family to be named."""
    if isinstance(entry, dict):
        (across, why_x), (up, why_y) = (_values(figure, folders(entry[axis]), base, known) for axis in "xy")
        if across and up and len(across) != len(up):
            return [], [f"{place}: {len(across)} numbers for x and {len(up)} for y; they must be as many"]
        pairs = zip(across, up, strict=False)
        return [Point("", place, x[1], y[1], x[0]) for x, y in pairs], [*why_x, *why_y]
    if figure.curve:
        return _curves(figure, place, folders(entry), base)
    at = where(figure, place)
    values, reasons = _values(figure, folders(entry), base, known)
    return [Point("", place, at, value, seed) for seed, value in values], reasons


def _values(
    figure: Figure, names: Sequence[str], base: Path, known: Known
) -> tuple[list[tuple[str, float]], list[str]]:
    """(folder and seed, number in per cent) of each reading."""
    found, reasons = gather(base, names, known)
    values = []
    for reading in found:
        measured, lacking = measure(base, names, [reading], figure.metric)
        name = (
            str(reading.folder.relative_to(base))
            if reading.folder.is_relative_to(base)
            else reading.folder.name
        )
        seed = f"{name} {reading.seed}".rstrip()
        values += [(seed, SCALE["%"] * value) for value in measured]
        reasons += lacking
    return values, reasons


def _curves(figure: Figure, place: str, names: Sequence[str], base: Path) -> tuple[list[Point], list[str]]:
    found: list[Point] = []
    reasons = []
    for name in names:
        try:
            curve = readings.curve(base / name, figure.metric)
        except (OSError, FileError, Usage) as error:
            reasons.append(named(error, base / name, name))
            continue
        found += [Point("", place, float(step), SCALE["%"] * value, name) for step, value in curve]
    return found, reasons
