"""The geometry of poses: what the network sees of a person, and what its maps are trained towards.

In: boxes and key points. Out: the `View` of a crop, through which pictures and points go and come back as
through any other (views.py); distances to key points, disks around them, and whose places do not count.
Papandreou et al. 2017 ("G-RMI"), sections 3.2.1 and 3.2.2.

x and y are in pixels; pixel i reaches from i to i + 1, so that its centre is i + 0.5.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.dense.views import View

LEAST = 1.0  # height of a box in the original picture, pixels


class Targets(NamedTuple):
    """What the maps of one crop (h, w) are trained towards; of k key points."""

    y: NDArray[np.float32]  # (k, h) from the centres of each row to the key point
    x: NDArray[np.float32]  # (k, w) from the centres of each column
    disks: NDArray[np.bool_]  # (k, h, w) the places within the radius; none if the key point is not visible
    others: NDArray[np.bool_]  # (k, h, w) those within it of the same point of others, and not in `disks`


def heights(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes (k, 4), x1 y1 x2 y2 -> heights of the least boxes of the shape of `size` around them  # (k,)"""
    widths, tall = (boxes[:, 2 + axis] - boxes[:, axis] for axis in (0, 1))
    return np.maximum(np.maximum(tall, widths * size[0] / size[1]), LEAST)


def crop(
    box: NDArray[np.floating],
    original: tuple[int, int],
    stored: tuple[int, int],
    size: tuple[int, int],
    factor: float,
    mirror: bool = False,
) -> View:
    """A box (4,) of the original picture, extended around its centre to the shape of `size` (height, width)
    and enlarged by `factor`, at that size. It may reach out of the picture. Rounded to whole pixels of the
    crop. original, stored: height and width of the picture, which may be squeezed where it is stored."""
    exact = box.astype(np.float64)
    scale = size[0] / (float(heights(exact[None], size)[0]) * factor)
    scaled = [max(1, round(side * scale)) for side in original]
    centre = [(exact[axis] + exact[axis + 2]) / 2 * scaled[1 - axis] / original[1 - axis] for axis in (1, 0)]
    corner = [round(float(middle) - side / 2) for middle, side in zip(centre, size, strict=True)]
    return View(stored, (scaled[0], scaled[1]), (corner[0], corner[1]), size, mirror)


def targets(
    points: NDArray[np.float32], others: Iterable[NDArray[np.float32]], size: tuple[int, int], radius: float
) -> Targets:
    """points: (k, 3) x, y, visibility of the person; others: the same of everybody else in the crop, or of
    everybody."""
    y, x = _away(points, size)
    own, theirs = np.zeros((len(points), *size), np.bool_), np.zeros((len(points), *size), np.bool_)
    _add_disks(own, points, radius)
    for one in others:
        _add_disks(theirs, one, radius)
    return Targets(y, x, own, theirs & ~own)


def _away(points: NDArray[np.float32], size: tuple[int, int]) -> tuple[NDArray[np.float32], ...]:
    centres = (np.arange(side, dtype=np.float32) + 0.5 for side in size)
    return tuple(points[:, 1 - axis, None] - each for axis, each in enumerate(centres))


def _add_disks(maps: NDArray[np.bool_], points: NDArray[np.float32], radius: float) -> None:
    visible = np.flatnonzero(points[:, 2] > 0)
    y, x = _away(points[visible], maps.shape[1:])
    maps[visible] |= (y * y)[:, :, None] + (x * x)[:, None, :] <= radius * radius
