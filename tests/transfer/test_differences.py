"""Two runs on the same pictures: intervals of paired differences, classes, confusions, what is refused."""

import json
from collections import Counter
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from judged_runs import CLASSES, evaluated, read, results

from hpcscale.cli import main
from hpcscale.files import FileError
from hpcscale.transfer.differences import CONFIDENCE, Z, compare, confusions, paired, wilson


def run_of(folder: Path, truths, predictions, names=None, digests=None) -> Path:
    names = names or [f"{number}.jpg" for number in range(len(truths))]
    return evaluated(folder, results(truths, predictions), names, digests)


def test_row_45_intervals_hold_the_difference_as_often_as_they_state() -> None:
    chance, held, total = np.random.default_rng(0), 0, 0
    for n in (20, 50, 200):  # both right, one alone, the other alone, none
        for shares in ((0.7, 0.15, 0.05, 0.1), (0.3, 0.1, 0.1, 0.5), (0.9, 0.06, 0.02, 0.02)):
            for counts in chance.multinomial(n, shares, 400).tolist():
                found = paired(*counts)
                held += found.low <= shares[1] - shares[2] <= found.high
                total += 1
    assert CONFIDENCE - 0.01 < held / total < 0.985


def test_row_45_the_interval_is_method_10_of_newcombe() -> None:
    """By hand: n = 50, 36 + 12 and 36 + 2 right, so phi is 0 after the correction of 0 <= 36 * 0 - 12 * 2."""
    found = paired(36, 12, 2, 0)
    assert (found.accuracy, found.other, found.difference) == (0.96, 0.76, 0.2)
    l1, u1 = wilson(48, 50)
    l2, u2 = wilson(38, 50)
    phi = (36 * 0 - 12 * 2) / sqrt(48 * 2 * 38 * 12)  # negative: no correction
    below = sqrt((0.96 - l1) ** 2 - 2 * phi * (0.96 - l1) * (u2 - 0.76) + (u2 - 0.76) ** 2)
    above = sqrt((u1 - 0.96) ** 2 - 2 * phi * (u1 - 0.96) * (0.76 - l2) + (0.76 - l2) ** 2)
    assert (found.low, found.high) == (pytest.approx(0.2 - below), pytest.approx(0.2 + above))
    assert (found.low, found.high) == (pytest.approx(0.0569, abs=2e-4), pytest.approx(0.3404, abs=2e-4))
    alike = paired(20, 10, 5, 15)  # 20 * 15 > 10 * 5: the product of both, less n / 2
    (l1, u1), (l2, u2) = wilson(30, 50), wilson(25, 50)
    phi = (20 * 15 - 10 * 5 - 25) / sqrt(30 * 20 * 25 * 25)
    below = sqrt((0.6 - l1) ** 2 - 2 * phi * (0.6 - l1) * (u2 - 0.5) + (u2 - 0.5) ** 2)
    assert alike.low == pytest.approx(0.1 - below)
    likely = paired(6000, 600, 400, 3000)  # many: Wald's interval, whose variance knows of the pairs
    spread = Z * sqrt(1000 - 200**2 / 10_000) / 10_000
    assert likely.low == pytest.approx(0.02 - spread, abs=2e-4)
    assert likely.high == pytest.approx(0.02 + spread, abs=2e-4)
    mirrored = paired(36, 2, 12, 0)
    assert (mirrored.low, mirrored.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
    certain = paired(10, 0, 0, 0)  # both all right: wide, and not of width 0
    assert certain.low < -0.2 < 0 < 0.2 < certain.high
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))


