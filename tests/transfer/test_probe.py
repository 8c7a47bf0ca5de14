"""The linear probe: scikit-learn's optimum, its certificate, the path over l2, SGD, nearest neighbours."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from hpcscale.files import Usage
from hpcscale.transfer import neighbours, objective, path
from hpcscale.transfer.probe import Fit, Goal, accuracy, fit, predict
from hpcscale.transfer.sgd import ROUND, _curvature, _epoch, fit_sgd

L2 = 1e-3
BEST = 0.2618645472171


def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    x, y = load_digits(return_X_y=True)
    return x / 16, y.astype(np.int64)


def made(n: int, d: int, k: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    y = np.concatenate([np.arange(k), random.integers(0, k, n - k)])
    x = random.normal(size=(k, d))[y] + random.normal(size=(n, d)) * np.linspace(0.3, 3, d) + 5
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit(*digits(), L2)


def test_row_40_the_probe_of_digits_is_the_global_optimum(fitted: Fit) -> None:
    """The figures on which three solvers of scikit-learn agree, each to its last printed digit."""
    assert fitted.converged
    assert round(fitted.objective, 10) == 0.2618645472
    assert round(fitted.weight_norm, 6) == 15.547594
    assert round(accuracy(fitted, *digits()), 6) == 0.978854
    assert fitted.gradient_norm <= 1e-8
    assert fitted.gap < 1e-12


def test_row_40_the_objective_is_that_of_the_formula(fitted: Fit) -> None:
    x, y = digits()
    z = x @ fitted.weights + fitted.bias
    loss = (np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]).mean() + L2 / 2 * (fitted.weights**2).sum()
    assert loss == pytest.approx(fitted.objective, abs=1e-13)


def test_weights_are_those_of_newton_cholesky() -> None:
    x, y = made(300, 12, 4)
    ours = fit(x, y, 1e-2)
    solver = LogisticRegression(C=1 / (1e-2 * len(x)), solver="newton-cholesky", tol=1e-10)
    theirs = solver.fit(x.astype(np.float64), y)
    np.testing.assert_allclose(ours.weights.T, theirs.coef_, atol=1e-6)
    bias = theirs.intercept_ - theirs.intercept_.mean()
    np.testing.assert_allclose(ours.bias, bias, atol=1e-5)


def test_every_start_leads_to_one_optimum(fitted: Fit) -> None:
    x, y = digits()
    random = np.random.default_rng(0)
    start = fitted._replace(weights=random.normal(size=(64, 10)), bias=random.normal(size=10))
    again = fit(x, y, L2, start)
    assert again.converged
    np.testing.assert_allclose(again.weights, fitted.weights, atol=1e-5)
    assert fit(x, y, L2, fitted).evaluations < 8


def test_much_regularisation_leaves_the_classes_shares() -> None:
    x, y = digits()
    found = fit(x, y, 1e8)
    assert found.weight_norm < 1e-6
    assert found.objective == pytest.approx(-sum(s * np.log(s) for s in np.bincount(y) / len(y)))


def test_the_gradient_is_that_of_finite_differences() -> None:
    x, y = made(40, 3, 4)
    given = objective.problem(torch.from_numpy(x), torch.from_numpy(y), 0.1)
    theta = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradient = objective.evaluate(given, theta).gradient
    for row in range(4):
        for column in range(4):
            step = torch.zeros_like(theta)
            step[row, column] = 1e-6
            up, down = (objective.evaluate(given, theta + sign * step).objective for sign in (1, -1))
            assert float(gradient[row, column]) == pytest.approx((up - down) / 2e-6, abs=1e-8)


def test_the_gap_is_never_below_the_truth(fitted: Fit) -> None:
    """At the optimum of W with a bias that is not optimal, and everywhere else."""
    x, y = digits()
    given = objective.problem(torch.from_numpy(x), torch.from_numpy(y), L2)
    best = torch.from_numpy(np.vstack([fitted.weights, fitted.bias]))
    best[-1] += given.mean @ best[:-1]
    random = torch.Generator().manual_seed(0)
    for size in (1e-6, 1e-4, 1e-2, 1.0):
        for rows in (slice(-1, None), slice(0, -1), slice(None)):
            theta = best.clone()
            theta[rows] += size * torch.randn(theta[rows].shape, dtype=torch.float64, generator=random)
            at = objective.evaluate(given, theta)
            assert objective.gap(given, at) >= at.objective - BEST - 1e-12


def test_the_gap_is_at_least_that_to_the_dual_problem() -> None:
    """By the formula of its derivation, with each row's a; also where the bias alone is wrong."""
    x, y = made(80, 3, 4)
    y[12:] = np.where(y[12:] == 3, 0, y[12:])  # a rare class
    random = torch.Generator().manual_seed(0)
    for l2 in (1e-2, 1.0, 1e4):
        given = objective.problem(torch.from_numpy(x), torch.from_numpy(y), l2)
        z, truth = torch.from_numpy(x).double() - given.mean, torch.eye(4, dtype=torch.float64)[y]
        for size in (1e-3, 0.1, 1.0) * 5:
            theta = size * torch.randn(4, 4, dtype=torch.float64, generator=random)
            theta[:-1] *= min(1.0, 1 / l2)
            at = objective.evaluate(given, theta)
            p = (z @ theta[:-1] + theta[-1]).softmax(1)
            excess = p.mean(0) - truth.mean(0)
            t = float((excess / p.mean(0)).max())  # the least for which q >= 0
            a = (1 - t) * p + t * (p.mean(0) - excess / t)
            dual = float(
                -torch.xlogy(a, a).sum(1).mean() - (z.T @ (truth - a) / 80).square().sum() / (2 * l2)
            )
            assert objective.gap(given, at) >= at.objective - dual - 1e-12


