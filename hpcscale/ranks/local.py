"""Starts ranks on this machine: a command and the number of ranks in, one exit code out.

The ranks find one another at a store on the loopback interface, in this process. Used by the command line;
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
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from hpcscale.ranks.exits import LOST, RESUMABLE
from hpcscale.ranks.horovod import resolves, variables
from hpcscale.ranks.rendezvous import Meeting
from hpcscale.ranks.slurm import Layout
from hpcscale.ranks.store import Store

GRACE = 10.0  # seconds for the other ranks to end by themselves after one has failed


def launch(command: Sequence[str], ranks: int) -> int:
    """Run `command` as `ranks` processes of this machine and return one exit code for all.

    0 if all succeed; 75 if they stopped and can be resumed; else the code of the first rank that failed
    (128 + n for signal n), after which the others are ended. Rank 0 uses the terminal. Of another rank, only
    the end of its output is shown, and only if it failed first. SIGINT, SIGTERM and SIGUSR1 are passed on to
    the ranks. If this process is killed, the ranks are killed too.
    """
    store = Store("127.0.0.1")
    with contextlib.ExitStack() as stack:
        logs = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, ranks)]
        processes: list[subprocess.Popen[bytes]] = []
        stack.enter_context(_pass_on(processes))  # from the start: the first may send this process one
        for environment, log in zip(_environments(ranks, store.port), [None, *logs], strict=True):
            process = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
                preexec_fn=_die_with(os.getpid()),
            )
            processes.append(process)
        # Threads only from here on: a fork of a threaded process may deadlock.
        stack.enter_context(store.served())
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


def _environments(ranks: int, port: int) -> list[dict[str, str]]:
    """What each rank reads, whichever library connects them (`joining.py`)."""
    threads = max(1, len(os.sched_getaffinity(0)) // ranks)
    common = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    here = Meeting("127.0.0.1", port, "lo")
    return [
        common | variables(Layout(rank, ("localhost",), (ranks,), 0, rank, ""), here) for rank in range(ranks)
    ]


def place(environment: Mapping[str, str]) -> tuple[Layout, Meeting]:
    """What a rank was told so: its place, and where ranks meet."""
    rank, size, port = (
        int(environment[f"HOROVOD_{name}"]) for name in ("RANK", "SIZE", "GLOO_RENDEZVOUS_PORT")
    )
    layout = Layout(rank, ("localhost",), (size,), 0, rank, "")
    return layout, Meeting(environment["HOROVOD_GLOO_RENDEZVOUS_ADDR"], port, "lo")


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
