"""Which rank this process is, and what all ranks do together. The only package that imports horovod.

In: tensors and arrays of one rank. Out: their sum, concatenation or copy on all ranks. A process becomes a
rank in one of three ways: by `launch` (several on this machine), by srun (see `hpcscale.ranks.slurm` and
`.rendezvous`), or by the MPI that Horovod was built with. Otherwise it is alone, rank 0 of 1, and needs no
Horovod. All ranks must call functions marked *collective* in the same order.
"""

import contextlib
import importlib.metadata
import json
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcscale.ranks import device, rendezvous, slurm
from hpcscale.ranks.exits import LOST, RESUMABLE, STUCK, UNEXPECTED
from hpcscale.ranks.local import launch, resolves
from hpcscale.ranks.rendezvous import RankLost
from hpcscale.ranks.slurm import SlurmError

if TYPE_CHECKING:  # the launcher only starts ranks, and should not import torch
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["LOST", "RESUMABLE", "STUCK", "UNEXPECTED", "RankLost", "SlurmError", "launch"]

# Horovod's settings, unless the environment sets them; benchmarks/records has the measurements behind them.
SETTINGS = {
    "HOROVOD_FUSION_THRESHOLD": "0",  # merge no reductions, or timing would decide the order of additions
    "HOROVOD_CYCLE_TIME": "1",  # milliseconds between two checks for work
    "HOROVOD_GLOO_TIMEOUT_SECONDS": "120",
    "HOROVOD_LOG_LEVEL": "fatal",  # a lost rank is reported by RankLost
}
# Seconds after which all ranks end if the network is cut. A rank that is busy with a checkpoint is not lost:
# Horovod's own thread keeps the ranks in touch.
NETWORK_TIMEOUT = "30"

_horovod: Any = None


def init(folder: Path | None = None) -> None:
    """Join the ranks that the environment names (collective); do nothing if this process is alone.

    folder: where the command writes; without HPCSCALE_ATTEMPT, ranks that srun started meet below it.
    HPCSCALE_LAUNCHER (slurm | mpi | alone) overrules what the environment looks like. Raises SlurmError if
    the ranks do not fit together, RankLost if one does not come.
    """
    global _horovod
    if _horovod is not None:
        return
    launcher = _launcher()
    slurm.check_world(launcher, os.environ)
    if launcher == "slurm":
        layout = slurm.layout(os.environ)
        place = slurm.attempt(os.environ, folder or Path())
        assert place is not None  # because there is a SLURM_PROCID
        library = _library()
        with rendezvous.meeting(layout, place, _versions(), os.environ) as variables:
            os.environ.update(variables)
            os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", NETWORK_TIMEOUT)
            _join(library)
            barrier()  # rank 0 serves until all have joined
    elif launcher == "mpi":
        library = _library()
        if not library.mpi_built():
            raise SlurmError("HPCSCALE_LAUNCHER is mpi, but this Horovod was built without MPI")
        _join(library)
        if size() != (expected := slurm.tasks(os.environ)) and expected > 1:
            raise SlurmError(f"MPI made a world of {size()} ranks of {expected} tasks: see srun --mpi=list")
    elif launcher == "launch":
        _join(_library())


def _launcher() -> str:
    """What made this process a rank: launch | slurm | mpi | alone."""
    if "HOROVOD_RANK" in os.environ or "HOROVOD_SIZE" in os.environ:
        return "launch" if int(os.environ.get("HOROVOD_SIZE", "1")) > 1 else "alone"
    chosen = os.environ.get("HPCSCALE_LAUNCHER", "")
    if chosen in ("slurm", "mpi", "alone"):
        return chosen
    if chosen:
        raise SlurmError(f"HPCSCALE_LAUNCHER is {chosen!r}; allowed: slurm, mpi, alone")
    if "HPCSCALE_ATTEMPT" in os.environ and "SLURM_PROCID" not in os.environ:
        raise SlurmError(
            "HPCSCALE_ATTEMPT says that this is a job, but SLURM_PROCID is not in the environment: let the "
            "image see the variables of Slurm (--env), or every rank would be a world of its own"
        )
    return "slurm" if slurm.tasks(os.environ) > 1 else "alone"


def _library() -> Any:
    """Horovod; the import takes seconds, with torch."""
    if not resolves(socket.gethostname()):
        raise RuntimeError(
            f"the name of this machine, {socket.gethostname()}, has no address that is its own, and Horovod "
            "crashes without: give it one in /etc/hosts"
        )
    try:
        import horovod.torch
    except ImportError as error:
        raise RuntimeError(f"several ranks need Horovod, which cannot be imported: {error}") from error
    return horovod.torch


def _join(library: Any) -> None:
    global _horovod
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with _lost_rank():
        library.init()
    _horovod = library


def _versions() -> dict[str, str]:
    """What must be equal on all ranks."""
    return {name: importlib.metadata.version(name) for name in ("hpcscale", "torch", "horovod", "numpy")}


