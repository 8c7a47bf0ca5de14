"""Linear probes of made-up features to one certified gap, against scikit-learn and cyanure.

`python -m benchmarks.probe N D CLASSES` takes another size than the default, such as 50000 2048 1000. A peer
is given the loosest of its tolerances at which the gap, by our certificate, is at most `GAP`; one that
reaches it with none is named, with the gap that it reached.
"""

import sys
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.harness import interleave, table
from hpcscale.transfer import objective
from hpcscale.transfer.probe import Goal, fit

SIZE = (3000, 128, 30)
L2, GAP = 1e-4, 1e-6
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
SECONDS = 600  # a solver that has taken so long is not tried with a finer tolerance


def run(size=SIZE) -> str:
    x, y = features(*size)
    given = objective.problem(torch.from_numpy(x), torch.from_numpy(y), L2)
    functions = {"hpcscale": lambda: fit(x, y, L2, goal=Goal(gap=GAP))}
    notes = [f"{size[0]:,} x {size[1]:,}, {size[2]:,} classes, l2 {L2:g}, gap at most {GAP:g}"]
    ours = functions["hpcscale"]()
    notes.append(
        f"hpcscale: gap {ours.gap:.2g} after {ours.evaluations} gradients, converged: {ours.converged}"
    )
    for name, solve in peers(x, y).items():
        for tolerance in TOLERANCES:
            start = time.perf_counter()
            found = gap(given, *solve(tolerance))
            seconds = time.perf_counter() - start
            if found <= GAP or seconds > SECONDS:
                break
        notes.append(f"{name}: tolerance {tolerance:g}, gap {found:.2g} in {seconds:.1f} s")
        if found <= GAP:
            functions[name] = lambda solve=solve, tolerance=tolerance: solve(tolerance)
    rates = interleave(functions, size[0], repeats=3)
    return table("Linear probe", "rows", rates, notes)


def features(n, d, classes):
    """Rectified, correlated features (n, d) float32 of classes that overlap, and labels (n,)."""
    random = np.random.default_rng(0)
    y = np.concatenate([np.arange(classes), random.integers(0, classes, n - classes)])
    k = min(d, 128)
    hidden = random.normal(size=(classes, k))[y] + 2.5 * random.normal(size=(n, k))
    mixed = hidden @ (random.normal(size=(k, d)) * (np.arange(1, k + 1) ** -0.5)[:, None])
    return np.maximum(0.3 * mixed + 0.5 * random.normal(size=(n, d)), 0).astype(np.float32), y


def peers(x, y):
    """Functions of a tolerance that return weights (d, k) and bias (k,)."""
    found = {}
    for name in ("lbfgs", "newton-cg", "newton-cholesky"):
        if name != "newton-cholesky" or x.shape[1] * (y.max() + 1) <= 5000:  # its Hessian is dense
            found[f"scikit-learn: {name}"] = _sklearn(x, y, name)
    try:
        from cyanure.estimators import Classifier
    except ModuleNotFoundError:
        return found

    def cyanure(tolerance):
        model = Classifier(
            loss="multiclass-logistic",
            penalty="l2",
            lambda_1=L2,
            tol=tolerance,
            max_iter=2000,
            fit_intercept=True,
            verbose=False,
        )
        model.fit(x, y)
        weights = np.asarray(model.coef_, np.float64)
        return (weights if len(weights) == x.shape[1] else weights.T), np.ravel(model.intercept_)

    return found | {"cyanure": cyanure}


def _sklearn(x, y, solver):
    def solve(tolerance):
        model = LogisticRegression(C=1 / (L2 * len(x)), solver=solver, tol=tolerance, max_iter=5000).fit(x, y)
        return model.coef_.T, model.intercept_

    return solve


def gap(given, weights, bias):
    """The certified gap of a peer's probe; b is settled first, which only helps it."""
    theta = torch.from_numpy(np.vstack([weights, bias]).astype(np.float64))
    theta[-1] += given.mean @ theta[:-1]
    at = objective.evaluate(given, theta)
    return min(objective.gap(given, at), objective.gap(given, objective.settle(given, at)))


if __name__ == "__main__":
    print(run(tuple(map(int, sys.argv[1:])) or SIZE))
