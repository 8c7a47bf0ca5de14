"""Mean intersection over union of segmentations.

In: true and predicted class of every pixel, a picture at a time; in files, PNGs with a palette or grey, whose
values are the classes. Out: one confusion matrix over all pictures, and what follows from it. A mean of
pictures' own values is another number.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hpcscale.evaluate.measured import Measured, ResultsError
from hpcscale.files import open_regular

IGNORE = 255  # in the truth: a border, or what nobody has judged
CLASSES = 255  # at most


class Pair(NamedTuple):
    """A true picture of classes and the result of the same name."""

    name: str
    truth: Path
    found: Path


def count(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The confusion matrix of one picture: (255, 255) pixels of true class by predicted class, without
    those that the truth ignores. truth, found: (height, width). Raises ValueError where a pixel that counts
    is predicted as 255, which is no class."""
    counted = truth != IGNORE
    true, predicted = truth[counted], found[counted]
    if (predicted == IGNORE).any():
        raise ValueError(f"{(predicted == IGNORE).sum()} pixels of 255 where the truth has a class")
    cells = true.astype(np.int64) * CLASSES + predicted
    return np.bincount(cells, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def measure(matrix: NDArray[np.int64], pictures: int) -> Measured:
    """matrix: (classes, classes) sum of `count`. Classes that are neither true nor predicted anywhere are not
    there; one that is only predicted has 0, and counts in the mean.

    metrics: mIoU, the mean over these classes, and accuracy, the share of right pixels. classes: number of
    a class -> true positives / (true + predicted - true positives).
    """
    right = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - right
    classes: dict[str, float | None] = {
        str(each): float(right[each] / union[each]) for each in np.flatnonzero(union)
    }
    mean = float(np.mean([*classes.values()])) if classes else None
    accuracy = float(right.sum() / matrix.sum()) if matrix.any() else None
    return Measured(pictures, {"mIoU": mean, "accuracy": accuracy}, classes)


def find(truth: Path, results: Path) -> list[Pair]:
    """The pairs of two folders, by name of the true picture. Results of other names are not looked at.
    Raises ResultsError where there is no picture, or one has no result."""
    files = sorted(truth.glob("*.png"))
    if not files:
        raise ResultsError(f"{truth}: found no .png; allowed: a folder of pictures of classes")
    pairs = [Pair(file.name, file, results / file.name) for file in files]
    if missing := [pair for pair in pairs if not pair.found.exists()]:
        raise ResultsError(f"{missing[0].found}: is missing, as {len(missing)} of {len(pairs)} results are")
    return pairs


def read_counts(pairs: list[Pair]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Name and confusion matrix (255, 255) of each pair. Raises ResultsError and OSError."""
    for pair in pairs:
        truth, found = read(pair.truth), read(pair.found)
        if truth.shape != found.shape:
            raise ResultsError(f"{pair.found}: found {_size(found)} pixels; allowed: {_size(truth)}, as true")
        try:
            yield pair.name, count(truth, found)
        except ValueError as error:
            raise ResultsError(f"{pair.found}: found {error}; allowed: classes 0 to 254") from None


def read(file: Path) -> NDArray[np.uint8]:
    """The classes (height, width) of a picture. Raises ResultsError and OSError."""
    try:
        with open_regular(file) as stream, Image.open(stream, formats=["PNG"]) as picture:
            if picture.mode not in ("P", "L"):
                raise ResultsError(f"{file}: found mode {picture.mode}; allowed: palette, or 8-bit grey")
            return np.array(picture)
    except ResultsError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ResultsError(f"{file}: cannot be read: {error}") from None


def _size(array: NDArray[Any]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
