"""From chosen classes of WordNet to the classes above them: parents, order and names of a vocabulary.

In: classes as sense sets (canonical.py) and synsets. Out: the hypernyms of each class, the order in which a
vocabulary lists classes, and readable names.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from hpcscale.labels import hierarchy
from hpcscale.labels.canonical import Concept
from hpcscale.labels.hierarchy import Hierarchy
from hpcscale.labels.wordnet import Synset


def tree(synsets: Mapping[str, Synset]) -> Hierarchy:
    """All synsets as a hierarchy, numbered in the order of `synsets`, named by their wnids."""
    numbers = {wnid: number for number, wnid in enumerate(synsets)}
    return hierarchy.build(
        list(synsets), [[numbers[above] for above in each.hypernyms] for each in synsets.values()]
    )


def with_hypernyms(
    found: Iterable[Concept], synsets: Mapping[str, Synset], roots: set[str]
) -> dict[Concept, tuple[Concept, ...]]:
    """The parents of these classes, their parents, and so on."""
    all_synsets = tree(synsets)
    numbers = {wnid: number for number, wnid in enumerate(all_synsets.names)}

    def shared(senses: tuple[str, ...]) -> set[int]:
        """The lowest synsets that hold for every one of these senses."""
        ancestors = all_synsets.ancestors
        common = set.intersection(*({numbers[wnid], *ancestors(numbers[wnid])} for wnid in senses))
        return common.difference(*(ancestors(each) for each in common))

    parents: dict[Concept, tuple[Concept, ...]] = {}
    waiting = list(found)
    while waiting:
        each = waiting.pop()
        if each in parents:
            continue
        if len(each.senses) == 1:
            above = set(synsets[each.senses[0]].hypernyms)
        else:
            above = {all_synsets.names[number] for number in shared(each.senses)}
        parents[each] = tuple(Concept((wnid,)) for wnid in sorted(above - roots))
        waiting += parents[each]
    return parents


def in_order(parents: Mapping[Concept, Sequence[Concept]]) -> list[Concept]:
    """Parents before children, then by wnid. So the general classes, which hold most often, lie close
    together."""
    found = list(parents)
    numbers = {each: c for c, each in enumerate(found)}
    classes = hierarchy.build(
        [str(each) for each in found], [[numbers[p] for p in parents[each]] for each in found]
    )
    levels = np.diff(classes.ancestor_offsets)  # a parent has fewer ancestors than its child
    return sorted(found, key=lambda each: (levels[numbers[each]], each))


def names(
    classes: Sequence[Concept], tags: Sequence[Sequence[str]], synsets: Mapping[str, Synset]
) -> tuple[str, ...]:
    """Names of classes: of one sense, its first lemma; of several senses, the canonical tag. Where names are
    equal, wnids are added."""
    plain = [
        each.tag or (synsets[each.senses[0]].lemmas[0] if len(each.senses) == 1 else selecting[0])
        for each, selecting in zip(classes, tags, strict=True)
    ]
    times: dict[str, int] = {}
    for name in plain:
        times[name] = times.get(name, 0) + 1
    return tuple(
        name if times[name] == 1 else f"{name} ({'|'.join(each.senses)})"
        for name, each in zip(plain, classes, strict=True)
    )
