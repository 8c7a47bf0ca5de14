"""The strength of a probe's regularisation, chosen on a part of the training data.

In: features, labels, and the l2 to try. Out: their accuracies on the held-out part, and a probe of the best,
fitted to all. The highest accuracy wins; of equal ones, the larger l2, which is the simpler probe.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.files import Usage
from hpcscale.progress import Progress, none
from hpcscale.transfer.probe import Features, Fit, Goal, Labels, accuracy, fit


class Chosen(NamedTuple):
    """A probe, and how its l2 was found."""

    probe: Fit  # fitted to all rows
    tried: list[tuple[Fit, float]]  # probes of the other part, l2 descending, and their held-out accuracies


def held_out(y: Labels, share: float, seed: int = 0) -> NDArray[np.bool_]:
    """Which rows are held out: of each class that share, rounded, by a seeded draw; never all of it.  # (n,)

    Raises Usage if that is none at all.
    """
    random, chosen = np.random.default_rng(seed), np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = random.permutation(np.flatnonzero(y == label))
        chosen[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    if not chosen.any():
        raise Usage(f"a held-out share of {share} is not one row of any class; hold out more")
    return chosen


def choose(
    x: Features,
    y: Labels,
    l2s: Iterable[float],
    out: NDArray[np.bool_],
    goal: Goal = Goal(),  # noqa: B008 - cannot be changed
    progress: Progress = none,
) -> Chosen:
    """Try each l2 on the rows that are not `out` (n,), from the largest, each from the one before; judge it
    on those that are; fit the best to all rows. Memory: x once more for its parts. Raises Usage."""
    tried: list[tuple[Fit, float]] = []
    rest, labels = x[~out], y[~out]
    for l2 in sorted(set(l2s), reverse=True):
        found = fit(rest, labels, l2, tried[-1][0] if tried else None, goal, progress)
        tried.append((found, accuracy(found, x[out], y[out])))
    del rest
    best, _ = max(tried, key=lambda one: one[1])  # the first of equal ones
    return Chosen(fit(x, y, best.l2, best, goal, progress), tried)
