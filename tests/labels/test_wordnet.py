"""WordNet as it is read, and the senses of its words: which of them mean the same, with golden counts."""

import pytest
from places import GOLDEN
from small_wordnet import SYNSETS, wnid

from hpcscale.labels import canonical, wordnet


def test_wordnet_is_read(folder):
    synsets = wordnet.read(folder)
    assert len(synsets) == len(SYNSETS)
    assert synsets[wnid(12)] == (("brown_bear", "bruin", "Ursus_arctos"), (wnid(11),))
    assert synsets[wnid(23)].hypernyms == (wnid(21), wnid(22))
    assert synsets[wnid(30)].hypernyms == (wnid(12),)  # an instance
    assert synsets[wnid(1)].hypernyms == ()
    assert wordnet.read_sense_order(folder)["crane"] == (wnid(21), wnid(13))


def test_a_missing_wordnet_says_what_to_do(tmp_path):
    with pytest.raises(wordnet.WordNetError, match=r"data\.noun is missing.*wordnet-base.*--wordnet"):
        wordnet.read(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("00000001 03 n 01 entity 0 001 @ 00000099 n 0000 | x", "unknown hypernym n00000099"),
        ("00000001 03 n zz entity 0 000 | x", "line 1 is not a synset"),
        ("00000001 03 n 09 entity 0 000 | x", "line 1 is not a synset"),
        ("", "line 1 is not a synset"),
    ],
)
def test_a_damaged_wordnet_is_told(tmp_path, line, message):
    (tmp_path / "data.noun").write_text(line + "\n")
    with pytest.raises(wordnet.WordNetError, match=message):
        wordnet.read(tmp_path)


def test_sense_sets(folder):
    senses = canonical.sense_sets(wordnet.read(folder))
    assert senses["brownbear"] == senses["bruin"] == senses["ursusarctos"] == (wnid(12),)
    assert senses["crane"] == (wnid(13), wnid(21))
    assert senses["towercrane"] == (wnid(23),)


def test_the_canonical_form_is_the_most_frequent_tag():
    tags = ["ursusarctos", "bruin", "brownbear", "bear"]
    ordered = canonical.canonical_order(tags, {"bruin": 5, "brownbear": 2, "ursusarctos": 2})
    assert ordered == ["bruin", "brownbear", "ursusarctos", "bear"]


def merged(tags, senses, order, merge):
    first = canonical.first_senses(order)
    return {canonical.concept(tag, senses[tag], merge, first) for tag in tags}


def test_row_03_golden_counts_of_wordnet(real):
    synsets, order = real
    senses = canonical.sense_sets(synsets)
    assert len(synsets) == 82_115
    assert len(order) == len({lemma.lower() for each in synsets.values() for lemma in each.lemmas}) == 117_798
    assert len(senses) == 116_654
    assert len(merged(senses, senses, order, "identical")) == 77_225
    assert senses["brownbear"] == senses["ursusarctos"]
    assert set(senses["brownbear"]) < set(senses["bruin"])  # which has a second sense, as a name for any bear


def test_row_03_golden_counts_of_the_ilsvrc_synsets(real):
    synsets, order = real
    senses = canonical.sense_sets(synsets)
    chosen = set((GOLDEN / "ilsvrc2012_wnids.txt").read_text().split())
    assert len(chosen) == 1000
    assert chosen <= synsets.keys()
    tags = [tag for tag, wnids in senses.items() if not chosen.isdisjoint(wnids)]
    assert len(tags) == 1804
    assert sum(len(senses[tag]) > 1 for tag in tags) == 505
    counts = {m: len(merged(tags, senses, order, m)) for m in ("identical", "monosemous", "first-sense")}
    assert counts == {"identical": 1284, "monosemous": 1310, "first-sense": 1208}
