"""Which of a model's classes are right for an object: its own class, or one that this is a kind of.

In: a CSV or TSV file, and the vocabulary of a run. Columns: `foreground`, a class of objects; `classes`, one
or several of the model's, by name, tag, wnid or number, with | between them; `relation`, which may be left
out: `=` (the default) where they are the same, `<` where the objects are a kind of the class (Kolesnikov et
al. 2020: "equal to or a subset of"). The relation is told in results and changes no number.

Without a file, a class of objects is the model's class of the same name, tag or wnid. A class counts with all
classes below it: an animal that was taken for a zebra was taken for an animal.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hpcscale.files import FileError
from hpcscale.labels.vocabulary import Vocabulary, did_you_mean, finder
from hpcscale.robustness.columns import read_rows

RELATIONS = ("=", "<")
NEEDED = ("foreground", "classes")
SHOWN = 10  # names in a message


class Mapped(NamedTuple):
    names: tuple[str, ...]  # of the model's classes that are right
    relation: str  # one of RELATIONS
    right: frozenset[int]  # ids of these, and of all classes below them


def read(file: Path | None, objects: Iterable[str], vocabulary: Vocabulary) -> dict[str, Mapped]:
    """What is right for each class of objects. Raises FileError: all classes of the file that the model has
    not, and all classes of objects that have none, are named."""
    wanted = list(dict.fromkeys(objects))
    rows = _rows(file) if file else {name: ([name], "=") for name in wanted}
    find, place = finder(vocabulary), file or "the classes of objects"
    ids: dict[str, list[int]] = {}
    unknown: list[str] = []
    for name, (classes, _) in rows.items():
        found = [find(each) if find(each) is not None else _number(each, vocabulary) for each in classes]
        ids[name] = [c for c in found if c is not None]
        unknown += [each for each, c in zip(classes, found, strict=True) if c is None]
    if unknown:
        hint = did_you_mean(vocabulary, unknown[0])
        more = "" if file else "; say with --classes which classes of the model they are"
        raise FileError(f"{place}: no classes of the model: {_list(unknown)}{hint}{more}")
    if missing := [name for name in wanted if name not in rows]:
        raise FileError(f"{place}: says nothing about {_list(missing)}, of which there are objects")
    below = _below(vocabulary)
    return {
        name: Mapped(
            tuple(vocabulary.classes[c] for c in ids[name]),
            rows[name][1],
            frozenset(one for c in ids[name] for one in below[c]),
        )
        for name in wanted
    }


def _rows(file: Path) -> dict[str, tuple[list[str], str]]:
    found: dict[str, tuple[list[str], str]] = {}
    for line, row in read_rows(file, NEEDED):
        name, relation = row["foreground"], row.get("relation") or "="
        if name in found:
            raise FileError(f"{file}:{line}: {name!r:.80} stands there already; put | between its classes")
        if relation not in RELATIONS:
            raise FileError(
                f"{file}:{line}: relation must be {' or '.join(RELATIONS)}, found {relation!r:.80}"
            )
        classes = [each.strip() for each in row["classes"].split("|")]
        if not all(classes):
            raise FileError(f"{file}:{line}: a class between | is empty: {row['classes']!r:.80}")
        found[name] = classes, relation
    return found


def _number(name: str, vocabulary: Vocabulary) -> int | None:
    if not (name.isascii() and name.isdecimal() and len(name) < 10):
        return None
    return int(name) if int(name) < len(vocabulary.classes) else None


def _below(vocabulary: Vocabulary) -> list[list[int]]:
    """Of each class, it and all that have it among their ancestors."""
    hierarchy = vocabulary.hierarchy()
    below: list[list[int]] = [[c] for c in range(len(vocabulary.classes))]
    for c in range(len(below)):
        for above in hierarchy.ancestors(c):
            below[above].append(c)
    return below


def _list(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"{name!r:.80}" for name in names[:SHOWN]) + more
