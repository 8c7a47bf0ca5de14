"""Rectified accuracy: what raters are asked, how votes are read and refused, and what comes of them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from judged_runs import CLASSES, evaluated, read, results, run_over
from places import PHOTOGRAPHS

from hpcscale.cli import main
from hpcscale.evaluate import metrics
from hpcscale.transfer import raters
from hpcscale.transfer.raters import COLUMNS, VotesError, asked, export, rectify

RATERS = PHOTOGRAPHS / "raters"
TRUTHS = [0, 1, 2, 3, 0, 1, -1, 2, 3, 0]
PREDICTIONS = [0, 1, 2, 0, 1, 3, 2, 2, 3, 3]  # wrong at 3, 4, 5, 9; no truth at 6


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["transfer", "raters", *map(str, words)])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_over(tmp_path_factory.mktemp("rated"), TRUTHS, PREDICTIONS)


def voted(file: Path, found, rater: str, votes: dict[int, str]) -> Path:
    """A file of votes on the places of wrong predictions."""
    lines = asked(found)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([COLUMNS, *([*lines[place], rater, vote] for place, vote in votes.items())])
    return file


def five(folder: Path, found, votes: list[str]) -> list[Path]:
    """Five files; votes: for each wrong prediction the five votes as letters, - for none."""
    words = {"y": "yes", "n": "No ", "-": ""}
    return [
        voted(folder / f"{rater}.csv", found, f"rater {rater}",
              {place: words[row[rater]] for place, row in enumerate(votes)})
        for rater in range(5)
    ]  # fmt: skip


def test_row_44_at_least_four_of_five_votes_make_a_prediction_correct(run: Path, tmp_path: Path) -> None:
    found = read(run)
    files = five(tmp_path, found, ["yyyyy", "yyyyn", "yyynn", "nnnnn"])
    rated = rectify(found, files)
    assert (rated.judged, rated.correct, rated.wrong, rated.rectified, rated.incomplete) == (9, 5, 4, 2, 0)
    assert rated.raw_accuracy == 5 / 9
    assert rated.raw_accuracy == metrics.measure(found.results, np.ones(4))["top1"]
    assert rated.rectified_accuracy == 7 / 9
    assert rated.raters == {f"rater {rater}": 4 for rater in range(5)}
    assert [rectify(found, files, least).rectified for least in (1, 3, 4, 5, 6)] == [3, 3, 2, 1, 0]
    assert rated.agreement == pytest.approx((10 + 6 + 4 + 10) / 40)  # alike of ten pairs of votes each


def test_row_44_incomplete_ones_are_wrong_and_counted(run: Path, tmp_path: Path) -> None:
    found = read(run)
    rated = rectify(found, five(tmp_path, found, ["yyyy-", "yyy--", "-----", "-nn-n"]))
    assert (rated.rectified, rated.incomplete) == (1, 3)
    assert raters.as_json(rated)["upper_bound"] == 9 / 9
    assert rectify(found, []).rectified_accuracy == rated.raw_accuracy
    assert rectify(found, []).incomplete == 4


def test_row_44_rectified_is_never_below_raw(run: Path, tmp_path: Path) -> None:
    found, chance = read(run), np.random.default_rng(0)
    for _ in range(30):
        rated = rectify(found, five(tmp_path, found, ["".join(chance.choice([*"yn-"], 5)) for _ in range(4)]))
        assert rated.raw_accuracy <= rated.rectified_accuracy <= raters.as_json(rated)["upper_bound"] <= 1


@pytest.mark.skipif(not RATERS.is_dir(), reason="the votes of five raters are not there")
def test_row_44_real_votes_of_five_raters(tmp_path: Path) -> None:
    with np.load(RATERS / "golden.npz") as file:
        votes, names = file["tensor"][:, :, 2] > 0, ["/".join(row) for row in file["info"].tolist()]
    n = votes.shape[1]
    run = evaluated(tmp_path / "run", results([0] * n, [1] * n), names)
    found = read(run)
    files = [
        voted(tmp_path / f"{rater}.csv", found, str(rater), dict(enumerate(np.where(row, "yes", "no"))))
        for rater, row in enumerate(votes)
    ]
    counts = [rectify(found, files, least) for least in (4, 3, 5)]
    assert (counts[0].wrong, [each.rectified for each in counts]) == (1135, [201, 248, 138])
    assert [each.incomplete for each in counts] == [0, 0, 0]


def test_row_44_what_is_exported_is_every_wrong_prediction_and_safe(run: Path, tmp_path: Path) -> None:
    made = export(run, tmp_path / "out")
    assert made == (4, [])
    text = (tmp_path / "out" / "votes.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["sample"], row["predicted"], row["truth"]) for row in rows] == [
        ("3", "'=cat", CLASSES[3]), ("4", "dog", "'=cat"), ("5", CLASSES[3], "dog"),
        ("9", CLASSES[3], "'=cat"),
    ]  # fmt: skip
    assert {row["name"] for row in rows} == {"03.jpg", "04.jpg", "05.jpg", "09.jpg"}
    assert {len(row["digest"]) for row in rows} == {len("blake2b-") + 32}
    assert {(row["rater"], row["vote"]) for row in rows} == {("", "")}
    page = (tmp_path / "out" / "page.html").read_text()
    assert "<script>alert" not in page
    assert b'content="hpcscale transfer raters"' in page.encode()[:2000]
    export(run, tmp_path / "out")  # again: the same
    (tmp_path / "out" / "votes.csv").write_text(text.replace('"",""', '"ann","yes"'))
    done = command("export", run, tmp_path / "out")
    assert (done.exit_code, "is there already and differs" in done.stderr) == (2, True)
    assert '"ann","yes"' in (tmp_path / "out" / "votes.csv").read_text()
    assert rectify(read(run), [tmp_path / "out" / "votes.csv"]).raters == {"ann": 4}


def test_pictures_that_are_not_those_evaluated_are_refused(run: Path, tmp_path: Path) -> None:
    other = run_over(tmp_path, TRUTHS, PREDICTIONS, seed=100)
    done = command("export", run, tmp_path / "out", "--data", other.parent / "data")
    assert done.exit_code == 1
    assert "as it was evaluated" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"vote": "maybe"}, "2: vote is 'maybe', allowed: yes, no, or nothing"),
        ({"digest": "blake2b-00"}, "2: a vote of another evaluation: digest is 'blake2b-00'"),
        ({"name": "x.jpg"}, "2: a vote of another evaluation: name is 'x.jpg', in this one '03.jpg'"),
        ({"evaluation": "test-1"}, "2: a vote of another evaluation: evaluation is 'test-1'"),
        ({"predicted": "dog"}, "2: a vote of another evaluation: predicted is 'dog'"),
        ({"sample": "0"}, "2: sample '0' is no wrong prediction of this evaluation"),
    ],
)
def test_a_vote_on_something_else_is_named_with_its_line(run: Path, tmp_path: Path, broken, why) -> None:
    file = voted(tmp_path / "a.csv", read(run), "ann", {0: "yes"})
    (row,) = csv.DictReader(io.StringIO(file.read_text()))
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, (row | broken).values()])
    done = command("import", run, file)
    assert done.exit_code == 1
    assert f"{file}:{why}" in done.stderr


def test_files_that_are_no_votes_and_raters_that_vote_twice_are_refused(run: Path, tmp_path: Path) -> None:
    found = read(run)
    one = voted(tmp_path / "one.csv", found, "ann", {0: "yes", 1: ""})
    two = voted(tmp_path / "two.csv", found, "ann", {1: "yes", 0: "no"})
    with pytest.raises(VotesError, match=r"two\.csv:3: rater 'ann' votes twice on sample 3"):
        rectify(found, [one, two])
    nameless = [voted(tmp_path / f"n{k}.csv", found, " ", {0: "yes"}) for k in range(2)]
    assert rectify(found, nameless).raters == {str(file): 1 for file in nameless}
    with pytest.raises(VotesError, match="votes twice"):
        rectify(found, [nameless[0]] * 2)
    head = ",".join(COLUMNS) + "\n"
    for text, why in (("a;b", "1: the columns are"), (head + "x,y\n", "2: 2 cells, expected 8"),
                      (head + '"', "2: unexpected end")):  # fmt: skip
        one.write_text(text)
        with pytest.raises(VotesError, match=rf"one\.csv:{why}"):
            rectify(found, [one])
    one.write_text("\ufeff" + two.read_text())  # as a spreadsheet saves it
    assert rectify(found, [one]).raters == {"ann": 2}


def test_the_command_prints_json_or_text_and_writes_nothing(run: Path, tmp_path: Path) -> None:
    found = read(run)
    files = five(tmp_path, found, ["yyyyy", "yyyyn", "yyynn", "n----"])
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    done = command("import", run, *files, "--json")
    values = json.loads(done.stdout)
    assert values == {**raters.as_json(rectify(found, files)), "real": None}
    assert (values["raw_accuracy"], values["rectified_accuracy"]) == (5 / 9, 7 / 9)
    text = command("import", run, *files, "--least", 5).stdout
    assert "top-1 accuracy, raw         0.5556" in text
    assert "1 have fewer than 5 votes" in text
    assert command("import", run).exit_code == 2
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
