"""data/blocks.py: a bijection that keeps what lies together near, and how well it shuffles all the same."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_order import assert_uniform

from benchmarks import shuffle
from hpcscale.data.blocks import blockwise
from hpcscale.data.order import permute


def whole(samples: int, block: int, window: int, key: int = 1) -> np.ndarray:
    return blockwise(np.arange(samples), samples, key, block, window)


def test_blockwise_is_a_bijection_of_every_small_range() -> None:
    for samples in range(1, 90):
        for block in (1, 2, 3, 7, 40, 100):
            for window in (1, 2, 3, 5, 100):
                values = whole(samples, block, window)
                assert (np.sort(values) == np.arange(samples)).all(), (samples, block, window)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 100_000), st.integers(1, 3000), st.integers(1, 300), st.integers(-(2**63), 2**64 - 1))
def test_blockwise_is_a_bijection(samples: int, block: int, window: int, key: int) -> None:
    counts = np.bincount(whole(samples, block, window, key), minlength=samples)
    assert counts.size == samples
    assert (counts == 1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2**32, 2**53), st.integers(1, 2**20), st.integers(1, 2**10), st.data())
def test_large_ranges_stay_inside_and_apart(
    samples: int, block: int, window: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, samples - 1000) | st.just(samples - 1000))
    values = blockwise(np.arange(start, start + 1000), samples, 5, block, window)
    assert np.unique(values).size == 1000
    assert values.min() >= 0
    assert values.max() < samples


@pytest.mark.parametrize(
    ("samples", "block", "window"), [(1000, 10, 8), (1003, 10, 8), (997, 10, 100), (64, 1, 5), (30, 7, 1)]
)
def test_a_window_holds_no_more_than_its_blocks(samples: int, block: int, window: int) -> None:
    """So many places one behind the other hold few runs of samples that lie one behind the other."""
    blocks = samples // block
    windows = max(1, -(-blocks // window))
    values = whole(samples, block, window)
    ends = np.cumsum([len(part) for part in np.array_split(np.arange(blocks), windows)]) * block
    ends[-1] = samples
    for part in np.split(values, ends[:-1]):
        assert len(part) <= window * block + block - 1
        found = np.sort(part)
        # Where a run ends; the ring's end may cut one in two, and what fills no block is one more.
        runs = 1 + (np.diff(found) > 1).sum()
        assert runs <= min(window, -(-len(part) // block)) + 2


def test_one_window_is_the_full_shuffle() -> None:
    np.testing.assert_array_equal(whole(1000, 10, 100), permute(np.arange(1000), 1000, 1))
    np.testing.assert_array_equal(whole(5, 10, 1), permute(np.arange(5), 5, 1))


def test_one_key_per_index_equals_one_key_and_other_keys_give_other_orders() -> None:
    places = np.arange(0, 1003, 7)
    keys = np.where(np.arange(places.size) % 2, 9, 3).astype(np.uint64)
    mixed = blockwise(places, 1003, keys, 10, 8)
    np.testing.assert_array_equal(mixed[::2], blockwise(places[::2], 1003, 3, 10, 8))
    np.testing.assert_array_equal(mixed[1::2], blockwise(places[1::2], 1003, 9, 10, 8))
    rows = {tuple(whole(1003, 10, 8, key)) for key in range(5)}
    assert len(rows) == 5


def test_every_sample_comes_equally_often_at_every_place() -> None:
    """Whatever fills no block, wherever the ring begins: over epochs, no sample has a place of its own."""
    samples, keys = 23, np.arange(3000, dtype=np.uint64)
    for place in (0, 11, 20, 21, 22):
        values = blockwise(np.full(keys.size, place), samples, keys, 4, 2)
        assert_uniform(np.bincount(values, minlength=samples), keys.size / samples)


def test_memory_is_constant() -> None:
    tracemalloc.start()
    try:
        blockwise(np.arange(10**9, 10**9 + 1024), 3_500_000_000, 1, 1000, 64)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(("block", "window"), [(100, 40), (20, 40), shuffle.FULL])
def test_neighbours_of_the_source_meet_in_a_batch_as_often_as_theory_says(block: int, window: int) -> None:
    samples, batch, keys = 100_000, 400, range(4)
    met = dict.fromkeys((1, 5, 9), 0.0)
    for key in keys:
        batch_of = np.empty(samples, np.int64)
        batch_of[whole(samples, block, window, key)] = np.arange(samples) // batch
        for distance in met:
            met[distance] += (batch_of[distance:] == batch_of[:-distance]).mean() / len(keys)
    for distance, found in met.items():
        assert found == pytest.approx(shuffle.expected(samples, batch, block, window, distance), rel=0.08)


def test_the_measure_of_the_documentation_agrees_with_theory() -> None:
    source = shuffle.Source(400, np.full(100, 1000))
    for block, window in [(100, 40), (1000, 4), shuffle.FULL]:
        found = shuffle.mixed(source, block, window, batches=250)
        pairs = {distance: 2 * (shuffle.SERIES - distance) / shuffle.SERIES for distance in range(1, 10)}
        companions = sum(
            share * shuffle.expected(source.samples, source.batch, block, window, distance)
            for distance, share in pairs.items()
        )
        assert found.companions == pytest.approx(companions, rel=0.08)
    classes = 100 * (1 - (1 - 1 / 100) ** 400)  # of 400 draws
    assert found.classes == pytest.approx(classes, rel=0.01)
