"""DeepLab and the pose network learn a few photographs by heart, through the whole loop and its evaluation.

On a thin network (tests/thin.py): a minute or two of a core each. What a wide one would take is not tried.
"""

import json
from pathlib import Path
from typing import Any

import posed
import pytest
from places import PHOTOGRAPHS

from hpcscale import tasks
from hpcscale.dense import training
from hpcscale.ingest.packing import Packing, ingest

RECIPE = """\
[data]
train = "{data}"
validation = "{data}"
[model]
output_stride = 8
zero_init_residual = false
[optimizer]
name = "rmsprop"
epsilon = 1e-4
weight_decay = 0
[schedule]
name = "cosine"
lr = 0.01
warmup = 10
[train]
steps = {steps}
batch = {batch}
threads = 1
checkpoint_every = {steps}
device = "cpu"
[input]
mirror = false
{keys}
"""
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("thin_network")]


def learned(folder: Path, pictures: Path, annotations: Path, keys: str, steps: int, batch: int) -> Any:
    """The metrics of the pictures that were trained on."""
    if not pictures.exists():
        pytest.skip(f"{pictures} is not there")
    ingest(pictures, folder / "data", packing=Packing(None, annotations=(annotations,)), workers=1)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(data=folder / "data", steps=steps, batch=batch, keys=keys))
    settings = tasks.load(recipe)
    assert isinstance(settings, tasks.Dense)
    training.train(settings, folder / "run")
    (file,) = (folder / "run" / "evaluations").glob("*/metrics.json")
    return json.loads(file.read_text())["metrics"]


def test_row_49_deeplab_learns_three_photographs(tmp_path: Path) -> None:
    """Maps of 65 places a side can be read at 513 pixels: the smallest object covers 0.5 % of its picture."""
    sample = PHOTOGRAPHS / "segmentation-sample"
    keys = "square = 513\n[segmenter]"
    found = learned(tmp_path, sample / "JPEGImages", sample / "SegmentationClass", keys, 90, 3)
    assert found["mIoU"] > 0.9
    assert found["accuracy"] > 0.95


def test_row_50_a_pose_learns_the_persons_of_four_photographs(tmp_path: Path) -> None:
    """Twelve persons, small crops; at the paper's 353 x 257 it takes seven times as long."""
    sample = PHOTOGRAPHS / "coco-sample"
    keys = "[pose]\ncrop = [129, 97]\nradius = 9\njitter = [1.25, 1.25]"
    found = learned(tmp_path, sample / "images", sample / "person_keypoints.json", keys, 300, 12)
    likenesses = posed.likenesses(tmp_path / "run")
    assert len(likenesses) == 12
    assert sum(likenesses) / 12 > 0.9
    assert found["AP50"] > 0.9
