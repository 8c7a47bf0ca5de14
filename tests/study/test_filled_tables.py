"""Tables of the papers filled from run folders: against golden files, with seeds, audits and reasons."""

import csv
import json
import math

import pytest
from click.testing import CliRunner
from filled_runs import audited, detector, run, transfer
from places import GOLDEN

from hpcscale.cli import main
from hpcscale.config import ConfigError
from hpcscale.files import OutputError
from hpcscale.study import assignment, layout, papers, tables
from hpcscale.study.outputs import fill
from hpcscale.transfer.vtab.tasks import TASKS

JFT = "Fine-tune from JFT-300M"


def write(folder, text):
    file = folder / "study.toml"
    file.write_text(text)
    return file


def cells(folder, table, text):
    """(row, column) -> cell of a table that is filled as a file says."""
    assigned = assignment.read(write(folder, text))
    return {(cell.row, cell.column): cell for cell in tables.cells(papers.tables()[table], assigned, {})}


@pytest.fixture
def golden_study(tmp_path):
    transfer(tmp_path / "runs" / "a", [0.78, 0.79], [0.781, 0.789], top5=[0.94, 0.95])
    transfer(tmp_path / "runs" / "b", [0.785], [0.782], top5=[0.945])
    run(tmp_path / "runs" / "short", 7, done=50)
    return write(
        tmp_path,
        '[tables."sun2017-1"]\n"MSRA checkpoint" = "runs/gone_&_lost"\n'
        f'"Random initialization" = ["runs/short"]\n"{JFT}" = ["runs/a", "runs/b"]\n',
    )


@pytest.mark.parametrize("ending", ["md", "csv", "tex"])
def test_row_56_a_filled_table_is_the_one_made_by_hand(golden_study, tmp_path, ending):
    """78, 79 and 78.5: mean 78.5, deviations -.5, .5 and 0, so s = .5 and the standard error .5 / sqrt(3) =
    .2887. Without near-duplicates 78.1, 78.9 and 78.2: mean 78.4, s = sqrt(.19) = .4359, error .2517."""
    fill(golden_study, tmp_path / "out")
    written = tmp_path / "out" / f"sun2017-1.{ending}"
    assert written.read_bytes() == (GOLDEN / "tables" / written.name).read_bytes()


def test_row_56_made_again_a_table_has_the_same_bytes(golden_study, tmp_path):
    files = [file for filled in fill(golden_study, tmp_path / "out") for file in filled.files]
    before = [file.read_bytes() for file in files]
    fill(golden_study, tmp_path / "out")
    assert [file.read_bytes() for file in files] == before
    assert len(files) == 3


def test_row_56_of_seeds_mean_and_standard_error_or_median_and_deviation():
    values = [1.0, 2.0, 6.0]  # mean 3, squared deviations 4 + 1 + 9 = 14, s = sqrt(7)
    assert tables.middle(values, "mean") == 3
    assert tables.spread(values, "mean") == pytest.approx(math.sqrt(7 / 3))
    assert tables.middle(values, "median") == 2
    assert tables.spread(values, "median") == pytest.approx(math.sqrt(7))
    assert tables.spread([5.0], "mean") is None


def test_row_56_the_median_where_the_paper_prints_one(tmp_path):
    for seed, ap in enumerate((0.40, 0.41, 0.45)):
        detector(tmp_path / f"d{seed}", {"AP": ap})
    fill(write(tmp_path, '[tables."kolesnikov2020-3"]\n"BiT-S" = ["d0", "d1", "d2"]'), tmp_path / "out")
    text = (tmp_path / "out" / "kolesnikov2020-3.md").read_text()
    assert "41.00 ± 2.65 / 41.7 / -0.70" in text  # s of 40, 41, 45: sqrt(14 / 2)
    assert "median of seeds ± their standard deviation" in text


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda place: None, "r: no such folder"),
        (lambda place: place.mkdir(), "r: config.json"),
        (lambda place: run(place, 7, done=50), "r: not finished: 50 of 100 steps are in its log"),
        (lambda place: run(place, 7, evaluated=False), "r: not evaluated; `hpcscale evaluate` does it"),
        (lambda place: run(place, 7, which="train"), "r: not evaluated; `hpcscale evaluate` does it"),
        (lambda place: detector(place, {"AP": 0.3}), "r: no number full.top1; there are: AP"),
        (lambda place: detector(place, {}, done=50), "r: not finished: 50 of 100 steps are in its log"),
        (lambda place: detector(place, {}, evaluated=False), "r: not evaluated"),
        (lambda place: transfer(place, [None]), "r: no number full.top1"),
        (lambda place: detector(place, {}) / "config.json", "r: no number full.top1; there are: none"),
    ],
)
def test_row_56_a_number_that_is_not_there_is_a_dash_with_its_reason(tmp_path, make, reason):
    make(tmp_path / "r")
    text = f'[tables."sun2017-1"]\n"{JFT}" = "r"'
    cell = cells(tmp_path, "sun2017-1", text)[JFT, "top-1"]
    assert cell.values == ()
    assert cell.reasons[0].startswith(reason)
    assert str(tmp_path) not in cell.reasons[0]
    fill(tmp_path / "study.toml", tmp_path / "out")
    assert "– / 79.2 / –" in (tmp_path / "out" / "sun2017-1.md").read_text()


