"""samples/sampling.py: natural, square-root and uniform sampling, by repeat factors and by two stages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.config import ConfigError, Sampling
from hpcscale.samples.grouping import by_class, count, rarest
from hpcscale.samples.lists import Held, Lists
from hpcscale.samples.sampling import (
    WIDTH,
    Repeated,
    TwoStage,
    class_weights,
    classes_seen,
    copies,
    distribution,
    entropy,
    order_of,
    repeat_factors,
)

TAIL = np.array([1000, 400, 90, 30, 0, 4])


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum([0, *map(len, rows)]), np.array([c for row in rows for c in row], np.int32)


def index(rows: list[list[int]], classes: int) -> tuple[Lists, Lists]:
    """Samples 10, 11, ... with these classes: by class, and once under the rarest."""
    offsets, ids = csr(rows)
    samples = np.arange(10, 10 + len(rows))
    starts, found = by_class(offsets, ids, samples, classes)
    own = rarest(offsets, ids, np.diff(starts))
    places = np.arange(len(rows) + 1)
    once = by_class(places, np.where(own < 0, classes, own).astype(np.int32), samples, classes + 1)
    return Lists(starts, Held(found)), Lists(once[0], Held(once[1]))


def single(counts: np.ndarray) -> list[list[int]]:
    """Samples of one class each, mixed."""
    return [[int(c)] for c in np.random.default_rng(2).permutation(np.repeat(np.arange(counts.size), counts))]


def epoch(order: TwoStage | Repeated, number: int = 0) -> np.ndarray:
    return order.samples_at(np.arange(number * order.length, (number + 1) * order.length))[0]


def chi_square(seen: np.ndarray, expected: np.ndarray) -> float:
    """Above the mean of its distribution, in standard deviations."""
    some = expected > 0
    assert not seen[~some].any()
    statistic = ((seen - expected)[some] ** 2 / expected[some]).sum()
    return float((statistic - some.sum() + 1) / np.sqrt(2 * (some.sum() - 1)))


def test_row_09_sampling_repeats_classes_by_the_factors_of_the_recipe() -> None:
    """t = 1e-3 over 10 million samples."""
    counts = (np.array([1e-2, 1e-3, 2.5e-4, 1e-4, 1e-5]) * 10_000_000).astype(np.int64)
    factors = {
        "natural": [1, 1, 1, 1, 1],
        "sqrt": [1, 1, 2, np.sqrt(10), 10],
        "uniform": [1, 1, 4, 10, 100],
    }
    for name, expected in factors.items():
        np.testing.assert_allclose(repeat_factors(counts, 10_000_000, name, 1e-3), expected, rtol=1e-12)


def test_row_09_sampling_repeats_samples_as_detectron2_does() -> None:
    """Its own example: two pictures, of classes 0 and 1 and of 0, and one of none; t = 0.5."""
    rows = csr([[0, 1], [0], []])
    found = copies(Sampling(name="sqrt", threshold=0.5), count(*rows, 2), 3, *rows)
    np.testing.assert_allclose(found, [np.sqrt(1.5), 1, 1], rtol=1e-12)


@pytest.mark.parametrize("name", ["sqrt", "uniform"])
def test_row_09_sampling_in_two_stages_draws_classes_by_their_weights(name: str) -> None:
    weights = {"sqrt": np.sqrt(TAIL), "uniform": np.array([1, 1, 1, 1, 0, 1])}[name]
    expected = weights / weights.sum()
    np.testing.assert_allclose(class_weights(TAIL, name), expected)
    rows = single(TAIL)
    order = TwoStage(index(rows, 6)[0], name, len(rows), seed=1)
    drawn = order.samples_at(np.arange(100_000))[0] - 10
    seen = np.bincount(np.array(rows)[drawn, 0], minlength=6)
    assert abs(chi_square(seen, expected * 100_000)) < 4
    # Within a class, all samples are alike.
    mine = np.flatnonzero(np.array(rows)[:, 0] == 3)
    assert abs(chi_square(np.bincount(drawn, minlength=len(rows))[mine], np.full(30, seen[3] / 30))) < 4


@pytest.mark.parametrize("name", ["sqrt", "uniform"])
def test_row_09_sampling_repeats_each_sample_by_its_factor_on_average(name: str) -> None:
    """In every epoch the integer below or above it; over epochs r, to the error of a mean."""
    rng = np.random.default_rng(4)
    rows = [sorted(rng.choice(6, rng.integers(0, 3), replace=False, p=TAIL / TAIL.sum())) for _ in range(500)]
    chosen = Sampling(name=name, threshold=0.3)
    lists, once = index(rows, 6)
    order = order_of(chosen, lists, once, len(rows), seed=7)
    factors = repeat_factors(lists.counts(), len(rows), name, 0.3)
    expected = np.array([max([1.0, *factors[row]]) for row in rows])
    np.testing.assert_allclose(copies(chosen, lists.counts(), len(rows), *csr(rows)), expected)
    assert expected.max() > 4
    assert order.length == np.ceil(np.rint(expected * WIDTH).sum() / WIDTH)
    each = np.array([np.bincount(epoch(order, e) - 10, minlength=len(rows)) for e in range(400)])
    last = int(once.ids.take(np.array([len(rows) - 1]))[0]) - 10
    assert (each >= np.floor(expected)).all()
    assert (np.delete(each, last, 1) <= np.delete(np.ceil(expected), last)).all()
    error = np.sqrt((expected % 1) * (1 - expected % 1) / 400) + 1e-4
    assert (abs(each.mean(0) - expected) / error < 4.5)[np.arange(len(rows)) != last].all()


def test_row_09_sampling_evens_out_classes_in_order() -> None:
    counts = (1e5 / np.arange(1, 200)).astype(np.int64)
    total = int(counts.sum())
    for method in ("repeat", "two-stage"):
        seen = [distribution(Sampling(name=n, method=method), counts, total) for n in NAMES]
        natural, root, uniform = map(entropy, seen)
        assert natural < root < uniform <= np.log(199) + 1e-12
    assert uniform == pytest.approx(np.log(199))
    np.testing.assert_allclose(seen[0], counts / total)
    np.testing.assert_allclose(seen[1], np.sqrt(counts) / np.sqrt(counts).sum())


NAMES = ("natural", "sqrt", "uniform")


@pytest.mark.parametrize("method", ["repeat", "two-stage"])
@pytest.mark.parametrize("name", ["sqrt", "uniform"])
def test_what_classes_are_said_to_be_seen_is_what_epochs_hold(name: str, method: str) -> None:
    rng = np.random.default_rng(4)
    rows = [sorted(rng.choice(6, rng.integers(0, 4), replace=False, p=[0.4, 0.3, 0.15, 0.1, 0.03, 0.02]))
            for _ in range(400)]  # fmt: skip
    chosen = Sampling(name=name, method=method, threshold=0.4 if method == "repeat" else None)
    lists, once = index(rows, 6)
    order = order_of(chosen, lists, once, len(rows), seed=7)
    drawn = np.concatenate([epoch(order, e) for e in range(200)]) - 10
    seen = count(*csr([rows[i] for i in drawn]), 6) / 200
    halves = [classes_seen(chosen, lists.counts(), 400, *csr(half)) for half in (rows[:150], rows[150:])]
    np.testing.assert_allclose(seen, halves[0] + halves[1], rtol=0.02)
    natural = classes_seen(Sampling(), lists.counts(), 400, *csr(rows))
    assert natural.tolist() == lists.counts().tolist()


@pytest.mark.parametrize("method", ["repeat", "two-stage"])
def test_the_closed_form_is_exact_where_samples_have_one_class(method: str) -> None:
    rows = single(TAIL)
    for name in NAMES:
        chosen = Sampling(name=name, method=method)
        seen = classes_seen(chosen, TAIL, len(rows), *csr(rows))
        np.testing.assert_allclose(distribution(chosen, TAIL, len(rows)), seen / seen.sum())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 3)).map(sorted), min_size=1, max_size=40), st.data())
def test_every_position_has_its_sample_whatever_the_batch(rows: list[list[int]], data: st.DataObject) -> None:
    """So all world sizes see one sequence, and a run resumes anywhere."""
    name = data.draw(st.sampled_from(["sqrt", "uniform"]))
    method = data.draw(st.sampled_from(["repeat", "two-stage"]))
    rows = [[0], *rows]
    lists, once = index(rows, 4)
    order = order_of(Sampling(name=name, method=method), lists, once, len(rows), data.draw(st.integers()))
    positions = np.arange(3 * order.length + 5)
    samples, turns = order.samples_at(positions)
    assert ((samples >= 10) & (samples < 10 + len(rows))).all()
    assert np.unique(turns).size == positions.size
    ranks = data.draw(st.integers(1, 5))
    for rank in range(ranks):
        mine = order.samples_at(positions[rank::ranks])
        assert mine[0].tolist() == samples[rank::ranks].tolist()
        assert mine[1].tolist() == turns[rank::ranks].tolist()
    if method == "repeat":
        for e in range(3):
            assert set(samples[e * order.length : (e + 1) * order.length]) == set(range(10, 10 + len(rows)))


def test_seeds_and_epochs_differ_and_copies_are_mixed() -> None:
    rows = single(TAIL)
    lists, once = index(rows, 6)
    for method in ("repeat", "two-stage"):
        one, other = (
            order_of(Sampling(name="sqrt", method=method), lists, once, len(rows), s) for s in (1, 2)
        )
        assert (epoch(one) != epoch(other)).mean() > 0.9
        assert (epoch(one) != epoch(one, 1)).mean() > 0.9
        assert (np.diff(epoch(one)) == 0).mean() < 0.05


@pytest.mark.parametrize(
    ("method", "golden"),
    [
        (
            "repeat",
            [1490, 1006, 770, 1052, 1035, 1477, 535, 466, 658, 1201, 1465, 1199, 480, 1166, 420, 1467],
        ),
        (
            "two-stage",
            [1526, 1287, 1492, 273, 999, 817, 99, 1452, 1113, 1365, 840, 743, 275, 1411, 1348, 261],
        ),
    ],
)
def test_orders_do_not_drift_between_releases(method: str, golden: list[int]) -> None:
    """A drift would change the result of every recipe."""
    rows = [[c] for c, n in enumerate(TAIL.tolist()) for _ in range(n)]
    lists, once = index(rows, 6)
    order = order_of(Sampling(name="sqrt", method=method), lists, once, len(rows), 9)
    assert order.samples_at(np.arange(1515, 1531))[0].tolist() == golden


def test_the_most_frequent_class_is_the_threshold_where_none_is_given() -> None:
    factors = repeat_factors(np.array([400, 0, 100, 25]), 525, "sqrt")
    assert factors.tolist() == [1, 1, 2, 4]
    assert repeat_factors(np.zeros(3, np.int64), 5, "uniform").tolist() == [1, 1, 1]


def test_more_samples_than_32_bits_hold_are_all_reached() -> None:
    class Same:
        length = 3 << 33

        def take(self, places: np.ndarray) -> np.ndarray:
            return places

    counts = np.array([1 << 34, 0, 1 << 33])
    lists = Lists(np.concatenate([[0], np.cumsum(counts)]), Same())
    positions = np.arange(20_000)
    for order in (TwoStage(lists, "uniform", 3 << 33, 5), Repeated(lists, np.array([1.0, 1.0, 2.0]), 5)):
        parts = np.bincount(order.samples_at(positions)[0] >> 32, minlength=6)
        share = [1, 1, 1, 1, 2, 2]
        assert abs(chi_square(parts, np.array(share) / 8 * positions.size)) < 4


def test_errors_name_the_key() -> None:
    empty = Lists(np.zeros(4, np.int64), Held(np.empty(0, np.int64)))
    with pytest.raises(ConfigError, match=r"two-stage.*no sample"):
        TwoStage(empty, "sqrt", 5, 1)
    with pytest.raises(ConfigError, match=r"sampling\.threshold gives epochs of 1\.0e\+15 samples"):
        Repeated(Lists(np.array([0, 1]), Held(np.arange(1))), np.array([1e15]), 1)
