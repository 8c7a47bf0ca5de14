"""ops.roi_align and its gradient against the slow oracle; borders, boxes without area, threads, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import roi_align as oracle

from hpcscale.ops import roi_align, roi_align_gradient

SHAPE = (2, 9, 12, 5)  # of maps


def align(maps, rois, how, rows, columns, threads=1):
    out = np.full((len(rois), rows, columns, maps.shape[3]), np.nan, maps.dtype)
    roi_align(maps, rois, how, threads, out)
    return out


def pull(given, shape, rois, how, threads=1):
    maps = np.zeros(shape, given.dtype)
    roi_align_gradient(given, rois, how, threads, maps)
    return maps


def boxes(random, count, maps=2):
    """Boxes at a scale of 1/4 of maps of 9 x 12: beyond every border, without area, turned over."""
    rois = random.uniform(-12, 60, (count, 5))
    rois[:, 0] = random.integers(0, maps, count)
    rois[::5, 3:] = rois[::5, 1:3]  # a point
    whole = rois[1::3]
    whole[:, 1:] = np.round(whole[:, 1:] / 4) * 4  # points on places and borders
    return rois


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([2, 1, 3, 0, -1]),
    st.booleans(),
    st.sampled_from([(7, 7), (1, 1), (4, 2)]),
    st.integers(0, 2**32 - 1),
)
def test_roi_align_is_bilinear_points_averaged(sampling: int, aligned: bool, grid, seed: int) -> None:
    random = np.random.default_rng(seed)
    rois, maps = boxes(random, 8), random.normal(size=SHAPE)
    how = (0.25, sampling, aligned)
    expected = oracle.roi_align(maps, rois, how, *grid)
    np.testing.assert_allclose(align(maps, rois, how, *grid), expected, atol=1e-12)
    single = rois.astype(np.float32)
    np.testing.assert_allclose(
        align(maps.astype(np.float32), single, how, *grid),
        oracle.roi_align(maps, single, how, *grid),
        atol=2e-5,
    )
    given = random.normal(size=expected.shape)
    np.testing.assert_allclose(
        pull(given, SHAPE, rois, how), oracle.gradient(given, SHAPE, rois, how), atol=1e-12
    )


def test_roi_align_of_one_known_box() -> None:
    """The values that detectron2 states of 0, 1, ... 24 in 5 x 5 and the box 1, 1, 3, 3 in 4 x 4 bins."""
    maps, rois = np.arange(25.0).reshape(1, 5, 5, 1), np.array([[0, 1.0, 1, 3, 3]])
    rows = np.arange(4)[:, None] * 2.5 + np.arange(4) * 0.5
    np.testing.assert_allclose(align(maps, rois, (1.0, 0, True), 4, 4)[0, ..., 0], 4.5 + rows)
    np.testing.assert_allclose(align(maps, rois, (1.0, 0, False), 4, 4)[0, ..., 0], 7.5 + rows)


@pytest.mark.parametrize("shape", [(1, 1, 6, 3), (1, 6, 1, 3), (1, 1, 1, 40), (3, 5, 4, 70)])
def test_roi_align_of_thin_maps_and_many_channels(shape) -> None:
    """32 channels are taken at a time, and the gradient's tasks have 64."""
    random = np.random.default_rng(1)
    rois, maps, how = boxes(random, 20, shape[0]), random.normal(size=shape), (0.2, 2, True)
    np.testing.assert_allclose(
        align(maps, rois, how, 3, 3), oracle.roi_align(maps, rois, how, 3, 3), atol=1e-12
    )
    given = random.normal(size=(20, 3, 3, shape[3]))
    np.testing.assert_allclose(
        pull(given, shape, rois, how), oracle.gradient(given, shape, rois, how), atol=1e-12
    )


def test_the_border_of_a_map_reaches_one_place_beyond() -> None:
    """A box of no size is one point: at -1 and 4 of 4 places it is the border's, beyond it is 0."""
    maps = np.arange(1.0, 17).reshape(1, 4, 4, 1)
    for at, expected in ((-1.0, 1.0), (-1.0001, 0.0), (4.0, 16.0), (4.0001, 0.0)):
        rois = np.array([[0, *[at + 0.5] * 4]])
        assert align(maps, rois, (1.0, 1, True), 1, 1).item() == expected


def test_roi_align_has_the_same_bits_with_any_number_of_threads() -> None:
    random = np.random.default_rng(2)
    shape = (2, 9, 12, 200)
    rois, maps = boxes(random, 60).astype(np.float32), random.normal(size=shape).astype(np.float32)
    how = (0.25, 2, False)
    first = align(maps, rois, how, 7, 7)
    back = pull(first, shape, rois, how)
    for threads in (2, 3, 8):
        assert (align(maps, rois, how, 7, 7, threads) == first).all()
        assert (pull(first, shape, rois, how, threads) == back).all()


def test_the_gradient_is_added() -> None:
    random = np.random.default_rng(3)
    rois, how, given = boxes(random, 4), (0.25, 2, True), random.normal(size=(4, 2, 2, 5))
    maps = np.ones(SHAPE)
    roi_align_gradient(given, rois, how, 1, maps)
    np.testing.assert_allclose(maps, 1 + pull(given, SHAPE, rois, how), atol=1e-12)


def test_roi_align_without_boxes_channels_or_maps() -> None:
    none = np.zeros((0, 5))
    assert align(np.zeros(SHAPE), none, (1.0, 2, True), 7, 7).shape == (0, 7, 7, 5)
    assert not pull(np.zeros((0, 7, 7, 5)), SHAPE, none, (1.0, 2, True)).any()
    assert align(np.zeros((0, 9, 12, 5)), none, (1.0, 2, True), 7, 7).size == 0
    assert align(np.zeros((2, 9, 12, 0)), np.zeros((3, 5)), (1.0, 2, True), 7, 7).shape == (3, 7, 7, 0)


def test_roi_align_rejects_what_does_not_fit() -> None:
    maps, rois = np.zeros(SHAPE), np.zeros((3, 5))
    for column, value, error, message in (
        (3, np.nan, ValueError, "box 1: has a number that is not finite"),
        (0, 2, IndexError, r"box 1: is of maps 2.0*, outside \[0, 2\)"),
        (0, -1, IndexError, "box 1: is of maps -1"),
        (4, 1e9, ValueError, "box 1: needs more than 65,536 points"),
    ):
        bad = rois.copy()
        bad[1, column] = value
        with pytest.raises(error, match=message):
            align(maps, bad, (1.0, 0, True), 7, 7)
    with pytest.raises(ValueError, match="maps without places"):
        align(np.zeros((2, 0, 12, 5)), rois, (1.0, 2, True), 7, 7)
    with pytest.raises(ValueError, match=r"rois \(boxes, 5\)"):
        align(maps, rois[:, :4].copy(), (1.0, 2, True), 7, 7)
    with pytest.raises(ValueError, match="regions"):
        roi_align(maps, rois, (1.0, 2, True), 1, np.zeros((2, 7, 7, 5)))
    with pytest.raises(TypeError, match="float32"):
        align(maps, rois.astype(np.float32), (1.0, 2, True), 7, 7)
    out = np.zeros((3, 7, 7, 5))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        roi_align(maps, rois, (1.0, 2, True), 1, out)
