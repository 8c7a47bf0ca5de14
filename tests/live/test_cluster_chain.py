"""From pictures to a report, each step a job in the image, chained by --after: a user's first day."""

import json
import time
from pathlib import Path

import pytest
import rig
import small
from conftest import Record

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900, func_only=True),
    pytest.mark.usefixtures("cluster"),
]

STEPS = 12
FOLDER = rig.WORK / "it's a $(touch chain)"  # a folder as a user might name it


@pytest.fixture(scope="module")
def data(cluster: None) -> Path:
    """Data set and vocabulary, made on the cluster by array jobs."""
    small.pictures(FOLDER)
    out, pictures = FOLDER / "data", FOLDER / "pictures"
    pack = ("data", "ingest", pictures, out, "--resize", "40", "--shard-samples", "4", "--workers", "1")
    # Seven parts, more than the tasks that this cluster allows an array.
    parts = rig.submit("--array", "7", "--", *pack)
    joined = rig.submit("--after", parts, "--", *pack)
    words = ("labels", "build", FOLDER / "vocabulary.json", "--data", out, "--parents", FOLDER / "tree.tsv")
    built = rig.submit("--after", joined, "--", *words)
    assert rig.ended(built) == "COMPLETED", output(out)
    assert len(list((FOLDER / "data.job" / "jobs").glob(f"{parts}_*.log"))) == 5
    assert len(list(out.glob("*.h5"))) == 7
    return FOLDER


def output(out: Path) -> str:
    """Logs of the jobs that wrote `out`."""
    return "\n".join(
        f"== {file.name}\n{file.read_text()}" for file in sorted(Path(f"{out}.job").glob("jobs/*.log"))
    )


def test_chain(data: Path, record: Record) -> None:
    begin = time.monotonic()
    hashes, pairs = data / "data.hashes", data / "pairs.tsv"
    config = small.recipe(data, data / "chain.toml", STEPS, every=6, batch=8, held_out=0.3)
    one, two = data / "one", data / "two"

    hashing = ("dedup", "hash", data / "data", hashes, "--workers", "1")
    a = rig.submit("--array", "3%2", "--", *hashing)
    b = rig.submit("--after", a, "--", *hashing)
    searching = ("dedup", "search", hashes, "--out", pairs, "--min-quality", "0", "--threads", "1")
    c = rig.submit("--after", b, "--array", "2", "--", *searching)
    d = rig.submit("--after", c, "--", *searching)
    e = rig.submit("--nodes", "2", "--ranks-per-node", "1", "--", "train", one, "--config", config)
    f = rig.submit(
        "--nodes", "2", "--ranks-per-node", "2", "--after", e, "--", "train", two, "--config", config
    )
    g = rig.submit("--after", e, "--after", f, "--", "evaluate", two)
    h = rig.submit("--after", g, "--", "report", two)

    assert rig.ended(d) == "COMPLETED", output(hashes) + output(pairs)
    assert ["03.jpg", "25.jpg", "0"] in [line.split("\t") for line in pairs.read_text().splitlines()]
    first, second = rig.Job(one, e, small.BATCH), rig.Job(two, f, small.BATCH)
    first.completed()
    second.completed()
    for job, size in ((first, 2), (second, 4)):
        start = job.log()[0]
        assert (start["event"], start["ranks"], start["job"]) == ("start", size, job.id), start
        assert start["nodes"].startswith("n["), start  # two of them
        assert job.step() == STEPS
    assert rig.ended(h) == "COMPLETED", rig.Job(two, h, small.BATCH).output()
    assert "held_out" in (two / "report.md").read_text()
    status = json.loads(rig.hpcscale("status", two, "--json"))
    assert status["state"] == "COMPLETED", status
    assert status["step"] == status["steps"] == STEPS
    record(
        "chain: hash, search, train 2x1, train 2x2, evaluate, report",
        seconds=f"{time.monotonic() - begin:.0f}",
    )
    assert not (rig.WORK / "chain").exists(), "a path was run as a command"


