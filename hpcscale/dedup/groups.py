"""Pairs -> which pictures go. Pure functions over pairs; the pairs file is read once.

In: a pairs file and perhaps decisions (pairs.py). Out: names to leave out.

- a, "upstream" (BiT, Kolesnikov et al. 2020): training loses every picture that matches a test picture.
- b, the test side (Sun et al. 2017): the test set loses every picture that matches a training picture.
- within one set: pictures connected by pairs are a group, even if they form a chain whose two ends are not
  alike. Of every group, the picture that comes first in the data set stays, and the others go.

A pair counts if its distance is at most `radius` and no reviewer rejected it.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from hpcscale.files import check_output, compared, write_new
from hpcscale.pairs import Decisions, Pair, escape, read_decisions, read_pairs

Side = Literal["a", "b", "within"]


def drop(
    pairs: Path, side: Side, out: Path, radius: float | None = None, decisions: Path | None = None
) -> int:
    """Write the names of the pictures that go, one a line, sorted by their bytes, escaped as in pairs files.

    side: the column that loses its pictures, or within, for the pairs of a set with itself. Written aside and
    renamed. Returns the number of names. Raises PairsError and OutputError.
    """
    check_output(out, [pairs, decisions], compared)
    found = counting(read_pairs(pairs), radius, read_decisions(decisions) if decisions else {})
    if side == "within":
        names = {name for group in groups(found) for name in group[1:]}
    else:
        names = {pair.a if side == "a" else pair.b for pair in found}
    lines = sorted(os.fsencode(escape(name)) for name in names)
    write_new(out, b"".join(line + b"\n" for line in lines))
    return len(lines)


def counting(pairs: Iterable[Pair], radius: float | None, decisions: Decisions) -> Iterator[Pair]:
    """The pairs within the radius (inclusive; None: any) that are not rejected, in either order of names."""
    rejected = {pair for pair, said in decisions.items() if said.decision == "reject"}
    for pair in pairs:
        if radius is not None and pair.distance > radius:
            continue
        if (pair.a, pair.b) not in rejected and (pair.b, pair.a) not in rejected:
            yield pair


def groups(pairs: Iterable[Pair]) -> list[list[str]]:
    """Names that pairs connect, each group and the list of groups in the order of first mention.

    Pairs of a set with itself come sorted by the earlier picture, so a group's first name is the one that
    comes first in the data set. Memory: the names that occur in pairs.
    """
    numbers: dict[str, int] = {}  # in the order of first mention
    parents: list[int] = []

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]  # halves the path for the next search
        return number

    for pair in pairs:
        a, b = (numbers.setdefault(name, len(numbers)) for name in pair[:2])
        parents.extend(range(len(parents), len(numbers)))
        low, high = sorted((root(a), root(b)))
        parents[high] = low
    members: dict[int, list[str]] = {}
    for name, number in numbers.items():
        members.setdefault(root(number), []).append(name)
    return list(members.values())
