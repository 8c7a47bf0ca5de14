"""Metrics against a slow oracle, against scikit-learn, and against what must hold for any ranking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import average_precision as oracle
from sklearn.metrics import average_precision_score

from hpcscale.evaluate import metrics
from hpcscale.evaluate.metrics import Results


def results_of(scores, positive, truths=None, k=100):
    """Results as evaluate() would keep them, made by the oracle's sort."""
    scores = np.asarray(scores, np.float32)
    positive = np.asarray(positive, bool)
    n = len(scores)
    classes = oracle.best(scores, k).astype(np.int32)
    return Results(
        samples=np.arange(n),
        losses=np.ones(n, np.float32),
        truths=np.full(n, -1, np.int32) if truths is None else np.asarray(truths, np.int32),
        guesses=classes[:, :5],
        classes=classes,
        scores=np.take_along_axis(scores, classes, 1),
        label_offsets=np.append(0, np.cumsum(positive.sum(1))),
        labels=np.nonzero(positive)[1].astype(np.int32),
    )


@st.composite
def problems(draw):
    """Scores with many ties, labels with empty rows and columns, weights with zeros, a short list."""
    n, classes = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = seed.integers(0, draw(st.integers(1, 20)), (n, classes)).astype(np.float32)
    positive = seed.random((n, classes)) < draw(st.sampled_from([0, 0.2, 0.6, 1]))
    return scores, positive, seed.integers(0, 4, classes).astype(float), draw(st.integers(1, classes))


def same(a, b):
    return a == b if a is None or b is None else a == pytest.approx(b, abs=1e-12)


@given(problems())
@settings(max_examples=150, deadline=None)
def test_row_30_both_readings_equal_the_slow_oracle(problem):
    scores, positive, weights, k = problem
    found = metrics.measure(results_of(scores, positive, k=k), weights)
    ones = np.ones_like(weights)
    assert same(found["map100"], oracle.class_map(scores, positive, weights, k))
    assert same(found["map100_uniform"], oracle.class_map(scores, positive, ones, k))
    assert same(found["image_map100"], oracle.image_map(scores, positive, weights, k))
    assert same(found["image_map100_uniform"], oracle.image_map(scores, positive, ones, k))


@given(problems())
@settings(max_examples=50, deadline=None)
def test_neither_a_rising_map_of_scores_nor_a_factor_on_weights_matters(problem):
    scores, positive, weights, k = problem
    found = metrics.measure(results_of(scores, positive, k=k), weights)
    again = metrics.measure(results_of(np.exp2(scores / 4) - 7, positive, k=k), 0.5 * weights)
    assert all(same(found[key], again[key]) for key in found)


def test_all_classes_kept_and_equal_weights_is_scikit_learns_macro_average():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 30, (60, 8)).astype(np.float32)  # ties
    positive = rng.random((60, 8)) < 0.3
    found = metrics.measure(results_of(scores, positive), np.ones(8))
    assert found["map100"] == pytest.approx(average_precision_score(positive, scores, average="macro"))
    assert found["map100"] == found["map100_uniform"]


def test_weighted_average_is_scikit_learns_with_class_weights():
    rng = np.random.default_rng(4)
    scores, positive = rng.random((60, 8)), rng.random((60, 8)) < 0.3
    weights = positive.sum(0).astype(float)
    found = metrics.measure(results_of(scores, positive), weights)
    assert found["map100"] == pytest.approx(
        average_precision_score(positive, scores, average="weighted"), abs=1e-6
    )


def test_a_perfect_ranking_has_map_one():
    positive = np.eye(6, dtype=bool) | (np.arange(6) < 2)
    found = metrics.measure(results_of(positive, positive, truths=np.arange(6)), np.arange(1.0, 7))
    assert [found[key] for key in found if "map" in key] == [1, 1, 1, 1]


