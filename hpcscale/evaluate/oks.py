"""Likeness of two poses (object keypoint similarity, COCO), and suppression of poses that are alike.

In: key points in pixels and areas. Out: values in [0, 1], or the poses that are kept (Papandreou et al. 2017,
G-RMI; Sun et al. 2017, 5.4).
"""

import numpy as np
from numpy.typing import NDArray

# Of the key points of COCO's persons: how far annotators are apart, times the square root of the area.
SIGMAS = np.array([0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87,
                   0.89, 0.89]) / 10  # fmt: skip


def similarity(
    truth: NDArray[np.float64], found: NDArray[np.float64], area: float, sigmas: NDArray[np.float64] = SIGMAS
) -> float:
    """Mean of exp(-d^2 / (2 area (2 sigma)^2)) over the key points that are visible in `truth`.

    truth: (k, 3) x, y, visibility, which counts from above 0; found: (k, 2) or (k, 3); area: of the object
    in square pixels. 0 where none is visible (COCO then compares boxes, which the evaluator does).
    """
    visible = truth[:, 2] > 0
    if not visible.any():
        return 0.0
    squares = ((truth[:, :2] - found[:, :2]) ** 2).sum(1)
    likeness = np.exp(-squares / (2 * area * (2 * sigmas) ** 2))
    return float(likeness[visible].mean())


def suppress(
    poses: NDArray[np.float64],
    scores: NDArray[np.float64],
    areas: NDArray[np.float64],
    threshold: float = 0.5,
    sigmas: NDArray[np.float64] = SIGMAS,
) -> NDArray[np.int64]:
    """Indices of the poses that are kept, by falling score, equal ones in their order: a pose is left out if
    its likeness to a kept one is above the threshold.

    poses: (n, k, 3); scores, areas: (n,). The kept pose takes the place of the truth, with its area and its
    visible points (assumed: the papers do not say).
    """
    kept: list[int] = []
    for place in np.argsort(-scores, kind="stable"):
        alike = (similarity(poses[each], poses[place], areas[each], sigmas) for each in kept)
        if all(likeness <= threshold for likeness in alike):
            kept.append(int(place))
    return np.array(kept, np.int64)
