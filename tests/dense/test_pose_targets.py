"""Crops of persons and what their maps are trained towards: shape, way there and back, disks, others."""

import numpy as np
import pytest
from PIL import Image

from hpcscale.dense import pose_targets, views

SIZE, ORIGINAL = (353, 257), (480, 640)
BOXES = [(100.0, 50.0, 180.0, 300.0), (0.0, 400.0, 300.0, 480.0), (630.0, 2.0, 640.0, 9.5)]


@pytest.mark.parametrize("stored", [ORIGINAL, (256, 256)])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("box", BOXES)
def test_row_50_points_of_a_crop_go_there_and_back(stored, mirror, box):
    view = pose_targets.crop(np.array(box), ORIGINAL, stored, SIZE, 1.25, mirror)
    points = np.random.default_rng(0).uniform((0, 0), (640, 480), (50, 2))
    seen = views.points(points * [stored[1] / 640, stored[0] / 480], view)
    assert views.points_back(seen, view, ORIGINAL) == pytest.approx(points, abs=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1.25, 1.5])
@pytest.mark.parametrize("box", BOXES)
def test_row_50_a_crop_has_the_box_in_its_middle_enlarged(factor, box):
    view = pose_targets.crop(np.array(box), ORIGINAL, ORIGINAL, SIZE, factor)
    assert view.size == SIZE
    x1, y1, x2, y2 = views.boxes(np.array([box]), view)[0]
    assert [(x1 + x2) / 2, (y1 + y2) / 2] == pytest.approx([257 / 2, 353 / 2], abs=0.51)
    # One side of the box fills the crop but for the enlargement, in the scale that both axes share.
    assert max((x2 - x1) / 257, (y2 - y1) / 353) == pytest.approx(1 / factor, rel=0.005)
    assert view.scaled[0] / 480 == pytest.approx(view.scaled[1] / 640, rel=0.005)


def test_row_50_a_crop_shows_what_lies_there_and_grey_outside():
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[:4, 632:] = (200, 100, 50)
    view = pose_targets.crop(np.array([632.0, 0, 640, 4]), ORIGINAL, ORIGINAL, (65, 49), 1.25)
    found = views.cut(Image.fromarray(pixels), view)
    assert found.shape == (65, 49, 3)
    x1, y1, x2, y2 = views.boxes(np.array([[632.0, 0, 640, 4]]), view)[0].round().astype(int)
    assert 0 < x1 < x2 < 49
    assert found[(y1 + y2) // 2, (x1 + x2) // 2].tolist() == [200, 100, 50]
    assert (found[:y1] == views.OUTSIDE).all()
    assert (found[:, x2:] == views.OUTSIDE).all()
    assert (found[y1 + 30 :, :x2] == 0).all()
    mirrored = views.cut(Image.fromarray(pixels), view._replace(mirror=True))
    assert np.array_equal(mirrored, found[:, ::-1])


def test_row_50_disks_hold_the_centres_within_the_radius():
    points = np.array([[3.5, 2.5, 2], [1, 1, 0], [0, 6, 1]], np.float32)
    wanted = pose_targets.targets(points, [], (7, 6), 2.0)
    y, x = np.mgrid[:7, :6] + 0.5
    assert np.array_equal(wanted.disks[0], (x - 3.5) ** 2 + (y - 2.5) ** 2 <= 4)
    assert not wanted.disks[1].any()  # not visible
    assert np.array_equal(wanted.disks[2], x**2 + (y - 6) ** 2 <= 4)
    assert wanted.x[0].tolist() == [3, 2, 1, 0, -1, -2]
    assert wanted.y[2].tolist() == [5.5, 4.5, 3.5, 2.5, 1.5, 0.5, -0.5]
    assert not wanted.others.any()


def test_row_50_disks_of_others_are_their_own_matter():
    """They are no target; where the person has a disk too, it is the person's."""
    mine = np.array([[3, 3, 2], [3, 3, 2]], np.float32)
    near = np.array([[5, 3, 2], [9, 9, 0]], np.float32)
    far = np.array([[9, 9, 1], [3, 3, 1]], np.float32)
    alone = pose_targets.targets(mine, [], (12, 12), 2.0)
    wanted = pose_targets.targets(mine, [near, far], (12, 12), 2.0)
    assert np.array_equal(wanted.disks, alone.disks)
    of_others = [pose_targets.targets(one, [], (12, 12), 2.0).disks for one in (near, far)]
    assert np.array_equal(wanted.others[0], (of_others[0][0] | of_others[1][0]) & ~alone.disks[0])
    assert wanted.others[0].sum() > 0
    assert not wanted.others[1].any()  # the same disk as the person's
