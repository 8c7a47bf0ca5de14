"""The objects of a packed data set as evaluators take them.

In: a DataSet with annotations. Out: annotations in COCO's format, whose images have the samples' ids and
whose categories count from 1; PASCAL VOC's numbers of records in the format of COCO's server.
"""

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.annotations import reader
from hpcscale.annotations.objects import Mask, Rle
from hpcscale.annotations.stated import CROWD, DIFFICULT, IGNORE
from hpcscale.data.store import DataSet
from hpcscale.evaluate import voc
from hpcscale.evaluate.voc import Found, Truth

FROM_ONE = np.array([1.0, 1, 0, 0])


def of_data(data: DataSet, samples: NDArray[np.int64]) -> dict[str, Any]:
    """Annotations in COCO's format, in pixels of the original pictures. An area that was not stated is that
    of the box."""
    table, names = reader.table_of(data), data.names(samples)
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for sample, name, found in zip(
        samples.tolist(), names, reader.objects(data, samples, original=True), strict=True
    ):
        height, width = found.size
        images.append({"id": sample, "file_name": name, "height": height, "width": width})
        for place, (left, top, right, bottom) in enumerate(found.boxes.astype(np.float64).tolist()):
            flags, area = int(found.flags[place]), float(found.areas[place])
            size = (right - left) * (bottom - top)
            points = found.keypoints[place]
            row = {
                "id": len(rows) + 1,
                "image_id": sample,
                "category_id": int(found.classes[place]) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": size if np.isnan(area) else area,
                "iscrowd": int(bool(flags & CROWD)),
                "ignore": int(bool(flags & IGNORE)),
            }
            if found.masks[place] is not None:
                row["segmentation"] = _coded(found.masks[place])
            if points.size:
                row["keypoints"] = points.astype(np.float64).ravel().tolist()
                row["num_keypoints"] = int((points[:, 2] > 0).sum())
            rows.append(row)
    categories = [{"id": place + 1, "name": one.name} for place, one in enumerate(table.categories)]
    return {"images": images, "annotations": rows, "categories": categories}


def _coded(mask: Mask) -> Any:
    if isinstance(mask, Rle):
        return {"size": list(mask.size), "counts": mask.counts.tolist()}
    return [polygon.ravel().tolist() for polygon in mask or ()]


def voc_metrics(
    data: DataSet, samples: NDArray[np.int64], found: list[dict[str, Any]], iou: float
) -> dict[str, float | None]:
    """`mAP`, the area under the curve, and `mAP11`, of records in the format of COCO's server. VOC counts
    pixels from 1 and its last one is inside, so a left of x is its xmin of x + 1."""
    categories = [category.name for category in reader.table_of(data).categories]
    truth: dict[str, dict[str, Truth]] = {}
    for sample, objects in zip(samples.tolist(), reader.objects(data, samples, original=True), strict=True):
        difficult = (objects.flags & DIFFICULT) != 0
        truth[str(sample)] = {
            categories[each]: Truth(
                objects.boxes[rows := objects.classes == each] + FROM_ONE, difficult[rows]
            )
            for each in np.unique(objects.classes).tolist()
        }
    by_class = defaultdict(list)
    for record in found:
        left, top, width, height = record["bbox"]
        box = (left + 1, top + 1, left + width, top + height)
        row = str(record["image_id"]), box, record["score"]
        by_class[categories[record["category_id"] - 1]].append(row)
    detected = {}
    for name, rows in by_class.items():
        pictures, boxes, scores = zip(*rows, strict=True)
        detected[name] = Found(pictures, np.array(boxes), np.array(scores))
    whole, eleven = (voc.evaluate(truth, detected, iou, points) for points in ("all", "11"))
    return {"mAP": whole.metrics["mAP"], "mAP11": eleven.metrics["mAP"]}
