"""Results in files: the command, what is refused by file and record, and pictures that are left out."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from pycocotools import mask as peer_mask

from benchmarks.results import made_up
from hpcscale.annotations import rle
from hpcscale.cli import main
from hpcscale.evaluate import detections, measured, results
from hpcscale.evaluate.measured import ResultsError

XML = """<annotation><size><width>100</width><height>100</height></size><object><name>{name}</name><bndbox>
<xmin>1</xmin><ymin>1</ymin><xmax>10</xmax><ymax>10</ymax></bndbox></object></annotation>"""


def command(kind: str, annotations: Path, found: Path, *words: object) -> Result:
    options = ["--kind", kind, "--annotations", annotations, "--results", found, *words]
    return CliRunner().invoke(main, ["evaluate-results", *map(str, options)])


def printed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def written(file: Path, content: object) -> Path:
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def coco_files(tmp_path: Path) -> tuple[Path, Path]:
    truth, found = made_up(20, 60, 60, classes=3)
    return written(tmp_path / "truth.json", truth), written(tmp_path / "found.json", found)


def test_row_48_boxes_with_and_without_near_duplicates(tmp_path: Path, coco_files: tuple[Path, Path]) -> None:
    drop = tmp_path / "drop.txt"
    drop.write_text("3\n000000000007.jpg\n000000000009\n\n")  # an id, a name, a name without its ending
    said = printed(command("boxes", *coco_files, "--drop", drop, "--json"))
    assert (said["original"]["pictures"], said["without_near_duplicates"]["pictures"]) == (20, 17)
    assert said["near_duplicates"] == 3
    by_hand = results.evaluate("boxes", *coco_files)
    assert said["original"] == by_hand.original._asdict()
    assert said["without_near_duplicates"]["metrics"] != said["original"]["metrics"]
    text = command("boxes", *coco_files, "--drop", drop).stdout
    assert "without near-duplicates" in text.splitlines()[0]
    assert text.splitlines()[-1] == "3 pictures have a near-duplicate"
    assert printed(command("boxes", *coco_files, "--json"))["near_duplicates"] is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_id": 99}, "'image_id': found 99; allowed: the id of an image"),
        ({"image_id": "3"}, "'image_id': found str 3"),
        ({"image_id": True}, "'image_id': found bool True"),
        ({"image_id": 2**70}, "'image_id': found 1180591620717411303424"),
        ({"category_id": 0}, "'category_id': found 0; allowed: the id of a category"),
        ({"score": float("nan")}, "'score': found float nan; allowed: a finite number"),
        ({"score": float("inf")}, "'score': found float inf"),
        ({"score": 10**400}, "'score': found int 1000"),
        ({"score": None}, "'score': found NoneType None"),
        ({"bbox": [1, 2, -3, 4]}, "'bbox': found [1.0, 2.0, -3.0, 4.0]; allowed: [x, y, width, height]"),
        ({"bbox": [1, 2, 3]}, "'bbox': found list [1, 2, 3]"),
        ({"bbox": [1, 2, 3, "4"]}, "'bbox': found str 4"),
        ({"bbox": [1, 2, 3, float("nan")]}, "'bbox': found float nan"),
        ({"bbox": {}}, "'bbox': found dict {}"),
    ],
)
def test_bad_boxes_are_refused_by_record(
    coco_files: tuple[Path, Path], change: dict[str, Any], named: str
) -> None:
    truth, file = coco_files
    rows = json.loads(file.read_text())
    written(file, [*rows[:7], {**rows[7], **change}, *rows[8:]])
    result = command("boxes", truth, file)
    assert result.exit_code == 1
    assert f"{file}, record 7: {named}" in result.output


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{}", "found dict {}; allowed: a list of records"),
        ("[1]", "record 0: found int 1; allowed: an object"),
        ('[{"image_id": 1, "category_id": 1, "score": 1}]', "record 0: 'bbox': found nothing"),
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('["\xff"]', "record 0: found str"),
    ],
)
def test_files_of_something_else_are_refused(coco_files: tuple[Path, Path], content: str, named: str) -> None:
    truth, file = coco_files
    file.write_text(content)
    result = command("boxes", truth, file)
    assert result.exit_code == 1
    assert named in result.output


def code(width: int = 6, height: int = 4) -> dict[str, Any]:
    found = peer_mask.encode(np.asfortranarray(np.eye(height, width, dtype=np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (code(4, 6), "found size [6, 4], of a picture of [4, 6]"),
        ({**code(5, 4), "size": [4, 6]}, "found a code that does not add up to the 24 pixels"),
        ({**code(), "counts": "\xff\xff"}, "found a code that does not add up"),
        ({**code(), "counts": "\ud800"}, "found a code that does not add up"),
        ({**code(), "counts": code()["counts"] + "P"}, "found a code that does not add up"),
        ({"size": [4, 6], "counts": [3, 20]}, "found runs that do not add up to the 24 pixels"),
        ({"size": [4, 6], "counts": [30, -6]}, "found runs that do not add up"),
        ({"size": [4, 6], "counts": 24}, "found counts int 24"),
        ([[1, 1, 2, 2]], "found a polygon of 4 numbers"),
        ([[1, 1, 2, 2, 3, 3, 4]], "found a polygon of 7 numbers"),
        ([[1, 1, 2, 2, 3, None]], "found a polygon with a value that is no finite number"),
        ([1, 1, 2, 2, 3, 3], "found int 1 in place of a polygon"),
        ([], "found no polygon"),
        ("text", "found str text"),
    ],
)
def test_bad_masks_are_refused_by_record(mask: Any, named: str) -> None:
    good = {"image_id": 1, "category_id": 1, "score": 1, "segmentation": code()}
    rows = [
        good,
        {**good, "segmentation": {"size": [4, 6], "counts": [3, 21]}},
        {**good, "segmentation": mask},
    ]
    with pytest.raises(ResultsError) as error:
        detections.masks(detections.read(rows, "masks"), [(4, 6)] * 3)
    assert str(error.value).startswith(f"results, record 2: 'segmentation': {named}")


def test_codes_of_random_masks_add_up() -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(1, 60, (700, 2))
    masks = [(random.random(size) < random.random()).astype(np.uint8) for size in sizes]
    texts = [peer_mask.encode(np.asfortranarray(mask))["counts"] for mask in masks]
    assert rle.totals(texts).tolist() == np.prod(sizes, 1).tolist()
    broken = copy.copy(texts)
    broken[5], broken[600], broken[650] = b"", texts[600] + b"o", b"\x01"
    totals = rle.totals(broken)
    assert totals[[5, 600, 650]].tolist() == [0, -1, -1]
    assert np.delete(totals, [5, 600, 650]).tolist() == np.delete(np.prod(sizes, 1), [5, 600, 650]).tolist()
    assert rle.totals([]).tolist() == []
    assert rle.totals([b"5O"]).tolist() == [-1]  # a run of -1


@pytest.fixture
def voc_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "Annotations"
    folder.mkdir()
    for picture, name in (("p", "cat"), ("q.1", "cell"), ("r", "cat")):
        (folder / f"{picture}.xml").write_text(XML.format(name=name))
    return tmp_path


BOX = [1, 1, 10, 10]
VOC = [
    {"image": "p.jpg", "class": "cat", "bbox": BOX, "score": 0.5},
    {"image": "q.1", "class": "cell", "bbox": [1, 1, 10, 5], "score": 0.5},
    {"image": "p", "class": "sofa", "bbox": BOX, "score": 0.5},
]


def test_row_48_voc_in_files(tmp_path: Path, voc_folder: Path) -> None:
    file = written(tmp_path / "found.json", VOC)
    drop = tmp_path / "drop.txt"
    drop.write_text("r.jpg\n")
    said = printed(command("voc", voc_folder, file, "--drop", drop, "--points", "11", "--json"))
    assert said["original"]["classes"] == {"cat": pytest.approx(6 / 11), "cell": 1, "sofa": None}
    assert said["without_near_duplicates"]["metrics"] == {"mAP": 1}
    said = printed(command("voc", voc_folder, file, "--iou", "0.6", "--json"))
    assert said["original"]["classes"] == {"cat": 0.5, "cell": 0, "sofa": None}


def test_a_true_box_of_negative_size_is_refused(tmp_path: Path, voc_folder: Path) -> None:
    text = XML.format(name="cat").replace("<xmax>10</xmax>", "<xmax>0</xmax>")
    (voc_folder / "Annotations" / "r.xml").write_text(text)
    result = command("voc", voc_folder, written(tmp_path / "found.json", VOC))
    assert (result.exit_code, "r.xml, object 0: 'bndbox'" in result.stderr) == (1, True), result.stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image": "s"}, "'image': found 's'"),
        ({"image": 3}, "'image': found int 3"),
        ({"class": "wing"}, "'class': found 'wing'"),
        ({"bbox": [10, 1, 1, 10]}, "'bbox': found [10.0, 1.0, 1.0, 10.0]"),
        ({"score": float("nan")}, "'score': found float nan"),
    ],
)
def test_bad_results_for_voc_are_refused(
    tmp_path: Path, voc_folder: Path, change: dict[str, Any], named: str
) -> None:
    file = written(tmp_path / "found.json", [*VOC, {**VOC[0], **change}])
    result = command("voc", voc_folder, file)
    assert result.exit_code == 1
    assert f"{file}, record 3: {named}" in result.output


def test_row_48_segmentations_in_files(tmp_path: Path) -> None:
    for folder, values in (("truth", (1, 2)), ("found", (1, 1))):
        (tmp_path / folder).mkdir()
        for name, value in zip("ab", values, strict=True):
            Image.new("L", (4, 4), value).save(tmp_path / folder / f"{name}.png")
    drop = tmp_path / "drop.txt"
    drop.write_text("b.jpg\n")
    said = printed(command("segmentation", tmp_path / "truth", tmp_path / "found", "--drop", drop, "--json"))
    assert said["original"]["classes"] == {"1": 0.5, "2": 0}
    assert said["without_near_duplicates"]["classes"] == {"1": 1}
    assert said["without_near_duplicates"]["metrics"] == {"mIoU": 1, "accuracy": 1}


def test_folders_and_files_are_not_mixed_up(tmp_path: Path, coco_files: tuple[Path, Path]) -> None:
    truth, found = coco_files
    assert command("boxes", tmp_path, found).exit_code == 2
    assert "with --kind voc it is a folder" in command("voc", truth, found).output
    assert command("segmentation", tmp_path, found).exit_code == 2


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    drop = tmp_path / "drop.txt"
    for text, named in (
        ("a\nnowhere.jpg\n", "line 2: 'nowhere.jpg' is no picture"),
        ("\\q", "line 1: a backslash"),
    ):
        drop.write_text(text)
        with pytest.raises(ResultsError, match=named):
            measured.read_drop(drop, {"a": 1, "b.jpg": 2})
    drop.write_text("a.png\nb\nb.jpg\n")
    assert measured.read_drop(drop, {"a": 1, "b.jpg": 2, "c": 3}) == {1, 2}
