"""The shard format: what is written is read, what is damaged is named, nothing else is HDF5's business."""

import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpcscale.data.manifest import read_plan
from hpcscale.data.shard import open_shard
from hpcscale.data.store import DataError, DataSet, open_data
from hpcscale.data.verify import info, verify
from hpcscale.files import write_file
from hpcscale.ingest.packing import Packing, ingest

SAMPLES = 23


def jpeg_bytes(number: int) -> bytes:
    """A small JPEG; no two numbers have the same."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (8, 9, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of five records; 23 samples with 0 to 4 tags, two records quarantined."""
    root = tmp_path_factory.mktemp("store")
    (root / "source").mkdir()
    with (root / "source/manifest.jsonl").open("w") as manifest:
        for number in range(25):
            name = f"pictüre {number}.jpg"
            (root / "source" / name).write_bytes(jpeg_bytes(number) if number % 12 != 6 else b"")
            tags = [f"tag {(number * 7 + k) % 11}" for k in range(number % 5)]
            manifest.write(json.dumps({"image": name, "tags": tags}) + "\n")
    ingest(root / "source", root / "out", packing=Packing(shard_samples=5), workers=2)
    return root / "out"


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def data(folder: Path) -> DataSet:
    return open_data(folder)


KEPT = [number for number in range(25) if number % 12 != 6]


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.integers(0, SAMPLES - 1), max_size=40))
def test_any_samples_in_any_order(data: DataSet, rows: list[int]) -> None:
    samples = np.array(rows, np.int64)
    numbers = [KEPT[row] for row in rows]
    assert [jpeg.tobytes() for jpeg in data.jpegs(samples)] == [jpeg_bytes(number) for number in numbers]
    assert data.names(samples) == [f"pictüre {number}.jpg" for number in numbers]
    offsets, ids = data.tag_rows(samples)
    assert (offsets.dtype, ids.dtype, offsets[0], offsets[-1]) == (np.int64, np.int32, 0, len(ids))
    for row, number in enumerate(numbers):
        tags = [data.tags[tag] for tag in ids[offsets[row] : offsets[row + 1]]]
        assert tags == [f"tag {(number * 7 + k) % 11}" for k in range(number % 5)]


def test_sizes_are_known_before_anything_is_decoded(tmp_path: Path) -> None:
    sides = [(3, 50), (40, 7), (16, 16), (1, 2), (5, 300)]
    (tmp_path / "source").mkdir()
    for number, (height, width) in enumerate(sides):
        picture = Image.fromarray(np.full((height, width, 3), number, np.uint8))
        picture.save(tmp_path / f"source/{number}.jpg", exif=b"Exif\0\0", progressive=number == 1)
    lines = (json.dumps({"image": f"{number}.jpg", "tags": []}) + "\n" for number in range(len(sides)))
    (tmp_path / "source/manifest.jsonl").write_text("".join(lines))
    for resize, expected in ((None, sides), (12, [(12, 12)] * len(sides))):
        out = tmp_path / f"out-{resize}"
        ingest(tmp_path / "source", out, packing=Packing(resize, shard_samples=2), workers=1)
        found = open_data(out).sizes(np.array([4, 0, 0, 3, 1], np.int64))
        assert (found.dtype, found.shape) == (np.int32, (5, 2))
        assert found.tolist() == [list(expected[row]) for row in (4, 0, 0, 3, 1)]


