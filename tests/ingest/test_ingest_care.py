"""Ingest and the user: foreign files stay, a source may change meanwhile, and nothing waits for ever."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner
from test_ingest import content, make_source, photograph

from hpcscale.cli import main
from hpcscale.data.manifest import DataError, Plan
from hpcscale.data.store import open_data
from hpcscale.data.verify import verify
from hpcscale.dedup.hashes import hash_source
from hpcscale.files import aside
from hpcscale.ingest import packing as module
from hpcscale.ingest import workers as working
from hpcscale.ingest.packing import OptionError, Packing, ingest
from hpcscale.ingest.record import Record
from hpcscale.ingest.sources import SourceError, find_source
from hpcscale.ingest.transcode import store_picture


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["data", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("care") / "source", 20)


USERS = ("thesis.tmp", ".lock", ".lock-0-2", ".lock-notes", "manifest.jsonl.tmp", "plan.json.bak",
         "shard-1.h5.tmp", "tags.jsonl",
         "manifest.jsonl", "quarantine.jsonl.old", ".hidden")  # fmt: skip


@pytest.mark.parametrize("name", USERS)
@pytest.mark.parametrize("part", [None, (0, 2)])
def test_a_folder_with_a_users_file_is_refused_untouched(
    source: Path, tmp_path: Path, name: str, part: tuple[int, int] | None
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"mine")
    with pytest.raises(OptionError, match="not empty and not a data-set folder"):
        ingest(source, out, workers=1, part=part)
    assert content(out) == {name: b"mine"}


def test_in_a_folder_of_ours_only_what_a_killed_call_left_is_removed(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ingest(source, out, workers=1)
    before = content(out)
    for name in ("thesis.tmp", ".lock-notes", "notes.txt"):
        (out / name).write_bytes(b"mine")
    for name in ("shard-00000.h5", "shard-00000.json", "plan.json", "quarantine.jsonl"):
        aside(out / name).write_bytes(b"half")
    (out / ".lock-0-7").touch()
    ingest(source, out, workers=1)
    assert content(out) == before | dict.fromkeys(("thesis.tmp", ".lock-notes", "notes.txt"), b"mine")


def test_a_users_empty_folder_stays_where_nothing_begins(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/manifest.jsonl").write_text("{}\n")
    for there in (True, False):
        out = tmp_path / str(there)
        if there:
            out.mkdir()
        with pytest.raises(SourceError, match="'image' must be a path"):
            ingest(tmp_path / "source", out, workers=1)
        assert (out.exists(), list(out.glob("*"))) == (there, [])


def test_a_task_that_is_run_again_removes_what_it_left_of_finished_shards(
    source: Path, tmp_path: Path
) -> None:
    """Killed while it wrote the line of a shard that is whole."""
    out = tmp_path / "out"
    options = {"packing": Packing(shard_samples=5), "workers": 1, "part": (0, 2)}
    ingest(source, out, **options)  # type: ignore[arg-type]
    mine = [aside(out / name) for name in ("shard-00000.json", "shard-00001.h5")]
    elsewhere = out / "shard-00000.json.othernode-0123abcd.tmp"
    others = aside(out / "shard-00003.h5")
    for file in (*mine, elsewhere, others):
        file.write_bytes(b"half")
    ingest(source, out, **options)  # type: ignore[arg-type]
    assert [file.exists() for file in (*mine, elsewhere, others)] == [False, False, True, True]


@pytest.mark.parametrize("change", ["added", "removed", "tags"])
def test_a_source_that_changes_meanwhile_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    folder = tmp_path / "source"
    for number in range(12):
        file = folder / f"class {number % 2}" / f"{number:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photograph(number))
    survey = module.survey_source

    def changing(*arguments: object) -> object:
        found = survey(*arguments)  # type: ignore[arg-type]
        if change == "added":
            (folder / "class 0/09.jpg").write_bytes(photograph(99))  # pushes the last one out
        elif change == "removed":
            (folder / "class 1/07.jpg").rename(folder / "class 1/99.jpg")
        else:
            (folder / "class 1/07.jpg").rename(folder / "class 0/07.jpg")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(module, "survey_source", changing)
        code, output = run("ingest", folder, tmp_path / "out", "--shard-samples", 3, "--workers", 1)
    assert (code, "the source changed during the ingest: not the same records" in output) == (1, True)
    kept = sorted(path.name for path in (tmp_path / "out").glob("shard-*"))
    assert kept == [f"shard-0000{k}.h5" for k in range({"added": 1, "removed": 3, "tags": 1}[change])]
    with pytest.raises(OptionError, match="begun with another source"):
        ingest(folder, tmp_path / "out", packing=Packing(shard_samples=3), workers=1)
    ingest(folder, tmp_path / "new", packing=Packing(shard_samples=3), workers=1)
    assert open_data(tmp_path / "new").samples == 12 + (change == "added")


def test_pictures_that_change_while_they_are_hashed_are_not_accepted(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "source"))
    (folder / "manifest.jsonl").unlink()
    out, once = tmp_path / "a.h5", [True]
    walk = working.answers

    def changing(*arguments: object) -> Iterator[object]:
        if once.pop():
            (folder / "0000.jpg").write_bytes(photograph(50))
        yield from walk(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("hpcscale.dedup.hashes.answers", changing)
        with pytest.raises(SourceError, match="changed while it was read"):
            hash_source(folder, out, workers=1)
    assert not out.exists()
    assert hash_source(folder, out, workers=1) is not None


def test_paths_longer_than_pipes_do_not_lock_parent_and_worker(tmp_path: Path) -> None:
    """In another process, so that waiting for ever would fail. Answers too are larger than a pipe."""
    big = tmp_path / "big.ppm"
    big.write_bytes(b"P6 900 900 255\n" + os.urandom(900 * 900 * 3))
    long = "x" * 200_000
    lines = [{"image": name, "tags": ["t"]} for _ in range(30) for name in ("big.ppm", long)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code = "from hpcscale.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "ingest", str(tmp_path), str(tmp_path / "out"),
               "--workers", "1", "--quality", "95"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert "30 samples" in done.stdout
    quarantine = (tmp_path / "out/quarantine.jsonl").read_text()
    assert quarantine.count("File name too long") == 30


def test_a_pipe_of_one_page_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux gives them to a user with many pipes."""
    file = tmp_path / "big.ppm"
    file.write_bytes(b"P6 300 300 255\n" + os.urandom(300 * 300 * 3))
    start = working._start

    def small(*arguments: object) -> working.Worker:
        worker = start(*arguments)  # type: ignore[arg-type]
        for stream in (worker.process.stdin, worker.process.stdout):
            working.fcntl.fcntl(stream, working.fcntl.F_SETPIPE_SZ, 4096)  # type: ignore[arg-type]
        return worker

    def late(*arguments: object) -> None:
        raise TimeoutError("parent and worker wait for each other")

    monkeypatch.setattr(working, "_start", small)
    records = [Record(str(file), (), f"{tmp_path}/{'./' * 1900}big.ppm") for _ in range(20)]
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    try:
        found = list(working.answers(records, 1, store_picture, None, 95))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert [stored.reason for _, stored in found if stored] == [""] * 20


