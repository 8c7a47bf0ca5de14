"""ops.permute against its definition in NumPy; tests/data/test_order.py says what it is good for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import permute as oracle

from hpcscale import ops


def keys(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint64)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2**62), st.integers(0, 2**64 - 1), st.data())
def test_permute_is_its_definition_bit_for_bit(samples: int, key: int, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.integers(0, samples - 1), max_size=40))
    indices = np.array(drawn, np.int64)
    found = ops.permute(indices, samples, keys(key))
    np.testing.assert_array_equal(found, oracle.permute(indices, samples, key))
    np.testing.assert_array_equal(ops.permute(found, samples, keys(key), back=True), indices)


def test_each_index_may_have_a_key_and_a_range_of_its_own() -> None:
    ends = np.repeat([1, 9, 64, 30], [1, 9, 64, 30])
    indices = np.concatenate([np.arange(end) for end in (1, 9, 64, 30)])
    found = ops.permute(indices, 64, ends.astype(np.uint64), ends)
    for end in (1, 9, 64, 30):
        np.testing.assert_array_equal(np.sort(found[ends == end]), np.arange(end))
    np.testing.assert_array_equal(found[ends == 64], oracle.permute(np.arange(64), 64, 64))


def test_what_does_not_fit_is_refused_not_converted() -> None:
    indices = np.arange(3)
    with pytest.raises(TypeError, match="int32"):
        ops.permute(indices.astype(np.int32), 3, keys(0))
    with pytest.raises(TypeError, match="with gaps"):
        ops.permute(np.arange(6)[::2], 9, keys(0))
    with pytest.raises(TypeError, match="int64"):
        ops.permute(indices, 3, np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"index 2 outside 0\.\.1"):
        ops.permute(indices, 2, keys(0))
    with pytest.raises(ValueError, match="keys: needs 3"):
        ops.permute(indices, 3, keys(0, 1))
    with pytest.raises(ValueError, match="ends: 4 is above 3"):
        ops.permute(indices, 3, keys(0), np.full(3, 4))
