"""Build a vocabulary from a data set's tags, with WordNet or with a user's own hierarchy.

In: the tag table of a data set and its records (lists of tag ids, in chunks, walked a few times); WordNet's
folder or a Hierarchy. Out: a Vocabulary. Nothing of the data set is kept in memory but its tag table.

With WordNet a class is a set of senses. A wnid names one synset. A word stands for all its senses, since
nobody knows which one was meant: 'crane' is a class of its own, neither the bird nor the machine. The parents
of a class with one sense are its hypernyms, which become classes too. The parents of an ambiguous class are
the lowest hypernyms that all its senses share: they hold whichever sense was meant.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcscale import ops
from hpcscale.labels import hierarchy, hypernyms, wordnet
from hpcscale.labels.canonical import Concept, Merge, canonical_order, concept, first_senses, sense_sets
from hpcscale.labels.hierarchy import Hierarchy
from hpcscale.labels.vocabulary import Vocabulary, VocabularyError, normalise, number, tag_classes
from hpcscale.progress import Progress, none

# Walks the data set in chunks of records: tag offsets (records + 1,) int64, and tag ids int32.
Records = Callable[[], Iterable[tuple[NDArray[np.int64], NDArray[np.int32]]]]
# Which tags count. wnids: only synset ids as in ImageNet, whose sense is known; tags: only words; both.
Use = Literal["wnids", "tags", "both"]
WNID = re.compile(r"n\d{8}")
CHUNK = 1 << 16  # records read at a time


class Tagged(Protocol):
    """What `walk` needs of a data set; data/store.py's DataSet has it."""

    samples: int

    def tag_rows(self, samples: NDArray[np.int64], /) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...


class Count(NamedTuple):
    holds: NDArray[np.int64]  # (classes,) records in which each class holds, ancestors included
    samples: int
    labelled: int  # records with at least one class


class Choice(NamedTuple):
    """Which senses of WordNet become classes."""

    use: Use | None = None  # None: wnids if every record has one, words if no record has one, else both
    # Only tags with a sense among these wnids (the 1.5k of Mahajan et al. 2018: the ImageNet synsets).
    select: Sequence[str] | None = None
    # Only this many classes, the most frequent (their 8.5k); of equally frequent ones, the lower wnid.
    top: int | None = None
    merge: Merge = "identical"
    ancestors: bool = True  # False leaves the hypernyms out (their flat vocabulary)
    root: bool = False  # makes a class of 'entity' too, which holds for every picture

    def about(self) -> dict[str, str]:
        """The choice for people, as a vocabulary keeps it."""
        return {
            "hierarchy": "WordNet" if self.ancestors else "none",
            "use": str(self.use),
            "merge": self.merge,
            "select": "all tags" if self.select is None else f"tags with one of {len(self.select)} senses",
            "top": "all" if self.top is None else str(self.top),
        }


ALL = Choice()


class Lexicon(NamedTuple):
    """What WordNet says of the tags of a data set."""

    synsets: Mapping[str, wordnet.Synset]
    concepts: Mapping[str, Concept]  # the class of every tag that there could be: normalised words, wnids
    frequency: Mapping[str, int]  # records with each normalised word and each wnid; none has 0
    roots: set[str]  # wnids that become no class
    choice: Choice  # with `use` as it was found

    def occurring(self) -> set[Concept]:
        """The classes that a tag of the data selects."""
        return {self.concepts[tag] for tag in self.frequency if tag in self.concepts}

    def numbers(self, ordered: Sequence[Concept], tags: Sequence[str]) -> NDArray[np.int32]:
        """The place in `ordered` of the class of each tag, -1 if it is not there  # (tags,)"""
        numbers = {each: c for c, each in enumerate(ordered)}
        spellings = (tag if tag in self.concepts else normalise(tag) for tag in tags)
        nothing = Concept(())
        return np.array([numbers.get(self.concepts.get(each, nothing), -1) for each in spellings], np.int32)


def walk(data: Tagged, progress: Progress = none) -> Records:
    """The records of a data set, in order, for the functions below. Each walk is a stage of its own."""
    walks = itertools.count(1)

    def records() -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
        stage = f"records, walk {next(walks)}"
        for start in range(0, data.samples, CHUNK):
            progress(stage, start, data.samples)
            yield data.tag_rows(np.arange(start, min(start + CHUNK, data.samples)))
        progress(stage, data.samples, data.samples)

    return records


