"""The raters' page in a headless Chromium: votes given there are a CSV that is read as they were given."""

import pytest
from browser import in_browser
from judged_runs import CLASSES, read, run_over

from hpcscale.transfer.raters import asked, export, read_votes, rectify

TRUTHS = [0, 1, 2, 3, 0, 1]
PREDICTIONS = [1, 0, 3, 0, 0, 2]  # all wrong but the fifth


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_over(tmp_path_factory.mktemp("rated"), TRUTHS, PREDICTIONS)


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    export(run, folder)
    return folder / "page.html"


def enter(chromium, page, name):
    chromium.open(page)
    chromium.type("#reviewer", name)
    chromium.click("#begin")
    chromium.wait("return reviewer")


@in_browser
def test_row_44_votes_of_the_page_are_imported(chromium, page, run):
    enter(chromium, page, '=ann "a", b')
    chromium.press("y", "n", "c", "y", "y", "s")  # c is no answer here
    saved = chromium.downloaded("votes-_ann_a_b.csv")
    assert '"\'=ann ""a"", b"' in saved.read_text()  # what a spreadsheet does not compute
    found = read(run)
    votes = read_votes([saved], asked(found))
    assert votes == {(place, '=ann "a", b'): vote for place, vote in enumerate(["yes", "no", "yes", "yes"])}
    assert rectify(found, [saved], 1).rectified == 3
    assert chromium.text("#count") == "4 of 5 · 3 yes · 1 no"
    chromium.run("localStorage.clear()")
    enter(chromium, page, '=ann "a", b')
    chromium.press("n")
    chromium.type("#file", str(saved))
    note = chromium.wait("return document.getElementById('note').textContent")
    assert note.endswith(".csv: 3 answers taken, 1 newer ones kept.")
    assert chromium.run("return labels.map((_, place) => state(place))") == ["no", "no", "yes", "yes", ""]


@in_browser
def test_the_page_shows_the_prediction_as_text_and_not_the_truth(chromium, page):
    enter(chromium, page, "ann")
    predicted = [CLASSES[c] for c, truth in zip(PREDICTIONS, TRUTHS, strict=True) if c != truth]
    for at, name in enumerate(predicted):
        assert chromium.text("#label") == name
        shown = chromium.run("return document.body.innerText")
        truth = CLASSES[[0, 1, 2, 3, 1][at]]
        assert truth not in shown.replace(name, "")
        assert ".jpg" not in shown  # a name may say the truth
        script = "const i = document.querySelector('#picture img'); return i.decode().then(() => i.width)"
        assert chromium.run(script) > 0
        chromium.press("j")
    assert chromium.run("return document.getElementById('unsure')") is None
    assert "are these predictions right?" in chromium.text("#title")


@in_browser
def test_a_file_that_is_no_votes_changes_nothing(chromium, page, run, tmp_path):
    enter(chromium, page, "ann")
    chromium.press("y", "s")
    good = chromium.downloaded("votes-ann.csv").read_text()
    chromium.press("u")
    file = tmp_path / "votes.csv"
    for text, why in (
        (good.replace('"yes"', '"maybe"'), "line 2: neither yes nor no"),
        (good.replace("blake2b-", "blake2b-0"), "line 2: a vote of another evaluation"),
        (good + "1,2\n", "line 3: not a vote"),
        ("x\n" + good, "line 1: not the columns"),
    ):
        file.write_text(text)
        chromium.run("document.getElementById('note').textContent = ''")
        chromium.type("#file", str(file))
        note = chromium.wait("return document.getElementById('note').textContent")
        assert note.startswith(f"votes.csv: {why}")
        assert chromium.run("return labels.map((_, place) => state(place)).join('')") == ""
