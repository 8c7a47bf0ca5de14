"""What befalls submissions and records: what sbatch says, full disks, damaged files, the shell."""

import errno
import fcntl
import json
import os
import resource
import time
from pathlib import Path

import login_node
import pytest
from login_node import TRAIN, Login

from hpcscale.cluster import programs, records, slurm


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    return login_node.make(tmp_path, monkeypatch)


def program(login: Login, name: str, script: str) -> None:
    file = login.cluster.folder / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")


SUBMIT = ("submit", "--site", "./site.toml", *TRAIN)
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"


@pytest.mark.parametrize(
    "then",
    [
        "echo; echo 'Welcome to /site/cluster'; echo $1",
        "echo $1; echo 'two/words here'",
        "echo 'budget left:'; echo 5000; echo $1",  # one of two numbers is a job
        "printf '\\377\\033[1mBanner\\033[0m\\n'; echo $1",
        "echo 'Submitted batch job '$1",
        'echo "Submitted batch job $1 on cluster main"',
        "printf '  %s;main\\r\\n' $1",
        'echo "your job has the number <$1>"',
        "exit 0",
        f"echo '{TIMED_OUT}' >&2; exit 1",
        "echo $1; exit 3",
    ],
)
def test_the_job_is_known_whatever_sbatch_says(login: Login, then: str) -> None:
    (login.cluster.folder / "sbatch-then").write_text(f"echo 'a lua script says hello' >&2\n{then}")
    done = login.run(*SUBMIT)
    assert (done.exit_code, done.stdout) == (0, "1\n"), done.output
    assert "a lua script says hello" in done.stderr
    assert json.loads(Path("run/jobs/1.json").read_text())["command"][0] == "train"
    assert login.cluster.job("1")["script"] == Path("run/jobs/1.sbatch").read_text()
    assert {file.name for file in Path("run/jobs").iterdir()} == {".lock", "1.json", "1.sbatch"}
    assert "job 1 trains this run already" in login.run(*SUBMIT).output


