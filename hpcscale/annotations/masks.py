"""Masks as pixels: polygons filled, run lengths written out.

In: `Mask`s of objects.py, or COCO's counts. Out: arrays of 0 and 1. A pixel belongs to a polygon if its
centre lies inside by the even-odd rule, so an area is neither grown nor shrunk; COCO's own tools draw the
outline on a grid five times as fine and may differ in pixels that it crosses. An object's polygons are
united.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcscale.annotations import rle
from hpcscale.annotations.objects import Objects, Rle


def fill_polygon(polygon: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels of one polygon (points, 2) of x and y  # (height, width) = size

    Of every edge and row, the crossing with the line through the row's pixel centres toggles all pixels whose
    centres lie to the right of it. Only the rectangle around the polygon is looked at.
    """
    filled = np.zeros(size, np.uint8)
    first, last = (_reached(ends, size) for ends in (polygon.min(axis=0), polygon.max(axis=0)))
    (left, top), (right, bottom) = first.tolist(), last.tolist()
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    begins = _reached(np.stack([x1, np.minimum(y1, y2)], axis=1), size)[:, 1]
    count = _reached(np.stack([x1, np.maximum(y1, y2)], axis=1), size)[:, 1] - begins
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + begins[edge]
    slope = (x2 - x1)[edge] / (y2 - y1)[edge]  # an edge that crosses a row's centre is not level
    crossing = x1[edge] + (row + 0.5 - y1[edge]) * slope
    column = np.ceil(crossing - 0.5).clip(left, right).astype(np.int64)
    wide = right - left + 1
    places = (row - top) * wide + column - left
    toggles = np.bincount(places, minlength=(bottom - top) * wide).reshape(-1, wide)
    filled[top:bottom, left:right] = np.cumsum(toggles, axis=1)[:, :-1] & 1
    return filled


def _reached(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int64]:
    """Column and row of the first pixel whose centre is not before a point  # (..., 2) -> (..., 2)"""
    return np.ceil(points - 0.5).clip(0, [size[1], size[0]]).astype(np.int64)


def counts_of(counts: Any, size: tuple[int, int]) -> NDArray[np.int64]:
    """The run lengths of a COCO RLE, of a list or of a compressed text  # (runs,)

    Raises ValueError where they are no run lengths, or do not fill a picture of `size`.
    """
    if isinstance(counts, str):
        counts = rle.runs_of(counts.encode(errors="surrogatepass")).tolist()
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("counts must be whole numbers, none below 0")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"its counts are {sum(counts)} pixels, not {size[0]} x {size[1]}")
    return np.array(counts, np.int64)


def unpack(mask: Rle) -> NDArray[np.uint8]:
    """The pixels of an RLE  # (height, width)"""
    inside = np.arange(len(mask.counts)) % 2
    return np.repeat(inside, mask.counts).reshape(mask.size[::-1]).T.astype(np.uint8)


def pack(pixels: NDArray[np.bool_]) -> dict[str, Any]:
    """Pixels (height, width) as an RLE of COCO, with its counts as a list."""
    line = np.ravel(pixels, order="F")
    ends = np.flatnonzero(np.diff(line)) + 1
    counts = np.diff(np.concatenate([[0], ends, [line.size]]))
    first = [0] * bool(line.size and line[0])  # begins with the pixels outside
    return {"size": list(pixels.shape), "counts": first + counts.tolist()}


def resize_nearest(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Every pixel takes the value at its centre  # (h, w) -> size"""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, pixels.shape, strict=True)
    )
    taken: NDArray[Any] = pixels[rows[:, None], columns]
    return taken


def draw_masks(objects: Objects) -> NDArray[np.uint8]:
    """The masks of a picture's objects, 0 for those without one  # (k, height, width), at `objects.size`"""
    drawn = np.zeros((len(objects.masks), *objects.size), np.uint8)
    for number, mask in enumerate(objects.masks):
        if isinstance(mask, Rle):
            drawn[number] = resize_nearest(unpack(mask), objects.size)
        else:
            for polygon in mask or ():
                drawn[number] |= fill_polygon(polygon, objects.size)
    return drawn
