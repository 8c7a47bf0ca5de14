"""samples/grouping.py: counts, the rarest class of a row, the rows of a class, as plain Python finds them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.ops import scatter
from hpcscale.samples.grouping import by_class, count, rarest

TOTAL = 7
ROWS = st.lists(st.sets(st.integers(0, TOTAL - 1)).map(sorted), max_size=30)


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, rows)])
    return offsets, np.array([c for row in rows for c in row], np.int32)


@settings(max_examples=100, deadline=None)
@given(ROWS, st.data())
def test_count_looks_at_the_wanted_rows(rows: list[list[int]], data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    every = [sum(c in row for row in rows) for c in range(TOTAL)]
    some = [sum(c in row for row, use in zip(rows, wanted, strict=True) if use) for c in range(TOTAL)]
    assert count(*csr(rows), TOTAL).tolist() == every
    assert count(*csr(rows), TOTAL, np.array(wanted, bool)).tolist() == some


@settings(max_examples=100, deadline=None)
@given(ROWS, st.lists(st.integers(0, 3), min_size=TOTAL, max_size=TOTAL))
def test_rarest_takes_the_lower_of_equals_and_none_of_an_empty_row(
    rows: list[list[int]], counts: list[int]
) -> None:
    found = rarest(*csr(rows), np.array(counts))
    assert found.dtype == np.int32
    assert found.tolist() == [min(row, key=lambda c: (counts[c], c), default=-1) for row in rows]


@settings(max_examples=100, deadline=None)
@given(ROWS)
@pytest.mark.parametrize("dtype", [np.uint32, np.int64])
def test_by_class_keeps_the_order_of_the_rows(dtype: type, rows: list[list[int]]) -> None:
    ids = np.arange(100, 100 + 3 * len(rows), 3).astype(dtype)
    starts, found = by_class(*csr(rows), ids, TOTAL)
    assert found.dtype == dtype
    assert starts.tolist() == np.cumsum([0] + [sum(c in row for row in rows) for c in range(TOTAL)]).tolist()
    for c in range(TOTAL):
        expected = [100 + 3 * i for i, row in enumerate(rows) if c in row]
        assert found[starts[c] : starts[c + 1]].tolist() == expected


def test_scatter_goes_on_with_the_next_rows() -> None:
    rows = [[0, 2], [], [2], [1, 2], [0]]
    starts, whole = by_class(*csr(rows), np.arange(5, dtype=np.int32), 3)
    places, out = starts[:-1].copy(), np.empty(whole.size, np.int32)
    for lo, hi in ((0, 2), (2, 2), (2, 5)):
        scatter(*csr(rows[lo:hi]), np.arange(lo, hi, dtype=np.int32), places, out)
    assert out.tolist() == whole.tolist()
    assert places.tolist() == starts[1:].tolist()


def test_scatter_names_what_does_not_fit() -> None:
    rows, ids, places = csr([[0], [1]]), np.arange(2), np.array([0, 1])
    with pytest.raises(IndexError, match=r"class 1: place 1 is outside \[0, 1\)"):
        scatter(*rows, ids, places.copy(), np.empty(1, np.int64))
    with pytest.raises(IndexError, match=r"row 1: class 1 is outside \[0, 1\)"):
        scatter(*rows, ids, places[:1].copy(), np.empty(2, np.int64))
    with pytest.raises(ValueError, match="2 rows, but 1 ids"):
        scatter(*rows, ids[:1], places, np.empty(2, np.int64))
    for wrong in (np.empty(2, np.float64), np.empty(2, np.int32)):
        with pytest.raises(TypeError, match=f"found int64, {wrong.dtype}"):
            scatter(*rows, ids, places, wrong)
