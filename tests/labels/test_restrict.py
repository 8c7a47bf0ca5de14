"""Labels restricted to a list of classes, the files of such lists, and lists by frequency."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcscale.labels.restrict import (
    Missing,
    listing,
    look_up,
    most_frequent,
    read_classes,
    restricted,
)
from hpcscale.labels.targets import Targets
from hpcscale.labels.vocabulary import Vocabulary, VocabularyError, dump, load

ANIMALS = Vocabulary(
    classes=("entity", "animal", "pet", "dog", "terrier", "crane"),
    parents=((), (0,), (0,), (1, 2), (3,), (1,)),
    senses=((), ("n00000001",), (), ("n00000003",), ("n00000004",), ("n00000005", "n00000006")),
    tags={"animal": 1, "pet": 2, "dog": 3, "hund": 3, "terrier": 4, "crane": 5},
    counts=(90, 80, 30, 20, 10, 5),
    samples=100,
    labelled=90,
    about={"use": "tags"},
)


@st.composite
def vocabularies(draw):
    """Up to eight classes, whose parents come before them; every class has one tag."""
    size = draw(st.integers(1, 8))
    parents = [
        tuple(sorted(draw(st.sets(st.integers(0, c - 1), max_size=3)))) if c else () for c in range(size)
    ]
    return Vocabulary(
        classes=tuple(f"c{c}" for c in range(size)),
        parents=tuple(tuple(sorted(each)) for each in parents),
        senses=((),) * size,
        tags={f"t{c}": c for c in range(size)},
        counts=tuple(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))),
        samples=30,
        labelled=30,
        about={},
    )


def above(vocabulary):
    """For each class the names of all classes above it, by walking up: slow, and independent of the C++."""

    def walk(c):
        return {vocabulary.classes[p] for p in vocabulary.parents[c]}.union(*map(walk, vocabulary.parents[c]))

    return {name: walk(c) for c, name in enumerate(vocabulary.classes)}


def test_row_07_labels_are_restricted_to_the_listed_classes():
    part = restricted(ANIMALS, [5, 3, 0, 3])
    assert part.classes == ("entity", "dog", "crane")
    assert part.parents == ((), (0,), (0,))
    assert part.senses == ((), ("n00000003",), ("n00000005", "n00000006"))
    assert part.tags == {"dog": 1, "hund": 1, "crane": 2, "terrier": 1, "animal": 0, "pet": 0}
    assert (part.counts, part.samples, part.labelled) == ((90, 20, 5), 100, 90)
    assert part.about == {"use": "tags", "classes": "3 of 6"}
    assert restricted(ANIMALS, [3, 5]).labelled == 25
    tags = ("terrier", "Hund", "crane", "stone")
    offsets, classes = Targets(part, tags, "logistic", 4).labels(
        np.array([0, 1, 3, 4, 4], np.int64), np.array([0, 0, 1, 2], np.int32)
    )
    assert (offsets.tolist(), classes.tolist()) == ([0, 2, 4, 6, 6], [0, 1, 0, 1, 0, 2])


@given(st.data())
def test_row_07_among_the_kept_classes_the_same_ancestors_hold(data):
    vocabulary = data.draw(vocabularies())
    kept = data.draw(st.sets(st.sampled_from(range(len(vocabulary.classes))), min_size=1))
    part = restricted(vocabulary, kept)
    names = set(part.classes)
    assert names == {vocabulary.classes[c] for c in kept}
    assert above(part) == {name: up & names for name, up in above(vocabulary).items() if name in names}
    for c, parents in enumerate(part.parents):  # no parent is above another one
        ups = [above(part)[part.classes[p]] for p in parents]
        assert not {part.classes[p] for p in parents} & set(itertools.chain(*ups)), c


@given(st.data())
def test_row_07_a_picture_keeps_those_of_its_labels_that_are_listed(data):
    vocabulary = data.draw(vocabularies())
    kept = data.draw(st.sets(st.sampled_from(range(len(vocabulary.classes))), min_size=1))
    part = restricted(vocabulary, kept)
    whole, rest = above(vocabulary), above(part)
    for tag, c in vocabulary.tags.items():
        before = {vocabulary.classes[c], *whole[vocabulary.classes[c]]} & set(part.classes)
        after = set()
        if tag in part.tags:
            name = part.classes[part.tags[tag]]
            after = {name, *rest[name]}
        lowest = before - set().union(*(whole[name] for name in before))
        assert after == before if len(lowest) < 2 else after < before
        assert bool(after) == bool(before)


def test_row_07_of_several_nearest_classes_above_the_rarest_is_selected():
    part = restricted(ANIMALS, [1, 2])
    assert part.tags == {"animal": 0, "pet": 1, "dog": 1, "hund": 1, "terrier": 1, "crane": 0}


def test_row_07_a_longer_list_of_the_most_frequent_contains_every_shorter_one():
    flat = ANIMALS._replace(parents=((),) * 6, counts=(7, 7, 9, 7, 8, 1))
    assert most_frequent(flat, [5], 0) == (5,)
    assert most_frequent(flat, [5], 1) == (2, 5)
    assert most_frequent(flat, [5], 3) == (1, 2, 4, 5)
    lists = [set(most_frequent(flat, [5], most)) for most in range(7)]
    assert [flat.classes[c] for most in range(1, 6) for c in lists[most] - lists[most - 1]] == [
        "pet", "terrier", "animal", "dog", "entity",
    ]  # fmt: skip
    assert lists[5] == lists[6] == set(range(6))


def test_restricted_needs_classes_that_there_are():
    with pytest.raises(VocabularyError, match="no class is left"):
        restricted(ANIMALS, [])
    with pytest.raises(IndexError, match=r"classes 2\.\.6 outside"):
        restricted(ANIMALS, [2, 6])


def test_the_file_of_a_restricted_vocabulary_reads_back(tmp_path):
    part = restricted(ANIMALS, [1, 4, 5])
    (tmp_path / "v.json").write_text(dump(part))
    assert load(tmp_path / "v.json") == part


def test_a_class_list_names_classes_tags_and_wnids(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("\ufeff# of a study\n#\n\n  n00000004 \r\n#Hund\nentity\ndog\n")
    assert read_classes(file, ANIMALS) == (0, 3, 4)
    file.write_text("dog\nterier\n# more\nn00000005\nzebra")
    assert look_up(file, ANIMALS) == ((3, 5), [Missing(2, "terier"), Missing(5, "zebra")])
    expected = r"list.txt: 2 of its names .* the first is 'terier' in line 2; did you mean 'terrier'\?"
    with pytest.raises(VocabularyError, match=expected):
        read_classes(file, ANIMALS)


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n", b"\xff"])
def test_a_class_list_without_a_name_is_refused(tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(VocabularyError, match=r"list.txt: (names no class|cannot be read)"):
        read_classes(tmp_path / "list.txt", ANIMALS)


def test_a_list_reads_back(tmp_path):
    (tmp_path / "list.txt").write_text(listing(ANIMALS, [4, 1]))
    assert (tmp_path / "list.txt").read_text() == "# hpcscale classes 1\nanimal\nterrier\n"
    assert read_classes(tmp_path / "list.txt", ANIMALS) == (1, 4)
    for name in ("# a", "#", " a", "a\nb", "a\r"):
        with pytest.raises(VocabularyError, match="cannot stand in a list"):
            listing(ANIMALS._replace(classes=(name, *ANIMALS.classes[1:])), [0])
