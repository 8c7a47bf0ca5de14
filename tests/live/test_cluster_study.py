"""A study as a job graph with arrays: one cell is made to fail, is mended, and it alone runs again."""

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

FOLDER = rig.WORK / "study of a day"
STEPS = 6
STUDY = '''
[axes]
seed = [0, 1, 2]
[stages.hash]
run = "dedup hash pictures-{seed} {here}.h5 --workers 1"
[stages.pairs]
run = "dedup search {hash}.h5 --out {here}.tsv --min-quality 0 --threads 1"
[stages.pack]
over = []
run = "data ingest pictures-0 {here} --resize 40 --workers 1"
[stages.vocabulary]
over = []
run = "labels build {here}.json --data {pack} --parents tree.tsv"
[stages.pretrain]
nodes = 2
ranks_per_node = 1
run = """train {here} --config recipe.toml --set train.seed={seed}
    --set data.train={pack} --set data.vocabulary={vocabulary}.json"""
'''


@pytest.fixture(scope="module")
def file(cluster: None) -> Path:
    """The study, with pictures for the seeds 0 and 1 alone."""
    small.pictures(FOLDER)
    for seed in (0, 1):
        rig.login("cp", "-r", FOLDER / "pictures", FOLDER / f"pictures-{seed}")
    small.recipe(FOLDER, FOLDER / "recipe.toml", STEPS, every=3)
    (FOLDER / "study.toml").write_text(STUDY)
    small.give(FOLDER)
    return FOLDER / "study.toml"


def run(file: Path) -> list[str]:
    return rig.hpcscale("study", "run", file, "--site", rig.SITE).split()


def states(file: Path) -> dict[str, str]:
    rows = json.loads(rig.hpcscale("study", "status", file, "--json"))
    return {f"{row['stage']} {row['cell']}": row["state"] for row in rows}


def over(file: Path) -> dict[str, str] | None:
    """The states, once nothing waits for Slurm."""
    found = states(file)
    return None if {"queued", "running"} & set(found.values()) else found


def told(file: Path) -> str:
    """What became of the study, and the ends of all logs of its jobs."""
    logs = sorted(file.parent.rglob("jobs/*.log"))
    ends = [f"== {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]) for log in logs]
    return "\n".join([rig.hpcscale("study", "status", file), *ends])


def times(file: Path) -> dict[str, int]:
    """When what is made was written."""
    made = [
        path for path in (file.parent / "study").rglob("*") if path.suffix in (".h5", ".tsv", ".safetensors")
    ]
    return {str(path): path.stat().st_mtime_ns for path in made}


def test_a_graph_whose_failed_cell_is_mended(file: Path, record: Record) -> None:
    begin = time.monotonic()
    assert len(run(file)) == 4 + 3  # an array a stage, and a job a training
    assert run(file) == []
    found = rig.wait_for("the end of the study", 600, lambda: over(file))
    bad = {"hash seed=2", "pairs seed=2"}
    assert {name for name, state in found.items() if state != "done"} == bad, told(file)
    assert found["hash seed=2"] == "failed"
    assert found["pairs seed=2"] == "waiting"
    before = times(file)
    rig.login("cp", "-r", FOLDER / "pictures", FOLDER / "pictures-2")
    assert len(run(file)) == 2
    found = rig.wait_for("the end of what was missing", 300, lambda: over(file))
    assert set(found.values()) == {"done"}
    after = times(file)
    assert {name: after[name] for name in before} == before
    record(
        "study: 12 cells as a job graph, one failed and mended",
        seconds=f"{time.monotonic() - begin:.0f}",
        cells_run_again=2,
    )
