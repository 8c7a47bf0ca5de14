"""Annotations that cannot be used: each has its reason in the quarantine, or stops the ingest at once."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import (
    CATEGORIES,
    HEIGHT,
    SQUARE,
    WIDTH,
    instance,
    make_pictures,
    some_coco,
    voc_object,
    write_coco,
    write_map,
    write_voc,
)
from PIL import Image

from hpcscale.annotations.counts import count
from hpcscale.annotations.reader import class_maps, objects
from hpcscale.annotations.stated import AnnotationError
from hpcscale.data.manifest import FAULTS
from hpcscale.data.store import open_data
from hpcscale.data.verify import verify
from hpcscale.ingest.packing import Packing, ingest

NOT_FINITE = "a number is not finite"
FAULTY: list[tuple[dict[str, Any], str]] = [
    ({"bbox": [5, 5, 0, 3]}, "the box has no width or no height"),
    ({"bbox": [5, 5, 3, -2]}, "the box has no width or no height"),
    ({"bbox": [WIDTH, 5, 3, 2]}, "the box lies outside the picture"),
    ({"bbox": [-9, 5, 9, 2]}, "the box lies outside the picture"),
    ({"bbox": [5, HEIGHT + 4, 9, 2]}, "the box lies outside the picture"),
    ({"bbox": [1e9, 5, 1e-9, 2]}, "the box lies outside the picture"),
    ({"bbox": [5, 5, 3]}, "the box is not four numbers"),
    ({"bbox": [5, 5, 3, "4"]}, "the box is not four numbers"),
    ({"bbox": [5, 5, 3, True]}, "the box is not four numbers"),
    ({"bbox": None}, "the box is not four numbers"),
    ({"bbox": [5, math.nan, 3, 4]}, NOT_FINITE),
    ({"bbox": [5, 5, math.inf, 4]}, NOT_FINITE),
    ({"bbox": [5, 5, 10**400, 4]}, NOT_FINITE),
    ({"area": -math.inf}, NOT_FINITE),
    ({"area": "60"}, "the area is not a number"),
    ({"category_id": 4}, "unknown class"),
    ({"category_id": None}, "unknown class"),
    ({"category_id": ["dog"]}, "unknown class"),
    ({"id": None}, "the id is not a whole number"),
    ({"id": "a"}, "the id is not a whole number"),
    ({"id": 1 << 63}, "the id is not a whole number"),
    ({"segmentation": [SQUARE, [1, 2, 3, 4]]}, "a polygon has fewer than three points"),
    ({"segmentation": [[]]}, "a polygon has fewer than three points"),
    ({"segmentation": [[*SQUARE, 1]]}, "a polygon has an odd number of coordinates"),
    ({"segmentation": [[*SQUARE, 1, math.nan]]}, NOT_FINITE),
    ({"segmentation": SQUARE}, "a polygon is not a list of numbers"),
    ({"segmentation": "text"}, "the mask is neither polygons nor an RLE"),
    (
        {"segmentation": {"size": [WIDTH, HEIGHT], "counts": [1200]}},
        "the RLE has another size than the picture",
    ),
    ({"segmentation": {"counts": [1200]}}, "the RLE has another size than the picture"),
    (
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [600, 30]}},
        "the RLE is damaged: its counts are 630 pixels, not 30 x 40",
    ),
    (
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-1, 1201]}},
        "the RLE is damaged: counts must be whole numbers, none below 0",
    ),
    ({"category_id": 3, "keypoints": [1, 2, 2, 3, 4, 1]}, "another number of key points"),
    ({"keypoints": [1, 2, 2]}, "another number of key points"),
    ({"category_id": 3, "keypoints": [1, 2, 2, 3, 4, 1, 0, 0, math.nan]}, NOT_FINITE),
    ({"category_id": 3, "keypoints": 17}, "key points are not a list of numbers"),
]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures")


def pack(source: Path, out: Path, *annotations: Path) -> list[dict[str, Any]]:
    """The quarantine."""
    ingest(source, out, packing=Packing(shard_samples=4, annotations=annotations), workers=1)
    assert verify(out) == []
    return [json.loads(line) for line in (out / FAULTS).read_text().splitlines()]


def test_each_fault_of_an_object_has_its_reason_and_the_picture_stays(pictures: Path, tmp_path: Path) -> None:
    """One object for each fault, and a good one before, between and after them."""
    annotations = [instance(1000 + n, 100 + n % 3) | change for n, (change, _) in enumerate(FAULTY)]
    annotations += [instance(n, 100 + n) for n in range(3)]
    found = pack(pictures, tmp_path / "out", write_coco(tmp_path / "coco.json", annotations))
    by_picture = sorted(range(len(FAULTY)), key=lambda n: n % 3)
    assert [line["reason"] for line in found] == [FAULTY[n][1] for n in by_picture]
    assert [line["id"] for line in found] == [annotations[n]["id"] for n in by_picture]
    assert {(line["record"], line["name"]) for line in found} == {(n, f"{n}.jpg") for n in range(3)}
    assert found[0] == {
        "record": 0, "name": "0.jpg", "source": "coco.json", "id": 1000,
        "reason": "the box has no width or no height", "found": "[5, 5, 0, 3]",
    }  # fmt: skip
    assert all(len(line["found"]) <= 100 for line in found)
    data = open_data(tmp_path / "out")
    kept = objects(data, np.arange(6))
    assert [one.ids.tolist() for one in kept] == [[0], [1], [2], [], [], []]
    for one in kept:
        assert all(np.isfinite(array).all() for array in (one.boxes, one.areas, one.keypoints))
    counted = count(data)["quarantined"]
    assert counted[NOT_FINITE] == sum(reason == NOT_FINITE for _, reason in FAULTY)
    assert sum(counted.values()) == len(FAULTY)


def test_what_is_of_no_picture_is_named_and_counted(pictures: Path, tmp_path: Path) -> None:
    coco = write_coco(
        tmp_path / "coco.json", [instance(1, 100), instance(2, 107), instance(3, 107), instance(4, 555)], 8
    )
    found = pack(pictures, tmp_path / "out", coco)
    missing = {"source": "coco.json", "id": None, "reason": "no such picture in the source"}
    assert found == [
        {"name": "", "source": "coco.json", "id": 4, "reason": "no image has this image_id", "found": "555"},
        missing | {"name": "6.jpg", "objects": 0},
        missing | {"name": "7.jpg", "objects": 2},
    ]
    counted = count(open_data(tmp_path / "out"))
    assert counted["quarantined"] == {"no such picture in the source": 2, "no image has this image_id": 1}
    assert (counted["pictures_with"], counted["pictures_without"], counted["pictures_unlisted"]) == (1, 5, 0)


def test_a_quarantined_picture_takes_its_objects_along(pictures: Path, tmp_path: Path) -> None:
    (pictures / "0.jpg").write_bytes(b"no picture")
    assert pack(pictures, tmp_path / "out", some_coco(tmp_path / "coco.json")) == []
    (line,) = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert (json.loads(line)["name"], json.loads(line)["objects"]) == ("0.jpg", 2)
    counted = count(open_data(tmp_path / "out"))
    assert (counted["lost_with_pictures"], counted["objects"], counted["pictures_unlisted"]) == (2, 3, 1)


def test_annotations_of_another_size_are_of_another_picture(pictures: Path, tmp_path: Path) -> None:
    boxes = [voc_object("dog", (1, 1, 9, 9)), voc_object("dog", (3, 3, 9, 9))]
    write_voc(tmp_path / "voc", {"0": boxes, "1": []}, (WIDTH, HEIGHT))
    write_voc(tmp_path / "voc", {"2": boxes}, (0, 0))  # not known
    found = pack(pictures, tmp_path / "out", write_voc(tmp_path / "voc", {"3": boxes}))
    assert [(line["name"], line["id"], line["reason"]) for line in found] == [
        ("0.jpg", 0, "the picture has another size than its annotations state"),
        ("0.jpg", 1, "the picture has another size than its annotations state"),
        ("1.jpg", None, "the picture has another size than its annotations state"),
    ]
    kept = objects(open_data(tmp_path / "out"), np.arange(6))
    assert [(one.listed, len(one.boxes)) for one in kept[:4]] == [
        (False, 0),
        (False, 0),
        (True, 2),
        (True, 2),
    ]


def test_faults_of_voc(pictures: Path, tmp_path: Path) -> None:
    cases = [
        (voc_object("dog", (5, 5, 5, 9)), "the box has no width or no height"),
        (voc_object("dog", (9, 5, 7, 9)), "the box has no width or no height"),
        (voc_object("dog", (41, 5, 44, 9)), "the box lies outside the picture"),
        (voc_object("dog", ("nan", 5, 7, 9)), NOT_FINITE),
        (voc_object("dog", ("", 5, 7, 9)), "the box is not four numbers"),
        (voc_object("dog", ("1,5", 5, 7, 9)), "the box is not four numbers"),
        ("<object><name>dog</name></object>", "the box is not four numbers"),
        (voc_object("", (1, 5, 7, 9)), "unknown class"),
        (voc_object("dog", (0, -3, 44, 9)), ""),  # clipped
    ]
    folder = write_voc(tmp_path / "voc", {"0": [text for text, _ in cases]})
    (folder / "1.xml").write_text("<annotation><object>")
    (folder / "2.xml").write_text("<html/>")
    (folder / "3.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    (folder / "9.xml").write_text("<annotation/>")
    found = pack(pictures, tmp_path / "out", folder)
    assert [line["reason"] for line in found[:8]] == [reason for _, reason in cases[:8]]
    assert [(line["name"], line["reason"]) for line in found[8:]] == [
        ("1", "not VOC's XML"), ("2", "not VOC's XML"), ("3", "not VOC's XML"),
        ("9", "no such picture in the source"),
    ]  # fmt: skip
    data = open_data(tmp_path / "out")
    assert objects(data, np.arange(1))[0].boxes.tolist() == [[0, 0, 40, 9]]
    assert count(data)["clipped"] == 1


def test_faults_of_class_maps(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    good = np.full((HEIGHT, WIDTH), 2)
    good[0, 0] = 255
    write_map(folder, "0", good)
    write_map(folder, "1", good.T)
    write_map(folder, "2", good + (good == 2))
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(folder / "3.png")
    (folder / "4.png").write_bytes((folder / "0.png").read_bytes()[:-30])
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(folder / "5.png")
    write_map(folder, "6", good)
    (folder / "classes.txt").write_text("nothing\ndog\ncat\n")
    found = pack(pictures, tmp_path / "out", folder)
    assert [(line["name"], line["reason"]) for line in found] == [
        ("1.jpg", "the map has another size than the picture"),
        ("2.jpg", "the map has a value that classes.txt does not name"),
        ("3.jpg", "the map is no PNG of 8-bit values"),
        ("4.jpg", "the map is no PNG of 8-bit values"),
        ("5.jpg", "the map is no PNG of 8-bit values"),
        ("6", "no such picture in the source"),
    ]
    data = open_data(tmp_path / "out")
    assert [one is None for one in class_maps(data, np.arange(6))] == [False, *[True] * 5]
    assert (count(data)["maps"], data.plan.annotation_table.values) == (1, ["nothing", "dog", "cat"])


IMAGES = [{"id": n, "file_name": f"{n}.jpg"} for n in range(3)]


@pytest.mark.parametrize(
    ("annotations", "change", "said"),
    [
        ([instance(5, 100), instance(5, 101)], {}, "two annotations have the id 5"),
        ([], {"images": [*IMAGES, {"id": 1, "file_name": "x.jpg"}]}, "two images have the id 1"),
        ([], {"images": [*IMAGES, {"id": 9, "file_name": "2.jpg"}]}, "two images have the file_name '2.jpg'"),
        ([], {"images": [{"id": 1}]}, r"images\[0\] needs an id and a file_name, found 1 and None"),
        ([], {"images": [1]}, "it needs a list of objects called 'images'"),
        (None, {}, "it needs a list of objects called 'annotations'"),
        ([], {"categories": {}}, "it needs a list of objects called 'categories'"),
        ([], {"categories": [{"id": 1}]}, r"categories\[0\] needs a whole number as id and a name"),
        (
            [],
            {"categories": [{"id": 1, "name": "\ud800"}]},
            r"categories\[0\] needs a whole number as id and a",
        ),
        ([], {"categories": [*CATEGORIES, {"id": 9, "name": "dog"}]}, "two categories have the name 'dog'"),
        ([], {"categories": [*CATEGORIES, {"id": 3, "name": "cat"}]}, "two categories have the id 3"),
        ([], {"categories": [CATEGORIES[1] | {"skeleton": [[0, 1]]}]}, "category 3: keypoints must be names"),
        (
            [],
            {"images": [{"id": 1, "file_name": "photos/0.jpg"}]},
            "no picture of the source has one of the 1 ann",
        ),
    ],
)
def test_a_coco_file_that_cannot_be_used(
    pictures: Path, tmp_path: Path, annotations: Any, change: dict[str, Any], said: str
) -> None:
    coco = write_coco(tmp_path / "coco.json", annotations, **change)
    with pytest.raises(AnnotationError, match=said):
        pack(pictures, tmp_path / "out", coco)
    assert not (tmp_path / "out").exists()


def test_paths_that_are_no_annotations(pictures: Path, tmp_path: Path) -> None:
    voc, both, nothing = (tmp_path / name for name in ("voc", "both", "nothing"))
    for folder in (voc, both):
        write_voc(folder, {"0": []})
    write_map(both, "0", np.zeros((HEIGHT, WIDTH)))
    write_map(tmp_path / "maps", "0", np.zeros((HEIGHT, WIDTH)))
    nothing.mkdir()
    (tmp_path / "not.json").write_text("{")
    (tmp_path / "a.xml").write_text("")
    coco = some_coco(tmp_path / "coco.json")
    for paths, said in (
        ([both], "both .xml and .png"),
        ([nothing], "neither .xml nor .png"),
        ([tmp_path / "not.json"], "not.json: not JSON"),
        ([tmp_path / "a.xml"], "unknown kind of annotations"),
        ([voc, coco], "voc has objects too; give one of them"),
        ([tmp_path / "maps", tmp_path / "maps"], "maps has class maps too"),
        ([tmp_path / "gone.json"], "gone.json: cannot be read"),
    ):
        with pytest.raises(AnnotationError, match=said):
            pack(pictures, tmp_path / "out", *paths)
    assert not (tmp_path / "out").exists()


def test_names_that_fit_two_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    (pictures / "more").mkdir()
    (pictures / "more/0.png").write_bytes(b"any")
    with pytest.raises(AnnotationError, match=r"'0' fit two pictures: 0\.jpg and more/0\.png"):
        pack(pictures, tmp_path / "out", write_voc(tmp_path / "voc", {"0": []}))
    assert len(pack(pictures, tmp_path / "out", some_coco(tmp_path / "coco.json"))) == 0  # has endings


def test_a_map_that_is_exchanged_meanwhile(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcscale.annotations import sources

    write_map(tmp_path / "maps", "0", np.zeros((HEIGHT, WIDTH)))
    table = sources.Annotations.table

    def late(self: sources.Annotations, met: sources.Met) -> Any:
        write_map(tmp_path / "maps", "0", np.ones((HEIGHT, WIDTH)))
        return table(self, met)

    monkeypatch.setattr(sources.Annotations, "table", late)
    with pytest.raises(AnnotationError, match=r"0\.png: the annotations changed during the ingest"):
        pack(pictures, tmp_path / "out", tmp_path / "maps")
