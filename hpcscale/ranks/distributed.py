"""torch.distributed as a Communicator, Gloo on the CPU and NCCL on GPUs; the only file that imports it.

In: where the ranks have met. Gloo has a connection between each two ranks, and by itself notices only that
one is closed. So the kernel is told to probe them: it answers for a rank that is busy with a checkpoint, and
ends the connection where a node or the network is gone.
"""

import atexit
import contextlib
import os
import socket
import stat
import time
from collections.abc import Iterator
from datetime import timedelta
from http.client import HTTPException
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from hpcscale.ranks.communicator import Backend, RankLost
from hpcscale.ranks.rendezvous import Meeting
from hpcscale.ranks.slurm import Layout
from hpcscale.ranks.store import POLL, request

JOINING = timedelta(seconds=120)  # for all to connect
BUSY = timedelta(days=30)  # that ranks may wait for one; training has a watchdog of its own
NETWORK = 30  # seconds after which all ranks end if the network is cut
WORDS = {4: torch.int32, 8: torch.int64}  # of so many bytes, that Gloo adds
PORT = "/hpcscale/torch"  # key of the port of torch's own store


class Distributed:
    """Ranks at their places in a layout."""

    backend: Backend = "torch"

    def __init__(self, layout: Layout, meeting: Meeting) -> None:
        """Join (collective). Raises RankLost if not all do within JOINING."""
        self.layout = layout
        os.environ["GLOO_SOCKET_IFNAME"] = meeting.interface
        gpus = torch.cuda.is_available() and dist.is_nccl_available()
        with _lost_rank():
            store = _store(layout, meeting)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if gpus else "gloo",
                store=store,
                rank=layout.rank,
                world_size=layout.size,
                timeout=JOINING,
            )
        assert dist.group.WORLD is not None
        dist.group.WORLD._get_backend(torch.device("cpu")).set_timeout(BUSY)
        self.connections = _connections({meeting.port, store.port})
        for connection in self.connections:
            _probe(connection)
        atexit.register(self.shutdown)

    def rank(self) -> int:
        return self.layout.rank

    def size(self) -> int:
        return self.layout.size

    def local_rank(self) -> int:
        return self.layout.local_rank

    def local_size(self) -> int:
        return self.layout.local_size

    def start_sum(self, tensor: Tensor, name: str) -> Any:
        with _lost_rank():
            return dist.all_reduce(tensor, async_op=True)

    def wait(self, handle: Any) -> None:
        with _lost_rank():
            handle.wait()

    def max(self, tensor: Tensor) -> None:
        with _lost_rank():
            dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def gather_rows(self, tensor: Tensor) -> Tensor:
        joined = tensor.new_empty(self.size() * len(tensor), *tensor.shape[1:])
        if tensor.numel():
            with _lost_rank():
                dist.all_gather_single(_bytes(joined), _bytes(tensor))
        return joined

    def gather(self, tensor: Tensor) -> Tensor:
        lengths = self.gather_rows(torch.tensor([len(tensor)])).tolist()
        padded = tensor.new_zeros(max(lengths), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        joined = self.gather_rows(padded).view(self.size(), *padded.shape)
        return torch.cat([joined[rank, :length] for rank, length in enumerate(lengths)])

    def exchange_rows(self, tensor: Tensor) -> Tensor:
        received = torch.empty_like(tensor)
        if tensor.numel():
            with _lost_rank():
                dist.all_to_all_single(_bytes(received), _bytes(tensor))
        return received

    def broadcast(self, tensor: Tensor, name: str) -> None:
        # The sum of rank 0's bits and zeros: Gloo's own broadcast takes from any rank whatever comes first,
        # and so waits for ever if one has ended before.
        words = tensor.view(-1).view(WORDS.get(tensor.itemsize, torch.uint8))
        if self.rank() > 0:
            words.zero_()
        if tensor.numel():
            with _lost_rank():
                dist.all_reduce(words)

    def barrier(self) -> None:
        with _lost_rank():
            dist.all_reduce(torch.zeros(1))  # dist.barrier would ask which GPU

    def shutdown(self) -> None:
        atexit.unregister(self.shutdown)
        # Gloo would wait for the ends of sums that this rank has begun, and others may never begin.
        for connection in self.connections:
            with contextlib.suppress(OSError):  # the other end was first
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        dist.destroy_process_group()


def _bytes(tensor: Tensor) -> Tensor:
    """The same memory, (bytes,): Gloo does not know every dtype that it may carry."""
    return tensor.view(-1).view(torch.uint8)


def _store(layout: Layout, meeting: Meeting) -> Any:
    """torch's own store, which rank 0 serves at a port that it tells all."""
    if layout.rank == 0:
        listening = socket.create_server((meeting.address, 0), backlog=1024)
        port = listening.getsockname()[1]
        request(meeting.store, "PUT", PORT, str(port).encode())
        # Nobody else can take the port before the store has it.
        mine: dict[str, Any] = {"is_master": True, "master_listen_fd": listening.detach()}
    else:
        port, mine = _told(meeting), {}
    store = dist.TCPStore  # type: ignore[attr-defined]
    return store(meeting.address, port, layout.size, timeout=JOINING, wait_for_workers=False, **mine)


def _told(meeting: Meeting) -> int:
    """The port of rank 0's store, as soon as there is one."""
    deadline = time.monotonic() + JOINING.total_seconds()
    while time.monotonic() < deadline:
        try:
            if found := request(meeting.store, "GET", PORT):
                return int(found)
        except (OSError, HTTPException) as error:
            raise RankLost(f"{meeting.address}:{meeting.port}, where ranks meet, is gone: {error}") from None
        time.sleep(POLL)
    raise RankLost(f"rank 0 has not joined by torch.distributed within {JOINING.total_seconds():.0f} s")


def _connections(others: set[int]) -> list[socket.socket]:
    """Duplicates of the connections to other ranks, all that this process has but those with a port of
    `others`."""
    found, seen = [], set()
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            status = os.fstat(number)
            if not stat.S_ISSOCK(status.st_mode) or status.st_ino in seen:  # seen: a duplicate of ours
                continue
            seen.add(status.st_ino)
            connection = socket.socket(fileno=os.dup(number))
        except OSError:  # closed meanwhile
            continue
        with contextlib.suppress(OSError):  # not connected
            ends = connection.getsockname(), connection.getpeername()
            if (
                connection.family in (socket.AF_INET, socket.AF_INET6)
                and not {end[1] for end in ends} & others
            ):
                found.append(connection)
                continue
        connection.close()
    return found


def _probe(connection: socket.socket) -> None:
    """Let the kernel end a connection whose other end has not answered it for NETWORK seconds."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, NETWORK // 3))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, NETWORK // 6))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * NETWORK)  # of what was sent


@contextlib.contextmanager
def _lost_rank() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        # Gloo has no type for it; "enforce" is of a collective that ranks call with different tensors.
        if not isinstance(error, dist.DistError) and ("gloo/" not in text or "enforce fail" in text):
            raise
        what = text.strip().splitlines()[0].rpartition("] ")[2] if text.startswith("[") else text
        raise RankLost(f"another rank has ended: {what.partition('. ')[0]}") from None
