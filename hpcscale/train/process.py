"""What a process must settle before it trains: its ranks, device, threads, determinism, how it is stopped."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import torch

from hpcscale import ranks
from hpcscale.config import Training
from hpcscale.data import same
from hpcscale.models import device
from hpcscale.train.log import process_age
from hpcscale.train.signals import StopRequest
from hpcscale.train.watchdog import Watchdog

T = TypeVar("T", bound=Training)


class Process(NamedTuple, Generic[T]):
    """One rank of a run, ready to train."""

    settings: T  # rank 0's
    run: Path
    device: torch.device
    stop: StopRequest
    watchdog: Watchdog
    clock: dict[str, float]  # seconds since the process began, of what came before


@contextmanager
def start(settings: T, run: Path) -> Iterator[Process[T]]:
    """Within it, all ranks have met, requests to stop are remembered and the watchdog runs (collective).

    Determinism is switched on for the process. Raises SlurmError, JoinError, RankLost, ConfigError and
    DeviceError.
    """
    clock = {"imported": process_age()}
    ranks.init(run, settings.ranks.backend)
    clock["met"] = process_age()
    settings = same.settings(settings, type(settings))
    with ExitStack() as stack:
        here = prepare(settings)
        attempt = ranks.attempt(run)
        flag = attempt / "stop" if attempt and ranks.rank() == 0 else None
        stop = stack.enter_context(StopRequest(flag, attempt is not None))
        stuck = (attempt or run) / f"stack.{ranks.rank()}.txt"
        watchdog = stack.enter_context(Watchdog(settings.watchdog, stuck))
        yield Process(settings, run, here, stop, watchdog, clock)


def prepare(settings: Training) -> torch.device:
    """The device of this rank; threads and determinism of this process. Raises DeviceError."""
    # cuBLAS reads this when it starts; without it, sums may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    chosen = device.choose(settings.train.device)
    torch.set_num_threads(
        settings.train.threads or max(1, len(os.sched_getaffinity(0)) // ranks.local_size())
    )
    # Some CUDA kernels have no deterministic form: they warn, and a resumed run is equal to rounding only.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Determinism would also fill fresh memory before it is used, which costs time and changes nothing here.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return chosen


def keep_memory() -> None:
    """Make malloc keep the memory that a step frees: on the CPU, new pages for activations cost 15 % of every
    step. Only for a process that does nothing else, because it never gets smaller again."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(-4, 0)  # M_MMAP_MAX: large blocks from the heap too
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never give the end of the heap back
        libc.mallopt(-2, 64 << 20)  # M_TOP_PAD: grow the heap in large pieces
