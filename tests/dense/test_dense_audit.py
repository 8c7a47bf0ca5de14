"""The leak audit of boxes and of classes of pixels: planted duplicates, from the pictures to the report."""

import json
from pathlib import Path
from typing import Any

import annotated
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.dense import findings, truths
from hpcscale.evaluate import evaluations, kept, leaks, miou
from hpcscale.evaluate.kept import Records
from hpcscale.files import FileError
from hpcscale.text import shown

SIZE = (120, 160)  # height and width
TRAINED, TESTED, PLANTED = 4, 5, (1, 3)  # pictures; those of the test set that are training pictures again
BOX = (11, 21, 90, 80)  # VOC's corners of the dog of each picture
STEP = 10


def command(*words: object) -> str:
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result.stdout


def pictures(folder: Path, seeds: list[int], quality: int, prefix: str = "") -> None:
    """Smooth pictures 0.jpg, 1.jpg, ... after a prefix; those of a seed are the same but for the quality."""
    folder.mkdir(parents=True)
    for number, seed in enumerate(seeds):
        pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
        image = Image.fromarray(pixels).resize(SIZE[::-1], Image.Resampling.BICUBIC)
        image.save(folder / f"{prefix}{number}.jpg", quality=quality)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train`, `test` and the pairs between them; test is in VOC's layout, boxes and class maps."""
    folder = tmp_path_factory.mktemp("audited")
    pictures(folder / "train-pictures", list(range(TRAINED)), 95, "t")
    seeds = [number if number in PLANTED else 100 + number for number in range(TESTED)]
    pictures(folder / "VOC" / "JPEGImages", seeds, 70)
    hard = {0: 1}  # this dog is difficult
    xml = {str(n): [annotated.voc_object("dog", BOX, hard.get(n, 0))] for n in range(TESTED)}
    annotated.write_voc(folder / "VOC" / "Annotations", xml, SIZE)
    for number in range(TESTED):
        values = np.zeros(SIZE, np.uint8)
        values[20:80, 10:90], values[:2] = 1, miou.IGNORE
        annotated.write_map(folder / "VOC" / "Maps", str(number), values)
    words = ("--annotations", folder / "VOC" / "Annotations", "--annotations", folder / "VOC" / "Maps")
    command("data", "ingest", folder / "VOC" / "JPEGImages", folder / "test", *words, "--workers", "1")
    for name in ("train-pictures", "test"):
        command("dedup", "hash", folder / name, folder / f"{name}.h5", "--workers", "1")
    pairs = folder / "pairs.tsv"
    command("dedup", "search", folder / "train-pictures.h5", folder / "test.h5", "--min-quality", "0",
            "--out", pairs)  # fmt: skip
    assert sorted(line.split("\t")[1] for line in pairs.read_text().splitlines()) == ["1.jpg", "3.jpg"]
    return folder


def found_boxes() -> Records:
    """Right on planted pictures and on 2, where another box is surer; wrong elsewhere."""
    left, top, right, bottom = BOX
    right_box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
    rows = [(n, right_box if n in (*PLANTED, 2) else [0, 90, 20, 20], 0.9 - n / 10) for n in range(TESTED)]
    rows.append((2, [100, 0, 20, 20], 0.75))
    return [{"image_id": n, "category_id": 1, "bbox": box, "score": score} for n, box, score in rows]


def found_maps(folder: Path) -> Records:
    """Right on planted pictures, half of the dog elsewhere."""
    records = []
    for number in range(TESTED):
        truth = miou.read(folder / "VOC" / "Maps" / f"{number}.png")
        guess = np.where(truth == miou.IGNORE, 0, truth).astype(np.uint8)
        if number not in PLANTED:
            guess[:, 50:] = 0
        (folder / "maps").mkdir(exist_ok=True)
        Image.fromarray(guess).save(folder / "maps" / f"{number}.png")
        true, predicted = np.nonzero(matrix := miou.count(truth, guess))
        cells = np.stack([true, predicted, matrix[true, predicted]], axis=1).tolist()
        records.append({"image_id": number, "confusion": cells, findings.MAP: findings.png(guess)})
    return records


def run_of(folder: Path, run: Path, kind: kept.Kind, found: Records) -> Path:
    """A run whose evaluation found these."""
    data = open_data(folder / "test")
    truth = None if kind == "segmentation" else truths.of_data(data, np.arange(TESTED))
    measured = kept.measure(kind, truth, found)
    place = findings.folder_of(run, "validation", STEP)
    findings.save(place, "validation", STEP, data, kind, truth, measured, found)
    section = {"segmenter": {"name": "deeplab"}} if kind == "segmentation" else {"detector": {"name": "d"}}
    (run / "config.json").write_text(json.dumps({"train": {"steps": STEP}} | section))
    (run / "log.jsonl").write_text('{"event": "step", "step": 10, "loss": 1.0}\n')
    return run


def of_files(folder: Path, out: Path, *words: object) -> dict[str, Any]:
    """What evaluate-results says of the same in files, with the list that `dedup drop` makes."""
    command("dedup", "drop", folder / "pairs.tsv", "--side", "b", "--out", out / "drop.txt")
    said: dict[str, Any] = json.loads(
        command("evaluate-results", *words, "--drop", out / "drop.txt", "--json")
    )
    return said


def test_planted_duplicates_of_a_detectors_test_set(made: Path, tmp_path: Path) -> None:
    run = run_of(made, tmp_path / "run", "boxes", found_boxes())
    said = json.loads(command("dedup", "audit", run, "--pairs", made / "pairs.tsv", "--json"))
    assert (said["samples"], said["duplicates"], said["side"], said["pictures"]) == (5, 2, "b", "checked")
    assert (said["full"]["samples"], said["dedup"]["samples"]) == (5, 3)
    # By falling score: 0, which is difficult, is not found: wrong; 1 right, 2's other box wrong, 2 and 3
    # right, 4 wrong. So 3 of 4 dogs that count are found, with a precision of at most 3/5. Without 1 and 3:
    # one of two, with 1/3.
    assert said["full"]["mAP"] == pytest.approx((3 / 5) * 3 / 4)
    assert said["dedup"]["mAP"] == pytest.approx((1 / 3) / 2)
    assert said["dups"]["mAP"] == 1.0
    assert said["delta"]["mAP"] == pytest.approx(said["dedup"]["mAP"] - said["full"]["mAP"])
    assert said["dedup"]["AP50"] < said["full"]["AP50"]
    assert said["lower_bound"] == {}
    corners = [
        {"image": str(row["image_id"]), "class": "dog", "score": row["score"],
         "bbox": [x + 1, y + 1, x + width, y + height]}
        for row in found_boxes() for x, y, width, height in [row["bbox"]]
    ]  # fmt: skip
    (results := tmp_path / "results.json").write_text(json.dumps(corners))
    annotations = made / "VOC" / "Annotations"
    files = of_files(made, tmp_path, "--kind", "voc", "--annotations", annotations, "--results", results)
    assert files["original"]["metrics"]["mAP"] == pytest.approx(said["full"]["mAP"], abs=1e-12)
    assert files["without_near_duplicates"]["metrics"]["mAP"] == pytest.approx(said["dedup"]["mAP"])


def test_planted_duplicates_of_a_segmenters_test_set(made: Path, tmp_path: Path) -> None:
    run = run_of(made, tmp_path / "run", "segmentation", found_maps(made))
    said = json.loads(command("dedup", "audit", run, "--pairs", made / "pairs.tsv", "--json"))
    dog, half, counted = 60 * 80, 60 * 40, (SIZE[0] - 2) * SIZE[1]

    def mean(right: int, others: int) -> float:
        """mIoU of so many pictures that are right, and others of which half of the dog is found."""
        all_dogs, missed = (right + others) * dog, others * half
        nothing = (right + others) * (counted - dog)
        return ((all_dogs - missed) / all_dogs + nothing / (nothing + missed)) / 2

    assert said["full"]["mIoU"] == pytest.approx(mean(2, 3))
    assert said["dedup"]["mIoU"] == pytest.approx(mean(0, 3))
    assert said["dups"]["mIoU"] == 1.0
    words = ("--kind", "segmentation", "--annotations", made / "VOC" / "Maps", "--results", made / "maps")
    files = of_files(made, tmp_path, *words)
    assert files["original"]["metrics"]["mIoU"] == said["full"]["mIoU"]
    assert files["without_near_duplicates"]["metrics"]["mIoU"] == said["dedup"]["mIoU"]


def test_the_report_shows_both_where_pairs_lie_in_the_run(made: Path, tmp_path: Path) -> None:
    one = run_of(made, tmp_path / "one", "boxes", found_boxes())
    other = run_of(made, tmp_path / "other", "boxes", found_boxes())
    (one / "pairs").mkdir()
    for ending in ("tsv", "tsv.json"):
        content = (made / f"pairs.{ending}").read_bytes()
        (one / "pairs" / f"validation.{ending}").write_bytes(content)
    command("report", one)
    text = (one / "report.md").read_text()
    assert "2 of 5 pictures of validation (40.00 %) have near-duplicates" in text
    assert ["mAP", "0.450", "0.167", "-0.283", "1.000", "–"] in [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()
    ]
    assert "have near-duplicates" in command("report", one, other)
    (one / "pairs" / "validation.tsv").write_text("a\tb\n")
    assert "near-duplicates not audited" in command("report", one)


def damage(run: Path, name: str, content: str) -> None:
    (findings.folder_of(run, "validation", STEP) / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", '{"kind": "circles"}'),
        ("found.json", "{"),
        ("found.json", '[{"image_id": 1}]'),
        ("truth.json", "[]"),
        ("truth.json", '{"images": [], "annotations": [], "categories": []}'),
    ],
)
def test_a_damaged_evaluation_is_named(made: Path, tmp_path: Path, name: str, content: str) -> None:
    run = run_of(made, tmp_path / "run", "boxes", found_boxes())
    damage(run, name, content)
    result = CliRunner().invoke(main, ["dedup", "audit", str(run), "--pairs", str(made / "pairs.tsv")])
    assert result.exit_code == 1, result.output
    assert shown("validation-00000010") in result.stderr
    assert "Traceback" not in result.stderr


def test_a_confusion_of_other_classes_is_damage(made: Path, tmp_path: Path) -> None:
    run = run_of(made, tmp_path / "run", "segmentation", found_maps(made))
    damage(run, "found.json", '[{"image_id": 0, "confusion": [[0, 999, 4]]}]')
    measured = kept.measuring(findings.folder_of(run, "validation", STEP))
    with pytest.raises(FileError, match="damaged"):
        measured(np.arange(TESTED))


def test_an_evaluation_of_classification_has_the_same_names_and_digests(made: Path, tmp_path: Path) -> None:
    run = run_of(made, tmp_path / "run", "boxes", found_boxes())
    names, digests = evaluations.read_names(findings.folder_of(run, "validation", STEP))
    data = open_data(made / "test")
    assert names == data.names(np.arange(TESTED))
    assert np.array_equal(digests, data.source_digests(np.arange(TESTED)))
    assert (
        leaks.audit(findings.folder_of(run, "validation", STEP), made / "pairs.tsv", None, False).remark == ""
    )
