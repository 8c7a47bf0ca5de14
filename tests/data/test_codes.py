"""Hash files: what is written is read back, and damage is refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcscale.data import codes as module
from hpcscale.data.codes import Codes, merge_codes, quarantined, read_codes, write_codes
from hpcscale.data.manifest import DataError

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


def some_codes(names: list[str], method: str = "pdq", quarantine: bytes = b"") -> Codes:
    random = np.random.default_rng(len(names))
    words = module.WORDS[method]
    return Codes(
        names,
        random.integers(0, 2**64, (len(names), words), np.uint64),
        random.integers(0, 101, len(names), np.uint8),
        method,
        7,
        "the source",
        "a decoder",
        np.frombuffer(quarantine, np.uint8),
        digests=random.integers(0, 256, (len(names) + quarantine.count(b"\n"), 16), np.uint8),
    )


def assert_equal(found: Codes, expected: Codes) -> None:
    assert list(found.names) == list(expected.names)
    for key in ("codes", "quality", "quarantine", "digests"):
        np.testing.assert_array_equal(getattr(found, key), getattr(expected, key))
    for key in ("method", "version", "source", "decoder"):
        assert getattr(found, key) == getattr(expected, key)


@settings(max_examples=25, deadline=None)
@given(names=st.lists(NAMES, max_size=6), method=st.sampled_from(["pdq", "phash", "dhash"]))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], method: str
) -> None:
    file = tmp_path_factory.mktemp("codes") / "hashes.h5"
    written = some_codes([*names, os.fsdecode(b"not \xff UTF-8")], method)
    write_codes(file, written)
    assert_equal(read_codes(file), written)
    assert os.listdir(file.parent) == ["hashes.h5"]


def test_names_are_a_sequence(tmp_path: Path) -> None:
    write_codes(tmp_path / "file", some_codes(["a", "", "ä"]))
    names = read_codes(tmp_path / "file").names
    assert (len(names), names[1], names[-1], names[1:], "ä" in names) == (3, "", "ä", ["", "ä"], True)
    with pytest.raises(IndexError):
        names[3]


def test_no_pictures_is_a_file_too(tmp_path: Path) -> None:
    write_codes(tmp_path / "file", some_codes([]))
    assert_equal(read_codes(tmp_path / "file"), some_codes([]))


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    lines = [b'{"name": "x", "reason": "cut"}\n', b"", b'{"name": "y", "reason": "empty"}\n']
    parts = [
        some_codes(list(names), quarantine=line) for names, line in zip(["abc", "", "d"], lines, strict=True)
    ]
    files = [tmp_path / f"{number}" for number in range(3)]
    for file, part in zip(files, parts, strict=True):
        write_codes(file, part)
    merge_codes(tmp_path / "merged", files, "joined")
    found = read_codes(tmp_path / "merged")
    whole = parts[0]._replace(
        names=list("abcd"), source="joined", quarantine=np.frombuffer(b"".join(lines), np.uint8),
        codes=np.concatenate([part.codes for part in parts]),
        quality=np.concatenate([part.quality for part in parts]),
        digests=np.concatenate([part.digests for part in parts]),
    )  # fmt: skip
    assert_equal(found, whole)
    assert [picture["name"] for picture in quarantined(found)] == ["x", "y"]
    write_codes(tmp_path / "at once", whole)
    assert (tmp_path / "at once").read_bytes() == (tmp_path / "merged").read_bytes()
    files.insert(0, tmp_path / "nothing")
    write_codes(files[0], some_codes([], quarantine=lines[0]))  # places do not depend on who has bytes first
    quarantine = np.frombuffer(lines[0] + b"".join(lines), np.uint8)
    digests = np.concatenate([read_codes(files[0]).digests, whole.digests])
    merge_codes(tmp_path / "merged", files, "joined")
    write_codes(tmp_path / "at once", whole._replace(quarantine=quarantine, digests=digests))
    assert (tmp_path / "at once").read_bytes() == (tmp_path / "merged").read_bytes()


def test_every_flipped_bit_and_every_cut_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "hashes.h5"
    write_codes(file, some_codes(["one", "two"], quarantine=b'{"name": "x", "reason": ""}\n'))
    content, expected = file.read_bytes(), read_codes(file)
    accepted, unnamed = [], 0
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            found = read_codes(file)
        except DataError as error:
            unnamed += str(file) not in str(error)
        else:
            assert_equal(found, expected)  # a byte of no consequence: HDF5's free space
            accepted.append(place)
    assert not unnamed
    assert len(accepted) < len(content) / 7 / 2
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"hashes\.h5"):
            read_codes(file)
    with pytest.raises(DataError, match="absent"):
        read_codes(tmp_path / "absent")


def test_wrong_types_are_not_converted(tmp_path: Path) -> None:
    good = some_codes(["a", "b"])
    for wrong in (
        good._replace(codes=good.codes.astype(np.int64)),
        good._replace(codes=good.codes[:1]),
        good._replace(codes=good.codes[:, :1].copy()),
        good._replace(quality=good.quality.astype(int)),
    ):
        with pytest.raises(TypeError, match="must be uint"):
            write_codes(tmp_path / "file", wrong)
    assert not (tmp_path / "file").exists()


def test_a_file_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMAT", 1)
    old = tmp_path / "old.h5"
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_codes", lambda file: None)
        write_codes(old, some_codes(["a"]))
    monkeypatch.setattr(module, "FORMAT", 2)
    with pytest.raises(DataError, match="format 1, this version reads hash files of format 2; make it again"):
        read_codes(old)
