"""Hash or embedding files -> all pairs of pictures within a radius or cosine, exact; or nearest neighbours.

In: one or two hash or embedding files (data/codes.py). Out: a pairs file (pairs.py): name in A, name in B,
distance a line. The distance of embeddings is 1 - cosine, six digits behind the point.

Lines are sorted by the position of the first picture in A's file, then by that of the second in B's; without
B, pairs are within A and the first picture is the earlier one. Sorted so, the result is a pure function of
the files and the options.

Neighbours of embeddings are written nearest first, of equally near ones the earlier, and are not resumed.

Memory is bounded: of either file at most `BLOCK` codes, or `cosine.FLOATS` floats of embeddings, are used at
a time. What the search finds for a block
of A and one of B is written as it comes, in no order, to a file of a work folder; when a block of A is done,
its pairs are sorted in pieces of `PIECE` and written out. With `out`, the work folder is OUT.parts and stays
when the search is killed, so that the same call again goes on with the block that was under way; OUT itself
appears when all is done.
"""

import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.data.codes import POOLINGS, WORDS, Codes, read_codes
from hpcscale.data.folder import commit, write_file
from hpcscale.data.verify import Progress
from hpcscale.pairs import escape

BLOCK = (
    1 << 24
)  # codes of one side in use at a time: with what the search needs besides, up to 1.3 GB a side for PDQ
PIECE = 1 << 22  # pairs sorted at a time; 24 bytes each
RADIUS = {"pdq": 31, "phash": 10, "dhash": 10}  # Meta's advice; imagededup's default
MIN_QUALITY = {
    "pdq": 50,
    "phash": 0,
    "dhash": 0,
}  # Meta: hashes of quality 49 and below are not to be trusted
NEIGHBOURS = 21  # Mahajan et al. 2018, section 2.1
ROW = 24  # bytes of one found pair: position in A, position in B, distance, int64 each


class SearchError(ValueError):
    """A search that must not start; the message says why."""


class Searched(NamedTuple):
    pairs: int
    left_out_a: int  # pictures below the quality, of A and of B
    left_out_b: int


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
) -> Searched:
    """Write all pairs of a picture of `a` and one of `b` (None: two of `a`) to `out` (None: stdout).

    Hashes: radius: bits that may differ, inclusive; min_quality: pictures below it are left out, on both
    sides; None: the method's value above. Embeddings: cosine: the least, inclusive; neighbours: only so many
    of each picture of `a`, `NEIGHBOURS` if neither is given. threads: None takes every core this process may
    use. Raises DataError for a damaged file and SearchError.
    """
    first, second = read_codes(a), None if b is None else read_codes(b)
    if second is not None and (first.method, first.version) != (second.method, second.version):
        raise SearchError(
            f"{a} holds {first.method} version {first.version}, "
            f"{b} {second.method} version {second.version}: codes of different methods do not compare"
        )
    if second is not None and first.checkpoint != second.checkpoint:
        raise SearchError(f"{a} and {b} come from different checkpoints: their features do not compare")
    threads = threads or len(os.sched_getaffinity(0))
    if first.method in POOLINGS:
        if radius is not None or min_quality is not None:
            raise SearchError(f"{a} holds embeddings: use a cosine or neighbours, not radius or quality")
        return _by_cosine(first, second, out, cosine, neighbours, threads, progress)
    if cosine is not None or neighbours is not None:
        raise SearchError(f"{a} holds {first.method}: use a radius; cosine and neighbours are of embeddings")
    bits = 64 * WORDS[first.method]
    radius = RADIUS[first.method] if radius is None else radius
    if not 0 <= radius <= bits:
        raise SearchError(f"radius must be between 0 and {bits} for {first.method}, found {radius}")
    quality = MIN_QUALITY[first.method] if min_quality is None else min_quality

    def find(x: NDArray[np.uint64], y: NDArray[np.uint64] | None, found: Found, share: Share) -> None:
        if y is None:
            ops.self_join(x, radius, threads, found=found, progress=share)
        else:
            ops.search(x, y, radius, threads, found=found, progress=share)

    task = {"a": first.digest, "b": second and second.digest, "radius": radius, "min_quality": quality}
    with _work_folder(out, task | {"block": BLOCK}) as folder, _target(out) as stream:
        pairs = _write_pairs(first, second, quality, find, folder, stream, progress, BLOCK, str)
    low = [int((codes.quality < quality).sum()) for codes in (first, second or first)]
    return Searched(pairs, *low)


