"""What `status`, `logs`, `cancel` and `resubmit` find: damaged records, tasks of arrays, jobs of others."""

import json
import os
from pathlib import Path

import pytest
from login_node import SUBMIT, TRAIN, Login

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
