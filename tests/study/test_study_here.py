"""A study on one machine, of real commands: done once, mended where it failed, gone on with after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from places import ROOT

from hpcscale.cli import main

STUDY = """
[axes]
side = [32, {side}]
[stages.pack]
run = "data ingest pictures {{here}} --resize {{side}} --workers 1"
[stages.hash]
run = "dedup hash {{pack}} {{here}}.h5 --workers 1"
[stages.pairs]
run = "dedup search {{hash}}.h5 --out {{here}}.tsv --min-quality 0"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures" / "thing").mkdir(parents=True)
    for number in range(4):
        pixels = np.random.default_rng(number % 3).integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(tmp_path / "pictures" / "thing" / f"{number}.jpg")
    return tmp_path


def write(folder: Path, side: int) -> Path:
    (file := folder / "study.toml").write_text(STUDY.format(side=side))
    return file


def study(*words: object) -> Result:
    return CliRunner().invoke(main, ["study", *map(str, words)])


def states(file: Path) -> dict[str, str]:
    result = study("status", file, "--json")
    assert result.exit_code == 0, result.output
    return {f"{row['stage']} {row['cell']}": row["state"] for row in json.loads(result.stdout)}


def everything(folder: Path) -> dict[str, int]:
    """When each file was written, in ns."""
    files = (folder / "study").rglob("*")
    return {str(file): file.stat().st_mtime_ns for file in files if file.is_file() and file.name != ".lock"}


def test_row_f_what_is_done_is_not_done_again(folder: Path) -> None:
    file = write(folder, 40)
    assert set(states(file).values()) == {"missing", "waiting"}
    done = study("run", file, "--here")
    assert done.exit_code == 0, done.output
    assert set(states(file).values()) == {"done"}
    before = everything(folder)
    again = study("run", file, "--here")
    assert again.exit_code == 0, again.output
    assert everything(folder) == before
    third = write(folder, 48)  # a changed line: what had the other value stays, and stays done
    assert sum(state == "done" for state in states(third).values()) == 3
    assert study("run", third, "--here").exit_code == 0
    after = everything(folder)
    assert {name: after[name] for name in before} == before


def test_row_f_a_cell_that_fails_stops_those_that_need_it_alone(folder: Path) -> None:
    file = write(folder, 0)  # no side of a picture
    result = study("run", file, "--here")
    assert result.exit_code == 1, result.output
    assert "1 cells failed (pack side=0), 2 wait" in result.stderr
    found = states(file)
    assert [found[f"{stage} side=32"] for stage in ("pack", "hash", "pairs")] == ["done"] * 3
    assert [found[f"{stage} side=0"] for stage in ("pack", "hash", "pairs")] == [
        "failed",
        "waiting",
        "waiting",
    ]
    text = study("status", file).stdout
    assert "hash side=0: waits for pack side=0, which failed" in text
    assert "pairs side=0: waits for hash side=0, which waits" in text
    assert "pack side=0: failed, exit code 2" in text
    before = everything(folder)
    mended = write(folder, 36)
    assert study("run", mended, "--here").exit_code == 0
    assert set(states(mended).values()) == {"done"}
    after = everything(folder)
    assert {name: after[name] for name in before} == before


def test_row_f_killed_twice_it_ends_with_what_nobody_killed_has(folder: Path) -> None:
    file = write(folder, 40)
    command = [sys.executable, "-m", "hpcscale", "study", "run", str(file), "--here"]
    for how, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)):
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True) as process:
            deadline = time.monotonic() + 60
            done = len(list((folder / "study" / "cells").glob("*/*.json")))
            while len(list((folder / "study" / "cells").glob("*/*.json"))) == done:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            if how == signal.SIGKILL:
                os.killpg(process.pid, how)
            else:
                process.send_signal(how)
            process.communicate()
        assert process.returncode == code
    assert not set(states(file).values()) <= {"done"}
    assert study("run", file, "--here").exit_code == 0
    assert set(states(file).values()) == {"done"}
    killed = sorted((folder / "study").glob("pairs/*.tsv"))
    (folder / "study").rename(folder / "killed")
    assert study("run", file, "--here").exit_code == 0
    for one in killed:
        assert one.read_bytes() == (folder / "killed" / "pairs" / one.name).read_bytes()
        assert b"0.jpg\tthing/3.jpg" in one.read_bytes()


def test_what_a_command_makes_may_have_any_name_behind_its_folders(folder: Path) -> None:
    """A record beside the folder once took the place of a vocabulary."""
    text = '[stages.hash]\nrun = "dedup hash pictures {here}.json --workers 1"\n'
    text += '[stages.text]\nrun = "dedup search {hash}.json --out {here}.log --min-quality 0"\n'
    (file := folder / "study.toml").write_text(text)
    done = study("run", file, "--here")
    assert done.exit_code == 0, done.output
    assert set(states(file).values()) == {"done"}
    (made,) = (folder / "study" / "text").glob("*.log")
    assert b"thing/0.jpg\tthing/3.jpg\t0" in made.read_bytes()


def test_two_at_once_are_refused(folder: Path) -> None:
    import fcntl

    file = write(folder, 40)
    with file.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        result = study("run", file, "--here")
    assert (result.exit_code, "at work" in result.stderr) == (2, True), result.output


def test_a_share_does_its_cells_of_one_stage(folder: Path) -> None:
    file = write(folder, 40)
    assert study("share", file, "pack", "--out", folder / "study" / "pack", "--part", "1/2").exit_code == 0
    found = states(file)
    assert (found["pack side=40"], found["pack side=32"]) == ("done", "missing")
    early = study("share", file, "hash", "--out", folder / "study" / "hash")
    assert early.exit_code == 1
    assert "hash side=32: not run: pack side=32 is not there" in early.stderr
    assert states(file)["hash side=40"] == "done"
    wrong = study("share", file, "nothing", "--out", folder / "x")
    assert (wrong.exit_code, "there are pack, hash, pairs" in wrong.stderr) == (2, True)


def test_the_plan_is_printed_and_nothing_done(folder: Path) -> None:
    file = write(folder, 40)
    result = study("plan", file)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split()[:4] == ["stage", "cells", "done", "jobs"]
    rows = json.loads(study("plan", file, "--json").stdout)
    assert [(row["stage"], row["cells"], row["done"], row["needs"]) for row in rows] == [
        ("pack", 2, 0, []), ("hash", 2, 0, ["pack"]), ("pairs", 2, 0, ["hash"]),
    ]  # fmt: skip
    assert not (folder / "study").exists()
