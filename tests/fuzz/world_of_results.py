"""What evaluators of dense tasks read, good and small, in a world that has pictures and a list to drop."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.dense import findings, truths
from hpcscale.evaluate import kept

WIDTH, HEIGHT, COUNT, POINTS = 60, 50, 4, 17  # of the pictures of world.py
RECIPE = """
[data]
train = "boxed"
validation = "boxed"
[detector]
anchors = [8, 16, 32, 48, 64]
[train]
steps = 2
[schedule]
lr = 0.1
"""
STUDY = """
out = "studied"
[given]
pictures = "pictures"
[axes]
side = [20, 30]
seed = [0, 1]
[along.side]
more = ["a", "b"]
[stages.pack]
run = "data ingest {pictures} {here} --resize {side} --workers 1"
[stages.pretrain]
run = "train {here} --config recipe.toml --set data.train={pack} --set train.seed={seed}"
[stages.all]
over = []
run = "report {pretrain*} --out {here}.md"
[speed]
model = "resnet50"
pictures_per_second = 10
[report]
stage = "pretrain"
metric = "map100"
size = "side"
seeds = "seed"
at = [40]
"""
XML = """<annotation><size><width>60</width><height>50</height><depth>3</depth></size>
<object><name>dog</name><difficult>{hard}</difficult>
<bndbox><xmin>5</xmin><ymin>6</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>
"""


def make(place: Path) -> None:
    box, polygon = [4.0, 5.0, 20.0, 30.0], [4.0, 5.0, 24.0, 5.0, 24.0, 35.0]
    points = [value for n in range(POINTS) for value in (5.0 + n, 6.0 + n, 2)]
    images = [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(COUNT)]
    rows = [
        {"id": n + 1, "image_id": n, "category_id": 1, "bbox": box, "area": 600.0, "iscrowd": 0,
         "segmentation": [polygon], "keypoints": points, "num_keypoints": POINTS}
        for n in range(COUNT)
    ]  # fmt: skip
    names = [f"point {n}" for n in range(POINTS)]
    category = {"id": 1, "name": "dog", "keypoints": names, "skeleton": [[1, 2]]}
    coco = {"images": images, "annotations": rows, "categories": [category]}
    (place / "coco.json").write_text(json.dumps(coco))
    (place / "drop-results.txt").write_text("1.jpg\n")
    values = {
        "boxes": ("bbox", box),
        "masks": ("segmentation", [polygon]),
        "keypoints": ("keypoints", points),
    }
    for name, (key, value) in values.items():
        found = [{"image_id": n, "category_id": 1, "score": 0.9 - n / 10, key: value} for n in range(COUNT)]
        (place / f"{name}.json").write_text(json.dumps(found))
    of_voc = [{"image": f"{n}", "class": "dog", "bbox": [5, 6, 30, 41], "score": 0.5} for n in range(COUNT)]
    (place / "voc.json").write_text(json.dumps(of_voc))
    for folder in ("xml", "maps", "found-maps"):
        (place / folder).mkdir()
    for n in range(COUNT):
        (place / "xml" / f"{n}.xml").write_text(XML.format(hard=n % 2))
        classes = np.zeros((HEIGHT, WIDTH), np.uint8)
        classes[10:30, 5 + n : 40], classes[0] = 1, 255
        Image.fromarray(classes).save(place / "maps" / f"{n}.png")
        Image.fromarray(np.where(classes == 255, 0, classes)).save(place / "found-maps" / f"{n}.png")
    _run(place)
    (place / "study.toml").write_text(STUDY)


def _run(place: Path) -> None:
    """A run of a detector as reports and audits see it."""
    words = ["data", "ingest", place / "pictures", place / "boxed", "--annotations", place / "coco.json"]
    done = CliRunner().invoke(main, [*map(str, words), "--workers", "1"])
    assert done.exit_code == 0, done.output
    data, run = open_data(place / "boxed"), place / "detector"
    run.mkdir()
    (run / "recipe.toml").write_text(RECIPE)
    section = {"detector": {"name": "faster_rcnn"}, "train": {"steps": 2}}
    (run / "config.json").write_text(json.dumps(section))
    (run / "log.jsonl").write_text('{"event": "step", "step": 2, "loss": 1.0}\n')
    found = json.loads((place / "boxes.json").read_text())
    truth = truths.of_data(data, np.arange(data.samples))
    folder = findings.folder_of(run, "validation", 2)
    measured = kept.measure("boxes", truth, found)
    findings.save(folder, "validation", 2, data, "boxes", truth, measured, found)
    (run / "pairs").mkdir()
    (run / "pairs" / "validation.tsv").write_text("elsewhere.jpg\t1.jpg\t3\n")
