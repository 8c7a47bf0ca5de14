"""Faults, one at a time, on a training of two ranks on two nodes: it recovers by itself, or says why not.

Each drill ends with the weights of the run that nothing happened to, bit by bit, and records how long it took
until the training was past the step at which the fault came, and how many samples were computed twice.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rig
import small
from conftest import Record

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600, func_only=True),
    pytest.mark.usefixtures("cluster"),
]

STEPS = 60
EVERY = 10  # steps from checkpoint to checkpoint
FOLDER = rig.WORK / "drills"


@pytest.fixture(scope="module")
def config(cluster: None) -> Path:
    """The recipe of all drills, with its data set and vocabulary."""
    small.pictures(FOLDER)
    data = FOLDER / "data"
    a = rig.submit("--", "data", "ingest", FOLDER / "pictures", data, "--resize", "40", "--workers", "1")
    words = ("labels", "build", FOLDER / "vocabulary.json", "--data", data, "--parents", FOLDER / "tree.tsv")
    assert rig.ended(rig.submit("--after", a, "--", *words)) == "COMPLETED"
    return small.recipe(FOLDER, FOLDER / "recipe.toml", STEPS, EVERY)


@pytest.fixture(scope="module")
def uninterrupted(config: Path, record: Record) -> tuple[str, float]:
    """The weights of the run that nothing happens to, and the seconds it takes here."""
    begin = time.monotonic()
    job = start(config, "uninterrupted")
    job.completed()
    seconds = time.monotonic() - begin
    record("the run without a fault", seconds=f"{seconds:.0f}", steps=STEPS, batch=small.BATCH)
    return job.weights(), seconds


@pytest.fixture(scope="module")
def expected(uninterrupted: tuple[str, float]) -> str:
    return uninterrupted[0]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """A healthy cluster before each drill; no job and no full disk after it."""
    rig.all_idle()
    yield
    rig.login("scancel", f"--user={rig.USER}")
    shutil.rmtree(rig.outside(rig.SMALL / "run-run"), ignore_errors=True)
    for run in FOLDER.glob("run-*"):
        shutil.rmtree(run / "checkpoints", ignore_errors=True)


def start(
    config: Path, name: str, *options: str | Path, folder: Path = FOLDER, keys: tuple[str, ...] = ()
) -> rig.Job:
    run, sets = folder / f"run-{name}", [word for key in keys for word in ("--set", key)]
    job = rig.submit("--nodes", "2", *options, "--", "train", run, "--config", config, *sets)
    return rig.Job(run, job, small.BATCH)


def drill(
    name: str, job: rig.Job, fault: Callable[[], object], expected: str, record: Record, seconds: float = 120
) -> None:
    """Let the training run for a while, do `fault`, and see that it ends as if nothing had been."""
    job.reached(EVERY + 3)
    fault()
    at, begin = job.step(), time.monotonic()
    last, resumed = at, None
    while resumed is None or job.step() <= at:
        lines = [line for line in job.log() if line["event"] == "resume"]
        if resumed is None and lines:
            resumed = lines[-1]["step"]
        elif resumed is None:
            last = max(last, job.step())
        assert time.monotonic() - begin < seconds, f"{name}: not recovered after {seconds} s\n{job.tail()}"
        time.sleep(0.2)
    recovered = time.monotonic() - begin
    job.completed()
    assert job.step() == STEPS
    assert job.restarts() == 1, job.tail()  # one fault, one restart
    assert job.weights() == expected, "other weights than without the fault"
    again = (last - resumed) * small.BATCH
    record(
        name,
        seconds_to_recover=f"{recovered:.0f}",
        samples_computed_again=again,
        weights="bit-equal",
        restarts=job.restarts(),
    )


def kill(job: rig.Job, rank: int, how: signal.Signals = signal.SIGKILL) -> None:
    os.kill(job.process(rank).pid, how)


def test_time_limit(config: Path, uninterrupted: tuple[str, float], record: Record) -> None:
    """Asked to stop so long before a limit of two minutes that one attempt is not enough, be it faster."""
    expected, seconds = uninterrupted
    site = FOLDER / "impatient.toml"
    stop = 120 - round(min(0.6 * seconds, 100))
    site.write_text(rig.SITE.read_text().replace("stop_seconds = 100", f"stop_seconds = {stop}"))
    assert f"stop_seconds = {stop}" in site.read_text()
    job = start(config, "limit", "--time", "2", "--site", site)
    job.completed(500)
    assert job.restarts() >= 1
    stops = [line for line in job.attempts() if line.get("verdict") == "stopped"]
    assert len(stops) == job.restarts(), job.attempts()
    assert job.weights() == expected
    record("time limit", samples_computed_again=0, weights="bit-equal", restarts=job.restarts())


def test_requeue(config: Path, expected: str, record: Record) -> None:
    job = start(config, "requeue")
    drill("scontrol requeue", job, lambda: rig.login("scontrol", "requeue", job.id), expected, record)


def test_preemption(config: Path, expected: str, record: Record) -> None:
    job = start(config, "preempted")
    urgent = (
        "sbatch",
        "--partition=urgent",
        "--nodes=3",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 2",
    )
    drill("preemption", job, lambda: rig.login(*urgent), expected, record)
    assert "stopped" in [line.get("verdict") for line in job.attempts()]


@pytest.mark.parametrize(("rank", "backend"), [(0, "horovod"), (1, "horovod"), (1, "torch")])
def test_killed_rank(config: Path, expected: str, record: Record, rank: int, backend: str) -> None:
    """Either library gives two ranks the same bits."""
    job = start(config, f"killed-{rank}-{backend}", keys=(f"ranks.backend={backend}",))
    drill(f"kill -9 of rank {rank}, {backend}", job, lambda: kill(job, rank), expected, record)
    assert {line["backend"] for line in job.log() if "backend" in line} == {backend}


def test_killed_rendezvous(config: Path, expected: str, record: Record) -> None:
    """Rank 0 dies while it serves the rendezvous: rank 1 is held back until then."""
    job = start(config, "rendezvous")
    late = job.process(1)
    os.kill(late.pid, signal.SIGSTOP)
    attempt = job.run / "jobs" / f"{job.id}.0"
    rig.wait_for("address of the rendezvous", 60, lambda: list(attempt.glob("address.*")), job)
    begin = time.monotonic()
    kill(job, 0)
    os.kill(late.pid, signal.SIGCONT)
    job.reached(1)
    record(
        "kill -9 of the rendezvous",
        seconds_to_recover=f"{time.monotonic() - begin:.0f}",
        samples_computed_again=0,
    )
    job.completed()
    assert job.restarts() == 1
    assert job.weights() == expected
    record("kill -9 of the rendezvous", weights="bit-equal", restarts=1)


def test_hanging_rank(config: Path, expected: str, record: Record) -> None:
    """A rank that does nothing more: the others' watchdogs end the attempt, with their stacks on disk."""
    job = start(config, "hanging")
    drill("a rank that hangs", job, lambda: kill(job, 1, signal.SIGSTOP), expected, record, 240)
    stack = (job.run / "jobs" / f"{job.id}.0" / "stack.0.txt").read_text()
    assert "allreduce" in stack or "average" in stack or "gradients" in stack, stack


