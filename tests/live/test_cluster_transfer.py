"""A random search as an array job: one task is killed in the middle of a trial, and nothing is lost by it."""

import json
import os
import signal
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

TRIALS, TASKS = 8, 4
FOLDER = rig.WORK / "transfer"
SPACE = """
[target]
test = "{folder}/data"
[search]
trials = {trials}
steps = [20, 30]
resolution = [32]
"""


@pytest.fixture(scope="module")
def file(cluster: None) -> Path:
    """Of the search, with its data set and vocabulary."""
    small.pictures(FOLDER)
    data = FOLDER / "data"
    a = rig.submit("--", "data", "ingest", FOLDER / "pictures", data, "--resize", "40", "--workers", "1")
    words = ("labels", "build", FOLDER / "vocabulary.json", "--data", data, "--parents", FOLDER / "tree.tsv")
    assert rig.ended(rig.submit("--after", a, "--", *words)) == "COMPLETED"
    recipe = small.recipe(FOLDER, FOLDER / "search.toml", 0, every=5, held_out=0.3)
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith(("steps =", "lr ="))]
    recipe.write_text("\n".join(lines) + SPACE.format(folder=FOLDER, trials=TRIALS))
    return recipe


def searched(file: Path, out: Path) -> tuple[str, str]:
    """The ids of the array and of the job that joins it."""
    words = ("--", "transfer", "search", "random", "--config", file, "--out", out)
    array = rig.submit("--array", str(TASKS), *words)
    return array, rig.submit("--after", array, *words)


def steps(out: Path, trial: int) -> int:
    log = out / "trials" / f"{trial:03}" / "log.jsonl"
    try:
        return sum('"event": "step"' in line for line in log.read_text().splitlines())
    except FileNotFoundError:
        return 0


def kill_a_task(out: Path) -> None:
    """That of trial 1, between two of its checkpoints."""
    rig.wait_for("a trial on its way", 180, lambda: 7 <= steps(out, 1) < 20)
    part = f"1/{TASKS}".encode()
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
        except OSError:
            continue
        if part in words and str(out).encode() in words and b"python" in words[0]:
            os.kill(int(folder.name), signal.SIGKILL)
            return
    raise AssertionError("no process of the task")


def test_a_killed_task_of_a_search(file: Path, record: Record) -> None:
    begin = time.monotonic()
    killed, undisturbed = FOLDER / "killed", FOLDER / "undisturbed"
    one, joined = searched(file, killed)
    kill_a_task(killed)
    rig.wait_for("another try", 120, lambda: rig.facts(f"{one}_1")["Restarts"] == "1")
    _, rest = searched(file, undisturbed)
    assert rig.ended(joined, 400) == "COMPLETED", logs(killed)
    assert rig.ended(rest, 400) == "COMPLETED", logs(undisturbed)
    events = (killed / "trials" / "001" / "log.jsonl").read_text().splitlines()
    (resumed,) = [json.loads(line)["step"] for line in events if '"resume"' in line]
    assert resumed in (5, 10, 15)
    tables = [(out / "trials.jsonl").read_text() for out in (killed, undisturbed)]
    assert tables[0] == tables[1]
    assert len(tables[0].splitlines()) == TRIALS
    results = [json.loads((out / "transfer.json").read_text()) for out in (killed, undisturbed)]
    assert results[0]["results"] == results[1]["results"]
    record(
        "search of 8 trials as an array, a task killed",
        seconds=f"{time.monotonic() - begin:.0f}",
        table="equal",
    )


def logs(out: Path) -> str:
    return "\n".join(
        f"== {file.name}\n{file.read_text()}" for file in sorted(Path(f"{out}.job").glob("jobs/*.log"))
    )
