"""Pictures and what is on them go through one geometry: resized, cut, mirrored, and back."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hpcscale import tasks
from hpcscale.annotations.objects import Rle, no_objects
from hpcscale.data.manifest import Category
from hpcscale.dense import views
from hpcscale.dense.views import View

STORED = (60, 80)
ALL = View(STORED, (30, 40), (0, 0), (30, 40), mirror=False)
PART = View(STORED, (90, 120), (11, 25), (64, 48), mirror=True)


def draws(*shares: float) -> NDArray[np.uint32]:
    return np.array([int(share * 2**32) for share in shares], np.uint32)


def square(box: tuple[float, float, float, float], size: tuple[int, int] = STORED) -> NDArray[np.uint8]:
    """A white box on black."""
    x1, y1, x2, y2 = map(round, box)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[y1:y2, x1:x2] = 255
    return pixels


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=100, subsampling=0)
    return stream.getvalue()


def extent(inside: NDArray[np.bool_]) -> list[int]:
    """x1, y1, x2, y2 of what is inside."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


@pytest.mark.parametrize("view", [ALL, PART, PART._replace(mirror=False)])
def test_pixels_boxes_masks_and_maps_move_together(view: View) -> None:
    box = (30.0, 20.0, 44.0, 32.0)
    found = no_objects(STORED, 0, listed=True)._replace(
        boxes=np.array([box], np.float32),
        masks=[[np.array([[30, 20], [44, 20], [44, 32], [30, 32]], np.float64)]],
        **{name: np.zeros(1, np.int64) for name in ("classes", "flags", "ids")},
        areas=np.array([168.0]),
        keypoints=np.zeros((1, 0, 3), np.float32),
    )
    moved, kept = views.objects(found, view, [[]])
    assert kept.tolist() == [0]
    wanted = moved.boxes[0].tolist()
    assert moved.areas[0] == pytest.approx((wanted[2] - wanted[0]) * (wanted[3] - wanted[1]), rel=1e-5)
    for inside in (
        views.picture(jpeg(square(box)), view)[:, :, 0] > 127,
        views.masks(found, view)[0] > 0,
        views.class_map(square(box)[:, :, 0], view) > 0,
    ):
        assert extent(inside) == pytest.approx(wanted, abs=0.51)


def test_an_rle_moves_like_a_polygon() -> None:
    inside = square((30, 20, 44, 32))[:, :, 0].T.ravel() > 0
    ends = np.flatnonzero(np.diff(inside)) + 1
    counts = np.diff(np.concatenate([[0], ends, [inside.size]]))
    one = no_objects(STORED, 0, listed=True)
    polygon = [np.array([[30, 20], [44, 20], [44, 32], [30, 32]], np.float64)]
    both = one._replace(masks=[Rle(counts, STORED), polygon])
    first, second = views.masks(both, PART)
    assert first.sum() > 100
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("view", [ALL, PART])
def test_boxes_and_points_come_back(view: View) -> None:
    original = (120, 160)  # twice the stored one
    boxes = np.array([[31, 20, 44, 33], [35, 25, 36, 40.5]])
    back = views.boxes_back(views.boxes(boxes, view), view, original)
    np.testing.assert_allclose(back, 2 * boxes)
    points = np.array([[[31.0, 20], [40, 30]]])
    np.testing.assert_allclose(views.points_back(views.points(points, view), view, original), 2 * points)
    outside = views.boxes_back(np.array([[-500.0, -500, 900, 900]]), view, original)
    assert outside.tolist() == [[0, 0, 160, 120]]


def test_objects_are_cut_at_the_window_and_dropped_outside() -> None:
    view = View(STORED, STORED, (10, 20), (30, 40), mirror=False)
    boxes = np.array([[0, 0, 15, 60], [10, 0, 30, 20], [20, 10, 60, 40], [59.5, 15, 80, 30]], np.float32)
    found = no_objects(STORED, 0, listed=True)._replace(
        boxes=boxes,
        classes=np.arange(4),
        flags=np.zeros(4, np.int64),
        ids=np.arange(4),
        areas=np.full(4, np.nan),
        masks=[None] * 4,
        keypoints=np.zeros((4, 0, 3), np.float32),
    )
    moved, kept = views.objects(found, view)
    assert kept.tolist() == [1, 2]
    assert moved.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 40, 30]]
    assert (moved.size, moved.classes.tolist()) == ((30, 40), [1, 2])


def test_key_points_swap_sides_in_a_mirrored_picture_and_vanish_outside() -> None:
    person = Category(name="person", id=1, keypoints=["nose", "left_eye", "right_eye"])
    swaps = views.swaps_of(person)
    assert swaps == [0, 2, 1]
    points = np.array([[[40, 30, 2], [10, 10, 1], [79, 59, 2]]], np.float32)
    found = no_objects(STORED, 3, listed=True)._replace(
        boxes=np.array([[0, 0, 80, 60]], np.float32),
        classes=np.zeros(1, np.int64),
        flags=np.zeros(1, np.int64),
        ids=np.zeros(1, np.int64),
        areas=np.ones(1),
        masks=[None],
        keypoints=points,
    )
    mirrored, _ = views.objects(found, View(STORED, STORED, (0, 0), STORED, mirror=True), [swaps])
    assert mirrored.keypoints[0].tolist() == [[40, 30, 2], [1, 59, 2], [70, 10, 1]]
    cut, _ = views.objects(found, View(STORED, STORED, (0, 0), (40, 60), mirror=False), [swaps])
    assert cut.keypoints[0].tolist() == [[40, 30, 2], [10, 10, 1], [0, 0, 0]]
    assert points[0, 2].tolist() == [79, 59, 2]  # the packed ones are not touched


@pytest.mark.parametrize(
    ("stored", "keys", "scaled"),
    [
        ((60, 80), {}, (800, 1067)),  # by the shorter side
        ((60, 200), {}, (400, 1333)),  # by the longer
        ((200, 60), {"shorter": 600, "longer": 1024}, (1024, 307)),
        ((60, 80), {"square": 513}, (513, 513)),
    ],
)
def test_pictures_are_resized_by_shorter_and_longer_side(
    stored: tuple[int, int], keys: dict[str, int], scaled: tuple[int, int]
) -> None:
    input = tasks.View(**keys)
    assert views.whole_view(stored, input) == View(stored, scaled, (0, 0), scaled, mirror=False)
    assert views.training_view(stored, input, draws(0.5, 0.7, 0.5, 0.5)).scaled == scaled


def test_a_square_is_judged_squeezed_or_with_its_shape() -> None:
    input = tasks.View(square=513, judged="aspect")
    assert views.whole_view((60, 80), input).size == (385, 513)
    assert views.training_view((60, 80), input, draws(0, 0, 0, 0)).size == (513, 513)


def test_views_are_functions_of_their_draws() -> None:
    input = tasks.View(shorter=60, longer=80, jitter=(0.5, 2.0), window=40)
    low = views.training_view(STORED, input, draws(0, 0, 0, 0))
    assert low == View(STORED, (30, 40), (0, 0), (30, 40), mirror=True)
    high = views.training_view(STORED, input, draws(1 - 1e-9, 0.5, 1 - 1e-9, 0.5))
    assert high == View(STORED, (120, 160), (80, 60), (40, 40), mirror=False)
    plain = tasks.View(shorter=60, longer=80, mirror=False)
    assert not views.training_view(STORED, plain, draws(0, 0, 0, 0)).mirror
    mirrored = [views.training_view(STORED, input, draws(0.1, share, 0, 0)).mirror for share in (0.4, 0.6)]
    assert mirrored == [True, False]
