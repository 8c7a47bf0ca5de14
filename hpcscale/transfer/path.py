"""The strength of a probe's regularisation, chosen on a part of the training data.

In: features, labels, and the l2 to try. Out: their accuracies on the held-out part, and a probe of the best,
fitted to all. The highest accuracy wins; of equal ones, the larger l2, which is the simpler probe. Where one
l2 is given nothing is held out.
"""

from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.files import Usage
from hpcscale.progress import Progress, none
from hpcscale.transfer.probe import Features, Fit, Goal, Labels, accuracy, fit
from hpcscale.transfer.sgd import USUAL, fit_sgd

Solver = Literal["lbfgs", "sgd"]
Held = float | NDArray[np.bool_]


class Chosen(NamedTuple):
    """A probe, and how its l2 was found."""

    probe: Fit  # fitted to all rows
    tried: list[tuple[Fit, float]]  # probes of the other part, l2 descending, and their held-out accuracies


class Way(NamedTuple):
    """How a probe is fitted."""

    solver: Solver  # sgd takes one l2
    tolerance: float  # the gradient's norm at which it ends
    share: Held  # of each class, that is held out; or which rows (n,) are
    seed: int  # of what is held out, and of SGD's order


def fit_best(x: Features, y: Labels, l2s: Collection[float], way: Way, progress: Progress = none) -> Chosen:
    """The probe of x (n, d) and y (n,) with the best of these l2, or the only one. Raises Usage."""
    first, *others = sorted(set(l2s))
    if way.solver == "sgd":
        if others:
            raise Usage(f"solver sgd takes one l2, found {len(others) + 1}")
        return Chosen(fit_sgd(x, y, first, way.seed, USUAL._replace(norm=way.tolerance), progress), [])
    goal = Goal(way.tolerance)
    if not others:
        return Chosen(fit(x, y, first, goal=goal, progress=progress), [])
    out = held_out(y, way.share, way.seed) if isinstance(way.share, float) else way.share
    return choose(x, y, l2s, out, goal, progress)


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