def from_wordnet(
    tags: Sequence[str], records: Records, choice: Choice = ALL, *, folder: Path = wordnet.FOLDER
) -> Vocabulary:
    """Classes are the senses of the tags that occur, and their hypernyms.

    A class is selected by every tag with its senses, even if the tag does not occur here, so that another
    data set can be read with the same vocabulary. A number alone selects nothing, though WordNet knows '911':
    it is more often an index of a class than a word. Raises VocabularyError if no tag selects a class, or if
    all tags are numbers.
    """
    lexicon = look_up(tags, records, choice, folder)
    chosen = lexicon.occurring()
    if choice.select is not None:
        selected = set(choice.select)
        chosen = {found for found in chosen if not selected.isdisjoint(found.senses)}
    if not chosen:
        raise VocabularyError(
            f"none of the {len(tags)} tags selects a class (use: {lexicon.choice.use}), for example "
            + ", ".join(map(repr, tags[:5]))
        )
    if choice.top is not None:
        ordered = sorted(chosen)
        holds = pictures(lexicon.numbers(ordered, tags), len(ordered), records)
        chosen = {ordered[c] for c in np.argsort(-holds, kind="stable")[: choice.top]}
    return assemble(lexicon, chosen, tags, records)


def look_up(tags: Sequence[str], records: Records, choice: Choice, folder: Path) -> Lexicon:
    """Read WordNet, and count each tag. Raises VocabularyError for a selected wnid that WordNet lacks, and if
    all tags are numbers."""
    synsets = wordnet.read(folder)
    if unknown := [wnid for wnid in choice.select or () if wnid not in synsets]:
        raise VocabularyError(
            f"{len(unknown)} selected wnid(s) are not in WordNet, the first is {unknown[0]!r}"
        )
    frequency, use = _frequencies(tags, records, choice.use)
    _refuse_numbers(frequency)
    choice = choice._replace(use=use)
    roots = set() if choice.root else {wnid for wnid, synset in synsets.items() if not synset.hypernyms}
    concepts = {
        tag: found
        for tag, found in _concepts(synsets, choice, folder).items()
        if not roots.issuperset(found.senses)
    }
    return Lexicon(synsets, concepts, frequency, roots, choice)


def assemble(
    lexicon: Lexicon,
    chosen: Collection[Concept],
    tags: Sequence[str],
    records: Records,
    *,
    strict: bool = False,
) -> Vocabulary:
    """The vocabulary of these classes, and of their hypernyms if the choice wants them.

    strict: no tag selects a hypernym that was not chosen; it holds where a class below it does, and nowhere
    else.
    """
    synsets, choice = lexicon.synsets, lexicon.choice
    alone: dict[Concept, tuple[Concept, ...]] = dict.fromkeys(chosen, ())
    parents = hypernyms.with_hypernyms(chosen, synsets, lexicon.roots) if choice.ancestors else alone
    classes = hypernyms.in_order(parents)
    numbers = {found: c for c, found in enumerate(classes)}
    selecting: list[list[str]] = [[] for _ in classes]
    for tag, found in lexicon.concepts.items():
        if found in (alone if strict else numbers):
            selecting[numbers[found]].append(tag)
    selecting = [canonical_order(each, lexicon.frequency) for each in selecting]
    vocabulary = Vocabulary(
        classes=hypernyms.names(classes, selecting, synsets),
        parents=tuple(tuple(numbers[above] for above in parents[found]) for found in classes),
        senses=tuple(found.senses for found in classes),
        tags={tag: c for c, each in enumerate(selecting) for tag in each},
        counts=(),
        samples=0,
        labelled=0,
        about=choice.about(),
    )
    return _counted(vocabulary, tags, records)


def pictures(selected: NDArray[np.int32], classes: int, records: Records) -> NDArray[np.int64]:
    """How many records have a tag of each class, without a hierarchy  # (classes,)"""
    return count(records, selected, hierarchy.build([""] * classes, [()] * classes)).holds


