"""Archives: whatever cannot be taken is said, with exit code 1; nothing in them is lost silently."""

import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from places import PHOTOGRAPHS
from test_sources import read, records, summary, write_tar

from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.ingest import tars as module
from hpcscale.ingest.sources import SourceError, find_source
from hpcscale.ingest.tars import LOST


def photograph(number: int, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(out, kind)
    return out.getvalue()


def members(*numbers: int) -> dict[str, bytes]:
    """A picture and its tag for each number, as webdataset has them."""
    return {
        name: content
        for number in numbers
        for name, content in (
            (f"{number}.jpg", photograph(number)),
            (f"{number}.json", json.dumps({"tags": [f"t{number}"]}).encode()),
        )
    }


def build(file: Path, items: list[tuple[str, bytes]], **options: object) -> Path:
    """As write_tar, where a name may come twice."""
    with tarfile.open(file, "w", **options) as archive:  # type: ignore[call-overload]
        for name, content in items:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def ingested(source: Path, out: Path) -> tuple[int, str, list[str]]:
    """Exit code, stderr and names of `data ingest`."""
    result = CliRunner().invoke(main, ["data", "ingest", str(source), str(out), "--workers", "1"])
    assert "Traceback" not in result.output
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_bytes().split(b"\n")[:-1]]
    return result.exit_code, result.stderr, [line["name"] for line in lines]


@pytest.mark.parametrize("between", [0, 1, 18])
def test_archives_joined_end_to_end_are_all_read(tmp_path: Path, between: int) -> None:
    parts = [
        write_tar(tmp_path / name, members(i, i + 1)).read_bytes()
        for name, i in (("x", 0), ("y", 2), ("z", 4))
    ]
    (tmp_path / "a.tar").write_bytes(bytes(512 * between).join(parts))
    found = records(tmp_path / "a.tar")
    assert summary(found) == [(f"a.tar/{i}.jpg", (f"t{i}",), "") for i in range(6)]
    assert [read(record) for record in found] == [photograph(i) for i in range(6)]


@pytest.mark.parametrize("tail", [b"no archive", b"\0" * 700 + b"x" * 700, b"\x1f\x8b" + b"z" * 3000])
def test_what_follows_an_archive_and_is_none_is_said(tmp_path: Path, tail: bytes) -> None:
    tar = write_tar(tmp_path / "a.tar", members(0, 1))
    tar.write_bytes(tar.read_bytes() + tail)
    *whole, last = records(tar)
    assert summary(whole) == [(f"a.tar/{i}.jpg", (f"t{i}",), "") for i in range(2)]
    assert last.problem.startswith(f"{LOST}an unknown number of samples")
    assert ingested(tar, tmp_path / "out")[0] == 1


