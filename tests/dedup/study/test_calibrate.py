"""The study from pictures to files: what it measures and leaves out, and that workers change no byte."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image
from smooth import picture

from hpcscale.cli import main
from hpcscale.dedup.study.calibrate import calibrate
from hpcscale.dedup.study.pages import FALSE
from hpcscale.dedup.study.planted import TRANSFORMATIONS
from hpcscale.ingest.sources import SourceError


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures, one of them twice, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        picture(number).save(folder / f"{number}.png")
    picture(2).save(folder / "again.bmp")
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_recall_false_pairs_and_what_is_left_out(source: Path) -> None:
    found = calibrate(source, None, samples=100)
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


def test_quality_below_the_threshold_is_never_found(tmp_path: Path) -> None:
    """Search leaves such pictures out; a calibration that counted them would promise too much."""
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    Image.new("RGB", (100, 100), "grey").save(tmp_path / "flat.png")
    found = calibrate(tmp_path, None)
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


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "0.png")
    with pytest.raises(SourceError, match="two different"):
        calibrate(tmp_path, None)


def test_curves_end_where_they_should(source: Path, tmp_path: Path) -> None:
    calibrate(source, tmp_path / "out", samples=5, seed=3)
    text = (tmp_path / "out" / "calibration.md").read_text()
    assert "drawn with seed 3 from 8" in text
    assert all(f"| {name} |" in text for name in TRANSFORMATIONS)
