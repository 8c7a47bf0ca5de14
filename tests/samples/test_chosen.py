"""samples/chosen.py: what a run trains on and holds out, and that shards, parts and files do not matter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import labelled
import numpy as np
import pytest
from labelled import settings

from hpcscale.config import Config, ConfigError
from hpcscale.data.order import HOLD, SELECT, Whole, identities, keyed
from hpcscale.data.store import DataError, DataSet
from hpcscale.files import OutputError
from hpcscale.labels.vocabulary import VocabularyError
from hpcscale.samples import chosen as choosing
from hpcscale.samples import make
from hpcscale.samples.chosen import Chosen, choose, open_vocabulary
from hpcscale.samples.lists import Ids
from hpcscale.samples.make import make_index


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return labelled.make_set(tmp_path_factory.mktemp("labelled"))


def chosen(data: DataSet, **keys: Any) -> Chosen:
    config = settings(data, **keys)
    return choose(config, data, open_vocabulary(config))


def ids(found: Ids) -> set[int]:
    return set(found.take(np.arange(found.length, dtype=np.int64)).tolist())


def names(data: DataSet, found: Ids) -> list[str]:
    return sorted(data.names(found.take(np.arange(found.length, dtype=np.int64))))


def epoch(found: Chosen) -> list[int]:
    return sorted(found.order.samples_at(np.arange(found.order.length, dtype=np.int64))[0].tolist())


LABELLED = {number for number in range(labelled.COUNT) if labelled.tags_of(number) != ["nothing"]}


def test_row_04_pictures_without_a_class_are_not_trained_on(data: DataSet) -> None:
    found = chosen(data)
    assert epoch(found) == sorted(LABELLED)
    told = {"samples": labelled.COUNT, "unlabelled": labelled.COUNT - len(LABELLED), "dropped": 0}
    assert found.counts() == told | {"trained_on": len(LABELLED), "held_out": 0}
    assert epoch(chosen(data, data__unlabelled="keep")) == list(range(labelled.COUNT))


def test_row_04_held_out_parts_follow_the_same_rule(data: DataSet) -> None:
    whole = set(Whole(data.samples, 0, 0.2, 5).held_out_samples().tolist())
    found = chosen(data, data__held_out=0.2, data__split_seed=5)
    assert ids(found.held_out) == whole & LABELLED
    assert epoch(found) == sorted(LABELLED - whole)


def test_what_leaves_nothing_out_is_the_order_that_it_always_was(data: DataSet) -> None:
    found = chosen(data, data__unlabelled="keep", data__held_out=0.2)
    assert found.order == Whole(data.samples, 0, 0.2)
    assert found.digest == choosing.NOTHING
    assert ids(found.held_out) == set(Whole(data.samples, 0, 0.2).held_out_samples().tolist())


@pytest.mark.parametrize("bits", [1, 16])
def test_row_06_subsets_have_their_size_and_lie_within_one_another(
    data: DataSet, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcscale.samples.limits.BITS", bits)
    found = {
        size: ids(chosen(data, selection__size=size).samples) for size in (1, 10, 40, 120, len(LABELLED))
    }
    assert {size: len(each) for size, each in found.items()} == {size: size for size in found}
    assert found[1] < found[10] < found[40] < found[120] < found[len(LABELLED)] == LABELLED
    hashes = keyed(identities(data.source_digests(np.arange(data.samples))), SELECT)
    expected = sorted(LABELLED, key=lambda sample: int(hashes[sample]))[:40]
    assert found[40] == set(expected)


def test_row_06_another_seed_is_an_independent_draw(data: DataSet) -> None:
    one, other = (ids(chosen(data, selection__size=100, selection__seed=seed).samples) for seed in (0, 1))
    assert 30 < len(one & other) < 65  # 46 expected of 216


def test_row_06_shards_do_not_matter(data: DataSet) -> None:
    other = labelled.make_set(data.folder.parent, 13)
    keys = {"selection__size": 70, "data__held_out_per_class": 2}
    one, two = (chosen(each, **keys) for each in (data, other))
    assert names(data, one.samples) == names(other, two.samples)
    assert names(data, one.held_out) == names(other, two.held_out)


def test_row_06_copies_of_a_picture_come_together_and_the_rest_is_the_complement(data: DataSet) -> None:
    found = ids(chosen(data, selection__share=0.25).samples)
    rest = ids(chosen(data, selection__share=0.25, selection__complement=True).samples)
    assert len(found) == round(0.25 * len(LABELLED))
    assert found.isdisjoint(rest)
    assert found | rest == LABELLED


def test_row_06_a_subset_is_drawn_from_what_is_not_held_out(data: DataSet) -> None:
    """So that runs on subsets of all sizes are judged alike."""
    every = chosen(data, data__held_out=0.2)
    for size in (10, 100):
        found = chosen(data, data__held_out=0.2, selection__size=size)
        assert ids(found.held_out) == ids(every.held_out)
        assert ids(found.samples) < ids(every.samples)
        assert found.order.length == size


def test_a_list_of_names_is_a_selection(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("000.png\n002.png\n009.png\n")
    assert ids(chosen(data, selection__names=str(tmp_path / "names.txt")).samples) == {0, 2}
    rest = chosen(data, selection__names=str(tmp_path / "names.txt"), selection__complement=True)
    assert ids(rest.samples) == LABELLED - {0, 2}
    both = {"selection__names": str(tmp_path / "names.txt"), "selection__size": 1}
    assert ids(chosen(data, **both).samples) < {0, 2}
    (tmp_path / "names.txt").write_text("000.png\nx.png\n")
    with pytest.raises(DataError, match=r"names\.txt: 1 of 2 names are not in .* 'x\.png'"):
        chosen(data, selection__names=str(tmp_path / "names.txt"))


def test_a_drop_list_leaves_samples_out_of_both_parts(data: DataSet, tmp_path: Path) -> None:
    every = chosen(data, data__held_out=0.2)
    gone = {*sorted(ids(every.samples))[:3], *sorted(ids(every.held_out))[:2]}
    (tmp_path / "drop.txt").write_text("".join(f"{number:03}.png\n" for number in gone))
    found = chosen(data, data__held_out=0.2, data__drop=str(tmp_path / "drop.txt"))
    assert ids(found.samples) == ids(every.samples) - gone
    assert ids(found.held_out) == ids(every.held_out) - gone
    assert found.counts()["dropped"] == 5
    (tmp_path / "drop.txt").write_text("".join(f"{number:03}.png\n" for number in range(labelled.COUNT)))
    with pytest.raises(DataError, match=r"no sample is left to train on; .*drop\.txt drops 240"):
        chosen(data, data__drop=str(tmp_path / "drop.txt"))


def test_row_07_a_class_list_restricts_labels_and_samples(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("c6\nc7\n")
    config = settings(data, selection__classes=str(tmp_path / "classes.txt"))
    vocabulary = open_vocabulary(config)
    found = choose(config, data, vocabulary)
    assert vocabulary.classes == ("c6", "c7")
    assert ids(found.samples) == {n for n in LABELLED if {"c6", "c7"} & set(labelled.tags_of(n))}
    (tmp_path / "classes.txt").write_text("c6\nd7\n")
    with pytest.raises(VocabularyError, match="d7"):
        open_vocabulary(config)


def of_class(c: int) -> set[int]:
    return {number for number in LABELLED if f"c{c}" in labelled.tags_of(number)}


def smallest(data: DataSet, c: int, count: int, seed: int) -> set[int]:
    hashes = keyed(identities(data.source_digests(np.arange(data.samples))), seed ^ HOLD)
    return set(sorted(of_class(c), key=lambda sample: int(hashes[sample]))[:count])


@pytest.mark.parametrize(("seed", "share"), [(0, 0.1), (3, 0.1), (0, 0.01)])
def test_row_11_a_stratified_split_holds_out_the_share_of_each_class(
    data: DataSet, seed: int, share: float
) -> None:
    found = chosen(data, data__stratified=True, data__held_out=share, data__split_seed=seed)
    expected = set().union(
        *(smallest(data, c, max(1, round(share * len(of_class(c)))), seed) for c in range(labelled.CLASSES))
    )
    assert ids(found.held_out) == expected
    assert ids(found.samples) == LABELLED - expected
    assert all(expected & of_class(c) for c in range(labelled.CLASSES))


def test_row_11_so_many_of_each_class(data: DataSet) -> None:
    """As 50 a class of IN-5k."""
    found = chosen(data, data__held_out_per_class=3)
    expected = set().union(*(smallest(data, c, 3, 0) for c in range(labelled.CLASSES)))
    assert ids(found.held_out) == expected
    assert ids(found.samples) == LABELLED - expected


def test_row_11_a_class_of_few_gives_what_it_has(data: DataSet) -> None:
    found = chosen(data, data__held_out_per_class=30)
    rare = [c for c in range(labelled.CLASSES) if len(of_class(c)) <= 30]
    assert rare
    assert all(of_class(c) <= ids(found.held_out) for c in rare)


GRID: list[dict[str, Any]] = [
    {"data__held_out": 0.2},
    {"data__held_out": 0.2, "data__unlabelled": "keep"},
    {"data__held_out": 0.1, "data__stratified": True, "selection__size": 60},
    {"selection__share": 0.5, "noise__share": 0.5, "sampling__name": "sqrt"},
    {
        "selection__size": 90,
        "noise__share": 0.25,
        "sampling__name": "uniform",
        "sampling__method": "two-stage",
    },
    {"data__held_out_per_class": 2, "data__block": 16, "data__window": 3},
    {"data__held_out": 0.2, "data__unlabelled": "keep", "data__block": 16, "data__window": 3},
    {"data__unlabelled": "keep", "data__block": 16, "data__window": 3},
]


def sequence(found: Chosen) -> list[list[int]]:
    positions = np.arange(3 * found.order.length, dtype=np.int64)
    return [each.tolist() for each in found.order.samples_at(positions)]


@pytest.mark.parametrize("keys", GRID)
def test_an_index_file_says_what_memory_says(
    data: DataSet, tmp_path: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpcscale.samples.candidates.CHUNK", 7)
    monkeypatch.setattr(make, "CHUNK", 11)
    monkeypatch.setattr(make, "MAX_PARTS", 3)
    config, file = settings(data, **keys), tmp_path / "index.h5"
    for part in [(0, 3), (2, 3), None]:
        make_index(config, file, part)
    assert not file.with_name("index.h5.parts").exists()
    one, other = chosen(data, **keys), chosen(data, **keys, data__index=str(file))
    assert sequence(one) == sequence(other)
    assert ids(one.held_out) == ids(other.held_out)
    assert ids(one.samples) == ids(other.samples)
    assert (one.digest, one.counts()) == (other.digest, other.counts())
    content = file.read_bytes()
    file.unlink()
    make_index(config, file)
    assert file.read_bytes() == content


def test_an_index_holds_labels_after_noise_under_each_class(data: DataSet) -> None:
    keys = {"noise__share": 0.4, "sampling__name": "sqrt"}
    found = chosen(data, **keys)
    assert found.index is not None
    assert found.noise is not None
    samples = np.array(sorted(LABELLED))
    config = settings(data, **keys)
    own = choosing.open_vocabulary(config)
    clean = [[int(tag[1:]) for tag in labelled.tags_of(n)] for n in samples]
    offsets = np.append(0, np.cumsum([len(each) for each in clean]))
    classes = np.array([c for each in clean for c in each], np.int32)
    hashes = keyed(identities(data.source_digests(samples)), config.noise.seed)
    offsets, classes = found.noise(hashes, offsets, classes)
    expected: list[list[int]] = [[] for _ in own.classes]
    for row, sample in enumerate(samples.tolist()):
        for c in classes[offsets[row] : offsets[row + 1]]:
            expected[c].append(sample)
    lists = found.index.by_class
    everything = lists.ids.take(np.arange(lists.ids.length))
    for c, members in enumerate(expected):
        assert everything[lists.starts[c] : lists.starts[c + 1]].tolist() == members
    assert found.index.clean.tolist() == [len(of_class(c)) for c in range(labelled.CLASSES)]
    once, counts = found.index.once, lists.counts()
    everything = once.ids.take(np.arange(once.ids.length))
    for row, sample in enumerate(samples.tolist()):
        (rarest,) = np.flatnonzero(everything == sample)
        c = int(np.searchsorted(once.starts, rarest, side="right")) - 1
        labels = classes[offsets[row] : offsets[row + 1]].tolist()
        assert c == min(labels, key=lambda label: (counts[label], label))


def altered(data: DataSet, tmp_path: Path) -> dict[str, dict[str, Any]]:
    (tmp_path / "classes.txt").write_text("c0\nc1\n")
    (tmp_path / "drop.txt").write_text("001.png\n")
    return {
        "selection": {"selection__size": 51},
        "noise": {"noise__share": 0.1},
        "drop": {"data__drop": str(tmp_path / "drop.txt")},
        "vocabulary": {"selection__classes": str(tmp_path / "classes.txt")},
        "held_out": {"data__held_out": 0.5},
        "unlabelled": {"data__unlabelled": "keep"},
    }


def test_an_index_of_other_settings_is_refused(data: DataSet, tmp_path: Path) -> None:
    file = tmp_path / "index.h5"
    make_index(settings(data, selection__size=50), file)
    for said, keys in altered(data, tmp_path).items():
        with pytest.raises(DataError, match=rf"index\.h5: was made of other contents .*{said}"):
            chosen(data, **({"selection__size": 50} | keys), data__index=str(file))
    with pytest.raises(OutputError, match="is no index of this recipe"):
        make_index(settings(data, selection__size=51), file)
    make_index(settings(data, selection__size=51), tmp_path / "other.h5", (0, 2))
    with pytest.raises(OutputError, match=r"00000\.h5: was made of other contents"):
        make_index(settings(data, selection__size=52), tmp_path / "other.h5")
    assert make_index(settings(data, selection__size=51), tmp_path / "other.h5") is not None


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-9], lambda content: b"", lambda content: b"x" * 99]
)
def test_a_damaged_index_is_told(data: DataSet, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "index.h5"
    make_index(settings(data), file)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"index\.h5: "):
        chosen(data, data__index=str(file))


def test_a_large_set_needs_an_index_where_samples_are_looked_at(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MOST", 100)
    for keys in ({}, {"data__unlabelled": "keep", "selection__size": 5}, {"sampling__name": "sqrt"}):
        with pytest.raises(ConfigError, match=r"data\.index: missing"):
            chosen(data, **keys)
    found = chosen(data, data__unlabelled="keep", data__held_out=0.1)
    assert (found.index, found.order.length) == (None, 216)
    assert ids(found.samples) == set(epoch(found))
    file = tmp_path / "index.h5"
    make_index(settings(data), file)
    assert epoch(chosen(data, data__index=str(file))) == sorted(LABELLED)


def test_more_than_there_is_cannot_be_selected(data: DataSet) -> None:
    with pytest.raises(ConfigError, match=r"selection\.size: 217, but 216 samples"):
        chosen(data, selection__size=217)


WRONG: list[dict[str, Any]] = [
    {"selection__size": 5, "selection__share": 0.5},
    {"selection__complement": True},
    {"data__stratified": True},
    {"data__held_out": 0.1, "data__held_out_per_class": 5},
    {"data__block": 8, "sampling__name": "sqrt"},
    {"sampling__method": "two-stage", "sampling__threshold": 0.5, "sampling__name": "sqrt"},
]


@pytest.mark.parametrize("keys", WRONG)
def test_keys_that_contradict_one_another_are_refused(data: DataSet, keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        _ = settings(data, **keys)


def test_every_key_that_decides_changes_the_digest(data: DataSet, tmp_path: Path) -> None:
    digests = {chosen(data, **keys).digest for keys in altered(data, tmp_path).values()}
    assert len(digests) == len(altered(data, tmp_path))
    assert isinstance(settings(data), Config)
