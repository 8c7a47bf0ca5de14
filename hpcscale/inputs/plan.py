"""What each rank of a run will read, before it runs: bytes, shards, blocks, seconds at a bandwidth.

In: a recipe's order of samples and its data set, of which the manifest is enough. Out: `Reads`, from the very
places that training reads. Bytes are the mean of a sample's shard.
"""

import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale import config
from hpcscale.config import Config
from hpcscale.data.order import Order
from hpcscale.data.store import DataSet
from hpcscale.inputs.crops import Steps, random_crops

STEPS = 100  # that are planned unless told otherwise
AT_ONCE = 1 << 20  # samples
TIMED = 50  # batches


class OfRank(NamedTuple):
    """What one rank reads in the planned steps."""

    rank: int
    samples: int
    bytes: int
    shards: int  # in which its samples lie
    blocks: int  # runs of `data.block` samples in which they lie; without it, samples
    seconds: float | None  # with its share of the bandwidth


class Reads(NamedTuple):
    samples: int  # of an epoch
    steps: int  # that are planned
    bytes: int  # that all ranks read in them
    shards: int  # of the data set in which the samples lie
    shards_open: int  # that one rank reads in one step, at most
    blocks: int  # over all ranks; one that several ranks read counts for each
    seconds: float | None  # of the rank that takes longest
    evenness: float  # bytes of the rank that reads most / the mean of all ranks
    planning_ms: float  # a rank needs to choose samples and crops of a batch, median
    resident_mb: float  # memory of this process when it had done so
    ranks: list[OfRank]


def reads(
    settings: Config,
    data: DataSet,
    order: Order,
    ranks: int,
    steps: int | None = None,
    bandwidth: float | None = None,
) -> Reads:
    """Plan the first steps (without a number: 100, or an epoch if that is shorter) for so many ranks.

    bandwidth: MB/s that all ranks get together, each as much as another. Memory: a few numbers for each rank
    and shard, and for each block that a rank reads. Raises ConfigError where ranks cannot share a batch.
    """
    rows, batch = config.samples_of_rank(settings, ranks), settings.train.batch
    if steps is None:
        steps = min(STEPS, settings.train.steps, -(-order.length // batch))
    planning, memory = _planning(settings, data, order, ranks)
    size, seen, together, blocks = _places(settings, data, order, ranks, steps)
    seconds = size * ranks / (bandwidth * 1e6) if bandwidth else [None] * ranks
    columns = (size.round().astype(np.int64), seen.sum(axis=1), blocks, seconds)
    of_ranks = [
        OfRank(rank, steps * rows, *row)
        for rank, row in enumerate(zip(*(np.asarray(column).tolist() for column in columns), strict=True))
    ]
    return Reads(
        samples=order.length,
        steps=steps,
        bytes=sum(one.bytes for one in of_ranks),
        shards=int(seen.any(axis=0).sum()),
        shards_open=together,
        blocks=int(blocks.sum()),
        seconds=max(one.seconds or 0.0 for one in of_ranks) if bandwidth else None,
        evenness=float(size.max() / size.mean()),
        planning_ms=planning,
        resident_mb=memory,
        ranks=of_ranks,
    )


def lines(found: Reads) -> list[tuple[str, str]]:
    """The same for people: names and values; of the ranks, the least and the most."""
    first = [
        ("samples of an epoch", f"{found.samples:,}"),
        ("planned", f"{found.steps:,} steps for {len(found.ranks):,} ranks"),
        ("all ranks read", f"{found.bytes / 1e6:,.1f} MB in {found.shards:,} shards"),
        ("evenness", f"{found.evenness:.3f} (bytes of the rank that reads most / mean)"),
    ]
    for name, column, unit in (
        ("a rank's samples", [one.samples for one in found.ranks], ""),
        ("a rank's MB", [one.bytes / 1e6 for one in found.ranks], ".1f"),
        ("a rank's shards", [one.shards for one in found.ranks], ""),
        ("a rank's blocks", [one.blocks for one in found.ranks], ""),
        ("a rank's seconds", [one.seconds for one in found.ranks if one.seconds is not None], ".2f"),
    ):
        if column:
            first.append((name, f"{min(column):,{unit}} to {max(column):,{unit}}"))
    return [
        *first,
        ("shards open at once", f"{found.shards_open:,} at most, in one step of a rank"),
        ("planning a batch", f"{found.planning_ms:.3f} ms"),
        ("memory of the planning", f"{found.resident_mb:,.0f} MB"),
    ]


def _places(settings: Config, data: DataSet, order: Order, ranks: int, steps: int) -> tuple[
    NDArray[np.float64], NDArray[np.bool_], int, NDArray[np.int64]
]:  # fmt: skip
    """Of each rank: its bytes (ranks,), whether it reads from a shard (ranks, shards); the most shards of a
    rank in a step; its blocks (ranks,).
    """
    batch, block = settings.train.batch, settings.data.block or 1
    means = np.array([entry.bytes / max(1, entry.samples) for entry in data.entries])
    every, pieces = np.arange(ranks)[:, None], -(-data.samples // block)
    size, seen, together = np.zeros(ranks), np.zeros((ranks, len(means)), bool), 0
    blocks = np.empty(0, np.int64)
    at_once = max(1, AT_ONCE // batch)
    for first in range(0, steps, at_once):
        last = min(steps, first + at_once)
        samples, _ = order.samples_at(np.arange(first * batch, last * batch, dtype=np.int64))
        # As `Steps` has it: of each step, every rank has the samples that follow those of the rank before.
        of_rank = samples.reshape(last - first, ranks, -1).swapaxes(0, 1)  # (ranks, steps, samples)
        shards = np.searchsorted(data.starts, of_rank, side="right") - 1
        size += means[shards].sum(axis=(1, 2))
        seen[every, shards.reshape(ranks, -1)] = True
        shards.sort(axis=2)
        together = max(together, 1 + int((np.diff(shards) > 0).sum(axis=2).max()))
        blocks = np.union1d(blocks, every * pieces + of_rank.reshape(ranks, -1) // block)
    return size, seen, together, np.bincount(blocks // pieces, minlength=ranks)


def _planning(settings: Config, data: DataSet, order: Order, ranks: int) -> tuple[float, float]:
    """The time in ms in which rank 0 plans a batch, as it does in training, and the memory of it in MB."""
    train = settings.train
    side = data.stored_size or settings.input.resize or settings.input.crop
    # Sizes of single pictures lie in the shards, which a plan does not open.
    cut = random_crops(
        data, order, settings.input, train.seed, lambda samples: np.full((len(samples), 2), side, np.int32)
    )
    steps = Steps(0, -(-TIMED // train.accumulate), train.batch, 0, ranks, train.accumulate)
    times = []
    for places in steps.places():
        start = time.perf_counter()
        cut(places)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3, resident()


def resident() -> float:
    """Memory of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS"))
