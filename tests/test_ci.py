""".ci/run with programs that only note their calls: a failure, and a machine that cannot test everything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT

MAKE = """#!/bin/sh
echo "$1 $PYTEST_ADDOPTS" >>calls
[ "$1" != "$BROKEN" ] || exit 2
[ "$1" = test-cluster ] || exit 0
failures=$(cat failures) && echo $((failures - 1)) >failures
[ "$failures" -gt 0 ] || exit 0
echo "FAILED tests/live/test_x.py::test_$failures - AssertionError"
exit 2
"""
STEPS = ["setup", "check", "test"]


def run(
    folder: Path, failures: int = 0, namespaces: bool = True, broken: str = ""
) -> "subprocess.CompletedProcess[str]":
    """failures: of the test cluster, in turn; broken: a step that fails."""
    programs = {"make": MAKE, "id": "#!/bin/sh\necho 1000\n"}
    programs["unshare"] = "#!/bin/sh\n" + ("" if namespaces else "echo not permitted >&2; exit 1\n")
    (folder / "bin").mkdir()
    for name, text in programs.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "failures").write_text(str(failures))
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    environment |= {"PYTEST_ADDOPTS": "", "BROKEN": broken}
    command = [folder / ".ci" / "run"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def calls(folder: Path) -> list[str]:
    return [line.strip() for line in (folder / "calls").read_text().splitlines()]


def test_all_is_well(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(tmp_path) == [*STEPS, "test-cluster"]


def test_a_race_is_told_though_it_passes(tmp_path: Path) -> None:
    done = run(tmp_path, failures=1)
    assert done.returncode == 0
    assert calls(tmp_path) == [*STEPS, "test-cluster", "test-cluster --last-failed"]
    assert "FAILED AT FIRST" in done.stderr
    assert ".ci/run: FAILED tests/live/test_x.py::test_1 - AssertionError" in done.stderr
    assert "test_1" in (tmp_path / "build/test-cluster.first.log").read_text()


def test_what_fails_twice_fails(tmp_path: Path) -> None:
    done = run(tmp_path, failures=2)
    assert done.returncode == 1
    assert "FAILED TWICE" in done.stderr


def test_a_machine_without_namespaces_says_last_what_was_not_tested(tmp_path: Path) -> None:
    done = run(tmp_path, namespaces=False)
    assert done.returncode == 0
    assert calls(tmp_path) == STEPS
    *_, said, what, line = done.stderr.splitlines()
    assert "THE TEST CLUSTER WAS NOT RUN: this machine allows no namespaces (not permitted)" in said
    assert "NOT TESTED" in what
    assert set(line) == {"="}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_is_the_last(tmp_path: Path, step: str) -> None:
    done = run(tmp_path, broken=step)
    assert done.returncode != 0
    assert calls(tmp_path) == STEPS[: STEPS.index(step) + 1]
