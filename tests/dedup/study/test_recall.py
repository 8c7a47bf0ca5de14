"""Recall and false pairs: against brute force; the recommended radius, and bounds of rates."""

import math

import numpy as np
import pytest

from hpcscale.dedup.study import recall
from hpcscale.dedup.study.recall import Curve, upper_bound


def test_false_pairs_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "ROWS", 3)
    codes = np.random.default_rng(0).integers(0, 256, (11, 1), np.uint64)
    names = [str(row) for row in range(11)]
    counts, closest = recall._false_pairs(
        names,
        lambda start: np.bitwise_count(codes[start : start + 3] ^ codes[None, :, 0][0]).astype(np.int64),
        8,
    )
    pairs = sorted(
        (int(np.bitwise_count(codes[i, 0] ^ codes[j, 0])), i, j) for i in range(11) for j in range(i + 1, 11)
    )
    assert counts.tolist() == [sum(distance <= radius for distance, *_ in pairs) for radius in range(9)]
    assert closest == [(names[i], names[j], distance) for distance, i, j in pairs[:10]]


def test_the_recommended_radius_allows_one_in_a_million() -> None:
    def curve(counts: list[int], pairs: int) -> Curve:
        return Curve("pdq", 1, 31, np.zeros((2, 1), np.int64), np.array(counts), pairs, [])

    assert curve([0, 0, 1, 5], 999_999).recommended() == 1
    assert curve([0, 0, 1, 5], 1_000_000).recommended() == 2
    assert curve([0, 0, 1, 5], 5_000_000).recommended() == 3
    assert curve([1, 1], 10).recommended() is None


def test_bounds_of_rates() -> None:
    assert upper_bound(0) == pytest.approx(-math.log(0.05), rel=1e-6)
    assert upper_bound(10) == pytest.approx(16.962, abs=1e-3)  # half the 95 % quantile of chi-square with 22
    assert upper_bound(201) == pytest.approx(upper_bound(200) + 1.06, abs=0.02)
