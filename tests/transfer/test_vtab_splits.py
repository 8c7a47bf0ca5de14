"""transfer/vtab/splits.py: exactly 800 and 200, by class, the same in whatever shards, order and machine."""

import hashlib
import json
from pathlib import Path

import labelled
import numpy as np
import pytest
from click.testing import CliRunner

from hpcscale.cli import main
from hpcscale.data.manifest import DataError
from hpcscale.data.order import identities
from hpcscale.data.store import DataSet
from hpcscale.files import OutputError
from hpcscale.labels.vocabulary import load
from hpcscale.transfer.vtab import splits
from hpcscale.transfer.vtab.splits import Labelled, apportion, split
from hpcscale.transfer.vtab.tasks import find

SHARES = {"common": 1500, "half": 700, "rare": 40, "single": 1, "some": 259}  # 2,500 pictures


def made(order: int = 0, copies: int = 0) -> Labelled:
    """2,500 samples of digests that hang on nothing but their numbers; `copies` more of the first ones."""
    labels = sorted(SHARES)
    classes = np.repeat(np.arange(5), [SHARES[label] for label in labels])
    digests = [hashlib.blake2b(b"%d" % n, digest_size=16).digest() for n in range(len(classes))]
    rows = np.array([*range(len(classes)), *range(copies)])
    names = [f"{n:04}.png" if k < len(classes) else f"copy/{n:04}.png" for k, n in enumerate(rows.tolist())]
    if order:
        shuffled = np.random.default_rng(order).permutation(len(rows))
        rows, names = rows[shuffled], [names[k] for k in shuffled]
    every = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)
    return Labelled(names, identities(every[rows]), classes[rows], labels, rows)


def chosen(samples: Labelled, rows: np.ndarray) -> list[str]:
    return sorted(samples.names[row] for row in rows)


def test_row_43_the_split_is_published_by_its_rule() -> None:
    """Golden: the ids of a made set. If this changes, it is another split and needs another name."""
    samples = made()
    found = split(samples)
    text = "\n".join(chosen(samples, found.train) + chosen(samples, found.val))
    assert (splits.NAME, splits.KEY) == ("hashed-1", 0x56544142)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "802676e3bb16e59a"


def test_row_43_it_is_exactly_800_and_200_by_class() -> None:
    samples = made()
    found = split(samples)
    assert (len(found.train), len(found.val)) == (800, 200)
    assert not set(found.train.tolist()) & set(found.val.tolist())
    train, val = (np.bincount(samples.classes[rows], minlength=5) for rows in found)
    counts = np.array([SHARES[label] for label in samples.labels])
    assert np.abs(train + val - 1000 * counts / 2500).max() < 1
    assert np.abs(val - 200 * (train + val) / 1000).max() < 1
    assert (train + val).tolist() == [600, 280, 16, 0, 104]
    assert val.tolist() == [120, 56, 3, 0, 21]


@pytest.mark.parametrize("order", [1, 2])
def test_row_43_it_is_the_same_in_whatever_order_and_without_copies(order: int) -> None:
    first, other = made(), made(order, copies=300)
    one, again = split(first), split(other)
    for rows, others in zip(one, again, strict=True):
        assert chosen(first, rows) == chosen(other, others)  # 0000.png comes before copy/0000.png


def test_of_equal_pictures_the_first_name_counts() -> None:
    """Also where their classes differ; so no picture is on both sides."""
    pictures = np.array([7, 7, 9, 11], np.uint64)
    samples = Labelled(["b", "a", "c", "d"], pictures, np.array([0, 1, 0, 1]), ["x", "y"], np.arange(4))
    found = split(samples, 2, 1)
    assert sorted(chosen(samples, found.train) + chosen(samples, found.val)) == ["a", "c", "d"]
    with pytest.raises(DataError, match=r"^3 different pictures, and 3 \+ 1 are wanted"):
        split(samples, 3, 1)


