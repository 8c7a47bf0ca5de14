"""Linear probe: L2-regularised multinomial logistic regression on features, to the global optimum.

Mahajan et al. 2018, section 3, train it "until convergence to the global optimum". The objective
(objective.py) is the mean cross-entropy plus l2/2 ||W||^2 with a free bias, so W is unique, and b is up to a
shift. `fit` says how near it came: the gradient's norm, and a bound of the objective's gap.

The solver is L-BFGS (Nocedal and Wright 2006, algorithm 7.4). Its first matrix is the inverse of the blocks
of the Hessian at W = 0, with b at the logarithms of the classes' shares s: s_c (1 - s_c) C + l2 I for class
c, C the covariance of x, scaled as Shanno and Phua 1978 do. That takes away most of what scales and
correlations of features cost; what it leaves of a thousandfold difference, or of fewer rows than columns, can
still be thousands of evaluations. First products are float32; where these say no more, and for all that is
returned, float64.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcscale.files import Usage
from hpcscale.progress import Progress, none
from hpcscale.transfer import objective
from hpcscale.transfer.objective import Point, Problem, blocks, centred, evaluate

TOLERANCE = 1e-8  # of the gradient's norm
PAIRS = 10  # steps that L-BFGS remembers
MOST = 2000  # evaluations of the gradient
COARSE = 1e-5  # of the gradient's norm at W = 0: below it float32 products are not trusted
SMALL = 1 << 26  # products of an evaluation that one thread does alone
OVERSHOT = 0.9  # a step is too long where the slope at its end is this share of that at its start, upwards

Features = NDArray[np.floating]
Labels = NDArray[np.integer]


class Fit(NamedTuple):
    """A fitted probe."""

    weights: NDArray[np.float64]  # (d, k)
    bias: NDArray[np.float64]  # (k,), of mean 0
    classes: NDArray[np.int64]  # (k,), ascending: the label of each column
    l2: float
    objective: float
    gradient_norm: float  # of W and b, float64
    gap: float  # the objective is at most so much above its minimum
    weight_norm: float
    evaluations: int  # of the gradient; of SGD, epochs
    converged: bool  # whether the gradient's norm, or the gap, is what was asked for


@contextmanager
def threads(products: int) -> Iterator[None]:
    """Within, torch computes in one thread where there are few products: waiting would cost more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if products < SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Goal(NamedTuple):
    """When a solver has done enough: at the first of these."""

    norm: float = TOLERANCE  # of the gradient
    gap: float = 0.0
    most: int = MOST


def fit(
    x: Features,
    y: Labels,
    l2: float,
    start: Fit | None = None,
    goal: Goal = Goal(),  # noqa: B008 - cannot be changed
    progress: Progress = none,
) -> Fit:
    """The probe of x (n, d) floating and y (n,) integer, which need not be 0, 1, 2...; at least two classes.

    start: a probe of the same classes from which to begin. Memory beside x: 2 PAIRS + about 10 times W, the
    pairs in float32. Where the goal is not reached, `converged` is False and the other fields say what was.
    Raises Usage.
    """
    given, classes = posed(x, y, l2)
    with threads(x.size * len(classes)):
        return _fit(given, classes, start, goal, progress)


def _fit(
    given: Problem, classes: NDArray[np.int64], start: Fit | None, goal: Goal, progress: Progress
) -> Fit:
    theta = torch.zeros(given.x.shape[1] + 1, len(classes), dtype=torch.float64)
    theta[-1] = given.shares.log()
    if start is not None:
        shape = given.x.shape[1], len(classes)
        if start.weights.shape != shape:
            raise Usage(f"start: a probe of shape {start.weights.shape}, not {shape}")
        theta = torch.from_numpy(np.vstack([start.weights, start.bias]))
        theta[-1] += given.mean @ theta[:-1]
    at, evaluations = _descend(given, theta, goal, progress)
    return result(given, at, classes, evaluations, goal)


