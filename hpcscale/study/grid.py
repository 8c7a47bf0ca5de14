"""The states of a study as a table: a row a combination of values, a column a stage.

In: cells and states. Out: text, or plain values for JSON.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from hpcscale.study.cells import Cell, Key, name_of
from hpcscale.study.definition import Study, combinations
from hpcscale.study.state import State


def as_text(study: Study, cells: Mapping[Key, Cell], states: Mapping[Key, State]) -> str:
    axes = tuple(axis for axis in study.axes if any(axis in cell.at for cell in cells.values()))
    lines = [("", *study.stages)]
    for at in combinations(study, axes):
        row = [name_of(at)]
        for stage in study.stages:
            its = [cell for cell in cells.values() if cell.stage == stage and cell.at.items() <= at.items()]
            row.append(states[its[0].key].word if its else "")
        lines.append(tuple(row))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    notes = [f"{' '.join(key)}: {_said(state)}" for key, state in states.items() if state.why]
    count = Counter(state.word for state in states.values())
    total = ", ".join(f"{number} {word}" for word, number in count.most_common())
    return "\n".join([*text, *([""] if notes else []), *notes, "", f"{len(states)} cells: {total}"])


def _said(state: State) -> str:
    return f"waits for {state.why}" if state.word == "waiting" else f"{state.word}, {state.why}"


def as_json(cells: Mapping[Key, Cell], states: Mapping[Key, State]) -> list[dict[str, Any]]:
    """A row for each cell."""
    return [
        {
            "stage": cell.stage,
            "cell": cell.name,
            "at": cell.at,
            "folder": str(cell.folder),
            "state": states[key].word,
            "why": states[key].why,
            "seconds": states[key].seconds,
            "needs": [list(need) for need in cell.needs],
        }
        for key, cell in cells.items()
    ]
