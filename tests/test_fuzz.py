"""A short `make fuzz`, and that it notices what it is there for."""

import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from places import ROOT

from tests.fuzz import harness, world
from tests.fuzz.harness import Case


@pytest.mark.slow
def test_a_short_fuzz_finds_nothing_bad() -> None:
    """In a process of its own: it forks, and changes what its commands may."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--cases", "120"],
        capture_output=True, text=True, timeout=500, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "world"
    world.make(folder)
    return folder


def loss(case: Case) -> None:
    case.copy("a.h5")
    before = harness.snapshot(case.place)
    (case.place / "a.h5").unlink()
    case.unharmed(before, ["b.h5", "a"])


def wrong(case: Case) -> None:
    case.expect(False, "something")


def foreseen(case: Case) -> None:
    assert case.run("data", "info", "nowhere").code == 2


def hang(case: Case) -> None:
    time.sleep(60)


def traceback(case: Case) -> None:
    from hpcscale.data import verify

    kept, verify.info = verify.info, lambda folder: {}["x"]  # type: ignore[assignment]
    try:
        case.copy("data")
        case.run("data", "info", "data")
    finally:
        verify.info = kept


@pytest.mark.parametrize(
    ("family", "kind"),
    [(loss, "loss"), (wrong, "wrong"), (hang, "hang"), (traceback, "traceback"), (foreseen, "refused")],
)
def test_what_is_bad_is_seen(
    family: harness.Family, kind: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "HANG", 1)
    monkeypatch.chdir(tmp_path)
    assert harness.attempt(family, made, tmp_path / "case", Random(0))["kind"] == kind
    assert not (tmp_path / "case").exists()


def test_a_case_that_crashes_is_one_of_many() -> None:
    code = """
import sys
from tests.fuzz import __main__ as fuzz, families
import ctypes
def crash(case):
    ctypes.string_at(0)
families.FAMILIES.clear()
families.FAMILIES.update(crash=(crash, 1), fine=(lambda case: None, 1))
sys.exit(fuzz.main(["--cases", "6"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert [line.split() for line in done.stdout.splitlines()][:4] == [
        ["family", "cases", "refused", "accepted", *harness.BAD],
        ["crash", "3", "0", "0", "3", "0", "0", "0", "0"],
        ["fine", "3", "0", "3", "0", "0", "0", "0", "0"],
        ["all", "6", "0", "3", "3", "0", "0", "0", "0"],
    ]
