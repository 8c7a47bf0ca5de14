"""Average precision of PASCAL VOC: the published numbers, ties, duplicates, difficult objects."""

import numpy as np
import pytest
from places import PHOTOGRAPHS

from hpcscale.evaluate.voc import Found, Points, Truth, average_precision, evaluate, judge, overlap

SAMPLE = PHOTOGRAPHS / "voc-evaluator"
IOUS = (0.1, 0.3, 0.5, 0.75)


def sample() -> tuple[dict[str, dict[str, Truth]], Found]:
    """Lines of class, perhaps score, x, y, width and height; there, xmax is x + width."""
    truth, pictures, boxes, scores = {}, [], [], []
    for file in sorted((SAMPLE / "gts").glob("*.txt")):
        rows = [line.split()[1:] for line in file.read_text().splitlines()]
        truth[file.stem] = {"object": real([corners(row) for row in rows])}
        for line in (SAMPLE / "dets" / file.name).read_text().splitlines():
            pictures.append(file.stem)
            scores.append(float(line.split()[1]))
            boxes.append(corners(line.split()[2:]))
    return truth, Found(pictures, np.array(boxes), np.array(scores))


def corners(row: list[str]) -> list[float]:
    x, y, width, height = map(float, row)
    return [x, y, x + width, y + height]


def real(boxes: list[list[float]], difficult: tuple[int, ...] = ()) -> Truth:
    return Truth(np.array(boxes, np.float64), np.isin(np.arange(len(boxes)), difficult))


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is not there")
@pytest.mark.parametrize(
    ("points", "published"),
    [
        ("11", [0.3333333333, 0.2683982683, 0.0303030303, 0]),
        ("all", [0.3371980676, 0.2456866804, 0.0222222222, 0]),
    ],
)
def test_row_48_voc_numbers_to_nine_digits(points: Points, published: list[float]) -> None:
    truth, found = sample()
    measured = [evaluate(truth, {"object": found}, iou, points).metrics["mAP"] for iou in IOUS]
    assert measured == pytest.approx(published, abs=5e-10)


def test_row_48_voc_widths_count_the_last_pixel() -> None:
    box = np.array([1.0, 1, 10, 10])
    assert overlap(box, np.array([[1.0, 1, 10, 5], [10, 10, 12, 12], [11, 1, 20, 10]])) == pytest.approx(
        [0.5, 1 / 108, 0]
    )
    assert overlap(box, np.zeros((0, 4))).shape == (0,)


A, B, NOWHERE = [1.0, 1, 10, 10], [101.0, 1, 110, 10], [301.0, 1, 310, 10]


def found(*rows: tuple[str, list[float], float]) -> Found:
    return Found([row[0] for row in rows], np.array([row[1] for row in rows]), np.array([r[2] for r in rows]))


def test_row_48_voc_a_second_detection_of_an_object_is_wrong() -> None:
    truth = {"p": real([A, B])}
    assert judge(truth, found(("p", A, 0.9), ("p", A, 0.8), ("p", B, 0.7)), 0.5).tolist() == [
        True,
        False,
        True,
    ]


def test_row_48_voc_difficult_objects_are_neither_right_nor_wrong() -> None:
    truth = {"p": real([A, B], difficult=(0,))}
    detections = found(("p", A, 0.9), ("p", A, 0.8), ("p", B, 0.7), ("p", NOWHERE, 0.6))
    assert judge(truth, detections, 0.5).tolist() == [True, False]
    measured = evaluate({"p": {"a": truth["p"]}}, {"a": detections})
    assert measured.classes == {"a": 1.0}
    hard = {"p": {"a": real([A], difficult=(0,)), "b": real([B])}}
    assert evaluate(hard, {"a": detections}).classes == {"a": None, "b": 0.0}


def test_row_48_voc_equal_scores_stay_in_their_order() -> None:
    truth = {"p": real([A]), "q": real([B])}
    rows = [("p", NOWHERE, 0.5), ("q", B, 0.5), ("p", A, 0.5), ("q", NOWHERE, 0.9)]
    assert judge(truth, found(*rows), 0.5).tolist() == [False, False, True, True]
    assert judge(truth, found(*rows[::-1]), 0.5).tolist() == [False, True, True, False]


def test_row_48_voc_an_overlap_of_the_threshold_is_enough() -> None:
    half = [1.0, 1, 10, 5]
    assert judge({"p": real([A])}, found(("p", half, 1)), 0.5).tolist() == [True]
    assert judge({"p": real([A])}, found(("p", half, 1)), 0.5000001).tolist() == [False]


def test_row_48_voc_the_best_true_box_is_taken_though_another_is_free() -> None:
    near = [3.0, 1, 12, 10]
    truth = {"p": real([A, near])}
    assert judge(truth, found(("p", A, 0.9), ("p", A, 0.8)), 0.5).tolist() == [True, False]


def test_row_48_voc_both_areas_by_hand() -> None:
    right = np.array([True, False, True, False, False, True])  # precision 1, 2/3, 1/2 at recalls of quarters
    assert average_precision(right, 4) == pytest.approx((1 + 2 / 3 + 1 / 2) / 4)
    assert average_precision(right, 4, "11") == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 1 / 2) / 11)
    assert (
        average_precision(np.zeros(0, np.bool_), 4) == average_precision(np.zeros(0, np.bool_), 4, "11") == 0
    )
    rising = np.array([False, True, True])  # the better precision at a larger recall counts
    assert average_precision(rising, 2) == pytest.approx(2 / 3)


def test_classes_and_pictures_that_are_left_out() -> None:
    truth = {"p": {"a": real([A])}, "q": {"b": real([B])}, "r": {}}
    detections = {"a": found(("p", A, 0.5), ("r", A, 0.9)), "c": found(("r", A, 0.5))}
    everything = evaluate(truth, detections)
    assert everything.classes == {"a": 0.5, "b": 0.0, "c": None}
    assert everything.metrics == {"mAP": 0.25}
    without = evaluate(truth, detections, left_out={"r", "q"})
    assert (without.pictures, without.classes) == (1, {"a": 1.0, "b": None, "c": None})
    assert evaluate(truth, detections, left_out=set(truth)).metrics == {"mAP": None}
