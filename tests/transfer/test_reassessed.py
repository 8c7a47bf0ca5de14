"""Accuracy by reassessed labels (ReaL): which picture and class of ImageNet is meant, what is left out."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from judged_runs import evaluated, read, results
from places import PHOTOGRAPHS

from hpcscale.cli import main
from hpcscale.files import FileError
from hpcscale.transfer.reassessed import Reassessed, read_labels, reassess

REAL = PHOTOGRAPHS / "raters" / "real.json"
WNIDS = [f"n{number:08}" for number in range(0, 10_000, 10)]  # rising, as ImageNet's numbers


def run_of(folder: Path, names, predictions, classes=WNIDS, truths=None) -> Path:
    found = results(truths or [0] * len(names), predictions, classes=len(classes))
    return evaluated(folder / "run", found, names, classes=classes)


def name(number: int) -> str:
    return f"val/ILSVRC2012_val_{number:08}.JPEG"


def test_row_44_real_a_prediction_in_the_set_is_right_and_empty_sets_are_left_out(tmp_path: Path) -> None:
    labels = tmp_path / "real.json"
    labels.write_text(json.dumps([[], [7, 5], [3], [999], [1]]))
    names = [name(1), name(2), name(3), name(4), "elsewhere.jpg", name(2)]
    run = run_of(tmp_path, names, [0, 5, 4, 999, 1, 6])
    assert reassess(read(run), labels) == Reassessed(4, 2, 1, 1, 0.5)
    words = ["transfer", "raters", "import", str(run), "--real", str(labels)]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert json.loads(done.stdout)["real"] == Reassessed(4, 2, 1, 1, 0.5)._asdict()
    text = CliRunner().invoke(main, words).stdout
    assert "ReaL        0.5000  of 4 pictures; left out: 1 without a label, 1 of other names" in text


def test_row_44_real_classes_are_numbered_by_wnid_or_a_file(tmp_path: Path) -> None:
    labels, listed = tmp_path / "real.json", tmp_path / "classes.txt"
    labels.write_text(json.dumps([[7], [8]]))
    shuffled = [WNIDS[c] for c in np.random.default_rng(0).permutation(1000).tolist()]
    names = [name(1), name(2)]
    predictions = [shuffled.index(WNIDS[7]), shuffled.index(WNIDS[9])]
    run = run_of(tmp_path, names, predictions, [*shuffled, "thing"])
    assert reassess(read(run), labels).accuracy == 0.5
    run = run_of(tmp_path, names, [1, 1000], [f"class {c}" for c in range(1001)])
    with pytest.raises(FileError, match="0 classes have a wnid as their name, not 1000"):
        reassess(read(run), labels)
    listed.write_text("".join(f"class {1000 - number - 1}\n" for number in range(1000)))
    labels.write_text(json.dumps([[998], [0]]))
    assert reassess(read(run), labels, listed).accuracy == 0.5  # class 1000 is none of ImageNet's
    listed.write_text("class 0\n" * 999 + "class x\n")
    with pytest.raises(FileError, match=r"classes\.txt:1000: no class 'class x'"):
        reassess(read(run), labels, listed)


def test_what_is_no_file_of_labels_or_no_picture_of_imagenet_is_refused(tmp_path: Path) -> None:
    labels = tmp_path / "real.json"
    for text, why in (("{}", "expected a list of lists"), ("[[1], [1000]]", r"picture 1: .* \[1000\]"),
                      ("[3]", "picture 0"), ("[[true]]", "picture 0"), ("[", "not JSON")):  # fmt: skip
        labels.write_text(text)
        with pytest.raises(FileError, match=rf"real\.json: {why}"):
            read_labels(labels)
    labels.write_text("[[1]]")
    with pytest.raises(FileError, match="has 1 pictures, none of the name"):
        reassess(read(run_of(tmp_path, [name(2)], [1])), labels)
    with pytest.raises(FileError, match="no name of a picture holds ILSVRC2012_val_"):
        reassess(read(run_of(tmp_path, ["ILSVRC2012_val_000000011.JPEG"], [1])), labels)


@pytest.mark.skipif(not REAL.is_file(), reason="the reassessed labels are not there")
def test_row_44_real_labels_of_all_pictures(tmp_path: Path) -> None:
    labels = read_labels(REAL)
    assert (len(labels), sum(not each for each in labels), sum(map(len, labels))) == (50_000, 3163, 57_553)
    first = [each[-1] if each else 0 for each in labels[:2000]]
    run = run_of(tmp_path, [name(number) for number in range(1, 2001)], first)
    found = reassess(read(run), REAL)
    assert (found.accuracy, found.judged + found.empty) == (1.0, 2000)
    shifted = run_of(tmp_path, [name(number) for number in range(2, 2002)], first)
    assert reassess(read(shifted), REAL).accuracy < 0.05
