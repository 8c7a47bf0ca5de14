"""`make transfer-demo`: what pretraining on weak labels brings, by the commands that a user would type.

In: Fashion-MNIST (Debian's package dataset-fashion-mnist). A ResNet-50 learns ten classes of clothes from
many pictures, 40 % of whose labels are drawn at random. Then it learns the same classes from ten other
pictures of each with true labels, once from those weights and once from random ones, by every method. Out:
`transfer-demo/` and the table in `transfers.md`. It ends with an error unless pretraining is ahead by more
than the seeds' spread, by every method.
"""

import gzip
import json
import os
import statistics
import sys
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from hpcscale.cli.outcome import told
from hpcscale.cli.typed import hpcscale
from hpcscale.files import Told, read_json, write_file

FASHION = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
# Pictures of each class: with weak labels, with true ones, and to test; and the share of the weak labels that
# is drawn anew, from all classes.
MANY, FEW, TESTED, NOISE = 1200, 10, 100, 0.4
SIDE = 32
# BiT-HyperRule has a rate for its batches of 512, and half a thousand steps, which take too long here.
METHODS = {
    "probe": "",
    "finetune": 'steps = 50\n[grid]\nlr = [0.003, 0.01]\n[schedule]\nname = "cosine"\n',
    "hyperrule": "steps = 100\n[schedule]\nlr = 0.003\n",
}
PRETRAIN = """\
[data]
train = "{folder}/weak/data"
vocabulary = "{folder}/vocabulary.json"
held_out = 0.05
[input]
crop = 28
[loss]
name = "softmax"
[schedule]
name = "cosine"
lr = 0.015
warmup = 20
[train]
steps = 200
batch = 64
log_every = 50
checkpoint_every = 100
"""
TARGET = """\
[target]
name = "clothes"
test = "{folder}/test/data"
seeds = [0, 1, 2]
[data]
train = "{folder}/few/data"
vocabulary = "{folder}/vocabulary.json"
held_out = 0.2
stratified = true
[input]
crop = 28
mirror = false
[loss]
name = "softmax"
[train]
batch = 32
log_every = 40
checkpoint_every = 200
"""

Pixels = NDArray[np.uint8]  # (n, 28, 28)
Labels = NDArray[np.int64]  # (n,)


class Behind(Told):
    """Pretraining did not bring what it must."""


def images(kind: str) -> tuple[Pixels, Labels]:
    """A part of Fashion-MNIST, in the IDX format; by class, and in a seeded order within it."""
    pixels = gzip.decompress((FASHION / f"{kind}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FASHION / f"{kind}-labels-idx1-ubyte.gz").read_bytes())
    found = np.frombuffer(pixels, np.uint8)[16:].reshape(-1, 28, 28), np.frombuffer(labels, np.uint8)[8:]
    order = np.random.default_rng(0).permutation(len(found[1]))
    order = order[np.argsort(found[1][order], kind="stable")]
    return found[0][order], found[1][order].astype(np.int64)


def of_each(part: tuple[Pixels, Labels], first: int, last: int) -> tuple[Pixels, Labels]:
    """Of each class, the pictures from the first to the one before the last."""
    pixels, labels = part
    place = np.arange(len(labels)) - np.searchsorted(labels, labels)  # within its class
    rows = (place >= first) & (place < last)
    return pixels[rows], labels[rows]


def with_noise(labels: Labels) -> Labels:
    """A share of them drawn anew."""
    chance = np.random.default_rng(0)
    drawn = chance.random(len(labels)) < NOISE
    return np.where(drawn, chance.integers(0, len(CLASSES), len(labels)), labels)


def write_set(folder: Path, pixels: Pixels, labels: Labels) -> None:
    """Pictures and manifest, packed: `folder/data`."""
    from PIL import Image

    pictures = folder / "pictures"
    manifest = pictures / "manifest.jsonl"
    if not manifest.exists():  # written last
        pictures.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, (picture, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
            file = f"{number:05d}.jpg"
            Image.fromarray(picture).convert("RGB").resize((SIDE, SIDE)).save(pictures / file, quality=95)
            lines.append(json.dumps({"image": file, "tags": [CLASSES[label]]}) + "\n")
        write_file(manifest, "".join(lines).encode())
    hpcscale("data", "ingest", pictures, folder / "data", "--resize", str(SIDE))


def prepare(out: Path) -> None:
    """All sets, the vocabulary and the recipes."""
    train, test = images("train"), images("t10k")
    pixels, labels = of_each(train, 0, MANY)
    write_set(out / "weak", pixels, with_noise(labels))
    write_set(out / "few", *of_each(train, MANY, MANY + FEW))  # no picture is in both
    write_set(out / "test", *of_each(test, 0, TESTED))
    parents, vocabulary = out / "parents.tsv", out / "vocabulary.json"
    if not vocabulary.exists():
        write_file(parents, "".join(f"{name}\n" for name in CLASSES).encode())  # no class has a parent
        hpcscale("labels", "build", vocabulary, "--data", out / "weak" / "data", "--parents", parents)
    write_file(out / "weak.toml", PRETRAIN.format(folder=out).encode())
    for method, keys in METHODS.items():
        write_file(out / f"{method}.toml", (TARGET.format(folder=out) + keys).encode())


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("transfer-demo"), show_default=True)
@told()
def main(out: Path) -> None:
    """Pretrain on weak labels of clothes, transfer to a few true ones, and compare with random weights."""
    start = time.monotonic()
    os.environ["PYTHONNOUSERSITE"] = "1"
    if not FASHION.exists():
        raise Behind(f"{FASHION} is not there: apt-get install dataset-fashion-mnist")
    out.mkdir(parents=True, exist_ok=True)
    prepare(out)
    weak = out / "weak-run"
    hpcscale("train", weak, "--config", out / "weak.toml", "--ranks", "2")
    folders = []
    for method in METHODS:
        for source in (weak, "random"):
            folders.append(out / "transfers" / f"{method}-{Path(source).name}")
            words = ("--config", out / f"{method}.toml", "--out", folders[-1], "--ranks", "2")
            hpcscale("transfer", method, source, *words)
    hpcscale("report", *folders, "--out", out / "transfers.md")
    lines = [
        verdict(method, *pair)
        for method, *pair in zip(METHODS, map(scores, folders[::2]), map(scores, folders[1::2]), strict=True)
    ]
    click.echo("\n".join(line for line, _ in lines))
    click.secho(f"The demo took {time.monotonic() - start:.0f} s.", err=True)
    if not all(ahead for _, ahead in lines):
        raise Behind("pretraining is not ahead by more than the seeds' spread, see above")


def verdict(method: str, pretrained: list[float], random: list[float]) -> tuple[str, bool]:
    """Of the scores of every seed: a line, and whether pretraining is ahead by more than the larger of the
    two ranges over seeds."""
    one, other = statistics.fmean(pretrained), statistics.fmean(random)
    spread = max(max(scores) - min(scores) for scores in (pretrained, random))
    means = f"top-1 {one:.3f} pretrained, {other:.3f} from random weights"
    return f"{method}: {means}: {one - other:+.3f}, spread of seeds {spread:.3f}", one - other > spread


def scores(folder: Path) -> list[float]:
    """Top-1 of every seed."""
    return [result["metrics"]["top1"] for result in read_json(folder / "transfer.json")["results"]]


if __name__ == "__main__":
    sys.exit(main())
