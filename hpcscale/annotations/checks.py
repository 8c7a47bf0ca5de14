"""Is what a file states of an object usable? One object at a time; what is not goes to the quarantine.

In: `StatedPicture` and the size of the picture, as it is. Out: `Objects`, and lines of the quarantine. Rules,
for objects; the picture stays:

- The class must be one of the table, the id a whole number, and every number finite.
- A box must have a width and a height above 0, as it is stated and after it was clipped to the picture. VOC's
  pixels are counted from 1 and both ends belong to the box: xmin, ymin, xmax, ymax become xmin - 1, ymin - 1,
  xmax, ymax, as in the VOC toolkit, whose widths are xmax - xmin + 1.
- A polygon has at least three points. An RLE has the size of the picture, and its counts fill it.
- Key points are as many as the class has, or not stated at all.
- Where the file states another size of the picture, none of its objects is used, and the picture counts as
  not listed: the annotations are of another picture, or of one that was turned.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.annotations.masks import counts_of
from hpcscale.annotations.objects import Mask, Objects, Rle, no_objects
from hpcscale.annotations.stated import CLIPPED, Stated, StatedObject, line, shown
from hpcscale.data.manifest import Category

NOT_FINITE = "a number is not finite"
OTHER_SIZE = "the picture has another size than its annotations state"


class Fault(Exception):
    """Why an object cannot be used, and what was found."""

    def __init__(self, reason: str, found: Any) -> None:
        super().__init__(reason)
        self.reason, self.found = reason, found


class _Checked(NamedTuple):
    box: NDArray[np.float32]  # (4,)
    category: int
    flags: int
    id: int
    area: float
    mask: Mask
    keypoints: NDArray[np.float32]  # (n, 3)


def check(
    stated: Stated, name: str, size: tuple[int, int], points: int
) -> tuple[Objects, list[dict[str, Any]]]:
    """The usable objects of the picture that the source calls `name`, and a line for each other one.

    size: height and width of the picture, upright; points: the most key points that a category has.
    """
    picture, faults, good = stated.pictures[name], [], []
    if picture.size is not None and picture.size != size:
        found = f"{shown(picture.size)}, the picture has {size}"
        faults = [line(name, stated.source, one.id, OTHER_SIZE, found=found) for one in picture.objects]
        faults = faults or [line(name, stated.source, None, OTHER_SIZE, found=found)]
        return no_objects(size, points, listed=False), faults
    for one in picture.objects:
        try:
            good.append(_checked(one, stated, size, points))
        except Fault as fault:
            faults.append(line(name, stated.source, one.id, fault.reason, found=shown(fault.found)))
    if not good:
        return no_objects(size, points, listed=True), faults
    boxes, categories, flags, ids, areas, masks, keypoints = zip(*good, strict=True)
    numbers = np.array([categories, flags, ids], np.int64)
    others = np.array(areas, np.float64), list(masks), np.stack(keypoints)
    objects = Objects(size, True, np.stack(boxes), numbers[0], numbers[1], numbers[2], *others)
    return objects, faults


def _checked(one: StatedObject, stated: Stated, size: tuple[int, int], points: int) -> _Checked:
    if type(one.id) is not int or not -(1 << 63) <= one.id < 1 << 63:
        raise Fault("the id is not a whole number", one.id)
    category = stated.numbers.get(one.category) if type(one.category) in (int, str) else None
    if category is None:
        raise Fault("unknown class", one.category)
    box, clipped = _box(one.box, size, stated.kind == "voc")
    area = np.nan if one.area is None else float(_numbers([one.area], "the area is not a number")[0])
    keypoints = np.zeros((points, 3), np.float32)
    if one.keypoints is not None:
        found = _keypoints(one.keypoints, stated.categories[category])
        keypoints[: len(found)] = found
    return _Checked(
        box, category, one.flags | CLIPPED * clipped, one.id, area, _mask(one.mask, size), keypoints
    )


def _numbers(values: Any, otherwise: str, found: Any = None) -> NDArray[np.float64]:
    """A list of finite numbers as an array. Raises Fault."""
    found = values if found is None else found
    if not isinstance(values, list) or not {int, float}.issuperset(map(type, values)):
        raise Fault(otherwise, found)
    try:
        array = np.array(values, np.float64)
    except OverflowError:  # a whole number of hundreds of digits
        raise Fault(NOT_FINITE, found) from None
    if not np.isfinite(array).all():
        raise Fault(NOT_FINITE, found)
    return array


def _box(stated: Any, size: tuple[int, int], voc: bool) -> tuple[NDArray[np.float32], bool]:
    """x1, y1, x2, y2, and whether they were clipped. Raises Fault."""
    numbers = _numbers(stated, "the box is not four numbers")
    if len(numbers) != 4:
        raise Fault("the box is not four numbers", stated)
    first, second = numbers[:2], numbers[2:]
    extent = second - first if voc else second
    if (extent <= 0).any():
        raise Fault("the box has no width or no height", stated)
    corners = np.concatenate([first - voc, second if voc else first + second]).astype(np.float32)
    height, width = size
    box = np.clip(corners, 0, np.array([width, height, width, height], np.float32))
    if (box[2:] <= box[:2]).any():
        raise Fault("the box lies outside the picture", stated)
    return box, bool((box != corners).any())


def _mask(stated: Any, size: tuple[int, int]) -> Mask:
    if stated is None or stated == []:
        return None
    if isinstance(stated, dict):
        if stated.get("size") != list(size):
            raise Fault("the RLE has another size than the picture", stated.get("size"))
        counts = stated.get("counts")
        try:
            return Rle(counts_of(counts, size), size)
        except ValueError as error:
            raise Fault(f"the RLE is damaged: {error}", counts) from None
    if not isinstance(stated, list):
        raise Fault("the mask is neither polygons nor an RLE", stated)
    polygons = [_numbers(polygon, "a polygon is not a list of numbers") for polygon in stated]
    for polygon, numbers in zip(stated, polygons, strict=True):
        if len(numbers) < 6:
            raise Fault("a polygon has fewer than three points", polygon)
        if len(numbers) % 2:
            raise Fault("a polygon has an odd number of coordinates", polygon)
    return [polygon.reshape(-1, 2) for polygon in polygons]


def _keypoints(stated: Any, category: Category) -> NDArray[np.float64]:
    numbers = _numbers(stated, "key points are not a list of numbers")
    wanted = len(category.keypoints)
    if len(numbers) != 3 * wanted:
        found = f"{len(numbers)} numbers, {category.name!r} has {wanted} points of three"
        raise Fault("another number of key points", found)
    return numbers.reshape(-1, 3)
