"""data ingest --annotations: what was stated comes out; the same bytes by parts, killed and surveyed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from annotated import (
    HEIGHT,
    RLE,
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
from sources import as_tar

from hpcscale.annotations.objects import Rle
from hpcscale.annotations.reader import class_maps, objects
from hpcscale.annotations.stated import CLIPPED, CROWD, DIFFICULT, IGNORE, TRUNCATED
from hpcscale.data.manifest import FAULTS
from hpcscale.data.store import DataError, DataSet, open_data
from hpcscale.data.verify import verify
from hpcscale.ingest.packing import OptionError, Packing, ingest, survey

ALL = np.arange(6)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "pictures")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def packed(source: Path, out: Path, *annotations: Path, resize: int | None = None) -> DataSet:
    ingest(source, out, packing=Packing(resize, shard_samples=2, annotations=annotations), workers=1)
    assert verify(out) == []
    return open_data(out)


def test_coco_as_it_was_stated(pictures: Path, tmp_path: Path) -> None:
    data = packed(pictures, tmp_path / "out", some_coco(tmp_path / "coco.json"))
    assert [(c.name, c.id) for c in data.plan.annotation_table.categories] == [("person", 3), ("dog", 7)]
    assert data.plan.annotation_table.categories[0].skeleton == [[1, 2], [1, 3]]
    found = objects(data, ALL)
    assert [one.ids.tolist() for one in found] == [[11, 12], [13], [14], [15], [], []]
    assert [one.listed for one in found] == [True] * 5 + [False]
    assert [one.flags.tolist() for one in found[:4]] == [[0, 0], [CROWD], [IGNORE], [CLIPPED]]
    first = found[0]
    assert first.size == (HEIGHT, WIDTH)
    assert first.boxes.tolist() == [[2, 2, 12, 8], [30.5, 20.25, 38.5, 29.25]]
    assert first.classes.tolist() == [1, 0]
    assert first.areas.tolist() == [60.5, 60.5]
    assert first.keypoints.tolist() == [[[0, 0, 0]] * 3, [[5, 6, 2], [7, 8, 1], [0, 0, 0]]]
    assert [[part.ravel().tolist() for part in mask] for mask in first.masks] == [
        [SQUARE], [SQUARE, [20, 20, 30, 20, 30, 29.5]]
    ]  # fmt: skip
    (crowd,) = found[1].masks
    assert isinstance(crowd, Rle)
    assert crowd.counts.tolist() == RLE["counts"]
    assert found[2].masks == [None]
    assert found[3].boxes.tolist() == [[0, 25, 7, 30]]
    assert np.isnan(found[3].areas).all()
    assert [one.ids.tolist() for one in objects(data, np.array([3, 0, 3]))] == [[15], [11, 12], [15]]
    assert (tmp_path / "out" / FAULTS).read_bytes() == b""


def test_voc_counts_pixels_from_1_and_has_flags(pictures: Path, tmp_path: Path) -> None:
    files = {
        "0": [voc_object("dog", (1, 1, WIDTH, HEIGHT), 1), voc_object("cat", ("3.5", 2, 5, 9), 0, 1)],
        "1": [],
    }
    data = packed(pictures, tmp_path / "out", write_voc(tmp_path / "Annotations", files))
    assert [(c.name, c.id) for c in data.plan.annotation_table.categories] == [("cat", None), ("dog", None)]
    found = objects(data, ALL)
    assert found[0].boxes.tolist() == [[0, 0, WIDTH, HEIGHT], [2.5, 1, 5, 9]]
    assert (found[0].classes.tolist(), found[0].ids.tolist()) == ([1, 0], [0, 1])
    assert found[0].flags.tolist() == [DIFFICULT, TRUNCATED]
    assert [one.listed for one in found] == [True, True, False, False, False, False]
    with pytest.raises(DataError, match="has objects, but no class maps"):
        class_maps(data, ALL)


def test_class_maps_beside_boxes(pictures: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).choice([0, 1, 20, 255], (HEIGHT, WIDTH))
    write_map(tmp_path / "SegmentationClass", "2", values)
    Image.fromarray(np.full((HEIGHT, WIDTH), 9, np.uint8)).save(tmp_path / "SegmentationClass" / "3.png")
    voc = write_voc(tmp_path / "Annotations", {"2": [voc_object("dog", (1, 1, 9, 9))]})
    data = packed(pictures, tmp_path / "out", voc, tmp_path / "SegmentationClass")
    maps = class_maps(data, ALL)
    assert [one is None for one in maps] == [True, True, False, False, True, True]
    assert maps[2].dtype == np.uint8
    assert (maps[2] == values).all()
    assert (maps[3] == 9).all()
    _offsets, png = data.annotations("class_map", np.array([2]))
    assert png.tobytes() == (tmp_path / "SegmentationClass" / "2.png").read_bytes()
    assert len(objects(data, ALL)[2].boxes) == 1
    small = packed(pictures, tmp_path / "small", tmp_path / "SegmentationClass", resize=20)
    (half,) = class_maps(small, np.array([2]))
    assert half.shape == (20, 20)
    assert set(np.unique(half)) == {0, 1, 20, 255}
    assert (half == values[(np.arange(20) * 1.5 + 0.75).astype(int)[:, None], np.arange(20) * 2 + 1]).all()
    assert (class_maps(small, np.array([2]), original=True)[0] == values).all()
    with pytest.raises(DataError, match="has class maps, but no objects"):
        objects(small, ALL)


def test_another_stored_size_scales_what_is_read(pictures: Path, tmp_path: Path) -> None:
    coco = some_coco(tmp_path / "coco.json")
    data = packed(pictures, tmp_path / "out", coco, resize=20)
    (found,), (whole,) = objects(data, ALL[:1]), objects(data, ALL[:1], original=True)
    assert (found.size, whole.size) == ((20, 20), (HEIGHT, WIDTH))
    factors = np.array([20 / WIDTH, 20 / HEIGHT])
    assert np.allclose(found.boxes, whole.boxes * np.tile(factors, 2))
    assert np.allclose(found.keypoints[:, :, :2], whole.keypoints[:, :, :2] * factors)
    assert np.allclose(found.masks[0][0], np.array(SQUARE).reshape(-1, 2) * factors)
    assert whole.boxes[0].tolist() == [2, 2, 12, 8]
    assert np.allclose(found.areas, 60.5 * factors.prod())


def test_a_turned_picture_has_the_size_of_what_is_seen(tmp_path: Path) -> None:
    """EXIF says that it stands on its side: 30 x 40 pixels are stored of 40 x 30."""
    folder = make_pictures(tmp_path / "pictures", 2)
    for number, orientation in enumerate((6, 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        with Image.open(folder / f"{number}.jpg") as image:
            image.save(folder / f"{number}.jpg", exif=exif)
    boxes = [voc_object("dog", (1, 1, 30, 30))]
    write_voc(tmp_path / "Annotations", {"0": boxes}, (WIDTH, HEIGHT))
    write_voc(tmp_path / "Annotations", {"1": boxes}, (HEIGHT, WIDTH))
    for resize in (None, 8):
        data = packed(folder, tmp_path / f"out{resize}", tmp_path / "Annotations", resize=resize)
        sizes = [one.size for one in objects(data, np.arange(2), original=True)]
        assert sizes == [(WIDTH, HEIGHT), (HEIGHT, WIDTH)]
        assert (tmp_path / f"out{resize}" / FAULTS).read_bytes() == b""


def test_pictures_of_tars_and_manifests_are_found_by_name(pictures: Path, tmp_path: Path) -> None:
    coco = some_coco(tmp_path / "coco.json")
    expected = [one.ids.tolist() for one in objects(packed(pictures, tmp_path / "a", coco), ALL)]
    tar = as_tar(pictures)
    assert [one.ids.tolist() for one in objects(packed(tar, tmp_path / "b", coco), ALL)] == expected
    lines = [json.dumps({"image": f"{number}.jpg", "tags": ["a"]}) for number in (5, 0, 0)]
    (pictures / "manifest.jsonl").write_text("\n".join(lines))
    data = packed(pictures, tmp_path / "c", coco)
    assert [one.ids.tolist() for one in objects(data, np.arange(3))] == [[], [11, 12], [11, 12]]
    assert data.tags == ("a",)


def test_folders_of_classes_keep_their_tags(pictures: Path, tmp_path: Path) -> None:
    for name, numbers in (("n1", "012"), ("n2", "345")):
        (pictures / name).mkdir()
        for number in numbers:
            (pictures / f"{number}.jpg").rename(pictures / name / f"{number}.jpg")
    data = packed(pictures, tmp_path / "out", some_coco(tmp_path / "coco.json"))
    assert data.tags == ("n1", "n2")
    assert [len(one.boxes) for one in objects(data, ALL)] == [2, 1, 1, 1, 0, 0]


def test_parts_surveys_and_a_single_call_leave_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    annotations = [instance(n, 100 + n % 6, category_id=7 - n % 9 // 8) for n in range(40)]
    coco = write_coco(tmp_path / "coco.json", [*annotations, instance(99, 777)], 8)
    how = Packing(shard_samples=2, annotations=(coco,))
    ingest(pictures, tmp_path / "one", packing=how, workers=2)
    expected = content(tmp_path / "one")
    assert len(expected[FAULTS].splitlines()) > 3
    for out, surveyed in ((tmp_path / "parts", False), (tmp_path / "surveyed", True)):
        if surveyed:
            survey(pictures, out, packing=how, workers=1)
        for part in (2, 0):
            ingest(pictures, out, packing=how, workers=1, part=(part, 3))
        ingest(pictures, out, packing=how, workers=1)
        assert content(out) | {".lock": b""} == expected | {".lock": b""}


def test_killed_and_run_again_it_leaves_the_same_bytes(pictures: Path, tmp_path: Path) -> None:
    coco = some_coco(tmp_path / "coco.json")
    packed(pictures, tmp_path / "one", coco)
    out = tmp_path / "out"
    slow = """
