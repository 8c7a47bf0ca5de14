"""Reports of what was damaged or made by others: every file of a run, cut, flipped, swapped, made to lie."""

import csv
import io
import json
import random
import zipfile

import numpy as np
import pytest
from PIL import Image
from test_report import CLASSES, make_evaluation, make_run, undrawn  # noqa: F401

from hpcscale.evaluate import evaluations, leaks
from hpcscale.evaluate.leaks import LeakError
from hpcscale.files import FileError
from hpcscale.report import figures, report, summary

NAMES = [
    "$ave 50% now$", "<img src=x onerror=alert(1)>", "a|b", "[x](javascript:1)", "=1+1", "+1", "-1", "@sum",
    "\tt", "\r", "line\r\nbreak", "'q", "''", "\x1b[31mred", "\u202etac", "漢字", "مرحبا", "_hidden",
    "w" * 3000, "{$}",
]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def folder_of(run):
    return run / "evaluations" / "held_out-00000100"


def rewritten(file, **arrays):
    """The .npz file with some of its arrays exchanged; None leaves one out."""
    with np.load(file) as stored:
        content = dict(stored) | arrays
    np.savez(file, **{key: value for key, value in content.items() if value is not None})


def named(folder, names):
    """Save the evaluation again, its first classes with these names."""
    rows = [(c.id, *c[1:]) for c in evaluations.read_classes(folder)]
    rows = [(c, names[c] if c < len(names) else name, *rest) for c, name, *rest in rows]
    rows = [tuple("" if cell is None else cell for cell in row) for row in rows]
    results, samples = evaluations.read(folder)
    values = json.loads((folder / "metrics.json").read_text())
    evaluations.save(folder, values, rows, results, samples, evaluations.read_thumbnails(folder))


# names


def test_a_csv_gives_every_name_back_and_holds_no_formula(run):
    named(folder_of(run), NAMES)
    found = [row.name for row in evaluations.read_classes(folder_of(run))]
    assert found[: len(NAMES)] == NAMES
    with (folder_of(run) / "classes.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert len(rows) == CLASSES + 1
    assert all(len(row) == 6 for row in rows)
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+-@\t\r")]


def test_names_are_text_in_a_report(run, undrawn):  # noqa: F811
    named(folder_of(run), NAMES)
    other = run.rename(run.with_name("$x$ <b>|`c`\n\x1b[31m\u202e"))
    text = report([other]).read_text("utf-8") + report([other, other]).read_text("utf-8") + summary([other])
    assert not set(text) & set("\x1b\r\t\u202e")
    for evil in ("<img", "<b>", "[x](", "| a|b", "`c`", "$ave"):
        assert evil not in text.replace("\\" + evil[0], "").replace("a\\|b", "")
    table = [line for line in text.splitlines() if line.startswith("| ") and "class" in line]
    assert table
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if "javascript" in line}
    assert widths == {6}


def test_names_are_drawn_as_they_are(run, recwarn):
    named(folder_of(run), NAMES)
    other = run.rename(run.with_name("_$ave 50% now$ \udcff\u202e" + "w" * 99))
    report([other, other])
    for picture in [*other.glob("*.png"), other.parent / "comparison-curves.png"]:
        assert Image.open(picture).size[0] > 500
    assert not [str(warning.message) for warning in recwarn if warning.category is UserWarning]
    assert figures.label("$a$ \x1b", 99) == "$a$ \\u001b"
    assert len(figures.label("w" * 3000, 40)) == 40
    with figures.style():
        text = figures.Figure().text(0, 0, "$ave 50% now$")
        assert not text.get_parse_math()


# damage


SPOILED = {
    "no array": {"truths": None},
    "another dtype": {"scores": np.zeros((7, CLASSES))},
    "objects": {"names": np.array([{}] * 7, object)},
    "another shape": {"classes": np.zeros((7, 3), np.int32)},
    "too few rows": {"losses": np.zeros(6, np.float32)},
    "a class beyond": {"truths": np.full(7, CLASSES, np.int32)},
    "a class below": {"labels": np.full(12, -1, np.int32)},
    "a guess beyond": {"guesses": np.full((7, 5), 1 << 30, np.int32)},
    "falling offsets": {"label_offsets": np.array([0, 2, 4, 3, 6, 9, 11, 12])},
    "offsets beyond": {"label_offsets": np.array([0, 2, 4, 6, 6, 9, 11, 13])},
    "no offsets": {"label_offsets": np.zeros(0, np.int64)},
    "samples twice": {"samples": np.zeros(7, np.int64)},
    "names of numbers": {"names": np.arange(7)},
}


@pytest.mark.parametrize("what", SPOILED)
def test_results_that_cannot_be_are_refused(run, undrawn, what):  # noqa: F811
    rewritten(folder_of(run) / "samples.npz", **SPOILED[what])
    with pytest.raises(FileError, match=r"samples\.npz: "):
        evaluations.read(folder_of(run))
    with pytest.raises(LeakError, match=r"samples\.npz"):
        leaks.audit(folder_of(run), run / "pairs.tsv", None, False)
    assert "no pictures" in report([run]).read_text()


