"""Options that are numbers: what is none, or beyond all sense, is wrong usage, and nothing is made."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hpcscale.cli import main
from hpcscale.data.codes import Codes, write_codes
from hpcscale.pairs import PairsError, read_pairs

HUGE = str(10**20)
DIGITS = "1" * 5000
OPTIONS = {
    "data ingest in out": ("--resize", "--workers", "--shard-samples", "--quality", "--part"),
    "data show in": ("--count",),
    "data plan file": ("--ranks", "--steps", "--bandwidth"),
    "dedup hash in out": ("--workers", "--part"),
    "dedup search file": ("--radius", "--min-quality", "--cosine", "--neighbours", "--threads", "--part"),
    "dedup embed in out --checkpoint in": ("--batch",),
    "dedup calibrate in out": ("--samples", "--seed", "--workers"),
    "dedup drop file --side a --out out": ("--radius",),
    "dedup gallery file out --a in": ("--limit",),
    "labels build out --data in": ("--top",),
    "labels classes file --out out": ("--most",),
    "train out --config file": ("--ranks",),
    "evaluate in": ("--ranks", "--batch"),
    "submit": ("--nodes", "--ranks-per-node"),
}
CASES = [(words, option) for words, options in OPTIONS.items() for option in options]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    codes = np.zeros((1, 4), np.uint64)
    write_codes(tmp_path / "file", Codes(["a"], codes, np.full(1, 100, np.uint8), "pdq"))
    return tmp_path


@pytest.mark.parametrize(("words", "option"), CASES, ids=lambda value: value.split(" in")[0])
def test_numbers_beyond_sense_are_wrong_usage(place: Path, words: str, option: str) -> None:
    before = sorted(file.name for file in place.rglob("*"))
    values = ["x", "nan", "inf", "-inf", "1e400", "-1", DIGITS]
    if (words[:10], option) != ("dedup drop", "--radius"):  # which may be any finite number
        values.append(HUGE)
    if option == "--part":
        values = [f"0/{value}" for value in values] + ["1/1", "0/0", "-1/2", "١/٢", f"{HUGE}/{HUGE}"]
    elif option == "--cosine":
        values.remove("-1")
    for value in values:
        result = CliRunner().invoke(main, [*words.split(), f"{option}={value}"])
        assert result.exit_code == 2, (value[:50], result.output)
        assert len(result.output) < 12_000
    assert sorted(file.name for file in place.rglob("*")) == before


@pytest.mark.parametrize(
    "text", ["9" * 400, "9" * 5000, "1e999", "nan", "inf", "-inf", "1_000", "", "1 2", "0x1", "٣", "--1"]
)
def test_distances_that_are_no_numbers(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text(f"a\tb\t1\na\tb\t{text}\n")
    with pytest.raises(PairsError, match=r"pairs\.tsv:2: distance .* is (not a number|too large)") as caught:
        list(read_pairs(file))
    assert len(str(caught.value)) < 300


def test_distances_that_are(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    texts = ["0", "31", "0.25", "1e-3", "-0.000001", ".5"]
    file.write_text("".join(f"a\tb\t{text}\n" for text in texts))
    found = [pair.distance for pair in read_pairs(file)]
    assert found == [0, 31, 0.25, 0.001, -1e-6, 0.5]
    assert [type(value) for value in found[:3]] == [int, int, float]
