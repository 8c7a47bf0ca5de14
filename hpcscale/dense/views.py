"""How a stored picture and what is on it come to a model of a dense task, together.

In: a picture's size, [input], draws. Out: a `View`, which is plain geometry: a window of the stored picture,
the size that the window is resized to, and whether it is mirrored. Pictures, points, boxes, objects and class
maps go through the same one; boxes come back through it.

Lengths are in pixels, x before y for points, height before width for sizes; pixel i reaches from i to i + 1,
so that mirrored x is width - x.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpcscale import tasks
from hpcscale.annotations.masks import draw_masks, resize_nearest
from hpcscale.annotations.objects import Objects, scale
from hpcscale.data.manifest import Category

DRAWS = 4  # numbers of 32 bits of a view: scale, mirror, window from the top, window from the left
OUTSIDE = 128  # value of a pixel that is not in the picture
LEAST = 1.0  # side of a box that is still an object after it was cut, pixels


class View(NamedTuple):
    """What the model sees of a stored picture of `stored` (height, width)."""

    stored: tuple[int, int]
    scaled: tuple[int, int]  # height and width of the whole picture at the model's scale
    corner: tuple[int, int]  # y and x of the window there; of a crop, it may reach out of the picture
    size: tuple[int, int]  # height and width of the window: what the model gets
    mirror: bool


def training_view(stored: tuple[int, int], input: tasks.View, draws: NDArray[np.uint32]) -> View:
    """As [input] says, by `draws` (DRAWS,) uint32, a pure function of sample and epoch."""
    share = draws.astype(np.float64) / 2**32  # in [0, 1)
    low, high = input.jitter
    scaled = _scaled(stored, input, low + (high - low) * float(share[0]))
    height, width = (min(side, input.window or side) for side in scaled)
    top = int(share[2] * (scaled[0] - height + 1))
    left = int(share[3] * (scaled[1] - width + 1))
    return View(stored, scaled, (top, left), (height, width), bool(input.mirror and share[1] < 0.5))


def whole_view(stored: tuple[int, int], input: tasks.View) -> View:
    """Of an evaluation: all of the picture, not jittered, not mirrored."""
    if input.square and input.judged == "aspect":
        scaled = _times(stored, input.square / max(stored))
    else:
        scaled = _scaled(stored, input, 1.0)
    return View(stored, scaled, (0, 0), scaled, False)


def _scaled(stored: tuple[int, int], input: tasks.View, jitter: float) -> tuple[int, int]:
    if input.square:
        return input.square, input.square
    return _times(stored, min(input.shorter / min(stored), input.longer / max(stored)) * jitter)


def _times(stored: tuple[int, int], factor: float) -> tuple[int, int]:
    height, width = (max(1, round(side * factor)) for side in stored)
    return height, width


def picture(jpeg: bytes, view: View) -> NDArray[np.uint8]:
    """The pixels of a JPEG, resized as Pillow's bilinear filter does  # (height, width, 3) RGB"""
    with Image.open(io.BytesIO(jpeg)) as stored:
        return cut(stored.convert("RGB"), view)


def cut(whole: Image.Image, view: View) -> NDArray[np.uint8]:
    """The same of a picture that is decoded, RGB. Grey is what lies outside it."""
    y, x = (view.stored[axis] / view.scaled[axis] for axis in (0, 1))
    (top, left), (height, width) = view.corner, view.size
    first, last = max(0, top), min(view.scaled[0], top + height)
    begin, end = max(0, left), min(view.scaled[1], left + width)
    window = (begin * x, first * y, end * x, last * y)
    pixels = np.asarray(whole.resize((end - begin, last - first), Image.Resampling.BILINEAR, window))
    if pixels.shape[:2] != view.size:
        inside = pixels
        pixels = np.full((height, width, 3), OUTSIDE, np.uint8)
        pixels[first - top : last - top, begin - left : end - left] = inside
    return np.ascontiguousarray(pixels[:, ::-1]) if view.mirror else pixels


def points(stored: NDArray[np.floating], view: View) -> NDArray[np.float64]:
    """Points (..., 2), x and y of the stored picture -> of what the model sees  # (..., 2)"""
    factors = np.array([view.scaled[1] / view.stored[1], view.scaled[0] / view.stored[0]])
    moved: NDArray[np.float64] = stored * factors - [view.corner[1], view.corner[0]]
    if view.mirror:
        moved[..., 0] = view.size[1] - moved[..., 0]
    return moved


