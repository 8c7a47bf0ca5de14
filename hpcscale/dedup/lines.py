"""Found pairs -> the lines of a pairs file (pairs.py), and beside it a file that says of which pictures
(origin.py)."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpcscale import origin
from hpcscale.data.codes import Codes, digests_of
from hpcscale.files import check_output, marked, refuse_other, remove_asides, replacing
from hpcscale.pairs import escape, is_pairs

ROWS = 1 << 16  # pictures named at a time

Write = Callable[[NDArray[np.int64]], None]  # takes (n, 3): row of A, row of B, distance


def check(out: Path | None, inputs: Iterable[Path | None]) -> None:
    """Check that a pairs file and the file beside it may be written. Raises OutputError."""
    if out is not None:
        inputs = list(inputs)
        check_output(out, inputs, is_pairs)
        check_output(origin.beside(out), inputs, marked(origin.MARK.encode()))


@contextmanager
def lines(out: Path | None, a: Codes, b: Codes | None, digits: Callable[[int], str] = str) -> Iterator[Write]:
    """Gives a function that writes pairs to stdout, or to a file that becomes `out` when all went well.

    b: None if the pairs are within A. digits: turns a distance into text. The file beside `out` gets its name
    before `out` does; after a kill between the two, the same search writes both again. Raises OutputError.
    Memory: one byte per picture of A and B.
    """
    other = a if b is None else b
    used_a = np.zeros(len(a.codes), bool)
    used_b = used_a if b is None else np.zeros(len(b.codes), bool)
    stream = sys.stdout.buffer

    def write(found: NDArray[np.int64]) -> None:
        for i, j, distance in found.tolist():
            stream.write(os.fsencode(f"{escape(a.names[i])}\t{escape(other.names[j])}\t{digits(distance)}\n"))
        used_a[found[:, 0]] = True
        used_b[found[:, 1]] = True

    if out is None:
        yield write
        return
    remove_asides(out)
    with replacing(out) as temporary:
        with temporary.open("wb") as stream:
            yield write
        refuse_other(temporary, out)
        origin.write(out, temporary, _pictures(a, used_a), None if b is None else _pictures(b, used_b))


def _pictures(codes: Codes, used: NDArray[np.bool_]) -> Iterator[tuple[str, bytes]]:
    """Names and digests of the pictures that occur."""
    rows = np.flatnonzero(used)
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        for row, digest in zip(some.tolist(), digests_of(codes, some), strict=False):
            yield codes.names[row], digest.tobytes()
        codes.release()
