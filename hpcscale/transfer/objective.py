"""The objective of a linear probe, its gradient, and a certificate of how far a point is from the optimum.

For features x (n, d), labels y in [0, k) and theta (d + 1, k), whose last row is the bias b and whose others
are W:

    J(W, b) = 1/n sum_i [lse(z_i) - z_i[y_i]] + l2/2 ||W||^2        z_i = (x_i - mean of x) W + b

b is free (not regularised), so taking the mean away only shifts it: the optimum is that of x itself. Products
are done in blocks of rows, each converted to the wanted precision, so nothing of the size of x is made.

The certificate is the gap to the dual problem, which is right at every (W, b), whether b is optimal or not.
For any a_i in the simplex lse(z) >= a_i z + H(a_i). With a whose mean over i is that of the labels, b falls
out of the bound, and what is left is minimal at W = A / l2, A = 1/n sum x_i (y_i - a_i)^T:

    J* >= 1/n sum_i H(a_i) - ||A||^2 / (2 l2)

With p_i = softmax(z_i) and e = mean(p) - mean(y), the gradient by b, take a_i = (1 - t) p_i + t q, where
q = mean(p) - e / t and t is the least number for which q >= 0. H is concave and at most log k, so

    J - J* <= ||dJ/dW - D||^2 / (2 l2) + <W, D> + <e, b> + t log k        D = t 1/n sum_i x_i (p_i - q)^T

Here x is without its mean, so q falls out of D. Where e = 0 this is ||dJ/dW||^2 / (2 l2), what strong
convexity in W gives after a minimisation by b; t is about ||e|| over the share of the rarest class. No term
is a difference of large numbers, so the bound holds but for the rounding of the gradient itself.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 1 << 22  # numbers of a block of features, and of its logits


class Problem(NamedTuple):
    """What a probe is fitted to."""

    x: Tensor  # (n, d) of any floating dtype
    y: Tensor  # (n,) int64 in [0, k); each class is there
    l2: float  # > 0
    mean: Tensor  # (d,) float64
    shares: Tensor  # (k,) float64, of the classes; their sum is 1
    sums: Tensor  # (d, k) float64: 1/n sum_i x_i y_i^T, x without its mean


class Point(NamedTuple):
    """Objective and gradient at some theta, in float64 whatever the products were."""

    theta: Tensor  # (d + 1, k) float64
    objective: float
    gradient: Tensor  # (d + 1, k) float64; the last row is by b
    norm: float  # of the gradient


def problem(x: Tensor, y: Tensor, l2: float) -> Problem:
    """x (n, d) floating, y (n,) int64 in [0, k), each class there. x is not copied."""
    (n, d), shares = x.shape, torch.bincount(y).double() / len(y)
    sums = torch.zeros(len(shares), d, dtype=torch.float64)
    for rows in blocks(n, d):
        sums.index_add_(0, y[rows], x[rows].double())
    mean = sums.sum(0) / n
    return Problem(x, y, l2, mean, shares, (sums / n - torch.outer(shares, mean)).T.contiguous())


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Rows in pieces of at most `BLOCK` numbers of this width."""
    step = max(1, BLOCK // width)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def centred(given: Problem, rows: slice, dtype: torch.dtype) -> Tensor:
    """These rows of x without the mean  # (rows, d)"""
    return given.x[rows].to(dtype, copy=True).sub_(given.mean.to(dtype))


def evaluate(given: Problem, theta: Tensor, dtype: torch.dtype = torch.float64) -> Point:
    """J and its gradient at theta (d + 1, k) float64. dtype: of products; sums over blocks are float64."""
    (n, d), k = given.x.shape, theta.shape[1]
    weights, bias = theta[:-1].to(dtype), theta[-1].to(dtype)
    gradient, loss = torch.zeros(d + 1, k, dtype=torch.float64), 0.0
    for rows in blocks(n, max(d, k)):
        x, labels = centred(given, rows, dtype), given.y[rows, None]
        scores = torch.addmm(bias, x, weights)
        scores -= scores.amax(1, keepdim=True)
        true = scores.gather(1, labels)
        sums = scores.exp_().sum(1, keepdim=True)
        loss += float((sums.log() - true).double().sum())
        scores /= sums
        scores.scatter_add_(1, labels, torch.full_like(true, -1))
        gradient[:-1] += x.T @ scores
        gradient[-1] += scores.sum(0, dtype=torch.float64)
    gradient /= n
    gradient[:-1] += given.l2 * theta[:-1]
    objective = loss / n + given.l2 / 2 * float(theta[:-1].square().sum())
    return Point(theta, objective, gradient, float(gradient.norm()))


def settle(given: Problem, at: Point) -> Point:
    """The point after a step of Newton's by b alone, near the optimum: then dJ/db is 0 but for rounding.

    Not taken where the Hessian by b (k, k) would need more memory than x.
    """
    d, k = at.theta[:-1].shape
    if k * k > given.x.numel():
        return at
    products = torch.zeros(k, k, dtype=torch.float64)
    for rows in blocks(len(given.x), max(d, k)):
        p = torch.addmm(at.theta[-1], centred(given, rows, torch.float64), at.theta[:-1]).softmax(1)
        products += p.T @ p
    hessian = torch.diag(at.gradient[-1] + given.shares) - products / len(given.x)
    # Its null space are the shifts of b, along which there is no gradient: any curvature there will do.
    hessian += hessian.diagonal().mean() / k
    theta = at.theta.clone()
    theta[-1] -= torch.linalg.solve(hessian, at.gradient[-1])
    reached = evaluate(given, theta)
    return reached if reached.norm <= 2 * at.norm else at


def gap(given: Problem, at: Point) -> float:
    """The most by which J at a point, evaluated in float64, can be above its minimum; see the file's head."""
    weights, excess = at.theta[:-1], at.gradient[-1]
    moments = at.gradient[:-1] - given.l2 * weights + given.sums
    t = float((excess / (excess + given.shares)).clamp(min=0).max())
    bias = at.theta[-1] - at.theta[-1].mean()  # the excess sums to 0, so a shift of b is nothing
    distance = float((at.gradient[:-1] - t * moments).square().sum()) / (2 * given.l2)
    rest = t * float((weights * moments).sum()) + float(excess @ bias) + t * math.log(len(given.shares))
    return distance + abs(rest)
