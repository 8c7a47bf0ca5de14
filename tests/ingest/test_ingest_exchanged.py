"""Pictures that are exchanged under the same names between two calls of ingest are never mixed silently."""

import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_ingest import content, photograph

from hpcscale.cli import main
from hpcscale.data.store import open_data
from hpcscale.ingest import exchanged
from hpcscale.ingest.packing import OptionError, Packing, ingest

COUNT, SAMPLES = 12, 5  # records, and records of a shard
SIZE = 4000  # bytes of every picture
BAD = 7  # the record that is no picture
OPTIONS: dict[str, Any] = {"packing": Packing(shard_samples=SAMPLES), "workers": 1}
KINDS = ("manifest", "folders", "tars")


def picture(number: int, seed: int = 0) -> bytes:
    found = b"no picture" if number == BAD else photograph(number + seed)
    return found.ljust(SIZE, b"\0")


def name(number: int) -> str:
    return f"class/{number:02}.jpg"


def make(folder: Path, kind: str, exchange: dict[int, bytes | None] | None = None) -> Path:
    """A source; `exchange`: other contents of some pictures, or none. Names, sizes and times stay."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "class").mkdir(parents=True)
    for number in range(COUNT):
        found = (exchange or {}).get(number, picture(number))
        if found is not None:
            (folder / name(number)).write_bytes(found)
            os.utime(folder / name(number), (1e9, 1e9))
    if kind == "manifest":
        lines = (f'{{"image": "{name(number)}", "tags": []}}\n' for number in range(COUNT))
        (folder / "manifest.jsonl").write_text("".join(lines))
    elif kind == "tars":
        with tarfile.open(folder / "a.tar", "w") as archive:
            for number in range(COUNT):
                archive.add(folder / name(number), name(number))
        shutil.rmtree(folder / "class")
    return folder


def refused(source: Path, out: Path, number: int, **options: Any) -> None:
    """The picture of this number is named, with its shard, and nothing is written."""
    before = content(out)
    said = rf"{name(number)} is another picture now than when shard-0000{number // SAMPLES}\.h5 was packed"
    with pytest.raises(OptionError, match=said):
        ingest(source, out, **OPTIONS | options)
    assert content(out) == before


def interrupt(out: Path, shards: int, lines: int) -> None:
    """As a kill leaves it: this many shards, of which so many have a line."""
    (out / "quarantine.jsonl").unlink()
    for file in sorted(out.glob("shard-*.h5"))[shards:]:
        file.unlink()
    manifest = out / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:lines]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", [0, SAMPLES, COUNT - 1])
def test_a_finished_folder_is_not_the_same_with_an_exchanged_picture(
    tmp_path: Path, kind: str, number: int
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    ingest(make(source, kind), out, **OPTIONS)
    make(source, kind, {number: picture(number, 100)})
    refused(source, out, number)
    command = ["data", "ingest", str(source), str(out), "--shard-samples", str(SAMPLES), "--workers", "1"]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, name(number) in result.output) == (2, True), result.output


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lines", [0, 1, 2])
def test_shards_that_a_killed_call_has_finished_are_compared(tmp_path: Path, kind: str, lines: int) -> None:
    source, out, new = tmp_path / "source", tmp_path / "out", tmp_path / "new"
    ingest(make(source, kind), out, **OPTIONS)
    interrupt(out, 2, lines)
    make(source, kind, {number: picture(number, 100) for number in range(3, COUNT)})
    refused(source, out, 3)
    make(source, kind, {11: picture(11, 100)})  # not packed yet: nothing is mixed
    ingest(source, out, **OPTIONS)
    ingest(source, new, **OPTIONS)
    assert content(out) == content(new)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_elsewhere_with_other_times_is_the_same(tmp_path: Path, kind: str) -> None:
    source, copy, out = tmp_path / "source", tmp_path / "copy", tmp_path / "out"
    ingest(make(source, kind), out, **OPTIONS)
    before = content(out)
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    shutil.rmtree(source)
    ingest(copy, out, **OPTIONS)
    interrupt(out, 2, 1)
    seen: set[str] = set()
    ingest(copy, out, progress=lambda stage, done, total: seen.add(stage), **OPTIONS)
    assert content(out) == before
    assert {"survey", "compare", "pack"} <= seen


def test_without_its_shard_an_exchanged_picture_is_packed(tmp_path: Path) -> None:
    source, out, new = tmp_path / "source", tmp_path / "out", tmp_path / "new"
    ingest(make(source, "folders"), out, **OPTIONS)
    make(source, "folders", {6: picture(6, 100)})
    refused(source, out, 6)
    (out / "shard-00001.h5").unlink()
    ingest(source, out, **OPTIONS)
    ingest(source, new, **OPTIONS)
    assert content(out) == content(new)


def test_what_was_no_picture_is_compared_by_its_reason(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    ingest(make(source, "manifest", {2: None}), out, **OPTIONS)
    before = content(out)
    ingest(make(source, "manifest", {2: None, BAD: b"none either"}), out, **OPTIONS)
    assert content(out) == before
    for number, then, now in (
        (BAD, picture(BAD), picture(1)),
        (BAD, picture(BAD), b""),
        (2, None, picture(2)),
    ):
        make(source, "manifest", {2: None, number: now})
        refused(source, out, number)
        ingest(make(source, "manifest", {2: None, number: then}), out, **OPTIONS)
    make(source, "manifest", {2: None, 3: None})  # stored, and gone now
    refused(source, out, 3)


def test_a_task_compares_its_own_share(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    make(source, "folders")
    for task in range(3):
        ingest(source, out, part=(task, 3), **OPTIONS)
    make(source, "folders", {6: picture(6, 100)})
    before = content(out)
    for task in (0, 2):
        ingest(source, out, part=(task, 3), **OPTIONS)
    assert content(out) == before
    refused(source, out, 6, part=(1, 3))
    refused(source, out, 6)


def test_of_very_many_pictures_that_tasks_packed_all_sizes_are_compared_and_some_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanged, "READ", 3)  # every fourth: 0, 4, 8
    source, out = tmp_path / "source", tmp_path / "out"
    make(source, "folders")
    for task in range(3):
        ingest(source, out, part=(task, 3), **OPTIONS)
    make(source, "folders", {number: picture(number, 100) for number in range(1, COUNT)})
    refused(source, out, 4)
    make(source, "folders", {9: picture(9, 100) + b"\0"})
    refused(source, out, 9)
    make(source, "folders", {9: picture(9, 100)})
    ingest(source, out, **OPTIONS)  # only now may it be missed
    assert open_data(out).samples == COUNT - 1
    refused(source, out, 9)  # of a finished folder all are read
