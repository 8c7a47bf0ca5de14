"""Which words mean the same: tags are merged into classes by the senses that WordNet gives them.

In: WordNet synsets and a data set's tags. Out: for each normalised tag its sense set, and for each sense set
one class. The pipeline is Mahajan et al. 2018, section 2.1 (#brownbear and #ursusarctos become one label;
what is not selected is dropped); how exactly they merge is in no public text. Ours, over WordNet 3.0 and the
1000 ImageNet synsets, takes 1804 tags to 1284 classes (identical), 1310 (monosemous) or 1208 (first-sense);
the paper speaks of about 1.5k.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from hpcscale.labels.vocabulary import normalise
from hpcscale.labels.wordnet import Synset

# identical: tags with the same set of senses are one class.
# monosemous: only tags with a single sense are merged; an ambiguous tag is a class of its own.
# first-sense: a tag means its most frequent sense, and nothing else.
Merge = Literal["identical", "monosemous", "first-sense"]


class Concept(NamedTuple):
    """What makes a class one and the same: its senses, and the tag itself where equal senses stay apart."""

    senses: tuple[str, ...]  # wnids, sorted
    tag: str = ""


def sense_sets(synsets: Mapping[str, Synset]) -> dict[str, tuple[str, ...]]:
    """For each normalised lemma the wnids of all synsets that have it, sorted: S(h) of the recipes.

    116,654 of them in WordNet 3.0. Words with several meanings keep all: S('crane') is a bird and a machine.
    """
    senses: dict[str, set[str]] = {}
    for wnid, synset in synsets.items():
        for lemma in synset.lemmas:
            if tag := normalise(lemma):
                senses.setdefault(tag, set()).add(wnid)
    return {tag: tuple(sorted(wnids)) for tag, wnids in senses.items()}


def first_senses(sense_order: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """For each normalised lemma its most frequent sense; of several spellings the first in index.noun
    counts."""
    first: dict[str, str] = {}
    for lemma, wnids in sense_order.items():
        first.setdefault(normalise(lemma), wnids[0])
    return first


def concept(tag: str, senses: tuple[str, ...], merge: Merge, first: Mapping[str, str]) -> Concept:
    """The class of a normalised tag with these senses. `first` is needed for merge='first-sense' only."""
    if merge == "first-sense":
        return Concept((first[tag],))
    if merge == "monosemous" and len(senses) > 1:
        return Concept(senses, tag)
    return Concept(senses)


def canonical_order(tags: Iterable[str], frequency: Mapping[str, int]) -> list[str]:
    """The tags of a class, most frequent first, equals in the alphabet's order. The first is canonical."""
    return sorted(tags, key=lambda tag: (-frequency.get(tag, 0), tag))
