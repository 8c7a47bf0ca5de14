"""data survey: one walk for all tasks; each then walks its own shards, and refuses another source."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ingest import content, make_source, photograph
from test_sources import write_tar

from hpcscale.data.parts import part_of
from hpcscale.ingest import packing as module
from hpcscale.ingest.packing import OptionError, Packing, ingest, survey
from hpcscale.ingest.record import Record, SourceError, Start
from hpcscale.ingest.sources import Source, find_source
from hpcscale.ingest.survey import FILE, Blocks, read_survey

RECORDS, PACKING = 23, Packing(24, shard_samples=4)
TAGS = ["a | b", 'say "x"', "ä 漢", "two\nlines", "r\rn"]


def jsonl(folder: Path) -> Path:
    lines = [{"image": f"{n}.jpg", "tags": TAGS[: n % 6]} for n in range(RECORDS)]
    text = "\ufeff" + "".join(json.dumps(line, ensure_ascii=False) + "\n" * (1 + n % 3)
                              for n, line in enumerate(lines))  # fmt: skip
    (folder / "manifest.jsonl").write_text(text)
    return folder


def table(folder: Path, suffix: str, comma: str, mark: str) -> Path:
    rows = ["image", "tags"]
    text = mark + comma.join(rows) + "\r\n"
    for n in range(RECORDS):
        tags = json.dumps(TAGS[: n % 6], ensure_ascii=False).replace('"', '""').replace("\\n", "\n")
        tags = tags if "\n" not in tags else "ä\n|漢"
        text += f'{n}.jpg{comma}"{tags}"\r\n' + "\n" * (n % 2)
    (folder / f"manifest.{suffix}").write_text(text, newline="")
    return folder


def folders(folder: Path) -> Path:
    for n in range(RECORDS):
        place = folder / f"class {n % 3}" / ("below" if n % 2 else ".")
        place.mkdir(parents=True, exist_ok=True)
        (folder / f"{n}.jpg").rename(place / f"{n}.jpg")
    (folder / "stray.jpg").write_bytes(photograph(99))
    (folder / "gone.jpg").symlink_to("nowhere")
    return folder


def tars(folder: Path) -> Path:
    out = folder / "tars"
    out.mkdir()
    for first in range(0, RECORDS, 7):
        members = {}
        for n in range(first, min(first + 7, RECORDS)):
            key = "same" if n in (8, 10) else f"{n:02}"  # comes twice, not as neighbours
            members[f"{key}.{'jpg' if n != 10 else 'jpeg'}"] = (folder / f"{n}.jpg").read_bytes()
            members[f"{key}.json"] = json.dumps({"tags": TAGS[: n % 6]}).encode()
        tar = write_tar(out / f"{first:02}.tar", members)
        if first == 7:
            tar.write_bytes(tar.read_bytes()[:-12_000])  # cut
    return out


KINDS = {
    "jsonl": jsonl,
    "csv": lambda folder: table(folder, "csv", ",", "\ufeff"),
    "tsv": lambda folder: table(folder, "tsv", "\t", ""),
    "folders": folders,
    "tars": tars,
}


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for n in range(RECORDS):
        (folder / f"{n}.jpg").write_bytes(photograph(n) if n % 9 != 4 else b"no picture")
    return KINDS[request.param](folder)


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all records that ingest walks over."""
    names: list[str] = []

    def find(source: Path, manifest: Path | None, untagged: bool) -> Source:
        found = find_source(source, manifest, untagged)

        def walk(start: Start) -> Iterator[tuple[Start, Record]]:
            for place, record in found.walk(start):
                names.append(record.name)
                yield place, record

        return found._replace(walk=walk)

    monkeypatch.setattr(module, "find_source", find)
    return names


def test_a_walk_begins_at_any_record(source: Path) -> None:
    found = find_source(source)
    every = list(found.walk((0, 0)))
    assert len(every) >= 19
    assert len({start for start, _ in every}) == len(every)
    for number, (start, _) in enumerate(every):
        assert list(find_source(source).walk(start)) == every[number:]


