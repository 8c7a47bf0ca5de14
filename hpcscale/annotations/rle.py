"""Run-length codes of masks in COCO's format: read, and checked many at a time without drawing one.

A mask of height h and width w is read column by column; its runs, of 0 and 1 in turn and 0 first, add up to
h x w. Runs stand as a list, or as text: six bits a character from "0" on, of which five are of the number,
lowest first, and one says that more follow; from the fourth run on, a number is the difference to the run
before the last (pycocotools, `rleToString`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WIDEST = 12  # characters of a number: 60 bits
TEXTS = 512  # that are looked at together, so that they stay in the caches


def runs_of(text: bytes) -> NDArray[np.int64]:
    """The runs of one text  # (runs,)  Raises ValueError where it is no run-length code."""
    found = _runs([text]) if text else (np.zeros(0, np.int64),)
    if found is None:
        raise ValueError("its text is no run-length code")
    return found[0]


def totals(texts: Sequence[bytes]) -> NDArray[np.int64]:
    """Pixels that the runs of each text add up to; -1 for a text that is no run-length code.

    texts: n of them -> (n,). A negative run, a character out of range and a number that is cut off are
    errors. An empty text has no runs, and 0 pixels.
    """
    found = np.zeros(len(texts), np.int64)
    full = [place for place, text in enumerate(texts) if text]
    for begin in range(0, len(full), TEXTS):
        places = full[begin : begin + TEXTS]
        found[places] = _totals([texts[place] for place in places])
    return found


def _totals(texts: list[bytes]) -> NDArray[np.int64]:
    """The same of texts that are not empty."""
    if (found := _runs(texts)) is None:
        return np.concatenate([_totals([text]) for text in texts]) if len(texts) > 1 else np.array([-1])
    runs, firsts = found
    sums = np.add.reduceat(runs, firsts)
    sums[np.minimum.reduceat(runs, firsts) < 0] = -1
    return sums


def _runs(texts: list[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The runs (m,) of texts that are not empty, end to end, and where those of each begin; None where one of
    them is no run-length code."""
    stops = np.cumsum([len(text) for text in texts])
    codes = np.frombuffer(b"".join(texts), np.uint8) - np.uint8(48)  # what is below wraps to above 63
    last = codes & 32 == 0  # of its number
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends + 1])[:-1]
    widths = ends - starts + 1
    if codes.max() > 63 or not last[stops - 1].all() or widths.max() > WIDEST:
        return None
    place = np.arange(len(codes)) - np.repeat(starts, widths)
    values = np.add.reduceat((codes & 31).astype(np.int64) << (5 * place), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * widths), 0)
    numbers = np.diff(np.searchsorted(ends, stops), prepend=0)  # of each text
    firsts = np.cumsum(numbers) - numbers
    return _undo_differences(values, firsts, numbers), firsts


def _undo_differences(
    values: NDArray[np.int64], firsts: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Runs (m,) of the numbers (m,) of texts that lie end to end: text t has numbers[t] from firsts[t] on.

    The second run and those two, four, ... after it are sums of numbers, and so are the third and those after
    it: sums over every second number of all texts, less what was there before the text.
    """
    sums = np.empty_like(values)
    sums[0::2], sums[1::2] = np.cumsum(values[0::2]), np.cumsum(values[1::2])
    index = np.arange(len(values)) - np.repeat(firsts, numbers)
    before = np.where(firsts > 0, sums[firsts - 1], 0)  # of the chain of the second run
    runs = sums - np.where(index % 2, np.repeat(before, numbers), np.repeat(sums[firsts], numbers))
    runs[firsts] = values[firsts]
    return runs
