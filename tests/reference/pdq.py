"""Slow oracle of hpcscale.ops.pdq, step by step as cpp/include/hpcscale/phash.hpp states them, in float32."""

import numpy as np
from numpy.typing import NDArray


def box(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Running mean along axis 0: add, subtract, divide, in that order and rounded each time."""
    size = len(values)
    window = -(-size // 128)
    lead = (window + 2) // 2 - 1
    lag = window - lead
    total = np.zeros_like(values[0])
    count, means = 0, np.empty_like(values)
    for k in range(lead):
        total, count = total + values[k], count + 1
    for k in range(size):
        if k + lead < size:
            total, count = total + values[k + lead], count + 1
        if k >= lag:
            total, count = total - values[k - lag], count - 1
        means[k] = total / np.float32(count)
    return means


def pdq(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], int]:
    height, width = rgb.shape[:2]
    if min(height, width) < 5:
        return np.zeros(4, np.uint64), 0
    luma = ((rgb.astype(np.int64) @ [299, 587, 114]) / 1000).astype(np.float32)
    if (height, width) != (64, 64):
        for _ in range(2):
            luma = box(np.ascontiguousarray(box(np.ascontiguousarray(luma.T)).T))
    rows, columns = ([int((k + 0.5) * size / 64) for k in range(64)] for size in (height, width))
    small = luma[rows][:, columns]
    steps = [np.trunc(np.diff(small, axis=axis) * np.float32(100) / np.float32(255)) for axis in (0, 1)]
    quality = min(int(sum(np.abs(step).sum() for step in steps)) // 90, 100)
    angles = np.pi / 128 * np.arange(1, 17)[:, None] * (2 * np.arange(64) + 1)[None]
    cosines = (np.float32(np.sqrt(2 / 64)).astype(np.float64) * np.cos(angles)).astype(np.float32)
    half = np.zeros((16, 64), np.float32)
    for k in range(64):
        half += cosines[:, k : k + 1] * small[k]
    band = np.zeros((16, 16), np.float32)
    for k in range(64):
        band += half[:, k : k + 1] * cosines[:, k]
    bits = (band > np.sort(band.ravel())[127]).ravel()[::-1]
    return np.packbits(bits).view(">u8").astype(np.uint64), quality


def low_frequencies(luma: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pixels of the coefficients with u + v < 5 of each block, the last ones filled up by the edge."""
    k = np.arange(8)
    cosines = np.cos(np.pi / 16 * (2 * k[None] + 1) * k[:, None])
    cosines *= np.where(k[:, None] == 0, 0.125**0.5, 0.5)
    height, width = luma.shape
    filled = np.pad(luma.astype(np.float64), ((0, -height % 8), (0, -width % 8)), "edge")
    blocks = filled.reshape(filled.shape[0] // 8, 8, filled.shape[1] // 8, 8).transpose(0, 2, 1, 3)
    low = (cosines @ blocks @ cosines.T) * (k[:, None] + k[None] < 5)
    return (cosines.T @ low @ cosines).transpose(0, 2, 1, 3).reshape(filled.shape)[:height, :width]