def test_an_sbatch_that_gives_no_answer_in_time(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its child keeps the output open after it is killed."""
    monkeypatch.setattr(slurm, "SECONDS", 15.0)
    (login.cluster.folder / "sbatch-then").write_text("sleep 300; true")
    begin = time.monotonic()
    done = login.run(*SUBMIT)
    assert time.monotonic() - begin < 120
    assert (done.exit_code, done.stdout) == (0, "1\n"), done.output
    assert "no answer in 15 s" in done.stderr


def test_a_program_that_is_ended_leaves_what_it_said() -> None:
    done = programs.run(["sh", "-c", "echo said; sleep 300; true"], 1)
    assert (done.code, done.out, "no answer in 1 s" in done.err) == (programs.LATE, "said\n", True)
    assert programs.run(["/nowhere/at/all"], 1).code == programs.MISSING


def test_a_job_that_slurm_may_have_is_found_later(login: Login) -> None:
    squeue = (login.cluster.folder / "bin/squeue").read_text()
    program(login, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    (login.cluster.folder / "sbatch-then").write_text(f"echo '{TIMED_OUT}' >&2; exit 1")
    done = login.run(*SUBMIT)
    assert done.exit_code == 1
    assert "Socket timed out" in done.stderr
    assert "Slurm may have the job all the same" in done.stderr
    [left] = Path("run/jobs").glob("submit-*.json")
    assert json.loads(left.read_text())["command"][0] == "train"
    again = login.run(*SUBMIT)  # not twice
    assert (again.exit_code, len(login.cluster.jobs())) == (1, 1)
    assert "a submission is open, and squeue: Unable" in login.run("status", "run").stderr
    (login.cluster.folder / "bin/squeue").write_text(squeue)
    assert "job 1 had no record yet" in login.run("status", "run").stderr
    assert "job 1  PENDING" in login.run("status", "run").stdout
    assert not left.exists()
    assert login.run("cancel", "run").stdout == "1\n"


def test_an_sbatch_that_says_nothing_of_a_job(login: Login) -> None:
    program(login, "sbatch", "echo 'the queue is closed until noon'")
    done = login.run(*SUBMIT)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "sbatch: told no id of a job, but: the queue is closed until noon" in done.stderr


def test_a_cluster_that_takes_no_arrays(login: Login) -> None:
    program(login, "scontrol", "echo 'MaxArraySize = 0'")
    told = login.refused("--array", "3", "--", "data", "ingest", "data", "out")
    assert "its MaxArraySize is 0" in told


def test_what_sbatch_refuses_leaves_nothing(login: Login) -> None:
    program(login, "sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    done = login.run(*SUBMIT)
    assert (done.exit_code, "invalid partition specified" in done.stderr) == (1, True)
    assert [file.name for file in Path("run/jobs").iterdir()] == [".lock"]


def test_a_submission_that_never_came_to_slurm_is_removed_after_a_while(login: Login) -> None:
    Path("run/jobs").mkdir(parents=True)
    left = Path("run/jobs/submit-hpcscale-0.json")
    left.write_text("{}")
    assert "does not have this job (yet)" in login.run("status", "run").stderr
    assert left.exists()
    os.utime(left, (time.time() - 2 * records.OPEN,) * 2)
    assert "removed" in login.run("status", "run").stderr
    assert not left.exists()


def full_disk() -> None:
    """Nothing can be written from here on, but names can be changed."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_a_full_disk(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    asked = slurm.submit

    def submit(*words: object) -> tuple[str, str]:
        try:
            return asked(*words)  # type: ignore[arg-type]
        finally:
            full_disk()

    monkeypatch.setattr(slurm, "submit", submit)
    try:
        after = login.run(*SUBMIT)  # full when sbatch has the job
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (after.exit_code, after.stdout) == (0, "1\n"), after.output
    assert json.loads(Path("run/jobs/1.json").read_text())["nodes"] == 1
    login.cluster.run()
    full_disk()
    try:
        early = login.run(*SUBMIT)  # full before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (early.exit_code, len(login.cluster.jobs())) == (1, 1)
    assert not list(Path("run/jobs").glob("submit-*"))


DAMAGED = {
    "empty": b"",
    "cut": b'{"command": ["tra',
    "a list": b"[1]",
    "deep": b"[" * 100_000,
    "no text": b"\xff\xfe",
    "a long number": b'{"command": ' + b"1" * 5000 + b"}",
    "another kind": b'{"command": 1}',
    "no words": b'{"command": [1], "cwd": "/", "request": {}}',
    "no request": b'{"command": ["train"], "cwd": "/"}',
}


@pytest.mark.parametrize("damage", list(DAMAGED))
def test_a_damaged_record_is_named_and_stops_nothing_else(login: Login, damage: str) -> None:
    login.submit(*TRAIN)
    Path("run/jobs/1.json").write_bytes(DAMAGED[damage])
    status = login.run("status", "run")
    assert (status.exit_code, "job 1  PENDING" in status.stdout) == (1, True)
    assert "run/jobs/1.json: is damaged" in status.stderr
    as_json = login.run("status", "run", "--json")
    assert "run/jobs/1.json" in json.loads(as_json.stdout)["damage"]
    assert "job 1 trains this run already" in login.run(*SUBMIT).output  # it may
    resubmit = login.run("resubmit", "run")
    assert (resubmit.exit_code, "run/jobs/1.json: is damaged" in resubmit.stderr) == (1, True)
    assert login.run("logs", "run").exit_code == 0
    assert login.run("cancel", "run").stdout == "1\n"
    assert login.run(*SUBMIT).stdout == "2\n"


def test_pipes_in_the_place_of_files_are_not_waited_for(login: Login) -> None:
    login.submit(*TRAIN)
    Path("run/jobs/1.json").unlink()
    for name in ("1.json", "1.log", "1.attempts.jsonl"):
        os.mkfifo(Path("run/jobs", name))
    os.mkfifo("run/log.jsonl")
    assert "run/jobs/1.json: is damaged: not a regular file" in login.run("status", "run").stderr
    assert login.run("logs", "run").stdout == ""
    assert login.run("cancel", "run").stdout == "1\n"


@pytest.mark.parametrize(
    "request_", [{"nodes": "many"}, {"color": 1}, {"after": 3}, {"sbatch": [["--exclusive"]]}]
)
def test_a_record_that_asks_for_what_there_is_not(login: Login, request_: object) -> None:
    login.submit(*TRAIN)
    record = json.loads(Path("run/jobs/1.json").read_text())
    Path("run/jobs/1.json").write_text(json.dumps(record | {"request": request_}))
    done = login.run("resubmit", "run")
    assert (done.exit_code, "the record of job 1 is damaged: request." in done.stderr) == (1, True)


def test_resubmit_from_a_folder_that_is_gone(login: Login) -> None:
    login.submit(*TRAIN)
    record = json.loads(Path("run/jobs/1.json").read_text())
    Path("run/jobs/1.json").write_text(json.dumps(record | {"cwd": "/gone"}))
    done = login.run("resubmit", "run")
    assert (done.exit_code, "/gone, where job 1 was submitted" in done.stderr) == (1, True)


def test_files_that_are_none_of_a_job(login: Login) -> None:
    login.submit(*TRAIN)
    for name in ("2x.json", "3", "4_5x.log", "notes.txt", "1_x.attempts.jsonl", "12²3.log", "5.json.old"):
        Path("run/jobs", name).write_text("{}")
    assert [job["job"] for job in json.loads(login.run("status", "run", "--json").stdout)["jobs"]] == ["1"]


def test_events_that_are_damaged_are_passed_over(login: Login) -> None:
    login.submit(*TRAIN)
    begin = {"event": "begin", "attempt": 0, "nodes": "n1", "time": 5}
    odd = [{}, {"attempt": "x"}, begin | {"time": None}, begin | {"nodes": 3}, begin | {"attempt": True}]
    odd += [
        {"event": "end", "attempt": 0, "time": 9},
        {"event": "end", "attempt": 7, "verdict": "done", "time": 9},
    ]
    lines = [json.dumps(event) for event in [*odd, begin]] + [
        "[1]",
        "[" * 100_000,
        "nonsense",
        '{"event": "en',
    ]
    Path("run/jobs/1.attempts.jsonl").write_text("\n".join(lines))
    step = {"event": "step", "step": 2, "samples": 8, "loss": 0.5, "samples_per_second": 4.0}
    odd = [step | {"step": value} for value in ("x", None, [1], -0.5)] + [step | {"step": 3, "samples": "y"}]
    lines = [json.dumps(event) for event in [*odd, step]]
    lines.append('{"event": "step", "step": 4, "samples": 9, "loss": NaN, "samples_per_second": "fast"}')
    Path("run/log.jsonl").write_text("\n".join(lines))
    for config in ('{"train": {"steps": "many"}}', '{"train": 3}', "[]", "{"):
        Path("run/config.json").write_text(config)
        found = json.loads(login.run("status", "run", "--json").stdout)
        assert (found["attempts"], found["step"], found["steps"], found["loss"]) == (1, 4, None, None)
    assert login.run("status", "run").exit_code == 0


# ---- the shell that submits

LEAKS = [
    "HPCSCALE_LAUNCHER", "HPCSCALE_INTERFACE", "HPCSCALE_RETRIES", "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_NTASKS",
    "SLURM_CLUSTERS", "SLURMD_NODENAME", "SBATCH_PARTITION", "SBATCH_CLUSTERS", "SRUN_DEBUG",
    "SQUEUE_FORMAT", "SINFO_FORMAT", "SCONTROL_ALL", "SALLOC_X", "APPTAINER_BIND",
    "APPTAINER_BINDPATH", "APPTAINER_NV", "APPTAINER_CONTAINER", "SINGULARITY_BIND",
    "SINGULARITY_NO_HOME", "APPTAINERENV_PATH", "SINGULARITYENV_LD_PRELOAD", "CUDA_VISIBLE_DEVICES",
    "SHELLOPTS", "BASHOPTS",
]  # fmt: skip


def test_no_job_gets_these_from_the_shell(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LEAKS:
        monkeypatch.setenv(name, "leaked")
    login.submit(*TRAIN)
    environment = login.cluster.job("1")["environment"]
    assert sorted(name for name, value in environment.items() if value == "leaked") == []


def test_what_a_job_does_get_from_the_shell(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = ("SLURM_CONF", "APPTAINER_TMPDIR", "SINGULARITY_CACHEDIR", "MINE", "HOME", "NCCL_DEBUG")
    for name in kept:
        monkeypatch.setenv(name, "kept")
    login.submit(*TRAIN)
    environment = login.cluster.job("1")["environment"]
    assert [environment.get(name) for name in kept] == ["kept"] * len(kept)


# ---- one task of an array, other jobs


def test_one_task_is_cancelled_and_the_others_are_not(login: Login) -> None:
    login.submit("--array", "3", "--", "data", "ingest", "data", "out")
    assert login.run("cancel", "out", "--job", "1_1").stdout == "1_1\n"
    assert {name: job["state"] for name, job in login.cluster.jobs().items()} == {
        "1_0": "PENDING", "1_1": "CANCELLED", "1_2": "PENDING",
    }  # fmt: skip
    assert login.run("cancel", "out", "--job", "1_1").stdout == ""
    login.cluster.run()
    assert "==> 1_2.log <==" in login.run("logs", "out", "-f", "--job", "1_2").stdout
    done = login.run("resubmit", "out", "--job", "1_1")
    assert (done.exit_code, "tasks are submitted as the whole array, 1" in done.output) == (2, True)


@pytest.mark.parametrize("job", ["*", "1_", "../1", "1;2", "", "1 2", "٣"])
def test_what_is_no_id_of_a_job(login: Login, job: str) -> None:
    login.submit(*TRAIN)
    for command in ("cancel", "logs", "resubmit"):
        done = login.run(command, "run", "--job", job)
        assert (done.exit_code, "expected the id of a job, as 12" in done.output) == (2, True)
    assert login.cluster.job("1")["state"] == "PENDING"


def test_a_job_of_another_run_is_not_touched(login: Login) -> None:
    login.submit(*TRAIN)
    login.submit("--", "data", "ingest", "data", "out")
    for command in ("cancel", "logs", "resubmit"):
        done = login.run(command, "run", "--job", "2")
        assert (done.exit_code, "run has no such job, but 1" in done.output) == (2, True)
    assert login.cluster.job("2")["state"] == "PENDING"


def test_status_of_an_array_counts_its_tasks_once(login: Login) -> None:
    login.submit("--array", "3", "--", "data", "ingest", "data", "out")
    login.cluster.run()
    assert login.run("status", "out").stdout.splitlines()[0] == (
        "job 1  COMPLETED  data ingest data out  (1 attempt, 0 failed, 3 of 3 begun tasks done)"
    )


def test_status_says_why_a_job_waits(login: Login) -> None:
    login.submit(*TRAIN)
    reason = "ReqNodeNotAvail, UnavailableNodes:n[1-2]"
    login.cluster.save(login.cluster.job("1") | {"reason": reason})
    (login.cluster.folder / "banner").write_text("Welcome: 2 nodes are down\n")
    assert f"job 1  PENDING ({reason})  train run" in login.run("status", "run").stdout
    assert json.loads(login.run("status", "run", "--json").stdout)["reason"] == reason


def test_status_says_which_nodes_are_left_out_and_what_slurm_refused(login: Login) -> None:
    login.submit(*TRAIN)
    login.cluster.save(login.cluster.job("1") | {"state": "FAILED"})
    events: list[dict[str, object]] = []
    for attempt in (0, 1):
        events.append({"event": "begin", "attempt": attempt, "nodes": "n1,n2", "time": 1})
        end = {
            "event": "end",
            "attempt": attempt,
            "code": 137,
            "verdict": "retry",
            "blamed": "n2",
            "for": "137",
        }
        events.append(end | {"time": 2})
    events.append({"event": "exclude", "attempt": 1, "nodes": "n2,n3", "time": 2})
    events.append({"event": "requeue", "attempt": 1, "refused": "Requested operation is disabled", "time": 2})
    Path("run/jobs/1.attempts.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    told = login.run("status", "run").stdout
    why = "blamed by attempt 0 (retry, exit code 137) and 1 (retry, exit code 137)"
    assert f"  without node n2: {why}\n  without node n3: " in told
    assert "Slurm did not requeue it: Requested operation is disabled; `hpcscale resubmit` goes on" in told


def test_an_older_job_of_the_same_id_keeps_its_record(login: Login) -> None:
    """Where ids begin anew."""
    login.submit(*TRAIN)
    first = Path("run/jobs/1.json").read_text()
    login.cluster.run()
    for file in login.cluster.folder.glob("job-*.json"):
        file.unlink()
    login.submit("--nodes", "2", *TRAIN)
    assert Path("run/jobs/1.json.old").read_text() == first
    assert json.loads(Path("run/jobs/1.json").read_text())["nodes"] == 2
    assert Path("run/jobs/1.sbatch.old").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, 524])
def test_a_file_system_without_locks(login: Login, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def none(*words: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    done = login.run(*SUBMIT)
    assert (done.exit_code, done.stdout) == (0, "1\n")
    assert "run/jobs: this file system has no locks" in done.stderr


# ---- options of sbatch


def test_further_options_of_sbatch(login: Login) -> None:
    login.write_site('directives = ["--exclusive"]\n')
    login.submit("--sbatch", "--mail-type=END", "--sbatch", "--comment=mine", *TRAIN)
    text = Path("run/jobs/1.sbatch").read_text()
    assert "#SBATCH --exclusive\n#SBATCH --mail-type=END\n#SBATCH --comment=mine\n" in text
    assert login.cluster.job("1")["comment"] == "mine"
    login.run("cancel", "run")
    assert login.run("resubmit", "run").stdout == "2\n"
    assert Path("run/jobs/2.sbatch").read_text() == text


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--clusters=b", "--clusters is hpcscale's own; use a login node of that cluster"),
        ("--clust=b", "a login node of that cluster"),
        ("-Mb", "expected an option of sbatch in one word, as --exclusive"),
        ("--comment=a b", "expected an option of sbatch in one word"),
        ("--nice #", "expected an option of sbatch in one word"),
        ("--array=0-3", "use --array"),
        ("--time=1", "use --time"),
        ("--ntasks=9", "use --nodes and --ranks-per-node"),
        ("--wrap=x", "use the command behind --"),
        ("--wait", "use `hpcscale logs -f`"),
    ],
)
def test_options_of_sbatch_that_are_refused(login: Login, option: str, told: str) -> None:
    assert told in login.refused("--sbatch", option, *TRAIN)
    login.write_site(f'directives = ["{option}"]\n')
    assert told in login.refused(*TRAIN)
