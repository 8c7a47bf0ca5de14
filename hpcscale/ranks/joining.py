"""How a process becomes a rank: what started it, where ranks meet, and which library connects them.

A process becomes a rank in one of three ways: by `launch` (several on this machine), by srun (`slurm.py` and
`rendezvous.py`), or by the MPI that Horovod was built with. Otherwise it is alone, and needs no library.
"""

import importlib.metadata
import os
from pathlib import Path

from hpcscale.ranks import horovod, rendezvous, slurm
from hpcscale.ranks.communicator import Communicator
from hpcscale.ranks.horovod import Horovod
from hpcscale.ranks.slurm import SlurmError

# Seconds after which all ranks end if the network is cut. A rank that is busy with a checkpoint is not lost:
# Horovod's own thread keeps the ranks in touch.
NETWORK_TIMEOUT = "30"


def join(folder: Path) -> Communicator | None:
    """Join the ranks that the environment names (collective); None if this process is alone.

    folder: where the command writes; without HPCSCALE_ATTEMPT, ranks that srun started meet below it.
    HPCSCALE_LAUNCHER (slurm | mpi | alone) overrules what the environment looks like. Raises SlurmError if
    the ranks do not fit together, JoinError if the library cannot be used, RankLost if a rank does not come.
    """
    launcher = _launcher()
    slurm.check_world(launcher, os.environ)
    if launcher == "slurm":
        return _meet(folder)
    if launcher == "mpi":
        return _by_mpi()
    return Horovod({}) if launcher == "launch" else None


def _meet(folder: Path) -> Communicator:
    layout, place = slurm.layout(os.environ), slurm.attempt(os.environ, folder)
    assert place is not None  # because there is a SLURM_PROCID
    horovod.library()  # before the others wait for this rank
    with rendezvous.meeting(layout, place, _versions(), os.environ) as where:
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", NETWORK_TIMEOUT)
        joined = Horovod(horovod.variables(layout, where))
        joined.barrier()  # rank 0 serves until all have joined
    return joined


def _by_mpi() -> Communicator:
    if not horovod.library().mpi_built():
        raise SlurmError("HPCSCALE_LAUNCHER is mpi, but this Horovod was built without MPI")
    joined = Horovod({})
    if joined.size() != (expected := slurm.tasks(os.environ)) and expected > 1:
        raise SlurmError(
            f"MPI made a world of {joined.size()} ranks of {expected} tasks: see srun --mpi=list"
        )
    return joined


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


def _versions() -> dict[str, str]:
    """What must be equal on all ranks."""
    return {name: importlib.metadata.version(name) for name in ("hpcscale", "torch", "horovod", "numpy")}
