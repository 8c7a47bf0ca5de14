"""COCO's average precision and recall of boxes, masks and key points, computed by hotcoco.

In: annotations in COCO's format, a file or its value, and results in the format of its server
(detections.py). Out: the numbers of COCO's summary, with its names and in its order, and the average
precision of each class. This is the only file that knows hotcoco, and hotcoco sees only what was checked.

All pictures of the annotations count, also those without a result: there, nothing was found.
"""

import contextlib
import io
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from hpcscale.evaluate import detections
from hpcscale.evaluate.detections import Records, Size
from hpcscale.evaluate.measured import Measured, ResultsError
from hpcscale.files import Usage

try:
    import hotcoco
except ModuleNotFoundError as error:
    raise Usage(f"{error}: COCO's numbers need it: pip install 'hpcscale[dense]'") from None

Kind = Literal["boxes", "masks", "keypoints"]
TYPES = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}
BOXES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
NAMES: dict[str, tuple[str, ...]] = {
    "boxes": BOXES,
    "masks": BOXES,
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"),
}
ORPHANS = {"orphan_image_id", "orphan_category_id"}  # as hotcoco calls what is of no image, or no category
BELOW = 1 << 53  # ids: above, float64 has not every whole number
CHUNK = 2000  # annotations that are looked at together, so that all of them never are in memory as objects


class Opened(NamedTuple):
    """Annotations and results of one kind, checked and indexed."""

    truth: Any  # hotcoco.COCO
    found: Any
    kind: Kind
    classes: list[str]


def evaluate(
    annotations: Path | Mapping[str, Any],
    results: Path | list[dict[str, Any]],
    kind: Kind,
    left_out: Set[int] = frozenset(),
) -> Measured:
    """The numbers of all pictures but those whose ids are left out. Raises ResultsError and OSError."""
    return measure(read(annotations, results, kind), left_out)


def read(annotations: Path | Mapping[str, Any], results: Path | list[dict[str, Any]], kind: Kind) -> Opened:
    """Annotations and results, checked. The area of a detection is that of its mask for masks, even where it
    has a box too, and that around its key points for key points. Raises ResultsError and OSError."""
    where = str(annotations) if isinstance(annotations, Path) else "annotations"
    try:
        truth = hotcoco.COCO(where if isinstance(annotations, Path) else dict(annotations))
    except (ValueError, TypeError, KeyError) as error:
        raise ResultsError(f"{where}: no annotations in COCO's format: {error}") from None
    images = truth.imgs
    _check_truth(truth, images, kind, where)
    found = truth.load_res(_checked(detections.read(results, kind), images, truth.cats, kind))
    classes = [str(truth.cats[id]["name"]) for id in sorted(truth.cats)]
    return Opened(truth, found, kind, classes)


def names(opened: Opened) -> dict[str, int]:
    """File name, or the id as text, -> id of each picture; a name goes before an id."""
    images = opened.truth.imgs
    return {str(id): id for id in images} | {str(of.get("file_name", id)): id for id, of in images.items()}


def measure(opened: Opened, left_out: Set[int] = frozenset()) -> Measured:
    """The numbers of all pictures but those whose ids are left out. A number for which the truth has nothing
    (COCO prints -1), such as the average precision of large objects where none is large, is None."""
    kept = sorted(set(opened.truth.get_img_ids()) - left_out)
    if not kept:  # to hotcoco, an empty list means all
        return Measured(0, dict.fromkeys(NAMES[opened.kind]), dict.fromkeys(opened.classes))
    run = hotcoco.COCOeval(opened.truth, opened.found, TYPES[opened.kind])
    run.params.img_ids = kept
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its summary
        run.run()
    by_class = run.results(per_class=True)["per_class"]
    return Measured(
        len(kept),
        dict(zip(NAMES[opened.kind], map(_defined, run.stats), strict=True)),
        {name: _defined(by_class.get(name, -1)) for name in opened.classes},
    )


def _defined(value: float) -> float | None:
    return None if value == -1 else float(value)


