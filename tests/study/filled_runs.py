"""Run folders that were never trained, made for tables and figures: just the files that reports read."""

import json
from pathlib import Path

import numpy as np

from hpcscale import config
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.metrics import Results

STEPS = 100


def transfer(folder, top1, dedup=None, duplicates=12, task=None, top5=None):
    """A transfer with a seed for each of `top1`, shares from 0 to 1; audited where `dedup` is given."""
    results = []
    for seed, value in enumerate(top1):
        metrics = {"top1": value, "top5": (top5 or top1)[seed]}
        audit = None
        if dedup:
            without = {"top1": dedup[seed], "top5": (top5 or top1)[seed]}
            audit = {"samples": 400, "duplicates": duplicates, "full": metrics, "dedup": without}
        why = {} if dedup else {"unaudited": "random weights have seen no pictures"}
        results.append({"seed": seed, "run": f"last-{seed}", "metrics": metrics, "audit": audit, **why})
    said = {"format": "hpcscale transfer", "source": "ig", "target": "t", "task": task, "metric": "top1",
            "method": "finetune", "keys": {}, "results": results}  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "transfer.json").write_text(json.dumps(said))
    return folder


def detector(folder, metrics, classes=None, done=STEPS, evaluated=True):
    """A run of a detector with one evaluation after its last step."""
    folder.mkdir(parents=True)
    settings = {"detector": {"name": "faster-rcnn"}, "train": {"steps": STEPS}}
    (folder / "config.json").write_text(json.dumps(settings))
    _log(folder, done)
    if evaluated:
        place = folder / "evaluations" / f"validation-{STEPS:08d}"
        place.mkdir(parents=True)
        said = {
            "set": "validation",
            "step": STEPS,
            "pictures": 7,
            "metrics": metrics,
            "classes": classes or {},
        }
        (place / "metrics.json").write_text(json.dumps(said))
    return folder


def run(folder, right, of=10, which="validation", done=STEPS, evaluated=True, step=STEPS):
    """A run of classification on 10 pictures of 6 classes, of which so many are `right`."""
    folder.mkdir(parents=True)
    settings = {"data": {"train": "d", "vocabulary": "v.json"}, "train": {"steps": STEPS, "batch": 32}}
    settings["schedule"] = {"name": "cosine", "lr": 0.1}
    (folder / "config.json").write_text(config.dump(config.check(config.Config, settings, "test")))
    _log(folder, done)
    if evaluated:
        guesses = np.tile(np.arange(1, 6, dtype=np.int32), (of, 1))
        guesses[:right, 0] = 0
        results = Results(
            samples=np.arange(of), losses=np.zeros(of, np.float32), truths=np.zeros(of, np.int32),
            guesses=guesses, classes=guesses, scores=np.tile(np.arange(5, 0, -1, dtype=np.float32), (of, 1)),
            label_offsets=np.arange(of + 1), labels=np.zeros(of, np.int32),
        )  # fmt: skip
        metrics = {"samples": of, "single": of, "top1": right / of, "top5": 0.9, "map100": right / of / 2}
        summary = {"set": which, "step": step, "metrics": metrics, "baseline": {}}
        rows = [(c, f"class {c}", 10, 1, 0.5, 0.1) for c in range(6)]
        shown = np.zeros(0, np.int64), np.zeros((0, 4, 4, 3), np.uint8)
        place = folder / "evaluations" / f"{which}-{step:08d}"
        evaluations.save(place, summary, rows, results, [f"{i}.jpg" for i in range(of)], shown)
    return folder


def audited(folder: Path, names):
    """Near-duplicates of these pictures in the training data of a run."""
    (folder / "pairs").mkdir()
    (folder / "pairs" / "validation.tsv").write_text("".join(f"train.jpg\t{name}\t3\n" for name in names))
    return folder


def _log(folder, done):
    events = [{"event": "step", "step": step, "loss": 1.0} for step in range(50, done + 1, 50)]
    events += [
        {"event": "evaluation", "step": step, "set": "validation", "map100": step / 400}
        for step in range(20, done, 20)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
