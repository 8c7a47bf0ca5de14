"""The papers' line with its deviations, the power law with a floor, and M4: recovered, and fitted rightly."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from hpcscale.study import fits

SIZES = np.geomspace(1e5, 1e9, 12)
PAPER = np.array([3.5e6, 1e7, 1e8, 1e9, 3.5e9])  # the sizes of Mahajan et al. 2018, figure 2
PERCENT = (0.0, 100.0)


def test_row_57_a_line_is_recovered() -> None:
    found = fits.fit_line(SIZES, 12.5 + 4.9 * np.log10(SIZES))
    assert (found.intercept, found.slope) == pytest.approx((12.5, 4.9))
    assert found.r2 == pytest.approx(1)
    assert found.slope_error == pytest.approx(0, abs=1e-12)
    assert np.abs(found.residuals).max() < 1e-12


def test_row_57_the_slope_is_that_of_a_decade() -> None:
    """COCO minival* of Sun et al. 2017: 31.9 AP with 30 million pictures, 36.8 with 300 million."""
    found = fits.fit_line(np.array([30e6, 300e6]), np.array([31.9, 36.8]))
    assert found.slope == pytest.approx(4.9)
    assert found.slope_error is None
    assert found(np.array([3e9])) == pytest.approx([41.7])


def test_row_57_the_line_is_scipys() -> None:
    random = np.random.default_rng(3)
    sizes, values = 10 ** random.uniform(4, 9, 30), random.normal(size=30)
    found, right = fits.fit_line(sizes, values), scipy.stats.linregress(np.log10(sizes), values)
    assert found.slope == pytest.approx(right.slope)
    assert found.slope_error == pytest.approx(right.stderr)
    assert found.r2 == pytest.approx(right.rvalue**2)
    assert found.residuals == pytest.approx(values - right.intercept - right.slope * np.log10(sizes))


def test_row_57_the_standard_error_holds_the_slope_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), 0
    for _ in range(500):
        found = fits.fit_line(SIZES, 3 * np.log10(SIZES) + random.normal(size=SIZES.size))
        assert found.slope_error is not None
        held += abs(found.slope - 3) < scipy.stats.t.ppf(0.9, SIZES.size - 2) * found.slope_error
    assert 0.75 < held / 500 < 0.85


@pytest.mark.parametrize("sizes", [[1e6], [1e6, 1e6]])
def test_row_57_a_line_needs_two_sizes(sizes: list[float]) -> None:
    with pytest.raises(ValueError, match="two different sizes"):
        fits.fit_line(np.array(sizes), np.array(sizes) / 1e7)


def test_row_57_a_straight_line_has_no_deviation() -> None:
    assert fits.deviations(SIZES, 5 + 4 * np.log10(SIZES), PERCENT) == {}
    assert fits.deviations(PAPER, 60 - 2 * np.log10(PAPER), PERCENT) == {}
    random = np.random.default_rng(1)
    drawn = [
        fits.deviations(SIZES, 5 + 4 * np.log10(SIZES) + random.normal(0, 0.5, 12), PERCENT)
        for _ in range(400)
    ]
    for name, most in (("ceiling", 28), ("bend", 52)):  # 3 and 8 of 100
        assert 2 < sum(name in each for each in drawn) < most, name


def test_row_57_a_ceiling_is_named() -> None:
    flatter = 100 - 2e3 * SIZES**-0.4
    assert "shrinks" in fits.deviations(SIZES, flatter, PERCENT)["ceiling"]
    assert "shrinks" in fits.deviations(SIZES, 100 - flatter, PERCENT)["ceiling"]  # an error
    assert "passes 100 " in fits.deviations(SIZES, 52 + 5 * np.log10(SIZES), PERCENT)["ceiling"]
    assert "passes 0 " in fits.deviations(SIZES, 48 - 5 * np.log10(SIZES), PERCENT)["ceiling"]
    steeper = 20 + np.log10(SIZES) ** 2
    assert "ceiling" not in fits.deviations(SIZES, steeper, (0, 1000))


def test_row_57_the_bend_of_mahajan_is_named() -> None:
    """A slope of 6 a decade up to a billion pictures, of 3 from there on."""
    noise = np.array([0.1, -0.1, 0, 0, 0])
    straight = 6 * np.log10(PAPER) + noise
    bent = straight - 3 * np.log10(PAPER / 1e9).clip(0)
    assert "bend" not in fits.deviations(PAPER, straight, PERCENT)
    said = fits.deviations(PAPER, bent, PERCENT)["bend"]
    assert said.startswith("3 a decade over the last one, 5.9")
    assert "bend" not in fits.deviations(
        PAPER[1:], bent[1:], PERCENT
    )  # four points: no error to compare with
    assert "bend" not in fits.deviations(
        PAPER * [1, 1, 1, 1, 10], bent, PERCENT
    )  # one size in the last decade


@pytest.mark.parametrize(
    ("floor", "scale", "exponent"), [(0.1, 30.0, 0.4), (0.0, 3.0, 0.2), (0.25, 500.0, 0.7)]
)
def test_row_g_the_power_law_with_a_floor_is_recovered(floor: float, scale: float, exponent: float) -> None:
    errors = floor + scale * SIZES**-exponent
    found = fits.fit_power(SIZES, errors)
    assert found.parameters == pytest.approx(
        {"floor": floor, "scale": scale, "exponent": exponent}, abs=1e-5, rel=1e-4
    )
    assert found.sd < 1e-7
    far = np.array([1e11, 1e13])
    assert found(far) == pytest.approx(floor + scale * far**-exponent, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
    ("floor", "chance", "alpha", "scale"), [(0.1, 0.99, 0.5, 60.0), (0.05, 0.9, 2.0, 100.0), (0.2, 1, 1, 40)]
)
def test_row_g_m4_is_recovered(floor: float, chance: float, alpha: float, scale: float, given: bool) -> None:
    """Points are made by solving the formula as the paper prints it, by bisection."""

    def left(error: float, size: float) -> float:
        return (error - floor) / (chance - error) ** alpha - scale * size**-0.35

    made = [scipy.optimize.brentq(left, floor, chance - 1e-12, (size,), 1e-15) for size in SIZES]
    found = fits.fit_m4(SIZES, np.array(made), chance if given else None)
    assert found.free == (4 if given else 5)
    wanted = {"floor": floor, "chance": chance, "alpha": alpha, "scale": scale, "exponent": 0.35}
    assert found.parameters == pytest.approx(wanted, rel=1e-3)
    assert found(np.array([1e12])) == pytest.approx(
        scipy.optimize.brentq(left, floor, chance - 1e-12, (1e12,), 1e-15), rel=1e-5
    )


def test_row_g_a_given_chance_is_kept() -> None:
    errors = 0.1 + 30 * SIZES**-0.4
    assert fits.fit_m4(SIZES, errors, 0.95).parameters["chance"] == 0.95
    assert fits.fit_m4(SIZES, errors).parameters["chance"] != 0.95


def test_row_g_fits_are_of_the_log_error_and_alike_each_time() -> None:
    errors = (0.1 + 30 * SIZES**-0.4) * np.exp(np.random.default_rng(0).normal(0, 0.05, SIZES.size))
    for fit in (fits.fit_power, fits.fit_m4):
        found, again = fit(SIZES, errors), fit(SIZES, errors)
        assert found.parameters == again.parameters
        assert found.residuals == pytest.approx(np.log(errors) - np.log(found(SIZES)), abs=1e-9)
        assert found.sd == pytest.approx(np.sqrt(np.sum(found.residuals**2) / (SIZES.size - found.free)))
        for name in ("floor", "exponent"):  # at a minimum no small step is better
            for times in (0.99, 1.01):
                other = found._replace(
                    parameters={**found.parameters, name: found.parameters[name] * times + 1e-9}
                )
                missed = np.log(errors) - np.log(other(SIZES))
                assert np.sum(missed**2) >= np.sum(found.residuals**2) - 1e-12


def test_row_g_derivatives_are_those_of_the_laws() -> None:
    x = np.linspace(-4, 4, 7)
    for law, at in (
        (fits._power, np.array([-1.0, 0.4, 0.1])),
        (fits._m4, np.array([-1, 0.4, -0.7, 0.1, 0.9])),
        (fits._m4, np.array([2, 1.4, 1.7, 0.3, 0.8])),
    ):
        for place in range(x.size):
            numeric = scipy.optimize.approx_fprime(at, lambda p, law=law, i=place: law(p, x)[0][i], 1e-7)
            assert law(at, x)[1][place] == pytest.approx(numeric, abs=1e-5)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1, 3, 10])
def test_row_g_the_implicit_law_is_solved_everywhere(alpha: float) -> None:
    right = np.linspace(-400, 400, 801)
    u = fits._logit(right, alpha)
    log_s, log_rest = -np.logaddexp(0, -u), -np.logaddexp(0, u)
    assert log_s - alpha * log_rest == pytest.approx(right, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("level", [1.0, 0.4, 1e-6])
def test_row_g_equal_errors_are_fitted_without_a_crash(level: float) -> None:
    errors = np.full(SIZES.size, level)
    for law in (fits.fit_power(SIZES, errors), fits.fit_m4(SIZES, errors), fits.fit_m4(SIZES, errors, level)):
        assert law(SIZES) == pytest.approx(errors, rel=1e-2)
