"""The job scripts of slurm/, run under a Slurm of scripts (fake_slurm.py): every way an attempt can end."""

import json
from pathlib import Path

import fake_slurm
import pytest
from by_hand import Site, ends

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def test_done(site: Site) -> None:
    events = site.train('echo "rank $rank of $SLURM_STEP_NUM_TASKS: $*"')
    assert ends(events) == [("done", 0)]
    assert events[0] == {"event": "begin", "attempt": 0, "nodes": "n1,n2", "time": events[0]["time"]}
    assert site.cluster.job("1")["state"] == "COMPLETED"
    assert "rank 0 of 2: train run --config a b.toml\n" in site.log()
    assert "rank 1 of 2: train run --config a b.toml\n" in site.log()


def test_an_error_that_would_come_again_is_final(site: Site) -> None:
    assert ends(site.train("exit 2")) == [("failed", 2)]
    assert (site.cluster.job("1")["state"], site.cluster.job("1")["code"]) == ("FAILED", 2)


def test_stopped_on_request_behind_a_checkpoint_costs_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCSCALE_RETRIES", "0")
    # Rank 1 ends at once, and must not draw rank 0 with it, which saves for a while.
    image = f"""
    if [ $attempt = 3 ]; then exit 0; fi
    pid=$(sed 's/.*"pid": //; s/[^0-9].*//' {site.cluster.folder}/job-1.json)
    [ $rank = 1 ] || kill -USR1 $pid
    until [ -e "$HPCSCALE_ATTEMPT/stop" ]; do sleep 0.02; done
    [ $rank = 1 ] || {{ sleep 0.3; mkdir -p run/checkpoints; touch run/checkpoints/step-000$attempt.json; }}
    exit 75
    """
    events = site.train(image)
    assert ends(events) == [("stopped", 75)] * 3 + [("done", 0)]
    assert all(event["free"] for event in events if event.get("verdict") == "stopped")
    assert [event["attempt"] for event in events if event["event"] == "begin"] == [0, 1, 2, 3]


def test_stopped_without_a_new_checkpoint_uses_the_budget_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCSCALE_RETRIES", "2")
    assert ends(site.train("exit 75")) == [("stopped", 75)] * 3
    assert site.cluster.job("1")["code"] == 75
    assert "not requeued: 3 failures, allowed are 2" in site.log()


@pytest.mark.parametrize("code", [70, 76, 77, 137, 139])
def test_retried(site: Site, code: int) -> None:
    events = site.train(f"[ $attempt -gt 0 ] || exit {code}", "--nodes=1")
    assert ends(events) == [("retry", code), ("done", 0)]


def test_a_killed_rank_is_retried_and_the_others_leave_no_word(site: Site) -> None:
    events = site.train("if [ $attempt = 0 ]; then [ $rank = 0 ] || kill -9 $$; sleep 30; fi")
    assert ends(events) == [("retry", 137), ("done", 0)]
    assert events[1]["blamed"] == "n2"
    assert {file.name: file.read_text() for file in Path("run/jobs/1.0").iterdir()} == {"exit.137": "1 n2\n"}


