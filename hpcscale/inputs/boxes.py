"""Random boxes of pictures: an area and an aspect drawn, at a random place (Szegedy et al. 2015, section 6).

In: sizes of pictures, random numbers. Out: a box of each. The law is that of torchvision's RandomResizedCrop:
an area uniform in its range, an aspect whose logarithm is, both sides rounded; the first of ten attempts that
fits the picture. Where none fits, the largest box in the middle whose aspect is within the range.
"""

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.order import below
from hpcscale.view import Input

ATTEMPTS = 10
DRAWS = 2 * ATTEMPTS  # an area and an aspect each


def random_boxes(
    pictures: NDArray[np.int32], places: NDArray[np.uint32], draws: NDArray[np.uint32], input: Input
) -> NDArray[np.int64]:
    """Top, left, height and width of a box of each picture  # (n, 2), (n, 2), (n, DRAWS) -> (n, 4)

    pictures: height and width. places, draws: uniform; of where a box lies, and of its attempts.
    """
    (least, most), (narrow, wide) = input.area, np.log(input.ratio)
    uniform = draws / 2.0**32  # exact, in [0, 1)
    areas = pictures.prod(axis=1, dtype=np.float64)[:, None] * (least + (most - least) * uniform[:, ::2])
    aspects = np.exp(narrow + (wide - narrow) * uniform[:, 1::2])
    tried = np.rint(np.sqrt(np.stack([areas / aspects, areas * aspects], axis=2))).astype(np.int64)
    fits = ((tried > 0) & (tried <= pictures[:, None])).all(axis=2)  # (n, ATTEMPTS)
    found, rows = fits.any(axis=1)[:, None], np.arange(len(pictures))
    sides = np.where(found, tried[rows, fits.argmax(axis=1)], _largest(pictures, input.ratio))
    room: NDArray[np.int64] = pictures.astype(np.int64) - sides
    drawn = np.stack([below(places[:, k], room[:, k] + 1) for k in (0, 1)], axis=1)
    return np.concatenate([np.where(found, drawn, room // 2), sides], axis=1)


def _largest(pictures: NDArray[np.int32], ratio: tuple[float, float]) -> NDArray[np.int64]:
    """Height and width of the largest box of each picture whose width / height is within `ratio`  # (n, 2)"""
    heights, widths = pictures.T.astype(np.float64)
    largest = np.stack(
        [np.minimum(heights, np.rint(widths / ratio[0])), np.minimum(widths, np.rint(heights * ratio[1]))],
        axis=1,
    )
    found: NDArray[np.int64] = np.maximum(largest, 1).astype(np.int64)
    return found
