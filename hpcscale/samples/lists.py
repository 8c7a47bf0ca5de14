"""Lists of sample ids, one after the other: in memory, or in a file that is read in place.

In: ids from the index (index.py). Out: the id at any place, for the orders of a run. Of a file nothing is
kept in memory and nothing is mapped: every place is one read, so ten samples and 3.5e9 cost a rank the same.
"""

import os
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from hpcscale.data.manifest import DataError


class Ids(Protocol):
    """Sample ids at places from 0 to `length` - 1."""

    @property
    def length(self) -> int: ...
    def take(self, places: NDArray[np.int64], /) -> NDArray[np.int64]:
        """(n,) -> (n,)"""


class Lists(NamedTuple):
    """One list for each class: list c is the places [starts[c], starts[c + 1])."""

    starts: NDArray[np.int64]  # (classes + 1,)
    ids: Ids

    def counts(self) -> NDArray[np.int64]:
        """Samples in each list  # (classes,)"""
        return np.diff(self.starts)


class Held(NamedTuple):
    """Ids in memory."""

    values: NDArray[Any]  # (length,) of an integer type

    @property
    def length(self) -> int:
        return len(self.values)

    def take(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.values[places].astype(np.int64)


class Filed(NamedTuple):
    """Ids that lie end to end in an open file, which is asked once for every place."""

    file: IO[bytes]
    offset: int  # of the first id, in bytes
    length: int
    dtype: np.dtype[Any]
    below: int  # samples of the data set

    def take(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Raises DataError where the file is damaged."""
        if places.size and not 0 <= places.min() <= places.max() < self.length:
            raise IndexError(f"places {places.min()}..{places.max()} outside 0..{self.length - 1}")
        width, number = self.dtype.itemsize, self.file.fileno()
        content = b"".join(os.pread(number, width, self.offset + place * width) for place in places.tolist())
        if len(content) != width * len(places):
            raise DataError(f"{self.file.name}: is cut off; make it again with `hpcscale data index`")
        ids = np.frombuffer(content, self.dtype).astype(np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.below:
            wrong = ids[(ids < 0) | (ids >= self.below)][0]
            raise DataError(
                f"{self.file.name}: names the sample {wrong} of {self.below}; the file is damaged, make it "
                "again with `hpcscale data index`"
            )
        return ids
