"""How senses of WordNet stand to the classes of a target task: the same, below, above, and how similar.

In: synsets, and a user's file of target classes. Out: the wnids of the targets, and for any sense its ties to
them. What the measures are and where they come from stands in engineer.py.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcscale.files import FileError, Usage, read_text
from hpcscale.labels import hypernyms
from hpcscale.labels.canonical import sense_sets
from hpcscale.labels.vocabulary import normalise
from hpcscale.labels.wordnet import Synset

EXACT, BELOW, ABOVE = range(3)
WNID = re.compile(r"n\d{8}\b")
MOST = 5  # problems that a message lists


class Tie(NamedTuple):
    """How a sense serves a target; the smallest is the best."""

    relation: int  # EXACT, BELOW or ABOVE
    distance: int  # hypernyms between the two, on the shortest way
    dissimilarity: float  # 1 - similarity
    target: int  # its place in the list of targets
    bits: float  # information of the sense

    def __str__(self) -> str:
        return ("exact", f"below by {self.distance}", f"above by {self.distance}")[self.relation]


class Relations:
    """Finds the ties of senses to targets (wnids)."""

    def __init__(self, synsets: Mapping[str, Synset], targets: Sequence[str]) -> None:
        self.synsets = synsets
        self.targets = targets
        below = np.bincount(hypernyms.tree(synsets).ancestor_ids, minlength=len(synsets))
        self.bits = dict(zip(synsets, np.log2(len(synsets) / (1 + below)).tolist(), strict=True))
        self._places = {wnid: place for place, wnid in enumerate(targets)}
        self._over: dict[str, list[tuple[int, int]]] = {}  # wnid -> distances and places of targets below it
        for place, wnid in enumerate(targets):
            for over, distance in self._ways_up(wnid).items():
                self._over.setdefault(over, []).append((distance, place))

    def ties(self, sense: str) -> list[Tie]:
        """One for each target that is this sense, or is above it or below it; the best first."""
        up = self._ways_up(sense).items()
        at_or_below = [(distance, self._places[over]) for over, distance in up if over in self._places]
        above = [way for way in self._over.get(sense, ()) if way[0]]
        return sorted(
            [self._tie(sense, BELOW if way[0] else EXACT, *way) for way in at_or_below]
            + [self._tie(sense, ABOVE, *way) for way in above]
        )

    def _tie(self, sense: str, relation: int, distance: int, target: int) -> Tie:
        mine, its = self.bits[sense], self.bits[self.targets[target]]
        # One is at or above the other, so the more general of them is the lowest that holds for both.
        similarity = 2 * min(mine, its) / (mine + its) if distance else 1.0
        return Tie(relation, distance, 1 - similarity, target, mine)

    def _ways_up(self, wnid: str) -> dict[str, int]:
        """This synset and all above it, with the hypernyms on the shortest way up to each."""
        found, level, distance = {wnid: 0}, {wnid}, 0
        while level:
            distance += 1
            level = {over for each in level for over in self.synsets[each].hypernyms} - found.keys()
            found |= dict.fromkeys(level, distance)
        return found


def read_targets(file: Path, synsets: Mapping[str, Synset]) -> list[str]:
    """The wnids of a file with one target class a line: a wnid, behind which may stand anything, or a name.

    A name must have one sense in WordNet. Raises Usage for names of none or several, with what to write
    instead, and FileError for a file without targets.
    """
    lines = [line.strip() for line in read_text(file).removeprefix("\ufeff").split("\n")]
    meanings = sense_sets(synsets) if not all(map(WNID.match, filter(None, lines))) else {}
    found: list[str] = []
    unknown: list[str] = []
    several: list[str] = []
    for number, name in enumerate(lines, 1):
        if not name:
            continue
        wnid = WNID.match(name)
        senses = meanings.get(normalise(name), ()) if wnid is None else tuple({wnid[0]} & synsets.keys())
        where = f"line {number}, {name!r:.80}"
        if len(senses) == 1:
            found += senses
        elif senses:
            several.append(f"{where}: " + ", ".join(_about(each, synsets) for each in senses))
        else:
            unknown.append(where if unknown else where + _did_you_mean(name, meanings))
    _refuse(file, unknown, "no nouns of WordNet")
    _refuse(file, several, "words of several senses; write the wnid of the one that is meant")
    if not found:
        raise FileError(f"{file}: no target class found, expected a wnid or a name a line")
    return list(dict.fromkeys(found))


def _about(wnid: str, synsets: Mapping[str, Synset]) -> str:
    over = synsets[wnid].hypernyms
    return f"{wnid} (a kind of {synsets[over[0]].lemmas[0]})" if over else wnid


def _did_you_mean(name: str, meanings: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(normalise(name), meanings, 3, 0.8)
    return f" (did you mean {', '.join(map(repr, close))}?)" if close else ""


def _refuse(file: Path, problems: Sequence[str], what: str) -> None:
    if problems:
        listed = "; ".join(problems[:MOST]) + ("; ..." if len(problems) > MOST else "")
        raise Usage(f"{file}: {len(problems)} target class(es) are {what}: {listed}")
