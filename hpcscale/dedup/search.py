"""Hash files -> all pairs of pictures within a radius, exact.

In: one or two hash files (data/codes.py). Out: a pairs file (pairs.py): name in A, name in B, distance a
line.

Lines are sorted by the position of the first picture in A's file, then by that of the second in B's; without
B, pairs are within A and the first picture is the earlier one. Sorted so, the result is a pure function of
the files and the options.

Memory is bounded: of either file at most `BLOCK` codes are used at a time. What the search finds for a block
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
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.data.codes import WORDS, Codes, read_codes
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
) -> Searched:
    """Write all pairs of a picture of `a` and one of `b` (None: two of `a`) to `out` (None: stdout).

    radius: bits that may differ, inclusive; min_quality: pictures below it are left out, on both sides;
    threads: None takes every core this process may use. None elsewhere: the method's value above. Raises
    DataError for a damaged file and SearchError.
    """
    first, second = read_codes(a), None if b is None else read_codes(b)
    if second is not None and (first.method, first.version) != (second.method, second.version):
        raise SearchError(
            f"{a} holds {first.method} version {first.version}, "
            f"{b} {second.method} version {second.version}: codes of different methods do not compare"
        )
    bits = 64 * WORDS[first.method]
    radius = RADIUS[first.method] if radius is None else radius
    if not 0 <= radius <= bits:
        raise SearchError(f"radius must be between 0 and {bits} for {first.method}, found {radius}")
    quality = MIN_QUALITY[first.method] if min_quality is None else min_quality
    threads = threads or len(os.sched_getaffinity(0))

    def find(x: NDArray[np.uint64], y: NDArray[np.uint64] | None, found: Found, share: Share) -> None:
        if y is None:
            ops.self_join(x, radius, threads, found=found, progress=share)
        else:
            ops.search(x, y, radius, threads, found=found, progress=share)

    task = {"a": first.digest, "b": second and second.digest, "radius": radius, "min_quality": quality}
    with _work_folder(out, task) as folder:
        target = None if out is None else out.with_name(out.name + ".tmp")
        with nullcontext(sys.stdout.buffer) if target is None else target.open("wb") as stream:
            pairs = _write_pairs(first, second, quality, find, folder, stream, progress)
        if out is not None and target is not None:
            commit(target, out)
    low = [int((codes.quality < quality).sum()) for codes in (first, second or first)]
    return Searched(pairs, *low)


Found = Callable[[NDArray[np.int64]], None]  # takes (n, 3): row, row, distance
Share = Callable[[float], None]  # takes the share that is done
Find = Callable[[NDArray[np.uint64], NDArray[np.uint64] | None, Found, Share], None]


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
        content = json.dumps(task | {"block": BLOCK}, sort_keys=True).encode() + b"\n"
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
    a: Codes, b: Codes | None, quality: int, find: Find, folder: Path, stream: IO[bytes], progress: Progress
) -> int:
    """Search block by block, and write each block of A's pairs in order. Returns their number."""
    other = a if b is None else b
    starts_a, starts_b = range(0, len(a.codes), BLOCK), range(0, len(other.codes), BLOCK)
    jobs = [(x, y) for x in starts_a for y in starts_b if b is not None or x <= y]
    pairs = 0
    for number, (x, y) in enumerate(jobs):

        def share(done: float, number: int = number) -> None:
            progress("search", int(1000 * (number + done)), 1000 * len(jobs))

        file = folder / f"{x}-{y}.pairs"
        if not file.exists():
            _search_block(a, x, None if b is None and x == y else other, y, quality, find, file, share)
        if number + 1 == len(jobs) or jobs[number + 1][0] != x:
            files = [folder / f"{x}-{start}.pairs" for start in starts_b if (x, start) in set(jobs)]
            for found in _sorted(folder, files, x):
                _write_lines(stream, found, a, other)
                pairs += len(found)
            for codes in (a, other):
                codes.release()
    progress("search", 1000 * len(jobs), 1000 * len(jobs))
    return pairs


def _search_block(
    a: Codes, x: int, b: Codes | None, y: int, quality: int, find: Find, file: Path, share: Share
) -> None:
    """Write the pairs of one block of A and one of B (None: within that of A), in no order."""
    rows_a = x + np.flatnonzero(a.quality[x : x + BLOCK] >= quality)
    rows_b = rows_a if b is None else y + np.flatnonzero(b.quality[y : y + BLOCK] >= quality)
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


def _taken(codes: Codes, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The codes of rising rows: a view of the file where all are taken."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return codes.codes[rows[0] : rows[-1] + 1]
    return codes.codes[rows]


def _sorted(folder: Path, files: list[Path], start: int) -> Iterator[NDArray[np.int64]]:
    """The pairs of one block of A, that starts at row `start`, in order, in pieces.

    Where they are more than `PIECE`, they are first dealt out to one file per piece; a piece holds whole rows
    of A.
    """
    if sum(file.stat().st_size for file in files) > PIECE * ROW:
        counts = np.zeros(BLOCK, np.int64)
        for found in _read(files):
            counts += np.bincount(found[:, 0] - start, minlength=BLOCK)
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


def _write_lines(stream: IO[bytes], found: NDArray[np.int64], a: Codes, b: Codes) -> None:
    for i, j, distance in found.tolist():
        stream.write(os.fsencode(f"{escape(a.names[i])}\t{escape(b.names[j])}\t{distance}\n"))
