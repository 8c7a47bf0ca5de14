"""Which picture, or which object of one, when: the order of a dense task's training.

In: the samples that are trained on, a seed. Out: an `Order`, a pure function of the place in an endless
sequence, as in data/order.py.

With `grouped`, pictures of one shape are in a batch together, so that less of it is padding: the places of so
many batches are filled by rising height / width, and these batches then come in a random order. What is
trained on in so many steps stays the same, and so does how often: once an epoch.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.order import Whole, epoch_keys, permute

SHAPES = 0x534841504553  # separates the order of batches from other streams


class Order(NamedTuple):
    ids: NDArray[np.int64]  # (n,) samples, rising
    whole: Whole
    objects: NDArray[np.int64] | None = None  # (n,) one object of each; None: all of a sample
    shapes: NDArray[np.float64] | None = None  # (n,) height / width of each; None: in any order
    grouped: int = 1  # batches that are filled by shape together
    batch: int = 1  # of all ranks

    def at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of `ids` and epochs  # (n,) -> two (n,)"""
        if self.shapes is None:
            return self.whole.samples_at(places)
        length = self.grouped * self.batch
        windows, offsets = np.divmod(places, length)
        rows, epochs = np.empty_like(places), np.empty_like(places)
        for window in np.unique(windows).tolist():
            here = windows == window
            some, turns = self.whole.samples_at(np.arange(window * length, (window + 1) * length))
            sorted_ = np.argsort(self.shapes[some], kind="stable").reshape(self.grouped, self.batch)
            (key,) = epoch_keys(self.whole.seed ^ SHAPES, np.array([window])).tolist()
            chosen = sorted_[permute(np.arange(self.grouped), self.grouped, key)].ravel()[offsets[here]]
            rows[here], epochs[here] = some[chosen], turns[chosen]
        return rows, epochs
