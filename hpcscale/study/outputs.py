"""What `hpcscale papers fill` and `draw` write: tables and figures of the papers, from run folders or points.

In: an assignment (assignment.py). Out: OUT/TABLE.md, .csv and .tex of each table that it names;
OUT/FIGURE.csv, its points, and OUT/FIGURE.svg and .png. Made again from the same folders, the bytes are the
same.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from hpcscale.files import PNG, FileError, check_output, marked, write_file
from hpcscale.sections import ConfigError
from hpcscale.study import assignment, figures, layout, papers, points, tables
from hpcscale.study.papers import Table
from hpcscale.study.points import HEAD, Point, anchors
from hpcscale.study.tables import Cell, Known

LAYOUTS: dict[str, Callable[[Table, list[Cell]], str]] = {
    "md": layout.as_markdown,
    "csv": layout.as_csv,
    "tex": layout.as_latex,
}
MARKS = {"svg": figures.SVG, "png": PNG, "csv": ",".join(HEAD).encode()}  # of a figure's files
DRAWN = ("svg", "png")


class Filled(NamedTuple):
    """One table or figure."""

    name: str
    files: list[Path]
    of: Literal["numbers", "points"]
    there: int  # so many of these
    lacking: int  # numbers that are a dash, or folders that gave no point
    reasons: list[str]


def fill(file: Path, out: Path) -> list[Filled]:
    """Write what an assignment names into a folder. Raises ConfigError, OutputError and OSError; whatever is
    wrong with a run folder is a reason in its place."""
    assigned = assignment.read(file)
    check_output(out / "any", assignment.places(assigned))  # once: run folders may be many
    for marks, names in ((layout.MARKS, assigned.written.tables), (MARKS, assigned.written.figures)):
        for name in names:
            _check(out / name, marks, file)
    known: Known = {}
    measured = {}
    for name in assigned.written.figures:
        try:
            measured[name] = points.points(name, assigned, known)
        except ConfigError as error:
            raise ConfigError(f"{file}: {name}: {error}") from None
    filled = [_table(papers.tables()[name], assigned, out, known) for name in assigned.written.tables]
    return filled + [_figure(name, *measured[name], out) for name in measured]


def draw(name: str, file: Path, stem: Path) -> list[Path]:
    """Draw a figure from a CSV of points: STEM.svg and .png. Raises ConfigError, FileError, OutputError."""
    figure = papers.find(name, papers.figures(), "figure", "hpcscale papers draw")
    found = points.read(file)
    if wrong := points.misplaced(figure, found):
        raise FileError(f"{file}: {wrong}")
    _check(stem, {ending: MARKS[ending] for ending in DRAWN}, file)
    return figures.draw(figure, found, anchors(figure), stem)


def _check(stem: Path, marks: Mapping[str, bytes], file: Path) -> None:
    """Raise OutputError where a file of these endings must not be written."""
    for ending, mark in marks.items():
        check_output(stem.with_name(f"{stem.name}.{ending}"), [file], marked(mark))


def _table(table: Table, assigned: assignment.Assignment, out: Path, known: Known) -> Filled:
    found = tables.cells(table, assigned, known)
    files = []
    for ending, text in LAYOUTS.items():
        files.append(out / f"{table.name}.{ending}")
        write_file(files[-1], text(table, found).encode())
    there = sum(1 for cell in found if cell.values)
    return Filled(table.name, files, "numbers", there, len(found) - there, layout.footnotes(table, found))


def _figure(name: str, found: list[Point], reasons: list[str], out: Path) -> Filled:
    figure, stem = papers.figures()[name], out / name
    file = out / f"{name}.csv"
    write_file(file, points.as_csv(found).encode())
    if not found:  # and no figure of an earlier call, which would seem to be of these runs
        for ending in DRAWN:
            (out / f"{name}.{ending}").unlink(missing_ok=True)
        return Filled(name, [file], "points", 0, len(reasons), reasons)
    drawn = figures.draw(figure, found, anchors(figure), stem)
    return Filled(name, [file, *drawn], "points", len(found), len(reasons), reasons)