def scores(probe: Fit, x: Features) -> NDArray[np.float64]:
    """Logits  # (n, k)"""
    parts = [x[rows].astype(np.float64) @ probe.weights + probe.bias for rows in blocks(len(x), x.shape[1])]
    return np.concatenate([np.empty((0, len(probe.classes))), *parts])


def predict(probe: Fit, x: Features) -> NDArray[np.int64]:
    """The label of the highest logit of each row; of equal ones, the lowest label  # (n,)"""
    pieces = blocks(len(x), max(x.shape[1], len(probe.classes)))
    best = [scores(probe, x[rows]).argmax(1) for rows in pieces]
    found: NDArray[np.int64] = probe.classes[np.concatenate([np.empty(0, np.int64), *best])]
    return found


def accuracy(probe: Fit, x: Features, y: Labels) -> float:
    """Share of rows whose label is predicted; a label that the probe has never seen is never predicted."""
    return float((predict(probe, x) == y).mean())


def posed(x: Features, y: Labels, l2: float) -> tuple[Problem, NDArray[np.int64]]:
    """The problem, and its classes. Raises Usage for what has no optimum."""
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise Usage(f"features {x.shape} and labels {y.shape}, expected (n, d) and (n,)")
    if not (math.isfinite(l2) and l2 > 0):
        raise Usage(f"l2 must be above 0, found {l2}: without it there may be no optimum")
    classes, numbers = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise Usage(f"a probe needs at least two classes, found {len(classes)}")
    features = torch.from_numpy(np.ascontiguousarray(x))
    given = objective.problem(features, torch.from_numpy(numbers.astype(np.int64)), l2)
    return given, classes.astype(np.int64)


def result(given: Problem, at: Point, classes: NDArray[np.int64], evaluations: int, goal: Goal) -> Fit:
    """at: evaluated in float64."""
    weights, found = at.theta[:-1], objective.gap(given, at)
    bias = at.theta[-1] - given.mean @ weights
    return Fit(
        weights.numpy(), (bias - bias.mean()).numpy(), classes, given.l2, at.objective, at.norm, found,
        float(weights.norm()), evaluations, at.norm <= goal.norm or found <= goal.gap,
    )  # fmt: skip


def _descend(given: Problem, theta: Tensor, goal: Goal, progress: Progress) -> tuple[Point, int]:
    """L-BFGS. Returns the last point, evaluated in float64, and the number of evaluations."""
    precondition = _preconditioner(given)
    pairs: list[tuple[Tensor, Tensor, float]] = []
    dtype, count = torch.float32, 1
    at = evaluate(given, theta, dtype)
    enough = max(goal.norm, COARSE * float(given.sums.norm()), math.sqrt(2 * given.l2 * goal.gap) / 2)
    while True:
        progress("probe", count, None)
        if dtype == torch.float32 and not at.norm > enough:  # not a number is not above either
            dtype, count = torch.float64, count + 1
            at = evaluate(given, at.theta, dtype)
        if dtype == torch.float64 and (at.norm <= goal.norm or _near(given, at, goal)):
            settled, count = objective.settle(given, at), count + 2
            if settled.norm <= goal.norm or objective.gap(given, settled) <= goal.gap:
                return settled, count
        if not math.isfinite(at.norm):
            raise Usage("the features are too large: the gradient is not a number; scale them")
        direction = _direction(at.gradient, pairs, precondition)
        reached, tried = _step(given, at, direction, dtype)
        count += tried
        if reached is None or count >= goal.most:
            if dtype == torch.float64:
                return reached or at, count
            enough = math.inf  # float32 finds no way down
        if reached is not None:
            step, change = reached.theta - at.theta, reached.gradient - at.gradient
            step, change = (each / change.norm() for each in (step, change))  # else float32 would underflow
            if (product := float((step * change).sum())) > 0:
                pairs = [*pairs, (step.float(), change.float(), product)][-PAIRS:]
            at = reached