def test_divided_classifier(data: Path, record: Record) -> None:
    """Five classes in slices of two on 2 x 2 ranks, the last one empty: the losses of a whole classifier, and
    a checkpoint that two ranks evaluate."""
    config = small.recipe(data, data / "divided.toml", STEPS, every=6, batch=8, held_out=0.3)
    divided, undivided = data / "divided", data / "undivided"
    four = ("--nodes", "2", "--ranks-per-node", "2")
    a = rig.submit(*four, "--", "train", undivided, "--config", config)
    b = rig.submit(*four, "--", "train", divided, "--config", config, "--set", "model.slices=ranks")
    c = rig.submit("--nodes", "2", "--ranks-per-node", "1", "--after", b, "--", "evaluate", divided)
    jobs = rig.Job(divided, b, small.BATCH), rig.Job(undivided, a, small.BATCH)
    losses = []
    for job in jobs:
        job.completed()
        assert job.log()[0]["ranks"] == 4
        losses.append([line["loss"] for line in job.log() if line["event"] == "step"])
    assert len(losses[0]) == STEPS
    # From step to step, batch normalisation of two pictures amplifies what rounds differently.
    assert losses[0][:2] == pytest.approx(losses[1][:2], rel=1e-6)
    assert losses[0][2] == pytest.approx(losses[1][2], rel=1e-2)
    assert rig.ended(c) == "COMPLETED", jobs[0].output()
    record("train 2x2 with a divided classifier", first_loss=losses[0][0], undivided=losses[1][0])


def test_torch_between_the_ranks(data: Path, record: Record) -> None:
    """By the key of a site, on 2 x 1 ranks: the weights are those that Horovod gives."""
    config = small.recipe(data, data / "library.toml", STEPS, every=6)
    site = data / "torch-site.toml"
    site.write_text(f'backend = "torch"\n{rig.SITE.read_text()}')
    small.give(site)
    words = ("--nodes", "2", "--ranks-per-node", "1", "--", "train")
    a = rig.submit(*words, data / "horovod", "--config", config)
    b = rig.hpcscale("submit", "--site", site, *words, data / "torch", "--config", config)
    found = {}
    for backend, job in (("horovod", a), ("torch", b)):
        run = rig.Job(data / backend, job, small.BATCH)
        run.completed()
        assert (run.log()[0]["backend"], run.log()[0]["ranks"]) == (backend, 2)
        found[backend] = run.weights()
    assert found["torch"] == found["horovod"]
    record("train 2x1 by torch.distributed", weights="bit-equal to Horovod's")


def test_plain_sbatch(data: Path, record: Record) -> None:
    """The template by hand gives the same weights as through submit."""
    config = small.recipe(data, data / "plain.toml", STEPS, every=6)
    run, other = data / "plain", data / "submitted"
    job = rig.submit("--nodes", "2", "--", "train", other, "--config", config)
    rig.login("mkdir", "-p", run)
    words = (
        "env",
        f"HPCSCALE_IMAGE={rig.IMAGE}",
        f"HPCSCALE_APPTAINER={rig.APPTAINER}",
        "sbatch",
        "--parsable",
    )
    by_hand = rig.login(
        *words, "--nodes=2", rig.CLONE / "slurm/train.sbatch", run, "--config", config
    ).strip()
    rig.Job(other, job, small.BATCH).completed()
    rig.Job(run, by_hand, small.BATCH).completed()
    assert rig.Job(run, by_hand, small.BATCH).weights() == rig.Job(other, job, small.BATCH).weights()
    record("plain sbatch slurm/train.sbatch", weights="as by submit")


def test_first_step_comes_soon(data: Path, record: Record) -> None:
    """What a job takes before it trains, and what `submit` takes on the login node."""
    config = small.recipe(data, data / "soon.toml", 3, every=3)
    run = data / "soon"
    words = ("--nodes", "2", "--", "train", run, "--config", config)
    times = []
    for _ in range(5):
        begin = time.monotonic()
        rig.hpcscale("submit", "--site", rig.SITE, "--dry-run", *words)
        times.append(time.monotonic() - begin)
    job = rig.Job(run, rig.submit(*words), small.BATCH)
    job.reached(1)
    first = time.time()
    begun = time.mktime(time.strptime(rig.facts(job.id)["StartTime"], "%Y-%m-%dT%H:%M:%S"))
    job.completed()
    record("submit --dry-run", seconds=f"{min(times):.2f}")
    record("from job start to the first step, imports included", seconds=f"{first - begun:.0f}")
    assert min(times) < 1.0
    assert first - begun < 30
