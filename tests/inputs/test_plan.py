"""inputs/plan.py: what each rank will read, against a count of the places that training itself reads."""

from pathlib import Path

import numpy as np
import pytest

from hpcscale.config import Config, ConfigError, check
from hpcscale.data.manifest import Entry, Plan
from hpcscale.data.order import Whole
from hpcscale.data.store import DataSet
from hpcscale.inputs import plan
from hpcscale.inputs.crops import Steps
from hpcscale.samples.orders import Listed, Range

SAMPLES = (70, 0, 130, 5, 95)  # of each shard
SIZES = (700, 64, 26_000, 50, 950)  # bytes


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """Of which there is a manifest and no shard: opening one would fail."""
    entries = [
        Entry(file=f"shard-{k:05}.h5", samples=n, tags=0, untagged=0, quarantined=0, bytes=size, sha256="")
        for k, (n, size) in enumerate(zip(SAMPLES, SIZES, strict=True))
    ]
    made = Plan(source="t", records=300, source_digest="", tags=0, tags_digest="", resize=32, quality=90,
                shard_samples=100, encoder="")  # fmt: skip
    return DataSet(tmp_path, made, entries, ())


def recipe(batch: int, **data: object) -> Config:
    return check(
        Config,
        {
            "data": {"train": "nowhere", "vocabulary": "none", **data},
            "input": {"crop": 32},
            "schedule": {"lr": 1.0},
            "train": {"steps": 1000, "batch": batch, "seed": 3},
        },
        "test",
    )


@pytest.mark.parametrize(
    ("batch", "ranks", "steps", "block"), [(12, 4, 7, 10), (12, 12, 30, None), (6, 1, 2, 7)]
)
def test_every_rank_reads_what_training_reads(
    data: DataSet, batch: int, ranks: int, steps: int, block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "AT_ONCE", 30)  # a few steps at a time
    order = Listed(Range(270), 3, block, 4) if block else Whole(data.samples, 3, held_out=0.1)
    found = plan.reads(recipe(batch, block=block), data, order, ranks, steps, bandwidth=5)
    together = 0
    for rank, one in enumerate(found.ranks):
        samples, shards = [], []
        for places in Steps(0, steps, batch, rank, ranks).places():
            batch_of_rank = order.samples_at(places)[0].tolist()
            of_shards = [int(data.starts.searchsorted(sample, "right")) - 1 for sample in batch_of_rank]
            together = max(together, len(set(of_shards)))
            samples += batch_of_rank
            shards += of_shards
        assert (one.rank, one.samples) == (rank, len(samples))
        assert one.bytes == round(sum(SIZES[shard] / SAMPLES[shard] for shard in shards))
        assert one.shards == len(set(shards))
        assert one.blocks == len({sample // (block or 1) for sample in samples})
        assert one.seconds == pytest.approx(one.bytes * ranks / 5e6, rel=0.01)
    assert found.shards_open == together
    assert found.bytes == sum(one.bytes for one in found.ranks)
    assert found.blocks == sum(one.blocks for one in found.ranks)
    assert found.seconds == max(one.seconds or 0 for one in found.ranks)
    sizes = [one.bytes for one in found.ranks]
    assert found.evenness == pytest.approx(max(sizes) / np.mean(sizes), rel=0.01)
    assert found.samples == order.length == 270
    assert found.shards <= 4
    assert found.planning_ms > 0
    assert found.resident_mb > 1


def test_an_epoch_is_planned_if_it_is_shorter_than_the_steps_of_a_plan(data: DataSet) -> None:
    found = plan.reads(recipe(60), data, Whole(data.samples, 3), 3)
    assert (found.steps, found.shards, found.seconds) == (5, 4, None)
    assert [one.seconds for one in found.ranks] == [None] * 3
    # 300 places: each sample once, so every byte once
    assert found.bytes == pytest.approx(sum(SIZES) - SIZES[1], abs=3)
    assert plan.reads(recipe(1), data, Whole(data.samples, 3), 1).steps == plan.STEPS


def test_ranks_that_cannot_share_a_batch_are_told_what_can(data: DataSet) -> None:
    with pytest.raises(ConfigError, match="choose a multiple of 7"):
        plan.reads(recipe(12), data, Whole(data.samples, 3), 7)
