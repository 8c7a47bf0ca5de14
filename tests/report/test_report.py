"""Reports: one synthetic run compared whole with tests/golden/report.md, and folders that lack something."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import GOLDEN

from hpcscale import config
from hpcscale.evaluate import evaluations
from hpcscale.evaluate.metrics import Results
from hpcscale.report import figures, report

CLASSES = 24


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are laid out but not drawn, which takes most of the time."""
    monkeypatch.setattr(figures, "save", lambda figure, file: file.touch())


def make_run(run: Path, shift: float = 0.0) -> Path:
    """A finished run folder, without training anything."""
    run.mkdir(parents=True)
    settings = {
        "data": {"train": "data", "vocabulary": "vocabulary.json", "held_out": 0.2},
        "schedule": {"name": "cosine", "lr": 0.05 + shift},
        "train": {"steps": 100, "batch": 32},
    }
    (run / "config.json").write_text(config.dump(config.check(config.Config, settings, "test")))
    counts = {"samples": 10, "dropped": 0, "unlabelled": 3, "trained_on": 5, "held_out": 2}
    place = {"ranks": 2, "machine": "a | b", "device": "cpu"}
    events = [{"event": "start", "step": 0, "data": counts} | place]
    for step in range(10, 101, 10):
        loss, lr = 60 / step + shift, 0.05 * (1 - step / 100)
        share = {"wait": 0.01, "compute": 0.9, "allreduce": 0.07, "rest": 0.02}
        events.append(
            {"event": "step", "step": step, "samples": 32 * step, "loss": loss, "lr": lr, "seconds": step /
            2.0} | {"samples_per_second": 60.0 + step % 30} | share
        )  # fmt: skip
        if step % 50 == 0:
            events.append({"event": "evaluation", "step": step, "set": "held_out", "map100": step / 200})
    events.append({"event": "bad_sample", "step": 40, "sample": 7, "name": "b/7.jpg", "reason": "truncated"})
    events.append({"event": "end", "step": 100, "reason": "finished"})
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    make_evaluation(run, "held_out", shift)
    make_evaluation(run, "train", shift)
    return run


def make_evaluation(run: Path, name: str, shift: float) -> None:
    chance = np.random.default_rng(0)
    n = 7
    scores = {
        "map100": 0.5 + shift,
        "map100_uniform": 0.25,
        "image_map100": 0.75,
        "image_map100_uniform": 0.6,
    }
    found = {
        "samples": n,
        "loss": 3.25,
        "single": 5,
        "top1": 0.2,
        "top5": 0.8,
        "classes": CLASSES - 1,
        **scores,
    }
    baseline = {**found, "loss": None, "map100": 0.125, "top1": 0.4}
    rows = [(0, "a class without positives", 3, 0, "", "")]
    rows += [(c, f"class {c}", 10 * c, c % 5 + 1, 1 / c, 0.01 * c) for c in range(1, CLASSES)]
    results = Results(
        samples=np.arange(n) * 3,
        losses=np.ones(n, np.float32),
        truths=np.array([1, 2, 3, -1, -1, 4, 5], np.int32),
        guesses=np.tile(np.array([1, 2, 3, 9, 20], np.int32), (n, 1)),
        classes=np.tile(np.arange(CLASSES, dtype=np.int32), (n, 1)),
        scores=np.zeros((n, CLASSES), np.float32),
        label_offsets=np.array([0, 2, 4, 6, 6, 9, 11, 12]),
        labels=np.array([1, 9, 2, 9, 3, 9, 5, 6, 7, 4, 9, 5], np.int32),
    )
    thumbnails = np.arange(n) * 3, chance.integers(0, 255, (n, 8, 8, 3), np.uint8)
    summary = {"set": name, "step": 100, "data": "data", "metrics": found, "baseline": baseline}
    folder = run / "evaluations" / f"{name}-00000100"
    evaluations.save(folder, summary, rows, results, [f"{i}.jpg" for i in range(n)], thumbnails)


def golden_report(folder: Path) -> dict[str, str]:
    """What `make golden` writes: file name -> text."""
    one, two = make_run(folder / "run-a"), make_run(folder / "run-b", 0.1)
    together = report([one, two]).read_text()
    return {"report.md": (one / "report.md").read_text(), "comparison.md": together}


@pytest.mark.parametrize("name", ["report.md", "comparison.md"])
def test_reports_are_as_recorded(undrawn, tmp_path, name):
    assert golden_report(tmp_path)[name] == (GOLDEN / name).read_text()


def test_figures_are_pictures_and_the_same_each_time(tmp_path):
    run = make_run(tmp_path / "run")
    bytes_of = {}
    for _ in range(2):
        report([run])
        for figure in sorted(run.glob("*.png")):
            assert Image.open(figure).convert("L").getextrema()[0] < 50  # something dark was drawn
            assert bytes_of.setdefault(figure.name, figure.read_bytes()) == figure.read_bytes()
    assert set(bytes_of) == {"report-curves.png", "report-pictures-held_out.png", "report-pictures-train.png"}
    assert not list(run.glob(".*"))


def test_every_file_that_a_report_names_is_there(undrawn, tmp_path):
    run = make_run(tmp_path / "run")
    for line in report([run]).read_text().splitlines():
        if line.startswith("!["):
            assert (run / line.rpartition("(")[2].rstrip(")")).exists()


def test_an_empty_folder_gets_a_report_that_says_so(undrawn, tmp_path):
    text = report([tmp_path]).read_text()
    assert "**Incomplete:**" in text
    assert "config.json: cannot be read" in text
    assert "log.jsonl: No such file" in text
    assert "not evaluated yet" in text
    assert str(tmp_path.parent) not in text


