"""The vocabulary: one spelling of a tag, the file, finding a class, and what is told of one."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_wordnet import WNIDS, data, wnid

from hpcscale.labels import build
from hpcscale.labels.statistics import describe, summary
from hpcscale.labels.vocabulary import Vocabulary, VocabularyError, dump, find, load, normalise, save


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
def test_row_02_normalise(tag, expected):
    assert normalise(tag) == expected


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=12))
def test_normalise_twice_changes_nothing(tag):
    once = normalise(tag)
    assert normalise(once) == once
    assert normalise("#" + tag) == once


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
