"""The draw: of which labels of a data set people are asked whether they are right.

In: samples and their own classes, walked twice in chunks. Out: `Draw`: strata, and the drawn labels. A label
is a sample under one of its own classes: those that its tags select, without ancestors.

Strata are classes of like frequency. Each gets a part of the draw that goes with the square root of its
labels: between equal parts, which measure every stratum alike, and proportional ones, which measure the whole
best (Bankier 1988, "Power allocations"). Within a stratum the labels stand in a line, class by class, and
every k-th is drawn from a random start (systematic sampling). So every label of a stratum is drawn with the
same probability, exactly drawn / labels, and the draw is spread over the classes as their labels are: of a
class that holds 2.5 drawn ones on average, 2 or 3 are drawn. Which of a class is random.

The draw is a pure function of seed, data, vocabulary and selection. Memory: the drawn labels, a number for
each class and a chunk of the data.
"""

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.order import permute
from hpcscale.files import FileError, Usage
from hpcscale.ops import Ids, Offsets
from hpcscale.samples.grouping import by_class, count

# Samples of a class at which the next stratum begins; the first two bound the long tail of `labels stats`.
EDGES = (20, 100, *(10**power for power in range(3, 13)))
# Walks the samples in chunks: ids (n,) int64, then their own classes in CSR form.
Walk = Callable[[], Iterable[tuple[NDArray[np.int64], Offsets, Ids]]]


class Stratum(NamedTuple):
    least: int  # samples that its classes have, at least
    below: int  # and fewer than so many
    classes: int
    labels: int
    drawn: int


class Label(NamedTuple):
    sample: int
    c: int  # its class
    stratum: int


class Draw(NamedTuple):
    id: str  # of the page: says how it was drawn, and identifies strata and labels
    strata: list[Stratum]  # the rarest classes first
    labels: list[Label]  # in random order: those that a reviewer comes to first are a smaller draw


def draw(chunks: Walk, names: Sequence[str], digest: str, total: int, seed: int = 0) -> Draw:
    """Draw `total` labels, or all if there are no more. names: of the classes; digest: of the data.

    Raises Usage if there are more strata than labels to draw, FileError if there is no label.
    """
    counts = np.zeros(len(names), np.int64)
    for _, offsets, classes in chunks():
        counts += count(offsets, classes, len(names))
    if not counts.any():
        raise FileError("no tag of the data selects a class of the vocabulary: there is no label to look at")
    of = np.searchsorted(EDGES, counts, side="right")
    of[counts == 0] = -1
    members = [np.flatnonzero(of == index) for index in range(len(EDGES) + 1) if (of == index).any()]
    sizes = [int(counts[each].sum()) for each in members]
    if total < len(sizes):
        raise Usage(f"--sample {total}: the classes fall into {len(sizes)} strata; draw at least as many")
    parts = allocate(sizes, total)
    strata, drawn = [], []
    for index, (each, size, part) in enumerate(zip(members, sizes, parts, strict=True)):
        edge = int(of[each[0]])
        strata.append(Stratum((1, *EDGES)[edge], EDGES[edge], len(each), size, part))
        drawn += [(*place, index) for place in _systematic(each, counts, part, seed)]
    of_class, ordinals, indices = np.array(drawn, np.int64).T
    order = permute(np.arange(len(drawn)), len(drawn), _key(seed, "page"))
    samples = _find(chunks, of_class, ordinals, len(names))
    labels = [
        Label(*map(int, row)) for row in zip(samples[order], of_class[order], indices[order], strict=True)
    ]
    content = [digest, strata, [(label.sample, names[label.c]) for label in labels]]
    mark = blake2b(json.dumps(content).encode(), digest_size=8).hexdigest()
    return Draw(f"sample-{total}-seed-{seed}-{mark}", strata, labels)


def allocate(sizes: Sequence[int], total: int) -> list[int]:
    """Parts of `total` that go with the square roots of the sizes; each at least 1 and at most its size.

    One after the other goes where it is due most (the divisors of Sainte-Laguë), so a larger total takes from
    no part.
    """
    parts = [1] * len(sizes)
    due = [(-sqrt(size) / 3, index) for index, size in enumerate(sizes) if size > 1]
    heapq.heapify(due)
    for _ in range(total - len(sizes)):
        if not due:
            break
        _, index = heapq.heappop(due)
        parts[index] += 1
        if parts[index] < sizes[index]:
            heapq.heappush(due, (-sqrt(sizes[index]) / (2 * parts[index] + 1), index))
    return parts


def _systematic(
    members: NDArray[np.int64], counts: NDArray[np.int64], part: int, seed: int
) -> Iterator[tuple[int, int]]:
    """`part` labels of the classes `members`: class, and the how-manieth label of the class, from 0."""
    stratum = int(members[0])  # a name for the keys
    members = members[permute(np.arange(len(members)), len(members), _key(seed, "classes", stratum))]
    starts = np.concatenate([[0], np.cumsum(counts[members])])
    labels = int(starts[-1])
    first = permute(np.zeros(1, np.int64), labels, _key(seed, "first", stratum))
    places = (first + np.arange(part) * labels) // part
    which = np.searchsorted(starts, places, side="right") - 1
    for each in np.unique(which).tolist():
        c, inside = int(members[each]), places[which == each] - starts[each]
        for ordinal in permute(inside, int(counts[c]), _key(seed, "class", c)).tolist():
            yield c, ordinal


def _find(
    chunks: Walk, of_class: NDArray[np.int64], ordinals: NDArray[np.int64], total: int
) -> NDArray[np.int64]:
    """The samples that are the `ordinals`-th of their class, from 0, in the order of the walk  # (n,)"""
    found = np.full(len(of_class), -1, np.int64)
    seen = np.zeros(total, np.int64)
    for samples, offsets, classes in chunks():
        here = count(offsets, classes, total)
        inside = ordinals - seen[of_class]
        hits = np.flatnonzero((inside >= 0) & (inside < here[of_class]))
        if hits.size:
            starts, ids = by_class(offsets, classes, samples, total)
            found[hits] = ids[starts[of_class[hits]] + inside[hits]]
        seen += here
    return found


def _key(seed: int, *words: object) -> int:
    """A key of its own for everything that is random."""
    return int.from_bytes(blake2b(json.dumps([seed, *words]).encode(), digest_size=8).digest(), "big")
