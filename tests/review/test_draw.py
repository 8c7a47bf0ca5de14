"""Which labels are drawn: strata, their parts, every label alike, spread over classes, by the seed alone."""

from collections import Counter

import numpy as np
import pytest
from judged import long_tail, walk_of

from hpcscale.files import FileError, Usage
from hpcscale.review.draw import allocate, draw

COUNTS = [700, 150, 130, 60, 45, 30, 22, *[9] * 6, 5, 3, 1, 0, 1]
NAMES = [f"c{c}" for c in range(len(COUNTS))]


@pytest.fixture(scope="module")
def rows():
    return long_tail(np.random.default_rng(0), COUNTS)


def drawn_of(rows, total, seed=0, chunk=1000):
    return draw(walk_of(rows, chunk), NAMES, "digest", total, seed)


def test_strata_are_classes_of_like_frequency(rows):
    found = drawn_of(rows, 100)
    assert [stratum[:4] for stratum in found.strata] == [
        (1, 20, 10, sum(COUNTS[7:])),
        (20, 100, 4, 157),
        (100, 1000, 3, 980),
    ]
    assert [stratum.drawn for stratum in found.strata] == allocate([64, 157, 980], 100)
    for label in found.labels:
        stratum = found.strata[label.stratum]
        assert stratum.least <= COUNTS[label.c] < stratum.below


def test_what_is_drawn_are_labels_of_the_data_and_each_once(rows):
    found = drawn_of(rows, 300)
    assert len(found.labels) == len(set(found.labels)) == 300
    assert all(label.c in rows[label.sample] for label in found.labels)
    assert Counter(label.stratum for label in found.labels) == {
        index: stratum.drawn for index, stratum in enumerate(found.strata)
    }


def test_the_draw_is_a_function_of_seed_and_data_alone(rows):
    found = drawn_of(rows, 100)
    assert found == drawn_of(rows, 100, chunk=7)
    others = [drawn_of(rows, 100, 1), drawn_of(rows, 101), draw(walk_of(rows), NAMES, "other", 100)]
    assert len({found.id, *(other.id for other in others)}) == 4
    assert set(others[0].labels) != set(found.labels)
    assert others[2].labels == found.labels


def test_every_label_of_a_stratum_is_drawn_as_often(rows):
    """Chi-square of how often, over seeds; systematic draws vary less than independent ones."""
    times, trials = Counter(), 300
    for seed in range(trials):
        found = drawn_of(rows, 60, seed)
        times.update(label[:2] for label in found.labels)
    for index, stratum in enumerate(found.strata):
        expected = trials * stratum.drawn / stratum.labels
        held = [
            times[sample, c]
            for sample, row in enumerate(rows)
            for c in row
            if stratum.least <= COUNTS[c] < stratum.below
        ]
        assert len(held) == stratum.labels
        assert sum(held) == trials * stratum.drawn
        spread = sum((n - expected) ** 2 for n in held) / (expected * (1 - stratum.drawn / stratum.labels))
        assert spread / stratum.labels < 1 + 5 * np.sqrt(2 / stratum.labels), index


def test_a_rare_class_is_drawn_as_often_as_its_labels_are():
    rows = [[0]] * 19 + [[1]]
    times = sum(
        any(label.c for label in draw(walk_of(rows), "ab", "", 2, seed).labels) for seed in range(900)
    )
    assert abs(times / 900 - 2 / 20) < 4 * np.sqrt(0.1 * 0.9 / 900)


def test_the_draw_is_spread_over_the_classes(rows):
    for seed in range(20):
        found = drawn_of(rows, 150, seed)
        of = Counter(label.c for label in found.labels)
        for c, size in enumerate(COUNTS):
            for stratum in found.strata:
                if stratum.least <= size < stratum.below:
                    assert abs(of[c] - size * stratum.drawn / stratum.labels) < 1


def test_the_first_labels_of_the_page_are_a_smaller_draw(rows):
    """Not stratum after stratum, nor class after class."""
    half = [drawn_of(rows, 150, seed).labels[:75] for seed in range(40)]
    share = np.mean([sum(label.stratum == 2 for label in labels) / 75 for labels in half])
    assert abs(share - drawn_of(rows, 150).strata[2].drawn / 150) < 0.03


def test_more_than_all_are_all_and_fewer_than_strata_are_refused(rows):
    found = drawn_of(rows, 5000)
    assert len(set(found.labels)) == sum(COUNTS) == sum(map(len, rows))
    assert all(stratum.drawn == stratum.labels for stratum in found.strata)
    assert len(drawn_of(rows, 3).labels) == 3
    with pytest.raises(Usage, match=r"--sample 2: the classes fall into 3 strata"):
        drawn_of(rows, 2)
    with pytest.raises(FileError, match="no label to look at"):
        drawn_of([[], []], 5)


def test_parts_go_with_the_square_root():
    assert allocate([100, 10_000], 110) == [10, 100]
    assert allocate([1, 4, 10**10], 9) == [1, 1, 7]
    assert allocate([1, 4, 9], 50) == [1, 4, 9]
    assert allocate([10**10], 500) == [500]
    sizes = [3, 50, 800, 20_000]
    for total in range(4, 400):
        parts = allocate(sizes, total)
        assert sum(parts) == total
        assert all(a <= b for a, b in zip(parts, allocate(sizes, total + 1), strict=True))
    roots = np.sqrt(sizes[1:]) * (400 - 3) / np.sqrt(sizes[1:]).sum()
    assert np.abs(np.array(allocate(sizes, 400)[1:]) - roots).max() < 1.5