def test_a_torn_line_is_passed_over_and_named(undrawn, tmp_path):
    run = make_run(tmp_path / "run")
    log = run / "log.jsonl"
    whole = log.read_bytes()
    lines = whole.splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:6]) + b"not json\n" + b"".join(lines[6:9]) + lines[9][:20])
    text = report([run]).read_text()
    assert "log.jsonl, line 7: not understood; passed over" in text
    assert "log.jsonl, line 11: cut off, as by a kill; passed over" in text
    assert "training has not finished: 70 of 100 steps" in text


def test_steps_that_were_repeated_after_a_kill_count_once(undrawn, tmp_path):
    run = make_run(tmp_path / "run")
    before = report([run]).read_text()
    log = run / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    stale = json.loads(lines[1]) | {"loss": 1e9}
    log.write_text(json.dumps(stale) + "\n" + "".join(lines))
    assert report([run]).read_text() == before


def test_the_machine_is_that_of_the_last_process(undrawn, tmp_path):
    run = make_run(tmp_path / "run")
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"event": "resume", "step": 100, "ranks": 7}) + "\n")
    assert "Measured on: ranks 7." in report([run]).read_text()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "metrics.json").write_text('{"set": "held_out"'),
        lambda folder: (folder / "metrics.json").write_text('{"set": "elsewhere", "step": 1}'),
        lambda folder: (folder / "metrics.json").write_text("[]"),
        lambda folder: (folder / "classes.csv").unlink(),
        lambda folder: (folder / "classes.csv").write_text("id\n1\n"),
        lambda folder: (folder / "classes.csv").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "thumbnails.npz").write_bytes(b"PK\x03\x04"),
        lambda folder: (folder / "samples.npz").unlink(),
    ],
)
def test_a_spoiled_evaluation_never_stops_a_report(undrawn, tmp_path, spoil):
    run = make_run(tmp_path / "run")
    spoil(run / "evaluations" / "held_out-00000100")
    text = report([run]).read_text()
    assert "held_out-00000100" in text
    assert "**train**, after step 100" in text


@pytest.mark.parametrize("kept", ["config.json", "log.jsonl", "evaluations"])
def test_any_one_thing_alone_is_reported(undrawn, tmp_path, kept):
    run = make_run(tmp_path / "run")
    for path in run.iterdir():
        if path.name != kept:
            path.rename(tmp_path / path.name)
    assert "**Incomplete:**" in report([run]).read_text()


def test_a_missing_folder_is_an_error_before_anything_is_written(undrawn, tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        report([run, tmp_path / "nowhere"])
    assert not (run / "report.md").exists()


def test_the_best_and_worst_classes_are_those_of_the_table(undrawn, tmp_path):
    run = make_run(tmp_path / "run")
    text = report([run]).read_text()
    best = text.partition("best classes")[2].partition("##")[0]
    worst = text.partition("worst classes")[2].partition("##")[0]
    rows = list(csv.DictReader((run / "evaluations" / "held_out-00000100" / "classes.csv").open()))
    ranked = sorted((r for r in rows if r["average_precision"]), key=lambda r: -float(r["average_precision"]))
    assert [line.split("|")[1].strip() for line in best.splitlines()[4:14]] == [
        r["name"] for r in ranked[:10]
    ]
    assert {line.split("|")[1].strip() for line in worst.splitlines()[4:14]} == {
        r["name"] for r in ranked[-10:]
    }


def test_near_duplicates_are_audited_where_a_pairs_file_lies_in_the_run(undrawn, tmp_path):
    run = make_run(tmp_path / "run")
    (run / "pairs").mkdir()
    (run / "pairs" / "held_out.tsv").write_text("0.jpg\tx.jpg\t3\ny.jpg\t4.jpg\t9\ny.jpg\t5.jpg\t9\n")
    other = make_run(tmp_path / "other")
    both = report([run, other]).read_text()
    text = (run / "report.md").read_text()
    assert "**3 of 7 pictures of held_out (42.86 %) have near-duplicates" in text
    top1 = next(line for line in text.splitlines() if line.count("|") == 7 and "top-1" in line)
    # truths 1, 2, 3, -, -, 4, 5, and the first guess is always 1
    assert [cell.strip() for cell in top1.split("|")[1:-1]] == [
        "top-1 accuracy", "0.200", "0.000", "-0.200", "0.500", "0.000"]  # fmt: skip
    assert text.count("have near-duplicates") == 1  # train has no pairs file
    without = next(line for line in both.splitlines() if "top-1 accuracy, without them" in line)
    assert [cell.strip() for cell in without.split("|")[2:-1]] == ["0.000", "–"]
    decided = [{"a": a, "b": b, "decision": "reject"} for a, b in (("0.jpg", "x.jpg"), ("y.jpg", "4.jpg"))]
    (run / "pairs" / "held_out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in decided))
    assert "**1 of 7 pictures of held_out (14.29 %)" in report([run]).read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("held_out.tsv", "0.jpg\n"),
        ("held_out.tsv", None),
        ("held_out.jsonl", "{"),
        ("held_out.jsonl", '{"a": "0.jpg", "b": "x", "decision": "maybe"}'),
    ],
)
def test_pairs_that_cannot_be_used_never_stop_a_report(undrawn, tmp_path, name, text):
    run = make_run(tmp_path / "run")
    (run / "pairs").mkdir()
    (run / "pairs" / "held_out.tsv").write_text("0.jpg\tx.jpg\t3\n")
    if text is None:
        (run / "pairs" / name).unlink()
        (run / "pairs" / name).mkdir()
    else:
        (run / "pairs" / name).write_text(text)
    written = report([run]).read_text()
    assert "near-duplicates not audited" in written
    assert str(tmp_path) not in written
    assert "**train**" in written
