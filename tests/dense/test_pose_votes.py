"""Votes and peaks: perfect maps give their key points back; a vote is shared by four places."""

import math

import numpy as np
import pytest

from hpcscale.dense import pose_targets, pose_votes

SIZE, RADIUS = (120, 90), 25.0


def perfect(points, size=SIZE, radius=RADIUS):
    """Heat maps and offsets (k, h, w), (k, 2, h, w) that are exactly right; offsets outside the disks are
    not."""
    rows = np.column_stack([points, np.ones(len(points))]).astype(np.float32)
    wanted = pose_targets.targets(rows, [], size, radius)
    offsets = np.stack(
        [
            np.broadcast_to(wanted.x[:, None, :], wanted.disks.shape),
            np.broadcast_to(wanted.y[:, :, None], wanted.disks.shape),
        ],
        axis=1,
    )
    return wanted.disks.astype(np.float32), np.where(wanted.disks[:, None], offsets, 1e6).astype(np.float32)


def test_row_50_a_disk_with_exact_offsets_gives_its_key_point_and_mass_1():
    points = np.array([[40.0, 60], [30.5, 50.25], [44.9, 77.49], [60, 90.01]])
    votes = pose_votes.vote(*perfect(points), RADIUS)
    assert votes.shape == (4, *SIZE)
    assert votes.sum(axis=(1, 2)) == pytest.approx(1, abs=0.01)  # centres are not evenly in disks
    found, most = pose_votes.peaks(votes)
    assert np.hypot(*(found - points).T).max() < 0.01  # and under half a pixel in any case
    assert most[1] == pytest.approx(0.75, abs=0.005)  # (30.5, 50.25) shares its votes with one neighbour


def test_row_50_a_disk_beyond_the_edge_has_the_mass_that_is_left():
    points = np.array([[0.5, 60.5], [0.5, 0.5]])
    votes = pose_votes.vote(*perfect(points), RADIUS)
    assert votes.sum(axis=(1, 2)) == pytest.approx([0.5, 0.25], abs=0.02)
    found, _ = pose_votes.peaks(votes)
    assert found == pytest.approx(points, abs=1e-3)


def test_row_50_a_vote_is_shared_by_the_four_centres_around():
    heat = np.zeros((1, 4, 5), np.float32)
    offsets = np.zeros((1, 2, 4, 5), np.float32)
    heat[0, 1, 1], offsets[0, :, 1, 1] = 0.5, (2.25, 0.5)  # from (1.5, 1.5) to (3.75, 2.0)
    heat[0, 3, 4], offsets[0, :, 3, 4] = 1.0, (0.5, 0.0)  # half of it falls outside
    for place, far in enumerate([(-9.0, 0), (9, 0), (0, -9), (0, 9), (-9, 1e9)]):
        heat[0, 0, place], offsets[0, :, 0, place] = 1.0, far  # all of it
    votes = pose_votes.vote(heat, offsets, 2.0) * math.pi * 4
    wanted = np.zeros((4, 5))
    wanted[1, 3], wanted[1, 4], wanted[2, 3], wanted[2, 4] = 0.1875, 0.0625, 0.1875, 0.0625
    wanted[3, 4] = 0.5
    assert votes[0] == pytest.approx(wanted)


def test_no_votes_have_a_place_and_no_score():
    points, most = pose_votes.peaks(np.zeros((2, 4, 5)))
    assert points.tolist() == [[0.5, 0.5]] * 2
    assert most.tolist() == [0, 0]
