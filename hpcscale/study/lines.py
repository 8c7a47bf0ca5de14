"""The log-linear line of a figure: y = a + b log10(x), by least squares."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Line(NamedTuple):
    start: float  # y at x = 1
    slope: float  # of y, per decade of x
    r2: float | None  # share of the variance that the line explains; None where all y are equal

    def at(self, x: float) -> float:
        return self.start + self.slope * float(np.log10(x))


def fit(x: Sequence[float], y: Sequence[float]) -> Line | None:
    """The line through points (n,) of positive x; None where fewer than two x differ."""
    if len(set(x)) < 2:
        return None
    decades, values = np.log10(np.array(x, np.float64)), np.array(y, np.float64)
    slope, start = map(float, np.polyfit(decades, values, 1))
    total = float(((values - values.mean()) ** 2).sum())
    left = float(((values - start - slope * decades) ** 2).sum())
    return Line(start, slope, 1 - left / total if total > 0 else None)
