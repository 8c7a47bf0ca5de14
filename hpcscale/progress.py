"""How long work tells on stderr how far it is: bars on a terminal, a line now and then elsewhere.

Work calls a `Progress` often. What a command passes in draws (`bar`); what nobody watches gets `none`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from hpcscale.text import bare_stderr, shown_lines

Progress = Callable[[str, int, int | None], None]  # stage, done, of how many (None: not known)
Say = Callable[[str], None]  # is told a line

EVERY = 30.0  # seconds between two lines


def none(stage: str, done: int, total: int | None) -> None:
    """A `Progress` that tells nothing."""


@contextmanager
def bar() -> Iterator[Progress]:
    """The `Progress` of a command: a bar a stage on a terminal's stderr, else a line every 30 seconds."""
    if sys.stderr.isatty():
        with Bars() as bars:
            yield bars
    else:
        yield lines()


class Bars:
    """A context, and a `Progress`: one bar a stage on the terminal of stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Rich

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                   TextColumn("{task.fields[note]}"), TimeRemainingColumn())  # fmt: skip
        self._rich = Rich(*columns, console=Console(file=bare_stderr()))
        self._tasks: dict[str, TaskID] = {}
        self._rates = _Rates()

    def __enter__(self) -> Self:
        self._rich.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._rich.stop()

    def __call__(self, stage: str, done: int, total: int | None, note: str | None = None) -> None:
        """note: stands behind the bar; else it is the speed."""
        rate = self._rates(stage, done)
        if note is None:
            note = f"{rate:.0f}/s" if rate is not None else ""
        if stage not in self._tasks:
            self._tasks[stage] = self._rich.add_task(stage, total=total, completed=done, note=note)
        self._rich.update(self._tasks[stage], completed=done, total=total, note=note)

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._rich.console.print(shown_lines(text), markup=False, highlight=False)


def lines() -> Progress:
    """Lines on stderr, one every 30 seconds."""
    rates, last = _Rates(), time.monotonic()

    def progress(stage: str, done: int, total: int | None) -> None:
        nonlocal last
        rate = rates(stage, done)
        if time.monotonic() - last >= EVERY and rate is not None:
            last = time.monotonic()
            rest = f" of {total}, {(total - done) / rate:.0f} s to go" if total and rate else ""
            print(f"{stage}: {done}{rest}, {rate:.0f}/s", file=sys.stderr, flush=True)

    return progress


class _Rates:
    """How many a second, of each stage, since it was first told."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[float, int]] = {}

    def __call__(self, stage: str, done: int) -> float | None:
        """None the first time."""
        now = time.monotonic()
        begin, before = self.first.setdefault(stage, (now, done))
        return (done - before) / (now - begin) if now > begin else None
