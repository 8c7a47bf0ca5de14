"""`data.held_out_names`: exactly the samples of a list are held out, from memory or an index file."""

from pathlib import Path
from typing import Any

import labelled
import numpy as np
import pytest
from labelled import settings

from hpcscale.config import ConfigError
from hpcscale.data.store import DataError, DataSet
from hpcscale.evaluate.sets import default_set, open_set
from hpcscale.samples import make
from hpcscale.samples.chosen import Chosen, choose, open_vocabulary
from hpcscale.samples.lists import Ids
from hpcscale.samples.make import make_index

LABELLED = {number for number in range(labelled.COUNT) if labelled.tags_of(number) != ["nothing"]}
HELD = set(range(3, 200, 7)) & LABELLED


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return labelled.make_set(tmp_path_factory.mktemp("labelled"))


def write(file: Path, samples: set[int]) -> str:
    file.write_text("".join(f"{number:03}.png\n" for number in sorted(samples)))
    return str(file)


def chosen(data: DataSet, **keys: Any) -> Chosen:
    config = settings(data, **keys)
    return choose(config, data, open_vocabulary(config))


def ids(found: Ids) -> set[int]:
    return set(found.take(np.arange(found.length, dtype=np.int64)).tolist())


def test_row_11_exactly_the_samples_of_a_list_are_held_out(data: DataSet, tmp_path: Path) -> None:
    keys = {"data__held_out_names": write(tmp_path / "val.txt", HELD | {9})}  # 9 has no class
    found, config = chosen(data, **keys), settings(data, **keys)
    assert ids(found.held_out) == HELD
    assert ids(found.samples) == LABELLED - HELD
    assert set(found.order.samples_at(np.arange(found.order.length))[0].tolist()) == LABELLED - HELD
    assert default_set(config) == "held_out"
    assert open_set(config, "held_out", open_vocabulary(config)).samples.tolist() == sorted(HELD)
    kept = chosen(data, **keys, data__unlabelled="keep")
    assert ids(kept.held_out) == HELD | {9}
    assert ids(kept.samples) == set(range(labelled.COUNT)) - HELD - {9}


def test_other_keys_choose_among_the_others(data: DataSet, tmp_path: Path) -> None:
    gone = {min(HELD), min(LABELLED - HELD)}
    keys = {"data__held_out_names": write(tmp_path / "val.txt", HELD)}
    found = chosen(data, **keys, data__drop=write(tmp_path / "drop.txt", gone), selection__size=50)
    assert ids(found.held_out) == HELD - gone
    assert found.samples.length == 50
    assert ids(found.samples) < LABELLED - HELD - gone
    named = write(tmp_path / "names.txt", HELD | {0, 2})
    assert ids(chosen(data, **keys, selection__names=named).samples) == {0, 2} - HELD


def test_an_index_file_says_the_same(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcscale.samples.candidates.CHUNK", 7)
    monkeypatch.setattr(make, "MAX_PARTS", 3)
    keys: dict[str, Any] = {"data__held_out_names": write(tmp_path / "val.txt", HELD), "selection__size": 60}
    file = tmp_path / "index.h5"
    for part in [(0, 3), (2, 3), None]:
        make_index(settings(data, **keys), file, part)
    one, other = chosen(data, **keys), chosen(data, **keys, data__index=str(file))
    assert (ids(one.samples), ids(one.held_out)) == (ids(other.samples), ids(other.held_out))
    assert (ids(one.held_out), one.digest) == (HELD, other.digest)
    write(tmp_path / "val.txt", HELD - {min(HELD)})
    with pytest.raises(DataError, match=r"other contents or settings than the recipe has now: held_out;"):
        chosen(data, **keys, data__index=str(file))
    write(tmp_path / "val.txt", HELD)
    with pytest.raises(DataError, match="the recipe has now: held_out;"):
        chosen(data, selection__size=60, data__index=str(file))


def test_the_content_of_the_list_is_part_of_what_is_trained_on(data: DataSet, tmp_path: Path) -> None:
    one = chosen(data, data__held_out_names=write(tmp_path / "one.txt", HELD)).digest
    moved = chosen(data, data__held_out_names=write(tmp_path / "moved.txt", HELD)).digest
    other = chosen(data, data__held_out_names=write(tmp_path / "other.txt", HELD - {min(HELD)})).digest
    assert one == moved
    assert len({one, other, chosen(data).digest}) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("000.png\nx.png\n", r"val\.txt: 1 of 2 names are not in .*, the first is 'x\.png'"),
        ("", r"val\.txt: names no sample; data\.held_out_names needs one at least"),
        ("009.png\n", "no sample is left that is held out; .*data.held_out_names, .*val.txt, holds out 0"),
        (
            "".join(f"{number:03}.png\n" for number in range(labelled.COUNT)),
            f"no sample is left to train on; .*data.held_out_names, .*val.txt, holds out {len(LABELLED)}",
        ),
        ("a\\q\n", "val.txt: "),
        (None, r"val\.txt: "),
    ],
)
def test_a_list_that_cannot_be_held_out_is_refused_by_name(
    data: DataSet, tmp_path: Path, text: str | None, said: str
) -> None:
    if text is not None:
        (tmp_path / "val.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        chosen(data, data__held_out_names=str(tmp_path / "val.txt"))


@pytest.mark.parametrize(
    "other", [{"data__held_out": 0.1}, {"data__held_out_per_class": 1},
              {"data__held_out": 0.1, "data__stratified": True}],
)  # fmt: skip
def test_a_list_stands_instead_of_a_share_or_a_number(data: DataSet, other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data: .*'held_out_names' stands instead of 'held_out', 'strat"):
        settings(data, data__held_out_names="val.txt", **other)
