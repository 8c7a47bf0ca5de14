"""The page of label noise: which pictures of which classes are on it, what is refused, what stays."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from demo_runs import APPLES, CLASSES, ODD, ODDS, PEARS, RARE, make

from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.labels.vocabulary import load
from hpcscale.review import noise
from hpcscale.review.clusters import Look
from hpcscale.review.noise import Subset, browse, find_members


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("noise"))


def told(out: Path):
    """What a page knows."""
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', out.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["labels", "noise", *map(str, words)])


def members(run: Path, most: int, *classes: int, order=None):
    data = open_data(run.parent / "data")
    samples = np.arange(data.samples, dtype=np.int64) if order is None else order
    return find_members(
        Subset("train", data, samples, None), load(run.parent / "vocabulary.json"), classes, most
    )


def test_row_10_every_picture_of_a_class_is_found_once_with_its_descendants(run: Path, monkeypatch) -> None:
    for chunk in (1 << 16, 7):
        monkeypatch.setattr(noise, "CHUNK", chunk)
        found = members(run, 1000, *range(len(CLASSES)))
        assert [one.total for one in found.values()] == [APPLES + PEARS, APPLES, PEARS, ODDS, RARE, 0]
        assert found[1].samples.tolist() == list(range(APPLES))
        assert found[0].samples.tolist() == list(range(APPLES + PEARS))
        assert found[5].samples.tolist() == []


def test_row_10_of_many_pictures_a_fixed_sample_is_used(run: Path, monkeypatch) -> None:
    every = open_data(run.parent / "data")
    digests = every.source_digests(np.arange(APPLES, dtype=np.int64))[:, :8].copy().view("<u8")[:, 0]
    for chunk in (1 << 16, 5):
        monkeypatch.setattr(noise, "CHUNK", chunk)
        found = members(run, 9, 1)[1]
        assert (found.total, found.samples.tolist()) == (APPLES, sorted(np.argsort(digests)[:9].tolist()))
    more = members(run, 12, 1)[1]
    assert set(found.samples.tolist()) < set(more.samples.tolist())


def test_row_10_a_page_holds_the_most_frequent_classes(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    found = browse(run, out, look=Look(tiles=1000))
    assert found.classes == ["apple", ODD, "pear"]  # by their own tags; 'rare' has too few
    assert (found.too_few, found.pictures, found.bad) == ([], APPLES + PEARS + ODDS, [])
    page = told(out)
    assert (page["set"], page["run"], page["step"]) == ("train", "run", 7)
    assert [one["name"] for one in page["classes"]] == found.classes
    apple = page["classes"][0]
    assert (apple["total"], apple["used"], sum(apple["clusters"])) == (APPLES, APPLES, APPLES)
    tiles = [tile for one in apple["bins"] for tile in one["tiles"]]
    assert sorted(tile["sample"] for tile in tiles) == list(range(APPLES))  # each once
    assert [tile["distance"] for tile in tiles] == sorted(tile["distance"] for tile in tiles)
    assert {(tile["name"], tile["tags"]) for tile in tiles} == {
        (f"{i:02}.png", "apple") for i in range(APPLES)
    }
    blocks = re.findall(r'<script type="text/plain" id="t\d+">(.*?)</script>', out.read_text(), re.DOTALL)
    assert [len(block.split("\n")) for block in blocks] == [APPLES, ODDS, PEARS]
    assert all(line.startswith("/9j/") for block in blocks for line in block.split("\n"))  # JPEG
    before = out.read_bytes()
    browse(run, out, look=Look(tiles=1000))
    assert out.read_bytes() == before


def test_classes_are_named_on_the_command_line_or_in_a_file(run: Path, tmp_path: Path) -> None:
    result = command(run, "--class", "fruit", "--class", "rare", "--clusters", 2, "--bins", 4, "--most", 30,
                     "--out", tmp_path / "a.html")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "left out, too few pictures: rare" in result.stderr
    assert result.stdout == f"{tmp_path / 'a.html'}: 1 classes, 30 pictures\n"
    (fruit,) = told(tmp_path / "a.html")["classes"]
    assert (fruit["total"], fruit["used"], len(fruit["clusters"]), len(fruit["bins"])) == (44, 30, 2, 4)
    (tmp_path / "classes.txt").write_text("pear\n")
    file = ("--classes", tmp_path / "classes.txt", "--out", tmp_path / "b.html")
    assert command(run, *file).exit_code == 0
    assert [one["name"] for one in told(tmp_path / "b.html")["classes"]] == ["pear"]
    assert command(run, "--class", "pear", *file).exit_code == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--class", "aple"], 1, "no class 'aple'; did you mean 'apple'"),
        (["--class", "nothing"], 1, "no picture of set 'train' has the class 'nothing'"),
        (["--class", "rare"], 1, "no class with the 20 pictures"),
        (["--set", "held_out"], 2, "held_out"),
        (["--set", "validation"], 2, "validation"),
        (["--most", "19"], 2, "at least 20"),
        (["--most", "30", "--clusters", "8"], 2, "at least 32"),
    ],
)
def test_what_cannot_be_shown_is_told(run: Path, tmp_path: Path, words, code: int, message: str) -> None:
    result = command(run, "--out", tmp_path / "page.html", *words)
    assert (result.exit_code, message in result.output) == (code, True), result.output
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_checkpoint_is_told(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    result = command(tmp_path / "run", "--out", tmp_path / "page.html")
    assert (result.exit_code, "no checkpoint there" in result.output) == (1, True)
    assert not (tmp_path / "page.html").exists()


def test_a_file_of_another_is_left_alone(run: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    assert command(run, "--out", tmp_path / "page.html").exit_code == 2
    assert command(run, "--out", run.parent / "data" / "page.html").exit_code == 2
    assert (tmp_path / "page.html").read_text() == "mine"


def test_an_interrupted_page_was_never_there(run: Path, tmp_path: Path) -> None:
    def progress(stage: str, done: int, total: int | None) -> None:
        if stage == "thumbnails":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        browse(run, tmp_path / "page.html", progress=progress)
    assert list(tmp_path.iterdir()) == []
