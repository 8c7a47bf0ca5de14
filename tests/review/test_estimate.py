"""Intervals that hold what they state, estimates without bias, and agreement as others calculate it."""

import numpy as np
import pytest
from judged import long_tail, walk_of
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from hpcscale.pairs import Decision
from hpcscale.review.draw import Draw, draw
from hpcscale.review.estimate import CONFIDENCE, Interval, agreement, alpha, combine, exact, kappa
from hpcscale.review.precision import of_answers

SIZES = [4000, 1500, 900, 400, 250, 120, *[60] * 8, *[12] * 25, *[4] * 40]
TRIALS = 100
ERROR = (1 - CONFIDENCE) / 2  # of each side


@pytest.mark.parametrize(("labels", "drawn"), [(40, 15), (61, 60), (30, 1), (25, 25)])
def test_exact_limits_hold_the_truth_as_often_as_they_state_whatever_it_is(labels, drawn):
    found = [exact(yes, drawn, labels) for yes in range(drawn + 1)]
    for right in range(labels + 1):
        held = [each.low <= right / labels <= each.high for each in found]
        chances = stats.hypergeom.pmf(np.arange(drawn + 1), labels, right, drawn)
        assert chances[held].sum() >= CONFIDENCE - 1e-12
    for yes, each in enumerate(found):  # and no limit could be closer
        low, high = round(each.low * labels), round(each.high * labels)
        if low > yes:
            assert stats.hypergeom.sf(yes - 1, labels, low - 1, drawn) <= ERROR
        if high < labels - (drawn - yes):
            assert stats.hypergeom.cdf(yes, labels, high + 1, drawn) <= ERROR


def test_of_billions_the_limits_are_those_of_clopper_and_pearson():
    for yes, drawn in ((0, 30), (17, 20), (160, 200), (8001, 10_000), (50, 50)):
        found = exact(yes, drawn, 3_500_000_000)
        low = stats.beta.ppf(ERROR, yes, drawn - yes + 1) if yes else 0
        high = stats.beta.ppf(1 - ERROR, yes + 1, drawn - yes) if yes < drawn else 1
        assert found == pytest.approx((yes / drawn, low, high), abs=1e-6)


def test_where_all_was_looked_at_nothing_is_open():
    assert exact(7, 10, 10) == Interval(0.7, 0.7, 0.7)
    assert exact(0, 0, 10) is None


def test_strata_are_weighted_by_their_labels():
    whole = combine([(Interval(0.5, 0.3, 0.8), 100), (None, 1000), (Interval(0.9, 0.7, 1.0), 300)])
    assert whole == pytest.approx((0.8, 0.8 - np.hypot(0.05, 0.15), 0.8 + np.hypot(0.075, 0.075)))
    assert combine([(None, 4)]) is None
    one = Interval(0.5, 0.3, 0.8)
    assert combine([(one, 7)]) == pytest.approx(one)


@pytest.fixture(scope="module")
def rows():
    return long_tail(np.random.default_rng(3), SIZES)


def review(rows, wrong, total, seed):
    """What is estimated from a draw of which every label is answered by the truth. wrong: (sample, class)."""
    drawn: Draw = draw(walk_of(rows, 4000), list(map(str, range(len(SIZES)))), "", total, seed)
    answers = {
        place: {"ann": Decision("no" if label[:2] in wrong else "yes")}
        for place, label in enumerate(drawn.labels)
    }
    return of_answers(drawn, answers)


def test_a_planted_noise_of_20_percent_lies_in_its_interval_in_95_of_100_trials(rows):
    """And the interval is hardly wider than theory allows: that of the normal distribution with the true
    variance of a stratified draw."""
    labels = [(sample, c) for sample, row in enumerate(rows) for c in row]
    held, widths = 0, []
    for seed in range(TRIALS):
        chosen = np.random.default_rng(seed).permutation(len(labels))[: len(labels) // 5]
        measured = review(rows, {labels[index] for index in chosen}, 300, seed)
        found = measured.precision
        held += found.low <= 1 - len(chosen) / len(labels) <= found.high
        widths.append(found.high - found.low)
    strata = [row.stratum for row in measured.rows]
    assert len(strata) == 4
    variance = sum((s.labels / len(labels)) ** 2 * 0.16 / s.drawn * (1 - s.drawn / s.labels) for s in strata)
    assert held >= 95
    assert np.mean(widths) < 1.1 * 2 * stats.norm.ppf(1 - ERROR) * np.sqrt(variance)


def test_the_estimate_has_no_bias_where_rare_classes_are_noisier(rows):
    random = np.random.default_rng(5)
    labels = [(sample, c) for sample, row in enumerate(rows) for c in row]
    noise = {c: 0.05 if size >= 1000 else 0.6 for c, size in enumerate(SIZES)}
    wrong = {label for label in labels if random.random() < noise[label[1]]}
    truth = 1 - len(wrong) / len(labels)
    found, plain = [], []
    for seed in range(TRIALS):
        measured = review(rows, wrong, 200, seed)
        found.append(measured.precision.value)
        plain.append(sum(row.yes for row in measured.rows) / 200)
    assert abs(np.mean(found) - truth) < 3 * np.std(found) / np.sqrt(TRIALS)
    assert abs(np.mean(plain) - truth) > 0.1  # what it would be without weights


def test_cohens_kappa_is_that_of_scikit_learn():
    random = np.random.default_rng(1)
    for kinds in (2, 3):
        one = random.integers(0, kinds, 60)
        other = np.where(random.random(60) < 0.6, one, random.integers(0, kinds, 60))
        said = [["yes", "no", "unsure"][kind] for kind in one], [["yes", "no", "unsure"][k] for k in other]
        assert kappa(*said) == pytest.approx(cohen_kappa_score(*said))
    assert kappa(["yes", "no"], ["no", "yes"]) == pytest.approx(-1)
    assert kappa(["yes"] * 3, ["yes"] * 3) is None


def test_krippendorffs_alpha_of_his_example():
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: four observers, twelve
    units, values missing; 0.743 for nominal data."""
    values = [
        [1, 1, None, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
        [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [None, 5, 5, 5], [None, None, 1, 1], [None, None, 3, None],
    ]  # fmt: skip
    table = np.array([[unit.count(kind) for kind in range(1, 6)] for unit in values])
    assert alpha(table) == pytest.approx(0.743, abs=5e-4)
    assert agreement(table) == pytest.approx(86 / 110)
    assert alpha(np.array([[3, 0], [2, 0]])) is None
    assert alpha(table[:0]) is None
    assert agreement(np.array([[1, 0], [0, 1]])) is None
