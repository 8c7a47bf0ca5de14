"""Hash or embedding files -> all pairs of pictures within a radius or cosine, exact; or nearest neighbours.

In: one or two hash or embedding files (data/codes.py). Out: a pairs file (pairs.py): name in A, name in B,
distance, on each line. The distance of embeddings is 1 - cosine, with six decimals. Beside it, `OUT.json`
says which pictures these are (origin.py).

Lines are sorted by the position of the first picture in A's file, then by that of the second in B's. Without
B, pairs are within A, and the first picture is the earlier one. Neighbours of embeddings are written nearest
first; of equally near ones, the earlier in the file comes first. So the result is a pure function of the
files and the options, however often the search was killed and however many array tasks shared it (blocks.py).

Memory is bounded: at most `BLOCK` codes of each file, or `cosine.FLOATS` floats of embeddings, are used at a
time.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.data.codes import POOLINGS, WORDS, Codes, read_codes
from hpcscale.data.parts import Part, check_part
from hpcscale.data.verify import Progress
from hpcscale.dedup.blocks import Found, Job, Search, Share, run
from hpcscale.dedup.blocks import SearchError as SearchError  # so that callers need not know blocks.py
from hpcscale.dedup.lines import check

BLOCK = 1 << 24  # codes of one side in use at a time; for PDQ, up to 1.3 GB a side in all
RADIUS = {"pdq": 31, "phash": 10, "dhash": 10}  # Meta's advice; imagededup's default
MIN_QUALITY = {"pdq": 50, "phash": 0, "dhash": 0}  # Meta: do not trust hashes of quality 49 and below
NEIGHBOURS = 21  # Mahajan et al. 2018, section 2.1


class Searched(NamedTuple):
    pairs: int
    left_out_a: int  # pictures of A below the quality
    left_out_b: int  # and of B


def search(
    a: Path,
    b: Path | None,
    out: Path | None,
    radius: int | None = None,
    min_quality: int | None = None,
    threads: int | None = None,
    progress: Progress = lambda stage, done, total: None,
    cosine: float | None = None,
    neighbours: int | None = None,
    part: Part | None = None,
) -> Searched:
    """Write all pairs of a picture of `a` and one of `b` (None: two of `a`) to `out` (None: stdout).

    - of hashes: radius: bits that may differ, inclusive; min_quality: pictures below it are left out, on both
      sides; None: the method's value above.
    - of embeddings: cosine: the least, inclusive; neighbours: at most this many for each picture of `a`,
      `NEIGHBOURS` if neither option is given.

    threads: None takes every core this process may use. part: (I, N) does only the share of task I of N; a
    call without it, when the tasks have ended, does what they left and writes `out`. Raises DataError for a
    damaged file, and SearchError.
    """
    try:
        check_part(part)
    except ValueError as error:
        raise SearchError(str(error)) from None
    check(out, [a, b])
    first, second = read_codes(a), None if b is None else read_codes(b)
    if second is not None and (first.method, first.version) != (second.method, second.version):
        raise SearchError(
            f"{a} holds {first.method} version {first.version}, "
            f"{b} {second.method} version {second.version}: codes of different methods or versions do not "
            "compare"
        )
    if second is not None and first.checkpoint != second.checkpoint:
        raise SearchError(f"{a} and {b} come from different checkpoints: their features do not compare")
    threads = threads or len(os.sched_getaffinity(0))
    if first.method in POOLINGS:
        if radius is not None or min_quality is not None:
            raise SearchError(f"{a} holds embeddings: use a cosine or neighbours, not radius or quality")
        return Searched(
            run(_by_cosine(first, second, cosine, neighbours, threads), out, part, progress), 0, 0
        )
    if cosine is not None or neighbours is not None:
        raise SearchError(f"{a} holds {first.method}: use a radius; cosine and neighbours are of embeddings")
    radius = checked_radius(first.method, RADIUS[first.method] if radius is None else radius)
    quality = MIN_QUALITY[first.method] if min_quality is None else min_quality
    pairs = run(_by_radius(first, second, radius, quality, threads), out, part, progress)
    low = [int((codes.quality < quality).sum()) for codes in (first, second or first)]
    return Searched(pairs, *low)


def checked_radius(method: str, radius: int) -> int:
    """Raises SearchError."""
    bits = 64 * WORDS[method]
    if not 0 <= radius <= bits:
        raise SearchError(f"radius must be between 0 and {bits} for {method}, found {radius}")
    return radius


def _by_radius(a: Codes, b: Codes | None, radius: int, quality: int, threads: int) -> Search:
    def find(job: Job, block: int, found: Found, share: Share) -> None:
        rows_a, rows_b = _rows(a, b, job, block, quality)
        near = _in_files(rows_a, rows_a if rows_b is None else rows_b, found)
        if rows_b is None:
            ops.self_join(_taken(a, rows_a), radius, threads, found=near, progress=share)
        else:
            ops.search(_taken(a, rows_a), _taken(b or a, rows_b), radius, threads, found=near, progress=share)

    task = {"a": a.digest, "b": b and b.digest, "radius": radius, "min_quality": quality}
    return Search(a, b, task, BLOCK, find, False, str)


def _by_cosine(
    a: Codes, b: Codes | None, least: float | None, neighbours: int | None, threads: int
) -> Search:
    from hpcscale.dedup import cosine  # faiss only where it is needed

    if least is not None and not -1 <= least <= 1:
        raise SearchError(f"cosine must be between -1 and 1, found {least}")
    if neighbours is not None and neighbours < 1:
        raise SearchError(f"neighbours must be at least 1, found {neighbours}")
    if b is not None and a.codes.shape[1] != b.codes.shape[1]:
        raise SearchError(f"features of {a.codes.shape[1]} and of {b.codes.shape[1]} numbers do not compare")
    most = 2 * cosine.UNIT if least is None else cosine.units(least)
    block = max(1, cosine.FLOATS // a.codes.shape[1])

    def find(job: Job, block: int, found: Found, share: Share) -> None:
        rows_a, rows_b = _rows(a, b, job, block, 0)
        near = _in_files(rows_a, rows_a if rows_b is None else rows_b, found)
        other = None if rows_b is None else _taken(b or a, rows_b)
        cosine.within(_taken(a, rows_a), other, most, threads, near, share)

    task: dict[str, int | str | None] = {"a": a.digest, "b": b and b.digest, "most": most}
    if least is not None and neighbours is None:
        return Search(a, b, task, block, find, False, cosine.digits)
    k = neighbours or NEIGHBOURS

    def nearest(job: Job, rows: int, found: Found, share: Share) -> None:
        _nearest(a, b, job.x, rows, k, most, threads, block, found, share)

    return Search(a, b, task | {"neighbours": k}, block, nearest, True, cosine.digits)


def _nearest(
    a: Codes, b: Codes | None, x: int, rows: int, k: int, most: int, threads: int, block: int, found: Found,
    share: Share,
) -> None:  # fmt: skip
    """Of each of the `rows` pictures of A from x on, the k nearest within `most`, nearest first."""
    from hpcscale.dedup import cosine

    other = a if b is None else b
    queries = a.codes[x : x + rows]
    near, far = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.int64)
    for y in range(0, len(other.codes), block):
        features = other.codes[y : y + block]
        first = x - y if b is None else None
        places, distances = cosine.nearest(queries, cosine.index(features, threads), features, k, first)
        places[places >= 0] += y
        near, far = np.hstack([near, places]), np.hstack([far, distances])
        order = np.lexsort((near, far))[:, :k]  # by distance, then row; missing ones are farthest
        near, far = (np.take_along_axis(each, order, 1) for each in (near, far))
        other.release()
        share(min(1.0, (y + block) / len(other.codes)))
    kept = (near >= 0) & (far <= most)
    mine = np.broadcast_to(np.arange(x, x + len(queries))[:, None], near.shape)
    found(np.column_stack([mine[kept], near[kept], far[kept]]))


Rows = NDArray[np.int64]


def _rows(a: Codes, b: Codes | None, job: Job, block: int, quality: int) -> tuple[Rows, Rows | None]:
    """The rows of a job whose quality suffices, of A and of B; None: the job is within one block of A."""
    rows_a = job.x + np.flatnonzero(a.quality[job.x : job.x + block] >= quality)
    if job.y is None or (b is None and job.x == job.y):
        return rows_a, None
    return rows_a, job.y + np.flatnonzero((b or a).quality[job.y : job.y + block] >= quality)


def _in_files(rows_a: Rows, rows_b: Rows, found: Found) -> Found:
    """Turns rows of blocks into rows of files."""
    return lambda pairs: found(np.column_stack([rows_a[pairs[:, 0]], rows_b[pairs[:, 1]], pairs[:, 2]]))


def _taken(codes: Codes, rows: Rows) -> NDArray[Any]:
    """The codes of rising rows; a view of the file if all rows are taken."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return codes.codes[rows[0] : rows[-1] + 1]
    return codes.codes[rows]
