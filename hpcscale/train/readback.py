"""What the host must know of a step: read at once on the CPU, one step late on a GPU.

Reading a number from a GPU waits until the GPU has computed it. One step late, the next step is already
queued there, and the GPU never waits for the host. All ranks read the same numbers at the same step, so that
they decide alike.
"""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Step(NamedTuple):
    number: int  # steps done, this one included
    samples: NDArray[np.int64]  # of this rank
    loss: float  # mean over the global batch
    stops: float  # ranks that were asked to stop
    bad: float  # 1.0 if its update was not applied
    overflow: float  # 1.0 if that was because the loss scale was too large, and is all that was wrong


class Readback:
    def __init__(self) -> None:
        self.queue: deque[tuple[int, NDArray[np.int64], Tensor, torch.cuda.Event | None]] = deque()

    def put(self, number: int, samples: NDArray[np.int64], numbers: Tensor) -> None:
        """Start to copy (loss, stops, bad, overflow) of a step to the host."""
        if numbers.is_cuda:
            host = numbers.to("cpu", non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self.queue.append((number, samples, host, event))
        else:
            self.queue.append((number, samples, numbers, None))

    def take(self, everything: bool) -> Iterator[Step]:
        """The steps that can be read; with `everything`, wait for all (a sync on a GPU)."""
        while self.queue and (everything or len(self.queue) > 1 or self.queue[0][3] is None):
            number, samples, host, event = self.queue.popleft()
            if event is not None:
                event.synchronize()
            yield Step(number, samples, *host.tolist())
