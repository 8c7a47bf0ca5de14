"""What a task gives to the training loop, which knows no task. A new task is a file that builds a Job."""

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcscale.inputs.mending import Tell


class Batch(Protocol):
    """All that the loop knows of a batch: its samples."""

    @property
    def samples(self) -> NDArray[np.int64]: ...  # (n,) ids


class Job(NamedTuple):
    """All of it is for this rank. The Jobs of two ranks differ only in their batches and `local`."""

    # On the device, each part in the mode in which it trains; parameters that require no gradient are frozen.
    model: nn.Module
    optimizer: torch.optim.Optimizer  # optim.build
    # batches(steps done, tell): the batches that follow, `train.accumulate` for each step, as a pure function
    # of the step. `tell` is called for each sample that cannot be read. A batch is valid until the next is
    # taken.
    batches: Callable[[int, Tell], Generator[Any, None, None]]
    # loss(batch): summed over its samples and divided by the global batch, so that the sum over all batches
    # and ranks is the mean. A scalar with a gradient, on the device.
    loss: Callable[[Any], Tensor]
    # assess(steps done): evaluate and keep the result (collective). Returns the name of the set, and on rank
    # 0 the metrics. None: there is nothing to evaluate.
    assess: Callable[[int], tuple[str, Mapping[str, Any]]] | None
    # What must be the same when a run goes on (data/same.py), and what else every checkpoint states. JSON.
    fingerprint: dict[str, Any]
    names: Callable[[NDArray[np.int64]], list[str]]  # of samples, for messages
    local: tuple[nn.Parameter, ...] = ()  # parameters whose gradients are not summed over ranks
    facts: Mapping[str, Any] = {}  # what else the log states when a run starts or goes on; JSON
