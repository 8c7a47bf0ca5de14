"""What a site or a shell does to the job scripts, where Slurm itself must be asked; no training in it."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import rig

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300, func_only=True),
    pytest.mark.usefixtures("cluster"),
]

SINGLE = rig.CLONE / "slurm/single.sbatch"


def program(name: str, lines: str) -> Path:
    """An `apptainer` that does something first."""
    file = rig.WORK / name
    file.write_text(f'#!/bin/bash\n{lines}\nexec {rig.APPTAINER} "$@"\n')
    file.chmod(0o755)
    return file


def by_hand(folder: str, *options: str, **variables: str | Path) -> list[str]:
    """The words that submit `hpcscale --version` by hand."""
    names = {"HPCSCALE_IMAGE": rig.IMAGE, "HPCSCALE_APPTAINER": rig.APPTAINER} | variables
    settings = [f"{name}={value}" for name, value in names.items()]
    return ["env", *settings, "sbatch", "--parsable", *options, str(SINGLE), folder, "--version"]


def events(folder: str, job: str) -> list[dict[str, Any]]:
    file = rig.WORK / folder / "jobs" / f"{job}.attempts.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def log(folder: str, job: str) -> str:
    return (rig.WORK / folder / "jobs" / f"{job}.log").read_text()


def test_called_inside_a_task_of_an_array() -> None:
    """The inner job requeues itself, and not the outer one, of which it was given all variables."""
    rig.all_idle()
    killed = program(
        "killed-once", f'[ "$SLURM_RESTART_COUNT" ] || kill -9 $$; env >{rig.WORK}/inner.$SLURM_PROCID'
    )
    inner = by_hand(
        "inner.job", "--nodes=2", HPCSCALE_APPTAINER=killed, HPCSCALE_LAUNCHER="alone", APPTAINER_BIND="/"
    )
    outer = rig.WORK / "outer.sh"
    outer.write_text(f"#!/bin/bash\n{shlex.join(inner)} >{rig.WORK}/inner.id\nsleep 30\n")
    options = ("--array=0-1", "--mem-per-cpu=1", "--cpus-per-task=2", "--output=/dev/null")
    array = rig.login("sbatch", "--parsable", *options, outer).strip()
    assert rig.ended(array) == "COMPLETED"
    job = (rig.WORK / "inner.id").read_text().strip()
    assert rig.ended(job) == "COMPLETED", log("inner.job", job)
    told = [
        (event["verdict"], event["attempt"]) for event in events("inner.job", job) if event["event"] == "end"
    ]
    assert told == [("retry", 0), ("done", 1)]
    assert rig.facts(job)["Restarts"] == "1"
    assert "Restarts=0" in rig.login("scontrol", "show", "job", f"{array}_1")
    for rank in range(2):
        names = dict(
            line.partition("=")[::2] for line in (rig.WORK / f"inner.{rank}").read_text().splitlines()
        )
        assert names["APPTAINERENV_HPCSCALE_RANKS"] == names["SINGULARITYENV_SLURM_STEP_NUM_TASKS"] == "2"
        assert not {"APPTAINER_BIND", "HPCSCALE_LAUNCHER", "SLURM_ARRAY_JOB_ID", "SLURM_MEM_PER_CPU"} & set(
            names
        )


def test_a_bad_node_is_excluded_beside_what_the_user_excludes() -> None:
    rig.all_idle()
    # Elsewhere it waits for n1 to be excluded: Slurm may still be busy there when the job waits again.
    lines = (
        '[ "$SLURMD_NODENAME" != n1 ] || kill -9 $$',
        'grep -q exclude "${HPCSCALE_ATTEMPT%.*}.attempts.jsonl" || exit 76',
    )
    bad = program("bad-node", "\n".join(lines))
    job = rig.login(*by_hand("excluded.job", "--exclude=n3", HPCSCALE_APPTAINER=bad)).strip()
    assert rig.ended(job) == "COMPLETED", log("excluded.job", job)
    assert sorted(rig.facts(job)["ExcNodeList"].split(",")) == ["n1", "n3"]
    told = [event["nodes"] for event in events("excluded.job", job) if event["event"] == "exclude"]
    assert told == ["n1"]


def test_the_last_nodes_are_not_excluded() -> None:
    rig.all_idle()
    bad = program("bad-nodes", '[ "$SLURM_RESTART_COUNT" = 2 ] || [ "$SLURM_PROCID" = 1 ] || kill -9 $$')
    job = rig.login(*by_hand("last.job", "--nodes=2", "--exclude=n3", HPCSCALE_APPTAINER=bad)).strip()
    assert rig.ended(job) == "COMPLETED", log("last.job", job)
    assert rig.facts(job)["ExcNodeList"] == "n3"
    assert "n1 is blamed twice, but stays" in log("last.job", job)


def test_an_image_that_cannot_be_started_fails_at_once() -> None:
    job = rig.login(*by_hand("bind.job", "--nodes=2", HPCSCALE_BINDS="/not/there")).strip()
    assert rig.ended(job) == "FAILED"
    assert rig.facts(job)["Restarts"] == "0"
    (end,) = (event for event in events("bind.job", job) if event["event"] == "end")
    assert (end["verdict"], end["code"], end.get("blamed")) == ("failed", 255, None)
    assert "/not/there" in log("bind.job", job)
    assert "the image could not be started on n" in log("bind.job", job)
