"""WordNets for the tests of labels: a small one, and the real one where it is installed."""

import pytest
from small_wordnet import INSTANCES, SYNSETS

from hpcscale.labels import wordnet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A WordNet of a few synsets, in the format of wndb(5WN)."""
    folder = tmp_path_factory.mktemp("wordnet")
    lines = ["  1 a licence  "]
    senses = {}
    for number, (lemmas, *above) in SYNSETS.items():
        words = lemmas.split()
        sign = "@i" if number in INSTANCES else "@"
        pointers = [f"{sign} {p:08d} n 0000" for p in above] + ["~ 00000010 n 0000", "+ 00692347 v 0101"]
        word_fields = " ".join(f"{word} 0" for word in words)
        lines.append(
            f"{number:08d} 03 n {len(words):02x} {word_fields} {len(pointers):03d} {' '.join(pointers)} | x"
        )
        for word in words:
            senses.setdefault(word.lower(), []).append(number)
    senses["crane"] = [21, 13]  # the machine is meant more often
    (folder / "data.noun").write_text("\n".join(lines) + "\n")
    index = [
        f"{w} n {len(s)} 1 @ {len(s)} 0 {' '.join(f'{n:08d}' for n in s)}" for w, s in sorted(senses.items())
    ]
    (folder / "index.noun").write_text("\n".join(["  1 a licence", *index]) + "\n")
    return folder


@pytest.fixture(scope="module")
def real():
    """Sense sets and sense order of WordNet 3.0."""
    if not (wordnet.FOLDER / "data.noun").exists():
        pytest.skip("Debian's wordnet-base is not installed")
    return wordnet.read(), wordnet.read_sense_order()
