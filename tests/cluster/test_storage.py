"""What a folder is like: file system, room, locks, clock; with faults that system calls are told to have."""

import errno
import fcntl
import os
import time
from collections import namedtuple
from pathlib import Path

import pytest
from findings import worst

from hpcscale.cluster import storage


def test_a_folder_that_takes_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert worst(storage.file_system(Path("/proc"), True))[0] == "problem"
    state, said = worst(storage.file_system(tmp_path, True))
    assert (state, storage.mount_of(tmp_path).kind in said) == (
        "warning" if storage.mount_of(tmp_path).kind in storage.LOCAL else "ok",
        True,
    )
    space = namedtuple("space", "f_bavail f_frsize f_favail f_files")
    for free, files, state in (
        (100, 10**6, "problem"),
        (2_000_000, 10**6, "warning"),
        (10**8, 10, "warning"),
        (10**8, 10**6, "ok"),
    ):
        monkeypatch.setattr(os, "statvfs", lambda _, free=free, files=files: space(free, 1024, files, 10**7))
        assert worst(storage.file_system(tmp_path, False))[0] == state
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    def none(*arguments: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(fcntl, "flock", none)
    assert [finding.state for finding in storage.locks(tmp_path)] == ["warning"]


def test_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert worst(storage.locks(tmp_path))[0] == "ok"
    for options in ("rw,localflock", "rw,local_lock=all"):
        monkeypatch.setattr(storage, "mount_of", lambda _, options=options: storage.Mount("lustre", options))
        assert worst(storage.locks(tmp_path)) == (
            "warning",
            f"{tmp_path}: {options[3:]}: locks hold on one node only",
        )
    monkeypatch.setattr(fcntl, "flock", lambda *arguments: None)
    assert "given again" in worst(storage.locks(tmp_path))[1]

    def none(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    (finding,) = storage.locks(tmp_path)
    assert (finding.state, "HDF5_USE_FILE_LOCKING" in finding.advice) == ("warning", True)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("gigabytes", "state", "more"),
    [(7, "warning", ""), (9, "ok", "; a CUDA image would need 20"), (21, "ok", "")],
)
def test_room_for_either_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gigabytes: int, state: str, more: str
) -> None:
    monkeypatch.setenv("APPTAINER_TMPDIR", str(tmp_path))
    free = namedtuple("usage", "free")(gigabytes * 10**9)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: free)
    finding = next(storage.room(building=True))
    assert (finding.check, finding.state) == ("temporary files", state)
    assert finding.found.endswith(f"{gigabytes}.0 GB free{more}")


@pytest.mark.parametrize(
    ("shift", "state"), [(0, "ok"), (100, "warning"), (-100, "warning"), (1000, "problem")]
)
def test_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shift: float, state: str) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + shift)
    assert worst(storage.clock(tmp_path))[0] == state
