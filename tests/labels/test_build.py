"""Vocabularies built from tags: with the senses of WordNet, small or real, and with a user's hierarchy."""

import json

import pytest
from places import GOLDEN, PHOTOGRAPHS
from small_wordnet import WNIDS, WORDS, data, held, wnid

from hpcscale.labels import build, canonical, hierarchy, hypernyms, wordnet
from hpcscale.labels.build import Choice
from hpcscale.labels.vocabulary import VocabularyError, find, tag_classes

SAMPLE = PHOTOGRAPHS / "imagenet-sample/manifest.jsonl"


def test_classes_are_the_wnids_where_every_record_has_one(folder):
    vocabulary = build.from_wordnet(*data(WNIDS), folder=folder)
    assert vocabulary.about["use"] == "wnids"
    assert set(vocabulary.classes) == {
        "animal", "bear", "brown_bear", "device", "lifting_device", "tower_crane",
        f"crane ({wnid(13)})", f"crane ({wnid(21)})",
    }  # fmt: skip
    counts = dict(zip(vocabulary.classes, vocabulary.counts, strict=True))
    assert counts["animal"] == 3
    assert counts["brown_bear"] == counts["bear"] == 2
    assert counts["tower_crane"] == counts[f"crane ({wnid(21)})"] == counts["lifting_device"] == 1
    assert vocabulary.samples == vocabulary.labelled == 4
    assert tag_classes(vocabulary, ["bruin", wnid(12), wnid(30), "device", wnid(20)]).tolist() == [
        -1,
        vocabulary.classes.index("brown_bear"),
        -1,
        -1,
        vocabulary.classes.index("device"),  # an ancestor, which another data set may have as its tag
    ]
    assert all(p < c for c, parents in enumerate(vocabulary.parents) for p in parents)


def test_words_are_merged_by_their_senses(folder):
    vocabulary = build.from_wordnet(*data(WORDS), folder=folder)
    assert vocabulary.about["use"] == "tags"
    brown, crane, bear = (find(vocabulary, name) for name in ("brownbear", "crane", "bear"))
    assert vocabulary.senses[brown] == (wnid(12),)
    assert [tag for tag, c in vocabulary.tags.items() if c == brown] == ["bruin", "brownbear", "ursusarctos"]
    # 'crane' and 'bear' mean a thing or an animal, and nothing but the root holds for both
    assert vocabulary.senses[crane] == (wnid(13), wnid(21))
    assert vocabulary.parents[crane] == vocabulary.parents[bear] == ()
    assert (
        vocabulary.classes[bear] == f"bear ({wnid(11)}|{wnid(24)})"
    )  # the animal alone is an ancestor's class
    assert held(vocabulary, brown) == ["animal", f"bear ({wnid(11)})"]
    assert (vocabulary.samples, vocabulary.labelled) == (5, 3)
    assert vocabulary.counts[brown] == 3
    assert vocabulary.counts[crane] == 1


def test_parents_of_an_ambiguous_word_are_what_all_its_senses_share(folder):
    vocabulary = build.from_wordnet(*data([["beast"], ["crane"]]), Choice(root=True), folder=folder)
    for word in ("beast", "crane"):
        assert held(vocabulary, find(vocabulary, word)) == ["entity"]
    synsets = wordnet.read(folder)
    parents = hypernyms.with_hypernyms
    both = canonical.Concept((wnid(12), wnid(13)))  # a bear and a bird
    assert parents([both], synsets, set())[both] == (canonical.Concept((wnid(10),)),)
    nested = canonical.Concept((wnid(11), wnid(12)))  # if one sense is above the other, it holds either way
    assert parents([nested], synsets, set())[nested] == (canonical.Concept((wnid(11),)),)


@pytest.mark.parametrize(
    ("merge", "expected"),
    [
        ("identical", {(wnid(12),), (wnid(13), wnid(21)), (wnid(11), wnid(24))}),
        ("first-sense", {(wnid(12),), (wnid(21),), (wnid(11),)}),
    ],
)
def test_row_03_merge(folder, merge, expected):
    vocabulary = build.from_wordnet(*data(WORDS), Choice(merge=merge, ancestors=False), folder=folder)
    assert set(vocabulary.senses) == expected
    assert not any(vocabulary.parents)


def test_monosemous_keeps_ambiguous_words_apart(tmp_path):
    # 'jack' and 'knave' share both senses.
    lines = [
        "00000001 03 n 01 entity 0 000 | x",
        "00000002 03 n 02 jack 0 knave 0 001 @ 00000001 n 0000 | x",
        "00000003 03 n 02 jack 0 knave 0 001 @ 00000001 n 0000 | x",
    ]
    (tmp_path / "data.noun").write_text("\n".join(lines))
    records = data([["jack"], ["knave"], ["jack"]])
    apart = build.from_wordnet(*records, Choice(merge="monosemous"), folder=tmp_path)
    assert sorted(apart.classes) == ["jack", "knave"]
    assert apart.counts[apart.classes.index("jack")] == 2
    together = build.from_wordnet(*records, folder=tmp_path)
    assert together.classes == ("jack",)  # the canonical form: the more frequent


