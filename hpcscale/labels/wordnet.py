"""Reader of the nouns of WordNet 3.0: the lexicon that gives words their senses and senses their hypernyms.

In: the folder with data.noun and index.noun as Debian's wordnet-base installs it (format: wndb(5WN)). Out:
synsets by wnid. A wnid is 'n' and the 8 digits of the synset's place in data.noun; ImageNet uses the same
ids. WordNet is read when a vocabulary is built, and for definitions on a page for people; a finished
vocabulary file does not need it.
"""

from collections.abc import Set
from pathlib import Path
from typing import NamedTuple

from hpcscale.files import Usage

FOLDER = Path("/usr/share/wordnet")
HYPERNYMS = ("@", "@i")  # kind of, instance of


class WordNetError(Usage):
    """WordNet is missing or not what it should be; the message names the file and what to do."""


class Synset(NamedTuple):
    lemmas: tuple[str, ...]  # as WordNet writes them: 'Tinca_tinca'; the first is the usual one
    hypernyms: tuple[str, ...]  # wnids; empty for the root 'entity'


def read(folder: Path = FOLDER) -> dict[str, Synset]:
    """All noun synsets by wnid, in the order of the file: 82,115 in WordNet 3.0, in about half a second."""
    synsets: dict[str, Synset] = {}
    for number, line in enumerate(_lines(folder / "data.noun"), 1):
        if line.startswith("  "):  # the licence
            continue
        try:
            # offset, lexicographer file, 'n', words (hex), then word and id for each, pointers, then kind,
            # offset, part of speech and source/target for each
            fields = line.partition(" | ")[0].split()
            pointers = 4 + 2 * int(fields[3], 16)
            ends = range(pointers + 1, pointers + 1 + 4 * int(fields[pointers]), 4)
            synsets["n" + fields[0]] = Synset(
                tuple(fields[4:pointers:2]),
                tuple("n" + fields[at + 1] for at in ends if fields[at] in HYPERNYMS),
            )
        except (IndexError, ValueError):
            raise WordNetError(
                f"{folder / 'data.noun'}: line {number} is not a synset: {line[:60]!r}"
            ) from None
    for wnid, synset in synsets.items():
        if missing := [above for above in synset.hypernyms if above not in synsets]:
            raise WordNetError(f"{folder / 'data.noun'}: synset {wnid} has the unknown hypernym {missing[0]}")
    return synsets


def read_sense_order(folder: Path = FOLDER) -> dict[str, tuple[str, ...]]:
    """Senses of every lemma (lower case, as in index.noun), the most frequent first, as wnids."""
    senses: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(_lines(folder / "index.noun"), 1):
        if line.startswith("  "):
            continue
        fields = line.split()
        if len(fields) < 5 or not fields[2].isdecimal():
            raise WordNetError(f"{folder / 'index.noun'}: line {number} is not a lemma: {line[:60]!r}")
        senses[fields[0]] = tuple("n" + offset for offset in fields[-int(fields[2]) :])
    return senses


def definitions(wnids: Set[str], folder: Path = FOLDER) -> dict[str, str]:
    """What WordNet says that these wnids mean, often with examples; of those that it has."""
    found = {}
    for line in _lines(folder / "data.noun"):
        if (wnid := "n" + line[:8]) in wnids:
            found[wnid] = line.partition(" | ")[2].strip()
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise WordNetError(
            f"{file} is missing: install Debian's wordnet-base (apt-get install wordnet-base), name another "
            "folder with --wordnet, or bring your own hierarchy with --parents"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise WordNetError(f"{file}: cannot be read: {error}") from None
