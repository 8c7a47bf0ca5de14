"""Which rank this process is, and what all ranks do together.

In: tensors and arrays of one rank. Out: their sum, concatenation or copy on all ranks, by the library that
`joining.py` has chosen. A process that is no rank among others is rank 0 of 1, and needs no library. All
ranks must call functions marked *collective* in the same order.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcscale.ranks import device, joining, slurm
from hpcscale.ranks.communicator import Backend, Communicator, JoinError, RankLost
from hpcscale.ranks.exits import LOST, RESUMABLE, STUCK, UNEXPECTED
from hpcscale.ranks.local import launch
from hpcscale.ranks.slurm import SlurmError

if TYPE_CHECKING:  # the launcher only starts ranks, and should not import torch
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["LOST", "RESUMABLE", "STUCK", "UNEXPECTED", "JoinError", "RankLost", "SlurmError", "launch"]

_all: Communicator | None = None  # None: this process is alone


def init(folder: Path | None = None, wanted: Backend | None = None) -> None:
    """Join the ranks that the environment names (collective), as `joining.join` says, unless it is done; do
    nothing if this process is alone. wanted: the library that a recipe names."""
    global _all
    if _all is None:
        _all = joining.join(folder or Path(), wanted)


def attempt(folder: Path) -> Path | None:
    """The folder that ranks and batch shell of this attempt share; None outside Slurm."""
    return slurm.attempt(os.environ, folder)


def job(folder: Path) -> dict[str, Any]:
    """Slurm's job, attempt and nodes, and the commit that was submitted; empty outside Slurm."""
    return slurm.job(os.environ, folder)


def shutdown() -> None:
    """Leave. Ranks that wait in a collective get RankLost."""
    global _all
    if _all is not None:
        _all.shutdown()
        _all = None


def backend() -> Backend | None:
    """The library that connects the ranks; None if this process is alone."""
    return _all.backend if _all else None


def rank() -> int:
    """Number of this process among all, from 0."""
    return _all.rank() if _all else 0


def size() -> int:
    """Number of processes."""
    return _all.size() if _all else 1


def local_rank() -> int:
    """Number of this process on its node. For its GPU, use `device_index`."""
    return _all.local_rank() if _all else 0


def local_size() -> int:
    """Number of processes on this node."""
    return _all.local_size() if _all else 1


def device_index(visible: int) -> int:
    """Index of this rank's GPU; visible: torch.cuda.device_count(). Raises SlurmError if there is no GPU for
    it."""
    return device.choose(visible, local_rank(), local_size())


def start_sum(tensor: "Tensor", name: str) -> Any:
    """Begin to replace a tensor by its sum over ranks; pass the handle to `wait` (collective, by name)."""
    return _all.start_sum(tensor, name) if _all else None


def wait(handle: Any) -> None:
    """Wait until a sum is there. On a GPU only the stream waits."""
    if _all and handle is not None:
        _all.wait(handle)


def sum_(tensor: "Tensor") -> "Tensor":
    """Replace a tensor by its sum over ranks, in place (collective)."""
    wait(start_sum(tensor, "hpcscale.sum"))
    return tensor


def max_(tensor: "Tensor") -> "Tensor":
    """Replace a tensor by the largest of each of its numbers over ranks, in place (collective)."""
    if _all:
        _all.max(tensor)
    return tensor


def gather_rows(tensor: "Tensor") -> "Tensor":
    """(n, ...), alike on all ranks -> (ranks * n, ...), the rows of all, rank by rank (collective)."""
    return _all.gather_rows(tensor.detach().contiguous()) if _all else tensor


def exchange_rows(tensor: "Tensor") -> "Tensor":
    """(ranks * n, ...), n rows for each rank -> (ranks * n, ...), those from each, rank by rank
    (collective)."""
    return _all.exchange_rows(tensor.detach().contiguous()) if _all else tensor


def broadcast(tensors: Iterable["Tensor"]) -> None:
    """Overwrite tensors, of any strides, with those of rank 0, in place (collective)."""
    if _all is None:
        return
    for number, tensor in enumerate(tensors):
        sent = tensor.detach().contiguous()  # channels_last is not
        _all.broadcast(sent, f"hpcscale.broadcast.{number}")
        if sent.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(sent)


def gather(array: "NDArray[Any]") -> "NDArray[Any]":
    """The arrays of all ranks, joined along the first axis; its lengths may differ (collective)."""
    if _all is None:
        return array
    import numpy as np
    import torch

    joined: NDArray[Any] = _all.gather(torch.from_numpy(np.array(array, order="C"))).numpy()
    return joined


def broadcast_object(value: Any) -> Any:
    """The value of rank 0, on all ranks (collective). Sent as JSON, so that nothing is unpickled."""
    if _all is None:
        return value
    import torch

    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    length = torch.tensor([len(text)])
    broadcast([length])
    if rank() != 0:
        text = torch.empty(int(length), dtype=torch.uint8)
    broadcast([text])
    return json.loads(bytes(text.numpy()))


def barrier() -> None:
    """Wait until all ranks are here (collective)."""
    if _all:
        _all.barrier()
