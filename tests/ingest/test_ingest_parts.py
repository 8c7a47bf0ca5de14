"""data ingest --part: tasks at the same time, killed, run twice; joined, the bytes are those of one call."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tasks import NO_LOCKS, together
from test_ingest import content, make_source

from hpcscale.cli import main
from hpcscale.data.manifest import DataError, Plan
from hpcscale.data.parts import Busy, locked, part_of
from hpcscale.data.store import open_data
from hpcscale.data.verify import verify
from hpcscale.files import write_once
from hpcscale.ingest import packing as module
from hpcscale.ingest.packing import OptionError, Packing, ingest

PACKING = Packing(24, shard_samples=9)
OPTIONS = ("--resize", "24", "--shard-samples", "9", "--workers", "1")
SLOW = """
import time
import hpcscale.ingest.packing as ingest
check = ingest.checked_shard  # of a shard that lies aside
ingest.checked_shard = lambda *arguments: (time.sleep(0.5), check(*arguments))[1]
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("ingest") / "source")


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one call leaves: five shards."""
    out = tmp_path_factory.mktemp("expected") / "out"
    ingest(source, out, packing=PACKING, workers=1)
    return content(out)


def start(source: Path, out: Path, part: str | None = None, before: str = "") -> subprocess.Popen[str]:
    command = ["data", "ingest", str(source), str(out), *OPTIONS, *(["--part", part] if part else [])]
    code = f"{before}\nfrom hpcscale.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)  # fmt: skip


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, errors = process.communicate(timeout=120)
    return process.returncode, output + errors


def wait(process: subprocess.Popen[str], out: Path, sign: str) -> None:
    until = time.monotonic() + 60
    while not list(out.glob(sign)):
        assert process.poll() is None, end(process)
        assert time.monotonic() < until
        time.sleep(0.001)


def test_tasks_at_the_same_time_then_the_bytes_of_one_call(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    before = together("hpcscale.ingest.packing", "survey_source", tmp_path / "marks", 3)
    for code, output in [end(start_) for start_ in [start(source, out, f"{i}/3", before) for i in range(3)]]:
        assert code == 0, output
    with pytest.raises(DataError, match="not ended"):
        open_data(out)
    inodes = {path.name: path.stat().st_ino for path in out.glob("*.h5")}
    assert sorted(inodes) == [f"shard-0000{k}.h5" for k in range(5)]
    code, output = end(start(source, out))
    assert (code, output.startswith(f"{out}: 35 samples in 5 shards")) == (0, True), output
    assert content(out) == expected
    assert {path.name: path.stat().st_ino for path in out.glob("*.h5")} == inodes  # nothing packed again


def test_killed_tasks_run_again_or_are_made_up_for(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    signs = ("plan.json", "shard-00000.h5.*.tmp", "shard-00000.h5", "shard-00001.h5.*.tmp")
    for sign in signs:
        process = start(source, out, "0/2", SLOW)
        wait(process, out, sign)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        end(process)
    (code, output), name = end(start(source, out, "0/2")), f"{out}: part 0/2: "
    assert (code, output.startswith(name)) == (0, True), output
    assert not list(out.glob("shard-*.tmp"))  # of its own shards, on this node
    process = start(source, out, "1/2", SLOW)  # packs 2 to 4; killed, and never run again
    wait(process, out, "shard-00003.h5.*.tmp")
    process.kill()
    end(process)
    assert (out / "shard-00002.h5").exists()
    assert not (out / "shard-00004.h5").exists()
    assert end(start(source, out))[0] == 0
    assert content(out) == expected


def test_a_task_and_the_joining_call_keep_out_of_each_others_way(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with locked(out, (0, 2)):
        for part, said in (("0/2", "another call does part 0/2"), (None, "another call is writing into it")):
            code, output = end(start(source, out, part))
            assert (code, said in output, "run the same command again" in output) == (75, True, True), output
    assert end(start(source, out, "0/2"))[0] == 0
    with locked(out, None), pytest.raises(Busy, match="without --part"):
        ingest(source, out, packing=PACKING, workers=1, part=(1, 2))
    ingest(source, out, packing=PACKING, workers=1)
    before = (out / "shard-00000.h5").stat().st_ino
    assert len(ingest(source, out, packing=PACKING, workers=1, part=(0, 2))) == 2  # once more
    assert content(out) == expected
    assert (out / "shard-00000.h5").stat().st_ino == before


def test_twins_without_locks_do_no_harm(source: Path, tmp_path: Path, expected: dict[str, bytes]) -> None:
    """A task and its former self on a node that was cut off, where the file system has no locks."""
    out = tmp_path / "out"
    for code, output in [end(twin) for twin in [start(source, out, "0/1", NO_LOCKS) for _ in range(3)]]:
        assert code == 0, output
    assert end(start(source, out))[0] == 0
    assert content(out) == expected


def test_a_full_disk_leaves_nothing_half_written(
    source: Path, tmp_path: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out", module.write_shard

    def full(file: Path, plan: Plan, index: int, *arguments: Any) -> None:
        write(file, plan, index, *arguments)
        if index == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_shard", full)
        for part in ((0, 2), None):
            with pytest.raises(OSError, match="No space"):
                ingest(source, out, packing=PACKING, workers=1, part=part)
            assert [path.name for path in out.glob("shard-*.h5*")] == ["shard-00000.h5"]
    ingest(source, out, packing=PACKING, workers=1)
    assert content(out) == expected


def test_tasks_that_do_not_agree_are_refused(source: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "source"
    ingest(source, out, packing=PACKING, workers=1, part=(0, 3))
    before = content(out)
    with pytest.raises(OptionError, match="quality was 90, now is 80"):
        ingest(source, out, packing=PACKING._replace(quality=80), workers=1, part=(1, 3))
    shutil.copytree(source, other)
    with (other / "manifest.jsonl").open("a") as manifest:
        manifest.write(json.dumps({"image": "000.jpg", "tags": ["later"]}) + "\n")
    with pytest.raises(OptionError, match="records was 40, now is 41; source_digest was"):
        ingest(other, out, packing=PACKING, workers=1, part=(1, 3))
    assert content(out) == before


@pytest.mark.parametrize(
    "state", ["torn line", "wrong size", "no line", "foreign line", "shard gone", "other plan"]
)
def test_what_lies_beside_shards_is_not_believed_blindly(
    source: Path, tmp_path: Path, expected: dict[str, bytes], state: str
) -> None:
    out = tmp_path / "out"
    for part in ((0, 2), (1, 2)):
        ingest(source, out, packing=PACKING, workers=1, part=part)
    shard, line = out / "shard-00001.h5", out / "shard-00001.json"
    if state == "torn line":
        line.write_bytes(b"")
    elif state == "wrong size":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif state == "no line":
        line.unlink()
    elif state == "foreign line":
        known = json.loads((out / "shard-00002.json").read_text())
        line.write_text(json.dumps(known | {"bytes": shard.stat().st_size}))
    elif state == "shard gone":
        shard.unlink()
    else:  # a shard of another plan, and a line that knows its size
        ingest(source, tmp_path / "other", packing=PACKING._replace(quality=50), workers=1)
        shutil.copy(tmp_path / "other" / shard.name, shard)
        line.write_text((tmp_path / "other" / "manifest.jsonl").read_text().splitlines()[1])
    ingest(source, out, packing=PACKING, workers=1)
    assert content(out) == expected
    assert verify(out) == []


def test_shares_cover_everything_once() -> None:
    for total in (0, 1, 5, 64):
        for of in (1, 2, 3, 7, 65):
            assert [item for mine in range(of) for item in part_of(total, (mine, of))] == list(range(total))
    assert list(part_of(5, None)) == [0, 1, 2, 3, 4]


def test_more_tasks_than_shards_and_parts_that_are_none(source: Path, tmp_path: Path) -> None:
    arguments = ["data", "ingest", str(source), str(tmp_path / "out"), *OPTIONS]
    result = CliRunner().invoke(main, [*arguments, "--part", "0/50"])
    assert (result.exit_code, "part 0/50: 0 samples in 0 shards" in result.output) == (0, True), result.output
    for part in ("2/2", "1", "a/2", "-1/2", "1/0"):
        result = CliRunner().invoke(main, [*arguments, "--part", part])
        assert (result.exit_code, "expected I/N" in result.output) == (2, True)
    with pytest.raises(OptionError, match="0 <= I < N"):
        ingest(source, tmp_path / "out", part=(2, 2))


def test_of_many_that_write_once_one_wins(tmp_path: Path) -> None:
    for attempt in range(20):
        file, found = tmp_path / f"{attempt}", []
        gate = threading.Barrier(8)

        def write(
            number: int, file: Path = file, gate: threading.Barrier = gate, found: list = found
        ) -> None:
            gate.wait()
            found.append(write_once(file, str(number).encode() * 1000))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(found) == {file.read_bytes()}
        assert len(found) == 8
    assert sorted(os.listdir(tmp_path), key=int) == [str(attempt) for attempt in range(20)]


def test_write_once_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*arguments: object) -> None:
        raise PermissionError(1, "no hard links")

    monkeypatch.setattr(os, "link", link)
    assert write_once(tmp_path / "a", b"one") == b"one"
    assert write_once(tmp_path / "a", b"two") == b"one"
    assert os.listdir(tmp_path) == ["a"]
