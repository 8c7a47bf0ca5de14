"""A table of a paper, filled from run folders.

In: a Table and an Assignment. Out: a `Cell` for each number, in the unit of the paper: the values of the
seeds, what the paper prints, and the same without near-duplicates. A cell without values has a reason.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcscale.files import FileError, Usage
from hpcscale.study import assignment, readings
from hpcscale.study.assignment import Assignment
from hpcscale.study.papers import Number, Table
from hpcscale.study.readings import Missing, Reading

SCALE = {"%": 100.0}  # what a share from 0 to 1 is multiplied by
Known = dict[str, "list[Reading] | str"]  # a folder as written -> its readings, or why it has none
UNASSIGNED = "no run stands for it"


class Cell(NamedTuple):
    row: str
    column: str
    unit: str
    paper: Number | None
    values: tuple[float, ...] = ()  # of seeds
    dedup: tuple[float, ...] = ()  # the same without near-duplicates; empty where not all were audited
    duplicates: tuple[int, ...] = ()  # how many pictures these are, of each seed
    reasons: tuple[str, ...] = ()  # why there is no value, or not of every folder, and what has to be known


def cells(table: Table, assigned: Assignment, known: Known) -> list[Cell]:
    """The cells of a table, row by row; what a run folder lacks becomes a reason. known: folders that were
    read before, which gets those that are read now."""
    return [_cell(table, assigned, row, column, known) for row in table.rows for column in table.columns]


def middle(values: Sequence[float], statistic: str) -> float:
    return statistics.median(values) if statistic == "median" else statistics.fmean(values)


def spread(values: Sequence[float], statistic: str) -> float | None:
    """The standard error of a mean, s / sqrt(n) with s over n - 1; beside a median, s. None of one seed."""
    if len(values) < 2:
        return None
    deviation = statistics.stdev(values)
    return deviation if statistic == "median" else deviation / math.sqrt(len(values))


def difference(cell: Cell, statistic: str) -> float | None:
    """What was measured minus what the paper prints."""
    printed = cell.paper.value if cell.paper else None
    return middle(cell.values, statistic) - printed if cell.values and printed is not None else None


def gather(base: Path, names: Iterable[str], known: Known) -> tuple[list[Reading], list[str]]:
    """The readings of folders, and the reasons of those that have none; both are kept in `known`, by name."""
    found: list[Reading] = []
    reasons: list[str] = []
    for name in names:
        if name not in known:
            try:
                known[name] = readings.read(base / name)
            except (OSError, FileError, Usage) as error:
                known[name] = named(error, base / name, name)
        there = known[name]
        if isinstance(there, str):
            reasons.append(there)
        else:
            found += there
    return found, reasons


def measure(
    base: Path, names: Sequence[str], found: Sequence[Reading], metric: str
) -> tuple[list[float], list[str]]:
    """A metric of each reading, and the reasons of those that lack it."""
    if assignment.is_score(metric):
        try:
            return readings.over_tasks(found, readings.split(metric)[1]), []
        except (Missing, Usage, ValueError) as error:
            return [], [_relative(str(error), base, names)]
    values, reasons = [], []
    for reading in found:
        try:
            values.append(readings.number(reading, metric))
        except (OSError, FileError) as error:
            reasons.append(_relative(str(error), base, names))
    return values, reasons


def named(error: Exception, folder: Path, name: str) -> str:
    """A message with the folder as the user wrote it, in one line."""
    text = " ".join(str(error).split())
    return text.replace(str(folder), name) if str(folder) in text else f"{name}: {text}"


def _cell(table: Table, assigned: Assignment, row: str, column: str, known: Known) -> Cell:
    unit = table.units[column]
    empty = Cell(row, column, unit, table.numbers.get((row, column)))
    metric = assignment.metric(assigned, table, row, column)
    if metric is None:
        return empty._replace(reasons=(table.about.unfilled,))
    names = assignment.runs(assigned, table.name, row, column)
    if not names:
        return empty._replace(reasons=(UNASSIGNED,))
    found, reasons = gather(assigned.base, names, known)
    values, lacking = measure(assigned.base, names, found, metric)
    if assignment.is_score(metric) and reasons:  # a mean over fewer tasks is another number
        values = []
    scale = SCALE.get(unit, 1.0)
    told = [_relative(remark, assigned.base, names) for reading in found for remark in reading.remarks]
    part, name = readings.split(metric)
    dedup, unknown = measure(assigned.base, names, found, f"dedup.{name}") if part == "full" else ([], [])
    # Where nothing was audited, nothing need be said; where a part was, or pairs are of no use, it must.
    tried = any(reading.audit or (reading.unaudited and not reading.seed) for reading in found)
    whole = len(dedup) == len(found)
    return empty._replace(
        values=tuple(scale * value for value in values),
        dedup=tuple(scale * value for value in dedup) if whole else (),
        duplicates=tuple(int(readings.number(one, "audit.duplicates")) for one in found if dedup and whole),
        reasons=tuple(dict.fromkeys([*reasons, *lacking, *told, *(unknown if tried else [])])),
    )


def _relative(text: str, base: Path, names: Sequence[str]) -> str:
    """A message with folders as the user wrote them, in one line; the longest first, as one may begin
    another."""
    text = " ".join(text.split())
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(str(base / name), name)
    return text
