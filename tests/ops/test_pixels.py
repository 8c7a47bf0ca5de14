"""ops.normalize against its definition in NumPy; cpp/tests/test_pixels.cpp compares the SIMD variants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.ops import normalize


def reference(pixels: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    flipped = np.where(mirror[:, None, None, None] != 0, pixels[:, :, ::-1], pixels)
    return (2 * flipped.astype(np.float32) - 255) * np.float32(1 / 255)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.integers(0, 9), st.integers(0, 70), st.integers(0, 2**32 - 1))
def test_normalize_is_its_definition_bit_for_bit(n: int, height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (n, height, width, 3), np.uint8)
    mirror = random.integers(0, 2, n).astype(np.uint8)
    out = np.full(pixels.shape, np.nan, np.float32)
    normalize(pixels, mirror, out)
    np.testing.assert_array_equal(out, reference(pixels, mirror))


def test_normalize_maps_to_minus_one_and_one() -> None:
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 1, 256, 3)
    out = np.empty(pixels.shape, np.float32)
    normalize(pixels, np.zeros(1, np.uint8), out)
    assert (out[0, 0, 0, 0], out[0, 0, 255, 0]) == (-1, 1)
    np.testing.assert_allclose(out, pixels / 127.5 - 1, atol=1e-7)


def test_normalize_rejects_instead_of_copying() -> None:
    pixels, mirror = np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.uint8)
    out = np.zeros(pixels.shape, np.float32)
    with pytest.raises(TypeError, match="float64"):
        normalize(pixels, mirror, out.astype(np.float64))
    with pytest.raises(TypeError, match="with gaps"):
        normalize(pixels[:, ::2], mirror, out[:, :2])
    with pytest.raises(TypeError, match="bool"):
        normalize(pixels, mirror.astype(bool), out)
    for bad in (out[:1], out[:, :3]):
        with pytest.raises(ValueError, match=r"\(2, 4, 4, 3\)"):
            normalize(pixels, mirror, bad.copy())
    with pytest.raises(ValueError, match="mirror"):
        normalize(pixels, mirror[:1], out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        normalize(pixels, mirror, out)
