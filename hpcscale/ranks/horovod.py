"""Horovod as a Communicator; the only file that imports it."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hpcscale.ranks.communicator import Backend, JoinError, RankLost
from hpcscale.ranks.rendezvous import Meeting
from hpcscale.ranks.slurm import Layout

if TYPE_CHECKING:
    from torch import Tensor

PAUSE = 1e-4  # seconds between two looks at what is waited for


def library() -> Any:
    """Horovod; the import takes seconds, with torch. Raises JoinError."""
    if not resolves(socket.gethostname()):
        raise JoinError(
            f"the name of this machine, {socket.gethostname()}, has no address that is its own, and Horovod "
            "crashes without: give it one in /etc/hosts"
        )
    try:
        import horovod.torch
    except ImportError as error:
        raise JoinError(f"several ranks need Horovod, which cannot be imported: {error}") from None
    return horovod.torch


def settings() -> dict[str, str]:
    """Horovod's, unless the environment sets them; benchmarks/records has the measurements behind them."""
    import torch

    return {
        "HOROVOD_FUSION_THRESHOLD": "0",  # merge no reductions, or timing would decide the order of additions
        # Milliseconds between two checks for work, for each of which all ranks talk: on cores that compute if
        # there is no GPU.
        "HOROVOD_CYCLE_TIME": "1" if torch.cuda.is_available() else "5",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "120",
        "HOROVOD_LOG_LEVEL": "fatal",  # a lost rank is reported by RankLost
    }


def nccl() -> tuple[int, int, int] | None:
    """The version of NCCL that it was compiled with, GPU or not; None without. Raises JoinError."""
    number = int(library().nccl_built())  # NCCL_VERSION_CODE: 10000 * major + 100 * minor + patch
    return (number // 10000, number // 100 % 100, number % 100) if number else None


def resolves(name: str) -> bool:
    """Whether a name stands for an address of this machine; Horovod listens there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.bind(address)
    except OSError:
        return False
    return True


def variables(layout: Layout, meeting: Meeting) -> dict[str, str]:
    """By which `Horovod` joins the ranks that have met there."""
    return layout.horovod() | {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": meeting.address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(meeting.port),
        "HOROVOD_GLOO_IFACE": meeting.interface,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
    }


class Horovod:
    """Ranks by their HOROVOD_* variables, or by MPI."""

    backend: Backend = "horovod"

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Join (collective). variables: HOROVOD_*, which take precedence over the environment's."""
        self.library = library()
        os.environ.update(variables)
        for name, value in settings().items():
            os.environ.setdefault(name, value)
        self.lost = ""  # what Horovod said when a rank was lost
        with self._lost_rank():
            self.library.init()

    def rank(self) -> int:
        return int(self.library.rank())

    def size(self) -> int:
        return int(self.library.size())

    def local_rank(self) -> int:
        return int(self.library.local_rank())

    def local_size(self) -> int:
        return int(self.library.local_size())

    def start_sum(self, tensor: "Tensor", name: str) -> Any:
        with self._lost_rank():
            return self.library.allreduce_async_(tensor, name=name, op=self.library.Sum)

    def wait(self, handle: Any) -> None:
        self._result(handle)

    def _result(self, handle: Any) -> Any:
        """Horovod's own wait spins, and on a CPU takes the core that its transport needs."""
        with self._lost_rank():
            while not self.library.poll(handle):
                time.sleep(PAUSE)
            return self.library.synchronize(handle)

    def max(self, tensor: "Tensor") -> None:
        with self._lost_rank():
            handle = self.library.allreduce_async_(tensor, name="hpcscale.max", op=self.library.Max)
        self.wait(handle)

    def gather_rows(self, tensor: "Tensor") -> "Tensor":
        return self._gathered(tensor, "hpcscale.gather_rows")

    def gather(self, tensor: "Tensor") -> "Tensor":
        return self._gathered(tensor, "hpcscale.gather")

    def _gathered(self, tensor: "Tensor", name: str) -> "Tensor":
        with self._lost_rank():
            handle = self.library.allgather_async(_words(tensor), name=name)
        gathered: Tensor = self._result(handle)
        return gathered.view(tensor.dtype)

    def exchange_rows(self, tensor: "Tensor") -> "Tensor":
        with self._lost_rank():
            handle = self.library.alltoall_async(_words(tensor), name="hpcscale.exchange_rows")
        received: Tensor
        received, _ = self._result(handle)
        return received.view(tensor.dtype)

    def broadcast(self, tensor: "Tensor", name: str) -> None:
        with self._lost_rank():
            handle = self.library.broadcast_async_(_words(tensor), 0, name=name)
        self.wait(handle)

    def barrier(self) -> None:
        with self._lost_rank():
            self.library.barrier()

    def shutdown(self) -> None:
        self.library.shutdown()

    @contextlib.contextmanager
    def _lost_rank(self) -> Iterator[None]:
        """What Horovod raises, as RankLost. From then on it is asked for nothing: its thread, which ends all
        that waits, holds a lock that a call would wait for, and may wait for Python, which the call holds."""
        from horovod.common.exceptions import HorovodInternalError

        if self.lost:
            raise RankLost(self.lost)
        try:
            yield
        except HorovodInternalError as error:
            what = str(error).strip().splitlines()[0].partition(". ")[0]
            self.lost = f"another rank has ended: {what}"
            raise RankLost(self.lost) from None


def _words(tensor: "Tensor") -> "Tensor":
    """The same memory in a dtype that Horovod carries everywhere: no bfloat16, no truth values."""
    import torch

    return tensor.view((torch.uint8, torch.int16, torch.int32, torch.int64)[tensor.itemsize.bit_length() - 1])
