"""Label-space engineering: classes for a target task over a small WordNet, and over real photographs."""

import json
import math

import numpy as np
import pytest
from places import PHOTOGRAPHS
from small_wordnet import SYNSETS, data, wnid

from hpcscale.files import FileError, Usage
from hpcscale.labels import canonical, engineer, relations, wordnet
from hpcscale.labels.build import Choice
from hpcscale.labels.engineer import CUT, GENERAL, NONE, OTHER, Wish
from hpcscale.labels.vocabulary import Finished, VocabularyError, load, normalise

SAMPLE = PHOTOGRAPHS / "imagenet-sample/manifest.jsonl"
FLAT = Choice(ancestors=False)
BEARS = [["#Bruin"], ["bear"], ["paddington", "polar bear"], ["bruin", "bear"], ["animal"], ["wader"], []]


def chosen(records, *targets, folder, choice=FLAT, **wish):
    wish = Wish([wnid(t) for t in targets], **wish or {"budget": 100})
    return engineer.engineer(*data(records), wish, choice, folder=folder)


def ranked(found):
    return [line.name.partition(" ")[0] for line in found.lines if line.rank]


def left_out(found):
    return {(line.name.partition(" ")[0], line.left_out) for line in found.lines if line.left_out}


def ancestors(sense, synsets):
    above = synsets[sense].hypernyms
    return set(above).union(*(ancestors(each, synsets) for each in above))


def related(sense, wanted, synsets):
    """Whether a sense is one of those wanted, above one or below one."""
    at_or_above = wanted.union(*(ancestors(each, synsets) for each in wanted))
    return sense in at_or_above or bool(ancestors(sense, synsets) & wanted)


def test_bits_distance_and_similarity(folder):
    """Of 14 synsets, four are bears (with the polar one and Paddington) and two are brown bears."""
    found = relations.Relations(wordnet.read(folder), [wnid(12)])
    assert found.bits[wnid(1)] == 0
    assert found.bits[wnid(30)] == pytest.approx(math.log2(14))
    bear, brown = math.log2(14 / 4), math.log2(14 / 2)
    assert [tuple(tie) for tie in found.ties(wnid(11))] == [
        (relations.ABOVE, 1, pytest.approx(1 - 2 * bear / (bear + brown)), 0, pytest.approx(bear))
    ]
    (below,) = found.ties(wnid(30))
    assert below[:3] == (relations.BELOW, 1, pytest.approx(1 - 2 * brown / (brown + math.log2(14))))
    assert [str(tie) for tie in found.ties(wnid(12)) + found.ties(wnid(10))] == ["exact", "above by 2"]
    assert found.ties(wnid(5)) == found.ties(wnid(13)) == []
    both_ways = relations.Relations(wordnet.read(folder), [wnid(20), wnid(23)])
    assert [(tie.relation, tie.target) for tie in both_ways.ties(wnid(21))] == [
        (relations.BELOW, 0),
        (relations.ABOVE, 1),
    ]


def test_exact_then_below_then_above_and_why(folder):
    found = chosen(BEARS, 12, folder=folder)
    assert ranked(found) == ["brown_bear", "Paddington", "bear"]
    assert left_out(found) == {("animal", GENERAL)}
    brown, paddington, bear, animal = found.lines
    assert (brown.relation, brown.senses, brown.tags, brown.pictures, brown.new) == (
        "exact", "1 of 1", ("bruin",), 2, 2,
    )  # fmt: skip
    assert (paddington.relation, paddington.serves, paddington.new) == ("below by 1", ("brown_bear",), 1)
    assert (bear.relation, bear.senses, bear.pictures, bear.new) == ("above by 1", "1 of 2", 2, 1)
    assert (animal.relation, animal.rank, animal.pictures, animal.new) == ("above by 2", 0, 1, 0)
    # similarity * share * log2(1 + pictures); the animal is the first sense of 'bear'
    bits = math.log2(14 / 4), math.log2(14 / 2)
    assert bear.score == pytest.approx(2 * bits[0] / sum(bits) * (1 / 1.5) * math.log2(3))
    assert bear.bits == pytest.approx(bits[0])
    assert found.vocabulary.labelled == brown.new + paddington.new + bear.new == 4
    assert found.vocabulary.about["target"] == "1 classes, at most 100 classes, up 2"
    assert not any(found.vocabulary.parents)


