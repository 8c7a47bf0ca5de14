"""The page of mistakes: which are on it, in which order, how sure, and beside which training pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from judged_runs import CLASSES, embedded, packed, read, run_over

from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.files import FileError, OutputError
from hpcscale.transfer.mistakes import Neighbours, confidences, gallery

TRUTHS = [0, 1, 2, 3, 0, 1, -1, 2]
PREDICTIONS = [1, 1, 0, 0, 3, 2, 2, 2]  # wrong at 0, 2, 3, 4, 5
SCORES = np.random.default_rng(0).normal(0, 2, (8, 4)).round(2)
SCORES[np.arange(8), PREDICTIONS] = SCORES.max(1) + np.arange(8) / 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_over(tmp_path_factory.mktemp("judged"), TRUTHS, PREDICTIONS, scores=SCORES)


def told(out: Path):
    """What a page knows."""
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', out.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["transfer", "mistakes", *map(str, words)])


def test_row_45_every_mistake_is_on_the_page_prediction_first_surest_first(run: Path, tmp_path: Path) -> None:
    done = command(run, tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "page.html: 5 mistakes, 5 pictures" in done.stdout
    page = told(tmp_path / "page.html")
    shown = {
        page["names"][at]: (page["classes"][predicted], page["classes"][truth], sure)
        for at, (predicted, truth, sure, _) in enumerate(page["mistakes"])
    }
    chances = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)
    assert shown == {
        f"{row:02}.jpg": (
            CLASSES[PREDICTIONS[row]], CLASSES[TRUTHS[row]], pytest.approx(chances[row].max(), abs=1e-5)
        )
        for row in (0, 2, 3, 4, 5)
    }  # fmt: skip
    assert [each[2] for each in page["mistakes"]] == sorted(
        (each[2] for each in page["mistakes"]), reverse=True
    )
    assert (page["score"], page["judged"], page["among"], page["all"]) == ("softmax", 7, 4, 4)
    text = (tmp_path / "page.html").read_text()
    blocks = re.findall(r'<script type="text/plain" id="t\d+">(.*?)</script>', text, re.DOTALL)
    lines = [line for block in blocks for line in block.split("\n")]
    assert [line[:5] for line in lines] == ["/9j/4"] * 5
    assert "<script>alert" not in text
    gallery(run, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == text


def test_row_45_confidence_is_the_loss_own_probability_and_unknown_if_not_kept(run: Path) -> None:
    found, rows = read(run), [0, 2, 3, 4, 5]
    best = SCORES.max(1)[rows]
    assert confidences(found, "logistic") == pytest.approx(1 / (1 + np.exp(-best)), abs=1e-6)
    assert confidences(found, "softmax") == pytest.approx(
        np.exp(best) / np.exp(SCORES[rows]).sum(1), abs=1e-6
    )
    lacking = found.results._replace(classes=found.results.classes[:, 1:], scores=found.results.scores[:, 1:])
    assert np.isnan(confidences(found._replace(results=lacking), "softmax")).all()
    few = found.results._replace(classes=found.results.classes[:, :2], scores=found.results.scores[:, :2])
    assert (confidences(found._replace(results=few), "softmax") > confidences(found, "softmax")).all()


def near_of(page) -> dict[str, list[tuple[str, float]]]:
    """Name of a mistake -> names of its neighbours, and cosines."""
    names = page["names"]
    return {names[at]: [(names[i], c) for i, c in each[3]] for at, each in enumerate(page["mistakes"])}


def test_row_45_the_nearest_training_pictures_are_those_of_the_largest_cosine(run: Path, tmp_path) -> None:
    data, chance = open_data(run.parent / "data"), np.random.default_rng(1)
    other = packed(tmp_path / "other", {f"t{n:02}.jpg": f"tag {n}" for n in range(12)}, 50)
    a, b = chance.normal(size=(8, 6)), chance.normal(size=(12, 6))
    test, training = embedded(tmp_path / "a.h5", data, a), embedded(tmp_path / "b.h5", other, b)
    where = Neighbours(test, training, tmp_path / "other" / "data", 2)
    made = gallery(run, tmp_path / "page.html", neighbours=where)
    page = told(tmp_path / "page.html")
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b)]
    cosines = unit[0] @ unit[1].T
    for row in (0, 2, 3, 4, 5):
        best = np.argsort(-cosines[row])[:2]
        found = near_of(page)[f"{row:02}.jpg"]
        assert [name for name, _ in found] == [f"t{n:02}.jpg" for n in best]
        assert [c for _, c in found] == pytest.approx(cosines[row, best], abs=2e-6)
    trained = page["names"][5:]
    assert page["tags"] == [f"tag {int(name[1:3])}" for name in trained]
    assert made.pictures == 5 + len(set(trained))
    with pytest.raises(FileError, match=r"b\.h5: not of .*; say with --pictures"):
        gallery(run, tmp_path / "page.html", neighbours=Neighbours(test, training))
    with pytest.raises(FileError, match=r"b\.h5: not of .*, whose pictures were evaluated"):
        gallery(run, tmp_path / "page.html", neighbours=Neighbours(training, test))
    strange = embedded(tmp_path / "c.h5", other, b, "another network")
    with pytest.raises(FileError, match="made by other networks"):
        gallery(run, tmp_path / "page.html", neighbours=where._replace(training=strange))


def test_row_45_what_was_evaluated_is_no_training_picture(tmp_path: Path) -> None:
    run = run_over(tmp_path, [0, 1, 2, 3], [1, 1, 0, 3])
    data = open_data(tmp_path / "data")
    folder = run / "evaluations" / "validation-00000007"
    file = embedded(tmp_path / "a.h5", data, np.random.default_rng(0).normal(size=(4, 3)))
    gallery(run, tmp_path / "page.html", neighbours=Neighbours(file, file))
    assert near_of(told(tmp_path / "page.html")) == {"00.jpg": [], "02.jpg": []}
    folder.rename(folder.with_name("train-00000007"))  # of set train, only the picture itself is left out
    gallery(run, tmp_path / "page.html", neighbours=Neighbours(file, file))
    found = near_of(told(tmp_path / "page.html"))
    assert {name: {other for other, _ in each} for name, each in found.items()} == {
        "00.jpg": {"01.jpg", "02.jpg", "03.jpg"}, "02.jpg": {"00.jpg", "01.jpg", "03.jpg"}
    }  # fmt: skip


def test_files_of_others_stay_and_other_pictures_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        gallery(run, tmp_path / "page.html")
    assert command(run, run.parent / "data" / "page.html").exit_code == 2
    other = run_over(tmp_path / "other", TRUTHS, PREDICTIONS, seed=100)
    done = command(run, tmp_path / "new.html", "--data", other.parent / "data")
    assert (done.exit_code, "as it was evaluated" in done.stderr) == (1, True)
    done = command(tmp_path, tmp_path / "new.html")
    assert (done.exit_code, "no evaluation of set" in done.stderr) == (1, True)
    assert not (tmp_path / "new.html").exists()
