"""A folder in which there is a good, small one of everything that a command reads. Made in seconds."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image

from hpcscale import config
from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.metrics import Results
from hpcscale.models import checkpoint
from tests.fuzz import world_of_results, world_of_transfers
from tests.places import GOLDEN

PICTURES = 8
TAGS = ("apple", "pear", "dog")
TREE = "thing\nfruit\tthing\napple\tfruit\npear\tfruit\ndog\tthing\n"
RECIPE = """
[data]
train = "data"
vocabulary = "vocabulary.json"
held_out = 0.25
[input]
crop = 32
[schedule]
lr = 0.002
[train]
steps = 2
batch = 2
device = "cpu"
threads = 1
"""
CATALOGUE = """
["train-web-8-5"]
data = "data"
vocabulary = "vocabulary.json"
selection = {size = 6, classes = "classes.txt"}
["val-web-1.5k"]
data = "gone"
"""
PAPERS = """
[tables."sun2017-1"]
"Random initialization" = ["run", "gone"]
[tables."sun2017-9"."*"]
"*" = "detector"
[figures."sun2017-5"."300M"]
"ResNet-50" = "detector"
[figures."sun2017-3"."mine"]
"seed 0" = "run"
[metrics."sun2017-1"]
"top-5" = "dedup.top5"
"""
SITE = """
image = "image.sif"
binds = ["pictures"]
[resources]
partition = "main"
time = "1:00:00"
"""


def command(*words: object) -> None:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, (words, result.output, result.exception)


def make(place: Path) -> None:
    """Everything lies in `place`; nothing in it names the place, so it can be copied."""
    place.mkdir(exist_ok=True)
    _pictures(place)
    _tars(place / "tars")
    (place / "tree.tsv").write_text(TREE)
    (place / "wnids.txt").write_text("n01440764\n")
    (place / "recipe.toml").write_text(RECIPE)
    (place / "catalogue.toml").write_text(CATALOGUE)
    (place / "papers.toml").write_text(PAPERS)
    (place / "points.csv").write_text("family,place,x,y,seed\n300M,ResNet-50,50,33.5,a\n")
    (place / "classes.txt").write_text("# hpcscale classes 1\napple\nthing\n")
    (place / "site.toml").write_text(SITE)
    (place / "image.sif").write_bytes(b"#!/usr/bin/env run-singularity\n\0SIF_MAGIC\0" + bytes(1000))
    record = {"image": "image.sif", "sha256": "0" * 64, "source": "x", "environment": "y", "signed": False}
    (place / "image.sif.json").write_text(json.dumps(record, indent=1))
    command("data", "ingest", place / "pictures", place / "data", "--resize", 40, "--workers", 1,
            "--shard-samples", 5)  # fmt: skip
    command(
        "labels",
        "build",
        place / "vocabulary.json",
        "--data",
        place / "data",
        "--parents",
        place / "tree.tsv",
    )
    paths = {"train": place / "data", "vocabulary": place / "vocabulary.json"}
    sets = [f"--set=data.{key}={path}" for key, path in paths.items()]
    command("data", "index", place / "recipe.toml", place / "index.h5", *sets)
    shutil.copytree(GOLDEN / "format-1", place / "old")
    for name, source in (("a.h5", "pictures"), ("b.h5", "data")):
        command("dedup", "hash", place / source, place / name, "--workers", 1)
    command("dedup", "search", place / "a.h5", place / "b.h5", "--radius", 60, "--min-quality", 0, "--out",
            place / "pairs.tsv")  # fmt: skip
    pairs = [line.split("\t")[:2] for line in (place / "pairs.tsv").read_text().splitlines()]
    assert pairs
    lines = [
        {"a": a, "b": b, "decision": "accept", "reviewer": "ann", "time": "2026-01-01"} for a, b in pairs
    ]
    (place / "decisions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command("dedup", "drop", place / "pairs.tsv", "--side", "b", "--out", place / "drop.txt")
    _run(place / "run")
    _cut_outs(place)
    world_of_transfers.make(place)
    world_of_results.make(place)


def _pictures(place: Path) -> None:
    chance = np.random.default_rng(0)
    (place / "pictures").mkdir()
    lines = []
    for i in range(PICTURES):
        pixels = chance.integers(0, 255, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((60, 50)).save(place / "pictures" / f"{i}.jpg", quality=90)
        lines.append({"image": f"{i}.jpg", "tags": [TAGS[i % 3]]})
    (place / "pictures" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = "".join(f"{line['image']},{line['tags'][0]}\n" for line in lines)
    (place / "manifest.csv").write_text("image,tags\n" + rows)
    (place / "manifest.tsv").write_text(("image,tags\n" + rows).replace(",", "\t"))


def _cut_outs(place: Path) -> None:
    """An apple and a dog, and what they may be pasted on."""
    for name, size in (("apple", (20, 30)), ("dog", (40, 12))):
        (place / "objects" / name).mkdir(parents=True)
        cut = Image.new("RGBA", size, (200, 50, 60, 255))
        cut.putpixel((0, 0), (0, 0, 0, 0))
        cut.save(place / "objects" / name / "0.png")
    (place / "backgrounds").mkdir()
    shutil.copy(place / "pictures" / "0.jpg", place / "backgrounds" / "sea.jpg")
    rows = "".join(f"{name}/0.png,CC0\n" for name in ("apple", "dog"))
    (place / "objects" / "attributions.csv").write_text("image,licence\n" + rows)
    (place / "backgrounds" / "attributions.tsv").write_text("image\tlicence\nsea.jpg\tCC0\n")


def _tars(folder: Path) -> None:
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(number * 4, number * 4 + 4):
                picture = (folder.parent / "pictures" / f"{i}.jpg").read_bytes()
                for ending, content in (
                    ("jpg", picture),
                    ("json", b'{"tags": ["%s"]}' % TAGS[i % 3].encode()),
                ):
                    member = tarfile.TarInfo(f"{i:03}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def _run(run: Path) -> None:
    """A run as reports and audits see it, and a checkpoint of a few numbers."""
    run.mkdir()
    recipe = run.parent / "recipe.toml"
    (run / "config.json").write_text(config.dump(config.load(recipe, [])))
    events = [{"event": "start", "step": 0, "time": 1.0}]
    events += [{"event": "step", "step": step, "samples": 2 * step, "loss": 1 / step, "lr": 0.1,
                "seconds": 1.0, "samples_per_second": 9.0,
                "compute": 0.5, "allreduce": 0.1, "wait": 0.1, "rest": 0.3} for step in (1, 2)]  # fmt: skip
    events += [{"event": "evaluation", "step": 2, "set": "held_out", "metrics": {"map100": 0.5}}]
    events += [{"event": "end", "step": 2, "reason": "finished"}]
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    checkpoint.save(
        run, 2, {"fc.bias": torch.arange(5.0)}, {"lr": torch.ones(3)}, {"fingerprint": {}}, keep=1
    )
    n, classes = 3, 5
    results = Results(
        samples=np.arange(n), losses=np.ones(n, np.float32), truths=np.array([2, 3, -1], np.int32),
        guesses=np.tile(np.array([2, 3, 4], np.int32), (n, 1)),
        classes=np.tile(np.arange(classes, dtype=np.int32), (n, 1)),
        scores=np.zeros((n, classes), np.float32),
        label_offsets=np.array([0, 1, 2, 2]), labels=np.array([2, 3], np.int32),
    )  # fmt: skip
    metrics = {"samples": n, "loss": 1.0, "single": 2, "top1": 0.5, "top5": 1.0, "classes": 2, "map100": 0.5}
    summary = {"set": "held_out", "step": 2, "data": "data", "unreadable": 0, "metrics": metrics,
               "baseline": {**metrics, "loss": None}}  # fmt: skip
    rows = [(c, f"class {c}", 3, 1, 0.5, 0.1) for c in range(classes)]
    pixels = np.zeros((n, 8, 8, 3), np.uint8)
    evaluations.save(run / "evaluations" / "held_out-00000002", summary, rows, results,
                     [f"{i}.jpg" for i in range(n)], (np.arange(n), pixels),
                     open_data(run.parent / "data").source_digests(np.arange(n)))  # fmt: skip
