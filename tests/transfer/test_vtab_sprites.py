"""transfer/vtab/sprites.py: position and orientation, measured in the pictures, are those of the labels."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcscale.files import OutputError
from hpcscale.ingest.sources import find_source
from hpcscale.transfer.vtab import bins, sprites
from hpcscale.transfer.vtab.sprites import SHAPES, Factors

SEVERAL = [Factors(shape, scale, k, x, y) for shape in range(3) for scale in (0, 3, 5)
           for k, x, y in ((0, 0, 31), (5, 31, 0), (13, 7, 18), (22, 16, 15), (29, 23, 4), (38, 12, 27))
           ]  # fmt: skip


def moments(pixels: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Mean x and y in pixels from the corner, and the covariance (2, 2), by the brightness."""
    weight = pixels / pixels.sum()
    at = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5))  # x, y
    mean = (weight * at).sum(axis=(1, 2))
    off = at - mean[:, None, None]
    return float(mean[0]), float(mean[1]), np.einsum("yx,ayx,byx->ab", weight, off, off)


def long_axis(covariance: np.ndarray) -> float:
    """Its angle from x to y, modulo pi."""
    return 0.5 * math.atan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1]) % math.pi


def apart(one: float, other: float, period: float) -> float:
    return abs((one - other + period / 2) % period - period / 2)


@pytest.mark.parametrize("of", SEVERAL, ids=lambda of: "-".join(map(str, of)))
def test_row_43_the_mean_of_the_pixels_lies_in_the_bin_of_the_label(of: Factors) -> None:
    x, y, _ = moments(sprites.draw(of))
    # One position is 32 / 31 pixels wide, so an error of half a pixel would be another one.
    assert round((x - 16) * 31 / 32) == of.x
    assert round((y - 16) * 31 / 32) == of.y
    assert bins.dsprites_location(round((x - 16) * 31 / 32)) == of.x // 2
    assert abs(x - of.centre[0]) < 0.05
    assert abs(y - of.centre[1]) < 0.05


@pytest.mark.parametrize("scale", [0, 5])
@pytest.mark.parametrize("k", [*range(0, 40, 3), 39])
def test_row_43_the_long_axis_of_an_ellipse_lies_in_the_bin_of_the_label(k: int, scale: int) -> None:
    _, _, covariance = moments(sprites.draw(Factors(SHAPES.index("ellipse"), scale, k, 9, 20)))
    angle = long_axis(covariance)
    assert apart(angle, 2 * math.pi * k / 39, math.pi) < 0.02
    # An ellipse looks the same after half a turn: one of the two orientations is the label's.
    measured = [round((angle + half) * 39 / (2 * math.pi)) for half in (-math.pi, 0.0, math.pi)]
    assert bins.dsprites_orientation(k) in [
        bins.dsprites_orientation(each) for each in measured if 0 <= each < 40
    ]


@pytest.mark.parametrize("k", range(40))
def test_row_43_a_heart_tells_its_whole_turn(k: int) -> None:
    """Its mirror axis, by third moments: they lead to the lobes, away from the tip."""
    pixels = sprites.draw(Factors(SHAPES.index("heart"), 5, k, 15, 15))
    x, y, _ = moments(pixels)
    off = np.stack(np.meshgrid(np.arange(64) + 0.5 - x, np.arange(64) + 0.5 - y))
    lobes = (pixels * (off**2).sum(axis=0) * off).sum(axis=(1, 2))
    tip = math.atan2(-lobes[1], -lobes[0])  # down, where it is not turned
    turn = (tip - math.pi / 2) % (2 * math.pi) * 39 / (2 * math.pi)
    measured = 39 if k == 39 else round(turn) % 39  # the last orientation is the first
    assert apart(turn, k, 39) < 0.3
    assert bins.dsprites_orientation(measured) == bins.dsprites_orientation(k)


def test_shapes_are_as_large_as_their_scale_and_never_cut() -> None:
    def area(of: Factors) -> float:
        return float(sprites.draw(of).sum()) / 255

    for shape, unit in enumerate((4.0, math.pi * 1.2 * 0.6, 3.66)):
        for scale, size in ((0, 5.0), (5, 10.0)):
            assert area(Factors(shape, scale, 11, 16, 16)) == pytest.approx(unit * size**2, rel=0.02)
        for x, y in ((0, 0), (31, 31), (0, 31)):
            picture = sprites.draw(Factors(shape, 5, 4, x, y))
            assert picture.sum() / 255 == pytest.approx(unit * 100, rel=0.02)


def test_numbers_count_the_factors_as_dsprites_orders_them() -> None:
    assert sprites.TOTAL == 737_280 == 589_824 + 2 * 73_728
    assert sprites.factors(0) == Factors(0, 0, 0, 0, 0)
    assert sprites.factors(1) == Factors(0, 0, 0, 0, 1)
    assert sprites.factors(32) == Factors(0, 0, 0, 1, 0)
    assert sprites.factors(32 * 32 * 40 * 6 + 32 * 32 * 39) == Factors(1, 0, 39, 0, 0)
    assert sprites.factors(sprites.TOTAL - 1) == Factors(2, 5, 39, 31, 31)
    for wrong in (-1, sprites.TOTAL):
        with pytest.raises(ValueError, match=str(wrong)):
            sprites.factors(wrong)


def test_the_seed_alone_says_what_is_drawn(tmp_path: Path) -> None:
    few, many = sprites.numbers(20, 3), sprites.numbers(60, 3)
    assert few.tolist() == many[:20].tolist()
    assert len(set(many.tolist())) == 60
    assert few.tolist() != sprites.numbers(20, 4).tolist()
    assert sprites.numbers(4, 0).tolist() == [373047, 653041, 153477, 372513]
    for folder in ("a", "b", "a"):  # the third finds what it would write
        sprites.write(tmp_path / folder, 20, 3)
    one, other = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab")
    assert one == other
    assert len(one) == 20 + 3
    with pytest.raises(OutputError, match=r"manifest.jsonl: is there already"):
        sprites.write(tmp_path / "a", 21, 3)


def test_the_manifest_says_the_classes_of_both_tasks(tmp_path: Path) -> None:
    manifest = sprites.write(tmp_path / "sprites", 12, 0)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for line in lines:
        of = sprites.factors(int(line["image"].removesuffix(".png")))
        assert Factors(*(line[key] for key in Factors._fields)) == of
        assert line["tags"] == [f"x-{of.x // 2:02d}", f"orientation-{of.orientation * 2 // 5:02d}"]
        with Image.open(tmp_path / "sprites" / line["image"]) as picture:
            assert (np.asarray(picture) == sprites.draw(of)).all()
    records = list(find_source(tmp_path / "sprites").records())
    assert [record.name for record in records] == [line["image"] for line in lines]
    classes = (tmp_path / "sprites" / "dSpr-loc.tsv").read_text().split()
    assert classes == [f"x-{k:02d}" for k in range(16)]
