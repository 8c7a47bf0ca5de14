"""COCO's numbers of boxes, masks and key points: the published ones, and those of pycocotools."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
from places import PHOTOGRAPHS
from pycocotools import mask as peer_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.results import made_up
from hpcscale.evaluate import coco
from hpcscale.evaluate.measured import ResultsError

SAMPLE = PHOTOGRAPHS / "coco-sample"
TRUTH = SAMPLE / "evaluator" / "instances_val2014_100.json"
BOXES = SAMPLE / "evaluator" / "instances_val2014_fakebbox100_results.json"
MASKS = SAMPLE / "evaluator" / "instances_val2014_fakesegm100_results.json"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is not there")
PUBLISHED = {
    "boxes": ".50458 .69697 .57298 .58563 .51940 .50140 .38681 .59368 .59535 .63981 .56642 .56429",
    "masks": ".31955 .56229 .29893 .38737 .31018 .32693 .26823 .41545 .41684 .46945 .37676 .38147",
}


def numbers(measured: Any) -> list[float]:
    """As COCO prints them."""
    return [-1.0 if value is None else value for value in measured.metrics.values()]


def peer(
    truth: dict[str, Any], results: list[dict[str, Any]], kind: coco.Kind, ids: list[int] | None = None
) -> Any:
    """pycocotools, after its summary."""
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO()
        loaded.dataset = copy.deepcopy(truth)
        loaded.createIndex()
        evaluation = COCOeval(loaded, loaded.loadRes(copy.deepcopy(results)), coco.TYPES[kind])
        if ids is not None:
            evaluation.params.imgIds = ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@needs_sample
@pytest.mark.parametrize(("kind", "results"), [("boxes", BOXES), ("masks", MASKS)])
def test_row_48_the_published_numbers_to_five_digits(kind: coco.Kind, results: Path) -> None:
    found = coco.evaluate(TRUTH, results, kind)
    assert [f"{value:.5f}"[1:] for value in numbers(found)] == PUBLISHED[kind].split()
    assert list(found.metrics) == [
        "AP",
        "AP50",
        "AP75",
        "APs",
        "APm",
        "APl",
        "AR1",
        "AR10",
        "AR100",
        "ARs",
        "ARm",
        "ARl",
    ]
    assert found.pictures == 100


@needs_sample
def test_row_48_pictures_without_a_detection_count() -> None:
    """99 of the 100 have one; without the last, the number is the .50699 that many print."""
    detected = {row["image_id"] for row in json.loads(BOXES.read_bytes())}
    others = {row["id"] for row in json.loads(TRUTH.read_bytes())["images"]} - detected
    assert len(others) == 1
    assert coco.evaluate(TRUTH, BOXES, "boxes").metrics["AP"] == pytest.approx(0.50458, abs=5e-6)
    assert coco.evaluate(TRUTH, BOXES, "boxes", others).metrics["AP"] == pytest.approx(0.50699, abs=5e-6)


@pytest.mark.parametrize("seed", range(3))
def test_row_48_random_boxes_are_as_by_pycocotools(seed: int) -> None:
    truth, results = made_up(60, 500, 700, classes=7, seed=seed)
    truth["categories"].append({"id": 9, "name": "never there"})
    measured, by_peer = coco.evaluate(truth, results, "boxes"), peer(truth, results, "boxes")
    assert numbers(measured) == pytest.approx(by_peer.stats, abs=1e-12)
    of_class = by_peer.eval["precision"][:, :, :, 0, -1].mean((0, 1))
    assert [-1 if value is None else value for value in measured.classes.values()] == pytest.approx(of_class)
    assert measured.classes["never there"] is None
    left_out = set(range(1, 60, 3))
    kept = sorted(set(range(1, 61)) - left_out)
    without = numbers(coco.evaluate(truth, results, "boxes", left_out))
    assert without == pytest.approx(peer(truth, results, "boxes", kept).stats, abs=1e-12)
    assert without != numbers(measured)


def one_class(boxes: dict[int, list[list[float]]]) -> dict[str, Any]:
    """Annotations: picture -> true boxes."""
    rows = [(image, box) for image, of in boxes.items() for box in of]
    return {
        "images": [{"id": image, "width": 1000, "height": 1000} for image in boxes],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, (image, box) in enumerate(rows, 1)
        ],
    }


def detected(*rows: tuple[int, list[float], float]) -> list[dict[str, Any]]:
    return [{"image_id": i, "category_id": 1, "bbox": box, "score": score} for i, box, score in rows]


def test_row_48_an_overlap_of_a_threshold_counts_as_it_does_for_coco() -> None:
    """Overlaps are the thresholds of np.linspace, of which the one of 0.9 is a bit less."""
    thresholds = np.linspace(0.5, 0.95, 10)
    assert thresholds[8] < 0.9
    truth = one_class({n: [[0, 0, 1, 1]] for n in range(1, 11)})
    widths = thresholds.tolist()
    boxes = np.array([[0, 0, width, 1] for width in widths])
    overlaps = peer_mask.iou(boxes, np.array([[0.0, 0, 1, 1]]), [0])
    assert overlaps[8] == thresholds[8]
    results = detected(*((n, [0, 0, width, 1], 0.5) for n, width in enumerate(widths, 1)))
    found = numbers(coco.evaluate(truth, results, "boxes"))
    assert found == pytest.approx(peer(truth, results, "boxes").stats, abs=1e-12)
    assert found[8] == pytest.approx((overlaps >= thresholds).mean())  # recall


def test_row_48_a_perfect_result_is_a_bit_less_than_one() -> None:
    """COCO adds np.spacing(1) to the number of detections."""
    found = coco.evaluate(one_class({1: [[0, 0, 9, 9]]}), detected((1, [0, 0, 9, 9], 0.5)), "boxes")
    assert 1 - 1e-15 < (found.metrics["AP"] or 0) < 1


def test_row_48_equal_scores_stay_in_their_order() -> None:
    """Right, then wrong, is better than wrong, then right, with the same score."""
    truth = one_class({1: [[0, 0, 100, 100]], 2: [[0, 0, 100, 100]]})
    right, wrong = [0.0, 0, 100, 100], [500.0, 500, 100, 100]
    for first, second in ((right, wrong), (wrong, right)):
        results = detected((1, first, 0.5), (1, second, 0.5))
        found = numbers(coco.evaluate(truth, results, "boxes"))
        assert found == pytest.approx(peer(truth, results, "boxes").stats, abs=1e-12)
        assert found[0] == pytest.approx(51 / 101 * (1 if first is right else 0.5))


def test_row_48_recall_thresholds_are_those_of_coco() -> None:
    """Recalls of n / 100 meet each of the 101 places, two of five of which are no decimals."""
    truth = one_class({n: [[0, 0, 100, 100]] for n in range(1, 101)})
    boxes = [[0.0, 0, 100, 100], [500.0, 500, 100, 100]]
    rows = [(n, boxes[wrong], 1 - (2 * n + wrong) / 1000) for n in range(1, 101) for wrong in (0, 1)]
    results = detected(*rows)
    found = numbers(coco.evaluate(truth, results, "boxes"))
    assert found == pytest.approx(peer(truth, results, "boxes").stats, abs=1e-12)
    hits = np.arange(1, 101)
    best = np.maximum.accumulate((hits / (2 * hits - 1))[::-1])[::-1]
    places = np.searchsorted(hits / 100, np.linspace(0, 1, 101), side="left")
    assert found[0] == pytest.approx(best[places].mean(), abs=1e-12)


def persons(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Made-up persons and detected poses, some of which are far off, with equal scores among them."""
    random = np.random.default_rng(seed)
    truth = one_class({n: [] for n in range(1, 31)})
    results = []
    for n in range(1, 101):
        image, side = int(random.integers(1, 31)), float(random.uniform(40, 300))
        points = random.uniform(0, side, (17, 2)) + random.uniform(0, 600, 2)
        seen = random.integers(0, 3, 17) * (n % 10 > 0)
        truth["annotations"].append(
            {"id": n, "image_id": image, "category_id": 1, "iscrowd": int(n % 17 == 0), "area": side**2 * 0.6,
             "bbox": [*points.min(0).tolist(), side, side], "num_keypoints": int((seen > 0).sum()),
             "keypoints": np.column_stack([points, seen]).ravel().tolist()}
        )  # fmt: skip
        for _ in range(random.integers(0, 3)):
            moved = points + random.normal(0, side * random.choice([0.02, 0.1, 0.5]), (17, 2))
            keypoints = np.column_stack([moved, np.ones(17)]).ravel().tolist()
            score = float(random.integers(1, 20)) / 20
            results.append({"image_id": image, "category_id": 1, "keypoints": keypoints, "score": score})
    return truth, results