def test_row_45_classes_of_two_runs_are_compared_on_the_same_pictures(tmp_path: Path) -> None:
    truths = [0] * 10 + [1] * 4 + [-1] + [3] * 2
    one = run_of(tmp_path / "one", truths, [0] * 9 + [1] + [1] * 4 + [2] + [3, 0])
    other = run_of(tmp_path / "other", truths, [0] * 4 + [1] * 6 + [1] * 3 + [0] + [2] + [3, 0])
    found = compare(read(one), read(other))
    assert (found.pictures, found.left_out) == (16, 0)
    assert found.whole == paired(8, 6, 0, 2)
    assert list(found.classes) == [CLASSES[0], CLASSES[1], CLASSES[3]]  # the largest difference first
    assert found.classes[CLASSES[0]] == paired(4, 5, 0, 1)
    assert found.classes[CLASSES[1]] == paired(3, 1, 0, 0)
    assert found.classes[CLASSES[3]] == paired(1, 0, 0, 1)
    assert found.apart == sum(each.low > 0 or each.high < 0 for each in found.classes.values())
    back = compare(read(other), read(one))
    assert back.whole.difference == -found.whole.difference
    itself = compare(read(one), read(one))
    assert (itself.whole.difference, itself.apart) == (0, 0)


def test_row_45_pictures_of_one_run_alone_are_left_out(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", [0, 1, 2], [0, 0, 0], ["a", "b", "c"])
    other = run_of(tmp_path / "other", [2, 1], [2, 1], ["c", "b"])
    found = compare(read(one), read(other))
    assert (found.pictures, found.left_out, found.whole) == (2, 1, paired(0, 0, 2, 0))
    with pytest.raises(FileError, match="no picture was evaluated in both"):
        compare(read(one), read(run_of(tmp_path / "x", [0], [0], ["z"])))
    with pytest.raises(FileError, match=r"the truth of 'b' is 'car', in .* it is 'dog'"):
        compare(read(one), read(run_of(tmp_path / "y", [2], [0], ["b"])))
    digests = np.zeros((3, 16), np.uint8)
    seen = run_of(tmp_path / "seen", [0, 1, 2], [0, 0, 0], ["a", "b", "c"], digests)
    digests[1] = 1
    changed = run_of(tmp_path / "changed", [0, 1, 2], [0, 1, 0], ["a", "b", "c"], digests)
    assert (compare(read(seen), read(changed)).pictures, compare(read(one), read(seen)).pictures) == (2, 3)


def test_row_45_confusions_are_the_most_frequent_pairs(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    truths, predictions = chance.integers(-1, 4, 300), chance.integers(0, 4, 300)
    found = confusions(read(run_of(tmp_path, truths.tolist(), predictions.tolist())))
    counted = Counter(
        (CLASSES[t], CLASSES[p]) for t, p in zip(truths, predictions, strict=True) if t >= 0 and t != p
    )
    assert {(each.truth, each.predicted): each.pictures for each in found} == counted
    assert [each.pictures for each in found] == sorted(counted.values(), reverse=True)
    totals = Counter(CLASSES[t] for t in truths if t >= 0)
    assert all(each.share == each.pictures / totals[each.truth] for each in found)


def test_the_command_prints_json_or_tables(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", [0] * 20 + [1], [0] * 20 + [1])
    other = run_of(tmp_path / "other", [0] * 20 + [1], [0] * 2 + [1] * 18 + [0])
    words = ["transfer", "mistakes", str(one), "--against", str(other)]
    values = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert (values["mistakes"], values["confusions"], values["page"]) == (0, [], None)
    against = values["against"]
    assert against["difference"] == 19 / 21
    assert [row["class"] for row in against["classes"]] == ["dog", "=cat"]
    assert (against["apart"], against["expected_apart"]) == (1, pytest.approx(0.1))
    assert against["classes"][1] == {"class": "=cat", **paired(2, 18, 0, 0)._asdict()}
    text = CliRunner().invoke(main, ["transfer", "mistakes", str(other), "--against", str(one)]).stdout
    assert "19 mistakes among 21 pictures" in text
    assert "       18    90.0%  =cat, dog" in text
    assert (
        CliRunner().invoke(main, ["transfer", "mistakes", str(one), "--embeddings", __file__]).exit_code == 2
    )
