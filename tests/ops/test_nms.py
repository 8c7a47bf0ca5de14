"""ops.nms against its slow oracle: random boxes, ties, borders of the threshold, boxes without area."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import nms as oracle

from hpcscale.ops import nms

PRECISIONS = [np.float32, np.float64]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 60),
    st.sampled_from([0.0, 0.3, 1 / 3, 0.5, 0.7, 1.0]),
    st.sampled_from(PRECISIONS),
    st.integers(0, 2**32 - 1),
)
def test_nms_is_greedy_and_stable(n: int, threshold: float, dtype: type, seed: int) -> None:
    """Corners on few whole numbers: many IoUs are just the threshold, many boxes have no area or are turned
    over, and many scores are equal."""
    random = np.random.default_rng(seed)
    boxes = random.integers(0, 6, (n, 4)).astype(dtype)
    boxes[::2, 2:] += boxes[::2, :2]
    scores = random.integers(0, 8, n).astype(dtype)
    kept = nms(boxes, scores, threshold)
    assert kept.dtype == np.int64
    assert kept.tolist() == oracle.nms(boxes, scores, threshold)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_nms_of_many_boxes(dtype: type) -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 300, (400, 2))
    boxes = np.hstack([corners, corners + random.uniform(20, 90, (400, 2))]).astype(dtype)
    scores = random.normal(size=400).astype(dtype)
    for threshold in (0.1, 0.5, 0.7):
        kept = nms(boxes, scores, threshold)
        assert 5 < len(kept) < 400
        assert kept.tolist() == oracle.nms(boxes, scores, threshold)


def test_nms_compares_with_the_double() -> None:
    """The IoU 0.7 of float32 is 0.699999988: not above the double 0.7, and not above itself."""
    boxes = np.array([[0, 0, 10, 1], [0, 0, 7, 1]], np.float32)
    scores = np.array([2, 1], np.float32)
    assert nms(boxes, scores, 0.7).tolist() == [0, 1]
    assert nms(boxes, scores, float(np.float32(0.7))).tolist() == [0, 1]
    assert nms(boxes, scores, 0.69999998).tolist() == [0]


def test_nms_of_boxes_without_area_keeps_them() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 9, 9], [0, 0, 9, 9]], np.float64)
    assert nms(boxes, np.array([1.0, 1, 1, 2]), 0.5).tolist() == [3, 0, 1]
    assert nms(boxes, np.array([1.0, np.nan, 1, 2]), 0.5).tolist() == [1, 3, 0]  # as torch sorts
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_nms_rejects_what_does_not_fit() -> None:
    boxes, scores = np.zeros((3, 4), np.float32), np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="found 12 for 2"):
        nms(boxes, scores[:2], 0.5)
    with pytest.raises(ValueError, match=r"4 numbers a row, found float32 \(3, 3\)"):
        nms(boxes[:, :3].copy(), scores, 0.5)
    with pytest.raises(TypeError, match="scores: needs a contiguous array of float32"):
        nms(boxes, scores.astype(np.float64), 0.5)
    with pytest.raises(TypeError, match="float16"):
        nms(boxes.astype(np.float16), scores, 0.5)
