"""Words to senses to classes, on a small WordNet and on the real one where it is installed; and the file."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import GOLDEN, PHOTOGRAPHS

from hpcscale.labels import build, canonical, hierarchy, wordnet
from hpcscale.labels.build import Choice
from hpcscale.labels.statistics import describe, summary
from hpcscale.labels.vocabulary import (
    Vocabulary,
    VocabularyError,
    dump,
    find,
    load,
    normalise,
    save,
    tag_classes,
)

SAMPLE = PHOTOGRAPHS / "imagenet-sample/manifest.jsonl"

# number: lemmas, hypernyms (@, or @i as a second list)
SYNSETS = {
    1: ("entity",),
    5: ("polar_bear", 11),  # stands before its parent in the file
    10: ("animal beast", 1),
    11: ("bear", 10),
    12: ("brown_bear bruin Ursus_arctos", 11),
    13: ("crane", 10),
    14: ("wader", 10),
    20: ("device", 1),
    21: ("crane", 20),
    22: ("lifting_device", 20),
    23: ("tower_crane Tower-Crane", 21, 22),  # two parents
    24: ("bear", 20),  # an ambiguous word
    30: ("Paddington paddington_bear", 12),
    31: ("beast", 1),
}
INSTANCES = {30}


def wnid(number):
    return f"n{number:08d}"


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


def data(records):
    """Tag table and walk of records given as lists of tags; in two chunks."""
    tags = list(dict.fromkeys(tag for record in records for tag in record))
    numbers = {tag: t for t, tag in enumerate(tags)}
    ids = [[numbers[tag] for tag in record] for record in records]
    return tags, lambda: iter([hierarchy.csr(ids[:2]), hierarchy.csr(ids[2:])])


def held(vocabulary, c):
    return [vocabulary.classes[a] for a in vocabulary.hierarchy().ancestors(c)]


# normalise


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("#BrownBear", "brownbear"),
        ("brown_bear", "brownbear"),
        (" Brown-Bear's ", "brownbears"),
        ("ﬁsh", "fish"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("café", "café"),
        ("cafe\u0301", "café"),
        ("किताब", "किताब"),  # its vowels are marks
        ("№1", "no1"),
        ("\N{SQUARED LATIN CAPITAL LETTER A}", "a"),
        ("🐻#!", ""),
        ("", ""),
    ],
)
def test_normalise(tag, expected):
    assert normalise(tag) == expected


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=12))
def test_normalise_twice_changes_nothing(tag):
    once = normalise(tag)
    assert normalise(once) == once
    assert normalise("#" + tag) == once


# WordNet


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


# merging


def test_sense_sets(folder):
    senses = canonical.sense_sets(wordnet.read(folder))
    assert senses["brownbear"] == senses["bruin"] == senses["ursusarctos"] == (wnid(12),)
    assert senses["crane"] == (wnid(13), wnid(21))
    assert senses["towercrane"] == (wnid(23),)


def test_the_canonical_form_is_the_most_frequent_tag():
    tags = ["ursusarctos", "bruin", "brownbear", "bear"]
    ordered = canonical.canonical_order(tags, {"bruin": 5, "brownbear": 2, "ursusarctos": 2})
    assert ordered == ["bruin", "brownbear", "ursusarctos", "bear"]


@pytest.fixture(scope="module")
def real():
    """Sense sets and sense order of WordNet 3.0."""
    if not (wordnet.FOLDER / "data.noun").exists():
        pytest.skip("Debian's wordnet-base is not installed")
    return wordnet.read(), wordnet.read_sense_order()


def merged(tags, senses, order, merge):
    first = canonical.first_senses(order)
    return {canonical.concept(tag, senses[tag], merge, first) for tag in tags}


def test_golden_counts_of_wordnet(real):
    synsets, order = real
    senses = canonical.sense_sets(synsets)
    assert len(synsets) == 82_115
    assert len(order) == len({lemma.lower() for each in synsets.values() for lemma in each.lemmas}) == 117_798
    assert len(senses) == 116_654
    assert len(merged(senses, senses, order, "identical")) == 77_225
    assert senses["brownbear"] == senses["ursusarctos"]
    assert set(senses["brownbear"]) < set(senses["bruin"])  # which has a second sense, as a name for any bear


def test_golden_counts_of_the_ilsvrc_synsets(real):
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


def test_the_selection_of_the_ilsvrc_synsets_builds_the_golden_classes(real):
    """The same through the whole pipeline, on data in which every noun occurs."""
    synsets, _ = real
    tags, records = data([[tag] for tag in canonical.sense_sets(synsets)])
    chosen = (GOLDEN / "ilsvrc2012_wnids.txt").read_text().split()
    flat = build.from_wordnet(tags, records, Choice(select=chosen, ancestors=False))
    assert len(flat.classes) == 1284
    assert len(flat.tags) == flat.labelled == sum(flat.counts) == 1804
    assert not any(flat.parents)


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


# building


WNIDS = [[wnid(12), "bruin"], [wnid(13)], [wnid(12), "nonsense"], [wnid(23)]]


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


WORDS = [["#Bruin", "crane"], ["Brown Bear", "bear"], ["ursus arctos", "bruin"], ["nonsense"], []]


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
    parents = build._with_hypernyms
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
def test_merge(folder, merge, expected):
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


# rewriting


def test_rewrite(folder):
    tags, records = data(WORDS)
    vocabulary = build.from_wordnet(tags, records, Choice(ancestors=False), folder=folder)
    numbers = {tag: t for t, tag in enumerate(tags)}
    ids = [[numbers[tag] for tag in record] for record in WORDS]
    kept, offsets, classes = canonical.rewrite(vocabulary, tags, *hierarchy.csr(ids))
    assert kept.tolist() == [0, 1, 2]
    names = [{vocabulary.classes[c] for c in classes[a:b]} for a, b in pairwise(offsets)]
    assert names == [{"brown_bear", "crane"}, {"brown_bear", "bear"}, {"brown_bear"}]
    # Once more, from the classes' canonical forms: nothing changes.
    forms = [
        next(tag for tag, c in vocabulary.tags.items() if c == k) for k in range(len(vocabulary.classes))
    ]
    again = canonical.rewrite(vocabulary, forms, offsets, classes)
    assert again[0].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(again[1], offsets)
    np.testing.assert_array_equal(again[2], classes)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*"xyz", "bruin", "brownbear", "crane", "bear", "beast"]), max_size=4))
)
def test_no_record_without_class_is_left_and_order_does_not_matter(folder, records):
    tags, walk = data([["bruin", "crane", "bear", "beast"], *records])
    vocabulary = build.from_wordnet(tags, walk, folder=folder)
    numbers = {tag: t for t, tag in enumerate(tags)}
    ids = [[numbers[tag] for tag in record] for record in records]
    kept, offsets, classes = canonical.rewrite(vocabulary, tags, *hierarchy.csr(ids))
    assert (np.diff(offsets) >= 1).all()
    assert kept.tolist() == [i for i, record in enumerate(records) if set(record) - set("xyz")]
    turned = canonical.rewrite(vocabulary, tags, *hierarchy.csr([each[::-1] for each in ids]))
    for one, other in zip((kept, offsets, classes), turned, strict=True):
        np.testing.assert_array_equal(one, other)


# the file


ANIMALS = Vocabulary(
    classes=("animal", "dog", "Käfer"),
    parents=((), (0,), (0,)),
    senses=(("n00000001",), ("n00000002", "n00000003"), ()),
    tags={"hund": 1, "dog": 1, "käfer": 2},
    counts=(3, 1, 2),
    samples=4,
    labelled=3,
    about={"use": "tags"},
)


def test_the_file_gives_the_same_vocabulary_back(tmp_path):
    save(ANIMALS, tmp_path / "new" / "v.json")
    again = load(tmp_path / "new" / "v.json")
    assert again == ANIMALS
    assert dump(again) == dump(ANIMALS)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["v.json"]


def test_a_finished_file_is_not_replaced_unless_forced(tmp_path):
    file = tmp_path / "v.json"
    save(ANIMALS, file)
    save(ANIMALS, file)
    other = ANIMALS._replace(samples=5)
    with pytest.raises(VocabularyError, match="--force"):
        save(other, file)
    assert load(file) == ANIMALS
    save(other, file, force=True)
    assert load(file) == other
    assert [each.name for each in tmp_path.iterdir()] == ["v.json"]


def test_what_does_not_read_back_is_not_kept(tmp_path):
    with pytest.raises(VocabularyError, match="class 1 has the name 'animal'"):
        save(ANIMALS._replace(classes=("animal", "animal", "Käfer")), tmp_path / "v.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vocabulary 1", "vocabulary 2", "this version reads 'hpcscale vocabulary 1'"),
        ('"count": 1', '"count": -1', r"classes\.1\.count: .*found '-1'"),
        ('"count": 1', '"count": "1"', r"classes\.1\.count"),
        ('"count": 1, ', "", r"classes\.1\.count"),
        ('"name": "dog"', '"name": "animal"', "class 1 has the name 'animal' of class 0"),
        (
            '"parents": ["animal"], "senses": ["n00000002"',
            '"parents": ["x"], "senses": ["n2"',
            "unknown parent 'x'",
        ),
        ('"parents": []', '"parents": ["dog"]', "'animal' -> 'dog' -> 'animal'"),
        ('["käfer"]', '["hund"]', "tag 'hund' selects both 'dog' and 'Käfer'"),
        ('"samples"', '"sample"', "sample"),
        ('"count": 1', '"count": true', r"classes\.1\.count"),
        ('"count": 1', '"count": NaN', r"classes\.1\.count"),
        ('"count": 1', f'"count": {"9" * 400}', r"classes\.1\.count"),
        ('"count": 1', '"count": 6', "more samples have a class than the 4 there are"),
        ('"labelled": 3', '"labelled": 5', "more samples have a class than the 4 there are"),
        ('["käfer"]', '[""]', r"classes\.2\.tags\.0"),
        ('"name": "dog"', '"name": ""', r"classes\.1\.name"),
        ('"name": "dog"', '"name": "\\ud800"', "Invalid JSON"),
        ('"name": "dog"', '"name": ' + "[" * 100_000, "recursion"),
        ("]}", "]", "the file: Invalid JSON"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, old, new, message):
    text = dump(ANIMALS)
    assert old in text
    file = tmp_path / "v.json"
    file.write_text(text.replace(old, new, 1) if old != "]}" else text[: text.rindex(old)])
    with pytest.raises(VocabularyError, match=message) as error:
        load(file)
    assert str(file) in str(error.value)


def test_find():
    assert find(ANIMALS, "Käfer") == 2
    assert find(ANIMALS, "#Hund") == 1
    assert find(ANIMALS, "n00000001") == 0
    assert find(ANIMALS, "cat") is None


# statistics


def test_summary_and_description(folder):
    vocabulary = build.from_wordnet(*data(WNIDS), folder=folder)
    found = summary(vocabulary)
    assert (found["classes"], found["roots"], found["depth"], found["fan_out"]) == (8, 2, 2, 2)
    assert found["labels_per_sample"] == (3 + 2 + 3 + 4) / 4
    tower = describe(vocabulary, find(vocabulary, wnid(23)))
    assert Counter(tower["parents"]) == Counter([f"crane ({wnid(21)})", "lifting_device"])
    assert tower["ancestors"][0]["name"] == "device"
    device = describe(vocabulary, find(vocabulary, wnid(20)))
    assert {child["name"] for child in device["children"]} == set(tower["parents"])
