"""Starts ranks on this machine: a command and the number of ranks in, one exit code out.

The ranks find one another at a server on the loopback interface, in this process. Used by the command line;
under Slurm, srun starts the ranks and `hpcscale.ranks.rendezvous` brings them together.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from hpcscale.ranks.exits import LOST, RESUMABLE

GRACE = 10.0  # seconds for the other ranks to end by themselves after one has failed


def launch(command: Sequence[str], ranks: int) -> int:
    """Run `command` as `ranks` processes of this machine and return one exit code for all.

    0 if all succeed; 75 if they stopped and can be resumed; else the code of the first rank that failed
    (128 + n for signal n), after which the others are ended. Rank 0 uses the terminal. Of another rank, only
    the end of its output is shown, and only if it failed first. SIGINT, SIGTERM and SIGUSR1 are passed on to
    the ranks. If this process is killed, the ranks are killed too.
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
            # A rank killed by a signal (a negative code) failed first; others failed because of it.
            first = min(causes, key=lambda r: processes[r].returncode)
        if failed:
            deadline = min(deadline, time.monotonic() + GRACE)
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.05)
    return first


def _rendezvous(ranks: int) -> tuple[Any, list[dict[str, str]]]:
    """The server at which ranks find one another, bound to loopback but not yet serving, and the environment
    of each rank."""
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

    If this machine's name has no address here (as in a bare chroot), the child also takes a name that has
    one, in a namespace of its own. If it has no right to do that, `init` says what is wrong.
    """
    libc = ctypes.CDLL(None)
    named = resolves(socket.gethostname())

    def ask() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
        if not named and libc.unshare(0x04000000) == 0:  # CLONE_NEWUTS
            libc.sethostname(b"127.0.0.1", 9)

    return ask


def resolves(name: str) -> bool:
    """Whether a name stands for an address of this machine; Horovod listens there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.bind(address)
    except OSError:
        return False
    return True


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
