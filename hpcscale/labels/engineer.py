"""Label-space engineering: which tags of a data set to pretrain on for a target task, and why.

In: the records of a data set, WordNet, and the wnids of the target's classes. Out: a Vocabulary of the chosen
tags, and a line for each class that is in or was left out. Mahajan et al. 2018 find that tags that match the
target beat twice as many pictures without that care (section 5, first observation), and leave the method
open. This is ours. A class is a set of senses, as in build.py.

Relation. A sense is exact if it is a target; below a target by d if the target is d hypernyms above it; above
by d if it is d hypernyms above a target. Nothing else is taken: no siblings. A class of several senses has
the relation of its best one: exact, then below, then above, then the nearer.

Information. bits(c) = -log2 p(c), where p(c) is the share of WordNet's synsets that are c or below it (Seco,
Veale and Hayes 2004): 16.3 bits for a leaf, 0 for 'entity'. It is counted in the lexicon and not in the
pictures (as Resnik 1995 would), so that a class says as much on every data set, and pictures weigh once.

Similarity (Lin 1998). 2 * bits(upper) / (bits(sense) + bits(target)), where upper is the more general of the
two; 1 for a target itself.

Share. How much of a word's use means a target: the part of its senses that serve one, where the k-th sense
weighs 1/k. WordNet orders senses by frequency, and frequencies of senses are skewed (Kilgarriff 2004), so
that #dog, the animal in the first of seven senses, has 0.39, and #toy, a dog in its last, has next to none.

Left out as too general is a class above a target by more than `up`, or that says less than half of what the
target says (bits(sense) < 0.5 * bits(target), thus a similarity below 2/3): 'animal' for 'tench'. Left out is
also a word below or above with a share below 0.34: the second sense of two is out, the first of ten is in.
An exact word is never left out, since it may bring all the pictures that a target has.

Order: exact words that mean nothing but targets; exact words that mean other things too; below; above. What
surely shows a target comes first, and a hypernym, whose pictures mostly show something else, last. Within
each by score, then by wnid:

    score = similarity * share * log2(1 + pictures)

because accuracy grows with the logarithm of the pictures (Mahajan et al., section 3.1.2). A picture is new
with the first class in this order that it has a tag of. The list is cut after `budget` classes, or behind the
class with which the new pictures reach `enough`.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.files import read_bytes, write_file
from hpcscale.labels import hypernyms, wordnet
from hpcscale.labels.build import Choice, Lexicon, Records, assemble, look_up, pictures
from hpcscale.labels.canonical import Concept, canonical_order, sense_order
from hpcscale.labels.relations import ABOVE, EXACT, Relations, Tie
from hpcscale.labels.vocabulary import Finished, Vocabulary, VocabularyError, normalise, save

# Why a class was left out.
CUT, OTHER, GENERAL, NONE = "limit reached", "mostly means something else", "too general", "no pictures"
SIMILAR = 2 / 3  # least similarity of a class above a target
SHARE = 0.34  # least share of a word below or above a target


class Wish(NamedTuple):
    """What is wanted of a vocabulary: at most `budget` classes, or `enough` pictures."""

    targets: Sequence[str]  # wnids
    budget: int | None = None
    enough: int | None = None
    up: int = 2  # most hypernyms from a target to a class above it

    def about(self) -> dict[str, str]:
        limit = f"at most {self.budget} classes" if self.budget else f"{self.enough} pictures"
        return {"target": f"{len(self.targets)} classes, {limit}, up {self.up}"}


class Line(NamedTuple):
    """A class, and why it is in or was left out: a line of the table."""

    rank: int  # from 1; 0 if it was left out
    name: str
    relation: str  # 'exact', 'below by 1', 'above by 2'
    serves: tuple[str, ...]  # names of targets, the best served first
    senses: str  # how many of its senses serve a target: '1 of 2'
    share: float  # of its use, that these have
    pictures: int  # that have one of its tags
    new: int  # of these, with no tag of a class before it
    bits: float  # information of its best sense
    score: float
    left_out: str  # why; '' if it is in
    tags: tuple[str, ...]  # that occur, the most frequent first


class Engineered(NamedTuple):
    vocabulary: Vocabulary
    targets: tuple[str, ...]  # names, in the order of the wish
    lines: list[Line]  # by rank, then those left out


class _Candidate(NamedTuple):
    """A class that is related to a target."""

    concept: Concept
    tags: list[str]  # that occur, the most frequent first
    ties: list[Tie]  # of all its senses, the best first
    serving: int  # senses with ties
    share: float  # of the word's use, that they have
    left_out: str
    pictures: int = 0

    @property
    def score(self) -> float:
        return (1 - self.ties[0].dissimilarity) * self.share * math.log2(1 + self.pictures)

    def order(self) -> tuple[int, bool, float, Concept]:
        relation = self.ties[0].relation
        mixed = relation == EXACT and self.serving < len(self.concept.senses)
        return relation, mixed, -self.score, self.concept


def engineer(
    tags: Sequence[str], records: Records, wish: Wish, choice: Choice, *, folder: Path = wordnet.FOLDER
) -> Engineered:
    """Choose classes for the targets. Raises VocabularyError if no tag serves one."""
    lexicon = look_up(tags, records, choice, folder)
    relations = Relations(lexicon.synsets, wish.targets)
    found = _candidates(lexicon, relations, wish.up, folder)
    counts = pictures(lexicon.numbers([each.concept for each in found], tags), len(found), records)
    found = [each._replace(pictures=n) for each, n in zip(found, counts.tolist(), strict=True)]
    found.sort(key=_Candidate.order)
    wanted = [each for each in found if not each.left_out]
    if not wanted:
        raise VocabularyError(
            f"none of the {len(tags)} tags serves one of the {len(wish.targets)} targets (use: "
            f"{lexicon.choice.use}), for example {', '.join(map(repr, tags[:5]))}"
        )
    new = _new_pictures(lexicon.numbers([each.concept for each in wanted], tags), len(wanted), records)
    size = wish.budget or 1 + int(np.searchsorted(np.cumsum(new), wish.enough or 0))
    chosen = [each.concept for each in wanted[:size]]
    vocabulary = assemble(lexicon, chosen, tags, records, strict=True)
    targets = hypernyms.names(
        [Concept((t,)) for t in wish.targets], [()] * len(wish.targets), lexicon.synsets
    )
    names = {tag: vocabulary.classes[c] for tag, c in vocabulary.tags.items()}
    lines = [
        _line(each, names, lexicon, targets)._replace(new=n)
        for each, n in zip(wanted, new.tolist(), strict=True)
    ]
    chosen_lines = [line._replace(rank=rank) for rank, line in enumerate(lines[:size], 1)]
    cut = [line._replace(left_out=CUT) for line in lines[size:]]
    left_out = [_line(each, names, lexicon, targets) for each in found if each.left_out]
    lines = [*chosen_lines, *cut, *left_out, *_without_pictures(found, relations, targets)]
    return Engineered(vocabulary._replace(about=vocabulary.about | wish.about()), targets, lines)


def _candidates(lexicon: Lexicon, relations: Relations, up: int, folder: Path) -> list[_Candidate]:
    """All classes of the data that are related to a target, those to be left out among them."""
    tags: dict[Concept, list[str]] = {}
    for tag in lexicon.frequency:
        if tag in lexicon.concepts:
            tags.setdefault(lexicon.concepts[tag], []).append(tag)
    order = sense_order(wordnet.read_sense_order(folder))
    found = []
    for concept, each in tags.items():
        written = canonical_order(each, lexicon.frequency)
        all_ties = {sense: relations.ties(sense) for sense in concept.senses}
        near = {sense: [tie for tie in ties if _near(tie, up)] for sense, ties in all_ties.items()}
        general = not any(near.values())
        serving = {sense: ties for sense, ties in (all_ties if general else near).items() if ties}
        if serving:
            ties = sorted(tie for some in serving.values() for tie in some)
            share = _share(serving, concept.senses, order.get(written[0], ()))
            other = share < SHARE and ties[0].relation != EXACT
            left_out = GENERAL if general else OTHER if other else ""
            found.append(_Candidate(concept, written, ties, len(serving), share, left_out))
    return found


def _near(tie: Tie, up: int) -> bool:
    return tie.relation != ABOVE or (tie.distance <= up and 1 - tie.dissimilarity >= SIMILAR)


def _share(serving: Collection[str], senses: Sequence[str], order: Sequence[str]) -> float:
    """The weight of the senses that serve, of that of all: the k-th in the order weighs 1/k."""
    ordered = sorted(senses, key=lambda sense: order.index(sense) if sense in order else len(order))
    weights = {sense: 1 / k for k, sense in enumerate(ordered, 1)}
    return sum(weights[sense] for sense in serving) / sum(weights.values())


def _new_pictures(ranks: NDArray[np.int32], classes: int, records: Records) -> NDArray[np.int64]:
    """How many records have a tag of each class and none of a class before it  # (classes,)

    ranks (tags,): the class of each tag, -1 for none.
    """
    ranks = np.where(ranks < 0, classes, ranks)
    new = np.zeros(classes + 1, np.int64)
    for offsets, tag_ids in records():
        starts = offsets[:-1][np.diff(offsets) > 0]
        if len(starts):
            new += np.bincount(np.minimum.reduceat(ranks[tag_ids], starts), minlength=classes + 1)
    return new[:-1]


def _line(each: _Candidate, names: Mapping[str, str], lexicon: Lexicon, targets: Sequence[str]) -> Line:
    best, senses = each.ties[0], each.concept.senses
    word = lexicon.synsets[senses[0]].lemmas[0] if len(senses) == 1 else each.tags[0]
    return Line(
        rank=0,
        name=names.get(each.tags[0], word),
        relation=str(best),
        serves=tuple(dict.fromkeys(targets[tie.target] for tie in each.ties)),
        senses=f"{each.serving} of {len(senses)}",
        share=each.share,
        pictures=each.pictures,
        new=0,
        bits=best.bits,
        score=each.score,
        left_out=each.left_out,
        tags=tuple(each.tags),
    )


def _without_pictures(
    found: Iterable[_Candidate], relations: Relations, targets: Sequence[str]
) -> Iterable[Line]:
    """A line for each target that no tag of the data means."""
    exact = {tie.target for each in found for tie in each.ties if tie.relation == EXACT}
    for place, wnid in enumerate(relations.targets):
        if place not in exact:
            words = tuple(dict.fromkeys(map(normalise, relations.synsets[wnid].lemmas)))
            name, bits = targets[place], relations.bits[wnid]
            yield Line(0, name, "exact", (name,), "1 of 1", 1.0, 0, 0, bits, 0.0, NONE, words)


# for people

COLUMNS = Line._fields
MARK = "\t".join(COLUMNS).encode()  # of a table's file
SHOWN = 100  # classes that a table lists for each reason to leave them out
SERVED = 3  # targets that a line of a table names


def summary(found: Engineered, wish: Wish) -> dict[str, Any]:
    """What was chosen, as plain values. unserved: names of targets that no class serves."""
    chosen = [line for line in found.lines if not line.left_out]
    relations = Counter(line.relation.split()[0] for line in chosen)
    served = {name for line in chosen for name in line.serves}
    cut = [line for line in found.lines if line.left_out == CUT and line.relation == "exact"]
    return {
        "targets": len(wish.targets),
        "classes": len(chosen),
        "exact": relations["exact"],
        "below": relations["below"],
        "above": relations["above"],
        "pictures": sum(line.new for line in chosen),
        "samples": found.vocabulary.samples,
        "left_out": dict(Counter(line.left_out for line in found.lines if line.left_out)),
        "exact_left_out": len(cut),
        "unserved": [name for name in found.targets if name not in served],
    }


def write(found: Engineered, out: Path, table: Path, force: bool = False) -> None:
    """Write the vocabulary and its table. Finished files with other contents are replaced only with `force`,
    and if one of them stays, both do."""
    text = tsv(found.lines).encode()
    if not force and table.exists() and read_bytes(table) not in (b"", text):
        raise Finished(f"{table} exists and differs; choose another name, or replace it with --force")
    save(found.vocabulary, out, force)
    write_file(table, text)


def tsv(lines: Iterable[Line]) -> str:
    """The table: `lines` with a head; of those left out, for each reason the first SHOWN."""
    rows = ["\t".join(COLUMNS)]
    seen: Counter[str] = Counter()
    for line in lines:
        seen[line.left_out] += 1
        if line.left_out and seen[line.left_out] > SHOWN:
            continue
        more = len(line.serves) - SERVED
        served = ", ".join(line.serves[:SERVED]) + (f" and {more} more" if more > 0 else "")
        cells: dict[str, Any] = line._asdict() | {
            "rank": line.rank or "-",
            "serves": served,
            "share": f"{line.share:.2f}",
            "bits": f"{line.bits:.1f}",
            "score": f"{line.score:.3f}",
            "tags": ", ".join(line.tags),
        }
        rows.append("\t".join(map(str, cells.values())))
    return "\n".join(rows) + "\n"