@pytest.mark.parametrize("rank", [1, 0])
def test_crashed_node(config: Path, expected: str, record: Record, rank: int) -> None:
    """Rank 0's node has the batch shell too."""
    job = start(config, f"crash-{rank}")
    crashed: list[str] = []

    def crash() -> None:
        crashed.append(job.process(rank).node)
        rig.command("crash", crashed[0])

    try:
        name = "node crash" + (", with the batch shell" if rank == 0 else "")
        drill(name, job, crash, expected, record, 240)
        assert crashed[0] not in job.attempts()[-1].get("nodes", "")
    finally:
        rig.command("boot", *crashed)


@pytest.mark.parametrize("backend", ["horovod", "torch"])
def test_cut_network(config: Path, expected: str, record: Record, backend: str) -> None:
    job = start(config, f"cut-{backend}", keys=(f"ranks.backend={backend}",))
    node: list[str] = []

    def cut() -> None:
        node.append(job.process(1).node)
        rig.command("cut", node[0])

    try:
        drill(f"network cut, {backend}", job, cut, expected, record, 240)
    finally:
        rig.command("mend", *node)


def test_killed_rank_of_a_divided_classifier(config: Path, record: Record) -> None:
    """Rank 1 dies with its half of the classifier; the checkpoint has both."""
    divided = ("model.slices=ranks",)
    calm = start(config, "divided-calm", keys=divided)
    calm.completed()
    expected = calm.weights()
    rig.all_idle()
    job = start(config, "divided", keys=divided)
    drill("kill -9 of rank 1, its classifier divided", job, lambda: kill(job, 1), expected, record)


