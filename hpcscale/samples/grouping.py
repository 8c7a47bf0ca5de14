"""Samples by class: how many each class has, which class of a sample is the rarest, who belongs to a class.

In: rows of classes in CSR form: row i is `classes[offsets[i]:offsets[i + 1]]`, offsets int64 (rows + 1,),
classes int32, each once in a row. Out: what the index of a run holds.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hpcscale.ops import Ids, Offsets, scatter

Id = TypeVar("Id", bound=np.integer)


def count(
    offsets: Offsets, classes: Ids, total: int, rows: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Rows that each of `total` classes has; only of `rows` (rows,) where given  # (total,) int64"""
    if rows is not None:
        classes = classes[np.repeat(rows, np.diff(offsets))]
    return np.bincount(classes, minlength=total).astype(np.int64, copy=False)


def rarest(offsets: Offsets, classes: Ids, counts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Of each row the class with the smallest count, the lower one of equals; -1: it has none  # (rows,)"""
    order = np.lexsort((np.arange(counts.size), counts)).astype(np.int32)
    ranks = np.empty(counts.size, np.int32)
    ranks[order] = np.arange(counts.size, dtype=np.int32)
    found = np.full(offsets.size - 1, -1, np.int32)
    filled = np.flatnonzero(np.diff(offsets))
    if filled.size:
        found[filled] = order[np.minimum.reduceat(ranks[classes], offsets[filled])]
    return found


def by_class(
    offsets: Offsets, classes: Ids, ids: NDArray[Id], total: int
) -> tuple[NDArray[np.int64], NDArray[Id]]:
    """The ids of the rows of each class, in the order of the rows  # (total + 1,) int64, (classes.size,)

    ids (rows,): of an integer type of 32 or 64 bits, which is kept. The ids of class c are
    `found[starts[c]:starts[c + 1]]`. Rows that do not fit into memory at once: see `ops.scatter`.
    """
    starts = np.concatenate([[0], np.cumsum(count(offsets, classes, total))])
    found = np.empty(classes.size, ids.dtype)
    scatter(offsets, classes, ids, starts[:-1].copy(), found)
    return starts, found