def test_row_56_what_is_not_asked_for_says_so_and_what_is_there_counts(tmp_path):
    transfer(tmp_path / "a", [0.5])
    found = cells(tmp_path, "sun2017-1", f'[tables."sun2017-1"]\n"{JFT}" = ["a", "gone"]')
    assert found["MSRA checkpoint", "top-1"].reasons == (tables.UNASSIGNED,)
    assert found[JFT, "top-1"].values == (50.0,)
    assert found[JFT, "top-1"].reasons[0] == "gone: no such folder"


def test_row_56_of_audited_runs_the_numbers_without_near_duplicates(tmp_path):
    """7 of 10 pictures are right; two of the right ones leak: 5 of 8 remain. 3 seeds, of which one leaks."""
    audited(run(tmp_path / "a", 7), ["0.jpg", "1.jpg"])
    found = cells(tmp_path, "sun2017-8", f'[tables."sun2017-8"]\n"{JFT}" = "a"')
    assert found[JFT, "original: top-1"].values == (70.0,)
    assert found[JFT, "original: top-1"].dedup == (62.5,)
    assert found[JFT, "original: top-1"].duplicates == (2,)
    assert found[JFT, "de-duplicated: top-1"].values == (62.5,)
    text = '[tables."mahajan2018-duplicates"]\n"val-IN-50k-1k" = "a"'
    found = cells(tmp_path, "mahajan2018-duplicates", text)
    assert found["val-IN-50k-1k", "duplicates"].values == (2.0,)
    assert found["val-IN-50k-1k", "share"].values == (20.0,)
    run(tmp_path / "b", 7)
    found = cells(tmp_path, "sun2017-8", f'[tables."sun2017-8"]\n"{JFT}" = ["a", "b"]')
    assert found[JFT, "original: top-1"].dedup == ()
    assert found[JFT, "de-duplicated: top-1"].values == (62.5,)
    (reason,) = found[JFT, "de-duplicated: top-1"].reasons
    assert reason == "b: not audited: no near-duplicates were searched (RUN/pairs)"


def test_row_56_pairs_that_cannot_be_read_are_the_reason(tmp_path):
    audited(run(tmp_path / "a", 7), ["0.jpg"])
    (tmp_path / "a" / "pairs" / "validation.tsv").write_text("nonsense")
    found = cells(tmp_path, "sun2017-8", f'[tables."sun2017-8"]\n"{JFT}" = "a"')
    (reason,) = found[JFT, "de-duplicated: top-1"].reasons
    assert reason.startswith("a: not audited: pairs/validation.tsv:1: ")
    assert found[JFT, "original: top-1"].values == (70.0,)
    assert found[JFT, "original: top-1"].reasons == (reason,)


def test_row_56_what_was_held_out_or_evaluated_early_is_told(tmp_path):
    run(tmp_path / "a", 7, which="held_out", step=50)
    cell = cells(tmp_path, "sun2017-1", f'[tables."sun2017-1"]\n"{JFT}" = "a"')[JFT, "top-1"]
    assert cell.values == (70.0,)
    assert cell.reasons == ("a: judged on what was held out of training", "a: evaluated after step 50 of 100")