def attempt(folder: Path) -> Path | None:
    """The folder that ranks and batch shell of this attempt share; None outside Slurm."""
    return slurm.attempt(os.environ, folder)


def job(folder: Path) -> dict[str, Any]:
    """Slurm's job, attempt and nodes, and the commit that was submitted; empty outside Slurm."""
    return slurm.job(os.environ, folder)


def shutdown() -> None:
    """Leave. Ranks that wait in a collective get RankLost."""
    global _horovod
    if _horovod is not None:
        _horovod.shutdown()
        _horovod = None


def rank() -> int:
    """Number of this process among all, from 0."""
    return int(_horovod.rank()) if _horovod else 0


def size() -> int:
    """Number of processes."""
    return int(_horovod.size()) if _horovod else 1


def local_rank() -> int:
    """Number of this process on its node. For its GPU, use `device_index`."""
    return int(_horovod.local_rank()) if _horovod else 0


def local_size() -> int:
    """Number of processes on this node."""
    return int(_horovod.local_size()) if _horovod else 1


def device_index(visible: int) -> int:
    """Index of this rank's GPU; visible: torch.cuda.device_count(). Raises SlurmError if there is no GPU for
    it."""
    return device.choose(visible, local_rank(), local_size())


def start_sum(tensor: "Tensor", name: str) -> Any:
    """Begin to replace a tensor by its sum over ranks; pass the handle to `wait` (collective, by name)."""
    if _horovod is None:
        return None
    with _lost_rank():
        return _horovod.allreduce_async_(tensor, name=name, op=_horovod.Sum)


def wait(handle: Any) -> None:
    """Wait until a sum is there. On a GPU only the stream waits."""
    if handle is not None:
        with _lost_rank():
            _horovod.synchronize(handle)


def sum_(tensor: "Tensor") -> "Tensor":
    """Replace a tensor by its sum over ranks, in place (collective)."""
    wait(start_sum(tensor, "hpcscale.sum"))
    return tensor


def max_(tensor: "Tensor") -> "Tensor":
    """Replace a tensor by the largest of each of its numbers over ranks, in place (collective)."""
    if _horovod is not None:
        with _lost_rank():
            _horovod.allreduce_(tensor, name="hpcscale.max", op=_horovod.Max)
    return tensor


def gather_rows(tensor: "Tensor") -> "Tensor":
    """(n, ...), alike on all ranks -> (ranks * n, ...), the rows of all, rank by rank (collective)."""
    if _horovod is None:
        return tensor
    with _lost_rank():
        gathered: Tensor = _horovod.allgather(_words(tensor), name="hpcscale.gather_rows")
    return gathered.view(tensor.dtype)


def exchange_rows(tensor: "Tensor") -> "Tensor":
    """(ranks * n, ...), n rows for each rank -> (ranks * n, ...), those from each, rank by rank
    (collective)."""
    if _horovod is None:
        return tensor
    with _lost_rank():
        received: Tensor = _horovod.alltoall(_words(tensor), name="hpcscale.exchange_rows")
    return received.view(tensor.dtype)


def _words(tensor: "Tensor") -> "Tensor":
    """The same bits without gaps, in a dtype that Horovod can carry: it knows no bfloat16."""
    import torch

    whole = tensor.detach().contiguous()
    return whole.view(torch.int16) if whole.dtype == torch.bfloat16 else whole


def broadcast(tensors: Iterable["Tensor"]) -> None:
    """Overwrite tensors, of any strides, with those of rank 0, in place (collective)."""
    if _horovod is None:
        return
    with _lost_rank():
        for number, tensor in enumerate(tensors):
            sent = tensor.detach().contiguous()  # Horovod does not count channels_last as contiguous
            _horovod.broadcast_(sent, 0, name=f"hpcscale.broadcast.{number}")
            if sent.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(sent)


def gather(array: "NDArray[Any]") -> "NDArray[Any]":
    """The arrays of all ranks, joined along the first axis; its lengths may differ (collective)."""
    if _horovod is None:
        return array
    import numpy as np
    import torch

    with _lost_rank():
        gathered = _horovod.allgather(torch.from_numpy(np.array(array)), name="hpcscale.gather")
    joined: NDArray[Any] = gathered.numpy()
    return joined


def broadcast_object(value: Any) -> Any:
    """The value of rank 0, on all ranks (collective). Sent as JSON, so that nothing is unpickled."""
    if _horovod is None:
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
    if _horovod is not None:
        with _lost_rank():
            _horovod.barrier()


@contextlib.contextmanager
def _lost_rank() -> Iterator[None]:
    from horovod.common.exceptions import HorovodInternalError

    try:
        yield
    except HorovodInternalError as error:
        what = str(error).strip().splitlines()[0].partition(". ")[0]
        raise RankLost(f"another rank has ended: {what}") from None
