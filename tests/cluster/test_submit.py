"""hpcscale submit and its kin on a cluster of scripts (fake_slurm.py): rendered, refused, recorded."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from login_node import TRAIN, Login
from places import GOLDEN, ROOT

from hpcscale.cluster import jobs, script, site, slurm

SCRIPTS = GOLDEN / "scripts"
AWKWARD = "-a 'b' \"c\" $(touch bad) `touch bad` \\ %j \n, d:e"


def golden_scripts() -> dict[str, str]:
    """Name of a golden file to the script that it must be: every template, a full site and a bare one."""
    full = site.Site(
        image=Path("/shared/images/a b'c$d.sif"),
        binds=("/scratch", "/data sets:/data:ro", "/with'quote $x"),
        modules=("apptainer/1.3", "cuda"),
        apptainer="/opt/my apps/apptainer",
        environment={"NCCL_DEBUG": "WARN", "ODD": AWKWARD},
        pass_on=("HTTPS_PROXY",),
        interface="ib0",
        mpi="pmix",
        backend="horovod",
        stop_seconds=300,
        retries=2,
        partition="gpu",
        account="vision",
        qos="normal",
        constraint="a100&ib",
        time="1-00:00:00",
        memory="0",
        gpus_per_node=4,
        cpus_per_rank=8,
        directives=("--exclusive", "--reservation=maintenance"),
        array=site.Resources(partition="cpu", gpus_per_node=0),
    )
    bare = site.Site(image=Path("/images/cpu.sif"))
    wanted: dict[str, tuple[site.Site, dict[str, Any]]] = {
        "train": (full, {"template": "train",
                         "arguments": ("--config", f"{AWKWARD}.toml", "--set", "train.seed=1"),
                         "nodes": 4, "after": ("12", "14_1")}),
        "array": (full, {"template": "array", "arguments": ("dedup", "hash", "data", AWKWARD),
                         "array": "0-3%2", "parts": 9}),
        "single": (full, {"template": "single", "arguments": ("evaluate", AWKWARD)}),
        "bare": (bare, {"template": "train", "arguments": ("--config", "demo.toml")}),
    }  # fmt: skip
    texts = {}
    for name, (where, asked) in wanted.items():
        folder = Path("/runs/first" if name == "bare" else f"/runs/{AWKWARD}")
        job = script.BatchJob(folder=folder, image=where.image, image_sha256="0" * 64,
                         resources=where.resources(asked["template"]), **asked)  # fmt: skip
        texts[f"scripts/{name}.sbatch"] = script.render(job, where)
    return texts


@pytest.mark.parametrize("name", ["train", "array", "single", "bare"])
def test_scripts_are_these(name: str) -> None:
    assert golden_scripts()[f"scripts/{name}.sbatch"] == (SCRIPTS / f"{name}.sbatch").read_text()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck")
def test_shellcheck_finds_nothing() -> None:
    files = [
        *sorted(SCRIPTS.glob("*.sbatch")),
        *sorted((ROOT / "slurm").glob("*.sbatch")),
        ROOT / "slurm/lib.sh",
    ]
    done = subprocess.run(["shellcheck", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_awkward_values_arrive_as_they_are(tmp_path: Path) -> None:
    """The lines above lib.sh, run by bash."""
    text = golden_scripts()["scripts/train.sbatch"].partition("# ---- slurm/lib.sh")[0]
    show = 'printf \'%s\\0\' "$@" "$HPCSCALE_ENV_ODD" "$HPCSCALE_BINDS" "$HPCSCALE_IMAGE"'
    program = "module() { :; }\n" + text + show
    done = subprocess.run(["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\0") == [
        f"/runs/{AWKWARD}", "--config", f"{AWKWARD}.toml", "--set", "train.seed=1", AWKWARD,
        "/scratch\n/data sets:/data:ro\n/with'quote $x", "/shared/images/a b'c$d.sif", "",
    ]  # fmt: skip
    assert not (tmp_path / "bad").exists()


def test_every_character_alone_is_a_word_of_bash(tmp_path: Path) -> None:
    """And at both ends of a word; in a folder with a file of one letter, and a home."""
    (tmp_path / "x").touch()
    letters = [chr(code) for code in range(1, 256) if code != 0x0D]
    words = [*letters, *(f"{letter}a{letter}" for letter in letters), *(f"{letter}(x)" for letter in letters)]
    program = tmp_path / "program"
    program.write_text(f"set -- {' '.join(map(script.quote, words))}\nprintf '%s\\0' \"$@\"")
    done = subprocess.run(["bash", program], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_directives_hold_nothing_of_the_user() -> None:
    for text in golden_scripts().values():
        for line in text.splitlines():
            if line.startswith("#SBATCH"):
                assert all(character.isalnum() or character in "#-=.,:_&%@/ " for character in line), line


# ---- the commands


def test_row_59_a_training_from_submit_to_status(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "elsewhere")
    login.write_site('partition = "main"\ntime = "1:00:00"\n')
    assert login.submit("--nodes", "2", "--ranks-per-node", "2", *TRAIN) == "1"
    record = json.loads(Path("run/jobs/1.json").read_text())
    assert record["command"] == ["train", "run", "--config", "recipe.toml"]
    assert record["config"]["train"]["steps"] == 100
    assert (record["nodes"], record["ranks_per_node"], record["time"]) == (2, 2, "1:00:00")
    assert record["image_sha256"] in Path("run/jobs/1.sbatch").read_text()
    assert "SBATCH_PARTITION" not in login.cluster.job("1")["environment"]
    assert login.cluster.job("1")["script"] == Path("run/jobs/1.sbatch").read_text()
    assert json.loads(login.run("status", "run", "--json").stdout)["state"] == "PENDING"
    login.cluster.run()
    found = json.loads(login.run("status", "run", "--json").stdout)
    assert (found["state"], found["attempts"], found["failures"]) == ("COMPLETED", 1, 0)
    told = login.run("logs", "run", "-f").stdout
    assert told.count(f"train {login.work}/run --config recipe.toml\n") == 4
    assert not Path("slurm-1.out").exists()


def test_dry_run_calls_nothing_and_writes_nothing(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = login.run("submit", "--site", "./site.toml", "--dry-run", *TRAIN)
    assert done.stdout.startswith("#!/usr/bin/env bash\n")
    assert not Path("run").exists()
    assert "no 'sbatch' on PATH" in login.run("submit", "--site", "./site.toml", *TRAIN).output
    assert [file.name for file in Path("run/jobs").iterdir()] == [".lock"]


def test_two_trainings_of_one_run_are_refused(login: Login) -> None:
    login.submit(*TRAIN)
    done = login.run("submit", "--site", "./site.toml", *TRAIN)
    assert "job 1 trains this run already" in done.output
    assert login.submit("--after", "1", *TRAIN) == "2"
    assert login.submit("--", "evaluate", "run") == "3"
    login.cluster.run()
    assert login.submit(*TRAIN) == "4"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--", "train", "run", "--config", "gone.toml"), "gone.toml"),
        ((*TRAIN, "--set", "train.stepz=1"), "train.stepz: unknown key"),
        ((*TRAIN, "--set", "data.train=/etc"), "/etc: the image would not"),
        ((*TRAIN, "--set", "data.train=x"), "x: does not exist"),
        (("--nodes", "3", *TRAIN), "train.batch is 8, which 3 ranks cannot share"),
        (("--", "train", "run"), "Missing option '--config'"),
        (("--", "data", "ingest", "data", "/elsewhere/out"), "/elsewhere/out: the image would not see it"),
        (("--", "data", "ingest", "data", "out", "more"), "unexpected extra argument (more)"),
        (("--", "data", "ingest", "gone", "out"), "gone"),
        (("--", "data"), "which command?"),
        (("--", "submit", "x"), "'submit' is no command that can be submitted"),
        (("--", "dedup", "search", "vocabulary.json"), "nowhere where its result goes"),
        (("--array", "4", *TRAIN), "must be a command that shares its work"),
        (("--array", "0", "--", "data", "ingest", "data", "out"), "expected a number of parts"),
        (("--array", "1-4", "--", "data", "ingest", "data", "out"), "expected a number of parts"),
        (("--array", "4", "--", "data", "ingest", "--part=0/4", "data", "out"), "is left to the array"),
        (("--time", "soon", *TRAIN), "time"),
        (("--after", "1 --wrap", *TRAIN), "--after"),
    ],
)  # fmt: skip
def test_refused_before_anything_is_submitted(login: Login, words: tuple[str, ...], message: str) -> None:
    assert message in login.refused(*words)


def test_a_link_out_of_sight_is_refused(login: Login, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    Path("near").symlink_to(tmp_path / "far")
    told = login.refused("--", "data", "ingest", "near", "out")
    assert f"near (a link to {tmp_path / 'far'}): the image would not see it" in told
    login.write_site(f'binds = ["{tmp_path}/far"]\n')
    login.submit("--", "data", "ingest", "near", "out")


def test_what_another_job_will_write_need_not_be_there(login: Login) -> None:
    assert login.submit("--after", "7", "--", "data", "ingest", "later", "out") == "1"
    text = Path("out.job/jobs/1.sbatch").read_text()
    assert "#SBATCH --dependency=afterok:7\n#SBATCH --kill-on-invalid-dep=yes\n" in text


def test_names_of_the_catalogue_become_paths(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a name stands for must be there and be seen, and the catalogue too; the job gets the same one."""
    entry = '["train-web-10k"]\ndata = "data"\nvocabulary = "vocabulary.json"\nindex = "gone.index"\n'
    Path("catalogue.toml").write_text(entry)
    named = (*TRAIN, "--set", "data.train=train-web-10k")
    assert "gone.index: does not exist" in login.refused(*named)
    Path("gone.index").touch()
    for key in ("classes", "names"):
        assert "gone.txt: does not exist" in login.refused(*TRAIN, "--set", f"selection.{key}=gone.txt")
    assert login.submit(*named) == "1"
    record = json.loads(Path("run/jobs/1.json").read_text())
    assert (record["config"]["data"]["train"], record["config"]["data"]["index"]) == ("data", "gone.index")
    assert "HPCSCALE_CATALOGUE" not in Path("run/jobs/1.sbatch").read_text()
    login.cluster.run()

    far = login.work.parent / "far.toml"
    far.write_text(entry.replace('= "', f'= "{login.work}/'))
    monkeypatch.setenv("HPCSCALE_CATALOGUE", str(far))
    done = login.run("submit", "--site", "./site.toml", *named)
    assert (done.exit_code, f"{far}: the image would not see it" in " ".join(done.output.split())) == (
        2,
        True,
    )
    Path("catalogue.toml").unlink()
    far.rename("near.toml")
    monkeypatch.setenv("HPCSCALE_CATALOGUE", "near.toml")
    login.submit(*named)
    script = Path("run/jobs/2.sbatch").read_text()
    assert f"export HPCSCALE_ENV_HPCSCALE_CATALOGUE={login.work}/near.toml\n" in script