import time
import hpcscale.ingest.packing as ingest
check = ingest.checked_shard
ingest.checked_shard = lambda *arguments: (time.sleep(0.3), check(*arguments))[1]
from hpcscale.cli import main; main()"""
    command = [
        "data",
        "ingest",
        pictures,
        out,
        "--annotations",
        coco,
        "--shard-samples",
        "2",
        "--workers",
        "1",
    ]
    process = subprocess.Popen([sys.executable, "-c", slow, *map(str, command)])
    until = time.monotonic() + 60
    while not list(out.glob("shard-00000.h5")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "quarantine.jsonl").exists()
    ingest(pictures, out, packing=Packing(shard_samples=2, annotations=(coco,)), workers=1)
    assert content(out) == content(tmp_path / "one")


def test_other_annotations_do_not_go_on(pictures: Path, tmp_path: Path) -> None:
    coco, out = some_coco(tmp_path / "coco.json"), tmp_path / "out"
    how = Packing(shard_samples=2, annotations=(coco,))
    lines = [json.dumps({"image": f"{number}.jpg", "tags": []}) for number in range(6)]
    (pictures / "manifest.jsonl").write_text("\n".join(lines))
    ingest(pictures, out, packing=how, workers=1, part=(0, 2))
    before = content(out)
    with pytest.raises(OptionError, match="annotations was"):
        ingest(pictures, out, packing=Packing(shard_samples=2), workers=1)
    coco.write_text(coco.read_text().replace("60.5", "60.6", 1))
    with pytest.raises(OptionError, match="annotation_digest was"):
        ingest(pictures, out, packing=how, workers=1)
    assert content(out) == before


def test_a_set_without_annotations_says_nothing_of_them(pictures: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"image": f"{number}.jpg", "tags": []}) for number in range(6)]
    (pictures / "manifest.jsonl").write_text("\n".join(lines))
    ingest(pictures, tmp_path / "out", packing=Packing(shard_samples=9), workers=1)
    assert "annotation" not in (tmp_path / "out/plan.json").read_text()
    assert not (tmp_path / "out" / FAULTS).exists()
    with pytest.raises(DataError, match="has no annotations; `hpcscale data ingest --annotations`"):
        objects(open_data(tmp_path / "out"), ALL)


def test_verify_sees_a_flipped_bit(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    packed(pictures, out, some_coco(tmp_path / "coco.json"))
    file, whole = out / "shard-00000.h5", (out / "shard-00000.h5").read_bytes()
    for column in ("original", "boxes", "objects", "areas", "mask_parts", "masks", "keypoints"):
        with h5py.File(file) as shard:
            place = shard[f"annotations/{column}"].id.get_offset()
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        (problem,) = verify(out)
        assert (problem.sample, problem.name) == (0, "0.jpg"), column
        file.write_bytes(whole)
    assert verify(out) == []


def test_verify_sees_a_changed_quarantine_of_annotations(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bad = write_coco(
        tmp_path / "coco.json", [instance(1, 100, bbox=[1, 2, 0, 3]), instance(2, 100), instance(3, 9)], 9
    )
    packed(pictures, out, bad)
    whole = (out / FAULTS).read_bytes()
    assert len(whole.splitlines()) == 5
    for change in (whole.replace(b"coco", b"cocp", 1), whole[:-1] + b" ", whole[:-3], whole + b"{}\n", b""):
        (out / FAULTS).write_bytes(change)
        assert [(one.file, one.problem) for one in verify(out)] == [
            (FAULTS, "does not list what the shards' quarantines list")
        ]
    (out / FAULTS).unlink()
    assert [one.file for one in verify(out)] == [FAULTS]
