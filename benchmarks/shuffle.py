"""How well reading in blocks mixes, against the full shuffle, where the source lies as badly as it can.

The source is sorted by class, and each ten pictures one behind the other are of one series. Nothing is read:
the orders are pure functions. docs/data.md shows the tables.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.blocks import blockwise

SERIES = 10  # pictures
BATCHES = 100  # that are looked at
FULL = (1, 1 << 53)  # a window for all: the full shuffle
WAYS = [(1024, 16), (1024, 64), (1024, 1024), (128, 128), (128, 512), (128, 8192), (16, 4096), FULL]


class Source(NamedTuple):
    batch: int  # over all ranks
    counts: NDArray[np.int64]  # samples of each class, one class behind the other  # (classes,)

    @property
    def samples(self) -> int:
        return int(self.counts.sum())


class Mixed(NamedTuple):
    companions: float  # others of its series that a sample meets in its batch
    classes: float  # in a batch
    unlike: float  # half the sum of differences between the class shares of a batch and of the source


def mixed(source: Source, block: int, window: int, batches: int = BATCHES) -> Mixed:
    """Means over batches, spread over one epoch."""
    samples, batch = source.samples, source.batch
    shares, ends = source.counts / samples, np.cumsum(source.counts)
    found = []
    for number in np.linspace(0, samples // batch - 1, batches).astype(np.int64).tolist():
        places = np.arange(number * batch, (number + 1) * batch)
        one = blockwise(places, samples, 1, block, window)
        met = np.unique(one // SERIES, return_counts=True)[1]
        classes = np.bincount(np.searchsorted(ends, one, side="right"), minlength=len(ends))
        unlike = np.abs(classes / batch - shares).sum() / 2
        found.append(((met * (met - 1)).sum() / batch, np.count_nonzero(classes), unlike))
    return Mixed(*np.mean(found, axis=0).tolist())


def expected(samples: int, batch: int, block: int, window: int, distance: int) -> float:
    """Probability that two samples so far apart in the source, less than a block, come in one batch."""
    blocks = samples // block
    if blocks <= window:
        return (batch - 1) / (samples - 1)
    together = 1 - distance / block * (1 - (window - 1) / (blocks - 1))  # in one window
    return together * (batch - 1) / (block * window - 1)


def zipf(samples: int, classes: int) -> NDArray[np.int64]:
    """Samples of each class, as 1 / rank, at least one  # (classes,)"""
    shares = 1 / np.arange(1, classes + 1)
    counts = np.maximum(1, np.floor(samples * shares / shares.sum())).astype(np.int64)
    counts[0] += samples - counts.sum()
    return np.asarray(counts)


def run() -> str:
    sources = {
        "10 million samples of 1,000 equal classes, batch 1,024": Source(1024, np.full(1000, 10_000)),
        "3.5e9 samples of 17,000 classes (Zipf), batch 8,064": Source(8064, zipf(3_500_000_000, 17_000)),
    }
    return "\n".join(_table(title, source) for title, source in sources.items())


def _table(title: str, source: Source) -> str:
    lines = [
        f"## Reading in blocks: {title}",
        "",
        "| block | window | samples mixed | companions of a series of 10 | classes in a batch | unlike |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for block, window in WAYS:
        found = mixed(source, block, window)
        cells = [f"{block:,}", f"{window:,}", f"{block * window:,}"]
        if (block, window) == FULL:
            cells = ["full shuffle", "", f"{source.samples:,}"]
        cells += [f"{found.companions:.2g}", f"{found.classes:,.0f}", f"{found.unlike:.0%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