def test_the_number_of_threads_stays_as_it_is() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit(*made(30, 3, 3), 1e-2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_fewer_rows_than_columns_and_labels_with_holes() -> None:
    x, y = made(30, 50, 3)
    found = fit(x, y * 7 + 2, 1e-2)
    assert found.converged
    assert found.classes.tolist() == [2, 9, 16]
    same = fit(np.vstack([x, x]), np.hstack([y, y]) * 7 + 2, 1e-2)  # now more rows than columns
    np.testing.assert_allclose(found.weights, same.weights, atol=1e-6)
    assert set(predict(found, x)) <= {2, 9, 16}


def test_what_was_not_reached_is_not_claimed() -> None:
    found = fit(*digits(), L2, goal=Goal(most=12))
    assert not found.converged
    assert found.gradient_norm > 1e-8
    assert found.gap >= found.objective - BEST


def test_problems_without_an_optimum_are_refused() -> None:
    x, y = digits()
    for features, labels, l2, message in [
        (x, y, 0.0, "l2 must be above 0"),
        (x, np.zeros_like(y), L2, "at least two classes, found 1"),
        (x, y[:5], L2, "expected"),
    ]:
        with pytest.raises(Usage, match=message):
            fit(features, labels, l2)


def test_the_path_takes_the_larger_l2_of_equals_and_fits_it_to_all() -> None:
    x, y = digits()
    out = path.held_out(y, 0.2, 1)
    assert [int((out & (y == c)).sum()) for c in range(10)] == [round(0.2 * n) for n in np.bincount(y)]
    chosen = path.choose(x, y, [1e-3, 1e5, 1e6, 1e-1], out)
    assert [one.l2 for one, _ in chosen.tried] == [1e6, 1e5, 1e-1, 1e-3]
    shares = [share for _, share in chosen.tried]
    assert shares == [accuracy(one, x[out], y[out]) for one, _ in chosen.tried]
    assert chosen.probe.l2 == [1e6, 1e5, 1e-1, 1e-3][int(np.argmax(shares))]
    assert path.choose(x, y, [1e5, 1e6], out).probe.l2 == 1e6
    assert chosen.probe.objective == pytest.approx(fit(x, y, chosen.probe.l2).objective, abs=1e-12)


def test_row_40_sgd_comes_within_a_ten_thousandth_by_its_seed() -> None:
    """On some digits, in several rounds; the figure is scikit-learn's too."""
    x, y = (each[:500] for each in digits())
    found, short = fit_sgd(x, y, 1e-2, seed=1), fit_sgd(x, y, 1e-2, 1, Goal(most=1))
    assert found.converged
    assert 0 <= found.objective - 0.651814178113 <= found.gap <= 1e-4
    assert found.evaluations > 2 * ROUND
    assert (short.evaluations, short.converged) == (ROUND, False)
    assert short.objective == fit_sgd(x, y, 1e-2, 1, Goal(most=1)).objective
    assert short.objective != fit_sgd(x, y, 1e-2, 2, Goal(most=1)).objective


def test_sgd_steps_by_nesterovs_rule_and_averages() -> None:
    """Two steps by hand: minibatches in their order, momentum, l2 of W alone, the mean over steps."""
    x, y = made(256, 3, 3)
    given = objective.problem(torch.from_numpy(x), torch.from_numpy(y), 0.1)
    random = torch.Generator().manual_seed(0)
    theta = torch.randn(4, 3, dtype=torch.float64, generator=random)
    order, velocity, rate = torch.randperm(256, generator=random), torch.zeros_like(theta), 0.02
    wanted, mean, speed = theta.clone(), torch.zeros_like(theta), torch.zeros_like(theta)
    for rows in (order[:128], order[128:]):
        z = torch.from_numpy(x)[rows].double() - given.mean
        errors = (z @ wanted[:-1] + wanted[-1]).softmax(1) - torch.eye(3)[given.y[rows]]
        gradient = torch.vstack([z.T @ errors, errors.sum(0)]) / 128
        gradient[:-1] += 0.1 * wanted[:-1]
        speed = 0.9 * speed + gradient
        wanted = wanted - rate * (gradient + 0.9 * speed)
        mean += wanted / 2
    found = _epoch(given, theta, velocity, rate, order)
    torch.testing.assert_close(theta, wanted, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(velocity, speed, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-14)
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    assert _curvature(given) == pytest.approx(
        max(1, np.linalg.eigvalsh(np.cov(centred.T, bias=True))[-1]) / 2
    )


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_those_of_scikit_learn(k: int) -> None:
    x, y = digits()
    train, test = x[:1000], x[1000:]
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train, y[:1000]).predict(test)
    ours = neighbours.predict(train, y[:1000], test, k)
    assert (ours != theirs).mean() < (0.001 if k == 1 else 0.02)  # they break ties by the lowest label


def test_ties_of_votes_go_to_the_nearest() -> None:
    x = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    y = np.array([3, 1, 2, 0])
    asked = np.array([[1, 0.01], [0.01, 1]])
    assert neighbours.predict(x, y, asked, 2).tolist() == [3, 2]
    assert neighbours.predict(x, y, None, 1).tolist() == [1, 3, 0, 2]
    assert neighbours.predict(x, np.array([3, 1, 1, 0]), asked[:1], 3, "cosine").tolist() == [3]
    assert neighbours.predict(x, np.array([3, 1, 1, 0]), asked[:1], 4, "equal").tolist() == [1]
    with pytest.raises(Usage, match="from 1 to the 3"):
        neighbours.predict(x, y, None, 4)


def test_a_vote_is_worth_exp_of_the_cosine_over_0_07() -> None:
    """Two at a cosine outvote one at 1 from 1 - 0.07 ln 2 = 0.9515 on."""
    for cosine, label in ((0.945, 4), (0.958, 2)):
        far = [cosine, (1 - cosine**2) ** 0.5]
        x = np.array([[1.0, 0.0], far, far])
        found = neighbours.predict(x, np.array([4, 2, 2]), x[:1], 3, "cosine")
        assert found.tolist() == [label]


def test_neighbours_do_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (each[:300] for each in digits())
    whole = neighbours.predict(x, y, None, 3)
    monkeypatch.setattr(neighbours, "QUERIES", 70)
    monkeypatch.setattr("hpcscale.dedup.cosine.FLOATS", 64 * 41)
    assert np.array_equal(neighbours.predict(x, y, None, 3), whole)


def test_what_is_held_out_is_never_all_of_a_class_and_is_of_the_seed() -> None:
    y = np.repeat([0, 1, 2], [1, 2, 40])
    out = path.held_out(y, 0.9, 1)
    assert [int(out[y == c].sum()) for c in range(3)] == [0, 1, 36]
    assert (out == path.held_out(y, 0.9, 1)).all()
    assert (out != path.held_out(y, 0.9, 2)).any()
