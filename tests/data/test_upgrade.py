"""From shards of format 1 to format 2: the same data all the while, whatever kills the upgrade in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from places import GOLDEN

from hpcscale.cli import main
from hpcscale.data import manifest
from hpcscale.data import upgrade as module
from hpcscale.data.manifest import entry_name, read_manifest, read_plan
from hpcscale.data.parts import Busy, locked
from hpcscale.data.store import DataError, DataSet, open_data
from hpcscale.data.upgrade import upgrade
from hpcscale.data.verify import info, verify
from hpcscale.files import aside
from hpcscale.ingest import packing
from hpcscale.ingest.packing import Packing, ingest

DIGEST = "d18e067f94fceb812b12fee4059824b9"  # of golden/format-1, as the code said that packed it
SAMPLES = 9  # in three shards, and one record in the quarantine


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Three shards that code of format 1 has packed; never written again."""
    return Path(shutil.copytree(GOLDEN / "format-1", tmp_path / "old"))


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same source, packed today."""
    data = open_data(GOLDEN / "format-1")
    source = tmp_path / "source"
    source.mkdir()
    samples = np.arange(SAMPLES)
    offsets, ids = data.tag_rows(samples)
    lines = [
        {"image": name, "tags": [data.tags[tag] for tag in ids[offsets[row] : offsets[row + 1]]]}
        for row, name in enumerate(data.names(samples))
    ]
    for name, jpeg in zip(data.names(samples), data.jpegs(samples), strict=True):
        (source / name).write_bytes(jpeg.tobytes())
    lost = json.loads((GOLDEN / "format-1" / "quarantine.jsonl").read_text())
    (source / lost["name"]).write_bytes(b"")
    lines.insert(lost["record"], {"image": lost["name"], "tags": []})
    (source / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(packing, "encoder", lambda: data.plan.encoder)
    ingest(source, tmp_path / "new", packing=Packing(shard_samples=data.plan.shard_samples), workers=1)
    return tmp_path / "new"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def facts(data: DataSet) -> list[object]:
    """All that a reader of format 1 can ask for."""
    samples = np.arange(data.samples)
    jpegs = [jpeg.tobytes() for jpeg in data.jpegs(samples)]
    rows = [array.tolist() for array in data.tag_rows(samples)]
    return [data.digest, jpegs, rows, data.names(samples), data.source_digests(samples).tolist()]


def test_format_1_is_read_as_it_was_and_says_what_it_lacks(old: Path) -> None:
    data = open_data(old)
    assert (data.plan.format, data.samples, data.digest, verify(old)) == (1, SAMPLES, DIGEST, [])
    assert (info(old)["format"], info(old)["pictures_digest"]) == (1, None)
    for ask in (lambda: data.sizes(np.arange(2)), lambda: data.pictures_digest):
        with pytest.raises(DataError, match=rf"format 1 does not hold .* run `hpcscale data upgrade {old}`"):
            ask()


def test_packed_or_upgraded_the_bytes_are_the_same_and_the_data_too(old: Path, new: Path) -> None:
    before = facts(open_data(old))
    assert upgrade(old) == 3
    assert content(old) == content(new)
    data = open_data(old)
    assert facts(data) == before == facts(open_data(new))
    assert (data.plan.format, data.digest, verify(old)) == (2, DIGEST, [])
    assert data.sizes(np.array([8, 0, 3], np.int64)).tolist() == [[14, 9], [5, 9], [8, 9]]
    assert upgrade(old) == 0
    assert content(old) == content(new)


def test_an_older_manifest_gets_its_digests(old: Path, new: Path) -> None:
    file = old / "manifest.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({k: line[k] for k in line if k != "digest"}) + "\n" for line in lines))
    upgrade(old)
    assert content(old) == content(new)


KILLED = """
import os, pathlib, signal, sys
from hpcscale.data import manifest
from hpcscale.data import upgrade as module
passed, moment = 0, 0
def may_die(function):
    def step(*arguments, **options):
        pass_by()
        answer = function(*arguments, **options)
        pass_by()
        return answer
    return step
def pass_by():
    global passed
    passed += 1
    if passed == moment:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync, pathlib.Path.rename = map(may_die, (os.fsync, pathlib.Path.rename))
pathlib.Path.unlink, module.write_shard = map(may_die, (pathlib.Path.unlink, module.write_shard))
for folder in sys.stdin:
    moment += 1
    if not (child := os.fork()):
        module.upgrade(pathlib.Path(folder[:-1]))
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_killed_at_any_step_it_is_whole_and_goes_on(new: Path, tmp_path: Path) -> None:
    """Before and behind whatever changes the folder: what is written, synced, renamed, removed."""
    before, wanted = facts(open_data(GOLDEN / "format-1")), content(new)
    formats, kills = set(), 0
    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while True:
            folder = Path(shutil.copytree(GOLDEN / "format-1", tmp_path / f"killed-{kills}"))
            print(folder, file=process.stdin, flush=True)
            status = int(process.stdout.readline())
            data = open_data(folder)
            assert facts(data) == before
            assert verify(folder) == []
            formats.add((data.plan.format, *(data.shard(k).sizes is not None for k in range(3))))
            upgrade(folder)
            assert content(folder) == wanted
            if status != signal.SIGKILL:
                break
            kills += 1
    assert (status, kills > 40) == (0, True)
    assert formats >= {(1, False, False, False), (1, True, False, False), (1, True, True, True)}