@pytest.mark.parametrize(
    "name", ["plan.json", "tags.jsonl", "manifest.jsonl", "shard-00000.h5", "quarantine.jsonl"]
)
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(source: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    ingest(source, out, workers=1)
    (out / name).unlink()
    os.mkfifo(out / name)
    code, output = run("verify", out)
    assert (code, name in output) == (1, True)
    if name != "quarantine.jsonl":
        with pytest.raises(DataError, match=f"{name}.*not a regular file|is missing"):
            open_data(out)


def test_a_manifest_that_is_a_pipe_is_refused_at_once(source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "source"))
    (folder / "manifest.jsonl").unlink()
    for name in ("manifest.jsonl", "manifest.csv"):
        os.mkfifo(folder / name)
        code, output = run("ingest", folder, tmp_path / "out")
        assert (code, f"{name}: not a regular file" in output) == (1, True)
        (folder / name).unlink()


def test_errors_that_would_come_again_are_1(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, expected in ((errno.EROFS, 1), (errno.EACCES, 1), (errno.ELOOP, 1), (errno.ESTALE, 75)):

        def fail(*arguments: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number), "somewhere")

        with monkeypatch.context() as patch:
            patch.setattr(module, "survey_source", fail)
            code, output = run("ingest", source, tmp_path / "out")
        assert code == expected
        assert ("run the same command again" in output) == (expected == 75)


def test_files_are_written_without_locks(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    opened = h5py.File

    def watching(name: object, mode: str = "r", **options: object) -> h5py.File:
        asked.append((mode, options.get("locking")))
        return opened(name, mode, **options)

    monkeypatch.setattr(h5py, "File", watching)
    ingest(source, tmp_path / "out", workers=1)
    hash_source(tmp_path / "out", tmp_path / "a.h5", workers=1)
    assert {mode for mode, _ in asked} == {"r", "w"}
    assert {locking for _, locking in asked} == {False}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, 524])
