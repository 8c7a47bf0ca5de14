"""The objects of a packed data set as evaluators take them.

In: a DataSet with annotations. Out: annotations in COCO's format, whose images have the samples' ids and
whose categories count from 1 (evaluate/kept.py).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.annotations import reader
from hpcscale.annotations.objects import Mask, Rle
from hpcscale.annotations.stated import CROWD, DIFFICULT, IGNORE
from hpcscale.data.store import DataSet


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
                "difficult": int(bool(flags & DIFFICULT)),
            }
            if found.masks[place] is not None:
                row["segmentation"] = _coded(found.masks[place])
            if points.size:
                row["keypoints"] = points.astype(np.float64).ravel().tolist()
                row["num_keypoints"] = int((points[:, 2] > 0).sum())
            rows.append(row)
    categories = [{"id": place + 1, "name": one.name} for place, one in enumerate(table.categories)]
    voc = "voc" in table.sources
    return {"voc": voc, "images": images, "annotations": rows, "categories": categories}


def _coded(mask: Mask) -> Any:
    if isinstance(mask, Rle):
        return {"size": list(mask.size), "counts": mask.counts.tolist()}
    return [polygon.ravel().tolist() for polygon in mask or ()]
