"""Requests to stop, remembered until the training loop comes to the end of a step."""

import signal
import threading
from types import FrameType
from typing import Any

# From a terminal, from Slurm or an administrator, from Slurm some minutes before the time limit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Within its context the first signal only sets `requested`; the second acts as it always did."""

    def __init__(self) -> None:
        self.requested = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            self.before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, self.before[signal.Signals(number)])
