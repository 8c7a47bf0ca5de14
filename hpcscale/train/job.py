"""What a task hands to the training loop, which knows no task: a new one is a file that builds a Job."""

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hpcscale.inputs.mending import Tell


class Batch(Protocol):
    """What the loop must know of the batches of a task: nothing but whose they are."""

    @property
    def samples(self) -> NDArray[np.int64]: ...  # (n,) ids


class Job(NamedTuple):
    """Everything is of this rank. Two ranks build the same Job, but for their batches and `local`."""

    # On the device, each part in the mode in which it trains; parameters that require no gradient are frozen.
    model: nn.Module
    optimizer: torch.optim.Optimizer  # optim.build
    # From a number of steps done and what is told of each sample that cannot be read, to the batches that
    # follow: `train.accumulate` a step, a pure function of the step. A batch is valid until the next is
    # asked for.
    batches: Callable[[int, Tell], Generator[Any, None, None]]
    # Of a batch: summed over its samples and divided by the global batch, so that sums over all batches and
    # ranks are means. A scalar with a gradient, on the device.
    loss: Callable[[Any], Tensor]
    # Evaluate and keep the result (collective), after so many steps: the name of the set, and its metrics
    # on rank 0. None: nothing to evaluate.
    assess: Callable[[int], tuple[str, Mapping[str, Any]]] | None
    # What must be the same when a run goes on (data/same.py), and what else every checkpoint states. JSON.
    fingerprint: dict[str, Any]
    names: Callable[[NDArray[np.int64]], list[str]]  # of samples, for messages
    local: tuple[nn.Parameter, ...] = ()  # parameters whose gradients are not summed over ranks
