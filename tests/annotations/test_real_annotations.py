"""Published samples of VOC, COCO, class maps and blood cells, packed and read; what the commands say."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotated import instance, make_pictures, some_coco, write_coco
from click.testing import CliRunner, Result
from PIL import Image
from places import PHOTOGRAPHS

from hpcscale.annotations.drawing import Drawer, colour
from hpcscale.annotations.masks import draw_masks
from hpcscale.annotations.reader import class_maps, objects
from hpcscale.cli import main
from hpcscale.data.store import open_data

SAMPLES = [
    ("voc-sample/JPEGImages", ["voc-sample/Annotations"]),
    ("coco-sample/images", ["coco-sample/person_keypoints.json"]),
    ("segmentation-sample/JPEGImages", ["segmentation-sample/SegmentationClass"]),
    ("blood-cells/JPEGImages", ["blood-cells/Annotations"]),
]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)], catch_exceptions=False)


def pack(number: int, out: Path, *options: object) -> tuple[Result, dict[str, object]]:
    source, annotations = SAMPLES[number]
    if not (PHOTOGRAPHS / source).exists():
        pytest.skip(f"{PHOTOGRAPHS / source} is not there")
    named = [word for path in annotations for word in ("--annotations", PHOTOGRAPHS / path)]
    result = run("ingest", PHOTOGRAPHS / source, out, *named, "--workers", 1, *options)
    assert result.exit_code == 0
    return result, json.loads(run("info", out, "--json").stdout)["annotations"]


def test_voc(tmp_path: Path) -> None:
    result, found = pack(0, tmp_path / "out")
    assert "could not be stored" not in result.stderr
    assert (found["objects"], found["pictures_with"], found["difficult"], found["truncated"]) == (
        135,
        50,
        25,
        66,
    )
    assert (found["clipped"], len(found["classes"]), found["classes"]["person"]) == (0, 19, 41)
    assert found["quarantined"] == {}


def test_persons_with_key_points(tmp_path: Path) -> None:
    _, found = pack(1, tmp_path / "out")
    assert (found["objects"], found["polygons"], found["quarantined"]) == (14, 14, {})
    data = open_data(tmp_path / "out")
    category = data.plan.annotation_table.categories[0]
    assert (category.name, len(category.keypoints), len(category.skeleton)) == ("person", 17, 19)
    stated = json.loads((PHOTOGRAPHS / SAMPLES[1][1][0]).read_text())["annotations"]
    by_id = {one["id"]: one for one in stated}
    for one in objects(data, np.arange(4)):
        drawn = draw_masks(one)
        for number, at in enumerate(one.ids.tolist()):
            assert one.keypoints[number].ravel().tolist() == by_id[at]["keypoints"]
            assert (one.keypoints[number, :, 2] > 0).sum() == by_id[at]["num_keypoints"]
            assert [part.ravel().tolist() for part in one.masks[number]] == by_id[at]["segmentation"]
            assert one.areas[number] == by_id[at]["area"]
            assert abs(drawn[number].sum() / by_id[at]["area"] - 1) < 0.02


def test_class_maps_of_voc(tmp_path: Path) -> None:
    _, found = pack(2, tmp_path / "out")
    assert (found["maps"], found["quarantined"]) == (3, {})
    maps = class_maps(open_data(tmp_path / "out"), np.arange(3))
    assert [np.unique(one).tolist() for one in maps] == [[0, 5, 15, 255], [0, 9, 15, 18, 255], [0, 6, 7]]
    assert [one.shape for one in maps] == [(338, 500), (375, 500), (375, 500)]


def test_blood_cells_without_the_two_that_are_points(tmp_path: Path) -> None:
    result, found = pack(3, tmp_path / "out", "--resize", 64)
    assert "2 annotations could not be stored: " in result.stderr
    assert (found["objects"], found["pictures_with"]) == (4886, 364)
    assert found["classes"] == {"Platelets": 361, "RBC": 4153, "WBC": 372}
    assert found["quarantined"] == {"the box has no width or no height": 2}
    lines = (tmp_path / "out/quarantined-annotations.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["BloodImage_00338.jpg", "BloodImage_00343.jpg"]
    boxes = np.concatenate([one.boxes for one in objects(open_data(tmp_path / "out"), np.arange(364))])
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 64


def test_info_and_show(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures")
    coco, out, sheet = some_coco(tmp_path / "coco.json"), tmp_path / "out", tmp_path / "sheet.png"
    assert run("ingest", tmp_path / "pictures", out, "--annotations", coco, "--workers", 1).exit_code == 0
    printed = run("info", out).stdout
    for key, value in (("objects", 5), ("crowd", 1), ("pictures_without", 1), ("pictures_unlisted", 1)):
        assert f"{key:<20}{value}\n" in printed
    assert "classes:\n  person: 1\n  dog: 4\nquarantined:\n" in printed
    result = run("show", out, "--out", sheet, "--count", 6, "--json")
    assert [tile["sample"] for tile in json.loads(result.stdout)["samples"]] == list(range(6))
    with Image.open(sheet) as image:
        pixels = np.asarray(image).astype(int)
    drawer = Drawer(open_data(out), np.arange(6))
    words = [drawer.words(number) for number in range(6)]
    assert words == ["1 dog, 1 person", "1 dog", "1 dog", "1 dog", "no objects", "objects not stated"]
    assert (np.abs(pixels - colour(2)).sum(axis=2) == 0).sum() > 50  # the box of a dog
    assert colour(15) == (192, 128, 128)  # VOC's person


def test_a_drawing_leaves_what_is_not_annotated(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 2)
    coco = write_coco(tmp_path / "coco.json", [instance(1, 100, bbox=[10, 10, 20, 10], segmentation=[])], 2)
    assert run("ingest", tmp_path / "pictures", tmp_path / "out", "--annotations", coco).exit_code == 0
    drawer = Drawer(open_data(tmp_path / "out"), np.arange(2))
    grey = Image.new("RGB", (80, 60), "grey")
    changed = (np.asarray(drawer.draw(grey, 0)) != 128).any(axis=2)
    assert changed[20, 20:60].all()
    assert changed[20:40, 20].all()
    assert not changed[:19].any()
    assert not changed[45:].any()
    assert not (np.asarray(drawer.draw(grey, 1)) != 128).any()


def test_annotations_that_stop_an_ingest_exit_with_1_and_leave_nothing(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 2)
    coco = write_coco(tmp_path / "coco.json", [instance(1, 100), instance(1, 101)], 2)
    command = ["ingest", tmp_path / "pictures", tmp_path / "out", "--annotations", coco]
    result = CliRunner().invoke(main, ["data", *map(str, command)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "coco.json: two annotations have the id 1" in result.stderr
    assert not (tmp_path / "out").exists()
