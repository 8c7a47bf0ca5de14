"""Slow oracle of hpcscale.ops.search and self_join: every distance by NumPy."""

import numpy as np
from numpy.typing import NDArray


def search(a: NDArray[np.uint64], b: NDArray[np.uint64], radius: int) -> NDArray[np.int64]:
    """Rows (i, j, distance) with distance <= radius, by (i, j)  # (n, words) uint64 -> (pairs, 3)"""
    distances = np.bitwise_count(a[:, None] ^ b[None]).sum(axis=-1, dtype=np.int64)
    i, j = np.nonzero(distances <= radius)
    return np.stack([i, j, distances[i, j]], axis=1)


def self_join(a: NDArray[np.uint64], radius: int) -> NDArray[np.int64]:
    pairs = search(a, a, radius)
    return pairs[pairs[:, 0] < pairs[:, 1]]
