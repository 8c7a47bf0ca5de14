"""hpcscale data: exit codes, what goes to stdout and stderr, and the keys that scripts rely on."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from click.testing import CliRunner, Result
from PIL import Image
from places import PHOTOGRAPHS

from hpcscale.cli import main

SAMPLE = PHOTOGRAPHS / "imagenet-sample"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Six pictures in two class folders, and one that is none."""
    for number in range(6):
        file = tmp_path / f"source/n0000000{number % 2}/{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), number * 40, np.uint8)).save(file)
    (tmp_path / "source/n00000001/none.jpg").write_bytes(b"text")
    return tmp_path / "source"


@pytest.fixture
def out(source: Path, tmp_path: Path) -> Path:
    assert run("ingest", source, tmp_path / "out", "--resize", 16, "--workers", 1).exit_code == 0
    return tmp_path / "out"


def test_ingest_prints_what_it_packed(source: Path, tmp_path: Path) -> None:
    result = run("ingest", source, tmp_path / "out", "--shard-samples", 4, "--quality", 80, "--workers", 2)
    assert result.exit_code == 0
    assert "6 samples in 2 shards" in result.stdout
    assert result.stderr == f"1 records could not be stored: {tmp_path}/out/quarantine.jsonl\n"


def test_info(out: Path) -> None:
    found = json.loads(run("info", out, "--json").stdout)
    assert found.items() >= {
        "samples": 6, "shards": 1, "labels": 2, "quarantined": 1, "stored_size": 16, "untagged": 0,
    }.items()  # fmt: skip
    assert found["bytes"] == (out / "shard-00000.h5").stat().st_size
    assert "samples         6\n" in run("info", out).stdout


def test_verify(out: Path) -> None:
    result = run("verify", out)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{out}: whole\n", "")
    assert json.loads(run("verify", out, "--json").stdout) == {"problems": []}
    shard = bytearray((out / "shard-00000.h5").read_bytes())
    shard[shard.index(b"\xff\xd8\xff") + 300] ^= 4
    (out / "shard-00000.h5").write_bytes(shard)
    result = run("verify", out)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("shard-00000.h5: sample 0 (n00000000/0.png): its checksum")
    result = run("verify", out, "--json")
    (problem,) = json.loads(result.stdout)["problems"]
    assert (result.exit_code, problem["file"], problem["sample"]) == (1, "shard-00000.h5", 0)
    assert problem["name"] == "n00000000/0.png"


def test_show_draws_pictures_and_labels(out: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "a.png"
    result = run("show", out, "--out", sheet, "--count", 4, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["sheet"] == str(sheet)
    assert [tile["sample"] for tile in found["samples"]] == [0, 1, 3, 4]
    first = found["samples"][0]
    assert (first["name"], first["tags"], first["width"]) == ("n00000000/0.png", ["n00000000"], 16)
    with Image.open(io.BytesIO(sheet.read_bytes())) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("L"))
    assert pixels[8 + 80, 8 + 80] < 10  # the first picture is black
    assert (pixels[8 + 160 :] < 100).any()  # there is text under it
    assert run("show", out, "--out", sheet).stdout.endswith(f"{sheet}\n")


def test_wrong_usage_is_2(source: Path, out: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("ingest", tmp_path / "missing", tmp_path / "x"), "does not exist"),
        (("ingest", source, tmp_path / "x", "--resize", 0), "--resize"),
        (("ingest", source, tmp_path / "x", "--manifest", tmp_path / "no.csv"), "does not exist"),
        (("ingest", source, out, "--resize", 17), "resize was 16, now is 17"),
        (("info", tmp_path / "missing"), "does not exist"),
    ):
        result = run(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""


def test_problems_in_the_data_are_1(source: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("image,tags\n/a.jpg,x\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing/a").mkdir(parents=True)
    (tmp_path / "nothing/a/b.jpg").touch()
    for arguments, message in (
        (
            ("ingest", source, tmp_path / "x", "--manifest", tmp_path / "bad.csv"),
            "bad.csv:2: 'image' must stay",
        ),
        (("ingest", tmp_path / "empty", tmp_path / "x"), "looked for manifest.jsonl"),
        (("ingest", tmp_path / "nothing", tmp_path / "y", "--workers", 1), "no picture could be stored"),
        (("info", source), "not a data-set folder"),
        (("verify", source), "not a data-set folder"),
        (("show", source), "not a data-set folder"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1, result.output
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, hpcscale.cli.data; print({'h5py', 'numpy', 'PIL', 'rich'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@pytest.mark.skipif(not SAMPLE.exists(), reason=f"the sample photographs are not at {SAMPLE}")
def test_the_500_sample_photographs(tmp_path: Path) -> None:
    assert run("ingest", SAMPLE, tmp_path / "out", "--resize", 64).exit_code == 0
    found = json.loads(run("info", tmp_path / "out", "--json").stdout)
    tags = set()
    for line in (SAMPLE / "manifest.jsonl").read_text().splitlines():
        tags |= {*json.loads(line)["tags"], json.loads(line)["wnid"]}
    assert (found["samples"], found["quarantined"], found["labels"]) == (500, 0, len(tags))


def test_plan_says_what_each_rank_will_read(tmp_path: Path) -> None:
    recipe = tiny.make(tmp_path)
    shard = next((tmp_path / "data").glob("*.h5"))
    words = ("plan", recipe, "--ranks", 2, "--set", "train.batch=6", "--steps", 3, "--bandwidth", 10)
    result = run(*words, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found.keys() == {
        "samples", "steps", "bytes", "shards", "shards_open", "blocks", "seconds", "evenness",
        "planning_ms", "resident_mb", "ranks", "samples_of_run",
    }  # fmt: skip
    assert (found["samples"], found["steps"], found["shards_open"]) == (tiny.PICTURES, 3, 1)
    mean = shard.stat().st_size / tiny.PICTURES
    assert [(one["rank"], one["samples"], one["shards"]) for one in found["ranks"]] == [(0, 9, 1), (1, 9, 1)]
    assert [one["bytes"] for one in found["ranks"]] == [round(9 * mean)] * 2
    assert found["seconds"] == pytest.approx(18 * mean / 10e6)
    shown = run(*words).stdout
    assert "planned                 3 steps for 2 ranks\n" in shown
    assert "a rank's blocks         9 to 9\n" in shown
    assert found["samples_of_run"] is None
    assert f"length by the paper     not said for {tiny.PICTURES} pictures" in shown


def test_plan_for_ranks_that_cannot_share_a_batch() -> None:
    result = CliRunner().invoke(main, ["data", "plan", "demo.toml", "--ranks", "336"])
    assert result.exit_code == 2
    assert "336 ranks cannot share: choose a multiple of 336" in result.stderr
