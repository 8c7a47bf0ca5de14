"""Which data are the same: copies elsewhere are; other pictures of the same names are not, in any file."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sources import COUNT, KINDS, as_data_set, make_pictures

from hpcscale.cli import main
from hpcscale.data.codes import read_codes
from hpcscale.data.manifest import read_manifest
from hpcscale.data.store import DataError, open_data
from hpcscale.data.verify import verify
from hpcscale.dedup import hashes
from hpcscale.dedup.hashes import OptionError, hash_source


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "PART_ROWS", 4)


@pytest.mark.parametrize("kind", KINDS, ids=["folder", "tar", "data set"])
def test_hashes_of_other_pictures_with_the_same_names_are_refused(
    tmp_path: Path, kind: Callable[[Path], Path]
) -> None:
    """It returned the first set's codes, exit 0."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (kind(make_pictures(tmp_path / x / "set", n)) for x, n in (("a", 0), ("b", 100)))
    out = tmp_path / "out.h5"
    hash_source(one, out, "dhash", workers=1, part=(0, 2))
    said = "source was" if kind is as_data_set else "00.jpg is another picture now"
    with pytest.raises(OptionError, match=rf"{said}.*remove .*out\.h5\.parts"):
        hash_source(other, out, "dhash", workers=1)
    found = hash_source(one, out, "dhash", workers=1)
    before = out.read_bytes()
    with pytest.raises(OptionError, match=rf"{said}.*choose another file"):
        hash_source(other, out, "dhash", workers=1)
    again = hash_source(one, out, "dhash", workers=1)
    assert found is not None
    assert again is not None
    assert found.digest == again.digest
    assert out.read_bytes() == before
    result = CliRunner().invoke(main, ["dedup", "hash", str(other), str(out), "--method", "dhash"])
    assert (result.exit_code, "out.h5" in result.output) == (2, True), result.output


@pytest.mark.parametrize("number", [0, COUNT - 2, COUNT - 1])
def test_one_exchanged_picture_is_named(tmp_path: Path, number: int) -> None:
    """Of the same size and time; also the one that cannot be decoded."""
    source, other = make_pictures(tmp_path / "set"), make_pictures(tmp_path / "other", 100)
    out = tmp_path / "out.h5"
    hash_source(source, out, "dhash", workers=1)
    name = f"{number:02}.jpg"
    shutil.copy2(other / name, source / name)
    with pytest.raises(OptionError, match=rf"out\.h5: {name} is another picture now"):
        hash_source(source, out, "dhash", workers=1)
    (source / name).unlink()
    with pytest.raises(OptionError, match="source was"):
        hash_source(source, out, "dhash", workers=1)


@pytest.mark.parametrize("kind", KINDS, ids=["folder", "tar", "data set"])
def test_a_copy_elsewhere_is_the_same(tmp_path: Path, kind: Callable[[Path], Path]) -> None:
    one = kind(make_pictures(tmp_path / "set"))
    out = tmp_path / "out.h5"
    hash_source(one, out, "dhash", workers=1, part=(0, 2))
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / one.name
    if one.is_dir():
        shutil.copytree(one, copy, copy_function=shutil.copyfile)  # new times
    else:
        shutil.copyfile(one, copy)
    assert hash_source(copy, out, "dhash", workers=1) is not None
    assert hash_source(one, out, "dhash", workers=1) is not None


def test_the_digests_of_pictures_do_not_depend_on_the_parts(tmp_path: Path) -> None:
    source = make_pictures(tmp_path / "set")
    hash_source(source, tmp_path / "parts.h5", "dhash", workers=2)
    digests = read_codes(tmp_path / "parts.h5").digests
    assert digests.shape == (COUNT, 16)
    assert len(np.unique(digests, axis=0)) == COUNT


def test_the_digest_of_a_data_set_is_that_of_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    one = open_data(as_data_set(make_pictures(tmp_path / "one")))
    same = open_data(as_data_set(make_pictures(tmp_path / "again" / "one")))
    other = open_data(as_data_set(make_pictures(tmp_path / "other", 100)))
    assert one.plan.digest == other.plan.digest
    assert one.digest == same.digest != other.digest


def test_a_shard_that_was_exchanged_for_one_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    one = as_data_set(make_pictures(tmp_path / "one"))
    other = as_data_set(make_pictures(tmp_path / "other", 100))
    name = "shard-00001.h5"
    assert (one / name).stat().st_size == (other / name).stat().st_size
    shutil.copyfile(other / name, one / name)
    data = open_data(one)
    assert len(data.jpegs(np.array([0], np.int64))) == 1  # of the first shard
    with pytest.raises(DataError, match=rf"{name}: holds other pictures or tags than manifest\.jsonl says"):
        data.jpegs(np.array([data.samples - 1], np.int64))
    assert any("has other samples than manifest.jsonl says" in str(problem) for problem in verify(one))
    with pytest.raises(DataError, match=name):
        hash_source(one, tmp_path / "out.h5", "dhash", workers=1)


def test_an_older_manifest_has_the_same_digest(tmp_path: Path) -> None:
    data = as_data_set(make_pictures(tmp_path / "one"))
    file = data / "manifest.jsonl"
    before, digest = open_data(data).digest, read_manifest(data)[1].digest
    file.write_text(file.read_text().replace(f',"digest":"{digest}"', ""))
    assert read_manifest(data)[1].digest == ""
    assert (open_data(data).digest, verify(data)) == (before, [])
