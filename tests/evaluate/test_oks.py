"""Likeness of poses, and suppression of poses that are alike."""

import numpy as np
import pytest

from hpcscale.evaluate.oks import SIGMAS, similarity, suppress


def pose(seed: int, visible: int = 17) -> np.ndarray:
    points = np.random.default_rng(seed).uniform(0, 100, (17, 2))
    return np.column_stack([points, np.arange(17) < visible])


def test_row_48_a_nose_five_pixels_off() -> None:
    truth = pose(0, visible=1)
    found = truth.copy()
    found[0, :2] += [3, 4]
    found[1:] += 50  # what is not visible in the truth does not count
    assert similarity(truth, found, 1e4) == pytest.approx(0.62985, abs=5e-6)


def test_row_48_likeness_is_the_mean_over_visible_points() -> None:
    truth, found = pose(1), pose(1)
    assert similarity(truth, found, 1e4) == 1
    found[16, :2] += 1e6
    assert similarity(truth, found[:, :2], 1e4) == pytest.approx(16 / 17)
    assert similarity(pose(1, visible=0), found, 1e4) == 0
    moved = pose(1) + np.array([5.0, 0, 0])
    expected = np.exp(-25 / (2 * 1e4 * (2 * SIGMAS) ** 2)).mean()
    assert similarity(truth, moved, 1e4) == pytest.approx(expected)


def test_row_48_suppression_keeps_the_best_of_poses_that_are_alike() -> None:
    shift = [2.0, 0, 0]
    poses = np.stack([pose(2), pose(2) + shift, pose(3), pose(2)])
    areas = np.full(4, 1e4)
    assert suppress(poses, np.array([0.5, 0.9, 0.1, 0.5]), areas).tolist() == [1, 2]
    assert suppress(poses, np.array([0.5, 0.4, 0.6, 0.5]), areas).tolist() == [2, 0]
    assert suppress(poses, np.array([0.5, 0.4, 0.6, 0.5]), areas, threshold=1.0).tolist() == [2, 0, 3, 1]
    assert suppress(np.zeros((0, 17, 3)), np.zeros(0), np.zeros(0)).tolist() == []


def test_row_48_suppression_compares_with_kept_poses_alone() -> None:
    """A chain of three: the middle one falls to the first, so the last stays."""
    step = np.array([15.0, 0, 0])
    chain = np.stack([pose(4) + n * step for n in range(3)])
    areas = np.full(3, 2e4)
    near, far = (similarity(chain[0], chain[n], 2e4) for n in (1, 2))
    assert far < 0.5 < near
    assert suppress(chain, np.array([0.9, 0.8, 0.7]), areas).tolist() == [0, 2]