@pytest.mark.parametrize("seed", range(3))
def test_row_48_key_points_are_as_by_pycocotools(seed: int) -> None:
    truth, results = persons(seed)
    found = coco.evaluate(truth, results, "keypoints")
    assert numbers(found) == pytest.approx(peer(truth, results, "keypoints").stats, abs=1e-12)
    assert " ".join(found.metrics) == "AP AP50 AP75 APm APl AR AR50 AR75 ARm ARl"
    assert 0.05 < (found.metrics["AP"] or 0) < 0.95


@needs_sample
def test_row_48_real_key_points_and_masks_found_again_are_perfect() -> None:
    file = SAMPLE / "person_keypoints.json"
    rows = json.loads(file.read_bytes())["annotations"]
    again = [{**row, "score": 0.5} for row in rows if row["num_keypoints"] and not row["iscrowd"]]
    assert coco.evaluate(file, again, "keypoints").metrics["AP"] == pytest.approx(1)
    again = [{**row, "score": 0.5} for row in rows if not row["iscrowd"]]
    assert coco.evaluate(file, again, "masks").metrics["AP"] == pytest.approx(1)


def shapes() -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """True polygons, polygons found, and the same as codes, as text and as lists."""
    truth = one_class({1: [[10, 10, 300, 300], [400, 400, 30, 30]], 2: [[10, 10, 60, 60]]})
    for row in truth["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    found = [
        (1, [[10, 10, 300, 20, 290, 320, 0, 300]], 0.9),
        (1, [[400, 400, 425, 400, 425, 430, 400, 430], [600, 600, 604, 600, 604, 604]], 0.8),
        (2, [[400, 400, 620, 400, 620, 620]], 0.95),
        (2, [[10, 10, 70, 10, 70, 70, 12, 70]], 0.3),
    ]
    polygons, codes = [], []
    for number, (image, polygon, score) in enumerate(found):
        code = peer_mask.merge(peer_mask.frPyObjects(polygon, 1000, 1000))
        other: dict[str, Any] = {"size": [1000, 1000], "counts": code["counts"].decode()}
        if number == 1:
            other["counts"] = runs(hotcoco.mask.decode(code))
        record = {"image_id": image, "category_id": 1, "score": score}
        polygons.append({**record, "segmentation": polygon})
        codes.append({**record, "segmentation": other})
    return truth, polygons, codes


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs of 0 and 1, column by column."""
    flat = np.concatenate([[0], mask.ravel("F"), [2]])
    ends = np.flatnonzero(np.diff(flat.astype(int)))
    return np.diff(ends, prepend=0).tolist()


def test_row_48_polygons_and_both_codes_are_the_same_masks() -> None:
    truth, polygons, codes = shapes()
    compressed = copy.deepcopy(codes)
    for row in compressed:
        row["segmentation"] = peer_mask.merge([peer_mask.frPyObjects(row["segmentation"], 1000, 1000)]) if (
            isinstance(row["segmentation"]["counts"], list)
        ) else row["segmentation"]  # fmt: skip
    expected = peer(truth, compressed, "masks").stats
    for results in (polygons, codes, compressed):
        assert numbers(coco.evaluate(truth, results, "masks")) == pytest.approx(expected, abs=1e-12)
    assert expected[3] != expected[0]  # the areas of wrong ones count


def test_a_box_beside_a_mask_does_not_give_its_area() -> None:
    truth, polygons, _ = shapes()
    boxed = [{**row, "bbox": [0, 0, 900, 900]} for row in polygons]
    assert coco.evaluate(truth, boxed, "masks") == coco.evaluate(truth, polygons, "masks")


def test_nothing_found_and_nothing_kept() -> None:
    truth = one_class({1: [[0, 0, 100, 100]]})
    nothing = coco.evaluate(truth, [], "boxes")
    assert (nothing.metrics["AP"], nothing.metrics["APs"], nothing.pictures) == (0, None, 1)
    left = coco.evaluate(truth, detected((1, [0, 0, 100, 100], 0.5)), "boxes", {1})
    assert left.pictures == 0
    assert set(left.metrics.values()) == {None}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t["annotations"][0].update(image_id=9), "annotation 1: 'image_id': found 9"),
        (lambda t: t["annotations"][0].update(category_id=9), "annotation 1: 'category_id': found 9"),
        (lambda t: t["annotations"][0].pop("area"), "annotation 1: 'area': found None"),
        (lambda t: t["annotations"].append(t["annotations"][0]), "duplicate annotation id"),
        (
            lambda t: t["annotations"][0].update(bbox=[1, 2, 3]),
            "no annotations in COCO's format",
        ),
        (lambda t: t["annotations"][0].pop("bbox"), "annotation 1: 'bbox': found None"),
        (
            lambda t: t["annotations"][0].update(bbox=[1, 2, -3, 4]),
            "annotation 1: 'bbox': found [1.0, 2.0, -3.0, 4.0]",
        ),
        (lambda t: t.pop("images"), "'images': found none"),
        (lambda t: t["images"][0].update(id=2**53), "'images': found id 9007199254740992"),
        (lambda t: t["categories"].append({"id": 2, "name": "thing"}), "'thing' is the name of two"),
    ],
)
def test_annotations_that_would_count_otherwise_are_refused(change: Any, named: str) -> None:
    truth = one_class({1: [[0, 0, 100, 100]]})
    change(truth)
    with pytest.raises(ResultsError, match=named.replace("[", r"\[")):
        coco.read(truth, [], "boxes")


def test_true_masks_and_key_points_are_checked() -> None:
    truth = shapes()[0]
    truth["annotations"][1]["segmentation"] = [[1, 2, 3, 4]]
    with pytest.raises(ResultsError, match="record 1: 'segmentation': found a polygon of 4 numbers"):
        coco.read(truth, [], "masks")
    with pytest.raises(ResultsError, match="annotation 1: 'keypoints': found 0 numbers; allowed: 51"):
        coco.read(truth, [], "keypoints")
