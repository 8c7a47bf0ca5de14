"""Slow oracle of hpcscale.ops.permute: its definition in NumPy, for one key."""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10
TURNS = np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def permute(indices: NDArray[np.int64], samples: int, key: int) -> NDArray[np.int64]:
    """# (n,) int64 -> (n,)"""
    keys = mix(np.array([key & 0xFFFFFFFFFFFFFFFF], np.uint64) + TURNS)
    bits = max(2, (samples - 1).bit_length())
    values = feistel(indices.astype(np.uint64), bits, keys)
    while (outside := values >= samples).any():
        values[outside] = feistel(values[outside], bits, keys)
    return values.astype(np.int64)


def feistel(values: NDArray[np.uint64], bits: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of range(2**bits)."""
    low_bits = np.uint64(bits // 2)
    low_mask, high_mask = np.uint64((1 << bits // 2) - 1), np.uint64((1 << bits - bits // 2) - 1)
    low, high = values & low_mask, values >> low_bits
    for turn in range(0, ROUNDS, 2):
        high = high ^ mix(low + keys[turn]) & high_mask
        low = low ^ mix(high + keys[turn + 1]) & low_mask
    return high << low_bits | low


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)