def _checked(records: Records, images: Mapping[int, Any], classes: Mapping[int, Any], kind: Kind) -> Any:
    """Checked results as hotcoco takes them: (n, 7) float64 of boxes, else a list of records."""
    ids = detections.known(records, "image_id", images)
    owners = detections.known(records, "category_id", classes)
    scores = records.columns["score"]
    if kind == "boxes":
        return np.column_stack([ids, detections.boxes(records), scores, owners])
    key = "keypoints" if kind == "keypoints" else "segmentation"
    if kind == "keypoints":
        values = records.columns["keypoints"].tolist()
    else:
        sizes = [_size(images[id], "annotations") for id in ids.tolist()]
        values = detections.masks(records, sizes)
    rows = zip(ids.tolist(), owners.tolist(), scores.tolist(), values, strict=True)
    return [{"image_id": i, "category_id": c, "score": s, key: value} for i, c, s, value in rows]


def _size(image: Mapping[str, Any], where: str) -> Size:
    height, width = image.get("height"), image.get("width")
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        found = f"found height {height} and width {width}"
        raise ResultsError(f"{where}: image {image['id']}: {found}; masks need both, above 0")
    return height, width


def _check_truth(truth: Any, images: Mapping[int, Any], kind: Kind, where: str) -> None:
    """Raise ResultsError for annotations that hotcoco would count otherwise than they are meant."""
    for warning in truth.load_warnings:
        raise ResultsError(f"{where}: {warning}")
    for ids, of in ((images, "images"), (truth.cats, "categories")):
        if not ids or max(ids) >= BELOW:
            found = f"id {max(ids)}" if ids else "none"
            raise ResultsError(f"{where}: '{of}': found {found}; allowed: at least one, with ids below 2^53")
    names = [each["name"] for each in truth.cats.values()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ResultsError(f"{where}: 'categories': {min(twice)!r:.80} is the name of two")
    # Without a word, hotcoco passes over these objects, or takes them for ones of no size.
    columns: dict[str, tuple[dict[str, Any], str]] = {
        "image_id": ({"img_ids": list(images)}, "an id of 'images'"),
        "category_id": ({"cat_ids": list(truth.cats)}, "an id of 'categories'"),
        "area": ({"area_rng": [0, float("inf")]}, "a number, at least 0"),
    }
    health = truth.healthcheck()
    faults = {each["code"]: each["affected_ids"] for each in health["errors"] + health["warnings"]}
    total = truth.stats()["annotation_count"]
    fine = not ORPHANS & faults.keys() and len(truth.get_ann_ids(**columns["area"][0])) == total
    for key, (right, allowed) in columns.items():
        if not fine and len(truth.get_ann_ids(**right)) < total:
            id = min(set(truth.get_ann_ids()) - set(truth.get_ann_ids(**right)))
            found = truth.load_anns(id)[0].get(key)
            raise ResultsError(f"{where}, annotation {id}: '{key}': found {found}; allowed: {allowed}")
    if kind == "boxes":
        _check_boxes(truth, faults, where)
    else:
        _check_objects(truth, images, kind, where)


def _check_boxes(truth: Any, faults: Mapping[str, list[int]], where: str) -> None:
    """Raise ResultsError for a true box that is not there, or of negative size, which is never found. One of
    size 0 is no error: COCO has some."""
    for row in truth.load_anns(faults.get("missing_geometry", []) + faults.get("degenerate_bbox", [])):
        box = row.get("bbox")
        if not box or min(box[2:]) < 0:
            wrong = f"'bbox': found {box}; allowed: [x, y, width, height], no size below 0"
            raise ResultsError(f"{where}, annotation {row['id']}: {wrong}")


def _check_objects(truth: Any, images: Mapping[int, Any], kind: Kind, where: str) -> None:
    """Raise ResultsError for a true mask, or true key points, that hotcoco would take for nothing."""
    ids, numbers = truth.get_ann_ids(), 3 * detections.POINTS
    for begin in range(0, len(ids), CHUNK):
        rows = truth.load_anns(ids[begin : begin + CHUNK])
        for row in rows:
            if kind == "keypoints" and len(row.get("keypoints") or ()) != numbers:
                found = len(row.get("keypoints") or ())
                wrong = f"'keypoints': found {found} numbers; allowed: {numbers}"
                raise ResultsError(f"{where}, annotation {row['id']}: {wrong}")
        if kind == "masks":
            column = {"segmentation": [row.get("segmentation") for row in rows]}
            records = Records(column, where, kind, begin)
            detections.masks(records, [_size(images[row["image_id"]], where) for row in rows])
