"""A study on this machine: one cell after another, in an order in which nothing waits.

In: cells and their states. Out: what their commands make, a record and a log of each. A cell that fails stops
those that need it, and no others. Killed, the same command goes on: commands of hpcscale do.
"""

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from hpcscale.files import Told
from hpcscale.progress import Say
from hpcscale.study import state
from hpcscale.study.cells import Cell, Key
from hpcscale.study.state import State

RANKED = ("train", "evaluate", "transfer")  # commands that take --ranks


class UnfinishedError(Told):
    """Some cells failed, or wait for one that did."""


def run(cells: Mapping[Key, Cell], states: dict[Key, State], root: Path, ranks: int, say: Say) -> None:
    """Run all that is not done. Raises UnfinishedError at the end, if something failed.

    ranks: for commands that share their work; say: gets a line at the begin and at the end of each.
    """
    wanted = [key for key in cells if states[key].word != "done"]
    now, failed = dict(states), list[Key]()
    for place, key in enumerate(wanted, 1):
        cell, title = cells[key], f"[{place}/{len(wanted)}] {key[0]} {key[1]}"
        if any(now[need].word != "done" for need in cell.needs):
            blocked = next(need for need in cell.needs if now[need].word != "done")
            now[key] = State("waiting", " ".join(blocked))
            say(f"{title}: not run: {' '.join(blocked)} is not there")
            continue
        say(f"{title}: hpcscale {' '.join(cell.words)}")
        code, seconds = _command(cell, root, ranks)
        state.write(cell, root, code, seconds)
        now[key] = State("failed" if code else "done")
        if code:
            failed.append(key)
            lines = "".join(f"\n    {line}" for line in state.last_lines(state.log_of(cell, root))[-5:])
            say(f"{title}: failed with exit code {code}; {state.log_of(cell, root)} ends:{lines}")
        else:
            say(f"{title}: {seconds:.0f} s")
    left = sum(now[key].word != "done" for key in wanted)
    if left:
        names = ", ".join(" ".join(key) for key in failed)
        raise UnfinishedError(
            f"{len(failed)} cells failed ({names}), {left - len(failed)} wait for them; the others are done. "
            "The same command tries them again"
        )


def _command(cell: Cell, root: Path, ranks: int) -> tuple[int, float]:
    """Exit code and seconds. The process is ended with ours."""
    for place in (root / cell.folder, state.log_of(cell, root)):
        place.parent.mkdir(parents=True, exist_ok=True)
    words = [*cell.words, *(["--ranks", str(ranks)] if ranks > 1 and cell.words[0] in RANKED else [])]
    start = time.monotonic()
    with (
        state.log_of(cell, root).open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "hpcscale", *words], cwd=root, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            code = process.wait()
        except BaseException:  # a signal
            process.terminate()
            process.wait()
            raise
    return code, time.monotonic() - start
