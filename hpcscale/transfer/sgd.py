"""The probe by stochastic gradient descent, as Mahajan et al. 2018, section 3, trained it: "until convergence".

Minibatches in a seeded order, Nesterov's momentum of 0.9. The learning rate begins at 1 / L, L the bound
(Böhning 1992) of the Hessian's largest eigenvalue, and is halved whenever `ROUND` epochs have not lessened the
objective. It ends as `fit` does, by the gradient's norm or the gap, both of the whole objective in float64.
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
ROUND = 10  # epochs between two looks at the objective
USUAL = Goal(gap=1e-4, most=2000)  # most: epochs


def fit_sgd(
    x: Features, y: Labels, l2: float, seed: int = 0, goal: Goal = USUAL, progress: Progress = none
) -> Fit:
    """As `probe.fit`, by SGD; a function of the seed. Where the goal is not reached `converged` is False."""
    given, classes = posed(x, y, l2)
    theta = torch.zeros(x.shape[1] + 1, len(classes), dtype=torch.float64)
    velocity, random = torch.zeros_like(theta), np.random.default_rng(seed)
    with threads(x.size * len(classes)):
        rate, at, epochs = 1 / (_curvature(given) + l2), evaluate(given, theta), 0
        while epochs < goal.most and at.norm > goal.norm and objective.gap(given, at) > goal.gap:
            for _ in range(ROUND):
                _epoch(given, theta, velocity, rate, torch.from_numpy(random.permutation(len(x))))
            epochs += ROUND
            progress("epochs", epochs, goal.most)
            before, at = at.objective, evaluate(given, theta)
            if not at.objective < before:
                rate /= 2
        return result(given, objective.settle(given, at), classes, epochs, goal)


def _epoch(given: Problem, theta: Tensor, velocity: Tensor, rate: float, order: Tensor) -> None:
    """Each row once, in this order; changes theta and velocity (d + 1, k)."""
    for rows in order.split(BATCH):
        x, labels = given.x[rows].double() - given.mean, given.y[rows, None]
        errors = torch.addmm(theta[-1], x, theta[:-1]).softmax(1)
        errors.scatter_add_(1, labels, torch.full_like(errors[:, :1], -1))
        gradient = torch.vstack([x.T @ errors, errors.sum(0)]) / len(rows)
        gradient[:-1] += given.l2 * theta[:-1]
        velocity.mul_(MOMENTUM).add_(gradient)
        theta.sub_(rate * (gradient + MOMENTUM * velocity))


def _curvature(given: Problem) -> float:
    """Half of the largest eigenvalue of the covariance of (x, 1)."""
    total = torch.zeros(given.x.shape[1], given.x.shape[1], dtype=torch.float64)
    for rows in objective.blocks(*given.x.shape):
        x = centred(given, rows, torch.float64)
        total += x.T @ x
    return max(1.0, float(torch.linalg.eigvalsh(total / len(given.x))[-1])) / 2
