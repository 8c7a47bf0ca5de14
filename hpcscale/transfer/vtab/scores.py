"""The score of VTAB: the mean of top-1 accuracies over its tasks, and over the tasks of each group.

In: the accuracy of each task. Out: `Scores`. Every task weighs the same, so the mean over all is not the mean
of the three group means (BiT's 73.51 is (7 x 80.77 + 4 x 85.67 + 8 x 61.08) / 19).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpcscale.files import FileError, read_json
from hpcscale.transfer.vtab.tasks import GROUPS, TASKS, find


class Scores(NamedTuple):
    """Accuracies from 0 to 1."""

    mean: float | None  # over the tasks; None: some are missing, and a mean over the others was not asked for
    groups: dict[str, float | None]  # the same of each group
    tasks: dict[str, float]  # what is there, in the order of the table
    missing: tuple[str, ...]  # names of tasks without an accuracy


def score(top1: Mapping[str, float], partial: bool = False) -> Scores:
    """The means of accuracies from 0 to 1, by name of the task (or of its folder).

    partial: of a set that lacks tasks, take the mean over those that are there; `missing` names the others.
    Raises Usage of an unknown task, ValueError of a task given twice and of what is not a share.
    """
    given: dict[str, float] = {}
    for name, value in top1.items():
        task = find(name).name
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}: the accuracy must be from 0 to 1, found {value!r:.80}")
        if task in given:
            raise ValueError(f"{name}: {task} has an accuracy already")
        given[task] = float(value)
    tasks = {task.name: given[task.name] for task in TASKS if task.name in given}
    groups = {group: [task.name for task in TASKS if task.group == group] for group in GROUPS}
    missing = tuple(task.name for task in TASKS if task.name not in given)

    def mean(names: list[str]) -> float | None:
        found = [tasks[name] for name in names if name in tasks]
        return sum(found) / len(found) if found and (partial or len(found) == len(names)) else None

    return Scores(
        mean([task.name for task in TASKS]),
        {group: mean(names) for group, names in groups.items()},
        tasks,
        missing,
    )


def read(file: Path, partial: bool = False) -> Scores:
    """`score` of a JSON file: {"Caltech101": 0.91, ...}. Raises FileError, which names it, and Usage."""
    values: Any = read_json(file)
    if not isinstance(values, dict):
        raise FileError(f"{file}: expected an object of tasks and accuracies, found {type(values).__name__}")
    try:
        return score(values, partial)
    except ValueError as error:
        raise FileError(f"{file}: {error}") from None
