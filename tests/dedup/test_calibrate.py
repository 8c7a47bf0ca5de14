"""dedup calibrate: planted changes, recall, false pairs, recommended radii, the files it writes."""

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hpcscale.cli import main
from hpcscale.dedup.study import calibrate as module
from hpcscale.dedup.study.calibrate import Curve, calibrate
from hpcscale.dedup.study.planted import TRANSFORMATIONS, plant
from hpcscale.dedup.study.recall import FALSE, upper_bound, write
from hpcscale.ingest.sources import SourceError


def picture(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, one of them twice, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        picture(number).save(folder / f"{number}.png")
    picture(2).save(folder / "again.bmp")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_the_changes_change_what_they_say() -> None:
    image = picture(0)
    draw = np.random.default_rng(0)
    changed = {name: change(image, draw) for name, change in TRANSFORMATIONS.items()}
    assert changed["resize x 0.25"].size == (100, 75)
    assert changed["crop 20 %"].size == (320, 240)
    assert changed["border 5 % black"].size == (430, 330)
    assert changed["rotate by 90"].size == (300, 400)
    pixels = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(changed["flip"]), pixels[:, ::-1])
    grey = np.asarray(changed["grey"])
    assert (grey == grey[:, :, :1]).all()
    top = np.asarray(changed["text"])[:200]
    np.testing.assert_array_equal(top, pixels[:200])
    assert all(other.size != image.size or (np.asarray(other) != pixels).any() for other in changed.values())


def test_recall_false_pairs_and_what_is_left_out(source: Path) -> None:
    found = calibrate(source, samples=100)
    assert found.pictures == 6
    assert found.duplicates == [("2.png", "again.bmp")]
    assert [name for name, _ in found.unreadable] == ["torn.jpg"]
    curves = {curve.method: curve for curve in found.curves}
    assert list(curves) == ["pdq", "pdq, 8 turns", "phash", "dhash"]
    recall = {
        method: dict(zip(TRANSFORMATIONS, curve.recall()[:, curve.default], strict=True))
        for method, curve in curves.items()
    }
    for name in ("JPEG quality 75", "grey"):
        assert all(of[name] == 1 for of in recall.values()), name
    # PDQ samples its pictures without a filter that fits their size, so that resizing costs it many bits.
    assert all(recall[method]["resize x 0.5"] == 1 for method in ("phash", "dhash"))
    for name in ("flip", "rotate by 90"):
        assert recall["pdq"][name] == 0
        assert recall["pdq, 8 turns"][name] == 1
    for curve in found.curves:
        assert curve.pairs == 15
        radius = curve.recommended()
        assert radius is not None
        assert curve.false_pairs[radius] == 0
        assert radius + 1 == len(curve.false_pairs) or curve.false_pairs[radius + 1] > 0
        assert len(curve.closest) == 10
        assert curve.closest == sorted(curve.closest, key=lambda pair: pair[2])


def test_false_pairs_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 3)
    codes = np.random.default_rng(0).integers(0, 256, (11, 1), np.uint64)
    names = [str(row) for row in range(11)]
    counts, closest = module._false_pairs(
        names,
        lambda start: np.bitwise_count(codes[start : start + 3] ^ codes[None, :, 0][0]).astype(np.int64),
        8,
    )
    pairs = sorted(
        (int(np.bitwise_count(codes[i, 0] ^ codes[j, 0])), i, j) for i in range(11) for j in range(i + 1, 11)
    )
    assert counts.tolist() == [sum(distance <= radius for distance, *_ in pairs) for radius in range(9)]
    assert closest == [(names[i], names[j], distance) for distance, i, j in pairs[:10]]


def test_the_recommended_radius_allows_one_in_a_million() -> None:
    def curve(counts: list[int], pairs: int) -> Curve:
        return Curve("pdq", 1, 31, np.zeros((2, 1), np.int64), np.array(counts), pairs, [])

    assert curve([0, 0, 1, 5], 999_999).recommended() == 1
    assert curve([0, 0, 1, 5], 1_000_000).recommended() == 2
    assert curve([0, 0, 1, 5], 5_000_000).recommended() == 3
    assert curve([1, 1], 10).recommended() is None


def test_bounds_of_rates() -> None:
    assert upper_bound(0) == pytest.approx(-math.log(0.05), rel=1e-6)
    assert upper_bound(10) == pytest.approx(16.962, abs=1e-3)  # half the 95 % quantile of chi-square with 22
    assert upper_bound(201) == pytest.approx(upper_bound(200) + 1.06, abs=0.02)


def test_quality_below_the_threshold_is_never_found(tmp_path: Path) -> None:
    """Search leaves such pictures out; a calibration that counted them would promise too much."""
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    Image.new("RGB", (100, 100), "grey").save(tmp_path / "flat.png")
    found = calibrate(tmp_path)
    assert found.pictures == 4
    assert found.low_quality[0] == 1
    assert [len(curve.copies) for curve in found.curves] == [3, 3, 4, 4]


def test_the_command_is_deterministic_whatever_the_workers(source: Path, tmp_path: Path) -> None:
    for name, workers in (("one", "1"), ("two", "2")):
        arguments = [
            "dedup",
            "calibrate",
            str(source),
            str(tmp_path / name),
            "--samples",
            "6",
            "--workers",
            workers,
        ]
        run = CliRunner().invoke(main, arguments)
        assert run.exit_code in (0, 1), run.output
    for file in ("calibration.csv", "calibration.md", "calibration.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    rows = (tmp_path / "one" / "calibration.csv").read_text().splitlines()
    assert rows[0] == "method,transformation,radius,recall,pairs"
    assert any(row.startswith(f"pdq,{FALSE},31,") for row in rows)
    assert (
        plant(str(source / "0.png"), 0, -1, 1, 0, 0).codes
        != plant(str(source / "0.png"), 0, -1, 2, 0, 0).codes
    )


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    with pytest.raises(SourceError, match="two different"):
        calibrate(tmp_path)


def test_curves_end_where_they_should(source: Path, tmp_path: Path) -> None:
    write(calibrate(source, samples=5, seed=3), tmp_path / "out")
    text = (tmp_path / "out" / "calibration.md").read_text()
    assert "drawn with seed 3 from 8" in text
    assert all(f"| {name} |" in text for name in TRANSFORMATIONS)
