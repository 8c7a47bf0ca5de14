"""`make transfer-demo`: what pretraining brings, by the commands that a user would type; it can fail.

In: Fashion-MNIST (Debian's package dataset-fashion-mnist) and the digits that come with scikit-learn. A
ResNet-50 learns five classes of clothes; then the other five, of which there are few pictures, and the digits
are learnt from its weights and from random ones. Out: `transfer-demo/` and the table in `transfers.md`. It
ends with an error unless pretraining is ahead by more than the seeds' spread, by every method.
"""

import gzip
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from hpcscale.cli.outcome import told
from hpcscale.cli.typed import hpcscale
from hpcscale.files import Told, read_json, write_file

FASHION = Path("/usr/share/datasets/fashion-mnist")
BEFORE = ("t-shirt", "trouser", "pullover", "dress", "coat")  # labels 0 to 4
AFTER = ("sandal", "shirt", "sneaker", "bag", "boot")  # 5 to 9
SIDE = 32
SEEDS = (0, 1, 2)
METHODS = ("finetune", "hyperrule", "probe")
# Pictures: of each class that is learnt first; of each that is learnt afterwards, to train on and to test.
MANY, FEW, TESTED = 3000, 8, 200

PRETRAIN = """\
[data]
train = "{folder}/before/data"
vocabulary = "{folder}/before/vocabulary.json"
held_out = 0.05
[input]
crop = 28
[loss]
name = "softmax"
[schedule]
name = "cosine"
lr = 0.05
warmup = 20
[train]
steps = 400
batch = 64
log_every = 50
checkpoint_every = 200
"""
TARGET = """\
[target]
name = "{name}"
test = "{folder}/{name}-test/data"
seeds = {seeds}
[grid]
lr = [0.01, 0.05]
[data]
train = "{folder}/{name}/data"
vocabulary = "{folder}/{name}/vocabulary.json"
held_out = 0.2
stratified = true
[input]
crop = 28
mirror = false
[loss]
name = "softmax"
[train]
steps = 80
batch = 32
log_every = 40
checkpoint_every = 200
"""
SCHEDULE = """\
[schedule]
name = "cosine"
"""
# BiT-HyperRule is for 512 pictures a step, and for half a thousand steps, which take too long here.
SHORTER = """\
[schedule]
lr = 0.003
at = [80, 120, 160]
warmup = 20
"""


class Behind(Told):
    """Pretraining did not bring what it must."""