def test_full_disk(config: Path, expected: str, record: Record) -> None:
    """The last good checkpoint stays, the error says so, nothing is requeued; with room again, it goes on."""
    job = start(config, "run", folder=rig.SMALL)
    rig.wait_for("first checkpoint", 120, job.checkpoints, job)
    ballast = rig.outside(rig.SMALL / "ballast")
    try:
        with ballast.open("wb") as stream:
            free = shutil.disk_usage(ballast.parent).free
            os.posix_fallocate(stream.fileno(), 0, max(free - (8 << 20), 1))
        assert job.ended() == "FAILED"
        kept = job.checkpoints()
        assert kept, "the good checkpoint is gone"
        assert "No space left" in job.output(), job.tail()
        assert kept[-1].stem in job.output(), job.tail()
        assert job.restarts() == 0, job.tail()
    finally:
        ballast.unlink(missing_ok=True)
    again = rig.Job(job.run, rig.hpcscale("resubmit", job.run), small.BATCH)
    again.completed()
    assert again.weights() == expected
    record("full disk", job="fails with the reason, checkpoint stays", weights="bit-equal after resubmit")


def test_truncated_checkpoint(config: Path, expected: str, record: Record) -> None:
    job = start(config, "truncated")
    rig.wait_for("two checkpoints", 120, lambda: len(job.checkpoints()) >= 2, job)
    rig.hpcscale("cancel", job.run)
    assert job.ended() == "CANCELLED"
    *_, before, latest = job.checkpoints()
    at = job.step()
    os.truncate(latest, latest.stat().st_size // 2)
    again = rig.Job(job.run, rig.hpcscale("resubmit", job.run), small.BATCH)
    again.completed()
    resumed = next(
        line for line in again.log() if line["event"] == "resume" and line["step"] == int(before.stem[5:])
    )
    told = next(line for line in again.output().splitlines() if line.endswith("; passed over"))
    assert f"{latest.stem}.json: damaged checkpoint: sha256 of " in told
    assert again.weights() == expected
    record(
        "truncated checkpoint",
        samples_computed_again=(at - resumed["step"]) * small.BATCH,
        weights="bit-equal",
    )


def test_tampered_image(config: Path, record: Record) -> None:
    """Changed by one byte after the job was submitted: nothing of it runs, and nothing is tried again."""
    image = rig.WORK / "tampered.sif"
    site = rig.WORK / "tampered.toml"
    for suffix in ("", ".json"):
        rig.login("cp", f"{rig.IMAGE}{suffix}", f"{image}{suffix}")
    site.write_text(rig.SITE.read_text().replace(str(rig.IMAGE), str(image)))
    run = FOLDER / "run-tampered"
    try:
        id_ = rig.hpcscale("submit", "--site", site, "--nodes", "2", "--", "train", run, "--config", config)
        with image.open("r+b") as stream:
            stream.seek(-1000, os.SEEK_END)
            byte = stream.read(1)
            stream.seek(-1000, os.SEEK_END)
            stream.write(bytes([byte[0] ^ 1]))
        job = rig.Job(run, id_, small.BATCH)
        assert job.ended() == "FAILED"
        assert "SHA-256" in job.output(), job.tail()
        assert job.restarts() == 0, job.tail()
        assert not job.log(), "a tampered image ran"
    finally:
        image.unlink()
    record("tampered image", job="refused before it runs")


def test_bad_node(config: Path, expected: str, record: Record) -> None:
    """A node that kills a rank twice is excluded."""
    # The third node is busy until then: the second attempt is on the same nodes again.
    filler = ("--nodelist=n3", "--exclusive", "--output=/dev/null", "--wrap=sleep 600")
    busy = rig.login("sbatch", "--parsable", *filler).strip()
    rig.wait_for("n3 to be busy", 30, lambda: rig.state(busy) == "RUNNING")
    job = start(config, "bad-node")
    node = job.process(1).node
    for step in (EVERY + 3, 2 * EVERY + 3):
        job.reached(step)
        victim = next((p for p in job.processes().values() if p.node == node), None)
        assert victim, f"attempt is not on {node} again"
        before = job.restarts()
        os.kill(victim.pid, signal.SIGKILL)
        rig.wait_for("requeue", 60, lambda before=before: job.restarts() > before, job)
    rig.wait_for("n3 instead", 60, lambda: job.attempts()[-1]["event"] == "exclude", job)
    rig.login("scancel", busy)
    job.completed()
    assert rig.facts(job.id)["ExcNodeList"] == node
    assert job.weights() == expected
    record("a node that kills twice", node="excluded", weights="bit-equal", restarts=job.restarts())
