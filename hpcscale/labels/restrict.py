"""A part of a vocabulary's classes: the labels of a run restricted to a list, and the files of such lists.

In: a vocabulary, and a class-list file, one name, tag or wnid a line. Out: the vocabulary of these classes
alone, for `selection.classes` (the 941 of Sun et al. 2017, section 5.2), and lists of the most frequent
classes (the IN-5k and IN-9k of Mahajan et al. 2018, section 2.2).
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from hpcscale.files import FileError, read_text
from hpcscale.labels.vocabulary import Vocabulary, VocabularyError, did_you_mean, finder

MARK = "# hpcscale classes 1"  # first line of a list that we write


class Missing(NamedTuple):
    """A line of a class list that names no class of the vocabulary."""

    line: int  # from 1
    name: str


def restricted(vocabulary: Vocabulary, classes: Collection[int]) -> Vocabulary:
    """The vocabulary of these classes (ids, at least one) alone, in the order that they had.

    A tag of a class that is not kept selects the nearest kept class above it, since a picture that shows a
    class shows all its ancestors; of several nearest ones, that with the fewest samples. The parents of a
    class are the nearest kept classes above it, so among kept classes the same ancestors hold as before.
    Counts stay those of the data that the vocabulary was built on. In how many samples any kept class holds
    cannot be known from them: `labelled` is the most it can be, exact where no sample has two of the classes.
    """
    kept = sorted(set(classes))
    if not kept:
        raise VocabularyError("no class is left of the vocabulary: the list of classes is empty")
    if not 0 <= kept[0] <= kept[-1] < len(vocabulary.classes):
        raise IndexError(f"classes {kept[0]}..{kept[-1]} outside 0..{len(vocabulary.classes) - 1}")
    tree = vocabulary.hierarchy()
    numbers = {c: number for number, c in enumerate(kept)}
    above = {c: {a for a in tree.ancestors(c) if a in numbers} for c in range(len(vocabulary.classes))}

    def nearest(c: int) -> tuple[int, ...]:
        return tuple(sorted(numbers[a] for a in above[c].difference(*(above[a] for a in above[c]))))

    selects = dict(numbers)
    for c in above.keys() - numbers.keys():
        if found := nearest(c):
            selects[c] = min(found, key=lambda number: (vocabulary.counts[kept[number]], number))

    counts = tuple(vocabulary.counts[c] for c in kept)
    return Vocabulary(
        classes=tuple(vocabulary.classes[c] for c in kept),
        parents=tuple(map(nearest, kept)),
        senses=tuple(vocabulary.senses[c] for c in kept),
        tags={tag: selects[c] for tag, c in vocabulary.tags.items() if c in selects},
        counts=counts,
        samples=vocabulary.samples,
        labelled=min(vocabulary.labelled, sum(counts)),
        about=vocabulary.about | {"classes": f"{len(kept)} of {len(vocabulary.classes)}"},
    )


def never(part: Vocabulary) -> list[str]:
    """Names of classes that no picture can have: no tag selects them, nor a class below them."""
    tree = part.hierarchy()
    held = {a for c in set(part.tags.values()) for a in (c, *tree.ancestors(c))}
    return [name for c, name in enumerate(part.classes) if c not in held]


def read_classes(file: Path, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Ids of the classes that a list names, rising, each once. VocabularyError where one is unknown."""
    found, missing = look_up(file, vocabulary)
    if missing:
        first = missing[0]
        raise VocabularyError(
            f"{file}: {len(missing)} of its names stand for no class of the vocabulary, the first is "
            f"{first.name!r:.80} in line {first.line}{did_you_mean(vocabulary, first.name)}"
        )
    return found


def look_up(file: Path, vocabulary: Vocabulary) -> tuple[tuple[int, ...], list[Missing]]:
    """The classes that a list names, and the lines that name none. Raises VocabularyError if it has no name.

    One name of a class, tag or wnid a line. Lines that are empty or begin with `# ` are passed over;
    `#tench`, without the space, is a hashtag.
    """
    try:
        lines = read_text(file).removeprefix("\ufeff").split("\n")
    except (OSError, FileError) as error:
        raise VocabularyError(f"{file}: cannot be read: {error}") from None
    find = finder(vocabulary)
    found: set[int] = set()
    missing: list[Missing] = []
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name or name == "#" or name.startswith("# "):
            continue
        if (c := find(name)) is None:
            missing.append(Missing(number, name))
        else:
            found.add(c)
    if not found and not missing:
        raise VocabularyError(f"{file}: names no class; it needs one name, tag or wnid a line")
    return tuple(sorted(found)), missing


def most_frequent(vocabulary: Vocabulary, listed: Iterable[int], most: int) -> tuple[int, ...]:
    """The listed classes and the `most` most frequent others; of equally frequent ones, the first by name.

    So a longer list contains every shorter one: IN-9k contains IN-5k, and both IN-1k. The vocabulary's counts
    include the classes below each class; for a flat vocabulary they are its own samples.
    """
    kept = set(listed)
    others = [c for c in range(len(vocabulary.classes)) if c not in kept]
    others.sort(key=lambda c: (-vocabulary.counts[c], vocabulary.classes[c]))
    return tuple(sorted(kept.union(others[:most])))


def listing(vocabulary: Vocabulary, classes: Iterable[int]) -> str:
    """The text of a class-list file: the names of these classes in the vocabulary's order."""
    names = [vocabulary.classes[c] for c in sorted(set(classes))]
    # What a line cannot say: read back, it would be another name or none.
    for name in names:
        if name != name.strip() or "\n" in name or name == "#" or name.startswith("# "):
            raise VocabularyError(f"the class {name!r:.80} cannot stand in a list of one name a line")
    return "\n".join([MARK, *names]) + "\n"