def _near(given: Problem, at: Point, goal: Goal) -> bool:
    """Whether the gap would be small enough if b were optimal."""
    return float(at.gradient[:-1].square().sum()) <= 2 * given.l2 * goal.gap


def _step(given: Problem, at: Point, direction: Tensor, dtype: torch.dtype) -> tuple[Point | None, int]:
    """A point along the direction at which J does not rise too steeply again, and how many were tried.

    J is convex, so a step that ends on a slope downwards has lessened it. One that went too far is cut to
    where the slope would be 0 if it were linear. None: the direction does not lead down by this precision.
    """
    slope, length = float((direction * at.gradient).sum()), 1.0
    if not slope < 0:
        return None, 0
    for tried in range(1, 30):
        reached = evaluate(given, at.theta + length * direction, dtype)
        after = float((direction * reached.gradient).sum())
        if after <= OVERSHOT * -slope and reached.objective <= at.objective * (1 + 1e-6):
            return reached, tried
        length *= max(0.1, -slope / (after - slope)) if math.isfinite(after) and after > 0 else 0.1
    return None, tried


def _direction(gradient: Tensor, pairs: Sequence[tuple[Tensor, Tensor, float]],
               precondition: Callable[[Tensor], Tensor]) -> Tensor:  # fmt: skip
    """Minus the gradient times the inverse of the Hessian, as the pairs know it  # (d + 1, k) float64"""
    size = float(gradient.abs().max()) or 1.0
    left, shares = (gradient / size).float(), []  # a direction needs no more than float32
    for step, change, product in reversed(pairs):
        shares.append(float((step * left).sum()) / product)
        left -= shares[-1] * change
    left = precondition(left)
    if pairs:
        _, change, product = pairs[-1]
        left *= product / float((change * precondition(change)).sum())
    for (step, change, product), share in zip(pairs, reversed(shares), strict=True):
        left += (share - float((change * left).sum()) / product) * step
    return left.double() * -size


def _preconditioner(given: Problem) -> Callable[[Tensor], Tensor]:
    """Solves with the Hessian's blocks at W = 0: of class c, s (1 - s) C + l2 I, and s (1 - s) for the bias.

    By the eigenvectors of C, which are computed in d or n dimensions, whichever is less.
    """
    n, d = given.x.shape
    share = (given.shares * (1 - given.shares)).float()
    vectors, values = _eigen(given) if d <= n else _eigen_of_few(given)
    inverse = 1 / (values[:, None] * share + given.l2)

    def solve(right: Tensor) -> Tensor:
        solved, parts = right / share, vectors.T @ right[:-1]
        solved[:-1] = vectors @ (inverse * parts)
        if d > n:  # what no eigenvector has; otherwise this would be rounding
            solved[:-1] += (right[:-1] - vectors @ parts) / given.l2
        return solved

    return solve


def _eigen(given: Problem) -> tuple[Tensor, Tensor]:
    """Of the covariance of x: eigenvectors (d, d), eigenvalues (d,), both float32."""
    n, d = given.x.shape
    total = torch.zeros(d, d, dtype=torch.float64)
    for rows in blocks(n, d):
        x = centred(given, rows, torch.float32)
        total += x.T @ x
    values, vectors = torch.linalg.eigh(total / n)
    return vectors.float(), values.clamp(min=0).float()


def _eigen_of_few(given: Problem) -> tuple[Tensor, Tensor]:
    """As `_eigen` for fewer rows than columns: eigenvectors (d, r) of those values that are not 0."""
    x = centred(given, slice(None), torch.float64)
    values, vectors = torch.linalg.eigh(x @ x.T / len(x))
    kept = values > values[-1] * 1e-10
    found = x.T @ vectors[:, kept]
    return (found / found.norm(dim=0)).float(), values[kept].float()
