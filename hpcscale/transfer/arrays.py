"""Features and labels from a file of arrays (.npz) that anything may have written.

In: x, floating (n, d), and y, integers (n,) not below 0. Out: the same, checked. Nothing is unpickled.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.files import FileError, open_regular
from hpcscale.transfer.objective import blocks


class Arrays(NamedTuple):
    """Features of n pictures and their labels."""

    x: NDArray[Any]  # (n, d) floating, finite
    y: NDArray[np.int64]  # (n,), from 0


def read_arrays(file: Path, width: int | None = None) -> Arrays:
    """Arrays x and y of a .npz. width: the number of features that there must be. Raises FileError."""
    x, y = _load(file)
    if x.ndim != 2 or 0 in x.shape:
        raise FileError(f"{file}: x has shape {x.shape}, expected (n, d) with at least one row and column")
    if x.dtype.kind != "f":
        raise FileError(f"{file}: x is {x.dtype}, expected float16, float32 or float64")
    if y.shape != x.shape[:1]:
        raise FileError(f"{file}: y has shape {y.shape}, expected ({len(x)},), one label a row of x")
    if y.dtype.kind not in "iu":
        raise FileError(f"{file}: y is {y.dtype}, expected integers")
    if y.min() < 0 or y.max() >= 2**31:
        row = int(np.flatnonzero((y < 0) | (y >= 2**31))[0])
        raise FileError(f"{file}: y[{row}] is {y[row]}, expected labels from 0 to {2**31 - 1}")
    for rows in blocks(*x.shape):
        if not (fine := np.isfinite(x[rows])).all():
            row, column = np.argwhere(~fine)[0] + (rows.start, 0)
            raise FileError(f"{file}: x[{row}, {column}] is {x[row, column]}, expected finite numbers")
    if width is not None and x.shape[1] != width:
        raise FileError(f"{file}: x has {x.shape[1]} columns, expected {width} as in the training features")
    return Arrays(x, y.astype(np.int64))


def _load(file: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        with open_regular(file) as stream, np.load(stream, allow_pickle=False) as found:
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise FileError(f"{file}: one array, expected a .npz with the arrays x and y")
            if missing := {"x", "y"} - set(found.files):
                there = ", ".join(found.files) or "none"
                raise FileError(f"{file}: no array {min(missing)}, expected x and y, found {there}")
            return found["x"], found["y"]
    except FileError:
        raise
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise FileError(f"{file}: not a .npz of plain arrays x and y: {error}") from None