def test_the_digest_of_the_pictures_is_of_them_and_their_order_alone(folder: Path, tmp_path: Path) -> None:
    def packed(name: str, numbers: list[int], shard_samples: int, tag: str) -> DataSet:
        source = tmp_path / f"source {name}"
        source.mkdir()
        with (source / "manifest.jsonl").open("w") as manifest:
            for number in numbers:
                (source / f"{tag} {number}.jpg").write_bytes(jpeg_bytes(number) if number % 12 != 6 else b"")
                manifest.write(json.dumps({"image": f"{tag} {number}.jpg", "tags": [tag]}) + "\n")
        ingest(source, tmp_path / name, packing=Packing(shard_samples=shard_samples), workers=1)
        return open_data(tmp_path / name)

    known = open_data(folder)
    for same in (packed("a", list(range(25)), 7, "other"), packed("b", KEPT, 100, "tags")):
        assert same.pictures_digest == known.pictures_digest == info(same.folder)["pictures_digest"]
        assert same.digest != known.digest
    turned = [*KEPT[:10], KEPT[11], KEPT[10], *KEPT[12:]]
    others = [packed("c", KEPT[:-1], 7, "x"), packed("d", turned, 7, "x"), packed("e", [*KEPT, 99], 7, "x")]
    assert len({known.pictures_digest, *(other.pictures_digest for other in others)}) == 4


def test_a_data_set_says_what_it_is(data: DataSet, folder: Path) -> None:
    assert (data.samples, data.stored_size, data.folder) == (SAMPLES, None, folder)
    assert data.tags == tuple(sorted(f"tag {k}" for k in range(11)))
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock", "manifest.jsonl", "plan.json", "quarantine.jsonl",
        *(f"shard-0000{k}.h5" for k in range(5)), "tags.jsonl",
    ]  # fmt: skip


def test_jpegs_are_views_that_nobody_can_write_to(data: DataSet) -> None:
    one, two = data.jpegs(np.array([3, 3], np.int64))
    assert np.shares_memory(one, two)
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 0


def test_wrong_sample_ids_are_refused(data: DataSet) -> None:
    for wrong in ([SAMPLES], [0, -1]):
        with pytest.raises(IndexError, match=rf"sample {wrong[-1]} is not in \[0, 23\)"):
            data.jpegs(np.array(wrong, np.int64))
    for wrong_type in (np.array([1], np.int32), np.array([[1]], np.int64), np.array([1.0])):
        with pytest.raises(TypeError, match="int64"):
            data.tag_rows(wrong_type)


def test_the_shard_is_what_the_specification_says(folder: Path) -> None:
    """Read with plain h5py, as someone without hpcscale would."""
    with h5py.File(folder / "shard-00001.h5") as shard:
        assert shard.attrs["format"] == 2
        assert shard.attrs["plan"] == read_plan(folder).digest.encode()
        assert all(shard[name].chunks is None and shard[name].compression is None for name in shard)
        offsets = shard["jpeg_offsets"][:]
        assert shard["jpeg"][offsets[0] : offsets[1]].tobytes() == jpeg_bytes(5)
        names = shard["names"][: shard["name_offsets"][1]].tobytes()
        assert names.decode() == "pictüre 5.jpg"
        assert json.loads(shard["quarantine"][:].tobytes())["record"] == 6
        assert shard["source_sizes"][0] == len(jpeg_bytes(5))
        assert shard["sizes"][0].tolist() == [8, 9]
        assert shard["jpeg_digests"][0].tobytes() == hashlib.blake2b(jpeg_bytes(5), digest_size=16).digest()


def test_arrays_are_aligned(data: DataSet) -> None:
    shard = data.shard(2)
    arrays = [array for array in shard if isinstance(array, np.ndarray)]
    assert len(arrays) == len(shard) - 1  # of the annotations there are none
    assert all(array.flags.aligned for array in arrays)


