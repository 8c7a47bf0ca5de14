"""The probe by stochastic gradient descent, as in Mahajan et al. 2018, section 3.

Minibatches in a seeded order, Nesterov's momentum of 0.9. The learning rate begins at 1 / L, L the bound
(Böhning 1992) of the largest eigenvalue of the Hessian. Each round has half the rate of the one before and
twice the epochs, which is the decay by 1 / t of Robbins and Monro 1951; its result is the mean of the weights
over it (Polyak and Juditsky 1992). It ends as `fit` does, by the gradient's norm or the gap, both of the
whole objective in float64.
"""

import numpy as np
import torch
from torch import Tensor

from hpcscale.progress import Progress, none
from hpcscale.transfer import objective
from hpcscale.transfer.objective import Problem, centred, evaluate
from hpcscale.transfer.probe import Features, Fit, Goal, Labels, posed, result, threads

MOMENTUM = 0.9
BATCH = 128
ROUND = 10  # epochs of the first round
USUAL = Goal(gap=1e-4, most=2000)  # most: epochs, after which no round begins


def fit_sgd(
    x: Features, y: Labels, l2: float, seed: int = 0, goal: Goal = USUAL, progress: Progress = none
) -> Fit:
    """As `probe.fit`, by SGD; a function of the seed. Where the goal is not reached `converged` is False."""
    given, classes = posed(x, y, l2)
    theta = torch.zeros(x.shape[1] + 1, len(classes), dtype=torch.float64)
    velocity, random = torch.zeros_like(theta), np.random.default_rng(seed)
    with threads(x.size * len(classes)):
        rate, at, epochs, length = 1 / (_curvature(given) + l2), evaluate(given, theta), 0, ROUND
        while epochs < goal.most and at.norm > goal.norm and objective.gap(given, at) > goal.gap:
            mean = torch.zeros_like(theta)
            for _ in range(length):
                order = torch.from_numpy(random.permutation(len(x)))
                mean += _epoch(given, theta, velocity, rate, order) / length
                epochs += 1
                progress("epochs", epochs, None)
            at, rate, length = objective.settle(given, evaluate(given, mean)), rate / 2, length * 2
        return result(given, at, classes, epochs, goal)


def _epoch(given: Problem, theta: Tensor, velocity: Tensor, rate: float, order: Tensor) -> Tensor:
    """Each row once, in this order; changes theta and velocity (d + 1, k). Returns theta's mean."""
    mean, steps = torch.zeros_like(theta), torch.split(order, BATCH)
    for rows in steps:
        x, labels = given.x[rows].double() - given.mean, given.y[rows, None]
        errors = torch.addmm(theta[-1], x, theta[:-1]).softmax(1)
        errors.scatter_add_(1, labels, torch.full_like(errors[:, :1], -1))
        gradient = torch.vstack([x.T @ errors, errors.sum(0)]) / len(rows)
        gradient[:-1] += given.l2 * theta[:-1]
        velocity.mul_(MOMENTUM).add_(gradient)
        theta.sub_(rate * (gradient + MOMENTUM * velocity))
        mean += theta / len(steps)
    return mean


def _curvature(given: Problem) -> float:
    """Half of the largest eigenvalue of the covariance of (x, 1)."""
    total = torch.zeros(given.x.shape[1], given.x.shape[1], dtype=torch.float64)
    for rows in objective.blocks(*given.x.shape):
        x = centred(given, rows, torch.float64)
        total += x.T @ x
    return max(1.0, float(torch.linalg.eigvalsh(total / len(given.x))[-1])) / 2
