"""transfer/vtab/bins.py: which class VTAB makes of an annotation, at and beside each edge."""

import math

import numpy as np
import pytest

from hpcscale.transfer.vtab import bins


def test_row_43_clevr_counts_from_three() -> None:
    assert [bins.clevr_count(objects) for objects in range(3, 11)] == list(range(8))
    for objects in (2, 11):
        with pytest.raises(ValueError, match=f"{objects} objects"):
            bins.clevr_count(objects)


@pytest.mark.parametrize(("distance", "label"), [
    (0.001, 0), (8.0, 0), (math.nextafter(8.0, 9), 1), (8.5, 1), (8.51, 2), (9.0, 2), (9.2, 3), (9.5, 3),
    (9.51, 4), (10.0, 4), (10.01, 5), (100.0, 5)
])  # fmt: skip
def test_row_43_clevr_distances_are_closed_above(distance: float, label: int) -> None:
    assert bins.clevr_distance([distance]) == label
    assert bins.clevr_distance([100.0, distance, 99.0]) == label


@pytest.mark.parametrize("distances", [[], [0.0, 9.0], [-1.0], [100.5], [math.nan, 9.0], [9.0, math.nan]])
def test_clevr_distances_without_a_class_are_refused(distances: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no object|is not in \(0, 100\]|not a number"):
        bins.clevr_distance(distances)


@pytest.mark.parametrize(("objects", "label"), [
    ([("Car", 1.0)], 0), ([("Van", 8.0)], 0), ([("Truck", 8.01)], 1), ([("Car", 20.0)], 1),
    ([("Car", 20.5)], 2), ([("Car", 999.0)], 2), ([("Car", 999.5)], 3), ([("Car", 5000.0)], 3), ([], 3),
    ([("Pedestrian", 1.0), ("Tram", 2.0), ("Cyclist", 3.0), ("Misc", 4.0)], 3),
    ([("Pedestrian", 1.0), ("Car", 30.0), ("Van", 10.0)], 1), ([("Car", -99.0)], 0)
])  # fmt: skip
def test_row_43_kitti_has_the_nearest_vehicle(objects: list[tuple[str, float]], label: int) -> None:
    assert bins.kitti_vehicle(objects) == label


def test_kitti_distances_without_a_class_are_refused() -> None:
    for distance in (-100.0, math.nan):
        with pytest.raises(ValueError, match=r"is not in \(-100, inf\]|not a number"):
            bins.kitti_vehicle([("Car", distance)])


def test_row_43_equal_bins_are_a_division_in_float32() -> None:
    """As the published code computes them: floordiv of float32 by values / bins."""
    for values, ours in ((32, bins.dsprites_location), (40, bins.dsprites_orientation)):
        theirs = np.floor_divide(np.arange(values, dtype=np.float32), np.float32(values / 16)).astype(int)
        assert [ours(value) for value in range(values)] == theirs.tolist()
    assert np.bincount([bins.dsprites_location(x) for x in range(32)]).tolist() == [2] * 16
    assert np.bincount([bins.dsprites_orientation(k) for k in range(40)]).tolist() == [3, 2] * 8


def test_row_43_smallnorb_has_18_azimuths_and_9_elevations() -> None:
    assert [bins.smallnorb_azimuth(azimuth) for azimuth in range(0, 36, 2)] == list(range(18))
    assert [bins.smallnorb_elevation(elevation) for elevation in range(9)] == list(range(9))
    for wrong in (1, 35, 36, -2):
        with pytest.raises(ValueError, match=str(wrong)):
            bins.smallnorb_azimuth(wrong)
    for wrong in (9, -1):
        with pytest.raises(ValueError, match=str(wrong)):
            bins.smallnorb_elevation(wrong)


def test_values_out_of_range_are_refused() -> None:
    for wrong in (-1, 32):
        with pytest.raises(ValueError, match=r"not in \[0, 32\)"):
            bins.dsprites_location(wrong)
    with pytest.raises(ValueError, match=r"40 is not in \[0, 40\)"):
        bins.dsprites_orientation(40)
