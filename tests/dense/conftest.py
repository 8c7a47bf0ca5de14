"""What tests of dense tasks share: packed pictures with annotations, recipes, and a thin network."""

from collections.abc import Iterator
from pathlib import Path

import annotated
import numpy as np
import pytest
import thin
from PIL import Image

from hpcscale.ingest.packing import Packing, ingest

RECIPE = """\
[data]
train = "{data}"
validation = "{data}"
[input]
shorter = 64
longer = 96
{input}
[{task}]
{keys}
[optimizer]
weight_decay = 1e-4
[schedule]
lr = 0.005
[train]
steps = 4
batch = 4
threads = 1
log_every = 1
checkpoint_every = 2
device = "cpu"
"""
SMALL = (
    "anchors = [8, 16, 32, 64, 128]\nfrozen = 0\ncandidates = [50, 50]\nproposals = [20, 20]\nscore = 0.0\n"
)
DETECTOR = f"{SMALL}rpn_batch = 16\nbox_batch = 16\ndetections = 5"
PICTURES = 6


@pytest.fixture
def thin_network() -> Iterator[None]:
    """`resnet50` is thin, in processes that are started too."""
    with thin.network(), thin.own_settings():
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures with dogs and persons, and with class maps of three values and 255."""
    folder = tmp_path_factory.mktemp("dense")
    pictures = annotated.make_pictures(folder / "pictures", PICTURES)
    rows = [annotated.instance(n + 1, 100 + n, bbox=[2 + n, 2, 12, 9]) for n in range(PICTURES)]
    points = [6, 6, 2, 12, 8, 2, 16, 12, 1, *[10, 9, 2] * 14]
    rows += [
        annotated.instance(
            10 + n, 100 + n, category_id=3, bbox=[5, 5, 15, 14 - n], keypoints=points, num_keypoints=17
        )
        for n in range(PICTURES)
    ]
    dog, person = annotated.CATEGORIES
    names = ["nose", *(f"{side}_{n}" for n in range(8) for side in ("left", "right"))]  # as many as COCO's
    categories = [dog, person | {"keypoints": names}]
    coco = annotated.write_coco(folder / "coco.json", rows, PICTURES, categories=categories)
    maps = folder / "maps"
    maps.mkdir()
    for number in range(PICTURES):
        values = np.zeros((annotated.HEIGHT, annotated.WIDTH), np.uint8)
        values[number : 15 + number, 10:25], values[20:, :5], values[0] = 1, 2, 255
        Image.fromarray(values).save(maps / f"{number}.png")
    ingest(pictures, folder / "data", packing=Packing(None, annotations=(coco, maps)), workers=1)
    return folder / "data"


@pytest.fixture(scope="session")
def recipes(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A recipe of every task, on six pictures."""
    folder = tmp_path_factory.mktemp("recipes")
    found = {}
    detectors = {
        name: f'name = "{name}"\n{DETECTOR}' for name in ("faster_rcnn", "mask_rcnn", "keypoint_rcnn")
    }
    detectors["conv4"] = f'neck = "conv4"\n{DETECTOR}'
    detectors["retinanet"] = f'name = "retinanet"\n{DETECTOR}'.replace("8, 16, 32, 64, 128", "16")
    for name, keys in detectors.items():
        found[name] = folder / f"{name}.toml"
        found[name].write_text(RECIPE.format(data=packed, input="", task="detector", keys=keys))
    found["deeplab"] = folder / "deeplab.toml"
    keys = "classes = 3\nrates = [1, 2]\n[model]\noutput_stride = 8"
    text = RECIPE.format(data=packed, input="square = 33", task="segmenter", keys=keys)
    found["deeplab"].write_text(text)
    return found