def test_parts_are_proportional_and_ties_go_to_the_first_name() -> None:
    assert apportion(np.array([1, 1, 1]), 2, ["c", "a", "b"]).tolist() == [0, 1, 1]
    assert apportion(np.array([10, 0, 30]), 4, ["a", "b", "c"]).tolist() == [1, 0, 3]
    assert apportion(np.array([5, 5, 5]), 15, ["a", "b", "c"]).tolist() == [5, 5, 5]
    random = np.random.default_rng(0)
    for _ in range(200):
        counts = random.integers(0, 50, 12)
        total = int(random.integers(0, counts.sum() + 1))
        parts = apportion(counts, total, [f"{c:02}" for c in range(12)])
        assert parts.sum() == total
        assert (parts <= counts).all()
        assert np.abs(parts - counts * total / max(1, counts.sum())).max() < 1


# of packed sets


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataSet, DataSet]:
    """Of one class a picture: the same pictures in shards of 50, and in one shard in another order."""
    folder = tmp_path_factory.mktemp("packed")
    source = labelled.make_source(folder / "source")
    lines = [json.loads(line) for line in (source / "manifest.jsonl").read_text().splitlines()]
    lines = [line | {"tags": [*line["tags"][:1], "left"]} for line in lines]
    (source / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    one = labelled.make_set(folder)
    (source / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[::-1]))
    return one, labelled.make_set(folder, shard_samples=1000)


def parts(folder: Path) -> dict[str, list[str]]:
    return {file.name: file.read_text().splitlines() for file in folder.glob("*.txt")}


def test_row_43_shards_do_not_matter(packed: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    said = []
    for name, data in zip(("one", "other"), packed, strict=True):
        words = load(data.folder.parent / "vocabulary.json")
        file = splits.write_hashed(data, tmp_path / name, words, (80, 20))
        said.append(json.loads(file.read_text()))
    one, other = parts(tmp_path / "one"), parts(tmp_path / "other")
    assert one == other
    assert {name: len(names) for name, names in one.items()} == {
        "train80.txt": 80, "val20.txt": 20, "train80val20.txt": 100
    }  # fmt: skip
    assert sorted(one["train80.txt"] + one["val20.txt"]) == one["train80val20.txt"]
    lines = [json.loads(line) for line in (tmp_path / "one/val20.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == one["val20.txt"]
    assert all(
        line["tags"] == [labelled.tags_of(int(line["image"][:3]))[0], "left"] for line in lines
    )  # all that there are
    assert said[0]["ids"] == said[1]["ids"]
    assert said[0]["split"] == "hashed-1"
    assert said[0]["data"] != said[1]["data"]


def test_the_lists_are_what_a_selection_reads(packed: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    data, words = packed[0], packed[0].folder.parent / "vocabulary.json"
    done = CliRunner().invoke(main, [
        "transfer", "layout", str(data.folder), str(tmp_path / "split"), "--vocabulary", str(words),
        "--train", "60", "--val", "30"
    ])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.output.endswith("split.json: hashed-1 (train60 60, val30 30, train60val30 90)\n")
    selection = tmp_path / "selection.toml"
    selection.write_text(f'names = "{tmp_path}/split/train60.txt"\n')
    told = CliRunner().invoke(
        main, ["data", "info", str(data.folder), "--selection", str(selection), "--json"]
    )
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["samples"] == 60


def test_a_set_that_is_no_task_is_refused(packed: tuple[DataSet, DataSet], tmp_path: Path) -> None:
    data = packed[0]
    with pytest.raises(DataError, match=r"'000.png' has 'c0', 'left'; a task needs one class"):
        splits.of_data(data)
    words = load(data.folder.parent / "vocabulary.json")
    with pytest.raises(DataError, match="8 classes; Pets has 37"):
        splits.write_hashed(data, tmp_path, words, (80, 20), find("Pets"))
    with pytest.raises(DataError, match="216 different pictures, and 800"):
        splits.write_hashed(data, tmp_path, words)
    assert list(tmp_path.iterdir()) == []
    splits.write_hashed(data, tmp_path, words, (80, 20))
    splits.write_hashed(data, tmp_path, words, (80, 20))
    with pytest.raises(OutputError, match=r"val20.txt: is there already, and not what"):
        splits.write_hashed(data, tmp_path, words, (81, 20))
    assert not (tmp_path / "train81.txt").exists()
