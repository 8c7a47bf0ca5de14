"""Linear probes of made-up features to one certified gap, against scikit-learn and cyanure.

A peer is given the loosest of its tolerances at which the gap, by our certificate, is at most `GAP`; one that
reaches it with none is named, with the gap that it reached.

`python -m benchmarks.probe N D CLASSES`, such as 50000 2048 1000, is for sizes at which a solver takes
minutes: each in a process of its own, once, whose memory beside the features is measured too; ours first, and
a peer is ended after `PATIENCE` times our seconds.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.harness import interleave, table
from hpcscale.transfer import objective
from hpcscale.transfer.probe import Goal, fit

SIZE = (3000, 128, 30)
L2, GAP = 1e-4, 1e-6
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
PATIENCE = 2


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
            if (found := gap(given, *solve(tolerance))) <= GAP:
                break
        notes.append(f"{name}: tolerance {tolerance:g}, gap {found:.2g}")
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


def large(size) -> str:
    """A table of seconds, CPU seconds, gaps, and memory as a multiple of the features."""
    x, y = features(*size)
    lines = [
        "## Linear probe, {:,} x {:,}, {:,} classes, l2 {:g}".format(*size, L2),
        "",
        "| | tolerance | gap | s | CPU s | memory beside the features / features |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    limit = None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npz"
        np.savez(file, x=x, y=y)
        for name in ("hpcscale", *peers(x[:1], y)):
            start = time.monotonic()
            rows, ended = _process(file, name, limit)
            taken = time.monotonic() - start
            limit = limit or PATIENCE * taken
            lines += [f"| {name} | " + " | ".join(f"{value:.3g}" for value in row) + " |" for row in rows]
            lines += [f"| {name} | ended | | {taken:.3g} | | |"] * ended
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def _process(file, name, limit):
    """Rows of a solver in a process of its own, and whether it was ended after `limit` seconds."""
    command = [sys.executable, "-m", "benchmarks.probe", str(file), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(limit or 1e6, process.kill)
        watch.start()
        rows = [json.loads(line) for line in process.stdout]
        watch.cancel()
    return rows, process.returncode != 0


def alone(file, name) -> None:
    """One solver, in this process: a line of JSON for each tolerance, until the gap is reached:
    [tolerance, gap, seconds, CPU seconds, memory]."""
    with np.load(file) as stored:
        x, y = stored["x"], stored["y"]
    given = objective.problem(torch.from_numpy(x), torch.from_numpy(y), L2)

    def ours(tolerance):
        found = fit(x, y, L2, goal=Goal(gap=tolerance))
        return found.weights, found.bias

    solve, tolerances = (ours, (GAP,)) if name == "hpcscale" else (peers(x, y)[name], TOLERANCES)
    for tolerance in tolerances:
        before, start, cpu = _peak(reset=True), time.perf_counter(), time.process_time()
        weights = solve(tolerance)
        taken = time.perf_counter() - start, time.process_time() - cpu
        memory = (_peak() - before) / x.nbytes
        found = gap(given, *weights)
        print(json.dumps([tolerance, found, *taken, memory]), flush=True)
        if found <= GAP:
            return


def _peak(reset=False) -> int:
    """Bytes of memory of this process: the most since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].endswith(".npz"):
        alone(*sys.argv[1:])
    else:
        print(large(tuple(map(int, sys.argv[1:]))) if sys.argv[1:] else run())