def test_a_file_system_without_locks_is_warned_of(
    source: Path,
    tmp_path: Path,
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    ingest(source, tmp_path / "out", workers=1)
    assert "this file system has no locks" in caplog.text
    assert verify(tmp_path / "out") == []


def rewrite(out: Path, **numbers: int | str) -> None:
    """Change what the first line of the manifest says."""
    lines = (out / "manifest.jsonl").read_bytes().split(b"\n")
    lines[0] = json.dumps(json.loads(lines[0]) | numbers).encode()
    (out / "manifest.jsonl").write_bytes(b"\n".join(lines))


@pytest.mark.parametrize("key", ["samples", "tags", "untagged", "quarantined", "bytes"])
def test_verify_compares_the_manifests_numbers(source: Path, tmp_path: Path, key: str) -> None:
    out = tmp_path / "out"
    (entry, _) = ingest(source, out, workers=1, packing=Packing(shard_samples=12))
    right = getattr(entry, key)
    rewrite(out, **{key: right + 1})
    (problem,) = verify(out)
    assert (problem.file, problem.problem) == (
        "shard-00000.h5", f"{key}: {right}, not {right + 1} as manifest.jsonl says"
    )  # fmt: skip


def test_the_plan_of_a_shard_still_counts(source: Path, tmp_path: Path) -> None:
    ingest(source, tmp_path / "out", workers=1)
    plan = json.loads((tmp_path / "out/plan.json").read_text())
    assert Plan.model_validate(plan).records == 20
    (tmp_path / "out/plan.json").write_text("[" * 100_000)
    (problem,) = verify(tmp_path / "out")
    assert "nested too deep" in problem.problem


def test_links_that_lead_in_a_circle_are_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"source/{name}").mkdir(parents=True)
    (tmp_path / "source/a/to b").symlink_to("../b")
    assert run("ingest", tmp_path / "source", tmp_path / "out")[0] == 1  # no records
    (tmp_path / "source/b/to a").symlink_to("../a")
    for untagged in (False, True):
        with pytest.raises(SourceError, match="a loop without end"):
            list(find_source(tmp_path / "source", untagged=untagged).records())
    code, output = run("ingest", tmp_path / "source", tmp_path / "out")
    assert (code, "a loop without end" in output) == (1, True)


def test_pictures_listed_again_with_other_tags_are_told(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "source"))
    with (folder / "manifest.jsonl").open("a") as manifest:
        manifest.write((source / "manifest.jsonl").read_text())
    ingest(folder, tmp_path / "same", workers=1)
    assert caplog.text == ""
    with (folder / "manifest.jsonl").open("a") as manifest:
        for name in ("004.jpg", "003.jpg", "003.jpg"):
            manifest.write(json.dumps({"image": name, "tags": [name, "other"]}) + "\n")
    ingest(folder, tmp_path / "other", workers=1)
    assert "lists 2 pictures more than once with different tags, the first is '003.jpg'" in caplog.text


SEPARATORS = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh"


def test_line_separators_in_names_and_tags_split_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "source" / SEPARATORS
    folder.mkdir(parents=True)
    (folder / f"{SEPARATORS}.jpg").write_bytes(photograph(1))
    (folder / f"{SEPARATORS} none.jpg").write_bytes(b"")
    ingest(tmp_path / "source", tmp_path / "out", workers=1)
    assert verify(tmp_path / "out") == []
    data = open_data(tmp_path / "out")
    assert (data.tags, data.samples) == ((SEPARATORS,), 1)
    code, output = run("show", tmp_path / "out", "--out", tmp_path / "a.png")
    assert (code, len(output.splitlines())) == (0, 2)
    assert "a\\u2028b" in output


def test_tags_that_cannot_be_shown_are_escaped_and_long_ones_cut(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photograph(1))
    for tags, shown in (
        (["\ud800", "\x1b[31mred"], "\\ud800, \\u001b[31mred"),
        (["x" * 10_000_000], "x" * 197 + "..."),
        ([f"t{i}" for i in range(100_000)], "..."),
    ):
        (tmp_path / "manifest.jsonl").write_text(json.dumps({"image": "a.jpg", "tags": tags}) + "\n")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        ingest(tmp_path, tmp_path / "out", workers=1)
        code, output = run("show", tmp_path / "out", "--out", tmp_path / "a.png")
        assert (code, shown in output, len(output) < 600) == (0, True, True)
        assert open_data(tmp_path / "out").tags == tuple(sorted(tags))


def test_a_sheet_is_written_over_nothing_else(source: Path, tmp_path: Path) -> None:
    ingest(source, tmp_path / "out", workers=1)
    shard, mine = tmp_path / "out/shard-00000.h5", tmp_path / "sheet.png"
    mine.write_bytes(photograph(3))
    before = content(tmp_path / "out")
    for target, said in (
        (shard, "lies in a data set"),
        (tmp_path / "out/new.png", "lies in a data set"),
        (mine, "is there already"),
    ):
        code, output = run("show", tmp_path / "out", "--out", target)
        assert (code, said in output) == (2, True), output
    assert (content(tmp_path / "out"), mine.read_bytes()) == (before, photograph(3))
    for _ in range(2):  # its own sheet is drawn anew
        assert run("show", tmp_path / "out", "--out", tmp_path / "own.png")[0] == 0