def _by_cosine(
    a: Codes, b: Codes | None, out: Path | None, least: float | None, neighbours: int | None, threads: int,
    progress: Progress,
) -> Searched:  # fmt: skip
    from hpcscale.dedup import cosine  # faiss only where it is needed

    if least is not None and not -1 <= least <= 1:
        raise SearchError(f"cosine must be between -1 and 1, found {least}")
    if neighbours is not None and neighbours < 1:
        raise SearchError(f"neighbours must be at least 1, found {neighbours}")
    if b is not None and a.codes.shape[1] != b.codes.shape[1]:
        raise SearchError(f"features of {a.codes.shape[1]} and of {b.codes.shape[1]} numbers do not compare")
    most = 2 * cosine.UNIT if least is None else cosine.units(least)
    block = max(1, cosine.FLOATS // a.codes.shape[1])
    if least is None or neighbours is not None:
        with _target(out) as stream:
            k = neighbours or NEIGHBOURS
            return Searched(_write_neighbours(a, b, k, most, threads, block, stream, progress), 0, 0)

    def find(x: NDArray[Any], y: NDArray[Any] | None, found: Found, share: Share) -> None:
        cosine.within(x, y, most, threads, found, share)

    task = {"a": a.digest, "b": b and b.digest, "most": most, "block": block}
    with _work_folder(out, task) as folder, _target(out) as stream:
        pairs = _write_pairs(a, b, 0, find, folder, stream, progress, block, cosine.digits)
    return Searched(pairs, 0, 0)


def _write_neighbours(
    a: Codes, b: Codes | None, k: int, most: int, threads: int, block: int, stream: IO[bytes],
    progress: Progress,
) -> int:  # fmt: skip
    """Of every picture of A the k nearest that are at most `most` away. Returns the number of pairs."""
    from hpcscale.dedup import cosine

    other = a if b is None else b
    pairs = 0
    for x in range(0, len(a.codes), block):
        queries = a.codes[x : x + block]
        rows, distances = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.int64)
        for y in range(0, len(other.codes), block):
            features = other.codes[y : y + block]
            first = x - y if b is None and x == y else None
            near, far = cosine.nearest(queries, cosine.index(features, threads), features, k, first)
            near[near >= 0] += y
            rows, distances = np.hstack([rows, near]), np.hstack([distances, far])
            order = np.lexsort((rows, distances))[:, :k]  # by distance, then row; missing ones are farthest
            rows, distances = (np.take_along_axis(each, order, 1) for each in (rows, distances))
            other.release()
        for row in range(len(queries)):
            kept = (rows[row] >= 0) & (distances[row] <= most)
            found = np.column_stack([np.full(kept.sum(), x + row), rows[row][kept], distances[row][kept]])
            _write_lines(stream, found, a, other, cosine.digits)
            pairs += len(found)
        progress("search", min(x + block, len(a.codes)), len(a.codes))
    return pairs


@contextmanager
def _target(out: Path | None) -> Iterator[IO[bytes]]:
    """Stdout, or a file that is renamed to `out` when all went well."""
    if out is None:
        yield sys.stdout.buffer
        return
    target = out.with_name(out.name + ".tmp")
    with target.open("wb") as stream:
        yield stream
    commit(target, out)


Found = Callable[[NDArray[np.int64]], None]  # takes (n, 3): row, row, distance
Share = Callable[[float], None]  # takes the share that is done
Find = Callable[[NDArray[Any], NDArray[Any] | None, Found, Share], None]


@contextmanager
def _work_folder(out: Path | None, task: dict[str, int | str | None]) -> Iterator[Path]:
    """Where blocks' pairs are kept. Raises SearchError if an earlier call began another task there."""
    if out is None:
        with tempfile.TemporaryDirectory(prefix="hpcscale-search-") as name:
            yield Path(name)
        return
    folder = out.with_name(out.name + ".parts")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+b") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SearchError(f"{folder}: another search is writing there") from None
        stated = folder / "task.json"
        content = json.dumps(task, sort_keys=True).encode() + b"\n"
        if not stated.exists():
            write_file(stated, content)
        elif stated.read_bytes() != content:
            raise SearchError(
                f"{folder}: an interrupted search had other files or options "
                f"({stated.read_text().strip()}); finish that one, or remove the folder"
            )
        yield folder
        shutil.rmtree(folder)