def test_row_56_columns_of_several_runs_and_rows_of_one(tmp_path):
    detector(tmp_path / "voc", {"mAP": 0.8})
    detector(tmp_path / "seg", {"mIoU": 0.7})
    detector(tmp_path / "coco", {"AP": 0.3}, {"person": 0.5, "bicycle": 0.25})
    found = cells(
        tmp_path, "sun2017-10", '[tables."sun2017-10"."300M"]\n"VOC 2007" = "voc"\n"VOC 2012" = "seg"'
    )
    assert found["300M", "VOC 2007: original"].values == (80.0,)
    assert found["300M", "VOC 2012: original"].values == (70.0,)
    found = cells(tmp_path, "sun2017-14", '[tables."sun2017-14"."*"]\n"300M" = "coco"')
    assert found["person", "300M: AP"].values == (50.0,)
    assert found["bicycle", "300M: AP"].values == (25.0,)
    assert found["person", "ImageNet: AP"].reasons == (tables.UNASSIGNED,)
    assert found["car", "300M: AP"].reasons[0].startswith("coco: no number classes.car; there are: person")
    assert "not AP@.5" in found["person", "300M: AP@.5"].reasons[0]


def test_row_56_average_precision_of_classes_as_in_voc(tmp_path):
    """One cat, found; one dog, of which a box far away is found."""
    place = detector(tmp_path / "voc", {"mAP": 0.5}) / "evaluations" / "validation-00000100"
    boxes = [{"image_id": 0, "category_id": c, "bbox": [10.0 * c, 5.0, 20.0, 20.0]} for c in (1, 2)]
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    rows = [{**box, "difficult": 0} for box in boxes]
    truth = {"images": [{"id": 0}], "categories": names, "annotations": rows, "voc": True}
    (place / "truth.json").write_text(json.dumps(truth))
    wrong = {**boxes[1], "bbox": [200.0, 200.0, 20.0, 20.0]}
    (place / "found.json").write_text(json.dumps([{**box, "score": 0.5} for box in (boxes[0], wrong)]))
    found = cells(tmp_path, "sun2017-3", '[tables."sun2017-3"]\n"300M" = "voc"')
    assert found["300M", "cat"].values == (100.0,)
    assert found["300M", "dog"].values == (0.0,)
    assert found["300M", "mean"].values == (50.0,)
    assert found["300M", "bus"].reasons[0].startswith("voc: no number voc.bus; there are: cat, dog")
    (place / "found.json").write_text("[7]")
    found = cells(tmp_path, "sun2017-3", '[tables."sun2017-3"]\n"300M" = "voc"')
    assert "was damaged" in found["300M", "cat"].reasons[0]


def test_row_56_the_score_of_vtab_is_over_all_tasks(tmp_path):
    """Task k has (k + 1) / 40 from seed 0 and .1 more from seed 1: means of 10 / 40 and .35."""
    names = []
    for place, task in enumerate(TASKS):
        share = (place + 1) / 40
        transfer(tmp_path / f"t{place}", [share, share + 0.1], task=task.name)
        names.append(f"t{place}")
    text = f'[tables."kolesnikov2020-2"."BiT-S"]\n"VTAB-1k" = {json.dumps(names)}'
    found = cells(tmp_path, "kolesnikov2020-2", text)
    assert found["BiT-S", "VTAB-1k"].values == pytest.approx((25.0, 35.0))
    found = cells(tmp_path, "kolesnikov2020-2", text.replace('"t3", ', ""))
    assert found["BiT-S", "VTAB-1k"].values == ()
    assert found["BiT-S", "VTAB-1k"].reasons == (f"no seed has all tasks of VTAB; missing: {TASKS[3].name}",)
    found = cells(tmp_path, "kolesnikov2020-2", text.replace("t3", "gone"))
    assert found["BiT-S", "VTAB-1k"].reasons[0] == "gone: no such folder"


def test_row_56_another_metric_than_the_table_s_own(tmp_path):
    run(tmp_path / "a", 8)
    text = f'[tables."sun2017-1"]\n"{JFT}" = "a"\n[metrics."sun2017-1"]\n"top-1" = "full.map100"'
    assert cells(tmp_path, "sun2017-1", text)[JFT, "top-1"].values == (40.0,)


