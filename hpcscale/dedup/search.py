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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.data.codes import POOLINGS, WORDS, Codes, read_codes
from hpcscale.data.parts import Part, check_part
from hpcscale.dedup.blocks import Done, Found, RowNumbers, Search, Tile, run
from hpcscale.dedup.blocks import SearchError as SearchError  # so that callers need not know blocks.py
from hpcscale.dedup.lines import check
from hpcscale.progress import Progress, none

BLOCK = 1 << 24  # codes of one side in use at a time; for PDQ, up to 1.3 GB a side in all
RADIUS = {"pdq": 31, "phash": 10, "dhash": 10}  # Meta's advice; imagededup's default
MIN_QUALITY = {"pdq": 50, "phash": 0, "dhash": 0}  # Meta: do not trust hashes of quality 49 and below
NEIGHBOURS = 21  # Mahajan et al. 2018, section 2.1


class Near(NamedTuple):
    """Which pairs are near enough. The first two are for hashes, the last two for embeddings."""

    radius: int | None = None  # bits that may differ, inclusive; None: the method's in RADIUS
    min_quality: int | None = None  # pictures below it are left out, on both sides; None: as in MIN_QUALITY
    cosine: float | None = None  # the least, inclusive
    neighbours: int | None = None  # at most this many of each picture of A; NEIGHBOURS without a cosine

    def of_hashes(self, file: Path, method: str) -> tuple[int, int]:
        """Radius and least quality for the hashes in `file`. Raises SearchError."""
        if self.cosine is not None or self.neighbours is not None:
            raise SearchError(f"{file} holds {method}: use a radius; cosine and neighbours are of embeddings")
        radius = RADIUS[method] if self.radius is None else self.radius
        bits = 64 * WORDS[method]
        if not 0 <= radius <= bits:
            raise SearchError(f"radius must be between 0 and {bits} for {method}, found {radius}")
        return radius, MIN_QUALITY[method] if self.min_quality is None else self.min_quality


USUAL = Near()


class Searched(NamedTuple):
    pairs: int
    left_out_a: int  # pictures of A below the quality
    left_out_b: int  # and of B


def search(
    a: Path,
    b: Path | None,
    out: Path | None,
    near: Near = USUAL,
    threads: int | None = None,
    progress: Progress = none,
    part: Part | None = None,
) -> Searched:
    """Write all pairs of a picture of `a` and one of `b` (None: two of `a`) to `out` (None: stdout).

    threads: None takes every core this process may use. part: (I, N) does only the tiles of task I of N;
    a call without it, when the tasks have ended, does what they left and writes `out`. Raises DataError for a
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
        if near.radius is not None or near.min_quality is not None:
            raise SearchError(f"{a} holds embeddings: use a cosine or neighbours, not radius or quality")
        wanted = _by_cosine(first, second, near.cosine, near.neighbours, threads)
        return Searched(run(wanted, out, part, progress), 0, 0)
    radius, quality = near.of_hashes(a, first.method)
    pairs = run(_by_radius(first, second, radius, quality, threads), out, part, progress)
    low = [int((codes.quality < quality).sum()) for codes in (first, second or first)]
    return Searched(pairs, *low)


def _by_radius(a: Codes, b: Codes | None, radius: int, quality: int, threads: int) -> Search:
    def find(tile: Tile, block: int, found: Found, done: Done) -> None:
        rows_a, rows_b = _rows(a, b, tile, block, quality)
        near = _in_files(rows_a, rows_a if rows_b is None else rows_b, found)
        if rows_b is None:
            ops.self_join(_taken(a, rows_a), radius, threads, found=near, progress=done)
        else:
            ops.search(_taken(a, rows_a), _taken(b or a, rows_b), radius, threads, found=near, progress=done)

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

    def find(tile: Tile, block: int, found: Found, done: Done) -> None:
        rows_a, rows_b = _rows(a, b, tile, block, 0)
        near = _in_files(rows_a, rows_a if rows_b is None else rows_b, found)
        other = None if rows_b is None else _taken(b or a, rows_b)
        cosine.within(_taken(a, rows_a), other, most, threads, near, done)

    task: dict[str, int | str | None] = {"a": a.digest, "b": b and b.digest, "most": most}
    if least is not None and neighbours is None:
        return Search(a, b, task, block, find, False, cosine.digits)
    k = neighbours or NEIGHBOURS

    def nearest(tile: Tile, length: int, found: Found, done: Done) -> None:
        queries = a.codes[tile.x : tile.x + length]
        others = _in_blocks(a if b is None else b, block, done)
        rows, far = cosine.nearest(queries, others, k, tile.x if b is None else None, threads)
        kept = (rows >= 0) & (far <= most)
        mine = np.broadcast_to(np.arange(tile.x, tile.x + len(queries))[:, None], rows.shape)
        found(np.column_stack([mine[kept], rows[kept], far[kept]]))

    return Search(a, b, task | {"neighbours": k}, block, nearest, True, cosine.digits)


def _in_blocks(codes: Codes, block: int, done: Done) -> Iterator[NDArray[Any]]:
    """The codes of a file, a block at a time; it counts as done when the next is asked for."""
    for start in range(0, len(codes.codes), block):
        yield codes.codes[start : start + block]
        codes.release()
        done(min(1.0, (start + block) / len(codes.codes)))


def _rows(
    a: Codes, b: Codes | None, tile: Tile, block: int, quality: int
) -> tuple[RowNumbers, RowNumbers | None]:
    """The rows of a tile whose quality suffices, of A and of B; None: the tile is within one block of A."""
    rows_a = tile.x + np.flatnonzero(a.quality[tile.x : tile.x + block] >= quality)
    if tile.y is None or (b is None and tile.x == tile.y):
        return rows_a, None
    return rows_a, tile.y + np.flatnonzero((b or a).quality[tile.y : tile.y + block] >= quality)


def _in_files(rows_a: RowNumbers, rows_b: RowNumbers, found: Found) -> Found:
    """Turns rows of blocks into rows of files."""
    return lambda pairs: found(np.column_stack([rows_a[pairs[:, 0]], rows_b[pairs[:, 1]], pairs[:, 2]]))


def _taken(codes: Codes, rows: RowNumbers) -> NDArray[Any]:
    """The codes of rising rows; a view of the file if all rows are taken."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return codes.codes[rows[0] : rows[-1] + 1]
    return codes.codes[rows]