def test_a_word_of_several_senses(folder):
    # The machine is the first sense of 'crane', the animal that of 'bear'.
    records = [*[["crane"]] * 9, ["bear"], ["tower crane"], ["wader"]]
    bird = chosen(records, 13, 14, folder=folder)
    assert [(line.name, line.senses, line.share) for line in bird.lines if line.rank] == [
        ("wader", "1 of 1", 1.0),  # a lower score, but surely
        ("crane", "1 of 2", pytest.approx(1 / 3)),
    ]
    assert bird.lines[0].score == 1.0 < bird.lines[1].score
    machine = chosen(records, 21, folder=folder)
    assert [(line.relation, line.share) for line in machine.lines] == [
        ("exact", pytest.approx(2 / 3)),
        ("below by 1", 1.0),
    ]
    both = chosen(records, 13, 21, folder=folder)
    assert (both.lines[0].senses, both.lines[0].serves) == (
        "2 of 2",
        (f"crane ({wnid(13)})", f"crane ({wnid(21)})"),
    )
    animal = chosen(records, 10, folder=folder)
    assert ranked(animal) == [
        "bear",
        "wader",
    ]  # a bear is nearer to an animal in bits, which pays for the share
    assert left_out(animal) == {("crane", OTHER), ("animal", NONE)}
    device = chosen(records, 20, folder=folder)
    assert ranked(device) == ["crane", "tower_crane"]
    assert left_out(device) == {("bear", OTHER), ("device", NONE)}


def test_the_limits(folder):
    assert ranked(chosen(BEARS, 12, folder=folder, budget=2)) == ["brown_bear", "Paddington"]
    cut = chosen(BEARS, 12, folder=folder, budget=1)
    assert left_out(cut) == {("Paddington", CUT), ("bear", CUT), ("animal", GENERAL)}
    assert len(cut.vocabulary.classes) == 1
    for enough, expected in ((1, 1), (2, 1), (3, 2), (4, 3), (5, 3)):
        found = chosen(BEARS, 12, folder=folder, enough=enough)
        assert len(ranked(found)) == len(found.vocabulary.classes) == expected
        assert found.vocabulary.labelled == sum(line.new for line in found.lines if line.rank)
    assert ranked(chosen(BEARS, 12, folder=folder, budget=100, up=0)) == ["brown_bear", "Paddington"]
    assert engineer.summary(cut, Wish([wnid(12)], 1)) == {
        "targets": 1, "classes": 1, "exact": 1, "below": 0, "above": 0, "pictures": 2, "samples": 7,
        "left_out": {CUT: 2, GENERAL: 1}, "exact_left_out": 0, "unserved": [],
    }  # fmt: skip


def test_with_ancestors_no_tag_selects_a_class_that_was_not_chosen(folder):
    found = chosen([*BEARS, [wnid(10)]], 12, folder=folder, choice=Choice(), budget=2)
    classes = found.vocabulary.classes
    assert set(classes) == {"animal", "bear", "brown_bear", "Paddington"}
    counts = dict(zip(classes, found.vocabulary.counts, strict=True))
    assert counts == {"animal": 3, "bear": 3, "brown_bear": 3, "Paddington": 1}
    assert {classes[c] for c in found.vocabulary.tags.values()} == {"brown_bear", "Paddington"}


@pytest.mark.parametrize("seed", range(20))
def test_every_exact_sense_is_in_and_nothing_unrelated(folder, seed):
    """Random pictures and targets, against the relations found slowly, sense by sense."""
    synsets = wordnet.read(folder)
    words = canonical.sense_sets(synsets)
    random = np.random.default_rng(seed)
    names = [*words, *synsets, "gibberish"]
    records = [[str(w) for w in random.choice(names, random.integers(0, 4))] for _ in range(30)]
    targets = random.choice([n for n in SYNSETS if n != 1], 3, replace=False)
    found = chosen(records, *targets, folder=folder, choice=Choice(use="both", ancestors=False))
    wanted = {wnid(t) for t in targets}
    senses = {tag: words.get(tag, (tag,)) for record in records for tag in record if tag != "gibberish"}
    in_it = {tag for tag in found.vocabulary.tags if tag in senses}
    assert {tag for tag, some in senses.items() if wanted & set(some)} <= in_it
    assert all(any(related(sense, wanted, synsets) for sense in senses[tag]) for tag in in_it)

    chosen_lines = [line for line in found.lines if line.rank]
    assert [line.rank for line in chosen_lines] == list(range(1, len(chosen_lines) + 1))
    seen = set()
    for line in chosen_lines:
        having = {r for r, record in enumerate(records) if set(record) & set(line.tags)}
        assert (line.pictures, line.new) == (len(having), len(having - seen))
        seen |= having
    assert found.vocabulary.labelled == len(seen)
    again = chosen(records[::-1], *targets, folder=folder, choice=Choice(use="both", ancestors=False))
    assert again.lines == found.lines
    assert again.vocabulary == found.vocabulary


