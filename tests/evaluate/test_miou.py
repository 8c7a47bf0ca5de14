"""Mean intersection over union: by hand, over all pictures, and what of files is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import PHOTOGRAPHS

from hpcscale.evaluate import miou
from hpcscale.evaluate.measured import ResultsError

SAMPLE = PHOTOGRAPHS / "segmentation-sample" / "SegmentationClass"


def picture(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.uint8)


def test_row_48_miou_by_hand() -> None:
    truth = picture([0, 0, 1, 1], [0, 2, 255, 1])
    found = picture([0, 1, 1, 1], [0, 0, 7, 3])
    measured = miou.measure(miou.count(truth, found), 1)
    assert measured.classes == {"0": 2 / 4, "1": 2 / 4, "2": 0.0, "3": 0.0}  # 7 stands where nothing counts
    assert measured.metrics == {"mIoU": pytest.approx(1 / 4), "accuracy": 4 / 7}


def test_row_48_miou_is_of_all_pictures_together() -> None:
    first = miou.count(picture([0] * 99 + [1]), picture([0] * 100))
    second = miou.count(picture([1] * 100), picture([1] * 100))
    together = miou.measure(first + second, 2)
    assert together.classes == {"0": 99 / 100, "1": 100 / 101}
    assert together.metrics["mIoU"] != np.mean([miou.measure(m, 1).metrics["mIoU"] for m in (first, second)])
    assert first.dtype == np.int64


def test_row_48_miou_without_a_pixel_that_counts() -> None:
    nothing = miou.measure(miou.count(picture([255]), picture([3])), 1)
    assert (nothing.classes, nothing.metrics) == ({}, {"mIoU": None, "accuracy": None})


@pytest.mark.skipif(not SAMPLE.is_dir(), reason=f"{SAMPLE} is not there")
def test_row_48_miou_of_real_pictures(tmp_path: Path) -> None:
    """The truth against itself, and against itself without one class, from a palette to grey."""
    for file in SAMPLE.glob("*.png"):
        values = miou.read(file)
        Image.fromarray(np.where(values == 15, 0, values).astype(np.uint8)).save(tmp_path / file.name)
    perfect = sum(counts for _, counts in miou.read_counts(miou.find(SAMPLE, SAMPLE)))
    assert miou.measure(perfect, 3).metrics == {"mIoU": 1.0, "accuracy": 1.0}
    matrix = sum(counts for _, counts in miou.read_counts(miou.find(SAMPLE, tmp_path)))
    classes = miou.measure(matrix, 3).classes
    assert classes.pop("15") == 0
    background = perfect[0, 0] / (perfect[0, 0] + perfect[15, 15])
    assert classes.pop("0") == pytest.approx(background)
    assert set(classes.values()) == {1.0}
    pixels = sum(int((miou.read(file) != 255).sum()) for file in SAMPLE.glob("*.png"))
    assert matrix.sum() == pixels


def saved(folder: Path, name: str, image: Image.Image) -> None:
    folder.mkdir(exist_ok=True)
    image.save(folder / name)


def test_pictures_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    truth, results = tmp_path / "truth", tmp_path / "results"
    saved(truth, "a.png", Image.new("L", (4, 3), 1))
    saved(truth, "b.png", Image.new("P", (4, 3), 1))
    saved(results, "a.png", Image.new("L", (4, 3), 1))
    with pytest.raises(ResultsError, match=r"b\.png: is missing, as 1 of 2 results are"):
        miou.find(truth, results)
    for image, named in (
        (Image.new("L", (3, 4), 1), "found 3 x 4 pixels; allowed: 4 x 3"),
        (Image.new("RGB", (4, 3)), "found mode RGB"),
        (Image.new("L", (4, 3), 255), "found 12 pixels of 255"),
    ):
        saved(results, "b.png", image)
        with pytest.raises(ResultsError, match=rf"b\.png: {named}"):
            list(miou.read_counts(miou.find(truth, results)))
    (results / "b.png").write_bytes(b"no picture")
    with pytest.raises(ResultsError, match=r"b\.png: cannot be read"):
        list(miou.read_counts(miou.find(truth, results)))
    with pytest.raises(ResultsError, match=r"found no \.png"):
        miou.find(tmp_path / "nowhere", results)
