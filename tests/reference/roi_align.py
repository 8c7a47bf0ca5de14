"""Slow oracle of hpcscale.ops.roi_align and its gradient: point by point, each with its four neighbours."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def roi_align(maps: NDArray, rois: NDArray, how, rows: int, columns: int) -> NDArray:
    """maps (n, h, w, channels), rois (k, 5) -> (k, rows, columns, channels), float64"""
    out = np.zeros((len(rois), rows, columns, maps.shape[3]))
    for k, y, x, n, place, weight in _reads(maps.shape, rois, how, (rows, columns)):
        out[k, y, x] += weight * maps[n, place[0], place[1]].astype(float)
    return out


def gradient(given: NDArray, shape, rois: NDArray, how) -> NDArray:
    """By maps of `shape`, of `given` (k, rows, columns, channels) by the result, float64"""
    maps = np.zeros(shape)
    for k, y, x, n, place, weight in _reads(shape, rois, how, given.shape[1:3]):
        maps[n, place[0], place[1]] += weight * given[k, y, x].astype(float)
    return maps


def _reads(shape, rois: NDArray, how, grid) -> Iterator[tuple]:
    """Coordinates are rounded as the boxes are: a point just at a border counts, or it does not."""
    scale, sampling, aligned = how
    number = rois.dtype.type
    for k, (n, *corners) in enumerate(rois):
        left, top, right, bottom = (corner * number(scale) - number(0.5 * aligned) for corner in corners)
        sides = [bottom - top, right - left]
        if not aligned:
            sides = [max(side, number(1)) for side in sides]
        bins = [side / number(count) for side, count in zip(sides, grid, strict=True)]
        counts = [sampling if sampling > 0 else math.ceil(side) for side in bins]
        for y, x in np.ndindex(*grid):
            for i, j in np.ndindex(*(max(count, 0) for count in counts)):
                at_y = top + number(y) * bins[0] + number(i + 0.5) * bins[0] / number(counts[0])
                at_x = left + number(x) * bins[1] + number(j + 0.5) * bins[1] / number(counts[1])
                for place, weight in _neighbours(at_y, at_x, shape[1], shape[2]):
                    yield k, y, x, int(n), place, weight / (counts[0] * counts[1])


def _neighbours(y: float, x: float, height: int, width: int) -> Iterator[tuple[tuple[int, int], float]]:
    if not (-1 <= y <= height and -1 <= x <= width):
        return
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    y, x = float(y), float(x)
    for row in {math.floor(y), math.ceil(y)}:
        for column in {math.floor(x), math.ceil(x)}:
            yield (row, column), (1 - abs(y - row)) * (1 - abs(x - column))
