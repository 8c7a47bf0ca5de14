"""Targets against a slow oracle: any hierarchy, tags, ranges and kinds, in buffers that are used again."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import targets as oracle

from benchmarks import jft
from hpcscale import ops
from hpcscale.labels import hierarchy
from hpcscale.labels.targets import Targets
from hpcscale.labels.vocabulary import Vocabulary

KINDS = ("logistic", "softmax")
TAGS = {"dog": 1, "cat": 2, "wet": 3, "hund": 1, "animal": 0}
TABLE = ["dog", "cat", "unknown", "wet", "Hund", "animal"]
SELECTED = [1, 2, -1, 3, 1, 0]


def vocabulary(parents, tags):
    n = len(parents)
    return Vocabulary(
        tuple(f"c{c}" for c in range(n)), tuple(map(tuple, parents)), ((),) * n, tags, (0,) * n, 0, 0, {}
    )


ANIMALS = vocabulary([(), (0,), (0,), ()], TAGS)


def lists(records):
    return hierarchy.csr(records)


@st.composite
def cases(draw):
    """Parents of each class, class of each tag, batches of records, a range of classes."""
    n = draw(st.sampled_from([1, 2, 7, 8, 9, 63, 64, 65]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    parents = [random.choice(c, random.integers(min(c, 3) + 1), replace=False).tolist() for c in range(n)]
    selected = random.integers(-1, n, draw(st.integers(1, 40))).tolist()
    batches = [
        [random.integers(len(selected), size=random.integers(5)).tolist() for _ in range(random.integers(6))]
        for _ in range(4)
    ]
    lo, hi = sorted(random.integers(n + 1, size=2).tolist())
    return parents, selected, batches, lo, hi


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_rows_labels_and_truths_equal_the_oracle(kind, case):
    parents, selected, batches, lo, hi = case
    known = {f"t{t}": c for t, c in enumerate(selected) if c >= 0}
    table = [f"t{t}" for t in range(len(selected))]
    targets = Targets(vocabulary(parents, known), table, kind, 5, range(lo, hi))
    for records in batches:
        given_tags = lists(records)
        rows = targets.rows(*given_tags)
        expected = oracle.rows(kind, records, selected, parents, lo, hi)
        assert rows.dtype == expected.dtype
        np.testing.assert_array_equal(rows, expected)
        offsets, classes = targets.labels(*given_tags)
        found = [classes[a:b].tolist() for a, b in pairwise(offsets)]
        assert found == oracle.labels(records, selected, parents)
        truths = targets.truths(*given_tags)
        assert truths.dtype == np.int32
        assert truths.tolist() == oracle.truths(records, selected)


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_row_01_closure_is_idempotent_and_monotone(case):
    parents, _, batches, _, _ = case
    n = len(parents)
    tree = hierarchy.build([str(c) for c in range(n)], parents)
    closure = ops.Closure(np.arange(n, dtype=np.int32), tree.ancestor_offsets, tree.ancestor_ids)
    for records in batches:
        classes = [[t % n for t in record] for record in records]
        once = closure.labels(*lists(classes))
        twice = closure.labels(*once)
        np.testing.assert_array_equal(once[0], twice[0])
        np.testing.assert_array_equal(once[1], twice[1])
        more = closure.labels(*lists([[*record, 0] for record in classes]))
        for i in range(len(classes)):
            few = set(once[1][once[0][i] : once[0][i + 1]].tolist())
            many = set(more[1][more[0][i] : more[0][i + 1]].tolist())
            assert set(classes[i]) <= few <= many


def test_row_18_slices_of_a_softmax_row_sum_to_one():
    records = [[0], [0, 1], [3, 5], [0, 1, 3, 4, 5]]
    parts = [
        Targets(ANIMALS, TABLE, "softmax", 4, classes).rows(*lists(records)).sum(axis=1)
        for classes in (range(1), range(1, 3), range(3, 4))
    ]
    np.testing.assert_allclose(sum(parts), 1, rtol=1e-6)


def test_all_labels_and_none():
    targets = Targets(ANIMALS, TABLE, "logistic", 3)
    rows = targets.rows(*lists([[], [0, 1, 2, 3, 4, 5], [2]]))
    assert rows.tolist() == [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert targets.rows(*lists([])).shape == (0, 4)


def test_rows_are_a_view_of_the_same_buffer():
    buffer = np.zeros((3, 4), np.float32)
    targets = Targets(ANIMALS, TABLE, "logistic", 3, buffer=buffer)
    first = targets.rows(*lists([[0], [1], [3]]))
    assert first.base is buffer or first is buffer
    targets.rows(*lists([[3]]))
    assert buffer.tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_changes_nothing_and_the_next_batch_is_right(kind):
    targets = Targets(ANIMALS, TABLE, kind, 2)
    before = targets.rows(*lists([[0], [3, 1]])).copy()
    for records, error, message in (
        ([[1], [0, 6]], IndexError, r"record 1: tag id 6 is outside \[0, 6\)"),
        ([[-1]], IndexError, r"record 0: tag id -1 is outside \[0, 6\)"),
        ([[0], [0], [0]], ValueError, "found 3 records, the buffer holds 2"),
    ):
        with pytest.raises(error, match=message):
            targets.rows(*lists(records))
        np.testing.assert_array_equal(targets._buffer, before)
    records = [[1], [4, 4]]
    np.testing.assert_array_equal(
        targets.rows(*lists(records)), oracle.rows(kind, records, SELECTED, ANIMALS.parents, 0, 4)
    )


def test_labels_and_truths_name_a_bad_tag_too():
    targets = Targets(ANIMALS, TABLE, "logistic", 2)
    for function in (targets.labels, targets.truths):
        with pytest.raises(IndexError, match=r"record 1: tag id 6"):
            function(*lists([[1], [6]]))


@pytest.mark.parametrize(
    ("offsets", "ids", "error", "message"),
    [
        (np.array([0, 1], np.int32), np.array([0], np.int32), TypeError, "offsets: .*int64.*found int32"),
        (np.array([0, 1]), np.array([0]), TypeError, r"ids: .*int32.*found int64 \(1,\)"),
        (np.array([0, 1]), np.array([0.0], np.float32), TypeError, "found float32"),
        (np.array([0, 1]), np.array([[0]], np.int32), TypeError, r"1 dimension.*found int32 \(1, 1\)"),
        (np.array([0, 2]), np.zeros(4, np.int32)[::2], TypeError, "with gaps"),
        (np.array([0, 1]), np.array([0], ">i4"), TypeError, "found >i4"),
        (np.array([1, 1]), np.array([0], np.int32), ValueError, "start with 0"),
        (np.array([0, 2]), np.array([0], np.int32), ValueError, "last offset is 2"),
        (np.array([0, 1, 0]), np.array([], np.int32), ValueError, "record 1"),
        (np.array([], np.int64), np.array([], np.int32), ValueError, "start with 0"),
    ],
)
def test_wrong_arrays_are_rejected(offsets, ids, error, message):
    targets = Targets(ANIMALS, TABLE, "logistic", 2)
    with pytest.raises(error, match=message):
        targets.rows(offsets, ids)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "sigmoid"}, ValueError, "logistic, softmax$"),
        ({"batch": 0}, ValueError, "at least 1"),
        ({"classes": range(1, 5)}, IndexError, r"\[1, 5\) is outside \[0, 4\)"),
        ({"classes": range(0, 4, 2)}, ValueError, "step 1"),
        ({"buffer": np.zeros((2, 3), np.float32)}, ValueError, "rows of 4 elements"),
        ({"buffer": np.zeros((3, 4), np.float32)}, ValueError, "3 rows for a batch of 2"),
        ({"buffer": np.zeros((2, 4))}, TypeError, "found float64"),
        ({"buffer": np.zeros((2, 8), np.float32)[:, ::2]}, TypeError, "with gaps"),
    ],
)
def test_wrong_arguments_are_rejected(arguments, error, message):
    with pytest.raises(error, match=message):
        Targets(**{"vocabulary": ANIMALS, "tags": TABLE, "kind": "logistic", "batch": 2} | arguments)


def test_a_read_only_buffer_is_rejected():
    buffer = np.zeros((2, 4), np.float32)
    buffer.flags.writeable = False
    with pytest.raises(ValueError, match="not writeable"):
        Targets(ANIMALS, TABLE, "logistic", 2, buffer=buffer)


def test_rows_keep_closure_and_buffer_alive():
    """C++ writes into the buffer and reads the closure for as long as the rows are there, and no longer."""
    above = np.zeros(5, np.int64), np.zeros(0, np.int32)
    closure = ops.Closure(np.arange(4, dtype=np.int32), *above)
    buffer = np.zeros((2, 4), np.float32)
    kept = [weakref.ref(buffer), weakref.ref(closure._closure)]
    rows = ops.TargetRows(closure, 0, 4, "ones", buffer)
    del buffer, closure
    gc.collect()
    assert all(reference() is not None for reference in kept)
    rows.fill(*lists([[0], [3]]))
    assert kept[0]().tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    del rows
    gc.collect()
    assert all(reference() is None for reference in kept)


def test_jft_sized_rows():
    parents = jft.parents()
    table = [str(c) for c in range(jft.CLASSES)]
    jft_like = vocabulary(parents, {tag: c for c, tag in enumerate(table)})
    targets = Targets(jft_like, table, "logistic", 64, range(1000, 10000))
    random = np.random.default_rng(1)
    for _ in range(2):
        offsets, ids = jft.batch(random, 64)
        records = [ids[a:b].tolist() for a, b in pairwise(offsets)]
        expected = oracle.rows("logistic", records, list(range(jft.CLASSES)), parents, 1000, 10000)
        np.testing.assert_array_equal(targets.rows(offsets, ids), expected)
