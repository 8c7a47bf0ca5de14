"""Ends a process whose step never ends. Limits in; stacks of all threads and exit code 77 out.

A rank that hangs leaves the others waiting in a collective for ever; neither Horovod's own stall inspector
nor torch.distributed ends them. All ranks take equally long, so all watchdogs act at nearly the same time,
and every rank leaves a file that says where it was.
"""

import contextlib
import faulthandler
import os
import signal
import statistics
import sys
import threading
from collections import deque
from pathlib import Path
from time import monotonic, sleep

from hpcscale import config, ranks

COMPANY = 3.0  # seconds between the stacks and the end, for the other ranks to write theirs
NET = 10.0  # seconds after which the second stage takes over, if something holds Python's lock
REMEMBERED = 64  # steps that the median looks back on


class Watchdog:
    """A context. Within it, call `step` before each step, and `pause` before anything else.

    Three stages:

    1. A thread of Python writes the stacks to `file` and exits with 77.
    2. If something holds the interpreter's lock, or the file system hangs, a thread of faulthandler writes
       the stacks to stderr NET seconds later.
    3. SIGALRM, which needs no thread, ends the process soon after.
    """

    def __init__(self, settings: config.Watchdog, file: Path) -> None:
        self.settings, self.file = settings, file
        self.times: deque[float] = deque(maxlen=REMEMBERED)
        self.began: float | None = None  # when the step began that is being timed
        self.limit = settings.patience
        self.deadline = 0.0
        self.net_set = 0.0
        self.closed = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self.settings.floor:
            self.alarm = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
            self._arm(self.settings.patience)
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self.settings.floor:
            return
        self.closed.set()
        self.thread.join()
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, self.alarm[0])
        signal.setitimer(signal.ITIMER_REAL, *self.alarm[1])  # as it was before

    def step(self) -> None:
        """A step begins; the one before it has ended."""
        self._end_step()
        self.began = monotonic()
        if self.times:
            median = statistics.median(self.times)
            self._arm(max(self.settings.floor, self.settings.multiple * median))
        else:
            self._arm(self.settings.patience)

    def pause(self) -> None:
        """What follows until the next step is an evaluation or a checkpoint."""
        self._end_step()
        self._arm(self.settings.patience)

    def _end_step(self) -> None:
        if self.began is not None:
            self.times.append(monotonic() - self.began)
        self.began = None

    def _arm(self, limit: float) -> None:
        if not self.settings.floor:
            return
        now = monotonic()
        self.limit, self.deadline = limit, now + limit
        # The net costs a thread each time it is set: not more than once a second, and never later than this.
        if not self.net_set <= self.deadline <= self.net_set + 1.0:
            faulthandler.dump_traceback_later(limit + NET, file=2)
            signal.setitimer(signal.ITIMER_REAL, limit + NET + COMPANY)
            self.net_set = self.deadline

    def _watch(self) -> None:
        while not self.closed.wait(min(1.0, max(0.01, self.deadline - monotonic()))):
            if monotonic() < self.deadline:
                continue
            with contextlib.suppress(OSError):  # a full disk
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with self.file.open("w") as stream:
                    faulthandler.dump_traceback(file=stream)
            print(
                f"rank {ranks.rank()} on {os.uname().nodename}: no end of a step within {self.limit:.0f} s; "
                f"where it hangs: {self.file}",
                file=sys.stderr,
                flush=True,
            )
            sleep(COMPANY)
            os._exit(ranks.STUCK)
