"""Ranks as srun starts them: what Slurm says of their places, and how they meet."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import thin
import tiny

from hpcscale import ranks
from hpcscale.models import checkpoint
from hpcscale.ranks import rendezvous, slurm


def here() -> dict[str, str]:
    """The environment, but for what tells of ranks."""
    told = ("SLURM", "HPCSCALE", "HOROVOD")
    return {name: value for name, value in os.environ.items() if not name.startswith(told)}


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("n1", "n1"),
        ("n[1-2,4],gpu07", "n1 n2 n4 gpu07"),
        ("n[08-11]", "n08 n09 n10 n11"),
        ("r[1-2]n[3-4]-ib", "r1n3-ib r1n4-ib r2n3-ib r2n4-ib"),
        ("a.example,b-1", "a.example b-1"),
    ],
)
def test_node_lists(short: str, full: str) -> None:
    assert slurm.expand(short) == tuple(full.split())


def test_task_counts() -> None:
    assert slurm.repeat("2(x3),1") == (2, 2, 2, 1)
    assert slurm.repeat("4") == (4,)


@pytest.mark.parametrize("text", ["n[1-x]", "n[1-2-3]", "n[]x[,]"])
def test_node_lists_that_are_none(text: str) -> None:
    with pytest.raises(slurm.SlurmError, match="cannot read"):
        slurm.expand(text)


def variables(rank: int, nodes: str = "n[1-2]", per_node: str = "2(x2)") -> dict[str, str]:
    """What srun --distribution=block gives to a task."""
    counts = slurm.repeat(per_node)
    node = next(n for n in range(len(counts)) if rank < sum(counts[: n + 1]))
    return {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(sum(counts)),
        "SLURM_STEP_TASKS_PER_NODE": per_node,
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_PROCID": str(rank),
        "SLURM_NODEID": str(node),
        "SLURM_LOCALID": str(rank - sum(counts[:node])),
    }


def test_layout_of_uneven_nodes() -> None:
    """Three ranks on n1, one on n2: a cross group holds what has the same place on each node."""
    places = [slurm.layout(variables(rank, per_node="3,1")) for rank in range(4)]
    assert [(p.rank, p.node, p.local_rank, p.local_size, p.size) for p in places] == [
        (0, 0, 0, 3, 4),
        (1, 0, 1, 3, 4),
        (2, 0, 2, 3, 4),
        (3, 1, 0, 1, 4),
    ]
    cross = [(p.horovod()["HOROVOD_CROSS_RANK"], p.horovod()["HOROVOD_CROSS_SIZE"]) for p in places]
    assert cross == [("0", "2"), ("0", "1"), ("0", "1"), ("1", "2")]
    assert [places[0].node_of(rank) for rank in range(4)] == ["n1", "n1", "n1", "n2"]


def test_horovod_agrees_with_the_layout() -> None:
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts

    for per_node in ("3,1", "1,3", "2(x2)"):
        counts = slurm.repeat(per_node)
        slots = get_host_assignments(parse_hosts(f"n1:{counts[0]},n2:{counts[1]}"), 4)
        for slot in slots:
            found = slurm.layout(variables(slot.rank, per_node=per_node)).horovod()
            assert {k.removeprefix("HOROVOD_").lower(): v for k, v in found.items()} == {
                k: str(v) for k, v in vars(slot).items()
            }


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"SLURM_NODEID": "1", "SLURM_LOCALID": "0"},
            "rank 1 is task 0 of node n2, where rank 2 belongs.*block",
        ),
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1"}, "contradict one another: 4 tasks, 2,1 on the nodes n.1-2"),
        ({"SLURM_STEP_NODELIST": "n1"}, "contradict"),
        ({"SLURM_PROCID": ""}, r"4 tasks here, but SLURM_PROCID is not in the environment.*srun.*--env"),
        ({"SLURM_STEP_ID": ""}, "SLURM_STEP_ID is not in the environment"),
        ({"SLURM_LOCALID": "x"}, "SLURM_LOCALID is 'x', not a number"),
    ],
)
def test_layouts_that_cannot_be(changed: dict[str, str], message: str) -> None:
    with pytest.raises(slurm.SlurmError, match=message):
        slurm.layout(variables(1) | changed)


def test_where_an_attempt_meets() -> None:
    run = Path("run")
    assert slurm.attempt({}, run) is None
    assert slurm.attempt({"SLURM_JOB_ID": "7"}, run) is None  # a shell of a job, not a task
    task = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}
    assert slurm.attempt(task, run) == run / "jobs" / "7.0"
    assert slurm.attempt(task | {"SLURM_RESTART_COUNT": "2"}, run) == run / "jobs" / "7.2"
    array = {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "3"}
    assert slurm.attempt(task | array, run) == run / "jobs" / "5_3.0"
    assert slurm.attempt({"HPCSCALE_ATTEMPT": "/a b"}, run) == Path("/a b")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLURM_NTASKS": "4"}, "4 tasks here, but SLURM_PROCID is not in the environment"),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_LOCALID": "0"}, "SLURM_STEP"),
        ({"HPCSCALE_ATTEMPT": "/x"}, "SLURM_PROCID is not in the environment.*world of its own"),
        ({"HPCSCALE_LAUNCHER": "ssh"}, "'ssh'; allowed: slurm, mpi, alone"),
        ({"HPCSCALE_LAUNCHER": "mpi"}, "built without MPI"),
        ({"HPCSCALE_LAUNCHER": "mpi", "HPCSCALE_BACKEND": "torch"}, "mpi, by which only Horovod can start"),
        ({"HPCSCALE_RANKS": "2"}, "2 tasks, but this one .SLURM_PROCID unknown. is a world of its own"),
        ({"HPCSCALE_RANKS": "2", "SLURM_PROCID": "1"}, "SLURM_PROCID 1. is a world of its own"),
        ({"HPCSCALE_RANKS": "2", "SLURM_NTASKS": "2", "HPCSCALE_LAUNCHER": "alone"}, "world of its own"),
        ({"HPCSCALE_RANKS": "2", "HOROVOD_SIZE": "1"}, "world of its own"),
        ({"HPCSCALE_RANKS": "2", "HOROVOD_SIZE": "2"}, "starts ranks of its own"),
        ({"HPCSCALE_RANKS": "4", "SLURM_STEP_NUM_TASKS": "2"}, "has 4 tasks, but this one .* knows of 2"),
        ({"HPCSCALE_RANKS": "two"}, "'two', not a number"),
    ],
)
def test_never_a_world_of_one_by_mistake(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name in os.environ.keys() - here().keys():
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ranks.SlurmError, match=message):
        ranks.init()


def test_a_job_of_one_task_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HPCSCALE_RANKS": "1", "SLURM_PROCID": "0", "HPCSCALE_ATTEMPT": "/x"}.items():
        monkeypatch.setenv(name, value)
    ranks.init()
    assert ranks.size() == 1


def test_alone_in_spite_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("HPCSCALE_LAUNCHER", "alone")
    ranks.init()
    assert ranks.size() == 1


# ---- meeting, with processes ----

BACKENDS = pytest.mark.parametrize("backend", ["horovod", "torch"])

JOIN = """
import os, sys
from pathlib import Path
import torch
from hpcscale import ranks
try:
    ranks.init(Path(os.environ["RUN"]))
