"""Recipes of the papers, made small: each trains for 20 steps on two ranks.

Small are pictures, batch and length, and the networks: the least of the family (MODELS), with one block a
stage. Lengths within a schedule shrink with the run, rates with the batch; all else is the recipe's own.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tiny
from places import PHOTOGRAPHS

from hpcscale import config, ranks
from hpcscale.config import Config
from hpcscale.data.store import open_data
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.labels import build, hierarchy, vocabulary
from hpcscale.models.shapes import SHAPES
from hpcscale.train import pretrain, process

STEPS, BATCH = 20, 8
SIDE, CROP = 40, 32
MODELS = {
    "resnet101": "resnet50",
    "resnext101_32x16d": "resnext101_32x4d",
    "bit_r152x4": "bit_r50x1",
}
SAMPLE = PHOTOGRAPHS / "imagenet-sample"


def settings(name: str, source: Path) -> Config:
    """The recipe, small."""
    whole = config.load(Path(f"{name}.toml"))
    values = whole.model_dump(mode="json")
    shorter, smaller = STEPS / whole.train.steps, BATCH / whole.train.batch
    schedule = values["schedule"]
    schedule["at"] = [round(at * shorter) for at in schedule["at"]]
    schedule["every"] = schedule["every"] and round(schedule["every"] * shorter)
    schedule["warmup"] = schedule["warmup"] and max(2, round(schedule["warmup"] * shorter))
    schedule["lr"] *= smaller
    schedule["warmup_lr"] *= smaller
    values["data"] |= {"train": str(source / "data"), "vocabulary": str(source / "vocabulary.json")}
    values["data"] |= {"held_out": 0.1}
    values["input"] |= {"crop": CROP, "threads": 1, "resize": values["input"]["resize"] and SIDE}
    values["evaluate"]["resize"] = values["evaluate"]["resize"] and SIDE
    values["model"]["name"] = MODELS[whole.model.name]
    values["train"] |= {"steps": STEPS, "batch": BATCH, "accumulate": 1, "keep_at": [], "log_every": 1}
    values["train"] |= {"device": "cpu", "threads": 1, "seed": 1}
    return config.check(Config, values, name)


def photographs(folder: Path) -> None:
    """The sample photographs, packed small, and a class for each of their synsets, as `tiny.make` has its
    own."""
    ingest(SAMPLE, folder / "data", packing=Packing(SIDE), workers=1)
    data = open_data(folder / "data")
    wnids = [json.loads(line)["wnid"] for line in (SAMPLE / "manifest.jsonl").read_text().splitlines()]
    tree = hierarchy.build(("thing", *wnids), ((), *[(0,)] * len(wnids)))
    vocabulary.save(build.from_hierarchy(data.tags, build.walk(data), tree), folder / "vocabulary.json")


SOURCES = {"generated": tiny.make} | ({"photographs": photographs} if SAMPLE.exists() else {})


def curves(folder: Path, source: str, names: Iterable[str]) -> dict[str, Any]:
    """Learning rates and losses of all steps of the recipes on two ranks, to six digits."""
    SOURCES[source](folder)
    code = f"import sys; sys.path = {sys.path}; import smoke; smoke.train(*sys.argv[1:])"
    assert ranks.launch([sys.executable, "-c", code, str(folder), *names], 2) == 0
    lines = {name: tiny.events(folder / "runs" / name, "step") for name in names}
    return {
        name: {key: [float(f"{line[key]:.6g}") for line in lines[name]] for key in ("lr", "loss")}
        for name in names
    }


def train(folder: str, *names: str) -> None:
    """One rank of it, in a process of its own."""
    process.keep_memory()
    SHAPES.update({name: shape._replace(stages=(1, 1, 1, 1)) for name, shape in SHAPES.items()})
    for name in names:
        pretrain.train(settings(name, Path(folder)), Path(folder, "runs", name))
