"""What a model of a dense task found, measured again without a model: any pictures of an evaluation.

In: records of what was found, and the truth. Out: a `Measured`. An evaluation keeps both in its folder
(dense/findings.py writes it):

- `found.json`: records in the format of COCO's server, or of classes of pixels {"image_id", "confusion":
  [[true, predicted, pixels], ...]}.
- `truth.json`: annotations in COCO's format, whose images are the samples of the data set, in order. `voc`
  says whether PASCAL VOC's numbers are wanted too, for which rows have `difficult`. Of classes of pixels
  there is none, since a confusion has its truth in it.
- `metrics.json`: `kind`, and what evaluations.py says.

What is read may have been damaged: FileError names the file.
"""

from collections import defaultdict
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpcscale.evaluate import miou, voc
from hpcscale.evaluate.measured import Measured, ResultsError
from hpcscale.evaluate.metrics import Metrics
from hpcscale.evaluate.voc import Found, Truth
from hpcscale.files import FileError, read_json

Kind = Literal["boxes", "masks", "keypoints", "segmentation"]
KINDS = ("boxes", "masks", "keypoints", "segmentation")
Records = list[dict[str, Any]]
IOU = 0.5  # of VOC's numbers
MOST = 4 << 30  # bytes of a file
FROM_ONE = np.array([1.0, 1, 0, 0])


def measure(
    kind: Kind, truth: dict[str, Any] | None, found: Records, left_out: Set[int] = frozenset()
) -> Measured:
    """The numbers of all samples but those left out. truth: None of a segmentation. Raises ResultsError."""
    if kind == "segmentation":
        return _segmented(found, left_out)
    assert truth is not None
    from hpcscale.evaluate import coco

    measured = coco.evaluate(truth, found, kind, left_out)
    if truth.get("voc"):
        measured.metrics.update(_voc(truth, found, left_out))
    return measured


def is_there(folder: Path) -> bool:
    """Whether a folder is of an evaluation of a dense task."""
    return (folder / "found.json").exists()


def measuring(folder: Path) -> Callable[[NDArray[np.int64]], Metrics]:
    """A function that measures samples (n,) of an evaluation again: `samples`, how many, and metrics. Raises
    FileError and OSError."""
    found = read_json(folder / "found.json", MOST)
    said = read_json(folder / "metrics.json")
    kind = said.get("kind") if isinstance(said, dict) else said
    if kind not in KINDS:
        raise FileError(f"{folder / 'metrics.json'}: 'kind': found {kind!r:.80}; allowed: {', '.join(KINDS)}")
    truth = None if kind == "segmentation" else read_json(folder / "truth.json", MOST)

    def measured(samples: NDArray[np.int64]) -> Metrics:
        kept = set(samples.tolist())
        try:
            everything = {int(row["image_id"]) for row in (found if truth is None else [])}
            everything |= {int(image["id"]) for image in (truth["images"] if truth else [])}
            of_kept = measure(kind, truth, found, everything - kept)
        except ResultsError as error:
            raise FileError(f"{folder}: {error}") from None
        except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            raise FileError(f"{folder}: truth.json or found.json was damaged: {error!r:.200}") from None
        return {"samples": of_kept.pictures} | of_kept.metrics

    return measured


def voc_classes(folder: Path) -> dict[str, float | None]:
    """The average precision of each class as in PASCAL VOC, the area under the curve at an overlap of .5, of
    all pictures of an evaluation; empty where its objects are not VOC's. Raises FileError and OSError."""
    if not (folder / "truth.json").exists():
        return {}
    truth, found = (read_json(folder / name, MOST) for name in ("truth.json", "found.json"))
    try:
        return voc.evaluate(*_in_corners(truth, found), IOU).classes if truth.get("voc") else {}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FileError(f"{folder}: truth.json or found.json was damaged: {error!r:.200}") from None


def _segmented(found: Records, left_out: Set[int]) -> Measured:
    matrix = np.zeros((miou.CLASSES, miou.CLASSES), np.int64)
    kept = [record for record in found if record["image_id"] not in left_out]
    for record in kept:
        true, predicted, count = np.array(record["confusion"], np.int64).reshape(-1, 3).T
        np.add.at(matrix, (true, predicted), count)
    return miou.measure(matrix, len(kept))


def _voc(truth: dict[str, Any], found: Records, left_out: Set[int]) -> dict[str, float | None]:
    """`mAP`, the area under the curve, and `mAP11`."""
    true, detected = _in_corners(truth, found)
    out = set(map(str, left_out))
    whole, eleven = (voc.evaluate(true, detected, IOU, points, out) for points in ("all", "11"))
    return {"mAP": whole.metrics["mAP"], "mAP11": eleven.metrics["mAP"]}


def _in_corners(
    truth: dict[str, Any], found: Records
) -> tuple[dict[str, dict[str, Truth]], dict[str, Found]]:
    """Truth by picture and class, what was found by class. VOC counts pixels from 1 and its last one is
    inside, so a left of x is its xmin of x + 1."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    objects: dict[str, dict[str, list[dict[str, Any]]]] = {str(image["id"]): {} for image in truth["images"]}
    for row in truth["annotations"]:
        objects[str(row["image_id"])].setdefault(names[row["category_id"]], []).append(row)
    true = {
        picture: {
            name: Truth(_corners(rows), np.array([bool(row["difficult"]) for row in rows]))
            for name, rows in by_class.items()
        }
        for picture, by_class in objects.items()
    }
    by_class = defaultdict(list)
    for record in found:
        by_class[names[record["category_id"]]].append(record)
    detected = {
        name: Found(
            [str(row["image_id"]) for row in rows],
            _corners(rows),
            np.array([row["score"] for row in rows], np.float64),
        )
        for name, rows in by_class.items()
    }
    return true, detected


def _corners(rows: Records) -> NDArray[np.float64]:
    """Boxes x, y, width, height of rows as VOC's xmin, ymin, xmax, ymax  # (n, 4)"""
    boxes = np.array([row["bbox"] for row in rows], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    boxes += FROM_ONE
    return boxes