except ranks.SlurmError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
except ranks.RankLost as error:
    print(error, file=sys.stderr)
    sys.exit(ranks.LOST)
"""
WORK = """
tensor = torch.tensor([float(ranks.rank())])
place = ranks.rank(), ranks.size(), ranks.local_rank(), ranks.local_size()
print(*place, ranks.sum_(tensor).item(), flush=True)
"""


def srun(
    run: Path, program: str, environments: list[dict[str, str]], **common: str
) -> list["subprocess.Popen[str]"]:
    """One process per environment, as tasks of one step on made-up nodes of this machine."""
    return [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=here() | {"RUN": str(run), "HPCSCALE_INTERFACE": "lo"} | common | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]


def ends(processes: list["subprocess.Popen[str]"]) -> list[tuple[int, str, str]]:
    """Code, output and errors of each."""
    texts = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize(("nodes", "per_node"), [("n[1-2]", "1(x2)"), ("n[1-2]", "3,1"), ("n1", "2")])
def test_ranks_meet_without_ssh_or_mpi(tmp_path: Path, nodes: str, per_node: str, backend: str) -> None:
    counts = slurm.repeat(per_node)
    size = sum(counts)
    places = [variables(rank, nodes, per_node) for rank in range(size)]
    found = ends(srun(tmp_path, JOIN + WORK, places, HPCSCALE_BACKEND=backend))
    assert [code for code, _, _ in found] == [0] * size, found
    places = [(r, n) for n in range(len(counts)) for r in range(counts[n])]
    assert [output.split() for _, output, _ in found] == [
        [str(rank), str(size), str(local), str(counts[node]), str(float(size * (size - 1) / 2))]
        for rank, (local, node) in enumerate(places)
    ]
    assert list((tmp_path / "jobs" / "7.0").iterdir()) == []  # the address is gone when all have met


def meet(processes: list["subprocess.Popen[str]"], seconds: float) -> list[tuple[int, str, str]]:
    began = time.monotonic()
    found = ends(processes)
    assert time.monotonic() - began < seconds
    return found


@pytest.mark.slow
def test_a_rank_of_another_version_is_named_to_all(tmp_path: Path) -> None:
    other = JOIN.replace("try:", "ranks.joining._report = lambda backend: {'torch': '1.0'}\ntry:")
    processes = srun(tmp_path, JOIN, [variables(0, per_node="1(x2)")])
    processes += srun(tmp_path, other, [variables(1, per_node="1(x2)")])
    for code, _, errors in meet(processes, 60):
        assert code == 1
        assert "rank 1 on node n2 does not fit rank 0 on node n1: " in errors
        assert "torch '1.0', not '" in errors


@pytest.mark.slow
def test_a_rank_with_another_library_is_named_to_all(tmp_path: Path) -> None:
    processes = srun(tmp_path, JOIN, [variables(0, per_node="1(x2)")])
    processes += srun(tmp_path, JOIN, [variables(1, per_node="1(x2)")], HPCSCALE_BACKEND="torch")
    for code, _, errors in meet(processes, 60):
        assert code == 1
        assert "rank 1 on node n2 does not fit rank 0 on node n1: backend 'torch', not 'horovod'" in errors


@pytest.mark.slow
def test_a_rank_that_does_not_come_is_named_to_all(tmp_path: Path) -> None:
    environments = [variables(rank) for rank in (0, 1, 3)]
    for code, _, errors in ends(srun(tmp_path, JOIN, environments, HPCSCALE_MEET_SECONDS="12")):
        assert code == 76
        assert "not come within 12 s: rank 2 on node n2" in errors


@pytest.mark.slow
def test_a_rank_0_that_does_not_come_is_named(tmp_path: Path) -> None:
    ((code, _, errors),) = ends(srun(tmp_path, JOIN, [variables(3)], HPCSCALE_MEET_SECONDS="1"))
    assert code == 76
    assert "rank 3 on node n2: rank 0 on node n1 has not come within 1 s: no" in errors
    assert f"{tmp_path}/jobs/7.0/address.0" in errors


@pytest.mark.slow
def test_rank_0_killed_while_ranks_meet_ends_the_others(tmp_path: Path) -> None:
    first, second = srun(tmp_path, JOIN, [variables(0), variables(1)])
    wait_for(tmp_path / "jobs" / "7.0" / "address.0")
    time.sleep(1)
    first.kill()
    ((code, _, errors),) = meet([second], 60)
    assert code == 76
    assert "rank 1 on node n1 cannot reach rank 0 on node n1 at 127.0.0.1:" in errors
    first.communicate()


@pytest.mark.slow
def test_an_address_left_by_a_dead_rank_0_is_given_up_for_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "jobs" / "7.0" / "address.0"
    file.parent.mkdir(parents=True)
    file.write_text('{"address": "127.0.0.1", "port": 1}')
    (second,) = srun(tmp_path, JOIN, [variables(1, per_node="1(x2)")])
    time.sleep(3)
    (first,) = srun(tmp_path, JOIN, [variables(0, per_node="1(x2)")], HPCSCALE_MEET_SECONDS="60")
    assert [code for code, _, _ in ends([first, second])] == [0, 0]


@pytest.mark.slow
@BACKENDS
def test_a_rank_long_in_a_checkpoint_is_not_lost(tmp_path: Path, backend: str) -> None:
    """Longer than the limit after which a cut network ends the ranks, and than that for joining."""
    body = "import time\ntime.sleep(15 if ranks.rank() == 0 else 0)\nranks.barrier()\n"
    begin = "import datetime\nfrom hpcscale.ranks import distributed\n"
    begin += "distributed.JOINING, distributed.NETWORK = datetime.timedelta(seconds=12), 4\n"
    environments = [variables(rank, per_node="1(x2)") for rank in (0, 1)]
    common = {"HOROVOD_GLOO_TIMEOUT_SECONDS": "4", "HPCSCALE_BACKEND": backend}
    found = ends(srun(tmp_path, begin + JOIN + body, environments, **common))
    assert [code for code, _, _ in found] == [0, 0], found


@pytest.mark.slow
def test_networks_that_are_none(tmp_path: Path) -> None:
    wanted = [
        ({"HPCSCALE_INTERFACE": "nope0"}, "HPCSCALE_INTERFACE is 'nope0'; with an address here: lo"),
        (
            {"HPCSCALE_INTERFACE": "", "SLURM_STEP_NODELIST": "n1,nowhere.invalid"},
            "nowhere.invalid has no address",
        ),
    ]
    for changed, message in wanted:
        environment = variables(0) | changed
        ((code, _, errors),) = ends(srun(tmp_path, JOIN, [environment]))
        assert (code, message in errors) == (1, True), errors


def test_the_way_is_chosen_by_route() -> None:
    here = slurm.layout(variables(0))
    assert rendezvous.interface_towards("127.0.0.1", here, {}) == ("lo", "127.0.0.1")
    with pytest.raises(slurm.SlurmError, match="rank 0 on node n1: no way to"):
        rendezvous.interface_towards("not an address", here, {})


@pytest.mark.slow
@BACKENDS
def test_a_killed_rank_ends_the_others_in_seconds(tmp_path: Path, backend: str) -> None:
    body = """
