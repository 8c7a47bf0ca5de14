"""Which class is whose parent: a directed acyclic graph over the classes, and what follows from it.

In: class names and for each class its parents, from WordNet (labels/build.py) or from a user's file (`read`).
Out: all ancestors of every class, depths and fan-outs. A picture that shows a class shows all its ancestors
(Sun et al. 2017, section 4.1). A class may have several parents; it then has the ancestors of all of them.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.files import FileError, parse_json, read_text


class HierarchyError(FileError):
    """A hierarchy that cannot be used; the message names file, line and classes."""


class Hierarchy(NamedTuple):
    names: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]  # class ids
    # Ancestors of class c, without c, sorted: ancestor_ids[ancestor_offsets[c]:ancestor_offsets[c + 1]].
    ancestor_offsets: NDArray[np.int64]  # (classes + 1,)
    ancestor_ids: NDArray[np.int32]

    def ancestors(self, c: int) -> list[int]:
        ids: list[int] = self.ancestor_ids[self.ancestor_offsets[c] : self.ancestor_offsets[c + 1]].tolist()
        return ids


def build(names: Sequence[str], parents: Sequence[Sequence[int]]) -> Hierarchy:
    """Check the parents of every class and find all ancestors. HierarchyError prints a cycle by name."""
    offsets, ids = csr(parents)
    if cycle := ops.find_cycle(offsets, ids):
        circle = " -> ".join(repr(names[c]) for c in [*cycle, cycle[0]])
        raise HierarchyError(f"classes are their own ancestors, each followed by its parent: {circle}")
    return Hierarchy(tuple(names), tuple(tuple(p) for p in parents), *ops.ancestors(offsets, ids))


def csr(lists: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offsets (lists + 1,) and ids of lists of ids."""
    offsets = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(each) for each in lists], out=offsets[1:])
    return offsets, np.fromiter((i for each in lists for i in each), np.int32, int(offsets[-1]))


def depths(hierarchy: Hierarchy) -> NDArray[np.int32]:
    """Edges on the longest path up from each class: 0 for a class without parents. (classes,)"""
    result = np.zeros(len(hierarchy.names), np.int32)
    # A parent has fewer ancestors than its child, so this order meets parents first.
    for c in np.argsort(np.diff(hierarchy.ancestor_offsets), kind="stable"):
        if above := hierarchy.parents[c]:
            result[c] = 1 + max(result[p] for p in above)
    return result


def fan_outs(hierarchy: Hierarchy) -> NDArray[np.int64]:
    """Number of children of each class. (classes,)"""
    return np.bincount(csr(hierarchy.parents)[1], minlength=len(hierarchy.names))


def read(file: Path) -> Hierarchy:
    """Read a user's hierarchy: one line for each class and parent; a class without parents alone on its line.

    .tsv (or .txt), .csv: class, parent. A first line 'class, parent' is taken for the header.
    .jsonl: {"class": ..., "parent": ...}.

    Classes keep the order of their first lines. A name must not contain a line break. HierarchyError names
    the line that is not understood, all parents without a line of their own, an edge that is given twice, or
    the classes of a cycle.
    """
    numbers: dict[str, int] = {}
    edges: dict[tuple[str, str], int] = {}  # (class, parent or '') -> line
    for line, name, parent in _edges(file):
        if not name:
            raise HierarchyError(f"{file}: line {line} names no class")
        if (name, parent) in edges:
            given = f"the parent {parent!r} of {name!r}" if parent else f"{name!r}"
            raise HierarchyError(f"{file}: line {line} gives {given} again, after line {edges[name, parent]}")
        numbers.setdefault(name, len(numbers))
        edges[name, parent] = line
    if not numbers:
        raise HierarchyError(f"{file}: no class found")
    if unknown := sorted({parent for _, parent in edges if parent and parent not in numbers}):
        raise HierarchyError(
            f"{file}: {len(unknown)} unknown parent(s), which have no line of their own (a class without "
            f"parents stands alone on its line): {', '.join(map(repr, unknown[:10]))}"
            f"{', ...' if len(unknown) > 10 else ''}"
        )
    parents: list[list[int]] = [[] for _ in numbers]
    for name, parent in edges:
        if parent:
            parents[numbers[name]].append(numbers[parent])
    try:
        return build(tuple(numbers), parents)
    except HierarchyError as error:
        raise HierarchyError(f"{file}: {error}") from None


def _edges(file: Path) -> Iterable[tuple[int, str, str]]:
    """Line number, class and parent ('' for none) of every line that is not empty."""
    try:
        text = read_text(file).removeprefix("\ufeff")
    except (OSError, FileError) as error:
        raise HierarchyError(f"{file}: cannot be read: {error}") from None
    if file.suffix == ".jsonl":
        rows = _json_rows(file, text)
    elif file.suffix == ".csv":
        rows = _csv_rows(file, text)
    elif file.suffix in (".tsv", ".txt"):  # without quotes: a name may hold one
        rows = enumerate((line.split("\t") for line in text.split("\n")), 1)
    else:
        raise HierarchyError(f"{file}: the name must end in .tsv, .txt, .csv or .jsonl")
    for line, fields in rows:
        row = [field.strip() for field in fields]
        if not any(row) or (line == 1 and row == ["class", "parent"]):
            continue
        if len(row) > 2:
            raise HierarchyError(
                f"{file}: line {line} has {len(row)} columns, needs class and parent: {row!r:.200}"
            )
        for name in row:
            _check_name(file, line, name)
        yield line, row[0], row[1] if len(row) == 2 else ""


def _check_name(file: Path, line: int, name: str) -> None:
    """A name must be one line of UTF-8 text."""
    if "\n" in name or "\r" in name:
        raise HierarchyError(f"{file}: line {line}: the name {name!r:.80} goes over a line break")
    if not name.isascii() and any("\ud800" <= c <= "\udfff" for c in name):
        raise HierarchyError(
            f"{file}: line {line}: the name {name!r:.80} holds half a character (a surrogate)"
        )


def _csv_rows(file: Path, text: str) -> Iterable[tuple[int, list[str]]]:
    # Only \n ends a line here: a name may hold other characters that Python splits at, such as U+2028.
    rows = csv.reader(io.StringIO(text, newline="\n"), strict=True)
    while True:
        line = rows.line_num + 1  # where the row begins
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise HierarchyError(f"{file}: line {line}: not CSV: {error}") from None
        yield line, row


def _json_rows(file: Path, text: str) -> Iterable[tuple[int, list[str]]]:
    for line, each in enumerate(text.split("\n"), 1):
        if not each.strip():
            continue
        try:
            record = parse_json(each, f"{file}: line {line}")
        except FileError as error:
            raise HierarchyError(str(error)) from None
        if not isinstance(record, dict) or not {"class"} <= record.keys() <= {"class", "parent"}:
            raise HierarchyError(
                f'{file}: line {line} needs {{"class": ..., "parent": ...}}, found {each[:80]}'
            )
        name, parent = record["class"], record.get("parent") or ""
        if not isinstance(name, str) or not isinstance(parent, str):
            raise HierarchyError(f"{file}: line {line}: class and parent must be strings, found {each[:80]}")
        if not name.strip():
            raise HierarchyError(f"{file}: line {line} names no class")
        yield line, [name, parent]
