"""Ingest: the same bytes however it is run, killed and run again; nothing dropped without a reason."""

import fcntl
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpcscale.data.parts import Busy
from hpcscale.data.store import DataError, open_data
from hpcscale.data.verify import info, verify
from hpcscale.files import aside
from hpcscale.ingest import packing as module
from hpcscale.ingest.packing import OptionError, Packing, ingest
from hpcscale.ingest.sources import SourceError
from hpcscale.ingest.workers import WorkerDied


def photograph(number: int) -> bytes:
    """A small JPEG; no two numbers have the same."""
    out = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((60 + number % 7, 45)).save(out, "JPEG")
    return out.getvalue()


def make_source(folder: Path, records: int = 40, odd: bool = True) -> Path:
    """A folder of pictures with a manifest; every eighth record cannot be stored."""
    folder.mkdir()
    with (folder / "manifest.jsonl").open("w") as manifest:
        for number in range(records):
            name, content = f"{number:03d}.jpg", photograph(number)
            if odd and number % 8 == 5:
                content = [b"", b"no picture", content[: len(content) // 2], None][number // 8 % 4]
            if content is not None:
                (folder / name).write_bytes(content)
            tags = [f"tag {number % 5}", f"t{number}"][: number % 3]
            manifest.write(json.dumps({"image": name, "tags": tags, "wnid": f"n{number % 4:08d}"}) + "\n")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def arguments(source: Path, out: Path, workers: int = 2) -> list[str]:
    code = "from hpcscale.cli import main; main()"
    options = ["--resize", "24", "--shard-samples", "9", "--workers", str(workers)]
    return [sys.executable, "-c", code, "data", "ingest", str(source), str(out), *options]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("ingest") / "source")


@pytest.fixture(scope="module")
def expected(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted ingest with one worker leaves."""
    out = tmp_path_factory.mktemp("expected") / "out"
    ingest(source, out, packing=Packing(24, shard_samples=9), workers=1)
    assert verify(out) == []
    return content(out)


def test_what_is_stored_and_what_is_quarantined(source: Path, tmp_path: Path) -> None:
    entries = ingest(source, tmp_path / "out", packing=Packing(shard_samples=9), workers=2)
    data = open_data(tmp_path / "out")
    assert [entry.samples + entry.quarantined for entry in entries] == [9, 9, 9, 9, 4]
    every = np.arange(data.samples)
    kept = [number for number in range(40) if number % 8 != 5]
    assert data.names(every) == [f"{number:03d}.jpg" for number in kept]
    assert [jpeg.tobytes() for jpeg in data.jpegs(every)] == [photograph(number) for number in kept]
    offsets, ids = data.tag_rows(every)
    for row, number in enumerate(kept):
        tags = [data.tags[tag] for tag in ids[offsets[row] : offsets[row + 1]]]
        assert tags == [*[f"tag {number % 5}", f"t{number}"][: number % 3], f"n{number % 4:08d}"]
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert [(line["record"], line["name"]) for line in lines] == [
        (n, f"{n:03d}.jpg") for n in (5, 13, 21, 29, 37)
    ]
    for line, reason in zip(
        lines, ["empty", "not a picture", "runcated", "No such file", "empty"], strict=True
    ):
        assert reason in line["reason"]
    found = info(tmp_path / "out")
    assert (found["samples"], found["shards"], found["quarantined"], found["records"]) == (35, 5, 5, 40)
    assert (found["labels"], found["finished"]) == (len(data.tags), True)


def test_any_number_of_workers_gives_the_same_bytes(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    ingest(source, tmp_path / "out", packing=Packing(24, shard_samples=9), workers=3)
    assert content(tmp_path / "out") == expected
    before = (tmp_path / "out" / "shard-00000.h5").stat()
    ingest(source, tmp_path / "out", packing=Packing(24, shard_samples=9), workers=1)  # nothing left to do
    assert content(tmp_path / "out") == expected
    assert (tmp_path / "out" / "shard-00000.h5").stat().st_ino == before.st_ino


def states() -> dict[str, Callable[[Path], None]]:
    """What a kill may leave behind, made from a finished folder."""

    def keep(names: list[str], lines: int) -> Callable[[Path], None]:
        def cut(out: Path) -> None:
            for path in out.iterdir():
                if path.name not in names:
                    path.unlink()
            if lines >= 0:
                manifest = out / "manifest.jsonl"
                manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:lines]))

        return cut

    shards = [f"shard-0000{k}.h5" for k in range(5)]

    def torn(out: Path) -> None:
        keep(["plan.json", "tags.jsonl", "manifest.jsonl", *shards[:3]], 3)(out)
        manifest = out / "manifest.jsonl"
        manifest.write_bytes(manifest.read_bytes()[:-20])

    def damaged(out: Path) -> None:
        keep(["plan.json", "tags.jsonl", "manifest.jsonl", *shards[:2]], 1)(out)
        shard = bytearray((out / shards[1]).read_bytes())
        shard[len(shard) // 2] ^= 1
        (out / shards[1]).write_bytes(shard)

    def temporaries(out: Path) -> None:
        keep(["plan.json", "tags.jsonl", "manifest.jsonl", shards[0]], 1)(out)
        aside(out / "shard-00001.h5").write_bytes(b"half")
        aside(out / "quarantine.jsonl").write_bytes(b"half")

    def longer(out: Path) -> None:
        keep(["plan.json", "tags.jsonl", "manifest.jsonl", *shards[:3]], 3)(out)
        with (out / shards[1]).open("ab") as shard:
            shard.write(b"more")

    return {
        "bytes behind a shard": longer,
        "nothing yet": keep([], -1),
        "a torn plan": lambda out: (keep([], -1)(out), aside(out / "plan.json").write_bytes(b"{"))[0],
        "only the plan": keep(["plan.json"], -1),
        "a plan and tags": keep(["plan.json", "tags.jsonl"], -1),
        "two shards": keep(["plan.json", "tags.jsonl", "manifest.jsonl", *shards[:2]], 2),
        "a shard without its line": keep(["plan.json", "tags.jsonl", "manifest.jsonl", *shards[:3]], 2),
        "a damaged shard without its line": damaged,
        "a torn line": torn,
        "temporary files": temporaries,
        "a shard that was deleted": keep(["plan.json", "tags.jsonl", "manifest.jsonl", *shards[2:]], 5),
        "no quarantine": keep(["plan.json", "tags.jsonl", "manifest.jsonl", *shards], 5),
    }


@pytest.mark.parametrize("state", list(states()))
def test_every_state_a_kill_can_leave_is_resumed(
    source: Path, tmp_path: Path, expected: dict[str, bytes], state: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, data in expected.items():
        (out / name).write_bytes(data)
    states()[state](out)
    with pytest.raises(DataError):
        open_data(out)
    ingest(source, out, packing=Packing(24, shard_samples=9), workers=2)
    assert content(out) == expected


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task/{process}/children")
    return [int(child) for child in tasks.read_text().split()] if tasks.exists() else []


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_kill_9_at_some_moments_then_the_same_bytes(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    """Kills the parent alone, so that it also shows that workers end by themselves."""
    out, orphans, killed = tmp_path / "out", set(), 0
    for sign in (".lock", "plan.json", "shard-00000.h5", "shard-00001.h5.*.tmp", "shard-00003.h5", "random"):
        process = subprocess.Popen(arguments(source, out), stderr=subprocess.DEVNULL)
        until = time.monotonic() + (random.uniform(0.1, 0.4) if sign == "random" else 60)
        while time.monotonic() < until and process.poll() is None and not list(out.glob(sign)):
            orphans |= set(children(process.pid))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 1  # on a busy machine the ingest may outrun this test
    subprocess.run(arguments(source, out), check=True)
    assert content(tmp_path / "out") == expected
    until = time.monotonic() + 20
    while any(alive(orphan) for orphan in orphans) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [orphan for orphan in orphans if alive(orphan)]


def started(source: Path, out: Path, folder: Path) -> tuple["subprocess.Popen[str]", list[int]]:
    """An ingest whose two workers hang while they read their first picture, and the workers."""
    (folder / "sitecustomize.py").write_text("import os, time\nos.pread = lambda *a: time.sleep(600)\n")
    process = subprocess.Popen(
        arguments(source, out),
        env={**os.environ, "PYTHONPATH": str(folder)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(workers := children(process.pid)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    return process, workers


def test_a_killed_worker_ends_the_ingest_which_can_be_resumed(
    source: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    process, workers = started(source, tmp_path / "out", tmp_path)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "SIGKILL" in errors
    assert "run the same command again" in errors
    with pytest.raises(DataError, match="run the same"):
        open_data(tmp_path / "out")
    subprocess.run(arguments(source, tmp_path / "out"), check=True)
    assert content(tmp_path / "out") == expected


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_stops_cleanly(
    source: Path, tmp_path: Path, which: signal.Signals
) -> None:
    out = tmp_path / "out"
    process, _ = started(source, out, tmp_path)
    os.killpg(process.pid, which)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75
    assert errors == "interrupted; run the same command again to go on\n"
    assert not list(out.glob("*.tmp"))


def test_another_source_or_other_options_are_refused_by_name(source: Path, tmp_path: Path) -> None:
    out, packing = tmp_path / "out", Packing(24, shard_samples=20)
    ingest(source, out, packing=packing, workers=1)
    before = content(out)
    for other, message in (
        (packing._replace(resize=25), "resize was 24, now is 25"),
        (packing._replace(quality=80), "quality was 90, now is 80"),
        (packing._replace(shard_samples=10), "shard_samples was 20, now is 10"),
    ):
        with pytest.raises(OptionError, match=message):
            ingest(source, out, packing=other, workers=1)
    more = make_source(tmp_path / "other", records=41)
    with pytest.raises(OptionError, match="records was 40, now is 41; source_digest was"):
        ingest(more, out, packing=packing, workers=1)
    assert content(out) == before


def test_a_malformed_manifest_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = make_source(tmp_path / "source", records=3)
    with (folder / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"image": "a.jpg"}\n')
    with pytest.raises(SourceError, match=r"manifest\.jsonl:4: 'tags'"):
        ingest(folder, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    (folder / "manifest.jsonl").write_text("\n")
    with pytest.raises(SourceError, match="no records"):
        ingest(folder, tmp_path / "out", workers=1)


def test_a_source_without_any_usable_picture(tmp_path: Path) -> None:
    (tmp_path / "source/a").mkdir(parents=True)
    (tmp_path / "source/a/b.jpg").touch()
    (entry,) = ingest(tmp_path / "source", tmp_path / "out", workers=1)
    assert (entry.samples, entry.quarantined) == (0, 1)
    assert verify(tmp_path / "out") == []
    data = open_data(tmp_path / "out")
    nothing = np.empty(0, np.int64)
    assert (data.samples, data.tags, data.jpegs(nothing)) == (0, ("a",), [])


def test_strange_folders_and_a_second_ingest_are_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    with pytest.raises(OptionError, match=r"thesis\.tex"):
        ingest(source, tmp_path / "full", workers=1)
    tree = tmp_path / "tree"
    (tree / "class").mkdir(parents=True)
    with pytest.raises(OptionError, match="lies inside"):
        ingest(tree, tree / "out", workers=1)
    (tmp_path / "busy").mkdir()
    with (tmp_path / "busy/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another call is writing"):
            ingest(source, tmp_path / "busy", workers=1)
    for wrong in (Packing(resize=-1), Packing(quality=0), Packing(quality=101), Packing(shard_samples=-5)):
        (name,) = (key for key in wrong._fields if getattr(wrong, key) != getattr(Packing(), key))
        with pytest.raises(OptionError, match=name):
            ingest(source, tmp_path / "new", packing=wrong)
    with pytest.raises(OptionError, match="workers"):
        ingest(source, tmp_path / "new", workers=-1)
    assert not (tmp_path / "new").exists()


def test_a_source_that_shrinks_during_the_ingest_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_source(tmp_path / "source", records=12, odd=False)
    survey = module.survey_source

    def shrinking(*args: object) -> object:
        result = survey(*args)  # type: ignore[arg-type]
        lines = (folder / "manifest.jsonl").read_text().splitlines(keepends=True)
        (folder / "manifest.jsonl").write_text("".join(lines[:7]))
        return result

    monkeypatch.setattr(module, "survey_source", shrinking)
    with pytest.raises(SourceError, match="changed during the ingest"):
        ingest(folder, tmp_path / "out", packing=Packing(shard_samples=5), workers=1)


def test_a_read_error_that_may_pass_is_not_a_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ESTALE of a network mount: the ingest ends and can be run again."""
    folder = make_source(tmp_path / "source", records=2, odd=False)
    fault = tmp_path / "sitecustomize.py"
    fault.write_text(
        "import os, errno\ndef pread(*a): raise OSError(errno.ESTALE, 'Stale')\nos.pread = pread\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(OSError, match="Stale"):
        ingest(folder, tmp_path / "out", workers=1)
    monkeypatch.delenv("PYTHONPATH")
    (entry,) = ingest(folder, tmp_path / "out", workers=1)
    assert entry.samples == 2


def test_a_worker_that_cannot_start_is_an_error_not_a_hang(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerDied, match="exit status 1"):
        ingest(source, tmp_path / "out", workers=2)
