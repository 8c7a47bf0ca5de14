"""data/order.py: bijective, uniform, without memory, and never drifting between releases."""

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN

from hpcscale.data.blocks import blockwise
from hpcscale.data.order import Whole, below, draws, inverse, permute, within

ORDERS = GOLDEN / "order.json"


def whole(samples: int, key: int = 1) -> np.ndarray:
    return permute(np.arange(samples), samples, key)


@pytest.mark.parametrize("key", [0, 1, -7, 2**64 - 1])
def test_permute_is_a_bijection_of_every_small_range(key: int) -> None:
    for samples in range(1, 301):
        np.testing.assert_array_equal(np.sort(whole(samples, key)), np.arange(samples))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 200_000), st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(samples: int, key: int) -> None:
    counts = np.bincount(whole(samples, key), minlength=samples)
    assert counts.size == samples
    assert (counts == 1).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(2**20, 2**62), st.data())
def test_permute_of_large_ranges_stays_inside_and_keeps_indices_apart(
    samples: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, samples - 1000))
    values = permute(np.arange(start, start + 1000), samples, 5)
    assert np.unique(values).size == 1000
    assert values.min() >= 0
    assert values.max() < samples


def test_permute_rejects_what_it_cannot_permute() -> None:
    with pytest.raises(TypeError, match="int32"):
        permute(np.arange(3, dtype=np.int32), 3, 0)
    for outside in (-1, 3):
        with pytest.raises(ValueError, match=r"0\.\.2"):
            permute(np.array([outside]), 3, 0)
    assert permute(np.arange(0), 3, 0).size == 0


def test_one_key_per_index_equals_one_key() -> None:
    keys = np.array([3, 9, 3, 9], np.uint64)
    mixed = permute(np.array([0, 0, 1, 1]), 1000, keys)
    np.testing.assert_array_equal(mixed[[0, 2]], permute(np.array([0, 1]), 1000, 3))
    np.testing.assert_array_equal(mixed[[1, 3]], permute(np.array([0, 1]), 1000, 9))


# Chi-square statistics of fixed keys against the mean plus five standard deviations: they fail for any real
# bias, and cannot fail by chance, since nothing is drawn anew.
def assert_uniform(observed: np.ndarray, expected: float) -> None:
    degrees = observed.size - 1
    statistic = float(((observed - expected) ** 2).sum() / expected)
    assert abs(statistic - degrees) < 5 * np.sqrt(2 * degrees), (statistic, degrees)


@pytest.mark.parametrize("samples", [3, 5, 8, 13, 64, 100])
def test_every_sample_comes_equally_often_at_every_place(samples: int) -> None:
    keys = np.arange(3000, dtype=np.uint64)
    counts = np.zeros((samples, samples))
    for place in range(samples):
        values = permute(np.full(keys.size, place), samples, keys)
        counts[place] = np.bincount(values, minlength=samples)
    expected = keys.size / samples
    # rows and columns both have fixed sums: (samples - 1)^2 degrees of freedom
    degrees = (samples - 1) ** 2
    statistic = ((counts - expected) ** 2).sum() / expected
    assert abs(statistic - degrees) < 5 * np.sqrt(2 * degrees), (statistic, degrees)


def test_all_orders_of_four_samples_are_equally_likely() -> None:
    keys = np.arange(12_000, dtype=np.uint64)
    columns = [permute(np.full(keys.size, place), 4, keys) for place in range(4)]
    codes = sum(column * 4**place for place, column in enumerate(columns))
    observed = np.unique(codes, return_counts=True)[1]
    assert observed.size == 24
    assert_uniform(observed, keys.size / 24)


def test_neighbours_land_anywhere() -> None:
    samples = 100_003
    gaps = np.diff(whole(samples)) % samples
    assert_uniform(np.histogram(gaps, 50, (0, samples))[0], (samples - 1) / 50)


@pytest.mark.parametrize("samples", [997, 4096])
def test_successive_epochs_are_unrelated(samples: int) -> None:
    order = Whole(samples, seed=3)
    epochs = np.stack([order.samples_at(np.arange(e * samples, (e + 1) * samples))[0] for e in range(20)])
    for one, next_one in itertools.pairwise(epochs):
        # Of two unrelated permutations about one element stays in place (Poisson of mean 1).
        assert (one == next_one).sum() <= 8
        assert abs(np.corrcoef(one, next_one)[0, 1]) < 5 / np.sqrt(samples)
        places = np.argsort(next_one)[one]
        assert_uniform(
            np.histogram((places - np.arange(samples)) % samples, 16, (0, samples))[0], samples / 16
        )


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = [Whole(1000, seed=seed).samples_at(np.arange(2000))[0].reshape(2, 1000) for seed in range(4)]
    rows = [tuple(row) for order in orders for row in order]
    assert len(set(rows)) == 8


def test_each_epoch_holds_each_training_sample_once() -> None:
    order = Whole(101, seed=1, held_out=0.2)
    positions = np.arange(3 * order.length)
    samples, epochs = order.samples_at(positions)
    np.testing.assert_array_equal(epochs, positions // order.length)
    held = set(order.held_out_samples().tolist())
    for epoch in range(3):
        seen = samples[epochs == epoch]
        assert len(set(seen.tolist())) == order.length
        assert held.isdisjoint(seen.tolist())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500), st.floats(0, 0.99), st.integers(0, 9))
