"""Exact search among embeddings by cosine: all pairs above a threshold, or each picture's nearest.

The only file that imports faiss.

In: features (n, d) float32 of length 1, in the blocks of dedup/search.py. Out: pairs of rows with their
distance, 1 - cosine in steps of 1 / `UNIT`. Smaller is nearer, as with hashes.

FAISS (IndexFlatIP) finds the candidates: all pairs whose float32 product could belong to the answer, allowing
for the largest rounding error. Then their products are computed again in float64 and rounded. So the answer
does not depend on blocks, threads or the order in which a matrix product adds; the row decides between equal
distances.
"""

from collections.abc import Iterable

import faiss
import numpy as np
from numpy.typing import NDArray

from hpcscale.dedup.blocks import Done, Found, RowNumbers

UNIT = 1_000_000  # distances are whole millionths
FLOATS = 1 << 26  # features of one side in use at a time: 256 MB, for the indexed side twice that
QUERIES = 512  # rows searched for at once: bounds how many pairs are found before they are written
EXACT = 1 << 13  # pairs whose products are computed again in one go
EXTRA = 32  # candidates beyond the neighbours asked for; with more ties than that, a slower way is taken

Features = NDArray[np.float32]


def units(cosine: float) -> int:
    """The largest distance, in units, that a threshold allows."""
    return round((1 - cosine) * UNIT)


def digits(distance: int) -> str:
    """A distance as it stands in a pairs file."""
    return f"{distance // UNIT}.{distance % UNIT:06d}"


def slack(width: int) -> float:
    """The largest error between two float32 products of vectors of length 1, with rounding to units."""
    return 2 / UNIT + width * 2.0**-23


def index(features: Features, threads: int) -> faiss.IndexFlatIP:
    faiss.omp_set_num_threads(threads)
    built = faiss.IndexFlatIP(features.shape[1])
    built.add(np.ascontiguousarray(features))
    return built


def within(a: Features, b: Features | None, most: int, threads: int, found: Found, done: Done) -> None:
    """Give `found` all (i, j, distance) with distance <= `most`, some at a time. b None: pairs i < j of a."""
    if not len(a) or (b is not None and not len(b)):
        return
    other = a if b is None else b
    built = index(other, threads)
    least = 1 - most / UNIT - slack(a.shape[1])
    for start in range(0, len(a), QUERIES):
        queries = np.ascontiguousarray(a[start : start + QUERIES])
        limits, _, columns = built.range_search(queries, least)
        rows = start + np.repeat(
            np.arange(len(queries)), limits[1:].astype(np.int64) - limits[:-1].astype(np.int64)
        )
        if b is None:
            rows, columns = rows[rows < columns], columns[rows < columns]
        for begin in range(0, len(rows), EXACT):
            i, j = rows[begin : begin + EXACT], columns[begin : begin + EXACT]
            distances = exact(a[i], other[j])
            near = distances <= most
            found(np.column_stack([i[near], j[near], distances[near]]))
        done(min(1.0, (start + QUERIES) / len(a)))


def nearest(
    a: Features, b: Iterable[Features], k: int, first: int | None, threads: int
) -> tuple[RowNumbers, NDArray[np.int64]]:
    """The k nearest of B, which comes in blocks, to every row of a: rows and distances  # (n, k) both

    Sorted by distance, then row. first: row 0 of a is row `first` of B, and so on, and no row is its own
    neighbour; None: a and B hold different pictures. Where B has fewer than k, the rest is row -1 at distance
    3 * UNIT.
    """
    rows, distances = np.empty((len(a), 0), np.int64), np.empty((len(a), 0), np.int64)
    start = 0
    for features in b:
        own = None if first is None else first - start
        here, far = _nearest_of_block(a, index(features, threads), features, k, own)
        here[here >= 0] += start
        rows, distances = np.hstack([rows, here]), np.hstack([distances, far])
        order = np.lexsort((rows, distances))[:, :k]  # by distance, then row; missing ones are farthest
        rows, distances = (np.take_along_axis(each, order, 1) for each in (rows, distances))
        start += len(features)
    return rows, distances


def _nearest_of_block(
    a: Features, b: faiss.IndexFlatIP, features: Features, k: int, first: int | None
) -> tuple[RowNumbers, NDArray[np.int64]]:
    """`nearest` of one block; b: the index of its features. Rows are those of the block."""
    n, total = len(a), len(features)
    rows, distances = np.full((n, k), -1, np.int64), np.full((n, k), 3 * UNIT, np.int64)
    for start in range(0, n, QUERIES):
        queries = np.ascontiguousarray(a[start : start + QUERIES])
        scores, columns = b.search(queries, min(total, k + 1 + EXTRA))
        for row in range(len(queries)):
            taken = columns[row]
            own = -1 if first is None else start + row + first
            if len(taken) < total:
                edge = float(scores[row, k]) - slack(a.shape[1])  # k + 1 rows reach it: k and the row itself
                if scores[row, -1] >= edge:
                    _, _, taken = b.range_search(queries[row : row + 1], edge)
            taken = taken[(taken != own) & (taken >= 0)]
            parts = [
                exact(np.broadcast_to(queries[row], (len(part), a.shape[1])), features[part])
                for part in np.split(taken, range(EXACT, len(taken), EXACT))
            ]
            measured = np.concatenate(parts)
            order = np.lexsort((taken, measured))[:k]
            rows[start + row, : len(order)] = taken[order]
            distances[start + row, : len(order)] = measured[order]
    return rows, distances


def exact(a: Features, b: Features) -> NDArray[np.int64]:
    """Distances of the rows of a and b, pairwise, in units; the sums are float64, so their order is free."""
    products = np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))
    distances: NDArray[np.int64] = np.maximum(np.rint((1 - products) * UNIT), 0).astype(np.int64)
    return distances
