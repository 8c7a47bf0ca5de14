"""How commands end: what a user can cause is a message and a code in all of them; the rest is not hidden."""

import errno
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import hpcscale
from hpcscale import files
from hpcscale.cli import main, outcome
from hpcscale.cli.outcome import of_a_rank


def end(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    """What `hpcscale data info` ends with when it meets the error."""

    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr("hpcscale.data.verify.info", fail)
    return CliRunner().invoke(main, ["data", "info", "."])


class Wrong(files.Told):
    pass


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (Wrong("file x: what"), 1, "Error: file x: what"),
        (files.FileError("x is no file"), 1, "x is no file"),
        (files.Usage("--a goes not with --b"), 2, "Error: --a goes not with --b"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "Permission denied: 'x'"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "No space left on device: 'x'"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1, "Disk quota exceeded"),
        (OSError(errno.EROFS, "Read-only file system"), 1, "Read-only"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "x"), 1, "symbolic links: 'x'"),
        (OSError(errno.ESTALE, "Stale file handle", "x"), 75, "Stale file handle: 'x'; run the same command"),
        (OSError(errno.EIO, "Input/output error"), 75, "run the same command again to go on"),
        (KeyboardInterrupt(), 75, "interrupted; run the same command again to go on"),
        (MemoryError("cannot allocate 5 GiB"), 1, "not enough memory: cannot allocate 5 GiB"),
        (RecursionError("maximum depth"), 1, "nested too deep"),
        (UnicodeEncodeError("ascii", "ä", 0, 1, "ordinal not in range"), 1, "this locale"),
    ],
)
def test_what_a_user_can_cause(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = end(monkeypatch, error)
    assert (result.exit_code, text in result.stderr, result.stdout) == (code, True, ""), result.output
    assert isinstance(result.exception, SystemExit)


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    error = KeyError("why")
    assert end(monkeypatch, error).exception is error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), 1),
        (OSError(errno.ESTALE, "Stale file handle"), 70),
        (files.FileError("x"), 1),
        (MemoryError(), 1),
        (ZeroDivisionError(), 70),
    ],
)
def test_a_rank_asks_for_another_try_only_where_one_can_help(error: Exception, code: int) -> None:
    @click.command()
    def command() -> None:
        with outcome.told(), of_a_rank():
            raise error

    result = CliRunner().invoke(command)
    assert (result.exit_code, "Traceback" in result.stderr) == (code, code == 70)


def errors_of_ours() -> set[type[BaseException]]:
    found = set()
    for module in pkgutil.walk_packages(hpcscale.__path__, "hpcscale."):
        if module.name not in ("hpcscale.__main__", "hpcscale._ops"):
            members = vars(importlib.import_module(module.name)).values()
            classes = {each for each in members if isinstance(each, type) and issubclass(each, BaseException)}
            found |= {each for each in classes if each.__module__.startswith("hpcscale.")}
    return found


def test_every_error_of_ours_is_told() -> None:
    found = errors_of_ours()
    assert len(found) > 20
    # Reasons in a quarantine; the end of a loop that `bench` times.
    inside = {"BadPicture", "Fault", "Enough"}
    assert [each for each in found if not issubclass(each, files.Told) and each.__name__ not in inside] == []


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "hpcscale", "labels", "show", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, "Traceback" in done.stderr, "Error" in done.stderr) == (1, False, False)


@pytest.mark.parametrize(
    "words",
    [
        "data ingest PIPE out",
        "data ingest . out --manifest PIPE",
        "data info PIPE",
        "data show . --out PIPE",
        "labels build out.json --data . --parents PIPE",
        "labels show PIPE",
        "dedup hash PIPE out.h5",
        "dedup print PIPE",
        "dedup search PIPE",
        "dedup drop PIPE --side a --out out",
        "dedup gallery PIPE out.html --a .",
        "dedup decisions merge PIPE --out out",
        "dedup audit . --pairs PIPE",
        "dedup embed . out.h5 --checkpoint PIPE",
        "dedup calibrate PIPE out",
        "train run --config PIPE",
        "evaluate PIPE",
        "report PIPE",
        "image info PIPE",
        "image build cpu --out PIPE",
        "submit --dry-run -- train run --config PIPE",
    ],
)
def test_pipes_and_devices_are_refused_by_every_command(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for wrong in ("pipe", "/dev/zero"):
        result = CliRunner().invoke(main, words.replace("PIPE", wrong).split())
        assert result.exit_code == 2, result.output
        assert f"{wrong}' is neither a regular file nor a folder" in " ".join(result.output.split())
    assert os.listdir() == ["pipe"]


def test_folders_without_a_name_have_jobs_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out.job" / "jobs").mkdir(parents=True)
    for folder, path in (("out", "."), ("out/deep", "..")):
        monkeypatch.chdir(tmp_path / folder)
        result = CliRunner().invoke(main, ["cancel", path])
        assert (result.exit_code, "no job waits or runs" in result.output) == (0, True), result.output
    assert CliRunner().invoke(main, ["status", "/"]).exit_code == 2