def test_budget(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCSCALE_RETRIES", "3")
    assert ends(site.train("exit 76", "--nodes=1")) == [("retry", 76)] * 4
    assert site.cluster.job("1")["code"] == 76


def test_an_error_that_was_told_comes_before_what_followed_from_it(site: Site) -> None:
    assert ends(site.train("if [ $rank = 1 ]; then sleep 0.1; exit 1; fi; exit 75")) == [("failed", 1)]


def test_a_node_blamed_twice_is_left_out(site: Site) -> None:
    events = site.train("if [ $SLURMD_NODENAME = n2 ]; then kill -9 $$; fi; [ $attempt = 2 ] || sleep 30")
    assert [event.get("blamed") for event in events if event["event"] == "end"] == ["n2", "n2", None]
    assert events[-2]["nodes"] == "n1,n3"


def test_a_stuck_job_blames_no_node(site: Site) -> None:
    """All ranks are stuck when one is; srun ends the others with the first."""
    events = site.train("[ $attempt = 0 ] || exit 0; [ $rank = 0 ] || sleep 30; exit 77")
    assert Path("run/jobs/1.0/exit.77").read_text() == "0 n1\n"
    assert ends(events) == [("retry", 137), ("done", 0)]
    assert "blamed" not in events[1]


def test_a_lost_node_counts_and_is_blamed(site: Site) -> None:
    """Slurm requeues such a job itself; the script of the attempt before has not come to its end."""
    Path("run/jobs").mkdir(parents=True)
    begin = {"event": "begin", "attempt": 0, "nodes": "n1,n2", "time": 1}
    Path("run/jobs/1.attempts.jsonl").write_text(json.dumps(begin, separators=(",", ":")) + "\n")
    (site.cluster.folder / "down").write_text("n2")
    site.write_image("exit 0")
    site.cluster.save(site.cluster.job(site.sbatch("train", "run", options=("--nodes=2",))) | {"restarts": 1})
    site.cluster.run()
    events = site.events("run", "1")
    assert ends(events) == [("lost", None), ("done", 0)]
    assert events[1]["blamed"] == "n2"


def test_a_job_whose_nodes_are_lost_again_and_again_gives_up(site: Site) -> None:
    site.write_image("echo ran")
    site.cluster.save(site.cluster.job(site.sbatch("train", "run")) | {"restarts": 6})
    site.cluster.run()
    assert "given up after 6 failures" in site.log()
    assert "ran" not in site.log().splitlines()
    assert site.cluster.job("1")["state"] == "FAILED"


def test_a_job_at_its_time_limit_is_requeued(site: Site) -> None:
    """Slurm is ending it already when its ranks have ended; after a cancellation that looks all the same."""
    image = f"""
    [ $attempt = 0 ] || exit 0
    FAKE_SLURM={site.cluster.folder} scontrol fake-state 1 COMPLETING TimeLimit
    exit 75
    """
    assert ends(site.train(image, "--nodes=1")) == [("stopped", 75), ("done", 0)]


def test_a_cancelled_job_is_not_requeued(site: Site) -> None:
    image = f"FAKE_SLURM={site.cluster.folder} scancel 1; exit 76"
    assert ends(site.train(image, "--nodes=1")) == [("retry", 76)]
    assert "not requeued from here: Slurm has the job as CANCELLED" in site.log()
    assert site.cluster.job("1")["state"] == "CANCELLED"


@pytest.mark.parametrize("record", ["another", "none", "no file"])
def test_a_tampered_image_is_refused_before_it_runs(site: Site, record: str) -> None:
    site.write_image("echo ran")
    file = Path(f"{site.image}.json")
    if record == "another":
        site.image.write_text("echo tampered")
    elif record == "none":
        file.write_text("{}")
    else:
        file.unlink()
    job = site.sbatch("train", "run", "--config", "f")
    site.cluster.run()
    assert ends(site.events("run", job)) == [("failed", 1)]
    assert not (site.cluster.folder / "apptainer.jsonl").exists()
    assert "is not the image that was recorded" in site.log()


def test_the_image_sees_what_is_allowed_and_nothing_else(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOKEN", "APPTAINERENV_TOKEN", "SINGULARITYENV_TOKEN", "SECRET", "NCCL_DEBUG", "MINE"):
        monkeypatch.setenv(name, "x, $(touch bad) `y`=\n'\"")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # of whoever runs the tests
    monkeypatch.setenv("HPCSCALE_PASS", "MINE UNSET")
    monkeypatch.setenv("HPCSCALE_BINDS", "/tmp:/t:ro\n/a b")
    site.train("exit 0", "--ntasks-per-node=2", "--cpus-per-task=3")
    calls = list(fake_slurm.seen(site.cluster))
    assert len(calls) == 4
    assert sorted(calls[0]["environment"]) == [
        "HPCSCALE_ATTEMPT", "HPCSCALE_RANKS", "MINE", "NCCL_DEBUG", "PYTHONNOUSERSITE", "SLURMD_NODENAME",
        "SLURM_JOB_END_TIME", "SLURM_JOB_ID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_PROCID",
        "SLURM_STEP_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS",
    ]  # fmt: skip
    assert calls[0]["environment"]["MINE"] == "x, $(touch bad) `y`=\n'\""
    words = calls[0]["words"]
    assert words[words.index("--bind") :][:4] == ["--bind", "/tmp:/t:ro", "--bind", "/a b"]
    assert {"--no-eval", "--cleanenv", "--nv"} & set(words) == {"--no-eval", "--cleanenv"}
    assert calls[0]["mounts"] == [str(site.work)]


def test_gpus_are_passed_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "2")
    site.train("exit 0")
    assert all("--nv" in call["words"] for call in fake_slurm.seen(site.cluster))


AWKWARD = [
    "a b",
    "-rf",
    "$(touch bad)",
    "`touch bad`",
    "new\nline",
    "quote'\"s",
    "star*",
    "co:lon,comma=",
    "back\\",
    "ü %j",
]


@pytest.mark.parametrize("name", AWKWARD)
def test_any_name_by_hand(site: Site, name: str) -> None:
    site.write_image('echo "$2" >&2; printf %s "$2" > seen')
    folder = site.work.parent / name / name
    job = site.sbatch("train", str(folder), "--config", "f")
    site.cluster.run()
    assert (folder / "jobs" / f"{job}.attempts.jsonl").exists()
    assert Path("seen").read_text() == str(folder)
    assert [call["mounts"] for call in fake_slurm.seen(site.cluster)] == [[str(site.work), str(folder)]]
    assert not Path("bad").exists()


def test_single(site: Site) -> None:
    site.write_image('echo "$*"')
    site.sbatch("single", "out.job", "labels", "build", "out")
    site.cluster.run()
    assert "labels build out\n" in site.log("out.job")


def test_array(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven parts, three tasks; one of them dies once, and it alone is run again."""
    monkeypatch.setenv("HPCSCALE_PARTS", "7")
    site.write_image('echo "$*" >> parts; if [ "$4" = 4/7 ] && [ $attempt = 0 ]; then exit 137; fi')
    site.sbatch("array", "out.job", "data", "ingest", "source", "out", options=("--array=0-2",))
    site.cluster.run()
    parts = [line.split()[3] for line in Path("parts").read_text().splitlines()]
    assert sorted(set(parts)) == [f"{part}/7" for part in range(7)]
    assert (parts.count("4/7"), parts.count("0/7")) == (2, 1)
    assert "data ingest --part 0/7 source out\n" in Path("parts").read_text()
    assert {name: job["restarts"] for name, job in site.cluster.jobs().items()} == {
        "1_0": 0,
        "1_1": 1,
        "1_2": 0,
    }
    assert ends(site.events("out.job", "1_1")) == [("retry", 137), ("done", 0)]
