"""A detector in the image, from pictures with boxes to its report: two ranks on two nodes, one killed."""

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

STEPS, EVERY = 24, 8
FOLDER = rig.WORK / "detector"
RECIPE = """
[data]
train = "{folder}/data"
validation = "{folder}/data"
[input]
shorter = 64
longer = 64
[detector]
anchors = [8, 16, 32, 48, 64]
frozen = 0
candidates = [50, 50]
proposals = [20, 20]
rpn_batch = 16
box_batch = 16
detections = 5
score = 0.0
[schedule]
lr = 0.002
[train]
steps = {steps}
batch = {batch}
device = "cpu"
threads = 1
log_every = 1
checkpoint_every = {every}
[watchdog]
floor = 10
"""


@pytest.fixture(scope="module")
def recipe(cluster: None) -> Path:
    """Of Faster R-CNN, with its data set: a box in each picture."""
    small.pictures(FOLDER)
    (FOLDER / "pictures" / "manifest.jsonl").unlink()
    numbers = range(small.PICTURES)
    coco = {
        "images": [{"id": n, "file_name": f"{n:02}.jpg", "height": 40, "width": 40} for n in numbers],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": n + 1, "image_id": n, "category_id": 1, "bbox": [n % 10, 5, 24, 20 + n % 8],
             "area": 24 * (20 + n % 8), "iscrowd": 0}
            for n in numbers
        ],
    }  # fmt: skip
    (FOLDER / "boxes.json").write_text(json.dumps(coco))
    file = FOLDER / "recipe.toml"
    file.write_text(RECIPE.format(folder=FOLDER, steps=STEPS, every=EVERY, batch=small.BATCH))
    small.give(FOLDER)
    words = ("--annotations", FOLDER / "boxes.json", "--workers", "1")
    packed = rig.submit("--", "data", "ingest", FOLDER / "pictures", FOLDER / "data", *words)
    assert rig.ended(packed) == "COMPLETED"
    return file


def start(recipe: Path, name: str) -> rig.Job:
    words = ("--nodes", "2", "--ranks-per-node", "1", "--", "train", FOLDER / name, "--config", recipe)
    return rig.Job(FOLDER / name, rig.submit(*words), small.BATCH)


def test_a_detector_on_two_nodes(recipe: Path, record: Record) -> None:
    begin = time.monotonic()
    whole = start(recipe, "whole")
    whole.completed()
    seconds = time.monotonic() - begin
    first = whole.log()[0]
    assert (first["event"], first["ranks"]) == ("start", 2), first
    killed = start(recipe, "killed")
    killed.reached(EVERY + 2)
    os.kill(killed.process(1).pid, signal.SIGKILL)
    killed.completed()
    assert killed.restarts() == 1, killed.tail()
    assert killed.weights() == whole.weights()
    done = rig.submit("--", "report", killed.run)
    assert rig.ended(done) == "COMPLETED"
    folder = rig.outside(killed.run) / "evaluations" / f"validation-{STEPS:08d}"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["pictures"] == small.PICTURES
    assert 0 <= metrics["metrics"]["AP50"] <= 1
    assert "pictures.png" in (rig.outside(killed.run) / "report.md").read_text()
    record(
        "Faster R-CNN on 2 x 1 ranks, rank 1 killed",
        seconds_undisturbed=f"{seconds:.0f}",
        weights="bit-equal",
        restarts=1,
        AP50=f"{metrics['metrics']['AP50']:.3f}",
    )