print("joined", flush=True)
try:
    while True:
        ranks.sum_(torch.ones(3))
except ranks.RankLost as error:
    sys.exit(ranks.LOST)
"""
    places = [variables(rank) for rank in range(4)]
    processes = srun(tmp_path, JOIN + body, places, HPCSCALE_BACKEND=backend)
    assert [process.stdout.readline() for process in processes if process.stdout] == ["joined\n"] * 4
    processes[0].send_signal(signal.SIGKILL)
    assert [code for code, _, _ in meet(processes, 30)] == [-9, 76, 76, 76]


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 240
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not come"
        time.sleep(0.05)


# ---- training ----


def train(run: Path, recipe: Path, *words: str, **common: str) -> list["subprocess.Popen[str]"]:
    arguments = ["hpcscale", "train", str(run), "--config", str(recipe), *words]
    program = f"import sys\nfrom hpcscale.cli import main\nsys.argv = {arguments!r}\nmain()"
    return srun(run, program, [variables(rank, per_node="1(x2)") for rank in (0, 1)], **common)


@pytest.mark.slow
def test_a_flag_stops_a_job_behind_a_checkpoint_and_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    recipe, run, whole = tiny.make(tmp_path), tmp_path / "run", tmp_path / "whole"
    words = ("--set", "train.steps=100", "--set", "train.checkpoint_every=1000")
    with thin.network():
        processes = train(run, recipe, *words)
        wait_for(run / "log.jsonl")
        while not tiny.events(run, "step"):
            time.sleep(0.05)
        (run / "jobs" / "7.0" / "stop").touch()
        found = ends(processes)
        assert [code for code, _, _ in found] == [75, 75], found
        stopped = checkpoint.latest(run)
        assert stopped is not None
        assert 1 <= stopped.step < 100
        again = train(run, recipe, *words, SLURM_RESTART_COUNT="1")
        assert [code for code, _, _ in ends(again)] == [0, 0]
        assert [code for code, _, _ in ends(train(whole, recipe, *words))] == [0, 0]
    one, other = checkpoint.latest(run), checkpoint.latest(whole)
    assert one is not None
    assert other is not None
    assert one.sha256 == other.sha256