def test_a_class_no_picture_predicts_counts_as_zero_and_one_without_positives_not_at_all():
    # Class 2 has a positive but is never among the 2 best; class 3 has no positive.
    scores = [[9, 8, 1, 0], [8, 9, 1, 0]]
    positive = [[1, 0, 1, 0], [1, 1, 0, 0]]
    found = metrics.measure(results_of(scores, positive, k=2), np.array([1.0, 1, 2, 100]))
    assert found["classes"] == 3
    assert found["map100"] == pytest.approx((1 * 1 + 1 * 1 + 2 * 0) / 4)
    assert found["map100_uniform"] == pytest.approx(2 / 3)


def test_a_constant_score_has_the_share_of_positives_as_average_precision():
    positive = np.array([[1], [0], [0], [1], [0]])
    for order in (positive, positive[::-1]):
        precisions, positives = metrics.average_precisions(results_of(np.ones((5, 1)), order), 1)
        assert precisions.tolist() == [0.4]
        assert positives.tolist() == [2]


def test_row_31_accuracy_counts_only_samples_with_one_truth():
    scores = np.tile(np.arange(8.0)[::-1], (4, 1))  # every picture: 0, 1, 2, ...
    found = metrics.measure(results_of(scores, np.zeros((4, 8)), truths=[0, 4, 5, -1]), np.ones(8))
    assert (found["single"], found["top1"], found["top5"]) == (3, 1 / 3, 2 / 3)
    nothing = metrics.measure(results_of(scores, np.zeros((4, 8))), np.ones(8))
    assert (nothing["top1"], nothing["top5"], nothing["map100"], nothing["image_map100"]) == (None,) * 4


def test_no_samples_is_no_metrics_and_no_error():
    empty = metrics.select(results_of(np.ones((2, 3)), np.ones((2, 3))), np.zeros(0, int))
    assert set(metrics.measure(empty, np.ones(3)).values()) == {0, None}


@given(problems(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_a_part_of_the_results_is_the_results_of_the_part(problem, random):
    scores, positive, _, k = problem
    keep = np.array([i for i in range(len(scores)) if random.random() < 0.5], int)
    random.shuffle(keep)
    part = metrics.select(results_of(scores, positive, k=k), keep)
    if keep.size:
        expected = results_of(scores[keep], positive[keep], k=k)._replace(samples=keep)
        assert all(np.array_equal(a, b) for a, b in zip(part, expected, strict=True))


def test_baseline_predicts_the_frequent_classes_for_every_picture():
    positive = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0]])
    given_ = results_of(np.random.default_rng(0).random((3, 3)), positive, truths=[2, 1, -1])
    found = metrics.measure(
        metrics.constant(given_, np.array([3.0, 1, 2]), np.array([1, 2])), np.array([3.0, 1, 1])
    )
    assert found["loss"] is None
    assert (found["top1"], found["top5"]) == (0.5, 1)  # the guess is 2, never the ancestor 0
    assert found["map100_uniform"] == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)  # the shares of positives


def test_the_baseline_has_five_guesses():
    """Of eight classes in the order of their weights, the fifth is still guessed, the sixth no more."""
    weights = np.arange(8.0, 0, -1)
    for truth, found in ((4, 1), (5, 0)):
        given_ = results_of(np.ones((1, 8)), np.ones((1, 8)), truths=[truth])
        baseline = metrics.constant(given_, weights, np.arange(8))
        assert baseline.guesses.tolist() == [[0, 1, 2, 3, 4]]
        measured = metrics.measure(baseline, weights)
        assert (measured["top1"], measured["top5"]) == (0, found)


@pytest.mark.parametrize(("place", "precision"), [(0, 1.0), (98, 1 / 99), (99, 1 / 100), (100, 0.0)])
def test_the_baseline_is_cut_off_behind_the_hundredth_class(place, precision):
    """mAP@100: a label at the 100th place is found, at the 101st not."""
    weights = np.arange(130.0, 0, -1)
    positive = np.zeros((1, 130))
    positive[0, place] = 1
    baseline = metrics.constant(results_of(np.ones((1, 130)), positive), weights, np.arange(130))
    found = metrics.measure(baseline, weights)
    assert found["image_map100"] == pytest.approx(precision)
    assert found["map100"] == float(place < 100)  # one picture: retrieved or not
