"""A hash file -> the groups of its pictures, each as a star: every picture paired with the group's first.

In: one hash file. Out: a pairs file (pairs.py). Each line has the first picture of a group, another picture
of it, and the distance of the two; lines are sorted by the positions of both in the file. A group is what
pairs within the radius connect, as in groups.py, so the distance in a line may be larger than the radius.

n equal pictures are n * (n - 1) / 2 pairs, but only n - 1 lines here, and each code is searched for once,
however many pictures have it. Memory: about 100 bytes per picture. Cannot be resumed or shared by tasks.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.data.codes import POOLINGS, read_codes
from hpcscale.dedup.blocks import SearchError
from hpcscale.dedup.lines import check, lines
from hpcscale.dedup.search import USUAL, Near, Searched
from hpcscale.progress import Progress, none

PIECE = 1 << 18  # pairs joined at a time, at least


def search_groups(
    a: Path,
    out: Path | None,
    near: Near = USUAL,
    threads: int | None = None,
    progress: Progress = none,
) -> Searched:
    """Write the groups of `a` to `out` (None: stdout). Options as for `search`, for hashes. `Searched.pairs`
    counts the lines. Raises DataError and SearchError.
    """
    check(out, [a])
    codes = read_codes(a)
    if codes.method in POOLINGS:
        raise SearchError(f"{a} holds embeddings: groups are of hashes")
    radius, quality = near.of_hashes(a, codes.method)
    rows = np.flatnonzero(codes.quality >= quality)
    kept = codes.codes[rows]
    first = _first_of_groups(kept, radius, threads or len(os.sched_getaffinity(0)), progress)
    others = np.flatnonzero(first != np.arange(len(rows)))
    others = others[np.lexsort((others, first[others]))]
    distances = np.bitwise_count(kept[first[others]] ^ kept[others]).sum(1)
    with lines(out, codes, None) as write:
        write(np.column_stack([rows[first[others]], rows[others], distances.astype(np.int64)]))
    return Searched(len(others), int((codes.quality < quality).sum()), 0)


def _first_of_groups(
    codes: NDArray[np.uint64], radius: int, threads: int, progress: Progress
) -> NDArray[np.int64]:
    """For every row  # (n,): the first row of its group."""
    _, first, which = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # distinct codes, in the order of their first rows
    first = first[order]
    which = np.argsort(order)[which.reshape(-1)]
    root = np.arange(len(first))
    waiting: list[NDArray[np.int64]] = []

    def found(pairs: NDArray[np.int64]) -> None:
        waiting.append(pairs)
        if sum(map(len, waiting)) >= max(PIECE, len(root)):  # a join costs a pass over all codes
            join()

    def join() -> None:
        pairs = np.concatenate([np.empty((0, 3), np.int64), *waiting])
        waiting.clear()
        while len(pairs := pairs[root[pairs[:, 0]] != root[pairs[:, 1]]]):
            ends = root[pairs[:, :2]]
            np.minimum.at(root, ends.max(1), ends.min(1))
            while not np.array_equal(up := root[root], root):
                root[:] = up

    def done(of_all: float) -> None:
        progress("search", int(1000 * of_all), 1000)

    ops.self_join(np.ascontiguousarray(codes[first]), radius, threads, found=found, progress=done)
    join()
    return np.asarray(first[root[which]])
