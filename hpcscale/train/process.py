"""What a process must settle before it trains: its device, its threads, determinism, its memory."""

import ctypes
import os

import torch

from hpcscale import config, ranks
from hpcscale.config import Config, ConfigError
from hpcscale.models import device


def prepare(settings: Config) -> torch.device:
    """The device of this rank; threads and determinism of this process. Raises ConfigError, DeviceError."""
    if config.share(settings, ranks.size()) == 1 and settings.input.crop <= 32:
        raise ConfigError(
            f"train.batch is {settings.train.batch} for {ranks.size()} ranks and input.crop "
            f"{settings.input.crop}: one value per channel is too few for the last batch normalisation; "
            "choose a larger batch or crop"
        )
    # cuBLAS reads it when it starts; without, its sums may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    chosen = device.choose(settings.train.device)
    torch.set_num_threads(
        settings.train.threads or max(1, len(os.sched_getaffinity(0)) // ranks.local_size())
    )
    # Some CUDA kernels have no deterministic form: they warn, and a resumed run is equal to rounding only.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A pass over memory for nothing.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return chosen


def keep_memory() -> None:
    """Have malloc keep what a step frees: fresh pages for every step's activations cost 15 % of it on the
    CPU. For a process that does nothing else: it never gets smaller again."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(-4, 0)  # M_MMAP_MAX: large blocks from the heap too
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never give the end of the heap back
        libc.mallopt(-2, 64 << 20)  # M_TOP_PAD: grow the heap in large pieces
