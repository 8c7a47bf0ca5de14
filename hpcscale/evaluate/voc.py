"""Average precision as in PASCAL VOC, in NumPy.

In: true boxes by picture with `difficult`, detected boxes with scores. Out: the average precision of each
class and their mean. As in the development kit of VOC (Everingham et al. 2010, 2015, section 4.2):

- Boxes are xmin, ymin, xmax, ymax in pixels, and the last pixel is inside: a width is xmax - xmin + 1.
- The detections of a class go by falling score over all pictures, equal ones in the order in which they are
  given. Each is compared with the true box of its class and picture of largest intersection over union, of
  equal ones the first. From the threshold on it is right if that box is still free, and wrong if it is taken.
- A detection of a `difficult` box is neither right nor wrong, and such a box need not be found.
- "all": the area under precision by recall, made monotonic (VOC 2010 and later). "11": the mean of the best
  precision at a recall of at least 0, 0.1, ..., 1 (VOC 2007). These are float64 of tenths multiplied up, as
  in public evaluators: 0.3, 0.6 and 0.7 are a bit more than the decimals, and a recall of 9/15 is below 0.6.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.evaluate.measured import Measured

Points = Literal["11", "all"]


class Truth(NamedTuple):
    """The objects of one class in one picture."""

    boxes: NDArray[np.float64]  # (n, 4)
    difficult: NDArray[np.bool_]  # (n,)


class Found(NamedTuple):
    """The detections of one class in all pictures."""

    pictures: Sequence[str]  # n
    boxes: NDArray[np.float64]  # (n, 4)
    scores: NDArray[np.float64]  # (n,) finite


def evaluate(
    truth: Mapping[str, Mapping[str, Truth]],
    found: Mapping[str, Found],
    iou: float = 0.5,
    points: Points = "all",
    left_out: Set[str] = frozenset(),
) -> Measured:
    """truth: picture -> class -> its objects, with all pictures. found: class -> detections in these.
    iou: threshold, inclusive. left_out: pictures. A class that no kept picture has but as difficult is None,
    and not in the mean.
    """
    kept = {picture: classes for picture, classes in truth.items() if picture not in left_out}
    names = sorted({name for classes in truth.values() for name in classes} | found.keys())
    classes: dict[str, float | None] = {}
    for name in names:
        objects = {picture: of[name] for picture, of in kept.items() if name in of}
        positives = sum(int((~each.difficult).sum()) for each in objects.values())
        detected = found.get(name, Found([], np.zeros((0, 4)), np.zeros(0)))
        right = judge(objects, detected, iou, left_out) if positives else None
        classes[name] = None if right is None else average_precision(right, positives, points)
    defined = [value for value in classes.values() if value is not None]
    return Measured(len(kept), {"mAP": float(np.mean(defined)) if defined else None}, classes)


def judge(
    objects: Mapping[str, Truth], found: Found, iou: float, left_out: Set[str] = frozenset()
) -> NDArray[np.bool_]:
    """(m,) whether each detection is right, by falling score, without those that are neither."""
    free = {picture: np.ones(len(each.boxes), np.bool_) for picture, each in objects.items()}
    right = []
    for place in np.argsort(-found.scores, kind="stable"):
        picture = found.pictures[place]
        if picture in left_out:
            continue
        each = objects.get(picture)
        overlaps = overlap(found.boxes[place], each.boxes) if each is not None else np.zeros(0)
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if each is None or best < 0 or overlaps[best] < iou:
            right.append(False)
        elif not each.difficult[best]:
            right.append(bool(free[picture][best]))
            free[picture][best] = False
    return np.array(right, np.bool_)


def overlap(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of a box (4,) and others (n, 4), in whole pixels -> (n,)"""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    both = np.prod(np.maximum(high - low + 1, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1)
    union = np.prod(box[2:] - box[:2] + 1) + areas - both
    found: NDArray[np.float64] = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return found


def average_precision(right: NDArray[np.bool_], positives: int, points: Points = "all") -> float:
    """Of detections by falling score (m,) and the number of objects that are not difficult, at least 1."""
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a larger one
    if points == "all":
        return float(best[right].sum() / positives)  # each hit adds 1 / positives to recall
    firsts = np.searchsorted(hits / positives, np.linspace(0, 1, 11))
    return float(np.append(best, 0.0)[firsts].sum() / 11)
