"""What would more examples buy: the error at a size that nobody has trained on, with an interval.

In: points (examples, error), float64 (points,); several of one size are seeds. Out: estimates for sizes up to
FARTHEST times the largest, each with an interval that holds a new measurement there with a given probability.

The estimate is that of one law (`choose`): M4 where there are sizes enough for its parameters, else the power
law with a floor. The interval comes from forecasts of the past (`look_back`): the largest sizes are left out,
the law is fitted to the others and asked for those left out; again with more of them left out. What these
forecasts miss, beyond the scatter of points around the law, is taken to grow in proportion to the distance
d = log(size / largest size of the fit), as if the slope were wrong. So the variance of the log error at N is

    sd^2 + growth^2 * d^(2 * POWER),    POWER = 1,

sd the scatter around the law, growth^2 the median over the cuts, and the interval that of Student's t with as
many degrees of freedom as there were cuts. Standard errors of the parameters are not used: laws miss by more
than scatter explains, and intervals from them held 3 of 10 points where 8 were promised. docs/studies.md has
what was measured.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from hpcscale.files import Told
from hpcscale.study.fits import Array, Law, Line, deviations, fit_line, fit_m4, fit_power

SIZES = 5  # fewest distinct sizes
SPAN = 8.0  # the largest size is at least so many times the smallest: three doublings
MOST = 1e18  # examples
FARTHEST = 100.0  # a forecast reaches so many times the largest size
MEASURED = 30.0  # and so far it was measured how often intervals hold
LEVELS = (0.5, 0.99)
FOR_CHANCE = 8  # distinct sizes from which M4 also fits the error of guessing
FOR_M4 = 6  # distinct sizes from which M4 is fitted at all
KEPT = 4  # fewest distinct sizes that a forecast of the past is made from
STEP = 1.6  # cuts are at least this factor of size apart
CUTS = 8  # most forecasts of the past
POWER = 1.0  # how the standard deviation of what is missed grows with the distance; 0.5 and 0.75 were tried


class PointsError(Told, ValueError):
    """Points, or a question, that no forecast can be made from."""


class Missed(NamedTuple):
    """What one forecast of the past missed, at each point that it did not see, (points,)."""

    distance: Array  # log(size / largest size that it saw)
    excess: Array  # square of log(error) - log(forecast), less the law's own scatter, at least 0


class Estimate(NamedTuple):
    at: float  # examples
    estimate: float  # error
    low: float
    high: float


class Forecast(NamedTuple):
    sizes: Array  # the points
    errors: Array
    law: Law
    missed: list[Missed]
    level: float
    estimates: list[Estimate]
    line: Line  # the papers' figure
    deviations: dict[str, str]


def forecast(
    sizes: Array, errors: Array, at: Sequence[float], level: float = 0.8, chance: float | None = None
) -> Forecast:
    """Errors at the sizes `at`, with intervals of `level`. chance: the error of guessing, if it is known.

    Raises PointsError for points that `check` refuses, and for sizes that lie outside the smallest size and
    FARTHEST times the largest.
    """
    check(sizes, errors, chance)
    if not LEVELS[0] <= level <= LEVELS[1]:
        raise PointsError(f"level: {level:g}, expected {LEVELS[0]:g} to {LEVELS[1]:g}")
    reach = FARTHEST * float(sizes.max())
    for size in at:
        if not sizes.min() <= size <= reach:
            raise PointsError(
                f"a forecast at {size:g} examples: expected {sizes.min():g}, the smallest size, "
                f"to {reach:g}, {FARTHEST:g} times the largest"
            )
    law = choose(sizes, errors, chance)
    missed = look_back(sizes, errors, chance)
    values = law(np.array(at))
    low, high = values * interval(law, missed, np.array(at) / sizes.max(), level)
    rows = zip(at, values, low, np.minimum(1, high), strict=True)
    found = [Estimate(*(float(value) for value in row)) for row in rows]
    line, left = fit_line(sizes, errors), deviations(sizes, errors, (0.0, 1.0))
    return Forecast(sizes, errors, law, missed, level, found, line, left)


def check(sizes: Array, errors: Array, chance: float | None = None) -> None:
    """Raises PointsError, naming the point where there is one, counted from 1."""
    for place, (size, error) in enumerate(zip(sizes, errors, strict=True), 1):
        if said := wrong(size, error):
            raise PointsError(f"point {place}: {said}")
    distinct = np.unique(sizes).size
    if distinct < SIZES:
        raise PointsError(f"{distinct} different sizes, expected at least {SIZES}: too few for a forecast")
    if (span := sizes.max() / sizes.min()) < SPAN:
        raise PointsError(
            f"the largest size is {span:.3g} times the smallest, expected at least {SPAN:g} times: "
            "too narrow for a forecast"
        )
    if chance is not None and not errors.min() < chance <= 1:
        raise PointsError(f"chance: {chance:g}, expected above the least error, {errors.min():g}, to 1")
    if fit_line(sizes, errors).slope >= 0 or errors.min() == errors.max():
        raise PointsError("the error does not fall with size: there is no gain to forecast")


def wrong(size: float, error: float) -> str:
    """What is wrong with a point; nothing if it can be used."""
    if not 0 < size <= MOST:
        return f"examples {size:g}, expected a number above 0 and at most {MOST:g}"
    if not 0 < error <= 1:
        return f"error {error:g}, expected a share above 0 and at most 1"
    return ""


def choose(sizes: Array, errors: Array, chance: float | None = None) -> Law:
    """The law that so many sizes can carry. With fewer than FOR_CHANCE, an unknown error of guessing is 1."""
    distinct = np.unique(sizes).size
    if distinct < FOR_M4:
        return fit_power(sizes, errors)
    return fit_m4(sizes, errors, chance if distinct >= FOR_CHANCE else chance or 1.0)


def look_back(sizes: Array, errors: Array, chance: float | None = None) -> list[Missed]:
    """Forecasts of the largest sizes from the smaller ones, for points as `check` allows them."""
    found = []
    for largest in cuts(sizes):
        seen = sizes <= largest
        law = choose(sizes[seen], errors[seen], chance)
        missed = np.log(errors[~seen]) - np.log(law(sizes[~seen]))
        found.append(Missed(np.log(sizes[~seen] / largest), np.maximum(0, missed**2 - law.sd**2)))
    return found


def cuts(sizes: Array) -> list[float]:
    """The largest size that each forecast of the past sees, from the last but one on down."""
    found: list[float] = []
    for size in np.unique(sizes)[KEPT - 1 : -1][::-1].tolist():
        if not found or found[-1] / size >= STEP:
            found.append(size)
    return found[:CUTS]


def growth(missed: Sequence[Missed], power: float = POWER) -> float:
    """Standard deviation of the log error at a distance of 1, beyond the scatter: that of the middle cut."""
    return float(np.sqrt(np.median([np.mean(one.excess / one.distance ** (2 * power)) for one in missed])))


def interval(law: Law, missed: Sequence[Missed], times: Array, level: float, power: float = POWER) -> Array:
    """How far a measurement is from the law with probability `level`: (2, sizes), low and high factors.

    times: sizes as multiples of the largest size of the points; those up to 1 have the law's scatter alone.
    """
    distance = np.maximum(0, np.log(times))
    spread = np.sqrt(law.sd**2 + growth(missed, power) ** 2 * distance ** (2 * power))
    half = stats.t.ppf((1 + level) / 2, len(missed)) * spread
    factors: Array = np.exp(np.stack([-half, half]))
    return factors