def test_tasks_with_a_survey_walk_their_own_shards_and_leave_the_same_bytes(
    source: Path, tmp_path: Path, walked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ingest(source, tmp_path / "one call", packing=PACKING, workers=1)
    every, out = len(find_source_names(source)), tmp_path / "out"
    walked.clear()
    plan = survey(source, out, packing=PACKING, workers=1)
    assert (len(walked), plan.shards, sorted(os.listdir(out))) == (
        every, -(-every // 4), [".lock", "plan.json", FILE, "tags.jsonl"]
    )  # fmt: skip
    kept = content(out)
    walked.clear()
    survey(source, out, packing=PACKING, workers=1)  # once more: it is there
    assert (walked, content(out)) == ([], kept)
    stages: list[str] = []
    for task in (2, 0, 1):
        walked.clear()
        ingest(source, out, packing=PACKING, workers=1, part=(task, 3),
               progress=lambda stage, *_: stages.append(stage))  # fmt: skip
        assert len(walked) <= 4 * len(part_of(plan.shards, (task, 3)))
    assert set(stages) == {"surveyed before", "pack"}
    walked.clear()
    ingest(source, out, packing=PACKING, workers=1)
    assert len(walked) <= 3 * every  # to compare sizes, then pictures, then reasons; not to survey
    assert content(out) == content(tmp_path / "one call")
    assert capsys.readouterr().err == ""


def find_source_names(source: Path) -> list[str]:
    return [record.name for record in find_source(source).records()]


def test_shards_far_apart_are_walked_alone(source: Path, tmp_path: Path, walked: list[str]) -> None:
    out = tmp_path / "out"
    ingest(source, out, packing=PACKING, workers=1)
    before = content(out)
    survey_again(source, out)
    for index in (1, 3):
        (out / f"shard-{index:05d}.h5").unlink()
    (out / "quarantine.jsonl").unlink()
    survey(source, out, packing=PACKING, workers=1)
    ingest(source, out, packing=PACKING, workers=1)
    assert content(out) == before


def survey_again(source: Path, out: Path) -> None:
    with pytest.raises(OptionError, match="the ingest has ended, and needs no survey"):
        survey(source, out, packing=PACKING, workers=1)


def test_a_source_that_was_changed_since_is_surveyed_again_and_refused(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    survey(source, out, packing=PACKING, workers=1)
    for file in [source, *source.iterdir()]:
        os.utime(file, ns=(1, 1), follow_symlinks=False)  # copied, say
    ingest(source, out, packing=PACKING, workers=1, part=(0, 3))
    assert f"{FILE} is not used, the source is surveyed again: the source was changed since" in caplog.text
    change(source)
    with pytest.raises(OptionError, match=r"begun with another source or options: .*source_digest was"):
        ingest(source, out, packing=PACKING, workers=1, part=(1, 3))
    with pytest.raises(OptionError, match=r"begun with another source or options: .*source_digest was"):
        ingest(source, out, packing=PACKING, workers=1)


def change(source: Path) -> None:
    """Another tag or name, of the same length, in the second half."""
    for file in source.glob("manifest.*"):
        file.write_bytes(file.read_bytes().replace(b"21.jpg", b"12.jpg"))
    if (folder := source / "class 2").exists():
        name = next(path for path in folder.rglob("*.jpg") if path.stem == "20")
        name.rename(name.with_name("29.jpg"))
    for file in source.glob("21.tar"):
        file.write_bytes(file.read_bytes().replace(b"21.jpg", b"12.jpg"))


def test_a_change_that_the_files_do_not_show_is_found_by_who_walks_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    survey(source, out, packing=PACKING, workers=1)
    stamp = find_source(source).stamp()
    ingest(source, out, packing=PACKING, workers=1, part=(2, 3))
    change(source)

    def find(source: Path, manifest: Path | None, untagged: bool) -> Source:
        return find_source(source, manifest, untagged)._replace(stamp=lambda: stamp)

    monkeypatch.setattr(module, "find_source", find)
    ingest(source, out, packing=PACKING, workers=1, part=(0, 3))
    with pytest.raises((SourceError, OptionError)) as told:  # its shards are packed already
        ingest(source, out, packing=PACKING, workers=1, part=(2, 3))
    assert re.search("not the same records as when it was surveyed|another picture now", str(told.value))
    with pytest.raises((SourceError, OptionError)):
        ingest(source, out, packing=PACKING, workers=1)
    fresh = tmp_path / "fresh"
    for name in ("plan.json", "tags.jsonl", FILE):
        fresh.mkdir(exist_ok=True)
        shutil.copy(out / name, fresh)
    with pytest.raises(SourceError, match="changed during the ingest: not the same records up to"):
        ingest(source, fresh, packing=PACKING, workers=1, part=(2, 3))


@pytest.mark.parametrize("line", ["", "one more"])
def test_a_source_that_goes_on_behind_its_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    source, out = make_source(tmp_path / "source", 8), tmp_path / "out"
    survey(source, out, packing=PACKING, workers=1)
    stamp = find_source(source).stamp()
    with (source / "manifest.jsonl").open("a") as manifest:
        manifest.write(json.dumps({"image": "8.jpg", "tags": [line]}) * bool(line) + "\n")
    monkeypatch.setattr(module, "find_source", lambda *of: find_source(*of)._replace(stamp=lambda: stamp))
    if not line:
        assert len(ingest(source, out, packing=PACKING, workers=1)) == 2
        return
    with pytest.raises(SourceError, match="not the same records up to 8"):
        ingest(source, out, packing=PACKING, workers=1)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "of another plan", "no tags"])
def test_a_damaged_survey_is_not_used(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    source, out = make_source(tmp_path / "source", 20), tmp_path / "out"
    ingest(source, tmp_path / "expected", packing=PACKING, workers=1)
    survey(source, out, packing=PACKING, workers=1)
    file = out / FILE
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[:-20])
    elif damage == "flipped":
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "no tags":
        (out / "tags.jsonl").unlink()
    else:
        survey(source, tmp_path / "other", packing=PACKING._replace(quality=50), workers=1)
        shutil.copy(tmp_path / "other" / FILE, file)
    assert read_survey(out, find_source(source)) is None
    assert f"{FILE} is not used" in caplog.text
    ingest(source, out, packing=PACKING, workers=1)
    assert content(out) == content(tmp_path / "expected")


def test_a_survey_that_is_killed_is_begun_again(tmp_path: Path) -> None:
    source, out = make_source(tmp_path / "source", 300, odd=False), tmp_path / "out"
    command = ["data", "survey", str(source), str(out), "--resize", "24", "--shard-samples", "40"]
    code = ("import hpcscale.ingest.survey as s, time\nblock = s.Blocks.add\n"
            "def slow(*of):\n    time.sleep(0.001)\n    return block(*of)\n"
            "s.Blocks.add = slow\nfrom hpcscale.cli import main; main()")  # fmt: skip
    moments = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 1.2))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    (out / f"{FILE}.host-0123abcd.tmp").parent.mkdir(exist_ok=True)
    (out / f"{FILE}.host-0123abcd.tmp").write_bytes(b"left behind")
    done = subprocess.run([sys.executable, "-m", "hpcscale", *command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{out}: 300 records, 109 tags, 8 shards to pack\n"), done
    assert sorted(os.listdir(out)) == [".lock", "plan.json", FILE, "tags.jsonl"]


values = st.text() | st.text(st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF))


@given(values, st.lists(values), st.integers(), st.integers(-1), values)
def test_digests_cover_what_json_says_of_a_record(
    name: str, tags: list[str], offset: int, size: int, problem: str
) -> None:
    """As plans state it: so it must stay what it is."""
    blocks = Blocks()
    blocks.add(Record(name, tuple(tags), "file", offset, size, problem))
    assert blocks.close() == json.dumps([name, tags, offset, size, problem]).encode()
