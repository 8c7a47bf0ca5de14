"""What sites, shells and older jobs do to the job scripts of slurm/, under fake_slurm.py."""

import json
import re
import string
import subprocess
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
from by_hand import Site, ends
from click.testing import CliRunner

from hpcscale.cli import main
from hpcscale.cluster import script
from hpcscale.cluster import site as sites

pytestmark = pytest.mark.timeout(60)
KILLED = "kill -9 $$"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


# ---- what the shell that submits has


@pytest.mark.parametrize("program", ["apptainer", "singularity"])
def test_the_image_gets_its_variables_from_either_program(
    site: Site, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setenv("HPCSCALE_APPTAINER", program)
    site.train('echo "$SLURM_PROCID of $HPCSCALE_RANKS" >> seen', "--ntasks-per-node=2")
    assert sorted(Path("seen").read_text().splitlines()) == [f"{rank} of 4" for rank in range(4)]


def test_nothing_of_the_submitting_shell_reaches_the_job(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ("HPCSCALE_LAUNCHER", "HPCSCALE_ATTEMPT", "HPCSCALE_RANKS", "HPCSCALE_SITE", "HPCSCALE_OTHER")
    programs = ("BIND", "BINDPATH", "HOME", "NV", "OVERLAY", "CONTAINALL", "CONFIGDIR", "NO_MOUNT")
    theirs = [f"{prefix}_{name}" for prefix in ("APPTAINER", "SINGULARITY") for name in programs]
    inputs = ("SQUEUE_PARTITION", "SINFO_STATES", "SCONTROL_ALL", "SLURM_TIME_FORMAT", "SLURM_STDOUTMODE",
              "SLURM_CPU_BIND", "SLURM_MEM_PER_CPU", "SLURM_CLUSTERS", "SRUN_DEBUG")  # fmt: skip
    for name in (*ours, *theirs, *inputs):
        monkeypatch.setenv(name, "alone")
    kept = {"APPTAINER_TMPDIR": "/scratch", "SINGULARITY_CACHEDIR": "/cache"}
    for name, value in {**kept, "HPCSCALE_ENV_A": "1", "HPCSCALE_NVIDIA": "1"}.items():
        monkeypatch.setenv(name, value)
    site.train("exit 0")
    (call, _) = fake_slurm.seen(site.cluster)
    outside = call["outside"]
    assert {name for name in (*ours, *theirs, *inputs) if outside.get(name) == "alone"} == set()
    assert kept.items() <= outside.items()
    assert call["environment"]["A"] == "1"
    assert "A" not in outside
    assert "HPCSCALE_LAUNCHER" not in call["environment"]
    assert "--nv" in call["words"]


@pytest.mark.parametrize(("name", "value"), [("HPCSCALE_LAUNCHER", "mpi"), ("HPCSCALE_BACKEND", "torch")])
def test_what_a_script_sets_reaches_the_ranks(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    site.train("exit 0")
    assert {call["environment"][name] for call in fake_slurm.seen(site.cluster)} == {value}


def test_a_path_for_the_image_is_none_for_the_batch_shell(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCSCALE_ENV_PATH", "/nothing/here")
    events = site.train("exit 0")
    assert ends(events) == [("done", 0)]
    assert {call["environment"]["PATH"] for call in fake_slurm.seen(site.cluster)} == {"/nothing/here"}


def test_called_inside_a_task_of_an_array(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch hands all variables of the outer job on, and Slurm sets only those that the inner one has."""
    outer = {"SLURM_JOB_ID": "77", "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "3",
             "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_RESTART_COUNT": "4", "SLURM_CPUS_PER_TASK": "9",
             "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "9", "SLURM_JOB_END_TIME": "1"}  # fmt: skip
    for name, value in outer.items():
        monkeypatch.setenv(name, value)
    events = site.train(f"[ $attempt = 1 ] || {KILLED}", "--nodes=1")
    assert ends(events) == [("retry", 137), ("done", 0)]
    assert site.cluster.job("1")["restarts"] == 1
    first, second = fake_slurm.seen(site.cluster)
    assert "SLURM_ARRAY_JOB_ID" not in first["environment"]
    assert "SLURM_RESTART_COUNT" not in first["environment"]
    assert second["environment"]["SLURM_RESTART_COUNT"] == "1"
    assert int(first["environment"]["SLURM_JOB_END_TIME"]) > 1e9
    assert "SLURM_CPUS_PER_TASK" not in first["outside"]


def test_an_array_of_another_job_is_none_of_this(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    site.write_image("exit 0")
    site.sbatch("array", "out.job", "data", "ingest", "source", "out")
    site.cluster.run()
    assert ends(site.events("out.job", "1")) == [("failed", 2)]
    assert "no task of an array: give sbatch --array=0-LAST" in site.log("out.job")


WORDS = [
    *string.printable.strip(),
    " ",
    "\t",
    "\n",
    "~/x",
    "a=~",
    "a:~/b",
    "-*",
    "[a-z]",
    "{a,b}",
    "!!",
    "$'a'",
    "ü",
    "",
]


def test_every_character_arrives_as_it_is(site: Site) -> None:
    """As a word of the command, and as a value in the image; bash itself reads the script."""
    site.write_image(r'printf "%s\0" "$@" > words')
    for name in ("a", "b", "-x"):  # for patterns to find
        Path(name).touch()
    values = {f"V{number}": word for number, word in enumerate(WORDS)}
    here = sites.Site(image=site.image, environment=values)
    digest = json.loads(Path(f"{site.image}.json").read_text())["sha256"]
    folder, resources = Path.cwd() / "out.job", here.resources("single")
    Path("job.sbatch").write_text(
        script.render(script.BatchJob("single", folder, tuple(WORDS), site.image, digest, resources), here)
    )
    subprocess.run(["sbatch", "job.sbatch"], check=True)
    site.cluster.run()
    assert ends(site.events("out.job", "1")) == [("done", 0)], site.log("out.job")
    assert Path("words").read_text().split("\0") == [*WORDS, ""]
    (call,) = fake_slurm.seen(site.cluster)
    assert {name: call["environment"].get(name) for name in values} == values


# ---- what an older job of the same number has left


@pytest.mark.parametrize("attempt", [0, 1])
def test_files_of_an_older_job_do_not_speak_for_this_one(site: Site, attempt: int) -> None:
    place = Path("run/jobs")
    for number in (0, 1, 2):
        (place / f"1.{number}").mkdir(parents=True)
        (place / f"1.{number}" / "exit.1").write_text("0 n1\n")
        (place / f"1.{number}" / "stop").touch()
    (place / "10.0").mkdir()
    old = [{"event": "begin", "attempt": 0, "nodes": "n1", "time": 1},
           {"event": "end", "attempt": 0, "code": 75, "verdict": "stopped", "free": True, "time": 2},
           {"event": "begin", "attempt": 2, "nodes": "n1", "time": 3}]  # fmt: skip
    lines = "".join(json.dumps(event, separators=(",", ":")) + "\n" for event in old)
    (place / "1.attempts.jsonl").write_text(lines)
    site.write_image('[ ! -e "$HPCSCALE_ATTEMPT/stop" ] || exit 75')
    site.cluster.save(site.cluster.job(site.sbatch("train", "run")) | {"restarts": attempt})
    site.cluster.run()
    events = site.events("run", "1")
    assert [(event["event"], event["attempt"]) for event in events] == [("begin", attempt), ("end", attempt)]
    assert ends(events) == [("done", 0)]
    (aside,) = place.glob("before-*")
    assert (aside / "1.attempts.jsonl").read_text() == lines
    assert sorted(file.name for file in aside.iterdir()) == ["1.0", "1.1", "1.2", "1.attempts.jsonl"]
    assert (place / "10.0").is_dir()


# ---- nodes


def test_what_was_excluded_stays_so_and_is_added_to(site: Site) -> None:
    events = site.train(f"[ $SLURMD_NODENAME != n1 ] || {KILLED}", "--nodes=1", "--exclude=n3")
    assert ends(events) == [("retry", 137), ("retry", 137), ("done", 0)]
    assert site.cluster.job("1")["excluded"] == ["n3", "n1"]
    (said,) = of(events, "exclude")
    assert said == {"event": "exclude", "attempt": 1, "nodes": "n1", "for": "137", "time": said["time"]}
    assert "excluded from now on, since two attempts blame it: n1" in site.log()


def test_no_node_is_excluded_for_a_failure_that_came_without_it(site: Site) -> None:
    events = site.train(KILLED, "--nodes=1")
    assert ends(events) == [("retry", 137)] * 6
    assert [event["blamed"] for event in of(events, "end")] == ["n1"] * 2 + ["n2"] * 4
    assert [event["nodes"] for event in of(events, "exclude")] == ["n1"]


def test_another_failure_may_exclude_another_node(site: Site) -> None:
    image = f"case $SLURMD_NODENAME in n1) {KILLED} ;; n2) exit 139 ;; esac"
    events = site.train(image, "--nodes=1")
    assert [(event["nodes"], event["for"]) for event in of(events, "exclude")] == [
        ("n1", "137"),
        ("n2", "139"),
    ]
    assert ends(events)[-1] == ("done", 0)


def test_an_unexpected_error_blames_no_node(site: Site) -> None:
    events = site.train("exit 70", "--nodes=1")
    assert ends(events) == [("retry", 70)] * 6
    assert not [event for event in events if "blamed" in event or event["event"] == "exclude"]
    assert site.cluster.job("1")["excluded"] == []


@pytest.mark.parametrize(
    "reason", ["excluded by the site", "down", "constraint", "wanted by name", "as many as there are"]
)
def test_enough_nodes_are_left(site: Site, reason: str) -> None:
    options = {
        "excluded by the site": ["--nodes=2", "--exclude=n3"],
        "down": ["--nodes=2"],
        "constraint": ["--nodes=2", "--constraint=fast&new"],
        "wanted by name": ["--nodes=1", "--nodelist=n1"],
        "as many as there are": ["--nodes=3"],
    }[reason]
    if reason == "down":
        (site.cluster.folder / "down").write_text("n3")
    features = {"n1": "fast,new", "n2": "new,fast", "n3": "fast"}
    (site.cluster.folder / "features").write_text(json.dumps(features))
    events = site.train(
        f"[ $attempt = 2 ] || [ $rank != 0 ] || {KILLED}; [ $attempt = 2 ] || sleep 30", *options
    )
    assert ends(events) == [("retry", 137), ("retry", 137), ("done", 0)]
    assert not of(events, "exclude")
    assert "n1 is blamed twice, but stays" in site.log()


# ---- images that do not start


def test_an_image_that_cannot_be_started_is_told_at_once(site: Site) -> None:
    (site.cluster.folder / "no-start").touch()
    events = site.train("exit 0")
    assert ends(events) == [("failed", 255)]
    assert "blamed" not in events[-1]
    assert "FATAL: it does not start" in site.log()
    # The first rank that ends takes the other with it.
    assert re.search("the image could not be started on (n1|n2|n1,n2): exit code 255", site.log())


def test_an_image_that_was_started_before_may_be_again(site: Site) -> None:
    """Then it is a matter of the node."""
    image = """
    if [ $attempt = 0 ]; then touch "$HPCSCALE_ATTEMPT/began"; exit 137; fi
    [ $attempt = 2 ] || exit 255
    """
    events = site.train(image, "--nodes=1")
    assert ends(events) == [("retry", 137), ("retry", 255), ("done", 0)]
    assert [event.get("blamed") for event in of(events, "end")] == ["n1", "n1", None]


def test_a_command_says_that_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCSCALE_ATTEMPT", str(tmp_path))
    assert CliRunner().invoke(main, ["data", "--help"]).exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["began"]
    monkeypatch.setenv("HPCSCALE_ATTEMPT", str(tmp_path / "gone"))
    assert CliRunner().invoke(main, ["data", "--help"]).exit_code == 0


# ---- requeues


@pytest.mark.parametrize("number", ["many", "-1", "1.5"])
def test_retries_that_are_no_number(site: Site, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    """Compared with it, no number of failures would ever be too many."""
    monkeypatch.setenv("HPCSCALE_RETRIES", number)
    site.write_image("exit 76")
    site.sbatch("train", "run")
    site.cluster.run()
    assert site.cluster.job("1")["code"] == 2
    assert f"HPCSCALE_RETRIES is {number}; it must be a number" in site.log()


def test_a_requeue_that_the_site_refuses(site: Site) -> None:
    (site.cluster.folder / "refused").write_text('slurm_requeue error: "Access/permission" \\denied')
    events = site.train("exit 76", "--nodes=1")
    assert ends(events) == [("retry", 76)]
    (said,) = of(events, "requeue")
    assert said["attempt"] == 0
    assert said["refused"] == "slurm_requeue error: Access/permission denied for job 1"
    assert "`hpcscale resubmit` goes on from here" in site.log()
    assert site.cluster.job("1")["state"] == "FAILED"


@pytest.mark.parametrize(
    "left", ["step-best.json", "step-00000003.json", "step-00000005.json", "step-00000009-old.json"]
)
def test_a_stop_without_a_new_step_is_a_failure(
    site: Site, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setenv("HPCSCALE_RETRIES", "1")
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/checkpoints/step-00000005.json").touch()
    image = f"""
    [ {left} != step-00000003.json ] || rm -f run/checkpoints/step-00000005.json
    touch run/checkpoints/{left}
    exit 75
    """
    events = site.train(image, "--nodes=1")
    assert ends(events) == [("stopped", 75)] * 2
    assert not [event for event in events if "free" in event]
