"""The report of a study: means and errors by hand, the papers' line, a forecast or its refusal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hpcscale.cli import main
from hpcscale.study import cells, definition, state

STUDY = """
[axes]
model = ["small", "large"]
size = [{sizes}]
seed = [0, 1]
[stages.probe]
run = "transfer probe {{model}} --config probe.toml --out {{here}} --set a.n={{size}} --set a.s={{seed}}"
[report]
stage = "probe"
metric = "top1"
size = "size"
seeds = "seed"
at = [1_000_000]
"""
FIVE = "1000, 3000, 10_000, 30_000, 100_000"


def top1(at: dict[str, Any]) -> float:
    """Of a made-up cell: a power law with a floor, and seeds that differ by 0.002."""
    floor = {"small": 0.2, "large": 0.1}[at["model"]]
    return float(1 - floor - 10 * at["size"] ** -0.5 + (at["seed"] - 0.5) * 0.002)


def make(folder: Path, sizes: str = FIVE) -> Path:
    """A study whose cells are done, but that of a large model, 1,000 pictures and seed 1."""
    (file := folder / "study.toml").write_text(STUDY.format(sizes=sizes))
    for cell in cells.of_study(definition.load(file), folder).values():
        place = folder / cell.folder
        place.mkdir(parents=True)
        failed = cell.at == {"model": "large", "size": 1000, "seed": 1}
        state.write(cell, folder, 1 if failed else 0, 2.0)
        audit = {"dedup": {"top1": top1(cell.at) - 0.01}, "duplicates": 7 + cell.at["seed"]}
        result = {"seed": 0, "metrics": {"top1": top1(cell.at)}, "audit": audit}
        said = {"format": "hpcscale transfer", "source": "s", "target": "t", "metric": "top1", "keys": {},
                "results": [result]}  # fmt: skip
        (place / "transfer.json").write_text(json.dumps(said))
    return file


def report(file: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["study", "report", str(file), *words])


def cell_of(text: str, row: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} ")]
    return [part.strip() for part in line.strip("|").split("|")]


def test_row_f_the_report_has_means_errors_lines_and_a_forecast(tmp_path: Path) -> None:
    file = make(tmp_path)
    done = report(file)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "study" / "report"
    assert done.stdout.splitlines()[-1] == str(folder / "report.md")
    text = (folder / "report.md").read_text()
    mean = 1 - 0.2 - 10 * 1000**-0.5
    assert cell_of(text, "model=small,size=1000") == [
        "model=small,size=1000", "2", f"{mean:.4f}", "0.0010", f"{mean - 0.01:.4f}", "8",
    ]  # fmt: skip
    assert cell_of(text, "model=large,size=1000")[1] == "1"
    assert "model=large,size=1000,seed=1: failed, exit code 1" in text
    sizes = np.repeat([1e3, 3e3, 1e4, 3e4, 1e5], 2)
    small = [top1({"model": "small", "size": n, "seed": i % 2}) for i, n in enumerate(sizes)]
    slope, intercept = np.polyfit(np.log10(sizes), small, 1)
    assert f"The papers' line, {intercept:.4f} {slope:+.4f} log10(pictures)" in text
    for model, truth in (("small", 0.8 - 0.01), ("large", 0.9 - 0.01)):
        part = text.split(f"### model={model}")[1]
        (said,) = [line for line in part.split("###")[0].splitlines() if "With 1,000,000 pictures" in line]
        estimate, low, high = (float(word.rstrip(",:")) for word in said.split() if word.startswith("0."))
        assert estimate == pytest.approx(truth, abs=0.01)
        assert low < truth < high
    points = (folder / "points.csv").read_text().splitlines()
    assert points[0] == "family,size,value,seed"
    assert len(points) == 1 + 19
    assert (folder / "sizes.svg").read_text().count("<svg") == 1


def test_four_sizes_have_no_forecast_and_the_reason_stands_there(tmp_path: Path) -> None:
    text = report(make(tmp_path, "1000, 3000, 10_000, 30_000")).stdout
    assert text.count("No forecast: 4 different sizes, expected at least 5") == 2
    assert "The papers' line" in text


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    file = make(tmp_path)
    for name in ("one", "other"):
        assert report(file, "--out", str(tmp_path / name)).exit_code == 0
    names = {place.name for place in (tmp_path / "one").iterdir()}
    assert names == {"report.md", "points.csv", "sizes.svg", "sizes.png"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_study_without_a_report_and_a_users_file_are_told(tmp_path: Path) -> None:
    file = make(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.md").write_text("my own\n")
    done = report(file, "--out", str(tmp_path / "mine"))
    assert (done.exit_code, "report.md" in done.stderr) == (2, True), done.output
    assert (tmp_path / "mine" / "report.md").read_text() == "my own\n"
    file.write_text(file.read_text().partition("[report]")[0])
    done = report(file)
    assert (done.exit_code, "has no [report]" in done.stderr) == (2, True), done.output


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('stage = "probe"', 'stage = "prob"'), "report.stage: 'prob' is no stage"),
        (('seeds = "seed"', 'seeds = "sed"'), "report.seeds: 'sed' is no axis of probe"),
        (('size = "size"', 'size = "model"'), "report.size: axes.model must be numbers of pictures"),
        (('size = "size"\n', ""), "report.at: a forecast needs report.size"),
    ],
)
def test_what_no_report_can_tell_is_refused(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    file = make(tmp_path)
    file.write_text(file.read_text().replace(*change))
    done = report(file)
    assert (done.exit_code, named in done.stderr) == (2, True), done.output
