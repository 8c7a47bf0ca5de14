"""ops.normalize against its definition in NumPy; cpp/tests/test_pixels.cpp compares the SIMD variants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.ops import normalize

HALF = np.full(3, 127.5)
MEANS, DEVIATIONS = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.integers(0, 9), st.integers(0, 70), st.booleans(), st.integers(0, 2**32 - 1))
def test_normalize_is_its_definition_bit_for_bit(
    n: int, height: int, width: int, signed: bool, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)
    means, deviations = (HALF, HALF) if signed else (MEANS, DEVIATIONS)
    out = np.full(pixels.shape, np.nan, np.float32)
    normalize(pixels, means, deviations, out)
    scales = (1 / deviations).astype(np.float32)
    np.testing.assert_array_equal(out, (pixels.astype(np.float32) - means.astype(np.float32)) * scales)
    if signed:  # as it was before channels had values of their own
        before = (2 * pixels.astype(np.float32) - 255) * np.float32(1 / 255)
        np.testing.assert_array_equal(out, before)


def test_normalize_maps_to_minus_one_and_one() -> None:
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 1, 256, 3)
    out = np.empty(pixels.shape, np.float32)
    normalize(pixels, HALF, HALF, out)
    assert (out[0, 0, 0, 0], out[0, 0, 255, 0]) == (-1, 1)
    np.testing.assert_allclose(out, pixels / 127.5 - 1, atol=1e-7)


def test_normalize_rejects_instead_of_copying() -> None:
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    out = np.zeros(pixels.shape, np.float32)
    with pytest.raises(TypeError, match="float64"):
        normalize(pixels, HALF, HALF, out.astype(np.float64))
    with pytest.raises(TypeError, match="with gaps"):
        normalize(pixels[:, ::2], HALF, HALF, out[:, :2])
    with pytest.raises(TypeError, match="float32"):
        normalize(pixels, HALF.astype(np.float32), HALF, out)
    for bad in (out[:1], out[:, :3]):
        with pytest.raises(ValueError, match=r"\(2, 4, 4, 3\)"):
            normalize(pixels, HALF, HALF, bad.copy())
    with pytest.raises(ValueError, match="means and deviations"):
        normalize(pixels, HALF[:2], HALF, out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        normalize(pixels, HALF, HALF, out)
