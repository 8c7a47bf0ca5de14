"""Whose poses are trained on, and whose are evaluated.

In: a data set with key points, [pose], the boxes of a detector. Out: persons, as samples and objects of
theirs; boxes by sample.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.annotations import reader
from hpcscale.annotations.stated import CROWD, IGNORE
from hpcscale.config import ConfigError
from hpcscale.data.manifest import AnnotationTable
from hpcscale.data.store import DataSet
from hpcscale.dense import pose_targets
from hpcscale.evaluate import detections
from hpcscale.evaluate.oks import SIGMAS
from hpcscale.tasks import Pose

LEAST = 2.0  # pixels of a crop; a person whose box is thinner is not trained on


def category(table: AnnotationTable) -> int:
    """The index of the category that has key points. Raises ConfigError where it is not one, or has not the
    17 of COCO's persons, for whom alone likeness is defined."""
    found = [place for place, one in enumerate(table.categories) if one.keypoints]
    numbers = [len(table.categories[place].keypoints) for place in found]
    if numbers != [len(SIGMAS)]:
        raise ConfigError(
            f"data.train: has classes with {numbers or 'no'} key points; a pose needs one class with "
            f"{len(SIGMAS)}"
        )
    return found[0]


def trained_on(data: DataSet, task: Pose) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples, rising, and which of their objects  # two (n,)

    All persons with a visible key point, but crowds and ignored ones. Raises ConfigError and DataError.
    """
    everything = np.arange(data.samples, dtype=np.int64)
    person, (offsets, values) = category(reader.table_of(data)), data.annotations("objects", everything)
    classes, flags, _ = values.reshape(-1, 3).T
    count = np.diff(offsets) // 3
    samples = np.repeat(everything, count)
    objects = np.arange(len(samples)) - np.repeat(np.cumsum(count) - count, count)
    boxes = data.annotations("boxes", everything)[1].reshape(-1, 4).astype(np.float64)
    points = data.annotations("keypoints", everything)[1].reshape(len(samples), -1, 3)
    heights = pose_targets.heights(boxes, task.crop) * task.jitter[1]
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf)
    kept = (classes == person) & ((flags & (CROWD | IGNORE)) == 0) & (points[:, :, 2] > 0).any(axis=1)
    kept &= sides * task.crop[0] >= LEAST * heights
    return samples[kept], objects[kept]


def given(file: Path, person: int, samples: int, overlap: float) -> dict[int, NDArray[np.float64]]:
    """The boxes x1, y1, x2, y2 of persons (k, 4) by sample, best first, after suppression, from records of
    boxes in the format of COCO's server, in pixels of the original pictures. Raises ResultsError and OSError.

    samples: how many the data set has, whose ids the records name.
    """
    records = detections.read(file, "boxes")
    ids = detections.known(records, "image_id", dict.fromkeys(range(samples)))
    boxes, scores = detections.boxes(records), records.columns["score"]
    boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    mine = np.array(records.columns["category_id"], np.int64) == person + 1
    found = {}
    for sample in np.unique(ids[mine]).tolist():
        rows = np.flatnonzero(mine & (ids == sample))
        kept = ops.nms(np.ascontiguousarray(boxes[rows]), scores[rows], overlap)
        found[sample] = boxes[rows[kept]]
    return found
