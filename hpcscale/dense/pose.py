"""Poses, one person at a time: the task of training.py for [pose] (Papandreou et al. 2017, "G-RMI"; Sun et
al. 2017, section 5.4).

In: crops of persons in training; in evaluation whole pictures, with the true boxes or a detector's. Out:
losses of heat maps and offsets; key points as COCO's server takes them, in pixels of the original pictures,
a person's score being the mean of the most votes of each point.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hpcscale import tasks
from hpcscale.annotations.stated import CROWD, IGNORE
from hpcscale.data.manifest import AnnotationTable
from hpcscale.data.store import DataSet
from hpcscale.dense import people, pose_network, pose_targets, pose_votes, views
from hpcscale.dense.batches import Seen, Size, Wanted
from hpcscale.dense.pose_targets import Targets
from hpcscale.dense.views import View
from hpcscale.evaluate import oks
from hpcscale.models.preprocessing import Normalized

AT_ONCE = 16  # crops of a picture that the network reads together in an evaluation


def build(
    settings: tasks.Dense, task: tasks.Pose, table: AnnotationTable, evaluated: DataSet | None
) -> tuple[Any, ...]:
    """The fields of a training.Task. Raises ConfigError; ResultsError and OSError of `boxes`."""
    person = people.category(table)
    model = pose_network.build(settings.model, len(table.categories[person].keypoints))
    given = None
    if task.boxes is not None and evaluated is not None:
        given = people.given(task.boxes, person, evaluated.samples, task.nms)
    normalized, values = Normalized(), settings.input.values

    def maps(crops: list[NDArray[np.uint8]], device: torch.device) -> pose_network.Maps:
        pixels = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2)
        found: pose_network.Maps = model(normalized(pixels, values))
        return found

    def losses(seen: list[Seen], device: torch.device) -> Mapping[str, Tensor]:
        found = maps([one.pixels for one in seen], device)
        return pose_network.losses(found, [target(one, task, person) for one in seen], task)

    def find(seen: Seen, device: torch.device) -> list[dict[str, Any]]:
        boxes = true_boxes(seen, person) if given is None else given.get(seen.sample, np.zeros((0, 4)))
        boxes = _within(boxes, seen.original)
        picture, size = Image.fromarray(seen.pixels), seen.view.size
        crops = [pose_targets.crop(box, seen.original, size, task.crop, task.enlargement) for box in boxes]
        poses, scores = np.zeros((len(boxes), model.points, 3)), np.zeros(len(boxes))
        for begin in range(0, len(crops), AT_ONCE):
            some = crops[begin : begin + AT_ONCE]
            found = maps([views.cut(picture, crop) for crop in some], device)
            heat, offsets = found.heatmaps.sigmoid().cpu().numpy(), found.offsets.cpu().numpy()
            for place, crop in enumerate(some):
                row = begin + place
                poses[row], scores[row] = read(heat[place], offsets[place], crop, seen.original, task.radius)
        return records(seen.sample, person, boxes, poses, scores, task.oks)

    def crop(box: NDArray[np.floating], original: Size, stored: Size, draws: NDArray[np.uint32]) -> View:
        share = draws.astype(np.float64) / 2**32  # in [0, 1)
        factor = task.jitter[0] + (task.jitter[1] - task.jitter[0]) * float(share[0])
        mirror = bool(settings.input.mirror and share[1] < 0.5)
        return pose_targets.crop(box, original, stored, task.crop, factor, mirror)

    return model, model.body, Wanted(objects=True, crop=crop), losses, find, "keypoints"


def target(seen: Seen, task: tasks.Pose, person: int) -> Targets:
    """Of the person of a crop, and of the others in it."""
    assert seen.objects is not None
    points = seen.objects.keypoints
    everybody = points[seen.objects.classes == person]  # the person's own disks are not among those of others
    return pose_targets.targets(points[seen.subject], everybody, task.crop, task.radius)


def true_boxes(seen: Seen, person: int) -> NDArray[np.float64]:
    """Boxes of persons, crowds and ignored ones left out, in pixels of the original picture  # (k, 4)"""
    assert seen.objects is not None
    kept = (seen.objects.classes == person) & ((seen.objects.flags & (CROWD | IGNORE)) == 0)
    return views.boxes_back(seen.objects.boxes[kept], seen.view, seen.original)


def _within(boxes: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    """The parts of boxes (k, 4) that are in a picture; those of which none is are left out."""
    cut = boxes.clip(0, np.tile(size[::-1], 2))
    return cut[(cut[:, 2:] > cut[:, :2]).all(axis=1)]


def read(
    heatmaps: NDArray[np.float32], offsets: NDArray[np.float32], crop: View, original: Size, radius: float
) -> tuple[NDArray[np.float64], float]:
    """The pose in the maps of one crop, (k, 3) in pixels of the original picture with visibility 1, and its
    score."""
    points, most = pose_votes.peaks(pose_votes.vote(heatmaps, offsets, radius))
    places = views.points_back(points, crop, original)
    return np.concatenate([places, np.ones((len(places), 1))], axis=1), float(most.mean())


def records(
    sample: int,
    person: int,
    boxes: NDArray[np.float64],
    poses: NDArray[np.float64],
    scores: NDArray[np.float64],
    likeness: float,
) -> list[dict[str, Any]]:
    """For COCO's server, best first, without poses that are too much alike; the area of a pose is that of
    its box. boxes: (n, 4); poses: (n, k, 3); scores: (n,)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = oks.suppress(poses, scores, sides.prod(axis=1), likeness)
    return [
        {
            "image_id": sample,
            "category_id": person + 1,
            "bbox": [*boxes[row, :2].tolist(), *sides[row].tolist()],
            "score": float(scores[row]),
            "keypoints": poses[row].ravel().tolist(),
        }
        for row in kept.tolist()
    ]