def test_a_report_of_several_runs_is_a_job_of_the_first(login: Login) -> None:
    for name in ("one", "two"):
        Path(name).mkdir()
    assert login.submit("--", "report", "one", "two") == "1"
    assert Path("one/jobs/1.sbatch").is_file()
    assert not Path("two/jobs").exists()


def test_more_parts_than_an_array_may_have_tasks(login: Login) -> None:
    """The fake's MaxArraySize is 4."""
    login.submit("--array", "0-8%2", "--", "data", "ingest", "data", "out")
    assert "#SBATCH --array=0-3%2\n" in Path("out.job/jobs/1.sbatch").read_text()
    login.cluster.run()
    told = login.run("logs", "out").stdout
    assert {f"--part {part}/9" in told for part in range(9)} == {True}
    assert told.count("==> 1_2.log <==") == 1
    assert json.loads(login.run("status", "out", "--json").stdout)["tasks"] == {
        f"1_{i}": "done" for i in range(4)
    }


def test_cancel_and_resubmit(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    login.submit("--nodes", "2", *TRAIN)
    assert login.run("cancel", "run").stdout == "1\n"
    assert login.cluster.job("1")["state"] == "CANCELLED"
    assert json.loads(login.run("status", "run", "--json").stdout)["state"] == "CANCELLED"
    assert login.run("cancel", "run").stdout == ""
    monkeypatch.chdir("/")
    assert login.run("resubmit", str(login.work / "run")).stdout == "2\n"
    first, second = ((login.work / f"run/jobs/{job}.sbatch").read_text() for job in (1, 2))
    assert first == second


def test_status_without_slurm(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    login.submit(*TRAIN)
    login.cluster.run()
    for file in login.cluster.folder.glob("job-*.json"):
        file.unlink()  # Slurm forgets jobs after minutes
    assert json.loads(login.run("status", "run", "--json").stdout)["state"] == "COMPLETED"
    monkeypatch.setenv("PATH", "/nowhere")
    assert json.loads(login.run("status", "run", "--json").stdout)["state"] == "COMPLETED"


@pytest.mark.parametrize(
    ("lines", "forgotten", "unknown"),
    [
        ([], "CANCELLED", "PENDING"),
        (["begin"], "FAILED", "RUNNING"),
        (["begin", "done"], "COMPLETED", "COMPLETED"),
        (["begin", "failed"], "FAILED", "FAILED"),
        (["begin", "retry"], "FAILED", "PENDING"),
        (["begin", "stopped"], "FAILED", "PENDING"),
    ],
)
def test_state_by_the_files_alone(tmp_path: Path, lines: list[str], forgotten: str, unknown: str) -> None:
    """A job that Slurm has forgotten is over; one that it cannot be asked for may wait for an attempt."""
    (tmp_path / "jobs").mkdir()
    events = [
        {"event": "begin", "attempt": 0, "nodes": "n1", "time": 1}
        if line == "begin"
        else {"event": "end", "attempt": 0, "code": 0, "verdict": line, "time": 2}
        for line in lines
    ]
    (tmp_path / "jobs/1.attempts.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    tries = jobs.attempts(tmp_path, "1") if lines else {}
    assert (jobs.state(tries, {}), jobs.state(tries, None)) == (forgotten, unknown)


def test_a_run_without_jobs(login: Login) -> None:
    for command in ("status", "logs", "cancel", "resubmit"):
        done = login.run(command, "data")
        assert (done.exit_code, "has no jobs" in done.output) == (2, True)


def test_progress_and_goodput(tmp_path: Path) -> None:
    """Steps 5 to 10 were done twice; 20 samples/s, 4 a step: 20 steps take 4 s, of 16 s."""
    lines = [
        {"event": "step", "step": step, "samples": step * 4, "loss": 1 / step, "samples_per_second": 20.0}
        for step in (5, 10, 10, 15, 20)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "log.jsonl").write_text(text + '{"event": "step", "st')
    (tmp_path / "config.json").write_text('{"train": {"steps": 100}}')
    shown = [{"command": [], "began": 100, "ended": 110}, {"command": ["evaluate"], "began": 1, "ended": 999},
             {"command": ["train"], "began": 112, "ended": 116}]  # fmt: skip
    assert jobs.progress(tmp_path, shown) == {
        "step": 20, "steps": 100, "loss": 0.05, "samples_per_second": 20.0, "eta": 16, "goodput": 0.25,
    }  # fmt: skip
    assert set(jobs.progress(tmp_path / "none", []).values()) == {None}


def test_logs_follow_over_requeues(login: Login) -> None:
    login.write_image('echo "$HPCSCALE_ATTEMPT"; [ "${HPCSCALE_ATTEMPT##*.}" = 2 ] || exit 76')
    login.submit(*TRAIN)
    following = subprocess.Popen(
        [sys.executable, "-m", "hpcscale", "logs", "-f", "run"],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    time.sleep(0.5)
    login.cluster.run()
    told, _ = following.communicate(timeout=30)
    assert [line[-2:] for line in told.splitlines() if line.startswith(str(login.work))] == [".0", ".1", ".2"]


def test_times_left() -> None:
    assert slurm.seconds("1-02:03:04") == 93784
    assert slurm.seconds("5:06") == 306
    assert slurm.seconds("INVALID") is None


def test_submitting_imports_nothing_heavy(login: Login) -> None:
    code = """
import sys
from hpcscale.cli import main
words = ["submit", "--site", "./site.toml", "--dry-run", "--", "train", "run", "--config", "recipe.toml"]
main(words, standalone_mode=False)
heavy = {"torch", "numpy", "h5py", "rich", "PIL", "matplotlib"}
print(sorted({name.partition(".")[0] for name in sys.modules} & heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_installed_package_brings_the_job_scripts(login: Login) -> None:
    out = login.work / "lib"
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    words = ["submit", "--site", "./site.toml", "--dry-run", "--", "data", "ingest", "data", "out"]
    again = [sys.executable, "-m", "hpcscale", *words]
    there = os.environ | {"PYTHONPATH": str(out)}
    done = subprocess.run(again, capture_output=True, text=True, check=True, env=there)
    assert done.stdout == login.run(*words).stdout
    assert (out / "hpcscale/slurm/sites/example.toml").exists()
    assert list((out / "hpcscale/containers").glob("*.def"))


def test_only_commands_of_ranks_get_several(login: Login) -> None:
    login.write_site("gpus_per_node = 4\n")
    Path("run").mkdir()
    for words, ranks in (("report", 1), ("evaluate", 4)):
        job = login.submit("--", words, "run")
        assert f"#SBATCH --ntasks-per-node={ranks}\n" in login.cluster.job(job)["script"], words
    for option in ("--nodes", "--ranks-per-node"):
        done = login.run("submit", "--site", "./site.toml", option, "2", "--", "report", "run")
        assert (done.exit_code, "`report run` runs as one process" in done.output) == (2, True), done.output