def test_zeros_behind_an_archive_are_nothing(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", members(0))
    tar.write_bytes(tar.read_bytes() + bytes(3_000_001))
    assert summary(records(tar)) == [("a.tar/0.jpg", ("t0",), "")]


@pytest.mark.parametrize("kind", ["hard", "soft", "pipe", "device"])
@pytest.mark.parametrize("extension", ["jpg", "json"])
def test_a_member_that_is_no_file_is_lost_by_name(tmp_path: Path, kind: str, extension: str) -> None:
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as archive:
        for name, content in members(0, 1).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name == f"1.{extension}":
                member = tarfile.TarInfo(name)
                member.type = {"hard": tarfile.LNKTYPE, "soft": tarfile.SYMTYPE, "pipe": tarfile.FIFOTYPE,
                               "device": tarfile.CHRTYPE}[kind]  # fmt: skip
                member.linkname = f"0.{extension}"
            archive.addfile(member, io.BytesIO(content))
    whole, lost = records(tar)
    assert (whole.tags, whole.problem) == (("t0",), "")
    said = {"hard": f"a hard link to 0.{extension}", "soft": f"a symbolic link to 0.{extension}",
            "pipe": "a named pipe", "device": "a device"}[kind]  # fmt: skip
    assert lost.problem == f"{LOST}its .{extension} is {said}"
    code, errors, names = ingested(tar, tmp_path / "out")
    assert (code, names) == (1, ["a.tar/1.jpg"])
    assert f"1 x lost in archives: its .{extension} is {said}" in errors


@pytest.mark.parametrize("how", ["gnu", "oldgnu", "posix 0.0", "posix 0.1", "posix 1.0"])
def test_sparse_members_are_lost_not_wrong(tmp_path: Path, how: str) -> None:
    form, _, version = how.partition(" ")
    with (tmp_path / "0.bmp").open("wb") as stream:
        stream.write(photograph(9, "BMP")[:54])
        stream.truncate(300_000)
        stream.seek(290_000)
        stream.write(b"end")
    (tmp_path / "0.json").write_text('{"tags": ["x"]}')
    (tmp_path / "1.jpg").write_bytes(photograph(1))
    options = [f"--sparse-version={version}"] if version else []
    command = ["tar", "-S", f"--format={form}", *options, "-cf", "a.tar", "0.bmp", "0.json", "1.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    if (tmp_path / "a.tar").stat().st_size > 200_000:
        pytest.skip("this file system has no holes")
    lost, whole = records(tmp_path / "a.tar")
    assert lost.problem == f"{LOST}its .bmp is sparse (pack it without --sparse)"
    assert read(whole) == photograph(1)
    assert ingested(tmp_path / "a.tar", tmp_path / "out")[0] == 1


def test_a_key_that_comes_twice_is_lost_wherever_it_comes(tmp_path: Path) -> None:
    others = list(members(5, 6).items())
    zero, again = list(members(0).items()), [("0.JPG", photograph(7)), ("0.json", b'{"tags": ["other"]}')]
    for number, items in enumerate(
        (zero + again + others, zero + others + again, [*zero[:1], *others, *zero[1:]])
    ):
        tar = build(tmp_path / f"{number}.tar", items)
        found = records(tar)
        whole = [record for record in found if not record.problem]
        assert [record.tags for record in whole] == [("t5",), ("t6",)]
        assert len(found) == 4
        code, errors, names = ingested(tar, tmp_path / f"out{number}")
        assert (code, len(names)) == (1, 2)
        assert "2 x lost in archives: its key comes more than once" in errors


def test_an_unsorted_archive_is_one_message(tmp_path: Path) -> None:
    items = sorted(members(*range(30)).items(), key=lambda item: item[0].rpartition(".")[2])
    tar = build(tmp_path / "a.tar", items)
    code, errors, names = ingested(tar, tmp_path / "out")
    assert (code, len(names)) == (1, 60)
    assert errors.count("its key comes more than once") == 1
    assert "60 x lost" in errors


def test_the_same_key_in_two_archives_is_two_samples(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar"):
        write_tar(tmp_path / name, members(0, 1))
    assert [record.problem for record in records(tmp_path)] == [""] * 4


@pytest.mark.parametrize("where", ["in a header", "in a picture", "before the tags", "between samples"])
def test_a_cut_archive_ends_with_1(tmp_path: Path, where: str) -> None:
    tar = write_tar(tmp_path / "a.tar", members(0, 1, 2))
    with tarfile.open(tar) as archive:
        third, tags = archive.getmember("2.jpg"), archive.getmember("2.json")
    at = {"in a header": third.offset + 99, "in a picture": third.offset_data + 99,
          "before the tags": tags.offset, "between samples": third.offset}[where]  # fmt: skip
    tar.write_bytes(tar.read_bytes()[:at])
    found = records(tar)
    assert summary(found)[:2] == [(f"a.tar/{i}.jpg", (f"t{i}",), "") for i in range(2)]
    assert found[-1].problem.startswith(f"{LOST}an unknown number of samples")
    code, errors, _ = ingested(tar, tmp_path / "out")
    assert code == 1
    assert "an unknown number of samples" in errors
    result = CliRunner().invoke(main, ["data", "info", str(tmp_path / "out"), "--json"])
    assert (json.loads(result.stdout)["samples"], json.loads(result.stdout)["untagged"]) == (2, 0)
    again = CliRunner().invoke(main, ["data", "ingest", str(tar), str(tmp_path / "out"), "--workers", "1"])
    assert again.exit_code == 1  # a finished folder says it again


def test_headers_cannot_take_the_memory_or_lead_in_a_circle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "META_BYTES", 2000)
    long = build(tmp_path / "long.tar", [("a" * 5000 + ".jpg", b"x")], format=tarfile.GNU_FORMAT)
    (found,) = records(long)
    assert "a header of 5,120 bytes" in found.problem
    tar = build(tmp_path / "back.tar", [("0.jpg", b"x" * 600), ("1.jpg", b"y")])
    content = bytearray(tar.read_bytes())
    content[1536 + 124 : 1536 + 136] = b"\xff" * 10 + b"\xfa\x00"  # a size of -1536, in GNU's base 256
    header = content[1536:2048]
    header[148:156] = b" " * 8
    content[1536 + 148 : 1536 + 156] = f"{sum(header):06o}\0 ".encode()
    tar.write_bytes(content)
    assert records(tar)[-1].problem.startswith(LOST)


def test_long_names_absolute_paths_and_dots_are_names_like_others(tmp_path: Path) -> None:
    names = ["/abs/0.jpg", "../up/1.jpg", "d" * 300 + "/2.jpg", "./3.jpg", "a\nb.jpg", "\u2028x.jpg"]
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        tar = build(tmp_path / f"{number}.tar", [(name, photograph(3)) for name in names], format=form)
        found = records(tar)
        assert [record.name for record in found] == [f"{number}.tar/{name}" for name in names]
        assert {read(record) for record in found} == {photograph(3)}


def test_hidden_pictures_are_pictures_and_what_systems_leave_is_not(tmp_path: Path) -> None:
    items = members(0) | {".b.jpg": photograph(1), "c/.d.jpg": photograph(2)}
    items |= {"._0.jpg": b"macOS", ".DS_Store": b"macOS"}
    write_tar(tmp_path / "a.tar", items)
    code, _, quarantined = ingested(tmp_path, tmp_path / "out")
    assert (code, quarantined, open_data(tmp_path / "out").samples) == (0, [], 3)


def test_metadata_that_is_too_large_or_broken_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "META_BYTES", 3000)
    tar = build(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.json", b'{"tags": ["' + b"y" * 4000 + b'"]}'),
                                     ("1.jpg", b"x"), ("1.json", b'{"score": NaN, "tags": ["nan is fine"]}'),
                                     ("2.jpg", b"x"), ("2.json", b"[" * 2900)])  # fmt: skip
    found = records(tar)
    assert "4,014 bytes, allowed are 3,000" in found[0].problem
    assert (found[1].tags, found[1].problem) == (("nan is fine",), "")
    assert "its metadata" in found[2].problem


