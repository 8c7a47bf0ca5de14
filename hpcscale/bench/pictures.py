"""Pictures, labels and a recipe of nobody: what is measured where no recipe is given.

Out: a folder with a packed data set, a vocabulary and a recipe. Pictures are smooth noise, whose JPEGs are
about as long as those of photographs of that size, so that decoding costs about as much.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hpcscale.data.store import open_data
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.labels import build, hierarchy, vocabulary
from hpcscale.progress import Progress

STORED, COARSE, QUALITY = 340, 60, 90  # sides of a picture, and of the noise that it is enlarged from
PICTURES, TAGS = 250, 4  # of a picture; all different, so that there are 1,000 classes
RECIPE = """[data]
train = {data}
vocabulary = {vocabulary}
[input]
crop = 224
[schedule]
lr = 0.001
[train]
steps = 1
batch = {batch}
"""


def make(folder: Path, batch: int, progress: Progress) -> Path:
    """Write all of it into an empty folder, and return the recipe: ResNet-50, 224 pixels, 1,000 classes."""
    source = folder / "pictures"
    source.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for i in range(PICTURES):
        noise = Image.fromarray(random.integers(64, 192, (COARSE, COARSE, 3), np.uint8))
        noise.resize((STORED, STORED), Image.Resampling.BICUBIC).save(source / f"{i}.jpg", quality=QUALITY)
        tags = [f"tag{tag}" for tag in range(TAGS * i, TAGS * (i + 1))]
        lines.append(json.dumps({"image": f"{i}.jpg", "tags": tags}) + "\n")
        progress("pictures", i + 1, PICTURES)
    (source / "manifest.jsonl").write_text("".join(lines))
    pack(source, folder)
    recipe = folder / "recipe.toml"
    places = {name: json.dumps(str(folder / file)) for name, file in
              (("data", "data"), ("vocabulary", "vocabulary.json"))}  # fmt: skip
    recipe.write_text(RECIPE.format(batch=batch, **places))
    return recipe


def pack(source: Path, folder: Path) -> None:
    """Pictures with a manifest -> `data`, of STORED pixels a side, and `vocabulary.json`, a class a tag."""
    ingest(source, folder / "data", packing=Packing(STORED), workers=1)
    data = open_data(folder / "data")
    tree = hierarchy.build(data.tags, ((),) * len(data.tags))
    labels = build.from_hierarchy(data.tags, build.walk(data), tree)
    vocabulary.save(labels, folder / "vocabulary.json")