def test_nothing_to_choose(folder):
    for records in ([["crane"], ["nonsense"]], [[]], []):
        with pytest.raises(VocabularyError, match="serves one of the 1 targets"):
            chosen(records, 12, folder=folder)


def test_targets_are_wnids_or_names(folder, tmp_path):
    synsets = wordnet.read(folder)
    file = tmp_path / "target.txt"
    file.write_text(f"\ufeff{wnid(12)} the brown one\n\n#PolarBear\n{wnid(13)}\r\nbruin\n")
    assert relations.read_targets(file, synsets) == [wnid(12), wnid(5), wnid(13)]
    for text, error, message in (
        (
            "waders\nbruins\nn99999999\n",
            Usage,
            r"3 .*line 1, 'waders' \(did you mean 'wader'\?\); line 2, 'bruins'; line 3",
        ),
        ("bruin\ncrane\n", Usage, rf"line 2, 'crane': {wnid(13)} \(a kind of animal\), {wnid(21)} .* device"),
        ("\n", FileError, "no target class found"),
    ):
        file.write_text(text)
        with pytest.raises(error, match=rf"target.txt: .*{message}"):
            relations.read_targets(file, synsets)


def test_the_vocabulary_and_its_table_are_replaced_together(folder, tmp_path):
    out, table = tmp_path / "v.json", tmp_path / "v.tsv"
    found = chosen(BEARS, 12, folder=folder, budget=2)
    engineer.write(found, out, table)
    assert load(out) == found.vocabulary
    rows = [row.split("\t") for row in table.read_text().splitlines()]
    assert tuple(rows[0]) == engineer.Line._fields
    assert rows[1] == [
        "1", "brown_bear", "exact", "brown_bear", "1 of 1", "1.00", "2", "2", "2.8", "1.585", "", "bruin",
    ]  # fmt: skip
    assert [(row[0], row[10]) for row in rows[2:]] == [("2", ""), ("-", CUT), ("-", GENERAL)]
    engineer.write(found, out, table)
    before = out.read_bytes()
    other = chosen(BEARS, 12, folder=folder, budget=1)
    table.write_text("other")
    with pytest.raises(Finished, match=r"v.tsv exists and differs"):
        engineer.write(other, out, table)
    assert (out.read_bytes(), table.read_text()) == (before, "other")
    engineer.write(other, out, table, force=True)
    assert load(out) == other.vocabulary


def test_a_table_lists_the_first_that_were_left_out(folder, monkeypatch):
    monkeypatch.setattr(engineer, "SHOWN", 1)
    monkeypatch.setattr(engineer, "SERVED", 1)
    found = chosen([*BEARS, ["device"]], 12, 5, 13, folder=folder, budget=2)
    rows = [row.split("\t") for row in engineer.tsv(found.lines).splitlines()[1:]]
    assert sum(line.left_out == CUT for line in found.lines) == 2
    assert [row[10] for row in rows] == ["", "", CUT, GENERAL, NONE]
    assert rows[3][3] == "crane and 2 more"


@pytest.mark.skipif(not SAMPLE.exists(), reason="the 500 pictures of shared/data are not here")
@pytest.mark.parametrize("use", ["wnids", "tags"])
def test_twenty_classes_of_the_500_pictures(real, use):
    """Every word of a target is in, and nothing unrelated."""
    synsets, _ = real
    lines = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    tags, records = data([[*line["tags"], line["wnid"]] for line in lines])
    targets = sorted({line["wnid"] for line in lines})[::24][:20]
    found = engineer.engineer(tags, records, Wish(targets, 1000), Choice(use=use, ancestors=False))
    words = {normalise(lemma) for target in targets for lemma in synsets[target].lemmas}
    occurring = {normalise(tag) for line in lines for tag in line["tags"]}
    in_it = [line for line in found.lines if line.rank]
    exact = {tag for line in in_it for tag in line.tags if line.relation == "exact"}
    assert exact == (set(targets) if use == "wnids" else words & occurring)
    senses = found.vocabulary.senses
    assert all(any(related(sense, set(targets), synsets) for sense in some) for some in senses)
    assert found.vocabulary.labelled == sum(line.new for line in in_it) >= 20
