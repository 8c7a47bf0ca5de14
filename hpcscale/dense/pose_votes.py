"""Heat maps and offsets of one person become key points (Papandreou et al. 2017, "G-RMI", section 3.2.1).

In: probabilities that a key point is near, and where each place says it is. Out: maps of votes, and the
point with the most of them.
"""

import math

import numpy as np
from numpy.typing import NDArray

FRAME = 2  # places around a map, for votes that fall outside


def vote(heatmaps: NDArray[np.float32], offsets: NDArray[np.float32], radius: float) -> NDArray[np.float64]:
    """Votes f(x) = sum over places j of 1 / (pi R^2) G(x_j + F(x_j) - x) h(x_j), G bilinear: each place
    gives its probability to the four centres around the point that it means.

    heatmaps: (k, h, w) from 0 to 1; offsets: (k, 2, h, w) x and y, pixels. Returns (k, h, w); a perfect disk
    that lies within the map has votes of sum 1.
    """
    k, height, width = heatmaps.shape
    frame = np.array([height + 2 * FRAME, width + 2 * FRAME])
    votes = np.empty((k, *frame))
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    for number in range(k):
        x, y = (offsets[number, 0] + columns).ravel(), (offsets[number, 1] + rows).ravel()
        left, top = np.floor(x), np.floor(y)
        right, down = x - left, y - top  # from 0 to 1
        place = top.clip(-FRAME, height).astype(np.int64) + FRAME
        place *= frame[1]
        place += left.clip(-FRAME, width).astype(np.int64) + FRAME
        weights, cells = heatmaps[number].ravel(), np.zeros(frame.prod())
        for below, by_row in ((0, 1 - down), (1, down)):
            for beside, by_column in ((0, 1 - right), (1, right)):
                share = by_row * by_column * weights
                cells += np.bincount(place + (below * frame[1] + beside), share, len(cells))
        votes[number] = cells.reshape(frame)
    inside: NDArray[np.float64] = votes[:, FRAME:-FRAME, FRAME:-FRAME] / (math.pi * radius * radius)
    return inside


def peaks(votes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points of most votes  # (k, h, w) -> x and y (k, 2), votes (k,)

    A point lies in the middle of the votes of the 3 x 3 places around the first of the most.
    """
    k, _, width = votes.shape
    best = votes.reshape(k, -1).argmax(axis=1)
    points = np.empty((k, 2))
    for number, (row, column) in enumerate(zip(*np.divmod(best, width), strict=True)):
        top, left = max(0, row - 1), max(0, column - 1)
        near = votes[number, top : row + 2, left : column + 2]
        total = near.sum()
        y, x = (np.arange(side) + 0.5 for side in near.shape)
        middle = (near.sum(0) @ x / total, near.sum(1) @ y / total) if total > 0 else (0.5, 0.5)
        points[number] = left + middle[0], top + middle[1]
    return points, votes.reshape(k, -1).max(axis=1)
