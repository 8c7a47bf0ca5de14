"""A reader of very many shards: how many it keeps mapped, what it checks again, what the system allows."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from test_store import SAMPLES, folder, jpeg_bytes  # noqa: F401

from hpcscale.data import store
from hpcscale.data.store import DataError, DataSet, open_data
from hpcscale.data.verify import verify
from hpcscale.files import write_file


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:  # noqa: F811
    """Five shards of 5, 4, 5, 4 and 5 samples."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def data(folder: Path) -> DataSet:  # noqa: F811
    return open_data(folder)


def held(place: Path) -> tuple[int, int]:
    """How many shards of a folder this process maps, and how many it has open."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = sum(str(place) in line and line.endswith(".h5") for line in maps)
    links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if name.isdigit()
             and os.path.lexists(f"/proc/self/fd/{name}")]  # fmt: skip
    return mapped, sum(link.startswith(f"{place}/") and link.endswith(".h5") for link in links)


def test_a_reader_keeps_few_shards_mapped(copy: Path, data: DataSet) -> None:
    few, samples = open_data(copy, open_shards=2), np.random.default_rng(3).permutation(SAMPLES)
    every = [jpeg.tobytes() for jpeg in data.jpegs(samples)]
    for _ in range(3):
        for name in ("tag_rows", "names", "source_digests", "sizes"):
            for ours, known in zip(getattr(few, name)(samples), getattr(data, name)(samples), strict=True):
                np.testing.assert_array_equal(ours, known)
        for sample, known in zip(samples, every, strict=True):
            assert few.jpegs(np.array([sample]))[0].tobytes() == known
        assert held(copy) == (2, 2)
    views = few.jpegs(samples)  # as long as these live, their shards are there
    assert held(copy) == (5, 5)
    assert [view.tobytes() for view in views] == every
    del views
    assert held(copy) == (2, 2)
    verify(copy)
    del few
    assert held(copy) == (0, 0)


def test_threads_share_a_reader_of_few_shards(copy: Path, data: DataSet) -> None:
    few, samples = open_data(copy, open_shards=1), np.arange(SAMPLES)
    every = [jpeg.tobytes() for jpeg in data.jpegs(samples)]
    found: list[bool] = []

    def read(seed: int) -> None:
        for sample in np.random.default_rng(seed).integers(0, SAMPLES, 200):
            found.append(few.jpegs(np.array([sample]))[0].tobytes() == every[sample])

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 1600


def test_a_shard_is_checked_again_only_if_it_has_changed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    check = store.check_rows
    monkeypatch.setattr(
        store, "check_rows", lambda file, *rest: (checked.append(file.name), check(file, *rest))
    )
    few = open_data(copy, open_shards=1)
    for shard in (0, 1, 0, 1, 0):
        few.shard(shard)
    assert checked == ["shard-00000.h5", "shard-00001.h5"]
    few.shard(1)
    file = copy / "shard-00000.h5"
    write_file(file, file.read_bytes())  # another file with the same content
    assert few.shard(0).jpeg_of(0).tobytes() == jpeg_bytes(0)
    assert checked[2:] == ["shard-00000.h5"]
    few.shard(1)
    write_file(file, (copy / "shard-00002.h5").read_bytes())
    with pytest.raises(DataError, match=r"shard-00000.h5: attribute 'shard' is 2, expected 0"):
        few.shard(0)
    file.unlink()
    with pytest.raises(DataError, match=r"shard-00000.h5: not a readable shard"):
        few.shard(0)


def test_few_open_files_mean_few_shards(folder: Path) -> None:  # noqa: F811
    code = f"""
import resource, numpy, pathlib
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from hpcscale.data import store
hold = [open("/dev/null") for _ in range(22)]
data = store.open_data(pathlib.Path({str(folder)!r}), open_shards=1000)
for sample in range(data.samples):
    data.tag_rows(numpy.arange(sample, sample + 1))
assert store._allowed(1000) == 10
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_more_shards_than_the_limit_of_open_files(folder: Path) -> None:  # noqa: F811
    code = f"""
import resource, numpy, pathlib
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 4096))
from hpcscale.data import store
hold = [open("/dev/null") for _ in range(34)]
data = store.open_data(pathlib.Path({str(folder)!r}))
assert len(data.jpegs(numpy.arange(data.samples))) == {SAMPLES}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