def upgrade_half(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a kill leaves it behind the first shard."""

    def full(*arguments: object) -> None:
        if (old / entry_name(0)).exists():
            raise OSError("no space left")
        write(*arguments)  # type: ignore[arg-type]

    write = module.write_shard
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", full)
        with pytest.raises(OSError, match="no space left"):
            upgrade(old)
    assert [data.sizes is not None for data in map(open_data(old).shard, range(3))] == [True, False, False]


def test_an_ingest_of_format_1_goes_on_and_leaves_both_formats(old: Path, new: Path, tmp_path: Path) -> None:
    (old / "quarantine.jsonl").unlink()
    (old / "shard-00002.h5").unlink()
    first = (old / "shard-00000.h5").read_bytes()
    manifest = old / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(DataError, match="the ingest has not ended"):
        upgrade(old)
    ingest(tmp_path / "source", old, packing=Packing(shard_samples=4), workers=1)
    assert (old / "shard-00000.h5").read_bytes() == first
    assert (read_plan(old).format, open_data(old).digest, verify(old)) == (1, DIGEST, [])
    assert (old / "shard-00002.h5").read_bytes() == (new / "shard-00002.h5").read_bytes()
    assert upgrade(old) == 2
    assert content(old) == content(new)


def test_an_ingest_typed_again_over_half_an_upgrade_harms_nothing(
    old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade_half(old, monkeypatch)
    ingest(tmp_path / "source", old, packing=Packing(shard_samples=4), workers=1)
    assert (open_data(old).digest, verify(old)) == (DIGEST, [])
    assert upgrade(old) == 2
    assert content(old) == content(new)


def test_one_at_a_time_and_only_what_killed_calls_left_is_removed(old: Path) -> None:
    with locked(old, None), pytest.raises(Busy, match="another call is writing"):
        upgrade(old)
    (old / "notes.txt").write_text("mine")
    left = aside(old / "shard-00001.h5")
    left.write_bytes(b"half")
    upgrade(old)
    assert (left.exists(), (old / "notes.txt").read_text()) == (False, "mine")


def test_a_damaged_shard_is_named_and_stays(old: Path) -> None:
    file = old / "shard-00001.h5"
    shard = bytearray(file.read_bytes())
    shard[shard.index(b"\xff\xd9") - 9] ^= 4  # in the pixels of its first picture
    file.write_bytes(shard)
    with pytest.raises(DataError, match=r"shard-00001\.h5: sample 0 \(pictüre 4\.jpg\): its checksum"):
        upgrade(old)
    assert file.read_bytes() == shard
    assert not list(old.glob("*.tmp"))
    with h5py.File(file, "r+") as opened:
        opened["jpeg"][: opened["jpeg_offsets"][1]] = 0
    with pytest.raises(DataError, match=r"shard-00001\.h5: sample 0 \(pictüre 4\.jpg\): the size cannot be"):
        upgrade(old)


def test_a_plan_of_format_2_has_no_shard_of_format_1(old: Path) -> None:
    shard = (old / "shard-00001.h5").read_bytes()
    upgrade(old)
    (old / "shard-00001.h5").write_bytes(shard)
    assert "attribute 'format' is 1, expected 2" in str(verify(old)[0])


def test_the_command(old: Path) -> None:
    done = CliRunner().invoke(main, ["data", "upgrade", str(old)])
    assert (done.exit_code, done.stdout) == (0, f"{old}: format 2, 3 shards were written anew\n")
    done = CliRunner().invoke(main, ["data", "upgrade", str(old)])
    assert (done.exit_code, done.stdout) == (0, f"{old}: format 2, 0 shards were written anew\n")
    assert read_manifest(old)[2].pictures
    os.unlink(old / "quarantine.jsonl")
    (old / "plan.json").write_bytes((GOLDEN / "format-1" / "plan.json").read_bytes())
    done = CliRunner().invoke(main, ["data", "upgrade", str(old)])
    assert (done.exit_code, "the ingest has not ended" in done.stderr) == (1, True)


def test_a_reader_that_was_overtaken_by_the_end_of_an_upgrade_reads_again(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the old manifest, and the lines beside the shards are gone when it looks for them."""
    before, wanted = (old / "manifest.jsonl").read_bytes(), open_data(old).digest
    upgrade(old)
    real, reads = manifest.read_bytes, [before]

    def overtaken(file: Path, *most: int) -> bytes:
        return reads.pop() if file.name == "manifest.jsonl" and reads else real(file, *most)

    monkeypatch.setattr(manifest, "read_bytes", overtaken)
    assert open_data(old).digest == wanted
    assert not reads
