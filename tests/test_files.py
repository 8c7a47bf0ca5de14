"""Files: only regular ones are opened, JSON is what it says, an output is no input and nobody else's file."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from hpcscale import files
from hpcscale.files import FileError


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for wrong in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(FileError, match="not a regular file"):
            files.read_bytes(wrong)


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(11))
    assert files.read_bytes(tmp_path / "file", 11) == bytes(11)
    with pytest.raises(FileError, match="more than the 10 bytes"):
        files.read_bytes(tmp_path / "file", 10)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "9" * 5_000, "NaN", '{"a": -Infinity}', b"\xff", ""])
def test_what_is_no_json_is_said_with_its_place(text: str | bytes) -> None:
    with pytest.raises(FileError, match=r"^manifest:3: not JSON"):
        files.parse_json(text, "manifest:3")


def test_an_output_is_no_input_and_nobody_elses_file(tmp_path: Path) -> None:
    source, link, other = tmp_path / "source", tmp_path / "link", tmp_path / "other"
    source.write_text("input")
    os.link(source, link)
    (tmp_path / "folder").mkdir()
    files.check_output(other, [source, None])
    for out in (source, link, tmp_path / "folder" / ".." / "source"):
        with pytest.raises(FileError, match="is an input"):
            files.check_output(out, [source], ours=lambda file: True)
    with pytest.raises(FileError, match="is an input"):
        files.check_output(tmp_path / "folder" / "new", [tmp_path / "folder"])
    with pytest.raises(FileError, match="is a folder"):
        files.check_output(tmp_path / "folder", ours=lambda file: True)
    other.write_text("a user's")
    with pytest.raises(FileError, match="not what this command writes"):
        files.check_output(other, [source])
    files.check_output(other, [source], ours=lambda file: file.read_text() == "a user's")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks_warns(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(stream: object, kind: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with (tmp_path / "lock").open("w") as stream:
        assert not files.lock(stream, fcntl.LOCK_EX)
    assert "has no locks" in caplog.text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    with files.replacing(file) as temporary:
        temporary.write_bytes(b"first")
        assert not file.exists()
    with pytest.raises(TypeError), files.replacing(file) as temporary:
        temporary.open("w").writelines(["half", None])  # type: ignore[list-item]
    assert [each.name for each in file.parent.iterdir()] == ["file"]
    assert file.read_bytes() == b"first"
    files.write_new(file, b"first")
    with pytest.raises(FileError, match="is there already and differs"):
        files.write_new(file, b"other")
    assert [each.name for each in file.parent.iterdir()] == ["file"]
    assert file.read_bytes() == b"first"