def _write_pairs(
    a: Codes, b: Codes | None, quality: int, find: Find, folder: Path, stream: IO[bytes], progress: Progress,
    block: int, digits: Callable[[int], str],
) -> int:  # fmt: skip
    """Search block by block, and write each block of A's pairs in order. Returns their number."""
    other = a if b is None else b
    starts_a, starts_b = range(0, len(a.codes), block), range(0, len(other.codes), block)
    jobs = [(x, y) for x in starts_a for y in starts_b if b is not None or x <= y]
    pairs = 0
    for number, (x, y) in enumerate(jobs):

        def share(done: float, number: int = number) -> None:
            progress("search", int(1000 * (number + done)), 1000 * len(jobs))

        file = folder / f"{x}-{y}.pairs"
        if not file.exists():
            _search_block(a, x, None if b is None and x == y else other, y, block, quality, find, file, share)
        if number + 1 == len(jobs) or jobs[number + 1][0] != x:
            files = [folder / f"{x}-{start}.pairs" for start in starts_b if (x, start) in set(jobs)]
            for found in _sorted(folder, files, x, block):
                _write_lines(stream, found, a, other, digits)
                pairs += len(found)
            for codes in (a, other):
                codes.release()
    progress("search", 1000 * len(jobs), 1000 * len(jobs))
    return pairs


def _search_block(
    a: Codes, x: int, b: Codes | None, y: int, block: int, quality: int, find: Find, file: Path, share: Share
) -> None:
    """Write the pairs of one block of A and one of B (None: within that of A), in no order."""
    rows_a = x + np.flatnonzero(a.quality[x : x + block] >= quality)
    rows_b = rows_a if b is None else y + np.flatnonzero(b.quality[y : y + block] >= quality)
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:

        def found(pairs: NDArray[np.int64]) -> None:
            rows = np.column_stack([rows_a[pairs[:, 0]], rows_b[pairs[:, 1]], pairs[:, 2]])
            stream.write(rows.astype("<i8", copy=False).data)

        find(_taken(a, rows_a), None if b is None else _taken(b, rows_b), found, share)
    commit(temporary, file)
    for codes in (a, b):
        if codes is not None:
            codes.release()


def _taken(codes: Codes, rows: NDArray[np.int64]) -> NDArray[Any]:
    """The codes of rising rows: a view of the file where all are taken."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return codes.codes[rows[0] : rows[-1] + 1]
    return codes.codes[rows]


def _sorted(folder: Path, files: list[Path], start: int, block: int) -> Iterator[NDArray[np.int64]]:
    """The pairs of one block of A, that starts at row `start`, in order, in pieces.

    Where they are more than `PIECE`, they are first dealt out to one file per piece; a piece holds whole rows
    of A.
    """
    if sum(file.stat().st_size for file in files) > PIECE * ROW:
        counts = np.zeros(block, np.int64)
        for found in _read(files):
            counts += np.bincount(found[:, 0] - start, minlength=block)
        piece_of = (np.cumsum(counts) - counts) // PIECE
        names = [folder / f"piece-{piece}" for piece in range(int(piece_of[-1]) + 1)]
        for name in names:
            name.write_bytes(b"")
        for found in _read(files):
            pieces = piece_of[found[:, 0] - start]
            for piece in np.unique(pieces).tolist():
                with names[piece].open("ab") as stream:
                    stream.write(found[pieces == piece].data)
        groups = [[name] for name in names]
    else:
        groups = [files]
    for group in groups:
        if parts := list(_read(group)):
            found = np.concatenate(parts)
            yield found[np.lexsort((found[:, 1], found[:, 0]))]


def _read(files: list[Path]) -> Iterator[NDArray[np.int64]]:
    for file in files:
        with file.open("rb") as stream:
            while content := stream.read(ROW << 20):
                yield np.frombuffer(content, "<i8").reshape(-1, 3)


def _write_lines(
    stream: IO[bytes], found: NDArray[np.int64], a: Codes, b: Codes, digits: Callable[[int], str]
) -> None:
    for i, j, distance in found.tolist():
        stream.write(os.fsencode(f"{escape(a.names[i])}\t{escape(b.names[j])}\t{digits(distance)}\n"))
