"""What `hpcscale transfer` reads, good and small, in a world that has data, a vocabulary and a run."""

import json
from pathlib import Path

import numpy as np

from hpcscale.data.codes import Codes, write_codes
from hpcscale.data.store import open_data
from hpcscale.transfer import raters

FILE = """
[target]
name = "fruit"
test = "data"
metric = "top1"
seeds = [0]
radius = 31
[grid]
lr = [0.001, 0.01]
steps = [2, 3]
weight_decay = [0.0]
[search]
trials = 2
seed = 0
lr = [0.001, 0.01]
steps = [2]
dropout = [0.0, 0.5]
mixup = [0.1]
resolution = [32]
[hyperrule]
rule = "code"
[probe]
l2 = [0.1]
tolerance = 1e-6
solver = "lbfgs"
knn = 2
weighting = "equal"
batch = 2
[data]
train = "data"
vocabulary = "vocabulary.json"
[input]
crop = 32
[train]
batch = 2
device = "cpu"
threads = 1
"""


def make(place: Path) -> None:
    (place / "transfer.toml").write_text(FILE)
    chance = np.random.default_rng(0)
    for name, rows in (("train.npz", 12), ("test.npz", 5)):
        np.savez(place / name, x=chance.normal(size=(rows, 3)).astype(np.float32), y=np.arange(rows) % 3)
    data = open_data(place / "data")
    every = np.arange(data.samples)
    features = chance.normal(size=(data.samples, 4)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    write_codes(place / "embeddings.h5", Codes(
        data.names(every), features, np.full(data.samples, 100, np.uint8), "mean", 1, data.digest, "x",
        checkpoint="0" * 64, digests=data.source_digests(every),
    ))  # fmt: skip
    raters.export(place / "run", place / "rating", data=place / "data")
    head, *lines = (place / "rating" / raters.CSV).read_text().splitlines()
    voted = [line.removesuffix('"",""') + f'"{name}","yes"' for line in lines for name in ("ann", "bob")]
    (place / "votes.csv").write_text("\n".join([head, *voted]) + "\n")
    (place / "real.json").write_text(json.dumps([[i % 1000] for i in range(30)]))
    (place / "thousand.txt").write_text("".join(f"class {i % 5}\n" for i in range(1000)))
    (place / "scores.json").write_text(json.dumps({"Caltech101": 0.9, "CIFAR-100": 0.5, "SVHN": 1}))
    (place / "task" / "images").mkdir(parents=True)
    for i in range(4):
        picture = (place / "pictures" / f"{i}.jpg").read_bytes()
        (place / "task" / "images" / f"{i}.jpg").write_bytes(picture)
    for part, numbers in (("train800", (0, 1)), ("val200", (2,)), ("test", (3,))):
        lines = [f"images/{i}.jpg {i % 2}\n" for i in numbers]
        (place / "task" / f"{part}.txt").write_text("".join(lines))
