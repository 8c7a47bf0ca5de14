"""Forecasts: the law that is chosen, intervals from forecasts of the past, what is refused, the command."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner, Result

from benchmarks import forecast as curves
from hpcscale.cli import main
from hpcscale.files import FileError, Told
from hpcscale.study import curve, fits, forecast

SIZES = np.geomspace(1e5, 1e8, 9)
ERRORS = 0.1 + 9 * SIZES**-0.3


def noisy(seed: int, sd: float = 0.02) -> np.ndarray:
    return ERRORS * np.exp(np.random.default_rng(seed).normal(0, sd, SIZES.size))


def few(count: int) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.geomspace(1e5, 1e8, count)
    return sizes, 0.1 + 9 * sizes**-0.3


def test_row_g_points_on_a_law_are_forecast_exactly() -> None:
    found = forecast.forecast(SIZES, ERRORS, [1e9, 1e10])
    for estimate, size in zip(found.estimates, (1e9, 1e10), strict=True):
        right = 0.1 + 9 * size**-0.3
        assert estimate.at == size
        assert estimate.estimate == pytest.approx(right, rel=0.02)  # M4 has it as a limit, alpha 0
        assert estimate.low <= estimate.estimate <= estimate.high
    sizes, errors = few(5)
    found = forecast.forecast(sizes, errors, [1e9])
    assert found.law.name == fits.POWER_LAW
    assert found.estimates[0] == pytest.approx((1e9, *[0.1 + 9 * 1e9**-0.3] * 3), rel=1e-5)


def test_row_g_m4_is_forecast_exactly_with_an_interval_of_no_width() -> None:
    given = {"floor": 0.15, "chance": 0.97, "alpha": 0.8, "scale": 300.0, "exponent": 0.4}
    law = fits.Law(fits.M4, given, 5, SIZES)
    found = forecast.forecast(SIZES, law(SIZES), [1e9], chance=0.97)
    right = float(law(np.array(1e9)))
    assert found.estimates[0] == pytest.approx((1e9, right, right, right), rel=1e-4)
    assert found.law.parameters == pytest.approx(given, rel=1e-4)


def test_row_g_the_law_has_fewer_parameters_than_there_are_sizes() -> None:
    free = {count: forecast.choose(*few(count)).free for count in (4, 5, 6, 7, 8, 20)}
    assert free == {4: 3, 5: 3, 6: 4, 7: 4, 8: 5, 20: 5}
    assert forecast.choose(*few(6)).parameters["chance"] == 1
    assert forecast.choose(*few(6), 0.9).parameters["chance"] == 0.9
    assert forecast.choose(*few(9), 0.9).free == 4
    sizes, errors = few(5)
    assert forecast.choose(np.repeat(sizes, 4), np.repeat(errors, 4)).free == 3, "seeds are no sizes"


def test_row_g_cuts_leave_the_largest_sizes_out() -> None:
    assert forecast.cuts(few(5)[0]) == pytest.approx([few(5)[0][3]])
    sizes = np.geomspace(1, 10 ** (19 * 0.1), 20)  # a factor of 1.26 apart: every third is a cut
    found = forecast.cuts(np.repeat(sizes, 2))
    assert found == pytest.approx(sizes[[18, 15, 12, 9, 6, 3]])
    many = forecast.cuts(np.geomspace(1, 1e9, 40))
    assert len(many) == forecast.CUTS
    assert all(above / below >= forecast.STEP for above, below in pairwise(many))


def test_row_g_a_forecast_of_the_past_sees_nothing_of_the_future() -> None:
    errors = noisy(0)
    changed = errors.copy()
    changed[-1] *= 0.5
    before, after = forecast.look_back(SIZES, errors), forecast.look_back(SIZES, changed)
    assert len(before) == len(forecast.cuts(SIZES)) == 5
    for one, other, largest in zip(before, after, forecast.cuts(SIZES), strict=True):
        seen = largest >= SIZES
        law = forecast.choose(SIZES[seen], errors[seen])
        missed = np.log(errors[~seen] / law(SIZES[~seen]))
        assert one.excess == pytest.approx(np.maximum(0, missed**2 - law.sd**2))
        assert one.distance == pytest.approx(np.log(SIZES[~seen] / largest))
        assert one.excess[:-1].tolist() == other.excess[:-1].tolist()
        assert one.excess[-1] != other.excess[-1]


def test_row_g_an_interval_follows_its_formula() -> None:
    law = fits.Law(fits.POWER_LAW, {"floor": 0.1, "scale": 9, "exponent": 0.3}, 3, np.full(9, 0.02))
    missed = [
        forecast.Missed(np.array([1.0, 2]), np.array([0.01, 0.04])),
        forecast.Missed(np.array([3.0]), np.array([0.36])),
        forecast.Missed(np.array([2.0]), np.array([0.0])),
    ]
    assert forecast.growth(missed) == pytest.approx(0.1)  # of 0.01, 0.04 and 0 the middle one, its root
    assert forecast.growth(missed, 0.5) == pytest.approx(np.sqrt((0.01 + 0.02) / 2))
    low, high = forecast.interval(law, missed, np.array([0.5, 1, 10]), 0.8)
    t, sd = scipy.stats.t.ppf(0.9, 3), np.sqrt(9 * 0.02**2 / 6)
    half = t * np.array([sd, sd, np.hypot(sd, 0.1 * np.log(10))])
    assert np.log(high) == pytest.approx(half)
    assert np.log(low) == pytest.approx(-half)


def test_row_g_intervals_widen_with_distance_level_and_noise() -> None:
    def width(sd: float = 0.02, at: float = 1e9, level: float = 0.8) -> float:
        one = forecast.forecast(SIZES, noisy(4, sd), [at], level).estimates[0]
        return one.high / one.low

    assert width(at=1e8) < width(at=3e8) < width(at=1e10)
    assert width(level=0.5) < width() < width(level=0.95)
    assert width(sd=0.01) < width(sd=0.05)


def test_row_g_an_interval_ends_at_an_error_of_one() -> None:
    errors = 0.99 - 0.01 * np.arange(9.0) + 0.02 * (-1) ** np.arange(9.0)
    assert forecast.forecast(SIZES, errors.clip(0.1, 1), [1e10], 0.99).estimates[0].high == 1


def test_row_g_intervals_hold_new_measurements_of_drawn_curves() -> None:
    random, held = np.random.default_rng(7), []
    for _ in range(20):
        floor, alpha, exponent = random.uniform(0.05, 0.3), random.uniform(0.5, 2), random.uniform(0.25, 0.5)
        law = fits.Law(
            fits.M4,
            {"floor": floor, "chance": 0.99, "alpha": alpha, "scale": 1e6**exponent, "exponent": exponent},
            5,
            SIZES,
        )
        errors = law(SIZES) * np.exp(random.normal(0, 0.01, SIZES.size))
        one = forecast.forecast(SIZES, np.minimum(errors, 1), [1e9]).estimates[0]
        held.append(one.low <= law(np.array(1e9)) * np.exp(random.normal(0, 0.01)) <= one.high)
    assert np.mean(held) >= 0.6


def test_row_g_any_allowed_points_have_a_forecast_or_a_reason() -> None:
    random = np.random.default_rng(11)
    made = 0
    for _ in range(30):
        sizes = np.sort(10 ** random.uniform(0, 18, random.integers(5, 14)))
        errors = np.exp(-random.uniform(0, 10, sizes.size) * random.choice([0.001, 0.1, 1]))
        errors[: random.integers(0, 7)] = 1
        chance = random.choice([None, 1.0, 0.9])
        try:
            found = forecast.forecast(sizes, errors, [sizes[-1], 50 * sizes[-1]], 0.9, chance)
        except forecast.PointsError:
            continue
        made += 1
        for one in found.estimates:
            assert 0 <= one.low <= one.high <= 1
            assert np.isfinite([one.estimate, one.high]).all()
        json.dumps(curve.as_json(found), allow_nan=False)
        curve.as_text(found)
    assert made > 10


def test_row_g_a_forecast_is_the_same_each_time() -> None:
    first, second = (forecast.forecast(SIZES, noisy(2), [1e9]) for _ in range(2))
    assert first.estimates == second.estimates
    order = np.random.default_rng(0).permutation(SIZES.size)
    third = forecast.forecast(SIZES[order], noisy(2)[order], [1e9])
    assert third.estimates[0] == pytest.approx(first.estimates[0], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": SIZES[:4]}, "4 different sizes, expected at least 5"),
        ({"sizes": np.repeat(SIZES[:3], 3)}, "3 different sizes, expected at least 5"),
        (
            {"sizes": np.geomspace(1e5, 7.9e5, 9)},
            "largest size is 7.9 times the smallest, expected at least 8",
        ),
        ({"sizes": np.append(SIZES[:8], np.nan)}, "point 9: examples nan, expected a number above 0"),
        ({"sizes": np.append(SIZES[:8], np.inf)}, "point 9: examples inf"),
        ({"sizes": np.append(0, SIZES[1:])}, "point 1: examples 0,"),
        ({"errors": np.append(ERRORS[:8], 0)}, "point 9: error 0, expected a share above 0 and at most 1"),
        ({"errors": np.append(1.01, ERRORS[1:])}, "point 1: error 1.01"),
        ({"errors": np.append(np.nan, ERRORS[1:])}, "point 1: error nan"),
        ({"errors": ERRORS[::-1]}, "does not fall"),
        ({"errors": np.full(9, 0.5)}, "does not fall"),
        ({"at": [1.01e10]}, "a forecast at 1.01e.10 examples: expected 100000, the smallest size, to 1e.10"),
        ({"at": [1e9, 9e4]}, "a forecast at 90000 examples"),
        ({"at": [0]}, "a forecast at 0 examples"),
        ({"at": [np.nan]}, "a forecast at nan examples"),
        ({"level": 1}, "level: 1, expected 0.5 to 0.99"),
        ({"chance": 0.1}, "chance: 0.1, expected above the least error"),
        ({"chance": 1.5}, "chance: 1.5"),
    ],
    ids=str,
)
def test_row_g_what_cannot_be_forecast_is_refused(change: dict[str, object], message: str) -> None:
    given = {"sizes": SIZES, "errors": ERRORS, "at": [1e9], "level": 0.8, "chance": None} | change
    given["errors"] = given["errors"][: len(given["sizes"])]  # type: ignore[index,arg-type]
    with pytest.raises(forecast.PointsError, match=message) as caught:
        forecast.forecast(**given)  # type: ignore[arg-type]
    assert isinstance(caught.value, Told)


def test_row_g_what_is_just_allowed_is_forecast() -> None:
    sizes = np.geomspace(1e5, 8e5, 5)
    found = forecast.forecast(sizes, 0.1 + 9 * sizes**-0.3, [1e5, 8e7])
    assert [one.at for one in found.estimates] == [1e5, 8e7]


@pytest.mark.skipif(not curves.FILE.is_file(), reason=f"needs {curves.FILE}")
def test_row_g_real_curves_are_forecast_as_well_as_is_recorded() -> None:
    """All curves for the law, one in six for the intervals; `python -m benchmarks forecast` takes all."""
    found = curves.read(curves.FILE)
    assert len(found) == 72
    missed = []
    for one in found.values():
        sizes, errors, later, truth = curves.split(one, None, None)
        missed.append(np.sqrt(np.mean(np.log(fits.fit_m4(sizes, errors)(later) / truth) ** 2)))
    assert np.median(missed) <= 0.0275
    held = [
        curves._held(score)[0] for score in curves._scores(dict(list(found.items())[::6]), None, 8).values()
    ]
    assert len(held) == 12
    assert 0.7 <= np.concatenate(held).mean() <= 0.97


# the command


def write(folder: Path, text: str) -> Path:
    file = folder / "points.csv"
    file.write_text(text)
    return file


def table(errors: np.ndarray) -> str:
    lines = [
        f"run-{place},{error!r},{size!r}"
        for place, (size, error) in enumerate(zip(SIZES.tolist(), errors.tolist(), strict=True))
    ]
    return "\n".join(["run,error,examples", *lines, ""])


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["study", "forecast", *map(str, words)])


def test_row_g_the_command_prints_json(tmp_path: Path) -> None:
    errors = noisy(1)
    file = write(tmp_path, table(errors))
    found = json.loads(
        call(file, "--at", "1e9", "--at", 2e9, "--level", 0.9, "--chance", 0.95, "--json").stdout
    )
    right = forecast.forecast(SIZES, errors, [1e9, 2e9], 0.9, 0.95)
    assert (found["model"], found["parameters"], found["level"]) == ("M4", right.law.parameters, 0.9)
    assert found["parameters"]["chance"] == 0.95
    assert found["forecasts"] == [one._asdict() for one in right.estimates]
    assert {name: found[name] for name in ("at", "estimate", "low", "high")} == found["forecasts"][0]
    assert [(one["examples"], one["error"]) for one in found["points"]] == list(
        zip(SIZES, errors, strict=True)
    )
    assert found["points"][3]["residual"] == pytest.approx(np.log(errors[3] / found["points"][3]["fit"]))
    assert found["line"]["slope"] == right.line.slope
    assert found["warnings"] == []
    assert len(json.loads(call(file, "--at", "4e9", "--json").stdout)["warnings"]) == 1


def test_row_g_the_command_prints_sentences_and_the_papers_line(tmp_path: Path) -> None:
    said = call(write(tmp_path, table(noisy(1))), "--at", "1e9", "--at", "1e10").stdout
    assert "With 1,000,000,000 examples the error should be about 0.1" in said
    assert "with a probability of 80 %" in said
    assert said.count("Warning: beyond 3,000,000,000 examples") == 1
    assert "9 points of 9 sizes, 100,000 to 100,000,000 examples: M4" in said
    assert len([line for line in said.splitlines() if line.startswith("       ")]) == 10
    assert "The line of the papers: error = " in said
    assert "not a forecast" in said
    assert "ceiling: the slope shrinks" in said


def test_row_g_seeds_are_lines_with_one_size(tmp_path: Path) -> None:
    rows = table(ERRORS) + table(ERRORS * 1.02).partition("\n")[2]
    found = json.loads(call(write(tmp_path, "\ufeff" + rows), "--at", "1e9", "--json").stdout)
    assert len(found["points"]) == 18
    assert found["estimate"] == pytest.approx((0.1 + 9 * 1e9**-0.3) * 1.01, rel=0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 0: columns '', expected examples and error"),
        ("examples;error\n1;2\n", "line 1: columns 'examples;error'"),
        ("examples,error,error\n", "line 1: columns"),
        ("examples,error\n1e5,0.5\n\n1e6,x\n", "line 4: error 'x', expected a number"),
        ("examples,error\n1e5\n", "line 2: error '', expected a number"),
        ("examples,error\n1e5,50\n", "line 2: error 50, expected a share above 0"),
        ("examples,error\n-1,0.5\n", "line 2: examples -1, expected a number above 0"),
        ("examples,error\nnan,0.5\n", "line 2: examples nan"),
        ('examples,error\n"1e5,0.5\n', "line 2: unexpected end of data"),
    ],
)
def test_row_g_a_file_that_cannot_be_read_is_named_with_its_line(
    text: str, message: str, tmp_path: Path
) -> None:
    file = write(tmp_path, text)
    with pytest.raises(FileError) as caught:
        curve.read(file)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_row_g_the_command_names_the_file_of_points_that_are_too_few(tmp_path: Path) -> None:
    done = call(write(tmp_path, "examples,error\n1e5,0.5\n1e6,0.4\n"), "--at", "1e7")
    assert done.exit_code == 1
    assert "points.csv: 2 different sizes, expected at least 5" in done.stderr
    assert call(write(tmp_path, table(ERRORS)), "--at", "0").exit_code == 2
    assert call(write(tmp_path, "examples,error\n"), "--at", "1e7").exit_code == 1
