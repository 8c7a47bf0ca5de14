"""The objects of one picture as arrays, and how they lie in a shard.

In: objects that were checked, or columns of a shard. Out: columns, or `Objects`. A sample with k objects has,
of each annotation in the plan, so many values (docs/dense.md has this table too):

    original    <i4  3       height and width of the original picture, upright, in pixels; and 1 if the source
                             of the objects lists the picture, else 0: then nobody has looked for any
    boxes       <f4  4 k     x1, y1, x2, y2 in pixels of the original picture; pixel i reaches from i to i + 1
    objects     <i8  3 k     index in `AnnotationTable.categories`, flags, the source's id
    areas       <f8  k       as the source states them, in square pixels; NaN: not stated
    mask_parts  <i4  2 p     the object that a part is of, and how many values of `masks` it has: n of a
                             polygon; -n of an RLE, of which an object has one at most
    masks       <f8          polygons as x, y, x, y, ...; counts of an RLE that goes down the columns of the
                             original picture and begins with the pixels outside
    keypoints   <f4  3 n k   x, y, visibility of n points, the most that a category has; absent ones are 0
    class_map   u1           a PNG of 8-bit values, as it came; none: the picture has no map
    faults      u1           lines of the annotations' quarantine

Flags are bits: 1 crowd, 2 difficult, 4 truncated, 8 ignore, 16 clipped (the box reached out of the picture).
COCO has areas, mask_parts and masks, and keypoints if a category has some; VOC has none of these; class_map
is there if there are maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import Category, Dtype

BOXES: dict[str, Dtype] = {"boxes": "<f4", "objects": "<i8"}
MASKS: dict[str, Dtype] = {"areas": "<f8", "mask_parts": "<i4", "masks": "<f8"}


class Rle(NamedTuple):
    """A mask in run lengths, down the columns of a picture of `size` (height, width)."""

    counts: NDArray[np.int64]  # pixels outside, inside, outside, ...
    size: tuple[int, int]


Mask = list[NDArray[np.float64]] | Rle | None  # polygons (points, 2) of x and y; None: the object has none


class Objects(NamedTuple):
    """k objects of one picture; all lengths are in its pixels."""

    size: tuple[int, int]  # height and width of the picture
    listed: bool  # whether the source says anything of the picture; if not, it may show any objects
    boxes: NDArray[np.float32]  # (k, 4) x1, y1, x2, y2
    classes: NDArray[np.int64]  # (k,) index in the data set's categories
    flags: NDArray[np.int64]  # (k,)
    ids: NDArray[np.int64]  # (k,) of the source
    areas: NDArray[np.float64]  # (k,) NaN: not stated
    masks: list[Mask]  # k
    keypoints: NDArray[np.float32]  # (k, n, 3) x, y, visibility


def no_objects(size: tuple[int, int], points: int, listed: bool) -> Objects:
    """A picture without objects; points: of a category, at most."""
    whole = np.zeros(0, np.int64)
    boxes, areas = np.zeros((0, 4), np.float32), np.zeros(0, np.float64)
    return Objects(size, listed, boxes, whole, whole, whole, areas, [], np.zeros((0, points, 3), np.float32))


def most_points(categories: Sequence[Category]) -> int:
    """The most key points that a category has."""
    return max((len(category.keypoints) for category in categories), default=0)


def columns_of(sources: Sequence[str], points: int) -> dict[str, Dtype]:
    """`Plan.annotations` for sources of these kinds."""
    columns: dict[str, Dtype] = {"original": "<i4"}
    if "coco" in sources or "voc" in sources:
        columns |= BOXES
    if "coco" in sources:
        columns |= MASKS
        if points:
            columns["keypoints"] = "<f4"
    if "maps" in sources:
        columns["class_map"] = "u1"
    return columns | {"faults": "u1"}


def encode(objects: Objects) -> dict[str, NDArray[Any]]:
    """The columns of a picture's objects, flat, in their dtypes."""
    parts: list[tuple[int, int]] = []
    values: list[NDArray[Any]] = [np.zeros(0)]
    for number, mask in enumerate(objects.masks):
        if isinstance(mask, Rle):
            parts.append((number, -len(mask.counts)))
            values.append(mask.counts)
        else:
            parts += [(number, polygon.size) for polygon in mask or ()]
            values += [polygon.ravel() for polygon in mask or ()]
    table = np.stack([objects.classes, objects.flags, objects.ids], axis=1)
    return {
        "original": np.array([*objects.size, objects.listed], "<i4"),
        "boxes": objects.boxes.astype("<f4").ravel(),
        "objects": table.astype("<i8").ravel(),
        "areas": objects.areas.astype("<f8"),
        "mask_parts": np.array(parts, "<i4").ravel(),
        "masks": np.concatenate(values).astype("<f8"),
        "keypoints": objects.keypoints.astype("<f4").ravel(),
    }


def decode(columns: Mapping[str, NDArray[Any]], points: int) -> Objects:
    """What `encode` was given; columns that the plan lacks are left out."""
    height, width, listed = columns["original"].tolist()
    none = no_objects((height, width), points, bool(listed))
    if "boxes" not in columns:
        return none
    classes, flags, ids = columns["objects"].reshape(-1, 3).T
    k = len(classes)
    masks: list[Mask] = [None] * k
    if "masks" in columns:
        ends = columns["mask_parts"].reshape(-1, 2)
        parts = np.split(columns["masks"], np.cumsum(np.abs(ends[:, 1]))[:-1])
        for (number, count), part in zip(ends.tolist(), parts, strict=False):
            if count < 0:
                masks[number] = Rle(part.astype(np.int64), (height, width))
            else:
                masks[number] = [*(masks[number] or ()), part.reshape(-1, 2)]
    return none._replace(
        boxes=columns["boxes"].reshape(-1, 4),
        classes=classes,
        flags=flags,
        ids=ids,
        areas=columns.get("areas", np.full(k, np.nan)),
        masks=masks,
        keypoints=columns.get("keypoints", np.zeros(0, np.float32)).reshape(k, points, 3),
    )


def scale(objects: Objects, size: tuple[int, int]) -> Objects:
    """The objects in pixels of the same picture at another size (height, width). Areas grow as the picture's
    does. An RLE stays as it is, and has its own size."""
    factors = np.array([size[1] / objects.size[1], size[0] / objects.size[0]])  # of x, y
    keypoints = objects.keypoints.copy()
    keypoints[:, :, :2] = keypoints[:, :, :2] * factors
    return objects._replace(
        size=size,
        boxes=(objects.boxes * np.tile(factors, 2)).astype(np.float32),
        areas=objects.areas * factors.prod(),
        masks=[
            mask if mask is None or isinstance(mask, Rle) else [polygon * factors for polygon in mask]
            for mask in objects.masks
        ],
        keypoints=keypoints,
    )
