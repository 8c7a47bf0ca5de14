"""The order over a list of samples: shuffled anew in every epoch, whole or in blocks.

In: the ids of the samples that are trained on, rising. Out: an `Order` (data/order.py). Orders in which some
samples come more often than others are in sampling.py.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.blocks import blockwise
from hpcscale.data.order import Whole, epoch_keys, permute
from hpcscale.samples.lists import Ids


class Range(NamedTuple):
    """The ids from 0 to `length` - 1, as a list that takes no memory."""

    length: int

    def take(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return places


class Part(NamedTuple):
    """Places [begin, begin + length) of a whole data set: its training part or its held-out part."""

    whole: Whole
    begin: int
    length: int

    def take(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.whole.parts(places + self.begin)


class Listed(NamedTuple):
    """Every sample of a list once an epoch; the turn of a sample is the epoch."""

    ids: Ids
    seed: int
    block: int | None = None  # consecutive samples that are read together; None: every one may be anywhere
    window: int = 1  # blocks that are mixed

    @property
    def length(self) -> int:
        return self.ids.length

    def samples_at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        epochs, indices = np.divmod(positions, np.int64(self.length))
        keys = epoch_keys(self.seed, epochs)
        if self.block is None:
            places = permute(indices, self.length, keys)
        else:
            places = blockwise(indices, self.length, keys, self.block, self.window)
        return self.ids.take(places), epochs