def bomb(file, key, shape, content=b"", compression=zipfile.ZIP_STORED):
    """An .npz file whose array `key` says that it is larger than it is."""
    header = io.BytesIO()
    descr = {"descr": "<i8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, descr)
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(f"{key}.npy", header.getvalue() + content)


@pytest.mark.parametrize("shape", [(1 << 40,), (1 << 62, 1 << 62), (-1,), (1 << 70,)])
def test_an_array_is_no_larger_than_its_file(run, undrawn, shape):  # noqa: F811
    for name in ("samples.npz", "thumbnails.npz"):
        bomb(folder_of(run) / name, "samples", shape)
    with pytest.raises(FileError, match="bytes are no array of"):
        evaluations.read(folder_of(run))
    assert "bytes are no array of" in report([run]).read_text()


def test_a_compressed_array_is_not_unpacked(run):
    bomb(folder_of(run) / "samples.npz", "samples", (1 << 20,), bytes(8 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(FileError, match="'samples' is compressed"):
        evaluations.read(folder_of(run))


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("set", ["held_out"], "'set' must be a string"),
        ("step", "100", "'step' must be a number"),
        ("step", True, "'step' must be a number"),
        ("step", -1, "'step' must be a number"),
        ("metrics", [], "'metrics' must be an object"),
        ("metrics", {"map100": "1"}, "metrics.map100 must be a number"),
        ("metrics", {"map100": [1]}, "metrics.map100 must be a number"),
        ("baseline", {"top1": 10**400}, "baseline.top1 must be a number"),
    ],
)
def test_metrics_that_are_no_numbers_are_named(run, undrawn, key, value, why):  # noqa: F811
    file = folder_of(run) / "metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    assert f"metrics.json: {why}" in report([run]).read_text()


@pytest.mark.parametrize(
    "line",
    [
        {"event": "step", "step": 10**400, "loss": 1},
        {"event": "step", "step": 5, "loss": 10**400},
        {"event": "step", "step": True, "loss": 1.0},
        {"event": "step", "step": 2.5, "loss": 1.0},
        {"event": "step", "step": 5, "loss": "1"},
        {"event": ["step"], "step": 5},
        [],
        7,
    ],
    ids=lambda line: json.dumps(line)[:40],
)
def test_a_line_of_the_log_that_cannot_be_is_passed_over(run, line):
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n" + json.dumps({"event": "end"}) + "\n")
    assert "not understood; passed over" in report([run]).read_text()


def test_values_of_any_kind_in_the_log_never_stop_a_report(run):
    odd = ["x", [1], {"a": 1}, None, True, 10**400, float("nan"), float("inf"), "<b>"]
    with (run / "log.jsonl").open("a") as log:
        for number, value in enumerate(odd):
            keys = dict.fromkeys(("lr", "samples", "samples_per_second", "compute", "map100", "set"), value)
            log.write(json.dumps({"event": "step", "step": 200 + number, "loss": 0.5} | keys) + "\n")
            log.write(json.dumps({"event": "evaluation", "step": number} | keys) + "\n")
            log.write(json.dumps({"event": "bad_sample", "sample": value, "name": value}) + "\n")
            log.write(json.dumps({"event": "resume", "step": 1, "machine": value}) + "\n")
        log.write("[" * 100_000)
    assert "<b>" not in report([run]).read_text().replace("\\<b\\>", "")


def test_damage_anywhere_never_stops_a_report(tmp_path, monkeypatch):
    """Every file of a run, cut or changed at some of its places."""
    for name in ("curves", "pictures"):  # what they are given is all that is read; drawing takes long
        monkeypatch.setattr(figures, name, lambda *given: False)
    chance = random.Random(0)
    run = make_run(tmp_path / "run")
    make_evaluation(run, "validation", 0.0)
    (run / "pairs").mkdir()
    (run / "pairs" / "validation.tsv").write_text("x.jpg\t4.jpg\t9\n")
    (run / "pairs" / "validation.jsonl").write_text('{"a": "x.jpg", "b": "4.jpg", "decision": "accept"}\n')
    files = [file for file in sorted(run.rglob("*")) if file.is_file()]
    for file in files:
        whole = file.read_bytes()
        for _ in range(12):
            content = bytearray(whole)
            at = chance.randrange(len(content))
            kind = chance.randrange(4)
            if kind == 0:
                del content[at:]
            elif kind == 1:
                content[at : at + chance.randrange(1, 9)] = chance.randbytes(chance.randrange(9))
            else:
                content[at] ^= 1 << chance.randrange(8) if kind == 2 else chance.randrange(1, 256)
            file.write_bytes(content)
            report([run])
        file.write_bytes(whole)
    assert "Complete" in report([run]).read_text()
