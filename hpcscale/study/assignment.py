"""Which run folders stand for what in the papers' tables and figures, as a user writes it.

In: a TOML file; its paths are relative to its folder. Out: an `Assignment`, checked against the papers.

    [tables."sun2017-1"]                              # of `hpcscale papers tables`
    "Fine-tune from JFT-300M" = ["runs/a", "runs/b"]  # a row, and its runs: one folder or several seeds

    [tables."sun2017-10"."300M"]                      # columns of several runs: by the part before the colon
    "VOC 2007" = "runs/detector"
    "VOC 2012" = "runs/segmenter"

    [tables."sun2017-14"."*"]                         # "*": every row, or every column
    "300M" = "runs/detector"

    [figures."sun2017-4-coco"."Fine-tuning"]          # of `hpcscale papers figures`: a family of points
    "30M" = ["runs/c", "runs/d"]                      # where on the x axis, and the runs there

    [figures."kolesnikov2020-s5"."JFT-300M"]          # where both axes are measured
    "R50x1" = { x = "runs/e", y = "runs/f" }

    [metrics."sun2017-1"]                             # another metric than the table's own
    "top-1" = "full.map100"
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from hpcscale.config import ConfigError
from hpcscale.files import Usage
from hpcscale.sections import Section, check, read_toml
from hpcscale.study import papers
from hpcscale.study.papers import Table
from hpcscale.study.readings import VTAB, split

ALL = "*"
BOTH = {"x", "y"}

Folders = str | list[str]
Entry = Folders | dict[str, Folders]


class Written(Section):
    """The file."""

    tables: dict[str, dict[str, Entry]] = Field(default_factory=dict)
    figures: dict[str, dict[str, dict[str, Entry]]] = Field(default_factory=dict)
    metrics: dict[str, dict[str, str]] = Field(default_factory=dict)


class Assignment(NamedTuple):
    base: Path  # the folder of the file
    written: Written


def read(file: Path) -> Assignment:
    """Raises ConfigError, which names file, table or figure, what was found and what there is."""
    written = check(Written, read_toml(file), str(file))
    if not written.tables and not written.figures:
        raise ConfigError(f"{file}: names no table and no figure; `hpcscale papers tables` lists them")
    for name, rows in written.tables.items():
        _check_table(papers.find(name, papers.tables(), "table", file), rows, f"{file}: {name}")
    for name, metrics in written.metrics.items():
        table = papers.find(name, papers.tables(), "table", f"{file}: metrics")
        for column, metric in metrics.items():
            papers.find(column, dict.fromkeys(table.columns), "column", f"{file}: metrics.{name}")
            _check_metric(metric, f"{file}: metrics.{name}.{column}")
    for name, families in written.figures.items():
        figure = papers.find(name, papers.figures(), "figure", file)
        for family, places in families.items():
            for place, entry in places.items():
                _check_place(entry, figure.kind == "scatter", f"{file}: {name}, {family}, {place}")
    return Assignment(file.parent, written)


def metric(assigned: Assignment, table: Table, row: str, column: str) -> str | None:
    """The metric of a cell; None where no number of a run is it."""
    own = assigned.written.metrics.get(table.name, {})
    found = own.get(column, table.about.metrics.get(column))
    return found.replace("{row}", row) if found else None


def runs(assigned: Assignment, table: str, row: str, column: str) -> Sequence[str]:
    """The folders of a cell, as they are written; none where nothing stands for it."""
    rows = assigned.written.tables.get(table, {})
    entry = rows.get(row, rows.get(ALL, []))
    if isinstance(entry, dict):
        keys = (column, papers.group(column), ALL)
        entry = next((entry[key] for key in keys if key in entry), [])
    return folders(entry)


def places(assigned: Assignment) -> list[Path]:
    """All folders that are named."""
    written = assigned.written
    entries = [entry for rows in written.tables.values() for entry in rows.values()]
    entries += [
        entry for of in written.figures.values() for family in of.values() for entry in family.values()
    ]
    names = dict.fromkeys(name for entry in entries for each in _lists(entry) for name in folders(each))
    return [assigned.base / name for name in names]


def folders(entry: Folders) -> Sequence[str]:
    return [entry] if isinstance(entry, str) else entry


def _check_table(table: Table, rows: dict[str, Entry], where: str) -> None:
    columns = [name for column in table.columns for name in (papers.group(column), column)]
    for row, entry in rows.items():
        papers.find(row, dict.fromkeys([*table.rows, ALL]), "row", where)
        for column in entry if isinstance(entry, dict) else ():
            papers.find(column, dict.fromkeys([*columns, ALL]), "column", f"{where}, {row}")
        for each in _lists(entry):
            _check_folders(each, f"{where}, {row}")


def _check_metric(metric: str, where: str) -> None:
    try:
        split(metric)
    except Usage as error:
        raise ConfigError(f"{where}: {error}") from None


def _check_place(entry: Entry, both: bool, where: str) -> None:
    if both != isinstance(entry, dict) or (isinstance(entry, dict) and entry.keys() != BOTH):
        raise ConfigError(f"{where}: expected {'{ x = RUNS, y = RUNS }' if both else 'a folder or several'}")
    for each in _lists(entry):
        _check_folders(each, where)


def _check_folders(entry: Folders, where: str) -> None:
    found = folders(entry)
    for name in found:
        if not name or "\0" in name:
            raise ConfigError(f"{where}: {name!r:.80} is no path")
    twice = [name for name in found if found.count(name) > 1]
    if not found or twice:
        said = f"{twice[0]!r:.80} stands there twice" if twice else "names no folder"
        raise ConfigError(f"{where}: {said}; a seed is one folder, named once")


def _lists(entry: Entry) -> Iterator[Folders]:
    yield from entry.values() if isinstance(entry, dict) else [entry]


def is_score(metric: str) -> bool:
    """Whether a metric is one number of many transfers."""
    return split(metric)[0] == VTAB
