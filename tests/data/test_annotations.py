"""Room in shards for what else is known of a picture: boxes, masks, key points."""

import io
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from places import GOLDEN

from hpcscale.data.manifest import manifest_lines, read_plan, shard_name
from hpcscale.data.shard import open_shard, record_digest, write_shard
from hpcscale.data.store import DataError, open_data
from hpcscale.data.upgrade import upgrade
from hpcscale.data.verify import checked_shard, entry_of, verify
from hpcscale.files import write_file

ANNOTATIONS = {"boxes": "<f4", "kinds": "u1"}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(GOLDEN / "format-1", tmp_path / "plain"))
    upgrade(folder)
    return folder


@pytest.fixture
def annotated(plain: Path, tmp_path: Path) -> Path:
    """The four samples of the first shard, alone, with `row` boxes and one kind for row `row`."""
    plan = read_plan(plain)
    shard = open_shard(plain / shard_name(0), plan, 0)
    assert shard.jpeg_digests is not None
    columns = {name: array for name, array in shard._asdict().items() if name not in ("jpeg", "annotations")}
    columns["annotations/boxes"] = np.arange(4 * (0 + 1 + 2 + 3), dtype=np.float32)
    columns["annotations/boxes_offsets"] = 4 * np.array([0, 0, 1, 3, 6])
    columns["annotations/kinds"] = np.arange(4, dtype=np.uint8)
    columns["annotations/kinds_offsets"] = np.arange(5)
    digests = b""
    for row in range(4):
        original = int(shard.source_sizes[row]), shard.source_digests[row].tobytes()
        begin, end = columns["annotations/boxes_offsets"][row : row + 2]
        contents = [columns["annotations/boxes"][begin:end], columns["annotations/kinds"][row : row + 1]]
        name = shard.name_of(row).encode()
        jpeg = shard.jpeg_digests[row].tobytes()
        digests += record_digest(jpeg, shard.tags_of(row), *original, name, contents)
    columns["digests"] = np.frombuffer(digests, np.uint8).reshape(-1, 16)
    plan = plan.model_copy(update={"annotations": ANNOTATIONS, "records": 4})
    folder = tmp_path / "annotated"
    write_file(folder / "plan.json", plan.json_text().encode())
    file = folder / shard_name(0)
    write_shard(file, plan, 0, io.BytesIO(shard.jpeg.tobytes()), columns)
    write_file(
        folder / "manifest.jsonl", manifest_lines([entry_of(file, file, checked_shard(file, plan, 0))])
    )
    write_file(folder / "quarantine.jsonl", b"")
    shutil.copy(plain / "tags.jsonl", folder)
    return folder


def test_there_is_room_for_annotations(annotated: Path, plain: Path) -> None:
    data = open_data(annotated)
    assert verify(annotated) == []
    assert data.plan.digest != open_data(plain).plan.digest
    offsets, values = data.annotations("boxes", np.array([3, 0, 2], np.int64))
    assert (offsets.tolist(), values.dtype) == ([0, 12, 12, 20], np.float32)
    assert values.tolist() == [*range(12, 24), *range(4, 12)]
    offsets, values = data.annotations("kinds", np.array([1], np.int64))
    assert (offsets.tolist(), values.tolist(), values.dtype) == ([0, 1], [1], np.uint8)
    with pytest.raises(DataError, match="no annotations 'masks', there are boxes, kinds"):
        data.annotations("masks", np.arange(1))
    with pytest.raises(DataError, match="no annotations 'boxes', there are none"):
        open_data(plain).annotations("boxes", np.arange(1))


def test_annotations_are_covered_by_the_checksum(annotated: Path) -> None:
    with h5py.File(annotated / "shard-00000.h5", "r+") as shard:
        assert shard["annotations/boxes"].chunks is None
        shard["annotations/boxes"][5] = -1.0
    (problem,) = verify(annotated)
    assert (problem.sample, "tags, name or annotations" in problem.problem) == (2, True)
    with h5py.File(annotated / "shard-00000.h5", "r+") as shard:
        shard["annotations/kinds_offsets"][1] = 5
    with pytest.raises(DataError, match=r"sample 1: annotations/kinds_offsets fall here"):
        open_data(annotated).jpegs(np.arange(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": {"boxes": "<f2"}}, r"annotations\.boxes: Input should be 'u1'"),
        ({"annotations": {"a/b": "u1"}}, "String should match pattern"),
        ({"annotations": {"a_offsets": "u1"}}, "'a_offsets' ends as the names of offsets do"),
        ({"annotations": {"boxes": "<f4"}, "format": 1}, "annotations need format 2"),
    ],
)
def test_annotations_that_cannot_be(annotated: Path, change: dict[str, object], said: str) -> None:
    plan = json.loads((annotated / "plan.json").read_text())
    (annotated / "plan.json").write_text(json.dumps(plan | change))
    with pytest.raises(DataError, match=rf"plan\.json: .*{said}"):
        open_data(annotated)