def images(kind: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures (n, 28, 28) and labels (n,) of a part of Fashion-MNIST, in the IDX format."""
    pixels = gzip.decompress((FASHION / f"{kind}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FASHION / f"{kind}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(pixels, np.uint8)[16:].reshape(-1, 28, 28), np.frombuffer(labels, np.uint8)[8:]


def draw(
    pixels: NDArray[np.uint8], labels: NDArray[np.integer[Any]], classes: range, each: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]:
    """So many pictures of each class, (n, h, w), and labels (n,), by seed."""
    chance = np.random.default_rng(seed)
    rows = np.concatenate([chance.permutation(np.flatnonzero(labels == label))[:each] for label in classes])
    return pixels[rows], labels[rows]


def write_set(folder: Path, pixels: NDArray[np.uint8], names: list[str]) -> None:
    """Pictures and manifest, packed: `folder/data`."""
    from PIL import Image

    pictures = folder / "pictures"
    manifest = pictures / "manifest.jsonl"
    if not manifest.exists():  # written last
        pictures.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, (picture, name) in enumerate(zip(pixels, names, strict=True)):
            file = f"{number:05d}.jpg"
            Image.fromarray(picture).convert("RGB").resize((SIDE, SIDE)).save(pictures / file, quality=95)
            lines.append(json.dumps({"image": file, "tags": [name]}) + "\n")
        write_file(manifest, "".join(lines).encode())
    hpcscale("data", "ingest", pictures, folder / "data", "--resize", str(SIDE))


def write_vocabulary(folder: Path, names: tuple[str, ...]) -> None:
    parents, file = folder / "parents.tsv", folder / "vocabulary.json"
    if not file.exists():
        write_file(parents, "".join(f"{name}\n" for name in names).encode())  # no class has a parent
        hpcscale("labels", "build", file, "--data", folder / "data", "--parents", parents)


def prepare(out: Path) -> None:
    """All sets, vocabularies and recipes."""
    from sklearn.datasets import load_digits

    train, test = images("train"), images("t10k")
    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    numbers: tuple[str, ...] = (
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
    )
    fashion, tens = BEFORE + AFTER, range(10)
    order = np.random.default_rng(0).permutation(len(grey))  # no picture is in both sets
    first, second = order[:600], order[600:]
    sets = {
        "before": (fashion, draw(*train, range(5), MANY, 0)),
        "clothes": (fashion, draw(*train, range(5, 10), FEW, 0)),
        "clothes-test": (fashion, draw(*test, range(5, 10), TESTED, 0)),
        "digits": (numbers, draw(grey[first], digits.target[first], tens, FEW, 0)),
        "digits-test": (numbers, draw(grey[second], digits.target[second], tens, TESTED // 2, 0)),
    }
    for name, (names, (pixels, labels)) in sets.items():
        write_set(out / name, pixels, [names[label] for label in labels])
    for name, names in {"before": BEFORE, "clothes": AFTER, "digits": numbers}.items():
        write_vocabulary(out / name, names)
    (out / "before.toml").write_text(PRETRAIN.format(folder=out))
    for name in ("clothes", "digits"):
        text = TARGET.format(folder=out, name=name, seeds=list(SEEDS))
        (out / f"{name}-probe.toml").write_text(text)
        (out / f"{name}-finetune.toml").write_text(text + SCHEDULE)
        longer = text.replace("steps = 80", "steps = 200")
        (out / f"{name}-hyperrule.toml").write_text(longer + SHORTER)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("transfer-demo"), show_default=True)
@told()
def main(out: Path) -> None:
    """Pretrain on some clothes, transfer to others and to digits, and compare with random weights."""
    start = time.monotonic()
    os.environ["PYTHONNOUSERSITE"] = "1"
    if not FASHION.exists():
        raise Behind(f"{FASHION} is not there: apt-get install dataset-fashion-mnist")
    out.mkdir(parents=True, exist_ok=True)
    prepare(out)
    hpcscale("train", out / "before" / "run", "--config", out / "before.toml", "--ranks", "2")
    folders = []
    for target in ("clothes", "digits"):
        for method in METHODS:
            file = out / f"{target}-{method}.toml"
            for source in (out / "before" / "run", "random"):
                folders.append(out / "transfers" / f"{target}-{method}-{Path(source).name}")
                words = ("--config", file, "--out", folders[-1], "--ranks", "2")
                hpcscale("transfer", method, source, *words)
    hpcscale("report", *folders, "--out", out / "transfers.md")
    lines = [*verdicts(folders)]
    click.echo("\n".join(line for line, _ in lines))
    click.secho(f"The demo took {time.monotonic() - start:.0f} s.", err=True)
    if not all(ahead for _, ahead in lines):
        raise Behind("pretraining is not ahead by more than the seeds' spread, see above")


def verdicts(folders: list[Path]) -> list[tuple[str, bool]]:
    """Of each pair of transfers, pretrained and random: a line, and whether pretraining is ahead by more than
    the larger of the two ranges over seeds."""
    found = []
    for pretrained, random in zip(folders[::2], folders[1::2], strict=True):
        one, other = (scores(folder) for folder in (pretrained, random))
        gain, spread = statistics.fmean(one) - statistics.fmean(other), max(map(np.ptp, (one, other)))
        name = pretrained.name.rpartition("-")[0]
        means = f"{statistics.fmean(one):.3f} pretrained, {statistics.fmean(other):.3f} from random weights"
        line = f"{name}: {means}: {gain:+.3f}, spread of seeds {spread:.3f}"
        found.append((line, bool(gain > spread)))
    return found


def scores(folder: Path) -> list[float]:
    """Top-1 of every seed."""
    return [result["metrics"]["top1"] for result in read_json(folder / "transfer.json")["results"]]


if __name__ == "__main__":
    sys.exit(main())
