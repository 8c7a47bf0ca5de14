"""A run that never trained, over pictures of two looks, for the tests of the page of label noise."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hpcscale import config
from hpcscale.data.store import open_data
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.labels import build, hierarchy, vocabulary
from hpcscale.models import checkpoint, resnet

ODD = "<img src=x onerror=alert(1)>\"'&amp;</script><!--\u2028é"
CLASSES = ("fruit", "apple", "pear", ODD, "rare", "nothing")
PARENTS = ((), (0,), (0,), (), (), ())
APPLES, PEARS, ODDS, RARE = 24, 20, 21, 3


def make(folder: Path) -> Path:
    """Write folder/run, data and vocabulary.json; returns the run. Apples are reddish, but for one in six,
    which is noise; the others are noise too."""
    (folder / "pictures").mkdir()
    tags = ["apple"] * APPLES + ["pear"] * PEARS + [ODD] * ODDS + ["rare"] * RARE + ["unknown"] * 2
    lines = []
    for i, tag in enumerate(tags):
        random = np.random.default_rng(i)
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        if tag == "apple" and i % 6:
            pixels = np.array([200, 40, 30], np.uint8) + random.integers(0, 20, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 48)).save(folder / "pictures" / f"{i:02}.png")
        lines.append(json.dumps({"image": f"{i:02}.png", "tags": [tag]}) + "\n")
    (folder / "pictures" / "manifest.jsonl").write_text("".join(lines))
    ingest(folder / "pictures", folder / "data", packing=Packing(40), workers=1)
    data = open_data(folder / "data")
    tree = hierarchy.build(CLASSES, PARENTS)
    vocabulary.save(build.from_hierarchy(data.tags, build.walk(data), tree), folder / "vocabulary.json")
    settings = {
        "data": {"train": str(folder / "data"), "vocabulary": str(folder / "vocabulary.json")},
        "input": {"crop": 32},
        "schedule": {"lr": 0.1},
        "train": {"steps": 10, "batch": 2, "device": "cpu", "threads": 1},
    }
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = resnet.build(config.read(run / "config.json").model, len(CLASSES))
    checkpoint.save(run, 7, model.state_dict(), {}, {}, 3)
    return run