def boxes(stored: NDArray[np.floating], view: View) -> NDArray[np.float64]:
    """Boxes (k, 4), x1 y1 x2 y2 -> the same of what the model sees, not clipped  # (k, 4)"""
    moved = points(stored.reshape(-1, 2, 2), view)
    if view.mirror:
        moved[:, :, 0] = moved[:, ::-1, 0]
    return moved.reshape(-1, 4)


def boxes_back(seen: NDArray[np.floating], view: View, original: tuple[int, int]) -> NDArray[np.float64]:
    """Boxes (k, 4) of what the model sees -> of the original picture (height, width), clipped to it: the
    inverse of `boxes`, and of the scaling to the stored size."""
    moved = points_back(seen.reshape(-1, 2, 2), view, original)
    if view.mirror:
        moved[:, :, 0] = moved[:, ::-1, 0]
    return moved.reshape(-1, 4)


def points_back(seen: NDArray[np.floating], view: View, original: tuple[int, int]) -> NDArray[np.float64]:
    """Points (..., 2) of what the model sees -> of the original picture (height, width), within it."""
    moved = seen.astype(np.float64)
    if view.mirror:
        moved[..., 0] = view.size[1] - moved[..., 0]
    moved += [view.corner[1], view.corner[0]]
    moved *= [original[1] / view.scaled[1], original[0] / view.scaled[0]]
    return moved.clip(0, [original[1], original[0]])


def resized(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Values (h, w) -> size, bilinear, as Pillow does"""
    whole = Image.fromarray(values, "F").resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(whole)


def objects(
    found: Objects, view: View, swaps: Sequence[Sequence[int]] = ()
) -> tuple[Objects, NDArray[np.int64]]:
    """Objects of the stored picture, as the model sees them: boxes clipped, key points outside it absent;
    those of which less than a pixel is left are dropped. Masks are not moved, see `masks`.

    swaps: `swaps_of` each category, where the view may be mirrored. Also returns which objects stayed,
    (k',) int64.
    """
    limits = np.array([view.size[1], view.size[0]])
    moved = boxes(found.boxes, view).reshape(-1, 2, 2).clip(0, limits).reshape(-1, 4)
    kept = np.flatnonzero((moved[:, 2:] - moved[:, :2] >= LEAST).all(axis=1))
    keypoints = found.keypoints[kept].astype(np.float32)
    if keypoints.size:
        places = points(keypoints[..., :2], view)
        inside = ((places >= 0) & (places < limits)).all(axis=-1) & (keypoints[..., 2] > 0)
        keypoints[..., :2] = np.where(inside[..., None], places, 0)
        keypoints[..., 2] *= inside
        if view.mirror:
            for row, category in zip(keypoints, found.classes[kept].tolist(), strict=True):
                row[: len(swaps[category])] = row[swaps[category]]
    area = view.scaled[0] / view.stored[0] * view.scaled[1] / view.stored[1]
    stayed = found._replace(
        size=view.size,
        boxes=moved[kept].astype(np.float32),
        classes=found.classes[kept],
        flags=found.flags[kept],
        ids=found.ids[kept],
        areas=found.areas[kept] * area,
        masks=[found.masks[number] for number in kept],
        keypoints=keypoints,
    )
    return stayed, kept


def masks(found: Objects, view: View) -> NDArray[np.uint8]:
    """The masks of a stored picture's objects as the model sees them, 0 or 1  # (k, height, width)"""
    (top, left), (height, width) = view.corner, view.size
    drawn = draw_masks(scale(found, view.scaled))[:, top : top + height, left : left + width]
    return np.ascontiguousarray(drawn[:, :, ::-1] if view.mirror else drawn)


def class_map(stored: NDArray[np.uint8], view: View) -> NDArray[np.uint8]:
    """A class map (h, w) of the stored picture as the model sees it, by the nearest value."""
    (top, left), (height, width) = view.corner, view.size
    moved: NDArray[np.uint8] = resize_nearest(stored, view.scaled)[top : top + height, left : left + width]
    return np.ascontiguousarray(moved[:, ::-1] if view.mirror else moved)


def swaps_of(category: Category) -> list[int]:
    """For every key point of a category the one that it is in a mirrored picture: left and right change
    places where the names say so, such as left_eye and right_eye."""
    names = category.keypoints
    places = {name: place for place, name in enumerate(names)}

    def mirrored(name: str) -> str:
        for one, other in (("left", "right"), ("right", "left")):
            if one in name:
                return name.replace(one, other)
        return name

    return [places.get(mirrored(name), place) for place, name in enumerate(names)]
