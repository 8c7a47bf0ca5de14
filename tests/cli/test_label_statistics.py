"""`hpcscale labels stats` and `noise` as scripts use them: keys, files, messages and exit codes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hpcscale.cli import main, statistics
from hpcscale.config import SETS
from hpcscale.ingest.packing import ingest

TREE = "food\nfruit\tfood\napple\tfruit\n=pear\tfruit\n"
TAGS = [["apple"], ["apple", "=pear"], ["apple", "stone"], ["stone"], ["=pear"], ["fruit"], ["apple"]]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["labels", *map(str, arguments)])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and vocabulary.json."""
    folder = tmp_path_factory.mktemp("packed")
    source = folder / "pictures"
    source.mkdir()
    lines = []
    for i, tags in enumerate(TAGS):
        pixels = np.random.default_rng(i).integers(0, 255, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((24, 24)).save(source / f"{i}.jpg")
        lines.append(json.dumps({"image": f"{i}.jpg", "tags": tags}) + "\n")
    (source / "manifest.jsonl").write_text("".join(lines))
    (folder / "tree.tsv").write_text(TREE)
    ingest(source, folder / "data", workers=1)
    data, tree = folder / "data", folder / "tree.tsv"
    assert run("build", folder / "vocabulary.json", "--data", data, "--parents", tree).exit_code == 0
    return folder


def stats(packed: Path, *more: object) -> Result:
    return run("stats", packed / "vocabulary.json", "--data", packed / "data", *more)


def test_row_10_stats_has_the_keys_that_scripts_read(packed: Path) -> None:
    result = stats(packed, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["samples"], found["unlabelled"]) == (7, 1)
    keys = {"classes": 4, "below_20": 4, "below_100": 4, "depth": 2}
    assert {key: found[key] for key in keys} == keys
    assert found["labels_per_picture"] == pytest.approx(7 / 6)  # apple 4, =pear 2, fruit 1
    assert found["labels_per_picture_closed"] == pytest.approx((3 + 4 + 3 + 3 + 2 + 3) / 6)
    shares = np.array([4, 2, 1]) / 7
    assert found["entropy"] == pytest.approx(-(shares * np.log2(shares)).sum())
    even = json.loads(stats(packed, "--json", "--sampling", "uniform", "--method", "two-stage").stdout)
    assert even["entropy"] > found["entropy"]
    assert even["sampling"] == {"name": "uniform", "method": "two-stage", "threshold": None}
    assert found["distributions"] != even["distributions"]


def test_row_10_stats_tells_what_a_selection_and_noise_change(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("apple\n=pear\n")
    (tmp_path / "two.toml").write_text(f'classes = "{tmp_path / "two.txt"}"\n')
    chosen = ("--selection", tmp_path / "two.toml")
    found = json.loads(stats(packed, *chosen, "--json").stdout)
    assert (found["samples"], found["labelled"], found["unlabelled"]) == (7, 5, 2)
    assert (found["classes"], found["whole"]["classes"]) == (2, 4)
    assert found["whole"] == {key: json.loads(stats(packed, "--json").stdout)[key] for key in found["whole"]}
    # apple 4/6, =pear 2/6 of the labels, where they were 4/7 and 2/7, and fruit 1/7
    assert found["moved"] == pytest.approx(1 / 7)
    # Where every label is replaced by another class, and there are two, they change places.
    noisy = json.loads(stats(packed, *chosen, "--noise", 1, "--json").stdout)
    assert noisy["noise"] == 1
    before, after = ({one["class"]: one["samples"] for one in each["own"]["top"]} for each in (found, noisy))
    assert (before, after) == ({"apple": 4, "=pear": 2}, {"apple": 2, "=pear": 4})
    (tmp_path / "half.toml").write_text("size = 3\n")
    half = json.loads(stats(packed, "--selection", tmp_path / "half.toml", "--json").stdout)
    assert (half["labelled"], half["unlabelled"], half["whole"]["labelled"]) == (3, 1, 6)
    table = stats(packed, "--selection", tmp_path / "half.toml").stdout
    assert "0.5 of the labelled samples are selected." in table
    assert "whole" not in json.loads(stats(packed, "--json").stdout)


def test_what_does_not_fit_together_is_told(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("sise = 3\n")
    for words in (["--selection", tmp_path / "wrong.toml"], ["--selection", tmp_path / "none.toml"],
                  ["--threshold", "0.1"], ["--noise", "1.5"]):  # fmt: skip
        result = stats(packed, *words)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "wrong.toml" in stats(packed, "--selection", tmp_path / "wrong.toml").stderr


def test_row_10_stats_writes_a_folder_again_and_again(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = stats(packed, "--out", out)
    assert result.exit_code == 0, result.output
    assert "| samples without a class, left out      |    1 |" in result.stdout
    written = {file.name: file.read_bytes() for file in out.iterdir()}
    assert sorted(written) == ["classes.csv", "frequency.png", "labels.png", "stats.json", "stats.md"]
    assert json.loads(written["stats.json"])["classes"] == 4
    with (out / "classes.csv").open(newline="") as stream:
        rows = {row["class"]: row for row in csv.DictReader(stream)}
    assert [rows["apple"][key] for key in ("own", "closed", "depth")] == ["4", "4", "2"]
    assert [rows["fruit"][key] for key in ("own", "closed", "depth")] == ["1", "6", "1"]
    assert "'=pear" in rows  # a spreadsheet would compute it
    assert stats(packed, "--out", out).exit_code == 0
    assert {file.name: file.read_bytes() for file in out.iterdir()} == written


@pytest.mark.parametrize("name", ["classes.csv", "frequency.png", "labels.png", "stats.json", "stats.md"])
def test_stats_leaves_files_of_others_alone(packed: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    result = stats(packed, "--out", tmp_path)
    assert (result.exit_code, str(tmp_path / name) in result.output) == (2, True)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: "mine"}


def test_stats_writes_into_no_data_set(packed: Path) -> None:
    assert stats(packed, "--out", packed / "data").exit_code == 2
    assert not (packed / "data" / "stats.md").exists()


def test_the_sets_of_noise_are_those_of_a_configuration() -> None:
    assert statistics.SETS == SETS