def test_a_flipped_bit_anywhere_is_found_and_named(folder: Path, copy: Path) -> None:
    """Every eighth byte of a shard, then every byte of the places of one sample."""
    file = copy / "shard-00003.h5"
    good = file.read_bytes()
    silent, unnamed = [], []
    jpeg = good.index(jpeg_bytes(16))
    record = range(jpeg, jpeg + len(jpeg_bytes(16)), 5)
    names = range(good.index("pictüre 16.jpg".encode()), good.index("pictüre 16.jpg".encode()) + 10)
    for place in [*range(0, len(good), max(1, len(good) // 250)), *record, *names]:
        bad = bytearray(good)
        bad[place] ^= 1 << place % 8
        file.write_bytes(bad)
        problems = verify(copy)
        if not problems or any(problem.file != file.name for problem in problems):
            silent.append(place)
        if place in record and [problem.sample for problem in problems] != [1]:
            unnamed.append(place)
        if place in record and "pictüre 16.jpg" not in str(problems[0]):
            unnamed.append(place)
    assert not silent
    assert not unnamed
    file.write_bytes(good)
    assert verify(copy) == []


@pytest.mark.parametrize("wrong", [0, -1, 65_536])
def test_a_wrong_size_never_reaches_a_reader(copy: Path, wrong: int) -> None:
    with h5py.File(copy / "shard-00001.h5", "r+") as shard:
        shard["sizes"][2, 1] = wrong
    with pytest.raises(
        DataError, match=rf"shard-00001\.h5: sample 2 \(pictüre 8\.jpg\) has the size \[8, {wrong}\]"
    ):
        open_data(copy).sizes(np.arange(SAMPLES))


def test_wrong_sizes_and_digests_of_pictures_are_named(copy: Path) -> None:
    with h5py.File(copy / "shard-00001.h5", "r+") as shard:
        shard["sizes"][2] = 9, 8
        shard["jpeg_digests"][3, 5] ^= 1
    assert [(problem.sample, problem.problem) for problem in verify(copy)] == [
        (2, "its height and width are [8, 9], stored are [9, 8]"),
        (3, "the digest that is stored of its picture is another's"),
    ]
    manifest = copy / "manifest.jsonl"
    stated = open_data(copy).entries[0].pictures
    manifest.write_text(manifest.read_text().replace(stated, "0" * 32))
    assert str(verify(copy)[0]) == "shard-00000.h5: its stored pictures have another digest in manifest.jsonl"


def test_a_wrong_tag_id_is_named(copy: Path) -> None:
    file = copy / "shard-00000.h5"
    with h5py.File(file, "r+") as shard:
        shard["tag_ids"][-1] = 11
    problems = verify(copy)
    assert [(problem.file, problem.sample) for problem in problems] == [(file.name, 4)] * 2
    assert "pictüre 4.jpg): has a tag id outside [0, 11)" in str(problems[0])


@pytest.mark.parametrize("wrong", [-1, 11, 1 << 30])
def test_a_wrong_tag_id_never_reaches_a_reader(copy: Path, wrong: int) -> None:
    with h5py.File(copy / "shard-00001.h5", "r+") as shard:
        shard["tag_ids"][3] = wrong
        row = int(np.searchsorted(shard["tag_offsets"][:], 3, side="right")) - 1
    data = open_data(copy)
    message = rf"shard-00001\.h5: sample {row} \(pictüre .*\) has the tag id {wrong}"
    with pytest.raises(DataError, match=message):
        data.tag_rows(np.arange(data.samples))
    data.tag_rows(np.arange(5))  # other shards can be read


@pytest.mark.parametrize("name", ["jpeg_offsets", "tag_offsets", "name_offsets"])
def test_falling_offsets_never_reach_a_reader(copy: Path, name: str) -> None:
    with h5py.File(copy / "shard-00001.h5", "r+") as shard:
        shard[name][2] = -(1 << 40)
    with pytest.raises(DataError, match=rf"shard-00001\.h5: sample 1: {name} fall here"):
        open_data(copy).names(np.arange(SAMPLES))


def test_falling_offsets_are_named(copy: Path) -> None:
    with h5py.File(copy / "shard-00000.h5", "r+") as shard:
        shard["jpeg_offsets"][2] = 0
    assert any("jpeg_offsets fall here" in str(problem) and problem.sample == 1 for problem in verify(copy))


@pytest.mark.parametrize("name", ["jpeg_offsets", "tag_offsets", "name_offsets"])
@pytest.mark.parametrize(("row", "by"), [(0, 1), (-1, -1), (-1, 1)])
def test_offsets_that_do_not_run_from_end_to_end_are_refused(
    folder: Path, copy: Path, name: str, row: int, by: int
) -> None:
    """Behind the last offset lie bytes of no sample, or it lies behind the last byte."""
    file = copy / "shard-00000.h5"
    with h5py.File(file, "r+") as shard:
        shard[name][row] += by
    with pytest.raises(DataError, match=rf"shard-00000\.h5: {name} do not run from 0 to \d+ in 5 steps"):
        open_shard(file, read_plan(copy), 0)
    assert [(problem.file, problem.sample) for problem in verify(copy)] == [(file.name, None)]


@pytest.mark.parametrize("size", [0, 1, 500, 5000, -8])
def test_a_cut_shard_is_a_data_error_that_names_it(folder: Path, copy: Path, size: int) -> None:
    file = copy / "shard-00002.h5"
    os.truncate(file, size % file.stat().st_size)
    with pytest.raises(DataError, match=r"shard-00002\.h5: has \d+ bytes, manifest\.jsonl says"):
        open_data(copy)
    with pytest.raises(DataError, match=r"shard-00002\.h5: not a readable shard"):
        open_shard(file, read_plan(copy), 2)
    assert [problem.file for problem in verify(copy)] == [file.name]


def test_a_shard_of_another_data_set_is_refused(folder: Path, copy: Path) -> None:
    shutil.copy(copy / "shard-00001.h5", copy / "shard-00003.h5")
    assert any("attribute 'shard' is 1, expected 3" in str(problem) for problem in verify(copy))
    plan = read_plan(copy)
    with pytest.raises(DataError, match="attribute 'plan'"):
        open_shard(copy / "shard-00000.h5", plan.model_copy(update={"quality": 50}), 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plan.json", None, r"not a data-set folder: plan\.json"),
        ("plan.json", b"{", r"plan\.json: not JSON"),
        ("plan.json", b'{"format": 3}', r"plan\.json: format 3, this version reads 1 and 2"),
        ("plan.json", b'{"format": 1}', r"plan\.json: source: Field required"),
        ("tags.jsonl", None, r"tags\.jsonl: No such file"),
        ("tags.jsonl", b'"x"\n', r"tags\.jsonl: does not have the digest"),
        ("manifest.jsonl", b"", r"the ingest has not ended \(0 of 5 shards\); run the same"),
        ("manifest.jsonl", b'{"file": 1}\n', r"manifest\.jsonl:1: "),
        ("quarantine.jsonl", None, "the ingest has not ended"),
        ("shard-00004.h5", None, r"shard-00004\.h5: is missing"),
    ],
)
def test_what_is_wrong_beside_the_shards(copy: Path, name: str, content: bytes | None, message: str) -> None:
    if content is None:
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_data(copy)
    assert verify(copy)


def test_an_unfinished_data_set_can_be_looked_at(copy: Path) -> None:
    manifest = copy / "manifest.jsonl"
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:2]) + b'{"torn')
    assert open_data(copy, unfinished=True).samples == 9
    assert "lists 2 of 5 shards" in str(verify(copy)[0])


def test_verify_names_a_line_that_is_cut_behind_the_last(copy: Path) -> None:
    with (copy / "manifest.jsonl").open("ab") as manifest:
        manifest.write(b"\xed\xb3")
    (problem,) = verify(copy)
    assert str(problem) == "manifest.jsonl: its last line is cut, and names no shard"


def test_verify_compares_the_quarantine(copy: Path) -> None:
    (copy / "quarantine.jsonl").write_bytes(b"")
    (problem,) = verify(copy)
    assert problem.file == "quarantine.jsonl"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "a", b"old")

    def broken(descriptor: int) -> None:
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk"):
        write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
