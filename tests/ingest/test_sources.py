"""What each kind of source yields, and that a malformed one is refused by file and line."""

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from hpcscale.ingest.packing import ingest
from hpcscale.ingest.sources import Record, SourceError, find_source


def records(source: Path, manifest: Path | None = None) -> list[Record]:
    found = find_source(source, manifest)
    first = list(found.records())
    assert first == list(found.records())
    return first


def summary(found: list[Record]) -> list[tuple[str, tuple[str, ...], str]]:
    return [(record.name, record.tags, record.problem) for record in found]


def write_tar(file: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def read(record: Record) -> bytes:
    content = Path(record.file).read_bytes()
    return content[record.offset :][: record.size]


def test_jsonl_manifest(tmp_path: Path) -> None:
    lines = [
        {"image": "a/1.jpg", "tags": ["tench", "Tinca tinca", "tench"], "wnid": "n01440764"},
        {"image": "b.jpg", "tags": [], "wnid": None, "licence": "ignored"},
        {"image": "ä 漢.jpg", "tags": ["漢 | ;"]},
    ]
    text = "\ufeff" + "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "manifest.jsonl").write_text(text)
    found = records(tmp_path)
    assert summary(found) == [
        ("a/1.jpg", ("tench", "Tinca tinca", "n01440764"), ""),
        ("b.jpg", (), ""),
        ("ä 漢.jpg", ("漢 | ;",), ""),
    ]
    assert found[0].file == str(tmp_path / "a/1.jpg")
    assert find_source(tmp_path).kind == "manifest"


@pytest.mark.parametrize(("suffix", "comma"), [("csv", ","), ("tsv", "\t")])
def test_table_manifests(tmp_path: Path, suffix: str, comma: str) -> None:
    rows = [
        ["wnid", "image", "tags", "more"],
        ["n01440764", "a.jpg", "tench | Tinca_tinca", "x"],
        ["", "b.jpg", "one;two;;", ""],
        ["", "c.jpg", "", ""],
        ["", "d.jpg", "\"['a', 'b|c']\"", ""],
        ["", "e.jpg", '"[""x, y""]"', ""],
    ]
    manifest = tmp_path / f"elsewhere.{suffix}"
    manifest.write_text("\r\n".join(comma.join(row) for row in rows))
    assert summary(records(tmp_path, manifest)) == [
        ("a.jpg", ("tench", "Tinca_tinca", "n01440764"), ""),
        ("b.jpg", ("one", "two"), ""),
        ("c.jpg", (), ""),
        ("d.jpg", ("a", "b|c"), ""),
        ("e.jpg", ("x, y",), ""),
    ]


GOOD = '{"image": "a.jpg", "tags": []}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "a.jpg", "tags": ["x"]', "not JSON"),
        ('["a.jpg"]', "expected an object"),
        ('{"tags": ["x"]}', "'image' must be a path, found None"),
        ('{"image": "", "tags": []}', "'image' must be a path"),
        ('{"image": 3, "tags": []}', "'image' must be a path, found 3"),
        ('{"image": "a.jpg"}', "'tags' must be a list of strings, found None"),
        ('{"image": "a.jpg", "tags": "x"}', "'tags' must be a list of strings, found 'x'"),
        ('{"image": "a.jpg", "tags": ["x", 1]}', "'tags' must be a list of strings"),
        ('{"image": "a.jpg", "tags": [], "wnid": 5}', "'wnid' must be a string, found 5"),
        ('{"image": "/etc/passwd", "tags": []}', "must stay inside"),
        ('{"image": "a/../../b.jpg", "tags": []}', "must stay inside"),
        ('{"image": "a\\u0000b.jpg", "tags": []}', "must stay inside"),
        ('{"image": "\\ud800.jpg", "tags": []}', "not valid Unicode"),
        ("[" * 100_000, "not JSON"),
        ("\udcff", "not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(GOOD + line + "\n" + GOOD, errors="surrogateescape")
    with pytest.raises(SourceError, match=message) as caught:
        records(tmp_path)
    assert f"{manifest}:2: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("image,labels\na.jpg,x\n", 1, "must name image and tags"),
        ("image,tags\na.jpg,x\nb.jpg\n", 3, "1 cells"),
        ("image,tags\n../a.jpg,x\n", 2, "must stay inside"),
        ("image,tags\na.jpg,[x\n", 2, "not a list"),
        ('image,tags\na.jpg,"x\ny\n', 2, "unexpected end"),
        ("image,tags\na.jpg,[1]\n", 2, "list of strings"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, place: int, message: str) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        records(tmp_path)
    assert str(caught.value).startswith(f"{manifest}:{place}")


def test_one_folder_per_class(tmp_path: Path) -> None:
    for name in (
        "n02/b.jpg",
        "n02/a.JPEG",
        "n01/deep/er/c",
        "n01/.hidden",
        "n10/x.txt",
        "stray.png",
        "README.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = records(tmp_path)
    assert summary(found) == [
        ("n01/deep/er/c", ("n01",), ""),
        ("n02/a.JPEG", ("n02",), ""),
        ("n02/b.jpg", ("n02",), ""),
        ("n10/x.txt", ("n10",), ""),
        ("stray.png", (), "lies in no class folder"),
    ]
    assert found[0].file == str(tmp_path / "n01/deep/er/c")


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/cl\xe9")
    with open(os.fsencode(tmp_path) + b"/cl\xe9/\xff.jpg", "wb"):
        pass
    (found,) = records(tmp_path)
    assert os.fsencode(found.name) == b"cl\xe9/\xff.jpg"


def test_tars_of_webdataset_and_img2dataset(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "00001.tar",
        {
            "b/7.cls": b"281\n",
            "b/7.PNG": b"second",
        },
    )
    write_tar(
        tmp_path / "00000.tar",
        {
            "000.jpg": b"first",
            "000.txt": b"a caption, not a tag",
            "000.json": json.dumps(
                {"caption": "no", "tags": ["x", "y"], "wnid": "n1", "status": "ok"}
            ).encode(),
            "001.seg.png": b"mask",
            "001.json": b'{"label": 4, "labels": ["z", 4]}',
            "001.webp": b"webp",
            "002.json": b"{}",
            "003.jpg": b"a",
            "003.json": b"{",
            "004.jpg": b"a",
            "004.png": b"a",
            "005.jpg": b"a",
            "005.json": b'{"tags": [{"no": 1}]}',
        },
    )
    (tmp_path / "00000.parquet").touch()
    found = records(tmp_path)
    assert summary(found)[:3] == [
        ("00000.tar/000.jpg", ("x", "y", "n1"), ""),
        ("00000.tar/001.webp", ("z", "4"), ""),
        ("00000.tar/002", (), "no picture among .json"),
    ]
    assert [record.name for record in found[3:]] == [
        "00000.tar/003.jpg", "00000.tar/004.jpg", "00000.tar/005.jpg", "00001.tar/b/7.PNG",
    ]  # fmt: skip
    assert "its metadata" in found[3].problem
    assert found[4].problem == "2 pictures among .jpg, .png"
    assert "'tags' must hold strings" in found[5].problem
    assert found[6].tags == ("281",)
    assert [read(found[i]) for i in (0, 1, 6)] == [b"first", b"webp", b"second"]
    assert summary(records(tmp_path / "00001.tar")) == [("00001.tar/b/7.PNG", ("281",), "")]


@pytest.mark.parametrize("cut", ["header", "data", "boundary", "garbage", "end mark", "everything"])
def test_a_cut_tar_says_so_and_keeps_what_is_whole(tmp_path: Path, cut: str) -> None:
    file = write_tar(tmp_path / "a.tar", {f"{i}.jpg": bytes([i]) * 700 for i in range(3)})
    content = file.read_bytes()
    third = 2 * (512 + 1024)
    end = {
        "header": third + 100,
        "data": third + 600,
        "boundary": third,
        "end mark": third + 1536,
        "everything": 0,
    }
    content = content[: end.get(cut, len(content))]
    if cut == "garbage":
        content = content[:third] + b"\x55" * 512 + content[third + 512 :]
    file.write_bytes(content)
    found = records(file)
    whole = [record.name for record in found if not record.problem]
    assert whole == [f"a.tar/{i}.jpg" for i in range({"data": 3, "end mark": 3, "everything": 0}.get(cut, 2))]
    assert found[-1].problem
    assert found[-1].name == "a.tar"


def test_the_error_lists_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.raises(SourceError, match=r"manifest\.jsonl.*\.csv.*\.tsv.*\.tar.*folder per class"):
        find_source(tmp_path)
    with pytest.raises(SourceError, match=r"unknown kind '\.parquet'"):
        find_source(tmp_path, tmp_path / "a.parquet")
    (tmp_path / "manifest.csv").touch()
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(SourceError, match="choose one"):
        find_source(tmp_path)


def test_sources_of_two_kinds_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "n01").mkdir()
    (tmp_path / "n01/a.jpg").touch()
    (tmp_path / "stray.tar").touch()
    for untagged in (False, True):
        with pytest.raises(SourceError, match=r"tars \(stray\.tar\) and pictures \(n01/a\.jpg\)"):
            find_source(tmp_path, untagged=untagged)
    (tmp_path / "manifest.csv").write_text("image,tags\n")
    with pytest.raises(SourceError, match=r"manifest \(manifest\.csv\) and tars \(stray\.tar\)"):
        find_source(tmp_path)
    assert find_source(tmp_path, tmp_path / "manifest.csv").kind == "manifest"


def test_links_to_themselves_and_very_deep_folders(tmp_path: Path) -> None:
    deep = tmp_path / "source/class"
    deep.mkdir(parents=True)
    (deep / "self.jpg").symlink_to("self.jpg")
    here = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        here, before = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(before)
    os.close(here)
    try:
        found = list(find_source(tmp_path / "source").records())
        (entry,) = ingest(tmp_path / "source", tmp_path / "out", workers=1)
    finally:
        subprocess.run(["rm", "-r", deep / "d"], check=True)  # too deep for pytest's own cleaning
    assert [record.name for record in found] == ["class/self.jpg"]
    assert (entry.samples, entry.quarantined) == (0, 1)
    assert "Too many levels" in (tmp_path / "out/quarantine.jsonl").read_text()


def test_columns_that_come_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image,tags,tags\na.jpg,x,y\n")
    with pytest.raises(SourceError, match=r"manifest\.csv:1: the header names 'tags' more than once"):
        list(find_source(tmp_path).records())
    (tmp_path / "manifest.csv").write_text(f"image,tags\na.jpg,{'x' * 140_000}\n")
    with pytest.raises(SourceError, match=r"manifest\.csv:2: field larger than"):
        list(find_source(tmp_path).records())


def test_a_line_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcscale.ingest.manifests.LINE_BYTES", 1000)
    (tmp_path / "manifest.jsonl").write_text('{"image": "a.jpg", "tags": ["' + "x" * 2000 + '"]}\n')
    with pytest.raises(SourceError, match=r"manifest\.jsonl:1: more than the 1,000 bytes of a line"):
        list(find_source(tmp_path).records())
