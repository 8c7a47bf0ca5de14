"""What befalls a submission: what sbatch says, a full disk, no locks, the shell, options of sbatch."""

import errno
import fcntl
import json
import os
import resource
import time
from pathlib import Path

import pytest
from login_node import SUBMIT, TRAIN, Login

from hpcscale.cluster import programs, records, slurm


def program(login: Login, name: str, script: str) -> None:
    file = login.cluster.folder / "bin" / name
    file.write_text(f"#!/bin/sh\n{script}\n")


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


def test_an_index_is_made_by_an_array_and_its_recipe_is_checked(login: Login) -> None:
    """The recipe's paths must be there and be seen; that it divides a batch among tasks does not matter."""
    words = ("--array", "3", "--", "data", "index", "recipe.toml", "packed.index")
    assert "gone.txt: does not exist" in login.refused(*words, "--set", "data.drop=gone.txt")
    assert "gone.pth: does not exist" in login.refused(*words, "--set", "model.init=gone.pth")
    login.submit(*words, "--set", "train.batch=7")
    assert "#SBATCH --array=0-2\n" in Path("packed.index.job/jobs/1.sbatch").read_text()
