"""Slow oracle of hpcscale.ops.nms: one pair of boxes after another, in the boxes' own precision."""

import numpy as np
from numpy.typing import NDArray


def iou(a: NDArray, b: NDArray):
    """Intersection over union of two boxes (left, top, right, bottom), or 0 / 0."""
    zero = a.dtype.type(0)
    width = max(zero, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(zero, min(a[3], b[3]) - max(a[1], b[1]))
    inter = width * height
    area, other = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        return inter / (area + other - inter)


def nms(boxes: NDArray, scores: NDArray, threshold: float) -> list[int]:
    """Places of the boxes that stay, best first  # (n, 4), (n,)"""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):  # stable
        if not any(float(iou(boxes[j], boxes[i])) > threshold for j in kept):
            kept.append(i)
    return kept