def test_held_out_part_has_its_size_and_does_not_depend_on_the_seed(
    samples: int, share: float, split: int
) -> None:
    count = round(share * samples)
    if count == samples:
        with pytest.raises(ValueError, match="no sample left"):
            Whole(samples, 0, share, split)
        return
    held = Whole(samples, 0, share, split).held_out_samples()
    assert np.unique(held).size == held.size == count
    np.testing.assert_array_equal(held, Whole(samples, 1, share, split).held_out_samples())


def test_other_split_seeds_hold_out_other_samples() -> None:
    one, other = (set(Whole(1000, 0, 0.1, split).held_out_samples().tolist()) for split in (0, 1))
    assert 0 < len(one & other) < 40  # 10 expected


def test_every_world_size_sees_the_same_sequence() -> None:
    order, batch = Whole(37, seed=5, held_out=0.1), 8
    for step in (0, 3, 4, 1000):
        positions = np.arange(step * batch, (step + 1) * batch)
        alone = order.samples_at(positions)
        for size in (2, 4):
            parts = [order.samples_at(part) for part in np.split(positions, size)]
            for k in (0, 1):
                np.testing.assert_array_equal(np.concatenate([part[k] for part in parts]), alone[k])


def test_memory_is_constant() -> None:
    tracemalloc.start()
    try:
        order = Whole(3_500_000_000, seed=1, held_out=0.01)
        samples, epochs = order.samples_at(np.arange(34 * 10**9, 34 * 10**9 + 1024))
        draws(1, epochs, samples, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_draws_are_uniform_and_independent_of_their_neighbours() -> None:
    samples = np.arange(20_000)
    drawn = draws(7, np.zeros_like(samples), samples, 4)
    assert drawn.shape == (20_000, 4)
    assert drawn.dtype == np.uint32
    for column in drawn.T:
        assert_uniform(np.bincount(below(column, 42), minlength=42), samples.size / 42)
        assert_uniform(np.bincount(column & 1, minlength=2), samples.size / 2)
    later = draws(7, np.ones_like(samples), samples, 4)
    other = draws(8, np.zeros_like(samples), samples, 4)
    pairs = [
        (drawn[:, 0], drawn[:, 1]),
        (drawn[:-1, 0], drawn[1:, 0]),
        (drawn[:, 0], later[:, 0]),
        (drawn, other),
    ]
    for one, two in pairs:
        joint = below(one.ravel(), 8) * 8 + below(two.ravel(), 8)
        assert_uniform(np.bincount(joint, minlength=64), joint.size / 64)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1)), max_size=20))
def test_within_is_the_upper_word_of_the_product(pairs: list[tuple[int, int]]) -> None:
    draw = np.array([word for word, _ in pairs], np.uint64)
    limits = np.array([limit for _, limit in pairs], np.int64)
    expected = [word * limit >> 64 for word, limit in pairs]
    assert within(draw, limits).tolist() == expected
    assert within(draw, 10**12).tolist() == [word * 10**12 >> 64 for word, _ in pairs]


def test_draws_are_a_pure_function_of_seed_epoch_and_sample() -> None:
    epochs, samples = np.array([0, 0, 5]), np.array([1, 2, 1])
    drawn = draws(1, epochs, samples, 3)
    np.testing.assert_array_equal(drawn[::-1], draws(1, epochs[::-1], samples[::-1], 3))
    np.testing.assert_array_equal(drawn[:, :2], draws(1, epochs, samples, 2))
    assert len({tuple(row) for row in drawn}) == 3


def golden() -> dict[str, list[int]]:
    """What must never change: every recipe's result and every resumed run depends on it."""
    order = Whole(1000, seed=42, held_out=0.1, split_seed=7)
    large = Whole(3_500_000_000, seed=42)
    samples, epochs = order.samples_at(np.arange(895, 905))
    return {
        "permute 10 key 0": whole(10, 0).tolist(),
        "permute 256 key 1, first 16": whole(256, 1)[:16].tolist(),
        "order 1000, positions 895..905": samples.tolist(),
        "order 1000, held out 0..8": order.held_out_samples()[:8].tolist(),
        "order 3.5e9, positions 7e9-4..7e9+4": large.samples_at(np.arange(7 * 10**9 - 4, 7 * 10**9 + 4))[
            0
        ].tolist(),
        "draws seed 42": draws(42, epochs, samples, 3).ravel().tolist(),
        "blockwise 53 key 1": blockwise(np.arange(53), 53, 1, 5, 4).tolist(),
        "blockwise 3.5e9, last 8": blockwise(
            np.arange(3_499_999_992, 3_500_000_000), 3_500_000_000, 42, 1000, 64
        ).tolist(),
    }


def test_order_never_drifts() -> None:
    assert golden() == json.loads(ORDERS.read_text())


def test_inverse_undoes_permute() -> None:
    for samples in [*range(1, 70), 1000, 3_500_000_000]:
        some = np.unique(np.linspace(0, samples - 1, 500).astype(np.int64))
        np.testing.assert_array_equal(inverse(permute(some, samples, 5), samples, 5), some)
