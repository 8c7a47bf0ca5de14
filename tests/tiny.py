"""A data set, a vocabulary and a recipe so small that a ResNet-50 trains on them in seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hpcscale import config
from hpcscale.data.store import open_data
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.labels import build, hierarchy, vocabulary
from hpcscale.models import checkpoint

TREE = ("thing", "fruit", "apple", "pear", "dog")
PARENTS = ((), (0,), (1,), (1,), (0,))
TAGS = ("apple", "pear", "dog")
PICTURES = 26


def make(folder: Path, seed: int = 0) -> Path:
    """Write folder/data, folder/vocabulary.json and folder/tiny.toml; return the recipe. Another seed: other
    pictures of the same names."""
    source = folder / "pictures"
    source.mkdir()
    random = np.random.default_rng(seed)
    lines = []
    for i in range(PICTURES):
        pixels = random.integers(0, 255, (5, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(source / f"{i:02}.jpg", quality=95)
        lines.append(json.dumps({"image": f"{i:02}.jpg", "tags": [TAGS[i % 3]]}) + "\n")
    (source / "manifest.jsonl").write_text("".join(lines))
    ingest(source, folder / "data", packing=Packing(40), workers=1)
    data = open_data(folder / "data")
    labels = build.from_hierarchy(data.tags, build.walk(data), hierarchy.build(TREE, PARENTS))
    vocabulary.save(labels, folder / "vocabulary.json")
    recipe = folder / "tiny.toml"
    recipe.write_text(
        f"""
[data]
train = "{folder / "data"}"
vocabulary = "{folder / "vocabulary.json"}"
[input]
crop = 32
[schedule]
lr = 0.002
[train]
steps = 6
batch = 4
seed = 3
device = "cpu"
threads = 1
log_every = 1
checkpoint_every = 2
"""
    )
    return recipe


def settings(recipe: Path, **keys: Any) -> config.Config:
    """The recipe with keys such as train__steps=4."""
    return config.load(recipe, [f"{key.replace('__', '.')}={json.dumps(v)}" for key, v in keys.items()])


def rewrite(record: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a checkpoint's record, and make its digest right again."""
    content = json.loads(record.read_text())
    del content["digest"]
    change(content)
    content["digest"] = checkpoint._record_digest(content)
    record.write_text(json.dumps(content))


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]
