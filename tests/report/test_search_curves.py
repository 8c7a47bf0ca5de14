"""report/saturation.py: the best score by number of trials, of one search and over the targets of several."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from hpcscale.cli import main
from hpcscale.files import FileError, OutputError
from hpcscale.report import report, saturation, summary
from hpcscale.report.saturation import Point

FIVE = [(0.5, 0.01), (0.6, 0.008), (0.65, 0.004), (0.68, 0.002), (0.7, 0.0)]
EIGHT = [
    (0.1, 0.03),
    (0.2, 0.02),
    (0.3, 0.02),
    (0.4, 0.02),
    (0.5, 0.01),
    (0.5, 0.01),
    (0.6, 0.01),
    (0.7, 0.0),
]


def make_transfer(
    folder: Path, source: str, target: str, curve: list[tuple[float, float]] | None, **more: Any
) -> Path:
    folder.mkdir(parents=True)
    result = {"seed": 0, "metrics": {"top1": 0.5}, "audit": None}
    said = {"format": "hpcscale transfer", "source": source, "target": target, "metric": "top1", "keys": {},
            "method": "search" if curve else "finetune", "results": [result]} | more  # fmt: skip
    (folder / "transfer.json").write_text(json.dumps(said))
    if curve:
        rows = [f"{n},{mean:.6f},{error:.6f}\n" for n, (mean, error) in enumerate(curve, 1)]
        (folder / "curve.csv").write_text("trials,mean,standard_error\n" + "".join(rows))
    return folder


def cells(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} ")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_row_42_the_curve_over_tasks_is_the_mean_of_theirs() -> None:
    found = saturation.mean([[Point(*point) for point in curve] for curve in (FIVE, EIGHT)])
    assert len(found) == 5  # as many as both have
    assert found[0] == (pytest.approx(0.3), pytest.approx(math.sqrt(0.01**2 + 0.03**2) / 2))
    assert found[4] == (pytest.approx(0.6), pytest.approx(0.005))
    assert saturation.mean([[Point(*point) for point in FIVE]]) == FIVE


def test_row_42_the_report_of_a_search_has_its_curve(tmp_path: Path) -> None:
    run = make_transfer(tmp_path / "run", "bit", "DTD", FIVE)
    file = report([run])
    text, figure = file.read_text(), run / "report-curve.png"
    assert "](report-curve.png)" in text
    assert cells(text, "trials") == ["1", "5"]
    assert cells(text, "bit, DTD") == ["0.5000 ± 0.0100", "0.7000 ± 0.0000"]
    assert cells(summary([run]), "bit, DTD") == cells(text, "bit, DTD")
    before = (figure.read_bytes(), file.read_bytes())
    assert Image.open(figure).convert("L").getextrema()[0] < 50
    report([run])
    assert (figure.read_bytes(), file.read_bytes()) == before
    (run / "curve.csv").write_text((run / "curve.csv").read_text().replace("0.500000", "0.400000"))
    report([run])
    assert figure.read_bytes() != before[0]


def test_row_42_several_searches_have_a_curve_for_each_pretraining(tmp_path: Path) -> None:
    runs = [
        make_transfer(tmp_path / "a", "bit", "DTD", FIVE),
        make_transfer(tmp_path / "b", "bit", "Pets", EIGHT),
        make_transfer(tmp_path / "c", "ran|dom", "DTD", EIGHT),
        make_transfer(tmp_path / "d", "bit", "SVHN", None),
    ]
    found = CliRunner().invoke(main, ["report", *map(str, runs)])
    assert found.exit_code == 0, found.output
    text = (tmp_path / "transfers.md").read_text()
    assert (tmp_path / "transfers-curve.png").exists()
    assert "](transfers-curve.png)" in text
    assert cells(text, "bit, 2 targets") == ["0.3000 ± 0.0158", "0.6000 ± 0.0050"]
    assert "| ran\\|dom, DTD" in text
    assert "bit, 2 targets" in found.stdout


def test_a_curve_of_fewer_trials_has_no_later_cells() -> None:
    curves = {"a": [Point(0.1, 0.0)] * 40, "b": [Point(0.2, 0.0)] * 7}
    text = saturation.text(curves)
    assert cells(text, "trials") == ["1", "5", "10", "20", "40"]
    assert cells(text, "b") == ["0.2000 ± 0.0000"] * 2 + ["–"] * 3


def test_other_transfers_have_none(tmp_path: Path) -> None:
    run = make_transfer(tmp_path / "run", "bit", "DTD", None)
    assert "±  its standard error" not in report([run]).read_text()
    assert sorted(path.name for path in run.iterdir()) == ["report.md", "transfer.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("mean", "median"), r"curve\.csv: not what `hpcscale transfer search` wri"),
        (lambda text: text.partition("\n")[0], r"curve\.csv: not what"),
        (lambda text: "", r"curve\.csv: not what"),
        (lambda text: text.replace("\n2,", "\n3,"), r"curve\.csv, line 3: expected 2, a mean and its error"),
        (lambda text: text.replace("0.600000", "nan"), r"curve\.csv, line 3: expected 2"),
        (lambda text: text.replace(",0.004000", ""), r"curve\.csv, line 4: expected 3"),
        (None, r"curve\.csv: not there; type the search again"),
    ],
)
def test_a_damaged_curve_is_named(tmp_path: Path, change: Any, said: str) -> None:
    run = make_transfer(tmp_path / "run", "bit", "DTD", FIVE)
    file = run / "curve.csv"
    text = file.read_text()
    file.unlink()
    if change:
        file.write_text(change(text))
    with pytest.raises(FileError, match=said):
        report([run])
    assert not (run / "report.md").exists()


def test_a_picture_of_another_is_not_replaced(tmp_path: Path) -> None:
    run = make_transfer(tmp_path / "run", "bit", "DTD", FIVE)
    (run / "report-curve.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"report-curve\.png"):
        report([run])
    assert (run / "report-curve.png").read_bytes() == b"mine"
    assert not (run / "report.md").exists()


def test_reports_need_no_torch(tmp_path: Path) -> None:
    run = make_transfer(tmp_path / "run", "bit", "DTD", FIVE)
    code = f"import sys; sys.modules['torch'] = None; from hpcscale.report import report, summary; " \
           f"from pathlib import Path; runs = [Path({str(run)!r})]; report(runs); summary(runs)"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
