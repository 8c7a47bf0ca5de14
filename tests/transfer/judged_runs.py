"""Runs that never trained, with evaluations of drawn pictures, for the tests of their mistakes."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from hpcscale.data.codes import Codes, write_codes
from hpcscale.data.store import DataSet, open_data
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.metrics import Results
from hpcscale.ingest.packing import ingest
from hpcscale.transfer import outcomes

CLASSES = ("=cat", "dog", "car", "<script>alert(1)</script>")
NOTHING = np.zeros(0, np.int64), np.zeros((0, 8, 8, 3), np.uint8)


def packed(folder: Path, tags: dict[str, str], seed: int = 0) -> DataSet:
    """A data set of pictures named by the keys, each with one tag."""
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for number, (name, tag) in enumerate(tags.items(), seed):
        pixels = np.random.default_rng(number).integers(0, 255, (4, 5, 3), np.uint8)
        Image.fromarray(pixels).resize((50, 40)).save(folder / "pictures" / name, "JPEG", quality=95)
        lines.append(json.dumps({"image": name, "tags": [tag]}) + "\n")
    (folder / "pictures" / "manifest.jsonl").write_text("".join(lines))
    ingest(folder / "pictures", folder / "data", workers=1)
    return open_data(folder / "data")


def results(truths, predictions, scores=None, classes: int = len(CLASSES)) -> Results:
    """Of n pictures; a truth of -1 is none. scores (n, classes); by default 2 of the prediction."""
    truths, predictions = np.array(truths, np.int32), np.array(predictions, np.int32)
    if scores is None:
        scores = 2.0 * (np.arange(classes) == predictions[:, None])
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable").astype(np.int32)
    labels = [[truth] if truth >= 0 else [] for truth in truths.tolist()]
    return Results(
        samples=np.arange(len(truths), dtype=np.int64),
        losses=np.zeros(len(truths), np.float32),
        truths=truths,
        guesses=predictions[:, None],
        classes=order,
        scores=np.take_along_axis(np.asarray(scores, np.float32), order, 1),
        label_offsets=np.cumsum([0, *map(len, labels)], dtype=np.int64),
        labels=truths[truths >= 0],
    )


def evaluated(
    run: Path, found: Results, names, digests=None, data="", classes=CLASSES, loss="softmax"
) -> Path:
    """Write an evaluation of set validation into the run; returns the run."""
    rows = [(c, name, 1, 1, 0.5, 0.5) for c, name in enumerate(classes)]
    summary = {"set": "validation", "step": 7, "data": str(data), "metrics": {}, "baseline": {}}
    run.mkdir(parents=True, exist_ok=True)
    settings = {"data": {"train": str(data or "data"), "vocabulary": "v.json"}, "loss": {"name": loss},
                "schedule": {"lr": 0.1}, "train": {"steps": 1, "batch": 2}}  # fmt: skip
    (run / "config.json").write_text(json.dumps(settings))
    folder = run / "evaluations" / "validation-00000007"
    evaluations.save(folder, summary, rows, found, list(names), NOTHING, digests)
    return run


def run_over(folder: Path, truths, predictions, seed: int = 0, **more) -> Path:
    """A run over a new data set of pictures 0.jpg, 1.jpg, ...; a truth of -1 is none."""
    names = {f"{number:02}.jpg": CLASSES[truth] for number, truth in enumerate(truths)}
    data = packed(folder, names, seed)
    samples = np.arange(data.samples, dtype=np.int64)
    found = results(truths, predictions, more.pop("scores", None))
    digests = data.source_digests(samples)
    return evaluated(folder / "run", found, data.names(samples), digests, data.folder, **more)


def embedded(file: Path, data: DataSet, features, checkpoint: str = "c") -> Path:
    """An embedding file of the data set, from features (n, d) of any length."""
    features = np.asarray(features, np.float32)
    samples = np.arange(data.samples, dtype=np.int64)
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    write_codes(file, Codes(data.names(samples), features, np.full(len(samples), 100, np.uint8), "mean",
                            source=data.digest, decoder="d", checkpoint=checkpoint,
                            digests=data.source_digests(samples)))  # fmt: skip
    return file


def read(run: Path) -> outcomes.Outcomes:
    return outcomes.read(run)
