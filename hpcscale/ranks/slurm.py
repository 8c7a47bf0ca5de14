"""What Slurm tells a process about its place among all ranks: SLURM_* variables in, a Layout out. No network.

An image has no `scontrol`, so node lists are read here. Used by `ranks.init`; cluster/slurm.py is the side of
the login node.
"""

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcscale.files import Told

Environment = Mapping[str, str]


class SlurmError(Told):
    """The variables of Slurm cannot be true, or do not suffice. The message names rank, node and variable,
    and says what to do."""


@dataclass(frozen=True)
class Layout:
    """The place of one rank among all, counted as Horovod does: node by node, and on a node one by one."""

    rank: int
    nodes: tuple[str, ...]  # name of each node
    ranks_of: tuple[int, ...]  # number of ranks of each node
    node: int  # number of this rank's node
    local_rank: int
    step: str  # id of this srun within its attempt

    def __str__(self) -> str:
        return f"rank {self.rank} on node {self.nodes[self.node]}"

    @property
    def size(self) -> int:
        return sum(self.ranks_of)

    @property
    def local_size(self) -> int:
        return self.ranks_of[self.node]

    def node_of(self, rank: int) -> str:
        """Name of the node of any rank."""
        first = 0
        for node, count in zip(self.nodes, self.ranks_of, strict=True):
            first += count
            if rank < first:
                return node
        raise IndexError(rank)

    def horovod(self) -> dict[str, str]:
        """The HOROVOD_* variables of this rank. Ranks with the same local rank form a 'cross' group."""
        peers = [n for n, count in enumerate(self.ranks_of) if count > self.local_rank]
        return {
            "HOROVOD_HOSTNAME": self.nodes[self.node],
            "HOROVOD_RANK": str(self.rank),
            "HOROVOD_SIZE": str(self.size),
            "HOROVOD_LOCAL_RANK": str(self.local_rank),
            "HOROVOD_LOCAL_SIZE": str(self.local_size),
            "HOROVOD_CROSS_RANK": str(peers.index(self.node)),
            "HOROVOD_CROSS_SIZE": str(len(peers)),
        }


def tasks(environment: Environment) -> int:
    """Number of tasks in the step, else in the job; 1 outside Slurm."""
    return int(environment.get("SLURM_STEP_NUM_TASKS") or environment.get("SLURM_NTASKS") or 1)


def check_world(launcher: str, environment: Environment) -> None:
    """Refuse a world that is not the whole job. The job script says in HPCSCALE_RANKS how many tasks it
    started; tasks that do not know of the others would each train alone. Raises SlurmError."""
    started = environment.get("HPCSCALE_RANKS") or "1"
    if not started.isdecimal():
        raise SlurmError(f"HPCSCALE_RANKS is {started!r}, not a number")
    count = tasks(environment) if launcher in ("slurm", "mpi") else 1
    if int(started) > 1 and count != int(started):
        what = {
            "alone": "is a world of its own",
            "launch": "starts ranks of its own",
        }.get(launcher, f"knows of {count}")
        raise SlurmError(
            f"the job has {started} tasks, but this one (SLURM_PROCID "
            f"{environment.get('SLURM_PROCID', 'unknown')}) {what}: the variables of Slurm must reach the "
            "image, and HPCSCALE_LAUNCHER, HOROVOD_RANK and HOROVOD_SIZE must not"
        )


def layout(environment: Environment) -> Layout:
    """The place of this process in its step. Raises SlurmError."""
    count = tasks(environment)
    rank = _number(environment, "SLURM_PROCID", count)
    node = _number(environment, "SLURM_NODEID", count)
    local_rank = _number(environment, "SLURM_LOCALID", count)
    per_node = _text(environment, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", count)
    node_list = _text(environment, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", count)
    step = _text(environment, "SLURM_STEP_ID", "SLURM_STEPID", count)  # the batch shell has no step
    nodes, ranks_of = expand(node_list), repeat(per_node)
    if len(nodes) != len(ranks_of) or sum(ranks_of) != count or not node < len(nodes):
        raise SlurmError(
            f"rank {rank}: the variables of Slurm contradict one another: {count} tasks, {per_node} on the "
            f"nodes {node_list}, this one on number {node}. Start the ranks with srun, from inside the job"
        )
    expected = sum(ranks_of[:node]) + local_rank
    if rank != expected or local_rank >= ranks_of[node]:
        raise SlurmError(
            f"rank {rank} is task {local_rank} of node {nodes[node]}, where rank {expected} belongs: ranks "
            "must be counted node by node. Start them with srun --distribution=block"
        )
    return Layout(rank, nodes, ranks_of, node, local_rank, step)


def attempt(environment: Environment, folder: Path) -> Path | None:
    """The folder that ranks and batch shell of an attempt share; None outside Slurm. folder: the output's."""
    if named := environment.get("HPCSCALE_ATTEMPT"):
        return Path(named)
    job = environment.get("SLURM_ARRAY_JOB_ID") or environment.get("SLURM_JOB_ID")
    if not job or "SLURM_PROCID" not in environment:
        return None
    if "SLURM_ARRAY_JOB_ID" in environment:
        job += f"_{environment.get('SLURM_ARRAY_TASK_ID', '0')}"
    return folder / "jobs" / f"{job}.{environment.get('SLURM_RESTART_COUNT') or 0}"


def job(environment: Environment, folder: Path) -> dict[str, Any]:
    """For logs: job, attempt, nodes, and the commit if `submit` recorded it; empty outside Slurm."""
    place = attempt(environment, folder)
    if place is None:
        return {}
    name, _, number = place.name.rpartition(".")
    found = {"job": name, "attempt": int(number) if number.isdecimal() else 0}
    found["nodes"] = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    with contextlib.suppress(OSError, ValueError, KeyError):  # submitted by hand
        found["commit"] = json.loads((place.parent / f"{name.partition('_')[0]}.json").read_text())["commit"]
    return found


def expand(names: str) -> tuple[str, ...]:
    """Slurm's short form of node names in full: `n[1-2,04],gpu7` is n1, n2, n04, gpu7."""
    found: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", names):
        expanded = [""]
        for fixed, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            endings = _numbers(ranges, names) if ranges else [fixed]
            expanded = [begin + end for begin in expanded for end in endings]
        found += expanded
    return tuple(found)


def _numbers(ranges: str, names: str) -> list[str]:
    found = []
    for item in ranges.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if not match:
            raise SlurmError(f"node list {names!r}: cannot read {item!r}")
        first, last = match[1], match[2] or match[1]
        found += [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    return found


def repeat(counts: str) -> tuple[int, ...]:
    """Slurm's short form of counts in full: `2(x3),1` is 2, 2, 2, 1."""
    found: list[int] = []
    for item in counts.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", item)
        if not match:
            raise SlurmError(f"tasks per node {counts!r}: cannot read {item!r}")
        found += [int(match[1])] * int(match[2] or 1)
    return tuple(found)


def _text(environment: Environment, name: str, substitute: str, count: int) -> str:
    value = environment.get(name) or environment.get(substitute)
    if not value:
        raise SlurmError(
            f"Slurm has {count} tasks here, but {name} is not in the environment of this one. Start it with "
            f"srun, and let the image see the variable (apptainer --cleanenv hides it: --env {name}=...). "
            "To run as a world of its own in spite of Slurm: HPCSCALE_LAUNCHER=alone"
        )
    return value


def _number(environment: Environment, name: str, count: int) -> int:
    value = _text(environment, name, name, count)
    if not value.isdecimal():
        raise SlurmError(f"{name} is {value!r}, not a number")
    return int(value)