def test_compressed_archives_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "b.tar.gz").touch()
    (tmp_path / "c.tgz").touch()
    with pytest.raises(SourceError, match=r"2 compressed archives \(b\.tar\.gz\) are not read; unpack them"):
        find_source(tmp_path)
    write_tar(tmp_path / "a.tar", members(0))
    assert find_source(tmp_path).kind == "tars"
    assert "2 compressed archives (b.tar.gz)" in caplog.text


def test_an_archive_that_is_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    for source in (tmp_path, tmp_path / "a.tar"):
        result = CliRunner().invoke(main, ["data", "ingest", str(source), str(tmp_path / "out")])
        assert result.exit_code in (1, 2)
        assert re.search(r"a\.tar: not a regular file|a\.tar' is neither a regular file", result.stderr)


FAULTS = PHOTOGRAPHS / "faults"


@pytest.mark.parametrize(
    ("name", "samples", "code"),
    [("cut", 2, 1), ("hard-link", 1, 1), ("joined", 2, 0), ("same-key-twice", 0, 1), ("sparse", 0, 1),
     ("unsorted", 0, 1)],
)  # fmt: skip
def test_the_reported_archives(tmp_path: Path, name: str, samples: int, code: int) -> None:
    if not (FAULTS / f"{name}.tar").exists():
        pytest.skip(f"no {FAULTS / name}.tar")
    assert ingested(FAULTS / f"{name}.tar", tmp_path / "out")[0] == code
    found = CliRunner().invoke(main, ["data", "info", str(tmp_path / "out"), "--json"])
    assert json.loads(found.stdout)["samples"] == samples
