"""Which samples of a test set leak, by pairs and decisions, and the metrics with and without them."""

import numpy as np
import pytest
from evaluated import CLASSES, random_results
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.evaluate import leaks, metrics
from hpcscale.evaluate.leaks import LeakError
from hpcscale.pairs import Decision, Pair

# arithmetic


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 30), seed=st.integers(0, 99), share=st.sampled_from([0, 0.3, 1]))
def test_parts_are_the_metrics_of_the_samples_in_them(n, seed, share):
    results = random_results(n, seed)
    dups = np.random.default_rng(seed).random(n) < share
    weights = np.arange(1.0, CLASSES + 1)
    parts = leaks.split(leaks.of_results(results, weights), dups)
    single = results.truths >= 0
    correct = single & (results.guesses[:, 0] == results.truths)
    for part, rows in ((parts.full, slice(None)), (parts.dedup, ~dups), (parts.dups, dups)):
        assert part["samples"] == np.arange(n)[rows].size
        expected = correct[rows].sum() / single[rows].sum() if single[rows].any() else None
        assert part["top1"] == expected
    assert parts.full == metrics.measure(results, weights)
    if single.any():
        assert parts.lower_bound["top1"] == pytest.approx((correct & ~dups).sum() / single.sum())
        assert parts.lower_bound["top1"] <= parts.full["top1"] + 1e-12
        all_wrong = parts.full["top1"] - (dups & single).sum() / single.sum()
        assert parts.lower_bound["top1"] >= all_wrong - 1e-12
        mean = sum((part["top1"] or 0) * part["single"] for part in (parts.dedup, parts.dups)) / single.sum()
        assert parts.full["top1"] == pytest.approx(mean)
    else:
        assert parts.lower_bound == {"top1": None, "top5": None}


def test_delta_is_undefined_where_a_part_is():
    parts = leaks.split(leaks.of_results(random_results(5), np.ones(CLASSES)), np.ones(5, bool))
    assert leaks.delta(parts, "map100") is None
    assert parts.dedup["loss"] is None
    assert parts.dups == parts.full


# which samples leak

TEST = {"t1", "t2", "t3"}
FOUND = [Pair("x1", "t1", 3), Pair("x2", "t1", 8), Pair("x2", "t3", 9)]
REVERSED = [Pair(b, a, distance) for a, b, distance in FOUND]


def test_the_column_of_the_test_set_is_found_by_names():
    found = leaks.find_leaks(FOUND, TEST, {}, within=False)
    assert found == leaks.Leaks({"t1", "t3"}, "b", 3, 0, 0)
    found = leaks.find_leaks(REVERSED, TEST, {}, within=False)
    assert found == leaks.Leaks({"t1", "t3"}, "a", 3, 0, 0)


def test_names_in_both_columns_are_ambiguous_unless_the_side_is_said():
    both = [*FOUND, Pair("t2", "t3", 1)]
    with pytest.raises(LeakError, match="both columns"):
        leaks.find_leaks(both, TEST, {}, within=False)
    assert leaks.find_leaks(both, TEST, {}, within=False, side="a").names == {"t2"}
    assert leaks.find_leaks(both, TEST, {}, within=False, side="b").names == {"t1", "t3"}


def test_within_one_data_set_a_pair_of_two_test_samples_is_no_leak():
    both = [Pair("t1", "x1", 3), Pair("x2", "t2", 3), Pair("t2", "t3", 0), Pair("x1", "x2", 0)]
    assert leaks.find_leaks(both, TEST, {}, within=True) == leaks.Leaks({"t1", "t2"}, "either", 2, 0, 0)


def test_pairs_of_something_else_are_refused():
    with pytest.raises(LeakError, match="no name"):
        leaks.find_leaks([Pair("x", "y", 1)], TEST, {}, within=False)
    with pytest.raises(LeakError, match="column a"):
        leaks.find_leaks(FOUND, TEST, {}, within=False, side="a")
    assert leaks.find_leaks([], TEST, {}, within=False).names == set()


def test_rejected_pairs_do_not_count_and_undecided_ones_do():
    decided = {
        ("x1", "t1"): Decision("reject"),
        ("x2", "t3"): Decision("reject"),
        ("o", "o"): Decision("reject"),
    }
    assert leaks.find_leaks(FOUND, TEST, decided, within=False) == leaks.Leaks({"t1"}, "b", 3, 0, 2)
    decided[("x2", "t1")] = Decision("accept")
    assert leaks.find_leaks(FOUND, TEST, decided, within=False) == leaks.Leaks({"t1"}, "b", 3, 1, 2)
    decided[("x2", "t1")] = Decision("reject")
    assert leaks.find_leaks(FOUND, TEST, decided, within=False).names == set()
