"""Learning rates against the tables of the papers."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.config import Schedule
from hpcscale.train.schedule import depends_on_length, length, lr, samples_of_run


def table(steps: list[int], length: int, **keys: Any) -> list[float]:
    schedule = Schedule(**keys)
    return [lr(schedule, step, length) for step in steps]


def test_row_21_exponential_of_sun_2017() -> None:
    keys = {"name": "exponential", "lr": 1e-3, "factor": 0.9, "every": 3_000_000}
    found = table([0, 2_999_999, 3_000_000, 36_000_000], 36_000_000, **keys)
    assert found == pytest.approx([1e-3, 1e-3, 9e-4, 2.8243e-4], rel=1e-5)


def test_row_22_steps_of_sun_2017_on_imagenet() -> None:
    at = (1_200_000, 2_400_000, 3_600_000, 4_800_000)
    found = table([0, 1_199_999, *at], 5_000_000, name="steps", lr=5e-2, at=at)
    assert found == pytest.approx([5e-2, 5e-2, 5e-3, 5e-4, 5e-5, 5e-6])


def test_row_23_twenty_halvings_of_mahajan_2018() -> None:
    """Warm-up from 0.1 to 3.15, then 20 equally spaced halvings, to 3.004e-6."""
    length = 868_056
    schedule = Schedule(name="equal", lr=3.15, factor=0.5, drops=20, warmup=794, warmup_lr=0.1)
    rates = {lr(schedule, step, length) for step in range(794, length, 7)}
    assert len(rates) == 21  # the peak and twenty more
    assert lr(schedule, 0, length) == 0.1
    assert lr(schedule, 397, length) == pytest.approx((0.1 + 3.15) / 2)
    assert lr(schedule, 794, length) == 3.15
    assert lr(schedule, length - 1, length) == pytest.approx(3.004e-6, rel=1e-3)
    for i in range(1, 21):
        first = -(-length * i // 21)
        assert lr(schedule, first, length) == pytest.approx(3.15 * 0.5**i)
        assert lr(schedule, first - 1, length) == pytest.approx(3.15 * 0.5 ** (i - 1))


def test_row_24_three_tenths_of_mahajan_2018_on_imagenet() -> None:
    """Warm-up from 0.1 to 1.2 over five epochs, then a tenth after each quarter of the run."""
    schedule = Schedule(name="equal", lr=1.2, factor=0.1, drops=3, warmup=2083, warmup_lr=0.1)
    quarters = [46_875 * i / 4 for i in range(1, 4)]
    found = [lr(schedule, int(quarter) + after, 46_875) for quarter in quarters for after in (0, 1)]
    assert found == pytest.approx([1.2, 0.12, 0.12, 0.012, 0.012, 0.0012])
    assert [lr(schedule, step, 46_875) for step in (0, 2083)] == [0.1, 1.2]


def test_row_29_steps_of_bit() -> None:
    """0.03 * 4096 / 256 after 5,000 steps from 0; a tenth after 10, 23, 30 and 37 of 40 epochs."""
    at = tuple(round(epochs * 3e8 / 4096) for epochs in (10, 23, 30, 37))
    keys = {"name": "steps", "lr": 0.48, "at": at, "warmup": 5000}
    steps = [0, 1, 2500, 5000, *(step + after for step in at for after in (-1, 0))]
    wanted = [0, 0.48 / 5000, 0.24, 0.48, 0.48, 0.048, 0.048, 4.8e-3, 4.8e-3, 4.8e-4, 4.8e-4, 4.8e-5]
    assert table(steps, 2_929_688, **keys) == pytest.approx(wanted)


def test_row_26_length_of_a_run_is_linear_between_the_extremes_of_mahajan_2018() -> None:
    lengths = {
        1_200_000: 1.44e8, 3_500_000: 1.485e8, 10_000_000: 1.612e8, 100_000_000: 3.376e8,
        940_000_000: 1.984e9, 1_000_000_000: 2.101e9, 3_500_000_000: 7.0e9,
    }  # fmt: skip
    assert {n: samples_of_run(n) for n in lengths} == pytest.approx(lengths, rel=4e-4)
    assert (samples_of_run(1_200_000), samples_of_run(3_500_000_000)) == (144_000_000, 7_000_000_000)
    assert [samples_of_run(n) for n in (1_199_999, 3_500_000_001)] == [None, None]
    assert [round(samples_of_run(n) / 8064) for n in (940_000_000, 3_500_000_000)] == [245_983, 868_056]
    assert samples_of_run(1_750_600_000) == 3_572_000_000  # half way


def test_row_26_log_log_meets_the_extremes_and_has_their_geometric_mean_between() -> None:
    between = math.isqrt(1_200_000 * 3_500_000_000)
    found = [samples_of_run(n, logarithmic=True) for n in (1_200_000, between, 3_500_000_000)]
    assert found == pytest.approx([1.44e8, math.sqrt(1.44e8 * 7e9), 7e9], rel=1e-6)


def test_row_26_length_for_people() -> None:
    shown = length(940_000_000, 8064)
    assert shown.startswith("1,983,605,808 samples, 245,983 steps (log-log: ")
    assert length(500, 32) == "not said for 500 pictures, only for 1,200,000 to 3,500,000,000"


def test_cosine_ends_at_zero() -> None:
    found = table([0, 10, 55, 100], 100, name="cosine", lr=2.0, warmup=10)
    assert found == pytest.approx([0.0, 2.0, 1.0, 0.0])
    assert table([99], 100, name="cosine", lr=2.0)[0] == pytest.approx(1 + math.cos(math.pi * 0.99))


@settings(max_examples=60)
@given(
    name=st.sampled_from(["constant", "exponential", "steps", "equal", "cosine"]),
    step=st.integers(0, 999),
    warmup=st.integers(0, 1200),
)
def test_never_above_the_peak_and_never_rising_after_warm_up(name: str, step: int, warmup: int) -> None:
    schedule = Schedule(name=name, lr=1.0, every=100, at=(10, 500), drops=7, warmup=warmup)
    now, then = lr(schedule, step, 1000), lr(schedule, step + 1, 1000)
    assert 0 <= now <= 1
    assert (now < then) if step + 1 < warmup else (then <= now or step < warmup)


def test_which_schedules_depend_on_the_length() -> None:
    for name in ("constant", "exponential", "steps", "equal", "cosine"):
        schedule = Schedule(name=name, lr=1.0, every=3, at=(2,), drops=2)
        changed = any(lr(schedule, step, 20) != lr(schedule, step, 40) for step in range(20))
        assert depends_on_length(schedule) == changed
