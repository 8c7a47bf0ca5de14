"""The numbers of a study's cells: what evaluations and transfers wrote, means and standard errors of them.

In: cells of one stage that are done. Out: a `Row` for each combination of values but seeds. A transfer has a
result for each of its own seeds, and all of them count.
"""

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from hpcscale.evaluate import evaluations
from hpcscale.files import FileError
from hpcscale.report import runs, transfers
from hpcscale.study.cells import Cell, Key
from hpcscale.study.definition import Report, Value
from hpcscale.study.state import State


class Result(NamedTuple):
    """One number, and without the test pictures that have a near-duplicate in the pretraining data."""

    value: float
    without: float | None
    duplicates: int | None


class Row(NamedTuple):
    at: dict[str, Value]  # without seeds
    results: list[Result]
    missing: list[str]  # why a cell has none

    @property
    def mean(self) -> float | None:
        return statistics.fmean(one.value for one in self.results) if self.results else None

    @property
    def error(self) -> float | None:
        """Standard error of the mean; None of fewer than two."""
        values = [one.value for one in self.results]
        return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None

    @property
    def without(self) -> float | None:
        """Mean without near-duplicates, where all results were audited."""
        values = [one.without for one in self.results if one.without is not None]
        return statistics.fmean(values) if values and len(values) == len(self.results) else None

    @property
    def duplicates(self) -> int | None:
        """The most of one result."""
        return max((one.duplicates for one in self.results if one.duplicates is not None), default=None)


def rows(
    cells: Iterable[Cell], states: Mapping[Key, State], report: Report, root: Path
) -> tuple[list[Row], list[str]]:
    """Of the stage of a report, in the order of the cells; and remarks on what was not audited."""
    found: dict[str, Row] = {}
    remarks: list[str] = []
    for cell in cells:
        if cell.stage != report.stage:
            continue
        at = {axis: value for axis, value in cell.at.items() if axis != report.seeds}
        row = found.setdefault(str(at), Row(at, [], []))
        state = states[cell.key]
        if state.word != "done":
            row.missing.append(f"{cell.name}: {state.word}{f', {state.why}' if state.why else ''}")
            continue
        try:
            row.results.extend(results(root / cell.folder, report.metric, remarks))
        except (OSError, FileError) as error:
            row.missing.append(f"{cell.name}: {error}")
    return [*found.values()], remarks


def results(folder: Path, metric: str, remarks: list[str]) -> list[Result]:
    """Of the folder of a run or of a transfer. Raises FileError where it has no such number."""
    if transfers.is_transfer(folder):
        return [
            _result(folder, metric, each["metrics"], each["audit"])
            for each in transfers.read(folder)["results"]
        ]
    which, _, place = evaluations.find(folder)
    audit = runs.audit_of(folder, which, place, remarks)
    said = {"dedup": audit.parts.dedup, "duplicates": audit.duplicates} if audit else None
    return [_result(folder, metric, evaluations.read_summary(place).metrics, said)]


def _result(
    folder: Path, metric: str, metrics: Mapping[str, object], audit: Mapping[str, object] | None
) -> Result:
    value = metrics.get(metric)
    if not isinstance(value, int | float):
        numbers = ", ".join(name for name, one in metrics.items() if isinstance(one, int | float))
        raise FileError(f"{folder}: no number {metric!r}; there are {numbers or 'none'}")
    if audit is None:
        return Result(float(value), None, None)
    without = audit["dedup"].get(metric)  # type: ignore[attr-defined]
    return Result(float(value), without, int(audit["duplicates"]))  # type: ignore[call-overload]
