"""From what a picture's annotation says to the class that VTAB predicts: pure functions.

Thresholds, vehicle types and numbers of bins are those of google-research/task_adaptation (data/clevr.py,
kitti.py, dsprites.py, smallnorb.py). It takes the last threshold that is *below* a distance, so a range is
open at its lower and closed at its upper end: an object at exactly 8 is in the first class. What it leaves
undefined (a distance outside all ranges, or a count without a class) raises ValueError here.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence

CLEVR_COUNTS = range(3, 11)  # objects in a picture of CLEVR
CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
VEHICLES = frozenset(("Car", "Van", "Truck"))
NO_VEHICLE = 1000.0  # metres: beyond the last threshold


def clevr_count(objects: int) -> int:
    """Class 0 to 7 of a number of objects, 3 to 10. Raises ValueError of another number."""
    if objects not in CLEVR_COUNTS:
        raise ValueError(f"{objects} objects; pictures of CLEVR have 3 to 10")
    return objects - CLEVR_COUNTS.start


def clevr_distance(distances: Iterable[float]) -> int:
    """Class 0 to 5 of the nearest object. distances: of all objects, the third of `pixel_coords`.

    Raises ValueError without objects, and where the nearest is outside (0, 100].
    """
    found = list(distances)
    if not found:
        raise ValueError("no object, so none is the nearest")
    return _range(_nearest(found), CLEVR_DISTANCES)


def kitti_vehicle(objects: Iterable[tuple[str, float]]) -> int:
    """Class 0 to 3 of the nearest vehicle: 3 where there is none.

    objects: type and distance of each, the third of `location`, in metres along the camera's axis. Vehicles
    are Car, Van and Truck; no other type counts. Raises ValueError of a distance of -100 or less.
    """
    found = [distance for kind, distance in objects if kind in VEHICLES]
    return _range(_nearest([*found, NO_VEHICLE]), (*KITTI_DISTANCES, math.inf))


def dsprites_location(x: int) -> int:
    """Class 0 to 15 of the x position, one of 32 from left to right. Raises ValueError."""
    return equal_bins(x, 32, 16)


def dsprites_orientation(orientation: int) -> int:
    """Class 0 to 15 of the orientation, one of 40. Raises ValueError.

    40 / 16 is no integer: bins hold 3 and 2 orientations in turn.
    """
    return equal_bins(orientation, 40, 16)


def smallnorb_azimuth(azimuth: int) -> int:
    """Class 0 to 17 of smallNORB's azimuth: 0, 2, .. 34, in units of 10 degrees. Raises ValueError."""
    if azimuth % 2:
        raise ValueError(f"azimuth {azimuth}: smallNORB has even ones, from 0 to 34")
    return equal_bins(azimuth, 36, 18)


def smallnorb_elevation(elevation: int) -> int:
    """Class 0 to 8 of smallNORB's elevation: 0 to 8, 30 degrees and 5 more each. Raises ValueError."""
    return equal_bins(elevation, 9, 9)


def equal_bins(value: int, values: int, bins: int) -> int:
    """floor(value / (values / bins)), the bin of one of `values` integers from 0. Raises ValueError."""
    if not 0 <= value < values:
        raise ValueError(f"{value} is not in [0, {values})")
    return value * bins // values


def _nearest(distances: Sequence[float]) -> float:
    if any(map(math.isnan, distances)):
        raise ValueError("a distance is not a number")
    return min(distances)


def _range(distance: float, bounds: Sequence[float]) -> int:
    """The k with bounds[k] < distance <= bounds[k + 1]."""
    if not bounds[0] < distance <= bounds[-1]:
        raise ValueError(f"distance {distance} is not in ({bounds[0]:g}, {bounds[-1]:g}]")
    return bisect_left(bounds, distance) - 1
