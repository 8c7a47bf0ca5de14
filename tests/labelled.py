"""A source of many tiny labelled pictures with a long tail of classes, and its data set and vocabulary."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hpcscale import config
from hpcscale.data.store import DataSet, open_data
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.labels import build, hierarchy, vocabulary

CLASSES = 8  # c0 is the most frequent
COUNT = 240


def tags_of(number: int) -> list[str]:
    """One or two classes, more rarely the higher ones; every tenth picture has a tag without a class."""
    if number % 10 == 9:
        return ["nothing"]
    first = min(CLASSES - 1, int(CLASSES * ((number * 37 % 101) / 101) ** 3))
    return sorted({f"c{first}", f"c{(first + 1) % CLASSES}"} if number % 4 == 0 else {f"c{first}"})


def make_source(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for number in range(COUNT):
        name = f"{number:03}.png"
        Image.fromarray(random.integers(0, 255, (4, 4, 3), np.uint8)).save(folder / name)
        lines.append(json.dumps({"image": name, "tags": tags_of(number)}) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines))
    return folder


def make_set(folder: Path, shard_samples: int = 50) -> DataSet:
    """folder/source, folder/data and folder/vocabulary.json."""
    if not (folder / "source").exists():
        make_source(folder / "source")
    out = folder / f"data-{shard_samples}"
    ingest(folder / "source", out, packing=Packing(shard_samples=shard_samples), workers=1)
    data = open_data(out)
    names = [f"c{number}" for number in range(CLASSES)]
    flat = hierarchy.build(names, [()] * CLASSES)
    vocabulary.save(build.from_hierarchy(data.tags, build.walk(data), flat), folder / "vocabulary.json")
    return data


def settings(data: DataSet, **keys: object) -> config.Config:
    """A configuration over a set of `make_set`, with keys such as selection__size=4."""
    values: dict[str, dict[str, object]] = {
        "data": {"train": str(data.folder), "vocabulary": str(data.folder.parent / "vocabulary.json")},
        "schedule": {"lr": 1.0},
        "train": {"steps": 1, "batch": 4},
    }
    for key, value in keys.items():
        section, _, name = key.partition("__")
        values.setdefault(section, {})[name] = value
    return config.check(config.Config, values, "test")
