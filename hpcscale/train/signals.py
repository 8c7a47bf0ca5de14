"""Requests to stop, remembered until the training loop comes to the end of a step.

They come as signals, or, in a job, as the file `stop` in the folder of its attempt: a signal to the batch
shell does not reach a process in an image, and one that comes while Python starts would kill it.
"""

import signal
import threading
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

# From a terminal, from Slurm or an administrator, from Slurm some minutes before the time limit.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Within its context the first signal only sets `requested`; the second acts as it always did.

    flag: a file that also requests a stop; checked once a second, to spare a shared file system.
    job: signals after the first do nothing, within the context and after it. Slurm signals all processes of
    a job, Apptainer passes its own signals on, and srun ends ranks that are still busy when another has
    ended. All this would kill a rank that is saving, or leaving with a code that says why. Only the batch
    shell may end it, by SIGKILL.
    """

    def __init__(self, flag: Path | None = None, job: bool = False) -> None:
        self.flag = flag
        self.job = job
        self.signalled = False
        self.next_look = 0.0
        self.before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        if not self.signalled and self.flag is not None and (now := monotonic()) >= self.next_look:
            self.next_look = now + 1.0
            self.signalled = self.flag.exists()
        return self.signalled

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            self.before = {number: signal.signal(number, self._remember) for number in SIGNALS}
            if self.job:
                self.before = dict.fromkeys(SIGNALS, signal.SIG_IGN)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
        signal.signal(number, self.before[signal.Signals(number)])
