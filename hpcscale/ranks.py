"""Which rank this process is, and what all ranks do together. The only file that imports horovod.

In: tensors and arrays of one rank; out: their sum, concatenation or copy on all ranks. A process that was
started without `HOROVOD_RANK` in its environment is alone, rank 0 of 1, and needs no Horovod. `launch` starts
several on this machine; under Slurm the same variables come from the job script. Functions marked
*collective* must be called by all ranks in the same order.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the launcher starts ranks and needs no torch itself
    from numpy.typing import NDArray
    from torch import Tensor

RESUMABLE = 75  # exit code of a rank that stopped on request and can go on (EX_TEMPFAIL)
LOST = 76  # exit code of a rank that ended because another did
GRACE = 10.0  # seconds that the other ranks get to end by themselves after one has failed

# Horovod's settings, where the environment does not say otherwise. See benchmarks/records for what they were
# chosen by.
SETTINGS = {
    "HOROVOD_FUSION_THRESHOLD": "0",  # merge no reductions: what is added to what must not depend on timing
    "HOROVOD_CYCLE_TIME": "1",  # milliseconds between two looks for work
    "HOROVOD_GLOO_TIMEOUT_SECONDS": "120",
    "HOROVOD_LOG_LEVEL": "fatal",  # a lost rank is reported by RankLost
}

_horovod: Any = None


class RankLost(RuntimeError):
    """A collective failed because another rank has ended."""


def init() -> None:
    """Join the ranks named by the environment (collective); alone, do nothing."""
    global _horovod
    if _horovod is not None or int(os.environ.get("HOROVOD_SIZE", "1")) == 1:
        return
    if not _resolves(socket.gethostname()):
        raise RuntimeError(
            f"the name of this machine, {socket.gethostname()}, has no address, and Horovod crashes without: "
            "give it one in /etc/hosts"
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import horovod.torch
    except ImportError as error:
        raise RuntimeError(
            f"HOROVOD_SIZE asks for several ranks, but Horovod cannot be imported: {error}"
        ) from error
    with _lost_rank():
        horovod.torch.init()
    _horovod = horovod.torch


def shutdown() -> None:
    """Leave; a collective that others are in fails there with RankLost."""
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
    """Number of this process on its node; picks the device, nothing else."""
    return int(_horovod.local_rank()) if _horovod else 0


def local_size() -> int:
    """Number of processes on this node."""
    return int(_horovod.local_size()) if _horovod else 1


def start_sum(tensor: "Tensor", name: str) -> Any:
    """Begin to replace a tensor by its sum over ranks; `wait` takes the handle (collective, by name)."""
    if _horovod is None:
        return None
    with _lost_rank():
        return _horovod.allreduce_async_(tensor, name=name, op=_horovod.Sum)


def wait(handle: Any) -> None:
    """Block until a sum is there. On a GPU only the stream waits."""
    if handle is not None:
        with _lost_rank():
            _horovod.synchronize(handle)


def sum_(tensor: "Tensor") -> "Tensor":
    """Replace a tensor by its sum over ranks, in place (collective)."""
    wait(start_sum(tensor, "hpcscale.sum"))
    return tensor


def average(tensor: "Tensor") -> "Tensor":
    """Replace a floating-point tensor by its mean over ranks, in place (collective)."""
    return sum_(tensor).div_(size())


def broadcast(tensors: Iterable["Tensor"], root: int = 0) -> None:
    """Overwrite tensors with those of rank `root`, in place (collective); any strides."""
    if _horovod is None:
        return
    with _lost_rank():
        for number, tensor in enumerate(tensors):
            sent = tensor.detach().contiguous()  # channels_last weights are not, in Horovod's sense
            _horovod.broadcast_(sent, root, name=f"hpcscale.broadcast.{number}")
            if sent.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(sent)


def gather(array: "NDArray[Any]") -> "NDArray[Any]":
    """Arrays of all ranks one after the other along the first axis, whose lengths may differ (collective)."""
    if _horovod is None:
        return array
    import numpy as np
    import torch

    with _lost_rank():
        gathered = _horovod.allgather(torch.from_numpy(np.array(array)), name="hpcscale.gather")
    joined: NDArray[Any] = gathered.numpy()
    return joined


def broadcast_object(value: Any, root: int = 0) -> Any:
    """What rank `root` has, on all ranks (collective); whatever JSON can carry, so that nothing is
    unpickled."""
    if _horovod is None:
        return value
    import torch

    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    length = torch.tensor([len(text)])
    broadcast([length], root)
    if rank() != root:
        text = torch.empty(int(length), dtype=torch.uint8)
    broadcast([text], root)
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
        raise RankLost(f"another rank has ended: {str(error).strip().splitlines()[0]}") from None


# ---- starting ranks on this machine
# ----------------------------------------------------------------------------


def launch(command: Sequence[str], ranks: int) -> int:
    """Run `command` as `ranks` processes of this machine and return one exit code for all.

    0 if all are fine; else the code of the first that failed (128 + n for signal n), the others being ended
    with it; 75 if they stopped resumable. Rank 0 has the terminal; of another rank, only the end of its
    output is shown, and only if it is the one that failed. SIGINT, SIGTERM and SIGUSR1 are passed on; when
    this process is killed, so are they.
    """
    server, environments = _rendezvous(ranks)
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, ranks)]
        processes = [
            subprocess.Popen(
                command,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
                preexec_fn=_die_with(os.getpid()),
            )
            for environment, log in zip(environments, [None, *logs], strict=True)
        ]
        # Threads only from here on: a fork of a threaded process may deadlock.
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        with _pass_on(processes):
            first = _watch(processes)
        if first:
            sys.stdout.flush()
            log = [None, *logs][first]
            log.seek(0)  # type: ignore[union-attr]
            for line in log.read().decode(errors="replace").splitlines()[-30:]:  # type: ignore[union-attr]
                print(f"rank {first}: {line}", file=sys.stderr)
    codes = [process.returncode for process in processes]
    if first is not None:
        return codes[first] if codes[first] > 0 else 128 - codes[first]
    return RESUMABLE if RESUMABLE in codes else 0


def _watch(processes: Sequence["subprocess.Popen[bytes]"]) -> int | None:
    """Wait for all; end the others when one fails, and return which failed first."""
    first, deadline = None, float("inf")
    running = True
    while running:
        running = None in [process.poll() for process in processes]  # polls every one
        failed = [r for r, process in enumerate(processes) if process.returncode not in (None, 0, RESUMABLE)]
        causes = [r for r in failed if processes[r].returncode != LOST] or ([] if running else failed)
        if first is None and causes:
            # Killed by a signal (a negative code) comes before what followed from it.
            first = min(causes, key=lambda r: processes[r].returncode)
        if failed:
            deadline = min(deadline, time.monotonic() + GRACE)
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return first


def _rendezvous(ranks: int) -> tuple[Any, list[dict[str, str]]]:
    """The server at which ranks find one another, bound to loopback and not yet serving, and their
    environments."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    slots = get_host_assignments(parse_hosts(f"localhost:{ranks}"), ranks)
    server = RendezvousHTTPServer(("127.0.0.1", 0), RendezvousHandler, 0)
    server.init(slots)
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    common = {
        "HOROVOD_HOSTNAME": "localhost",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(server.server_address[1]),
        "HOROVOD_GLOO_IFACE": "lo",
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
    return server, [
        common
        | {
            "HOROVOD_RANK": str(slot.rank),
            "HOROVOD_SIZE": str(slot.size),
            "HOROVOD_LOCAL_RANK": str(slot.local_rank),
            "HOROVOD_LOCAL_SIZE": str(slot.local_size),
            "HOROVOD_CROSS_RANK": str(slot.cross_rank),
            "HOROVOD_CROSS_SIZE": str(slot.cross_size),
        }
        for slot in slots
    ]


def _die_with(parent: int) -> Callable[[], None]:
    """What a child does before its program starts: ask to be killed when its parent dies, even by kill -9.

    Where the name of this machine has no address (a bare chroot), the child also takes a name that is one, in
    a namespace of its own; without the right to that, `init` says what is wrong.
    """
    libc = ctypes.CDLL(None)
    named = _resolves(socket.gethostname())

    def ask() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
        if not named and libc.unshare(0x04000000) == 0:  # CLONE_NEWUTS
            libc.sethostname(b"127.0.0.1", 9)

    return ask


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


@contextlib.contextmanager
def _pass_on(processes: Sequence["subprocess.Popen[bytes]"]) -> Iterator[None]:
    def handler(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
