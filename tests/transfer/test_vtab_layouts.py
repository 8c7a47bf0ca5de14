"""transfer/vtab/layouts.py: folders of vpt and NOAH, and of classes; errors name file and line."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.files import OutputError
from hpcscale.ingest.packing import Packing, ingest
from hpcscale.labels import hierarchy
from hpcscale.transfer.vtab import layouts
from hpcscale.transfer.vtab.layouts import LayoutError
from hpcscale.transfer.vtab.tasks import find

LISTS = {
    "train800.txt": "images/train/0.jpg 0\nimages/train/a b.jpg 11\n",
    "val200.txt": "./images/val/0.jpg 2 \n\n",
    "train800val200.txt": "images/val/0.jpg 2\nimages/train/0.jpg 0\nimages/train/a b.jpg 11\n",
    "test.txt": "images/test/0.jpg 11\nimages/test/1.jpg 0\n",
}
PICTURES = ("train/0.jpg", "train/a b.jpg", "val/0.jpg", "test/0.jpg", "test/1.jpg")


def draw(file: Path, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(file)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    folder = tmp_path / "task"
    for seed, name in enumerate(PICTURES):
        draw(folder / "images" / name, seed)
    for name, text in LISTS.items():
        (folder / name).write_text(text)
    return folder


def names(folder: Path) -> dict[str, list[str]]:
    return {file.stem: file.read_text().splitlines() for file in folder.glob("*.txt")}


def test_row_43_lists_become_a_manifest_and_names_of_each_split(task: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["transfer", "layout", str(task), str(out), "--task", "cifar"])
    assert done.exit_code == 0, done.output
    assert done.output == (
        f"{out}/split.json: folder: train800val200.txt (train800 2, val200 1, train800val200 3, test 2)\n"
    )
    assert names(out) == {
        "train800": ["images/train/0.jpg", "images/train/a b.jpg"],
        "val200": ["images/val/0.jpg"],
        "train800val200": ["images/train/0.jpg", "images/train/a b.jpg", "images/val/0.jpg"],
        "test": ["images/test/0.jpg", "images/test/1.jpg"],
    }
    lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [(line["image"], line["tags"]) for line in lines] == [
        ("images/test/0.jpg", ["11"]), ("images/test/1.jpg", ["00"]), ("images/train/0.jpg", ["00"]),
        ("images/train/a b.jpg", ["11"]), ("images/val/0.jpg", ["02"]),
    ]  # fmt: skip
    part = [json.loads(line) for line in (out / "val200.jsonl").read_text().splitlines()]
    assert part == [{"image": "images/val/0.jpg", "tags": ["02"]}]
    assert hierarchy.read(out / "classes.tsv").names == ("00", "02", "11")
    said = json.loads((out / "split.json").read_text())
    assert (said["split"], said["task"], said["classes"]) == ("folder: train800val200.txt", "CIFAR-100", 3)


def test_the_manifest_is_packed_and_the_names_are_found(task: Path, tmp_path: Path) -> None:
    out, packed = tmp_path / "out", tmp_path / "packed"
    layouts.write(task, out)
    layouts.write(task, out)  # what is there already, is that
    ingest(task, packed, out / "manifest.jsonl", Packing(), workers=1)
    data = open_data(packed)
    assert sorted(data.names(np.arange(5))) == sorted(f"images/{name}" for name in PICTURES)
    selection = tmp_path / "selection.toml"
    selection.write_text(f'names = "{out}/train800val200.txt"\n')
    told = CliRunner().invoke(main, ["data", "info", str(packed), "--selection", str(selection), "--json"])
    assert json.loads(told.stdout)["samples"] == 3


@pytest.mark.parametrize(("name", "text", "said"), [
    ("train800.txt", "images/train/0.jpg\n", "train800.txt:1: expected a path and a label, a number from 0"),
    ("train800.txt", "\nimages/train/0.jpg cat\n", "train800.txt:2: expected a path and a label"),
    ("train800.txt", f"images/train/0.jpg {'9' * 5000}\n", "train800.txt:1: expected a path and a label"),
    ("train800.txt", "images/train/0.jpg -1\n", "train800.txt:1: expected a path and a label"),
    ("val200.txt", "images/val/0.jpg 2\nimages/val/9.jpg 1\n", "val200.txt:2: 'images/val/9.jpg': there"),
    ("val200.txt", "../x.jpg 2\n", "val200.txt:1: '../x.jpg' must stay inside the folder"),
    ("val200.txt", "/x.jpg 2\n", "val200.txt:1: '/x.jpg' must stay inside the folder"),
    ("val200.txt", "images/val/0.jpg 2\nimages/val/0.jpg 2\n",
     "val200.txt:2: 'images/val/0.jpg' is listed twice"),
    ("train800val200.txt", "images/train/0.jpg 5\n",
     "train800val200.txt:1: 'images/train/0.jpg' has the label 5, and 0 in"),
    ("test.txt", "images/test/0.jpg 1\nimages/train/0.jpg 0\n", "test.txt:2: 'images/train/0.jpg' is also"),
    ("val200.txt", "images/train/0.jpg 0\n", "val200.txt: 'images/train/0.jpg' is also in train800.txt"),
    ("train800val200.txt", "images/train/0.jpg 0\n", "is not train800.txt and val200.txt together: 'images/"),
    ("test.txt", "\n", "test.txt: lists no picture"),
])  # fmt: skip
def test_a_wrong_line_is_named(name: str, text: str, said: str, task: Path) -> None:
    (task / name).write_text(text)
    with pytest.raises(LayoutError) as error:
        layouts.read_lists(task)
    assert said in str(error.value)


def test_a_label_that_the_task_has_not_is_named(task: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"train800.txt:2: label 11; SVHN has 10 classes, from 0"):
        layouts.write(task, tmp_path / "out", find("SVHN"))
    assert not (tmp_path / "out").exists()


def test_row_43_class_folders_are_one_part_or_the_parts_that_they_lie_in(tmp_path: Path) -> None:
    for seed, name in enumerate(("cat/0.jpg", "cat/deep/1.jpg", "dog/0.jpg")):
        draw(tmp_path / "plain" / name, seed)
        draw(tmp_path / "parted/train" / name, seed)
    draw(tmp_path / "parted/validation/dog/7.jpg", 9)
    plain = layouts.write(tmp_path / "plain", tmp_path / "a")
    parted = layouts.write(tmp_path / "parted", tmp_path / "b")
    assert names(tmp_path / "a") == {"all": ["cat/0.jpg", "cat/deep/1.jpg", "dog/0.jpg"]}
    assert names(tmp_path / "b") == {
        "train": ["train/cat/0.jpg", "train/cat/deep/1.jpg", "train/dog/0.jpg"],
        "val": ["validation/dog/7.jpg"],
    }
    assert [json.loads(file.read_text())["split"] for file in (plain, parted)] == [
        "folder: all", "folder: train/val"
    ]  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "b/manifest.jsonl").read_text().splitlines()]
    assert [line["tags"] for line in lines] == [["cat"], ["cat"], ["dog"], ["dog"]]
    with pytest.raises(LayoutError, match="2 class folders; Pets has 37 classes"):
        layouts.write(tmp_path / "plain", tmp_path / "c", find("Pets"))


def test_folders_of_no_kind_are_refused(task: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(LayoutError, match="no folder of a known kind"):
        layouts.read_folders(empty)
    (empty / "cat").mkdir()
    with pytest.raises(LayoutError, match="holds no pictures in class folders"):
        layouts.read_folders(empty)
    draw(empty / "stray.jpg")
    draw(empty / "cat/0.jpg")
    with pytest.raises(LayoutError, match=r"stray.jpg: lies in no class folder"):
        layouts.read_folders(empty)
    for name in ("val", "valid"):
        draw(tmp_path / f"twice/{name}/cat/0.jpg")
    with pytest.raises(LayoutError, match="valid: is a second folder of the split val"):
        layouts.read_folders(tmp_path / "twice")
    with pytest.raises(OutputError, match="is an input of this command or lies in one"):
        layouts.write(task, task / "out")
    done = CliRunner().invoke(main, ["transfer", "layout", str(task), str(tmp_path / "o"), "--vocabulary",
                                     str(task / "test.txt")])  # fmt: skip
    assert done.exit_code == 2
    assert "--vocabulary is for packed sets" in done.output
