"""Which sample a batch shows, and which part of it: pure geometry, computed before anything is decoded.

In: the order of samples, the configuration `input`, which step. Out: `Crops`, a row for every sample.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.config import ConfigError, Input
from hpcscale.data.order import Order, below, draws
from hpcscale.data.store import DataSet


class Crops(NamedTuple):
    """What a batch will show, row by row; fed to DALI and kept until the batch is handed out."""

    places: NDArray[np.int64]  # (n,) places in the global sequence
    samples: NDArray[np.int64]  # (n,)
    starts: NDArray[np.int32]  # (n, 2) top and left pixel of the crop
    mirror: NDArray[np.uint8]  # (n,) 0 or 1

    def rows(self, rows: NDArray[np.int64] | slice) -> "Crops":
        return Crops(self.places[rows], self.samples[rows], self.starts[rows], self.mirror[rows])

    def put(self, row: int, other: "Crops") -> None:
        """The only row of `other` in place of a row."""
        self.places[row], self.samples[row] = other.places[0], other.samples[0]
        self.starts[row], self.mirror[row] = other.starts[0], other.mirror[0]


class Steps(NamedTuple):
    """The part of the global sequence that a rank reads: steps [first, first + length).

    Step s holds the places [s * batch, (s + 1) * batch). Rank r of `ranks` gets those from r * batch / ranks
    to (r + 1) * batch / ranks of them, in `parts` batches of equal length.
    """

    first: int
    length: int
    batch: int  # samples of a step over all ranks
    rank: int = 0
    ranks: int = 1
    parts: int = 1

    @property
    def rows(self) -> int:
        """Samples of one batch. Raises ConfigError where they cannot be alike."""
        if self.batch % (self.ranks * self.parts):
            raise ConfigError(
                f"train.batch: {self.batch} samples cannot be divided among {self.ranks} ranks"
                + (f" in {self.parts} parts" if self.parts > 1 else "")
                + "; needs a multiple"
            )
        return self.batch // (self.ranks * self.parts)

    def places(self) -> Iterator[NDArray[np.int64]]:
        """Of each batch in turn  # (rows,)"""
        rows, of_rank = self.rows, self.batch // self.ranks
        first = self.first * self.batch + self.rank * of_rank
        for step in range(first, first + self.length * self.batch, self.batch):
            for start in range(step, step + of_rank, rows):
                yield np.arange(start, start + rows, dtype=np.int64)


Cut = Callable[[NDArray[np.int64]], Crops]  # takes places


def random_crops(data: DataSet, order: Order, input: Input, seed: int) -> Cut:
    """A square of `input.crop` pixels at any place of the picture, mirrored or not: drawn from (seed,
    epoch, sample).

    Raises ConfigError where the sizes do not fit.
    """
    room = side_of(data, input) - input.crop + 1

    def cut(places: NDArray[np.int64]) -> Crops:
        samples, epochs = order.samples_at(places)
        random = draws(seed, epochs, samples, 3)
        starts = np.stack([below(random[:, 0], room), below(random[:, 1], room)], axis=1)
        mirror = random[:, 2] >> 31 if input.mirror else np.zeros(len(places))
        return Crops(places, samples, starts.astype(np.int32), mirror.astype(np.uint8))

    return cut


def centre_crops(data: DataSet, samples: NDArray[np.int64], input: Input) -> Cut:
    """The square of `input.crop` pixels in the middle, never mirrored; places are those in `samples`.

    Raises ConfigError where the sizes do not fit.
    """
    start = (side_of(data, input) - input.crop) // 2

    def cut(places: NDArray[np.int64]) -> Crops:
        n = len(places)
        return Crops(places, samples[places], np.full((n, 2), start, np.int32), np.zeros(n, np.uint8))

    return cut


def side_of(data: DataSet, input: Input) -> int:
    """Side of the square pictures from which crops are taken, pixels. Raises ConfigError where crops do not
    fit, and where pictures are stored at their own sizes and are not resized."""
    stored, resize = data.stored_size, input.resize
    if stored is None and resize is None:
        raise ConfigError(
            f"input.resize: missing, and {data.folder} stores pictures at their own sizes; set it, or ingest "
            "with --resize, which saves the time in training"
        )
    side = resize or stored or 0
    if input.crop > side:
        raise ConfigError(
            f"input.crop: found {input.crop}, but the pictures of {data.folder} "
            f"{'are resized to' if resize else 'are'} {side} x {side}; allowed are 1 to {side}"
        )
    return side