def test_row_56_no_character_is_a_command_of_latex():
    assert layout.latex(r"50% of a_b & {c} #1 $x$ ^ ~ \n") == (
        r"50\% of a\_b \& \{c\} \#1 \$x\$ \textasciicircum{} \textasciitilde{} \textbackslash{}n"
    )
    assert layout.latex("1 ± 2 – <3|") == r"1 $\pm$ 2 -- \textless{}3\textbar{}"
    assert layout.latex("a\nb") == r"a\textbackslash{}nb"


def test_row_56_no_cell_of_a_csv_is_a_formula(tmp_path):
    fill(write(tmp_path, f'[tables."sun2017-1"]\n"{JFT}" = "=cmd"'), tmp_path / "out")
    with (tmp_path / "out" / "sun2017-1.csv").open(newline="") as stream:
        reasons = [row["reason"] for row in csv.DictReader(stream)]
    assert "'=cmd: no such folder" in reasons


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no table and no figure"),
        ("x = 1", "x: unknown key; known are tables, figures, metrics"),
        ("tables = 1", "tables"),
        ('[tables."sun2017-99"]', "no table 'sun2017-99'; there are: sun2017-1, "),
        ('[tables."sun2017-1"]\nother = "a"', "no row 'other'; there are: MSRA checkpoint, "),
        ('[tables."sun2017-1"."*"]\nother = "a"', "no column 'other'; there are: top-1, top-5"),
        ('[tables."sun2017-1"]\n"*" = ["a", "a"]', "'a' stands there twice"),
        ('[tables."sun2017-1"]\n"*" = []', "names no folder"),
        ('[tables."sun2017-1"]\n"*" = "\\u0000"', "is no path"),
        ('[tables."sun2017-1"]\n"*" = 7', "tables.sun2017-1.*"),
        ('[tables."sun2017-1"]\n[metrics."sun2017-1"]\nother = "a"', "no column 'other'"),
        ('[tables."sun2017-1"]\n[metrics."sun2017-1"]\n"top-1" = "top1"', "'top1' is no metric PART.NAME"),
        ('[figures."sun2017-99"]', "no figure 'sun2017-99'; there are: sun2017-3, "),
        ('[figures."sun2017-5"."300M"]\n"ResNet-50" = { x = "a", y = "b" }', "expected a folder or several"),
        ('[figures."kolesnikov2020-s5".JFT]\nR50x1 = "a"', "expected { x = RUNS, y = RUNS }"),
        ('[figures."sun2017-5"."300M"]\n"ResNet-50" = []', "names no folder"),
        ('[figures."sun2017-5"."300M"]\n"ResNet-9" = "a"', "places are: ResNet-50, ResNet-101, ResNet-152"),
        ('[figures."sun2017-4-coco"."x"]\n"30000000" = "a"', "write 30M"),
        ('[figures."sun2017-classes"."x"]\n"30M" = "a"', "no place '30M'; there are: 1K ImageNet, 18K JFT"),
    ],
)
def test_row_56_what_cannot_be_meant_is_refused_by_name(tmp_path, text, said):
    with pytest.raises(ConfigError) as error:
        fill(write(tmp_path, text), tmp_path / "out")
    assert said in str(error.value)
    assert "study.toml" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_row_56_nothing_of_a_user_or_a_run_is_written_over(golden_study, tmp_path):
    with pytest.raises(OutputError):
        fill(golden_study, tmp_path / "runs" / "a" / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sun2017-1.tex").write_text("mine")
    with pytest.raises(OutputError):
        fill(golden_study, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["sun2017-1.tex"]


def test_row_56_the_command_lists_tables_and_tells_what_is_missing(golden_study, tmp_path):
    printed = CliRunner().invoke(main, ["papers", "fill", str(golden_study), str(tmp_path / "out")])
    assert printed.exit_code == 0, printed.output
    assert "sun2017-1: 2 numbers, 4 missing" in printed.output
    assert "MSRA checkpoint: runs/gone_&_lost: no such folder" in printed.output
    listed = json.loads(CliRunner().invoke(main, ["papers", "tables", "--json", "--paper", "sun2017"]).output)
    (first,) = [table for table in listed if table["table"] == "sun2017-1"]
    assert first["rows"][JFT]["top-1"] == {"printed": "79.2", "value": 79.2, "remark": ""}
    assert first["columns"][0] == {"column": "top-1", "unit": "%", "metric": "full.top1"}
    text = CliRunner().invoke(main, ["papers", "tables"]).output
    assert [name for name in papers.tables() if f"{name}  " not in text] == []
