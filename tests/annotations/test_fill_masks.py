"""Masks as pixels: polygons against a slow oracle, run lengths, compressed counts, other sizes."""

import json

import numpy as np
import pytest
from annotated import HEIGHT, RLE, SQUARE, WIDTH
from places import PHOTOGRAPHS

from hpcscale.annotations.masks import counts_of, draw_masks, fill_polygon, resize_nearest, unpack
from hpcscale.annotations.objects import Rle, no_objects

EVALUATOR = PHOTOGRAPHS / "coco-sample" / "evaluator"


def slowly(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each pixel's centre by itself: how many edges does a ray to the left of it cross?"""
    out = np.zeros(size, np.uint8)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, inside = column + 0.5, row + 0.5, False
            for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                if (y1 <= y < y2) or (y2 <= y < y1):
                    inside ^= bool(x1 + (y - y1) * ((x2 - x1) / (y2 - y1)) <= x)
            out[row, column] = inside
    return out


@pytest.mark.parametrize("seed", range(20))
def test_a_polygon_is_the_pixels_whose_centres_lie_inside(seed: int) -> None:
    draw = np.random.default_rng(seed)
    polygon = draw.uniform(-8, 20, (int(draw.integers(3, 9)), 2))
    if seed % 4 == 0:
        polygon = np.round(polygon * 2) / 2  # points on centres and edges of pixels
    assert (fill_polygon(polygon, (9, 14)) == slowly(polygon, (9, 14))).all()


def test_a_rectangle_has_its_own_area_wherever_it_lies() -> None:
    filled = fill_polygon(np.array(SQUARE).reshape(-1, 2), (HEIGHT, WIDTH))
    assert filled[2:8, 2:12].all()
    assert filled.sum() == 60
    assert fill_polygon(np.array([[-9, -9], [90, -9], [90, 90], [-9, 90]]), (3, 4)).all()
    for far in (-1e300, 100.0):
        assert not fill_polygon(np.array([[far, far], [far, far + 5], [far + 9, far]]), (3, 4)).any()
    shifted = [
        fill_polygon(np.array(SQUARE).reshape(-1, 2) + at, (HEIGHT, WIDTH)).sum() for at in (0.3, 0.5, 0.7)
    ]
    assert shifted == [60, 60, 60]


def test_run_lengths_go_down_the_columns() -> None:
    mask = unpack(Rle(counts_of(RLE["counts"], (HEIGHT, WIDTH)), (HEIGHT, WIDTH)))
    assert mask[:, 20].all()
    assert mask.sum() == HEIGHT


def test_compressed_counts() -> None:
    """Of COCO's own description: five bits a character, differences from the fourth number on."""
    text = "".join(map(compressed, [600, 30, 570]))
    assert counts_of(text, (30, 40)).tolist() == [600, 30, 570]
    runs = [5, 70, 5, 10, 1110]
    text = "".join(map(compressed, [5, 70, 5, 10 - 70, 1110 - 5]))
    assert counts_of(text, (30, 40)).tolist() == runs


def compressed(number: int) -> str:
    text = ""
    while True:
        code, number = number & 31, number >> 5
        done = (number == 0 and not code & 16) or (number == -1 and code & 16)
        text += chr(48 + (code if done else code | 32))
        if done:
            return text


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([600, 30], "630 pixels, not 30 x 40"),
        ([600, -30, 630], "whole numbers"),
        ([600.0, 600], "whole numbers"),
        ([True, 1199], "whole numbers"),
        (None, "whole numbers"),
        ("\n", "no run-length code"),
        ("o" * 60, "no run-length code"),
        ("`", "no run-length code"),
        ("0", "0 pixels"),
    ],
)
def test_counts_that_are_none(counts: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        counts_of(counts, (30, 40))


def test_the_masks_of_a_picture_at_its_size() -> None:
    objects = no_objects((HEIGHT, WIDTH), 0, listed=True)
    square = np.array(SQUARE).reshape(-1, 2)
    rle = Rle(np.array(RLE["counts"]), (HEIGHT, WIDTH))
    drawn = draw_masks(objects._replace(masks=[None, rle, [square, square + 15]]))
    assert drawn.sum(axis=(1, 2)).tolist() == [0, HEIGHT, 120]
    small = draw_masks(
        objects._replace(size=(HEIGHT // 2, WIDTH // 4), masks=[rle._replace(counts=rle.counts)])
    )
    assert small.shape == (1, 15, 10)
    assert small.sum() == 0  # column 20 is not at the centre of four
    assert resize_nearest(np.arange(12).reshape(3, 4), (6, 2)).tolist()[::2] == [[1, 3], [5, 7], [9, 11]]


@pytest.mark.skipif(not EVALUATOR.exists(), reason=f"{EVALUATOR} is not there")
def test_the_masks_of_coco_have_the_areas_that_it_states() -> None:
    found = json.loads((EVALUATOR / "instances_val2014_100.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in found["images"]}
    ratios = []
    for one in found["annotations"]:
        size, mask = sizes[one["image_id"]], one["segmentation"]
        if isinstance(mask, dict):
            rows, columns = np.nonzero(unpack(Rle(counts_of(mask["counts"], size), size)))
            x, y, width, height = one["bbox"]
            corners = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            assert np.abs(np.array(corners) - [x, y, x + width, y + height]).max() <= 1
        else:
            drawn = np.zeros(size, np.uint8)
            for polygon in mask:
                drawn |= fill_polygon(np.array(polygon, np.float64).reshape(-1, 2), size)
            ratios.append(drawn.sum() / one["area"])
    assert len(ratios) == 830
    assert abs(np.mean(ratios) - 1) < 1e-3
    assert abs(np.median(ratios) - 1) < 1e-3
