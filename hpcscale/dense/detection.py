"""Boxes, masks and key points: the task of training.py for [detector].

In: pictures with objects, through views. Out: losses of torchvision's detectors; findings as COCO's server
takes them, in pixels of the original pictures.

Crowds and ignored objects are not trained on; difficult ones are.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcscale import tasks
from hpcscale.annotations.masks import pack
from hpcscale.annotations.stated import CROWD, IGNORE
from hpcscale.data.manifest import AnnotationTable
from hpcscale.dense import detectors, views
from hpcscale.dense.batches import Seen, Wanted
from hpcscale.evaluate.kept import Kind

KINDS: dict[str, Kind] = {"mask_rcnn": "masks", "keypoint_rcnn": "keypoints"}  # else boxes
PIXEL = 0.5  # of a mask's probability, from which a pixel is inside
BOXES = ("loss_rpn_box_reg", "loss_box_reg", "bbox_regression")  # losses of boxes, by torchvision's names


def build(settings: tasks.Dense, task: tasks.Detector, table: AnnotationTable) -> tuple[Any, ...]:
    """The fields of a training.Task. Raises ConfigError."""
    model, body = detectors.build(task, settings.model, table.categories, settings.input.values)
    kind = KINDS.get(task.name, "boxes")

    def losses(seen: list[Seen], device: torch.device) -> Mapping[str, Tensor]:
        images = [image(one, device) for one in seen]
        found: Mapping[str, Tensor] = model(images, [target(one, kind, device) for one in seen])
        return {name: loss * task.localisation if name in BOXES else loss for name, loss in found.items()}

    def find(seen: Seen, device: torch.device) -> list[dict[str, Any]]:
        (found,) = model([image(seen, device)])
        return records(seen, {key: value.cpu().float().numpy() for key, value in found.items()}, kind)

    return model, body, Wanted(objects=True, masks=kind == "masks"), losses, find, kind


def image(seen: Seen, device: torch.device) -> Tensor:
    """(3, height, width) float32 from 0 to 1"""
    pixels = torch.from_numpy(seen.pixels.copy()).to(device)
    return pixels.permute(2, 0, 1).float() / 255


def target(seen: Seen, kind: Kind, device: torch.device) -> dict[str, Tensor]:
    """What torchvision's detectors train on: boxes (k, 4) float32, labels (k,) int64 from 1, and masks
    (k, height, width) uint8 or keypoints (k, n, 3) float32."""
    assert seen.objects is not None
    kept = np.flatnonzero((seen.objects.flags & (CROWD | IGNORE)) == 0)
    found: dict[str, NDArray[Any]] = {
        "boxes": seen.objects.boxes[kept],
        "labels": seen.objects.classes[kept] + 1,
    }
    if kind == "masks":
        assert seen.masks is not None
        found["masks"] = seen.masks[kept]
    elif kind == "keypoints":
        found["keypoints"] = seen.objects.keypoints[kept]
    return {key: torch.from_numpy(value).to(device) for key, value in found.items()}


def records(seen: Seen, found: Mapping[str, NDArray[np.float32]], kind: Kind) -> list[dict[str, Any]]:
    """What a detector found in a whole picture, for COCO's server, in pixels of the original picture.

    found: boxes (k, 4), labels (k,), scores (k,), and masks (k, 1, height, width) or keypoints (k, n, 3).
    """
    size, said = seen.original, []
    corners = views.boxes_back(found["boxes"], seen.view, size)
    for row, (left, top, right, bottom) in enumerate(corners.tolist()):
        record: dict[str, Any] = {
            "image_id": seen.sample,
            "category_id": int(found["labels"][row]),
            "bbox": [left, top, right - left, bottom - top],
            "score": float(found["scores"][row]),
        }
        if kind == "masks":
            record["segmentation"] = pack(views.resized(found["masks"][row, 0], size) >= PIXEL)
        elif kind == "keypoints":
            points = found["keypoints"][row].astype(np.float64)
            points[:, :2] = views.points_back(points[:, :2], seen.view, size)
            points[:, 2] = 1
            record["keypoints"] = points.ravel().tolist()
        said.append(record)
    return said
