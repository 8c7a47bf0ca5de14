"""Which words mean the same: tags are merged into classes by the senses that WordNet gives them.

In: WordNet synsets and a data set's tags. Out: for each normalised tag its sense set, and for each sense set
one class. The pipeline is that of Mahajan et al. 2018, section 2.1: #brownbear and #ursusarctos become one
label, and tags that are not selected are dropped. How exactly they merge tags was never published. Over
WordNet 3.0 and the 1000 ImageNet synsets, ours takes 1804 tags to 1284 classes (identical), 1310 (monosemous)
or 1208 (first-sense); the paper speaks of about 1.5k.
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
    """What identifies a class: its senses, and the tag too where tags of equal senses are not merged."""

    senses: tuple[str, ...]  # wnids, sorted
    tag: str = ""


def sense_sets(synsets: Mapping[str, Synset]) -> dict[str, tuple[str, ...]]:
    """For each normalised lemma the wnids of all synsets that have it, sorted: S(h) in the recipes.

    WordNet 3.0 has 116,654 lemmas. Words with several meanings keep all: S('crane') is a bird and a machine.
    """
    senses: dict[str, set[str]] = {}
    for wnid, synset in synsets.items():
        for lemma in synset.lemmas:
            if tag := normalise(lemma):
                senses.setdefault(tag, set()).add(wnid)
    return {tag: tuple(sorted(wnids)) for tag, wnids in senses.items()}


def sense_order(senses: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """For each normalised lemma its senses, the most frequent first; senses as wordnet.read_sense_order gives
    them. Where lemmas differ only in spelling, those of the first one in index.noun come first."""
    order: dict[str, dict[str, None]] = {}
    for lemma, wnids in senses.items():
        order.setdefault(normalise(lemma), {}).update(dict.fromkeys(wnids))
    return {tag: tuple(wnids) for tag, wnids in order.items()}


def first_senses(senses: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """For each normalised lemma its most frequent sense."""
    return {tag: wnids[0] for tag, wnids in sense_order(senses).items()}


def concept(tag: str, senses: tuple[str, ...], merge: Merge, first: Mapping[str, str]) -> Concept:
    """The class of a normalised tag with these senses. Only merge='first-sense' needs `first`."""
    if merge == "first-sense":
        return Concept((first[tag],))
    if merge == "monosemous" and len(senses) > 1:
        return Concept(senses, tag)
    return Concept(senses)


def canonical_order(tags: Iterable[str], frequency: Mapping[str, int]) -> list[str]:
    """The tags of a class, most frequent first, then by the alphabet. The first is the canonical one."""
    return sorted(tags, key=lambda tag: (-frequency.get(tag, 0), tag))
