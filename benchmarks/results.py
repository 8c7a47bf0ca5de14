"""Evaluation of made-up boxes in files, against hotcoco alone and pycocotools: time, and peak memory.

5,000 pictures, 42,000 true and 36,700 detected boxes of 80 classes, as in COCO's validation set. Everyone
reads the same two JSON files. Memory is that of a process of its own, with all that it imports.
"""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.harness import Rate, interleave, table

SIZE = (5000, 42_000, 36_700)  # pictures, true boxes, detected ones
CLASSES, WIDTH, HEIGHT = 80, 640, 480


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "truth.json"), Path(folder, "results.json")
        for file, content in zip(files, made_up(*SIZE), strict=True):
            file.write_text(json.dumps(content))
        ours = {name: lambda name=name: PEERS[name](*files) for name in ("hpcscale", "hotcoco")}
        values = {name: function() for name, function in ours.items()}
        rates = interleave(ours, SIZE[0], repeats=15)
        wall, core = time.perf_counter(), time.process_time()  # once, because it takes its time
        values["pycocotools"] = _pycocotools(*files)
        taken = time.perf_counter() - wall, time.process_time() - core
        rates.append(Rate("pycocotools", SIZE[0] / taken[0], SIZE[0] / taken[1], 0))
        notes = [f"{SIZE[0]:,} pictures, {SIZE[1]:,} true and {SIZE[2]:,} detected boxes; pycocotools once"]
        notes += [
            f"{name}: AP {values[name][0]:.6f}, {memory(name, *files):.0f} MB at most" for name in PEERS
        ]
    return table("Evaluation of boxes", "pictures", rates, notes)


def made_up(pictures, true, detected, classes=CLASSES, seed=0):
    """Annotations and results of COCO: five of six detections are near a true box, with moved edges."""
    random = np.random.default_rng(seed)
    near = min(detected * 5 // 6, true)
    images, kinds = random.integers(1, pictures + 1, true), random.integers(1, classes + 1, true)
    boxes = _boxes(random, true)
    annotations = [
        {"id": n + 1, "image_id": int(images[n]), "category_id": int(kinds[n]), "bbox": boxes[n].tolist(),
         "area": float(boxes[n, 2] * boxes[n, 3]), "iscrowd": int(n % 100 == 0)}
        for n in range(true)
    ]  # fmt: skip
    chosen = random.permutation(true)[:near]
    moved = boxes[chosen] + random.normal(0, 0.1, (near, 4)) * boxes[chosen][:, [2, 3, 2, 3]]
    found = np.vstack([moved, _boxes(random, detected - near)]).round(2)
    found[:, 2:] = found[:, 2:].clip(1)
    where = np.append(images[chosen], random.integers(1, pictures + 1, detected - near))
    which = np.append(kinds[chosen], random.integers(1, classes + 1, detected - near))
    scores = random.integers(1, 1000, detected) / 1000  # many are equal
    results = [
        {"image_id": int(where[n]), "category_id": int(which[n]), "bbox": found[n].tolist(),
         "score": float(scores[n])}
        for n in range(detected)
    ]  # fmt: skip
    truth = {
        "images": [
            {"id": n, "file_name": f"{n:012}.jpg", "width": WIDTH, "height": HEIGHT}
            for n in range(1, pictures + 1)
        ],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, classes + 1)],
        "annotations": annotations,
    }
    return truth, results


def _boxes(random, count):
    """(count, 4) x, y, width, height inside the picture, most of them small."""
    sizes = np.exp(random.normal(4, 1, (count, 2))).clip(2, 400)
    corners = random.random((count, 2)) * (np.array([WIDTH, HEIGHT]) - sizes)
    return np.hstack([corners, sizes]).round(2)


def _hpcscale(truth, results):
    from hpcscale.evaluate import coco

    return list(coco.evaluate(truth, results, "boxes").metrics.values())


def _hotcoco(truth, results):
    import hotcoco

    return _evaluate(hotcoco.COCO(str(truth)), results, hotcoco.COCOeval)


def _pycocotools(truth, results):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(truth))
    return _evaluate(loaded, results, COCOeval)


def _evaluate(truth, results, evaluator):
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluator(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


PEERS = {"hpcscale": _hpcscale, "hotcoco": _hotcoco, "pycocotools": _pycocotools}


def memory(name, *files):
    """Megabytes of a process that does this once."""
    code = (
        "import sys; from pathlib import Path; from benchmarks import results\n"
        "results.PEERS[sys.argv[1]](*map(Path, sys.argv[2:]))\n"
        "print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    command = [sys.executable, "-c", code, name, *map(str, files)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1000


if __name__ == "__main__":
    print(run())
