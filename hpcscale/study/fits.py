"""Curves of error against examples: the papers' line, the power law with a floor, and M4.

In: sizes, how many examples each point was trained on, and errors in (0, 1], both float64 of shape (points,);
several points may have one size. Out: a `Line`, or a `Law` that predicts the error at any size.

- The line of Sun et al. 2017 and Mahajan et al. 2018: y = intercept + slope * log10(n), by least squares.
- The power law with a floor: e(n) = floor + scale * n^-exponent.
- M4 (Alabdulmohsin, Neyshabur and Zhai 2022, "Revisiting neural scaling laws in language and vision"):
  (e - floor) / (chance - e)^alpha = scale * n^-exponent, where `chance` is the error of guessing. Their beta
  is `scale`, their c is -`exponent`. As alpha goes to 0 it becomes the power law with a floor.

The laws are fitted to the logarithm of the error, by least squares from a fixed set of starts; there is no
chance in it. During a fit, sizes are in units of their geometric mean, so that scale and exponent hardly
depend on each other.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Array = NDArray[np.float64]

ERRORS = 2.0  # a difference of so many standard errors is a deviation from the line
DECADE = 10.0
ROUNDING = 1e-9  # smaller shares of a value, such as a difference of slopes, are rounding
STEEPEST, FLATTEST = 10.0, 1e-3  # exponents
ALPHA = 10.0  # alpha lies between 1 / ALPHA and this
# Where fits start: the floor as a share of the least error, and alpha.
STARTS = ((0.3, 1.0), (0.6, 0.4), (0.9, 1.0))
EVALUATIONS = 150  # of a fit from one start


class Line(NamedTuple):
    """y = intercept + slope * log10(n)."""

    intercept: float
    slope: float  # per decade, that is for ten times the examples
    slope_error: float | None  # standard error; None of two points
    r2: float | None  # None where all values are equal
    residuals: Array  # (points,) value - line

    def __call__(self, sizes: Array) -> Array:
        return self.intercept + self.slope * np.log10(sizes)


class Law(NamedTuple):
    """A fitted law of the error. `parameters` are those of the formulae above, by name."""

    name: str
    parameters: dict[str, float]
    free: int  # parameters that were fitted
    residuals: Array  # (points,) log(error) - log(law)

    @property
    def sd(self) -> float:
        """Standard deviation of the log error around the law, with n - free in the denominator."""
        return float(np.sqrt(np.sum(self.residuals**2) / max(1, self.residuals.size - self.free)))

    def __call__(self, sizes: Array) -> Array:
        """Errors at sizes (any shape)."""
        return PREDICT[self.name](self.parameters, np.log(np.asarray(sizes, np.float64)))


# the papers' line


def fit_line(sizes: Array, values: Array) -> Line:
    """Ordinary least squares; values may be of any metric. Raises ValueError without two different sizes."""
    x = np.log10(sizes)
    about = x - x.mean()
    if not (spread := float(np.sum(about**2))) or np.unique(sizes).size < 2:
        raise ValueError("a line needs two different sizes")
    slope = float(about @ values / spread)
    intercept = float(values.mean() - slope * x.mean())
    residuals = values - (intercept + slope * x)
    left, total = float(residuals @ residuals), float(np.sum((values - values.mean()) ** 2))
    error = np.sqrt(left / (x.size - 2) / spread) if x.size > 2 else None
    return Line(
        intercept,
        slope,
        None if error is None else float(error),
        1 - left / total if total else None,
        residuals,
    )


def deviations(sizes: Array, values: Array, bounds: tuple[float, float]) -> dict[str, str]:
    """Where points leave the line, as Mahajan et al. 2018, 3.1.2, discuss it: `ceiling` and `bend`, each with
    what was found, if it was.

    bounds: the least and greatest value that the metric can have.
    `ceiling`: the line would pass a bound within the next decade; or it flattens towards one: a parabola in
    log10(n) is curved against the slope, by more than ERRORS standard errors.
    `bend`: the slope over the last decade, sizes of at least a tenth of the largest, differs from that over
    all smaller sizes by more than ERRORS standard errors, which come from the residuals of both lines. Needs
    two sizes in each part and five points.
    """
    line = fit_line(sizes, values)
    found = {}
    if ceiling := "; ".join(_ceiling(line, sizes, values, bounds)):
        found["ceiling"] = ceiling
    if bend := _bend(sizes, values):
        found["bend"] = bend
    return found


def _ceiling(line: Line, sizes: Array, values: Array, bounds: tuple[float, float]) -> list[str]:
    found = []
    ahead = float(line(np.array(DECADE * sizes.max())))
    if not bounds[0] <= ahead <= bounds[1]:
        found.append(f"the line passes {bounds[ahead > bounds[1]]:g} within the next decade")
    if np.unique(sizes).size > 2 and sizes.size > 3:
        x = np.log10(sizes)
        curve, error = _coefficient(np.vander(x - x.mean(), 3), values, np.array([1.0, 0, 0]))
        if curve * line.slope < 0 and abs(curve) > max(ERRORS * error, ROUNDING * abs(line.slope)):
            found.append(
                f"the slope shrinks by {abs(2 * curve):.3g} a decade, standard error {2 * error:.2g}"
            )
    return found


def _bend(sizes: Array, values: Array) -> str | None:
    x, late = np.log10(sizes), sizes >= sizes.max() / DECADE
    if sizes.size < 5 or np.unique(sizes[late]).size < 2 or np.unique(sizes[~late]).size < 2:
        return None
    columns = np.stack([late, ~late, late * x, ~late * x], 1).astype(np.float64)
    change, error = _coefficient(columns, values, np.array([0, 0, 1.0, -1.0]))
    last, before = fit_line(sizes[late], values[late]).slope, fit_line(sizes[~late], values[~late]).slope
    if abs(change) > max(ERRORS * error, ROUNDING * max(abs(last), abs(before))):
        return (
            f"{last:.3g} a decade over the last one, {before:.3g} before; "
            f"standard error of the difference {error:.2g}"
        )
    return None


def _coefficient(columns: Array, values: Array, weights: Array) -> tuple[float, float]:
    """Least squares on columns (points, coefficients): a weighted sum of coefficients, its standard error."""
    inverse = np.linalg.pinv(columns)
    coefficients = inverse @ values
    left = values - columns @ coefficients
    variance = float(left @ left) / max(1, values.size - weights.size)
    return float(weights @ coefficients), float(np.sqrt(variance) * np.linalg.norm(weights @ inverse))


# the laws


def fit_power(sizes: Array, errors: Array) -> Law:
    """The power law with a floor: three free parameters."""
    x, middle = _centred(sizes)
    least = float(errors.min())
    starts = []
    for share in (0.0, 0.5, 0.9):
        slope, log_scale = np.polyfit(x, np.log(errors - share * least), 1)
        starts.append([log_scale, -slope, share * least])
    lower, upper = [-50, FLATTEST, 0], [50, STEEPEST, least]
    best, residuals = _least(lambda p: _power(p, x), np.log(errors), starts, (lower, upper))
    scale = float(np.exp(best[0] + best[1] * middle))
    parameters = {"floor": float(best[2]), "scale": scale, "exponent": float(best[1])}
    return Law(POWER_LAW, parameters, 3, residuals)


def fit_m4(sizes: Array, errors: Array, chance: float | None = None) -> Law:
    """M4. chance: the error of guessing; None: it is fitted too, up to 1. Five free parameters, or four."""
    x, middle = _centred(sizes)
    least = float(errors.min())
    top = chance if chance is not None else min(1.0, 1.02 * float(errors.max()))
    highest = min(least, top) * (1 - ROUNDING)  # floor
    starts = []
    for share, alpha in STARTS:
        floor = share * highest
        part = np.clip((errors - floor) / (top - floor), 1e-3, 1 - 1e-3)
        slope, shift = np.polyfit(x, np.log(part) - alpha * np.log1p(-part), 1)
        starts.append([shift, -slope, np.log(alpha), floor, top])
    lower = [-50, FLATTEST, -np.log(ALPHA), 0, least]
    upper = [50, STEEPEST, np.log(ALPHA), highest, 1 + ROUNDING]
    free = 4 if chance is not None else 5
    fixed = [] if chance is None else [chance]

    def law(p: Array) -> tuple[Array, Array]:
        value, slopes = _m4(np.append(p, fixed), x)
        return value, slopes[:, :free]

    limits = lower[:free], upper[:free]
    best, residuals = _least(law, np.log(errors), [start[:free] for start in starts], limits)
    shift, exponent, log_alpha, floor, top = (float(value) for value in np.append(best, fixed))
    alpha = float(np.exp(log_alpha))
    scale = float(np.exp(shift + exponent * middle + (1 - alpha) * np.log(top - floor)))
    parameters = {"floor": floor, "chance": top, "alpha": alpha, "scale": scale, "exponent": exponent}
    return Law(M4, parameters, free, residuals)


def _centred(sizes: Array) -> tuple[Array, float]:
    x = np.log(sizes)
    return x - x.mean(), float(x.mean())


def _least(
    law: Callable[[Array], tuple[Array, Array]],
    values: Array,
    starts: Sequence[Sequence[float]],
    bounds: tuple[Sequence[float], Sequence[float]],
) -> tuple[Array, Array]:
    """The parameters with the least sum of squares, and values - law there.

    law: gives the logarithm (points,) and its derivatives (points, parameters). Of equal fits, the first one.
    """
    lower, upper = (np.array(bound, np.float64) for bound in bounds)
    inside = 1e-3 * (upper - lower)
    found = [
        optimize.least_squares(
            lambda p: law(p)[0] - values,
            np.clip(start, lower + inside, upper - inside),
            lambda p: law(p)[1],
            bounds=(lower, upper),
            x_scale=np.where(upper - lower <= 1, 0.1, 1.0),
            ftol=1e-12, xtol=1e-12, gtol=1e-12,
            max_nfev=EVALUATIONS,
        )
        for start in starts
    ]  # fmt: skip
    best = min(found, key=lambda one: float(one.cost))
    return best.x, -best.fun


def _power(p: Array, x: Array) -> tuple[Array, Array]:
    """p: log scale, exponent, floor. x: centred log sizes."""
    falling = np.exp(p[0] - p[1] * x)
    error = p[2] + falling
    return np.log(error), np.stack([falling, -x * falling, np.ones_like(x)], 1) / error[:, None]


def _m4(p: Array, x: Array) -> tuple[Array, Array]:
    """p: shift, exponent, log alpha, floor, chance. With s = (e - floor) / (chance - floor), the law reads
    log s - alpha log(1 - s) = shift - exponent * x; the derivatives are those of this implicit equation."""
    alpha, span = np.exp(p[2]), p[4] - p[3]
    u = _logit(p[0] - p[1] * x, alpha)
    s = special.expit(u)
    error = p[3] + span * s
    rise = span * s * (1 - s) / (1 - s + alpha * s)  # of the error, with the right side
    slopes = np.stack([rise, -x * rise, alpha * special.log_expit(-u) * rise, 1 - s, s], 1)
    return np.log(error), slopes / error[:, None]


def _logit(right: Array, alpha: float) -> Array:
    """u = log(s / (1 - s)) for log s - alpha log(1 - s) = right. The left side rises in u and is convex or
    concave, its slope between 1 and alpha, so Newton's steps reach it from anywhere."""
    u = np.where(right > 0, right / alpha, right)
    for _ in range(100):
        left = special.log_expit(u) - alpha * special.log_expit(-u)
        step = (left - right) / (1 + (alpha - 1) * special.expit(u))
        u = u - step
        if np.abs(step).max(initial=0) < 1e-12 * (1 + np.abs(u).max(initial=0)):
            break
    return u


def _predict_power(found: dict[str, float], x: Array) -> Array:
    return np.asarray(found["floor"] + np.exp(np.log(found["scale"]) - found["exponent"] * x))


def _predict_m4(found: dict[str, float], x: Array) -> Array:
    span = found["chance"] - found["floor"]
    right = np.log(found["scale"]) - found["exponent"] * x - (1 - found["alpha"]) * np.log(span)
    return np.asarray(found["floor"] + span * special.expit(_logit(right, found["alpha"])))


POWER_LAW, M4 = "power law with floor", "M4"
FORMULAE = {
    POWER_LAW: "error = floor + scale * examples^-exponent",
    M4: "(error - floor) / (chance - error)^alpha = scale * examples^-exponent",
}
PREDICT: dict[str, Callable[[dict[str, float], Array], Array]] = {POWER_LAW: _predict_power, M4: _predict_m4}
