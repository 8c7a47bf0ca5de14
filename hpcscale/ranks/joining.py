"""How a process becomes a rank: what started it, where ranks meet, and which library connects them.

A process becomes a rank in one of three ways: by `launch` (several on this machine), by srun (`slurm.py` and
`rendezvous.py`), or by the MPI that Horovod was built with. Otherwise it is alone, and needs no library. The
first two say how many ranks there are and where they meet; either library takes it from there.
"""

import importlib.metadata
import os
from pathlib import Path
from typing import get_args

from hpcscale.ranks import horovod, local, rendezvous, slurm
from hpcscale.ranks.communicator import Backend, Communicator, JoinError
from hpcscale.ranks.horovod import Horovod
from hpcscale.ranks.rendezvous import Meeting
from hpcscale.ranks.slurm import Layout, SlurmError

# Seconds after which all ranks end if the network is cut, with Horovod. A rank that is busy with a checkpoint
# is not lost: Horovod's own thread keeps the ranks in touch.
NETWORK_TIMEOUT = "30"


def join(folder: Path, wanted: Backend | None) -> Communicator | None:
    """Join the ranks that the environment names (collective); None if this process is alone.

    folder: where the command writes; without HPCSCALE_ATTEMPT, ranks that srun started meet below it. wanted:
    what a recipe says, see `choose`. HPCSCALE_LAUNCHER (slurm | mpi | alone) overrules what the environment
    looks like. Raises SlurmError if the ranks do not fit together, JoinError if the library cannot be used,
    RankLost if a rank does not come.
    """
    launcher, backend = _launcher(), choose(wanted)
    slurm.check_world(launcher, os.environ)
    if launcher == "slurm":
        return _meet(folder, backend)
    if launcher == "mpi":
        return _by_mpi(backend)
    if launcher == "launch":
        return Horovod({}) if backend == "horovod" else _torch(*local.place(os.environ))
    return None


def choose(wanted: Backend | None) -> Backend:
    """The library: by HPCSCALE_BACKEND, which a job sets where its site says so, else as wanted, else
    Horovod. Raises JoinError."""
    chosen = os.environ.get("HPCSCALE_BACKEND") or wanted or "horovod"
    for known in get_args(Backend):
        if chosen == known:
            return known  # type: ignore[no-any-return]
    raise JoinError(f"HPCSCALE_BACKEND is {chosen!r}; allowed: {', '.join(get_args(Backend))}")


def _torch(layout: Layout, where: Meeting) -> Communicator:
    from hpcscale.ranks.distributed import Distributed  # imports torch

    return Distributed(layout, where)


def _meet(folder: Path, backend: Backend) -> Communicator:
    layout, place = slurm.layout(os.environ), slurm.attempt(os.environ, folder)
    assert place is not None  # because there is a SLURM_PROCID
    if backend == "horovod":
        horovod.library()  # before the others wait for this rank
    with rendezvous.meeting(layout, place, _report(backend), os.environ) as where:
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", NETWORK_TIMEOUT)
        if backend == "horovod":
            joined: Communicator = Horovod(horovod.variables(layout, where))
        else:
            joined = _torch(layout, where)
        joined.barrier()  # rank 0 serves until all have joined
    return joined


def _by_mpi(backend: Backend) -> Communicator:
    if backend != "horovod":
        raise SlurmError(
            f"HPCSCALE_LAUNCHER is mpi, by which only Horovod can start, and not {backend!r}: see `mpi` and "
            "`backend` of the site, and HPCSCALE_BACKEND"
        )
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


def _report(backend: Backend) -> dict[str, str]:
    """What must be equal on all ranks: the library, and versions."""
    names = ["hpcscale", "torch", "numpy"] + ["horovod"] * (backend == "horovod")
    return {"backend": backend} | {name: importlib.metadata.version(name) for name in names}
