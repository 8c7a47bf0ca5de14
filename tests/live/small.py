"""A data set and a recipe so small that a ResNet-50 trains on them in seconds, for the cluster's user."""

import json
import shutil
from pathlib import Path

import numpy as np
import rig
from PIL import Image

TREE = ("thing", "fruit\tthing", "apple\tfruit", "pear\tfruit", "dog\tthing")  # class, parent
TAGS = ("apple", "pear", "dog")
PICTURES = 26
BATCH = 4

RECIPE = """
[data]
train = "{folder}/data"
vocabulary = "{folder}/vocabulary.json"
held_out = {held_out}
[input]
crop = 32
[schedule]
lr = 0.002
[train]
steps = {steps}
batch = {batch}
seed = 3
device = "cpu"
threads = 1
log_every = 1
checkpoint_every = {every}
[watchdog]
floor = 10
"""


def pictures(folder: Path) -> None:
    """folder/pictures with a manifest, folder/tree.tsv. Two of the pictures are the same."""
    place = folder / "pictures"
    place.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = []
    for i in range(PICTURES):
        pixels = random.integers(0, 255, (5, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(place / f"{i:02}.jpg", quality=95)
        lines.append(json.dumps({"image": f"{i:02}.jpg", "tags": [TAGS[i % 3]]}) + "\n")
    shutil.copy(place / "03.jpg", place / f"{PICTURES - 1}.jpg")
    (place / "manifest.jsonl").write_text("".join(lines))
    (folder / "tree.tsv").write_text("class\tparent\n" + "".join(f"{line}\n" for line in TREE))
    give(folder)


def recipe(
    folder: Path, file: Path, steps: int, every: int, batch: int = BATCH, held_out: float = 0.0
) -> Path:
    file.write_text(RECIPE.format(folder=folder, steps=steps, every=every, batch=batch, held_out=held_out))
    give(file)
    return file


def give(path: Path) -> None:
    """To the user of the cluster."""
    user = rig.USER
    for each in (path, *path.rglob("*")):
        shutil.chown(each, user, user)
