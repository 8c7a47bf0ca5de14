"""A study as jobs of the Slurm of fake_slurm.py: arrays and trainings, and only what is missing."""

import json
import re
import sys
from pathlib import Path

import login_node
import numpy as np
import pytest
from login_node import RECIPE, Login
from PIL import Image
from places import ROOT

STUDY = """
[axes]
side = [32, {side}]
seed = [0, 1]
[stages.pack]
run = "data ingest pictures-{{side}} {{here}} --resize {{side}} --workers 1"
[stages.pretrain]
nodes = 2
run = "train {{here}} --config recipe.toml --set data.train={{pack}} --set train.seed={{seed}}"
[stages.hash]
over = ["side"]
run = "dedup hash {{pack}} {{here}}.h5 --workers 1"
[speed]
model = "resnet50"
side = 299
pictures_per_second = 1000
"""
# Trainings leave a word; what else runs is real. Seed 1 ends badly while there is a file "bad".
IMAGE = """
export PYTHONPATH={root}
[ "$1" = train ] || exec {python} -m hpcscale "$@"
case "$*" in *seed=1*) [ ! -e bad ] || exit 1;; esac
mkdir -p "$2"
echo "$HOROVOD_RANK" >> "$2/trained.txt"
"""


@pytest.fixture
def login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    here = login_node.make(tmp_path, monkeypatch)
    for number in range(9):
        place = here.work / f"pictures-{(32, 40, 48)[number % 3]}" / "thing"
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(place / f"{number}.jpg")
    here.write_image(IMAGE.format(root=ROOT, python=sys.executable))
    (here.work / "recipe.toml").write_text(RECIPE)
    write(here, 40)
    return here


def write(login: Login, side: int) -> None:
    (login.work / "study.toml").write_text(STUDY.format(side=side))


def run(login: Login) -> list[str]:
    """The jobs that a `study run` submits."""
    done = login.run("study", "run", "study.toml", "--site", "./site.toml")
    assert done.exit_code == 0, done.output
    return done.stdout.split()


def states(login: Login) -> dict[str, str]:
    done = login.run("study", "status", "study.toml", "--json")
    assert done.exit_code == 0, done.output
    return {f"{row['stage']} {row['cell']}": row["state"] for row in json.loads(done.stdout)}


def options(login: Login, job: str) -> dict[str, str]:
    script = next(
        job_["script"] for name, job_ in login.cluster.jobs().items() if name.partition("_")[0] == job
    )
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.MULTILINE))


def test_row_f_a_graph_of_arrays_and_trainings_behind_one_another(login: Login) -> None:
    pack, *trainings, hashes = run(login)
    assert len(trainings) == 4
    assert options(login, pack)["array"] == "0-1"
    assert "dependency" not in options(login, pack)
    for job in trainings:
        assert options(login, job)["dependency"] == f"afterany:{pack}"
        assert options(login, job)["nodes"] == "2"
    assert options(login, hashes)["dependency"] == f"afterany:{pack}"
    assert set(states(login).values()) <= {"queued", "waiting"}
    assert run(login) == []  # all of it is with Slurm
    login.cluster.run()
    assert set(states(login).values()) == {"done"}
    assert run(login) == []
    assert len(list(login.work.glob("study/pretrain/*/trained.txt"))) == 4


def test_row_f_a_training_that_fails_is_submitted_again_alone(login: Login) -> None:
    (login.work / "bad").touch()
    run(login)
    login.cluster.run()
    found = states(login)
    bad = {f"pretrain side={side},seed=1" for side in (32, 40)}
    assert {name for name, state in found.items() if state == "failed"} == bad
    assert {state for name, state in found.items() if name not in bad} == {"done"}
    (login.work / "bad").unlink()
    again = run(login)
    assert len(again) == 2
    login.cluster.run()
    assert set(states(login).values()) == {"done"}


def test_row_f_a_cell_of_an_array_that_fails_blocks_what_needs_it_alone(login: Login) -> None:
    write(login, 7)  # there are no such pictures
    run(login)
    login.cluster.run()
    found = states(login)
    assert found["pack side=7"] == "failed"
    assert {
        found[f"{name} side=32{seed}"] for name, seed in (("pack", ""), ("pretrain", ",seed=0"), ("hash", ""))
    } == {"done"}
    assert found["hash side=7"] == "waiting"
    before = {file: file.stat().st_mtime_ns for file in login.work.glob("study/pack/side=32-*/*")}
    write(login, 48)
    assert len(run(login)) == 4  # pack, two trainings, hash
    login.cluster.run()
    assert set(states(login).values()) == {"done"}
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_job_that_still_waits_behind_a_failure_is_not_submitted_twice(login: Login) -> None:
    write(login, 7)
    pack, *_ = run(login)
    for name, job in login.cluster.jobs().items():
        if name.startswith(f"{pack}_"):
            login.cluster._attempt(job)
    found = states(login)
    assert (found["pack side=7"], found["pretrain side=7,seed=0"]) == ("failed", "queued")
    assert len(run(login)) == 1  # the failed cell's stage, and no training again


def test_the_plan_counts_what_trainings_take(login: Login) -> None:
    done = login.run("study", "plan", "study.toml", "--json")
    assert done.exit_code == 0, done.output
    pack, pretrain, hashes = json.loads(done.stdout)
    assert (pack["cells"], pack["jobs"], pack["pictures"]) == (2, "an array of 2", None)
    assert (pretrain["cells"], pretrain["jobs"]) == (4, "4 of 2 nodes")
    assert pretrain["pictures"] == 4 * 100 * 8
    assert pretrain["gpu_hours"] == pytest.approx(4 * 800 / 1000 / 3600)  # of the very network and crop
    # Weights and momentum of 25.6 million parameters in float32, three checkpoints of each.
    assert pretrain["disk"] == pytest.approx(4 * 3 * 2 * 4 * 25.557e6, rel=1e-3)
    assert hashes["needs"] == ["pack"]
    assert not login.cluster.jobs()


def test_a_site_that_cannot_be_used_is_told_before_anything_is_submitted(login: Login) -> None:
    done = login.run("study", "run", "study.toml", "--site", "./nowhere.toml")
    assert done.exit_code == 2, done.output
    assert "nowhere.toml" in done.output
    assert not login.cluster.jobs()


def test_a_command_that_is_none_is_told_before_anything_is_submitted(login: Login) -> None:
    text = (login.work / "study.toml").read_text()
    (login.work / "study.toml").write_text(text.replace("--config recipe.toml", "--config no-{seed}.toml"))
    done = login.run("study", "run", "study.toml", "--site", "./site.toml")
    assert done.exit_code == 2, done.output
    assert "pretrain side=32,seed=0: hpcscale train" in done.output
    assert "no-0.toml" in done.output
    assert not login.cluster.jobs()
