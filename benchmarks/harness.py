"""Times named functions in turn and takes medians, so that a disturbance of the machine affects them all."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Rate(NamedTuple):
    name: str
    per_second: float  # items in a second of wall time, median
    per_core: float  # items in a second of CPU time over all threads of this process, median
    spread: float  # (slowest - fastest) / median of the wall times


def interleave(
    functions: Mapping[str, Callable[[], object]], items: int, repeats: int = 7, seconds: float = 0.2
) -> list[Rate]:
    """Call every function in turn, `repeats` times round, each time for about `seconds`.

    items: how many one call does, for the rates. The first round finds out how many calls fill the time, and
    does not count. CPU time of other processes (workers) is not seen, so per_core is only right for work
    inside this process.
    """
    calls = {}
    for name, function in functions.items():
        function()  # caches, buffers, compilation
        start = time.perf_counter()
        function()
        calls[name] = max(1, round(seconds / max(time.perf_counter() - start, 1e-7)))
    walls: dict[str, list[float]] = {name: [] for name in functions}
    cores: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            wall, core = time.perf_counter(), time.process_time()
            for _ in range(calls[name]):
                function()
            walls[name].append((time.perf_counter() - wall) / calls[name])
            cores[name].append((time.process_time() - core) / calls[name])
    return [
        Rate(
            name,
            items / statistics.median(walls[name]),
            items / max(statistics.median(cores[name]), 1e-12),
            (max(walls[name]) - min(walls[name])) / statistics.median(walls[name]),
        )
        for name in functions
    ]


def table(title: str, unit: str, rates: list[Rate], notes: list[str]) -> str:
    """The rates as Markdown, with ratios to the first one, which is ours; then notes."""
    ours = rates[0].per_core
    lines = [
        f"## {title}",
        "",
        f"| | {unit}/s | per CPU second | first is x times this | spread |",
        "|---|---:|---:|---:|---:|",
    ]
    for r in rates:
        cells = [
            r.name,
            _digits(r.per_second),
            _digits(r.per_core),
            f"{ours / r.per_core:.3g}",
            f"{r.spread:.0%}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {note}" for note in notes)]) + "\n"


def _digits(rate: float) -> str:
    return f"{float(f'{rate:.3g}'):,.0f}" if rate >= 100 else f"{rate:.3g}"
