"""A sheet of pictures of an evaluation: the truth on the left, what was found on the right.

In: a data set, records in the format of COCO's server or confusion matrices by picture. Out: a PNG with the
pictures on which the model does worst and best, worst first.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpcscale.annotations import reader
from hpcscale.annotations.drawing import draw_map, draw_objects
from hpcscale.annotations.maps import read_map
from hpcscale.annotations.masks import counts_of
from hpcscale.annotations.objects import Mask, Objects, Rle, no_objects, scale
from hpcscale.data.store import DataSet
from hpcscale.dense import views
from hpcscale.dense.views import View
from hpcscale.evaluate.voc import overlap

Pixels = NDArray[np.uint8]  # (h, w, 3)
Draw = Callable[[int, Pixels], list[Pixels]]
EACH, WIDTH = 4, 360  # pictures of the worst and of the best; pixels of a column
SURE, IOU = 0.5, 0.5  # least score of what is drawn; overlap from which a box is found


def save(folder: Path, data: DataSet, found: list[dict[str, Any]]) -> None:
    """Write `FOLDER/pictures.png`; of a segmenter, FOLDER/maps has what it found."""
    samples = np.arange(data.samples, dtype=np.int64)
    draw = _maps if (folder / "maps").exists() else _boxes
    marks, drawn = draw(folder, data, found)
    order = np.argsort(marks, kind="stable")
    strips = []
    for sample in dict.fromkeys(samples[[*order[:EACH], *order[-EACH:]]].tolist()):
        jpeg = bytes(data.jpegs(np.array([sample]))[0])
        height, width = data.sizes(np.array([sample]))[0].tolist()
        size = (max(1, round(height * WIDTH / width)), WIDTH)
        pixels = views.picture(jpeg, View((height, width), size, (0, 0), size, mirror=False))
        strips.append(np.concatenate(drawn(sample, pixels), axis=1))
    Image.fromarray(np.concatenate(strips)).save(folder / "pictures.png", "PNG")


def _boxes(folder: Path, data: DataSet, found: list[dict[str, Any]]) -> tuple[NDArray[np.float64], Draw]:
    """How well each sample was done, and what draws truth and findings on it."""
    table, rows = reader.table_of(data), defaultdict(list)
    for record in found:
        if record["score"] >= SURE:
            rows[record["image_id"]].append(record)
    truths = reader.objects(data, np.arange(data.samples, dtype=np.int64), original=True)
    guesses = [_objects(rows[sample], truth) for sample, truth in enumerate(truths)]

    def draw(sample: int, pixels: Pixels) -> list[Pixels]:
        size = (pixels.shape[0], pixels.shape[1])
        both = (scale(one, size) for one in (truths[sample], guesses[sample]))
        return [np.asarray(draw_objects(pixels.copy(), one, table)) for one in both]

    return np.array([_mark(truth, guess) for truth, guess in zip(truths, guesses, strict=True)]), draw


def _maps(folder: Path, data: DataSet, found: list[dict[str, Any]]) -> tuple[NDArray[np.float64], Draw]:
    """The same of class maps: the share of the pixels that are right; 1 where there is no truth."""
    marks = np.ones(data.samples)
    for record in found:
        true, predicted, count = np.array(record["confusion"], np.int64).reshape(-1, 3).T
        marks[record["image_id"]] = count[true == predicted].sum() / max(1, count.sum())

    def draw(sample: int, pixels: Pixels) -> list[Pixels]:
        (truth,) = reader.class_maps(data, np.array([sample]))
        file = folder / "maps" / f"{sample:08d}.png"
        guess = read_map(file.read_bytes()) if file.exists() else None
        both = [(pixels.copy(), values) for values in (truth, guess)]
        for each, values in both:
            if values is not None:
                draw_map(each, values)
        return [each for each, _ in both]

    return marks, draw


def _objects(records: list[dict[str, Any]], truth: Objects) -> Objects:
    """Records of one picture as objects of it."""
    none = no_objects(truth.size, truth.keypoints.shape[1], listed=True)
    if not records:
        return none
    boxes = np.array([record["bbox"] for record in records], np.float32)
    boxes[:, 2:] += boxes[:, :2]
    points = [record.get("keypoints") for record in records]
    k, n = len(records), truth.keypoints.shape[1]
    keypoints = np.array(points, np.float32) if points[0] else np.zeros((k, n, 3), np.float32)
    return none._replace(
        boxes=boxes,
        classes=np.array([record["category_id"] - 1 for record in records]),
        flags=np.zeros(k, np.int64),
        ids=np.arange(k),
        areas=np.full(k, np.nan),
        masks=[_mask(record.get("segmentation")) for record in records],
        keypoints=keypoints.reshape(k, -1, 3),
    )


def _mask(coded: Any) -> Mask:
    if coded is None:
        return None
    size = (int(coded["size"][0]), int(coded["size"][1]))
    return Rle(counts_of(coded["counts"], size), size)


def _mark(truth: Objects, guess: Objects) -> float:
    """How well a picture was done, from 0 to 1: twice the boxes that are found by one of their class, over
    all boxes of both. 1 where there is nothing and nothing was found."""
    total = len(truth.boxes) + len(guess.boxes)
    free, right = np.ones(len(truth.boxes), bool), 0
    for box, kind in zip(guess.boxes.astype(np.float64), guess.classes.tolist(), strict=True):
        rows: NDArray[np.int64] = np.flatnonzero(free & (truth.classes == kind))
        overlaps = overlap(box, truth.boxes[rows].astype(np.float64)) if len(rows) else np.zeros(0)
        if len(rows) and overlaps.max() >= IOU:
            free[rows[overlaps.argmax()]] = False
            right += 1
    return 2 * right / total if total else 1.0
