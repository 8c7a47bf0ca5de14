"""Results of a detector or a segmentation in files, evaluated: all pictures, and without near-duplicates.

In: annotations, results, perhaps a drop list. Out: an `Evaluated`, and its text and JSON. COCO's formats are
in detections.py. Results for VOC are a JSON list of {"image", "class", "bbox": [xmin, ymin, xmax, ymax],
"score"}: the name of the XML file, with or without an ending, and pixels counted as in VOC, from 1, the last
one inside.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcscale.data import voc as annotations_of_voc
from hpcscale.data.voc import VocError
from hpcscale.evaluate import measured, voc
from hpcscale.evaluate.measured import Measured
from hpcscale.evaluate.voc import Found, Points, Truth
from hpcscale.text import shown

Kind = Literal["boxes", "masks", "keypoints", "voc", "segmentation"]
KINDS = ("boxes", "masks", "keypoints", "voc", "segmentation")
OF_CLASSES = {"segmentation": "IoU"}  # what a class has, where it is not AP
T = TypeVar("T", bound=Hashable)


class Evaluated(NamedTuple):
    kind: Kind
    original: Measured
    without: Measured | None  # without the pictures that have a near-duplicate; None: nobody asked
    near_duplicates: int | None  # such pictures


def evaluate(
    kind: Kind,
    annotations: Path,
    results: Path,
    drop: Path | None = None,
    iou: float = 0.5,
    points: Points = "all",
) -> Evaluated:
    """iou, points: of kind voc. Raises ResultsError, VocError and OSError."""
    if kind == "segmentation":
        return _segmentation(annotations, results, drop)
    if kind == "voc":
        truth = read_voc_truth(annotations)
        found = read_voc_results(results, truth)
        same = {name: name for name in truth}
        return _twice(kind, drop, same, lambda out: voc.evaluate(truth, found, iou, points, out))
    from hpcscale.evaluate import coco

    opened = coco.read(annotations, results, kind)
    ids = coco.names(opened) if drop else {}
    return _twice(kind, drop, ids, lambda out: coco.measure(opened, out))


def _twice(
    kind: Kind, drop: Path | None, names: Mapping[str, T], measure: Callable[[Set[T]], Measured]
) -> Evaluated:
    left_out = measured.read_drop(drop, names) if drop else set()
    original = measure(frozenset())
    return Evaluated(kind, original, measure(left_out) if drop else None, len(left_out) if drop else None)


def _segmentation(annotations: Path, results: Path, drop: Path | None) -> Evaluated:
    from hpcscale.evaluate import miou

    pairs = miou.find(annotations, results)
    left_out = measured.read_drop(drop, {pair.name: pair.name for pair in pairs}) if drop else set()
    everything = np.zeros((miou.CLASSES, miou.CLASSES), np.int64)
    kept = everything.copy()
    for name, counts in miou.read_counts(pairs):
        everything += counts
        if name not in left_out:
            kept += counts
    original = miou.measure(everything, len(pairs))
    without = miou.measure(kept, len(pairs) - len(left_out)) if drop else None
    return Evaluated("segmentation", original, without, len(left_out) if drop else None)


def read_voc_truth(folder: Path) -> dict[str, dict[str, Truth]]:
    """picture -> class -> its objects. Raises VocError for a box of negative size too, and OSError."""
    truth: dict[str, dict[str, Truth]] = {}
    for picture in annotations_of_voc.read_folder(folder):
        by_class = defaultdict(list)
        for number, each in enumerate(picture.objects):
            if each.box[2] < each.box[0] or each.box[3] < each.box[1]:
                where = f"{folder}: {picture.name}.xml, object {number}"
                raise VocError(f"{where}: 'bndbox': found {each.box}; a box of negative size is never found")
            by_class[each.name].append((each.box, each.difficult))
        truth[picture.name] = {
            name: Truth(np.array([box for box, _ in rows], np.float64), np.array([hard for _, hard in rows]))
            for name, rows in by_class.items()
        }
    return truth


def read_voc_results(file: Path, truth: Mapping[str, Mapping[str, Any]]) -> dict[str, Found]:
    """class -> its detections, in the order of the file. Classes are those of the annotations, and the twenty
    of VOC. Raises ResultsError and OSError."""
    from hpcscale.evaluate import detections

    records = detections.read(file, "voc")
    allowed = {name for of in truth.values() for name in of} | {*annotations_of_voc.CLASSES}
    rows = defaultdict(list)
    columns = zip(*(records.columns[key] for key in ("image", "class", "bbox", "score")), strict=True)
    for number, (image, kind, box, score) in enumerate(columns):
        name = image if image in truth else image.rpartition(".")[0]
        if name not in truth:
            raise records.error(number, "image", repr(shown(image))[:80])
        if kind not in allowed:
            raise records.error(number, "class", repr(shown(kind))[:80])
        if (box[2:] < box[:2]).any():
            raise records.error(number, "bbox", box.tolist())
        rows[kind].append((name, box, score))
    return {kind: _found(of) for kind, of in rows.items()}


def _found(rows: Sequence[tuple[str, NDArray[np.float64], float]]) -> Found:
    names, boxes, scores = zip(*rows, strict=True)
    return Found(names, np.array(boxes, np.float64), np.array(scores, np.float64))


def as_json(evaluated: Evaluated) -> dict[str, Any]:
    without = evaluated.without
    return {
        "kind": evaluated.kind,
        "original": evaluated.original._asdict(),
        "without_near_duplicates": without._asdict() if without else None,
        "near_duplicates": evaluated.near_duplicates,
    }


def as_text(evaluated: Evaluated) -> str:
    """A table: a line a metric, then a line a class; a second column without the near-duplicates."""
    parts = [each for each in (evaluated.original, evaluated.without) if each]
    of_class = OF_CLASSES.get(evaluated.kind, "AP")
    metrics, classes = parts[0].metrics, parts[0].classes
    lines = [["", "original", "without near-duplicates"][: 1 + len(parts)]]
    lines.append(["pictures", *(f"{each.pictures:,}" for each in parts)])
    lines += [[name, *(_digits(each.metrics[name]) for each in parts)] for name in metrics]
    lines.append([f"{of_class} by class", *[""] * len(parts)])
    lines += [[f"  {shown(name)}", *(_digits(each.classes.get(name)) for each in parts)] for name in classes]
    first, *others = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]).rstrip() for row in lines]
    if evaluated.near_duplicates is not None:
        text.append(f"{evaluated.near_duplicates:,} pictures have a near-duplicate")
    return "\n".join(text)


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"
