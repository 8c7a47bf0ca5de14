"""The papers' tables and figures, as the package keeps them.

In: `papers/PAPER.csv`, the numbers as printed; `papers/tables.toml`, where each table stands and which number
of a run belongs into which column; `papers/figures.toml`, what each figure draws over what. Out: `Table` and
`Figure`, by name. The name of a table begins with that of its paper: sun2017-1.

A column may be named GROUP: NAME; columns of one group are of the same runs.
"""

import csv
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from hpcscale.config import ConfigError
from hpcscale.files import read_text
from hpcscale.sections import Section, check, read_toml

FOLDER = Path(__file__).parent / "papers"
PAPERS = ("sun2017", "mahajan2018", "kolesnikov2020")
HEAD = ["paper", "table", "row", "column", "value", "unit", "remark"]


class Number(NamedTuple):
    """What a paper prints in one place."""

    text: str
    unit: str
    remark: str = ""  # what has to be known about it

    @property
    def value(self) -> float | None:
        """None where it is no plain number, as "<1"."""
        try:
            return float(self.text)
        except ValueError:
            return None


class About(Section):
    """An entry of tables.toml, which says what the keys mean."""

    title: str
    source: str
    metrics: dict[str, str] = Field(default_factory=dict)
    statistic: Literal["mean", "median"] = "mean"
    unfilled: str = "no number of a run folder is this"


class Table(NamedTuple):
    name: str
    about: About
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    units: dict[str, str]  # of columns
    numbers: dict[tuple[str, str], Number]  # (row, column) -> what the paper prints


class Figure(Section):
    """An entry of figures.toml, which says what the keys mean."""

    title: str
    source: str
    kind: Literal["lines", "bars", "scatter"]
    x: str
    y: str
    metric: str
    families: list[str]
    places: dict[str, float] = Field(default_factory=dict)
    log: bool = False
    fit: bool = False
    curve: bool = False
    anchors: list[list[str]] = Field(default_factory=list)


def tables(paper: str | None = None) -> dict[str, Table]:
    """By name, in the order of tables.toml; of one paper alone, if it is given."""
    return {name: table for name, table in _tables().items() if paper in (None, name.partition("-")[0])}


@cache
def figures() -> dict[str, Figure]:
    """By name, in the order of figures.toml."""
    file = FOLDER / "figures.toml"
    return {name: check(Figure, entry, f"{file}: {name}") for name, entry in read_toml(file).items()}


def find(name: str, among: dict[str, Any], what: str, where: object) -> Any:
    """The one of that name. Raises ConfigError, which says where it is named and which there are."""
    if name not in among:
        raise ConfigError(f"{where}: no {what} {name!r:.80}; there are: {', '.join(among)}")
    return among[name]


def group(column: str) -> str:
    """The group of a column; a column without one is a group of its own."""
    return column.partition(": ")[0]


def as_json(table: Table) -> dict[str, Any]:
    """A table with its numbers, for JSON."""
    return {
        "table": table.name,
        "title": table.about.title,
        "source": table.about.source,
        "columns": [
            {"column": column, "unit": table.units[column], "metric": table.about.metrics.get(column)}
            for column in table.columns
        ],
        "rows": {
            row: {
                column: {"printed": number.text, "value": number.value, "remark": number.remark}
                for column in table.columns
                if (number := table.numbers.get((row, column)))
            }
            for row in table.rows
        },
    }


@cache
def _tables() -> dict[str, Table]:
    numbers: dict[str, dict[tuple[str, str], Number]] = {}
    for paper in PAPERS:
        for line in csv.DictReader(read_text(FOLDER / f"{paper}.csv").splitlines()):
            of = numbers.setdefault(line["table"], {})
            of[line["row"], line["column"]] = Number(line["value"], line["unit"], line["remark"])
    file = FOLDER / "tables.toml"
    return {
        name: _table(name, check(About, entry, f"{file}: {name}"), numbers[name])
        for name, entry in read_toml(file).items()
    }


def _table(name: str, about: About, numbers: dict[tuple[str, str], Number]) -> Table:
    return Table(
        name=name,
        about=about,
        rows=tuple(dict.fromkeys(row for row, _ in numbers)),
        columns=tuple(dict.fromkeys(column for _, column in numbers)),
        units={column: number.unit for (_, column), number in numbers.items()},
        numbers=numbers,
    )