def test_some_wnids_and_words_are_both_used(folder):
    records = data([[wnid(12)], ["crane"], [wnid(13), "bruin"]])
    assert build.from_wordnet(*records, folder=folder).about["use"] == "both"
    assert build.from_wordnet(*records, folder=folder).labelled == 3
    assert build.from_wordnet(*records, Choice(use="tags"), folder=folder).labelled == 2
    assert build.from_wordnet(*records, Choice(use="wnids"), folder=folder).labelled == 2


def test_selection(folder):
    chosen = build.from_wordnet(
        *data(WORDS), Choice(select=[wnid(13), wnid(22)], ancestors=False), folder=folder
    )
    assert chosen.classes == ("crane",)
    top = build.from_wordnet(*data(WORDS), Choice(top=1, ancestors=False), folder=folder)
    assert top.senses == ((wnid(12),),)
    two = build.from_wordnet(*data(WORDS), Choice(top=2, ancestors=False), folder=folder)
    assert two.senses == ((wnid(11), wnid(24)), (wnid(12),))  # 'bear' and 'crane' are equal: by wnid
    with pytest.raises(VocabularyError, match=r"1 selected wnid.*'n99999999'"):
        build.from_wordnet(*data(WORDS), Choice(select=["n99999999"]), folder=folder)


def test_no_known_tag_is_an_error(folder):
    with pytest.raises(VocabularyError, match=r"none of the 2 tags.*'gibberish', 'n12345678'"):
        build.from_wordnet(*data([["gibberish"], ["n12345678"]]), folder=folder)


def test_parents_come_before_their_children(folder):
    vocabulary = build.from_wordnet(*data([[wnid(5)], [wnid(12)]]), folder=folder)
    assert vocabulary.classes == ("animal", "bear", "polar_bear", "brown_bear")


def test_the_root_is_a_class_on_demand_only(folder):
    records = data([["bruin", "entity"]])
    assert "entity" not in build.from_wordnet(*records, folder=folder).classes
    with_root = build.from_wordnet(*records, Choice(root=True), folder=folder)
    assert with_root.classes[0] == "entity"
    assert with_root.counts[0] == 1


def test_a_users_hierarchy(tmp_path):
    file = tmp_path / "tree.tsv"
    file.write_text(
        "Food\nfruit\tFood\nRed Apple\tfruit\nred-apple pie\tFood\nNew\nnew\nICE CREAM\nice-cream\n"
    )
    tree = hierarchy.read(file)
    records = data([["Red Apple", "x"], ["#redapple"], ["RED APPLE", "fruit"], ["Ice Cream"], ["new"]])
    vocabulary = build.from_hierarchy(*records, tree)
    assert vocabulary.classes == tree.names
    found = tag_classes(vocabulary, ["Red Apple", "redapple", "New", "new", "NEW", "Ice Cream", "x"])
    assert found.tolist() == [2, 2, 4, 5, 5, -1, -1]
    assert vocabulary.counts == (3, 3, 3, 0, 0, 1, 0, 0)
    assert (vocabulary.samples, vocabulary.labelled) == (5, 4)
    flat = build.from_hierarchy(*records, tree, ancestors=False)
    assert flat.counts == (0, 1, 3, 0, 0, 1, 0, 0)


def test_row_02_the_three_vocabularies_of_the_paper(real):
    """1.5k, 8.5k and 17k, through the whole pipeline on data in which every noun occurs: the 1,000 synsets
    build the golden classes, and all nouns but 'entity' and numbers 77,216."""
    synsets, _ = real
    tags, records = data([[tag] for tag in canonical.sense_sets(synsets)])
    chosen = (GOLDEN / "ilsvrc2012_wnids.txt").read_text().split()
    flat = build.from_wordnet(tags, records, Choice(select=chosen, ancestors=False))
    assert len(flat.classes) == 1284
    assert len(flat.tags) == flat.labelled == sum(flat.counts) == 1804
    assert not any(flat.parents)
    assert len(build.from_wordnet(tags, records, Choice(ancestors=False)).classes) == 77_216
    most = build.from_wordnet(tags, records, Choice(top=8500, ancestors=False))
    assert len(most.classes) == 8500
    assert min(most.counts) == 2  # a class of two words occurs twice here


@pytest.mark.skipif(not SAMPLE.exists(), reason="the 500 pictures of shared/data are not here")
def test_the_500_pictures(real):
    lines = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    chosen = set((GOLDEN / "ilsvrc2012_wnids.txt").read_text().split())
    assert {line["wnid"] for line in lines} <= chosen
    tags, records = data([[*line["tags"], line["wnid"]] for line in lines])
    vocabulary = build.from_wordnet(tags, records)
    assert vocabulary.about["use"] == "wnids"
    assert vocabulary.samples == vocabulary.labelled == 500
    tench = find(vocabulary, "n01440764")
    assert vocabulary.classes[tench] == "tench"
    assert {"fish", "vertebrate", "animal", "physical_entity"} <= set(held(vocabulary, tench))
    assert "entity" not in vocabulary.classes
    assert all(p < c for c, parents in enumerate(vocabulary.parents) for p in parents)
    for c, senses in enumerate(vocabulary.senses):  # every word of a picture is a word of its synset
        assert vocabulary.tags[senses[0]] == c
