"""Learning rates against the tables of the papers."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.config import Schedule
from hpcscale.train.schedule import depends_on_length, lr


def table(steps: list[int], length: int, **keys: Any) -> list[float]:
    schedule = Schedule(**keys)
    return [lr(schedule, step, length) for step in steps]


def test_exponential_of_sun_2017() -> None:
    keys = {"name": "exponential", "lr": 1e-3, "factor": 0.9, "every": 3_000_000}
    found = table([0, 2_999_999, 3_000_000, 36_000_000], 36_000_000, **keys)
    assert found == pytest.approx([1e-3, 1e-3, 9e-4, 2.8243e-4], rel=1e-5)


def test_steps_of_sun_2017_on_imagenet() -> None:
    at = (1_200_000, 2_400_000, 3_600_000, 4_800_000)
    found = table([0, 1_199_999, *at], 5_000_000, name="steps", lr=5e-2, at=at)
    assert found == pytest.approx([5e-2, 5e-2, 5e-3, 5e-4, 5e-5, 5e-6])


def test_twenty_halvings_of_mahajan_2018() -> None:
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