def from_hierarchy(
    tags: Sequence[str], records: Records, tree: Hierarchy, *, ancestors: bool = True
) -> Vocabulary:
    """Classes are those of the user's hierarchy, all of them and in its order.

    A tag selects the class of the same name; else the class whose name is the normalised tag; else the class
    whose normalised name is the normalised tag, if there is only one. Raises VocabularyError if all tags are
    numbers and none is the name of a class.
    """
    numbers = {name: c for c, name in enumerate(tree.names)}
    normalised: dict[str, list[int]] = {}
    for name, c in numbers.items():
        normalised.setdefault(normalise(name), []).append(c)
    unambiguous = {
        tag: found[0] for tag, found in normalised.items() if tag and not number(tag) and len(found) == 1
    }
    vocabulary = Vocabulary(
        classes=tree.names,
        parents=tree.parents if ancestors else ((),) * len(tree.names),
        senses=((),) * len(tree.names),
        tags=unambiguous | numbers,
        counts=(),
        samples=0,
        labelled=0,
        about={"hierarchy": "user's file" if ancestors else "none"},
    )
    if (tag_classes(vocabulary, tags) < 0).all():
        _refuse_numbers([normalise(tag) for tag in tags])
    return _counted(vocabulary, tags, records)


def count(records: Records, selected: NDArray[np.int32], tree: Hierarchy) -> Count:
    """Walk the data once and count. selected (tags,): the class of each tag, or -1."""
    closure = ops.Closure(selected, tree.ancestor_offsets, tree.ancestor_ids)
    holds = np.zeros(len(tree.names), np.int64)
    samples = labelled = 0
    for tag_offsets, tag_ids in records():
        offsets, classes = closure.labels(tag_offsets, tag_ids)
        holds += np.bincount(classes, minlength=len(holds))
        samples += len(offsets) - 1
        labelled += int(np.count_nonzero(np.diff(offsets)))
    return Count(holds, samples, labelled)


def _counted(vocabulary: Vocabulary, tags: Sequence[str], records: Records) -> Vocabulary:
    holds, samples, labelled = count(records, tag_classes(vocabulary, tags), vocabulary.hierarchy())
    return vocabulary._replace(counts=tuple(holds.tolist()), samples=samples, labelled=labelled)


def _frequencies(tags: Sequence[str], records: Records, use: Use | None) -> tuple[dict[str, int], Use]:
    """How many records have each normalised tag and each wnid; and which of them to use."""
    spellings = [tag if WNID.fullmatch(tag) else normalise(tag) for tag in tags]
    # One class for each spelling, and the last one, 'has a wnid', as the parent of all wnids.
    names = [*dict.fromkeys(filter(None, spellings)), "has a wnid"]
    numbers = {name: c for c, name in enumerate(names)}
    tree = hierarchy.build(names, [(len(names) - 1,) if WNID.fullmatch(name) else () for name in names])
    selected = np.array([numbers.get(spelling, -1) for spelling in spellings], np.int32)
    holds, samples, _ = count(records, selected, tree)
    if use is None:
        use = "tags" if holds[-1] == 0 else "wnids" if holds[-1] == samples else "both"
    return {name: int(n) for name, n in zip(names[:-1], holds[:-1], strict=True) if n}, use


def _refuse_numbers(tags: Collection[str]) -> None:
    """Refuse tags (normalised) that are all numbers: indexes into a list of classes that is not here."""
    if tags and all(map(number, tags)):
        raise VocabularyError(
            f"all {len(tags)} tags are numbers, such as {', '.join(map(repr, list(tags)[:3]))}: indexes of "
            "classes? Which class a number stands for is nowhere said; use names or wnids as tags, or name "
            "every number in a hierarchy of your own, with --parents"
        )


def _concepts(synsets: Mapping[str, wordnet.Synset], choice: Choice, folder: Path) -> dict[str, Concept]:
    """The class of every tag that there could be, normalised words before wnids."""
    merge = choice.merge
    first = first_senses(wordnet.read_sense_order(folder)) if merge == "first-sense" else {}
    concepts: dict[str, Concept] = {}
    if choice.use != "wnids":
        words = ((tag, senses) for tag, senses in sense_sets(synsets).items() if not number(tag))
        concepts |= {tag: concept(tag, senses, merge, first) for tag, senses in words}
    if choice.use != "tags":
        concepts |= {wnid: Concept((wnid,)) for wnid in synsets}
    return concepts
